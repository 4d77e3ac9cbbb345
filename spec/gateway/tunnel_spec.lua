--- Upgrade: what becomes a tunnel, what does not, and how tunnels end.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

local ASK = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
  .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
local AGREE = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
  .. "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

describe("a tunnel", function()
  local gw, server

  before_each(function() server = backend.listen() end)
  after_each(function()
    server:close()
    gateway.stop_all()
  end)

  local function start(rule, config, files)
    rule = rule or {}
    rule.id, rule.path, rule.serviceName = "ws", rule.path or "/*", "api"
    config = config or {}
    config.management = { enabled = true, host = "127.0.0.1", port = 0 }
    gw = gateway.start { services = { api = server.port }, rules = { rule }, config = config, files = files }
  end

  local function send(bytes)
    local client = http.connect(gw.port)
    client:send(bytes)
    return client
  end

  -- What comes until there is that much of it.
  local function read(conn, n)
    local text = ""
    while #text < n do
      local piece, why = conn:read_some()
      if not piece then return text, why end
      text = text .. piece
    end
    return text
  end

  local function open(ask)
    local client = send(ask or ASK)
    local received = server:request()
    received:reply(AGREE)
    local head = assert(client:read_until("\r\n\r\n", nil, true))
    return client, received.conn, head, received
  end

  local function metric(name)
    local text = http.fetch(gw.admin_port, { path = "/metrics" }).text
    return tonumber(text:match("\ngatewayd_" .. name .. " (%d+)"))
  end

  it("opens on a 101 that was asked for, with both fields written afresh", function()
    start()
    local client, far, head, received = open()
    assert.same({ { "upgrade" }, { "websocket" } }, { received:all "Connection", received:all "Upgrade" })
    assert.equal("13", received:get "Sec-WebSocket-Version")
    assert.matches("^HTTP/1.1 101 Switching Protocols\r\n", head)
    assert.matches("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", head)
    assert.matches("\r\nSec%-Websocket%-Accept: s3pPLMBiTxaQ9kYGzzhZRbK%+xOo=\r\n", head)
    assert.is_nil(head:find("Content-Length", 1, true) or head:find("Transfer", 1, true))
    client:send "\0GET / HTTP/1.1\r\n\r\n"
    assert.equal("\0GET / HTTP/1.1\r\n\r\n", read(far, 19))
    far:send "HTTP/1.1 200 OK\r\n"
    assert.equal("HTTP/1.1 200 OK\r\n", read(client, 17))
    assert.same({ 1, 0, 1 }, { metric "tunnels", metric "streams", metric "tunnels_opened_total" })
    client:shutdown()
    assert.is_true((far:read_all()) == "")
    far:send "last"
    far:close()
    assert.same({ "last", "eof" }, { client:read_all(), client.ended })
    local line = gw:wait_log "msg=request.* status=101"
    assert.matches("end=ok bytes=21 bytes_in=19 ", line)
    assert.equal(0, metric "tunnels")
    assert.same({ 19, 21 }, { metric "tunnel_client_bytes_total", metric "tunnel_backend_bytes_total" })
  end)

  it("gives what came early first: behind the request, and behind the 101 in any pieces", function()
    start()
    for _, size in ipairs { 1, 7, #AGREE - 1, #AGREE + 5 } do
      local client = send(ASK .. "early")
      local received = server:request()
      assert.is_nil(received.conn:read_some(0.02))
      received.conn:send_split(AGREE .. "hello", size)
      assert(client:read_until("\r\n\r\n", nil, true))
      assert.equal("hello", read(client, 5))
      assert.equal("early", read(received.conn, 5))
      client:close()
    end
  end)

  it("carries much both ways at once, and stops reading from whoever is not listened to", function()
    start()
    local client, far = open()
    local chunk, sent = ("x"):rep(65536), 0
    while sent < 64 * 2 ^ 20 and client:send(chunk, 0.2) do sent = sent + #chunk end
    assert.is_true(sent < 64 * 2 ^ 20)
    far:send(("y"):rep(300000))
    assert.equal(300000, #read(client, 300000))
    client:shutdown()
    assert.is_true(#far:read_all(10) >= sent)
  end)

  local function fill(client)
    local chunk, sent = ("x"):rep(65536), 0
    repeat
      local all, _, done = client:send(chunk, 0.2)
      sent = sent + done
    until not all
    return sent
  end

  it("hears of a client that breaks off while it is not read", function()
    start()
    local client, far = open()
    fill(client)
    client:reset()
    assert.matches("end=client_gone", gw:wait_log("status=101", 5))
    far:read_all()
    assert.equal("reset", far.ended)
  end)

  describe("is not opened", function()
    local NEXT = "GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n"

    for _, status in ipairs { "426 Upgrade Required", "200 OK", "400 Bad Request" } do
      it("by " .. status .. ": what came behind the request is the next request", function()
        start()
        local client = send(ASK .. NEXT)
        local received = server:request()
        received:ok("no", status, "Upgrade: websocket\r\nConnection: upgrade\r\n")
        local answer = client:response()
        assert.same({ tonumber(status:match "%d+"), "no" }, { answer.status, (answer:body()) })
        assert.is_nil(answer:get "Upgrade")
        local second = server:request() -- on a connection of its own
        assert.same({ "/next", nil }, { second.target, second:get "Upgrade" })
        second:ok "next"
        assert.equal("next", (client:response():body()))
      end)
    end

    for name, head in pairs {
      ["without Upgrade"] = "Connection: upgrade\r\n",
      ["without Connection"] = "Upgrade: websocket\r\n",
      ["for another protocol"] = "Connection: upgrade\r\nUpgrade: h2c\r\n",
      ["for two protocols"] = "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
    } do
      it("by a 101 " .. name, function()
        start()
        local client = send(ASK)
        server:request():reply("HTTP/1.1 101 X\r\n" .. head .. "\r\nHTTP/1.1 200 OK\r\n\r\n")
        assert.equal(502, client:response().status)
        assert.matches("end=upstream_bad_response", gw:wait_log "status=502")
      end)
    end

    for name, ask in pairs {
      ["that asks for nothing"] = NEXT,
      ["with a body"] = ASK:gsub("\r\n\r\n$", "\r\nContent-Length: 2\r\n\r\nab"),
      ["of HTTP/1.0"] = ASK:gsub("HTTP/1.1", "HTTP/1.0"),
      ["for h2c"] = ASK:gsub("websocket\r", "h2c\r"),
      ["whose Connection does not say so"] = ASK:gsub(", Upgrade", ""),
    } do
      it("for a request " .. name .. ", which goes on as a plain one", function()
        start()
        local client = send(ask)
        local received = server:request()
        assert.same({}, received:all "Upgrade")
        received:reply(AGREE)
        assert.equal(502, client:response().status)
      end)
    end

    it("where the rule allows none, or only others", function()
      start({ upgrades = { "chat", "other/2" } })
      local ask = ASK:gsub("Upgrade: websocket", "Upgrade: websocket, OTHER/2, h2c")
      local client = send(ask)
      local received = server:request()
      assert.equal("other/2", received:get "Upgrade")
      received:reply("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: other/2\r\n\r\nhi")
      assert.matches("\r\nUpgrade: other/2\r\n", client:read_until("\r\n\r\n", nil, true))
      assert.equal("hi", read(client, 2))
    end)

    it("where the rule is for event streams alone", function()
      start({ methods = { "SSE" } })
      assert.equal(406, send(ASK):response().status)
      local client = send((ASK:gsub("\r\n\r\n$", "\r\nAccept: text/event-stream\r\n\r\n")))
      local received = server:request()
      assert.same({}, received:all "Upgrade")
      received:ok()
      assert.equal(200, client:response().status)
    end)
  end)

  describe("that breaks", function()
    it("on the backend's side looks broken, behind all that had come", function()
      start()
      local client, far = open()
      far:send "last words"
      assert.equal("last words", read(client, 10))
      far:reset()
      assert.same({ "", "reset" }, { client:read_all(), client.ended })
      assert.matches("end=upstream_reset", gw:wait_log "status=101")
    end)

    it("because the client left takes its backend along", function()
      start()
      local client, far = open()
      client:reset()
      far:read_all()
      assert.equal("reset", far.ended)
      assert.matches("end=client_gone", gw:wait_log "status=101")
    end)

    it("after no byte went for as long as its rule says; one way is enough", function()
      start({ tunnelIdleTimeout = 1 })
      local client, far = open()
      for _ = 1, 4 do
        assert.is_nil(client:read_some(0.3))
        far:send "."
        assert.equal(".", read(client, 1))
      end
      client:wait_end(5)
      assert.matches("end=tunnel_idle_timeout", gw:wait_log "status=101")
    end)

    it("when the gateway has waited for it long enough", function()
      start(nil, { drainTimeout = 0.3 })
      local client = open()
      gw.process:signal(15)
      client:wait_end(5)
      assert.matches("end=shutdown", gw:wait_log "status=101")
    end)
  end)

  it("goes on through a reload, and ends where the new version wants it drained", function()
    start()
    local client, far = open()
    local function reload(rule)
      gw:configure { services = { api = server.port }, rules = { rule } }
      gw:reload()
    end
    reload { id = "ws", path = "/*", serviceName = "api", timeout = 60 }
    client:send "still"
    assert.equal("still", read(far, 5))
    far:send "here"
    assert.equal("here", read(client, 4))
    local others = {} -- so that it does not take ten seconds until the first of them ends
    for i = 1, 30 do others[i] = { open() } end
    reload { id = "ws", path = "/*", serviceName = "api", onReload = "drain" }
    assert.matches("end=shutdown", gw:wait_log("status=101", 12))
    assert.equal(30, #others)
  end)

  it("is seen by on_response, which may answer in its place, and by on_close", function()
    local config = { backend = { http = { keepAlive = false } } }
    start({ plugins = { "guard" } }, config, { ["plugins/guard.lua"] = [[
      local plugin = { name = "guard", schema = {} }
      function plugin.on_response(ctx)
        ctx.state.status = ctx.res.status
        if ctx.req.path == "/no" then return ctx:reply(403, "not for you") end
        if ctx.req.path == "/odd" then ctx.res.status = 200 end
      end
      function plugin.on_event() error("a tunnel has no events") end
      function plugin.on_close(ctx, _, reason)
        gateway.log.info("closed " .. ctx.state.status .. " " .. reason)
      end
      return plugin
    ]] })
    local client, far = open()
    client:send "data: x\n\n"
    assert.equal("data: x\n\n", read(far, 9))
    far:close()
    client:close()
    gw:wait_log "closed 101 ok"
    for path, status in pairs { no = 403, odd = 500 } do
      client = send((ASK:gsub("/ws", "/" .. path)) .. "GET /no HTTP/1.1\r\nHost: a\r\n\r\n")
      local received = server:request()
      received:reply(AGREE .. "secret")
      local answer = client:response()
      assert.equal(status, answer.status)
      assert.is_nil(answer:body():find("secret", 1, true))
      received.conn:read_all()
      assert.is_not_nil(received.conn.ended)
      server:request():ok() -- the bytes behind are a request
      assert.equal(403, client:response().status)
    end
  end)
end)
