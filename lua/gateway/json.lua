--- gateway.json: JSON for the library and for plugins.
-- On top of cjson: `[]` stays an array, numbers keep all their digits, "/" is not escaped, and one
-- field can be read or changed inside the text, which costs less than decoding it and keeps
-- everything else byte for byte. In gatewayd the runtime is asked first, which does the usual the
-- same way and faster; spec/lua/json_spec.lua compares the two.

local cjson = require("cjson.safe").new()

-- A buffer that it keeps would never be freed where a VM is given up. Plugins have the other two.
for _, m in ipairs({ cjson, require("cjson.safe"), require("cjson") }) do m.encode_keep_buffer(false) end

local find, byte, sub = string.find, string.byte, string.sub

local function nothing() end

local core = package.loaded["gateway.core"] or {}
local quick_decode, quick_encode = core.json_decode or nothing, core.json_encode or nothing

cjson.encode_invalid_numbers(false)
cjson.decode_invalid_numbers(false)

local json = {
  --- JSON's null, in both directions.
  null = cjson.null,
}

local QUOTE, COMMA, COLON, DOT, ZERO = byte('",:.0', 1, 5)
local BRACE, BRACE_END, BRACKET, BRACKET_END = byte("{}[]", 1, 4)

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
  local value = quick_decode(text)
  if value ~= nil then return value end
  if find(text, "%[[ \t\r\n]*%]") then
    local marked_value, err = cjson.decode(mark_empty(text))
    if marked_value == nil then return nil, err end
    return unmark(marked_value)
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
  local quick = quick_encode(value)
  if quick then return quick end
  -- cjson goes first: it refuses cycles, which the walks would not survive.
  local text, err = cjson.encode(value)
  if not text then return nil, err end
  if is_special(value) then
    text = cjson.encode(marked(value)):gsub('"\\u0000%[%]"', "[]"):gsub('"\\u0000#([^"]*)"', "%1")
  end
  if find(text, "\\/", 1, true) then text = text:gsub("\\(.)", { ["/"] = "/" }) end
  return text
end

-- One field inside a text. The runtime does the same in sse/json_field.c, which event:json_get and
-- event:json_set of its events use: what one takes or refuses the other does, too.

local MAX_DEPTH = 128

local function skip_blank(text, pos)
  return find(text, "[^ \t\r\n]", pos) or #text + 1
end

-- The position after the string that opens at `pos`, or nil where there is none.
local function skip_text(text, pos)
  if byte(text, pos) ~= QUOTE then return nil end
  local at = pos + 1
  while true do
    at = find(text, '[%z\1-\31"\\]', at)
    local c = at and byte(text, at)
    if c == QUOTE then return at + 1 end
    local _, last = find(text, '^\\["\\/bfnrt]', at)
    if c and not last then _, last = find(text, "^\\u%x%x%x%x", at) end
    if not c or not last then return nil end
    at = last + 1
  end
end

local function skip_number(text, pos)
  local _, last = find(text, "^%-?[1-9]%d*", pos)
  if not last then _, last = find(text, "^%-?0", pos) end
  if not last then return nil end
  local at = last + 1
  if byte(text, at) == DOT then
    _, last = find(text, "^%d+", at + 1)
    if not last then return nil end
    at = last + 1
  end
  if not find(text, "^[eE]", at) then return at end
  _, last = find(text, "^[+-]?%d+", at + 1)
  return last and last + 1
end

local walk

