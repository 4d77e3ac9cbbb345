--- Plugins in the real binary: which hooks run and in what order, what they see, change and answer on the
-- wire, and how an exchange ends for them. Errors are in plugins_errors_spec, the objects in objects_spec.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"

local ROUTES = [[
return {
  {
    id = "lua", path = "/lua", serviceName = "api", plugins = { "trace_c" },
    access = function(ctx) table.insert(ctx.shared.trace, "access route") end,
    on_response = function(ctx) ctx.res:add("X-Up", "route") end,
    on_event = function(_, event) event.data = event.data .. " route" end,
    on_close = function(ctx, reason) ctx:log("info", "closes route " .. reason .. " 0") end,
  },
}
]]

describe("plugins", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = {
        api = server.port, down = http.free_port(), none = { { port = 1, health = "unhealthy" } },
      },
      rules = {
        {
          id = "trace", path = "/trace", serviceName = "api",
          plugins = { "trace_c", "trace_d", { trace_c = { tag = "trace_e" } } },
        },
        { id = "act", path = "/act", serviceName = "api", plugins = { "outer", "actor", "outer" } },
        { id = "param", path = "/act/{name}/{of}/*", serviceName = "api", plugins = { "actor" } },
        { id = "down", path = "/down", serviceName = "down", plugins = { "actor" } },
        { id = "none", path = "/none", serviceName = "none", plugins = { "actor" } },
        { id = "timed", path = "/timed", serviceName = "api", timeout = "1s", plugins = { "actor" } },
      },
      files = { ["conf/routes/lua.lua"] = ROUTES },
      config = {
        pluginPath = gateway.plugin_path(),
        plugins = { "trace_a", "director", "trace_b" },
        router = { lua = { "routes/*.lua" } },
        frontend = { sse = { keepaliveTimeout = 0 } },
        backend = { http = { keepAlive = false, responseHeaderTimeout = "1s" } },
      },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  -- Sends a request; the client's response, or its connection while there is none.
  local function send(path, headers, more)
    local request = { path = path, headers = headers }
    for key, value in pairs(more or {}) do request[key] = value end
    local client = http.connect(gw.port)
    client:send(http.format(request))
    return client
  end

  local function read(client, options)
    local got = client:response(options)
    got.text, got.how = got:body()
    return got
  end

  -- A request that the gateway answers by itself.
  local function answered(path, headers, more)
    local got = read(send(path, headers, more), { head = more and more.method == "HEAD" })
    assert.is_nil(server:try_accept(0))
    return got
  end

  -- A request that the backend answers: the client's side and the backend's.
  local function exchange(path, headers, response)
    local client = send(path, headers)
    local received = server:request()
    received:reply(response or "HTTP/1.1 200 OK\r\nX-Backend: yes\r\nContent-Length: 4\r\n\r\nbody")
    received.conn:close()
    return read(client), received
  end

  -- What on_close hooks have logged for a request, in their order.
  local function closes(id, count)
    gw:wait_log("msg=request x=" .. id)
    local found = {}
    for _, line in ipairs(gw:find_log("text=\"x=" .. id .. " closes")) do
      found[#found + 1] = line:match "closes ([^\"]*)"
    end
    assert.message(table.concat(found, "; ")).equal(count or #found, #found)
    return found
  end

  local number = 0
  local function new_id()
    number = number + 1
    return ("plugins_%d_"):format(number)
  end

  local function open(path, headers)
    headers["X-Request-Id"] = headers["X-Request-Id"] or new_id()
    return streams.open(gw, server, { path = path, headers = headers }), headers["X-Request-Id"]
  end

  describe("run", function()
    it("down the list for a request, up for its response, its events and its end", function()
      local id = new_id()
      local stream = streams.request(gw, server, { path = "/trace", headers = { ["X-Request-Id"] = id } })
      assert.equal("route trace_a, route trace_b, "
        .. "access trace_a, access trace_b, access trace_c, access trace_d, access trace_e, "
        .. "balance trace_a, balance trace_b, balance trace_c, balance trace_d, balance trace_e",
        stream.origin:get "X-Trace")
      stream:answer()
      assert.same({ "trace_e3", "trace_d3", "trace_c3", "trace_b4", "trace_a4" }, stream.client:all "X-Up")
      stream:send "data: 1\n\ndata: 2\n\n"
      stream:expect "data: 1 trace_e trace_d trace_c trace_b trace_a\n\n"
      stream:expect "data: 2 trace_e trace_d trace_c trace_b trace_a\n\n"
      stream:finish()
      assert.same({ "", "clean" }, { stream:rest() })
      assert.same({ "trace_e ok 6", "trace_d ok 6", "trace_c ok 6", "trace_b ok 7", "trace_a ok 7" },
        closes(id))
    end)

    it("around the functions of a Lua route", function()
      local stream, id = open("/lua", {})
      assert.matches("access trace_c, access route, balance trace_a", stream.origin:get "X-Trace")
      assert.same({ "route", "trace_c3", "trace_b4", "trace_a4" }, stream.client:all "X-Up")
      stream:send "data: 1\n\n"
      stream:expect "data: 1 route trace_c trace_b trace_a\n\n"
      stream:finish()
      stream:rest()
      assert.same({ "route ok 0", "trace_c ok 5", "trace_b ok 6", "trace_a ok 6" }, closes(id))
    end)

    it("again for balance when an instance was not reached", function()
      local got = answered("/down", { ["X-Request-Id"] = "again" })
      assert.equal(502, got.status)
      -- One instance: there is nothing left to choose from. The response hooks see the 502.
      assert.same({ "trace_b4", "trace_a4" }, got:all "X-Up")
      assert.same({ "trace_b upstream_refused 5", "trace_a upstream_refused 5" },
        { select(2, unpack(closes("again", 3))) })
    end)

    it("where there is no rule, as far as they are for every route", function()
      local got = answered("/nowhere", { ["X-Request-Id"] = "nowhere" })
      assert.equal(404, got.status)
      assert.same({ "trace_b2", "trace_a2" }, got:all "X-Up")
      assert.same({ "trace_b ok 3", "trace_a ok 3" }, closes "nowhere")
    end)

    it("with a state of their own in each exchange", function()
      local one, two = open("/trace", {}), open("/trace", {})
      for i = 1, 3 do
        one:send("data: " .. i .. "\n\n")
        one:expect("data: " .. i .. " trace_e trace_d trace_c trace_b trace_a\n\n")
      end
      two:finish()
      two:rest()
      assert.same("trace_e ok 4", closes(two.options.headers["X-Request-Id"])[1])
      one:finish()
      one:rest()
      assert.same("trace_e ok 7", closes(one.options.headers["X-Request-Id"])[1])
    end)
  end)

  describe("see", function()
    it("the request, its route and its client", function()
      local headers = { ["X-Access"] = "show", ["X-Request-Id"] = "show_1" }
      local got = answered("/act/a%20b/c%2Fd/rest/of?q=1", headers, { version = "1.0" })
      local seen = cjson.decode(got.text)
      assert.equal("show_1", seen.id)
      assert.equal("show_1", got:get "X-Request-Id")
      assert.same({ name = "a b", of = "c/d" }, seen.params)
      assert.same({ id = "param", path = "/act/{name}/{of}/*", serviceName = "api", timeout = 0 }, seen.route)
      assert.equal("127.0.0.1", seen.client.address)
      assert.is_true(seen.client.port > 1023)
      assert.same({ "GET", "localhost", "1.0", 1 }, { seen.method, seen.host, seen.version, seen.worker })
      assert.is_false(seen.has_response)
    end)

    it("no route before there is one", function()
      local seen = cjson.decode(answered("/act", { ["X-Route"] = "show" }).text)
      assert.same({}, seen.route)
      assert.same({}, seen.params)
    end)

    it("an id that the gateway made", function()
      local got = answered("/act", { ["X-Access"] = "show" })
      local seen = cjson.decode(got.text)
      assert.matches("^%x+$", seen.id)
      assert.equal(32, #seen.id)
      assert.equal(seen.id, got:get "X-Request-Id")
    end)
  end)

  describe("change", function()
    it("the request on its way", function()
      local _, received = exchange("/act?x=1",
        { ["X-Access"] = "rewrite", ["X-Several"] = "0", ["X-Gone"] = "1", ["X-Kept"] = "kept" })
      assert.same({ "PUT", "/new%2Fpath?n=1", "other.example" },
        { received.method, received.target, received:get "Host" })
      assert.same({ "1", "2" }, received:all "X-Several")
      assert.same({ "kept", "more" }, received:all "X-Kept")
      assert.same({}, received:all "X-Gone")
    end)

    it("the host by its header", function()
      local _, received = exchange("/act", { ["X-Access"] = "set host header" })
      assert.same({ "by.header:8" }, received:all "Host")
    end)

    it("the response on its way", function()
      local got = exchange("/act", { ["X-Response"] = "change" }, "HTTP/1.1 200 Fine\r\nX-Backend: 1\r\n"
        .. "Set-Cookie: a=1; Path=/\r\nset-cookie: b=2\r\nX-Several: 0\r\nContent-Length: 4\r\n\r\nbody")
      assert.same({ 202, "body" }, { got.status, got.text })
      assert.same({ "a=1; Path=/", "b=2", "c=3" }, got:all "Set-Cookie")
      assert.same({ "1", "2" }, got:all "X-Several")
      assert.is_nil(got:get "X-Backend")
    end)

    it("nothing any more when it has gone", function()
      local stream = open("/act", { ["X-Event"] = "touch late", ["X-Close"] = "touch late" })
      stream:send "event: now\ndata: 1\n\nevent: now\ndata: 2\n\n"
      stream:expect "event: now\ndata: 1 trace_b trace_a\n\nevent: now\ndata: 2 trace_b trace_a\n\n"
      stream:finish()
      assert.same({ "", "clean" }, { stream:rest() })
    end)
  end)

  describe("answer", function()
    local NEXT = { ["X-Access"] = "reply" }

    for hook, seen in pairs { Access = { "418" }, Balance = { "418" }, Response = { "418" } } do
      it(("from %s, as the hooks around see it"):format(hook:lower()), function()
        local headers = { ["X-" .. hook] = "reply", ["X-Request-Id"] = new_id() }
        local got = hook == "Response" and exchange("/act", headers) or answered("/act", headers)
        assert.same({ 418, "short and stout", "clean" }, { got.status, got.text, got.how })
        assert.equal("text/plain; charset=utf-8", got:get "Content-Type")
        assert.is_nil(got:get "X-Backend")
        assert.same(seen, got:all "X-Outer")
        assert.equal(2, #got:all "X-Up")
        assert.same("ok client=127.0.0.1 status=418", closes(headers["X-Request-Id"], 3)[1])
      end)
    end

    it("from route, before any rule", function()
      local got = answered("/nowhere", { ["X-Route"] = "reply", ["X-Request-Id"] = "from_route" })
      assert.same({ 418, "short and stout" }, { got.status, got.text })
      -- trace_b stands behind the one that answered.
      assert.same({ "trace_a2" }, got:all "X-Up")
      assert.same({ "trace_b ok 1", "trace_a ok 3" }, closes "from_route")
    end)

    it("without `return`, too", function()
      for _, hook in ipairs { "Route", "Access", "Balance" } do
        local got = answered("/act", { ["X-" .. hook] = "forget return" })
        assert.same({ 403, "forgotten" }, { got.status, got.text })
      end
      local got = exchange("/act", { ["X-Response"] = "forget return" })
      assert.same({ 403, "forgotten" }, { got.status, got.text })
    end)

    it("with the last word, when they say two", function()
      local got = answered("/act", { ["X-Access"] = "reply twice" })
      assert.same({ 403, "second" }, { got.status, got.text })
      assert.is_nil(got:get "X-First")
    end)

    it("with JSON", function()
      local got = answered("/act", { ["X-Access"] = "reply json" })
      assert.same({ 401, "application/json", "x" },
        { got.status, got:get "Content-Type", got:get "WWW-Authenticate" })
      assert.same({ error = "no", list = {} }, cjson.decode(got.text))
      assert.matches('"list":%[%]', got.text)
    end)

    it("with a type of theirs, and with several cookies", function()
      local got = answered("/act", { ["X-Access"] = "reply typed" })
      assert.same({ "text/html" }, got:all "Content-Type")
      assert.same({ "a=1", "b=2, 3" }, answered("/act", { ["X-Access"] = "reply cookies" }):all "Set-Cookie")
    end)

    it("with nothing in it", function()
      local got = answered("/act", { ["X-Access"] = "reply nothing" })
      assert.same({ 200, "", "0" }, { got.status, got.text, got:get "Content-Length" })
      for _, status in ipairs { 204, 304 } do
        local client = http.connect(gw.port)
        got = client:request { path = "/act", headers = { ["X-Access"] = "reply " .. status } }
        assert.equal(status, got.status)
        assert.is_nil(got:get "Transfer-Encoding")
        -- Nothing comes behind it but the next answer.
        assert.equal(418, client:request({ path = "/act", headers = NEXT }).status)
      end
    end)

    it("with much", function()
      local got = answered("/act", { ["X-Access"] = "reply large" })
      assert.same({ 1000000, "clean" }, { #got.text, got.how })
    end)

    it("HEAD without the body", function()
      local got = answered("/act", { ["X-Access"] = "reply" }, { method = "HEAD" })
      assert.same({ 418, "15", "" }, { got.status, got:get "Content-Length", got.text })
    end)

    it("a request whose body nobody has read, and the next one on that connection", function()
      local client = http.connect(gw.port)
      for _ = 1, 3 do
        local got = client:request { method = "POST", path = "/act", headers = NEXT, body = ("x"):rep(20000) }
        assert.same({ 418, "short and stout", "clean" }, { got.status, got:body() })
      end
    end)

    it("in the place of a stream", function()
      local stream = streams.open(gw, server, { path = "/act", headers = { ["X-Response"] = "reply" } })
      assert.same({ 418, "short and stout" }, { stream.client.status, (stream:rest()) })
      assert.not_equal("timeout", stream.origin.conn:wait_end())
    end)

    it("nothing when a header in the answer was refused and they survived that", function()
      local got, received = exchange("/act", { ["X-Access"] = "survive" })
      assert.same({ 200, "body", "true" }, { got.status, got.text, received:get "X-Survived" })
    end)
  end)

  describe("are told the end", function()
    local function reason_of(id)
      return closes(id, 3)[1]
    end

    it("of an answer that went well", function()
      exchange("/act", { ["X-Request-Id"] = "end_ok" })
      assert.equal("ok client=127.0.0.1 status=200", reason_of "end_ok")
    end)

    it("of a client that left a stream", function()
      local stream, id = open("/act", {})
      stream:send "data: 1\n\n"
      stream:expect "data: 1"
      stream.conn:close()
      assert.equal("client_gone client=127.0.0.1 status=200", reason_of(id))
    end)

    it("of a client that left before there was an answer", function()
      local headers = { ["X-Request-Id"] = "end_early" }
      local stream = streams.request(gw, server, { path = "/act", headers = headers })
      stream.conn:close()
      assert.equal("client_gone client=127.0.0.1 status=nil", reason_of "end_early")
    end)

    it("of a backend that broke", function()
      local stream, id = open("/act", {})
      stream.origin.conn:reset()
      stream:rest()
      assert.equal("upstream_reset client=127.0.0.1 status=200", reason_of(id))
      stream, id = open("/act", {})
      stream.origin.conn:close()
      stream:rest()
      assert.equal("upstream_truncated client=127.0.0.1 status=200", reason_of(id))
    end)

    it("of a backend that could not be reached", function()
      assert.equal(502, answered("/down", { ["X-Request-Id"] = "end_down" }).status)
      assert.equal("upstream_refused client=127.0.0.1 status=502", reason_of "end_down")
    end)

    it("of a service without an instance", function()
      assert.equal(503, answered("/none", { ["X-Request-Id"] = "end_none" }).status)
      assert.equal("ok client=127.0.0.1 status=503", reason_of "end_none")
    end)

    it("of a backend that talks nonsense", function()
      assert.equal(502, exchange("/act", { ["X-Request-Id"] = "end_bad" }, "hello\r\n\r\n").status)
      assert.equal("upstream_bad_response client=127.0.0.1 status=502", reason_of "end_bad")
    end)

    it("of a backend that says nothing", function()
      local client = send("/act", { ["X-Request-Id"] = "end_silent" })
      local received = server:request()
      assert.equal(504, read(client).status)
      assert.equal("upstream_response_timeout client=127.0.0.1 status=504", reason_of "end_silent")
      received.conn:close()
    end)

    it("of a stream that was given so much time", function()
      local stream, id = open("/timed", {})
      stream:rest()
      assert.equal("upstream_timeout client=127.0.0.1 status=200", reason_of(id))
    end)

    it("of an error of their own", function()
      assert.equal(500, answered("/act", { ["X-Access"] = "raise", ["X-Request-Id"] = "end_raise" }).status)
      assert.equal("hook_error client=127.0.0.1 status=500", reason_of "end_raise")
      local stream, id = open("/act", { ["X-Event"] = "raise" })
      stream:send "event: now\ndata: 1\n\n"
      stream:rest()
      assert.equal("hook_error client=127.0.0.1 status=200", reason_of(id))
    end)

    it("whatever else they do there", function()
      for _, order in ipairs { "raise", "reply", "forget return", "return nonsense", "touch late" } do
        local id = new_id()
        assert.equal(200, exchange("/act", { ["X-Close"] = order, ["X-Request-Id"] = id }).status)
        assert.equal("ok client=127.0.0.1 status=200", reason_of(id))
      end
    end)
  end)

  it("cannot use what belongs to an exchange that is over", function()
    assert.equal(200, exchange("/act", { ["X-Access"] = "keep", ["X-Request-Id"] = "kept_1" }).status)
    gw:wait_log "msg=request x=kept_1"
    local said = cjson.decode(answered("/act", { ["X-Access"] = "use kept" }).text)
    assert.equal(7, #said)
    for _, text in ipairs(said) do assert.equal("the exchange is over", text) end
  end)

  it("may yield in every hook, and go on", function()
    for _, hook in ipairs { "Route", "Access", "Balance", "Response" } do
      local id = new_id()
      local got = exchange("/act", { ["X-" .. hook] = "yield", ["X-Request-Id"] = id })
      assert.same({ 200, "body" }, { got.status, got.text })
      closes(id, 3)
    end
    local stream = open("/act", { ["X-Event"] = "yield" })
    stream:send "event: now\ndata: 1\n\nevent: now\ndata: 2\n\ndata: 3\n\n"
    stream:finish()
    assert.same({ "event: now\ndata: 1 trace_b trace_a\n\nevent: now\ndata: 2 trace_b trace_a\n\n"
      .. "data: 3 trace_b trace_a\n\n", "clean" }, { stream:rest() })
  end)

  it("write to the log, one line for each", function()
    local mark = gw:mark()
    exchange("/act", { ["X-Access"] = "log", ["X-Request-Id"] = "log_1" })
    assert.matches([[text="x=log_1 a line\nand \"more\""]], gw:wait_log("level=warn .*a line", nil, mark))
    assert.matches("level=info .*text=\"printed 7\"", gw:wait_log("printed", nil, mark))
  end)
end)

describe("plugins of a gateway that stops", function()
  teardown(gateway.stop_all)

  it("are told so", function()
    local server = backend.listen()
    local gw = gateway.start {
      services = { api = server.port }, rules = { { id = "act", path = "/*", serviceName = "api" } },
      config = { pluginPath = gateway.plugin_path(), plugins = { "actor" }, drainTimeout = "50ms" },
    }
    local one = streams.open(gw, server, { path = "/x", headers = { ["X-Request-Id"] = "stop-1" } })
    local two = streams.request(gw, server, { path = "/x", headers = { ["X-Request-Id"] = "stop-2" } })
    gw.process:signal "TERM"
    assert.not_equal("clean", select(2, one:rest()))
    two.conn:wait_end()
    gw.process:wait(10)
    assert.equal(1, #gw:find_log 'text="x=stop%-1 closes shutdown client=127.0.0.1 status=200"')
    assert.equal(1, #gw:find_log 'text="x=stop%-2 closes shutdown')
    streams.close_all()
    server:close()
  end)
end)
