--- Policies in the real binary: facts that all workers share, hashes that all workers agree on, policies of
-- plugins, shares that a reload changes.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local site = require "spec.support.site"
local sys = require "spec.support.sys"

local NAMES = { "one", "two", "three" }

local function rule(path, keys)
  local made = { id = path, path = path, serviceName = "api" }
  for key, value in pairs(keys) do made[key] = value end
  return made
end

-- A policy that a plugin brings: the instance with the fewest open streams, of those that may be asked.
local FEWEST = [[
return { name = "fewest", balance = function(_, _, instances)
  local best = instances[1]
  for _, instance in ipairs(instances) do
    if instance.open_streams < best.open_streams then best = instance end
  end
  return best
end }
]]

-- Replies with the facts of all instances.
local FACTS = [[
return { name = "facts", balance = function(ctx, _, instances)
  local out = {}
  for i, instance in ipairs(instances) do
    out[i] = { in_flight = instance.in_flight, time = instance.response_time, age = instance.answer_age,
      median = instance:response_percentile(50) }
  end
  return ctx:reply(200, out)
end }
]]

describe("policies over two workers", function()
  local origins, gw = {}, nil
  local conns = {}

  setup(function()
    local ports = {}
    for i, name in ipairs(NAMES) do
      origins[i] = origin.sse(name)
      ports[i] = origins[i].port
    end
    gw = site.start {
      services = { api = ports, weighted = {
        { port = ports[1], weight = 1 }, { port = ports[2], weight = 2 }, { port = ports[3], weight = 3 },
      } },
      rules = {
        rule("/events", { loadBalance = "least_connections" }),
        rule("/events", { id = "weighted", serviceName = "weighted", headers = { ["X-Weighted"] = "*" },
          loadBalance = "least_connections" }),
        rule("/echo/random", { loadBalance = "random" }),
        rule("/echo/fewest", { loadBalance = "fewest" }),
        rule("/echo/hash", { consistentHash = { key = "header:X-Key", boundedLoad = 0 } }),
        rule("/echo/ip", { ipHash = { useForwardedFor = true } }),
      },
      files = { ["plugins/fewest.lua"] = FEWEST },
      config = {
        pluginPath = gateway.plugin_path(), plugins = { "watcher" },
        frontend = { http = { trustedProxies = { "127.0.0.0/8" } } },
      },
      workers = 2,
    }
  end)

  teardown(function()
    gateway.stop_all()
    for _, server in ipairs(origins) do server:stop() end
  end)

  after_each(function()
    for _, conn in ipairs(conns) do conn:close() end
    conns = {}
    for _, server in ipairs(origins) do server:wait_stat("open_streams", 0) end
  end)

  local function open_streams()
    local counts = {}
    for i, server in ipairs(origins) do counts[i] = server:stats().open_streams end
    return counts
  end

  -- Asks for that many streams at once, and waits until all have begun.
  local function burst(count, headers)
    local first = #conns
    for i = first + 1, first + count do
      conns[i] = http.connect(gw.port)
      conns[i]:send(http.format { path = "/events", headers = headers })
    end
    for i = first + 1, first + count do assert.equal(200, conns[i]:response().status) end
  end

  it("spread long streams evenly, in bursts too (least_connections)", function()
    for round = 1, 4 do
      burst(45)
      for _, count in ipairs(open_streams()) do
        -- What two workers choose in the very same moment neither sees.
        assert.is_true(math.abs(count - 15 * round) <= 2)
      end
    end
  end)

  it("spread them as the weights say", function()
    burst(120, { ["X-Weighted"] = "1" })
    for i, count in ipairs(open_streams()) do assert.is_true(math.abs(count - 20 * i) <= 3) end
  end)

  it("fill up an instance that lost its streams", function()
    burst(60)
    origins[2]:restart_on_same_port()
    sys.wait_until(function()
      local stats = origins[1]:stats()
      return stats.open_streams == 20
    end, site.PATIENCE)
    burst(20)
    assert.is_true(open_streams()[2] >= 18)
  end)

  -- What each of many requests met: the origins in order, and the workers. Their connections are open all at
  -- once, so that no worker can take them all.
  local function ask(path, count, headers)
    local homes, workers, open = {}, {}, {}
    for i = 1, count do open[i] = http.connect(gw.port) end
    for i, conn in ipairs(open) do
      local got = conn:request { path = path, headers = headers and headers(i) }
      assert.equal(200, got.status)
      got:body()
      homes[i] = got:get "X-Server"
      workers[got:get "X-Worker"] = true
    end
    for _, conn in ipairs(open) do conn:close() end
    return homes, workers
  end

  local function kinds(list)
    local seen, n = {}, 0
    for _, item in ipairs(list) do
      if not seen[item] then seen[item], n = true, n + 1 end
    end
    return n
  end

  local BOTH = { ["1"] = true, ["2"] = true }

  -- Each key has one home, whichever worker is asked.
  local function assert_agreed(path, headers)
    local homes = {}
    for _ = 1, 4 do
      local found, workers = ask(path, 40, headers)
      for i, home in ipairs(found) do
        homes[i] = homes[i] or home
        assert.equal(homes[i], home)
      end
      assert.same(BOTH, workers)
    end
    assert.equal(3, kinds(homes))
  end

  it("agree on where a key is at home (consistent_hash)", function()
    assert_agreed("/echo/hash", function(i) return { ["X-Key"] = "user-" .. i } end)
  end)

  it("agree on where a client is at home, behind a proxy (ip_hash)", function()
    assert_agreed("/echo/ip", function(i)
      return { ["X-Forwarded-For"] = "203.0.113.7, 198.51.100." .. i }
    end)
  end)

  it("draw instances at random", function()
    assert.equal(3, kinds((ask("/echo/random", 60))))
  end)

  it("may come from a plugin, which knows of all workers' streams", function()
    burst(30)
    origins[3]:restart_on_same_port()
    -- Either worker notices each of the ten ends; then both send everybody there.
    sys.wait_until(function()
      local homes = ask("/echo/fewest", 10)
      return kinds(homes) == 1 and homes[1] == "three"
    end, site.PATIENCE)
    local homes, workers = ask("/echo/fewest", 40)
    assert.same({ 1, "three" }, { kinds(homes), homes[1] })
    assert.same(BOTH, workers)
  end)
end)

