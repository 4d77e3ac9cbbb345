--- decisions: the tables of docs/http.md, made from the cases of HTTP/1. Called by make docs and by the spec
-- that compares both. Holds no state.
local decisions = {}

local BEGIN = "<!-- decisions: made from spec/runtime/data/http1_cases.lua by make docs -->"
local END = "<!-- end of decisions -->"

local SLUGS = { bad_response = "502, or a broken end where the head has gone out",
  truncated = "a broken end, or 502 where no head had come", eof = "502" }

local function answer_of(case)
  local expected = case[3]
  if case.own then return case.own .. ", by the gateway itself" end
  if type(expected) == "number" then return expected .. ", closed" end
  if type(expected) == "string" then return SLUGS[expected] end
  if case.sends then return "taken; the backend gets `" .. case.sends .. "`" end
  if expected.status then return "passed on" .. (case.left and "; connection closed" or "") end
  if case.left then return "passed on; connection closed" end
  return "taken"
end

local function rows_of(list, category)
  local rows = {}
  for _, case in ipairs(list) do
    if case.category == category then
      rows[#rows + 1] = ("| %s | %s | %s |"):format(case[1], answer_of(case), case.source)
    end
  end
  return rows
end

--- The categories of a list, in the order of their first case.
---@param list table[]
---@return string[]
function decisions.categories(list)
  local names, seen = {}, {}
  for _, case in ipairs(list) do
    if not seen[case.category] then
      seen[case.category] = true
      names[#names + 1] = case.category
    end
  end
  return names
end

local function write(out, title, list)
  out[#out + 1] = "## " .. title .. "\n"
  for _, category in ipairs(decisions.categories(list)) do
    local rows = rows_of(list, category)
    out[#out + 1] = ("### %s\n\n| case | answer | by |\n|---|---|---|\n%s\n"):format(
      category:sub(1, 1):upper() .. category:sub(2), table.concat(rows, "\n"))
  end
end

--- The page with its tables made anew.
---@param text string
---@param cases {requests: table[], responses: table[]}
---@return string
function decisions.update(text, cases)
  local out = {}
  write(out, "Requests", cases.requests)
  write(out, "Answers of backends", cases.responses)
  local _, from = text:find(BEGIN, 1, true)
  local to = text:find(END, 1, true)
  return text:sub(1, from) .. "\n\n" .. table.concat(out, "\n") .. "\n" .. text:sub(to)
end

return decisions
