--- run: measures every contender in every scenario, in alternation, and writes docs/benchmarks.md.
--     luajit bench/run.lua [--quick | --figures] [--only ID,ID] [--out FILE]
-- `make bench` and `make bench-quick` call it. Exit status 1 when a contender lost, doubled or changed an
-- event, or a run did not come to its end.
local cjson = require("cjson")
local contenders = require("bench.contenders")
local process = require("spec.support.process")
local report = require("bench.report")
local scenarios = require("bench.scenarios")
local sys = require("spec.support.sys")

local BUILD = os.getenv("GATEWAYD_BUILD") or "build"
local LOAD_CORE, CONTENDER_CORE, ALL_CORES = "0", "1", "0,1"
local FAULTS = { "lost", "doubled", "disordered", "malformed", "broken" }
local OPENING_S = 90 -- patience

---@class bench.Run one measurement: what the load generator tells, and
---@field cpu number? µs of the contender for each unit
---@field core number? percent of a core
---@field rate number units per second
---@field pss_stream number? KiB
---@field failed string? why it does not count
---@field note string? what to know about it

local function say(format, ...)
  io.stderr:write(format:format(...))
  io.stderr:flush()
end

--- One run ----------------------------------------------------------------------------------------

local function start_origins(count, cores)
  local children, ports = {}, {}
  for i = 1, count do
    children[i] = process.spawn({ "taskset", "-c", cores, BUILD .. "/sse_server", "--port", "0" })
    local _, port = children[i]:wait_line("^listening on [%d.]+:(%d+)$")
    ports[i] = tonumber(port)
  end
  return children, ports
end

