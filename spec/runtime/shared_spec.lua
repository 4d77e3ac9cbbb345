--- What plugins share, in C: the cases of gateway.shared in a VM of the runtime with a clock that is set by
-- hand, and what happens when several processes work on it, and when one of them is killed.
local bit = require "bit"
local ffi = require "ffi"
local forks = require "spec.support.forks"
local rt = require "support.runtime"
local sys = require "support.sys"
local vms = require "spec.support.vm"
require "gateway.testing" -- the cases ask for a gateway when they are loaded here, to be counted
local shared_cases = require "spec.support.shared_cases"

local C = rt.load("base/shared.h", "base/map.h", "net/loop.h", "script/vm.h")
local SIGKILL = 9
local run, with_vm = vms.run, vms.with

-- Runs case number CASE; NOW is the address of the loop's clock.
local PLAYER = [[
local clock = require("ffi").cast("uint64_t *", %s)
local case = dofile("spec/support/shared_cases.lua")[%d]
local function advance(seconds) clock[0] = clock[0] + seconds * 1000 end
return dofile("spec/support/cases.lua").play(case, require("gateway").shared("cases"), advance)
]]

describe("gateway.shared in the runtime", function()
  local library, shm, env, loop

  setup(function() library = C.gw_library_new "lua" end)
  teardown(function() C.gw_library_free(library) end)

  before_each(function()
    shm = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, 1100000))
    loop = ffi.new("struct gw_loop", { now_ms = 1000000 })
    env = ffi.new("struct gw_script_env", { library = library, loop = loop })
    env.shared = C.gw_dict_new(shm, 1000000)
    assert(env.shared ~= nil)
  end)

  after_each(function()
    assert.is_true(C.gw_dict_check(env.shared))
    C.gw_shm_fini(shm)
  end)

  local cases = require "spec.support.cases"
  for number, case in ipairs(shared_cases) do
    it(case[1], function()
      with_vm(env, function(vm)
        local clock = tostring(ffi.cast("uintptr_t", ffi.cast("char *", loop) + ffi.offsetof(loop, "now_ms")))
        local got = run(vm, PLAYER:format(clock, number))
        local ok, expected = cases.fits(case, got)
        if not ok then error(("gave   %s\nnot    %s"):format(got, expected), 0) end
      end)
    end)
  end

  it("is one for several VMs", function()
    with_vm(env, function(one)
      with_vm(env, function(other)
        run(one, "require('gateway').shared('x'):set('a', 'seen')  return ''")
        assert.equal("seen", run(other, "return require('gateway').shared('x'):get('a')"))
      end)
    end)
  end)

  it("is a private one, empty at first, where there are no workers", function()
    local alone = ffi.new("struct gw_script_env", { library = library })
    with_vm(alone, function(one)
      local text = "return tostring(require('gateway').shared('x'):incr('a'))"
      assert.equal("1", run(one, text))
      assert.equal("2", run(one, text))
      with_vm(alone, function(other) assert.equal("1", run(other, text)) end)
    end)
  end)

  it("stays within its bytes, and keeps what is used", function()
    with_vm(env, function(vm)
      assert.equal("true 1", run(vm, [[
        local d = require("gateway").shared("x")
        local good = true
        d:set("used", 1)
        for i = 1, 2000 do good = good and d:set(i, ("v"):rep(4096)) and d:get("used") == 1 end
        return tostring(good) .. " " .. d:get("used")
      ]]))
    end)
    local stats = ffi.new "struct gw_dict_stats"
    C.gw_dict_stats(env.shared, stats)
    assert.is_true(stats.bytes <= stats.max_bytes and stats.bytes > stats.max_bytes * 9 / 10)
    assert.is_true(stats.evicted > 1500)
  end)

  describe("between processes", function()
    local child, wait = forks.child, forks.wait

    after_each(forks.kill_all)

    local group = rt.slice "d:x"

    local function place(key)
      return ffi.new("struct gw_shared_place", { env.shared, group, rt.slice(key), 1000, 0, 0 })
    end

    local function incr(at, by)
      local number = ffi.new("double[1]", by)
      assert(C.gw_shared_incr(at, 0, number) == 0)
      return number[0]
    end

    it("loses no count", function()
      local pids = {}
      for i = 1, 4 do
        pids[i] = child(function()
          local at, counted, count = place "n", place "c", ffi.new "double[1]"
          for _ = 1, 20000 do
            incr(at, i)
            assert(C.gw_counter_add(counted, 1000000, 1, count))
          end
        end)
      end
      for _, pid in ipairs(pids) do assert.equal(0, wait(pid)) end
      assert.equal(200000, incr(place "n", 0))
      assert.equal(80000, C.gw_counter_get(place "c", 1000000))
    end)

    it("has one that adds first", function()
      local value = ffi.new("struct gw_value", { kind = C.GW_VALUE_TRUTH, truth = true })
      local pids = {}
      for i = 1, 4 do
        pids[i] = child(function()
          local won = place("won" .. i)
          for n = 1, 2000 do
            if C.gw_shared_set(place("key" .. n % 500), value, true) == C.GW_SHARED_OK then incr(won, 1) end
          end
        end)
      end
      for _, pid in ipairs(pids) do assert.equal(0, wait(pid)) end
      local sum = 0
      for i = 1, 4 do sum = sum + incr(place("won" .. i), 0) end
      assert.equal(500, sum)
    end)

    -- The worker says how many it has done; the one it was at when it was killed may have counted.
    it("loses no count of a worker that is killed inside", function()
      local done = ffi.cast("volatile uint32_t *", C.gw_shm_alloc(shm, 64))
      assert(done ~= nil)
      local random = rt.random(5)
      local stats = ffi.new "struct gw_dict_stats"
      local least, most, kills = 0, 0, 0
      repeat
        done[0] = 0
        local pid = child(function()
          local at, number = place "n", ffi.new "double[1]"
          while true do
            number[0] = 1
            C.gw_shared_incr(at, 0, number)
            done[0] = done[0] + 1
          end
        end)
        local enough = random(5, 1000)
        sys.wait_until(function() return done[0] >= enough end, 20, "a worker at work")
        sys.C.spec_kill(pid, SIGKILL)
        assert.equal(SIGKILL, bit.band(wait(pid), 127))
        kills = kills + 1
        least, most = least + done[0], most + done[0] + 1
        local sum = incr(place "n", 0)
        assert(sum >= least and sum <= most, ("%d is not from %d to %d"):format(sum, least, most))
        assert(C.gw_dict_check(env.shared))
        C.gw_dict_stats(env.shared, stats)
      until stats.repairs >= 10 or kills >= 5000 -- of 25 some find it inside
      assert.is_true(stats.repairs >= 10)
    end)
  end)
end)
