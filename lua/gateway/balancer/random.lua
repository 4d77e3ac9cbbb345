--- random: of two instances drawn at random the one with less in flight. Weights do not count.

local draw = require("gateway.draw")

local random = { name = "random" }

---@param _ gateway.Context
---@param _conf nil
---@param instances gateway.Instance[]
---@return gateway.Instance
function random.balance(_, _conf, instances)
  local one, other = draw.pair(instances)
  if other and other.in_flight < one.in_flight then return other end
  return one
end

return random
