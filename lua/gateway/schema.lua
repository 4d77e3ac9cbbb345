--- Checks data against a declaration and fills in the defaults.
-- One declaration per key serves the check, `--print-conf` and the reference in docs. Called by
-- gateway.config (files, Lua routes) and by the loader (plugin settings).
-- Invariant: what is given is never changed.

---@class gateway.Spec
---@field type string            one of the types below
---@field default any            written as a user would write it; checked like a user's value
---@field required boolean?      the key must be given
---@field needless (fun(siblings: table): string?)?  why it can't be given beside these; nil: it can
---@field optional boolean?      a map or an array that stays nil when it is not given
---@field min number?            of a number; of a text, list or map: its length
---@field max number?
---@field of gateway.Spec|string what a list or a map holds
---@field fields table?          keys of a map: name -> spec, or an ordered list of {name, type = …}
---@field values any[]?          of an enum
---@field words string[]?        texts that are accepted besides the type
---@field single boolean?        a list that may be written as one bare value
---@field parse (fun(value: any, check: gateway.Check, mark: table?): any, string?)?  new value | nil, why
---@field show (fun(value: any): any)?  the inverse of parse, for printing
---@field lua string|boolean?    true: a key of Lua routes only; "function": a Lua route may give a function
---@field doc string?            one line for the reference
---@field kind string?           what the reference calls the type
---@field secret boolean?        a text that is never printed

local json = require("gateway.json")

local schema = {}

local floor, huge = math.floor, math.huge

---@param value any
---@return boolean  true for YAML's null (and cjson.null)
local function is_null(value)
  return type(value) == "userdata"
end
schema.is_null = is_null

-- Marks an empty list inside data of any kind, so that it is not printed as an empty map.
local empty_list = getmetatable(json.array())

---@param value table
---@param mark table?
---@return boolean
local function is_list(value, mark)
  if mark then return mark.kind == "list" end
  return #value > 0 or getmetatable(value) == empty_list
end

--- Whether a table is a list that can be told from a map.
---@param value table
---@return boolean
function schema.is_list(value)
  return is_list(value)
end

--- Nearest names ---------------------------------------------------------------------------------

