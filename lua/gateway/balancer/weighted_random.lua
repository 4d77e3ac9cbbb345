--- weighted_random: of two instances, drawn as often as their weights say, the one with less in flight for
-- its weight.

local draw = require("gateway.draw")

local weighted_random = { name = "weighted_random" }

---@param _ gateway.Context
---@param _conf nil
---@param instances gateway.Instance[]
---@return gateway.Instance? nil when no instance has a weight above 0
function weighted_random.balance(_, _conf, instances)
  local one, other = draw.weighted_pair(instances)
  if other and other.in_flight / other.weight < one.in_flight / one.weight then return other end
  return one
end

return weighted_random
