--- What an error in a plugin does: one request or one stream pays, it is told in the log and counted, and
-- nothing else stops.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"

local ROUTES = [[
return {
  {
    id = "lua", path = "/lua", serviceName = "api",
    access = function(ctx)
      if ctx.req.query.fail == "access" then error("in the route") end
    end,
    on_event = function() error("in the event") end,
  },
}
]]

local AFTER = [[
return {
  name = "after",
  access = function(ctx) ctx.req.headers["X-After"] = "yes" end,
  on_event = function(_, _, event) event.data = event.data .. "+" end,
}
]]

-- The only event hook of its route. `on_close` tells whether the state was its own all the time.
local LONE = [[
local gateway = require "gateway"

local function overflow() return 1 + overflow() end

return {
  name = "lone",
  on_event = function(ctx, _, event)
    ctx.state.seen = (ctx.state.seen or 0) + 1
    event.id = ctx.state.seen
    if event.type == "wait" then gateway.sleep(0.01) end
    if event.data == "raise" then error("oops") end
    if event.data == "table" then error({ message = "told" }) end
    if event.data == "nonsense" then return 403 end
    if event.data == "overflow" then overflow() end
    if event.data == "list" then return { event, { data = "more" } } end
    if event.data == "drop" then return false end
    if event.data == "end" then return ctx:close() end
  end,
  on_close = function(ctx) ctx:log("info", "seen " .. ctx.state.seen) end,
}
]]

local ANSWER = "HTTP/1.1 200 OK\r\nX-Backend: yes\r\nContent-Length: 4\r\n\r\nbody"

