--- gateway.names: host names among the addresses of instances. What a name stands for now is told by the
-- runtime, which asks for it; here that becomes the instances of a service. Called by gateway.loader, which
-- finds the names, and by gateway.pipeline, when the runtime has news.

local names = {}

---@class gateway.Name  what the configuration says of all instances of one host name
---@field service string
---@field id string
---@field address string   the name
---@field port integer
---@field health "healthy"|"unhealthy"
---@field of gateway.Service
---@field fields table     of gateway.Instance: what its instances have in common
---@field instances gateway.Instance[]  as they are now; not changed, but replaced

--- Adds a name to those of a version, and to its service.
---@param list gateway.Name[]
---@param of gateway.Service
---@param fields table  of an instance, without an index
function names.add(list, of, fields)
  local name = { service = fields.service, id = fields.id, address = fields.address, port = fields.port,
    health = fields.health, of = of, fields = fields, instances = {} }
  list[#list + 1] = name
  of.names = of.names or { fixed = #of.instances }
  table.insert(of.names, name)
end

-- The one that it was, if there was such: policies remember what they know of an instance by its table.
local function same(name, row)
  for _, instance in ipairs(name.instances) do
    if instance.index == row.index and instance.id == row.id then return instance end
  end
end

local function made(name, row)
  local instance = {}
  for key, value in pairs(name.fields) do instance[key] = value end
  instance.index, instance.id, instance.address, instance.host = row.index, row.id, row.address, name.address
  return instance
end

--- Takes what a name stands for now. The lists of its service are new ones afterwards.
---@param name gateway.Name
---@param rows {index: integer, id: string, address: string}[]
function names.resolve(name, rows)
  local instances, of = {}, name.of
  for i, row in ipairs(rows) do instances[i] = same(name, row) or made(name, row) end
  name.instances = instances
  local all = {}
  for i = 1, of.names.fixed do all[i] = of.instances[i] end
  for _, each in ipairs(of.names) do
    for _, instance in ipairs(each.instances) do all[#all + 1] = instance end
  end
  of:replace(all)
end

return names
