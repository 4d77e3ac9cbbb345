--- gateway: what plugins and Lua routes use beside `ctx`.
--     local gateway = require("gateway")

local core = require("gateway.core")
local event = require("gateway.event")
local http = require("gateway.http")
local json = require("gateway.json")

local gateway = {
  version = core.version or "dev",
  json = json,
  event = event,
  http = http,
}

local log = {}

-- With arguments `text` is a format; alone it is taken as it is, percent signs included.
local function line(text, ...)
  if select("#", ...) == 0 then return tostring(text) end
  return tostring(text):format(...)
end

for _, level in ipairs({ "debug", "info", "warn", "error" }) do
  log[level] = function(text, ...) core.log(level, line(text, ...)) end
end

--- log.debug, log.info, log.warn, log.error: `(text)` or `(format, ...)`.
gateway.log = log

--- Seconds since some fixed point, for measuring; does not jump when the clock is set.
---@return number
function gateway.now()
  return core.now()
end

--- Seconds since 1970, with a fraction.
---@return number
function gateway.time()
  return core.time()
end

--- Waits, from inside a hook; everything else goes on meanwhile. Raises where a hook can't wait: inside of
--- table.sort, string.gsub and other functions of C that call back, and while a file is loaded.
---@param seconds number
function gateway.sleep(seconds)
  core.sleep(seconds)
end

--- The number of the worker this runs in, from 1; 0 while a configuration is only checked.
---@return integer
function gateway.worker()
  return core.worker
end

return gateway
