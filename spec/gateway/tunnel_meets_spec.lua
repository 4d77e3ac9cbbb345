--- Tunnels where they meet the rest: bounds, facts of instances, reloads, workers and VMs that die, timeouts
-- of streams, and requests to upgrade that are odd but good.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local site = require "spec.support.site"

local ASK = "GET %s HTTP/1.1\r\nHost: a.example\r\n%s\r\n"
local FIELDS = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
local AGREE = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

describe("a tunnel", function()
  local gw, server

  before_each(function() server = backend.listen() end)
  after_each(function()
    server:close()
    gateway.stop_all()
  end)

  local function options(rule, config, more)
    rule.id, rule.path, rule.serviceName = "ws", "/*", "api"
    local all = { services = { api = server.port }, rules = { rule }, config = config or {} }
    all.config.management = { enabled = true, host = "127.0.0.1", port = 0 }
    for key, value in pairs(more or {}) do all[key] = value end
    return all
  end

  local function start(rule, config, more)
    gw = site.start(options(rule or {}, config, more))
  end

  local function send(bytes)
    local client = http.connect(gw.port)
    client:send(bytes)
    return client
  end

  local function open(fields, path)
    local client = send(ASK:format(path or "/ws", fields or FIELDS))
    local received = server:request()
    received:reply(AGREE)
    assert.matches("^HTTP/1.1 101 ", client:read_until("\r\n\r\n", nil, true))
    return client, received.conn, received
  end

  local function metric(name)
    local text = http.fetch(gw.admin_port, { path = "/metrics" }).text
    return tonumber(text:match("\ngatewayd_" .. name .. " (%d+)"))
  end

  local function instance()
    local list = cjson.decode(http.fetch(gw.admin_port, { path = "/instances" }).text)
    return list.instances[1]
  end

  local function carries(client, far)
    client:send "ping"
    assert.equal("ping", far:read_until("ping", nil, true))
    far:send "pong"
    assert.equal("pong", client:read_until("pong", nil, true))
  end

  local STREAM = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"

  -- nil: it was refused.
  local function open_stream()
    local client = send(STREAM)
    local conn = server:try_accept(0.5)
    if not conn then return nil, client:response() end
    backend.read_request(conn):reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    assert.equal(200, client:response().status)
    return client, conn
  end

  for name, case in pairs {
    ["that expects 100-continue for no body"] = { FIELDS .. "Expect: 100-continue\r\n" },
    ["with Connection: close, upgrade"] = { "Connection: close, upgrade\r\nUpgrade: websocket\r\n" },
    ["in capitals"] = { "CONNECTION: UPGRADE\r\nUPGRADE: WEBSOCKET\r\n" },
    ["in several fields, the allowed protocol last"] = {
      "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: foo/1, websocket\r\n" },
    ["by POST without a body"] = { FIELDS .. "Content-Length: 0\r\n", "POST" },
    ["by HEAD"] = { FIELDS, "HEAD" },
  } do
    it("opens for a request " .. name, function()
      start()
      local client = send((ASK:format("/ws", case[1]):gsub("^GET", case[2] or "GET")))
      local received = server:request()
      assert.same({ "upgrade" }, received:all "Connection")
      assert.equal("websocket", received:get("Upgrade"):lower())
      assert.is_nil(received:get "Expect")
      received:reply(AGREE)
      local head = client:read_until("\r\n\r\n", nil, true)
      assert.matches("^HTTP/1.1 101 ", head)
      assert.is_nil(head:find "Content%-Length" or head:find "close")
      carries(client, received.conn)
    end)
  end

  it("takes no place of a stream, not while it opens, nor behind a reload", function()
    start({ maxStreams = 1, maxStreamsPerClient = 1 }, { frontend = { sse = { maxStreams = 1 } } })
    local client, far = open(FIELDS .. "Accept: text/event-stream\r\n")
    local first = assert(open_stream())
    local refused, response = open_stream()
    assert.is_nil(refused)
    assert.equal(503, response.status)
    first:close()
    gw:wait_log "msg=request .*path=/events.*end=client_gone"
    gw:configure(options({ maxStreams = 1, maxStreamsPerClient = 1, timeout = 90 }))
    assert.truthy(gw:reload())
    carries(client, far)
    first = assert(open_stream())
    first:close()
    client:close()
    far:close()
    gw:wait_log "msg=request .*status=101"
    assert.same({ 0, 0 }, { metric "tunnels", metric "streams" })
  end)

  it("moves to a new version also when its backend has ended its sending", function()
    start()
    local client, far = open()
    far:shutdown()
    assert.same({ nil, "eof" }, { client:read_some() })
    client:send "more"
    assert.equal("more", far:read_until("more", nil, true))
    gw:configure(options({ timeout = 0.1 }))
    assert.truthy(gw:reload())
    assert.matches("end=upstream_timeout", gw:wait_log("status=101", 5))
  end)

  it("counts for its instance as a stream does, until its end", function()
    start()
    local client, far = open()
    local during = instance()
    assert.same({ 1, 1 }, { during.in_flight, during.open_streams })
    client:close()
    far:close()
    gw:wait_log "status=101"
    local after = instance()
    assert.same({ 0, 0 }, { after.in_flight, after.open_streams })
  end)

  it("takes and gives back a place of its instance's maxStreams", function()
    local service = { name = "api", maxStreams = 1,
      instances = { { id = "api-1", address = "127.0.0.1", port = server.port } } }
    start(nil, { registry = { static = { services = { service } } } })
    local client, far = open()
    assert.equal(503, send(ASK:format("/ws", FIELDS)):response().status)
    client:close()
    far:close()
    gw:wait_log "status=101"
    client, far = open()
    carries(client, far)
  end)

  it("closes a circuit that is half open, and does not hold its place there", function()
    local service = { name = "api",
      instances = { { id = "api-1", address = "127.0.0.1", port = server.port } },
      circuitBreaker = {
        failureThreshold = 1, successThreshold = 2, halfOpenRequests = 1, timeout = "50ms",
      } }
    start(nil, { registry = { static = { services = { service } } } })
    local client = send(ASK:format("/ws", FIELDS))
    server:request():ok("no", "500 Oops")
    assert.equal(500, client:response().status)
    gw:wait_log "from=closed to=open"
    local function probe()
      local again, conn
      process.wait_until(function()
        again = send(ASK:format("/ws", FIELDS))
        conn = server:try_accept(0.1)
        return conn
      end, 15, "a probe")
      backend.read_request(conn):reply(AGREE)
      assert.matches("^HTTP/1.1 101 ", again:read_until("\r\n\r\n", nil, true))
      return again, conn
    end
    local first, far = probe()
    local second, far_too = probe()
    gw:wait_log 'from=half_open to=closed why="probes succeeded"'
    carries(first, far)
    carries(second, far_too)
  end)

  it("goes to another instance where the first is not there, or resets before its 101", function()
    local good = backend.listen()
    start({ retry = { attempts = 3, on = { "connect", "reset" }, methods = { "GET" } } }, nil,
      { services = { api = { http.free_port(), server.port, good.port } } })
    local others = 0
    for _ = 1, 3 do
      local client = send(ASK:format("/ws", FIELDS) .. "early")
      local conn = server:try_accept(0.3)
      if conn then
        others = others + 1
        backend.read_request(conn).conn:reset()
      end
      local received = good:request()
      assert.equal("websocket", received:get "Upgrade")
      received:reply(AGREE)
      assert.matches("^HTTP/1.1 101", client:read_until("\r\n\r\n", nil, true))
      assert.equal("early", received.conn:read_until("early", nil, true))
    end
    assert.is_true(others > 0)
    good:close()
  end)

  it("is cut neither by the age of streams nor by their keepalives, but by its rule's timeout", function()
    start({ timeout = 1.5 }, { frontend = { sse = { maxAge = 0.3, keepaliveTimeout = 0.2 } },
      backend = { sse = { responseTimeout = 0.3, firstEventTimeout = 0.3 } } })
    local client = open()
    assert.same({ "", "reset" }, { client:read_all() })
    assert.matches("end=upstream_timeout", gw:wait_log "status=101")
  end)

  it("ends when one side takes nothing for the write timeout", function()
    start(nil, { frontend = { http = { writeTimeout = 0.5 } } })
    for _, down in ipairs { true, false } do
      local mark = gw:mark()
      local client, far = open()
      local from, chunk = down and far or client, ("x"):rep(65536)
      while from:send(chunk, 0.2) do end -- luacheck: ignore 542
      local word = down and "end=write_timeout" or "end=upstream_write_timeout"
      assert.matches(word, gw:wait_log("status=101", nil, mark))
    end
    assert.equal(0, metric "tunnels")
  end)

  it("breaks for a client whose backend dies while much of it waits", function()
    start()
    local client, far = open()
    while client:send(("x"):rep(65536), 0.2) do end -- luacheck: ignore 542
    far:reset()
    client:wait_end()
    assert.equal("reset", client.ended)
    assert.matches("end=upstream_reset", gw:wait_log "status=101")
  end)

  it("leaves nothing behind when its worker dies", function()
    start()
    local client = open()
    assert.equal(1, metric "tunnels")
    site.kill(gw:workers()[1], 9)
    client:wait_end()
    gw:wait_log("worker died")
    process.wait_until(function()
      local seen = instance()
      return metric "tunnels" == 0 and seen.open_streams == 0 and seen.in_flight == 0
    end, 15, "nothing of the tunnel")
    carries(open())
    gw:stop { faults = true }
  end)

  it("goes on when its VM dies, and on_close runs in the next one", function()
    start({ plugins = { "loops" } }, { lua = { maxRunTime = "100ms" } }, { files = {
      ["plugins/loops.lua"] = [[
        return { name = "loops",
          access = function(ctx)
            if ctx.req.path == "/tasks" then
              ctx:spawn(function() while true do gateway.sleep(0.01) end end)
            end
            while ctx.req.path == "/loop" do pcall(string.rep, "x", 10) end
          end,
          on_close = function(ctx, _, reason)
            gateway.log.info("closed " .. ctx.req.path .. " " .. reason .. " " .. ctx.client.address)
          end }
      ]] } })
    local client, far = open()
    assert.equal(500, send(ASK:format("/loop", "")):response().status)
    carries(client, far)
    client:close()
    far:close()
    gw:wait_log "closed /ws ok 127.0.0.1"
    client = open(nil, "/tasks")
    client:reset()
    gw:wait_log "closed /tasks client_gone 127.0.0.1"
  end)

  it("has its client from a trusted proxy, in the log and behind a reload", function()
    local trust = { frontend = { http = { trustedProxies = { "127.0.0.1" } } } }
    start(nil, trust)
    local client, far, received = open(FIELDS .. "X-Forwarded-For: 203.0.113.9\r\n")
    assert.equal("203.0.113.9, 127.0.0.1", received:get "X-Forwarded-For")
    gw:configure(options({ timeout = 90 }, { frontend = { http = {} } }))
    assert.truthy(gw:reload())
    carries(client, far)
    client:close()
    far:close()
    assert.matches("client=203.0.113.9 peer=127.0.0.1:", gw:wait_log "status=101")
  end)
end)
