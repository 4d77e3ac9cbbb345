--- System calls of the worker for each piece of work, by name, as strace sees them.
local backend = require "spec.support.backend"
local cost = require "spec.support.cost"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local limits = require "spec.cost.limits"
local streams = require "spec.support.streams"

local EVENT = "event: tick\nid: 17\ndata: " .. ("x"):rep(200) .. "\n\n"
local BATCH, BURST = 64, 40
local CALL = [[
  local plugin = { name = "call" }
  function plugin.access(ctx)
    return ctx:reply(200, gateway.http.get("http://127.0.0.1:%d/").body)
  end
  return plugin
]]

describe("the system calls #once", function()
  local missing = cost.missing "strace"
  local server, other, gw, worker

  if missing then
    pending("are not counted: " .. missing)
    return
  end

  setup(function()
    server, other = backend.listen(), backend.listen()
    gw = streams.gateway(server, {
      rules = {
        { id = "hook", path = "/hook/*", serviceName = "api", plugins = { "look" } },
        { id = "call", path = "/call/*", serviceName = "api", plugins = { "call" } },
      },
      files = { ["plugins/call.lua"] = CALL:format(other.port) },
      config = { log = { access = false }, backend = { http = { keepAlive = true } } },
    })
    worker = cost.worker_of(gw, server)
  end)

  teardown(function()
    streams.close_all()
    server:close()
    other:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  -- On a busy machine timers may fire among what is counted: then it is counted again.
  local function check(name, what, n, work)
    local complaint
    for _ = 1, 3 do
      local counts = cost.calls_each(worker.pid, n, work)
      if not counts then return pending "strace may not trace a process that runs" end
      complaint = cost.counts("system calls of " .. what, counts, limits.calls[name])
      if complaint == "" then break end
    end
    assert.equal("", complaint)
  end

  local function open_many(path, count)
    local list = {}
    for i = 1, count do list[i] = streams.open(gw, server, { path = path }) end
    return list
  end

  -- One event on each stream, all there at once.
  local function relay_batch(list)
    cost.hold(worker.pid, function()
      for _, stream in ipairs(list) do stream:send(EVENT) end
    end)
    for _, stream in ipairs(list) do stream:expect(EVENT) end
  end

  for _, mode in ipairs { "bytes", "hook" } do
    local path = ("/%s/x"):format(mode)

    it(("of an event are three (%s)"):format(mode), function()
      local stream = streams.open(gw, server, { path = path })
      check("event_" .. mode, "an event", 200, function(n) worker:relay(stream, n, EVENT) end)
    end)

    it(("of events on many streams at once are two each (%s)"):format(mode), function()
      local list = open_many(path, BATCH)
      check("batch_" .. mode, ("%d events at once"):format(BATCH), 20, function(n)
        for _ = 1, n do relay_batch(list) end
      end)
    end)

    it(("of many events that come at once are those of one (%s)"):format(mode), function()
      local stream = streams.open(gw, server, { path = path })
      check("burst_" .. mode, ("a burst of %d events"):format(BURST), 20, function(n)
        worker:relay_burst(stream, n, BURST, EVENT)
      end)
    end)
  end

  it("of a stream are those that it takes", function()
    check("stream", "a stream", 100, function(n) worker:open_streams(n, EVENT) end)
  end)

  it("of a request on open connections are those that it takes", function()
    local client = http.connect(gw.port)
    check("request", "a request", 200, function(n) worker:request(client, n, EVENT) end)
    client:close()
  end)

  it("of a call that a plugin makes are those of a request", function()
    local client, origin = http.connect(gw.port), nil
    check("call", "a call", 200, function(n)
      for _ = 1, n do
        client:send(http.format { path = "/call/x" })
        origin = origin or other:accept()
        local received = backend.read_request(origin)
        cost.settle(worker.pid)
        received:ok "x"
        assert(client:response():body() == "x")
        cost.settle(worker.pid)
      end
    end)
    client:close()
  end)
end)