-- Edits (insert, delete, change, swap neighbours) that turn a into b.
local function distance(a, b)
  local before, last = {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local best = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before, last = last, row
  end
  return last[#b]
end

local function plain_form(name)
  return (name:lower():gsub("[%s_-]", ""))
end

-- A list's items or a set's keys, sorted.
local function names_of(known)
  local names = {}
  if #known > 0 then
    for i, name in ipairs(known) do names[i] = tostring(name) end
  else
    for name in pairs(known) do names[#names + 1] = tostring(name) end
    table.sort(names)
  end
  return names
end

--- The known name that a wrong one was probably meant to be.
---@param name string
---@param known string[]|table<string, any>  a list, or a set by key
---@return string?
function schema.nearest(name, known)
  local wanted = plain_form(name)
  local best, fewest = nil, math.max(1, floor(#wanted / 3)) + 1
  if #wanted > 64 then return nil end
  for _, candidate in ipairs(names_of(known)) do
    local edits = distance(wanted, plain_form(candidate))
    if edits < fewest and edits < #plain_form(candidate) then
      best, fewest = candidate, edits
    end
  end
  return best
end

--- The tail of a message about an unknown name: the nearest one, or all of them when they are few.
---@param name string
---@param known string[]|table<string, any>
---@return string  begins with a blank, or is empty
function schema.suggest(name, known)
  local near = schema.nearest(name, known)
  if near then return (' (did you mean "%s"?)'):format(near) end
  local names = names_of(known)
  if #names == 0 or #names > 12 then return "" end
  return (" (known: %s)"):format(table.concat(names, ", "))
end

--- Texts that stand for numbers --------------------------------------------------------------------

local second = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }
local bytes = { [""] = 1, B = 1, k = 1024, K = 1024, KiB = 1024, m = 1024 ^ 2, M = 1024 ^ 2, MiB = 1024 ^ 2,
  g = 1024 ^ 3, G = 1024 ^ 3, GiB = 1024 ^ 3 }

--- Ten years: more is a slip of the unit, and the C core counts in milliseconds.
local longest = 3650 * 86400

---@param text string  "100ms", "5s", "1m", "24h", "1m30s", "30"
---@return number? seconds
function schema.duration(text)
  if text:find("^%d+%.?%d*$") then return tonumber(text) end
  local total, at = 0, 1
  repeat
    local first, last, amount, unit = text:find("^(%d+%.?%d*)(%a+)", at)
    if not first or not second[unit] then return nil end
    -- Divided, not multiplied: 100 * 0.001 is not 0.1 to the last bit.
    total = total + (unit == "ms" and tonumber(amount) / 1000 or tonumber(amount) * second[unit])
    at = last + 1
  until at > #text
  return total
end

---@param text string  "64KiB", "1MiB", "32k", "4096"
---@return number? bytes
function schema.size(text)
  local amount, unit = text:match("^(%d+%.?%d*)%s*(%a*)$")
  return amount and bytes[unit] and tonumber(amount) * bytes[unit] or nil
end

--- What a plain YAML scalar of this text is (core schema): for text that came from the environment.
---@param text string
---@return any value  nil for null
function schema.scalar(text)
  local lower = text:lower()
  local cased = text == lower or text == text:upper() or text == lower:gsub("^%l", string.upper)
  if text == "" or text == "~" or (cased and lower == "null") then return nil end
  if cased and (lower == "true" or lower == "false") then return lower == "true" end
  if text:find("^0x%x+$") then return tonumber(text) end
  if text:find("^0o[0-7]+$") then return tonumber(text:sub(3), 8) end
  local mantissa = text:gsub("[eE][-+]?%d+$", "", 1)
  if mantissa:find("^[-+]?%d+%.?%d*$") or mantissa:find("^[-+]?%.%d+$") then
    return tonumber((text:gsub("^%+", "")))
  end
  return text
end

--- The checking of one value -----------------------------------------------------------------------

---@class gateway.Check
---@field path (string|integer)[]  where the value stands
---@field lua boolean?             functions and the keys of Lua routes are allowed
---@field report fun(path: (string|integer)[], text: string)
local Check = {}
Check.__index = Check

--- Reports at the current place, or at keys below it.
---@param text string
---@param ... string|integer  keys below
function Check:fail(text, ...)
  local path = {}
  for i, key in ipairs(self.path) do path[i] = key end
  for i = 1, select("#", ...) do path[#path + 1] = (select(i, ...)) end
  self.report(path, text)
end

--- A check that says nothing: for what is put in place of a value that was reported already.
---@return gateway.Check
function Check:silenced()
  return setmetatable({ path = {}, lua = self.lua, report = function() end }, Check)
end

-- What was found, in an error message.
local function got(value, mark)
  if type(value) == "string" then
    local text = #value > 60 and value:sub(1, 57) .. "..." or value
    return ('"%s"'):format((text:gsub("%c", "?")))
  end
  if type(value) == "table" then return is_list(value, mark) and "a list" or "a map" end
  if type(value) == "function" then return "a function" end
  return tostring(value)
end

local function bounds(spec, unit)
  if spec.min and spec.max then return (" from %s to %s%s"):format(spec.min, spec.max, unit) end
  if spec.min then return (" of at least %s%s"):format(spec.min, unit) end
  if spec.max then return (" of at most %s%s"):format(spec.max, unit) end
  return ""
end

local function outside(spec, amount)
  return (spec.min and amount < spec.min) or (spec.max and amount > spec.max)
end

-- A number as it was meant: text that came from the environment counts as if it were not quoted.
local function unquoted(value, mark)
  if type(value) == "string" and mark and mark.substituted then return schema.scalar(value) end
  return value
end

local types = {}

-- One item of a list or of a map: a null in there is a slip, not a way to ask for a default.
local function check_part(check, of, key, value, mark)
  check.path[#check.path + 1] = key
  if is_null(value) and of.type == "any" then
    if of.parse then value = of.parse(value, check) end
  elseif is_null(value) then
    if not (mark and mark.failed) then check:fail("has no value") end
    value = schema.absent(check:silenced(), of)
  else
    value = schema.run(check, of, value, mark)
  end
  check.path[#check.path] = nil
  return value
end

local MAX_DEPTH = 64 -- as the reader of YAML has it

-- A table that a script made may hold itself.
local function is_too_deep(value, depth)
  if type(value) ~= "table" then return false end
  if depth > MAX_DEPTH then return true end
  for _, item in pairs(value) do
    if is_too_deep(item, depth + 1) then return true end
  end
  return false
end

function types.any(check, _, value, mark)
  if is_too_deep(value, 1) then return nil, ("is nested more than %d levels deep"):format(MAX_DEPTH) end
  if type(value) == "function" and not check.lua then return nil, "expected data, got a function" end
  return schema.copy(value, mark)
end

types["function"] = function(_, _, value, mark)
  if type(value) ~= "function" then return nil, "expected a function, got " .. got(value, mark) end
  return value
end

-- A number is taken as the text that was written: `version: 1.10` is "1.10".
function types.string(_, spec, value, mark)
  if mark and mark.text and (type(value) == "number" or mark.substituted) then value = mark.text end
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then
    local hint = type(value) == "boolean" and " (quote it)" or ""
    return nil, ("expected a text, got %s%s"):format(got(value, mark), hint)
  end
  if outside(spec, #value) then
    local empty = value == "" and "must not be empty"
    return nil, empty or ("expected a text%s, got one of %d"):format(bounds(spec, " bytes"), #value)
  end
  return value
end

function types.boolean(_, _, value, mark)
  value = unquoted(value, mark)
  if type(value) == "boolean" then return value end
  return nil, "expected true or false, got " .. got(value, mark)
end

function types.number(_, spec, value, mark)
  value = unquoted(value, mark)
  if type(value) ~= "number" or value ~= value or value == huge or value == -huge or outside(spec, value) then
    return nil, ("expected a number%s, got %s"):format(bounds(spec, ""), got(value, mark))
  end
  return value
end

function types.integer(_, spec, value, mark)
  value = unquoted(value, mark)
  if type(value) ~= "number" or value ~= floor(value) or math.abs(value) > 2 ^ 53 or outside(spec, value) then
    return nil, ("expected a whole number%s, got %s"):format(bounds(spec, ""), got(value, mark))
  end
  return value
end

function types.duration(_, spec, value, mark)
  local given = unquoted(value, mark)
  local amount = type(given) == "string" and schema.duration(given) or given
  if type(amount) ~= "number" or amount ~= amount or amount < 0 then
    return nil, "expected a duration such as 100ms, 5s, 1m, 24h or seconds, got " .. got(value, mark)
  end
  if amount > longest then return nil, ("longer than ten years: %s"):format(got(value, mark)) end
  if outside(spec, amount) then
    return nil, ("expected a duration%s, got %s"):format(bounds(spec, " seconds"), got(value, mark))
  end
  return amount
end

function types.size(_, spec, value, mark)
  local given = unquoted(value, mark)
  local amount = type(given) == "string" and schema.size(given) or given
  if type(amount) ~= "number" or amount ~= floor(amount) or amount < 0 or amount > 2 ^ 53 then
    local unit = type(given) == "string" and given:match("^%d+%.?%d*%s*([kKmMgG])[bB]$")
    local hint = unit and (" (write %siB: 1024 at each step)"):format(unit:upper()) or ""
    return nil, ("expected a size such as 64KiB, 1MiB or bytes, got %s%s"):format(got(value, mark), hint)
  end
  if outside(spec, amount) then
    return nil, ("expected a size%s, got %s"):format(bounds(spec, " bytes"), got(value, mark))
  end
  return amount
end

function types.enum(_, spec, value, mark)
  for _, candidate in ipairs(spec.values) do
    if candidate == value or (mark and mark.text == candidate) then return candidate end
  end
  if type(value) ~= "string" then
    local values = table.concat(names_of(spec.values), ", ")
    return nil, ("expected one of %s, got %s"):format(values, got(value, mark))
  end
  return nil, ("unknown value %s%s"):format(got(value, mark), schema.suggest(value, spec.values))
end

local function is_array(value, mark)
  return type(value) == "table" and (is_list(value, mark) or (not mark and next(value) == nil))
end

function types.array(check, spec, value, mark)
  if not is_array(value, mark) then
    if not spec.single or type(value) == "table" then
      return nil, "expected a list, got " .. got(value, mark)
    end
    value, mark = { value }, mark and { at = { mark } }
  end
  if outside(spec, #value) then
    return nil, ("expected a list%s, got %d"):format(bounds(spec, " items"), #value)
  end
  local out, of = {}, schema.spec(spec.of or "any")
  for i, item in ipairs(value) do
    out[#out + 1] = check_part(check, of, i, item, mark and mark.at[i])
  end
  return out
end

-- The keys of a map in the order of the file, or sorted where there is no file.
local function keys_of(value, mark)
  if mark and mark.keys then return mark.keys end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

local function check_record(check, spec, value, mark)
  local fields = schema.fields(spec.fields)
  for _, key in ipairs(keys_of(value, mark)) do
    local field = fields.by_name[key]
    if not field then
      check:fail(("unknown key %s%s"):format(got(key), schema.suggest(tostring(key), fields.names)), key)
    elseif field.lua == true and not check.lua then
      check:fail("only a Lua route (router.lua) can have this key", key)
    end
  end
  local out = {}
  for _, name in ipairs(fields.names) do
    local field = fields.by_name[name]
    local needless = field.needless and field.needless(value)
    if needless and value[name] ~= nil then check:fail(needless, name) end
    if not needless and (check.lua or field.lua ~= true) then
      check.path[#check.path + 1] = name
      out[name] = schema.run(check, field, value[name], mark and mark.at[name])
      check.path[#check.path] = nil
    end
  end
  return out
end

function types.map(check, spec, value, mark)
  if type(value) ~= "table" or is_list(value, mark) then
    return nil, "expected a map, got " .. got(value, mark)
  end
  if spec.fields then return check_record(check, spec, value, mark) end
  local out, of, count = {}, schema.spec(spec.of or "any"), 0
  for _, key in ipairs(keys_of(value, mark)) do
    count = count + 1
    out[key] = check_part(check, of, key, value[key], mark and mark.at[key])
  end
  if outside(spec, count) then
    return nil, ("expected a map%s, got %d"):format(bounds(spec, " keys"), count)
  end
  return out
end

--- What stands where nothing was given, or something wrong: the rest of the check can go on with it.
---@param check gateway.Check
---@param spec gateway.Spec
---@return any
function schema.absent(check, spec)
  if spec.default ~= nil then
    return schema.run(check, spec, spec.default)
  elseif spec.type == "map" and spec.fields and not spec.optional then
    return schema.run(check, spec, {})
  elseif (spec.type == "array" or spec.type == "map") and not spec.optional then
    return {}
  end
  return nil
end

local function accepts_as_is(check, spec, value)
  if type(value) == "function" then return check.lua and spec.lua == "function" end
  for _, word in ipairs(spec.words or {}) do
    if value == word then return true end
  end
  return false
end

--- Checks one value; the inside of schema.check.
---@param check gateway.Check
---@param spec gateway.Spec
---@param value any
---@param mark table?
---@return any
function schema.run(check, spec, value, mark)
  if value == nil or is_null(value) then
    if spec.required then
      -- A variable that the environment lacks was reported already.
      if not (mark and mark.failed) then check:fail("missing") end
      return schema.absent(check:silenced(), spec)
    end
    return schema.absent(check, spec)
  end
  if accepts_as_is(check, spec, value) then return value end
  local out, why = types[spec.type](check, spec, value, mark)
  if not why and spec.parse and out ~= nil then out, why = spec.parse(out, check, mark) end
  if not why then return out end
  check:fail(why)
  if value == spec.default then return nil end
  return schema.absent(check:silenced(), spec)
end

--- A copy of data of any kind that shares no table with it. Nulls stay.
---@param value any
---@param mark table?
---@return any
function schema.copy(value, mark)
  if type(value) ~= "table" then return value end
  local out = {}
  for key, item in pairs(value) do out[key] = schema.copy(item, mark and mark.at and mark.at[key]) end
  if next(out) == nil and is_list(value, mark) then return setmetatable(out, empty_list) end
  return out
end

---@param spec gateway.Spec|string  a type's bare name stands for a spec with nothing else
---@return gateway.Spec
function schema.spec(spec)
  if type(spec) == "string" then return { type = spec } end
  return spec
end

local known_fields = setmetatable({}, { __mode = "k" })

--- The fields of a map by name and in order (an unordered declaration: sorted by name).
---@param fields table  name -> spec, or a list of {name, type = …}
---@return {names: string[], by_name: table<string, gateway.Spec>}
function schema.fields(fields)
  local known = known_fields[fields]
  if known then return known end
  known = { names = {}, by_name = {} }
  for _, field in ipairs(fields) do
    known.names[#known.names + 1] = field[1]
    known.by_name[field[1]] = field
  end
  if #fields == 0 then
    for name, field in pairs(fields) do
      known.names[#known.names + 1] = name
      known.by_name[name] = schema.spec(field)
    end
    table.sort(known.names)
  end
  known_fields[fields] = known
  return known
end

-- `{ type = "string" }` declares one value, `{ type = { … } }` a map with a key of that name.
local function is_spec(declared)
  return type(declared.type) == "string"
end

--- A plugin's `schema` as a spec: the fields of a map, or the spec of one value.
---@param declared gateway.Spec|table
---@return gateway.Spec
function schema.declared(declared)
  return is_spec(declared) and declared or { type = "map", fields = declared }
end

--- Checks a value and fills in the defaults.
---@param declared gateway.Spec|table  a spec, or the fields of a map (a plugin's `schema`)
---@param value any                     nil or {} for all defaults
---@param path (string|integer)[]       where the value stands; prepended to what is reported
---@param report fun(path: (string|integer)[], text: string)
---@param options {mark: table?, lua: boolean?}?  mark: of the value in the YAML; lua: functions are allowed
---@return any value  complete, also after errors
function schema.check(declared, value, path, report, options)
  options = options or {}
  local check = setmetatable({ path = {}, report = report, lua = options.lua }, Check)
  for i, key in ipairs(path) do check.path[i] = key end
  return schema.run(check, schema.declared(declared), value, options.mark)
end

--- The declaration itself --------------------------------------------------------------------------

local spec_keys = {
  type = "string", default = "any", required = "boolean", needless = "function", optional = "boolean",
  min = "number", max = "number", of = "any", fields = "table", values = "table", words = "table",
  single = "boolean", parse = "function", show = "function", lua = "any", doc = "string", kind = "string",
  secret = "boolean",
}

local verify_fields

local function verify_default(spec, where, errors)
  if spec.default == nil then return end
  schema.check(spec, spec.default, {}, function(_, text)
    errors[#errors + 1] = ("%s.default: %s"):format(where, text)
  end, { lua = true })
end

local function verify_spec(spec, where, errors)
  local function fail(text, key)
    errors[#errors + 1] = ("%s%s: %s"):format(where, key and "." .. key or "", text)
  end
  if type(spec) ~= "table" then
    return fail('expected a table such as { type = "string" }, got ' .. got(spec))
  end
  if type(spec.type) ~= "string" then return fail("missing", "type") end
  if not types[spec.type] then
    return fail(("unknown type %s%s"):format(got(spec.type), schema.suggest(spec.type, types)))
  end
  local before = #errors
  for key, value in pairs(spec) do
    local wanted = spec_keys[key]
    if not wanted and key ~= 1 then
      fail(("unknown key %s%s"):format(got(key), schema.suggest(tostring(key), spec_keys)))
    elseif wanted and wanted ~= "any" and type(value) ~= wanted then
      fail(("expected a %s, got %s"):format(wanted, got(value)), key)
    end
  end
  if spec.type == "enum" and (type(spec.values) ~= "table" or #spec.values == 0) then
    fail("missing", "values")
  end
  if spec.of then verify_spec(schema.spec(spec.of), where .. ".of", errors) end
  if type(spec.fields) == "table" then verify_fields(spec.fields, where, errors) end
  if #errors == before then verify_default(spec, where, errors) end
end

function verify_fields(fields, where, errors)
  local seen = {}
  for _, name in ipairs(keys_of(fields)) do
    local field = fields[name]
    local label = type(name) == "number" and type(field) == "table" and field[1] or name
    if seen[label] then errors[#errors + 1] = ("%s.%s: declared twice"):format(where, tostring(label)) end
    seen[label] = true
    verify_spec(schema.spec(field), ("%s.%s"):format(where, tostring(label)), errors)
  end
end

--- Mistakes in a declaration: for the schema of a plugin, before anything is checked against it.
---@param declared any
---@return string[] errors  empty if there are none
function schema.verify(declared)
  local errors = {}
  if type(declared) ~= "table" then return { "schema: expected a table, got " .. got(declared) } end
  if is_spec(declared) then
    verify_spec(declared, "schema", errors)
  else
    verify_fields(declared, "schema", errors)
  end
  table.sort(errors)
  return errors
end

return schema
