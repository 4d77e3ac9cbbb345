--- Connections to backends: which are used again, and which must never be.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local site = require "spec.support.site"

local SIGSTOP, SIGCONT = 19, 18

describe("backend connections", function()
  local server, gw

  local function start(settings)
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port },
      rules = { { id = "api", path = "/*", serviceName = "api" } },
      config = settings and { backend = { http = settings } },
    }
  end

  after_each(function()
    server:close()
    gateway.stop_all()
  end)

  local function send(request)
    local client = http.connect(gw.port)
    client:send(http.format(request))
    return client
  end

  -- One exchange on a new connection to the backend, which stays open.
  local function first_exchange(response)
    local client = send { path = "/first" }
    local received = server:request()
    received:reply(response or "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
    local got = client:response()
    got.text, got.how = got:body()
    return received.conn, got, client
  end

  it("are used again, by other clients too", function()
    start()
    local conn = first_exchange()
    for i = 1, 3 do
      local client = send { method = "POST", path = "/" .. i, body = "b" }
      local received = backend.read_request(conn)
      assert.same({ "/" .. i, "b" }, { received.target, received:body() })
      received:reply "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
      assert.equal("ok", (client:response():body()))
    end
    assert.is_nil(server:try_accept(0))
  end)

  it("are not shared by requests at the same time", function()
    start()
    local one, two = send { path = "/one" }, send { path = "/two" }
    local a, b = server:request(), server:request()
    b:ok(b.target)
    a:ok(a.target)
    assert.same({ "/one", "/two" }, { (one:response():body()), (two:response():body()) })
  end)

  it("are not used again after Connection: close", function()
    start()
    local conn = first_exchange "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\none"
    assert.equal("eof", conn:wait_end())
    send { path = "/second" }
    assert.equal("/second", server:request().target)
  end)

  it("are not used again when HTTP/1.0 did not say so", function()
    start()
    local conn = first_exchange "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\none"
    assert.equal("eof", conn:wait_end())
    send { path = "/second" }
    assert.equal("/second", server:request().target)
  end)

  it("are not used again when bytes are left over", function()
    start()
    local conn, got = first_exchange("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
      .. "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert.equal("one", got.text)
    assert.not_equal("timeout", conn:wait_end())
    local client = send { path = "/second" }
    server:request():ok "good"
    assert.equal("good", (client:response():body()))
  end)

  it("are not used again when bytes come while they lie idle", function()
    start()
    local conn = first_exchange()
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    assert.not_equal("timeout", conn:wait_end())
    local client = send { path = "/second" }
    server:request():ok "good"
    assert.equal("good", (client:response():body()))
  end)

  local GARBAGE = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
  local EMPTY = {
    ["an empty body"] = { "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" },
    ["a 204"] = { "GET", "HTTP/1.1 204 No Content\r\n\r\n" },
    ["a 304"] = { "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n" },
    ["a HEAD"] = { "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" },
    ["the last chunk"] = { "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" },
  }
  for what, case in pairs(EMPTY) do
    it("are not used again when bytes come behind " .. what, function()
      start()
      local client = send { method = case[1], path = "/first" }
      local received = server:request()
      received:reply(case[2] .. GARBAGE)
      local got = client:response { head = case[1] == "HEAD" }
      assert.equal("", (got:body()))
      assert.not_equal("timeout", received.conn:wait_end())
      local again = send { path = "/second" }
      server:request():ok "good"
      assert.equal("good", (again:response():body()))
    end)
  end

  -- The worker sleeps while the client asks and the backend talks out of turn: it hears of both at once, of
  -- the client first.
  it("are not used when bytes have come that nobody has looked at yet", function()
    server = backend.listen()
    gw = site.start {
      services = { api = server.port }, rules = { { id = "api", path = "/*", serviceName = "api" } },
      config = { backend = { http = { keepAlive = true } } },
    }
    for _, talk in ipairs { GARBAGE, "x", "" } do
      local conn, _, client = first_exchange()
      site.kill(gw:worker(1), SIGSTOP)
      client:send(http.format { path = "/second" })
      if talk == "" then conn:close() else conn:send(talk) end
      site.kill(gw:worker(1), SIGCONT)
      local received = server:request()
      received:ok "good"
      local answer = client:response()
      assert.same({ 200, "good" }, { answer.status, (answer:body()) })
      received.conn:close()
    end
  end)

  it("are not used again after an answer that came before the whole request", function()
    start()
    local client = http.connect(gw.port)
    client:send "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"
    local received = server:request()
    received:ok "early"
    assert.equal("early", (client:response():body()))
    assert.not_equal("timeout", received.conn:wait_end())
    send { path = "/second" }
    assert.equal("/second", server:request().target)
  end)

  it("are not used again after a client that left early", function()
    start()
    local client = send { path = "/first" }
    local received = server:request()
    received:reply "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"
    client:response()
    client:reset()
    assert.not_equal("timeout", received.conn:wait_end())
  end)

  it("that the backend has closed are dialled anew for a GET", function()
    start()
    first_exchange():close()
    local client = send { path = "/second" }
    server:request():ok "fresh"
    assert.equal("fresh", (client:response():body()))
  end)

  it("that break under a GET are dialled anew, once", function()
    start()
    local conn = first_exchange()
    local client = send { path = "/second" }
    backend.read_request(conn)
    conn:close()
    local again = server:request()
    assert.equal("/second", again.target)
    again.conn:close()
    assert.equal(502, client:response().status)
    assert.is_nil(server:try_accept(0.1))
  end)

  for _, request in ipairs {
    { method = "POST", path = "/pay", body = "1" }, { method = "DELETE", path = "/pay" },
  } do
    it("that break under a " .. request.method .. " are not: the backend may have acted on it", function()
      start()
      local conn = first_exchange()
      local client = send(request)
      backend.read_request(conn):body()
      conn:close()
      assert.equal(502, client:response().status)
      assert.is_nil(server:try_accept(0.1))
    end)
  end

  it("are closed after idleConnTimeout", function()
    start { idleConnTimeout = "200ms" }
    local conn = first_exchange()
    assert.equal("eof", conn:wait_end())
  end)

  it("are kept up to maxIdleConnsPerHost", function()
    start { maxIdleConnsPerHost = 1 }
    local one, two = send { path = "/one" }, send { path = "/two" }
    local a, b = server:request(), server:request()
    a:ok()
    b:ok()
    assert.same({ 200, 200 }, { one:response().status, two:response().status })
    local closed, kept
    process.wait_until(function()
      for _, pair in ipairs { { a, b }, { b, a } } do
        if select(2, pair[1].conn:read_some(0)) == "eof" then closed, kept = pair[1], pair[2] end
      end
      return closed
    end, 5, "the end of one connection")
    send { path = "/three" }
    assert.equal("/three", backend.read_request(kept.conn).target)
  end)

  it("are kept up to maxIdleConns, over all instances", function()
    local other = backend.listen()
    server = backend.listen()
    gw = site.start {
      services = { api = server.port, other = other.port },
      rules = {
        { id = "api", path = "/*", serviceName = "api" },
        { id = "other", path = "/other", serviceName = "other" },
      },
      config = { backend = { http = { keepAlive = true, maxIdleConns = 2 } } },
    }
    local clients, received = {}, {}
    for i, path in ipairs { "/one", "/two", "/other" } do
      clients[i] = send { path = path }
      received[i] = (i == 3 and other or server):request()
    end
    for i = 1, 3 do
      received[i]:ok "x"
      assert.equal("x", (clients[i]:response():body()))
    end
    assert.equal("eof", received[3].conn:wait_end())
    assert.equal(2, gw:metrics().pool_idle)
    local client = send { path = "/other" }
    other:request():ok "y"
    assert.equal("y", (client:response():body()))
    client = send { path = "/four" }
    backend.read_request(received[2].conn):ok "z"
    assert.equal("z", (client:response():body()))
    other:close()
  end)

  it("stay with their instance over a reload, and end with idleConnTimeout when it is gone", function()
    server = backend.listen()
    gw = site.start {
      services = { api = server.port }, rules = { { id = "api", path = "/*", serviceName = "api" } },
      config = { backend = { http = { keepAlive = true, idleConnTimeout = "60s" } } },
    }
    local conn = first_exchange()
    gw:renew()
    local client = send { path = "/second" }
    backend.read_request(conn):ok "same"
    assert.equal("same", (client:response():body()))
    gw:renew {
      services = { api = http.free_port() },
      config = { backend = { http = { idleConnTimeout = "200ms" } } },
    }
    assert.equal("eof", conn:wait_end())
    gw:wait_metric("pool_idle", 0)
  end)

  it("are used again when others have failed, been one too many, or not been up at all", function()
    local down = http.free_port()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port, down = down },
      rules = {
        { id = "api", path = "/*", serviceName = "api" },
        { id = "down", path = "/down", serviceName = "down" },
      },
      config = { backend = { http = { maxIdleConnsPerHost = 1 } } },
    }
    assert.equal(502, http.fetch(gw.port, "/down").status)
    local client = send { path = "/dies" }
    server:request().conn:close()
    assert.equal(502, client:response().status)
    local clients, received = {}, {}
    for i = 1, 3 do clients[i], received[i] = send { path = "/" .. i }, server:request() end
    for i = 1, 3 do
      received[i]:ok "x"
      clients[i]:response():body()
    end
    for i = 2, 3 do assert.equal("eof", received[i].conn:wait_end()) end
    for i = 4, 6 do
      client = send { path = "/" .. i }
      backend.read_request(received[1].conn):ok "y"
      assert.equal("y", (client:response():body()))
    end
  end)

  it("are not kept with keepAlive: false, and the backend is told", function()
    start { keepAlive = false }
    local client = send { path = "/first" }
    local received = server:request()
    assert.equal("close", received:get "Connection")
    received:ok()
    assert.equal(200, client:response().status)
    assert.equal("eof", received.conn:wait_end())
  end)
end)
