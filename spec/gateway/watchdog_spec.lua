--- A plugin that does not come back, or eats memory without end: its stream or request pays, the process
-- and all other streams go on.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

-- Each runs for ever, in a way of its own.
local ENDLESS = {
  loop = "while true do end",
  caught = "while true do pcall(function() while true do end end) end",
  recursion = "local function f() return f() end f()",
  protected = "local function f() return pcall(f) end while true do f() end",
  coroutines = "while true do coroutine.wrap(function() while true do coroutine.yield() end end)() end",
  metamethods = "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) "
    .. "while true do pcall(function() return t[1] end) end",
  pattern = "local s = ('a'):rep(100000) s:find(('.-'):rep(20) .. 'b')",
  callback = "local s = ('x'):rep(1e6) while true do s:gsub('.', function() end) end",
  concat = "local t = {} for i = 1, 1000 do t[i] = i end while true do table.concat(t) end",
  calls = "while true do pcall(ctx.reply, ctx) end",
  headers = "while true do ctx.req.headers['X-A'] = 'b' end",
  doubles = "local json, x = require('gateway').json, { 1 } for i = 1, 40 do x = { x, x } end json.encode(x)",
  sort = "local t = {} for i = 1, 1e5 do t[i] = i * 7 % 1000 end while true do table.sort(t) end",
}

-- Each takes memory without end.
local GREEDY = {
  table = "local t = {} while true do t[#t + 1] = {} end",
  strings = "local s, kept = 'x', {} while true do s = s .. s kept[#kept + 1] = s end",
  huge = "return ('x'):rep(2e9)",
  buffer = "local b = require('string.buffer').new() while true do b:put(('x'):rep(1000)) end",
  wraps = "local function f() return coroutine.wrap(f)() end f()",
  json = "local json, t = require('gateway').json, {} for i = 1, 2e6 do t[i] = i end "
    .. "local kept = {} while true do kept[#kept + 1] = json.encode(t) end",
  closures = "local f = nil while true do local g = f f = function() return g end end",
  repeats = "event.data = ('x'):rep(1e6) local out = {} for i = 1, 1e4 do out[i] = event end return out",
}

-- Each reaches the bound of memory again and again, and leaves it all to the collector.
local WASTEFUL = {
  decode = "local json, text = require('gateway').json, '[' .. ('{\"a\":1},'):rep(1e6) .. '1]' "
    .. "while true do pcall(json.decode, text) end",
  tables = "while true do pcall(function() local t = {} for i = 1, 4e5 do t[i] = {} end end) end",
}

-- A plugin that does it for an event, or with `?in=access` in the access hook.
local function wild(name, code, jit)
  return ([[
    return {
      name = %q, jit = %s,
      access = function(ctx)
        if ctx.req.query["in"] == "access" then %s end
      end,
      on_event = function(ctx, _, event)
        if event.data == "go" then do %s end end
      end,
      on_close = function(ctx, _, reason) ctx:log("info", "closed by " .. reason) end,
    }
  ]]):format(name, tostring(jit), code, code)
end

-- A stream that counts its events, so that a lost or doubled state would show.
local COUNTING = [[
return {
  name = "counting",
  on_event = function(ctx, _, event)
    ctx.state.n = (ctx.state.n or 0) + 1
    event.id = ctx.state.n
  end,
}
]]

