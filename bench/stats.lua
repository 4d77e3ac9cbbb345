--- stats: medians and spreads of repeated runs. Used by report.lua.
local stats = {}

--- The median; of an even number of values the mean of the two in the middle.
---@param values number[]
---@return number? nil of none
function stats.median(values)
  local sorted = { unpack(values) }
  table.sort(sorted)
  local n = #sorted
  if n == 0 then return nil end
  return (sorted[math.ceil(n / 2)] + sorted[math.floor(n / 2) + 1]) / 2
end

---@param values number[]
---@return number? least, number? most
function stats.range(values)
  if #values == 0 then return nil, nil end
  return math.min(unpack(values)), math.max(unpack(values))
end

--- One figure of each run that gave one.
---@param runs table[]
---@param name string
---@return number[]
function stats.column(runs, name)
  local values = {}
  for _, run in ipairs(runs) do values[#values + 1] = run[name] end
  return values
end

--- Ratios of two variants, run by run: what a run of the machine's moods has done to both is left out.
---@param runs table[]
---@param base table[]
---@param name string
---@return number[]
function stats.ratios(runs, base, name)
  local values = {}
  for i, run in ipairs(runs) do
    local other = base[i] and base[i][name]
    if run[name] and other and other > 0 then values[#values + 1] = run[name] / other end
  end
  return values
end

--- Differences of two variants, run by run.
---@param runs table[]
---@param base table[]
---@param name string
---@return number[]
function stats.differences(runs, base, name)
  local values = {}
  for i, run in ipairs(runs) do
    local other = base[i] and base[i][name]
    if run[name] and other then values[#values + 1] = run[name] - other end
  end
  return values
end

return stats
