--- gateway.testing.clock: tasks and time for specs. Nothing takes time: when all wait, the clock jumps to the
-- next one that is due.

local clock = { now = 0 }

local tasks = {}    -- those that live, in the order they were started
local current       -- the one that runs

local MANY = 1000   -- turns that tasks get before they are taken for endless ones

local function pack(...)
  return { n = select("#", ...), ... }
end

local function running()
  local co, is_main = coroutine.running()
  return not is_main and co or nil
end

--- The task that runs, where it may wait; else an error as the gateway's.
---@param what string
function clock.may_wait(what)
  if current and running() == current.co then return current end
  if running() and current then
    error(what .. ": a coroutine of the plugin's own can't wait; gateway.spawn starts one that can", 0)
  end
  error(what .. ": no hook runs here that could wait", 0)
end

local function forget(task)
  task.done = true
  for i, one in ipairs(tasks) do
    if one == task then
      table.remove(tasks, i)
      break
    end
  end
  while task.holds[1] do clock.hand_on(task.holds[1]) end
end

--- It is no more, wherever it waits.
function clock.drop(task)
  if task.done or task == current then return end
  if task.queue then
    for i, one in ipairs(task.queue) do
      if one == task then table.remove(task.queue, i) end
    end
  end
  forget(task)
end

--- Ends all tasks that a test on them says yes to.
---@param belongs fun(task: table): boolean
function clock.drop_all(belongs)
  for i = #tasks, 1, -1 do
    if tasks[i] and belongs(tasks[i]) then clock.drop(tasks[i]) end
  end
end

--- A new task, which begins after that many seconds.
function clock.start(seconds, fn, ...)
  local task = { co = coroutine.create(fn), holds = {}, values = pack(...), ready = seconds == 0,
    due = seconds > 0 and clock.now + seconds or nil }
  tasks[#tasks + 1] = task
  return task
end

--- The running task waits; returns what clock.wake gives.
function clock.wait(task)
  task.waits = true
  return coroutine.yield()
end

function clock.wake(task, ...)
  task.ready, task.waits, task.due, task.queue, task.values = true, false, nil, nil, pack(...)
end

function clock.sleep(seconds)
  local task = clock.may_wait("sleep")
  task.due = clock.now + seconds
  clock.wait(task)
end

-- A task of an exchange runs for its own plugin, and puts back what it found.
local function resume(task)
  local ctx, before, slot = task.ctx and task.ctx(), current, nil
  if ctx then slot, ctx._slot = ctx._slot, task.slot end
  current, task.ready = task, false
  local got = pack(coroutine.resume(task.co, unpack(task.values, 1, task.values.n)))
  current = before
  if ctx then task.slot, ctx._slot = ctx._slot, slot end
  task.values = pack()
  if coroutine.status(task.co) == "dead" then
    task.got = got
    forget(task)
    if not got[1] and task.failed then task.failed(got[2]) end
  elseif not task.waits then
    task.ready = true -- a bare coroutine.yield
  end
end

local function turn()
  local ready = {}
  for _, task in ipairs(tasks) do
    if task.ready then ready[#ready + 1] = task end
  end
  for _, task in ipairs(ready) do
    if not task.done then resume(task) end
  end
  return ready[1] ~= nil
end

local function settle()
  for _ = 1, MANY do
    if not turn() then return end
  end
end

-- To the next one that is due, if that is not after `limit`.
local function jump(limit)
  local next_due
  for _, task in ipairs(tasks) do
    if task.due and (not next_due or task.due < next_due) then next_due = task.due end
  end
  if not next_due or next_due > limit then return false end
  clock.now = math.max(clock.now, next_due)
  for _, task in ipairs(tasks) do
    if task.due and task.due <= clock.now then
      task.ready, task.waits, task.due = true, false, nil
    end
  end
  return true
end

--- Runs fn(...) as a hook is run, until it is done; what waits meanwhile goes on as its time comes.
function clock.run(fn, ...)
  if current then return fn(...) end
  local task = clock.start(0, fn, ...)
  settle()
  while not task.done do
    if not jump(math.huge) then
      clock.drop(task)
      error("a hook waits for what never comes", 0)
    end
    settle()
  end
  if not task.got[1] then error(task.got[2], 0) end
  return unpack(task.got, 2, task.got.n)
end

--- Lets time pass.
---@param seconds number
function clock.advance(seconds)
  local limit = clock.now + seconds
  settle()
  while jump(limit) do settle() end
  clock.now = math.max(clock.now, limit)
end

--- From one that has nothing to tell to the first that waits.
function clock.hand_on(hold)
  for i, one in ipairs(hold.holder.holds) do
    if one == hold then table.remove(hold.holder.holds, i) end
  end
  hold.holder = table.remove(hold.waiters, 1)
  if not hold.holder then return end
  table.insert(hold.holder.holds, hold)
  clock.wake(hold.holder, true)
end

function clock.enter(hold, what)
  local task = clock.may_wait(what)
  if not hold.holder then
    hold.holder = task
    table.insert(task.holds, hold)
    return true
  end
  if hold.holder == task then
    error(what .. ": called for a key inside of the call for that key", 0)
  end
  table.insert(hold.waiters, task)
  task.queue = hold.waiters
  return clock.wait(task)
end

function clock.leave(hold, ...)
  if not hold.holder then return end
  local waiters = hold.waiters
  if select("#", ...) > 0 then hold.waiters = {} end
  clock.hand_on(hold)
  if select("#", ...) == 0 then return end
  for _, task in ipairs(waiters) do clock.wake(task, false, ...) end
end

return clock
