local ffi = require "ffi"
local rt = require "support.runtime"
local C = rt.load("base/heap.h")

local EDGES = { 1, 15, 16, 17, 511, 512, 513, 640, 641, 1024, 1025, 4095, 4096, 4097, 8192, 32767, 32768,
  32769, 65536, 1000000 }

describe("gw_heap", function()
  local heap

  before_each(function()
    heap = ffi.new "struct gw_heap"
    C.gw_heap_init(heap, 64 * 1024 * 1024)
  end)

  after_each(function() C.gw_heap_fini(heap) end)

  local function alloc(size) return C.gw_heap_realloc(heap, nil, 0, size) end
  local function free(piece, size) return C.gw_heap_realloc(heap, piece, size, 0) end

  local function holds(piece, size, byte)
    return ffi.string(piece, size) == string.char(byte):rep(size)
  end

  for _, size in ipairs(EDGES) do
    it("gives pieces of " .. size .. " bytes that do not overlap", function()
      local pieces = {}
      for i = 1, 20 do
        pieces[i] = alloc(size)
        assert.equal(0, tonumber(ffi.cast("uintptr_t", pieces[i])) % 8)
        ffi.fill(pieces[i], size, i)
      end
      assert.equal(20 * size, tonumber(heap.used))
      for i = 1, 20 do
        assert.is_true(holds(pieces[i], size, i))
        assert.is_true(free(pieces[i], size) == nil)
      end
      assert.equal(0, tonumber(heap.used))
    end)
  end

  it("keeps what is in a piece that grows and shrinks over every edge", function()
    local piece, size = alloc(1), 1
    for _, way in ipairs { 1, -1 } do
      for i = way == 1 and 1 or #EDGES, way == 1 and #EDGES or 1, way do
        ffi.fill(piece, size, i)
        local kept = math.min(size, EDGES[i])
        piece = C.gw_heap_realloc(heap, piece, size, EDGES[i])
        size = EDGES[i]
        assert.is_true(holds(piece, kept, i))
        assert.equal(size, tonumber(heap.used))
      end
    end
  end)

  it("stays right when pieces come and go at random", function()
    local random = rt.random(7)
    local live, used = {}, 0
    for step = 1, 20000 do
      local i = random(1, 200)
      local old = live[i]
      local size = random(1, 10) == 1 and random(1, 100000) or random(1, 700)
      if not old then
        live[i] = { piece = alloc(size), size = size, byte = step % 256 }
        used = used + size
      elseif random(1, 3) == 1 then
        assert.is_true(holds(old.piece, old.size, old.byte))
        free(old.piece, old.size)
        live[i], used = nil, used - old.size
      else
        local piece = C.gw_heap_realloc(heap, old.piece, old.size, size)
        assert.is_true(holds(piece, math.min(size, old.size), old.byte))
        live[i], used = { piece = piece, size = size, byte = step % 256 }, used + size - old.size
      end
      local now = live[i]
      if now then ffi.fill(now.piece, now.size, now.byte) end
    end
    assert.equal(used, tonumber(heap.used))
  end)

  it("has nothing more when its addresses are used up, and keeps what is there", function()
    local small = ffi.new "struct gw_heap"
    C.gw_heap_init(small, 4 * 32768)
    local pieces, size = {}, 2048
    repeat
      local piece = C.gw_heap_realloc(small, nil, 0, size)
      pieces[#pieces + 1] = piece ~= nil and piece or nil
    until piece == nil
    assert.equal(4 * 15, #pieces)
    local used = tonumber(small.used)
    ffi.fill(pieces[1], size, 7)
    assert.is_true(C.gw_heap_realloc(small, pieces[1], size, 1500) == nil) -- of a class with no room
    assert.is_true(holds(pieces[1], size, 7))
    assert.equal(used, tonumber(small.used))
    C.gw_heap_realloc(small, pieces[1], size, 0)
    assert.is_true(C.gw_heap_realloc(small, nil, 0, size) ~= nil)
    C.gw_heap_fini(small)
  end)

  it("uses blocks that became empty for other sizes", function()
    local small = ffi.new "struct gw_heap"
    C.gw_heap_init(small, 4 * 32768)
    for _, size in ipairs { 2048, 1500, 16, 200, 2048 } do
      local pieces = {}
      repeat
        local piece = C.gw_heap_realloc(small, nil, 0, size)
        if piece ~= nil then pieces[#pieces + 1] = piece end
      until piece == nil
      assert.is_true(#pieces >= 60)
      for _, piece in ipairs(pieces) do C.gw_heap_realloc(small, piece, size, 0) end
      C.gw_heap_trim(small)
    end
    assert.equal(0, tonumber(small.used))
    C.gw_heap_fini(small)
  end)
end)
