--- gateway.plugin: finds, loads and checks plugin files, and makes plugins ready for a route.
-- A plugin is a file of pluginPath that returns one table. Called by gateway.loader and
-- gateway.testing.

local core = require("gateway.core")
local schema = require("gateway.schema")
local source = require("gateway.source")

local plugin = {}

--- What a plugin table may hold, and its type.
local KEYS = {
  name = "string", version = "string", description = "string",
  schema = "table", new = "function", upgrade = "function", preflight = "boolean", jit = "boolean",
  comments = "boolean",
  route = "function", access = "function", balance = "function",
  on_response = "function", on_event = "function", on_events = "function", on_close = "function",
}

--- The hooks, in the order of an exchange.
plugin.HOOKS = { "route", "access", "balance", "on_response", "on_event", "on_close" }

---@class gateway.Plugins the plugins of one generation
---@field _source gateway.Source
---@field _dirs string[]
---@field _sandbox gateway.Sandbox
---@field _loaded table<string, {plugin: gateway.Plugin?, errors: string[]}>
local Plugins = {}
Plugins.__index = Plugins

--- All names that pluginPath offers.
---@return string[]
function Plugins:names()
  local names, seen = {}, {}
  for _, dir in ipairs(self._dirs) do
    for _, file in ipairs(self._source:list(dir) or {}) do
      local name = file:match("^([^.].*)%.lua$")
      if name and not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  return names
end

--- The errors of a plugin table; empty when it is fine.
---@param value any what the file returned
---@param name string the file's name without .lua
---@return string[]
function plugin.verify(value, name)
  if type(value) ~= "table" then
    return { ("a plugin file must return a table, this one returned %s (is `return plugin` missing?)"):format(
      value == nil and "nothing" or type(value)) }
  end
  local errors = {}
  for key, item in pairs(value) do
    local want = KEYS[key]
    if not want and not (type(key) == "string" and key:sub(1, 1) == "_") then
      errors[#errors + 1] = ("unknown key %q%s"):format(tostring(key), schema.suggest(tostring(key), KEYS))
    elseif want and type(item) ~= want then
      errors[#errors + 1] = ("%s: expected a %s, got %s"):format(key, want, type(item))
    end
  end
  if value.name == nil then
    errors[#errors + 1] = "name: missing; it must be the file's name, " .. name
  elseif value.name ~= name then
    errors[#errors + 1] = ("name: is %q, but the file is called %s.lua"):format(tostring(value.name), name)
  end
  if value.on_event and value.on_events then
    errors[#errors + 1] = "on_events: stands in the place of on_event; there can't be both"
  end
  if value.comments and not (value.on_event or value.on_events) then
    errors[#errors + 1] = "comments: is for plugins with an on_event hook"
  end
  if type(value.schema) == "table" then
    for _, err in ipairs(schema.verify(value.schema)) do errors[#errors + 1] = err end
  end
  table.sort(errors)
  return errors
end

local function prefixed(path, errors)
  local out = {}
  for i, err in ipairs(errors) do out[i] = path .. ": " .. err end
  return out
end

-- Messages of Lua name the file already.
local function named(path, message)
  if message:find(path, 1, true) then return message end
  return path .. ": " .. message
end

function Plugins:_load(text, path, name)
  local ok, value, chunk = self._sandbox:run(text, path)
  if not ok then return { errors = { named(path, tostring(value)) } } end
  local errors = plugin.verify(value, name)
  if errors[1] then return { errors = prefixed(path, errors) } end
  if value.jit then jit.on(chunk, true) end
  return { plugin = value, errors = {} }
end

--- Loads a plugin file.
---@param path string
---@param name? string the name it must have; by default the file's
---@return gateway.Plugin? plugin, string[] errors
function Plugins:file(path, name)
  local text, err = self._source:read(path)
  if not text then return nil, { err } end
  local found = self:_load(text, path, name or path:match("([^/]*)%.lua$") or path)
  return found.plugin, found.errors
end

function Plugins:_find(name)
  for _, dir in ipairs(self._dirs) do
    local path = source.join(dir, name .. ".lua")
    local text = self._source:read(path)
    if text then return self:_load(text, path, name) end
  end
  local where = self._dirs[1] and table.concat(self._dirs, ", ") or "pluginPath, which is empty"
  local near = schema.suggest(name, self:names())
  return { errors = { ("unknown plugin %q%s: no %s.lua in %s"):format(name, near, name, where) } }
end

--- A plugin by name; each is loaded once.
---@param name string
---@return gateway.Plugin? plugin, string[] errors the same list for every caller
function Plugins:get(name)
  local found = self._loaded[name]
  if not found then
    found = name:find("^[%w_][%w_%-.]*$") and self:_find(name)
      or { errors = { ("%q can't be a plugin's name"):format(name) } }
    self._loaded[name] = found
  end
  return found.plugin, found.errors
end

--- The names of plugins that have a `balance` hook, among the files that mention one; broken files
--- count, so that a rule that names one gets its error.
---@return table<string, true>
function Plugins:policies()
  local found = {}
  for _, name in ipairs(self:names()) do
    if self:_mentions(name, "balance") then
      local value = self:get(name)
      if not value or value.balance then found[name] = true end
    end
  end
  return found
end

function Plugins:_mentions(name, word)
  for _, dir in ipairs(self._dirs) do
    local text = self._source:read(source.join(dir, name .. ".lua"))
    if text then return text:find(word, 1, true) ~= nil end
  end
  return false
end

---@class gateway.Entry a plugin in a route's list
---@field plugin gateway.Plugin
---@field name string
---@field conf any       what the hooks get
---@field skip boolean   onError: skip

--- Makes a plugin ready for one route: checks its settings and calls `new`.
---@param value gateway.Plugin
---@param entry {conf?: table, onError?: string}
---@param route? table the rule it is for, second argument of `new`
---@param report fun(path: (string|integer)[], text: string)
---@param path (string|integer)[] where the settings stand
---@param mark? table their place in the YAML
---@return gateway.Entry? entry nil when something was reported
function plugin.entry(value, entry, route, report, path, mark)
  local failed = false
  local function fail(at, text)
    failed = true
    report(at, text)
  end
  local conf = entry.conf or {}
  if value.schema then conf = schema.check(value.schema, conf, path, fail, { mark = mark }) end
  if failed then return nil end
  if value.new then
    core.progress(value.name .. ", new")
    local ok, made = xpcall(value.new, function(err) return tostring(err) end, conf, route)
    if not ok then
      fail(path, "new: " .. made)
      return nil
    end
    if made ~= nil then conf = made end
  end
  return { plugin = value, name = value.name, conf = conf, skip = entry.onError == "skip" }
end

--- The plugins of one generation.
---@param files gateway.Source
---@param dirs string[] the folders of pluginPath
---@param box gateway.Sandbox
---@return gateway.Plugins
function plugin.open(files, dirs, box)
  return setmetatable({ _source = files, _dirs = dirs, _sandbox = box, _loaded = {} }, Plugins)
end

return plugin
