--- The benchmark's own tools: a generator that misses a fault would make every figure worthless.
local cjson = require("cjson")
local http = require("spec.support.http")
local origin = require("spec.support.origin")
local process = require("spec.support.process")

local BUILD = os.getenv("GATEWAYD_BUILD") or "build"

-- Runs the load generator to its end; returns its result, or nil, its exit code and what it complains of.
local function load(mode, port, options)
  local argv = { BUILD .. "/bench/load", mode, "--port", tostring(port), "--settle", "0" }
  for name, value in pairs(options) do
    argv[#argv + 1] = "--" .. name:gsub("_", "-")
    argv[#argv + 1] = tostring(value)
  end
  local child = process.spawn(argv)
  local status = assert(child:wait(15), "load does not end")
  local last = child:lines()[#child:lines()]
  local result = last and last:find("^{") and cjson.decode(last) or nil
  return result, status.code, child:text("stderr")
end

local FAULTS = { "lost", "doubled", "disordered", "malformed", "broken" }

local function faults_of(result)
  local faults = {}
  for _, name in ipairs(FAULTS) do
    if result[name] > 0 then faults[#faults + 1] = name .. "=" .. result[name] end
  end
  return table.concat(faults, " ")
end

local function event(id, data)
  return ("id: %d\\ndata: %s\\n\\n"):format(id, data or ("%d %016d xxxx"):format(id, 1))
end

-- A stream of these events behind a good head; then silence, or what `tail` orders.
local function script(events, tail)
  return table.concat({
    "expect_head",
    [[send "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"]],
    ('chunk "%s"'):format(table.concat(events)),
    tail or "hold",
  }, "\n") .. "\n"
end

describe("the load generator", function()
  local server

  after_each(function()
    if server then server:stop() end
    server = nil
  end)

  local function check(text, options)
    server = origin.script(text)
    options = options or {}
    -- A fault ends the run early.
    options.path, options.seconds = "/events", options.seconds or 5
    local result, code, log = load("streams", server.port, options)
    return faults_of(assert(result, log)), code
  end

  it("has nothing to say against good streams", function()
    server = origin.sse()
    local options = { path = "/events?plain=1&size=200&rate=100", size = 200, clients = 20, seconds = 0.4 }
    local result, code = load("streams", server.port, options)
    assert.equal("", faults_of(result))
    assert.equal(0, code)
    assert.is_true(result.units > 0 and result.stream_min > 0)
    assert.is_true(result.max > 0 and result.p50 <= result.p99 and result.p99 <= result.max)
  end)

  it("reads JSON, and events cut anywhere", function()
    server = origin.sse()
    local paths = { "json=1&size=300&rate=200", "splitall=1&pause=0&size=40&rate=100" }
    for _, query in ipairs(paths) do
      local size = query:match("size=(%d+)")
      local result, code = load("streams", server.port, { path = "/events?plain=1&" .. query, size = size,
        seconds = 0.3 })
      assert.equal("", faults_of(result))
      assert.equal(0, code)
      assert.is_true(result.units > 0)
    end
  end)

  it("detects a lost event", function()
    assert.same({ "lost=2", 1 }, { check(script({ event(1), event(2), event(5) })) })
  end)

  it("detects that the first event is missing", function()
    assert.same({ "lost=1", 1 }, { check(script({ event(2) })) })
  end)

  it("detects a doubled event", function()
    assert.same({ "doubled=1", 1 }, { check(script({ event(1), event(2), event(2), event(3) })) })
  end)

  it("detects events in the wrong order", function()
    local events = { event(1), event(2), event(4), event(3), event(5) }
    assert.same({ "lost=1 disordered=1", 1 }, { check(script(events)) })
  end)

  it("detects changed content", function()
    for _, data in ipairs({ "2 0000000000000001 xxyx", "3 0000000000000001 xxxx", "2", "garbage" }) do
      assert.same({ "malformed=1", 1 }, { check(script({ event(1), event(2, data) })) })
      server:stop()
    end
  end)

  it("detects a wrong length, and a text that is missing", function()
    assert.same({ "malformed=1", 1 }, { check(script({ event(1) }), { size = 99 }) })
    server:stop()
    assert.same({ "malformed=1", 1 }, { check(script({ event(1) }), { want = '"via":"bench"' }) })
  end)

  it("takes comments for nothing, other lines for faults", function()
    assert.same({ "", 0 }, { check(script({ ":keepalive\\n\\n", event(1), ":keepalive\\n\\n", event(2) }),
      { seconds = 0.1 }) })
    server:stop()
    assert.same({ "malformed=1", 1 }, { check(script({ event(1), "what: this\\n\\n" })) })
  end)

  it("detects a stream that ends, well or not", function()
    assert.same({ "broken=1", 1 }, { check(script({ event(1) }, 'chunk ""\nhold')) })
    server:stop()
    -- A reset takes with it what the client has not read yet, the head as well.
    assert.same({ "broken=1", 1 }, { check(script({ event(1) }, "wait 500ms\nreset")) })
  end)

  it("goes on by a step, and detects what should have been dropped", function()
    assert.same({ "", 0 }, { check(script({ event(1), event(3), event(5) }), { step = 2, seconds = 0.1 }) })
    server:stop()
    local faults = check(script({ event(1), event(2), event(3) }), { step = 2 })
    assert.is_truthy(faults:find("disordered"))
  end)

  it("gives up when a stream is refused", function()
    server = origin.sse()
    local result, code, log = load("streams", server.port, { path = "/events?status=503" })
    assert.is_nil(result)
    assert.equal(1, code)
    assert.is_truthy(log:find("0 of 1 clients"))
  end)

  it("checks the bodies of requests, one after another or at a rate", function()
    server = origin.sse()
    local options = { path = "/bytes?n=1000", size = 1000, clients = 4, seconds = 0.1 }
    local result, code = load("requests", server.port, options)
    assert.same({ "", 0 }, { faults_of(result), code })
    assert.is_true(result.units > 0)
    options.rate = 200
    result = load("requests", server.port, options)
    assert.is_true(result.units > 0 and result.units < 200 * result.seconds + 40)
    options.size = 999
    assert.is_nil(load("requests", server.port, options))
  end)

  it("opens streams, and detects those that begin wrongly", function()
    server = origin.sse()
    local options = { path = "/events?rate=0.0001", clients = 4, seconds = 0.1 }
    local result, code = load("opens", server.port, options)
    assert.same({ "", 0 }, { faults_of(result), code })
    assert.is_true(result.units > 0)
    options.path = "/events?plain=1&rate=100"
    assert.equal(1, select(2, load("opens", server.port, options)))
  end)

  it("keeps slow clients apart from the others", function()
    server = origin.sse()
    local result, code = load("streams", server.port, {
      path = "/events?plain=1&rate=50", clients = 10, slow = 2, slow_path = "/events?plain=1&rate=0&size=200",
      seconds = 0.2,
    })
    assert.same({ "", 0 }, { faults_of(result), code })
    -- The eight get 50 a second; a slow one that was taken for one of them would have had thousands.
    assert.is_true(result.units <= 8 * result.stream_max and result.stream_max < 1000)
  end)

  it("tells what a process uses", function()
    server = origin.sse()
    local pid = server.process.pid
    local path = "/events?plain=1&rate=0"
    local result = load("streams", server.port, { path = path, watch = pid, seconds = 0.1 })
    assert.is_true(result.cpu_us > 0 and result.cpu_us < 60e6)
    assert.is_true(result.pss_kib > 50 and result.pss_before_kib > 50)
  end)
end)

describe("the filter for nginx", function()
  local filter = require("bench.nginx_filter")

  -- What comes out when the text goes in cut at these places.
  local function run(text, cuts)
    local ngx, out, from = { ctx = {}, arg = {} }, {}, 1
    rawset(_G, "ngx", ngx)
    for i = 1, #cuts + 1 do
      ngx.arg[1], ngx.arg[2] = text:sub(from, cuts[i] or #text), i > #cuts
      filter.run()
      out[i], from = ngx.arg[1], (cuts[i] or 0) + 1
    end
    rawset(_G, "ngx", nil)
    return table.concat(out)
  end

  local want = 'id: 1\ndata: {"via":"bench1"}\n\n:comment\n\ndata: no JSON\n\n'
    .. 'event: two\ndata: {"via":"bench1"}\n\n'

  it("changes JSON wherever the stream is cut, whatever its line endings are", function()
    local lf = 'id: 1\ndata: {"via":"origin"}\n\n:comment\n\ndata: no JSON\n\n'
      .. 'event: two\ndata:{"via":\ndata:1}\n\n'
    for _, eol in ipairs({ "\n", "\r\n", "\r" }) do
      local text = lf:gsub("\n", eol)
      assert.equal(want, run(text, {}))
      local all = {}
      for at = 1, #text - 1 do
        assert.equal(want, run(text, { at }))
        all[at] = at
      end
      assert.equal(want, run(text, all))
    end
  end)

  it("drops an incomplete last event", function()
    assert.equal(want, run(want .. "data: half", {}))
  end)
end)

describe("the bare relay", function()
  local server, relay, port

  before_each(function()
    server = origin.sse()
    relay = process.spawn({ BUILD .. "/bench/relay", "0", "1", tostring(server.port) })
    port = tonumber(select(2, relay:wait_line("^listening on [%d.]+:(%d+)$")))
  end)

  after_each(function()
    relay:kill()
    server:stop()
  end)

  it("relays requests and streams", function()
    local options = { path = "/events?plain=1&rate=100", clients = 20, seconds = 0.1 }
    local result, code = load("streams", port, options)
    assert.same({ "", 0 }, { faults_of(result), code })
    result, code = load("requests", port, { path = "/bytes?n=300000", size = 300000, seconds = 0.1 })
    assert.same({ "", 0 }, { faults_of(result), code })
  end)

  it("holds back what a slow client does not take, and loses nothing", function()
    local response = http.stream(port, "/bytes?n=20000000", {})
    server:wait_stat("open_streams", 1)
    local body, how = response:body(10)
    assert.equal("clean", how)
    assert.equal(20000000, #body)
  end)

  it("closes the origin's side when the client leaves", function()
    local response = http.stream(port, "/events?plain=1&rate=100", {})
    server:wait_stat("open_streams", 1)
    response.conn:close()
    server:wait_stat("open_streams", 0)
  end)
end)
