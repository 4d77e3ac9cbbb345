--- gateway.failure: an error of a plugin, with what the log wants to know of it.

local failure = {}

---@class gateway.HookError
---@field plugin string
---@field hook string
---@field message string     file:line: text
---@field traceback string
---@field event string?      the id of the event it was about
---@field skipped boolean?   the exchange went on without the plugin
local HookError = {}
HookError.__index = HookError

function HookError:__tostring()
  return ("plugin %s, %s: %s"):format(self.plugin, self.hook, self.message)
end

--- The text of whatever was raised.
---@param err any
---@return string
function failure.message(err)
  local told = type(err) == "table" and not getmetatable(err) and err.message
  return tostring(told or err)
end

---@param err any
---@return boolean
function failure.is(err)
  return getmetatable(err) == HookError
end

--- The error with plugin and hook; one that has them already stays as it is.
---@param name string
---@param hook string
---@param err any
---@param traceback string?  by default the caller's, for handlers of xpcall
---@return gateway.HookError
function failure.of(name, hook, err, traceback)
  if getmetatable(err) == HookError then return err end
  return setmetatable({ plugin = name, hook = hook, message = failure.message(err),
    traceback = traceback or debug.traceback("", 2):gsub("^\n", "") }, HookError)
end

return failure
