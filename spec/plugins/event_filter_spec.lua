local t = require("gateway.testing")

local function filter(conf)
  return t.plugin("plugins/event_filter.lua", conf)
end

-- The types of the events that pass.
local function passing(plugin, events)
  local ctx, out = t.context(), {}
  for _, ev in ipairs(events) do
    for _, item in ipairs((plugin:event(ctx, ev))) do out[#out + 1] = item.id or item.type end
  end
  return out
end

describe("event_filter", function()
  local kinds = { { type = "debug", data = "1" }, { type = "tick", data = "2" }, { data = "3" } }

  it("drops by type", function()
    assert.same({ "tick", "message" }, passing(filter({ drop = { "debug" } }), kinds))
    assert.same({ "debug", "tick" }, passing(filter({ drop = { "message" } }), kinds))
  end)

  it("keeps by type", function()
    assert.same({ "tick" }, passing(filter({ keep = { "tick", "status" } }), kinds))
    assert.same({}, passing(filter({ keep = { "tick" }, drop = { "tick" } }), kinds))
  end)

  local levels = {
    { id = "a", json = { log = { level = "debug" } } }, { id = "b", json = { log = { level = "info" } } },
    { id = "c", json = { log = { level = 5 } } }, { id = "d", json = { log = 1 } },
    { id = "e", data = "no json" },
    { id = "f" }, { id = "g", data = '{"log":{"level":null}}' },
    { id = "h", data = '{"log":{"level":true}}' },
  }

  it("drops and keeps by a field of JSON data", function()
    assert.same({ "b", "c", "d", "e", "f", "g", "h" },
      passing(filter({ field = "log.level", drop = { "debug" } }), levels))
    assert.same({ "b", "c", "h" },
      passing(filter({ field = "log.level", keep = { "info", 5, "true" } }), levels))
    assert.same({ "g" }, passing(filter({ field = "log.level", keep = { "null" } }), levels))
  end)

  it("passes what it keeps byte for byte", function()
    local text = ": hello\n\nevent:tick\r\ndata:  x\r\nfoo\r\n\r\nid: 1\rdata\r\r"
    assert.equal(text, (filter({ drop = { "debug" } }):stream(t.context(), text)))
  end)

  it("wants something to do", function()
    assert.error_matches(function() filter({}) end, "event_filter: new: give drop or keep")
    assert.error_matches(function() filter({ dropp = { "x" } }) end,
      'unknown key "dropp" %(did you mean "drop"%?%)')
  end)
end)
