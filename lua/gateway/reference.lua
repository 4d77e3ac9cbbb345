--- The reference of all keys in Markdown, made from the schema. Called by `make docs` and by the spec that
-- compares it with docs/configuration.md. Holds no state.

local schema = require("gateway.schema")
local settings = require("gateway.settings")

local reference = {}

local BEGIN = "<!-- reference: made from lua/gateway/settings.lua by make docs -->"
local END = "<!-- end of reference -->"

local function code(value)
  return "`" .. tostring(value) .. "`"
end

local function range(spec)
  if spec.min and spec.max then return (" %s to %s"):format(spec.min, spec.max) end
  if spec.min and spec.min > 0 then return (" from %s"):format(spec.min) end
  return ""
end

local function type_text(spec)
  if spec.kind then return spec.kind end
  if spec.type == "enum" then
    local values = {}
    for i, value in ipairs(spec.values) do values[i] = code(value) end
    return table.concat(values, " or ")
  end
  local text = spec.type == "string" and "text" or spec.type
  if spec.type == "integer" then text = "integer" .. range(spec) end
  for _, word in ipairs(spec.words or {}) do text = text .. " or " .. code(word) end
  return text
end

local function default_text(spec)
  if spec.required then return "required" end
  if spec.default == nil or spec.default == "" then return "" end
  if type(spec.default) ~= "table" then return code(spec.default) end
  if next(spec.default) == nil then return code(spec.type == "array" and "[]" or "{}") end
  return code("[" .. table.concat(spec.default, ", ") .. "]")
end

local function section_of(spec)
  local of = spec.type == "array" and spec.of and schema.spec(spec.of)
  if spec.fields then return spec end
  return of and of.fields and of or nil
end

local write_section

local function write_table(out, spec, path)
  local rows, below = {}, {}
  for _, name in ipairs(schema.fields(spec.fields).names) do
    local field = schema.fields(spec.fields).by_name[name]
    local inner = section_of(field)
    if inner then
      below[#below + 1] = { name, inner, field }
    else
      local note = field.lua == true and "Lua routes only. " or ""
      rows[#rows + 1] = ("| `%s` | %s | %s | %s%s |")
        :format(name, type_text(field), default_text(field), note, field.doc or "")
    end
  end
  if #rows > 0 then
    out[#out + 1] = "| key | type | default | meaning |\n|---|---|---|---|\n" .. table.concat(rows, "\n")
  end
  for _, entry in ipairs(below) do
    local suffix = entry[3].type == "array" and "[]" or ""
    write_section(out, entry[2], (path == "" and "" or path .. ".") .. entry[1] .. suffix, entry[3])
  end
end

function write_section(out, spec, path, field)
  out[#out + 1] = ("### `%s`"):format(path)
  local note = field.optional and " Not there by default." or ""
  out[#out + 1] = (field.doc or "") .. note
  write_table(out, spec, path)
end

--- Tables of every key, section by section, between the two markers.
---@return string markdown
function reference.markdown()
  local out = { BEGIN }
  write_table(out, settings.gateway, "")
  out[#out + 1] = END
  return table.concat(out, "\n\n")
end

--- A page with its reference made anew.
---@param page string  with the two markers
---@return string
function reference.update(page)
  local first = assert(page:find(BEGIN, 1, true), "the page has no begin marker")
  local _, last = page:find(END, first, true)
  assert(last, "the page has no end marker")
  return page:sub(1, first - 1) .. reference.markdown() .. page:sub(last + 1)
end

return reference
