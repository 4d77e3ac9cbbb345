--- consistent_hash: the same instance for the same key, on a ring of hashes where each instance has many
-- places: one that goes gives its keys to all others, and no key moves between those. With a bound on the
-- load, an instance that has much more in flight than its share is passed over (Mirrokni, Thorup and
-- Zadimoghaddam: Consistent Hashing with Bounded Loads).
-- Invariant: a ring may have instances that can't be asked now; whoever walks it skips them, so that one that
-- falls ill and comes back costs no new ring.

local core = require("gateway.core")
local request_key = require("gateway.request_key")
local round_robin = require("gateway.balancer.round_robin")

local floor, ceil = math.floor, math.ceil

local consistent_hash = { name = "consistent_hash" }

---@class gateway.ConsistentHash
---@field read fun(ctx: gateway.Context): string?
---@field replicas integer  points for each unit of weight
---@field bound number      0 = none
---@field views table<gateway.Instance[], gateway.RingView>  weak

---@class gateway.Ring
---@field points number[]   in order: the place in whole numbers times the count of members, and which one
---@field members gateway.Instance[]
---@field weights table<gateway.Instance, number>  when it was laid out

---@class gateway.RingView a ring as a list of instances may use it
---@field ring gateway.Ring
---@field at table<integer, integer>  member -> its index in the list; the others can't be asked

---@param settings {key: string, replicaCount: integer, boundedLoad: number}
---@return gateway.ConsistentHash
function consistent_hash.new(settings)
  return { read = request_key.reader(settings.key), replicas = settings.replicaCount,
    bound = settings.boundedLoad, views = setmetatable({}, { __mode = "k" }) }
end

-- A place on the ring: 32 bits of a hash, so that a member's number fits into the same number.
local function place(hash)
  return floor(hash / 2 ^ 21)
end

-- More would keep the worker from its other work for too long. Halved, not cut to size: that changes only
-- when the number of points doubles, and else a new instance leaves the points of the others alone.
local MOST_POINTS = 32768

local function scale_of(replicas, instances)
  local total, scale = 0, 1
  for i = 1, #instances do total = total + replicas * instances[i].weight end
  while total * scale > math.max(MOST_POINTS, #instances) do scale = scale / 2 end
  return scale
end

local function points_of(instance, replicas, scale)
  if instance.weight <= 0 then return 0 end
  return math.max(1, floor(replicas * instance.weight * scale + 0.5))
end

local function lay_out(replicas, instances)
  local ring = { points = {}, members = {}, weights = {} }
  local count, points, scale = #instances, ring.points, scale_of(replicas, instances)
  for i = 1, count do
    local instance = instances[i]
    ring.members[i], ring.weights[instance] = instance, instance.weight
    for k = 1, points_of(instance, replicas, scale) do
      points[#points + 1] = place(core.hash(instance.id, k)) * count + i - 1
    end
  end
  table.sort(points)
  return ring
end

-- The ring that was laid out last, by service and number of replicas.
local rings = {}

-- Does it have all of them, as they are, and not too many others to skip?
local function serves(ring, instances)
  if not ring or #ring.members > 8 * (#instances + 4) then return false end
  for i = 1, #instances do
    if ring.weights[instances[i]] ~= instances[i].weight then return false end
  end
  return true
end

local function view_of(conf, instances)
  local view = conf.views[instances]
  if view then return view end
  local name = instances[1].service .. " " .. conf.replicas
  if not serves(rings[name], instances) then rings[name] = lay_out(conf.replicas, instances) end
  local index = {}
  for i = 1, #instances do index[instances[i]] = i end
  view = { ring = rings[name], at = {} }
  for number, member in ipairs(view.ring.members) do view.at[number] = index[member] end
  conf.views[instances] = view
  return view
end

-- Where in the ring the first point at or behind a place is.
local function first_at(points, wanted)
  local low, high = 1, #points + 1
  while low < high do
    local middle = floor((low + high) / 2)
    if points[middle] < wanted then low = middle + 1 else high = middle end
  end
  return low <= #points and low or 1
end

-- How much each unit of weight may have in flight, this request included; and what each has.
local load = {}
local function allowance(bound, instances)
  local busy, weight = 1, 0
  core.facts(instances, "in_flight", load)
  for i = 1, #instances do busy, weight = busy + load[i], weight + instances[i].weight end
  return bound * busy / weight
end

-- Looks at the members in their order on the ring. An idle one is never too busy, so for that one nobody is
-- counted.
local function walk(view, from, bound, instances)
  local points, count = view.ring.points, #view.ring.members
  local allowed
  for step = 0, #points - 1 do
    local point = points[(from + step - 1) % #points + 1]
    local i = view.at[point % count + 1]
    local instance = i and instances[i]
    if instance then
      if bound == 0 or not allowed and instance.in_flight == 0 then return instance end
      allowed = allowed or allowance(bound, instances)
      if load[i] < ceil(allowed * instance.weight) then return instance end
    end
  end
end

---@param ctx gateway.Context
---@param conf gateway.ConsistentHash
---@param instances gateway.Instance[]
---@return gateway.Instance? nil when no instance has a weight above 0
function consistent_hash.balance(ctx, conf, instances)
  local key = conf.read(ctx)
  if not key then return round_robin.balance(ctx, nil, instances) end
  local view = view_of(conf, instances)
  local wanted = place(core.hash(key)) * #view.ring.members
  return walk(view, first_at(view.ring.points, wanted), conf.bound, instances)
end

return consistent_hash
