--- What clients are told when something is wrong, on their side or behind the gateway; and that
-- everything else goes on meanwhile.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

describe("errors", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port, down = http.free_port(),
        none = { { port = 1, health = "unhealthy" } } },
      rules = {
        { id = "api", path = "/api/*", serviceName = "api" },
        { id = "down", path = "/down", serviceName = "down" },
        { id = "none", path = "/none", serviceName = "none" },
        { id = "post", path = "/post", methods = { "POST", "PUT" }, serviceName = "api" },
        { id = "events", path = "/events", methods = { "SSE" }, serviceName = "api" },
        { id = "hurried", path = "/hurried", serviceName = "api", timeout = "300ms" },
      },
      config = {
        frontend = {
          http = { readTimeout = "400ms", idleTimeout = "400ms", maxHeaderBytes = 4096, maxHeaders = 20 },
        },
        backend = { http = { keepAlive = false, responseHeaderTimeout = "300ms" } },
      },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  -- Whatever happened: the next client is served.
  after_each(function()
    repeat until not server:try_accept(0) -- what a failed test has left
    local client = http.connect(gw.port)
    client:send(http.format { path = "/api/well" })
    server:request():ok "well"
    assert.equal("well", (client:response():body()))
  end)

  local function fetch(request)
    return http.fetch(gw.port, request)
  end

  -- An error document of the gateway's own.
  local function assert_problem(status, pattern, got)
    assert.equal(status, got.status)
    assert.matches("^application/json", got:get "Content-Type")
    local problem = cjson.decode(got.text)
    assert.matches(pattern, problem.error)
    assert.equal(got:get "X-Request-Id", problem.request_id)
    assert.equal("clean", got.how)
  end

  -- Bytes that are not a request in order; the answer, and that the connection ends behind it.
  local function refused(bytes, status)
    local client = http.connect(gw.port)
    client:send(bytes)
    local got = client:response()
    assert.equal(status, got.status)
    got.text = got:body()
    assert.equal("eof", client:wait_end())
    return got
  end

  describe("of the route", function()
    it("no rule is 404", function()
      assert_problem(404, "%a", fetch "/nowhere")
    end)

    it("another method is 405 with Allow", function()
      local got = fetch "/post"
      assert_problem(405, "%a", got)
      assert.matches("POST", got:get "Allow")
      assert.matches("PUT", got:get "Allow")
      assert.not_matches("DELETE", got:get "Allow")
    end)

    it("a GET that does not accept events on a rule for events is 406, and says what is missing", function()
      assert_problem(406, "[Aa]ccept.*text/event%-stream", fetch "/events")
    end)

    it("are plain text where the client asks for that", function()
      local got = fetch { path = "/nowhere", headers = { Accept = "text/plain" } }
      assert.equal(404, got.status)
      assert.matches("^text/plain", got:get "Content-Type")
      assert.not_matches("{", got.text)
      assert.is_true(got.text:find(got:get "X-Request-Id", 1, true) ~= nil)
    end)

    it("have no body for HEAD, and leave the connection open", function()
      local client = http.connect(gw.port)
      assert.equal(404, client:request({ method = "HEAD", path = "/nowhere" }).status)
      local got = client:request { path = "/nowhere" }
      assert.equal(404, got.status)
      assert.equal("clean", select(2, got:body()))
    end)

    it("do not leave a request body lying in the connection", function()
      local client = http.connect(gw.port)
      local got = client:request { method = "POST", path = "/nowhere", body = "GET /api/x HTTP/1.1\r\n\r\n" }
      assert.equal(404, got.status)
      got:body()
      assert.is_nil(server:try_accept(0.1))
    end)
  end)

  describe("of the request", function()
    local bad = {
      ["is not HTTP"] = "hello\r\n\r\n",
      ["has no Host"] = "GET /api/x HTTP/1.1\r\n\r\n",
      ["has two Hosts"] = "GET /api/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
      ["has a space before a colon"] = "GET /api/x HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n",
      ["folds a line"] = "GET /api/x HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
      ["ends lines in bare LF"] = "GET /api/x HTTP/1.1\nHost: a\n\n",
      ["has an empty name"] = "GET /api/x HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
      ["has a NUL in a value"] = "GET /api/x HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
      ["has a length and chunks"] = "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        .. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["has two lengths"] = "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        .. "Content-Length: 4\r\n\r\nabcd",
      ["has a signed length"] = "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
      ["has chunks in HTTP/1.0"] = "POST /api/x HTTP/1.0\r\nHost: a\r\n"
        .. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["has two spaces"] = "GET  /api/x HTTP/1.1\r\nHost: a\r\n\r\n",
      ["has a fragment"] = "GET /api/x#y HTTP/1.1\r\nHost: a\r\n\r\n",
      ["has a raw byte in its target"] = "GET /api/\255 HTTP/1.1\r\nHost: a\r\n\r\n",
    }
    for what, bytes in pairs(bad) do
      it("are 400 when it " .. what, function()
        local got = refused(bytes, 400)
        assert.is_string(cjson.decode(got.text).error)
        assert.is_nil(server:try_accept(0.02))
      end)
    end

    for _, version in ipairs { "HTTP/2.0", "HTTP/0.9", "HTTP/3.7" } do
      it("are 505 (or 400) for " .. version, function()
        local client = http.connect(gw.port)
        client:send("GET /api/x " .. version .. "\r\nHost: a\r\n\r\n")
        local status = client:response().status
        assert.is_true(status == 505 or status == 400, status)
      end)
    end

    it("are 431 for a head that is too long", function()
      refused("GET /api/x HTTP/1.1\r\nHost: a\r\nX-A: " .. ("a"):rep(5000) .. "\r\n\r\n", 431)
    end)

    it("are 431 for a head that is too long, before its end came", function()
      local fields = ("X-A: aaaaaaaa\r\n"):rep(10) .. "X-B: " .. ("b"):rep(5000)
      refused("GET /api/x HTTP/1.1\r\nHost: a\r\n" .. fields, 431)
    end)

    it("are 431 for too many fields", function()
      refused("GET /api/x HTTP/1.1\r\nHost: a\r\n" .. ("X: y\r\n"):rep(20) .. "\r\n", 431)
    end)

    it("are 414 (or 431) for a target that is too long", function()
      local client = http.connect(gw.port)
      client:send("GET /api/" .. ("x"):rep(5000) .. " HTTP/1.1\r\nHost: a\r\n\r\n")
      local status = client:response().status
      assert.is_true(status == 414 or status == 431, status)
    end)

    it("are 408 for a head that is too slow in all, however steadily it comes", function()
      local client = http.connect(gw.port)
      client:send "GET /api/x HTTP/1.1\r\nHost: a\r\nX-Slow: "
      local got
      for _ = 1, 200 do
        client:send "x"
        got = client:read_some(0.05)
        if got then break end
      end
      assert.matches("^HTTP/1.1 408 ", got or "nothing")
    end)

    it("end a good request before them in peace", function()
      local client = http.connect(gw.port)
      client:send(http.format { path = "/api/good" } .. "bad\r\n\r\n")
      server:request():ok "good"
      local first = client:response()
      assert.same({ 200, "good" }, { first.status, (first:body()) })
      assert.equal(400, client:response().status)
    end)

    it("are none when the client just goes, or stays silent", function()
      local silent = http.connect(gw.port)
      http.connect(gw.port):close()
      local half = http.connect(gw.port)
      half:send "GET /api/x HT"
      half:close()
      local text, how = silent:read_all()
      assert.same({ "", "eof" }, { text, how })
    end)

    it("are none for a connection that lies idle between requests", function()
      local client = http.connect(gw.port)
      client:send(http.format { path = "/api/x" })
      server:request():ok()
      client:response()
      assert.same({ "", "eof" }, { client:read_all() })
    end)
  end)

  describe("of the backend", function()
    it("down is 502", function()
      assert_problem(502, "refused", fetch "/down")
    end)

    it("without a healthy instance is 503 with Retry-After", function()
      local got = fetch "/none"
      assert_problem(503, "instance", got)
      assert.matches("^%d+$", got:get "Retry-After")
    end)

    it("silent is 504", function()
      local client = http.connect(gw.port)
      client:send(http.format { path = "/api/x" })
      local received = server:request()
      local got = client:response()
      got.text, got.how = got:body()
      assert_problem(504, "too long", got)
      assert.not_equal("timeout", received.conn:wait_end())
    end)

    it("too slow for the rule's timeout is 504", function()
      local client = http.connect(gw.port)
      client:send(http.format { path = "/hurried" })
      server:request()
      assert.equal(504, client:response().status)
    end)

    it("too slow for the rule's timeout in mid-body breaks the answer off", function()
      local client = http.connect(gw.port)
      client:send(http.format { path = "/hurried" })
      local received = server:request()
      received:reply "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
      local text, how = client:response():body()
      assert.equal("hello", text)
      assert.is_true(how == "broken" or how == "reset", how)
    end)

    local garbage = {
      ["that is not HTTP"] = "hello\r\n\r\n",
      ["that is nothing"] = "",
      ["that breaks off in the head"] = "HTTP/1.1 200 OK\r\nContent-Le",
      ["with a length and chunks"] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
        .. "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
      ["with two lengths"] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
      ["with an odd status"] = "HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\nx",
      ["with a folded line"] = "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 1\r\n\r\nx",
      ["with a head that is too long"] = "HTTP/1.1 200 OK\r\nX-A: " .. ("a"):rep(1000000) .. "\r\n\r\n",
    }
    for what, bytes in pairs(garbage) do
      it("an answer " .. what .. " is 502", function()
        local client = http.connect(gw.port)
        client:send(http.format { path = "/api/x" })
        local received = server:request()
        received.conn:send(bytes)
        received.conn:close()
        local got = client:response()
        got.text, got.how = got:body()
        assert_problem(502, "%a", got)
      end)
    end

    it("wrong chunks in mid-body break the answer off", function()
      local client = http.connect(gw.port)
      client:send(http.format { path = "/api/x" })
      server:request():reply "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"
      local text, how = client:response():body()
      assert.equal("hello", text)
      assert.is_true(how == "broken" or how == "reset", how)
    end)
  end)

  it("are in the log with the id that the client was told", function()
    local got = fetch "/down"
    gw:wait_log(got:get "X-Request-Id")
  end)
end)
