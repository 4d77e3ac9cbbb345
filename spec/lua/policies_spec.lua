--- The policies one by one: how they spread requests, what they do with weights, load and keys.
local testing = require("gateway.testing")
local core = require("gateway.core")
local crowd = require("spec.support.crowd")
local policies = require("gateway.policies")

local ONES = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 }
local WEIGHTS = { 1, 2, 3, 4, 5, 1, 2, 3, 4, 5 }

before_each(testing.reset)

-- A function that chooses among a list, by the policy of that name.
local function policy(name, settings)
  local module = require("gateway.balancer." .. name)
  local conf = module.new and module.new(settings)
  return function(list, ctx) return module.balance(ctx or testing.context(), conf, list) end
end

-- Contexts of requests with a key, each made once.
local with_key = setmetatable({}, { __index = function(self, value)
  self[value] = testing.context({ headers = { ["X-Key"] = value } })
  return self[value]
end })

-- Which instance each of many keys has.
local function homes(choose, list, count)
  local found = {}
  for i = 1, count do found[i] = choose(list, with_key["user-" .. i]) end
  return found
end

local function assert_only_its_keys_moved(before, after, gone)
  local moved, kept = 0, 0
  for i, instance in ipairs(before) do
    if instance == gone then
      assert.not_equal(gone, after[i])
      moved = moved + 1
    else
      assert.equal(instance, after[i])
      kept = kept + 1
    end
  end
  assert.is_true(moved > 0 and kept > 0)
end

describe("policies", function()
  it("are files of their names", function()
    for name in pairs(policies.names) do
      local module = require("gateway.balancer." .. name)
      assert.equal(name, module.name)
      assert.is_function(module.balance)
    end
  end)
end)

describe("a rule of gateway.testing", function()
  it("may name a policy, which then has its defaults", function()
    for name in pairs(policies.names) do
      local chain = testing.chain({}, { loadBalance = name })
      assert.is_table(chain:balance(testing.context(), { { id = "a" }, { id = "b" } }))
    end
  end)
end)

describe("least_connections", function()
  local choose = policy("least_connections")

  it("takes the one with the least to do for its weight", function()
    local list = crowd.instances({ 1, 1, 4 })
    list[1].in_flight, list[2].in_flight, list[3].in_flight = 2, 1, 7
    assert.equal("i2", choose(list).id)
    list[3].in_flight = 3
    assert.equal("i3", choose(list).id)
  end)

  it("spreads long streams as the weights say, to within one", function()
    local list = crowd.instances(WEIGHTS)
    local counts = crowd.held(list, 300, function() return choose(list) end)
    assert.same({ 10, 20, 30, 40, 50, 10, 20, 30, 40, 50 }, counts)
  end)

  it("takes turns where nobody has anything to do, smoothly weighted", function()
    local list = crowd.instances({ 5, 1, 1 })
    local turns = {}
    for i = 1, 7 do turns[i] = choose(list).id end
    assert.equal("i1 i1 i2 i1 i3 i1 i1", table.concat(turns, " "))
  end)

  it("spreads the bursts of workers that do not see each other's yet", function()
    local list, counts = crowd.equal(10), {}
    for worker = 1, 4 do
      core.worker = worker
      local own = crowd.equal(10)
      for _ = 1, 5 do
        local index = choose(own).index
        counts[index] = (counts[index] or 0) + 1
      end
    end
    core.worker = 1
    for i = 1, #list do assert.is_true((counts[i] or 0) <= 4) end
  end)

  it("fills one that has come until it has as much as the others", function()
    local list = crowd.equal(4)
    for i = 1, 3 do list[i].in_flight = 30 end
    assert.same({ 0, 0, 0, 30 }, crowd.held(list, 30, function() return choose(list) end))
    assert.same({ 3, 3, 3, 3 }, crowd.held(list, 12, function() return choose(list) end))
  end)

  it("has nothing to say about none", function()
    assert.is_nil(choose(crowd.instances({ 0, 0 })))
    assert.equal("i2", choose(crowd.instances({ 0, 1 })).id)
  end)
end)

