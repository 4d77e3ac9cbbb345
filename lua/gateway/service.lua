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
---@field weight number         as configured; less of it for some time behind an absence (slowStart)
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
---@field index integer
---@field instances gateway.Instance[]
---@field by_id table<string, gateway.Instance>
---@field healthy gateway.Instance[]  not said to be unhealthy
---@field names gateway.Name[]?  whose addresses are among the instances, behind those that are `fixed`
---@field _weights table<gateway.Instance, number>  as configured
---@field _watched boolean?           what these may get can change
---@field _guarded boolean?           by a circuit breaker
---@field _changes integer?           the runtime's number for what _usable was made from
---@field _usable gateway.Instance[]?
local Service = {}
Service.__index = Service

---@param name string
---@param index integer? as the runtime counts
---@param rules table?   from gateway.health.rules
---@return gateway.Service
function service.new(name, index, rules)
  return setmetatable({ name = name, index = index, instances = {}, by_id = {}, healthy = {},
    _weights = setmetatable({}, { __mode = "k" }),
    _watched = rules and rules.watched, _guarded = rules and rules.breaker ~= nil }, Service)
end

--- Adds an instance, which gets its facts from the runtime by its index.
---@param instance table the fields of gateway.Instance that are no facts
---@return gateway.Instance
function Service:add(instance)
  setmetatable(instance, Instance)
  self._weights[instance] = self._weights[instance] or instance.weight
  table.insert(self.instances, instance)
  self.by_id[instance.id] = instance
  if instance.health == "healthy" then table.insert(self.healthy, instance) end
  return instance
end

--- Takes these in the place of all that it has. Lists that were given to somebody stay as they were.
---@param instances table[] instances, of this service or to be made such
function Service:replace(instances)
  self.instances, self.by_id, self.healthy, self._changes = {}, {}, {}, nil
  for _, instance in ipairs(instances) do self:add(instance) end
end

local TENTHS = 10

-- Who may be asked, with the weight that counts now.
local function usable_of(healthy, weights)
  local list = {}
  for i = 1, #healthy do
    local instance = healthy[i]
    local tenths, weight = core.share(instance.index), weights[instance]
    instance.weight = tenths == TENTHS and weight or weight * tenths / TENTHS
    if tenths > 0 then list[#list + 1] = instance end
  end
  return list
end

--- The instances that may be asked now: the same table for as long as neither they nor their weights change.
---@return gateway.Instance[] not to be changed
function Service:usable()
  if not self._watched then return self.healthy end
  local changes = core.standing(self.index)
  if changes ~= self._changes then
    self._changes, self._usable = changes, usable_of(self.healthy, self._weights)
  end
  return self._usable
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

--- Whether the service must not be asked at all.
---@param ctx gateway.Context
---@return string? why
---@return integer? seconds after which it may be
function Service:refuses(ctx)
  local seconds = self._guarded and core.admit(ctx._x, self.index)
  if seconds then return ("the circuit of %s is open"):format(self.name), seconds end
end

--- Whether a request that comes now may be sent to one of its instances.
---@return boolean
function Service:can_be_asked()
  return self:usable()[1] ~= nil and not (self._guarded and core.refuses(self.index))
end

--- Why there is nobody to ask; the log hears of it as well.
---@return string why
---@return integer seconds after which there may be somebody
function Service:absence()
  local full, seconds = core.absence(self.index)
  return (full and "all instances of %s are full" or "no healthy instance of %s"):format(self.name), seconds
end

return service
