local ffi = require "ffi"
local rt = require "support.runtime"
local C = rt.load("base/buf.h")

local size_out = ffi.new "size_t[1]"
local iov = ffi.new "struct iovec[256]"

local function new_buf() return rt.new("struct gw_buf", C.gw_buf_init, C.gw_buf_clear) end

local function append(buf, text) C.gw_buf_append(buf, text, #text) end

-- What is in it, read without changing it.
local function content(buf)
  local out = ffi.new("char[?]", math.max(1, rt.len(buf)))
  return ffi.string(out, C.gw_buf_copy_out(buf, 0, out, rt.len(buf)))
end

-- The chunks as the program sees them: none is empty, none is out of its bounds.
local function pieces(buf)
  local parts = {}
  local chunk = buf.head
  while chunk ~= nil and buf.head.tail ~= nil do
    assert(chunk.start < chunk["end"] and chunk["end"] <= chunk.cap, "bounds of a chunk")
    parts[#parts + 1] = ffi.string(chunk.data + chunk.start, chunk["end"] - chunk.start)
    if chunk == buf.head.tail then break end
    chunk = chunk.next
  end
  return parts
end

local function check(buf, text)
  assert(rt.len(buf) == #text, "length")
  assert(table.concat(pieces(buf)) == text, "bytes")
end

local random_bytes
do
  local source = {}
  local random = rt.random(99)
  for i = 1, 70000 do source[i] = string.char(random(0, 255)) end
  source = table.concat(source)
  function random_bytes(random_number, n)
    local from = random_number(1, #source - n)
    return source:sub(from, from + n - 1)
  end
end

describe("gw_buf", function()
  local buf
  local before

  before_each(function()
    before = tonumber(C.gw_buf_memory())
    buf = new_buf()
  end)

  after_each(function()
    C.gw_buf_clear(buf)
    collectgarbage()
    assert.equal(before, tonumber(C.gw_buf_memory()))
  end)

  it("is empty at first, and holds no memory then", function()
    assert.equal(0, rt.len(buf))
    assert.equal("", rt.string(C.gw_buf_peek(buf)))
    assert.equal("", rt.string(C.gw_buf_linear(buf, 0)))
    assert.equal(0, C.gw_buf_iov(buf, iov, 256))
    C.gw_buf_consume(buf, 0)
    C.gw_buf_compact(buf)
    append(buf, "")
    assert.equal(before, tonumber(C.gw_buf_memory()))
  end)

  it("takes a small chunk for few bytes and gives it back with the last one", function()
    append(buf, "hello")
    assert.equal(before + tonumber(C.GW_CHUNK_SMALL), tonumber(C.gw_buf_memory()))
    C.gw_buf_consume(buf, 4)
    assert.equal("o", rt.string(C.gw_buf_peek(buf)))
    C.gw_buf_consume(buf, 1)
    assert.equal(before, tonumber(C.gw_buf_memory()))
    assert.is_true(buf.head == nil)
  end)

  it("keeps bytes of any amount in order", function()
    for _, n in ipairs { 1, 1967, 1968, 1969, 2048, 4096, 20411, 20412, 20413, 20480, 65536 } do
      local text = random_bytes(rt.random(n), n)
      append(buf, text)
      check(buf, text)
      C.gw_buf_clear(buf)
    end
  end)

  describe("reserving", function()
    local function reserve(min)
      local room = C.gw_buf_reserve(buf, min, size_out)
      assert.is_true(tonumber(size_out[0]) >= min)
      return room, tonumber(size_out[0])
    end

    it("shows what was written once it is committed", function()
      local room = reserve(5)
      ffi.copy(room, "hello", 5)
      assert.equal(0, rt.len(buf))
      assert.equal("", rt.string(C.gw_buf_peek(buf)))
      assert.equal(0, C.gw_buf_iov(buf, iov, 256))
      C.gw_buf_commit(buf, 5)
      assert.equal("hello", content(buf))
    end)

    it("gives a chunk back that gets nothing", function()
      reserve(C.GW_READ_SIZE)
      assert.is_true(tonumber(C.gw_buf_memory()) > before)
      C.gw_buf_commit(buf, 0)
      assert.equal(before, tonumber(C.gw_buf_memory()))

      append(buf, "stays")
      local held = tonumber(C.gw_buf_memory())
      reserve(C.GW_READ_SIZE)
      C.gw_buf_commit(buf, 0)
      assert.equal(held, tonumber(C.gw_buf_memory()))
      assert.equal("stays", content(buf))
    end)

    it("holds a whole read, and all that it offers can be committed", function()
      local room, avail = reserve(C.GW_READ_SIZE)
      assert.equal(before + tonumber(C.GW_CHUNK_LARGE), tonumber(C.gw_buf_memory()))
      ffi.fill(room, avail, 120)
      C.gw_buf_commit(buf, avail)
      check(buf, ("x"):rep(avail))
    end)

    it("goes on in the last chunk while there is room", function()
      append(buf, "one")
      local held = tonumber(C.gw_buf_memory())
      ffi.copy(reserve(3), "two", 3)
      C.gw_buf_commit(buf, 3)
      assert.equal(held, tonumber(C.gw_buf_memory()))
      assert.equal("onetwo", rt.string(C.gw_buf_peek(buf)))
    end)

    it("may be repeated with more, and forgotten", function()
      append(buf, "a")
      reserve(3000)
      reserve(50000)
      reserve(10)
      append(buf, "b")
      assert.equal("ab", content(buf))
      reserve(3000)
      local other = new_buf()
      C.gw_buf_move(other, buf)
      assert.equal("ab", content(other))
      reserve(3000)
      C.gw_buf_move(other, buf)
      C.gw_buf_clear(other)
      assert.equal(before, tonumber(C.gw_buf_memory()))
    end)
  end)

  describe("framing", function()
    it("goes around a body without copying it", function()
      local room = C.gw_buf_reserve(buf, C.GW_READ_SIZE, size_out)
      local n = tonumber(size_out[0])
      ffi.fill(room, n, ("b"):byte())
      C.gw_buf_commit(buf, n)
      local at = C.gw_buf_peek(buf).ptr
      C.gw_buf_prepend(buf, "1000\r\n", 6)
      C.gw_buf_append_tail(buf, "\r\n0\r\n\r\n", 7)
      assert.equal(1, #pieces(buf))
      assert.is_true(C.gw_buf_peek(buf).ptr == at - 6)
      check(buf, "1000\r\n" .. ("b"):rep(n) .. "\r\n0\r\n\r\n")
    end)

    it("may use the headroom to its first byte", function()
      append(buf, "body")
      local head = ("h"):rep(C.GW_CHUNK_HEADROOM)
      C.gw_buf_prepend(buf, head, #head)
      assert.same({ head .. "body" }, pieces(buf))
    end)

    it("takes another chunk where headroom or tailroom is used up", function()
      local text = random_bytes(rt.random(5), 1968)
      append(buf, text)
      local head, tail = ("h"):rep(C.GW_CHUNK_HEADROOM), ("t"):rep(C.GW_CHUNK_TAILROOM)
      C.gw_buf_prepend(buf, head, #head)
      C.gw_buf_prepend(buf, "more", 4)
      C.gw_buf_append_tail(buf, tail, #tail)
      C.gw_buf_append_tail(buf, "less", 4)
      check(buf, "more" .. head .. text .. tail .. "less")
    end)

    it("works on the empty buffer, and with pieces of any length", function()
      C.gw_buf_prepend(buf, "b", 1)
      C.gw_buf_append_tail(buf, "c", 1)
      C.gw_buf_prepend(buf, "a", 1)
      C.gw_buf_prepend(buf, "", 0)
      local long = random_bytes(rt.random(6), 50000)
      C.gw_buf_prepend(buf, long, #long)
      C.gw_buf_append_tail(buf, long, #long)
      check(buf, long .. "abc" .. long)
    end)
  end)

  describe("formatting", function()
    it("writes text of any length", function()
      C.gw_buf_printf(buf, "%s=%d;", "n", ffi.cast("int", 42))
      local text = "n=42;"
      for _, n in ipairs { 0, 1, 127, 128, 129, 1800, 1968, 5000, 40000 } do
        local word = ("w"):rep(n)
        C.gw_buf_printf(buf, "%s", word)
        text = text .. word
        check(buf, text)
      end
    end)

    it("fills a chunk to its last byte", function()
      for n = 1830, 1850 do
        append(buf, ("a"):rep(n))
        C.gw_buf_reserve(buf, 1, size_out)
        C.gw_buf_commit(buf, 0)
        local room = tonumber(size_out[0])
        C.gw_buf_printf(buf, "%s", ("b"):rep(room))
        check(buf, ("a"):rep(n) .. ("b"):rep(room))
        C.gw_buf_clear(buf)
      end
    end)
  end)

  describe("as one piece", function()
    it("copies nothing where it is one already", function()
      append(buf, "hello world")
      local at = C.gw_buf_peek(buf).ptr
      local slice = C.gw_buf_linear(buf, 5)
      assert.is_true(slice.ptr == at)
      assert.equal("hello", rt.string(slice))
    end)

    for _, n in ipairs { 2, 1999, 2001, 20000, 20413, 65000 } do
      it("gives the first " .. n .. " bytes", function()
        local text = random_bytes(rt.random(n), 65000)
        append(buf, text:sub(1, 1))
        for from = 2, #text, 997 do
          local other = new_buf()
          append(other, text:sub(from, from + 996))
          C.gw_buf_move(buf, other)
        end
        assert.is_true(rt.string(C.gw_buf_linear(buf, n)) == text:sub(1, n))
        check(buf, text)
      end)
    end

    it("copies little when it is asked again and again as the buffer grows", function()
      local block = ("x"):rep(4096)
      local moved, last = 0, nil
      for i = 1, 256 do
        append(buf, block)
        local slice = C.gw_buf_linear(buf, i * 4096)
        if slice.ptr ~= last then moved = moved + 1 end
        last = slice.ptr
      end
      assert.is_true(moved < 20, moved .. " moves")
    end)
  end)

  describe("moving", function()
    local other

    before_each(function() other = new_buf() end)
    after_each(function() C.gw_buf_clear(other) end)

    it("links what is long and copies what is short", function()
      local long = random_bytes(rt.random(8), 16000)
      append(other, long)
      local at = C.gw_buf_peek(other).ptr
      C.gw_buf_move(buf, other)
      assert.equal(0, rt.len(other))
      assert.is_true(C.gw_buf_peek(buf).ptr == at)
      C.gw_buf_clear(buf)

      for i = 1, 100 do
        append(other, "event " .. i .. "\n")
        C.gw_buf_move(buf, other)
      end
      assert.equal(1, #pieces(buf))
    end)

    it("takes exactly the first bytes", function()
      for _, n in ipairs { 0, 1, 1023, 1024, 1025, 5000, 15000, 15999, 16000 } do
        local text = random_bytes(rt.random(n), 16000)
        append(other, text)
        append(buf, "<")
        C.gw_buf_move_n(buf, other, n)
        check(buf, "<" .. text:sub(1, n))
        check(other, text:sub(n + 1))
        C.gw_buf_clear(buf)
        C.gw_buf_clear(other)
      end
    end)
  end)

  describe("looking", function()
    it("copies out any part", function()
      local text = random_bytes(rt.random(9), 50000)
      append(buf, text)
      local out = ffi.new("char[?]", 50001)
      for _, case in ipairs { { 0, 1 }, { 0, 50000 }, { 0, 50001 }, { 1967, 2 }, { 1968, 20412 },
        { 49999, 1 }, { 49999, 5 }, { 50000, 1 }, { 60000, 1 }, { 10, 0 } } do
        local from, n = case[1], case[2]
        local got = tonumber(C.gw_buf_copy_out(buf, from, out, n))
        assert.is_true(ffi.string(out, got) == text:sub(from + 1, from + n))
      end
      check(buf, text)
    end)

    it("shows the pieces for one write, up to a number of them", function()
      local text = random_bytes(rt.random(10), 60000)
      append(buf, text)
      local parts = pieces(buf)
      assert.equal(#parts, C.gw_buf_iov(buf, iov, 256))
      for i, part in ipairs(parts) do
        assert.is_true(ffi.string(iov[i - 1].iov_base, iov[i - 1].iov_len) == part)
      end
      assert.equal(2, C.gw_buf_iov(buf, iov, 2))
      assert.equal(0, C.gw_buf_iov(buf, iov, 0))
    end)
  end)

  describe("compacting", function()
    it("moves few bytes out of large chunks", function()
      for _ = 1, 5 do
        ffi.copy(C.gw_buf_reserve(buf, C.GW_READ_SIZE, size_out), ("z"):rep(1500), 1500)
        C.gw_buf_commit(buf, 1500)
        local other = new_buf()
        C.gw_buf_move(other, buf)
        ffi.copy(C.gw_buf_reserve(buf, C.GW_READ_SIZE, size_out), ("y"):rep(1500), 1500)
        C.gw_buf_commit(buf, 1500)
        C.gw_buf_move(other, buf)
        C.gw_buf_move(buf, other)
        local text = content(buf)
        C.gw_buf_compact(buf)
        check(buf, text)
        local held = tonumber(C.gw_buf_memory()) - before
        assert.is_true(held <= #text + #text / 4 + tonumber(C.GW_CHUNK_SMALL), held .. " held")
        C.gw_buf_clear(buf)
      end
    end)

    it("is done where it frees half of the memory", function()
      local other = new_buf()
      for _ = 1, 2 do
        C.gw_buf_reserve(other, C.GW_READ_SIZE, size_out)
        C.gw_buf_commit(other, 5000)
        C.gw_buf_move(buf, other)
      end
      assert.equal(before + 2 * tonumber(C.GW_CHUNK_LARGE), tonumber(C.gw_buf_memory()))
      C.gw_buf_compact(buf)
      assert.equal(before + 6 * tonumber(C.GW_CHUNK_SMALL), tonumber(C.gw_buf_memory()))
    end)

    it("leaves full chunks alone", function()
      local text = random_bytes(rt.random(12), 60000)
      append(buf, text)
      local at = C.gw_buf_peek(buf).ptr
      C.gw_buf_compact(buf)
      assert.is_true(C.gw_buf_peek(buf).ptr == at)
      check(buf, text)
    end)
  end)

  -- Whatever is done to two buffers, they hold what two strings hold.
  local sizes = { 1, 5, 15, 16, 17, 31, 32, 33, 200, 1000, 1024, 1025, 1967, 1968, 1969, 5000,
    16384, 20412, 20413, 20480, 30000 }

  local operations = {
    function(a, text, random)
      local bytes = random_bytes(random, sizes[random(1, #sizes)])
      append(a, bytes)
      return text .. bytes
    end,
    function(a, text, random)
      local bytes = random_bytes(random, sizes[random(1, 10)])
      C.gw_buf_prepend(a, bytes, #bytes)
      return bytes .. text
    end,
    function(a, text, random)
      local bytes = random_bytes(random, sizes[random(1, 8)])
      C.gw_buf_append_tail(a, bytes, #bytes)
      return text .. bytes
    end,
    function(a, text, random)
      local min = sizes[random(1, #sizes)]
      local room = C.gw_buf_reserve(a, min, size_out)
      local n = random(0, 3) == 0 and tonumber(size_out[0]) or random(0, min)
      local bytes = random_bytes(random, n)
      ffi.copy(room, bytes, n)
      C.gw_buf_commit(a, n)
      return text .. bytes
    end,
    function(a, text, random)
      local n = random(0, math.min(#text, random(1, 40000)))
      C.gw_buf_consume(a, n)
      return text:sub(n + 1)
    end,
    function(a, text, random)
      local n = random(0, math.min(#text, random(1, 60000)))
      assert(rt.string(C.gw_buf_linear(a, n)) == text:sub(1, n), "linear")
      return text
    end,
    function(a, text)
      C.gw_buf_compact(a)
      return text
    end,
    function(a, text, random, b, other)
      local n = random(0, #other)
      C.gw_buf_move_n(a, b, n)
      return text .. other:sub(1, n), other:sub(n + 1)
    end,
    function(a, text, _, b, other)
      C.gw_buf_move(a, b)
      return text .. other, ""
    end,
    function(a, text, random)
      C.gw_buf_reserve(a, sizes[random(1, #sizes)], size_out)
      return text
    end,
  }

  for seed = 1, 12 do
    it("holds what a string would hold, series " .. seed, function()
      local random = rt.random(seed)
      local bufs, texts = { buf, new_buf() }, { "", "" }
      for _ = 1, 600 do
        local i = random(1, 2)
        local j = 3 - i
        if #texts[i] > 200000 then
          C.gw_buf_clear(bufs[i])
          texts[i] = ""
        end
        local text, other =
          operations[random(1, #operations)](bufs[i], texts[i], random, bufs[j], texts[j])
        texts[i], texts[j] = text, other or texts[j]
        check(bufs[i], texts[i])
        check(bufs[j], texts[j])
      end
      C.gw_buf_clear(bufs[2])
    end)
  end

  if not rt.asan then
    local function mapped_pages()
      local file = assert(io.open "/proc/self/statm")
      local pages = tonumber(file:read "*n")
      file:close()
      return pages
    end

    it("returns the memory of a storm to the system", function()
      local block = ("s"):rep(20000)
      C.gw_buf_trim()
      collectgarbage()
      local pages = mapped_pages()
      for _ = 1, 2000 do append(buf, block) end
      assert.is_true(mapped_pages() > pages + 9000)
      C.gw_buf_clear(buf)
      assert.is_true(mapped_pages() < pages + 1000)
      C.gw_buf_trim()
    end)
  end
end)
