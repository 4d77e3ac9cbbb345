local bit = require "bit"
local net = require "support.net"
local rt = require "support.runtime"
local sys = require "support.sys"

local C = net.C
local TICK = C.GW_WHEEL_TICK_MS
local ROTATION = C.GW_WHEEL_SLOTS * TICK

local loop

local function start(timer, after_ms)
  C.gw_timer_start(loop, timer.timer, after_ms)
  return timer
end

local function stop(timer)
  C.gw_timer_stop(loop, timer.timer)
end

local function active(timer)
  return C.gw_timer_active(timer.timer)
end

-- How many slots have timers; the bits that say so must be right.
local function slots_occupied()
  local count = 0
  for slot = 0, C.GW_WHEEL_SLOTS - 1 do
    local listed = loop.wheel[slot].next ~= loop.wheel + slot
    local word = loop.occupied[math.floor(slot / 64)]
    assert.equal(listed, bit.band(bit.rshift(word, slot % 64), 1) == 1)
    if listed then count = count + 1 end
  end
  return count
end

before_each(function()
  loop = net.loop()
end)

after_each(function()
  net.fini(loop)
  net.forget()
end)

describe("the ready list", function()
  it("runs what was woken, once", function()
    local runs = 0
    local task = net.task(function() runs = runs + 1 end)
    net.wake(loop, task)
    net.wake(loop, task)
    net.turn(loop, true)
    assert.equal(1, runs)
    net.settle(loop)
    assert.equal(1, runs)
  end)

  it("runs behind the callback that woke it; what it wakes waits for the others", function()
    local order = {}
    local function reader()
      local mine, theirs = net.pair()
      local again = net.task(function() order[#order + 1] = "again" end)
      local task = net.task(function()
        order[#order + 1] = "run"
        net.wake(loop, again)
      end)
      local user = net.conn(loop, mine, {
        on_bytes = function(self)
          net.take(self.conn["in"])
          order[#order + 1] = "bytes"
          net.wake(loop, task)
        end,
      })
      net.send(theirs, "x")
      return user, theirs
    end
    local users, peers = {}, {}
    for i = 1, 3 do users[i], peers[i] = reader() end
    net.turn(loop, true)
    assert.equal("bytes run bytes run bytes run again again again", table.concat(order, " "))
    for i = 1, 3 do
      users[i]:close()
      net.close(peers[i])
    end
  end)

  it("keeps what is woken while it runs for the next turn, which does not sleep", function()
    local order = {}
    local second = net.task(function() order[#order + 1] = "second" end)
    local first
    first = net.task(function()
      order[#order + 1] = "first"
      if #order == 1 then
        net.wake(loop, first)
        net.wake(loop, second)
      end
    end)
    local late = start(net.timer(loop, function() order[#order + 1] = "slept" end), 5000)
    net.wake(loop, first)
    net.turn(loop, true)
    assert.same({ "first" }, order)
    net.turn(loop, true)
    assert.same({ "first", "first", "second" }, order)
    stop(late)
  end)

  it("runs what waits in the same batch once although it is woken again", function()
    local runs = 0
    local second = net.task(function() runs = runs + 1 end)
    local first = net.task(function() net.wake(loop, second) end)
    net.wake(loop, first)
    net.wake(loop, second)
    net.settle(loop)
    assert.equal(1, runs)
  end)

  it("does not run what was taken off, also by one that runs before it", function()
    local runs = 0
    local second = net.task(function() runs = runs + 1 end)
    local first = net.task(function() C.gw_loop_unwake(loop, second.task) end)
    net.wake(loop, first)
    net.wake(loop, second)
    net.settle(loop)
    assert.equal(0, runs)
    C.gw_loop_unwake(loop, second.task)
    net.wake(loop, second)
    net.turn(loop)
    assert.equal(1, runs)
  end)

  it("does not run what was taken off after it had woken itself", function()
    local runs = 0
    local task
    task = net.task(function()
      runs = runs + 1
      net.wake(loop, task)
      C.gw_loop_unwake(loop, task.task)
    end)
    net.wake(loop, task)
    net.settle(loop)
    assert.equal(1, runs)
  end)

  it("runs many that wake themselves, each as often as it was woken", function()
    local runs, tasks = {}, {}
    for i = 1, 3000 do
      tasks[i] = net.task(function()
        runs[i] = (runs[i] or 0) + 1
        if runs[i] == 1 then net.wake(loop, tasks[i]) end
      end)
      net.wake(loop, tasks[i])
    end
    net.settle(loop)
    for i = 1, 3000 do assert.equal(2, runs[i]) end
    net.wake(loop, tasks[1])
    net.settle(loop)
    assert.equal(3, runs[1])
  end)

  it("runs until it is stopped", function()
    local runs = 0
    local task
    task = net.task(function()
      runs = runs + 1
      if runs == 10 then C.gw_loop_stop(loop) else net.wake(loop, task) end
    end)
    net.wake(loop, task)
    C.gw_loop_run(loop)
    assert.equal(10, runs)
  end)
end)

describe("the graveyard", function()
  it("is emptied at the end of the turn, after the ready list", function()
    local order = {}
    local second = net.task(function() order[#order + 1] = "run" end)
    local first = net.task(function()
      net.bury(loop, function() order[#order + 1] = "free" end)
    end)
    net.wake(loop, first)
    net.wake(loop, second)
    net.turn(loop)
    assert.same({ "run", "free" }, order)
  end)

  it("waits for the ready list with what a callback buried", function()
    local order = {}
    local task = net.task(function() order[#order + 1] = "run" end)
    start(net.timer(loop, function()
      net.bury(loop, function() order[#order + 1] = "free" end)
      net.wake(loop, task)
    end), 1)
    net.turn_until(loop, function() return #order > 0 end)
    assert.same({ "run", "free" }, order)
  end)

  it("takes what is buried while it is emptied", function()
    local freed = 0
    net.bury(loop, function()
      freed = freed + 1
      net.bury(loop, function() freed = freed + 1 end)
    end)
    net.turn(loop)
    assert.equal(2, freed)
  end)

  it("is emptied before a sleep, and when the loop ends", function()
    local freed = 0
    local fired = false
    net.bury(loop, function() freed = freed + 1 end)
    start(net.timer(loop, function() fired = true end), 1)
    net.turn_until(loop, function() return fired end)
    assert.equal(1, freed)

    local other = net.loop()
    net.bury(other, function() freed = freed + 1 end)
    net.fini(other)
    assert.equal(2, freed)
  end)
end)

describe("a timer", function()
  it("fires once, not before its time", function()
    local fired_ms = {}
    local timer = net.timer(loop, function() fired_ms[#fired_ms + 1] = loop.now_ms end)
    start(timer, 35)
    local due_ms = loop.now_ms + 35
    assert.is_true(active(timer))
    net.turn_until(loop, function() return #fired_ms > 0 end)
    assert.is_true(fired_ms[1] >= due_ms)
    assert.is_false(active(timer))
    net.settle(loop)
    assert.equal(1, #fired_ms)
    assert.equal(0, tonumber(loop.timers))
  end)

  it("is woken for within a tick of its time", function()
    for after = 0, 3 * TICK do
      local timer = start(net.timer(loop, function() end), after)
      net.turn(loop)
      if active(timer) then
        local late = tonumber(loop.armed_ms - timer.timer.due_ms)
        assert.is_true(late >= 0 and late < TICK)
      end
      stop(timer)
    end
  end)

  it("counts from now when it is started between two turns", function()
    local before_ms = math.floor(sys.now() * 1000)
    local timer = net.timer(loop, function() end)
    loop.now_ms = loop.now_ms - 5000 -- as if the last turn had been long ago
    start(timer, 50)
    assert.is_true(timer.timer.due_ms >= before_ms + 50)
  end)

  it("does not fire once it is stopped, and can be stopped twice", function()
    local fired, done = false, false
    local timer = start(net.timer(loop, function() fired = true end), 5)
    start(net.timer(loop, function() done = true end), 40)
    stop(timer)
    stop(timer)
    net.turn_until(loop, function() return done end)
    assert.is_false(fired)
    assert.equal(0, slots_occupied())
  end)

  it("that is started again has the new time only", function()
    local fires = 0
    local timer = net.timer(loop, function() fires = fires + 1 end)
    start(timer, 5)
    start(timer, 60)
    local due_ms = timer.timer.due_ms
    net.turn_until(loop, function() return fires > 0 end)
    assert.is_true(loop.now_ms >= due_ms)
    assert.equal(1, fires)
    assert.equal(0, tonumber(loop.timers))
  end)

  it("for now fires once per turn at most, however often it starts itself again", function()
    local fires = 0
    local timer
    timer = net.timer(loop, function()
      fires = fires + 1
      start(timer, 0)
    end)
    start(timer, 0)
    local turns = net.turn_until(loop, function() return fires == 5 end)
    assert.is_true(turns >= 5)
    stop(timer)
  end)

  it("may start and stop others of its slot while it fires", function()
    local order = {}
    local timers = {}
    timers[1] = net.timer(loop, function()
      order[#order + 1] = 1
      stop(timers[2])
      start(timers[3], 2 * TICK)
    end)
    for i = 2, 4 do
      timers[i] = net.timer(loop, function() order[#order + 1] = i end)
    end
    for i = 1, 4 do start(timers[i], 5) end
    net.turn_until(loop, function() return #order == 3 end)
    assert.same({ 1, 4, 3 }, order)
    assert.equal(0, tonumber(loop.timers))
    assert.equal(0, slots_occupied())
  end)

  it("runs before the ready list of its turn", function()
    local order = {}
    local task = net.task(function() order[#order + 1] = "run" end)
    start(net.timer(loop, function()
      order[#order + 1] = "fire"
      net.wake(loop, task)
    end), 1)
    net.turn_until(loop, function() return #order > 0 end)
    assert.same({ "fire", "run" }, order)
  end)
end)

describe("the wheel", function()
  it("does not tick while nothing is due", function()
    local fired = false
    start(net.timer(loop, function() fired = true end), 30 * TICK)
    local turns = net.turn_until(loop, function() return fired end)
    assert.is_true(turns <= 3, turns .. " turns")
  end)

  it("sets no timer when there is none", function()
    local timer = start(net.timer(loop, function() end), 1000)
    net.turn(loop)
    assert.is_true(loop.tick.active > 0)
    stop(timer)
    net.turn(loop)
    assert.equal(0, loop.tick.active)
  end)

  it("looks at a timer beyond its rotation once per rotation", function()
    local fired, near = false, false
    local far = start(net.timer(loop, function() fired = true end), ROTATION + 50)
    start(net.timer(loop, function() near = true end), 120)
    local turns = net.turn_until(loop, function() return near end)
    assert.is_false(fired)
    assert.is_true(active(far))
    assert.is_true(turns <= 6, turns .. " turns")
    net.turn(loop)
    -- Its slot has been passed; the next look at it is the one at which it is due.
    assert.is_true(loop.armed_ms >= far.timer.due_ms)
    stop(far)
  end)

  it("catches up after a long stop, and fires nothing too early", function()
    local order = {}
    local function timer(name, after_ms)
      return start(net.timer(loop, function() order[#order + 1] = name end), after_ms)
    end
    local far = timer("far", 3 * ROTATION)
    timer("near", 80)
    local due_ms = loop.now_ms + 80
    loop.wheel_ms = loop.wheel_ms - 5 * ROTATION - 7 * TICK -- as if it had last turned long ago
    net.turn_until(loop, function() return #order > 0 end)
    assert.same({ "near" }, order)
    assert.is_true(loop.now_ms >= due_ms)
    assert.is_true(active(far))
    assert.equal(1, slots_occupied())
    stop(far)
  end)

  it("keeps to a model of many timers", function()
    local random = rt.random(7)
    local due, fired, wrong = {}, 0, 0
    local timers = {}
    for i = 1, 300 do
      timers[i] = net.timer(loop, function()
        if not due[i] or loop.now_ms < due[i] then wrong = wrong + 1 end
        due[i] = nil
        fired = fired + 1
        -- A firing timer disturbs another one.
        local other = random(1, 300)
        if fired % 3 == 0 then
          stop(timers[other])
          due[other] = nil
        elseif fired < 600 then
          start(timers[other], random(0, 60))
          due[other] = timers[other].timer.due_ms
        end
      end)
      start(timers[i], random(0, 200))
      due[i] = timers[i].timer.due_ms
    end
    net.turn_until(loop, function() return next(due) == nil end)
    for i = 1, 300 do assert.is_false(active(timers[i])) end
    assert.equal(0, wrong)
    assert.equal(0, tonumber(loop.timers))
    assert.equal(0, slots_occupied())
  end)
end)
