--- Facts about instances: what workers see of each other, what becomes of a dead one's part, whose place may
-- be given to another, and the average of times.
local ffi = require "ffi"
local rt = require "support.runtime"

local C = rt.load("base/shm.h", "gateway/facts.h")
local USERS, REQUESTS, STREAMS = 0, 1, 2
local SLICE = ffi.typeof "struct gw_slice"

describe("facts about instances", function()
  local shm, facts

  before_each(function()
    shm = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, 32 * 1024 * 1024))
    local stats = C.gw_stats_new(shm)
    for worker = 1, 3 do C.gw_stats_enlist(stats, worker) end
    facts = C.gw_facts_new(shm, stats)
    assert(facts ~= nil)
  end)

  after_each(function() C.gw_shm_fini(shm) end)

  local function find(worker, name, now)
    return C.gw_facts_find(facts, worker, SLICE(name, #name), now or 1000)
  end

  local function add(worker, place, load, n)
    facts.load[worker][place][load] = facts.load[worker][place][load] + n
  end

  it("are one place for all workers", function()
    local a, b = find(1, "api a 127.0.0.1:1"), find(1, "api b 127.0.0.1:1")
    assert.not_equal(a, b)
    assert.equal(a, find(2, "api a 127.0.0.1:1"))
    add(1, a, STREAMS, 3)
    add(2, a, STREAMS, 4)
    add(2, b, REQUESTS, 1)
    assert.equal(7, C.gw_facts_sum(facts, a, STREAMS))
    assert.equal(0, C.gw_facts_sum(facts, b, STREAMS))
    assert.equal(2, C.gw_facts_sum(facts, a, USERS))
  end)

  it("lose the part of a worker that died, and nothing else", function()
    local a = find(1, "a")
    find(2, "a")
    add(1, a, REQUESTS, 3)
    add(2, a, REQUESTS, 4)
    C.gw_facts_forget(facts, 1)
    assert.equal(4, C.gw_facts_sum(facts, a, REQUESTS))
    assert.equal(1, C.gw_facts_sum(facts, a, USERS))
  end)

  it("give the place of one that nobody uses to another when there is no room", function()
    local first, limit = find(1, "first", 1), tonumber(C.GW_FACTS_MAX)
    local second = find(1, "second", 2)
    for i = 3, limit - 1 do find(1, "other " .. i, i) end
    assert.equal(0, find(1, "too many", 9000))
    add(1, second, USERS, -1)
    C.gw_facts_answered(facts, second, 500, 9000)
    assert.equal(second, find(2, "another", 9001))
    assert.equal(0, C.gw_facts_answer_us(facts, second))
    assert.equal(0, C.gw_latency_percentile_us(facts.latency[second], 50, 9001))
    assert.equal(first, find(2, "first", 9002))
    assert.equal(0, find(2, "second", 9003))
  end)

  it("shorten a name that is too long, and tell it from others all the same", function()
    local long = ("x"):rep(500)
    local place = find(1, long)
    assert.equal(place, find(2, long))
    assert.not_equal(place, find(2, "x"))
  end)

  it("average times of answers, the older the less they count", function()
    local a = find(1, "a")
    local function average() return C.gw_facts_answer_us(facts, a) end
    assert.equal(0, average())
    C.gw_facts_answered(facts, a, 1000, 5000)
    assert.equal(1000, average())
    C.gw_facts_answered(facts, a, 2000, 15000)
    assert.is_true(math.abs(average() - (1000 + 1000 * (1 - math.exp(-1)))) < 2)
    C.gw_facts_answered(facts, a, 5000, 1000000)
    assert.is_true(math.abs(average() - 5000) < 1)
    for i = 1, 100 do C.gw_facts_answered(facts, a, 0, 1000000 + i) end
    assert.is_true(average() < 5000 and average() > 4900)
    C.gw_facts_answered(facts, a, 2 ^ 40, 9000000)
    assert.is_true(average() >= 2 ^ 39)
  end)

  it("tell how old the last answer is, and count it among the times", function()
    local a = find(1, "a")
    assert.equal(0, C.gw_facts_answer_age_ms(facts, a, 5000))
    C.gw_facts_answered(facts, a, 20000, 2 ^ 32 - 100)
    assert.equal(0, C.gw_facts_answer_age_ms(facts, a, 2 ^ 32 - 100))
    assert.equal(350, C.gw_facts_answer_age_ms(facts, a, 2 ^ 32 + 250))
    local median = C.gw_latency_percentile_us(facts.latency[a], 50, 2 ^ 32 + 250)
    assert.is_true(median > 17000 and median < 23000)
  end)
end)
