--- Places of event streams are given back once, in whatever way an exchange ends; and what hooks, statuses
-- and reloads do at a bound.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"

local EVENTS = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"

-- Does what the request's X-Do says, and counts how often it was told of the end.
local ACTS = [[
  local plugin = { name = "acts" }
  local function wish(ctx) return ctx.req.headers["x-do"] end
  function plugin.access(ctx)
    if wish(ctx) == "reply" then
      return ctx:reply(200, "data: mine\n\n", { ["Content-Type"] = "text/event-stream" })
    end
    if wish(ctx) == "loop in access" then while true do end end
  end
  function plugin.on_response(ctx)
    local first = not ctx.state.seen
    ctx.state.seen = true
    ctx.res.headers["X-Seen"] = "yes"
    if wish(ctx) == "reply instead" then return ctx:reply(418, "tea") end
    if wish(ctx) == "fail" and first then error("on purpose") end
    if wish(ctx) == "make json" then ctx.res.headers["Content-Type"] = "application/json" end
    if wish(ctx) == "make events" then ctx.res.headers["Content-Type"] = "text/event-stream" end
    if wish(ctx) == "loop" then while true do end end
  end
  function plugin.on_event(ctx, _, event)
    if event.data == "loop" then while true do end end
    if event.data == "close" then return ctx:close(event) end
    if event.data == "wait" then gateway.sleep(60) end
  end
  function plugin.on_close(ctx, _, reason)
    ctx.state.closed = (ctx.state.closed or 0) + 1
    gateway.log.info("closed %d %s", ctx.state.closed, reason)
    if wish(ctx) == "fail at the end" then error("on purpose") end
    if wish(ctx) == "loop at the end" then while true do end end
  end
  return plugin
]]

