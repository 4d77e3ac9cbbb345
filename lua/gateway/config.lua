--- The configuration: YAML text to a checked tree with every default filled in.
-- Called by the loader (`-c`, `-t`, reload) and by `--print-conf`. All faults of a file are reported at
-- once, by position. Invariant: a tree is returned only when there is no fault.

local address = require("gateway.address")
local health = require("gateway.health")
local json = require("gateway.json")
local rules = require("gateway.rules")
local schema = require("gateway.schema")
local settings = require("gateway.settings")

local config = {}

config.policies = settings.policies

--- Places --------------------------------------------------------------------------------------------

---@alias gateway.Path (string|integer)[]

--- A path as messages write it: `gateway.router.rules[2].loadBalance`; lists count from 1.
---@param path gateway.Path
---@param prefix string?  what it begins with, "gateway" if nil
---@return string
function config.path(path, prefix)
  local parts = { prefix or "gateway" }
  for _, key in ipairs(path) do
    if type(key) == "number" then
      parts[#parts + 1] = ("[%d]"):format(key)
    elseif tostring(key):find("^[%w_.-]+$") then
      parts[#parts + 1] = (#parts == 1 and parts[1] == "" and "" or ".") .. key
    else
      parts[#parts + 1] = ("[%q]"):format(tostring(key))
    end
  end
  return table.concat(parts)
end

-- "router.rules[2].id" and "gateway.router.rules[2].id" to {"router", "rules", 2, "id"}.
local function split_path(text)
  local path = {}
  for key, index in text:gsub("^gateway%.", ""):gmatch("([^.%[%]]*)%[?(%d*)%]?") do
    if key ~= "" then path[#path + 1] = key end
    if index ~= "" then path[#path + 1] = tonumber(index) end
  end
  return path
end

--- The mark of a value, or nil where the file has no such value.
---@param marks table
---@param path gateway.Path
---@return table?
function config.mark(marks, path)
  local mark = marks
  for _, key in ipairs(path) do
    mark = mark and mark.at and mark.at[key]
  end
  return mark
end

--- Where a key stands (a list's item: where it begins); the nearest one around it that is in the file.
---@param marks table
---@param path gateway.Path|string
---@return integer line
---@return integer col
function config.position(marks, path)
  local mark, line, col = marks, marks.line, marks.col
  for _, key in ipairs(type(path) == "string" and split_path(path) or path) do
    local key_at = mark.key_at and mark.key_at[key]
    mark = mark.at and mark.at[key]
    local here = key_at or mark
    if not here then break end
    line, col = here.line, here.col
    if not mark then break end
  end
  return line, col
end

--- Reports ---------------------------------------------------------------------------------------------

---@class gateway.Report
---@field count integer
---@overload fun(path: gateway.Path, text: string)
local Report = {}
Report.__index = Report

function Report:__call(path, text)
  local line, col
  local where = self.file
  if self.marks then
    line, col = config.position(self.marks, path)
    where = ("%s:%d:%d"):format(where, line, col)
  end
  self.count = self.count + 1
  self[self.count] = {
    line = line or 0, col = col or 0, order = self.count,
    text = ("%s: %s: %s"):format(where, config.path(path, self.prefix), text),
  }
end

local function by_position(a, b)
  if a.line ~= b.line then return a.line < b.line end
  if a.col ~= b.col then return a.col < b.col end
  return a.order < b.order
end

--- What was reported so far, by position; the same words about the same place once.
---@return string[]
function Report:errors()
  local sorted, list, seen = {}, {}, {}
  for i = 1, self.count do sorted[i] = self[i] end
  table.sort(sorted, by_position)
  for _, fault in ipairs(sorted) do
    if not seen[fault.text] then list[#list + 1] = fault.text end
    seen[fault.text] = true
  end
  return list
end

--- Collects faults of one file.
---@param file string
---@param marks table?    nil: the file has no positions (a Lua route)
---@param prefix string?  what paths begin with, "gateway" if nil
---@return gateway.Report
function config.report(file, marks, prefix)
  return setmetatable({ file = file, marks = marks, prefix = prefix, count = 0 }, Report)
end

--- The environment ---------------------------------------------------------------------------------------

-- One `${…}`: its value, or nil and why there is none.
local function variable(inside, env)
  local name, default = inside:match("^([%a_][%w_]*):%-(.*)$")
  name = name or inside:match("^([%a_][%w_]*)$")
  if not name then return nil, ("${%s} is not ${NAME} or ${NAME:-default}"):format(inside) end
  local value = env(name)
  if default then return (value == nil or value == "") and default or value end
  if value == nil then return nil, ("the environment has no %s (and ${%s} no default)"):format(name, name) end
  return value
end

--- Replaces `${NAME}` and `${NAME:-default}`; `$${` stands for `${`.
---@param text string
---@param env fun(name: string): string?
---@return string? text
---@return string? why
function config.expand(text, env)
  local out, at = {}, 1
  while true do
    local first = text:find("${", at, true)
    if not first then break end
    out[#out + 1] = text:sub(at, first - 1)
    if text:sub(first - 1, first - 1) == "$" and first > at then
      out[#out + 1] = "{"
      at = first + 2
    else
      local last = text:find("}", first, true)
      if not last then return nil, '"${" without "}"' end
      local value, why = variable(text:sub(first + 2, last - 1), env)
      if not value then return nil, why end
      out[#out + 1] = value
      at = last + 1
    end
  end
  return table.concat(out) .. text:sub(at)
end

-- Replaces in place. A mark that an alias shares is met again, below another holder.
local function expand_value(holder, key, mark, env, fail)
  if not mark.substituted then
    if not holder[key]:find("${", 1, true) then return end
    local result, why = config.expand(holder[key], env)
    mark.substituted, mark.text, mark.failed = true, result, result == nil
    if why then fail(why) end
    if result and mark.plain then result = schema.scalar(result) end
    mark.value = result == nil and json.null or result
  end
  holder[key] = mark.value
end

local function expand_tree(value, mark, path, env, report)
  for key, child in pairs(mark.at or {}) do
    path[#path + 1] = key
    if child.kind ~= "scalar" then
      expand_tree(value[key], child, path, env, report)
    elseif type(value[key]) == "string" then
      expand_value(value, key, child, env, function(why) report(path, why) end)
    end
    path[#path] = nil
  end
end

--- Checks across keys ------------------------------------------------------------------------------------

local function check_unique(list, key, path, report, what)
  local first = {}
  for i, item in ipairs(list) do
    local name = item[key]
    if name and first[name] then
      path[#path + 1], path[#path + 2] = i, key
      report(path, ('"%s" is the %s of %s too'):format(name, key, what:format(first[name])))
      path[#path], path[#path - 1] = nil, nil
    end
    if name then first[name] = first[name] or i end
  end
end

local function default_id(instance)
  if not instance.port then return address.unix_path(instance.address) and instance.address end
  local form = instance.address:find(":", 1, true) and "[%s]:%d" or "%s:%d"
  return form:format(instance.address, instance.port)
end

local function check_services(tree, report)
  local services = tree.registry.static.services
  local path = { "registry", "static", "services" }
  check_unique(services, "name", path, report, "services[%d]")
  for i, service in ipairs(services) do
    for _, instance in ipairs(service.instances) do
      if not instance.id and instance.address then instance.id = default_id(instance) end
    end
    local inner = { path[1], path[2], path[3], i, "instances" }
    check_unique(service.instances, "id", inner, report, "instances[%d]")
    health.check(service, { path[1], path[2], path[3], i }, report)
  end
end

local function check_dns(tree, report)
  local dns = tree.registry.dns
  if dns.minTtl > dns.maxTtl then
    report({ "registry", "dns", "minTtl" }, ("longer than maxTtl (%s seconds)"):format(dns.maxTtl))
  end
end

-- `::` takes the port of every IPv4 address as well.
local function covers(wide, host)
  return wide == "::" or wide == "0.0.0.0" and address.family(host) == 4
end

-- Every listener with the keys that lead to it: those for traffic, and that for management.
local function listeners_of(tree)
  local http, found = tree.frontend.http, {}
  for i, listener in ipairs(http.listeners) do
    found[i] = { listener, { "frontend", "http", "listeners", i } }
  end
  if #found == 0 then found[1] = { http, { "frontend", "http" } } end
  if tree.management.enabled then found[#found + 1] = { tree.management, { "management" } } end
  return found
end

local function label(path)
  local name = table.concat(path, ".", 1, math.min(#path, 3))
  return path[4] and ("%s[%d]"):format(name, path[4]) or name
end

-- Port 0 is another one each time.
local function collide(a, b)
  local one = a.host == "localhost" and "127.0.0.1" or a.host
  local other = b.host == "localhost" and "127.0.0.1" or b.host
  if address.unix_path(one) or address.unix_path(other) then return one == other end
  local same_port = a.port and a.port == b.port and a.port ~= 0
  return same_port and (one == other or covers(one, other) or covers(other, one))
end

-- What lacks a host or a port has been reported.
local function check_pair(listener, other, where, report)
  if not listener.host or not other[1].host or not collide(listener, other[1]) then return end
  local path = address.unix_path(listener.host)
  local key = path and "host" or "port"
  where[#where + 1] = key
  if path then report(where, ("%s is taken by %s too"):format(listener.host, label(other[2])))
  else report(where, ("%d is the port of %s too"):format(listener.port, label(other[2]))) end
end

local function check_proxied(listener, tree, where, report)
  if not listener.proxyProtocol or #tree.frontend.http.trustedProxies > 0 then return end
  local path = { unpack(where) }
  path[#path + 1] = "proxyProtocol"
  report(path, "nobody may connect: frontend.http.trustedProxies is empty")
end

local function check_listeners(tree, report)
  local found = listeners_of(tree)
  for i, entry in ipairs(found) do
    check_proxied(entry[1], tree, entry[2], report)
    for j = 1, i - 1 do check_pair(entry[1], found[j], { unpack(entry[2]) }, report) end
  end
end

--- Whether somebody is believed about clients.
---@param tree table
---@return boolean? nil where the list is wrong
function config.has_proxies(tree)
  local list = tree.frontend.http.trustedProxies
  return list and list[1] ~= nil
end

-- What is there, however wrong (a variable that is not set, say), is not called missing as well.
local function is_there(marked, list, i, key)
  local mark = marked.at and marked.at[i]
  if not mark or not mark.key_at or not mark.key_at[key] then return false end
  local value = mark.at and mark.at[key]
  return not schema.is_null(list[i][key]) or value ~= nil and value.failed == true
end

local function check_rules(tree, raw, marks, report, policies)
  local path = { "router", "rules" }
  local marked = config.mark(marks, path) or {}
  rules.check(tree.router.rules, {
    services = config.services(tree),
    policies = policies,
    proxies = config.has_proxies(tree),
    taken = rules.nothing_taken(),
    label = function(i) return ("rules[%d]"):format(i) end,
    given = function(i, key) return is_there(marked, raw.router.rules, i, key) end,
    fail = function(i, key, text)
      local where = { path[1], path[2], i }
      for part in (key or ""):gmatch("[^.]+") do where[#where + 1] = part end
      report(where, text)
    end,
  })
end

--- Loading -------------------------------------------------------------------------------------------------

-- What stands below `gateway:`, which may be left out.
local function unwrap(tree, marks, report)
  if marks.kind ~= "map" or not marks.at.gateway then return tree, marks end
  for _, key in ipairs(marks.keys) do
    if key ~= "gateway" then
      report.marks, report.prefix = marks, ""
      report({ key }, 'unknown key beside "gateway" (the keys of a configuration stand below it)')
    end
  end
  local inner = marks.at.gateway
  inner.file = marks.file
  report.marks, report.prefix = inner, "gateway"
  return tree.gateway, inner
end

-- The message about text that is no YAML, with a hint for a slip that the manual invites.
local function unreadable(text, file, fault)
  local number, hint = 0, ""
  for line in (text .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    if number == fault.line and line:find("[{%[,].*%${") and fault.message:find("flow", 1, true) then
      hint = " (inside { } and [ ] a ${NAME} is written in quotes)"
    end
  end
  return ("%s:%d:%d: %s%s"):format(file, fault.line, fault.col, fault.message, hint)
end

local function default_parser()
  return require("gateway.core").yaml
end

---@class gateway.LoadOptions
---@field env (fun(name: string): string?)?  os.getenv by default
---@field yaml function?                     the parser of gateway.core by default
---@field policies table|(fun(tree: table): table)|nil  names besides the built-in ones, a set; nil: unchecked
---@field check (fun(tree: table, report: gateway.Report))?  called last, faults or not, to report more

--- Reads and checks a configuration.
---@param text string      YAML
---@param file string      its name in messages
---@param opts gateway.LoadOptions?
---@return table? tree     nil if there is any fault
---@return string[] errors `file:line:col: key: text`, by position
---@return table? marks    for config.position and config.mark; nil if the YAML could not be read
function config.load(text, file, opts)
  opts = opts or {}
  local raw, marks = (opts.yaml or default_parser())(text, file)
  if raw == nil then return nil, { unreadable(text, file, marks) }, nil end
  local report = config.report(file, marks)
  raw, marks = unwrap(raw, marks, report)
  if marks.kind ~= "map" then
    local what = schema.is_null(raw) and "the configuration is empty" or "a configuration is a map of keys"
    return nil, { ("%s:%d:%d: gateway: %s"):format(file, marks.line, marks.col, what) }, marks
  end
  expand_tree(raw, marks, {}, opts.env or os.getenv, report)
  local tree = schema.check(settings.gateway, raw, {}, report, { mark = marks })
  check_services(tree, report)
  check_dns(tree, report)
  local policies = opts.policies
  if type(policies) == "function" then policies = policies(tree) end
  check_rules(tree, raw, marks, report, policies)
  check_listeners(tree, report)
  if opts.check then opts.check(tree, report) end
  return report.count == 0 and tree or nil, report:errors(), marks
end

--- The services of a tree by name.
---@param tree table
---@return table<string, table>
function config.services(tree)
  local services = {}
  for _, service in ipairs(tree.registry.static.services) do
    if service.name then services[service.name] = service end
  end
  return services
end

--- What the rules of a tree have claimed: for config.rules.
---@param tree table
---@return gateway.Taken
function config.taken(tree)
  local taken = rules.nothing_taken()
  rules.check(tree.router.rules, {
    taken = taken,
    label = function(i) return ("router.rules[%d]"):format(i) end,
    given = function() return true end,
    fail = function() end,
  })
  return taken
end

local function list_fault(list)
  if type(list) ~= "table" then return "a Lua route returns a list of rules, not " .. type(list) end
  if list.path or list.match or list.serviceName then
    return "a Lua route returns a list of rules, also when it is one: return { { … } }"
  end
  for key in pairs(list) do
    if type(key) ~= "number" or key < 1 or key > #list or key % 1 ~= 0 then
      return ("a Lua route returns a list of rules; %s is not a place in a list"):format(tostring(key))
    end
  end
end

--- Checks and completes rules that Lua made: what a file under `router.lua` returned, or `{rule}`.
---@param list any
---@param opts {file: string, services: table?, policies: table?, proxies: boolean?, taken: gateway.Taken?}
---@return table[] rules
---@return string[] errors  `file: rules[2].path: text`
function config.rules(list, opts)
  local report = config.report(opts.file, nil, "rules")
  local fault = list_fault(list)
  if fault then return {}, { ("%s: %s"):format(opts.file, fault) } end
  local checked = schema.check({ type = "array", of = settings.rule }, list, {}, report, { lua = true })
  rules.check(checked, {
    services = opts.services,
    policies = opts.policies,
    proxies = opts.proxies,
    taken = opts.taken or rules.nothing_taken(),
    label = function(i) return ("%s#%d"):format(opts.file, i) end,
    given = function(i, key)
      return type(list[i]) == "table" and list[i][key] ~= nil and not schema.is_null(list[i][key])
    end,
    fail = function(i, key, text)
      local where = { i }
      for part in (key or ""):gmatch("[^.]+") do where[#where + 1] = part end
      report(where, text)
    end,
  })
  return checked, report:errors()
end

--- The effective configuration as YAML; loading it again gives the same tree.
---@param tree table
---@return string
function config.print(tree)
  return require("gateway.printer").print(tree, settings.gateway, "gateway")
end

return config