local function load_argv(scenario, variant, running, seconds, cores)
  local options = { seconds = seconds, port = running.port, settle = 0.3 }
  for key, value in pairs(scenario.load) do options[key] = value end
  for key, value in pairs(variant.load or {}) do options[key] = value end
  if running.pids[1] then options.watch = table.concat(running.pids, ",") end
  local argv = { "taskset", "-c", cores, BUILD .. "/bench/load", options.mode }
  options.mode = nil
  for key, value in pairs(options) do
    argv[#argv + 1] = "--" .. key:gsub("_", "-")
    argv[#argv + 1] = tostring(value)
  end
  return argv
end

-- Twice, at one and two thirds of the window.
local function reload_meanwhile(running, load, seconds)
  load:wait_line("^measuring", OPENING_S)
  for _ = 1, 2 do
    load:wait(seconds / 3)
    running.processes[1]:signal("HUP")
    running.processes[1]:wait_line("msg=reloaded", 10, "stderr")
  end
end

local function faults_of(result)
  local faults = {}
  for _, name in ipairs(FAULTS) do
    if result[name] > 0 then faults[#faults + 1] = result[name] .. " " .. name end
  end
  return faults[1] and table.concat(faults, ", ")
end

-- The units that had to come, where the origin sets the pace: of each stream, and of all together.
local function kept_up(result, scenario, variant)
  local per_stream = (scenario.per_stream or 0) * result.seconds / (variant.sent_per_unit or 1)
  local all = per_stream * (result.clients - (scenario.load.slow or 0))
  if per_stream >= 4 and result.stream_min < per_stream / 2 then
    return ("a stream got %d events instead of %.0f"):format(result.stream_min, per_stream)
  elseif result.units < 0.95 * all then
    return ("%d events came instead of %.0f"):format(result.units, all)
  end
end

-- A quantile with less than some nine units beyond it is chance.
local function drop_chance(result)
  if result.units < 900 then result.p99 = nil end
  if result.units < 9000 then result.p999 = nil end
end

local function derive(result, scenario, variant)
  local units = result.units * (variant.sent_per_unit or 1)
  result.core = result.cpu_us / result.seconds / 1e4
  result.rate = units / result.seconds
  if units > 0 then result.cpu = result.cpu_us / units end
  result.pss_start, result.pss_end = result.pss_before_kib / 1024, result.pss_kib / 1024
  result.pss_stream = (result.pss_kib - result.pss_before_kib) / result.clients
  result.open_cpu = result.open_cpu_us / result.clients
  local faults = faults_of(result)
  if faults then return { failed = faults } end -- no figure of it counts
  result.note = kept_up(result, scenario, variant)
  drop_chance(result)
  if variant.contender == "direct" then result.cpu, result.core, result.pss_end = nil, nil, nil end
  return result
end

local function run_load(scenario, variant, running, seconds, cores)
  local load = process.spawn(load_argv(scenario, variant, running, seconds, cores))
  if variant.reload then reload_meanwhile(running, load, seconds) end
  local status = load:wait(seconds + OPENING_S)
  if not status then load:kill() end
  local lines = load:lines()
  local line = lines[#lines] or ""
  if not line:find("^{") then error("the load generator gave up: " .. load:text("stderr"), 0) end
  return derive(cjson.decode(line), scenario, variant)
end

local function plan_of(scenario, variant, ports, cores)
  local workers = variant.workers or scenario.workers or 1
  return { origins = ports, workers = workers, cores = cores, filter = variant.filter, bulk = scenario.bulk }
end

-- Starts everything afresh and takes it down again. Raises where something does not start.
---@return bench.Run
local function measure(scenario, variant, seconds, configs)
  local load_cores = scenario.spread and ALL_CORES or LOAD_CORE
  local origins, ports = start_origins(scenario.origins or 1, load_cores)
  local plan = plan_of(scenario, variant, ports, scenario.spread and ALL_CORES or CONTENDER_CORE)
  local good, running = pcall(contenders.start, variant.contender, plan)
  local result = running
  if good then
    local key = variant.contender .. (variant.filter and "+" .. variant.filter or "")
    if not scenario.spread then configs[key] = configs[key] or running.config end
    good, result = pcall(run_load, scenario, variant, running, seconds, load_cores)
    running:stop()
  end
  for _, origin in ipairs(origins) do origin:kill() end
  if not good then return { failed = tostring(result):match("[^\n]*") } end
  return result
end

--- All runs ---------------------------------------------------------------------------------------

local function summary(result)
  if result.failed then return "FAILED: " .. result.failed end
  return ("%s µs CPU per unit, p99 %s µs, %.0f/s%s"):format(
    result.cpu and ("%.2f"):format(result.cpu) or "-", result.p99 or "-", result.rate,
    result.note and " (" .. result.note .. ")" or "")
end

-- In alternation: each run takes the variants in turn, and begins with another one.
local function run_scenario(scenario, depth, versions, configs)
  local results = {}
  for run = 1, depth.runs do
    for i = 1, #scenario.variants do
      local variant = scenario.variants[(i + run - 2) % #scenario.variants + 1]
      if versions[variant.contender] then
        local result = measure(scenario, variant, depth.seconds, configs)
        results[variant.label] = results[variant.label] or {}
        results[variant.label][run] = result
        say("%s, run %d, %s: %s\n", scenario.id, run, variant.label, summary(result))
      end
    end
  end
  return results
end

local function is_wanted(scenario, options)
  if not scenario[options.depth] then return false end
  return not options.only or ("," .. options.only .. ","):find("," .. scenario.id .. ",", 1, true) ~= nil
end

local function parse(args)
  local options = { depth = "full", out = "docs/benchmarks.md" }
  local i = 1
  while args[i] do
    local name = args[i]
    if name == "--quick" then
      options.depth = "quick"
    elseif name == "--figures" then
      options.depth, options.only, options.out = "quick", "idle,relay", nil
    elseif (name == "--only" or name == "--out") and args[i + 1] then
      i = i + 1
      options[name:sub(3)] = args[i]
    else
      say("usage: luajit bench/run.lua [--quick | --figures] [--only ID,ID] [--out FILE]\n")
      os.exit(2)
    end
    i = i + 1
  end
  return options
end

local function has_failed(results)
  for _, variants in pairs(results) do
    for _, runs in pairs(variants) do
      for _, result in pairs(runs) do
        if result.failed then return true end
      end
    end
  end
  return false
end

local function ticks_of(line)
  local ticks = {}
  for text in line:gmatch("%d+") do ticks[#ticks + 1] = tonumber(text) end
  return ticks
end

-- Ticks of all cores so far: of all kinds, idle, taken by the hypervisor, and what this process and those it
-- has waited for have used. (man 5 proc: /proc/stat, /proc/PID/stat)
local function core_time()
  local cores = ticks_of(contenders.output_of("head -n 1 /proc/stat"))
  local file = assert(io.open("/proc/self/stat"))
  local own = ticks_of(file:read("*a"):match("%) (.*)"))
  file:close()
  local time = { all = 0, idle = cores[4] + cores[5], stolen = cores[8], own = 0 }
  for i = 1, 8 do time.all = time.all + cores[i] end
  for i = 11, 14 do time.own = time.own + own[i] end
  return time
end

-- Percents of the cores' time that others have had.
local function others_had(before, after)
  local all = math.max(1, after.all - before.all)
  local stolen = after.stolen - before.stolen
  local busy = all - (after.idle - before.idle) - stolen
  return 100 * math.max(0, busy - (after.own - before.own)) / all, 100 * stolen / all
end

local function main(args)
  local options = parse(args)
  local all = {
    depth = options.depth, results = {}, configs = {}, versions = contenders.versions(), start = sys.now(),
    load_before = contenders.output_of("uptime"):match("load average: ([%d.]+)"),
  }
  local before = core_time()
  for _, scenario in ipairs(scenarios) do
    if is_wanted(scenario, options) then
      all.results[scenario.id] = run_scenario(scenario, scenario[options.depth], all.versions, all.configs)
    end
  end
  all.seconds = sys.now() - all.start
  all.others, all.stolen = others_had(before, core_time())
  if options.out then
    report.write(options.out, all)
    say("%.0f s; written to %s\n", all.seconds, options.out)
  else
    io.write(report.figures(all))
  end
  os.exit(has_failed(all.results) and 1 or 0)
end

main(arg)
