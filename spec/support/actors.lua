--- actors: many functions at once in one spec, each written as if it were alone. What waits in http and
-- backend waits by sys.poll; inside an actor that lets the others go on.
local bit = require("bit")
local sys = require("spec.support.sys")

local poll = sys.poll

local actors = {}

---@class spec.Crowd
---@field count integer actors that have not ended
---@field failures string[] errors of actors, with tracebacks
local Crowd = {}
Crowd.__index = Crowd

local waiting = setmetatable({}, { __mode = "k" }) -- what each actor waits for, by its coroutine

function sys.poll(wants, deadline)
  local self = coroutine.running()
  if not self or not waiting[self] then return poll(wants, deadline) end
  return coroutine.yield(wants, deadline)
end

--- Lets the others go on for a while; outside of an actor it just waits.
---@param seconds number
function actors.pause(seconds)
  sys.poll({}, sys.now() + seconds)
end

--- An empty crowd.
---@return spec.Crowd
function actors.new()
  return setmetatable({ count = 0, failures = {}, list = {} }, Crowd)
end

-- Runs an actor up to its next wait; false when it has ended.
function Crowd:_step(actor, ready)
  local ok, wants, deadline = coroutine.resume(actor, ready)
  if coroutine.status(actor) ~= "dead" then
    waiting[actor] = { wants = wants, deadline = deadline }
    return true
  end
  if not ok then self.failures[#self.failures + 1] = debug.traceback(actor, tostring(wants)) end
  waiting[actor] = nil
  self.count = self.count - 1
  return false
end

--- Starts an actor; it runs up to its first wait at once.
---@param fn fun(...)
function Crowd:spawn(fn, ...)
  local args = { ... }
  local actor = coroutine.create(function() fn(unpack(args)) end)
  waiting[actor] = {}
  self.count = self.count + 1
  if self:_step(actor) then self.list[#self.list + 1] = actor end
end

local function ready_of(wait, ready, now)
  local found
  for fd in pairs(wait.wants) do
    if ready[fd] then
      found = found or {}
      found[fd] = ready[fd]
    end
  end
  return found or (now >= wait.deadline and {}) or nil
end

--- Waits once, for the first of all, and runs those that can go on.
---@param deadline number
function Crowd:turn(deadline)
  local wants = {}
  for _, actor in ipairs(self.list) do
    local wait = waiting[actor]
    deadline = math.min(deadline, wait.deadline)
    for fd, events in pairs(wait.wants) do wants[fd] = bit.bor(wants[fd] or 0, events) end
  end
  local ready, now, list = poll(wants, deadline), sys.now(), self.list
  self.list = {}
  for _, actor in ipairs(list) do
    local found = ready_of(waiting[actor], ready, now)
    if not found or self:_step(actor, found) then self.list[#self.list + 1] = actor end
  end
end

return actors
