--- gateway: what plugins and Lua routes use beside `ctx`.
--     local gateway = require("gateway")

local core = require("gateway.core")
local event = require("gateway.event")
local http = require("gateway.http")
local json = require("gateway.json")
local shared = require("gateway.shared")
local task = require("gateway.task")

local gateway = {
  version = core.version or "dev",
  json = json,
  event = event,
  http = http,
  --- `shared(name, options)`: a dictionary that all workers share and that outlives reloads.
  shared = shared.dictionary,
  --- `counter(name, window)`: how much happened in the last `window` seconds, in all workers.
  counter = shared.counter,
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

--- Waits, from inside a hook or a task; everything else goes on meanwhile. Raises where nothing can wait:
--- inside of table.sort, string.gsub and other functions of C that call back, in a coroutine of the plugin's
--- own, and while a file is loaded.
---@param seconds number
function gateway.sleep(seconds)
  core.sleep(seconds)
end

--- Runs fn(...) as a task beside any exchange. It begins when whoever starts it waits or is done; what is
--- started while a file is loaded begins when the version serves. Ends with its version.
---@param fn function
---@return gateway.Task
function gateway.spawn(fn, ...)
  return task.start("gateway.spawn", 0, fn, ...)
end

--- The same after that many seconds, once.
---@param seconds number
---@param fn function
---@return gateway.Task
function gateway.timer(seconds, fn, ...)
  return task.start("gateway.timer", seconds, fn, ...)
end

--- Of all that call this with one key at the same time, in one worker, one runs its fn, and the others wait
--- for what it returns or raises. When the one is cancelled, because its client left say, the next takes over
--- with its own fn.
---@param key any
---@param fn function
---@return any ...
function gateway.once(key, fn, ...)
  return task.once(key, fn, ...)
end

--- Runs fn(...) while nobody else in this worker does for this key; others wait for their turn. The lock is
--- given back however fn ends.
---@param key any
---@param fn function
---@return any ... what fn returns
function gateway.lock(key, fn, ...)
  return task.lock(key, fn, ...)
end

--- The number of the worker this runs in, from 1; 0 while a configuration is only checked.
---@return integer
function gateway.worker()
  return core.worker
end

return gateway
