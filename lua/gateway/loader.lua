--- gateway.loader: a configuration file, its Lua routes and its plugins, made into a program for
-- the runtime. Called for `-t`, at the start and at a reload, in the master and in every worker.
-- All of it loads, or none: every error is collected, and what was read or looked for is always
-- told, so that a mend is noticed.

local address = require("gateway.address")
local config = require("gateway.config")
local health = require("gateway.health")
local names = require("gateway.names")
local pipeline = require("gateway.pipeline")
local policies = require("gateway.policies")
local plugin = require("gateway.plugin")
local sandbox = require("gateway.sandbox")
local schema = require("gateway.schema")
local service = require("gateway.service")
local source = require("gateway.source")

local loader = {}

---@class gateway.Loading the work on one generation
---@field files gateway.Source
---@field folder string              relative paths count from here
---@field plugins gateway.Plugins
---@field sandbox gateway.Sandbox
---@field policies table<string, true>
---@field rules gateway.Rule[]
---@field outer table                what runs outside of rules
---@field report gateway.Report      of the YAML
---@field errors string[]            beyond those with a place in the YAML
local Loading = {}
Loading.__index = Loading

local function add_all(list, more)
  for _, item in ipairs(more) do list[#list + 1] = item end
end

-- The plugin that an entry names. What it declares is noted, for who prints the entry.
function Loading:plugin(wanted)
  local value, errors = self.plugins:get(wanted.name)
  if value and value.schema then wanted.spec = schema.declared(value.schema) end
  return value, errors
end

-- A plugin as one route wants it. What is wrong with its file is reported where it is asked for.
function Loading:entry(wanted, rule, report, path)
  local value, errors = self:plugin(wanted)
  if not value then
    for _, err in ipairs(errors) do report(path, err) end
    return nil
  end
  return plugin.entry(value, wanted, rule, report, path, report.marks and config.mark(report.marks, path))
end

local function placed(path, ...)
  local out = {}
  add_all(out, path)
  add_all(out, { ... })
  return out
end

-- The entries of a `plugins:` list, for one rule.
function Loading:entries(list, rule, report, path)
  local entries = {}
  for i, wanted in ipairs(list) do
    local at = placed(path, i, wanted.name)
    entries[#entries + 1] = wanted.name and self:entry(wanted, rule, report, at)
  end
  return entries
end

-- The global plugins, for what runs before a rule is chosen or without one. Only those with
-- something to do there are made; the others hold their place.
function Loading:outer_entries(list, report)
  local entries = {}
  for i, wanted in ipairs(list) do
    local value = wanted.name and self:plugin(wanted)
    if value and (value.route or value.on_response or value.on_close) then
      entries[#entries + 1] = self:entry(wanted, nil, report, { "plugins", i, wanted.name })
    elseif value then
      entries[#entries + 1] = { plugin = {}, name = wanted.name, skip = false }
    end
  end
  return entries
end

local function report_route_hooks(list, plugins, report, path)
  for i, wanted in ipairs(list) do
    local value = wanted.name and plugins:get(wanted.name)
    if value and value.route then
      report(placed(path, i, wanted.name),
        "has a route hook, which runs before a rule is chosen: list it under gateway.plugins")
    end
  end
end

function Loading:policy_entry(rule, report, path)
  local name = policies.placing(rule)
  if type(name) ~= "string" or config.policies[name] then return nil end
  if not self.policies[name] then return nil end
  return self:entry({ name = name }, rule, report, placed(path, "loadBalance"))
end

-- Compiles one rule; its plugins are the global ones, whose settings stand in the YAML, and its
-- own.
function Loading:compile(rule, tree, report, path)
  local at = placed(path, "plugins")
  local entries = self:entries(tree.plugins, rule, self.report, { "plugins" })
  add_all(entries, self:entries(rule.plugins, rule, report, at))
  report_route_hooks(rule.plugins, self.plugins, report, at)
  return pipeline.compile(rule, entries, self:policy_entry(rule, report, path), tree.frontend.sse)
end

-- The last look of config.load: what needs plugins.
function Loading:check(tree, report)
  self.report = report
  self.outer = pipeline.outer(self:outer_entries(tree.plugins, report))
  for i, rule in ipairs(tree.router.rules) do
    local compiled = rule.id and self:compile(rule, tree, report, { "router", "rules", i })
    self.rules[#self.rules + 1] = compiled
  end
  self:load_routes(tree)
end

function Loading:load_routes(tree)
  local taken = config.taken(tree)
  for _, pattern in ipairs(tree.router.lua) do
    for _, path in ipairs(self.files:glob(self.folder, pattern)) do self:load_route(path, tree, taken) end
  end
end

function Loading:load_route(path, tree, taken)
  local text, err = self.files:read(path)
  if not text then
    self.errors[#self.errors + 1] = err
    return
  end
  local ok, list = self.sandbox:run(text, path)
  if not ok then
    self.errors[#self.errors + 1] = tostring(list)
    return
  end
  local rules, errors = config.rules(list, { file = path, services = config.services(tree),
    proxies = config.has_proxies(tree), taken = taken, policies = self.policies })
  if not errors[1] then
    local report = config.report(path, nil, "rules")
    for i, rule in ipairs(rules) do self.rules[#self.rules + 1] = self:compile(rule, tree, report, { i }) end
    errors = report:errors()
  end
  add_all(self.errors, errors)
end

-- Plugins with a balance hook, looked for only when a rule names a policy that is not built in.
function Loading:find_policies(tree)
  for _, rule in ipairs(tree.router.rules) do
    local name = policies.placing(rule)
    if name and not config.policies[name] then self.policies = self.plugins:policies() end
  end
  if tree.router.lua[1] then self.policies = self.plugins:policies() end
  return self.policies
end

-- One rule that a route hook made while running.
function Loading:compiler(tree)
  return function(made)
    local rules, errors = config.rules({ made }, { file = "route hook", services = config.services(tree),
      proxies = config.has_proxies(tree), policies = self.policies })
    if errors[1] then return nil, table.concat(errors, "; ") end
    local report = config.report("route hook", nil, "rules")
    local compiled = self:compile(rules[1], tree, report, { 1 })
    if report.count > 0 then return nil, table.concat(report:errors(), "; ") end
    return compiled
  end
end

-- To this host a name of its own: it is not asked for.
local function numeric(host)
  return host == "localhost" and "127.0.0.1" or host
end

-- Those that have an address; the names of the others, which the runtime resolves.
local function list_instances(tree)
  local instances, services, named, rules = {}, {}, {}, {}
  for i, listed in ipairs(tree.registry.static.services) do
    rules[i] = health.rules(listed)
    local of, later = service.new(listed.name, i, rules[i]), {}
    services[listed.name] = of
    for _, item in ipairs(listed.instances) do
      local instance = { id = item.id, service = listed.name, _of = i, address = numeric(item.address),
        port = item.port, weight = item.weight, health = item.health }
      if address.is_name(item.address) then
        later[#later + 1] = instance
      else
        instance.index = #instances + 1
        instances[instance.index] = of:add(instance)
      end
    end
    for _, fields in ipairs(later) do names.add(named, of, fields) end
  end
  return instances, services, named, rules
end

local function program_of(loading, tree)
  local instances, services, named, rules = list_instances(tree)
  return pipeline.new({ settings = tree, instances = instances, services = services, names = named,
    service_rules = rules,
    rules = loading.rules, outer = loading.outer, compile = loading:compiler(tree) })
end

function Loading:open_plugins(tree)
  local dirs = {}
  for i, dir in ipairs(tree.pluginPath) do dirs[i] = source.join(self.folder, dir) end
  self.sandbox = sandbox.new(self.files, dirs, tree.lua and tree.lua.open)
  self.plugins = plugin.open(self.files, dirs, self.sandbox)
end

-- Reads the Lua files of a folder and of those in it: workers get what was read and nothing else, and
-- a hook may ask for a module, or a route hook for a plugin, that nobody has asked for before.
local function read_all(files, dir, depth)
  for _, name in ipairs(files:list(dir) or {}) do
    local path = source.join(dir, name)
    if name:find("^[^.].*%.lua$") then
      files:read(path)
    elseif depth > 1 and name:find("^[%w_-]+$") then
      read_all(files, path, depth - 1)
    end
  end
end

local MODULE_DEPTH = 4 -- require("a.b.c.d")

function Loading:read_modules(tree)
  for _, dir in ipairs(tree.pluginPath) do
    read_all(self.files, source.join(self.folder, dir), MODULE_DEPTH)
  end
end

--- Loads a configuration and all that belongs to it.
---@param options {file: string, source: gateway.Source?}
---@return table? program nil when there are errors
---@return string[] errors
---@return {files: string[], dirs: string[]} watch
function loader.load(options)
  local files = options.source or source.disk()
  local text, err = files:read(options.file)
  if not text then return nil, { err }, files:watch() end
  local loading = setmetatable({ files = files, folder = source.folder(options.file), policies = {},
    rules = {}, errors = {} }, Loading)
  local tree, errors = config.load(text, options.file, {
    policies = function(draft)
      loading:open_plugins(draft)
      return loading:find_policies(draft)
    end,
    check = function(draft, report) loading:check(draft, report) end,
  })
  add_all(errors, loading.errors)
  if errors[1] or not tree then return nil, errors, files:watch() end
  loading:read_modules(tree)
  return program_of(loading, tree), errors, files:watch()
end

return loader
