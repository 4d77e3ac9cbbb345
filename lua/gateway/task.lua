--- gateway.task: work beside hooks, and callers that wait for each other. What gateway.spawn,
-- gateway.timer, gateway.once, gateway.lock, ctx:spawn and ctx:timer are made of.

local core = require("gateway.core")
local failure = require("gateway.failure")
local running = require("gateway.running")

local task = {}

---@class gateway.Task what starting one gives
---@field cancel fun(self: gateway.Task)  it ends, wherever it waits; nothing when it has ended

-- A plugin is called as its file; a route's function tells the whole path.
local function owner_of(fn)
  local path = debug.getinfo(fn, "S").source:gsub("^@", "")
  return path:match("([^/]*)%.lua$") or path
end

-- Errors of it have the plugin's name, and the traceback of where they were raised.
local function guarded(name, what, fn)
  local number = running.number(name, what)
  local function fail(err) return failure.of(name, what, err) end
  return function(...)
    running.at[0] = number
    local ok, err = xpcall(fn, fail, ...)
    if not ok then error(failure.of(name, what, err), 0) end
  end
end

local function checked(what, fn)
  if type(fn) == "function" then return fn end
  error(("%s: expected a function, got %s"):format(what, type(fn)), 3)
end

--- Starts a task beside any exchange.
---@param what string      for errors: gateway.spawn
---@param seconds number   until it begins
---@param fn function
---@return gateway.Task
function task.start(what, seconds, fn, ...)
  checked(what, fn)
  return core.spawn(seconds, guarded(owner_of(fn), what, fn), ...)
end

--- Starts a task of an exchange, which ends with it, for the plugin whose hook or task runs.
---@param what string
---@param ctx gateway.Context
---@param seconds number
---@param fn function
---@return gateway.Task
function task.start_for(what, ctx, seconds, fn, ...)
  checked(what, fn)
  local slot = ctx._slot
  local entry = ctx._rule and ctx._rule.entries[slot]
  local movable = entry and entry.plugin.upgrade ~= nil or false
  local run = guarded(entry and entry.name or owner_of(fn), what, fn)
  local started = core.spawn_for(ctx._x, slot, movable, seconds, run, ...)
  ctx._tasked = ctx._tasked or {}
  ctx._tasked[slot] = true
  return started
end

-- Holds by key; one that nobody has in hand goes by itself.
local flights = setmetatable({}, { __mode = "v" })
local locks = setmetatable({}, { __mode = "v" })

local function hold_of(holds, key, what)
  if key == nil or key ~= key then error(what .. ": expected a key", 3) end
  local hold = holds[key]
  if not hold then
    hold = core.hold()
    holds[key] = hold
  end
  return hold
end

local function pack(...)
  return { n = select("#", ...), ... }
end

local function tell(hold, ...)
  core.leave(hold, ...)
  return true, ...
end

local function unlock(hold, ...)
  core.leave(hold)
  return true, ...
end

local function outcome(_, ok, ...)
  if ok then return ... end
  error((...), 0)
end

--- Runs fn unless somebody is at it for this key already; then waits for what comes of that.
---@param key any
---@param fn function
---@return any ... what fn returned, or the error it raised
function task.once(key, fn, ...)
  checked("gateway.once", fn)
  local hold = hold_of(flights, key, "gateway.once")
  local got = pack(core.enter(hold, "gateway.once"))
  if got[1] then return outcome(tell(hold, pcall(fn, ...))) end
  return outcome(unpack(got, 1, got.n))
end

--- Runs fn while nobody else does for this key; others wait for their turn.
---@param key any
---@param fn function
---@return any ... what fn returned, or the error it raised
function task.lock(key, fn, ...)
  checked("gateway.lock", fn)
  local hold = hold_of(locks, key, "gateway.lock")
  core.enter(hold, "gateway.lock")
  return outcome(unlock(hold, pcall(fn, ...)))
end

return task
