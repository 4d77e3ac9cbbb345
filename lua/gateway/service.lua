--- gateway.service: the services of a version, their instances, and which of these may be asked.

local core = require("gateway.core")

local service = {}

---@class gateway.Instance
---@field index integer           of all instances of the version, as the runtime counts
---@field id string
---@field service string
---@field address string
---@field port integer?           none of a unix socket
---@field host string?            the name whose address it is
---@field weight integer
---@field health "healthy"|"unhealthy"  as configured
---@field in_flight integer       requests that it is at, open streams included, of all workers
---@field open_streams integer    of these, the event streams
---@field response_time number    moving average of the time to the response head, in seconds; 0 = unknown
---@field answer_age number      seconds since the last one
local FACTS = { in_flight = true, open_streams = true, response_time = true, answer_age = true }
local Instance = {}
local methods = {}

--- The time to the response head that so many percent of the answers of the last seconds kept.
---@param percent number
---@return number seconds 0 = unknown
function methods:response_percentile(percent)
  return core.percentile(self.index, percent)
end

-- Measured by the runtime, and read when somebody asks.
function Instance.__index(self, key)
  if FACTS[key] then return core.fact(self.index, key) end
  return methods[key]
end

---@class gateway.Service
---@field name string
---@field instances gateway.Instance[]
---@field by_id table<string, gateway.Instance>
---@field healthy gateway.Instance[]  not said to be unhealthy
---@field names gateway.Name[]?  whose addresses are among the instances, behind those that are `fixed`
local Service = {}
Service.__index = Service

---@param name string
---@return gateway.Service
function service.new(name)
  return setmetatable({ name = name, instances = {}, by_id = {}, healthy = {} }, Service)
end

--- Adds an instance, which gets its facts from the runtime by its index.
---@param instance table the fields of gateway.Instance that are no facts
---@return gateway.Instance
function Service:add(instance)
  setmetatable(instance, Instance)
  table.insert(self.instances, instance)
  self.by_id[instance.id] = instance
  if instance.health == "healthy" then table.insert(self.healthy, instance) end
  return instance
end

--- Takes these in the place of all that it has. Lists that were given to somebody stay as they were.
---@param instances table[] instances, of this service or to be made such
function Service:replace(instances)
  self.instances, self.by_id, self.healthy = {}, {}, {}
  for _, instance in ipairs(instances) do self:add(instance) end
end

--- The instances that may be asked now.
---@return gateway.Instance[] not to be changed
function Service:usable()
  return self.healthy
end

--- Of these, the ones that this exchange has not tried in vain.
---@param ctx gateway.Context
---@return gateway.Instance[]
function Service:untried(ctx)
  local usable, left = self:usable(), {}
  for i = 1, #usable do
    if not core.tried(ctx._x, usable[i].index) then left[#left + 1] = usable[i] end
  end
  return left
end

return service
