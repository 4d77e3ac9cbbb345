local bit = require "bit"
local ffi = require "ffi"
local forks = require "spec.support.forks"
local rt = require "support.runtime"
local sys = require "support.sys"
local C = rt.load("base/dict.h", "base/shm.h")

local SIGKILL = 9

local out_size = C.GW_DICT_VALUE_MAX
local out = ffi.new("char[?]", out_size)

describe("gw_dict", function()
  local shm, dict, now

  local function open(bytes)
    if shm then C.gw_shm_fini(shm) end
    shm = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, bytes + 4096))
    dict = assert(C.gw_dict_new(shm, bytes))
    assert(dict ~= nil)
  end

  before_each(function()
    now = 1000
    open(100000)
  end)

  after_each(function()
    assert.is_true(C.gw_dict_check(dict))
    C.gw_shm_fini(shm)
    shm = nil
  end)

  local function set(group, key, value, ttl, max)
    return C.gw_dict_set(dict, rt.slice(group), rt.slice(key), rt.slice(value), now, ttl or 0,
      max or 0)
  end

  local function get(group, key, slide)
    local n = C.gw_dict_get(dict, rt.slice(group), rt.slice(key), out, out_size, now, slide or 0)
    return n >= 0 and ffi.string(out, n) or nil
  end

  local function delete(group, key)
    return C.gw_dict_delete(dict, rt.slice(group), rt.slice(key), now)
  end

  local function count(group) return tonumber(C.gw_dict_count(dict, rt.slice(group or ""))) end

  local function stats()
    local s = ffi.new "struct gw_dict_stats"
    C.gw_dict_stats(dict, s)
    return s
  end

  it("is refused where the mapping is too small for it, or it for anything", function()
    local small = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(small, 65536))
    assert.is_true(C.gw_dict_new(small, 1000000) == nil)
    assert.is_true(C.gw_dict_new(small, 100) == nil)
    assert.equal(0, tonumber(small.used))
    assert.is_false(C.gw_dict_new(small, 60000) == nil)
    C.gw_shm_fini(small)
  end)

  it("keeps values by group and key", function()
    assert.is_nil(get("g", "k"))
    assert.is_true(set("g", "k", "one"))
    assert.is_true(set("h", "k", "two"))
    assert.equal("one", get("g", "k"))
    assert.equal("two", get("h", "k"))
    assert.is_nil(get("g", "kk"))
    assert.is_true(set("g", "k", "three"))
    assert.equal("three", get("g", "k"))
    assert.equal(1, count "g")
    assert.equal(2, count())
  end)

  it("deletes, and says whether there was one", function()
    set("g", "k", "v")
    assert.is_true(delete("g", "k"))
    assert.is_false(delete("g", "k"))
    assert.is_nil(get("g", "k"))
    assert.equal(0, count "g")
    assert.equal(0, tonumber(stats().bytes))
  end)

  it("takes any bytes, up to its limits", function()
    local long_group = ("g"):rep(C.GW_DICT_GROUP_MAX)
    local long_key = ("k\0"):rep(C.GW_DICT_KEY_MAX / 2)
    local long_value = ("v\255"):rep(C.GW_DICT_VALUE_MAX / 2)
    assert.is_true(set("", "", ""))
    assert.equal("", get("", ""))
    assert.is_true(set(long_group, long_key, long_value))
    assert.is_true(get(long_group, long_key) == long_value)
    assert.equal(1, count(long_group))
    assert.is_false(set(long_group .. "g", "k", "v"))
    assert.is_false(set("g", long_key .. "k", "v"))
    assert.is_false(set("g", "k", long_value .. "v"))
    assert.is_nil(get(long_group .. "g", "k"))
    assert.equal(2, count())
  end)

  it("keeps values of every length around the borders of its cells", function()
    for _, key_len in ipairs { 0, 1, 71, 72, 73, 188, 189 } do
      local key = ("k"):rep(key_len)
      for len = 0, 400, key_len == 1 and 1 or 29 do
        local value = ("0123456789"):rep(40):sub(1, len)
        assert(set("g", key, value))
        assert(get("g", key) == value, key_len .. ", " .. len)
      end
    end
    assert.equal(7, count "g")
  end)

  it("gives what fits and says how much there is", function()
    set("g", "k", "0123456789")
    ffi.fill(out, 20, 120)
    assert.equal(10, C.gw_dict_get(dict, rt.slice "g", rt.slice "k", out, 4, now, 0))
    assert.equal("0123xx", ffi.string(out, 6))
    assert.equal(10, C.gw_dict_get(dict, rt.slice "g", rt.slice "k", nil, 0, now, 0))
  end)

  describe("time to live", function()
    it("ends an entry at its time", function()
      set("g", "k", "v", 100)
      now = 1099
      assert.equal("v", get("g", "k"))
      now = 1100
      assert.is_nil(get("g", "k"))
      assert.equal(0, count "g")
    end)

    it("slides when it is asked to", function()
      set("g", "k", "v", 100)
      now = 1090
      assert.equal("v", get("g", "k", 100))
      now = 1180
      assert.equal("v", get("g", "k"))
      now = 1190
      assert.is_nil(get("g", "k", 100))
    end)

    it("is for ever at 0, and stays so", function()
      set("g", "k", "v", 0)
      now = 1e15
      assert.equal("v", get("g", "k", 10))
      now = 2e15
      assert.equal("v", get("g", "k"))
    end)

    it("starts anew with each set, and is for ever where it is endless", function()
      set("g", "k", "v", 100)
      now = 1050
      set("g", "k", "v", 0xffffffffffffffffULL)
      now = 1e18
      assert.equal("v", get("g", "k"))
    end)

    it("makes room by itself as others are set", function()
      for i = 1, 10 do set("g", "k" .. i, "v", 100) end
      now = 2000
      for i = 1, 10 do set("g", "n" .. i, "v", 100) end
      assert.equal(10, count "g")
      assert.equal(0, tonumber(stats().evicted))
    end)
  end)

  describe("a bound on the entries of a group", function()
    it("holds exactly, and the least recently used one goes", function()
      for _, key in ipairs { "a", "b", "c" } do set("g", key, key, 0, 3) end
      get("g", "a")
      set("g", "d", "d", 0, 3)
      assert.equal(3, count "g")
      assert.is_nil(get("g", "b"))
      assert.equal("a", get("g", "a"))
      set("g", "c", "again", 0, 3)
      set("g", "e", "e", 0, 3)
      assert.is_nil(get("g", "d"))
      assert.equal("again", get("g", "c"))
      assert.equal(3, count "g")
    end)

    it("can be one", function()
      for i = 1, 5 do
        set("g", "k" .. i, "v", 0, 1)
        assert.equal(1, count "g")
      end
      assert.equal("v", get("g", "k5"))
    end)

    it("leaves other groups alone", function()
      for i = 1, 20 do set("other" .. i % 4, "k" .. i, "v") end
      for i = 1, 20 do set("g", "k" .. i, "v", 0, 2) end
      assert.equal(22, count())
      assert.equal(2, count "g")
    end)

    it("may be smaller the next time", function()
      for i = 1, 10 do set("g", "k" .. i, "v", 0, 10) end
      set("g", "last", "v", 0, 4)
      assert.equal(4, count "g")
      for _, key in ipairs { "k8", "k9", "k10", "last" } do assert.equal("v", get("g", key)) end
    end)
  end)

  describe("when it is full", function()
    it("gives up the least recently used entry", function()
      for i = 1, 5000 do
        assert.is_true(set("g", "k" .. i, ("v"):rep(50)))
        assert.is_true(get("g", "k1") ~= nil)
      end
      assert.equal(("v"):rep(50), get("g", "k5000"))
      assert.is_nil(get("g", "k2"))
      local kept = count "g"
      assert.is_true(kept > 400 and tonumber(stats().evicted) == 5000 - kept)
    end)

    it("lets one group have nearly all of it, and others in nevertheless", function()
      for i = 1, 3000 do set("big", "k" .. i, "v") end
      assert.is_true(tonumber(stats().bytes) > tonumber(stats().max_bytes) * 0.95)
      for i = 1, 30 do
        for g = 1, 10 do assert.is_true(set("small" .. g, "k" .. i, "v")) end
      end
      for g = 1, 10 do assert.equal(30, count("small" .. g)) end
      assert.is_true(count "big" > 100)
    end)

    it("takes the largest entry by giving up many small ones", function()
      for i = 1, 3000 do set("g", "k" .. i, "v") end
      local value = ("x"):rep(C.GW_DICT_VALUE_MAX)
      assert.is_true(set("h", ("k"):rep(C.GW_DICT_KEY_MAX), value))
      assert.is_true(get("h", ("k"):rep(C.GW_DICT_KEY_MAX)) == value)
    end)

    it("takes the largest entry even where it is as small as can be", function()
      local least = 1000
      local small = ffi.new "struct gw_shm"
      assert(C.gw_shm_init(small, 65536))
      while C.gw_dict_new(small, least) == nil do least = least + 100 end
      C.gw_shm_fini(small)
      open(least)
      local value = ("x"):rep(C.GW_DICT_VALUE_MAX)
      for i = 1, 20 do
        local key = ("%03d"):format(i):rep(170)
        assert.is_true(set("g" .. i, key, value))
        assert.is_true(get("g" .. i, key) == value)
      end
    end)
  end)

  for seed = 1, 6 do
    it("does what a model does, series " .. seed, function()
      local random = rt.random(seed)
      local groups = { "a", "b", "sessions", ("long group "):rep(11) }
      local bounds = { [groups[3]] = 5 }
      local order = {} -- by group: keys from the least to the most recently used
      local model = {} -- by group: key to {value, expires}
      for _, g in ipairs(groups) do order[g], model[g] = {}, {} end

      local function forget(g, key)
        model[g][key] = nil
        for i, k in ipairs(order[g]) do
          if k == key then table.remove(order[g], i) break end
        end
      end

      local function touch(g, key, entry)
        forget(g, key)
        model[g][key] = entry
        table.insert(order[g], key)
      end

      for step = 1, 3000 do
        now = now + random(0, 3)
        local g, key = groups[random(1, 4)], "key" .. random(1, 15)
        local entry = model[g][key]
        local what = random(1, 10)
        if what <= 5 then
          local value = ("%d-%s"):format(step, ("v"):rep(random(0, 3) == 0 and random(0, 600) or 10))
          local ttl = g == "b" and random(20, 200) or 0
          assert(set(g, key, value, ttl, bounds[g]))
          touch(g, key, { value, ttl > 0 and now + ttl or math.huge })
          if bounds[g] and #order[g] > bounds[g] then forget(g, order[g][1]) end
        elseif what <= 9 then
          local value = get(g, key)
          if entry and now < entry[2] then
            assert(value == entry[1], "the value of a key")
            touch(g, key, entry)
          else
            assert(value == nil, "a value of no key")
            forget(g, key)
          end
        else
          local was = delete(g, key)
          -- One that has run out may be gone already.
          if not entry or now < entry[2] then assert(was == (entry ~= nil), "deleting") end
          forget(g, key)
        end
        if bounds[g] then assert(count(g) == #order[g], "the size of a group") end
      end
      assert.is_true(C.gw_dict_check(dict))
    end)
  end

  describe("between processes", function()
    local child, wait = forks.child, forks.wait

    after_each(forks.kill_all)

    it("shows all of them the same entries", function()
      set("g", "before", "parent")
      local pid = child(function()
        assert(get("g", "before") == "parent")
        assert(set("g", "after", "child"))
      end)
      assert.equal(0, wait(pid))
      assert.equal("child", get("g", "after"))
    end)

    local function value_of(key, n) return key .. ":" .. ("%03d"):format(n):rep(1 + n % 600) end

    -- Every value says what it is, so that a torn one can't pass.
    local function good(key, value)
      if value == nil then return true end
      local n = tonumber(value:sub(#key + 2, #key + 4))
      return n ~= nil and value == value_of(key, n)
    end

    local function work(random)
      local group = "g" .. random(1, 4)
      local key = "k" .. random(1, 60)
      local what = random(1, 10)
      if what <= 6 then
        set(group, key, value_of(key, random(0, 999)), random(0, 50), group == "g1" and 3 or 0)
      elseif what <= 9 then
        assert(good(key, get(group, key, 20)))
      else
        delete(group, key)
      end
    end

    it("stays whole when many work on it at once", function()
      open(24000)
      local pids = {}
      for i = 1, 4 do
        pids[i] = child(function()
          local random = rt.random(i)
          for step = 1, 8000 do
            now = 1000 + step
            work(random)
            assert(count "g1" <= 3)
          end
        end)
      end
      for _, pid in ipairs(pids) do assert.equal(0, wait(pid)) end
      assert.is_true(C.gw_dict_check(dict))
      assert.is_true(tonumber(stats().evicted) > 0)
    end)

    -- What a worker does all the time, prepared so that it is nearly always inside.
    local function prepare(random)
      local calls = {}
      for i = 1, 300 do
        -- Groups 5 to 20 have one entry at most, so that whole groups come and go.
        local group = random(1, 20)
        local key = "k" .. (group <= 4 and random(1, 60) or group)
        calls[i] = { rt.slice("g" .. group), rt.slice(key), rt.slice(value_of(key, random(0, 999))),
                     random(0, 50), group == 1 and 3 or 0, random(group <= 4 and 1 or 7, 10) }
      end
      return calls
    end

    local function work_on(calls, progress)
      for _, c in ipairs(calls) do
        if c[6] <= 8 then
          C.gw_dict_set(dict, c[1], c[2], c[3], now, c[4], c[5])
        elseif c[6] == 9 then
          C.gw_dict_get(dict, c[1], c[2], out, out_size, now, 20)
        else
          C.gw_dict_delete(dict, c[1], c[2], now)
        end
        progress[0] = progress[0] + 1
      end
    end

    it("is put in order after a worker is killed inside", function()
      open(24000)
      local progress = ffi.cast("volatile uint32_t *", C.gw_shm_alloc(shm, 64))
      assert(progress ~= nil)
      local random = rt.random(77)
      local kills = 0
      while tonumber(stats().repairs) < 30 and kills < 3000 do
        progress[0] = 0
        local calls = prepare(random)
        local pid = child(function()
          while true do work_on(calls, progress) end
        end)
        local enough = random(5, 1000)
        sys.wait_until(function() return progress[0] >= enough end, 20, "a worker at work")
        sys.C.spec_kill(pid, SIGKILL)
        assert.equal(SIGKILL, bit.band(wait(pid), 127))
        kills = kills + 1

        assert(C.gw_dict_check(dict), "not consistent after kill " .. kills)
        assert(count "g1" <= 3)
        for g = 1, 4 do
          for k = 1, 60 do assert(good("k" .. k, get("g" .. g, "k" .. k))) end
        end
        for _ = 1, 30 do work(random) end
      end
      assert.equal(30, math.min(30, tonumber(stats().repairs)))
    end)
  end)
end)

describe("gw_shm", function()
  it("hands out zeroed pieces in cache lines until it is used up", function()
    local shm = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, 4096))
    local last
    for _ = 1, 32 do
      local piece = ffi.cast("char *", C.gw_shm_alloc(shm, 100))
      assert.equal(0, tonumber(ffi.cast("uintptr_t", piece)) % 64)
      assert.equal(("\0"):rep(100), ffi.string(piece, 100))
      ffi.fill(piece, 100, 1)
      assert.is_true(last == nil or piece >= last + 100)
      last = piece
    end
    assert.is_true(C.gw_shm_alloc(shm, 1) == nil)
    C.gw_shm_fini(shm)
    assert.is_true(shm.base == nil)
  end)

  it("says it when the system refuses", function()
    local shm = ffi.new "struct gw_shm"
    assert.is_false(C.gw_shm_init(shm, 2 ^ 60))
    assert.equal(12, ffi.errno())
    assert.is_true(shm.base == nil)
    C.gw_shm_fini(shm)
  end)

  it("has locks that survive their owner", function()
    local shm = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, 4096))
    local lock = ffi.cast("struct gw_shm_lock *", C.gw_shm_alloc(shm, ffi.sizeof "struct gw_shm_lock"))
    local broken = ffi.new "bool[1]"
    C.gw_shm_lock_init(lock)
    assert.is_false(C.gw_shm_lock_take(lock))
    C.gw_shm_lock_give(lock)

    local pid = sys.C.spec_fork()
    if pid == 0 then
      sys.C.spec__exit(C.gw_shm_lock_take(lock) and 1 or 0)
    end
    local status = ffi.new "int[1]"
    sys.C.spec_waitpid(pid, status, 0)
    assert.equal(0, status[0])

    assert.is_true(C.gw_shm_lock_try(lock, broken))
    assert.is_true(broken[0])
    pid = sys.C.spec_fork()
    if pid == 0 then
      sys.C.spec__exit(C.gw_shm_lock_try(lock, broken) and 1 or 0)
    end
    sys.C.spec_waitpid(pid, status, 0)
    assert.equal(0, status[0])
    C.gw_shm_lock_give(lock)
    assert.is_false(C.gw_shm_lock_take(lock))
    C.gw_shm_lock_give(lock)
    C.gw_shm_fini(shm)
  end)
end)
