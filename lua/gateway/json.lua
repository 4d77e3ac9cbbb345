--- gateway.json: JSON for the library and for plugins.
-- On top of cjson: `[]` stays an array, numbers keep all their digits, "/" is not escaped, and one
-- field can be read or changed inside the text, which costs less than decoding it and keeps
-- everything else byte for byte.

local cjson = require("cjson.safe").new()
local find, byte, sub = string.find, string.byte, string.sub

cjson.encode_invalid_numbers(false)
cjson.decode_invalid_numbers(false)

local json = {
  --- JSON's null, in both directions.
  null = cjson.null,
}

local QUOTE, COMMA, COLON = byte('",:', 1, 3)
local BRACE, BRACE_END, BRACKET = byte("{}[", 1, 3)

-- Empty arrays pass through cjson, which has no word for them, as this string.
local EMPTY = "\0[]"
local EMPTY_JSON = '"\\u0000[]"'
local array_mt = { __jsontype = "array" }

local function is_empty_array(value)
  local mt = getmetatable(value)
  return mt ~= nil and mt.__jsontype == "array"
end

--- Marks a table as an array, so that it is written as `[]` even when it is empty.
---@param list? table
---@return table
function json.array(list)
  return setmetatable(list or {}, array_mt)
end

-- Returns the position after the string that opens at `pos`, or nil.
local function skip_string(text, pos)
  local at = pos + 1
  while true do
    at = find(text, '["\\]', at)
    if not at then return nil end
    if byte(text, at) == QUOTE then return at + 1 end
    at = at + 2
  end
end

