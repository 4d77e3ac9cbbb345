--- soak: open streams with events flowing while versions change: nothing may be lost, doubled or reordered,
-- no stream may end, the processes stay, and memory is flat behind it.
--     luajit bench/soak.lua [--seconds S] [--reloads N] [--streams N] [--workers N]
-- `make soak` runs it. Every reload brings a changed plugin, a changed Lua route and a changed rule; half of
-- the streams have a rule in YAML, half a Lua route. Exit status 1 when anything was wrong.
local cjson = require("cjson")
local http = require("spec.support.http")
local process = require("spec.support.process")
local site = require("spec.support.site")
local sys = require("spec.support.sys")

local BUILD = os.getenv("GATEWAYD_BUILD") or "build"
local PATH = "%s?plain=1&json=1&size=200&rate=1"

-- Notices what is lost between two versions as well, where the client could not.
local PLUGIN = [[
local version = VERSION
return {
  name = "soak",
  access = function(ctx) ctx.req.path = "/events" end, -- where the origin has them
  upgrade = function(state)
    if version <= state.version then error("an older version follows") end
    state.version = version
  end,
  on_event = function(ctx, _, event)
    local state, id = ctx.state, tonumber(event.id)
    if state.id and id ~= state.id + 1 then error("event " .. id .. " comes behind " .. state.id) end
    state.id, state.version = id, version
    event:json_set("via", "bench1")
  end,
}
]]

local ROUTE = [[
local version = VERSION
return { {
  id = "lua", match = function(ctx) return ctx.req.path == "/lua" end, serviceName = "origin",
  timeout = 3600 + version, plugins = { "soak" },
  on_event = function(ctx, event) ctx.state.version = version end,
} }
]]

local function options_of(args)
  local options = { seconds = 600, reloads = 200, streams = 9500, workers = 1 }
  for i = 1, #args, 2 do
    local name = args[i]:match("^%-%-(%l+)$")
    assert(options[name or ""] and tonumber(args[i + 1]), "usage: soak.lua [--seconds S] [--reloads N] ...")
    options[name] = tonumber(args[i + 1])
  end
  return options
end

local function files_of(version)
  return { ["plugins/soak.lua"] = PLUGIN:gsub("VERSION", version),
    ["conf/routes/soak.lua"] = ROUTE:gsub("VERSION", version) }
end

local function rules_of(version)
  return { { id = "yaml", path = "/yaml", serviceName = "origin", timeout = 3600 + version,
    plugins = { "soak" } } }
end

local function start(options, ports)
  return site.start {
    services = { origin = ports }, rules = rules_of(1), files = files_of(1), workers = options.workers,
    config = { router = { lua = { "routes/*.lua" } }, log = { access = false } },
  }
end

local function renew(gw, version)
  for path, text in pairs(files_of(version)) do gw:write(path, text) end
  gw:renew { rules = rules_of(version) }
end

local function load(gw, path, clients, seconds)
  return process.spawn { BUILD .. "/bench/load", "streams", "--port", tostring(gw.port), "--path",
    PATH:format(path), "--clients", tostring(clients), "--in-flight", "500", "--size", "200", "--want",
    '"via":"bench1"', "--settle", "3", "--seconds", tostring(seconds) }
end

local function origins(count)
  local list, ports = {}, {}
  for i = 1, count do
    list[i] = process.spawn { BUILD .. "/sse_server", "--port", "0" }
    local _, port = list[i]:wait_line("^listening on [%d.]+:(%d+)$")
    ports[i] = tonumber(port)
  end
  return list, ports
end

local function memory_of(gw)
  local kib = 0
  for _, pid in ipairs(gw:workers()) do kib = kib + site.memory(pid) end
  return kib / 1024
end

local function pids_of(gw)
  local pids = gw:workers()
  table.sort(pids)
  return table.concat(pids, " ")
end

-- Runs the window, with reloads spread over it.
local function window(gw, options, seconds, reloads, version)
  local halves = {}
  for i, path in ipairs { "/yaml", "/lua" } do
    halves[i] = load(gw, path, options.streams * options.workers / 2, seconds)
  end
  for _, half in ipairs(halves) do half:wait_line("^measuring", 120) end
  local begin = sys.now()
  for i = 1, reloads do
    sys.poll({}, begin + seconds * i / (reloads + 1))
    renew(gw, version + i)
  end
  local results = {}
  for i, half in ipairs(halves) do
    assert(half:wait(seconds + 120), "the load generator does not end")
    local lines = half:lines()
    local line = assert(lines[#lines]:match("^{.*"), half:text("stderr"))
    results[i] = cjson.decode(line)
  end
  return results
end

local FAULTS = { "lost", "doubled", "disordered", "malformed", "broken" }

local function say(what, results, gw)
  local events, faults, worst = 0, 0, { p50 = 0, p99 = 0, p999 = 0, max = 0 }
  for _, result in ipairs(results) do
    events = events + result.units
    for _, name in ipairs(FAULTS) do faults = faults + result[name] end
    for name, value in pairs(worst) do worst[name] = math.max(value, result[name]) end
  end
  print(("%-18s %9d events, %d faults; p50 %.1f ms, p99 %.1f, p99.9 %.1f, latest %.1f; %.1f MiB"):format(what,
    events, faults, worst.p50 / 1000, worst.p99 / 1000, worst.p999 / 1000, worst.max / 1000, memory_of(gw)))
  io.stdout:flush()
  return faults
end

local function main(args)
  local options = options_of(args)
  local servers, ports = origins(options.workers)
  local gw = start(options, ports)
  gw:wait_workers(options.workers)
  local before = pids_of(gw)
  local faults = say("without reloads", window(gw, options, math.min(60, options.seconds / 2), 0, 1), gw)
  local resting = memory_of(gw)
  local results = window(gw, options, options.seconds, options.reloads, 1)
  faults = faults + say(options.reloads .. " reloads", results, gw)
  faults = faults + say("without again", window(gw, options, math.min(60, options.seconds / 2), 0, 0), gw)
  gw:wait_metric("exchanges", 0)
  gw:wait_metric("generations", options.workers)
  sys.poll({}, sys.now() + 35) -- old versions are kept for streams that may fall back
  print(("memory of idle workers: %.1f MiB before, %.1f MiB after"):format(resting, memory_of(gw)))
  local errors = gw:metrics().hook_errors_total
  local same = before == pids_of(gw)
  print(("%d faults, %d errors of hooks, the same processes: %s"):format(faults, errors, tostring(same)))
  local fell = #gw:find_log("level=warn")
  if fell > 0 then print(gw:find_log("level=warn")[1]) end
  gw:stop()
  for _, server in ipairs(servers) do server:kill() end
  os.exit(faults == 0 and errors == 0 and same and fell == 0 and 0 or 1)
end

http.timeout = 60
main(arg)