describe("random", function()
  local choose = policy("random")

  it("draws all alike, whatever they weigh", function()
    local list = crowd.instances(WEIGHTS)
    local counts = crowd.counts(list, 10000, function() return choose(list) end)
    local chi = crowd.chi_square(counts, ONES)
    assert.message(chi).is_true(chi < 4 and chi > 0.02)
  end)

  it("takes the less loaded one of two", function()
    local list = crowd.equal(2)
    list[1].in_flight = 1
    for _ = 1, 50 do assert.equal("i2", choose(list).id) end
    assert.equal("i1", choose({ list[1] }).id)
  end)

  it("never draws the same one twice", function()
    local list = crowd.equal(3)
    list[1].in_flight = 1
    for _ = 1, 500 do assert.not_equal("i1", choose(list).id) end
  end)

  it("spreads long streams much better than one draw would", function()
    local list = crowd.equal(10)
    local counts = crowd.held(list, 2000, function() return choose(list) end)
    assert.is_true(crowd.peak(counts, ONES) < 1.02)
    testing.reset()
    local blind = crowd.counts(list, 2000, function()
      return list[math.floor(core.chance() * 10) + 1]
    end)
    assert.is_true(crowd.peak(blind, ONES) > 1.05)
  end)
end)

describe("weighted_random", function()
  local choose = policy("weighted_random")

  it("draws as the weights say", function()
    local list = crowd.instances(WEIGHTS)
    local counts = crowd.counts(list, 12000, function() return choose(list) end)
    local chi = crowd.chi_square(counts, WEIGHTS)
    assert.message(chi).is_true(chi < 4 and chi > 0.02)
    assert.is_true(crowd.chi_square(counts, ONES) > 40)
  end)

  it("spreads long streams as the weights say", function()
    local list = crowd.instances(WEIGHTS)
    local counts = crowd.held(list, 3000, function() return choose(list) end)
    assert.is_true(crowd.peak(counts, WEIGHTS) < 1.05)
  end)

  it("never draws the same one twice", function()
    local list = crowd.instances({ 9, 1 })
    list[1].in_flight = 100
    for _ = 1, 100 do assert.equal("i2", choose(list).id) end
  end)

  it("never draws one without a weight", function()
    local list = crowd.instances({ 0, 1, 0 })
    for _ = 1, 50 do assert.equal("i2", choose(list).id) end
    assert.is_nil(choose(crowd.instances({ 0, 0 })))
  end)
end)

describe("ip_hash", function()
  local SETTINGS = { subnetMask = 32, subnetMask6 = 64 }
  local function address(i) return ("10.%d.%d.%d"):format(i % 7, math.floor(i / 250) % 250, i % 250) end

  local function found(choose, list, count)
    local out = {}
    for i = 1, count do out[i] = choose(list, testing.context({ client = address(i) })) end
    return out
  end

  it("is the same for the same client, and spreads clients as the weights say", function()
    local choose, list = policy("ip_hash", SETTINGS), crowd.instances(WEIGHTS)
    local first = found(choose, list, 4000)
    for i, instance in ipairs(found(choose, crowd.instances(WEIGHTS), 4000)) do
      assert.equal(first[i].id, instance.id)
    end
    local chi = crowd.chi_square(crowd.counts(list, 4000, function(i) return first[i] end), WEIGHTS)
    assert.message(chi).is_true(chi < 4)
  end)

  it("moves only the clients of one that goes, and gives them back", function()
    local choose, list = policy("ip_hash", SETTINGS), crowd.instances({ 1, 2, 3, 1, 1 })
    local before = found(choose, list, 1000)
    for _, gone in ipairs(list) do
      assert_only_its_keys_moved(before, found(choose, crowd.without(list, gone), 1000), gone)
    end
    assert.same(before, found(choose, list, 1000))
  end)

  it("may take a network for one client", function()
    local choose = policy("ip_hash", { subnetMask = 24, subnetMask6 = 48 })
    local list, seen = crowd.equal(10), {}
    local function of(client) return choose(list, testing.context({ client = client })) end
    for net = 1, 30 do
      local home = of(("192.0.%d.1"):format(net))
      seen[home] = true
      for host = 2, 20 do assert.equal(home, of(("192.0.%d.%d"):format(net, host))) end
    end
    assert.is_truthy(next(seen, next(seen)))
    assert.equal(of("2001:db8:1:1::1"), of("2001:db8:1:2::2"))
  end)

  it("goes by the client behind its proxy, or by the proxy where that is wanted", function()
    local list = crowd.equal(10)
    local function spread(use)
      local choose = policy("ip_hash", { useForwardedFor = use, subnetMask = 32, subnetMask6 = 64 })
      local seen, n = {}, 0
      for i = 1, 50 do
        local home = choose(list, testing.context({ client = address(i), peer = "192.0.2.1" }))
        if not seen[home] then seen[home], n = true, n + 1 end
      end
      return n
    end
    assert.equal(10, spread(nil))
    assert.equal(10, spread(true))
    assert.equal(1, spread(false))
  end)
end)

