--- What the library makes of host names, when the runtime tells what they stand for.
local testing = require("gateway.testing")
local core = require("gateway.core")
core.yaml = require("spec.support.yaml")

local loader = require("gateway.loader")
local source = require("gateway.source")

local YAML = [[
registry:
  static:
    services:
      - name: api
        instances:
          - {id: a, address: a.test, port: 80, weight: 3}
          - {id: fixed, address: "10.0.0.1", port: 81}
          - {id: down, address: down.test, port: 80, health: unhealthy}
      - name: local
        instances: [{address: localhost, port: 82}, {address: "unix:/run/x"}]
router:
  rules:
    - {id: api, path: /api, serviceName: api, loadBalance: watching}
    - {id: local, path: /local, serviceName: local, loadBalance: watching}
]]

local WATCHING = [[
return { name = "watching", balance = function(ctx, _, instances)
  ctx.shared.list = instances
  return instances[1]
end }
]]

describe("host names in a program", function()
  local program

  before_each(function()
    local files = { ["conf/x.yaml"] = YAML, ["plugins/watching.lua"] = WATCHING }
    local errors
    program, errors = loader.load({ file = "conf/x.yaml", source = source.memory(files) })
    assert.same({}, errors)
  end)

  -- The list that a policy gets.
  local function candidates(path)
    local ctx = program.open(testing.context({ path = path })._x)
    program.route(ctx)
    program.balance(ctx)
    return ctx.shared.list
  end

  local function ids(list)
    local out = {}
    for i, instance in ipairs(list) do out[i] = instance.index .. "=" .. instance.id end
    return table.concat(out, " ")
  end

  it("are told to the runtime, apart from what has an address", function()
    local named = {}
    for i, name in ipairs(program.names) do
      named[i] = ("%s %s %s:%d"):format(name.service, name.id, name.address, name.port)
    end
    assert.same({ "api a a.test:80", "api down down.test:80" }, named)
    local rest = {}
    for i, instance in ipairs(program.instances) do
      local port = tostring(instance.port)
      rest[i] = ("%d %s %s:%s"):format(instance.index, instance.id, instance.address, port)
    end
    assert.same({ "1 fixed 10.0.0.1:81", "2 localhost:82 127.0.0.1:82",
      "3 unix:/run/x unix:/run/x:nil" }, rest)
  end)

  it("bring instances that are like their entry, behind those with an address", function()
    assert.equal("1=fixed", ids(candidates("/api")))
    program.resolved(1, { { index = 4, id = "a@10.1.0.1", address = "10.1.0.1" },
      { index = 5, id = "a@10.1.0.2", address = "10.1.0.2" } })
    program.resolved(2, { { index = 6, id = "down@10.2.0.1", address = "10.2.0.1" } })
    local list = candidates("/api")
    assert.equal("1=fixed 4=a@10.1.0.1 5=a@10.1.0.2", ids(list))
    local got = list[3]
    assert.same({ "api", "10.1.0.2", "a.test", 80, 3, "healthy", 0 },
      { got.service, got.address, got.host, got.port, got.weight, got.health, got.in_flight })
    assert.equal("2=localhost:82 3=unix:/run/x", ids(candidates("/local")))
  end)

  it("make a new list when they change, of the same instances where these stay", function()
    local one, two = { index = 4, id = "a@10.1.0.1", address = "10.1.0.1" },
      { index = 5, id = "a@10.1.0.2", address = "10.1.0.2" }
    program.resolved(1, { one, two })
    local before = candidates("/api")
    assert.equal(before, candidates("/api"))
    program.resolved(1, { two })
    local after = candidates("/api")
    assert.not_equal(before, after)
    assert.equal("1=fixed 4=a@10.1.0.1 5=a@10.1.0.2", ids(before))
    assert.equal("1=fixed 5=a@10.1.0.2", ids(after))
    assert.equal(before[1], after[1])
    assert.equal(before[3], after[2])
    -- The place of the first one has gone to another address.
    program.resolved(1, { { index = 4, id = "a@10.1.0.3", address = "10.1.0.3" }, two })
    assert.not_equal(before[2], candidates("/api")[2])
    program.resolved(1, {})
    assert.equal("1=fixed", ids(candidates("/api")))
  end)

  it("leave the streams of an address that is gone without an instance, and others with theirs", function()
    program.resolved(1, { { index = 4, id = "a@10.1.0.1", address = "10.1.0.1" } })
    local handle = testing.context({ path = "/api" })._x
    local ctx = assert(program.adopt(handle, "", "api", "api", "a@10.1.0.1", false))
    assert.equal("10.1.0.1", ctx._instance.address)
    program.resolved(1, {})
    assert.is_nil(program.adopt(handle, "", "api", "api", "a@10.1.0.1", false)._instance)
  end)
end)
