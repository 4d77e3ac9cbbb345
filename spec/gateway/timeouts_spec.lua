--- Every deadline: what the log calls it, where it is counted, and what the client sees.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"

local HEAD = "POST /total HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
local FIRST = "event: a\nid: 1\n"

describe("a deadline", function()
  local server, gw

  local function start(config, rules)
    server = backend.listen()
    config.management = { enabled = true, host = "127.0.0.1", port = 0 }
    config.log = { level = "debug" }
    gw = streams.gateway(server, { config = config, rules = rules })
  end

  after_each(function()
    streams.close_all()
    server:close()
    gateway.stop_all()
  end)

  local function counted(name)
    local body = http.fetch(gw.admin_port, "/metrics").text
    return tonumber(body:match('gatewayd_timeouts_total{timeout="' .. name .. '"} (%d+)'))
  end

  it("for a request's head is in a line of its own", function()
    start { frontend = { http = { readTimeout = "50ms" } } }
    local conn = http.connect(gw.port)
    conn:send "GET / HTTP"
    assert.equal(408, conn:response().status)
    gw:wait_log 'msg="request refused" .*why=head_timeout'
    assert.equal(1, counted "head")
  end)

  it("for a request's body is the end of its exchange", function()
    start { frontend = { http = { bodyTimeout = "50ms" } } }
    local conn = http.connect(gw.port)
    conn:send((HEAD:gsub("/total", "/bytes/x")))
    assert.equal(408, conn:response().status)
    gw:wait_log "msg=request .*end=body_timeout"
    assert.equal(1, counted "body")
  end)

  it("of an idle connection is told at debug level", function()
    start { frontend = { http = { idleTimeout = "50ms" } } }
    assert.equal("eof", http.connect(gw.port):wait_end())
    gw:wait_log 'level=debug .*msg="connection closed" .*why=idle_timeout'
    assert.equal(1, counted "idle")
  end)

  it("for the response head blames the backend", function()
    start { backend = { http = { responseHeaderTimeout = "50ms", keepAlive = false } } }
    local stream = streams.request(gw, server)
    assert.equal(504, stream.conn:response().status)
    assert.equal("upstream_response_timeout", stream:logged_end(gw))
    assert.equal(1, counted "response")
  end)

  it("of a rule blames the backend", function()
    start({}, { { id = "total", path = "/total", serviceName = "api", timeout = "50ms" } })
    local stream = streams.request(gw, server, { path = "/total" })
    assert.equal(504, stream.conn:response().status)
    assert.equal("upstream_timeout", stream:logged_end(gw))
    assert.equal(1, counted "timeout")
  end)

  it("of silence breaks the stream", function()
    start { backend = { sse = { responseTimeout = "50ms" } } }
    local stream = streams.open(gw, server)
    assert.equal("broken", select(2, stream:rest()))
    assert.equal("upstream_silence_timeout", stream:logged_end(gw))
    assert.equal(1, counted "silence")
  end)

  for _, path in ipairs { "/bytes/x", "/events/x" } do
    it("for the first event does not count comments: " .. path, function()
      start { backend = { sse = { firstEventTimeout = "150ms" } } }
      local stream = streams.open(gw, server, { path = path })
      stream:send "\239\187\191: hello\n\n: there\r\n"
      assert.equal("broken", select(2, stream:rest()))
      assert.equal("upstream_first_event_timeout", stream:logged_end(gw))
      assert.equal(1, counted "first_event")
    end)

    it("for the first event is over with it: " .. path, function()
      start { backend = { sse = { firstEventTimeout = "150ms", responseTimeout = "400ms" } } }
      local stream = streams.open(gw, server, { path = path })
      stream:send ": hello\n\ndata: 1\n\n"
      stream:expect ": hello\n\ndata: 1\n\n"
      stream:rest()
      assert.equal("upstream_silence_timeout", stream:logged_end(gw))
    end)

    it("of age ends a stream well: " .. path, function()
      start { frontend = { sse = { maxAge = "100ms", keepaliveTimeout = 0 } } }
      local stream = streams.open(gw, server, { path = path })
      stream:send "data: 1\n\n"
      assert.same({ "data: 1\n\n", "clean" }, { stream:rest() })
      assert.equal("max_age", stream:logged_end(gw))
      assert.equal(1, counted "max_age")
      assert.equal(0, #gw:find_log "level=warn")
    end)
  end

  -- One rule with keys of its own, beside those that hold for all.
  local function own(keys, config)
    keys.id, keys.path, keys.serviceName, keys.plugins = "own", "/own/*", "api", keys.plugins or {}
    start(config or {}, { keys })
  end

  for plugin, mode in pairs { look = "event", [""] = "byte" } do
    local plugins = plugin ~= "" and { plugin } or {}
    local what = (" of a rule holds for its streams alone, in %s mode"):format(mode)

    it("for silence" .. what, function()
      own({ responseTimeout = "50ms", plugins = plugins },
        { backend = { sse = { responseTimeout = "60s" } } })
      local other, stream = streams.open(gw, server), streams.open(gw, server, { path = "/own/x" })
      assert.equal("broken", select(2, stream:rest()))
      assert.equal("upstream_silence_timeout", stream:logged_end(gw))
      other:send "data: 1\n\n"
      other:expect "data: 1\n\n"
    end)

    it("for the first event" .. what, function()
      own({ firstEventTimeout = "50ms", plugins = plugins })
      local other, stream = streams.open(gw, server), streams.open(gw, server, { path = "/own/x" })
      assert.equal("broken", select(2, stream:rest()))
      assert.equal("upstream_first_event_timeout", stream:logged_end(gw))
      other:send "data: 1\n\n"
      other:expect "data: 1\n\n"
    end)

    it("of age" .. what, function()
      own({ maxAge = "50ms", plugins = plugins },
        { frontend = { sse = { maxAge = "1h", keepaliveTimeout = 0 } } })
      local other, stream = streams.open(gw, server), streams.open(gw, server, { path = "/own/x" })
      assert.equal("clean", select(2, stream:rest()))
      assert.equal("max_age", stream:logged_end(gw))
      other:send "data: 1\n\n"
      other:expect "data: 1\n\n"
    end)
  end

  it("that a rule sets to 0 is none", function()
    own({ maxAge = 0, firstEventTimeout = 0, responseTimeout = 0 }, {
      frontend = { sse = { maxAge = "100ms", keepaliveTimeout = 0 } },
      backend = { sse = { firstEventTimeout = "100ms", responseTimeout = "100ms" } },
    })
    local stream, other = streams.open(gw, server, { path = "/own/x" }), streams.open(gw, server)
    other:rest()
    other = streams.open(gw, server)
    other:rest()
    stream:send "data: 1\n\n"
    stream:expect "data: 1\n\n"
  end)

  local function renewed(keys, config)
    local rule = { id = "own", path = "/own/*", serviceName = "api" }
    for key, value in pairs(keys) do rule[key] = value end
    config = config or {}
    config.log = { level = "debug" }
    config.management = { enabled = true, host = "127.0.0.1", port = 0 }
    config.frontend = config.frontend or { sse = { keepaliveTimeout = 0 } }
    gw:configure { services = { api = server.port }, rules = { rule }, config = config }
    assert.truthy(gw:reload())
  end

  it("of a rule meets streams that are open when a version brings it, and leaves them with it", function()
    own({ maxStreams = 5 })
    local headers = { ["X-Request-Id"] = "as-it-was" }
    local one = streams.open(gw, server, { path = "/own/1", headers = headers })
    one:send "data: 1\n\n"
    one:expect "data: 1\n\n"
    renewed { maxAge = "1h", maxStreams = 5 }
    one:send "data: 2\n\n"
    one:expect "data: 2\n\n"
    renewed {}
    local two = streams.open(gw, server, { path = "/own/2" })
    renewed { responseTimeout = "100ms", firstEventTimeout = "1h", maxStreamsPerClient = 5 }
    assert.equal("broken", select(2, one:rest()))
    assert.equal("broken", select(2, two:rest()))
    assert.matches("rule=own .*end=upstream_silence_timeout", gw:wait_log "msg=request x=as%-it%-was")
  end)

  for mode, plugins in pairs { event = { "look" }, byte = {} } do
    it(("for the first event does not end streams that had one before that, in %s mode"):format(mode),
      function()
        own({ plugins = plugins })
        local stream = streams.open(gw, server, { path = "/own/x" })
        stream:send "data: 1\n\n"
        stream:expect "data: 1\n\n"
        renewed({ plugins = plugins }, { backend = { sse = { firstEventTimeout = "1ms" } } })
        local conn = http.connect(gw.port)
        conn:send(http.format { path = "/own/settle" })
        server:request():ok "settled"
        assert.equal("settled", conn:response():body())
        stream:send "data: 2\n\n"
        stream:expect "data: 2\n\n"
      end)
  end

  it("for the first event begins with the backend's head where that is held back", function()
    own { firstEvent = { hold = "60s" }, firstEventTimeout = "100ms" }
    local stream = streams.request(gw, server, { path = "/own/x" })
    stream.origin:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n"
    assert.equal(504, stream.conn:response().status)
    assert.equal("upstream_first_event_timeout", stream:logged_end(gw))
    assert.equal(1, counted "first_event")
  end)

  it("for the first event goes on when the head is held back no longer", function()
    own { firstEvent = { hold = "300ms" }, firstEventTimeout = "600ms" }
    local stream = streams.request(gw, server, { path = "/own/x" })
    stream:answer()
    assert.equal("broken", select(2, stream:rest()))
    local line = gw:wait_log("msg=request x=" .. stream.origin:get "X-Request-Id")
    assert.matches("end=upstream_first_event_timeout", line)
    local held, ms = tonumber(line:match "held_ms=(%d+)"), tonumber(line:match " ms=(%d+)")
    assert.is_true(held >= 300 and ms >= 600)
    local head_ms = tonumber(line:match "head_ms=(%d+)")
    assert.message(line).is_true(ms - head_ms < 600)
  end)

  it("for the first event lets another instance try", function()
    own { firstEvent = { hold = "60s" }, firstEventTimeout = "100ms",
      retry = { on = { "timeout" }, backoff = { base = "1ms" } } }
    local stream = streams.request(gw, server, { path = "/own/x" })
    stream.origin:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n"
    server:request():reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
    assert.equal(200, stream.conn:response().status)
  end)

  local TOLD = [[
    local plugin = { name = "told" }
    function plugin.on_close(_, _, reason) gateway.log.info("closed for " .. reason) end
    return plugin
  ]]

  -- With a plugin that is told why exchanges end.
  local function start_told(config, rules)
    server = backend.listen()
    config.management, config.plugins = { enabled = true, host = "127.0.0.1", port = 0 }, { "told" }
    gw = streams.gateway(server, { config = config, files = { ["plugins/told.lua"] = TOLD }, rules = rules })
  end

  local function fill(conn, bytes)
    repeat until not conn:send(bytes, 0.2)
  end

  local UPLOAD = "POST /bytes/up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
  local PIECE = ("x"):rep(256 * 1024)

  it("of writing to the client resets the connection", function()
    start_told { frontend = { sse = { writeTimeout = "300ms", keepaliveTimeout = 0 } } }
    local stream = streams.open(gw, server, { rcvbuf = 4096 })
    fill(stream.origin.conn, streams.chunk("data: " .. PIECE .. "\n\n"))
    assert.equal("write_timeout", stream:logged_end(gw))
    gw:wait_log "closed for write_timeout"
    assert.equal(1, counted "write")
  end)

  it("of writing to the backend is a 504, and blames it", function()
    start_told { backend = { http = { writeTimeout = "300ms", responseHeaderTimeout = "60s" } } }
    local client = http.connect(gw.port)
    client:send(UPLOAD)
    local received = server:request()
    fill(client, PIECE)
    assert.equal(504, client:response().status)
    assert.not_equal("timeout", received.conn:wait_end())
    gw:wait_log "status=504 .*end=upstream_write_timeout"
    gw:wait_log "closed for upstream_write_timeout"
    assert.equal(1, counted "write")
  end)

  it("of writing to the backend breaks an answer off that does not go on", function()
    start_told { backend = { http = { writeTimeout = "400ms" } } }
    local client = http.connect(gw.port)
    client:send(UPLOAD)
    local received = server:request()
    received:reply "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    local response = client:response()
    fill(client, PIECE)
    client:close()
    assert.equal(200, response.status)
    gw:wait_log "status=200 .*end=upstream_write_timeout"
  end)

  it("of dialling is a 504 when nobody else will do", function()
    server = backend.listen(nil, nil, 0)
    local queue = {} -- full, the system answers no more
    repeat
      local ok, conn = pcall(http.connect, server.port, { timeout = 0.05 })
      queue[#queue + 1] = ok and conn or nil
    until not ok
    gw = streams.gateway(server, { files = { ["plugins/told.lua"] = TOLD }, config = { plugins = { "told" },
      management = { enabled = true, host = "127.0.0.1", port = 0 },
      backend = { http = { dialTimeout = "50ms" } } } })
    assert.equal(504, http.connect(gw.port):request({ path = "/bytes/x" }).status)
    gw:wait_log "status=504 .*end=upstream_dial_timeout"
    gw:wait_log "closed for upstream_dial_timeout"
    assert.equal(1, counted "dial")
    for _, conn in ipairs(queue) do conn:close() end
  end)

  it("of TCP ends a stream whose client is not there any more, or has no room", function()
    start_told { frontend = { http = { tcpUserTimeout = "300ms" },
      sse = { writeTimeout = 0, keepaliveTimeout = 0 } } }
    local stream = streams.open(gw, server, { rcvbuf = 4096 })
    fill(stream.origin.conn, streams.chunk("data: " .. PIECE .. "\n\n"))
    assert.equal("peer_timeout", stream:logged_end(gw))
    gw:wait_log "closed for peer_timeout"
    assert.equal(1, counted "peer")
  end)

  it("of TCP blames a backend that is not there any more, or has no room", function()
    start_told { backend = { http = { tcpUserTimeout = "300ms", writeTimeout = 0,
      responseHeaderTimeout = 0 } } }
    local client = http.connect(gw.port)
    client:send(UPLOAD)
    server:request()
    fill(client, PIECE)
    assert.equal(504, client:response().status)
    gw:wait_log "end=upstream_peer_timeout"
    gw:wait_log "closed for upstream_peer_timeout"
    assert.equal(1, counted "peer")
  end)

  it("of age waits for the end of an event", function()
    start { frontend = { sse = { maxAge = "1s", keepaliveTimeout = 0 } } }
    local stream = streams.open(gw, server)
    stream:send(FIRST)
    stream:expect(FIRST)
    assert.same({ nil, "timeout" }, { stream.client:read(1.05) }) -- its age, and a little
    stream:send "data: x\n\n"
    assert.same({ "data: x\n\n", "clean" }, { stream:rest() })
    assert.equal("max_age", stream:logged_end(gw))
  end)

  local WAITS = [[
    local plugin = { name = "waits" }
    function plugin.on_response(ctx)
      if ctx.req.headers["x-wait"] then gateway.sleep(tonumber(ctx.req.headers["x-wait"])) end
    end
    function plugin.on_event(_, _, event) gateway.sleep(tonumber(event.type)) end
    return plugin
  ]]

  local function start_waiting(config, keys)
    server = backend.listen()
    local rule = { id = "waits", path = "/waits/*", serviceName = "api", plugins = { "waits" } }
    for key, value in pairs(keys or {}) do rule[key] = value end
    local files = { ["plugins/waits.lua"] = WAITS }
    gw = streams.gateway(server, { config = config, rules = { rule }, files = files })
  end

  it("of age waits for a hook that is at an event", function()
    start_waiting { frontend = { sse = { maxAge = "400ms", maxAgeJitter = 0, keepaliveTimeout = "20ms" } } }
    local stream = streams.open(gw, server, { path = "/waits/x" })
    stream:send "event: 0.6\ndata: 1\n\n"
    local text, how = stream:rest()
    assert.same({ "event: 0.6\ndata: 1\n\n", "clean" }, { (text:gsub(":keepalive\n\n", "")), how })
    assert.equal("max_age", stream:logged_end(gw))
  end)

  it("of age breaks off a hook that does not come back", function()
    start_waiting { frontend = { sse = { maxAge = "50ms", keepaliveTimeout = 0 } } }
    local stream = streams.open(gw, server, { path = "/waits/x" })
    stream:send "event: 60\ndata: 1\n\n"
    assert.equal("broken", select(2, stream:rest()))
    assert.equal("max_age", stream:logged_end(gw))
  end)

  it("of age breaks off a client that takes nothing", function()
    start { frontend = { sse = { maxAge = "300ms", writeTimeout = 0, keepaliveTimeout = 0 } } }
    local stream = streams.open(gw, server, { rcvbuf = 4096 })
    fill(stream.origin.conn, streams.chunk("data: " .. PIECE .. "\n\n"))
    assert.equal("max_age", stream:logged_end(gw))
  end)

  it("of age is another one for each stream", function()
    start { frontend = { sse = { maxAge = "1s", maxAgeJitter = 1, keepaliveTimeout = 0 } } }
    local least, most = math.huge, 0
    local open = {}
    for i = 1, 40 do open[i] = streams.open(gw, server) end
    for _, stream in ipairs(open) do
      assert.equal("max_age", stream:logged_end(gw))
      local line = gw:find_log("msg=request x=" .. stream.origin:get "X-Request-Id")[1]
      local ms = tonumber(line:match " ms=(%d+)")
      least, most = math.min(least, ms), math.max(most, ms)
    end
    assert.message(least .. " to " .. most).is_true(most - least > 300)
  end)

  it("of silence stands still while a hook is at an event", function()
    start_waiting({}, { responseTimeout = "100ms" })
    local stream = streams.open(gw, server, { path = "/waits/x" })
    stream:send "event: 0.4\ndata: 1\n\n"
    stream:expect "event: 0.4\ndata: 1\n\n"
    stream:rest()
    assert.equal("upstream_silence_timeout", stream:logged_end(gw))
  end)

  it("for the response head stands still while the client has not sent its request", function()
    start { frontend = { http = { bodyTimeout = "400ms" } },
      backend = { http = { responseHeaderTimeout = "100ms", keepAlive = false } } }
    local conn = http.connect(gw.port)
    conn:send((HEAD:gsub("/total", "/bytes/x")) .. "12")
    local received = server:request()
    assert.equal(408, conn:response().status)
    assert.not_equal("timeout", received.conn:wait_end())
    gw:wait_log "msg=request .*end=body_timeout"
  end)

  it("for the response head stands still while a hook waits, a retry rests, an event is awaited", function()
    start_waiting({ backend = { http = { responseHeaderTimeout = "100ms", keepAlive = false } } }, {
      retry = { statuses = { 503 }, backoff = { base = "300ms", jitter = 0, max = "300ms" } },
      firstEvent = { hold = "300ms" },
    })
    local stream = streams.request(gw, server, { path = "/waits/x", headers = { ["X-Wait"] = "0.3" } })
    stream.origin:ok("busy", "503 Busy")
    stream.origin = server:request()
    stream:answer()
    assert.equal(200, stream.client.status)
    stream:finish()
    assert.equal("ok", stream:logged_end(gw))
    assert.is_true(tonumber(gw:find_log("msg=request")[1]:match "head_ms=(%d+)") >= 900)
  end)

  it("of age breaks off an event that does not end", function()
    start { frontend = { sse = { maxAge = "50ms", keepaliveTimeout = 0 } } }
    local stream = streams.open(gw, server)
    stream:send(FIRST)
    assert.equal("broken", select(2, stream:rest()))
    assert.matches("level=warn", gw:wait_log "msg=request .*end=max_age")
  end)
end)
