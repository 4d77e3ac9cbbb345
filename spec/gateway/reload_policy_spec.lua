--- What becomes of open streams when a new version does not want them (`onReload`), or is no good for them.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"

-- Adds its version and the number of the event to what passes.
local function count(version, more)
  return ([[
    local gateway = require "gateway"
    return {
      name = "count", jit = true,
      on_event = function(ctx, _, event)
        ctx.state.n = (ctx.state.n or 0) + 1
        %s
        event.data = event.data .. "/v%d/" .. ctx.state.n
      end,
      on_close = function(ctx, _, reason) ctx:log("info", "v%d closed by " .. reason) end,
    }
  ]]):format(more or "", version, version)
end

-- Is stopped by force alone.
local STUCK = [[ local _ = ("a"):rep(1e5):find((".-"):rep(20) .. "b") ]]

-- Waits for the request that GO gets.
local GO = [[
  local go = require("gateway").shared "go"
  return {
    name = "go",
    access = function(ctx)
      go:set("go", true)
      return ctx:reply(200, "gone")
    end,
  }
]]
local STUCK_TASK = [[
  gateway.spawn(function()
    while gateway.shared("go"):get("go") == nil do gateway.sleep(0.01) end
    ]] .. STUCK .. [[
  end)
]]

-- Sends an event into a stream that wants it when somebody says so.
local LATE = [[
  local late = require("gateway").shared "late"
  return {
    name = "late",
    upgrade = function(state) return state end,
    access = function(ctx)
      if ctx.req.query.go then
        late:set("go", true)
        return ctx:reply(204)
      end
    end,
    on_response = function(ctx)
      if not ctx.req.query.late then return end
      ctx:spawn(function()
        while not late:get "go" do gateway.sleep(0.01) end
        ctx:send { data = "late" }
        ctx:log("info", "the late one is on its way")
      end)
    end,
  }
]]

