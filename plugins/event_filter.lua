--- event_filter: lets events pass or drops them, by their type or by a field of their JSON data.
--     - event_filter: {drop: [debug]}
--     - event_filter: {field: user.plan, keep: [pro, team]}
-- An event without that field has no value: it is not dropped by `drop`, and not kept by `keep`.

local json = require("gateway.json")

---@type gateway.Plugin
local plugin = {
  name = "event_filter",
  schema = {
    drop = { type = "array", of = "string", doc = "Values whose events are dropped." },
    keep = { type = "array", of = "string", doc = "Values whose events pass; empty = all." },
    field = { type = "string", min = 1, doc = "Look at this field of JSON data, `a.b.c`, not at the type." },
  },
}

local function set_of(list)
  local set = {}
  for _, item in ipairs(list) do set[item] = true end
  return set
end

function plugin.new(conf)
  if not conf.drop[1] and not conf.keep[1] then error("give drop or keep; there is nothing to filter", 0) end
  return {
    drop = set_of(conf.drop),
    keep = conf.keep[1] and set_of(conf.keep),
    path = conf.field,
  }
end

local function value_of(event, path)
  if not path then return event.type end
  local value = event:json_get(path)
  return value == json.null and "null" or tostring(value)
end

---@param event gateway.Event
function plugin.on_event(_, conf, event)
  local value = value_of(event, conf.path)
  if conf.drop[value] then return false end
  if conf.keep and not conf.keep[value] then return false end
end

return plugin
