--- HTTP/1.1 and 1.0 through the gateway, seen from both sides of the wire: heads and framing.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

describe("HTTP through the gateway", function()
  local server, gw

  -- Without reuse of connections each request comes to the backend on one of its own.
  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port },
      rules = { { id = "api", path = "/*", serviceName = "api" } },
      config = { backend = { http = { keepAlive = false } } },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  -- Sends a request on a connection of its own; the client's side and the backend's.
  local function exchange(request)
    local client = http.connect(gw.port)
    client:send(type(request) == "table" and http.format(request) or request)
    return client, server:request()
  end

  -- The backend's answer, as a client gets it, with its body in `text`.
  local function answer(request, response)
    local client, received = exchange(request)
    received:reply(response)
    received.conn:close()
    local got = client:response({ head = type(request) == "table" and request.method == "HEAD" })
    got.text, got.how = got:body()
    return got, client
  end

  local function framed(body, lines)
    return ("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s"):format(lines or "", #body, body)
  end

  describe("carries a JSON API", function()
    it("request and response, head and body", function()
      local client, received = exchange {
        method = "POST", path = "/users?limit=3", body = '{"name":"Ada"}',
        headers = { ["Content-Type"] = "application/json", Authorization = "Bearer x.y" },
      }
      assert.same({ "POST", "/users?limit=3", "1.1" }, { received.method, received.target, received.version })
      assert.equal("application/json", received:get "Content-Type")
      assert.equal("Bearer x.y", received:get "Authorization")
      assert.equal("14", received:get "Content-Length")
      assert.equal('{"name":"Ada"}', received:body())

      received:reply 'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nLocation: /users/7\r\n'
      received:reply 'Content-Length: 8\r\n\r\n{"id":7}'
      local response = client:response()
      assert.equal(201, response.status)
      assert.equal("Created", response.reason)
      assert.equal("/users/7", response:get "Location")
      assert.equal("length", response.framing)
      assert.same({ '{"id":7}', "clean" }, { response:body() })
    end)

    for _, method in ipairs { "GET", "PUT", "PATCH", "DELETE", "OPTIONS", "POST" } do
      it("with " .. method, function()
        local client, received = exchange { method = method, path = "/m" }
        assert.equal(method, received.method)
        received:ok "done"
        assert.equal("done", (client:response():body()))
      end)
    end

    for _, status in ipairs { 200, 202, 206, 299, 301, 400, 401, 404, 418, 429, 500, 503, 599 } do
      it("with status " .. status, function()
        local text = "HTTP/1.1 %d Some Words\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nok"
        local got = answer({}, text:format(status))
        assert.same({ status, "7", "ok" }, { got.status, got:get "Retry-After", got.text })
      end)
    end
  end)

  describe("targets", function()
    for _, target in ipairs {
      "/", "/?", "/a%2Fb//c/%7Euser", "/x?q=a%20b&&y=%zz&z", "/x?a=/../b?c", "/%E2%82%AC;p=1/,'()*!$&+=:@",
      "/" .. ("x"):rep(4000),
    } do
      it("reach the backend as they came: " .. target:sub(1, 40), function()
        local client, received = exchange { path = target }
        assert.equal(target, received.target)
        received:ok()
        assert.equal(200, client:response().status)
      end)
    end

    it("in absolute form become path, query and Host", function()
      local _, received = exchange "GET http://example.com:81/x?y=z HTTP/1.1\r\nHost: example.com:81\r\n\r\n"
      assert.same({ "/x?y=z", "example.com:81" }, { received.target, received:get "Host" })
    end)
  end)

  describe("request heads", function()
    it("keep fields that are there several times, and empty ones", function()
      local _, received = exchange("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-B:\r\nx-a:   2 2 \t\r\n"
        .. "Cookie: c=1; d=2\r\n\r\n")
      assert.same({ "1", "2 2" }, received:all "X-A")
      assert.same({ "" }, received:all "X-B")
      assert.same({ "c=1; d=2" }, received:all "Cookie")
      assert.same({ "a" }, received:all "Host")
    end)

    it("keep a Last-Event-ID of 4 KB of UTF-8", function()
      local id = ("日本€"):rep(400)
      local _, received = exchange { headers = { ["Last-Event-ID"] = id, Accept = "text/event-stream" } }
      assert.equal(id, received:get "Last-Event-ID")
      assert.equal("text/event-stream", received:get "Accept")
    end)

    it("lose hop-by-hop fields, those that Connection names too", function()
      local _, received = exchange {
        headers = {
          Connection = "close, X-Secret", ["X-Secret"] = "s", ["Keep-Alive"] = "timeout=5", TE = "trailers",
          ["Proxy-Connection"] = "keep-alive", ["X-Other"] = "o",
        },
      }
      for _, name in ipairs { "X-Secret", "Keep-Alive", "TE", "Proxy-Connection", "Transfer-Encoding" } do
        assert.message(name).is_nil(received:get(name))
      end
      assert.equal("o", received:get "X-Other")
      assert.not_matches("[Ss]ecret", received:get "Connection" or "")
    end)

    it("get X-Forwarded-*, Via and X-Request-Id", function()
      local client, received = exchange { headers = { Host = "shop.example:8080" } }
      assert.same({ "127.0.0.1" }, received:all "X-Forwarded-For")
      assert.same({ "http" }, received:all "X-Forwarded-Proto")
      assert.same({ "shop.example:8080" }, received:all "X-Forwarded-Host")
      assert.same({ "shop.example:8080" }, received:all "Host")
      assert.same({ "1.1 gatewayd" }, received:all "Via")
      local id = received:all "X-Request-Id"
      assert.equal(1, #id)
      assert.matches("^[%w-]+$", id[1])
      received:ok()
      assert.same(id, client:response():all "X-Request-Id")
    end)

    it("have a request id of their own each, or the one the client gave", function()
      local _, first = exchange {}
      local _, second = exchange {}
      assert.not_equal(first:get "X-Request-Id", second:get "X-Request-Id")
      local client, third = exchange { headers = { ["X-Request-Id"] = "my-id.7" } }
      assert.same({ "my-id.7" }, third:all "X-Request-Id")
      third:ok()
      assert.same({ "my-id.7" }, client:response():all "X-Request-Id")
    end)

    it("get a new request id where the client's is not fit for a log", function()
      for _, id in ipairs { "two words", 'quote"d', ("x"):rep(200), "" } do
        local _, received = exchange { headers = { ["X-Request-Id"] = id } }
        assert.matches("^%x+$", received:get "X-Request-Id")
        assert.equal(1, #received:all "X-Request-Id")
      end
    end)

    it("go on with lists of proxies that were begun before", function()
      local _, received = exchange { headers = { Via = "1.0 fred" } }
      assert.equal("1.0 fred, 1.1 gatewayd", received:get "Via")
    end)

    it("may come byte by byte", function()
      local client = http.connect(gw.port)
      client:send_split(http.format { method = "POST", path = "/slow", body = "hello" })
      local received = server:request()
      assert.same({ "/slow", "hello" }, { received.target, received:body() })
    end)
  end)

  describe("response heads", function()
    it("keep fields that are there several times", function()
      local lines = "Set-Cookie: a=1\r\nX-A: 1\r\nSet-Cookie: b=2; Path=/\r\nX-Empty:\r\n"
      local got = answer({}, framed("x", lines))
      assert.same({ "a=1", "b=2; Path=/" }, got:all "Set-Cookie")
      assert.same({ "" }, got:all "X-Empty")
    end)

    it("lose hop-by-hop fields, those that Connection names too", function()
      local lines = "Connection: close, X-Secret\r\nX-Secret: s\r\nKeep-Alive: timeout=5\r\n"
        .. "Proxy-Connection: close\r\nTrailer: X-T\r\nUpgrade: h2c\r\nX-Other: o\r\n"
      local got = answer({}, framed("x", lines))
      for _, name in ipairs { "X-Secret", "Keep-Alive", "Proxy-Connection", "Trailer", "Upgrade" } do
        assert.message(name).is_nil(got:get(name))
      end
      assert.equal("o", got:get "X-Other")
      assert.not_equal("close", got:get "Connection")
    end)

    it("may come byte by byte", function()
      local client, received = exchange {}
      received.conn:send_split(framed("hello", "X-A: 1\r\n"))
      local got = client:response()
      assert.same({ "1", "hello" }, { got:get "X-A", (got:body()) })
    end)
  end)

  describe("response bodies", function()
    local chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. "5;ext=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n"

    it("in chunks stay in chunks", function()
      local got = answer({}, chunked .. "\r\n")
      assert.same({ "hello world", "clean", "chunked" }, { got.text, got.how, got.framing })
      assert.is_nil(got:get "Content-Length")
    end)

    it("may have trailers, which never become headers", function()
      local got, client = answer({}, chunked .. "X-Sum: 1\r\n\r\n")
      assert.same({ "hello world", "clean" }, { got.text, got.how })
      assert.is_nil(got:get "X-Sum")
      assert.equal("", client.buffer)
    end)

    it("break off at trailers that would change the framing", function()
      local got = answer({}, chunked .. "Content-Length: 3\r\n\r\n")
      assert.is_true(got.how == "broken" or got.how == "reset", got.how)
    end)

    it("that end with the connection are chunked for the client", function()
      local got = answer({}, "HTTP/1.1 200 OK\r\n\r\nhello")
      assert.same({ "hello", "clean", "chunked" }, { got.text, got.how, got.framing })
    end)

    it("of an HTTP/1.0 backend pass", function()
      local got = answer({}, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold")
      assert.same({ "old", "clean", "1.1" }, { got.text, got.how, got.version })
    end)

    it("of length 0 end at once", function()
      local got = answer({}, framed "")
      assert.same({ "", "clean", "0" }, { got.text, got.how, got:get "Content-Length" })
    end)

    for _, framing in ipairs { "Content-Length: 10", "Transfer-Encoding: chunked" } do
      it("are passed on as they come: " .. framing, function()
        local is_chunked = framing:find "chunked"
        local client, received = exchange {}
        received:reply("HTTP/1.1 200 OK\r\n" .. framing .. "\r\n\r\n")
        local got = client:response() -- the head, before any of the body
        received:reply(is_chunked and "5\r\nfirst\r\n" or "first")
        assert.equal("first", got:read())
        received:reply(is_chunked and "5\r\n then\r\n0\r\n\r\n" or " then")
        assert.same({ " then", "clean" }, { got:body() })
      end)

      it("that break off look broken: " .. framing, function()
        local client, received = exchange {}
        received:reply("HTTP/1.1 200 OK\r\n" .. framing .. "\r\n\r\n")
        received:reply(framing:find "chunked" and "5\r\nfirst\r\n" or "first")
        local got = client:response()
        assert.equal("first", got:read())
        received.conn:close()
        local _, how = got:body()
        assert.is_true(how == "broken" or how == "reset", how)
        client:close()
      end)
    end

    it("longer than their length do not reach the next answer", function()
      local client = http.connect(gw.port)
      client:send(http.format {})
      server:request():reply(framed("hello") .. "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
      assert.equal("hello", (client:response():body()))
      client:send(http.format {})
      server:request():ok "good"
      assert.equal("good", (client:response():body()))
    end)
  end)

  describe("messages without a body", function()
    local function next_request_works(client)
      client:send(http.format { path = "/next" })
      server:request():ok "next"
      assert.equal("next", (client:response():body()))
    end

    it("answer HEAD, whatever their length says", function()
      local response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\n"
      local got, client = answer({ method = "HEAD" }, response)
      assert.same({ 200, "5", '"e"' }, { got.status, got:get "Content-Length", got:get "ETag" })
      next_request_works(client)
    end)

    it("answer HEAD also where a body would have been chunked", function()
      local got, client = answer({ method = "HEAD" }, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
      assert.equal(200, got.status)
      next_request_works(client)
    end)

    for _, status in ipairs { "204 No Content", "304 Not Modified" } do
      it("are " .. status, function()
        local got, client = answer({}, "HTTP/1.1 " .. status .. "\r\nETag: \"e\"\r\n\r\n")
        assert.same({ tonumber(status:sub(1, 3)), '"e"' }, { got.status, got:get "ETag" })
        assert.is_nil(got:get "Transfer-Encoding")
        next_request_works(client)
      end)
    end

    it("of status 304 may name a length that is not theirs", function()
      local got, client = answer({}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n")
      assert.equal(304, got.status)
      next_request_works(client)
    end)
  end)

  describe("informational answers", function()
    it("are never taken for the answer", function()
      local client, received = exchange {}
      received:reply "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
      received:ok "final"
      local got = client:response { skip_informational = true }
      assert.same({ 200, "final" }, { got.status, (got:body()) })
    end)

    it("do not go to HTTP/1.0", function()
      local client, received = exchange "GET / HTTP/1.0\r\nHost: a\r\n\r\n"
      received:reply "HTTP/1.1 103 Early Hints\r\n\r\n"
      received:ok "final"
      assert.equal(200, client:response().status)
    end)
  end)

  describe("Expect: 100-continue", function()
    local head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

    it("lets the client send its body", function()
      local client, received = exchange(head)
      local go_on = client:response()
      assert.equal(100, go_on.status)
      client:send "hello"
      assert.equal("hello", received:body())
      received:ok "thanks"
      assert.same({ "thanks", "clean" }, { client:response():body() })
    end)

    it("does no harm to a client that does not wait", function()
      local client, received = exchange(head .. "hello")
      assert.equal("hello", received:body())
      received:ok "thanks"
      assert.equal("thanks", (client:response({ skip_informational = true }):body()))
    end)
  end)

  describe("a connection", function()
    it("carries one request after the other", function()
      local client = http.connect(gw.port)
      for i = 1, 5 do
        client:send(http.format { path = "/" .. i })
        local received = server:request()
        assert.equal("/" .. i, received.target)
        received:ok("answer " .. i)
        local got = client:response()
        assert.not_equal("close", got:get "Connection")
        assert.equal("answer " .. i, (got:body()))
      end
    end)

    it("answers pipelined requests in their order", function()
      local client, requests = http.connect(gw.port), {}
      for i = 1, 20 do requests[i] = http.format { method = "PUT", path = "/" .. i, body = ("b"):rep(i) } end
      client:send(table.concat(requests))
      for i = 1, 20 do
        local received = server:request()
        assert.equal(("b"):rep(i), received:body())
        received:ok(received.target)
      end
      for i = 1, 20 do assert.equal("/" .. i, (client:response():body())) end
    end)

    it("does not mind empty lines before a request", function()
      local client, received = exchange "\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"
      assert.equal("/a", received.target)
      received:ok()
      assert.equal(200, client:response().status)
    end)

    it("is closed after the answer when the client asks for it", function()
      local got, client = answer({ headers = { Connection = "close" } }, framed "bye")
      assert.same({ "bye", "close" }, { got.text, got:get "Connection" })
      assert.equal("eof", client:wait_end())
    end)

    it("of HTTP/1.0 is closed after the answer, and the body ends there", function()
      local client, received = exchange "GET / HTTP/1.0\r\n\r\n"
      assert.equal("1.1", received.version)
      assert.equal("1.0 gatewayd", received:get "Via")
      assert.is_string(received:get "Host")
      received:reply "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
      local got = client:response()
      assert.is_nil(got:get "Transfer-Encoding")
      assert.same({ "hello", "clean" }, { got:body() })
      assert.equal("eof", client:wait_end())
    end)

    it("of HTTP/1.0 stays open when the client asks for it and the length is known", function()
      local client, received = exchange "GET /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
      received:ok "one"
      local got = client:response()
      assert.same({ "one", "keep-alive" }, { (got:body()), (got:get "Connection" or ""):lower() })
      client:send "GET /2 HTTP/1.0\r\nHost: a\r\n\r\n"
      server:request():ok "two"
      assert.equal("two", (client:response():body()))
    end)
  end)

  describe("a client that leaves", function()
    local function backend_sees_the_end(received)
      local how = received.conn:wait_end()
      assert.is_true(how == "eof" or how == "reset", how)
    end

    it("before the answer takes its backend connection with it", function()
      local client, received = exchange {}
      client:reset()
      backend_sees_the_end(received)
    end)

    it("in the middle of its body takes its backend connection with it", function()
      local client, received = exchange "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello"
      client:close()
      backend_sees_the_end(received)
    end)

    it("in the middle of the answer takes its backend connection with it", function()
      local client, received = exchange {}
      received:reply "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"
      assert.equal("hello", client:response():read())
      client:close()
      backend_sees_the_end(received)
    end)
  end)
end)

describe("a client that sends requests ahead without end", function()
  it("is read no further than a bound", function()
    local server = backend.listen()
    local gw = gateway.start {
      services = { api = server.port }, rules = { { id = "api", path = "/*", serviceName = "api" } },
    }
    local client = http.connect(gw.port)
    client:send(http.format { path = "/first" })
    local first = server:request()
    local many, sent, limit = http.format({ path = "/more" }):rep(10000), 0, 64 * 1024 * 1024
    repeat
      local _, _, n = client:send(many, 0.5)
      sent = sent + n
    until n < #many or sent >= limit
    assert.is_true(sent < limit)
    first:ok "first"
    assert.equal("first", (client:response():body()))
    local second = backend.read_request(first.conn)
    assert.equal("/more", second.target)
    client:reset()
    server:close()
    second.conn:close()
    gateway.stop_all()
  end)
end)
