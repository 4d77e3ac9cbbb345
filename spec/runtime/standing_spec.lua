--- How instances stand: what comes of failures, checks and time, with a clock that the spec sets; places for
-- streams among several processes; and circuits.
local ffi = require "ffi"
local forks = require "spec.support.forks"
local net = require "support.net"
local rt = require "support.runtime"

local C = rt.load("base/shm.h", "base/log.h", "gateway/exchange.h", "gateway/service.h")
local SECOND = 1000
local NO_ANSWER = 1

describe("an instance's standing", function()
  local shm, facts, loop, gateway, service, instances, now

  before_each(function()
    C.gw_log_setup(C.GW_LOG_ERROR, C.GW_LOG_TEXT, nil)
    shm = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, 32 * 1024 * 1024))
    local stats = C.gw_stats_new(shm)
    for worker = 1, 4 do C.gw_stats_enlist(stats, worker) end
    facts = C.gw_facts_new(shm, stats)
    loop, gateway = net.loop(), ffi.new "struct gw_gateway"
    C.gw_gateway_init(gateway, loop, facts, 1)
    instances, now = {}, 1000000
  end)

  after_each(function()
    for _, instance in ipairs(instances) do C.gw_instance_unref(instance) end
    C.gw_service_unref(service)
    C.gw_gateway_fini(gateway)
    net.settle(loop, 3)
    net.fini(loop)
    net.forget()
    C.gw_shm_fini(shm)
    C.gw_log_setup(C.GW_LOG_INFO, C.GW_LOG_TEXT, nil)
  end)

  local function start(n, settings)
    service = C.gw_service_new()
    ffi.copy(service.name, "api")
    settings(service)
    C.gw_service_note(service, facts, 1, now)
    for i = 1, n do
      local addr = ffi.new "struct gw_addr"
      assert(C.gw_addr_parse(addr, "127.0.0.1", i))
      instances[i] = C.gw_instance_new(gateway, "api", "i" .. i, addr)
      C.gw_service_join(service, instances[i])
    end
  end

  local function passive(keys)
    return function(of)
      of.passive_on = true
      of.passive.window_ms, of.passive.max_eject_percent = 30 * SECOND, 50
      of.passive.base_eject_ms, of.passive.max_eject_ms = 10 * SECOND, 35 * SECOND
      C.gw_statuses_add(of.passive.bad, 500, 504)
      for key, value in pairs(keys) do of.passive[key] = value end
    end
  end

  local function answer(i, status, times)
    for _ = 1, times or 1 do C.gw_standing_answer(instances[i], status, "refused", now) end
  end

  local function state(i)
    C.gw_standing_changes(service, now)
    return rt.cstring(C.gw_standing_state(instances[i]))
  end

  local function tenths(i)
    C.gw_standing_changes(service, now)
    return C.gw_standing_tenths(instances[i])
  end

  -- For how long it is out, in seconds; the clock is at its return then.
  local function away(i)
    local from = now
    while state(i) == "ejected" do now = now + 100 end
    return (now - from) / SECOND
  end

  it("is ejected for longer each time, up to a bound, and forgiven when it was well for as long", function()
    start(2, passive { failures = 3 })
    answer(1, NO_ANSWER, 2)
    assert.equal("up", state(1))
    answer(1, 503)
    assert.equal("ejected", state(1))
    assert.equal(10, away(1))
    answer(1, 500) -- on trial: one is enough
    assert.equal(20, away(1))
    answer(1, NO_ANSWER)
    assert.equal(35, away(1))
    answer(1, 200)
    answer(1, NO_ANSWER, 2)
    assert.equal("up", state(1))
    answer(1, NO_ANSWER)
    assert.equal(35, away(1))
    now = now + 34 * SECOND
    answer(1, 200)
    answer(1, 503, 3)
    assert.equal(35, away(1))
    now = now + 35 * SECOND
    answer(1, 200)
    answer(1, 503, 3)
    assert.equal(10, away(1))
    assert.equal(6, tonumber(facts.fact[instances[1].fact].standing.ejected_total))
    assert.equal("up", state(2))
  end)

  it("counts failures of a window that moves on by halves", function()
    start(2, passive { error_permille = 500, min_requests = 10 })
    now = 30 * SECOND * 1000
    answer(1, 200, 6)
    answer(1, 503, 5)
    assert.equal("up", state(1)) -- 5 of 11
    now = now + 16 * SECOND
    answer(1, 503)
    assert.equal("ejected", state(1)) -- 6 of 12
    now = now + 3600 * SECOND
    assert.equal("up", state(1))
    answer(1, 503, 9)
    assert.equal("up", state(1)) -- 9 are too few
    now = now + 45 * SECOND
    answer(1, 503)
    assert.equal("up", state(1)) -- and those are long ago
    answer(2, 200, 70000) -- more than the counters hold
    answer(2, 503, 30000)
    assert.equal("up", state(2))
    answer(2, 503, 70000)
    assert.equal("ejected", state(2))
  end)

  it("leaves the rest alone when too many are out", function()
    start(5, passive { failures = 1 })
    for i = 1, 5 do answer(i, NO_ANSWER) end
    local out = 0
    for i = 1, 5 do out = out + (state(i) == "ejected" and 1 or 0) end
    assert.equal(2, out)
    now = now + 10 * SECOND
    assert.equal("up", state(1))
    answer(5, NO_ANSWER)
    assert.equal("ejected", state(5))
  end)

  it("grows from a tenth to all of its weight in equal steps, and tells so by a number", function()
    start(1, function(of)
      of.check.interval_ms, of.check.rise, of.check.fall = 1000, 2, 2
      of.slow_start_ms = 9 * SECOND
    end)
    local function check(good) C.gw_standing_check(instances[1], good, "x", now) end
    assert.equal(10, tenths(1))
    check(false)
    assert.same({ "down", 0 }, { state(1), tenths(1) })
    check(true)
    assert.equal("down", state(1))
    check(true)
    assert.same({ "slow_start", 1 }, { state(1), tenths(1) })
    for step = 1, 9 do
      local before = C.gw_standing_changes(service, now)
      now = now + 999
      assert.equal(before, C.gw_standing_changes(service, now))
      assert.equal(step, tenths(1))
      now = now + 1
      assert.not_equal(before, C.gw_standing_changes(service, now))
      assert.equal(step + 1, tenths(1))
    end
    assert.equal("up", state(1))
    local before = C.gw_standing_changes(service, now)
    now = now + 3600 * SECOND
    check(true)
    assert.equal(before, C.gw_standing_changes(service, now))
  end)

  it("is what the service's own rules make of it: others look at the same facts", function()
    start(1, passive { failures = 1 })
    answer(1, NO_ANSWER) -- the only one stays
    assert.equal("up", state(1))
    C.gw_standing_check(instances[1], false, "x", now) -- without a section nobody asks for that
    assert.equal("up", state(1))
  end)

  it("is back when nothing keeps it out any more", function()
    start(2, function(of)
      passive({ failures = 1 })(of)
      of.check.interval_ms, of.check.rise, of.check.fall = 1000, 1, 1
    end)
    local function check(good) C.gw_standing_check(instances[1], good, "x", now) end
    check(true)
    answer(1, NO_ANSWER)
    check(false)
    assert.equal("down", state(1))
    check(true)
    assert.same({ "ejected", 0 }, { state(1), tenths(1) })
    check(false)
    now = now + 10 * SECOND
    assert.same({ "down", 0 }, { state(1), tenths(1) })
    check(true)
    assert.same({ "up", 10 }, { state(1), tenths(1) })
  end)

  it("comes back in time, though processes that do not know it look at its service, too", function()
    start(2, passive { failures = 1 })
    local other = C.gw_service_new()
    ffi.copy(other.name, "api")
    passive({ failures = 1 })(other)
    C.gw_service_note(other, facts, 2, now)
    answer(1, NO_ANSWER)
    assert.equal("ejected", state(1))
    C.gw_standing_review(other, now)
    now = now + 10 * SECOND
    C.gw_standing_changes(other, now)
    assert.equal("up", state(1))
    C.gw_service_unref(other)
  end)

  it("is found out about when it is in the list of its service again", function()
    start(2, passive { failures = 1 })
    answer(1, NO_ANSWER)
    local node = instances[1].sibling
    node.prev.next, node.next.prev = node.next, node.prev
    node.prev, node.next = node, node
    now = now + 10 * SECOND
    assert.equal("ejected", state(1))
    C.gw_service_rejoin(instances[1])
    assert.equal("up", state(1))
  end)

  it("has exactly as many places as there are, whoever takes them at the same time", function()
    start(1, function(of) of.max_streams = 3 end)
    local children = {}
    for worker = 1, 4 do
      children[worker] = forks.child(function()
        instances[1].worker = worker
        local taken, most = 0, 0
        for round = 1, 20000 do
          if taken > 0 and round % 3 == 0 then
            C.gw_standing_give_place(instances[1], now)
            taken = taken - 1
          elseif C.gw_standing_take_place(instances[1], now) then
            taken = taken + 1
          end
          most = math.max(most, C.gw_facts_sum(facts, instances[1].fact, C.GW_LOAD_PLACES))
        end
        assert(most <= 3, most)
        for _ = 1, taken do C.gw_standing_give_place(instances[1], now) end
      end)
    end
    for _, child in ipairs(children) do assert.equal(0, forks.wait(child)) end
    assert.equal(0, C.gw_facts_sum(facts, instances[1].fact, C.GW_LOAD_PLACES))
    assert.equal("up", state(1))
    for i = 1, 4 do assert.equal(i <= 3, C.gw_standing_take_place(instances[1], now)) end
    assert.equal("full", state(1))
    C.gw_facts_forget(facts, 1) -- as when a worker dies
    C.gw_standing_review(service, now)
    assert.equal("up", state(1))
  end)

  describe("its service's circuit", function()
    local probe, wait = ffi.new "bool[1]", ffi.new "uint64_t[1]"
    local NONE, GOOD, BAD = 0, 1, 2

    before_each(function()
      start(1, function(of)
        of.breaker.failures, of.breaker.successes, of.breaker.timeout_ms, of.breaker.probes = 2, 2, 5000, 2
      end)
    end)

    local function enter() return C.gw_breaker_enter(service, now, probe, wait) end
    local function leave(verdict, is_probe) C.gw_breaker_leave(service, is_probe or false, verdict, now) end
    local function circuit() return rt.cstring(C.gw_breaker_state(service)) end

    it("opens by failures in a row", function()
      leave(BAD)
      leave(GOOD)
      leave(BAD)
      leave(NONE)
      assert.equal("closed", circuit())
      assert.is_true(enter())
      leave(BAD)
      assert.equal("open", circuit())
      now = now + 1500
      assert.is_false(enter())
      assert.equal(3500, tonumber(wait[0]))
      leave(GOOD) -- one that had begun before
      assert.equal("open", circuit())
    end)

    it("lets probes through at its time, and closes when they are well", function()
      leave(BAD)
      leave(BAD)
      now = now + 5000
      for _ = 1, 2 do
        assert.is_true(enter())
        assert.is_true(probe[0])
      end
      assert.equal("half_open", circuit())
      assert.is_false(enter())
      leave(NONE, true) -- its client left: another one may find out
      assert.is_true(enter())
      leave(GOOD, true)
      leave(BAD) -- one that had begun before, again
      assert.equal("half_open", circuit())
      leave(GOOD, true)
      assert.equal("closed", circuit())
      assert.is_true(enter())
      assert.is_false(probe[0])
    end)

    it("opens again when one of them fails, and the probes of a dead worker do not stay", function()
      leave(BAD)
      leave(BAD)
      now = now + 5000
      assert.is_true(enter())
      leave(BAD, true)
      assert.equal("open", circuit())
      now = now + 4999
      assert.is_false(enter())
      now = now + 1
      assert.is_true(enter())
      assert.is_true(enter())
      assert.is_false(enter())
      C.gw_facts_forget(facts, 1)
      assert.is_true(enter())
      assert.equal(2, tonumber(facts.fact[service.fact].breaker.opened_total))
      assert.equal(2, tonumber(facts.fact[service.fact].breaker.refused_total))
    end)
  end)
end)
