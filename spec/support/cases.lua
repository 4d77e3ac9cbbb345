--- cases: plays tables of cases on what plugins get, the runtime's objects or those of gateway.testing.
-- Copied into a plugins' folder as well, so it needs nothing but what plugins have.
local json = require "gateway.json"

local cases = {}

--- A list that may hold nil.
function cases.values(...)
  return { n = select("#", ...), ... }
end

local function shown(value)
  if value == json.null then return "null" end
  if type(value) ~= "string" then return tostring(value) end
  return '"' .. value:gsub("[%c\\]", function(c) return ("\\%d"):format(c:byte()) end) .. '"'
end

--- Values as one line of text, to be compared.
---@param list table
---@return string
function cases.show(list)
  local out = {}
  for i = 1, list.n or #list do out[i] = shown(list[i]) end
  return table.concat(out, ", ")
end

-- Errors without the place where they were raised.
local function outcome(ok, ...)
  if ok then return cases.show(cases.values(...)) end
  return "raises " .. tostring((...)):gsub("^[^%s:]*:%d+: ", "")
end

--- Runs a case on objects.
---@param case {run: fun(...): ...}
---@return string what it gave or raised
function cases.play(case, ...)
  return outcome(pcall(case.run, ...))
end

--- Is this what the case is to give? A case without `gives` gives nothing.
---@param case {gives?: table, raises?: string}
---@param got string from `play`
---@return boolean ok, string expected
function cases.fits(case, got)
  if not case.raises then
    local expected = cases.show(case.gives or {})
    return got == expected, expected
  end
  local text = got:match("^raises (.*)")
  return text ~= nil and text:find(case.raises) ~= nil, "raises " .. case.raises
end

return cases
