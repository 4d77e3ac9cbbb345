--- gateway.policies: the names of the policies, the keys of a rule that set them, and what these keep to.
-- Called by gateway.settings and gateway.rules; the policies themselves are files of gateway.balancer.
-- Invariant: nothing here needs the runtime, for the schema is read without it.

local schema = require("gateway.schema")

local policies = {}

--- Every policy that is part of the gateway, with the key of a rule that has its settings.
policies.names = {
  round_robin = true,
  weighted_round_robin = true,
  least_connections = true,
  random = true,
  weighted_random = true,
  ip_hash = "ipHash",
  consistent_hash = "consistentHash",
  response_time = "responseTime",
  sticky_session = true, -- round_robin, and sessions
}

--- What the policies are called, for messages and docs.
---@return string
function policies.listed()
  local names = {}
  for name in pairs(policies.names) do names[#names + 1] = ("`%s`"):format(name) end
  table.sort(names)
  return table.concat(names, ", ")
end

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"

-- What a name may look like, and what it is called.
local KEYS = {
  header = { TOKEN, "a header name" },
  cookie = { TOKEN, "a cookie name" },
  query = { "^[^%c]+$", "a parameter's name" },
  path = { "^[%a_][%w_]*$", "the name of a {segment}" },
}

local function parse_key(text)
  if text == "ip" then return text end
  local kind, name = text:match("^(%a+):(.*)$")
  local form = KEYS[kind]
  if not form then
    return nil, ('expected header:NAME, cookie:NAME, query:NAME, path:NAME or ip, got "%s"'):format(text)
  end
  if not name:find(form[1]) then return nil, ('%s: "%s" is not %s'):format(text, name, form[2]) end
  return text
end

local function key(default, doc)
  return { "key", type = "string", default = default, parse = parse_key, doc = doc,
    kind = "`header:NAME`, `cookie:NAME`, `query:NAME`, `path:NAME` or `ip`" }
end

local function parse_bound(bound)
  if bound == 0 or bound > 1 then return bound end
  return nil, ("expected 0 or a number above 1, got %s"):format(bound)
end

--- The sections of a rule, for the schema.
policies.sections = {
  { "ipHash", type = "map", optional = true, doc = "Settings of `loadBalance: ip_hash`.", fields = {
    { "useForwardedFor", type = "boolean", optional = true,
      doc = "The client is whom `frontend.http.trustedProxies` name, as everywhere else; `true` says that "
        .. "there must be some. `false`: the address that is connected counts, a proxy's too." },
    { "subnetMask", type = "integer", min = 1, max = 32, default = 32,
      doc = "How many bits of an IPv4 address count; with 24, the whole of `192.0.2.*` is one client." },
    { "subnetMask6", type = "integer", min = 1, max = 128, default = 64,
      doc = "The same of an IPv6 address." },
  } },
  { "consistentHash", type = "map", optional = true, doc = "Settings of `loadBalance: consistent_hash`.",
    fields = {
      key("ip", "What of the request is hashed. Requests without it take turns."),
      { "replicaCount", type = "integer", min = 1, max = 10000, default = 160,
        doc = "Points on the ring for each unit of weight: more are more even, and take longer to lay out." },
      { "boundedLoad", type = "number", min = 0, max = 100, default = 1.25, parse = parse_bound,
        doc = "The most that an instance may have in flight, as a multiple of its fair share; "
          .. "past it the next one on the ring is asked. 0 = no bound." },
    } },
  { "responseTime", type = "map", optional = true, doc = "Settings of `loadBalance: response_time`.",
    fields = {
      { "percentile", type = "number", min = 0, max = 100, default = 0,
        doc = "Go by this percentile of the times of the last 15 seconds, not by their average. "
          .. "0 = the average." },
    } },
  { "canary", type = "map", optional = true,
    doc = "Divides the requests among services; `loadBalance` chooses in the one that was chosen.", fields = {
      { "services", type = "map", required = true, min = 1, kind = "map of service to weight",
        of = { type = "number", min = 0, max = 1000000 }, doc = "What share each service gets." },
      key(nil, "The same value goes to the same service. Default: the session of the rule, "
        .. "or chance where it has none."),
    } },
}

local section_specs = schema.fields(policies.sections).by_name

-- Which policy a section is for.
local policy_of = {}
for name, section in pairs(policies.names) do
  if section_specs[section] then policy_of[section] = name end
end

local function is_sticky(rule)
  local function on(section) return section and section.enabled end
  return on(rule.stickySession) or on(rule.sessionAffinity)
end

-- The policy that the settings of a rule are for.
local function implied(rule)
  for _, section in ipairs(policies.sections) do
    if rule[section[1]] and policy_of[section[1]] then return policy_of[section[1]] end
  end
end

local function session_section(rule)
  local name = rule.sessionAffinity and "sessionAffinity" or "stickySession"
  return rule[name], name
end

--- The policy that places new sessions, and requests of none.
---@param rule table as configured
---@return string|function
function policies.placing(rule)
  local named, section = rule.loadBalance, session_section(rule)
  if named and named ~= "sticky_session" then return named end
  return section and section.fallback or "round_robin"
end

local function check_name(check, i, where, name)
  if type(name) ~= "string" or not check.policies then return end
  local known = {}
  for policy in pairs(policies.names) do known[policy] = true end
  for policy in pairs(check.policies) do known[policy] = true end
  if known[name] then return end
  local hint = schema.suggest(name, known)
  if name == "canary" then hint = " (it is a key of its own, beside loadBalance)" end
  check.fail(i, where, ('unknown policy "%s"%s'):format(name, hint))
end

local function check_fallback(check, i, rule)
  local section, section_name = session_section(rule)
  local name, where = section and section.fallback, section_name .. ".fallback"
  if name == nil then return end
  if rule.loadBalance ~= "sticky_session" then
    check.fail(i, where, "is for loadBalance: sticky_session; any other places new sessions itself")
  elseif name == "sticky_session" then
    check.fail(i, where, "sticky_session can't be its own fallback")
  else
    check_name(check, i, where, name)
  end
end

local function check_sections(check, i, rule)
  local placing = policies.placing(rule)
  for section, name in pairs(policy_of) do
    if rule[section] and placing ~= name then
      local given = type(placing) == "function" and "a function" or '"' .. placing .. '"'
      check.fail(i, section, ('is for loadBalance: %s, which is %s here'):format(name, given))
    end
  end
end

local function check_path_key(check, i, rule, section)
  local name = rule[section] and rule[section].key and rule[section].key:match("^path:(.*)$")
  if name and rule.path and not rule.path:find("{" .. name .. "}", 1, true) then
    check.fail(i, section .. ".key", ('the path "%s" has no {%s}'):format(rule.path, name))
  end
end

local function check_shares(check, i, services)
  local sum = 0
  for name, weight in pairs(services) do
    sum = sum + weight
    if check.services and not check.services[name] then
      local near = schema.suggest(name, check.services)
      check.fail(i, "canary.services", ('unknown service "%s"%s'):format(name, near))
    end
  end
  if sum == 0 and next(services) then check.fail(i, "canary.services", "all weights are 0") end
end

local function check_canary(check, i, rule)
  if not rule.canary then return end
  local services, name = rule.canary.services, rule.serviceName
  check_shares(check, i, services)
  if type(name) == "function" then
    check.fail(i, "canary", "chooses the service, and so does the function serviceName; a rule can have one")
  elseif name and next(services) and not services[name] then
    check.fail(i, "canary.services", ('serviceName, "%s", is not among them'):format(name))
  end
end

local function check_proxies(check, i, rule)
  if check.proxies == false and rule.ipHash and rule.ipHash.useForwardedFor then
    check.fail(i, "ipHash.useForwardedFor", "nobody is believed without frontend.http.trustedProxies")
  end
end

--- Gives a rule the settings of its policy where it has none.
---@param rule table
function policies.complete(rule)
  local section = policies.names[policies.placing(rule)]
  if section_specs[section] and not rule[section] then
    rule[section] = schema.check(section_specs[section], {}, {}, error)
  end
end

--- Checks the policy of a rule and its settings, and fills in what follows from the others.
---@param check gateway.RuleCheck
---@param i integer
---@param rule table
function policies.check(check, i, rule)
  local name = rule.loadBalance
  if name == nil then
    local section = session_section(rule)
    rule.loadBalance = not (section and section.fallback) and implied(rule)
      or is_sticky(rule) and "sticky_session" or "round_robin"
  elseif name == "sticky_session" and not rule.stickySession and not rule.sessionAffinity then
    rule.stickySession = { enabled = true, ttl = 3600 }
  else
    check_name(check, i, "loadBalance", name)
  end
  check_fallback(check, i, rule)
  check_sections(check, i, rule)
  policies.complete(rule)
  check_path_key(check, i, rule, "consistentHash")
  check_path_key(check, i, rule, "canary")
  check_canary(check, i, rule)
  check_proxies(check, i, rule)
end

return policies