-- One route for each, `_jit` for the plugin that wants to be compiled.
local function start(programs, server, limits)
  local rules = { { id = "counting", path = "/counting", serviceName = "api", plugins = { "counting" } } }
  local files = { ["plugins/counting.lua"] = COUNTING }
  for name, code in pairs(programs) do
    for _, suffix in ipairs { "", "_jit" } do
      local plugin = name .. suffix
      rules[#rules + 1] = { id = plugin, path = "/" .. plugin, serviceName = "api", plugins = { plugin } }
      files["plugins/" .. plugin .. ".lua"] = wild(plugin, code, suffix ~= "")
    end
  end
  return site.start {
    services = { api = server.port }, rules = rules, files = files, config = { lua = limits },
  }
end

describe("a plugin that does not come back", function()
  local server, gw, why

  setup(function() server = backend.listen() end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  -- After a stop by force the state of the others has begun anew, and only then.
  local function ends(name)
    local worker = gw:workers()[1]
    local mark, errors = gw:mark(), gw:metrics().hook_errors_total
    local other = streams.open(gw, server, { path = "/counting" })
    other:send("data: a\n\n")
    other:expect("id: 1\ndata: a\n\n")
    local stream = streams.open(gw, server, { path = "/" .. name })
    stream:send("data: before\n\n")
    stream:expect("data: before\n\n")
    stream:send("data: go\n\ndata: never\n\n")
    local rest, how = stream:rest()
    assert.equal("", rest)
    assert.not_equal("clean", how)
    local line = gw:wait_log("level=error", nil, mark)
    assert.matches("rule=" .. name, line)
    assert.matches(why, line)
    local forced = line:find("by force", 1, true)
    assert.matches("closed by hook_error", gw:wait_log("closed by", nil, mark))
    if forced then assert.matches(('hook="%s on_event"'):format(name), line) end
    assert.is_true(gw:metrics().hook_errors_total > errors)
    other:send("data: b\n\n")
    other:expect(("id: %d\ndata: b\n\n"):format(forced and 1 or 2))
    assert.equal(worker, gw:workers()[1])
  end

  local function refuses(name)
    local client = http.connect(gw.port)
    client:send(http.format { path = "/" .. name .. "?in=access" })
    assert.equal(500, client:response().status)
  end

  for _, case in ipairs {
    { what = "runs for ever", programs = ENDLESS, limits = { maxRunTime = "30ms" }, why = "maxRunTime" },
    {
      what = "eats memory", programs = GREEDY, limits = { maxMemory = "24MiB", maxRunTime = 0 },
      why = "maxMemory",
    },
    {
      what = "wastes memory for ever", programs = WASTEFUL,
      limits = { maxMemory = "48MiB", maxRunTime = "100ms" }, why = "stopped",
    },
  } do
    describe(case.what, function()
      setup(function()
        why = case.why
        gw = start(case.programs, server, case.limits)
      end)

      teardown(function() gw:stop() end)

      for name in pairs(case.programs) do
        for _, suffix in ipairs { "", "_jit" } do
          it("ends its stream: " .. name .. suffix, function() ends(name .. suffix) end)
          it("gets a 500: " .. name .. suffix, function() refuses(name .. suffix) end)
        end
      end
    end)
  end

  describe("when its VM is replaced", function()
    local PLUGIN = [[
      local gateway = require "gateway"
      return {
        name = "stuck",
        access = function(ctx)
          if ctx.req.query.stick then ("a"):rep(1e5):find((".-"):rep(20) .. "b") end
          ctx.state.name = ctx.req.query.name
        end,
        on_event = function(ctx, _, event)
          if event.data == "wait" then gateway.sleep(0.05) end
          if event.data == "forever" then gateway.sleep(1e6) end
          event.id = ctx.state.name or "nobody"
        end,
        on_close = function(ctx, _, reason) ctx:log("info", "closed by " .. reason) end,
      }
    ]]

    local MANY = [[
      return {
        name = "many",
        on_events = function(_, _, events)
          if #events > 2 then gateway.sleep(1e6) end
          for i, event in ipairs(events) do event.id = i .. "/" .. #events end
        end,
      }
    ]]

    setup(function()
      gw = site.start {
        services = { api = server.port },
        files = { ["plugins/stuck.lua"] = PLUGIN, ["plugins/many.lua"] = MANY },
        rules = {
          { id = "stuck", path = "/stuck", serviceName = "api", plugins = { "stuck" } },
          { id = "many", path = "/many", serviceName = "api", plugins = { "many" } },
        },
        config = { lua = { maxRunTime = "30ms" } },
      }
    end)

    teardown(function() gw:stop() end)

    local function stick()
      local client = http.connect(gw.port)
      client:send(http.format { path = "/stuck?stick=1" })
      assert.equal(500, client:response().status)
      client:close()
    end

    it("lets hooks that wait begin anew, and loses no event", function()
      local one = streams.open(gw, server, { path = "/stuck?name=one" })
      one:send("data: a\n\n")
      one:expect("id: one\ndata: a\n\n")
      one:send("data: wait\n\ndata: b\n\n")
      stick()
      one:expect("id: nobody\ndata: wait\n\nid: nobody\ndata: b\n\n")
      one:finish()
      assert.equal("ok", one:logged_end(gw))
      gw:wait_log("closed by ok")
    end)

    it("loses none of many events that a hook thought about", function()
      local one = streams.open(gw, server, { path = "/many" })
      local events = gw:metrics().events_total
      one:send("data: a\n\ndata: b\r\n\r\ndata: c\n\n")
      gw:wait_metric("events_total", events + 3)
      stick()
      one:expect("id: 1/1\ndata: a\n\nid: 1/2\ndata: b\n\nid: 2/2\ndata: c\n\n")
      assert.equal(events + 3, gw:metrics().events_total)
      one:finish()
      gw:wait_log("msg=request .* events=3 ")
    end)

    it("drops a wait whose client leaves meanwhile", function()
      local one = streams.open(gw, server, { path = "/stuck?name=one" })
      one:send("data: forever\n\n")
      stick()
      one.conn:close()
      assert.equal("client_gone", one:logged_end(gw))
      gw:wait_metric("exchanges", 0)
    end)

    it("keeps to its memory", function()
      local worker = gw:workers()[1]
      local function times(n)
        for _ = 1, n do stick() end
        local last = streams.open(gw, server, { path = "/stuck" }) -- served by the VM that stays
        last:send("data: x\n\n")
        last:expect("id: nobody\ndata: x\n\n")
        last.conn:close()
        gw:wait_metric("exchanges", 0)
        return site.memory(worker)
      end
      local before = times(10)
      local after = times(60)
      assert.equal(worker, gw:workers()[1])
      if not site.sanitized then assert.is_true(after < before + 2048, before .. " KiB, then " .. after) end
    end)
  end)

  it("gives back what LuaJIT has compiled", function()
    gw = site.start {
      services = { api = server.port },
      files = { ["plugins/eater.lua"] = [[return {
        name = "eater", jit = true,
        access = function(ctx)
          local t = {}
          for i = 1, 1000 do t[i % 10] = { i } end
          if ctx.req.query.stick then ("a"):rep(1e5):find((".-"):rep(20) .. "b") end
          return ("x"):rep(2e9)
        end,
      }]] },
      rules = { { id = "eater", path = "/", serviceName = "api", plugins = { "eater" } } },
      config = { lua = { maxMemory = "8MiB", maxRunTime = "50ms" } },
    }
    local worker = gw:workers()[1]
    local function compiled()
      local bytes = 0
      for line in io.lines("/proc/" .. worker .. "/maps") do
        local from, to, rest = line:match("^(%x+)%-(%x+) r.xp(.*)")
        if rest and not rest:find("[/%[]") then bytes = bytes + tonumber(to, 16) - tonumber(from, 16) end
      end
      return bytes
    end
    local function times(n, path)
      for _ = 1, n do assert.equal(500, http.fetch(gw.port, path).status) end
      return compiled()
    end
    local before, limit = times(3, "/"), 256 * 1024
    assert.is_true(times(12, "/") <= before + limit, "compiled code stays")
    before = times(3, "/?stick=1") -- with these it does, and they are the last that compile
    assert.is_true(times(12, "/?stick=1") <= before + limit, "VMs go on compiling")
    assert.equal(30, #gw:find_log("by force"))
    gw:wait_log("without the JIT")
    gw:stop()
  end)

  describe("at the end of an exchange", function()
    -- While the file `hold` is there, the plugin can't be loaded.
    local CLOSING = [[
      local dir = %q
      local hold = io.open(dir .. "/hold")
      if hold then
        hold:close()
        local fifo = io.open(dir .. "/fifo")
        io.open(dir .. "/reading", "w"):close()
        fifo:read("*a")
      end
      return {
        name = "closing",
        access = function(ctx)
          if ctx.req.query.stick then ("a"):rep(1e5):find((".-"):rep(20) .. "b") end
        end,
        on_close = function(ctx, _, reason)
          ctx:log("info", "outer sees " .. ctx.req.path .. " closed by " .. reason)
        end,
      }
    ]]
    local STICKING = [[
      return {
        name = "sticking",
        on_close = function(ctx) ("a"):rep(1e5):find((".-"):rep(20) .. "b") end,
      }
    ]]

    before_each(function()
      local dir = os.tmpname()
      os.remove(dir)
      assert(os.execute("mkdir " .. dir .. " && mkfifo " .. dir .. "/fifo"))
      gw = site.start {
        services = { api = server.port },
        files = { ["plugins/closing.lua"] = CLOSING:format(dir), ["plugins/sticking.lua"] = STICKING },
        rules = {
          { id = "closing", path = "/closing", serviceName = "api", plugins = { "closing" } },
          { id = "both", path = "/both", serviceName = "api", plugins = { "closing", "sticking" } },
        },
        config = { lua = { maxRunTime = "30ms", open = { "io" } } },
      }
      gw.hold = dir
    end)

    after_each(function()
      streams.close_all()
      os.execute("rm -r " .. gw.hold)
      gw:stop()
    end)

    it("on_close waits until its VM is there again", function()
      local left = streams.open(gw, server, { path = "/closing" })
      local ended = streams.open(gw, server, { path = "/closing" })
      local fifo = assert(io.open(gw.hold .. "/fifo", "r+"))
      assert(io.open(gw.hold .. "/hold", "w")):close()
      local mark = gw:mark()
      local client = http.connect(gw.port)
      client:send(http.format { path = "/closing?stick=1" })
      gw:wait_log("by force", nil, mark)
      left.conn:close()
      ended:finish()
      assert.equal("eof", (left.origin.conn:wait_end())) -- whatever its hooks wait for
      assert.same({}, gw:find_log("closed by", mark))
      sys.wait_until(function() return io.open(gw.hold .. "/reading") end, site.PATIENCE)
      os.remove(gw.hold .. "/hold")
      fifo:close()
      gw:wait_metric("exchanges", 0)
      client:close()
      assert.equal(1, #gw:find_log("closed by client_gone", mark))
      assert.equal(1, #gw:find_log("closed by ok", mark))
      assert.equal("ok", ended:logged_end(gw))
    end)

    it("one that takes its VM along does not keep the others from running", function()
      local mark = gw:mark()
      local stream = streams.open(gw, server, { path = "/both" })
      stream:finish()
      assert.equal("ok", stream:logged_end(gw))
      assert.equal(1, #gw:find_log("by force", mark))
      assert.equal(1, #gw:find_log("outer sees /both closed by ok", mark))
    end)
  end)

  it("a task that every version starts, and that never ends, starts again later and later", function()
    gw = site.start {
      services = { api = server.port },
      files = { ["plugins/eager.lua"] = [[
        gateway.spawn(function()
          gateway.spawn(function() ("a"):rep(1e5):find((".-"):rep(20) .. "b") end)
        end)
        return { name = "eager", access = function(ctx) return ctx:reply(200, "fine") end }
      ]] },
      rules = { { id = "eager", path = "/", plugins = { "eager" }, serviceName = "api" } },
      config = { lua = { maxRunTime = "30ms" } },
    }
    local marks, mark = {}, 0
    for i = 1, 4 do
      local line = gw:wait_log("by force", nil, mark)
      assert.matches('hook="eager gateway.spawn"', line)
      local hour, minute, second = line:match("T(%d+):(%d+):([%d.]+)Z")
      marks[i] = (hour * 60 + minute) * 60 + second
      for at, other in ipairs(gw:log()) do
        if other == line then mark = at end
      end
      assert.equal("fine", gw:get "/")
    end
    assert.is_true((marks[4] - marks[1]) % 86400 >= 0.1 + 0.2 + 0.4)
    gw:stop()
  end)

  describe("beside hooks", function()
    local function plugin(code)
      return ([[
        local gateway = require "gateway"
        local function stick() ("a"):rep(1e5):find((".-"):rep(20) .. "b") end
        local function loop() while true do end end
        return {
          name = "busy",
          access = function(ctx)
            local todo = ctx.req.query.todo
            if todo == "spawn loop" then gateway.spawn(loop) end
            if todo == "spawn stick" then gateway.spawn(stick) end
            if todo == "timer stick" then gateway.timer(0.01, stick) end
            if todo == "ctx loop" then ctx:spawn(loop) end
            if todo == "ctx stick" then ctx:spawn(stick) end
          end,
          on_event = function(ctx, _, event) ctx.state.n = (ctx.state.n or 0) + 1 event.id = ctx.state.n end,
          %s
        }
      ]]):format(code or "")
    end

    before_each(function()
      gw = site.start {
        services = { api = server.port }, files = { ["plugins/busy.lua"] = plugin() },
        rules = { { id = "busy", path = "/busy", serviceName = "api", plugins = { "busy" } } },
        config = { lua = { maxRunTime = "30ms" } },
      }
    end)

    after_each(function()
      streams.close_all()
      gw:stop()
    end)

    local function goes_on(stream, n)
      stream:send("data: x\n\n")
      stream:expect(("id: %d\ndata: x\n\n"):format(n))
    end

    for todo, line in pairs {
      ["spawn%20loop"] = "maxRunTime", ["spawn%20stick"] = "by force", ["timer%20stick"] = "by force",
      ["ctx%20loop"] = "maxRunTime", ["ctx%20stick"] = "by force",
    } do
      it("a task is stopped, and streams go on: " .. todo, function()
        local worker = gw:workers()[1]
        local other = streams.open(gw, server, { path = "/busy" })
        goes_on(other, 1)
        local own = streams.open(gw, server, { path = "/busy?todo=" .. todo })
        gw:wait_log(line)
        goes_on(own, 1)
        goes_on(other, line == "by force" and 1 or 2)
        assert.equal(worker, gw:workers()[1])
      end)
    end

    it("an upgrade that hangs leaves streams under their version", function()
      local one = streams.open(gw, server, { path = "/busy" })
      local two = streams.open(gw, server, { path = "/busy" })
      goes_on(one, 1)
      goes_on(two, 1)
      gw:write("plugins/busy.lua", plugin [[upgrade = function(state, _, ctx)
        ctx:spawn(function() gateway.sleep(1e6) end)
        gateway.spawn(function() gateway.sleep(1e6) end)
        if state.n == 1 then stick() end
      end]])
      gw:renew()
      goes_on(one, 2)
      goes_on(two, 2)
      gw:wait_log("by force")
    end)

    it("what it caught in an on_close is told, and other hooks run", function()
      gw:write("plugins/busy.lua", plugin [[on_close = function(ctx) ctx:log("info", "closing") loop() end]])
      gw:renew()
      local one = streams.open(gw, server, { path = "/busy" })
      goes_on(one, 1)
      one:finish()
      assert.equal("ok", one:logged_end(gw))
      gw:wait_log("hook=on_close")
    end)
  end)

  describe("when its VM is replaced before there is a rule, or under one that a hook has made", function()
    local OUTER = [[
      local function pause(ctx, where)
        if ctx.req.query.at ~= where then return end
        gateway.log.info("waits in " .. where)
        gateway.sleep(0.2)
      end
      return {
        name = "outer",
        route = function(ctx)
          if ctx.req.query.stick then ("a"):rep(1e5):find((".-"):rep(20) .. "b") end
          pause(ctx, "route")
          if ctx.req.query.made then return { id = "made", path = "/made", serviceName = "api" } end
        end,
        on_response = function(ctx)
          if ctx.req.query.late then ("a"):rep(1e5):find((".-"):rep(20) .. "b") end
          ctx.res.headers["X-Seen"] = "yes"
          pause(ctx, "response")
        end,
      }
    ]]

    setup(function()
      gw = site.start {
        services = { api = server.port }, files = { ["plugins/outer.lua"] = OUTER },
        rules = { { id = "any", path = "/any", serviceName = "api" } },
        config = { lua = { maxRunTime = "30ms" }, plugins = { "outer" } },
      }
    end)

    teardown(function() gw:stop() end)

    local function ask(path)
      local client = http.connect(gw.port)
      client:send(http.format { path = path })
      return client
    end

    it("who asked gets an answer, and the others' plugins see theirs", function()
      local mark = gw:mark()
      local waiting = ask "/any?at=route"
      gw:wait_log("waits in route", nil, mark)
      local stuck = ask("/any?stick=1"):response()
      assert.equal(500, stuck.status)
      assert.equal("yes", stuck:get "X-Seen")
      server:request():ok "fine"
      assert.equal(200, waiting:response().status)
    end)

    it("a response hook that was stopped is not asked about that", function()
      local mark = gw:mark()
      local client = ask "/any?late=1"
      server:request():ok "fine"
      assert.equal(500, client:response().status)
      assert.equal(1, #gw:find_log("stopped by force", mark))
      client = ask "/any?late=1&stick=1"
      assert.equal(500, client:response().status)
      assert.equal(3, #gw:find_log("stopped by force", mark))
    end)

    it("a rule that is not there any more is an error, once", function()
      local mark = gw:mark()
      local waiting = ask "/any?made=1&at=response"
      server:request():ok "fine"
      gw:wait_log("waits in response", nil, mark)
      assert.equal(500, ask("/any?stick=1"):response().status)
      assert.equal(500, waiting:response().status)
      assert.equal(1, #gw:find_log("rule=made .*route made is not there", mark))
    end)
  end)
end)
