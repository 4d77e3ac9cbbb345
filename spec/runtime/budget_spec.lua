--- Budgets of retries: what counts, for how long, and that it is one for all who look at the same memory.
local ffi = require "ffi"
local rt = require "support.runtime"

local C = rt.load "gateway/budget.h"
local SLICE = ffi.typeof "struct gw_slice"

describe("a budget of retries", function()
  local budgets

  before_each(function() budgets = ffi.new "struct gw_budgets" end)

  local function find(name) return C.gw_budget_find(budgets, SLICE(name, #name)) end

  local function request(budget, now, n)
    for _ = 1, n or 1 do C.gw_budget_request(budget, now) end
  end

  -- How many of n may go again.
  local function take(budget, now, n, ratio, min)
    local taken = 0
    for _ = 1, n do
      if C.gw_budget_take(budget, now, ratio, min) then taken = taken + 1 end
    end
    return taken
  end

  it("is a service's own, the same for all who ask", function()
    local a, b = find "a", find "b"
    assert.is_true(a ~= b)
    assert.is_true(a == find "a")
    request(a, 5000, 100)
    assert.equal(20, take(a, 5000, 50, 0.2, 10))
    assert.equal(0, take(a, 5000, 50, 0.2, 10))
    assert.equal(5, take(b, 5000, 5, 0.2, 10))
  end)

  it("does not count ratio below minRequests", function()
    local a = find "a"
    request(a, 0, 9)
    assert.equal(50, take(a, 0, 50, 0.2, 10))
    request(a, 0)
    assert.equal(0, take(a, 0, 50, 0.2, 10))
    assert.equal(0, take(find "none", 0, 1, 0.2, 0))
  end)

  it("lets ten seconds count, no more and no less, also across long pauses", function()
    local a = find "a"
    for second = 0, 9 do request(a, second * 1000 + 999, 10) end
    assert.equal(20, take(a, 9999, 100, 0.2, 10))
    -- The second 0 has gone with its ten requests, and the twenty retries of second 9 have not.
    assert.equal(0, take(a, 10000, 100, 0.2, 10))
    request(a, 10000, 20)
    assert.equal(2, take(a, 10000, 100, 0.2, 10))
    -- An hour later, and as late as that the number of a second begins anew.
    for _, later in ipairs { 3600, 2 ^ 20, 2 ^ 20 + 3600 } do
      request(a, later * 1000, 10)
      assert.equal(2, take(a, later * 1000, 100, 0.2, 10))
    end
  end)

  it("counts as far as it can, and not into what stands beside it", function()
    local a, most = find "a", 2 ^ 22 - 1
    request(a, 0, most + 10)
    assert.equal(math.floor(most * 1e-4), take(a, 0, 1000, 1e-4, 10))
    assert.equal(math.floor(most * 1e-4), tonumber(a.second[0] % 2 ^ 22))
  end)

  it("is shared by those that come when all places are taken", function()
    local seen, last = {}, nil
    for i = 1, 300 do
      last = find("service " .. i)
      seen[tostring(last)] = (seen[tostring(last)] or 0) + 1
    end
    assert.equal(300 - 255, seen[tostring(last)])
    assert.is_true(find "service 7" ~= last)
    assert.is_true(find "service 7" == find "service 7")
  end)
end)
