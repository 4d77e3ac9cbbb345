local ffi = require "ffi"
local reference = require "support.sse_reference"
local rt = require "support.runtime"
local C = rt.load "sse/scan.h"

local BOM = "\239\187\191"
local COMMENT = ":keepalive\n\n"
local ended = ffi.new "bool[1]"

local function new_scan()
  return rt.new("struct gw_sse_scan", C.gw_sse_scan_init)
end

-- A copy that ends where its bytes end, so that a sanitizer sees a read behind them.
local function exact(text)
  local bytes = ffi.new("char[?]", math.max(#text, 1))
  ffi.copy(bytes, text, #text)
  return bytes
end

-- Cuts a stream into pieces behind the given offsets.
local function cut(stream, ...)
  local pieces, from = {}, 1
  for _, at in ipairs { ... } do
    pieces[#pieces + 1] = stream:sub(from, at)
    from = at + 1
  end
  pieces[#pieces + 1] = stream:sub(from)
  return pieces
end

local function single_bytes(stream)
  local pieces = {}
  for i = 1, #stream do pieces[i] = stream:sub(i, i) end
  return pieces
end

local function random_pieces(stream, random, longest)
  local pieces, from = {}, 1
  while from <= #stream do
    local to = from + random(0, longest)
    pieces[#pieces + 1] = stream:sub(from, to)
    from = to + 1
  end
  return pieces
end

-- As event mode does it: the blocks, the rest that has no end, and the LFs that came late, each put
-- behind the block it belongs to.
local function blocks_of(pieces, next_block)
  local scan = new_scan()
  local blocks, kept = {}, ""
  for _, piece in ipairs(pieces) do
    local at = 0
    while at < #piece do
      local bytes = exact(piece:sub(at + 1))
      if kept == "" and C.gw_sse_scan_skip_lf(scan, bytes, #piece - at) == 1 then
        blocks[#blocks] = blocks[#blocks] .. "\n"
        at = at + 1
      end
      bytes = exact(piece:sub(at + 1))
      local n = tonumber((next_block or C.gw_sse_scan_next)(scan, bytes, #piece - at, ended))
      kept = kept .. piece:sub(at + 1, at + n)
      at = at + n
      if ended[0] then
        blocks[#blocks + 1] = kept
        kept = ""
      else
        assert.equal(#piece, at)
      end
    end
  end
  return blocks, kept
end

-- The same from the standard's lines alone.
local function expected_blocks(stream)
  local blocks, from, pos = {}, 1, stream:sub(1, 3) == BOM and 4 or 1
  while true do
    local stop = stream:find("[\r\n]", pos)
    if not stop then return blocks, stream:sub(from) end
    local after = stream:sub(stop, stop + 1) == "\r\n" and stop + 2 or stop + 1
    if stop == pos then
      blocks[#blocks + 1] = stream:sub(from, after - 1)
      from = after
    end
    pos = after
  end
end

local function assert_blocks(stream, pieces, next_block)
  local blocks, rest = expected_blocks(stream)
  local got, got_rest = blocks_of(pieces, next_block)
  assert.same(blocks, got)
  assert.equal(rest, got_rest)
  assert.equal(stream, table.concat(got) .. got_rest)
end

local function boundary_after(pieces)
  local scan = new_scan()
  for _, piece in ipairs(pieces) do C.gw_sse_scan_run(scan, exact(piece), #piece) end
  return C.gw_sse_scan_at_boundary(scan)
end

describe("sse scan: blocks", function()
  for name, stream in pairs(reference.corpus()) do
    it("cuts " .. name, function()
      assert_blocks(stream, { stream })
      assert_blocks(stream, { stream }, C.gw_sse_scan_next_bytewise)
      assert_blocks(stream, single_bytes(stream))
      local far = #stream > 1000 and 997 or 1
      for at = 1, #stream, far do assert_blocks(stream, cut(stream, at)) end
    end)
  end

  it("says how many bytes belong to a block", function()
    local scan = new_scan()
    assert.equal(9, tonumber(C.gw_sse_scan_next(scan, "data: x\n\ndata", 13, ended)))
    assert.is_true(ended[0])
    assert.equal(4, tonumber(C.gw_sse_scan_next(scan, "data", 4, ended)))
    assert.is_false(ended[0])
  end)

  it("takes the LF of a CRLF along where it is there", function()
    local scan = new_scan()
    assert.equal(5, tonumber(C.gw_sse_scan_next(scan, "x\r\n\r\n\n", 6, ended)))
    assert.equal(0, tonumber(C.gw_sse_scan_skip_lf(scan, "\n", 1)))
    assert.equal(1, tonumber(C.gw_sse_scan_next(scan, "\n", 1, ended)))
    assert.is_true(ended[0])
  end)

  it("ends a block at a CR and leaves its LF to skip_lf", function()
    local scan = new_scan()
    assert.equal(4, tonumber(C.gw_sse_scan_next(scan, "x\r\n\r", 4, ended)))
    assert.is_true(ended[0])
    assert.equal(0, tonumber(C.gw_sse_scan_skip_lf(scan, "", 0)))
    assert.equal(1, tonumber(C.gw_sse_scan_skip_lf(scan, "\n\n", 2)))
    assert.equal(0, tonumber(C.gw_sse_scan_skip_lf(scan, "\n", 1)))
  end)

  it("expects that LF once only", function()
    local scan = new_scan()
    C.gw_sse_scan_next(scan, "x\r\r", 3, ended)
    assert.equal(0, tonumber(C.gw_sse_scan_skip_lf(scan, "d", 1)))
    assert.equal(0, tonumber(C.gw_sse_scan_skip_lf(scan, "\n", 1)))
  end)

  it("puts that LF in front of the next block without skip_lf", function()
    local scan = new_scan()
    C.gw_sse_scan_next(scan, "x\r\r", 3, ended)
    assert.equal(4, tonumber(C.gw_sse_scan_next(scan, "\ny\n\nz", 5, ended)))
    assert.is_true(ended[0])
  end)

  it("leaves the inside of an event to skip_lf untouched", function()
    local scan = new_scan()
    C.gw_sse_scan_next(scan, "x\r", 2, ended)
    assert.equal(0, tonumber(C.gw_sse_scan_skip_lf(scan, "\n", 1)))
    assert.equal(1, tonumber(C.gw_sse_scan_next(scan, "\n", 1, ended)))
    assert.is_false(ended[0])
  end)
end)

describe("sse scan: boundaries", function()
  local places = {
    { "", true }, { "\n", true }, { "\r", true }, { "data: x\n\n", true },
    { "data: x\r\r", true },     { "data: x\r\n\r", true }, { "data: x\r\n\r\n", true },
    { ":c\n\n", true }, { ":c\n", true }, { ":c\r", true },
    { BOM, true }, { BOM .. "\n", true }, { "data: x\n\n:c\n", true },
    { "d", false }, { ":", false }, { ":c", false }, { "data: x", false }, { "data: x\n", false },
    { "data: x\r", false }, { "data: x\r\n", false }, { "foo\n", false }, { "data: x\n:c\n", false },
    { "data: x\n:c", false }, { BOM:sub(1, 1), false }, { BOM:sub(1, 2), false }, { BOM .. "d", false },
    { "\n" .. BOM, false }, { BOM .. BOM, false }, { "id: 1\r\n:c\r\n", false },
  }
  for _, place in ipairs(places) do
    it(("behind %q: %s"):format(place[1], place[2]), function()
      assert.equal(place[2], boundary_after { place[1] })
      assert.equal(place[2], boundary_after(single_bytes(place[1])))
    end)
  end

  it("are told by the offset of the last one", function()
    local cases = {
      { "", 0 }, { "da", 0 }, { "data: x\n", 0 }, { "data: x\n\n", 9 }, { "data: x\n\nda", 9 },
      { "a\n\nb\r\n\r\nc", 8 },
      { "a\r\r", 3 }, { "a\n\n:c\nd", 6 }, { BOM .. "d", 3 }, { "a\n\n\n\nb", 5 },
    }
    for _, case in ipairs(cases) do
      local scan = new_scan()
      assert.equal(case[2], tonumber(C.gw_sse_scan_last(scan, exact(case[1]), #case[1])), case[1])
    end
  end)

  it("lie behind an LF that came late", function()
    local scan = new_scan()
    C.gw_sse_scan_run(scan, "a\r\n\r", 4)
    assert.equal(1, tonumber(C.gw_sse_scan_last(scan, "\nb", 2)))
  end)
end)

describe("sse scan: random streams", function()
  setup(function() jit.on() end)
  teardown(function() jit.off() end)

  it("are cut alike however they arrive", function()
    for seed = 1, 400 do
      local random = rt.random(seed)
      local stream = reference.random_stream(random, random(0, 14))
      assert_blocks(stream, { stream })
      assert_blocks(stream, { stream }, C.gw_sse_scan_next_bytewise)
      assert_blocks(stream, random_pieces(stream, random, 40))
      if seed % 4 == 0 then assert_blocks(stream, single_bytes(stream)) end
      if seed % 20 == 0 then
        for at = 1, #stream do assert_blocks(stream, cut(stream, at)) end
      end
    end
  end)

  it("of random bytes give the vector and the byte machine the same state", function()
    local alphabet = { "\n", "\r", ":", "x", "\239", "\187", "\191", "a long run without an end of a line, " }
    for seed = 1, 2000 do
      local random = rt.random(seed)
      local text = {}
      for i = 1, random(0, 30) do text[i] = alphabet[random(1, #alphabet)] end
      local stream = table.concat(text)
      local bytes, at = exact(stream), 0
      local fast, slow, last = new_scan(), new_scan(), new_scan()
      C.gw_sse_scan_last(last, bytes, #stream)
      while at < #stream do
        local n = C.gw_sse_scan_next(fast, bytes + at, #stream - at, ended)
        local was = ended[0]
        local slow_n = C.gw_sse_scan_next_bytewise(slow, bytes + at, #stream - at, ended)
        assert.equal(tonumber(n), tonumber(slow_n))
        assert.equal(was, ended[0])
        assert.equal(fast.state, slow.state)
        at = at + tonumber(n)
      end
      assert.equal(last.state, fast.state)
    end
  end)

  it("mean the same with a comment at any one boundary", function()
    local tried = 0
    for seed = 1, 300 do
      local random = rt.random(seed)
      local stream = reference.random_stream(random, random(1, 10))
      local plain = reference.interpret(stream)
      local scan = new_scan()
      for at = 0, #stream do
        if at > 0 then C.gw_sse_scan_run(scan, stream:sub(at, at), 1) end
        if C.gw_sse_scan_at_boundary(scan) and not (at == 0 and stream:sub(1, 3) == BOM) then
          local commented = stream:sub(1, at) .. COMMENT .. stream:sub(at + 1)
          assert.same(plain, reference.interpret(commented))
          tried = tried + 1
        end
      end
    end
    assert.is_true(tried > 500)
  end)

  it("have a boundary behind each block, and the last one where last says", function()
    for seed = 1, 300 do
      local random = rt.random(seed)
      local stream = reference.random_stream(random, random(1, 10))
      local at, expected = 0, 0
      for _, block in ipairs((expected_blocks(stream))) do
        at = at + #block
        assert.is_true(boundary_after { stream:sub(1, at) })
      end
      for i = 1, #stream do
        if boundary_after { stream:sub(1, i) } then expected = i end
      end
      assert.equal(expected, tonumber(C.gw_sse_scan_last(new_scan(), exact(stream), #stream)))
    end
  end)
end)