local function mark_empty(text)
  local out, done, at = {}, 1, 1
  while true do
    at = find(text, '["%[]', at)
    if not at then break end
    if byte(text, at) == QUOTE then
      at = skip_string(text, at) or #text + 1
    else
      local _, last = find(text, "^%[[ \t\r\n]*%]", at)
      if last then
        out[#out + 1] = sub(text, done, at - 1)
        out[#out + 1] = EMPTY_JSON
        done = last + 1
      end
      at = (last or at) + 1
    end
  end
  out[#out + 1] = sub(text, done)
  return table.concat(out)
end

local function unmark(value)
  if value == EMPTY then return json.array() end
  if type(value) == "table" then
    for key, item in pairs(value) do
      if item == EMPTY or type(item) == "table" then value[key] = unmark(item) end
    end
  end
  return value
end

--- Decodes a JSON text.
---@param text string
---@return any value, string? err nil and a message when the text is not JSON
function json.decode(text)
  if find(text, "%[[ \t\r\n]*%]") then
    local value, err = cjson.decode(mark_empty(text))
    if value == nil then return nil, err end
    return unmark(value)
  end
  return cjson.decode(text)
end

-- cjson writes 14 digits, which spoils a time in microseconds. Returns the number's text where that
-- is not enough.
local function long_number(value)
  if value % 1 == 0 and value > -1e14 and value < 1e14 then return nil end
  for digits = 14, 17 do
    local text = ("%." .. digits .. "g"):format(value)
    if tonumber(text) == value then
      if digits == 14 then return nil end
      return value % 1 == 0 and math.abs(value) < 1e18 and ("%.0f"):format(value) or text
    end
  end
end

-- Does a tree hold something that cjson alone would write wrongly?
local function is_special(value)
  local kind = type(value)
  if kind == "number" then return long_number(value) ~= nil end
  if kind ~= "table" then return false end
  if next(value) == nil then return is_empty_array(value) end
  for _, item in pairs(value) do
    if is_special(item) then return true end
  end
  return false
end

-- A copy in which empty arrays and long numbers are marker strings.
local function marked(value)
  local kind = type(value)
  if kind == "number" then
    local text = long_number(value)
    return text and "\0#" .. text or value
  end
  if kind ~= "table" then return value end
  if next(value) == nil then return is_empty_array(value) and EMPTY or value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = marked(item) end
  return copy
end

--- Encodes a value as a JSON text. An empty table is `{}` unless it came from `[]` or from
--- `json.array`.
---@param value any
---@return string? text, string? err nil and a message when the value has no JSON form
function json.encode(value)
  -- cjson goes first: it refuses cycles, which the walks would not survive.
  local text, err = cjson.encode(value)
  if not text then return nil, err end
  if is_special(value) then
    text = cjson.encode(marked(value)):gsub('"\\u0000%[%]"', "[]"):gsub('"\\u0000#([^"]*)"', "%1")
  end
  if find(text, "\\/", 1, true) then text = text:gsub("\\(.)", { ["/"] = "/" }) end
  return text
end

local function skip_blank(text, pos)
  return find(text, "[^ \t\r\n]", pos) or #text + 1
end

-- Returns the position after the object or array that opens at `pos`, or nil.
local function skip_nested(text, pos)
  local depth, at = 0, pos
  while true do
    at = find(text, '["{}%[%]]', at)
    if not at then return nil end
    local c = byte(text, at)
    if c == QUOTE then
      at = skip_string(text, at)
      if not at then return nil end
    else
      depth = depth + ((c == BRACE or c == BRACKET) and 1 or -1)
      at = at + 1
      if depth == 0 then return at end
    end
  end
end

-- Returns the position after the value that starts at `pos`, or nil.
local function skip_value(text, pos)
  local c = byte(text, pos)
  if c == QUOTE then return skip_string(text, pos) end
  if c == BRACE or c == BRACKET then return skip_nested(text, pos) end
  local _, last = find(text, "^[%w%+%-%.]+", pos)
  return last and last + 1
end

local function same_key(text, first, last, key)
  local name = sub(text, first, last)
  if name == key then return true end
  return find(name, "\\", 1, true) ~= nil and cjson.decode('["' .. name .. '"]')[1] == key
end

-- One member of an object: `at` is where its key opens. Returns the position of its value and of
-- what follows it, and whether the key is `key`; nil where it is no JSON.
local function read_member(text, at, key)
  if byte(text, at) ~= QUOTE then return nil end
  local key_end = skip_string(text, at)
  local colon = key_end and skip_blank(text, key_end)
  if not colon or byte(text, colon) ~= COLON then return nil end
  local value = skip_blank(text, colon + 1)
  return value, skip_value(text, value), same_key(text, at + 1, key_end - 2, key)
end

-- Looks for `key` in the object that opens at `pos`. Of doubled keys the last counts, as it does
-- for decoders. Returns value start, value end (exclusive), the end of the member before it or nil,
-- its own start, and always as fifth the end of the last member (nil in an empty object), or false
-- where it is no JSON.
local function find_member(text, pos, key)
  local value_at, value_end, previous, member_at, last
  local at = skip_blank(text, pos + 1)
  if byte(text, at) == BRACE_END then return nil end
  while true do
    local value, after, same = read_member(text, at, key)
    if not after then return nil, nil, nil, nil, false end
    if same then value_at, value_end, previous, member_at = value, after, last, at end
    last = after
    at = skip_blank(text, after)
    local c = byte(text, at)
    if c == BRACE_END then return value_at, value_end, previous, member_at, last end
    if c ~= COMMA then return nil, nil, nil, nil, false end
    at = skip_blank(text, at + 1)
  end
end

local function open_object(text, pos)
  pos = skip_blank(text, pos)
  if byte(text, pos) ~= BRACE then return nil end
  return pos
end

--- Splits `a.b.c` into its parts; `json.get` and `json.set` take the result, so do it once.
---@param path string
---@return string[]
function json.path(path)
  local parts = {}
  for part in path:gmatch("[^.]+") do parts[#parts + 1] = part end
  return parts
end

--- Reads one field of a JSON object without decoding the rest.
---@param text string
---@param path string[] from `json.path`
---@return any value nil when there is no such field, or the text is no JSON object
function json.get(text, path)
  local pos, stop = open_object(text, 1), nil
  for i = 1, #path do
    if not pos then return nil end
    pos, stop = find_member(text, pos, path[i])
    if pos and i < #path then pos = open_object(text, pos) end
  end
  if not pos or not stop then return nil end
  local item = json.decode("[" .. sub(text, pos, stop - 1) .. "]")
  return item and item[1]
end

local function cut_member(text, value_end, previous, member_at)
  if previous then return sub(text, 1, previous - 1) .. sub(text, value_end) end
  local at = skip_blank(text, value_end)
  if byte(text, at) == COMMA then at = skip_blank(text, at + 1) end
  return sub(text, 1, member_at - 1) .. sub(text, at)
end

-- What is inserted where the parts from `i` on are missing: `"b":{"c":1}`.
local function new_member(path, i, value)
  local text = json.encode(path[i]) .. ":"
  for k = i + 1, #path do text = text .. "{" .. json.encode(path[k]) .. ":" end
  return text .. value .. ("}"):rep(#path - i)
end

local function set_at(text, pos, path, i, value)
  local value_at, value_end, previous, member_at, last = find_member(text, pos, path[i])
  if last == false then return nil, "not JSON" end
  if not value_at then
    if value == nil then return text end
    local at = last or pos + 1
    return sub(text, 1, at - 1) .. (last and "," or "") .. new_member(path, i, value) .. sub(text, at)
  end
  if i < #path then
    local inner = open_object(text, value_at)
    if not inner then
      if value == nil then return text end
      return nil, table.concat(path, ".", 1, i) .. " is not an object"
    end
    return set_at(text, inner, path, i + 1, value)
  end
  if value ~= nil then return sub(text, 1, value_at - 1) .. value .. sub(text, value_end) end
  return set_at(cut_member(text, value_end, previous, member_at), pos, path, i, nil)
end

--- Changes one field of a JSON object inside its text; everything else stays as it was written.
--- Objects on the way are made when they are missing. `nil` removes the field.
---@param text string
---@param path string[] from `json.path`
---@param value any
---@return string? text, string? err nil and why: no JSON object, or the value has no JSON form
function json.set(text, path, value)
  local pos = open_object(text, 1)
  local stop = pos and skip_value(text, pos)
  if not stop or skip_blank(text, stop) <= #text then return nil, "not a JSON object" end
  if value ~= nil then
    local encoded, err = json.encode(value)
    if not encoded then return nil, err end
    value = encoded
  end
  return set_at(text, pos, path, 1, value)
end

return json
