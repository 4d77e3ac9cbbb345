--- Changed files: what is taken up by HUP and by itself, however it was written, and what a mistake does.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

-- A plugin that answers with its own version, its helper's and its setting.
local function answer(version)
  return ([[
local words = require "words"
local plugin = { name = "answer", schema = { note = { type = "string", default = "" } } }

function plugin.access(ctx, conf)
  return ctx:reply(200, ("plugin %d, helper %%s, note %%s"):format(words.version, conf.note))
end

return plugin
]]):format(version)
end

local function helper(version)
  return ("return { version = %q }\n"):format(version)
end

local function route(version)
  return ([[
return { { id = "lua", path = "/lua", access = function(ctx) return ctx:reply(200, "route %d") end } }
]]):format(version)
end

-- A rule whose plugin answers: its backend is never asked.
local function rule(id, ...)
  return { id = id, path = "/" .. id, serviceName = "nobody", plugins = { ... } }
end

local function rules(note)
  return { rule("yaml", { answer = { note = note } }) }
end

local function options(more)
  local all = {
    services = { nobody = 1 },
    rules = rules "1",
    config = { router = { lua = { "routes/*.lua" } } },
    files = {
      ["plugins/answer.lua"] = answer(1),
      ["plugins/words.lua"] = helper "1",
      ["conf/routes/a.lua"] = route(1),
    },
  }
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

-- Changes that a gateway with those options can take up: the file, its text, and what is answered then.
local CHANGES = {
  {
    what = "the configuration",
    make = function(gw) gw:change { rules = rules "2" } end,
    path = "/yaml", before = "plugin 1, helper 1, note 1", after = "plugin 1, helper 1, note 2",
  },
  {
    what = "a plugin",
    make = function(gw) gw:write("plugins/answer.lua", answer(2)) end,
    path = "/yaml", before = "plugin 1, helper 1, note 1", after = "plugin 2, helper 1, note 1",
  },
  {
    what = "a helper module of a plugin",
    make = function(gw) gw:write("plugins/words.lua", helper "2") end,
    path = "/yaml", before = "plugin 1, helper 1, note 1", after = "plugin 1, helper 2, note 1",
  },
  {
    what = "a Lua route",
    make = function(gw) gw:write("conf/routes/a.lua", route(2)) end,
    path = "/lua", before = "route 1", after = "route 2",
  },
}

describe("a reload takes up", function()
  after_each(function()
    gateway.stop_all()
  end)

  for _, change in ipairs(CHANGES) do
    it(change.what .. ", on HUP", function()
      local gw = site.start(options())
      assert.equal(change.before, gw:get(change.path))
      change.make(gw)
      assert.equal(2, gw:renew())
      assert.equal(change.after, gw:get(change.path))
    end)

    it(change.what .. ", by itself", function()
      local gw = site.start(options())
      change.make(gw)
      gw:wait_answer(change.path, change.after)
    end)
  end

  it("what is there on HUP even when nothing has changed", function()
    local gw = site.start(options())
    assert.same({ 2, 3 }, { gw:renew(), gw:renew() })
  end)

  it("instances: new requests go to them", function()
    local old, new = backend.listen(), backend.listen()
    local gw = site.start {
      services = { api = old.port }, rules = { { id = "api", path = "/*", serviceName = "api" } },
    }
    local function served_by(server)
      local conn = http.connect(gw.port)
      conn:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
      server:request():ok "here"
      assert.equal("here", (conn:response():body()))
    end
    served_by(old)
    gw:renew { services = { api = new.port } }
    served_by(new)
    gw:renew { services = { api = { old.port, new.port } } }
    served_by(old)
    served_by(new)
    old:close()
    new:close()
  end)

  it("a rule's going: its path is unknown then", function()
    local gw = site.start(options())
    gw:renew { rules = {} }
    assert.equal(404, http.fetch(gw.port, "/yaml").status)
    assert.equal("route 1", gw:get "/lua")
  end)
end)