describe("the place of a stream", function()
  local server, gw

  local function rule(keys)
    local out = { id = "r", path = "/r/*", serviceName = "api", plugins = { "acts" } }
    for key, value in pairs(keys or {}) do out[key] = value end
    return out
  end

  local function start(keys)
    server = backend.listen()
    gw = site.start { services = { api = server.port }, rules = { rule(keys) },
      config = { lua = { maxRunTime = "30ms" } },
      files = { ["plugins/acts.lua"] = ACTS } }
  end

  after_each(function()
    streams.close_all()
    server:close()
    gateway.stop_all()
  end)

  local function ask(wish, request)
    request = request or {}
    request.path = "/r/x"
    request.headers = request.headers or { Accept = "text/event-stream" }
    request.headers["X-Do"] = wish
    local conn = http.connect(gw.port)
    conn:send(http.format(request))
    return conn
  end

  -- Nothing is taken, neither too much nor too little: one fits, and a second one does not.
  local function assert_free()
    for _, name in ipairs { "bound_keys", "streams_due", "streams", "exchanges" } do
      gw:wait_metric(name, 0)
    end
    local stream = streams.open(gw, server, { path = "/r/x" })
    assert.equal(503, ask(nil):response().status)
    stream.conn:close()
    gw:wait_metric("bound_keys", 0)
    gw:wait_metric("exchanges", 0)
  end

  it("is free behind hooks that answer, fail, change what it is, or do not come back", function()
    start { maxStreams = 1 }
    for wish, status in pairs { ["reply instead"] = 418, fail = 500, loop = 500, ["make json"] = 200,
      ["fail at the end"] = 200, ["loop at the end"] = 200 } do
      local conn = ask(wish)
      server:request():reply(EVENTS:gsub("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
      local answer = conn:response()
      assert.message(wish).equal(status, answer.status)
      conn:close()
      assert_free()
    end
    assert.equal(500, ask("loop in access"):response().status)
    assert_free()
    assert.matches("mine", (ask("reply"):response():body()))
    assert_free()
  end)

  it("is free behind streams that hooks end, break or hold up", function()
    start { maxStreams = 1 }
    for data in pairs { loop = true, close = true, wait = true } do
      local stream = streams.open(gw, server, { path = "/r/x" })
      stream:send("data: " .. data .. "\n\n")
      if data == "wait" then
        streams.close_all()
      else
        assert.message(data).equal(data == "close" and "clean" or "broken", select(2, stream:rest()))
      end
      assert_free()
    end
  end)

  it("is free behind answers that are no streams", function()
    start { maxStreams = 1 }
    for name, case in pairs {
      HEAD = { { method = "HEAD" }, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", 200 },
      ["304"] = { {}, "HTTP/1.1 304 Not Modified\r\nContent-Type: text/event-stream\r\n\r\n", 304 },
      ["204"] = { {}, "HTTP/1.1 204 No Content\r\n\r\n", 204 },
      ["coded"] = { {}, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
        .. "Content-Length: 1\r\n\r\nx", 200 },
      ["500"] = { {}, "HTTP/1.1 500 Oh\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n",
        500 },
    } do
      local conn = ask(nil, case[1])
      server:request():reply(case[2])
      assert.message(name).equal(case[3], conn:response({ head = name == "HEAD" }).status)
      gw:wait_metric("exchanges", 0)
      conn:close()
      assert_free()
    end
  end)

  it("is asked for when a hook makes a stream of an answer, which is let go", function()
    start { maxStreams = 1 }
    local open = streams.open(gw, server, { path = "/r/x" })
    local conn = ask("make events", { headers = {} })
    local received = server:request()
    received:reply "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert.equal(503, conn:response().status)
    assert.not_equal("timeout", received.conn:wait_end())
    open:send "data: 2\n\n"
    open:expect "data: 2\n\n"
  end)

  it("that there is none of is told to hooks, once each, and in plain text", function()
    start { maxStreamsPerClient = 1 }
    streams.open(gw, server, { path = "/r/x" })
    local conn = ask(nil, { method = "POST", body = "{}", headers = { Accept = "text/plain" } })
    local received = server:request()
    received:body()
    received:reply(EVENTS)
    local answer = conn:response()
    assert.equal(429, answer.status)
    assert.equal("yes", answer:get "X-Seen")
    assert.matches("^%d%d?$", answer:get "Retry-After")
    assert.matches("^text/plain", answer:get "Content-Type")
    assert.matches("^too many event streams of this client", answer:body())
    gw:wait_log "closed 1 rule_max_streams_per_client"
    assert.equal(0, #gw:find_log "closed 2")
    assert.not_equal("timeout", received.conn:wait_end())
    gw:wait_metric("exchanges", 1)
    gw:wait_metric("bound_keys", 1)
  end)

  it("is free behind streams that end for their age, their silence or their first event", function()
    for name, keys in pairs {
      age = { maxAge = "50ms" }, silence = { responseTimeout = "50ms" },
      first = { firstEventTimeout = "50ms" },
      total = { timeout = "50ms" }, held = { firstEventTimeout = "50ms", firstEvent = { hold = "60s" } },
    } do
      keys.maxStreams = 1
      start(keys)
      local stream = streams.request(gw, server, { path = "/r/x" })
      stream.origin:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n"
      local answer = stream.conn:response()
      assert.message(name).equal(name == "held" and 504 or 200, answer.status)
      answer:body()
      gw:wait_metric("bound_keys", 0)
      gw:wait_metric("streams_due", 0)
      gw:wait_metric("streams", 0)
      streams.close_all()
      server:close()
      gateway.stop_all()
    end
    start()
  end)

  it("stays with streams through versions that do not know their rule, or bound it otherwise", function()
    start { maxStreams = 2 }
    local one, two = streams.open(gw, server, { path = "/r/x" }), streams.open(gw, server, { path = "/r/x" })
    gw:renew { rules = { rule { id = "other", path = "/other/*" } } }
    assert.equal(1, gw:metrics().bound_keys)
    one.conn:close()
    gw:wait_metric("streams", 1)
    gw:renew { rules = { rule { maxStreams = 1 } } }
    assert.equal(503, ask(nil):response().status)
    two:send "data: 2\n\n"
    two:expect "data: 2\n\n"
    gw:renew { rules = { rule { maxStreamsPerClient = 1 } } }
    gw:wait_metric("generations", 1)
    assert.equal(429, ask(nil):response().status)
    two.conn:close()
    gw:wait_metric("bound_keys", 0)
    streams.open(gw, server, { path = "/r/x" })
  end)
end)

describe("a connection's bound", function()
  local server, gw

  local function start(keys)
    server = backend.listen()
    gw = site.start { services = { api = server.port },
      rules = { { id = "r", path = "/*", serviceName = "api" } },
      config = { frontend = { http = keys } } }
  end

  after_each(function()
    server:close()
    gateway.stop_all()
  end)

  it("of requests holds for those that come ahead of their turn", function()
    start { maxRequestsPerConnection = 2 }
    local conn = http.connect(gw.port)
    conn:send(http.format({ path = "/1" }):rep(4))
    for i = 1, 2 do
      server:request():ok "ok"
      local answer = conn:response()
      assert.equal(i == 2 and "close" or nil, answer:get "Connection")
      assert.equal("ok", (answer:body()))
    end
    conn:wait_end()
    assert.is_nil(server:try_accept(0))
  end)

  it("of pipelined bytes may be smaller than a head, which is read all the same", function()
    start { maxPipelinedBytes = 1024 }
    local conn, big = http.connect(gw.port), ("x"):rep(20000)
    local request = http.format { path = "/1", headers = { ["X-Big"] = big } }
    conn:send(request:rep(3))
    for _ = 1, 3 do
      local received = server:request()
      assert.equal(big, received:get "X-Big")
      received:ok "ok"
      assert.equal("ok", (conn:response():body()))
    end
  end)
end)
