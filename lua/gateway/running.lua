--- gateway.running: which hook runs, for the line of the log when it has to be stopped by force: nothing of
-- Lua can be asked then. In the runtime it is a number in C's memory, written here and read there.

local ffi = require("ffi")

local core = require("gateway.core")

---@class gateway.Running
---@field [0] integer the number of the hook that runs
local running = core.running and ffi.cast("int32_t *", core.running) or {}
local numbers = {} -- by hook and plugin

local module = { at = running }

--- The number of a plugin's hook, to be put into `at[0]` when it begins.
---@param plugin string
---@param hook string
---@return integer
function module.number(plugin, hook)
  local of = numbers[hook] or {}
  numbers[hook] = of
  of[plugin] = of[plugin] or core.name_hook(plugin .. " " .. hook)
  return of[plugin]
end

return module