describe("a change is noticed by itself", function()
  local gw

  before_each(function()
    gw = site.start(options())
  end)

  after_each(function()
    gateway.stop_all()
  end)

  it("when an editor writes in place", function()
    gw:put("plugins/words.lua", helper "2")
    gw:wait_answer("/yaml", "plugin 1, helper 2, note 1")
    gw:put("conf/routes/a.lua", route(2))
    gw:wait_answer("/lua", "route 2")
    gw:put("conf/gateway.yaml", (assert(io.open(gw.conf)):read("*a"):gsub('"note": "1"', '"note": "2"')))
    gw:wait_answer("/yaml", "plugin 1, helper 2, note 2")
  end)

  it("when an editor moves the old file away, writes a new one and removes the old one", function()
    gw:rename("plugins/answer.lua", "plugins/answer.lua~")
    gw:put("plugins/answer.lua", answer(2))
    gw:remove "plugins/answer.lua~"
    gw:wait_answer("/yaml", "plugin 2, helper 1, note 1")
  end)

  it("when a file is made elsewhere and linked in", function()
    gw:put("new.lua", route(2))
    os.execute(("ln -f '%s/new.lua' '%s/conf/routes/a.lua'"):format(gw.dir, gw.dir))
    gw:remove "new.lua"
    gw:wait_answer("/lua", "route 2")
  end)

  it("when a file is put into a folder of routes, and when it is removed again", function()
    gw:put("conf/routes/b.lua", (route(2):gsub("/lua", "/more"):gsub('"lua"', '"more"')))
    gw:wait_answer("/more", "route 2")
    assert.equal("route 1", gw:get "/lua")
    gw:remove "conf/routes/a.lua"
    sys.wait_until(function() return http.fetch(gw.port, "/lua").status == 404 end, site.PATIENCE, "404")
    assert.equal("route 2", gw:get "/more")
  end)

  it("when a plugin that the configuration misses is put into the folder", function()
    local mark = gw:mark()
    gw:change { rules = { rule("yaml", "late") } }
    assert.matches("reload failed", gw:wait_reload(mark))
    assert.equal("plugin 1, helper 1, note 1", gw:get "/yaml")
    gw:put("plugins/late.lua", (answer(3):gsub('"answer"', '"late"')))
    gw:wait_answer("/yaml", "plugin 3, helper 1, note ")
  end)

  it("when a plugin comes to lie in an earlier folder, and when that folder is not there at first", function()
    gw:renew { config = { pluginPath = { "../early", "../plugins" } } }
    gw:write("early/words.lua", helper "early")
    gw:wait_answer("/yaml", "plugin 1, helper early, note 1")
    gw:remove "early/words.lua"
    gw:wait_answer("/yaml", "plugin 1, helper 1, note 1")
  end)

  it("when the whole folder is exchanged", function()
    os.execute(("cp -R '%s/plugins' '%s/next'"):format(gw.dir, gw.dir))
    gw:put("next/answer.lua", answer(2))
    gw:rename("plugins", "old")
    gw:rename("next", "plugins")
    gw:wait_answer("/yaml", "plugin 2, helper 1, note 1")
    gw:put("plugins/answer.lua", answer(3))
    gw:wait_answer("/yaml", "plugin 3, helper 1, note 1")
  end)

  it("when a link is pointed elsewhere, and when the file that it points to changes", function()
    local function link(to, from)
      os.execute(("ln -sfn '%s' '%s/%s'"):format(to, gw.dir, from))
    end
    gw:write("v1/words.lua", helper "v1")
    gw:write("v2/words.lua", helper "v2")
    link("v1", "live")
    link("../live/words.lua", "plugins/words.lua")
    gw:wait_answer("/yaml", "plugin 1, helper v1, note 1")
    gw:renew() -- all that was noticed has been looked at
    link("v2", "live")
    gw:wait_answer("/yaml", "plugin 1, helper v2, note 1")
    gw:put("v2/words.lua", helper "v2b")
    gw:wait_answer("/yaml", "plugin 1, helper v2b, note 1")
  end)
end)