describe("facts about instances", function()
  local servers, gw = {}, nil

  -- What is known of an instance is known under the name of its service.
  setup(function()
    servers = { backend.listen(), backend.listen() }
    local ports, rules = { servers[1].port, servers[2].port }, {}
    for name, keys in pairs {
      average = { loadBalance = "response_time" }, percentile = { responseTime = { percentile = 95 } },
    } do
      keys.serviceName = name
      rules[#rules + 1] = rule("/" .. name, keys)
      rules[#rules + 1] = rule("/facts/" .. name, { serviceName = name, loadBalance = "facts" })
    end
    gw = gateway.start {
      services = { average = ports, percentile = ports }, rules = rules,
      files = { ["plugins/facts.lua"] = FACTS },
      config = { backend = { http = { keepAlive = false } } },
    }
  end)

  teardown(function()
    gateway.stop_all()
    for _, server in ipairs(servers) do server:close() end
  end)

  local function facts(name)
    return cjson.decode(http.fetch(gw.port, "/facts/" .. name).text)
  end

  local function ask(name)
    local conn = http.connect(gw.port)
    conn:send(http.format { path = "/" .. name })
    return conn
  end

  -- The request, at whichever server it is.
  local function take()
    local ready = sys.poll({ [servers[1].fd] = sys.POLLIN, [servers[2].fd] = sys.POLLIN }, sys.now() + 10)
    local which = ready[servers[1].fd] and 1 or 2
    return servers[which]:request(), which
  end

  local function finish(conn, request)
    request:ok "done"
    assert.equal("done", conn:response():body())
    conn:close()
    request.conn:close()
  end

  for _, name in ipairs { "average", "percentile" } do
    it(("send one request to whom nobody knows, and the others elsewhere (%s)"):format(name), function()
      local conn = ask(name)
      local request, asked = take()
      local known = 3 - asked
      for _ = 1, 10 do
        local next_conn = ask(name)
        local next_request, which = take()
        assert.equal(known, which)
        finish(next_conn, next_request)
      end
      sys.wait_until(function() return facts(name)[known].in_flight == 0 end, site.PATIENCE)
      local now = facts(name)
      assert.equal(1, now[asked].in_flight)
      assert.same({ 0, 0 }, { now[asked].time, now[asked].median })
      assert.is_true(now[known].time > 0 and now[known].median > 0)
      finish(conn, request)
    end)
  end

  it("tell how long answers took", function()
    local conn = ask "average"
    local request, which = take()
    local before, began = facts("average")[which], sys.now()
    sys.wait_until(function() return sys.now() > began + 0.25 end)
    finish(conn, request)
    local after = facts("average")[which]
    assert.is_true(after.time > before.time)
    assert.is_true(after.age < 5)
  end)
end)

describe("canary", function()
  it("moves more keys with each reload, and none back", function()
    local old, new = origin.sse "old", origin.sse "new"
    local gw = site.start {
      services = { stable = old.port, next = new.port }, workers = 2,
    }
    local moved, count = {}, 0
    for _, percent in ipairs { 0, 20, 60, 100 } do
      local canary = { services = { stable = 100 - percent, next = percent }, key = "cookie:user" }
      gw:renew { rules = { { path = "/echo/*", canary = canary } } }
      local now = 0
      for i = 1, 60 do
        local got = http.fetch(gw.port, { path = "/echo/x", headers = { Cookie = "user=u" .. i } })
        local is_new = got:get "X-Server" == "new"
        assert.is_true(is_new or not moved[i])
        moved[i] = is_new
        now = now + (is_new and 1 or 0)
      end
      assert.is_true(now > count or percent == 0 and now == 0)
      count = now
    end
    assert.equal(60, count)
    gateway.stop_all()
    old:stop()
    new:stop()
  end)
end)
