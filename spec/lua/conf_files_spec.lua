--- The configurations that come with the gateway, with the plugins and Lua routes that they name.
require("gateway.testing")
local core = require("gateway.core")
core.yaml = require("spec.support.yaml")

local config = require("gateway.config")
local loader = require("gateway.loader")
local source = require("gateway.source")

local function names_in(dir)
  local names = {}
  local pipe = assert(io.popen("ls '" .. dir .. "' 2>/dev/null"))
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  return names
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local files = {}
for _, name in ipairs(names_in("conf")) do
  if name:find("%.yaml$") then files[#files + 1] = "conf/" .. name end
end

-- Names of rules, sorted.
local function rule_ids(tree)
  local ids = {}
  for _, rule in ipairs(tree.router.rules) do ids[#ids + 1] = rule.id end
  table.sort(ids)
  return table.concat(ids, " ")
end

describe("the files in conf", function()
  local list = core.list
  setup(function() core.list = names_in end)
  teardown(function() core.list = list end)

  it("are there", function()
    assert.is_true(#files >= 10)
  end)

  for _, path in ipairs(files) do
    it("load without a fault, plugins and routes included: " .. path, function()
      local program, errors = loader.load({ file = path, source = source.disk() })
      assert.equal("", table.concat(errors, "\n"))
      assert.is_table(program)
    end)

    it("mean the same when they are printed: " .. path, function()
      local tree = assert(config.load(read(path), path, { yaml = core.yaml }))
      local again, errors = config.load(config.print(tree), path, { yaml = core.yaml })
      assert.equal("", table.concat(errors, "\n"))
      assert.same(tree, again)
    end)

    it("begin with a comment that says what they show: " .. path, function()
      assert.matches("^# %S", read(path))
    end)
  end

  it("serve the demo", function()
    local tree = assert(config.load(read("conf/gateway-sse.yaml"), "x", { yaml = core.yaml }))
    assert.equal("echo echo-below health json page sse-events sse-notifications", rule_ids(tree))
    local ports = {}
    for _, service in ipairs(tree.registry.static.services) do
      for _, instance in ipairs(service.instances) do
        ports[#ports + 1] = service.name .. ":" .. instance.port
      end
    end
    assert.same({ "sse-service:3010", "event-service:3011", "event-service:3012" }, ports)
    assert.equal(8080, tree.frontend.http.port)
  end)

  it("show every key of a rule", function()
    local seen = {}
    for _, path in ipairs(files) do
      for key in read(path):gmatch("[{ ,](%a+):") do seen[key] = true end
    end
    for key in ([[path methods headers serviceName loadBalance timeout stickySession sessionAffinity plugins
      onError pathParam queryParam headerName cookieName retry firstEvent ipHash consistentHash responseTime
      canary key
      replicaCount boundedLoad useForwardedFor subnetMask percentile trustedProxies]]):gmatch("%S+") do
      assert.is_true(seen[key], key)
    end
  end)
end)

describe("conf/routes/status.lua", function()
  it("stamps status events, and drops the others where only those are wanted", function()
    local env = setmetatable({}, { __index = _G })
    local rules = setfenv(assert(loadfile("conf/routes/status.lua")), env)()
    local event = require("gateway.event")
    local ctx = { route = { id = "r" }, req = { path = "/status-events", headers = {} } }
    local status = event.new({ type = "status", data = '{\n  "server": "sse-1"\n}' })
    local tick = event.new({ type = "tick", data = "1" })
    assert.is_nil(rules[1].on_event(ctx, status))
    assert.equal("r", status.json.gateway.rule)
    assert.matches("^%d%d:%d%d:%d%d$", status.json.gateway.at)
    assert.matches('^{\n  "server": "sse%-1"', status.data)
    local text = event.new({ type = "status", data = "no JSON" })
    assert.is_nil(rules[1].on_event(ctx, text))
    assert.equal("no JSON", text.data)
    assert.is_false(rules[1].on_event(ctx, tick))
    assert.is_nil(rules[2].on_event(ctx, tick))
    assert.equal("event: tick\ndata: 1\n\n", tick.raw)
    rules[1].access(ctx)
    assert.equal("/events", ctx.req.path)
    assert.is_false(rules[2].match(ctx))
  end)
end)
