--- Bounds on what clients hold: connections and event streams, in total, by client, rule and session, and
-- what is buffered; over all workers, through reloads, and when a worker dies.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

local KILL = 9
local EVENTS = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"

describe("a bound", function()
  local server

  setup(function() server = backend.listen() end)
  teardown(function() server:close() end)

  after_each(function()
    streams.close_all()
    gateway.stop_all()
  end)

  local function start(options)
    options.services = { api = server.port }
    return site.start(options)
  end

  local function rule(keys)
    local out = { id = "r", path = "/r/*", serviceName = "api" }
    for key, value in pairs(keys or {}) do out[key] = value end
    return out
  end

  local function open(gw, headers)
    return streams.open(gw, server, { path = "/r/x", headers = headers })
  end

  local function limited(gw, bound)
    local text = http.fetch(gw.admin_port, "/metrics").text
    return tonumber(text:match('\ngatewayd_limited_total{bound="' .. bound .. '"} (%d+)'))
  end

  -- Asks for events and does not get them.
  local function refused(gw, headers, request)
    local wish = { path = "/r/x", headers = { Accept = "text/event-stream" } }
    for name, value in pairs(headers or {}) do wish.headers[name] = value end
    for key, value in pairs(request or {}) do wish[key] = value end
    local answer = http.connect(gw.port):request(wish)
    local wait = tonumber(answer:get "Retry-After")
    assert.is_true(wait and wait >= 1 and wait <= 10, "Retry-After: " .. tostring(wait))
    assert.matches('^{"error":"[%w ]+","request_id":"[^"]*"}\n$', answer:body())
    return answer.status
  end

  -- Closes the client's side, and waits until the gateway has seen it.
  local function close(gw, stream)
    local left = gw:metrics().streams - 1
    stream.conn:close()
    gw:wait_metric("streams", left)
  end

  it("of connections for each client answers the first request beyond it, and keeps the others", function()
    local gw = start { rules = { rule() }, workers = 2, config = { frontend = {
      http = { maxConnectionsPerClient = 2 } } } }
    local first, second = open(gw), open(gw)
    local third = http.connect(gw.port)
    local answer = third:request { path = "/r/x" }
    assert.equal(429, answer.status)
    assert.truthy(answer:get "Retry-After")
    assert.equal("close", answer:get "Connection")
    assert.matches("too many connections of this client", answer:body())
    assert.equal("eof", third:wait_end() or third.ended)
    gw:wait_log("why=max_connections_per_client")
    assert.equal(1, limited(gw, "max_connections_per_client"))
    assert.equal(2, gw:metrics().admitted_connections)
    first.conn:close()
    gw:wait_metric("admitted_connections", 1)
    local fourth = open(gw)
    second:send "data: on\n\n"
    second:expect "data: on\n\n"
    close(gw, fourth)
    close(gw, second)
    gw:wait_metric("bound_keys", 0)
  end)

  it("of connections for each client does not count trusted proxies", function()
    local gw = start { rules = { rule() }, config = { frontend = { http = {
      maxConnectionsPerClient = 1, trustedProxies = { "127.0.0.0/8" } } } } }
    open(gw)
    open(gw)
    assert.equal(0, limited(gw, "max_connections_per_client"))
  end)

  it("of connections in total counts those beyond it among none, though they stay silent", function()
    local gw = start { rules = { rule() }, config = { frontend = { http = { maxConnections = 1 } } } }
    local first = http.connect(gw.port)
    gw:wait_metric("admitted_connections", 1)
    local silent = {}
    for i = 1, 3 do silent[i] = http.connect(gw.port) end
    gw:wait_metric("connections", 4)
    first:close()
    gw:wait_metric("admitted_connections", 0)
    open(gw)
    assert.equal(503, silent[1]:request({ path = "/r/x" }).status)
    for i = #silent + 1, 300 do silent[i] = http.connect(gw.port) end
    assert.equal("eof", select(2, silent[300]:read_some(5)))
    assert.is_true(gw:metrics().connections < 270)
    for _, conn in ipairs(silent) do conn:close() end
  end)

  for name, case in pairs {
    ["of the gateway"] = { sse = { maxStreams = 2 }, why = "max_streams", status = 503 },
    ["of a client"] = { sse = { maxStreamsPerClient = 2 }, why = "max_streams_per_client", status = 429 },
    ["of a rule"] = { keys = { maxStreams = 2 }, why = "rule_max_streams", status = 503 },
    ["of a client at a rule"] = { keys = { maxStreamsPerClient = 2 }, why = "rule_max_streams_per_client",
      status = 429 },
  } do
    it("of streams " .. name .. " holds over two workers, before the backend is asked", function()
      local gw = start { rules = { rule(case.keys) }, workers = 2,
        config = { frontend = { sse = case.sse or {} } } }
      local first, second = open(gw), open(gw)
      for _ = 1, 4 do assert.equal(case.status, refused(gw)) end
      assert.is_nil(server:try_accept(0))
      assert.equal(4, limited(gw, case.why))
      gw:wait_log("status=" .. case.status .. ".*" .. case.why)
      second:send "data: on\n\n"
      second:expect "data: on\n\n"
      close(gw, first)
      close(gw, open(gw))
      open(gw)
      assert.equal(case.status, refused(gw))
    end)
  end

  it("of streams for each session knows sessions apart", function()
    local gw = start { rules = { rule { maxStreamsPerSession = 1, stickySession = { enabled = true } } } }
    local first = open(gw, { ["X-Session-Id"] = "a" })
    assert.equal(429, refused(gw, { ["X-Session-Id"] = "a" }))
    open(gw, { ["X-Session-Id"] = "b" })
    assert.equal(1, limited(gw, "max_streams_per_session"))
    close(gw, first)
    open(gw, { ["X-Session-Id"] = "a" })
  end)

  it("of streams meets an answer that turns out to be one, and lets its backend go", function()
    local gw = start { rules = { rule { maxStreams = 1 } } }
    open(gw)
    local client = http.connect(gw.port)
    client:send(http.format { method = "POST", path = "/r/x", body = "{}" })
    local request = server:request()
    assert.equal("{}", request:body())
    request:reply(EVENTS)
    local answer = client:response()
    assert.equal(503, answer.status)
    assert.truthy(answer:get "Retry-After")
    assert.matches("as many event streams", answer:body())
    request.conn:wait_end()
    assert.equal(1, limited(gw, "rule_max_streams"))
    assert.equal(1, gw:metrics().streams)
  end)

  it("of streams counts a POST that is answered with one, and nothing else", function()
    local gw = start { rules = { rule { maxStreams = 1 } } }
    local plain = http.connect(gw.port)
    for _ = 1, 3 do
      plain:send(http.format { path = "/r/x", headers = { Accept = "text/event-stream" } })
      server:request():ok("no stream")
      assert.equal("no stream", plain:response():body())
    end
    gw:wait_metric("bound_keys", 0)
    gw:wait_metric("streams_due", 0)
    local post = streams.open(gw, server, { path = "/r/x", method = "POST", body = "{}" })
    assert.equal(503, refused(gw))
    close(gw, post)
    open(gw)
  end)

  it("of streams gets its place back from whoever leaves, whatever he waited for", function()
    local hook = [[
      local plugin = { name = "slow" }
      function plugin.on_response(ctx) if ctx.req.headers["x-slow"] then gateway.sleep(60) end end
      function plugin.access(ctx) if ctx.req.headers["x-fail"] then error("on purpose") end end
      function plugin.on_event(_, _, event) if event.data == "fail" then error("on purpose") end end
      return plugin
    ]]
    local gw = start { rules = { rule { maxStreams = 1, plugins = { "slow" } } },
      files = { ["plugins/slow.lua"] = hook } }
    local function free()
      gw:wait_metric("bound_keys", 0)
      gw:wait_metric("streams_due", 0)
    end
    local asked = streams.request(gw, server, { path = "/r/x" })
    assert.equal(503, refused(gw))
    asked.conn:close()
    free()
    local held = streams.request(gw, server, { path = "/r/x", headers = { ["X-Slow"] = "1" } })
    held.origin:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    gw:wait_metric("bound_keys", 1)
    held.conn:close()
    free()
    assert.equal(500, http.connect(gw.port):request({ path = "/r/x",
      headers = { Accept = "text/event-stream", ["X-Fail"] = "1" } }).status)
    local failed = open(gw)
    failed:send "data: fail\n\n"
    failed.client:body()
    free()
    local broken = streams.request(gw, server, { path = "/r/x" })
    broken.origin.conn:reset()
    assert.equal(502, broken.conn:response().status)
    free()
    open(gw)
  end)

  it("of streams counts one place for an exchange that is tried several times", function()
    local gw = start { rules = { rule { maxStreams = 1, retry = { statuses = { 503 }, attempts = 3 } } } }
    local first = streams.request(gw, server, { path = "/r/x" })
    first.origin:ok("busy", "503 Busy")
    local second = server:request()
    assert.equal(1, gw:metrics().bound_keys)
    assert.equal(503, refused(gw))
    second:reply(EVENTS)
    assert.equal(200, first.conn:response().status)
    first.conn:close()
    gw:wait_metric("bound_keys", 0)
  end)

  it("of streams counts what was open when a new version came, in event mode as well", function()
    local plugins = { "look" }
    local gw = start { rules = { rule { plugins = plugins } },
      files = { ["plugins/look.lua"] = streams.LOOK } }
    local first = open(gw, { ["X-Request-Id"] = "kept-as-it-was" })
    local second = open(gw)
    gw:renew { rules = { rule { maxStreams = 2, maxStreamsPerClient = 3, plugins = plugins } } }
    gw:wait_metric("bound_keys", 2)
    gw:wait_metric("generations", 1)
    assert.equal(503, refused(gw))
    first:send "data: on\n\n"
    first:expect "data: on\n\n"
    gw:renew { rules = { rule { plugins = plugins } }, config = { frontend = { sse = { maxStreams = 2 } } } }
    gw:wait_metric("generations", 1)
    assert.equal(503, refused(gw))
    close(gw, first)
    gw:wait_log("x=kept%-as%-it%-was .*rule=r ")
    open(gw)
    close(gw, second)
    gw:renew { rules = { rule { maxStreams = 1, plugins = plugins } } }
    gw:wait_metric("generations", 1)
    assert.equal(503, refused(gw))
    streams.close_all()
    gw:wait_metric("bound_keys", 0)
  end)

  it("of streams loses what a worker held that was killed, and no more", function()
    local gw = start { rules = { rule { maxStreams = 8, maxStreamsPerClient = 8 } }, workers = 2 }
    local open_ones = {}
    for i = 1, 8 do open_ones[i] = open(gw) end
    assert.equal(503, refused(gw))
    local victim = gw:workers()[1]
    site.kill(victim, KILL)
    gw:wait_log "worker died"
    sys.wait_until(function() return #gw:workers() == 2 and gw:workers()[1] ~= victim end, 15, "a new worker")
    local left = 0
    for _, stream in ipairs(open_ones) do
      stream.client:read(0.01)
      if not stream.conn.ended then left = left + 1 end
    end
    gw:wait_metric("streams", left)
    for _ = left + 1, 8 do open(gw) end
    assert.equal(503, refused(gw))
    streams.close_all()
    gw:wait_metric("bound_keys", 0)
    gw:wait_metric("admitted_connections", 0)
    gw:stop { faults = true }
  end)

  it("of streams is never passed in a storm, which leaves nothing behind", function()
    local gw = start { rules = { rule { maxStreams = 5, maxStreamsPerClient = 4 } }, workers = 2 }
    local served, turned = 0, 0
    for round = 1, 15 do
      local conns = {}
      for i = 1, 12 do
        conns[i] = http.connect(gw.port)
        conns[i]:send(http.format { path = "/r/x", headers = { Accept = "text/event-stream" } })
      end
      if round % 3 == 0 then -- nobody waits for an answer
        for _, conn in ipairs(conns) do conn:reset() end
        repeat local conn = server:try_accept(0.02) until not conn
      else
        local origins = {}
        for _ = 1, 4 do origins[#origins + 1] = server:try_accept(5) end
        assert.is_nil(server:try_accept(0.01))
        for _, origin in ipairs(origins) do
          backend.read_request(origin):reply(EVENTS)
        end
        for _, conn in ipairs(conns) do
          local status = conn:response().status
          served, turned = served + (status == 200 and 1 or 0), turned + (status == 429 and 1 or 0)
        end
        for _, conn in ipairs(conns) do conn:reset() end
      end
      gw:wait_metric("exchanges", 0)
    end
    assert.same({ 40, 80 }, { served, turned })
    for _, name in ipairs { "streams", "streams_due", "bound_keys", "admitted_connections" } do
      gw:wait_metric(name, 0)
    end
  end)

  it("of buffers refuses new requests, keeps what there is, and takes them again", function()
    local gw = start { rules = { rule() }, config = { limits = { maxBufferedBytes = "256KiB" },
      frontend = { sse = { maxBufferedBytes = "2MiB" } } } }
    local slow = streams.open(gw, server, { path = "/r/x", rcvbuf = 4096 })
    local event = "data: " .. ("x"):rep(16000) .. "\n\n"
    local sent = 0
    sys.wait_until(function()
      slow:send(event)
      sent = sent + 1
      return gw:metrics().buffered_bytes > 256 * 1024
    end, 15, "full buffers")
    local answer = http.connect(gw.port):request { path = "/r/x" }
    assert.equal(503, answer.status)
    assert.matches("short of memory", answer:body())
    assert.equal(1, limited(gw, "max_buffered_bytes"))
    assert.equal(1, gw:metrics().shedding)
    gw:wait_log "buffers are at their bound"
    for _ = 1, sent do slow:expect(event) end
    open(gw)
    assert.equal(0, gw:metrics().shedding)
    gw:wait_log "requests are taken again"
    slow:send(event)
    slow:expect(event)
  end)

  it("of a stream's buffer pauses its backend, and no other's", function()
    local gw = start { rules = { rule() }, config = { frontend = { sse = { maxBufferedBytes = "1MiB" } } } }
    local slow = streams.open(gw, server, { path = "/r/x", rcvbuf = 4096 })
    local piece = ": " .. ("x"):rep(60000) .. "\n\n"
    repeat until not slow.origin.conn:send(streams.chunk(piece), 0.5)
    local bytes = gw:metrics().buffered_bytes
    assert.is_true(bytes > 900 * 1024 and bytes < 1600 * 1024, bytes .. " bytes are buffered")
  end)

  it("of requests for each connection says Connection: close with the last one", function()
    local gw = start { rules = { rule() },
      config = { frontend = { http = { maxRequestsPerConnection = 2 } } } }
    local client = http.connect(gw.port)
    local said = {}
    for i = 1, 2 do
      client:send(http.format { path = "/r/x" })
      server:request():ok "ok"
      local answer = client:response()
      answer:body()
      said[i] = answer:get "Connection" or "-"
    end
    client:wait_end()
    assert.same({ "-", "close" }, said)
    assert.equal(1, gw:metrics().spent_connections_total)
  end)

  it("of what is asked ahead stops reading, and nothing is lost of it", function()
    local gw = start { rules = { rule() }, config = { frontend = { http = { maxPipelinedBytes = "4KiB" } } } }
    local client = http.connect(gw.port)
    local request = http.format { path = "/r/x", headers = { X = ("y"):rep(1000) } }
    local N = 200
    client:send(http.format { path = "/r/x" })
    local first = server:request()
    client:send(request:rep(N))
    gw:wait_metric("pipeline_pauses_total", 1)
    assert.is_true(gw:metrics().buffered_bytes < 64 * 1024)
    first:ok "1"
    assert.equal("1", client:response():body())
    for _ = 1, N do
      server:request():ok "2"
      assert.equal("2", client:response():body())
    end
    assert.is_true(gw:metrics().pipeline_pauses_total > 1)
  end)

  describe("on messages is told by reason:", function()
    local function told(gw, reason)
      local text = http.fetch(gw.admin_port, "/metrics").text
      return tonumber(text:match('\ngatewayd_refused_total{reason="' .. reason .. '"} (%d+)'))
    end

    for what, case in pairs {
      ["bytes of a head"] = { { maxHeaderBytes = "1KiB" }, { headers = { A = ("a"):rep(1100) } }, 431,
        "head_too_large" },
      ["fields of a head"] = { { maxHeaders = 2 }, { headers = { A = "1", B = "2", C = "3" } }, 431,
        "head_too_large" },
      ["a target"] = { { maxTargetBytes = 50 }, { path = "/r/" .. ("a"):rep(50) }, 414, "target_too_long" },
      ["a body"] = { { maxBodyBytes = 4 }, { method = "POST", body = "12345" }, 413, "body_too_large" },
    } do
      it(what, function()
        local gw = start { rules = { rule() }, config = { frontend = { http = case[1] } } }
        local wish = { path = "/r/x" }
        for key, value in pairs(case[2]) do wish[key] = value end
        assert.equal(case[3], http.connect(gw.port):request(wish).status)
        assert.equal(1, told(gw, case[4]))
        assert.equal(0, told(gw, "bad_request"))
      end)
    end

    it("an event", function()
      local gw = start { rules = { rule { plugins = { "looks" } } },
        files = { ["plugins/looks.lua"] = 'return { name = "looks", on_event = function() end }' },
        config = { frontend = { sse = { maxEventBytes = "1KiB" } } } }
      local client = http.connect(gw.port)
      client:send(http.format { path = "/r/x", headers = { Accept = "text/event-stream" } })
      server:request():reply(EVENTS .. "data: " .. ("x"):rep(2000) .. "\n\n")
      gw:wait_log "end=upstream_event_too_large"
      assert.equal(1, told(gw, "event_too_large"))
    end)
  end)
end)