-- The position after the value at `pos`, or nil where there is none.
local function skip_value(text, pos, depth)
  local c = byte(text, pos)
  if c == QUOTE then return skip_text(text, pos) end
  if c == BRACE or c == BRACKET then
    local inner = walk(text, pos, depth)
    return inner and inner.close + 1
  end
  for _, word in ipairs({ "true", "false", "null" }) do
    if sub(text, pos, pos + #word - 1) == word then return pos + #word end
  end
  return skip_number(text, pos)
end

local function is_key(text, first, last, part)
  local name = sub(text, first + 1, last - 2)
  if name == part then return true end
  return find(name, "\\", 1, true) ~= nil and cjson.decode('["' .. name .. '"]')[1] == part
end

-- One member of a container: where it and its value begin, and where the value ends. nil where there
-- is none.
local function read_member(text, at, object, depth)
  local member = { start = at, value = at }
  if object then
    member.key_stop = skip_text(text, at)
    local colon = member.key_stop and skip_blank(text, member.key_stop)
    if not colon or byte(text, colon) ~= COLON then return nil end
    member.value = skip_blank(text, colon + 1)
  end
  member.stop = skip_value(text, member.value, depth)
  return member.stop and member
end

---@class gateway.json.Container an array or object inside a text; positions
---@field object boolean
---@field open integer
---@field close integer
---@field [integer] {start: integer, value: integer, stop: integer, key_stop: integer?}

-- Goes through the array or object that opens at `pos`; nil where it is none, or too deep.
---@return gateway.json.Container?
function walk(text, pos, depth)
  local c = byte(text, pos)
  if (c ~= BRACE and c ~= BRACKET) or depth == MAX_DEPTH then return nil end
  local list, close = { object = c == BRACE, open = pos }, c == BRACE and BRACE_END or BRACKET_END
  local at = skip_blank(text, pos + 1)
  local more = byte(text, at) ~= close
  while more do
    local member = read_member(text, at, list.object, depth + 1)
    if not member then return nil end
    list[#list + 1] = member
    at = skip_blank(text, member.stop)
    more = byte(text, at) == COMMA
    if more then at = skip_blank(text, at + 1) end
  end
  list.close = at
  return byte(text, at) == close and list or nil
end

-- The member that a part of a path names. Of doubled keys the last counts, as it does for decoders.
local function member_of(text, list, part)
  if not list.object then
    return find(part, "^%d+$") and (part == "0" or byte(part) ~= ZERO) and list[tonumber(part) + 1] or nil
  end
  for i = #list, 1, -1 do
    if is_key(text, list[i].start, list[i].key_stop, part) then return list[i] end
  end
end

-- Where the value of a whole text begins and ends; nil where it is no JSON.
local function whole_value(text)
  local start = skip_blank(text, 1)
  local stop = skip_value(text, start, 0)
  if stop and skip_blank(text, stop) > #text then return start, stop end
end

--- Splits `a.b.c` into its parts; `json.get` and `json.set` take the result, so do it once. In an
--- array a part is an index, counted from 0.
---@param path string
---@return string[]
function json.path(path)
  local parts = {}
  if path == "" then return parts end
  for part in (path .. "."):gmatch("([^.]*)%.") do parts[#parts + 1] = part end
  return parts
end

--- Reads one field of a JSON text without decoding the rest.
---@param text string
---@param path string[] from `json.path`
---@return any value nil when there is no such field, or the text is no JSON
function json.get(text, path)
  local pos, stop = whole_value(text)
  if not pos then return nil end
  for i = 1, #path do
    local list = walk(text, pos, 0)
    local member = list and member_of(text, list, path[i])
    if not member then return nil end
    pos, stop = member.value, member.stop
  end
  local item = json.decode("[" .. sub(text, pos, stop - 1) .. "]")
  return item and item[1]
end

-- The text without the members that `part` names. The others keep what parts them from the member
-- before; the first one begins where the first began.
local function without(text, list, part)
  local out, kept = { sub(text, 1, list[1].start - 1) }, false
  for i, member in ipairs(list) do
    local match
    if list.object then
      match = is_key(text, member.start, member.key_stop, part)
    else
      match = i == tonumber(part) + 1
    end
    if not match then
      out[#out + 1] = sub(text, kept and list[i - 1].stop or member.start, member.stop - 1)
      kept = true
    end
  end
  out[#out + 1] = sub(text, kept and list[#list].stop or list.close)
  return table.concat(out)
end

-- The text with a new member, in as many new objects as the path has parts left.
local function with_new(text, list, path, i, value)
  local last = list[#list]
  local at = last and last.stop or list.open + 1
  local out = { sub(text, 1, at - 1), last and "," or "", list.object and json.encode(path[i]) .. ":" or "" }
  for k = i + 1, #path do out[#out + 1] = "{" .. json.encode(path[k]) .. ":" end
  out[#out + 1] = value .. ("}"):rep(#path - i) .. sub(text, at)
  return table.concat(out)
end

local function no_place(path, i)
  return nil, (i > 1 and table.concat(path, ".", 1, i - 1) or "the data") .. " is not an object"
end

local function edited(text, pos, path, value)
  for i = 1, #path do
    local list = walk(text, pos, 0)
    local member = list and member_of(text, list, path[i])
    if member and i == #path then
      if value == nil then return without(text, list, path[i]) end
      return sub(text, 1, member.value - 1) .. value .. sub(text, member.stop)
    elseif not member then
      if value == nil then return text end
      if not list or not (list.object or path[i] == tostring(#list)) then return no_place(path, i) end
      return with_new(text, list, path, i, value)
    end
    pos = member.value
  end
  return nil, "no path"
end

--- Changes one field inside a JSON text; everything else stays as it was written. Objects on the way
--- are made when they are missing, and the index one past its end adds to an array. `nil` removes
--- the field.
---@param text string
---@param path string[] from `json.path`
---@param value any
---@return string? text, string? err nil and why: no JSON, no such place, or the value has no JSON form
function json.set(text, path, value)
  if value ~= nil then
    local encoded, err = json.encode(value)
    if not encoded then return nil, err end
    value = encoded
  end
  local pos = whole_value(text)
  if not pos then return nil, "not JSON" end
  return edited(text, pos, path, value)
end

return json
