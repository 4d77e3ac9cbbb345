--- Event streams whose client is slower than their backend: the backend is slowed down, memory stays
-- bounded, nothing is lost or mixed up; and streams as fast as they go.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

local PATHS = { "/bytes/x", "/events/x" }

-- One event becomes ten, of 100 KB together.
local BLOW = [[
local plugin, text = { name = "blow" }, ("x"):rep(10000)

function plugin.on_event(_, _, event)
  local list = {}
  for i = 1, 10 do list[i] = { id = event.id .. "." .. i, data = text } end
  return list
end

return plugin
]]

local function read_file(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

describe("a slow client", function()
  local server, gw

  local function start(sse, silence)
    sse.keepaliveTimeout = 0
    return streams.gateway(server, {
      rules = { { id = "blow", path = "/blow/*", serviceName = "api", plugins = { "blow" } } },
      files = { ["plugins/blow.lua"] = BLOW },
      config = {
        frontend = { sse = sse, http = { idleTimeout = 30 } },
        backend = { http = { keepAlive = false }, sse = { responseTimeout = silence or 0 } },
      },
    })
  end

  setup(function()
    server = backend.listen()
    gw = start {}
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  local function worker_of(the_gateway)
    local pid = the_gateway.process.pid
    return (read_file(("/proc/%d/task/%d/children"):format(pid, pid)):match "%d+")
  end

  -- Memory of the worker in bytes.
  local function memory_of(the_gateway)
    local status = read_file(("/proc/%s/status"):format(worker_of(the_gateway)))
    return tonumber(status:match "VmRSS:%s*(%d+)") * 1024
  end

  -- A sanitizer keeps what was freed, so its memory says nothing.
  local function is_sanitized()
    return read_file(("/proc/%s/maps"):format(worker_of(gw))):find "asan"
  end

  -- What the kernel may hold between the two ends, in its four queues.
  local function kernel_bytes()
    local function most(name) return tonumber(read_file("/proc/sys/net/ipv4/" .. name):match "(%d+)%s*$") end
    return 2 * most "tcp_wmem" + most "tcp_rmem"
  end

  local FILL = ("x"):rep(1000)

  local function event(number)
    return ("id: %d\ndata: %s\n\n"):format(number, FILL)
  end

  -- A backend that sends numbered events as fast as it can.
  local Firehose = {}
  Firehose.__index = Firehose

  local function firehose(stream)
    return setmetatable({ stream = stream, rest = "", number = 0, bytes = 0 }, Firehose)
  end

  -- Sends what goes; false when nothing went for `patience` seconds.
  function Firehose:push(patience)
    if self.rest == "" then
      local batch = {}
      for i = 1, 50 do batch[i] = event(self.number + i) end
      self.number = self.number + 50
      self.rest = streams.chunk(table.concat(batch))
    end
    local sent, why, done = self.stream.origin.conn:send(self.rest, patience)
    self.rest, self.bytes = self.rest:sub(done + 1), self.bytes + done
    if not sent and why ~= "timeout" then error(why, 0) end
    return done > 0
  end

  -- Sends until nobody takes any more.
  function Firehose:fill()
    local bound = kernel_bytes() + 1048576
    while self:push(0.1) do
      assert(self.bytes < bound, "the backend is not slowed down")
    end
    return self
  end

  -- Sends until the gateway closes the connection.
  function Firehose:until_refused()
    local ok, why = pcall(function() repeat until not self:push(5) end)
    assert.message("nobody takes anything, nobody says so").is_false(ok)
    assert.is_true(why == "Broken pipe" or why == "Connection reset by peer", why)
  end

  -- Sends the rest of what it has begun, and ends, while the client reads all of it.
  function Firehose:finish()
    self.rest = self.rest .. "0\r\n\r\n"
    local pieces = {}
    while self.rest ~= "" do
      local _, why, done = self.stream.origin.conn:send(self.rest, 0)
      self.rest = self.rest:sub(done + 1)
      assert(not why or why == "timeout", why)
      pieces[#pieces + 1] = self.stream.client:read(0.01)
    end
    local text, how = self.stream.client:body()
    return table.concat(pieces) .. text, how
  end

  -- The events from 1 to count, and nothing else.
  local function assert_in_order(count, text)
    local number, at = 0, 1
    while at <= #text do
      number = number + 1
      local wanted = event(number)
      if text:sub(at, at + #wanted - 1) ~= wanted then
        error(("no event %d at byte %d, but %q"):format(number, at, text:sub(at, at + 40)), 2)
      end
      at = at + #wanted
    end
    assert.equal(count, number)
  end

  local SMALL = 16384 -- what a client's socket holds

  it("slows its backend, and gets everything in order when it goes on", function()
    for _, path in ipairs(PATHS) do
      local hose = firehose(streams.open(gw, server, { path = path, rcvbuf = SMALL })):fill()
      local text, how = hose:finish()
      assert.equal("clean", how)
      assert_in_order(hose.number, text)
    end
  end)

  it("costs a bounded amount of memory", function()
    if is_sanitized() then return end
    local before = memory_of(gw)
    for i = 1, 6 do firehose(streams.open(gw, server, { path = PATHS[i % 2 + 1], rcvbuf = SMALL })):fill() end
    local grown = memory_of(gw) - before
    assert.message(grown).is_true(grown < 6 * 512 * 1024)
  end)

  it("costs a bounded amount of memory also where plugins make much out of little", function()
    if is_sanitized() then return end
    local fresh = start {}
    local before = memory_of(fresh)
    local stream = streams.open(fresh, server, { path = "/blow/x", rcvbuf = SMALL })
    local small = {}
    for i = 1, 100 do small[i] = ("id: %d\n\n"):format(i) end
    stream:send(table.concat(small))
    for _ = 1, 50 do streams.settle(fresh, server) end -- more turns than there are events
    local grown = memory_of(fresh) - before
    assert.message(grown).is_true(grown < 2 * 1048576)
    stream:finish()
    for i = 1, 100 do
      for j = 1, 10 do
        local got = stream.client:event()
        assert.equal(("%d.%d"):format(i, j), got.id)
        assert.equal(10000, #got.data)
      end
    end
    assert.same({ "", "clean" }, { stream:rest() })
  end)

  it("does not slow its neighbours", function()
    for _, path in ipairs(PATHS) do
      firehose(streams.open(gw, server, { path = path, rcvbuf = SMALL })):fill()
      local neighbour = streams.open(gw, server, { path = path })
      for i = 1, 50 do
        neighbour:send(event(i))
        neighbour:expect(event(i))
      end
    end
  end)

  it("that leaves takes its backend connection with it", function()
    for _, path in ipairs(PATHS) do
      for _, how in ipairs { "close", "reset" } do
        local hose = firehose(streams.open(gw, server, { path = path, rcvbuf = SMALL })):fill()
        hose.stream.conn[how](hose.stream.conn)
        assert.equal("client_gone", hose.stream:logged_end(gw))
        hose:until_refused()
      end
    end
  end)

  it("gets all of a stream that has ended meanwhile, and its good end", function()
    for _, path in ipairs(PATHS) do
      local stream = streams.open(gw, server, { path = path, rcvbuf = SMALL })
      local all = {}
      for i = 1, 1000 do all[i] = event(i) end
      stream:send(table.concat(all))
      stream:finish()
      streams.settle(gw, server)
      local text, how = stream:rest()
      assert.equal("clean", how)
      assert_in_order(1000, text)
    end
  end)

  it("gets all of a stream that has broken meanwhile, and can tell", function()
    for _, path in ipairs(PATHS) do
      local stream = streams.open(gw, server, { path = path, rcvbuf = SMALL })
      local all = {}
      for i = 1, 1000 do all[i] = event(i) end
      stream:send(table.concat(all))
      stream.origin.conn:close()
      streams.settle(gw, server)
      local text, how = stream:rest()
      assert.equal("broken", how)
      assert_in_order(1000, text)
    end
  end)

  it("is not taken for a silent backend", function()
    local impatient = start({}, "100ms")
    for _, path in ipairs(PATHS) do
      local hose = firehose(streams.open(impatient, server, { path = path, rcvbuf = SMALL })):fill()
      -- A silent stream that was opened behind it is given up: its own time would have come as well.
      local silent = streams.open(impatient, server, { path = path })
      assert.equal("broken", select(2, silent:rest()))
      local text, how = hose:finish()
      assert.equal("clean", how)
      assert_in_order(hose.number, text)
    end
  end)

  describe("that takes nothing", function()
    local hasty

    setup(function()
      hasty = start { writeTimeout = "600ms" }
    end)

    it("is given up, and its backend with it", function()
      for path, version in pairs { ["/bytes/x"] = "1.1", ["/events/x"] = "1.0" } do
        local idle = streams.open(hasty, server, { path = path })
        local stream = streams.open(hasty, server, { path = path, rcvbuf = SMALL, version = version })
        firehose(stream):until_refused()
        assert.equal("write_timeout", stream:logged_end(hasty))
        local text, how = stream:rest()
        assert.message("the end looks " .. how).is_true(how == "broken" or how == "reset")
        assert.equal(event(1), text:sub(1, #event(1)))
        idle:send(event(1)) -- nothing to take is no fault
        idle:expect(event(1))
      end
    end)

    it("is told from one that takes little", function()
      local mark, pieces = hasty:mark(), {}
      local stuck = firehose(streams.open(hasty, server, { rcvbuf = SMALL })):fill()
      local slow, enough = firehose(streams.open(hasty, server, { rcvbuf = SMALL })), sys.now() + 1.5
      repeat
        repeat until not slow:push(0)
        pieces[#pieces + 1] = assert(slow.stream.client:read())
        sys.poll({}, sys.now() + 0.04)
      until sys.now() > enough and hasty:find_log("end=write_timeout", mark)[1]
      assert.equal(1, #hasty:find_log("end=write_timeout", mark))
      local text, how = slow:finish()
      assert.equal("clean", how)
      assert_in_order(slow.number, table.concat(pieces) .. text)
      stuck:until_refused()
    end)
  end)
end)

describe("a stream as fast as it goes", function()
  after_each(gateway.stop_all)

  it("keeps every event in its order, in both modes", function()
    local sse = origin.sse()
    local gw = streams.gateway(sse, {
      rules = {
        { id = "fast", path = "/events", serviceName = "api" },
        { id = "looked-at", path = "/notifications/*", serviceName = "api", plugins = { "look" } },
      },
    })
    local clients = {}
    for i = 1, 6 do
      local path = i % 2 == 0 and "/events" or "/notifications/x"
      clients[i] = http.stream(gw.port, path .. "?rate=0&plain=1&count=20000&size=" .. 30 * i)
    end
    for _, client in ipairs(clients) do
      local text, how = client:body()
      local number = 0
      for id, data in text:gmatch "id: (%d+)\ndata: (%d+) [^\n]*\n\n" do
        number = number + 1
        assert(tonumber(id) == number and data == id, "event " .. number)
      end
      assert.same({ 20000, "clean" }, { number, how })
    end
    sse:stop()
  end)
end)
