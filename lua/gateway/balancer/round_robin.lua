--- round_robin: instances in turn, smoothly weighted (a weight of 3 gets three turns of four, not
-- in a row). Turns are counted per service and worker; workers begin at different instances.

local core = require("gateway.core")

local round_robin = { name = "round_robin" }

-- How far each instance's turn has come. Weak: the instances of an old configuration go with it.
local turns = setmetatable({}, { __mode = "k" })

local function next_turn(instances)
  local best, most, total = nil, nil, 0
  for i = 1, #instances do
    local instance = instances[i]
    local turn = (turns[instance] or 0) + instance.weight
    turns[instance] = turn
    total = total + instance.weight
    if instance.weight > 0 and (not best or turn > most) then best, most = instance, turn end
  end
  if best then turns[best] = most - total end
  return best
end

---@param _ gateway.Context
---@param _conf nil
---@param instances gateway.Instance[]
---@return gateway.Instance? nil when no instance has a weight above 0
function round_robin.balance(_, _conf, instances)
  if instances[1] and not turns[instances[1]] then
    for _ = 2, core.worker do next_turn(instances) end
  end
  return next_turn(instances)
end

return round_robin