describe("watching", function()
  local server, gw

  before_each(function()
    server = backend.listen()
    gw = site.start(options {
      services = { api = server.port, nobody = 1 },
      rules = { { id = "bytes", path = "/bytes/*", serviceName = "api" }, rules("1")[1] },
      config = { router = { lua = { "routes/*.lua" } }, frontend = { sse = { keepaliveTimeout = 0.05 } } },
    })
  end)

  after_each(function()
    streams.close_all()
    gateway.stop_all()
    server:close()
  end)

  -- Two and a half quiet periods have passed when this returns, by the gateway's own clock.
  local function let_it_look()
    local stream = streams.open(gw, server)
    stream:expect((":keepalive\n\n"):rep(5))
    stream.conn:close()
  end

  local function reloads()
    return #gw:find_log "msg=reloaded" + #gw:find_log 'msg="reload failed"'
  end

  it("takes many writes together", function()
    for i = 2, 200 do gw:put("plugins/words.lua", helper(tostring(i))) end
    gw:wait_log "msg=reloaded"
    let_it_look()
    assert.equal("plugin 1, helper 200, note 1", gw:get "/yaml")
    assert.is_true(reloads() < 20, reloads() .. " reloads for 199 writes")
  end)

  it("does not look at a file that is still being written", function()
    local file = assert(io.open(gw.dir .. "/plugins/words.lua", "w"))
    file:write "return {"
    file:flush()
    let_it_look()
    assert.equal(0, reloads())
    file:write ' version = "2" }'
    file:close()
    gw:wait_log "msg=reloaded"
    assert.equal("plugin 1, helper 2, note 1", gw:get "/yaml")
    assert.equal(1, reloads())
  end)

  it("does not look at a new file that is still being written", function()
    gw:rename("plugins/words.lua", "plugins/words.bak")
    local file = assert(io.open(gw.dir .. "/plugins/words.lua", "w"))
    file:write "return { version ="
    file:flush()
    let_it_look()
    file:write '"2" }'
    file:close()
    gw:wait_log "msg=reloaded"
    assert.equal("plugin 1, helper 2, note 1", gw:get "/yaml")
  end)

  it("is not stirred by files that are none of ours, nor by a file that was only touched", function()
    gw:put("plugins/words.lua", helper "1")
    gw:put("plugins/answer.lua", answer(1))
    gw:put("conf/routes/a.lua", route(1))
    let_it_look()
    gw:put("conf/gateway.yaml.swp", "?")
    gw:put("plugins/notes.txt", "?")
    let_it_look()
    assert.equal(0, reloads())
  end)
end)

local BROKEN = {
  ["YAML that can't be read"] = { "conf/gateway.yaml", "router: [", "gateway%.yaml:%d+:%d+: " },
  ["an unknown key"] = { "conf/gateway.yaml", "rooter: {}", "unknown key.*router" },
  ["a plugin with a syntax error"] = { "plugins/answer.lua", "local = 1", "answer%.lua:1: " },
  ["a plugin that raises"] = { "plugins/answer.lua", "error 'boom'", "answer%.lua:1: boom" },
  ["a plugin that returns nothing"] = { "plugins/answer.lua", "local x = 1", "must return a table" },
  ["a plugin whose new raises"] = {
    "plugins/answer.lua", "return { name = 'answer', new = function() error 'no way' end }", "no way",
  },
  ["a plugin that is gone"] = { "plugins/answer.lua", nil, "unknown plugin" },
  ["a helper module with a syntax error"] = { "plugins/words.lua", "return {", "words%.lua:1: " },
  ["a Lua route that returns nonsense"] = { "conf/routes/a.lua", "return 7", "routes/a%.lua: " },
  ["a Lua route with an unknown key"] = {
    "conf/routes/a.lua", "return { { id = 'x', path = '/x', serviceName = 'nobody', colour = 1 } }", "colour",
  },
  ["a Lua route that raises"] = { "conf/routes/a.lua", "error 'boom'", "a%.lua:1: boom" },
}

