--- gateway.shared and gateway.counter on the stand-in of gateway.testing. The same cases run on the runtime's
-- functions in spec/runtime/shared_spec.
local testing = require "gateway.testing"

local cases = require "spec.support.cases"
local gateway = require "gateway"
local shared_cases = require "spec.support.shared_cases"

describe("gateway.shared of gateway.testing", function()
  before_each(testing.reset)

  for _, case in ipairs(shared_cases) do
    it(case[1], function()
      local got = cases.play(case, gateway.shared "cases", testing.advance)
      local ok, expected = cases.fits(case, got)
      if not ok then error(("gave   %s\nnot    %s"):format(got, expected), 0) end
    end)
  end

  it("is empty again after a reset", function()
    gateway.shared("x"):set("a", 1)
    testing.reset()
    assert.is_nil(gateway.shared("x"):get "a")
  end)

  it("is there while a plugin is loaded, and in its hooks", function()
    local d = gateway.shared "x"
    local p = testing.plugin({ name = "p", new = function()
      d:incr "loads"
      return {}
    end, access = function() d:incr "asked" end })
    p:access(testing.context())
    assert.same({ 1, 1 }, { d:get "loads", d:get "asked" })
  end)
end)
