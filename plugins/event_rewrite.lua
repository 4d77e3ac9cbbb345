--- event_rewrite: sets or removes parts of events, and fields of their JSON data.
--     - event_rewrite:
--         only: [status]
--         rename: {status: state}
--         set: {retry: 5000}
--         remove: [id]
--         json: {set: {meta.via: gateway}, remove: [user.email]}
-- What is not named stays as it came, byte for byte; data that is no JSON object keeps its text.

---@type gateway.Plugin
local plugin = {
  name = "event_rewrite",
  schema = {
    only = { type = "array", of = "string", doc = "Types this is for; empty = all." },
    rename = { type = "map", of = "string", doc = "Old type -> new type." },
    set = { type = "map", doc = "Parts to set.", fields = {
      type = { type = "string", min = 1 },
      id = { type = "string" },
      retry = { type = "integer", min = 0, doc = "Milliseconds." },
      data = { type = "string" },
    } },
    remove = { type = "array", of = { type = "enum", values = { "type", "id", "retry", "data" } },
      doc = "Parts to remove." },
    json = { type = "map", doc = "The same for fields of JSON data, named as `a.b.c`.", fields = {
      set = { type = "map", of = "any" },
      remove = { type = "array", of = "string" },
    } },
  },
}

-- Changes to the JSON in a fixed order: removals, then fields by name.
local function json_changes(conf)
  local changes, names = {}, {}
  for _, name in ipairs(conf.remove) do changes[#changes + 1] = { path = name } end
  for name in pairs(conf.set) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do changes[#changes + 1] = { path = name, value = conf.set[name] } end
  return changes
end

function plugin.new(conf)
  local only = conf.only[1] and {}
  for _, name in ipairs(conf.only) do only[name] = true end
  return { only = only, rename = conf.rename, set = conf.set, remove = conf.remove,
    changes = json_changes(conf.json) }
end

---@param event gateway.Event
function plugin.on_event(_, conf, event)
  local name = event.type
  if conf.only and not conf.only[name] then return end
  for i = 1, #conf.remove do event[conf.remove[i]] = nil end
  for part, value in pairs(conf.set) do event[part] = value end
  if conf.rename[name] then event.type = conf.rename[name] end
  local changes = conf.changes
  for i = 1, #changes do event:json_set(changes[i].path, changes[i].value) end
end

return plugin
