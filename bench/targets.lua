--- targets: what the gateway is to reach, each against the others in the same run. Used by report.lua.
local stats = require("bench.stats")

local targets = {}

local NGINX_LUA = "nginx with Lua, decode and encode JSON"

local function median_of(results, scenario, label, name)
  local runs = results[scenario] and results[scenario][label]
  return runs and stats.median(stats.column(runs, name))
end

local function ratio_of(results, scenario, name, label, base)
  local runs = results[scenario]
  if not runs or not runs[label] or not runs[base] then return nil end
  return stats.median(stats.ratios(runs[label], runs[base], name))
end

local function to_relay(scenario, name)
  return function(results) return ratio_of(results, scenario, name, "gatewayd", "bare relay") end
end

local function over(scenario, label)
  return function(results)
    local runs = results[scenario]
    if not runs or not runs[label] or not runs.gatewayd then return nil end
    return stats.median(stats.differences(runs[label], runs.gatewayd, "cpu"))
  end
end

local function figure(scenario, name, label)
  return function(results) return median_of(results, scenario, label or "gatewayd", name) end
end

local function worst_p99(results)
  local worst
  for _, other in ipairs({ "nginx", "HAProxy" }) do
    local ratio = ratio_of(results, "half_load", "p99", "gatewayd", other)
    if ratio and ratio > (worst or 0) then worst = ratio end
  end
  return worst
end

-- How much later than p99 without a reload the last event of a run with reloads is, in ms.
local function reload_delay(results)
  local late = median_of(results, "reload", "gatewayd, two reloads", "max")
  local usual = median_of(results, "reload", "gatewayd", "p99")
  return late and usual and (late - usual) / 1000
end

local LOOK, FIELD = "gatewayd, look at the type", "gatewayd, edit one JSON field"
local JSON = "gatewayd, decode and encode JSON"

local LIST = {
  { "CPU per relayed event, 1,000 streams × 10", 1.15, "× bare relay", to_relay("relay", "cpu") },
  { "CPU per relayed event, 9,500 streams × 1", 1.15, "× bare relay", to_relay("relay_many", "cpu") },
  { "latency p99 at half load, the larger of the ratios to nginx and HAProxy", 1, "×", worst_p99 },
  { "latency p99 at half load", 1.2, "× bare relay", to_relay("half_load", "p99") },
  { "user memory (PSS) per idle stream, both sides, after a storm", 1, "KiB", figure("idle", "pss_stream") },
  { "CPU of 9,500 idle streams", 0.5, "% of a core", figure("idle", "core") },
  { "Lua hook that looks at the type, over byte mode, 1,000 streams × 10", 0.4, "µs", over("filters", LOOK) },
  { "Lua hook that looks at the type, over byte mode, firehose", 0.4, "µs", over("filters_fast", LOOK) },
  { "JSON decode and encode, 1,000 streams × 10", 0.6, "× nginx with Lua", function(results)
    return ratio_of(results, "filters", "cpu", JSON, NGINX_LUA)
  end },
  { "JSON decode and encode, firehose", 1, "× nginx with Lua", function(results)
    return ratio_of(results, "filters_fast", "cpu", JSON, NGINX_LUA)
  end },
  { "one JSON field edited, over byte mode, 1,000 streams × 10", 1, "µs", over("filters", FIELD) },
  { "one JSON field edited, over byte mode, firehose", 1, "µs", over("filters_fast", FIELD) },
  { "opening a stream", 1.25, "× bare relay", to_relay("opens", "cpu") },
  { "CPU per ordinary keep-alive request, 5,000 a second", 1.35, "× bare relay",
    to_relay("requests_paced", "cpu") },
  { "CPU per event of two workers, firehose", 1.11, "× one worker", function(results)
    return ratio_of(results, "workers", "cpu", "gatewayd, two workers", "gatewayd, one worker")
  end },
  { "latest event in a run with reloads, past p99 without", 10, "ms", reload_delay },
}

local function row(target, value)
  local measured, verdict = "not in this run", ""
  if value then
    measured = ("%.2f"):format(value)
    verdict = value <= target[2] and "met" or "**missed**"
  end
  return ("| %s | %s %s | %s | %s |\n"):format(target[1], target[2], target[3], measured, verdict)
end

--- The table of targets with what was measured.
---@param results table<string, table<string, bench.Run[]>>
---@return string markdown
function targets.format(results)
  local out = { "| | target, at most | measured | |\n|---|---:|---:|---|\n" }
  for _, target in ipairs(LIST) do out[#out + 1] = row(target, target[4](results)) end
  return table.concat(out) .. "\n"
end

return targets
