--- least_connections: the instance with the least to do for its weight: requests in flight and open streams,
-- those of all workers. Those with equally little take turns, so that a burst spreads.

local core = require("gateway.core")
local round_robin = require("gateway.balancer.round_robin")

local least_connections = { name = "least_connections" }

-- Used for one choice and filled anew for the next.
local load, equal = {}, {}

local function least_busy(instances)
  local least, n = math.huge, 0
  core.facts(instances, "in_flight", load)
  for i = 1, #instances do
    local instance = instances[i]
    local busy = instance.weight > 0 and load[i] / instance.weight or math.huge
    if busy < least then least, n = busy, 0 end
    if busy == least and busy < math.huge then
      n = n + 1
      equal[n] = instance
    end
  end
  for i = #equal, n + 1, -1 do equal[i] = nil end
  return equal
end

---@param ctx gateway.Context
---@param _conf nil
---@param instances gateway.Instance[]
---@return gateway.Instance? nil when no instance has a weight above 0
function least_connections.balance(ctx, _conf, instances)
  local list = least_busy(instances)
  if not list[2] then return list[1] end
  return round_robin.balance(ctx, nil, list)
end

return least_connections
