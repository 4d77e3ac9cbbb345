--- Request bodies on their way through, and large bodies both ways: streamed, bounded, never mixed up.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"

local CHUNKED = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
local MIB = 1024 * 1024

describe("bodies through the gateway", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port },
      rules = { { id = "api", path = "/*", serviceName = "api" } },
      config = { backend = { http = { keepAlive = false, responseHeaderTimeout = 0 } } },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  local function exchange(text)
    local client = http.connect(gw.port)
    client:send(text)
    return client, server:request()
  end

  it("in chunks reach the backend as they come", function()
    local client, received = exchange(CHUNKED)
    assert.is_nil(received:get "Content-Length")
    client:send "5\r\nfirst\r\n"
    assert.equal("first", received:chunk())
    client:send "4;x=\"y\"\r\nthen\r\n0\r\n\r\n"
    assert.same({ "then", "" }, { received:chunk(), received:chunk() })
    received:ok "got it"
    assert.equal("got it", (client:response():body()))
  end)

  it("of known length reach the backend as they come", function()
    local client, received = exchange "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst"
    assert.equal("10", received:get "Content-Length")
    assert.equal("first", received.conn:read_some())
    client:send " then"
    assert.equal(" then", received.conn:read_some())
    received:ok()
    assert.equal(200, client:response().status)
  end)

  it("in chunks may come byte by byte, with trailers that never become headers", function()
    local client = http.connect(gw.port)
    client:send_split(CHUNKED .. "5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n")
    local received = server:request()
    assert.equal("hello world", received:body())
    assert.is_nil(received:get "X-Sum")
    received:ok()
    assert.equal(200, client:response().status)
  end)

  it("of length 0 are bodies, and their absence is none", function()
    local _, received = exchange "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    assert.equal("0", received:get "Content-Length")
    _, received = exchange "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.is_nil(received:get "Content-Length")
    assert.is_nil(received:get "Transfer-Encoding")
  end)

  it("that break off break the request to the backend", function()
    local client, received = exchange(CHUNKED .. "5\r\nfirst\r\n")
    assert.equal("first", received:chunk())
    client:close()
    local rest, how = received.conn:read_all()
    assert.not_matches("0\r\n", rest)
    assert.is_true(how == "eof" or how == "reset", how)
  end)

  it("with trailers that would change the framing or the host are refused", function()
    for _, trailer in ipairs { "Content-Length: 3", "Transfer-Encoding: chunked", "Host: evil" } do
      local client = http.connect(gw.port)
      client:send(CHUNKED .. "5\r\nhello\r\n0\r\n" .. trailer .. "\r\n\r\n")
      local got = client:response()
      assert.message(trailer).equal(400, got.status)
      local conn = server:try_accept(0.1)
      if conn then assert.not_matches("\r\n0\r\n", (conn:read_all())) end
    end
  end)

  it("whose framing is wrong end the request, and the client is told", function()
    local client, received = exchange(CHUNKED .. "5\r\nfirst\r\n")
    assert.equal("first", received:chunk())
    client:send "nonsense\r\n"
    local how = received.conn:wait_end()
    assert.is_true(how == "eof" or how == "reset", how)
    local got = client:response()
    assert.equal(400, got.status)
    got:body()
    assert.not_equal("timeout", client:wait_end())
  end)

  describe("after an early answer", function()
    local early = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"

    it("are not the next request", function()
      local hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
      local client, received = exchange(
        ("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"):format(#hidden))
      received:reply(early)
      local got = client:response()
      assert.same({ 403, "no" }, { got.status, (got:body()) })
      -- Either the body is drained and the connection goes on behind it, or the connection is closed.
      client:send(hidden .. http.format { path = "/next" })
      local following
      process.wait_until(function()
        following = server:try_accept(0)
        return following or select(2, client:read_some(0)) ~= "timeout"
      end, 5, "the next request, or the end")
      if following then assert.equal("/next", backend.read_request(following).target) end
      assert.is_nil(server:try_accept(0.1))
    end)

    it("do not keep the answer from the client, however much still comes", function()
      local client, received = exchange(CHUNKED)
      received:reply(early)
      received.conn:close()
      local got = client:response()
      assert.same({ 403, "no" }, { got.status, (got:body()) })
      -- Up to its bound the rest is drained; past that the connection closes.
      local chunk = "10000\r\n" .. ("x"):rep(65536) .. "\r\n"
      local sent = true
      for _ = 1, 64 do sent = sent and client:send(chunk) end
      if sent then assert.not_equal("timeout", client:wait_end()) end
    end)
  end)

  -- Moves bytes from one end to the other in turns, as both ends live in this one thread.
  local function pump(from, text, to, count)
    local sent, got, pieces = 0, 0, {}
    local idle = 0
    while got < count do
      local _, _, n = from:send(text:sub(sent + 1, sent + 262144), 0)
      sent = sent + n
      local piece = to:read_some(0)
      idle = (piece or n > 0) and 0 or idle + 1
      if idle > 100 then piece = to:read_some(10) or error("stuck at byte " .. got) end
      pieces[#pieces + 1] = piece
      got = got + (piece and #piece or 0)
    end
    return table.concat(pieces)
  end

  -- Text in which every kilobyte differs, so that lost, doubled or reordered pieces show.
  local function numbered(size)
    local pieces = {}
    for i = 1, size / 1024 do pieces[i] = ("%08d"):format(i) .. ("x"):rep(1016) end
    return table.concat(pieces)
  end

  it("of 16 MiB go up unharmed", function()
    local text = numbered(16 * MIB)
    local client, received = exchange(
      ("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"):format(#text))
    assert.is_true(pump(client, text, received.conn, #text) == text)
    received:ok()
    assert.equal(200, client:response().status)
  end)

  it("of 16 MiB come down unharmed", function()
    local text = numbered(16 * MIB)
    local client, received = exchange "GET /down HTTP/1.1\r\nHost: a\r\n\r\n"
    received:reply(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(#text))
    client:response()
    assert.is_true(pump(received.conn, text, client, #text) == text)
  end)

  -- Sends until the other side takes no more; how much went.
  local function fill(conn, piece, limit)
    local total = 0
    while total < limit do
      local _, _, n = conn:send(piece, 0.5)
      total = total + n
      if n < #piece then break end
    end
    return total
  end

  -- Most of what is under way lies in the buffers of five sockets; without a bound all of it would go.
  local LIMIT = 256 * MIB

  it("that the backend does not read stop the client", function()
    local client = exchange(("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"):format(LIMIT))
    assert.is_true(fill(client, ("x"):rep(MIB), LIMIT) < LIMIT / 4)
    client:reset()
  end)

  it("that the client does not read stop the backend", function()
    local client, received = exchange "GET /down HTTP/1.1\r\nHost: a\r\n\r\n"
    received:reply(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(LIMIT))
    assert.is_true(fill(received.conn, ("x"):rep(MIB), LIMIT) < LIMIT / 4)
    client:reset()
  end)
end)

describe("bodies over maxBodyBytes", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port },
      rules = { { id = "api", path = "/*", serviceName = "api" } },
      config = {
        frontend = { http = { maxBodyBytes = 1000 } },
        backend = { http = { keepAlive = false } },
      },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  it("are refused by their length with 413, before any backend sees them", function()
    local got = http.fetch(gw.port, { method = "POST", body = ("x"):rep(1001) })
    assert.equal(413, got.status)
    assert.matches('"error"', got.text)
    assert.is_nil(server:try_accept(0.1))
  end)

  it("are refused in chunks with 413 once they are too long", function()
    local client = http.connect(gw.port)
    client:send(CHUNKED .. "3e8\r\n" .. ("x"):rep(1000) .. "\r\n")
    local received = server:request()
    client:send "1\r\nx\r\n0\r\n\r\n"
    assert.equal(413, client:response().status)
    local rest, how = received.conn:read_all()
    assert.not_matches("\r\n0\r\n", rest)
    assert.is_true(how == "eof" or how == "reset", how)
  end)

  it("pass up to the last byte", function()
    local client = http.connect(gw.port)
    client:send(http.format { method = "POST", body = ("x"):rep(1000) })
    local received = server:request()
    assert.equal(1000, #received:body())
    received:ok()
    assert.equal(200, client:response().status)
  end)
end)
