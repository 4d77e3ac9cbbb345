--- What a configuration says of health, and whom a service gives to its policies.
local testing = require("gateway.testing")
local config = require("gateway.config")
local core = require("gateway.core")
local health = require("gateway.health")
local parse = require("spec.support.yaml")
local service = require("gateway.service")

local HEAD = [[
registry:
  static:
    services:
      - name: s
        instances: [{id: one, address: "127.0.0.1", port: 3000}]
]]

local function load(keys)
  return config.load(HEAD .. keys:gsub("([^\n]+)", "        %1"), "x.yaml", { yaml = parse })
end

local function good(keys)
  local tree, errors = load(keys)
  assert.equal("", table.concat(errors, "\n"))
  return tree.registry.static.services[1]
end

describe("health in a configuration", function()
  it("is nothing unless it is asked for", function()
    local rules = health.rules(good "")
    assert.same({ name = "s", slow_start_ms = 0, max_streams = 0, watched = false }, rules)
  end)

  it("has defaults", function()
    local rules = health.rules(good "health: {}\npassiveHealth: {}\ncircuitBreaker: {}\n")
    assert.same({ interval_ms = 5000, timeout_ms = 2000, jitter_percent = 10, rise = 2, fall = 3, tcp = false,
      statuses = { 200, 399 }, method = "GET", path = "/" }, rules.check)
    local failed = { 500, 500, 502, 502, 503, 503, 504, 504 }
    assert.same({ failures = 5, error_permille = 500, min_requests = 20, window_ms = 30000,
      base_eject_ms = 30000, max_eject_ms = 300000, max_eject_percent = 50, statuses = failed },
      rules.passive)
    assert.same({ failures = 5, successes = 2, timeout_ms = 30000, probes = 1, statuses = failed },
      rules.breaker)
    assert.is_true(rules.watched)
  end)

  it("takes a status, a range, or a list of them", function()
    local function of(text)
      return health.rules(good("health: {expectedStatus: " .. text .. "}\n")).check.statuses
    end
    assert.same({ 204, 204 }, of "204")
    assert.same({ 200, 299 }, of "200-299")
    assert.same({ 200, 200, 300, 302 }, of "[200, 300-302]")
  end)

  for keys, fault in pairs({
    ["health: {expectedStatus: 99}"] = 'health.expectedStatus[1]: "99" is neither a status (204) nor a range',
    ["health: {expectedStatus: [399-200]}"] = 'health.expectedStatus[1]: "399-200" is neither',
    ["health: {path: live}"] = 'health.path: a path begins with "/"',
    ["health: {path: '/a b'}"] = [[health.path: "/a b" can't be asked for]],
    ["health: {host: 'a b'}"] = 'health.host: "a b" is not a host',
    ["health: {type: tcp, expectedBody: x}"] = "health.expectedBody: type: tcp asks for nothing",
    ["health: {method: HEAD, expectedBody: x}"] = "health.expectedBody: an answer to HEAD has no body",
    ["health: {intervall: 1}"] = 'health.intervall: unknown key "intervall" (did you mean "interval"?)',
    ["health: {jitter: 2}"] = "health.jitter: expected a number from 0 to 1, got 2",
    ["passiveHealth: {baseEjection: 1h}"] = "passiveHealth.maxEjection: less than baseEjection (3600)",
    ["passiveHealth: {maxEjectionPercent: 0}"] = "passiveHealth.maxEjectionPercent: expected a whole number",
    ["circuitBreaker: {timeout: 0}"] = "circuitBreaker.timeout: expected a duration of at least 0.01",
    ["maxStreams: -1"] = "maxStreams: expected a whole number",
  }) do
    it("is refused: " .. keys, function()
      local tree, errors = load(keys .. "\n")
      assert.is_nil(tree)
      local text = errors[1]:gsub("^x%.yaml:%d+:%d+: ", "")
      local expected = "gateway.registry.static.services[1]." .. fault
      assert.equal(expected, text:sub(1, #expected))
    end)
  end
end)

describe("a service", function()
  local version, shares

  before_each(function()
    testing.reset()
    version, shares = 1, {}
    core.standing = function() return version end
    core.share = function(index) return shares[index] or 10 end
  end)

  after_each(function()
    core.standing = function() return 0 end
    core.share = function() return 10 end
  end)

  local function start(rules, ...)
    local of = service.new("s", 1, rules)
    for i, weight in ipairs({ ... }) do
      of:add({ index = i, id = "i" .. i, service = "s", weight = weight,
        health = weight == 7 and "unhealthy" or "healthy" })
    end
    return of
  end

  local function listed(of)
    local list = {}
    for i, instance in ipairs(of:usable()) do list[i] = instance.id .. "*" .. instance.weight end
    return table.concat(list, " ")
  end

  it("without rules does not ask how its instances stand", function()
    core.standing = error
    local of = start({ watched = false }, 1, 2, 7)
    assert.equal("i1*1 i2*2", listed(of))
    assert.equal(of:usable(), of:usable())
  end)

  it("gives the same table until something has changed", function()
    local of = start({ watched = true }, 1, 2, 7)
    local before = of:usable()
    assert.equal("i1*1 i2*2", listed(of))
    shares[1] = 0
    assert.equal(before, of:usable())
    version = 2
    assert.not_equal(before, of:usable())
    assert.equal("i2*2", listed(of))
    assert.equal("i1*1 i2*2", before[1].id .. "*1 " .. before[2].id .. "*2") -- as it was
  end)

  it("lets weights grow in a slow start, back to what was configured", function()
    local of = start({ watched = true }, 4, 7, 30)
    for tenths, expected in ipairs({ "i1*0.4 i3*30", "i1*0.8 i3*30" }) do
      shares[1], version = tenths, version + 1
      assert.equal(expected, listed(of))
    end
    shares[1], version = 10, version + 1
    assert.equal("i1*4 i3*30", listed(of))
  end)

  it("asks the breaker only where there is one", function()
    core.admit = function() return 7 end
    assert.is_nil(start({ watched = false }, 1):refuses({}))
    assert.same({ "the circuit of s is open", 7 }, { start({ breaker = {} }, 1):refuses({}) })
    core.admit = function() end
    assert.is_nil(start({ breaker = {} }, 1):refuses({}))
  end)

  it("tells why nobody can be asked", function()
    assert.same({ "no healthy instance of s", 5 }, { start({ watched = true }, 1):absence() })
    core.absence = function() return true, 1 end
    assert.same({ "all instances of s are full", 1 }, { start({ watched = true }, 1):absence() })
    core.absence = function() return false, 5 end
  end)
end)
