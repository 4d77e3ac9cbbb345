local decisions = require("spec.support.decisions")
local cases = dofile "spec/runtime/data/http1_cases.lua"

describe("docs/http.md", function()
  it("has the tables that the cases make (make docs)", function()
    local file = assert(io.open("docs/http.md"))
    local text = file:read("*a")
    file:close()
    assert.equal(decisions.update(text, cases), text)
  end)

  it("names each case once", function()
    for _, list in pairs(cases) do
      local seen = {}
      for _, case in ipairs(list) do
        assert.is_nil(seen[case[1]], case[1])
        assert.truthy(case.source and case.category, case[1])
        seen[case[1]] = true
      end
    end
  end)
end)