describe("a broken file", function()
  local gw

  setup(function()
    gw = site.start(options { workers = 2 })
  end)

  teardown(function()
    gateway.stop_all()
  end)

  local function serves_as_before()
    assert.equal("plugin 1, helper 1, note 1", gw:get "/yaml")
    assert.equal("route 1", gw:get "/lua")
  end

  for what, case in pairs(BROKEN) do
    it("changes nothing, says why once, and is taken up when it is mended: " .. what, function()
      local path, text, message = case[1], case[2], case[3]
      local good = assert(io.open(gw.dir .. "/" .. path)):read "*a"
      local mark = gw:mark()
      if text then gw:write(path, text) else gw:remove(path) end
      local outcome = gw:wait_reload(mark)
      serves_as_before()
      if text then gw:write(path, text) end -- saved once more: nothing new to say
      local mended = gw:mark()
      gw:write(path, good)
      gw:wait_taken_up(mended)
      serves_as_before()
      local said = gw:find_log("msg=configuration", mark)
      assert.equal(1, #said, table.concat(said, "\n"))
      assert.matches(message, said[1])
      assert.matches("reload failed", outcome)
    end)
  end

  it("is told of again on HUP", function()
    local mark = gw:mark()
    gw:write("plugins/words.lua", "return {")
    gw:wait_reload(mark)
    assert.is_nil(gw:reload())
    assert.equal(2, #gw:find_log("msg=configuration", mark))
    mark = gw:mark()
    gw:put("plugins/words.lua", helper "1")
    gw:wait_taken_up(mark)
  end)

  it("has all its mistakes told", function()
    local mark = gw:mark()
    gw:change { rules = { { id = "yaml", path = "yaml", serviceName = "nobody", colour = "red" } } }
    gw:wait_reload(mark)
    assert.equal(2, #gw:find_log("msg=configuration", mark))
    gw:renew { rules = rules "1" }
  end)

  it("counts, as good ones do", function()
    gw:renew()
    gw:change { rules = "?" }
    assert.is_nil(gw:reload())
    gw:renew { rules = rules "1" }
    local counted = gw:metrics()
    assert.equal(#gw:find_log "msg=reloaded", counted.reloads_total)
    assert.equal(#gw:find_log 'msg="reload failed"', counted.reloads_failed_total)
  end)
end)

describe("when a version fails in some worker", function()
  after_each(function()
    gateway.stop_all()
  end)

  local function picky(version, condition)
    return ([[
local gateway = require "gateway"
local plugin = { name = "picky" }

function plugin.new()
  if %s then error "not here" end
end

function plugin.access(ctx)
  return ctx:reply(200, "version %d")
end

return plugin
]]):format(condition, version)
  end

  -- Asks until each worker has answered.
  local function all_answer(gw, text)
    local mark = gw:mark()
    sys.wait_until(function()
      assert.equal(text, gw:get "/x")
      for i = 1, 3 do
        if not gw:find_log(("worker%%-%d msg=request"):format(i), mark)[1] then return false end
      end
      return true
    end, site.PATIENCE, "an answer of each worker")
  end

  -- The others are still at it when the one has failed.
  local SLOW = "(function() local t = os.clock() + 0.05 repeat until os.clock() > t end)()"

  for what, condition in pairs {
    ["in one of them"] = "gateway.worker() == 2 or gateway.worker() > 0 and " .. SLOW,
    ["in all of them"] = "gateway.worker() > 0",
  } do
    it("none takes it up: " .. what, function()
      local gw = site.start {
        workers = 3, services = { nobody = 1 }, rules = { rule("x", "picky") },
        files = { ["plugins/picky.lua"] = picky(1, "false") },
      }
      gw:write("plugins/picky.lua", picky(2, condition))
      assert.is_nil(gw:reload())
      all_answer(gw, "version 1")
      assert.matches("not here", gw:wait_log "not here")
      gw:wait_metric("generations", 3)
      gw:put("plugins/picky.lua", picky(3, "false"))
      gw:renew()
      all_answer(gw, "version 3")
      assert.equal(3, #gw:workers())
    end)
  end
end)

local DROP = [[
return { name = "drop", on_event = function(_, _, event) if event.type == "drop" then return false end end }
]]

describe("a reload of settings", function()
  local server

  before_each(function()
    server = backend.listen()
  end)

  after_each(function()
    streams.close_all()
    gateway.stop_all()
    server:close()
  end)

  local function start(more)
    local all = {
      services = { api = server.port },
      rules = { { id = "bytes", path = "/bytes/*", serviceName = "api" } },
    }
    for key, value in pairs(more or {}) do all[key] = value end
    return site.start(all)
  end

  it("moves the listener to another port; streams of the old one go on", function()
    local gw = start { workers = 2 }
    local stream, old_port, new_port = streams.open(gw, server), gw.port, http.free_port()
    gw:renew { config = { frontend = { http = { port = new_port } } } }
    assert.is_false(http.is_listening(old_port))
    gw.port = new_port
    local second = streams.open(gw, server)
    for _, open in ipairs { stream, second } do
      open:send "data: x\n\n"
      open:expect "data: x\n\n"
    end
    gw:wait_metric("generations", 2)
    gw:renew { config = { frontend = { http = { port = old_port } } } }
    assert.same({ true, false }, { http.is_listening(old_port), http.is_listening(new_port) })
  end)

  it("moves the listener to another address", function()
    local gw = start()
    gw:renew { config = { frontend = { http = { host = "127.0.0.2" } } } }
    assert.is_false(http.is_listening(gw.port))
    assert.is_true((pcall(http.connect, gw.port, { host = "127.0.0.2" })))
  end)

  it("refuses a port that is taken, and goes on with the one it has", function()
    local gw = start()
    gw:change { config = { frontend = { http = { port = server.port } } } }
    assert.is_nil(gw:reload())
    assert.matches("can't listen on 127%.0%.0%.1:" .. server.port, gw:wait_log "can't listen")
    assert.is_true(http.is_listening(gw.port))
    gw:change { config = { frontend = { http = { port = gw.port } }, management = { port = server.port } } }
    assert.is_nil(gw:reload())
    assert.is_true(http.is_listening(gw.admin_port))
    gw:renew { config = { management = { port = 0 } } }
  end)

  it("moves the management listener, closes it and opens it again", function()
    local gw = start()
    local old_port, new_port = gw.admin_port, http.free_port()
    gw:renew { config = { management = { port = new_port } } }
    assert.same({ false, true }, { http.is_listening(old_port), http.is_listening(new_port) })
    gw:renew { config = { management = { enabled = false } } }
    assert.is_false(http.is_listening(new_port))
    gw:renew { config = { management = { enabled = true } } }
    assert.equal(200, http.fetch(new_port, "/health").status)
  end)

  it("starts more workers, which serve", function()
    local gw = start()
    gw:renew { workers = 3 }
    gw:wait_workers(3)
    gw:wait_metric("generations", 3)
    local stream = streams.open(gw, server)
    stream:send "data: x\n\n"
    stream:expect "data: x\n\n"
  end)

  it("sends workers home that are too many, once their streams have ended", function()
    local gw = start { workers = 3 }
    local open = {}
    for i = 1, 30 do open[i] = streams.open(gw, server) end
    gw:renew { workers = 1 }
    for i, stream in ipairs(open) do
      local event = ("data: %d\n\n"):format(i)
      stream:send(event)
      stream:expect(event)
    end
    assert.equal(3, #gw:workers())
    streams.close_all()
    gw:wait_workers(1)
    gw:wait_metric("streams", 0)
    local stream = streams.open(gw, server)
    stream:send "data: x\n\n"
    stream:expect "data: x\n\n"
    assert.equal(0, #gw:find_log "worker died")
  end)

  it("takes streams of workers that are too many along into new versions, and such workers back", function()
    local function list(plugins)
      return { { id = "bytes", path = "/bytes/*", serviceName = "api", plugins = plugins } }
    end
    local gw = start {
      workers = 2, config = { drainTimeout = 0.05 }, files = { ["plugins/drop.lua"] = DROP },
    }
    local open = {}
    local function all_get(before)
      for i, stream in ipairs(open) do
        local event = ("data: %d\n\n"):format(i)
        stream:send(before .. event)
        stream:expect(event)
      end
    end
    for i = 1, 20 do open[i] = streams.open(gw, server) end
    gw:renew { workers = 1 }
    gw:renew { rules = list { "drop" } }
    gw:wait_metric("generations", 2)
    all_get "event: drop\ndata: x\n\n"
    local pids = gw:workers()
    gw:renew { workers = 2 }
    assert.same(pids, gw:workers())
    for _ = 1, 20 do open[#open + 1] = streams.open(gw, server) end
    all_get ""
  end)

  it("changes level and format of the log", function()
    local gw = start()
    gw:change { config = { log = { level = "debug", format = "json" } } }
    gw.process:signal "HUP"
    local line = gw:wait_log '"reloaded"'
    assert.matches('^{"ts":.*"proc":"master","msg":"reloaded","generation":2,"cause":"signal"}$', line)
    local stream = streams.open(gw, server)
    assert.matches('^{"ts":.*"proc":"worker%-1","msg":"step",', gw:wait_log '"step"')
    gw:change { config = { log = { level = "error" } } }
    gw.process:signal "HUP"
    sys.wait_until(function()
      return http.fetch(gw.admin_port, "/health").text:find '"generation":3,'
    end, site.PATIENCE, "the third version")
    local mark = gw:mark()
    stream:finish()
    stream:rest()
    streams.open(gw, server)
    assert.same({}, gw:find_log(".", mark))
  end)

  it("changes the file of the log, and refuses one that can't be written", function()
    local gw = start()
    gw:change { config = { log = { file = "/proc/nowhere/log" } } }
    assert.is_nil(gw:reload())
    assert.matches("/proc/nowhere/log", gw:wait_log "can't write")
    local path = gw.dir .. "/log.txt"
    gw:change { config = { log = { file = path } } }
    gw.process:signal "HUP"
    streams.open(gw, server):finish()
    http.fetch(gw.admin_port, "/health")
    sys.wait_until(function()
      local file = io.open(path)
      local text = file and file:read "*a" or ""
      if file then file:close() end
      return text:find "msg=reloaded"
    end, site.PATIENCE, "the log in its file")
  end)

  it("gives open streams other keepalives", function()
    local gw = start()
    local stream = streams.open(gw, server)
    gw:renew { config = { frontend = { sse = { keepaliveTimeout = 0.05 } } } }
    stream:expect((":keepalive\n\n"):rep(2))
  end)
end)

describe("the gateway's own Lua library", function()
  after_each(gateway.stop_all)

  local KILL = 9

  local FAULTY = [[
return { name = "faulty", access = function(ctx) return ctx.state.nothing.more end }
]]

  it("is read once, at the start, and named in tracebacks as files", function()
    local lib = os.tmpname()
    assert(os.execute(("rm %s && cp -r lua %s"):format(lib, lib)) == 0)
    local gw = site.start(options { env = { GATEWAYD_LUA = lib } })
    os.execute("rm -r " .. lib)
    gw:write("plugins/answer.lua", answer(2))
    gw:renew()
    local pid = gw:workers()[1]
    site.kill(pid, KILL)
    sys.wait_until(function() return gw:workers()[1] and gw:workers()[1] ~= pid end, site.PATIENCE)
    gw:wait_answer("/yaml", "plugin 2, helper 1, note 1")
    gw:write("plugins/faulty.lua", FAULTY)
    gw:renew { rules = { rule("x", "faulty") } }
    assert.equal(500, http.fetch(gw.port, "/x").status)
    local line = gw:wait_log "hook failed"
    assert.matches("faulty.lua:1: ", line, 1, true)
    assert.matches(lib .. "/gateway/pipeline.lua:", line, 1, true)
    gw:stop { faults = true }
  end)
end)
