--- A reload that adds or removes instances, in all workers: new requests see the new set, and what is open
-- on an instance that is gone goes on.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local site = require "spec.support.site"
local streams = require "spec.support.streams"

local WORKERS, STREAMS, REQUESTS = 2, 12, 12
local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

describe("a reload", function()
  local servers, gw

  before_each(function()
    servers = { a = backend.listen(), b = backend.listen(), c = backend.listen() }
  end)

  after_each(function()
    streams.close_all()
    for _, server in pairs(servers) do server:close() end
    gateway.stop_all()
  end)

  local function instances(names)
    local list = {}
    for name in names:gmatch "%a" do list[#list + 1] = { id = name, port = servers[name].port } end
    return { api = list }
  end

  local function start(names)
    gw = site.start {
      services = instances(names), workers = WORKERS,
      files = { ["plugins/look.lua"] = streams.LOOK },
      rules = {
        { id = "bytes", path = "/bytes/*", serviceName = "api" },
        { id = "events", path = "/events/*", serviceName = "api", plugins = { "look" } },
        { id = "sticky", path = "/sticky", serviceName = "api", sessionAffinity = { source = "header" } },
      },
    }
  end

  -- The backend that a request has reached.
  local function taken()
    local name, received
    process.wait_until(function()
      for each, server in pairs(servers) do
        local conn = server:try_accept(0)
        if conn then name, received = each, backend.read_request(conn) end
      end
      return name
    end, site.PATIENCE)
    return name, received
  end

  -- Whom as many requests reach, sorted.
  local function reached(count, path, headers)
    local seen, list = {}, {}
    for _ = 1, count do
      local conn = http.connect(gw.port)
      conn:send(http.format { path = path or "/bytes/x", headers = headers })
      local name, received = taken()
      received:ok(name)
      assert.equal(name, (conn:response():body()))
      if not seen[name] then list[#list + 1] = name end
      seen[name] = true
    end
    table.sort(list)
    return table.concat(list, " ")
  end

  -- Streams in byte mode and in event mode in turn, spread over workers and instances.
  local function open_streams()
    local open = {}
    for i = 1, STREAMS do
      local conn = http.connect(gw.port)
      conn:send(http.format { path = i % 2 == 0 and "/bytes/x" or "/events/x" })
      local name, received = taken()
      received:reply(HEAD)
      open[i] = { on = name, origin = received, client = conn:response(), sent = 0 }
    end
    return open
  end

  local function check_all(open)
    for i, stream in ipairs(open) do
      stream.sent = stream.sent + 1
      local event = ("id: %d\ndata: of %d\n\n"):format(stream.sent, i)
      stream.origin:reply(streams.chunk(event))
      local got = stream.client:event()
      assert.same({ tostring(stream.sent), "of " .. i }, { got.id, got.data })
    end
  end

  local function close(open)
    for _, stream in ipairs(open) do
      stream.origin:reply "0\r\n\r\n"
      assert.equal("clean", select(2, stream.client:body()))
    end
  end

  it("that removes an instance gives it no new requests; its streams go on, and end well", function()
    start "ab"
    local open = open_streams()
    check_all(open)
    gw:renew { services = instances "a" }
    assert.equal("a", reached(REQUESTS))
    check_all(open)
    assert.equal(STREAMS, gw:metrics().streams)
    local on = {}
    for _, stream in ipairs(open) do on[stream.on] = true end
    assert.same({ a = true, b = true }, on)
    close(open)
    for _, line in ipairs(gw:find_log "msg=request .*rule=[be]%a+ .*events=") do
      assert.matches("end=ok", line)
    end
  end)

  it("that adds one gives it its share, in each worker", function()
    start "a"
    assert.equal("a", reached(REQUESTS))
    gw:renew { services = instances "abc" }
    assert.equal("a b c", reached(REQUESTS))
  end)

  it("after the other, with all of them exchanged, loses nothing that is open", function()
    start "ab"
    local open = open_streams()
    for turn, names in ipairs { "bc", "c", "ac", "a", "abc", "b" } do
      gw:renew { services = instances(names) }
      check_all(open)
      assert.equal(names:gsub("%a", " %0"):sub(2), reached(REQUESTS), turn)
    end
    close(open)
  end)

  it("moves sessions of an instance that is gone, and leaves them where they are then", function()
    start "ab"
    local home = {}
    for i = 1, 8 do home[i] = reached(1, "/sticky", { ["X-Session-Id"] = "s" .. i }) end
    gw:renew { services = instances "a" }
    for i = 1, 8 do assert.equal("a", reached(2, "/sticky", { ["X-Session-Id"] = "s" .. i })) end
    gw:renew { services = instances "ab" }
    for i = 1, 8 do assert.equal("a", reached(2, "/sticky", { ["X-Session-Id"] = "s" .. i })) end
    assert.is_truthy(table.concat(home):find "b")
  end)

  it("lets a request finish that its instance is at", function()
    start "b"
    local conn = http.connect(gw.port)
    conn:send(http.format { path = "/bytes/x" })
    local name, received = taken()
    gw:renew { services = instances "a" }
    received:ok(name)
    assert.equal("b", (conn:response():body()))
  end)
end)
