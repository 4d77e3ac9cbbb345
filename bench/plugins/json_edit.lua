--- json_edit: decodes the JSON of each event, changes a field and encodes it again.

---@type gateway.Plugin
local plugin = { name = "json_edit", schema = {} }

---@param event gateway.Event
function plugin.on_event(_, _, event)
  local data = event.json
  if type(data) ~= "table" then return end
  data.via = "bench1"
  event.json = data
end

return plugin
