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

  it("of age breaks off an event that does not end", function()
    start { frontend = { sse = { maxAge = "50ms", keepaliveTimeout = 0 } } }
    local stream = streams.open(gw, server)
    stream:send(FIRST)
    assert.equal("broken", select(2, stream:rest()))
    assert.matches("level=warn", gw:wait_log "msg=request .*end=max_age")
  end)
end)
