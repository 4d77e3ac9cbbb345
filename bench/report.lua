--- report: turns the results of run.lua into docs/benchmarks.md. Medians of the runs, least and most of them
-- in brackets; a ratio is taken run by run and then treated in the same way.
local contenders = require("bench.contenders")
local scenarios = require("bench.scenarios")
local stats = require("bench.stats")
local targets = require("bench.targets")
local text = require("bench.text")

local output_of = contenders.output_of

local report = {}

--- Cells ------------------------------------------------------------------------------------------

local function number(value)
  if value >= 100 then return ("%.0f"):format(value) end
  if value >= 10 then return ("%.1f"):format(value) end
  return ("%.2f"):format(value)
end

local function count(value)
  return value >= 1e6 and ("%.2f M"):format(value / 1e6) or value >= 1e4 and ("%.0f k"):format(value / 1e3)
    or ("%.0f"):format(value)
end

local function duration(us)
  if us >= 1e6 then return ("%.2f s"):format(us / 1e6) end
  if us >= 1e3 then return ("%.1f ms"):format(us / 1e3) end
  return ("%.0f µs"):format(us)
end

-- The median, and least and most where there is more than one.
local function spread(values, format)
  local median = stats.median(values)
  if not median then return "–" end
  if #values == 1 then return format(median) end
  local least, most = stats.range(values)
  return ("%s (%s–%s)"):format(format(median), format(least), format(most))
end

local function figure(name, format)
  return function(row) return spread(stats.column(row.runs, name), format) end
end

-- Only the median.
local function plain(name, format)
  return function(row)
    local median = stats.median(stats.column(row.runs, name))
    return median and format(median) or "–"
  end
end

local function ratio(name)
  return function(row)
    if not row.base then return "–" end
    return spread(stats.ratios(row.runs, row.base, name), number)
  end
end

-- What a filter costs over the same proxy without one.
local function over(row)
  return row.over and spread(stats.differences(row.runs, row.over, "cpu"), number) or "–"
end

--- Tables -----------------------------------------------------------------------------------------

local LATENCIES = {
  { "p50", plain("p50", duration) }, { "p99", figure("p99", duration) },
  { "p99.9", plain("p999", duration) }, { "max", plain("max", duration) },
}

