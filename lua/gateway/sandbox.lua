--- gateway.sandbox: what the code of plugins and Lua routes can reach.
-- Every file gets an environment of its own over safe globals, so a forgotten `local` stays in its
-- file. Out of reach: files and processes, debug, ffi, jit, bytecode, and the gateway's own inside.
-- It keeps accidents in, and is no wall against an author who means harm: who can write a plugin
-- can read all the traffic.

local core = require("gateway.core")
local policies = require("gateway.policies")
local schema = require("gateway.schema")
local source = require("gateway.source")

local sandbox = {}

---@class gateway.Sandbox
---@field _source gateway.Source
---@field _dirs string[]                where `require` looks for helper modules
---@field _modules table<string, any>   loaded helper modules
---@field _opened table<string, true>    libraries that the configuration opens
local Sandbox = {}
Sandbox.__index = Sandbox

local function set(...)
  local out = {}
  for _, name in ipairs({ ... }) do out[name] = true end
  return out
end

local HOST_MODULES = set("gateway", "gateway.json", "gateway.event", "gateway.http", "cjson", "cjson.safe",
  "bit", "string.buffer", "table.new", "table.clear", "table.clone", "table.nkeys", "table.isarray")

-- A policy of a plugin's may stand on one of the gateway's.
for name in pairs(policies.names) do HOST_MODULES["gateway.balancer." .. name] = true end

local BASE = { "assert", "error", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawset",
  "select", "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall" }

local function copy(library, without)
  local out = {}
  for key, value in pairs(library) do
    if not (without and without[key]) then out[key] = value end
  end
  return out
end

-- The metatable of strings holds the real string library, which is everybody's.
local function safe_getmetatable(value)
  if type(value) == "string" then return nil end
  return getmetatable(value)
end

local function print_to_log(...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
  require("gateway").log.info("%s", table.concat(words, " "))
end

-- What the configuration may open.
local CLOSED = set("io", "os", "debug", "ffi")

local function safe_globals(opened)
  local globals = {}
  for _, name in ipairs(BASE) do globals[name] = _G[name] end
  globals._VERSION = _VERSION
  globals.math = copy(math)
  globals.table = copy(table)
  globals.coroutine = copy(coroutine)
  globals.bit = copy(require("bit"))
  globals.string = copy(string, set("dump"))
  globals.os = { time = os.time, date = os.date, clock = os.clock, difftime = os.difftime,
    getenv = os.getenv }
  globals.debug = { traceback = debug.traceback }
  globals.getmetatable = safe_getmetatable
  globals.print = print_to_log
  globals.collectgarbage = function(option)
    if option ~= "count" then error('collectgarbage: only "count" is allowed here', 2) end
    return collectgarbage("count")
  end
  for name in pairs(opened) do
    if name ~= "ffi" then globals[name] = copy(require(name)) end
  end
  return globals
end

-- Text only: bytecode that was made by hand can crash the process.
local function safe_load(env)
  return function(chunk, name, _, chunk_env)
    if type(chunk) == "function" then
      local parts = {}
      for part in chunk do
        if part == "" then break end
        parts[#parts + 1] = part
      end
      chunk = table.concat(parts)
    end
    return load(chunk, name, "t", chunk_env or env)
  end
end

--- Compiles a file's text in an environment of its own.
---@param text string
---@param path string what error messages call it
---@return function? chunk, string? err
function Sandbox:compile(text, path)
  local globals = safe_globals(self._opened)
  local env = setmetatable({}, { __index = globals, __metatable = false })
  globals._G = env
  globals.gateway = require("gateway")
  globals.require = function(name)
    -- No tail call, so that an error names the line that asked.
    local module = self:require(name, path)
    return module
  end
  globals.load = safe_load(env)
  globals.loadstring = globals.load
  local chunk, err = load(text, "@" .. path, "t", env)
  if not chunk then return nil, err end
  -- Compiled code can't be stopped by a debug hook, which is how the watchdog ends an endless one.
  jit.off(chunk, true)
  return chunk
end

local function traced(err)
  if type(err) == "string" then return err end
  return debug.traceback(tostring(err), 2)
end

--- Compiles and runs a file.
---@param text string
---@param path string
---@return boolean ok, any value what the file returned, or the message
---@return function? chunk
function Sandbox:run(text, path)
  core.progress(path)
  local chunk, err = self:compile(text, path)
  if not chunk then return false, err end
  local ok, value = xpcall(chunk, traced)
  return ok, value, chunk
end

function Sandbox:_find_module(name)
  local looked = {}
  for _, dir in ipairs(self._dirs) do
    for _, suffix in ipairs({ ".lua", "/init.lua" }) do
      local path = source.join(dir, name:gsub("%.", "/") .. suffix)
      local text = self._source:read(path)
      if text then return text, path end
      looked[#looked + 1] = path
    end
  end
  return nil, looked
end

--- `require` as plugins see it: parts of the gateway meant for them, a few libraries, and helper
--- modules that lie in a folder of pluginPath.
---@param name string
---@param from string the file that asks
---@return any
function Sandbox:require(name, from)
  if type(name) ~= "string" then error("require: expected a name, got " .. type(name), 3) end
  if HOST_MODULES[name] or self._opened[name] then return require(name) end
  if CLOSED[name] then
    error(("require: %s is closed to plugins (lua.open of the configuration opens it)"):format(name), 3)
  end
  local loaded = self._modules[name]
  if loaded == self then
    error(("require: %s is being loaded already (asked for by %s)"):format(name, from), 3)
  end
  if loaded ~= nil then return loaded end
  local text, path = self:_find_module(name)
  if not text then
    local near = schema.suggest(name, HOST_MODULES)
    local looked = table.concat(path, ", ")
    error(("require: no module %q for plugins%s; looked for %s"):format(name, near, looked), 3)
  end
  self._modules[name] = self
  local ok, value = self:run(text, path)
  self._modules[name] = nil
  if not ok then error(value, 0) end
  if value == nil then value = true end
  self._modules[name] = value
  return value
end

--- A sandbox for one generation of plugins and routes; helper modules are loaded once in it.
---@param files gateway.Source
---@param dirs string[] the folders of pluginPath
---@param open? string[] libraries that are closed else: io, os, debug, ffi
---@return gateway.Sandbox
function sandbox.new(files, dirs, open)
  return setmetatable({ _source = files, _dirs = dirs, _modules = {}, _opened = set(unpack(open or {})) },
    Sandbox)
end

return sandbox