describe("consistent_hash", function()
  local function settings(fields)
    local out = { key = "header:X-Key", replicaCount = 160, boundedLoad = 0 }
    for key, value in pairs(fields or {}) do out[key] = value end
    return out
  end

  it("is the same for the same key, in every worker and version", function()
    local before = homes(policy("consistent_hash", settings()), crowd.equal(7), 500)
    local after = homes(policy("consistent_hash", settings()), crowd.equal(7), 500)
    for i, instance in ipairs(before) do assert.equal(instance.id, after[i].id) end
  end)

  it("spreads keys, the more evenly the more replicas there are", function()
    local function peak(replicas)
      local list = crowd.equal(10)
      local found = homes(policy("consistent_hash", settings({ replicaCount = replicas })), list, 10000)
      return crowd.peak(crowd.counts(list, #found, function(i) return found[i] end), ONES)
    end
    assert.is_true(peak(1) > 1.5)
    assert.is_true(peak(160) < 1.2)
    assert.is_true(peak(2000) < 1.08)
  end)

  it("gives each what it weighs", function()
    local list = crowd.instances(WEIGHTS)
    local found = homes(policy("consistent_hash", settings()), list, 10000)
    assert.is_true(crowd.peak(crowd.counts(list, #found, function(i) return found[i] end), WEIGHTS) < 1.25)
  end)

  it("moves only the keys of one that goes, and gives them back", function()
    local choose, list = policy("consistent_hash", settings()), crowd.instances({ 1, 2, 3, 1, 1, 1, 1 })
    local before = homes(choose, list, 2000)
    for _, gone in ipairs(list) do
      local rest = crowd.without(list, gone)
      assert_only_its_keys_moved(before, homes(choose, rest, 2000), gone)
      -- Another version of the configuration lays its own ring.
      local fresh = homes(policy("consistent_hash", settings({ replicaCount = 160 })), rest, 2000)
      assert_only_its_keys_moved(before, fresh, gone)
    end
    assert.same(before, homes(choose, list, 2000))
  end)

  it("spreads the keys of one that goes over all others", function()
    local choose, list = policy("consistent_hash", settings()), crowd.equal(10)
    local before, counts = homes(choose, list, 10000), {}
    local after = homes(choose, crowd.without(list, list[4]), 10000)
    for i, instance in ipairs(before) do
      if instance == list[4] then counts[after[i].id] = (counts[after[i].id] or 0) + 1 end
    end
    local n = 0
    for _, count in pairs(counts) do
      n = n + 1
      assert.is_true(count > 10)
    end
    assert.equal(9, n)
  end)

  it("takes from all others for one that comes, and moves nothing else", function()
    local choose, list = policy("consistent_hash", settings()), crowd.equal(10)
    local before = homes(choose, crowd.without(list, list[10]), 2000)
    local after, moved = homes(choose, list, 2000), 0
    for i, instance in ipairs(before) do
      if after[i] ~= instance then
        assert.equal(list[10], after[i])
        moved = moved + 1
      end
    end
    assert.is_true(moved > 120 and moved < 320)
  end)

  -- What a list of instances costs when it is seen for the first time.
  local function hashes_for(choose, list)
    local hash, count = core.hash, 0
    core.hash = function(...)
      count = count + 1
      return hash(...)
    end
    choose(list, with_key.x)
    core.hash = hash
    return count - 1
  end

  it("lays out a ring once, and none for lists that are part of it", function()
    local choose, list = policy("consistent_hash", settings({ replicaCount = 77 })), crowd.equal(10)
    assert.equal(770, hashes_for(choose, list))
    assert.equal(0, hashes_for(choose, list))
    assert.equal(0, hashes_for(choose, crowd.without(list, list[3])))
    assert.equal(0, hashes_for(policy("consistent_hash", settings({ replicaCount = 77 })), list))
    list = { unpack(list) }
    list[2].weight = 2
    assert.equal(847, hashes_for(choose, list))
  end)

  it("bounds the points, and still moves only the keys of one that goes", function()
    local weights = {}
    for i = 1, 20 do weights[i] = 100 end
    local choose, list = policy("consistent_hash", settings({ replicaCount = 150 })), crowd.instances(weights)
    local before = homes(choose, list, 1000)
    assert.is_true(hashes_for(policy("consistent_hash", settings({ replicaCount = 151 })), list) <= 32768)
    local rest = crowd.without(list, list[7])
    local fresh = {}
    for i, instance in ipairs(rest) do fresh[i] = { id = instance.id, service = "t", weight = 100 } end
    for i, instance in ipairs(homes(choose, fresh, 1000)) do
      if before[i] ~= list[7] then assert.equal(before[i].id, instance.id) end
    end
  end)

  it("lets no instance have more than its bound", function()
    for _, bound in ipairs({ 1.25, 2 }) do
      local choose = policy("consistent_hash", settings({ boundedLoad = bound }))
      local list = crowd.instances({ 1, 1, 2, 4 })
      -- Keys of which a few are asked for all the time.
      local counts = crowd.held(list, 800, function(i) return choose(list, with_key["hot-" .. i % 3]) end)
      for i, instance in ipairs(list) do
        assert.is_true(counts[i] <= math.ceil(bound * 800 * instance.weight / 8))
      end
      assert.is_true(crowd.peak(counts, { 1, 1, 2, 4 }) > 1.2)
    end
  end)

  it("keeps keys at home while that is not too busy, and sends what is too much to one neighbour", function()
    local choose = policy("consistent_hash", settings({ boundedLoad = 1.25 }))
    local list = crowd.equal(10)
    local home = choose(list, with_key.k)
    for _, instance in ipairs(list) do instance.in_flight = 10 end
    home.in_flight = 11
    assert.equal(home, choose(list, with_key.k))
    home.in_flight = 14
    local other = choose(list, with_key.k)
    assert.not_equal(home, other)
    for _ = 1, 5 do assert.equal(other, choose(list, with_key.k)) end
    assert.equal(other, choose(crowd.without(list, home), with_key.k))
  end)

  it("counts nobody where a key's home has nothing to do", function()
    local choose, list = policy("consistent_hash", settings({ boundedLoad = 1.25 })), crowd.equal(10)
    local facts, counted = core.facts, 0
    core.facts = function(...)
      counted = counted + 1
      return facts(...)
    end
    local home = choose(list, with_key.k)
    local idle = counted
    home.in_flight = 1
    choose(list, with_key.k)
    core.facts = facts
    assert.same({ 0, 1 }, { idle, counted })
  end)

  it("takes turns where a request has no key", function()
    local choose, list = policy("consistent_hash", settings()), crowd.equal(3)
    local seen = {}
    for i = 1, 3 do seen[i] = choose(list).id end
    assert.equal("i1 i2 i3", table.concat(seen, " "))
  end)

  it("has nothing to say about none", function()
    assert.is_nil(policy("consistent_hash", settings())(crowd.instances({ 0, 0 }), with_key.x))
  end)
end)

describe("response_time", function()
  local function choose_with(percentile) return policy("response_time", { percentile = percentile or 0 }) end

  it("tries whom nobody knows, one request at a time", function()
    local choose, list = choose_with(), crowd.equal(2)
    list[1].response_time = 0.01
    assert.equal("i2", choose(list).id)
    list[2].in_flight = 1
    list[1].in_flight = 1000
    assert.equal("i1", choose(list).id)
    list[1].response_time, list[1].in_flight, list[2].in_flight = 0, 3, 2
    assert.equal("i2", choose(list).id)
  end)

  it("goes by time, load and weight", function()
    local choose, list = choose_with(), crowd.equal(2)
    list[1].response_time, list[2].response_time = 0.1, 0.3
    assert.equal("i1", choose(list).id)
    list[1].in_flight = 3
    assert.equal("i2", choose(list).id)
    list[1].weight = 2
    assert.equal("i1", choose(list).id)
    assert.equal("i2", choose({ list[2] }).id)
  end)

  it("tries one again that was slow, when it has not been asked for a while", function()
    local choose, list = choose_with(), crowd.equal(2)
    list[1].response_time, list[2].response_time = 0.01, 1
    list[2].answer_age = 9
    assert.equal("i1", choose(list).id)
    list[2].answer_age = 70
    assert.equal("i2", choose(list).id)
  end)

  it("goes by a percentile where one is configured", function()
    local choose, list = choose_with(95), crowd.equal(2)
    for i, time in ipairs({ 0.4, 0.2 }) do
      list[i].response_time = i
      list[i].response_percentile = function(_, percent)
        assert.equal(95, percent)
        return time
      end
    end
    assert.equal("i2", choose(list).id)
  end)

  -- A closed loop: so many requests at a time, each instance as fast as it is, measured as the runtime does.
  local function run(list, times, clients, count)
    local choose, due, counts = choose_with(), {}, {}
    for i = 1, #list do counts[i] = 0 end
    local now = 0
    for i = 1, count do
      if #due == clients then
        table.sort(due, function(a, b) return a.at < b.at end)
        local first = table.remove(due, 1)
        now = first.at
        local instance = first.instance
        local share = instance.seen and 1 - math.exp(-math.max(now - instance.seen, 0.001) / 10) or 1
        instance.response_time = instance.response_time + (first.took - instance.response_time) * share
        instance.seen, instance.in_flight = now, instance.in_flight - 1
      end
      for _, instance in ipairs(list) do instance.answer_age = instance.seen and now - instance.seen or 0 end
      local chosen = choose(list)
      chosen.in_flight = chosen.in_flight + 1
      if i > count / 2 then counts[chosen.index] = counts[chosen.index] + 1 end
      local took = times(chosen.index, now)
      due[#due + 1] = { at = now + took, took = took, instance = chosen }
    end
    return counts
  end

  it("sends more to the faster ones, and something to all", function()
    local TIMES = { 0.01, 0.01, 0.01, 0.04, 0.04, 0.04 }
    local counts = run(crowd.equal(6), function(i) return TIMES[i] end, 30, 6000)
    for i = 1, 3 do
      assert.is_true(counts[i] > 600 and counts[i] < 1100)
      assert.is_true(counts[i + 3] > 60 and counts[i + 3] < 300)
    end
  end)

  it("does not run after one that is a little faster than the others", function()
    local counts = run(crowd.equal(5), function(i) return i == 3 and 0.009 or 0.01 end, 20, 4000)
    for i = 1, 5 do assert.is_true(counts[i] > 300 and counts[i] < 520) end
  end)

  it("leaves one that grows slow, and comes back when it is well", function()
    local list = crowd.equal(4)
    local function slow_for_a_while(i, now) return i == 2 and now > 5 and now < 20 and 2 or 0.05 end
    local counts = run(list, slow_for_a_while, 8, 12000)
    for i = 1, 4 do assert.is_true(counts[i] > 1000) end
  end)
end)
