--- Writes a checked tree as YAML, in the order of its schema. Called by gateway.config for `--print-conf`.
-- Invariant: what is written reads back as the same values, `${` in texts included; but for secrets, which
-- are not told, and whose mask is refused as being too short for one.

local schema = require("gateway.schema")

local printer = {}

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(text)
  text = text:gsub('["\\%c]', function(c) return escapes[c] or ("\\x%02X"):format(c:byte()) end)
  return '"' .. text:gsub("%${", "$${") .. '"'
end

-- Bare words that no reader of YAML, 1.1 or 1.2, takes for anything but text.
local words_of_1_1 = { yes = true, no = true, on = true, off = true, y = true, n = true }

local function scalar_text(text)
  local bare = text:find("^[%a_/.][%w_./-]*$") and type(schema.scalar(text)) == "string"
  if bare and not words_of_1_1[text:lower()] and not text:find("^%.?[%d.]+$") then return text end
  return quoted(text)
end

local function number_text(value)
  if value ~= value then return ".nan" end
  if value == math.huge then return ".inf" end
  if value == -math.huge then return "-.inf" end
  local short = ("%.14g"):format(value)
  return tonumber(short) == value and short or ("%.17g"):format(value)
end

local MASK = '"***"'

-- A text that is told to nobody; also the only one of a list.
local function is_secret(spec)
  return spec and (spec.secret or spec.of and is_secret(schema.spec(spec.of)))
end

local function scalar(value, spec)
  if is_secret(spec) then return MASK end
  if type(value) == "string" then return scalar_text(value) end
  if type(value) == "number" then return number_text(value) end
  if schema.is_null(value) then return "null" end
  return tostring(value)
end

-- Key, value and spec, if there is one, in the order to print.
local function entries_of(value, spec)
  local entries = {}
  if spec and spec.show then
    entries = spec.show(value)
  elseif spec and spec.fields then
    local fields = schema.fields(spec.fields)
    for _, name in ipairs(fields.names) do
      if value[name] ~= nil then entries[#entries + 1] = { name, value[name], fields.by_name[name] } end
    end
  else
    local names = {}
    for name in pairs(value) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      entries[#entries + 1] = { name, value[name], spec and spec.of and schema.spec(spec.of) }
    end
  end
  return entries
end

local function is_array(value, spec)
  if spec and spec.type ~= "any" then return spec.type == "array" end
  return not (spec and spec.show) and schema.is_list(value)
end

-- A list of nothing but scalars, written on its line.
local function flow_list(value, spec)
  local parts = {}
  for i, item in ipairs(value) do
    if type(item) == "table" then return nil end
    parts[i] = scalar(item, spec)
  end
  return "[" .. table.concat(parts, ", ") .. "]"
end

local write_value

local function write_list(out, value, spec, indent)
  for _, item in ipairs(value) do
    local mine = {}
    write_value(mine, item, spec and spec.of and schema.spec(spec.of), indent .. "  ")
    -- The first line moves up behind the dash.
    out[#out + 1] = indent .. "- " .. table.concat(mine, "\n"):gsub("^%s+", "")
  end
end

local function write_map(out, value, spec, indent)
  for _, entry in ipairs(entries_of(value, spec)) do
    local key, item, of = scalar_text(tostring(entry[1])), entry[2], entry[3]
    local mine = {}
    write_value(mine, item, of, indent .. "  ")
    if type(item) == "table" and mine[1]:find("^%s") then
      out[#out + 1] = indent .. key .. ":"
      for _, line in ipairs(mine) do out[#out + 1] = line end
    else
      out[#out + 1] = indent .. key .. ": " .. mine[1]
    end
  end
end

-- Appends lines; one that does not begin with a blank fits behind its key or dash.
function write_value(out, value, spec, indent)
  if type(value) ~= "table" then
    out[#out + 1] = scalar(value, spec)
  elseif is_array(value, spec) then
    local flow = flow_list(value, spec)
    if flow then out[#out + 1] = flow else write_list(out, value, spec, indent) end
  elseif next(value) == nil then
    out[#out + 1] = "{}"
  else
    write_map(out, value, spec, indent)
  end
end

--- The tree below one root key.
---@param tree table
---@param spec gateway.Spec
---@param root string
---@return string
function printer.print(tree, spec, root)
  local out = { root .. ":" }
  write_value(out, tree, spec, "  ")
  return table.concat(out, "\n") .. "\n"
end

return printer