describe("an error in a plugin", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port },
      rules = {
        { id = "act", path = "/act", serviceName = "api", plugins = { "outer", "actor", "after" } },
        {
          id = "skip", path = "/skip", serviceName = "api",
          plugins = { "outer", { actor = { note = "skipped" }, onError = "skip" }, "after" },
        },
        { id = "alone", path = "/alone", serviceName = "api", plugins = { "lone" } },
        {
          id = "alone_skip", path = "/alone_skip", serviceName = "api",
          plugins = { { lone = {}, onError = "skip" } },
        },
      },
      files = {
        ["conf/routes/lua.lua"] = ROUTES, ["plugins/after.lua"] = AFTER, ["plugins/lone.lua"] = LONE,
      },
      config = {
        pluginPath = gateway.plugin_path(),
        plugins = { "outer", "director" },
        router = { lua = { "routes/*.lua" } },
        frontend = { sse = { keepaliveTimeout = 0 } },
        backend = { http = { keepAlive = false } },
        management = { enabled = true, port = 0 },
      },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  local function errors_counted()
    return tonumber(http.fetch(gw.admin_port, "/metrics").text:match "\ngatewayd_hook_errors_total (%d+)")
  end

  local before

  before_each(function()
    before = errors_counted()
  end)

  -- Whatever happened: the next client is served.
  after_each(function()
    streams.close_all()
    repeat until not server:try_accept(0) -- what a failed test has left
    local client = http.connect(gw.port)
    client:send(http.format { path = "/act" })
    server:request():reply(ANSWER)
    assert.equal("body", (client:response():body()))
  end)

  local number = 0
  local function new_id()
    number = number + 1
    return ("errors_%d_"):format(number)
  end

  local function send(path, headers)
    headers["X-Request-Id"] = new_id()
    local client = http.connect(gw.port)
    client:send(http.format { path = path, headers = headers })
    return client, headers["X-Request-Id"]
  end

  -- A request whose hook is ordered to do something; it comes to the backend when `hook` runs behind that.
  local function ordered(path, hook, order, more)
    local headers = { ["X-" .. hook] = order }
    for name, value in pairs(more or {}) do headers[name] = value end
    local client, id = send(path, headers)
    if hook == "Response" then server:request():reply(ANSWER) end
    local got = client:response()
    got.text, got.how = got:body()
    return got, id
  end

  -- The one line about an error in that request, with these fields.
  local function assert_logged(id, fields)
    local line = gw:wait_log('msg="hook failed" x=' .. id)
    for name, pattern in pairs(fields) do
      local value = line:match(" " .. name .. '="(.-[^\\])"') or line:match(" " .. name .. "=([^%s\"]+)")
      assert.message(name .. " in " .. line).matches(pattern, value or "(none)")
    end
    assert.equal(1, #gw:find_log('msg="hook failed" x=' .. id))
    return line
  end

  local function assert_problem(got)
    assert.same({ 500, "application/json", "clean" }, { got.status, got:get "Content-Type", got.how })
    local problem = cjson.decode(got.text)
    assert.same({ error = "a plugin failed", request_id = got:get "X-Request-Id" }, problem)
    assert.is_nil(got:get "X-Backend")
    assert.is_nil(got:get "X-Evil")
  end

  describe("before the response head", function()
    for hook, logged in pairs {
      Route = { plugin = "^director$", hook = "^route$", step = "^route$" },
      Access = { plugin = "^actor$", hook = "^access$", step = "^access$", rule = "^act$" },
      Balance = { plugin = "^actor$", hook = "^balance$", step = "^balance$", rule = "^act$" },
      Response = { plugin = "^actor$", hook = "^on_response$", step = "^head$", rule = "^act$" },
    } do
      it("is a 500, told in full: " .. logged.hook, function()
        local got, id = ordered("/act", hook, "raise")
        assert_problem(got)
        logged.message = "/lib/actor%.lua:%d+: oops$"
        logged.traceback = "^stack traceback:.*actor%.lua:%d+: in function"
        assert_logged(id, logged)
        assert.equal(before + 1, errors_counted())
        local line = gw:wait_log("msg=request x=" .. id)
        assert.matches("level=warn .*status=500 .*end=hook_error", line)
      end)

      it("is seen as an answer by the plugins around: " .. logged.hook, function()
        local got = ordered("/act", hook, "raise")
        local seen = got:all "X-Outer"
        assert.equal(hook == "Route" and 1 or 2, #seen)
        for _, status in ipairs(seen) do assert.equal("500", status) end
      end)
    end

    it("is plain text where the client asks for that", function()
      local got = ordered("/act", "Access", "raise", { Accept = "text/plain" })
      assert.same({ 500, "text/plain; charset=utf-8" }, { got.status, got:get "Content-Type" })
      assert.matches("^a plugin failed\n", got.text)
    end)

    for order, message in pairs {
      ["raise deep"] = "deep down$",
      ["raise a table"] = "table",
      ["raise nothing"] = "nil",
      ["overflow"] = "stack overflow",
      ["return nonsense"] = "^returned 403; expected nothing or ctx:reply%(%.%.%.%)$",
      ["set on ctx"] = "ctx%.foo can't be set; keep things in ctx%.state or ctx%.shared",
      ["inject"] = "X%-A: a line break or NUL can't be sent in a head",
      ["reply badly"] = "X%-A: a line break or NUL can't be sent in a head",
      ["reply 42"] = "ctx:reply: expected a status from 200 to 599",
    } do
      it("may be of any kind: " .. order, function()
        local got, id = ordered("/act", "Access", order)
        assert_problem(got)
        assert_logged(id, { plugin = "^actor$", hook = "^access$", message = message })
        assert.equal(before + 1, errors_counted())
      end)
    end

    it("is a 500 when a balance hook names what is no instance", function()
      local got, id = ordered("/act", "Balance", "return nonsense")
      assert_problem(got)
      assert_logged(id, { hook = "^balance$", message = "^returned 403, which is none of the instances" })
    end)

    it("is a 500 when a route hook names what is no rule", function()
      local got, id = ordered("/act", "Route", "return nonsense")
      assert_problem(got)
      assert_logged(id, { hook = "^route$", message = "^returned 403; expected nothing, a rule's id or" })
    end)

    it("leaves the client's connection usable", function()
      local client = http.connect(gw.port)
      for _ = 1, 3 do
        local got = client:request { method = "POST", path = "/act", headers = { ["X-Access"] = "raise" },
          body = ("x"):rep(10000) }
        assert.equal(500, got.status)
        got:body()
      end
    end)

    it("lets go of the backend, which had answered", function()
      local client = send("/act", { ["X-Response"] = "raise" })
      local received = server:request()
      received:reply "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"
      assert.equal(500, client:response().status)
      assert.not_equal("timeout", received.conn:wait_end())
    end)

    it("names the Lua route it came from", function()
      local client, id = send("/lua?fail=access", {})
      assert.equal(500, client:response().status)
      assert_logged(id, { plugin = "^route lua$", hook = "^access$", rule = "^lua$",
        message = "routes/lua%.lua:5: in the route$" })
    end)
  end)

  describe("on an open stream", function()
    local function open(path, headers, version)
      headers["X-Request-Id"] = new_id()
      local stream = streams.open(gw, server, { path = path, headers = headers, version = version })
      return stream, headers["X-Request-Id"]
    end

    for _, version in ipairs { "1.1", "1.0" } do
      it("ends it for all to see, behind the events before (HTTP/" .. version .. ")", function()
        local stream, id = open("/act", { ["X-Event"] = "raise" }, version)
        stream:send "data: 1\n\nid: 7\nevent: now\ndata: 2\n\ndata: 3\n\n"
        if version == "1.1" then stream:expect "data: 1+\n\n" end
        local text, how = stream:rest()
        assert.message(text).is_true(text == "" or text == "data: 1+\n\n")
        assert.message(how).is_true(how == "reset" or (version == "1.1" and how == "broken"))
        assert.not_equal("timeout", stream.origin.conn:wait_end())
        assert_logged(id, {
          plugin = "^actor$", hook = "^on_event$", event = "^7$", rule = "^act$", step = "^relay$",
          message = "/lib/actor%.lua:%d+: oops$", traceback = "^stack traceback:",
        })
        assert.equal(before + 1, errors_counted())
      end)
    end

    it("ends no other", function()
      local other = open("/act", {})
      local stream = open("/act", { ["X-Event"] = "raise" })
      other:send "event: now\ndata: 1\n\n"
      other:expect "event: now\ndata: 1+\n\n"
      stream:send "event: now\ndata: 1\n\n"
      stream:rest()
      other:send "data: 2\n\n"
      other:expect "data: 2+\n\n"
      other:finish()
      assert.same({ "", "clean" }, { other:rest() })
    end)

    it("may be of any kind", function()
      for order, message in pairs {
        ["return nonsense"] = "^returned 403; expected nothing, an event, false, a list of events",
        ["reply"] = "ctx:reply: the response has begun already",
        ["forget return"] = "ctx:reply: the response has begun already",
        ["overflow"] = "stack overflow",
      } do
        local stream, id = open("/act", { ["X-Event"] = order })
        stream:send "id: 8\nevent: now\ndata: 2\n\n"
        assert.not_equal("clean", select(2, stream:rest()))
        assert_logged(id, { hook = "^on_event$", event = "^8$", message = message })
      end
    end)

    it("names the Lua route it came from", function()
      local stream, id = open("/lua", {})
      stream:send "data: 1\n\n"
      stream:rest()
      assert_logged(id,
        { plugin = "^route lua$", hook = "^on_event$", message = "routes/lua%.lua:7: in the event$" })
    end)
  end)

  describe("of the only event hook of a route", function()
    local function open(path)
      local id = new_id()
      return streams.open(gw, server, { path = path, headers = { ["X-Request-Id"] = id } }), id
    end

    for order, message in pairs {
      raise = "/lone%.lua:%d+: oops$", table = "^told$", overflow = "stack overflow",
      nonsense = "^returned 403; expected nothing, an event",
    } do
      for _, kind in ipairs { "now", "wait" } do
        it(("is told like others, at any event: %s, %s"):format(order, kind), function()
          local stream, id = open "/alone"
          stream:send "data: 1\n\ndata: drop\n\n"
          stream:expect "id: 1\ndata: 1\n\n"
          stream:send("id: 9\nevent: " .. kind .. "\ndata: " .. order .. "\n\n")
          assert.not_equal("clean", select(2, stream:rest()))
          assert_logged(id, {
            plugin = "^lone$", hook = "^on_event$", event = "^3$", rule = "^alone$", step = "^relay$",
            message = message, traceback = "^stack traceback:\\n\\t",
          })
          assert.equal(before + 1, errors_counted())
        end)

        it(("is skipped at any event: %s, %s"):format(order, kind), function()
          local stream, id = open "/alone_skip"
          stream:send "data: 1\n\n"
          stream:expect "id: 1\ndata: 1\n\n"
          local text = ("event: %s\ndata: %s\n\n"):format(kind, order)
          stream:send(text .. "data: list\n\ndata: end\n\n")
          local left = ("event: %s\nid: %%d\ndata: %s\n\n"):format(kind, order)
          stream:expect(left:format(2) .. "id: 3\ndata: list\n\ndata: more\n\n")
          assert.same({ "", "clean" }, { stream:rest() })
          assert_logged(id, { plugin = "^lone$", hook = "^on_event$", event = "^2$", rule = "^alone_skip$" })
          gw:wait_log("x=" .. id .. " seen 4")
          assert.equal(before + 1, errors_counted())
        end)
      end
    end
  end)

  describe("that is to be skipped", function()
    for _, hook in ipairs { "Access", "Balance", "Response" } do
      it("is told and counted, and the request goes on: " .. hook, function()
        for _, order in ipairs { "raise", "return nonsense", "reply 42", "reply badly" } do
          local count = errors_counted()
          local client, id = send("/skip", { ["X-" .. hook] = order })
          local received = server:request()
          assert.equal("yes", received:get "X-After")
          received:reply(ANSWER)
          local got = client:response()
          assert.same({ 200, "body", { "200", "200" } }, { got.status, (got:body()), got:all "X-Outer" })
          assert_logged(id, { plugin = "^actor$", rule = "^skip$" })
          assert.equal(count + 1, errors_counted())
        end
      end)
    end

    it("lets the event pass, and the stream go on", function()
      local stream = streams.open(gw, server, { path = "/skip", headers = { ["X-Event"] = "raise" } })
      stream:send "event: now\ndata: 1\n\ndata: 2\n\nevent: now\ndata: 3\n\n"
      stream:expect "event: now\ndata: 1+\n\ndata: 2+\n\nevent: now\ndata: 3+\n\n"
      stream:finish()
      assert.same({ "", "clean" }, { stream:rest() })
      assert.equal(before + 2, errors_counted())
    end)
  end)

  it("at the end is told, and the others are told the end", function()
    local client, id = send("/act", { ["X-Close"] = "raise" })
    server:request():reply(ANSWER)
    assert.equal("body", (client:response():body()))
    assert_logged(id, { plugin = "^actor$", hook = "^on_close$", message = "oops$" })
    assert.matches("end=ok", gw:wait_log("msg=request x=" .. id))
    assert.equal(before + 1, errors_counted())
  end)
end)
