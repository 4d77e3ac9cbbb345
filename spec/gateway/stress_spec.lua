--- Everything at once, at random, for some seconds: clients that come in pieces, pipeline, dawdle and leave
-- where they like, before backends that split, stall, break and die, through plugins that wait, change,
-- answer and fail, while the configuration is reloaded. What must hold: whoever behaves well and asks a
-- backend that does gets the right bytes; and when all is over nothing is left, and it still works.
-- GATEWAYD_SEED plays one round again, GATEWAYD_STRESS_SECONDS makes it longer.
local actors = require "spec.support.actors"
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local sys = require "spec.support.sys"

local random, pause = math.random, actors.pause

local SEED = tonumber(os.getenv "GATEWAYD_SEED") or os.time()
local SECONDS = tonumber(os.getenv "GATEWAYD_STRESS_SECONDS") or 6
local CLIENTS = 40 -- at a time

local CHAOS = [[
local plugin = { name = "chaos", schema = { version = { type = "integer", default = 0 } } }

-- Waiting is what makes the others come in between.
local function dawdle(ctx)
  if math.random(4) > 1 then return end
  if math.random(3) == 1 then coroutine.yield() else gateway.sleep(math.random() / 50) end
  ctx.state.waits = (ctx.state.waits or 0) + 1
end

local function maybe_fail(n)
  if math.random(n) == 1 then error({ message = "on purpose", math.random() }) end
end

function plugin.access(ctx)
  dawdle(ctx)
  if math.random(3) == 1 then ctx.state.body = ctx.req.body end
  if ctx.state.body and math.random(3) == 1 then ctx.req.body = ctx.state.body .. "!" end
  ctx.req.headers["X-Chaos"] = { tostring(math.random()), "twice" }
  ctx.req.headers["X-Gone"] = nil
  maybe_fail(20)
  pcall(ctx.reply, ctx, 200, "never sent", { ["bad name"] = "x" })
  local status = math.random(2) == 1 and 204 or 403
  if math.random(20) == 1 then return ctx:reply(status, nil, { ["X-By"] = "chaos" }) end
end

function plugin.balance(ctx, _, instances)
  dawdle(ctx)
  if math.random(2) == 1 then return instances[math.random(#instances)] end
end

function plugin.on_response(ctx)
  dawdle(ctx)
  pcall(ctx.reply, ctx, 200, "never sent", { ["bad name"] = "x" })
  ctx.res.headers["X-Chaos"] = ctx.res.headers["Content-Type"] or "none"
  maybe_fail(20)
  if math.random(20) == 1 then
    return ctx:reply(200, "data: from chaos\n\ndata: twice\n\n", { ["Content-Type"] = "text/event-stream" })
  end
end

local kept

function plugin.on_event(ctx, _, event)
  local first = event.data
  dawdle(ctx)
  assert(event.data == first, "an event changed while its hook waited")
  kept = kept or event
  if math.random(10) == 1 then pcall(function() return kept.data end) end
  local what = math.random(24)
  if what == 1 then return false end
  if what == 2 then event.data = (first or "") .. "\n" .. math.random() end
  if what == 3 then return { event, { type = "more", data = first }, event } end
  if what == 4 then return { { data = ("x"):rep(30000) } } end
  if what == 5 then return ctx:close({ type = "bye", data = "bye" }) end
  if what == 6 then event.json = { n = math.random(), list = { 1, 2, 3 } } end
  if what == 7 then
    event.type = "t" .. math.random()
    pcall(function() event.type = "two\nlines" end)
    pcall(function() event.id = "nul\0" end)
  end
  if what == 8 then maybe_fail(5) end
  local _ = ctx.req.headers.accept, ctx.req.query.q, event.json
end

function plugin.on_close(ctx, _, reason)
  ctx.state.reason = reason
  maybe_fail(20)
  dawdle(ctx)
end

return plugin
]]

local FRONT = [[
local plugin = { name = "front" }

function plugin.route(ctx)
  if ctx.req.path:sub(1, 6) ~= "/hooks" then return end
  if math.random(10) == 1 then coroutine.yield() end
  if math.random(50) == 1 then return ctx:reply(200, { hello = ctx.id }) end
  if math.random(10) == 1 then return "hooks" end
end

function plugin.on_close(ctx, _, reason)
  ctx.shared.reason = reason
end

return plugin
]]

-- What a good answer holds: any amount, different for each number.
local function text_of(n)
  return (("%d;"):format(n)):rep(n * 37 % 9000 + 1)
end

local function events_of(n)
  local events = {}
  for i = 1, n % 50 + 1 do
    events[i] = ("id: %d\nevent: e%d\ndata: %s\n\n"):format(i, n, ("%d."):format(i):rep(n * i % 400 + 1))
  end
  return table.concat(events)
end

-- Sends in a few pieces, with waits; false when the other side is not there any more.
local function send_split(conn, text)
  local at = 1
  for _ = 1, random(0, 4) do
    local stop = math.min(#text, at + random(0, random(2) == 1 and 20 or #text))
    if not conn:send(text:sub(at, stop), 1) then return false end
    at = stop + 1
    if random(3) > 1 then pause(random() / 50) end
  end
  return conn:send(text:sub(at), 1)
end

local function chunks_of(text)
  local chunks, at = {}, 1
  while at <= #text do
    local size = random(random(2) == 1 and 30 or 9000)
    local piece = text:sub(at, at + size - 1)
    chunks[#chunks + 1] = ("%x\r\n%s\r\n"):format(#piece, piece)
    at = at + size
  end
  return table.concat(chunks) .. "0\r\n\r\n"
end

--- Backends ---------------------------------------------------------------------------------------

-- What a backend does with a request; false when the connection is over.
local answers = {}

local function head(status, lines)
  return ("HTTP/1.1 %s\r\n%s\r\n"):format(status, lines)
end

function answers.length(conn, n)
  local text = text_of(n)
  return send_split(conn, head("200 OK", ("Content-Length: %d\r\n"):format(#text)) .. text)
end

function answers.chunked(conn, n)
  return send_split(conn, head("200 OK", "Transfer-Encoding: chunked\r\n") .. chunks_of(text_of(n)))
end

function answers.close(conn, n)
  send_split(conn, head("200 OK", "Connection: close\r\n") .. text_of(n))
end

function answers.hint(conn, n)
  if not send_split(conn, head("103 Early Hints", "Link: </a>\r\n")) then return false end
  return answers.length(conn, n)
end

local STREAM = "Content-Type: text/event-stream\r\n"
local CHUNKED_STREAM = STREAM .. "Transfer-Encoding: chunked\r\n"

function answers.events(conn, n)
  return send_split(conn, head("200 OK", CHUNKED_STREAM) .. chunks_of(events_of(n)))
end

function answers.closed_events(conn, n)
  send_split(conn, head("200 OK", STREAM) .. events_of(n))
end

function answers.empty(conn)
  return send_split(conn, head("204 No Content", ""))
end

function answers.endless(conn, n)
  conn:send(head("200 OK", CHUNKED_STREAM), 1)
  for i = 1, 200 do
    local text = (":c\r\n\r\nid:%d\rdata:%s\r\rdata:b"):format(i, ("y"):rep(n * 7 % 3000))
    if not conn:send(("%x\r\n%s\r\n"):format(#text, text), 1) then return false end
    pause(random() / 50)
  end
  return false
end

function answers.flood(conn)
  conn:send(head("200 OK", CHUNKED_STREAM), 1)
  for i = 1, 300 do
    local text = ("data: %d\n\n:%s\n\n"):format(i, ("z"):rep(30000))
    if not conn:send(("%x\r\n%s\r\n"):format(#text, text), 2) then return false end
    if i % 10 == 0 then pause(0.001) end
  end
  return false
end

function answers.truncated(conn, n)
  send_split(conn, head("200 OK", ("Content-Length: %d\r\n"):format(#text_of(n) + 10)) .. text_of(n))
end

function answers.cut_events(conn, n)
  local text = head("200 OK", CHUNKED_STREAM) .. chunks_of(events_of(n))
  send_split(conn, text:sub(1, random(#text - 1)))
  if random(2) == 1 then conn:reset() end
end

function answers.silent(conn)
  conn:wait_end(1)
end

function answers.dies(conn)
  if random(2) == 1 then conn:reset() end
end

function answers.garbage(conn)
  send_split(conn, ("HTTP/1.1 200 OK\r\nBad Header\r\n%s\r\n\r\n"):format(("\1"):rep(random(9))))
end

function answers.extra(conn, n)
  answers.length(conn, n)
  conn:send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nnot for", 1)
end

-- What another attempt makes good; false when the connection is over. Nothing is left behind on one that
-- is not.
local faults = {}

function faults.closes() return false end

function faults.resets(conn)
  conn:reset()
  return false
end

function faults.begins(conn)
  conn:send("HTTP/1.1 200 OK\r\nContent-", 1)
  return false
end

function faults.is_busy(conn, n)
  local text, wish = text_of(n), random(3) == 1 and "Retry-After: 0\r\n" or ""
  return send_split(conn, head("503 Busy", ("%sContent-Length: %d\r\n"):format(wish, #text)) .. text)
end

function faults.says_so(conn)
  local text = ":hello\n\nevent: overloaded\ndata: x\n\n"
  return send_split(conn, head("200 OK", CHUNKED_STREAM) .. chunks_of(text))
end

function faults.ends(conn)
  return send_split(conn, head("200 OK", CHUNKED_STREAM) .. chunks_of ":hello\n\n")
end

function faults.is_silent(conn)
  send_split(conn, random(2) == 1 and head("200 OK", CHUNKED_STREAM) or "")
  conn:wait_end(2)
  return false
end

local FAULTS = { "closes", "resets", "begins", "is_busy", "is_busy", "says_so", "ends", "is_silent" }

-- Fails every other time, in any way; else answers well. The request's body is the one that was sent, however
-- often it is.
local function be_moody(conn, received, kind, n)
  if kind == "extra" then kind = "length" end -- what it leaves behind would be somebody else's answer
  if random(6) == 1 then
    pause(random() / 50)
    return false
  end
  local whole, body = pcall(received.body, received, 2)
  if not whole then return false end
  local told = received:get "X-Body"
  if told then
    assert(told == ("%d %s"):format(#body, body:sub(1, 1)), "a body of another length or kind")
    assert(body == body:sub(1, 1):rep(#body), "a body that is mixed up")
  end
  return (random(2) == 1 and faults[FAULTS[random(#FAULTS)]] or answers[kind])(conn, n)
end

-- Takes the request or not, and plays the part that its path names. Good ones read all of it.
local function serve(conn)
  while true do
    local ok, received = pcall(backend.read_request, conn, 2)
    if not ok then return end
    local manner, kind, n = received.target:match "^/(%w+)/([%w_]+)/(%d+)"
    if manner == "moody" then
      if not be_moody(conn, received, kind, tonumber(n)) then return end
    else
      if (manner == "good" or random(4) > 1) and not pcall(received.body, received, 2) then return end
      if not answers[kind](conn, tonumber(n)) then return end
    end
  end
end

local function serve_one(conn)
  serve(conn)
  if conn.fd then conn:close() end
end

local function accept(crowd, server, state)
  while not state.closed do
    local conn = server:try_accept(0.2)
    if conn then crowd:spawn(serve_one, conn) end
  end
end

--- Clients ----------------------------------------------------------------------------------------

local GOOD = { "length", "chunked", "close", "hint", "events", "closed_events", "empty" }
local ALL = { "length", "chunked", "close", "hint", "events", "closed_events", "empty", "endless", "flood",
  "truncated", "cut_events", "silent", "dies", "garbage", "extra" }

-- Backends that misbehave are others than those whose answers are looked at: what one of them leaves behind
-- on its connection, nobody can tell from an answer to the next request.
local function bad_manner()
  return ({ "raw", "moody", "hooks", "hooks" })[random(4)]
end

local function expected(kind, n)
  if kind == "empty" then return "" end
  return kind:find "events" and events_of(n) or text_of(n)
end

local function request_to(manner, kind, n)
  local request = { path = ("/%s/%s/%d"):format(manner, kind, n), headers = {} }
  if random(2) == 1 then request.headers.Accept = "text/event-stream, */*" end
  local what = random(6)
  if what <= 2 then
    request.method, request.body = "POST", ("b"):rep(random(random(2) == 1 and 10 or 200000))
    request.headers["X-Body"] = #request.body .. " b"
  elseif what == 3 then
    local length = random(50000)
    request.method, request.body = "PUT", chunks_of(("c"):rep(length))
    request.headers["Transfer-Encoding"] = "chunked"
    request.headers["X-Body"] = length .. " c"
  end
  if request.body and random(4) == 1 then request.headers.Expect = "100-continue" end
  return request
end

local function without_comments(text)
  return (text:gsub(":keepalive\n\n", ""))
end

-- Asks for what is sure to be answered well, a few times, and looks at all of it.
local function behave(port, state)
  local conn = http.connect(port, { rcvbuf = random(3) == 1 and 4096 or nil })
  for _ = 1, random(3) do
    local kind, n = GOOD[random(#GOOD)], random(1000)
    local request = request_to("good", kind, n)
    send_split(conn, http.format(request))
    local response = conn:response({ skip_informational = true }, 10)
    local text, how = response:body(10)
    local told = ("GET /good/%s/%d"):format(kind, n)
    assert(response.status == (kind == "empty" and 204 or 200), told .. ": " .. response.raw)
    assert(how == "clean", told .. " ended: " .. tostring(how))
    assert(without_comments(text) == expected(kind, n), told .. ": the wrong body")
    state.served = state.served + 1
    if response:get "connection" == "close" then break end
  end
  conn:close()
end

-- Asks backends that often fail before they answer: what comes is right, or an error that says so.
local function insist(port, state)
  local conn = http.connect(port)
  for _ = 1, random(3) do
    local kind, n = GOOD[random(#GOOD)], random(1000)
    local request = request_to("moody", kind, n)
    send_split(conn, http.format(request))
    local response = conn:response({ skip_informational = true }, 20)
    local text, how = response:body(10)
    local told = ("%s /moody/%s/%d"):format(request.method or "GET", kind, n)
    assert(how == "clean", told .. " ended: " .. tostring(how))
    if response.status < 300 then
      assert(response.status == (kind == "empty" and 204 or 200), told .. ": " .. response.raw)
      assert(without_comments(text) == expected(kind, n), told .. ": the wrong body")
      state.insisted = (state.insisted or 0) + 1
    else
      assert(response.status >= 502 and response.status <= 504, told .. ": " .. response.raw)
      assert(response.status ~= 503 or text == text_of(n) or text:find "error", told .. ": the wrong error")
    end
    if response:get "connection" == "close" then break end
  end
  conn:close()
end

local function leave(conn)
  local how = random(3)
  if how == 1 then
    conn:reset()
  elseif how == 2 then
    conn:shutdown()
    conn:wait_end(1)
  end
  conn:close()
end

-- Leaves somewhere: in the request, before the answer, or within it.
local function quit(port)
  local conn = http.connect(port, { rcvbuf = random(3) == 1 and 4096 or nil })
  local text = http.format(request_to(bad_manner(), ALL[random(#ALL)], random(1000)))
  local stop = random(3) == 1 and random(0, #text) or #text
  send_split(conn, text:sub(1, stop))
  if stop == #text then
    pause(random() / 10)
    local most = random(20000)
    while most > 0 do
      local piece = conn:read_some(random() / 5)
      if not piece then break end
      most = most - #piece
    end
  end
  leave(conn)
end

-- Takes whatever comes through the hooks, up to the end.
local function endure(port)
  local conn = http.connect(port)
  send_split(conn, http.format(request_to("hooks", ALL[random(#ALL)], random(1000))))
  conn:read_all(random(3))
  conn:close()
end

local function pipeline(port)
  local conn, texts = http.connect(port), {}
  for i = 1, random(2, 6) do
    local request = request_to(bad_manner(), ALL[random(#ALL)], random(1000))
    request.headers.Expect = nil
    texts[i] = http.format(request)
  end
  send_split(conn, table.concat(texts))
  if random(3) > 1 then conn:read_all(random()) end
  leave(conn)
end

local NOISE = { "GET", " / HTTP/1.1\r\n", "\r\n", "\r\n\r\n", "Host: a\r\n", "\0", "\255", "zz",
  "POST /good/length/1 HTTP/1.1\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
  "5\r\nabcde\r\n", "0\r\n\r\n" }

local function babble(port)
  local conn, parts = http.connect(port), {}
  for i = 1, random(12) do parts[i] = NOISE[random(#NOISE)] end
  send_split(conn, table.concat(parts))
  conn:read_all(random() / 2)
  leave(conn)
end

-- Takes an endless stream and stops reading, so that the write timeout has something to do.
local function fall_asleep(port)
  local conn = http.connect(port, { rcvbuf = 4096 })
  conn:send(http.format { path = ("/%s/flood/%d"):format(bad_manner(), random(1000)) })
  pause(random() * 3)
  conn:read_all(0.1)
  leave(conn)
end

local KINDS = { behave, behave, behave, insist, insist, quit, quit, quit, endure, endure, pipeline, babble,
  fall_asleep }

local function be_clients(port, state, kinds)
  while not state.over do kinds[random(#kinds)](port, state) end
  state.clients = state.clients - 1
end

--- The gateway ------------------------------------------------------------------------------------

local function options(version, servers)
  local retry = { on = { "connect", "reset", "timeout" }, statuses = { 503 }, attempts = 8,
    methods = { "GET", "POST", "PUT" }, maxBody = "150KiB", backoff = { base = "1ms", max = "20ms" },
    budget = { ratio = 10 } }
  local chaos = { { chaos = { version = version } }, { chaos = { version = version }, onError = "skip" } }
  return {
    services = { good = servers[1].port, bad = { servers[2].port, servers[3].port },
      moody = { servers[4].port, servers[5].port } },
    -- In all but the first there may be nobody left who answers, or takes the rest of a request, and the end
    -- of a client may lie behind bytes that are not read: so each has an end by the clock.
    rules = {
      { id = "good", path = "/good/*", serviceName = "good" },
      { id = "raw", path = "/raw/*", serviceName = "bad", timeout = 4 },
      { id = "moody", path = "/moody/*", serviceName = "moody", timeout = 4, retry = retry,
        firstEvent = { hold = "60s", errors = { "overloaded" } } },
      { id = "hooks", path = "/hooks/*", serviceName = "bad", timeout = 2, plugins = chaos,
        retry = version % 2 == 0 and retry or nil,
        firstEvent = version % 3 == 0 and { hold = "50ms" } or nil },
    },
    files = { ["plugins/chaos.lua"] = CHAOS, ["plugins/front.lua"] = FRONT },
    workers = 2,
    config = {
      plugins = { "front" },
      frontend = {
        -- Whoever behaves well may be slow where the machine is: it says nothing between two turns of ours.
        http = { readTimeout = 8, writeTimeout = 2.5, idleTimeout = 8 },
        sse = { writeTimeout = 2.5, keepaliveTimeout = 0.03, maxEventBytes = "40KiB" },
      },
      backend = {
        http = { responseHeaderTimeout = 8, maxIdleConnsPerHost = 3 },
        sse = { responseTimeout = 4 },
      },
      management = { enabled = true, host = "127.0.0.1", port = 0 },
      log = { access = false },
    },
  }
end

local function metric(gw, name)
  local text = http.fetch(gw.admin_port, "/metrics").text
  return tonumber(text:match("\ngatewayd_" .. name .. " (%d+)"))
end

local function reload_often(gw, servers, state)
  local version = 1
  while not state.over do
    pause(0.5 + random() / 2)
    version = version + 1
    gw:configure(options(version, servers))
    gw.process:signal "HUP"
  end
end

describe("clients, backends, plugins and reloads at random", function()
  local servers

  after_each(function()
    for _, server in ipairs(servers) do server:close() end
    gateway.stop_all()
  end)

  -- Clients of these kinds for so many seconds, then on until the last one has finished.
  local function play(gw, kinds, seconds)
    local crowd, state = actors.new(), { served = 0, clients = CLIENTS }
    for _, server in ipairs(servers) do crowd:spawn(accept, crowd, server, state) end
    for _ = 1, CLIENTS do crowd:spawn(be_clients, gw.port, state, kinds) end
    crowd:spawn(reload_often, gw, servers, state)
    local deadline = sys.now() + seconds
    while crowd.count > 0 and sys.now() < deadline + 25 do
      state.over = sys.now() >= deadline or crowd.failures[1] ~= nil
      state.closed = state.clients == 0 or crowd.failures[1] ~= nil
      crowd:turn(sys.now() + 0.05)
      gw:log() -- so that it never waits for us
    end
    assert.is_true(state.served > 0)
    assert.is_true(kinds ~= KINDS or state.insisted > 0)
    assert.equal("", table.concat(crowd.failures, "\n"))
    assert.message("actors that do not end").equal(0, crowd.count)
  end

  -- Once nobody asks any more, what is open has four seconds at most.
  local function wait_metric(gw, name, value)
    sys.wait_until(function() return metric(gw, name) == value end, 10, ("%s to be %d"):format(name, value))
  end

  it("leave nothing behind", function()
    math.randomseed(SEED)
    servers = {}
    for i = 1, 5 do servers[i] = backend.listen() end
    local gw = gateway.start(options(1, servers))
    local ok, why = pcall(function()
      play(gw, KINDS, SECONDS)
      wait_metric(gw, "exchanges", 0)
      wait_metric(gw, "streams", 0)
      wait_metric(gw, "connections", 0)
      wait_metric(gw, "generations", 2) -- one in each worker
      play(gw, { behave }, 0.2)
    end)
    assert.message(gw:log_text()).equal(0, #gw:find_log "worker died")
    if not ok then error(("GATEWAYD_SEED=%d: %s"):format(SEED, tostring(why)), 0) end
  end)
end)
