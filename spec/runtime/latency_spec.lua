--- The histogram of times: how exact a percentile is, and how it forgets.
local ffi = require "ffi"
local rt = require "support.runtime"

local C = rt.load "gateway/latency.h"
local WINDOW = tonumber(C.GW_LATENCY_WINDOW_MS)

describe("the histogram of times", function()
  local latency

  before_each(function() latency = ffi.new "struct gw_latency" end)

  local function add(ms, now) C.gw_latency_add(latency, ms * 1000, now) end
  local function percentile(percent, now) return C.gw_latency_percentile_us(latency, percent, now) / 1000 end

  it("knows nothing at first", function()
    assert.equal(0, percentile(50, 5000))
    assert.equal(0, percentile(100, 5000))
  end)

  it("tells each time to an eighth, from a millisecond to four minutes", function()
    local ms = 1
    while ms < 240000 do
      latency = ffi.new "struct gw_latency"
      add(ms, 5000)
      local told = percentile(50, 5000)
      assert.message(ms).is_true(told / ms > 0.88 and told / ms < 1.13)
      ms = ms * 1.07
    end
  end)

  it("takes what is shorter or longer for the shortest and the longest", function()
    add(0, 5000)
    assert.is_true(percentile(50, 5000) > 0 and percentile(50, 5000) < 0.25)
    add(1e9, 5000)
    assert.is_true(percentile(100, 5000) > 200000)
  end)

  it("gives any percentile", function()
    for ms = 1, 1000 do add(ms, 5000) end
    for _, percent in ipairs { 1, 10, 50, 90, 95, 99, 100 } do
      local told = percentile(percent, 5000)
      assert.message(percent).is_true(told / (10 * percent) > 0.85 and told / (10 * percent) < 1.15)
    end
  end)

  it("lets the last window fade while the next one fills, and then forgets it", function()
    local begin = 10 * WINDOW
    for _ = 1, 100 do add(1000, begin) end
    for _ = 1, 100 do add(10, begin + WINDOW) end
    assert.is_true(percentile(51, begin + WINDOW) > 800)
    assert.is_true(percentile(51, begin + WINDOW + WINDOW / 2) < 12)
    assert.is_true(percentile(90, begin + WINDOW + WINDOW / 2) > 800)
    assert.is_true(percentile(99, begin + 2 * WINDOW - 1) < 12)
    assert.is_true(percentile(50, begin + 2 * WINDOW) < 12)
    assert.equal(0, percentile(50, begin + 3 * WINDOW))
    add(100, begin + 3 * WINDOW)
    assert.is_true(percentile(1, begin + 3 * WINDOW) > 80)
  end)
end)
