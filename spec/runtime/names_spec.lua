--- Names of a generation: which of its places their addresses have, and when others may have these.
local ffi = require "ffi"
local dns = require "spec.support.dns"
local net = require "support.net"
local rt = require "support.runtime"

local C = rt.load("gateway/names.h", "gateway/exchange.h", "net/resolve.h", "base/shm.h")

-- Callbacks for the process, as busted loads this file afresh each time it runs.
local registry = debug.getregistry()
local shared = registry["gatewayd.spec.names"]
if not shared then
  shared = {}
  registry["gatewayd.spec.names"] = shared
  ffi.cdef "void spec_free(void *) __asm__(\"free\");"
  local resolved = "void (*)(struct gw_generation *, unsigned, struct gw_instance *const *, unsigned)"
  shared.resolved = ffi.cast(resolved, function(...) shared.on_resolved(...) end)
  shared.ready = ffi.cast("void (*)(void *)", function() shared.readies = shared.readies + 1 end)
end

describe("the names of a generation", function()
  local loop, server, gateway, shm, generations, told, zone

  before_each(function()
    loop, server, shm = net.loop(), dns.listen(), ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, 32 * 1024 * 1024))
    gateway = ffi.new "struct gw_gateway"
    local stats = C.gw_stats_new(shm)
    C.gw_stats_enlist(stats, 1)
    C.gw_gateway_init(gateway, loop, C.gw_facts_new(shm, stats), 1)
    C.gw_log_setup(C.GW_LOG_ERROR, C.GW_LOG_TEXT, nil)
    C.gw_pool_settings(gateway.pool, ffi.new "struct gw_settings")
    generations, told, zone, shared.readies = {}, {}, {}, 0
    shared.on_resolved = function(_, number, instances, count)
      local list = {}
      for i = 0, count - 1 do
        local text = ffi.new("char[?]", C.GW_ADDR_TEXT)
        list[i + 1] = instances[i].index .. "=" .. ffi.string(C.gw_addr_text(instances[i].addr, text))
      end
      told[#told + 1] = number .. ": " .. table.concat(list, " ")
    end
  end)

  local function free(generation)
    C.gw_names_free(generation)
    for i = 0, generation.instance_count - 1 do C.gw_instance_unref(generation.instances[i]) end
    ffi.C.spec_free(generation.instances)
  end

  after_each(function()
    C.gw_log_setup(C.GW_LOG_INFO, C.GW_LOG_TEXT, nil)
    for _, each in ipairs(generations) do free(each.generation) end
    C.gw_gateway_fini(gateway)
    server:close()
    net.settle(loop, 3)
    net.fini(loop)
    net.forget()
    C.gw_shm_fini(shm)
  end)

  local function new(...)
    local each = { generation = ffi.new "struct gw_generation", hooks = ffi.new "struct gw_hooks" }
    each.hooks.resolved = shared.resolved
    each.generation.gateway, each.generation.hooks = gateway, each.hooks
    local settings = each.generation.settings
    settings.dns_servers = server.servers
    settings.dns_timeout_ms, settings.dns_min_ttl_ms, settings.dns_max_ttl_ms = 300, 1, 1
    settings.dns_hold_ms = 1
    for _, host in ipairs { ... } do C.gw_names_add(each.generation, "api", "id", host, 80, false) end
    generations[#generations + 1] = each
    return each.generation
  end

  local function turn_until(condition)
    local tick = net.timer(loop, function() end)
    net.turn_until(loop, function()
      server:serve(zone)
      C.gw_timer_start(loop, tick.timer, 1)
      return condition()
    end)
    C.gw_timer_stop(loop, tick.timer)
  end

  -- Until the program has been told that.
  local function wait_told(text)
    turn_until(function() return told[#told] == text end)
  end

  local function rest_is_over(generation)
    for i = 0, generation.instance_count - 1 do
      if generation.instances[i].gone_ms > 0 then generation.instances[i].gone_ms = 1 end
    end
  end

  it("are called ready once, when there is an answer for each", function()
    zone["a.test"] = { "10.0.0.1" }
    C.gw_names_start(new("a.test", "b.test", "c.test"), shared.ready, nil)
    wait_told "1: 1=10.0.0.1:80"
    assert.equal(0, shared.readies)
    zone["b.test"] = false -- and c.test says nothing, until its time has passed
    turn_until(function() return shared.readies == 1 end)
    C.gw_names_start(new(), shared.ready, nil)
    assert.equal(2, shared.readies)
  end)

  it("have places: who comes back gets its own, and nobody the one of another for a while", function()
    local generation = new "a.test"
    zone["a.test"] = { "10.0.0.1", "10.0.0.2" }
    C.gw_names_start(generation, nil, nil)
    wait_told "1: 1=10.0.0.1:80 2=10.0.0.2:80"
    local first = generation.instances[0]
    zone["a.test"] = { "10.0.0.2", "10.0.0.3" }
    wait_told "1: 2=10.0.0.2:80 3=10.0.0.3:80"
    assert.equal(first, generation.instances[0])
    assert.is_true(first.gone_ms > 0)
    zone["a.test"] = { "10.0.0.3", "10.0.0.1" }
    wait_told "1: 1=10.0.0.1:80 3=10.0.0.3:80"
    assert.equal(first, generation.instances[0])
    assert.equal(0, tonumber(first.gone_ms))
    rest_is_over(generation)
    zone["a.test"] = { "10.0.0.4", "10.0.0.1" }
    wait_told "1: 1=10.0.0.1:80 2=10.0.0.4:80"
    assert.equal(3, generation.instance_count)
  end)

  it("take no more places, facts or entries of the pool, however many addresses come by", function()
    local generation = new "a.test"
    zone["a.test"] = { "10.0.0.1" }
    C.gw_names_start(generation, nil, nil)
    for i = 1, 100 do
      zone["a.test"] = { "10.0.0." .. i }
      local place = i % 2 == 1 and 1 or 2
      wait_told(("1: %d=10.0.0.%d:80"):format(place, i))
      rest_is_over(generation)
    end
    assert.equal(2, generation.instance_count)
    net.settle(loop, 3)
    assert.equal(2, tonumber(gateway.pool.hosts.count))
    local used = 0
    for place = 1, C.GW_FACTS_MAX - 1 do used = used + C.gw_facts_sum(gateway.facts, place, 0) end
    assert.equal(2, used)
  end)

  it("take a bounded number of places also when all addresses are others each time", function()
    local generation, last = new "a.test", nil
    C.gw_names_start(generation, nil, nil)
    for turn = 1, 12 do
      local all, expected = {}, {}
      for i = 1, C.GW_NAME_ADDRS do
        all[i] = ("10.0.%d.%d"):format(turn, i)
        expected[i] = "%d+=" .. all[i] .. ":80"
      end
      zone["a.test"] = all
      turn_until(function()
        last = told[#told]
        return last and last:find("^1: " .. table.concat(expected, " ") .. "$")
      end)
    end
    assert.is_true(generation.instance_count <= 256 + 2 * C.GW_NAME_ADDRS)
    local seen = {}
    for index in last:gmatch "(%d+)=" do
      assert.is_nil(seen[index])
      seen[index] = true
    end
  end)

  it("are inherited by the next generation, which is ready at once then", function()
    zone["a.test"] = { "10.0.0.1" }
    local old = new "a.test"
    C.gw_names_start(old, nil, nil)
    wait_told "1: 1=10.0.0.1:80"
    gateway.current = old
    zone = {}
    local next_one = new("more.test", "a.test")
    C.gw_names_start(next_one, shared.ready, nil)
    assert.equal("2: 1=10.0.0.1:80", told[#told])
    assert.not_equal(old.instances[0], next_one.instances[0])
    assert.equal(old.instances[0].fact, next_one.instances[0].fact)
    assert.equal(0, shared.readies)
    zone["more.test"] = false
    turn_until(function() return shared.readies == 1 end)
    C.gw_names_stop(old)
    C.gw_names_tell(next_one)
    assert.same({ "1: ", "2: 1=10.0.0.1:80" }, { told[#told - 1], told[#told] })
    gateway.current = nil
  end)

  it("have a fact for each address, also where an id is too long for it", function()
    local long = ("x"):rep(240)
    local generation = new()
    for _, id in ipairs { long .. "a", long .. "b" } do
      C.gw_names_add(generation, "api", id, "a.test", 80, false)
    end
    zone["a.test"] = { "10.0.0.1", "10.0.0.2" }
    C.gw_names_start(generation, nil, nil)
    turn_until(function() return #told == 2 end)
    assert.equal(4, generation.instance_count)
    assert.not_equal(generation.instances[0].fact, generation.instances[1].fact)
    assert.equal(long .. "b@10.0.0.2", ffi.string(generation.instances[3].id))
  end)
end)
