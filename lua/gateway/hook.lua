--- gateway.hook: how one hook of one plugin is called: with its place noted, its errors named, and what it
-- may not return complained of. What gateway.pipeline and gateway.balance are built of.

local context = require("gateway.context")
local core = require("gateway.core")
local failure = require("gateway.failure")
local running = require("gateway.running")

local hook_error = failure.of
local REPLY, at = core.REPLY, running.at

local hook = {}

--- The exchange goes on without the plugin: what it raised is logged and counted.
---@param ctx gateway.Context
---@param err gateway.HookError
function hook.skip(ctx, err)
  err.skipped = true
  core.hook_error(ctx._x, err)
end

local skip = hook.skip

--- One hook of one plugin, ready to be called with ctx and what the hook gets besides.
---@param entry gateway.Entry
---@param name string of the hook
---@param fn function
---@return fun(ctx: gateway.Context, value: any): any
function hook.guard(entry, name, fn)
  local plugin, conf, slot = entry.name, entry.conf, entry.slot
  local number = running.number(plugin, name)
  local function fail(err) return hook_error(plugin, name, err) end
  return function(ctx, value)
    ctx._slot = slot
    at[0] = number
    local ok, verdict = xpcall(fn, fail, ctx, conf, value)
    if ok then return verdict end
    verdict = hook_error(plugin, name, verdict)
    if name == "on_event" then verdict.event = value.id end
    if not entry.skip then error(verdict, 0) end
    skip(ctx, verdict)
    return nil
  end
end

--- A hook returned what it may not. With `onError: skip` it counts as nothing.
---@param ctx gateway.Context
---@param entry gateway.Entry
---@param name string of the hook
---@param text string
---@param ev gateway.Event?
function hook.misuse(ctx, entry, name, text, ev)
  local err = hook_error(entry.name, name, text)
  err.event = ev and ev.id
  if not entry.skip then error(err, 0) end
  skip(ctx, err)
  return nil
end

--- What a hook returned, for a message.
---@param value any
---@return string
function hook.describe(value)
  if type(value) == "string" then return ("the text %q"):format(value) end
  if type(value) == "table" and context.is_close(value) then return "ctx:close(...)" end
  if value == REPLY then return "ctx:reply(...)" end
  return (type(value) == "table" or type(value) == "userdata") and "a " .. type(value) or tostring(value)
end

-- A hook that takes many events takes one where there are others around it.
local function one_by_one(on_events)
  return on_events and function(ctx, conf, ev) return on_events(ctx, conf, { ev }) end
end

--- A list of hooks: the functions at 1..n, beside them who they belong to.
---@param entries gateway.Entry[]
---@param name string of the hook
---@param up boolean? the last one first
---@return table
function hook.list(entries, name, up)
  local list = { entries = {}, hook = name }
  for i = 1, #entries do
    local entry = entries[up and #entries - i + 1 or i]
    local fn = entry.plugin[name] or name == "on_event" and one_by_one(entry.plugin.on_events)
    if fn then
      list[#list + 1] = hook.guard(entry, name, fn)
      list.entries[#list] = entry
    end
  end
  return list
end

return hook
