local bit = require "bit"
local ffi = require "ffi"
local rt = require "support.runtime"
local sys = require "support.sys"
local C = rt.load("base/map.h")

if not pcall(ffi.typeof, "struct spec_map_file") then
  ffi.cdef "struct spec_map_file { int unused; }; size_t fwrite(const void *, size_t, size_t, void *);"
end

local function value(n) return ffi.cast("void *", n) end
local function number(pointer) return tonumber(ffi.cast("intptr_t", pointer)) end

describe("gw_map", function()
  local map

  before_each(function() map = rt.new("struct gw_map", C.gw_map_init, C.gw_map_fini) end)

  local function get(key) return number(C.gw_map_get(map, rt.slice(key))) end
  local function put(key, n) return number(C.gw_map_put(map, rt.slice(key), value(n))) end
  local function remove(key) return number(C.gw_map_remove(map, rt.slice(key))) end

  it("is empty at first", function()
    assert.equal(0, get "x")
    assert.equal(0, remove "x")
    assert.equal(0, tonumber(map.count))
  end)

  it("keeps values by key, whatever bytes are in it", function()
    local keys = { "", "a", "b", "a\0b", "a\0c", ("k"):rep(1000), "\255" }
    for i, key in ipairs(keys) do assert.equal(0, put(key, i)) end
    for i, key in ipairs(keys) do assert.equal(i, get(key)) end
    assert.equal(0, get "a\0")
    assert.equal(#keys, tonumber(map.count))
  end)

  it("returns what it replaces and what it removes", function()
    assert.equal(0, put("x", 1))
    assert.equal(1, put("x", 2))
    assert.equal(1, tonumber(map.count))
    assert.equal(2, remove "x")
    assert.equal(0, remove "x")
    assert.equal(0, get "x")
  end)

  it("copies its keys", function()
    local key = ffi.new("char[3]", "abc")
    local slice = ffi.new("struct gw_slice", key, 3)
    C.gw_map_put(map, slice, value(5))
    ffi.fill(key, 3, 120)
    assert.equal(5, get "abc")
    assert.equal(0, get "xxx")
  end)

  it("grows with its entries", function()
    for i = 1, 1000 do put("key" .. i, i) end
    assert.is_true(tonumber(map.cap) >= 1000)
    for i = 1, 1000 do assert.equal(i, get("key" .. i)) end
  end)

  it("does what a Lua table does", function()
    local random, model, count = rt.random(3), {}, 0
    for i = 1, 20000 do
      local key = "key" .. random(1, 1500)
      local what = random(1, 3)
      local before = model[key] or 0
      if what == 1 then
        assert(get(key) == before)
      elseif what == 2 then
        assert(put(key, i) == before)
        count = count + (before == 0 and 1 or 0)
        model[key] = i
      else
        assert(remove(key) == before)
        count = count - (before == 0 and 0 or 1)
        model[key] = nil
      end
      assert(tonumber(map.count) == count)
    end
    for key, n in pairs(model) do assert.equal(n, get(key)) end
  end)

  -- The FFI makes no callbacks that take structs, but fwrite gets by with the same four arguments:
  -- bytes, length, the value 1 as a count, and the file as data.
  it("walks over every entry once", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    local expected = {}
    for i = 1, 100 do
      expected[i] = string.format("key %03d", i)
      put(expected[i] .. "\n", 1)
    end
    local each = ffi.cast("void (*)(struct gw_slice, void *, void *)", ffi.C.fwrite)
    C.gw_map_each(map, each, file)
    file:close()
    local keys = {}
    for line in io.lines(path) do keys[#keys + 1] = line end
    os.remove(path)
    table.sort(keys)
    assert.same(expected, keys)
  end)
end)

describe("gw_hash", function()
  -- SipHash-1-3 with a key of zeros, which is what a process has that has drawn no seed; the values
  -- are those of another implementation (CPython with PYTHONHASHSEED=0).
  local vectors = {
    { "a", "4644417185603328019" },
    { "hello", "16350172494705860510" },
    { "12345678", "3785724242978802311" },
    { "hello world, this is longer", "14963448555708311481" },
  }

  it("is SipHash-1-3", function()
    for _, vector in ipairs(vectors) do
      local hash = C.gw_hash(rt.slice(vector[1]))
      assert.equal(vector[2] .. "ULL", tostring(hash))
    end
  end)

  it("depends on every byte and on the length", function()
    local seen = {}
    for len = 0, 40 do
      for at = 1, len do
        local text = ("\0"):rep(at - 1) .. "\1" .. ("\0"):rep(len - at)
        local hash = tostring(C.gw_hash(rt.slice(text)))
        assert.is_nil(seen[hash])
        seen[hash] = true
      end
      local zeros = tostring(C.gw_hash(rt.slice(("\0"):rep(len))))
      assert.is_nil(seen[zeros])
      seen[zeros] = true
    end
  end)

  it("changes when a seed is drawn, which only a child does here", function()
    local text = rt.slice "hello"
    local plain = C.gw_hash(text)
    local pid = sys.C.spec_fork()
    if pid == 0 then
      C.gw_hash_seed()
      local same = C.gw_hash(text) == plain or C.gw_hash(text) ~= C.gw_hash(text)
      sys.C.spec__exit(same and 1 or 0)
    end
    local status = ffi.new "int[1]"
    sys.C.spec_waitpid(pid, status, 0)
    assert.equal(0, status[0])
  end)
end)

describe("gw_hash_stable", function()
  local hash = require "gateway.testing.hash"

  local function stable(text, salt)
    return tonumber(bit.rshift(C.gw_hash_stable(rt.slice(text), salt), 11))
  end

  it("is the same everywhere and for ever", function()
    assert.equal(7388120807022986, stable("", 0))
    assert.equal(8831389479237128, stable("a key", 0))
    assert.equal(803300025726913, stable("a key", 7))
  end)

  it("is what gateway.testing has in Lua", function()
    for length = 0, 40 do
      local text = ("\0\127\128\255abc"):rep(6):sub(1, length)
      for _, salt in ipairs { 0, 1, 160, 2 ^ 32, 2 ^ 53 - 1 } do
        assert.equal(stable(text, salt), hash(text, salt))
      end
    end
  end)
end)
