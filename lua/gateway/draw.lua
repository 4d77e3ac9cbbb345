--- gateway.draw: drawing instances at random. Called by policies that look at two and take the better one
-- ("the power of two choices"): nearly as even as looking at all, and no two workers run after the same one.

local core = require("gateway.core")

local chance = core.chance

local draw = {}

--- Two different ones, all equally likely.
---@param instances gateway.Instance[] at least one
---@return gateway.Instance one
---@return gateway.Instance? other nil when there is only one
function draw.pair(instances)
  local n = #instances
  if n == 1 then return instances[1] end
  local i, k = math.floor(chance() * n) + 1, math.floor(chance() * (n - 1)) + 1
  return instances[i], instances[k < i and k or k + 1]
end

--- One of them, each as likely as its weight says.
---@generic T: gateway.Candidate
---@param candidates T[]
---@param without? T one that is left out
---@return T? nil when none has a weight above 0
function draw.weighted(candidates, without)
  local total, last = 0, nil
  for i = 1, #candidates do
    if candidates[i] ~= without then total = total + candidates[i].weight end
  end
  local drawn = chance() * total
  for i = 1, #candidates do
    local candidate = candidates[i]
    if candidate ~= without and candidate.weight > 0 then
      drawn, last = drawn - candidate.weight, candidate
      if drawn < 0 then return candidate end
    end
  end
  return last
end

--- Two different ones, drawn like that.
---@param instances gateway.Instance[]
---@return gateway.Instance? one nil when none has a weight above 0
---@return gateway.Instance? other
function draw.weighted_pair(instances)
  local one = draw.weighted(instances)
  return one, one and draw.weighted(instances, one)
end

return draw
