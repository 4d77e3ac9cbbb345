--- Hooks that wait in the real binary: what goes on meanwhile, what stands still, and how a wait ends.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"

-- Waits for events that say so: for a time, in turns, or until somebody asks for /go.
local WAITER = [[
local plugin = { name = "waiter" }
local doors = {}

function plugin.access(ctx)
  if ctx.req.path ~= "/go" then return end
  for _, door in ipairs(doors) do door.open = true end
  doors = {}
  return ctx:reply(204)
end

function plugin.on_event(ctx, _, event)
  ctx.state.seen = (ctx.state.seen or 0) + 1
  if event.type == "sleep" then gateway.sleep(tonumber(event.data)) end
  if event.type == "door" then
    local door = { open = false }
    doors[#doors + 1] = door
    gateway.log.info("waits at the door " .. event.data)
    while not door.open do gateway.sleep(0.005) end
  end
  if event.type == "once" then
    event.id = event.data
    event.data = gateway.once("key", function()
      gateway.sleep(0.02)
      return "told"
    end)
  end
  if event.type == "yield" then for _ = 1, 5 do coroutine.yield("ignored") end end
  event.data = event.data .. " " .. ctx.state.seen
end

function plugin.on_close(ctx, _, reason)
  gateway.log.info("closes " .. ctx.id .. " " .. reason)
end

return plugin
]]

local server

local function start(config, more)
  local options = {
    services = { api = server.port },
    rules = {
      { id = "api", path = "/*", serviceName = "api", plugins = { "waiter" } },
      { id = "bytes", path = "/bytes/*", serviceName = "api" },
    },
    files = { ["plugins/waiter.lua"] = WAITER },
    config = config,
  }
  for key, value in pairs(more or {}) do options[key] = value end
  return site.start(options)
end

local function open(gw, more)
  local options = { path = "/events" }
  for key, value in pairs(more or {}) do options[key] = value end
  return streams.open(gw, server, options)
end

local function event(kind, data)
  return ("event: %s\ndata: %s\n\n"):format(kind, data)
end

local function at_the_door(gw, stream, name)
  stream:send(event("door", name))
  gw:wait_log("waits at the door " .. name)
end

local function go(gw)
  assert.equal(204, http.fetch(gw.port, "/go").status)
end

local function worker_status(gw, pattern)
  local children = io.open(("/proc/%d/task/%d/children"):format(gw.process.pid, gw.process.pid))
  local pid = children:read("*a"):match "%d+"
  children:close()
  local status = io.open(("/proc/%s/status"):format(pid))
  local found = status:read("*a"):match(pattern)
  status:close()
  return found
end

describe("while a hook waits for an event", function()
  before_each(function() server = backend.listen() end)

  after_each(function()
    streams.close_all()
    gateway.stop_all()
    server:close()
  end)

  it("those behind it keep their order", function()
    local gw = start()
    local stream = open(gw)
    local sent, want = {}, {}
    for i = 1, 60 do
      local kind = ({ "now", "sleep", "yield" })[i % 3 + 1]
      local data = kind == "sleep" and "0.00" .. i % 5 or tostring(i)
      sent[i] = event(kind, data)
      want[i] = event(kind, data .. " " .. i)
    end
    stream:send(table.concat(sent))
    stream:expect(table.concat(want))
  end)

  it("what it has changed before stays changed, whatever the wait gives", function()
    local gw = start()
    local list = {}
    for i = 1, 4 do
      list[i] = open(gw)
      list[i]:send(event("once", tostring(i)))
    end
    for i = 1, 4 do list[i]:expect(("event: once\nid: %d\ndata: told 1\n\n"):format(i)) end
  end)

  it("all other streams and requests run on, of the same plugin, too", function()
    local gw = start()
    local held, other, bytes = open(gw), open(gw), open(gw, { path = "/bytes/x" })
    at_the_door(gw, held, "a")
    for i = 1, 20 do
      other:send(event("sleep", "0.001"))
      other:expect(event("sleep", "0.001 " .. i))
      bytes:send(event("now", "x"))
      bytes:expect(event("now", "x"))
    end
    assert.equal("", held:available())
    go(gw)
    held:expect(event("door", "a 1"))
  end)

  it("its backend is paused at a bound, and memory with it", function()
    local gw = start()
    local stream = open(gw)
    at_the_door(gw, stream, "a")
    local before = tonumber((worker_status(gw, "VmRSS:%s*(%d+)")))
    local piece = streams.chunk((event("now", ("x"):rep(1000))):rep(64))
    local bytes, rest, behind = 0, "", 0
    while true do
      if rest == "" then rest, behind = piece, behind + 64 end
      local _, why, done = stream.origin.conn:send(rest, 0.3)
      rest, bytes = rest:sub(done + 1), bytes + done
      if done == 0 then
        assert.equal("timeout", why)
        break
      end
      assert.is_true(bytes < 100e6, "the backend is not paused")
    end
    if not site.sanitized then
      assert.is_true(tonumber((worker_status(gw, "VmRSS:%s*(%d+)"))) - before < 2000)
    end
    go(gw)
    stream:expect(event("door", "a 1"))
    for i = 1, behind - 64 do stream:expect(event("now", ("x"):rep(1000) .. " " .. i + 1)) end
  end)

  it("keepalives go on, between events", function()
    local gw = start { frontend = { sse = { keepaliveTimeout = 0.05 } } }
    local stream = open(gw)
    stream:send(event("sleep", "0.3") .. "data: part")
    local text = ""
    while not text:find "event" do text = text .. (stream.client:read() or error "no event") end
    local comments = select(2, text:gsub(":keepalive\n\n", ""))
    assert.is_true(comments >= 3)
    assert.matches("^[:kepaliv\n]+event: sleep\ndata: 0.3 1\n\n", text)
  end)

  for _, leave in ipairs { "close", "reset", "shutdown" } do
    it("a client that leaves ends the wait at once, and its hook closes once: " .. leave, function()
      local gw = start()
      local stream = open(gw, { headers = { ["X-Request-Id"] = "leaves" } })
      stream:send(event("sleep", "1000"))
      streams.settle(gw, server)
      stream.conn[leave](stream.conn)
      assert.not_equal("timeout", stream.origin.conn:wait_end())
      gw:wait_log "closes leaves client_gone"
      gw:wait_metric("exchanges", 0)
      assert.equal(1, #gw:find_log "closes leaves")
    end)
  end

  it("a reload leaves that event to the old version, and the next is the new one's", function()
    local gw = start()
    local held, free = open(gw), open(gw)
    at_the_door(gw, held, "a")
    held:send(event("now", "b"))
    gw:write("plugins/waiter.lua", (WAITER:gsub('" " %.%. ctx', '" new " .. ctx')))
    gw:renew()
    free:send(event("now", "c"))
    free:expect(event("now", "c new 1"))
    gw:wait_metric("generations", 2)
    assert.equal("", held:available())
    local mark = gw:mark()
    held.conn:close()
    gw:wait_log("closes .* client_gone", nil, mark)
    gw:wait_metric("generations", 1)
  end)

  it("a reload is followed when that is done, though nothing more comes", function()
    local gw = start()
    local held = open(gw)
    held:send(event("sleep", "0.5"))
    gw:write("plugins/waiter.lua", (WAITER:gsub('" " %.%. ctx', '" new " .. ctx')))
    gw:renew()
    held:expect(event("sleep", "0.5 1"))
    gw:wait_metric("generations", 1)
    held:send(event("now", "b"))
    held:expect(event("now", "b new 2"))
  end)

  it("reloads come and go, and each event is seen once, in order", function()
    local gw = start()
    local list = {}
    for i = 1, 5 do list[i] = open(gw) end
    for round = 1, 5 do
      for _, stream in ipairs(list) do stream:send(event("sleep", "0.05") .. event("now", round)) end
      gw:write("plugins/waiter.lua", WAITER .. "-- " .. round .. "\n")
      gw:renew()
      for _, stream in ipairs(list) do
        stream:expect(event("sleep", "0.05 " .. 2 * round - 1) .. event("now", round .. " " .. 2 * round))
      end
    end
    gw:wait_metric("generations", 1)
  end)

  it("on_close goes on without its exchange, and keeps no other one from running", function()
    local gw = start(nil, {
      rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "outer", "waiter" } } },
      files = {
        ["plugins/outer.lua"] = [[
          return { name = "outer", on_close = function(ctx)
            gateway.log.info("the outer closes " .. tostring(ctx.state.note))
          end }
        ]],
        ["plugins/waiter.lua"] = [[
          local plugin = { name = "waiter" }
          function plugin.access(ctx) ctx.state.note = "kept" end
          function plugin.on_close(ctx, _, reason)
            for _ = 1, 5 do coroutine.yield() end
            while not gateway.shared("go"):get("go") do gateway.sleep(0.005) end
            gateway.log.info(table.concat({ "done for", ctx.id, reason, ctx.state.note }, " "))
            gateway.log.info(select(2, pcall(function() return ctx.req.method end)))
            if ctx.id == "raises" then error("at the end") end
          end
          return plugin
        ]],
        ["conf/routes/go.lua"] = [[
          return { { path = "/go", access = function(ctx)
            gateway.shared("go"):set("go", true)
            return ctx:reply(204)
          end } }
        ]],
      },
      config = { router = { lua = { "routes/*.lua" } } },
    })
    for _, id in ipairs { "ends", "raises" } do
      local stream = open(gw, { headers = { ["X-Request-Id"] = id } })
      stream:finish()
      assert.equal("clean", select(2, stream:rest()))
    end
    gw:wait_log "the outer closes nil"
    gw:wait_metric("exchanges", 0)
    assert.same({}, gw:find_log "done for")
    http.fetch(gw.port, "/go")
    gw:wait_log "done for ends ok kept"
    gw:wait_log "the exchange is over"
    assert.matches("plugin=waiter hook=on_close .*at the end", gw:wait_log "at the end")
  end)

  it("an on_close that waits for ever ends with its version", function()
    local gw = start()
    gw:write("plugins/waiter.lua", "return { name = 'waiter', on_close = function() gateway.sleep(1e6) end }")
    gw:renew()
    for _ = 1, 20 do open(gw):finish() end
    gw:wait_metric("exchanges", 0)
    gw:write("plugins/waiter.lua", WAITER)
    gw:renew()
    gw:wait_metric("generations", 1)
  end)
end)