describe("after a reload", function()
  local server, gw

  before_each(function() server = backend.listen() end)

  after_each(function()
    streams.close_all()
    gateway.stop_all()
    server:close()
  end)

  local function rules(policy)
    return { {
      id = "api", path = "/api", serviceName = "api", plugins = { "count" }, onReload = policy,
    }, { id = "bytes", path = "/bytes/x", serviceName = "api", plugins = { "late" }, onReload = policy } }
  end

  local function start(policy)
    gw = site.start {
      services = { api = server.port }, rules = rules(policy),
      files = { ["plugins/count.lua"] = count(1), ["plugins/late.lua"] = LATE },
      config = { lua = { maxRunTime = "50ms" } },
    }
  end

  local function open() return streams.open(gw, server, { path = "/api" }) end

  local function echo(stream, data)
    stream:send("data: " .. data .. "\n\n")
    local event, how = stream.client:event()
    return event and event.data or how
  end

  local function renew(version, more, changes)
    gw:write("plugins/count.lua", count(version, more))
    local mark = gw:mark()
    gw:renew(changes)
    return mark
  end

  describe("that brings a version that fails", function()
    -- What the first event of a stream does in the new version.
    local FAILURES = {
      raises = "error 'no good'",
      ["does not come back"] = "local forever = true while forever do forever = ctx ~= nil end",
      ["returns nonsense"] = "if true then return 42 end",
      ["raises when it has waited"] = "gateway.sleep(0.01) error 'no good'",
      ["eats memory"] = "if true then return ('x'):rep(2e9) end",
    }

    for how, code in pairs(FAILURES) do
      it("a stream goes back to its old one, and loses nothing: it " .. how, function()
        start()
        local stream, idle = open(), open()
        assert.equal("a/v1/1", echo(stream, "a"))
        local mark = renew(2, code)
        gw:wait_metric("generations", 1)
        assert.equal("b/v1/2", echo(stream, "b"))
        local line = gw:wait_log("rolled back", nil, mark)
        assert.matches("generation=2", line)
        assert.matches("rule=api", line)
        assert.equal(1, gw:metrics().hook_errors_total)
        assert.equal("c/v1/3", echo(stream, "c"))
        gw:wait_metric("generations", 2)
        renew(3)
        gw:wait_metric("generations", 1)
        assert.equal("d/v3/4", echo(stream, "d"))
        assert.equal("x/v3/1", echo(idle, "x"))
        stream:finish()
        assert.equal("ok", stream:logged_end(gw))
        gw:wait_log("v3 closed by ok")
      end)
    end

    it("only the first event counts", function()
      start()
      local stream = open()
      renew(2, "if event.data == 'bad' then error 'no good' end")
      assert.equal("a/v2/1", echo(stream, "a"))
      assert.not_equal("clean", echo(stream, "bad"))
      assert.equal("hook_error", stream:logged_end(gw))
    end)

    it("a stream without events falls back over several versions", function()
      start()
      local stream = open()
      assert.equal("a/v1/1", echo(stream, "a"))
      for version = 2, 4 do
        renew(version, "error 'no good'")
        gw:wait_metric("generations", 1)
      end
      assert.equal("b/v1/2", echo(stream, "b"))
      assert.equal("c/v1/3", echo(stream, "c"))
    end)

    it("a stream of a rule that had no hooks goes on as bytes", function()
      start()
      local plain = rules()
      plain[1].plugins = {}
      gw:renew { rules = plain }
      local stream = open()
      assert.equal("a", echo(stream, "a"))
      gw:write("plugins/count.lua", count(3, "error 'no good'"))
      gw:renew { rules = rules() }
      assert.equal("b", echo(stream, "b"))
      assert.equal("c", echo(stream, "c"))
    end)

    it("the old one may die before it is asked", function()
      start()
      local stream = open()
      local text = count(2):gsub("return {", function(text) return STUCK_TASK .. text end, 1)
      local more = rules()
      more[3] = { id = "go", path = "/go", serviceName = "api", plugins = { "go" } }
      gw:write("plugins/count.lua", text)
      gw:write("plugins/go.lua", GO)
      gw:renew { rules = more }
      assert.equal("a/v2/1", echo(stream, "a"))
      local mark = renew(3, "error 'no good'")
      gw:wait_metric("generations", 1)
      assert.equal("gone", gw:get "/go")
      gw:wait_log("stopped by force", nil, mark)
      assert.not_equal("clean", echo(stream, "b"))
      assert.equal("hook_error", stream:logged_end(gw))
      gw:write("plugins/count.lua", count(4))
      gw:renew()
      gw:wait_metric("generations", 1)
    end)

    it("a version that nothing else uses may die with its last stream", function()
      start()
      local stream = open()
      assert.equal("a/v1/1", echo(stream, "a"))
      renew(2, "if true then " .. STUCK .. " end")
      gw:wait_metric("generations", 1)
      local mark = gw:mark()
      gw:renew { rules = { { id = "bytes", path = "/bytes/x", serviceName = "api" } } }
      gw:wait_log("stays under its old version", nil, mark)
      assert.equal("b/v1/2", echo(stream, "b"))
      gw:wait_log("rolled back", nil, mark)
      gw:wait_metric("generations", 2)
      assert.equal("c/v1/3", echo(stream, "c"))
    end)

    it("a version that nothing else uses may die while it saves", function()
      start()
      gw:renew { config = { lua = { maxRunTime = "20ms" } } }
      local stream = open()
      assert.equal("a/v1/1", echo(stream, "a"))
      -- As text it has no end.
      local text = "local big = {} for i = 1, 40 do big = { big, big } end " .. count(2)
      local upgrade = "upgrade = function(state) state.big = big return state end,"
      gw:write("plugins/count.lua", (text:gsub("jit = true,", function(line) return line .. upgrade end)))
      gw:renew()
      gw:wait_metric("generations", 1)
      local mark = renew(3)
      gw:wait_log("rolled back", nil, mark)
      assert.equal("b/v1/2", echo(stream, "b"))
      gw:wait_metric("generations", 2)
    end)

    it("an upgrade that starts a task and does not come back leaves nothing behind", function()
      start()
      local stream = open()
      assert.equal("a/v1/1", echo(stream, "a"))
      local upgrade = "upgrade = function(_, _, ctx) ctx:timer(0.02, function() end) " .. STUCK .. " end,"
      gw:write("plugins/count.lua", (count(2):gsub("jit = true,", function(text) return text .. upgrade end)))
      local mark = gw:mark()
      gw:renew()
      gw:wait_log("stopped by force", nil, mark)
      gw:wait_metric("generations", 2)
      assert.equal("b/v1/2", echo(stream, "b"))
      local fresh = open()
      assert.equal("a/v2/1", echo(fresh, "a"))
    end)

    it("a stream that was idle without event hooks gets its state back", function()
      local function naming(version, hook)
        return ([[
          local plugin = { name = "count" }
          function plugin.access(ctx) ctx.state.name = ctx.req.query.name end
          %s
          return plugin, %d
        ]]):format(hook, version)
      end
      start()
      gw:write("plugins/count.lua", naming(2, ""))
      gw:renew()
      local stream = streams.open(gw, server, { path = "/api?name=one" })
      gw:write("plugins/count.lua", naming(3, "function plugin.on_event() error 'no good' end"))
      gw:renew()
      gw:wait_metric("generations", 1)
      assert.equal("a", echo(stream, "a"))
      local hook = "function plugin.on_event(ctx, _, event) event.data = tostring(ctx.state.name) end"
      gw:write("plugins/count.lua", naming(4, hook))
      gw:renew()
      gw:wait_metric("generations", 1)
      assert.equal("one", echo(stream, "b"))
    end)

    it("`onError: skip` goes on without it", function()
      start()
      local stream = open()
      local skipping = rules()
      skipping[1].plugins = { { count = {}, onError = "skip" } }
      gw:write("plugins/count.lua", count(2, "error 'no good'"))
      gw:renew { rules = skipping }
      assert.equal("a", echo(stream, "a"))
      gw:wait_metric("generations", 1)
    end)

    it("clients that leave meanwhile leave nothing behind", function()
      start()
      for _ = 1, 20 do open() end
      renew(2, "error 'no good'")
      streams.close_all()
      gw:wait_metric("exchanges", 0)
      renew(3)
      gw:wait_metric("generations", 1)
    end)
  end)

  for _, path in ipairs { "/api", "/bytes/x" } do
    it("with `onReload: pin` streams stay under their version: " .. path, function()
      start "pin"
      local stream = streams.open(gw, server, { path = path })
      local mark = renew(2)
      local before = path == "/api" and "a/v1/1" or "a"
      assert.equal(before, echo(stream, "a"))
      gw:wait_metric("generations", 2)
      assert.same({}, gw:find_log("level=warn", mark)) -- it is as it was asked for
      stream.conn:close()
      gw:wait_metric("generations", 1)
    end)

    it("with `onReload: drain` streams end well and come again: " .. path, function()
      start "drain"
      local list = {}
      for i = 1, 30 do
        list[i] = streams.open(gw, server, { path = path .. (i == 30 and "?late=1" or "") })
      end
      list[30]:send("data: begun") -- to be finished first, where it is on its way to the client already
      if path == "/bytes/x" then
        list[30]:expect("data: begun")
        assert.equal(204, http.fetch(gw.port, "/bytes/x?go=1").status)
        gw:wait_log "the late one is on its way"
      end
      renew(2)
      for i = 1, 29 do
        local rest, how = list[i]:rest(30)
        assert.equal("", rest)
        assert.equal("clean", how)
        assert.equal("ok", list[i]:logged_end(gw))
      end
      if path == "/bytes/x" then
        list[30]:send("\n\ndata: nev")
        local rest, how = list[30]:rest(30)
        assert.equal("\n\ndata: late\n\n", rest)
        assert.equal("clean", how)
      else
        assert.equal("clean", select(2, list[30]:rest(30)))
      end
      gw:wait_metric("generations", 1)
      assert.equal("200", tostring(streams.open(gw, server, { path = path }).client.status))
    end)
  end

  it("with `onReload: drain` streams end whose tasks never do", function()
    local function endless(version)
      return ([[
        return {
          name = "count",
          on_response = function(ctx) ctx:spawn(function() gateway.sleep(1e6) end) end,
          on_event = function(_, _, event) event.id = %d end,
        }
      ]]):format(version)
    end
    start()
    gw:write("plugins/count.lua", endless(1))
    gw:renew()
    local streams_of = { open(), open() }
    gw:write("plugins/count.lua", endless(2))
    gw:renew() -- adopts: they stay where they are as long as their tasks run
    assert.equal("a", echo(streams_of[1], "a"))
    gw:renew { rules = rules "drain" }
    for _, stream in ipairs(streams_of) do
      assert.equal("clean", select(2, stream:rest(30)))
      assert.equal("ok", stream:logged_end(gw))
    end
    gw:wait_metric("generations", 1)
  end)

  it("the new version's word counts", function()
    start "pin"
    local stream = open()
    renew(2, nil, { rules = rules("adopt") })
    gw:wait_metric("generations", 1)
    assert.equal("a/v2/1", echo(stream, "a"))
  end)

  it("other values of `onReload` are refused", function()
    start()
    gw:change { rules = rules("stay") }
    assert.is_nil((gw:reload()))
    gw:wait_log("onReload")
    assert.equal("a/v1/1", echo(open(), "a"))
    assert.is_truthy(http.fetch(gw.admin_port, "/health"))
  end)
end)
