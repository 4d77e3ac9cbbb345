local ffi = require "ffi"
local rt = require "support.runtime"
local C = rt.load("base/arena.h")

describe("gw_arena", function()
  local arena

  before_each(function() arena = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear) end)

  local function copy(text) return C.gw_arena_copy(arena, rt.slice(text)) end

  it("gives aligned pieces of any size that keep what is written", function()
    local pieces = {}
    for i, size in ipairs { 0, 1, 7, 8, 9, 100, 2031, 2032, 2033, 8167, 8168, 8169, 100000, 3 } do
      local piece = C.gw_arena_alloc(arena, size)
      assert.equal(0, tonumber(ffi.cast("uintptr_t", piece)) % 8)
      ffi.fill(piece, size, i)
      pieces[i] = { piece, size }
    end
    for i, piece in ipairs(pieces) do
      assert.is_true(ffi.string(piece[1], piece[2]) == string.char(i):rep(piece[2]))
    end
  end)

  it("is empty when it is cleared", function()
    C.gw_arena_alloc(arena, 100)
    C.gw_arena_alloc(arena, 5000)
    C.gw_arena_clear(arena)
    assert.is_true(arena.blocks == nil)
    assert.equal("again", rt.string(copy "again"))
  end)

  it("takes over what another one holds", function()
    local other = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear)
    local mine, theirs = copy "mine", C.gw_arena_copy(other, rt.slice "theirs")
    C.gw_arena_alloc(other, 5000)
    C.gw_arena_absorb(arena, other)
    assert.is_true(other.blocks == nil)
    C.gw_arena_clear(other)
    assert.equal("mine theirs", rt.string(mine) .. " " .. rt.string(theirs))
  end)

  it("copies text and ends it with a NUL", function()
    for _, text in ipairs { "", "x", "with a \0 in it", ("long "):rep(3000) } do
      local made = copy(text)
      assert.is_true(rt.string(made) == text)
      assert.equal(0, made.ptr[#text])
    end
  end)

  it("copies the empty slice that views nothing", function()
    local made = C.gw_arena_copy(arena, ffi.new "struct gw_slice")
    assert.equal(0, tonumber(made.len))
    assert.equal(0, made.ptr[0])
  end)

  it("formats", function()
    local made = C.gw_arena_printf(arena, "%s:%d", "host", ffi.cast("int", 80))
    assert.equal("host:80", rt.string(made))
    local text = ("y"):rep(10000)
    assert.is_true(rt.string(C.gw_arena_printf(arena, "<%s>", text)) == "<" .. text .. ">")
  end)

  describe("growing an array", function()
    it("starts one from nothing", function()
      local array = ffi.cast("char *", C.gw_arena_grow(arena, nil, 0, 10))
      ffi.copy(array, "123456789")
      assert.equal("123456789", ffi.string(array))
    end)

    it("stays in place when it was the last allocation and there is room", function()
      local array = C.gw_arena_alloc(arena, 16)
      ffi.copy(array, "0123456789abcdef", 16)
      local grown = C.gw_arena_grow(arena, array, 16, 64)
      assert.equal(array, grown)
      assert.equal("0123456789abcdef", ffi.string(grown, 16))
      local other = C.gw_arena_alloc(arena, 8)
      assert.is_true(ffi.cast("char *", other) >= ffi.cast("char *", grown) + 64)
    end)

    it("copies when something came behind it, or its block is full", function()
      local array = C.gw_arena_alloc(arena, 16)
      ffi.copy(array, "0123456789abcdef", 16)
      C.gw_arena_alloc(arena, 8)
      local grown = C.gw_arena_grow(arena, array, 16, 32)
      assert.not_equal(array, grown)
      assert.equal("0123456789abcdef", ffi.string(grown, 16))
      local huge = C.gw_arena_grow(arena, grown, 32, 50000)
      assert.equal("0123456789abcdef", ffi.string(huge, 16))
    end)

    it("keeps an array of any size whole, step by step", function()
      local array, size = nil, 0
      local random = rt.random(11)
      local text = ""
      while size < 30000 do
        local more = random(0, 700)
        array = ffi.cast("char *", C.gw_arena_grow(arena, array, size, size + more))
        local part = string.char(random(0, 255)):rep(more)
        ffi.copy(array + size, part, more)
        text, size = text .. part, size + more
        if random(1, 5) == 1 then C.gw_arena_alloc(arena, random(1, 100)) end
      end
      assert.is_true(ffi.string(array, size) == text)
    end)
  end)
end)
