--- What rules must keep to beyond their schema: ids, services, policies, sessions, no two alike.
-- Called by gateway.config for the rules of the file and for those of Lua routes.
-- Invariant: reports every fault and changes only what it fills in (id, loadBalance, settings of that).

local policies = require("gateway.policies")
local retry = require("gateway.retry")
local schema = require("gateway.schema")

local rules = {}

---@class gateway.RuleCheck
---@field fail fun(index: integer, key: string|nil, text: string)  key nil: the rule as a whole
---@field given fun(index: integer, key: string): boolean          whether the author wrote the key
---@field services table<string, any>?  nil: names of services are not checked
---@field policies table<string, any>?  nil: names of policies are not checked
---@field proxies boolean?              whether some are trusted; nil: not checked
---@field lua boolean?                  functions may stand for data
---@field taken gateway.Taken
---@field label fun(index: integer): string  how messages about other rules name this one

---@class gateway.Taken  what earlier rules have claimed
---@field ids table<string, string>       id -> the rule's label
---@field matches table<string, string>   method and place -> the rule's label

---@return gateway.Taken
function rules.nothing_taken()
  return { ids = {}, matches = {} }
end

local function check_service(check, i, rule)
  local name = rule.serviceName
  if name == nil then
    -- A Lua rule with `access` may answer by itself; `canary` names services of its own.
    local may_lack = rule.access or rule.canary
    if not may_lack and not check.given(i, "serviceName") then check.fail(i, "serviceName", "missing") end
  elseif type(name) == "string" and check.services and not check.services[name] then
    check.fail(i, "serviceName",
      ('unknown service "%s"%s'):format(name, schema.suggest(name, check.services)))
  end
end

local function check_path_source(check, i, rule)
  local name = rule.sessionAffinity.pathParam
  if not name then
    check.fail(i, "sessionAffinity", "source: path needs pathParam, the name of a {segment} of the path")
  elseif not rule.path:find("{" .. name .. "}", 1, true) then
    check.fail(i, "sessionAffinity.pathParam", ('the path "%s" has no {%s}'):format(rule.path, name))
  end
end

local function check_stateless(check, i, affinity)
  if affinity.source ~= "cookie" then
    check.fail(i, "sessionAffinity.stateless", "needs source: cookie, which is where the session is kept")
  elseif affinity.learn then
    check.fail(i, "sessionAffinity.stateless", "can't be had with learn, where the cookie is the backend's")
  elseif #affinity.secrets == 0 then
    check.fail(i, "sessionAffinity.stateless", "needs secrets, one at least that is not empty")
  end
end

local function check_session(check, i, rule)
  local affinity = rule.sessionAffinity
  if affinity and rule.stickySession then
    check.fail(i, "sessionAffinity", "stickySession is given too; a rule can have one of the two")
  end
  if not affinity then return end
  if affinity.source == "path" and rule.path then check_path_source(check, i, rule) end
  if affinity.learn and affinity.source ~= "cookie" and affinity.source ~= "header" then
    check.fail(i, "sessionAffinity.learn", "is for source: cookie; a response carries no " .. affinity.source)
  end
  if affinity.stateless then
    check_stateless(check, i, affinity)
  elseif #affinity.secrets > 0 then
    check.fail(i, "sessionAffinity.secrets", "are for stateless: true")
  end
end

local function check_bounds(check, i, rule)
  if (rule.maxStreamsPerSession or 0) == 0 then return end
  local affinity, sticky = rule.sessionAffinity, rule.stickySession
  if affinity and affinity.enabled and affinity.stateless then
    check.fail(i, "maxStreamsPerSession", "can't be had with stateless sessions, which have no key")
  elseif not (affinity and affinity.enabled or sticky and sticky.enabled) then
    check.fail(i, "maxStreamsPerSession", "needs sessions: stickySession or sessionAffinity")
  end
end

local function sorted_copy(list)
  local copy = {}
  for i, item in ipairs(list) do copy[i] = item end
  table.sort(copy)
  return copy
end

-- Everything but the method that decides whether a rule takes a request; nil if a function has a say.
local function place(rule, host)
  local parts = { host, (rule.path:gsub("{[^}/]*}", "{}")) }
  local names = {}
  for name in pairs(rule.headers) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    parts[#parts + 1] = name .. "=" .. table.concat(sorted_copy(rule.headers[name]), "\1")
  end
  return table.concat(parts, "\0")
end

-- Two rules for the very same requests: which one wins would be a matter of chance.
local function check_match(check, i, rule)
  if rule.match or not rule.path then return end
  local hosts = #rule.host > 0 and rule.host or { "" }
  local methods = #rule.methods > 0 and rule.methods or { "" }
  local other, claimed = nil, {}
  for _, host in ipairs(hosts) do
    for _, method in ipairs(methods) do
      local key = method .. " " .. place(rule, host)
      other = other or check.taken.matches[key]
      claimed[#claimed + 1] = key
    end
  end
  if other then check.fail(i, "path", ("takes the same requests as %s"):format(other)) end
  for _, key in ipairs(claimed) do check.taken.matches[key] = check.taken.matches[key] or check.label(i) end
end

local function check_id(check, i, rule)
  local given = rule.id ~= nil
  rule.id = rule.id or rule.path or check.label(i)
  local other = check.taken.ids[rule.id]
  if other and given then
    check.fail(i, "id", ('"%s" is the id of %s too'):format(rule.id, other))
  elseif other then
    check.fail(i, "id", ('missing (the default, "%s", is the id of %s)'):format(rule.id, other))
  end
  check.taken.ids[rule.id] = other or check.label(i)
end

--- Checks rules that went through the schema, and completes them in place.
---@param list table[]
---@param check gateway.RuleCheck
function rules.check(list, check)
  for i, rule in ipairs(list) do
    if not rule.path and not rule.match and not check.given(i, "path") then
      check.fail(i, "path", "missing")
    end
    check_id(check, i, rule)
    check_service(check, i, rule)
    check_session(check, i, rule)
    policies.check(check, i, rule)
    check_bounds(check, i, rule)
    check_match(check, i, rule)
    retry.check(check, i, rule)
  end
end

return rules
