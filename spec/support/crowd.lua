--- crowd: instances that are tables, and what many choices among them come to, for specs of policies. Chance
-- is that of gateway.testing, the same in each run, so the bounds can be far out and still nobody is lucky.
local crowd = {}

--- Instances i1, i2, … of these weights, idle.
---@param weights integer[]
---@return gateway.Instance[]
function crowd.instances(weights)
  local list = {}
  for i, weight in ipairs(weights) do
    list[i] = { index = i, id = "i" .. i, service = "s", weight = weight, in_flight = 0, open_streams = 0,
      response_time = 0, answer_age = 0 }
  end
  return list
end

--- As many of the same weight.
---@param n integer
---@return gateway.Instance[]
function crowd.equal(n)
  local weights = {}
  for i = 1, n do weights[i] = 1 end
  return crowd.instances(weights)
end

--- A list without one of them.
---@param list gateway.Instance[]
---@param left_out gateway.Instance
---@return gateway.Instance[]
function crowd.without(list, left_out)
  local out = {}
  for _, instance in ipairs(list) do
    if instance ~= left_out then out[#out + 1] = instance end
  end
  return out
end

--- How often each is chosen.
---@param list gateway.Instance[]
---@param times integer
---@param choose fun(i: integer): gateway.Instance
---@return integer[]
function crowd.counts(list, times, choose)
  local counts = {}
  for i = 1, #list do counts[i] = 0 end
  for i = 1, times do
    local chosen = choose(i)
    counts[chosen.index] = counts[chosen.index] + 1
  end
  return counts
end

--- The same where what was chosen stays in flight, as a long stream does.
---@param list gateway.Instance[]
---@param times integer
---@param choose fun(i: integer): gateway.Instance
---@return integer[]
function crowd.held(list, times, choose)
  return crowd.counts(list, times, function(i)
    local chosen = choose(i)
    chosen.in_flight = chosen.in_flight + 1
    return chosen
  end)
end

--- Pearson's chi-square of counts that should be as the weights are, over its degrees of freedom: about 1
--- when they are. For 9 degrees, 4 is passed once in 30,000 times by luck.
---@param counts integer[]
---@param weights integer[]
---@return number
function crowd.chi_square(counts, weights)
  local total, sum, chi = 0, 0, 0
  for i = 1, #counts do total, sum = total + counts[i], sum + weights[i] end
  for i = 1, #counts do
    local expected = total * weights[i] / sum
    chi = chi + (counts[i] - expected) ^ 2 / expected
  end
  return chi / (#counts - 1)
end

--- The largest count for its weight, over the mean: 1 is perfectly even.
---@param counts integer[]
---@param weights integer[]
---@return number
function crowd.peak(counts, weights)
  local total, sum, most = 0, 0, 0
  for i = 1, #counts do
    total, sum = total + counts[i], sum + weights[i]
    most = math.max(most, counts[i] / weights[i])
  end
  return most / (total / sum)
end

return crowd
