local ffi = require "ffi"
local rt = require "support.runtime"
local C = rt.load("base/slab.h")

local function address(pointer) return tonumber(ffi.cast("uintptr_t", pointer)) end

describe("gw_slab", function()
  local slab

  local function take(n)
    local objects = {}
    for i = 1, n do objects[i] = C.gw_slab_alloc(slab) end
    return objects
  end

  local function give(objects)
    for _, object in ipairs(objects) do C.gw_slab_free(slab, object) end
  end

  local function slab_of(size)
    slab = ffi.new "struct gw_slab"
    C.gw_slab_init(slab, size)
  end

  for _, size in ipairs { 1, 8, 16, 17, 48, 300, 2048, 4095, 16384 } do
    it("gives aligned, zeroed objects of " .. size .. " bytes that do not overlap", function()
      slab_of(size)
      local objects = take(100)
      local zero = ("\0"):rep(size)
      for i, object in ipairs(objects) do
        assert.equal(0, address(object) % 8)
        assert.is_true(ffi.string(object, size) == zero)
        ffi.fill(object, size, i)
      end
      for i, object in ipairs(objects) do
        assert.is_true(ffi.string(object, size) == string.char(i):rep(size))
      end
      give(objects)
      C.gw_slab_fini(slab)
    end)
  end

  it("zeroes an object that was used before", function()
    slab_of(64)
    local object = C.gw_slab_alloc(slab)
    ffi.fill(object, 64, 255)
    C.gw_slab_free(slab, object)
    object = C.gw_slab_alloc(slab)
    assert.equal(("\0"):rep(64), ffi.string(object, 64))
    C.gw_slab_free(slab, object)
    C.gw_slab_fini(slab)
  end)

  it("counts what is handed out, and takes NULL for nothing", function()
    slab_of(100)
    local objects = take(10)
    assert.equal(10, tonumber(slab.objects))
    C.gw_slab_free(slab, nil)
    assert.equal(10, tonumber(slab.objects))
    give(objects)
    assert.equal(0, tonumber(slab.objects))
    C.gw_slab_fini(slab)
  end)

  if not rt.asan then
    it("gives blocks back after a storm and keeps only a few", function()
      slab_of(300)
      local objects = take(20000)
      local peak = tonumber(slab.blocks)
      assert.is_true(peak * tonumber(slab.block_size) < 20000 * 330)
      give(objects)
      assert.is_true(tonumber(slab.blocks) <= 2)
      C.gw_slab_trim(slab)
      assert.equal(0, tonumber(slab.blocks))
      C.gw_slab_fini(slab)
    end)

    it("fills the blocks in use before it takes an empty one", function()
      slab_of(300)
      local objects = take(1000)
      local keep, rest = {}, {}
      for i, object in ipairs(objects) do
        local list = i <= 100 and keep or rest
        list[#list + 1] = object
      end
      give(rest)
      assert.is_true(tonumber(slab.spare) > 0)
      local spare = tonumber(slab.spare)
      for _, object in ipairs(take(5)) do keep[#keep + 1] = object end
      assert.equal(spare, tonumber(slab.spare))
      give(keep)
      C.gw_slab_fini(slab)
    end)
  end

  it("stays whole under random use", function()
    local random = rt.random(7)
    slab_of(40)
    local live = {}
    for i = 1, 20000 do
      if #live == 0 or random(1, 100) <= (i % 4000 < 2000 and 60 or 40) then
        local object = ffi.cast("uint32_t *", C.gw_slab_alloc(slab))
        assert(object[0] == 0 and object[9] == 0)
        object[0], object[9] = i, i
        live[#live + 1] = { object, i }
      else
        local k = random(1, #live)
        local object, stamp = live[k][1], live[k][2]
        assert(object[0] == stamp and object[9] == stamp, "somebody else wrote to it")
        C.gw_slab_free(slab, object)
        live[k] = live[#live]
        live[#live] = nil
      end
      assert(tonumber(slab.objects) == #live)
    end
    for _, entry in ipairs(live) do C.gw_slab_free(slab, entry[1]) end
    C.gw_slab_fini(slab)
  end)
end)