local function columns(first, rest)
  local list = {}
  for _, part in ipairs({ first, rest }) do
    for _, column in ipairs(part) do list[#list + 1] = column end
  end
  return list
end

local COLUMNS = {
  relay = columns({
    { "CPU µs per UNIT", figure("cpu", number) }, { "× bare relay", ratio("cpu") },
    { "UNITs/s", plain("rate", count) }, { "core %", plain("core", number) },
  }, columns(LATENCIES, { { "PSS MiB", plain("pss_end", number) } })),
  idle = {
    { "PSS KiB per stream", figure("pss_stream", number) },
    { "PSS MiB at start", plain("pss_start", number) }, { "PSS MiB", plain("pss_end", number) },
    { "core % while idle", figure("core", number) },
    { "CPU µs per opening", figure("open_cpu", number) }, { "× bare relay", ratio("open_cpu") },
    { "all open after", plain("open_s", function(s) return ("%.2f s"):format(s) end) },
  },
  filter = columns({
    { "CPU µs per UNIT", figure("cpu", number) }, { "over no filter", over },
    { "× nginx with Lua", ratio("cpu") },
    { "UNITs/s", plain("rate", count) }, { "core %", plain("core", number) },
  }, LATENCIES),
  reload = columns({
    { "CPU µs per UNIT", figure("cpu", number) }, { "UNITs/s", plain("rate", count) },
  }, LATENCIES),
}

COLUMNS.workers = columns({
  { "CPU µs per UNIT", figure("cpu", number) }, { "× one worker", ratio("cpu") },
  { "UNITs/s", plain("rate", count) },
}, LATENCIES)

local BASE = {
  relay = "bare relay", idle = "bare relay", filter = "nginx with Lua, decode and encode JSON",
  workers = "gatewayd, one worker",
}

-- A failed run has no figures.
local function good_runs(runs)
  local good = {}
  for i, run in ipairs(runs or {}) do good[i] = run.failed and {} or run end
  return good
end

local function complaints(runs, out, label)
  for i, run in ipairs(runs or {}) do
    local what = run.failed and "**failed**: " .. run.failed or run.note
    if what then out[#out + 1] = ("- %s, run %d: %s\n"):format(label, i, what) end
  end
end

local function table_row(scenario, variant, results)
  local row = {
    runs = good_runs(results[variant.label]), base = results[BASE[scenario.table]],
    over = variant.over and results[variant.over],
  }
  row.base = row.base and good_runs(row.base)
  row.over = row.over and good_runs(row.over)
  local cells = { variant.label }
  for _, column in ipairs(COLUMNS[scenario.table]) do cells[#cells + 1] = column[2](row) end
  return "| " .. table.concat(cells, " | ") .. " |\n"
end

local function table_head(scenario)
  local heads, rule = { "" }, { "|---|" }
  for _, column in ipairs(COLUMNS[scenario.table]) do
    heads[#heads + 1] = (column[1]:gsub("UNIT", scenario.unit))
    rule[#rule + 1] = "---:|"
  end
  return "| " .. table.concat(heads, " | ") .. " |\n" .. table.concat(rule) .. "\n"
end

local function section(scenario, results, depth)
  local out = { "### " .. scenario.title .. "\n\n" }
  if scenario.note then out[#out + 1] = scenario.note .. "\n" end
  out[#out + 1] = ("%d × %s s.\n\n"):format(scenario[depth].runs, tostring(scenario[depth].seconds))
  out[#out + 1] = table_head(scenario)
  for _, variant in ipairs(scenario.variants) do
    if results[variant.label] then out[#out + 1] = table_row(scenario, variant, results) end
  end
  local wrong = {}
  for _, variant in ipairs(scenario.variants) do complaints(results[variant.label], wrong, variant.label) end
  if wrong[1] then out[#out + 1] = "\n" .. table.concat(wrong) end
  return table.concat(out) .. "\n"
end

--- The page ---------------------------------------------------------------------------------------

local function line_of(command, pattern)
  return output_of(command):match(pattern) or "?"
end

local COMMAND = { quick = "`make bench-quick`", full = "`make bench`" }

local OTHER_LOAD = "load average %s before it; of the cores' time %.1f %% went to other processes and "
  .. "interrupts, %.1f %% to the hypervisor"

local function machine(all)
  local list = {
    { "processor", line_of("lscpu", "Model name:%s*([^\n]+)") .. ", " .. line_of("nproc", "%d+") .. " cores"
      .. (line_of("lscpu", "Hypervisor vendor:%s*(%S+)") ~= "?" and ", virtual" or "") },
    { "memory", line_of("free -g", "Mem:%s+(%d+)") .. " GiB" },
    { "kernel", line_of("uname -r", "[%d.]+") },
    { "system", line_of("cat /etc/os-release", 'PRETTY_NAME="([^"]+)"') },
    { "gatewayd", all.versions.gatewayd .. ", commit " .. line_of("git rev-parse --short HEAD", "%w+") },
    { "nginx", all.versions.nginx or "not installed" },
    { "nginx's Lua module", all.versions.lua or "not installed" },
    { "HAProxy", all.versions.haproxy or "not installed" },
    { "date", os.date("!%Y-%m-%d") },
    { "run", ("%s, %.0f s"):format(COMMAND[all.depth], all.seconds) },
    { "other load", OTHER_LOAD:format(all.load_before or "?", all.others, all.stolen) },
  }
  local out = { "| | |\n|---|---|\n" }
  for _, item in ipairs(list) do out[#out + 1] = ("| %s | %s |\n"):format(item[1], item[2]) end
  return table.concat(out)
end

local function config_blocks(configs)
  local out = {}
  for _, item in ipairs({
    { "gatewayd+json", "gatewayd, here with the plugin of the JSON scenario", "yaml" },
    { "gatewayd", "gatewayd", "yaml" }, { "nginx", "nginx", "nginx" },
    { "nginx+json", "nginx with the Lua filter", "nginx" }, { "haproxy", "HAProxy", "haproxy" },
  }) do
    local config = configs[item[1]]
    if config and not (item[1] == "gatewayd" and configs["gatewayd+json"]) then
      out[#out + 1] = ("%s:\n\n```%s\n%s```\n\n"):format(item[2], item[3], config)
    end
  end
  return table.concat(out)
end

--- Writes the page.
---@param path string
---@param all table what run.lua has gathered
function report.write(path, all)
  local out = { text.head, machine(all), "\n## Targets\n\n", targets.format(all.results), text.method }
  out[#out + 1] = "## Results\n\n"
  for _, scenario in ipairs(scenarios) do
    local results = all.results[scenario.id]
    if results then out[#out + 1] = section(scenario, results, all.depth) end
  end
  out[#out + 1] = text.configurations .. config_blocks(all.configs)
  local file = assert(io.open(path, "w"))
  file:write((table.concat(out):gsub("\n+$", "\n")))
  file:close()
end

--- Two figures for each contender, for those who want no page: memory of an idle stream and CPU of an event.
---@param all table
---@return string
function report.figures(all)
  local out = { ("%-12s %22s %26s\n"):format("", "PSS per idle stream", "CPU per relayed event") }
  for _, variant in ipairs(scenarios[1].variants) do
    local idle = stats.median(stats.column(good_runs(all.results.idle[variant.label]), "pss_stream"))
    local cpu = stats.median(stats.column(good_runs(all.results.relay[variant.label]), "cpu"))
    out[#out + 1] = ("%-12s %18s KiB %23s µs\n"):format(variant.label, idle and number(idle) or "–",
      cpu and number(cpu) or "–")
  end
  return table.concat(out)
end

return report
