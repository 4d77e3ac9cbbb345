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

-- Changes to the parts of an event, removals first.
local function part_changes(conf)
  local changes = {}
  for _, part in ipairs(conf.remove) do changes[#changes + 1] = { part = part } end
  for part, value in pairs(conf.set) do changes[#changes + 1] = { part = part, value = value } end
  return changes
end

function plugin.new(conf)
  local only = conf.only[1] and {}
  for _, name in ipairs(conf.only) do only[name] = true end
  return { only = only, rename = next(conf.rename) and conf.rename, parts = part_changes(conf),
    fields = json_changes(conf.json) }
end

---@param event gateway.Event
function plugin.on_event(_, conf, event)
  local only, rename, parts, fields = conf.only, conf.rename, conf.parts, conf.fields
  local name = (only or rename) and event.type
  if only and not only[name] then return end
  for i = 1, #parts do event[parts[i].part] = parts[i].value end
  if rename and rename[name] then event.type = rename[name] end
  for i = 1, #fields do event:json_set(fields[i].path, fields[i].value) end
end

return plugin
