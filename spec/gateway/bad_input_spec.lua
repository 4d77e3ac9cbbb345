--- Whatever is put before the gateway, of files and of bytes: there is a message that says what is wrong, and
-- everything else goes on. Two streams are open all the while, one in each mode, and have to notice nothing.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"

local LIMIT = 2048

local BAD_EVENT = [[
return {
  name = "bad_event",
  on_event = function(_, _, event)
    if event.type == "bad" then error("bad event " .. event.data) end
  end,
}
]]
local ROUTE = 'return { { id = "lua", path = "/lua", serviceName = "api" } }\n'

describe("bad input", function()
  local server, gw, good, witnesses
  local garbage = "\0\1\2\255\254 \r\n\r\n<html>" .. ("\128"):rep(100)

  local function open(path)
    return streams.open(gw, server, { path = path })
  end

  setup(function()
    server = backend.listen()
    good = {
      services = { api = server.port, down = http.free_port() },
      rules = {
        { id = "bytes", path = "/bytes/*", serviceName = "api" },
        { id = "events", path = "/events/*", serviceName = "api", plugins = { "look" } },
        { id = "bad-event", path = "/bad-event", serviceName = "api", plugins = { "bad_event" } },
        { id = "down", path = "/down", serviceName = "down" },
      },
      files = {
        ["plugins/look.lua"] = streams.LOOK, ["plugins/bad_event.lua"] = BAD_EVENT,
        ["conf/routes/lua.lua"] = ROUTE,
      },
      config = {
        router = { lua = { "routes/*.lua" } },
        frontend = { sse = { keepaliveTimeout = 0, maxEventBytes = LIMIT } },
        backend = { http = { keepAlive = false, responseHeaderTimeout = "1s" } },
        log = { access = true },
      },
      workers = 2,
    }
    gw = gateway.start(good)
    witnesses = { open "/bytes/witness", open "/events/witness" }
  end)

  teardown(function()
    streams.close_all()
    server:close()
    gateway.stop_all()
  end)

  -- Everything else goes on: the open streams, new requests, and the processes.
  local count = 0
  local function assert_unmoved()
    for _, witness in ipairs(witnesses) do
      count = count + 1
      local event = ("id: %d\ndata: still here\n\n"):format(count)
      witness:send(event)
      witness:expect(event)
    end
    for _, path in ipairs { "/bytes/x", "/lua" } do
      local client = http.connect(gw.port)
      client:send(http.format { path = path })
      server:request():ok "well"
      assert.equal("well", (client:response():body()))
      client:close()
    end
    assert.same({}, gw:find_log "worker died")
  end

  describe("in files that are reloaded", function()
    after_each(function()
      local mark = gw:mark()
      for path, text in pairs(good.files) do gw:write(path, text) end
      gw:configure(good)
      gw.process:signal "HUP"
      gw:wait_log("msg=reloaded", nil, mark)
    end)

    local CONF, PLUGIN, ROUTES = "conf/gateway.yaml", "plugins/look.lua", "conf/routes/lua.lua"
    local RULE = "{ path = '/x', serviceName = 'api'"
    local cases = {
      { "YAML that is none", CONF, "router: {rules: [\n", "gateway%.yaml:%d+:%d+: " },
      { "YAML with a tab", CONF, "router:\n\trules: []\n", "gateway%.yaml:2:1: .*tab" },
      { "bytes", CONF, garbage, "gateway%.yaml:1:%d+: " },
      { "nothing", CONF, "", "gateway%.yaml" },
      { "a list", CONF, "- 1\n- 2\n", "gateway%.yaml:1:1: gateway: a configuration is a map of keys" },
      { "an unknown key", CONF, "routr: {}\n", 'gateway%.yaml:1:1: gateway%.routr: .*mean \\"router\\"' },
      {
        "a value of another kind", CONF, "workers: many\n",
        "gateway%.yaml:1:1: gateway%.workers: .*\\\"many\\\"",
      },
      { "an endless alias", CONF, "a: &a [*a, *a]\n", "gateway%.yaml:1:%d+: " },
      { "a variable that is not set", CONF, "log: {file: \"${NO_SUCH_VARIABLE}\"}\n", "NO_SUCH_VARIABLE" },
      { "a plugin that does not compile", PLUGIN, "return {\n  name = = 1\n}\n", "look%.lua:2: unexpected" },
      { "a plugin of bytes", PLUGIN, "\27LJ\2" .. garbage, "plugins/look%.lua: .*" },
      { "a plugin that raises", PLUGIN, "\nerror 'not today'\n", "plugins/look%.lua:2: not today" },
      {
        "a plugin that raises in new", PLUGIN,
        "return { name = 'look', new = function() error('not new') end }", "new: .*look%.lua:1: not new",
      },
      { "a plugin that returns nothing", PLUGIN, "local plugin = {}\n", "look%.lua: .*must return a table" },
      { "a plugin of another name", PLUGIN, "return { name = 'lock' }", "plugins/look%.lua: name: .*lock" },
      {
        "a plugin with a misspelt hook", PLUGIN, "return { name = 'look', on_evnt = function() end }",
        'plugins/look%.lua: unknown key \\"on_evnt\\" .*did you mean \\"on_event\\"',
      },
      { "a plugin that wants files", PLUGIN, "io.open('x')\nreturn { name = 'look' }", "look%.lua:1: .*io" },
      { "a route that does not compile", ROUTES, "return {{\n", "routes/lua%.lua:%d: " },
      { "a route that raises", ROUTES, "error 'no way'", "routes/lua%.lua:1: no way" },
      { "a route that returns nothing", ROUTES, "", "lua%.lua: .*returns a list of rules, not nil" },
      { "a route that returns a text", ROUTES, "return 'x'", "routes/lua%.lua: .*not string" },
      { "a route that returns a function", ROUTES, "return print", "routes/lua%.lua: .*not function" },
      { "a route that returns a list of numbers", ROUTES, "return { 7 }", "rules%[1%]: expected a map" },
      {
        "a route with a function where data is wanted", ROUTES,
        "return { { path = function() end, serviceName = 'api' } }", "rules%[1%]%.path: ",
      },
      {
        "a route with data where a function is wanted", ROUTES, "return { " .. RULE .. ", match = true } }",
        "rules%[1%]%.match: expected a function",
      },
      {
        "a route with an event hook that is none", ROUTES, "return { " .. RULE .. ", on_event = 'x' } }",
        "rules%[1%]%.on_event: expected a function",
      },
      {
        "a route that contains itself", ROUTES, "local t = " .. RULE .. " } t.plugins = { t } return { t }",
        "rules%[1%]%.plugins%[1%]: is nested more than 64 levels deep",
      },
      { "a route that is there already", ROUTES, ROUTE:gsub("/lua", "/down"), "rules%[1%]" },
    }

    for _, case in ipairs(cases) do
      it(case[1], function()
        local mark = gw:mark()
        gw:write(case[2], case[3])
        gw.process:signal "HUP"
        assert.matches(case[4], gw:wait_log("level=error .*msg=configuration", nil, mark))
        gw:wait_log('level=error .*msg="reload failed"', nil, mark)
        assert_unmoved()
      end)
    end
  end)

  it("a port that is taken: the second gateway ends with 3, and the first goes on", function()
    local config = { frontend = { http = { port = gw.port } } }
    local other = gateway.prepare { services = { api = 1 }, config = config }
    local code, _, err = gateway.run { "-c", other.conf }
    assert.equal(3, code)
    assert.matches("127%.0%.0%.1:" .. gw.port .. ".*[Aa]ddress already in use", err)
    assert_unmoved()
  end)

  describe("from a backend", function()
    after_each(assert_unmoved)

    local function asked(path, answer, headers)
      local client = http.connect(gw.port)
      client:send(http.format { path = path, headers = headers })
      if answer then
        local received = server:request()
        received.conn:send(answer)
        received.conn:close()
      end
      local got = client:response()
      got.text = got:body()
      client:close()
      return got
    end

    -- The request's line in the log says why.
    local function assert_told(got, status, reason)
      assert.equal(status, got.status)
      local line = gw:wait_log("msg=request x=" .. got:get "X-Request-Id")
      assert.matches("status=" .. status, line)
      assert.matches("end=upstream_" .. reason, line)
    end

    for _, accept in ipairs { "*/*", "text/event-stream" } do
      it("garbage is a 502, for " .. accept, function()
        assert_told(asked("/events/x", garbage, { Accept = accept }), 502, "bad_response")
        assert_told(asked("/bytes/x", "HTTP/1.1 999999 \r\n\r\n", { Accept = accept }), 502, "bad_response")
      end)

      it("that is down is a 502, for " .. accept, function()
        assert_told(asked("/down", nil, { Accept = accept }), 502, "refused")
        gw:wait_log 'msg="instance not reached" .*addr=127%.0%.0%.1:%d+ why=refused'
      end)

    end

    it("that is silent is a 504", function()
      local clients, received = {}, {}
      for i, path in ipairs { "/bytes/x", "/events/x" } do
        clients[i] = http.connect(gw.port)
        clients[i]:send(http.format { path = path, headers = { Accept = "text/event-stream" } })
        received[i] = server:request()
      end
      for i, client in ipairs(clients) do
        assert_told(client:response(), 504, "response_timeout")
        assert.not_equal("timeout", received[i].conn:wait_end())
        client:close()
      end
    end)

    it("garbage in a stream that hooks look at is no event, and passes", function()
      local stream = open "/events/x"
      stream:send(garbage:gsub("\r\n\r\n", "\n"))
      stream:send "\n\ndata: after\n\n"
      stream:finish()
      local text, how = stream:rest()
      assert.equal("clean", how)
      assert.matches("data: after\n\n$", text)
    end)
  end)

  describe("from an event", function()
    after_each(assert_unmoved)

    -- An event of that many bytes in all.
    local function event_of(size)
      return "data: " .. ("x"):rep(size - 8) .. "\n\n"
    end

    it("at maxEventBytes is none", function()
      local stream = open "/events/x"
      stream:send(event_of(LIMIT))
      stream:expect(event_of(LIMIT))
      stream:finish()
      assert.same({ "", "clean" }, { stream:rest() })
    end)

    for what, pieces in pairs {
      ["in one piece"] = { event_of(LIMIT + 1) },
      ["in many pieces"] = { event_of(LIMIT + 1):sub(1, 1000), event_of(LIMIT + 1):sub(1001, 2000),
        event_of(LIMIT + 1):sub(2001) },
      ["that never ends"] = { "data: " .. ("x"):rep(LIMIT) },
      ["of many lines"] = { ("data: x\n"):rep(LIMIT / 8) .. "\n" },
      ["of comments"] = { (":x\n"):rep(LIMIT) .. "\n" },
    } do
      it("past maxEventBytes ends the stream behind the events before, and says so: " .. what, function()
        local stream = open "/events/x"
        stream:send "data: before\n\n"
        stream:expect "data: before\n\n"
        for _, piece in ipairs(pieces) do stream:send(piece) end
        local text, how = stream:rest()
        assert.equal("", text)
        assert.message(how).is_true(how == "broken" or how == "reset")
        local line = gw:wait_log("msg=request x=" .. stream.client:get "X-Request-Id")
        assert.matches("level=warn .*end=upstream_event_too_large", line)
        assert.not_equal("timeout", stream.origin.conn:wait_end())
      end)
    end

    it("of any size is none where nobody looks at events", function()
      local stream = open "/bytes/x"
      stream:send(event_of(100 * LIMIT))
      stream:expect(event_of(100 * LIMIT))
      stream:finish()
      assert.same({ "", "clean" }, { stream:rest() })
    end)

    it("that a plugin does not bear ends that stream", function()
      local stream = open "/bad-event"
      stream:send "data: fine\n\n"
      stream:expect "data: fine\n\n"
      stream:send "event: bad\nid: 9\ndata: one\n\n"
      assert.not_equal("clean", select(2, stream:rest()))
      local line = gw:wait_log('msg="hook failed" x=' .. stream.client:get "X-Request-Id")
      assert.matches("event=9 .*bad_event%.lua:4: bad event one", line)
    end)
  end)
end)
