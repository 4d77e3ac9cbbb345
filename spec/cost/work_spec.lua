--- Instructions and allocations of the worker for each piece of work, as callgrind sees them, and Lua's
-- garbage. The gateway is the usual build.
local backend = require "spec.support.backend"
local cost = require "spec.support.cost"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local limits = require "spec.cost.limits"
local streams = require "spec.support.streams"

local JSON = ('{"n":17,"text":"%s","user":{"name":"x","plan":"pro"}}'):format(("x"):rep(150))
local EVENT = "event: tick\nid: 17\ndata: " .. JSON .. "\n\n"
local BURST = 40
local DEBUG = EVENT:gsub("tick", "debug")

local RULES = {
  look = { "look" },
  drop = { { event_filter = { drop = { "debug" } } } },
  field = { { event_rewrite = { json = { set = { via = "bench1" } } } } },
  json = { "json_edit" },
  many = { "many" },
}

-- As bench/plugins/look.lua, for many events at a time.
local MANY = [[
return { name = "many", on_events = function(_, _, events)
  for i = 1, #events do
    if events[i].type == "never" then return false end
  end
end }
]]

-- Counts the garbage from one event to the next, and says it in an event of the type `garbage`. Where Lua
-- collects between two events there is less than before, and the two don't count.
local GARBAGE = [[
local plugin = { name = "garbage" }
local last, sum, count = 0, 0, 0

function plugin.on_event(_, _, event)
  if event.type == "garbage" then
    event.data = tostring(sum * 1024 / count)
    sum, count = 0, 0
    return event
  end
  local now = collectgarbage "count"
  if now >= last and last > 0 then
    sum, count = sum + now - last, count + 1
  end
  last = collectgarbage "count"
end

return plugin
]]

local function text_of(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local function start(server, rules, under)
  local list = {}
  for name, plugins in pairs(rules) do
    list[#list + 1] = { id = name, path = "/" .. name .. "/*", serviceName = "api", plugins = plugins }
  end
  return streams.gateway(server, {
    rules = list, under = under,
    files = {
      ["plugins/look.lua"] = text_of "bench/plugins/look.lua",
      ["plugins/json_edit.lua"] = text_of "bench/plugins/json_edit.lua",
      ["plugins/garbage.lua"] = GARBAGE,
      ["plugins/many.lua"] = MANY,
    },
    config = {
      log = { access = false }, pluginPath = gateway.plugin_path(),
      backend = { http = { keepAlive = true } },
    },
  })
end

describe("the work #once", function()
  local missing = cost.incomparable() or cost.missing "valgrind"
  local server, gw, profile, worker

  if missing then
    pending("is not counted: " .. missing)
    return
  end

  setup(function()
    profile = cost.profile()
    server = backend.listen()
    gw = start(server, RULES, profile.under)
    worker = cost.worker_of(gw, server)
  end)

  teardown(function()
    streams.close_all()
    server:close()
    gateway.stop_all()
    profile:finish()
  end)

  after_each(streams.close_all)

  local function is_usual(each, limit)
    for part, figure in pairs(limit) do
      local band = figure[2] or 1
      if math.abs(each[part] - figure[1]) > figure[1] * band then return false end
    end
    return true
  end

  -- A collection may fall among what is counted, or among what that is compared with, which looks cheap then:
  -- so it is done again, and the middle of five is what the work takes.
  local function measure(name, n, work)
    local all = {}
    for i = 1, 5 do
      all[i] = profile:each(gw, n, work)
      if is_usual(all[i], limits.instructions[name]) then return all[i] end
    end
    table.sort(all, function(a, b) return a.c + a.lua < b.c + b.lua end)
    return all[3]
  end

  local function check(name, n, work)
    local each = measure(name, n, work)
    for _, part in ipairs { "c", "lua" } do
      local what, limit = ("instructions of %s, %s"):format(name, part), limits.instructions[name][part]
      assert.equal("", cost.figure(what, each[part], limit, cost.list(each.functions, 40)))
    end
    assert.equal("", cost.counts("allocations, " .. name, each.allocations, limits.allocations[name]))
  end

  local function check_event(name, sent, expected)
    local stream = streams.open(gw, server, { path = ("/%s/x"):format(name) })
    check("event_" .. name, 200, function(n) worker:relay(stream, n, sent, expected) end)
  end

  it("for an event in byte mode is that little", function()
    check_event("bytes", EVENT, EVENT)
  end)

  it("for an event whose type a hook looks at is that little", function()
    check_event("look", EVENT, EVENT)
  end)

  it("for an event that passes and one that is dropped by type is that little", function()
    check_event("drop", DEBUG .. EVENT, EVENT)
  end)

  it("for an event with one field of its JSON edited is that little", function()
    check_event("field", EVENT, (EVENT:gsub("}\n", ',"via":"bench1"}\n')))
  end)

  it("for an event with its JSON decoded and encoded is that little", function()
    local stream = streams.open(gw, server, { path = "/json/x" })
    check("event_json", 200, function(n)
      for _ = 1, n do
        stream:send(EVENT)
        local got = ""
        repeat got = got .. assert(stream.client:read()) until got:find "\n\n$"
        cost.settle(worker.pid)
      end
    end)
  end)

  for _, name in ipairs { "bytes", "look", "many" } do
    it(("for a burst of events is that little (%s)"):format(name), function()
      local stream = streams.open(gw, server, { path = ("/%s/x"):format(name) })
      check("burst_" .. name, 50, function(n) worker:relay_burst(stream, n, BURST, EVENT) end)
    end)
  end

  it("for a stream is that little", function()
    check("stream", 200, function(n) worker:open_streams(n, EVENT) end)
  end)

  it("for a request on open connections is that little", function()
    local client = http.connect(gw.port)
    check("request", 200, function(n) worker:request(client, n, EVENT) end)
    client:close()
  end)
end)

describe("the garbage of an event #once", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = start(server, {
      none = { "garbage" },
      look = { "look", "garbage" },
      drop = { { event_filter = { drop = { "debug" } } }, "garbage" },
      field = { RULES.field[1], "garbage" },
      json = { "json_edit", "garbage" },
    })
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  -- No two events are the same: Lua makes a string only once.
  local function garbage(name)
    local stream = streams.open(gw, server, { path = ("/%s/x"):format(name) })
    local bytes
    for round = 1, 2 do -- the first lets tables grow
      for i = 1, 200 do stream:send((DEBUG .. EVENT):gsub("17", tostring(1000 * round + i))) end
      stream:send "event: garbage\n\n"
      local got = ""
      repeat
        got = got .. assert(stream.client:read())
        bytes = got:match "event: garbage\ndata: (%S+)\n\n"
      until bytes
    end
    return tonumber(bytes)
  end

  for _, name in ipairs { "none", "look", "drop", "field", "json" } do
    it(("in bytes is that little (%s)"):format(name), function()
      assert.equal("", cost.figure("bytes of garbage, " .. name, garbage(name), limits.garbage[name], ""))
    end)
  end
end)
