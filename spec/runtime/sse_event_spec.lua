local ffi = require "ffi"
local reference = require "support.sse_reference"
local rt = require "support.runtime"
local C = rt.load("base/buf.h", "sse/event.h", "sse/scan.h")

local BOM = "\239\187\191"
local OK, BAD = tonumber(C.GW_OK), tonumber(C.GW_ERR_BAD_REQUEST)

local function has(event, bit_name)
  return bit.band(event.has, tonumber(C[bit_name])) ~= 0
end

-- An event over a copy of the bytes that ends where they end, and what must live as long.
local function new_event(raw)
  local bytes = ffi.new("char[?]", math.max(#raw, 1))
  ffi.copy(bytes, raw, #raw)
  local event, view = ffi.new "struct gw_event", ffi.new "struct gw_slice"
  view.ptr, view.len = bytes, #raw
  C.gw_event_init(event, view)
  return event, bytes
end

local function joined(event, len_of, copy_to)
  local len = tonumber(len_of(event))
  local out = ffi.new("char[?]", len + 1)
  out[len] = 42
  copy_to(event, out)
  assert.equal(42, out[len])
  return ffi.string(out, len)
end

local function data_of(event)
  return joined(event, C.gw_event_data_len, C.gw_event_data_copy)
end

local function comment_of(event)
  return joined(event, C.gw_event_comment_len, C.gw_event_comment_copy)
end

-- All fields as a table, nil for what is not there.
local function fields_of(raw)
  local event, keep = new_event(raw)
  C.gw_event_parse(event)
  local fields = {
    type = has(event, "GW_EVENT_TYPE") and rt.string(event.type) or nil,
    id = has(event, "GW_EVENT_ID") and rt.string(event.id) or nil,
    data = has(event, "GW_EVENT_DATA") and data_of(event) or nil,
    retry = has(event, "GW_EVENT_RETRY") and tonumber(event.retry_ms) or nil,
    comment = has(event, "GW_EVENT_COMMENT") and comment_of(event) or nil,
    other = has(event, "GW_EVENT_OTHER") or nil,
  }
  return fields, keep
end

local function written(event)
  local buf = rt.new("struct gw_buf", C.gw_buf_init, C.gw_buf_clear)
  C.gw_event_write(event, buf)
  local len = rt.len(buf)
  local out = ffi.new("char[?]", len + 1)
  C.gw_buf_copy_out(buf, 0, out, len)
  return ffi.string(out, len)
end

local NONE = ffi.new "struct gw_slice"

-- Sets one field as scripts would; value nil removes it. What it returns must live as long as the event.
local function set(event, field, value)
  if field == "retry" then
    C.gw_event_set_retry(event, value ~= nil, value or 0)
    return OK
  end
  local view = value and rt.slice(value) or NONE
  return tonumber(C["gw_event_set_" .. field](event, view)), view
end

local function changed(raw, field, value)
  local event, bytes = new_event(raw)
  local err, view = set(event, field, value)
  assert.equal(OK, err)
  return written(event), bytes, view
end

describe("sse event: fields", function()
  local cases = {
    { "data: x\n\n", { data = "x" } },
    { "data:x\r\n\r\n", { data = "x" } },
    { "data:  x \r\r", { data = " x " } },
    { "data\n\n", { data = "" } },
    { "data: 1\ndata\ndata: 3\n\n", { data = "1\n\n3" } },
    { "data\ndata\n\n", { data = "\n" } },
    { "data: a:b: c\n\n", { data = "a:b: c" } },
    { "data: a\0b\n\n", { data = "a\0b" } },
    { "event: ping\nid: 7\nretry: 1500\ndata: x\n\n", { type = "ping", id = "7", retry = 1500, data = "x" } },
    { "event: a\nevent: b\nid: 1\nid: 2\nretry: 1\nretry: 2\n\n", { type = "b", id = "2", retry = 2 } },
    { "event:\nid\n\n", { type = "", id = "" } },
    { "id: a\nid: b\0\n\n", { id = "a", other = true } },
    { "id: \0\n\n", { other = true } },
    { "retry: 1s\n\n", { other = true } }, { "retry:\n\n", { other = true } },
    { "retry: -1\n\n", { other = true } },
    { "retry: 3\nretry: x\n\n", { retry = 3, other = true } },
    { "retry: 0042\n\n", { retry = 42 } },
    { "retry: 99999999999999999999999\n\n", { retry = 2 ^ 64 } },
    { ":hb\n\n", { comment = "hb" } },
    { ": hb\n:\n:  two\n\n", { comment = "hb\n\n two" } },
    { "foo: bar\n\n", { other = true } }, { "Data: x\n data: x\ndatax\n\n", { other = true } },
    { "\n", {} }, { "\r\n", {} }, { "", {} },
    { "\ndata: behind a late LF\n\n", { data = "behind a late LF" } },
    { "data: no end", { data = "no end" } },
  }
  for _, case in ipairs(cases) do
    it(("of %q"):format(case[1]), function()
      assert.same(case[2], (fields_of(case[1])))
    end)
  end

  it("tell an event from a comment and from a blank line", function()
    local kinds = {
      ["data\n\n"] = { true, false }, ["id: 1\r\r"] = { true, false }, ["foo\n\n"] = { true, false },
      [":c\n\n"] = { false, false }, ["\n"] = { false, true }, ["\r"] = { false, true },
      ["\r\n"] = { false, true },
    }
    for raw, kind in pairs(kinds) do
      local event, bytes = new_event(raw)
      assert.equal(kind[1], C.gw_event_has_fields(event.raw))
      assert.equal(kind[2], C.gw_event_is_blank(event))
      assert.is_not_nil(bytes)
    end
  end)

  it("are views of the raw bytes", function()
    local event, bytes = new_event "event: ping\ndata: x\n\n"
    C.gw_event_parse(event)
    assert.equal(7, tonumber(event.type.ptr - bytes))
    assert.equal(18, tonumber(event.data.ptr - bytes))
    assert.equal(1, event.data_lines)
  end)

  it("have the first line of several at hand", function()
    local event, bytes = new_event "data: a\n:c\ndata: b\n:d\n\n"
    C.gw_event_parse(event)
    assert.equal("a", rt.string(event.data))
    assert.equal(2, event.data_lines)
    assert.equal("c", rt.string(event.comment))
    assert.is_not_nil(bytes)
  end)
end)

describe("sse event: writing", function()
  local all = ":c\r\nfoo: bar\r\ndata: 1\r\ndata:2\r\nretry: 5\r\nid: 7\r\nevent: e\r\n:d\r\nx\r\n\r\n"

  it("gives back the bytes of what was not changed", function()
    for _, raw in ipairs { all, "\n", ":c\r\r", "data", "" } do
      local event, bytes = new_event(raw)
      C.gw_event_parse(event)
      assert.equal(raw, written(event))
      assert.is_not_nil(bytes)
    end
  end)

  local cases = {
    { "type", "new", ":c\n:d\nevent: new\nid: 7\nretry: 5\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
    { "type", nil, ":c\n:d\nid: 7\nretry: 5\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
    { "type", "message", ":c\n:d\nid: 7\nretry: 5\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
    { "id", "", ":c\n:d\nevent: e\nid: \nretry: 5\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
    { "id", nil, ":c\n:d\nevent: e\nretry: 5\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
    { "retry", 0, ":c\n:d\nevent: e\nid: 7\nretry: 0\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
    { "retry", nil, ":c\n:d\nevent: e\nid: 7\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
    { "data", "a\nb\r\nc\rd",
      ":c\n:d\nevent: e\nid: 7\nretry: 5\ndata: a\ndata: b\ndata: c\ndata: d\nfoo: bar\nx\n\n" },
    { "data", "", ":c\n:d\nevent: e\nid: 7\nretry: 5\ndata: \nfoo: bar\nx\n\n" },
    { "data", " a\n", ":c\n:d\nevent: e\nid: 7\nretry: 5\ndata:  a\ndata: \nfoo: bar\nx\n\n" },
    { "data", nil, ":c\n:d\nevent: e\nid: 7\nretry: 5\nfoo: bar\nx\n\n" },
    { "comment", "n\nm", ": n\n: m\nevent: e\nid: 7\nretry: 5\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
    { "comment", nil, "event: e\nid: 7\nretry: 5\ndata: 1\ndata: 2\nfoo: bar\nx\n\n" },
  }
  for _, case in ipairs(cases) do
    it(("with %s = %q"):format(case[1], tostring(case[2])), function()
      assert.equal(case[3], (changed(all, case[1], case[2])))
    end)
  end

  it("keeps an id and a retry that mean nothing", function()
    local raw = "id: a\0b\nretry: 5s\ndata: x\n\n"
    assert.equal("data: y\nid: a\0b\nretry: 5s\n\n", (changed(raw, "data", "y")))
  end)

  it("gives nothing where nothing is left", function()
    assert.equal("", (changed("data: x\n\n", "data", nil)))
  end)

  it("makes events out of nothing", function()
    local event, bytes = new_event ""
    local _, a = set(event, "type", "made")
    local _, b = set(event, "data", "here")
    assert.equal("event: made\ndata: here\n\n", written(event))
    assert.is_not_nil(a and b and bytes)
  end)

  it("refuses what can't be said in a stream, and changes nothing", function()
    for _, field in ipairs { "type", "id" } do
      for _, value in ipairs { "a\nb", "a\r", "\0", "data\n\ndata: x" } do
        local event, bytes = new_event "data: x\r\r"
        assert.equal(BAD, (set(event, field, value)))
        assert.equal("data: x\r\r", written(event))
        assert.is_not_nil(bytes)
      end
    end
  end)

  it("reads back data that was set as it will be read", function()
    local event, bytes = new_event "data: x\n\n"
    local _, view = set(event, "data", "a\r\nb\r")
    assert.equal("a\nb\n", data_of(event))
    assert.equal(3, event.data_lines)
    local _, comment = set(event, "comment", "c\rd")
    assert.equal("c\nd", comment_of(event))
    assert.is_not_nil(bytes and view and comment)
  end)
end)

-- What a browser would make of the blocks, each read by gw_event_*.
local Browser = {}
Browser.__index = Browser

local function new_browser()
  return setmetatable({ events = {}, id = "" }, Browser)
end

function Browser:see(raw, unfinished)
  local fields = fields_of(raw)
  self.retry = fields.retry or self.retry
  if unfinished then return end
  self.id = fields.id or self.id
  if not fields.data then return end
  local type_ = fields.type ~= "" and fields.type or "message"
  self.events[#self.events + 1] = { type = type_, data = fields.data, lastEventId = self.id }
end

-- The whole way: scanner, then events. No piece is looked at twice. A late LF stays in front.
local function interpret(pieces)
  local scan = rt.new("struct gw_sse_scan", C.gw_sse_scan_init)
  local ended = ffi.new "bool[1]"
  local browser, kept = new_browser(), ""
  for _, piece in ipairs(pieces) do
    local at = 0
    while at < #piece do
      local rest = piece:sub(at + 1)
      local n = tonumber(C.gw_sse_scan_next(scan, rest, #rest, ended))
      kept = kept .. rest:sub(1, n)
      at = at + n
      if ended[0] then
        browser:see(kept)
        kept = ""
      end
    end
  end
  browser:see(kept:match("^(.*[\r\n])") or "", true)
  return { events = browser.events, retry = browser.retry, lastEventId = browser.id }
end

local function without_bom(stream)
  return stream:sub(1, 3) == BOM and stream:sub(4) or stream
end

local function assert_same_as_reference(stream, split_everywhere)
  local expected = reference.interpret(stream)
  local bytes = without_bom(stream)
  assert.same(expected, interpret { bytes })
  local single = {}
  for i = 1, #bytes do single[i] = bytes:sub(i, i) end
  if #bytes < 2000 then assert.same(expected, interpret(single)) end
  for at = 1, split_everywhere and #bytes or 0 do
    assert.same(expected, interpret { bytes:sub(1, at), bytes:sub(at + 1) })
  end
end

describe("sse event: as the standard says", function()
  setup(function() jit.on() end)
  teardown(function() jit.off() end)

  for name, stream in pairs(reference.corpus()) do
    it(name, function()
      assert_same_as_reference(stream, #stream < 500)
    end)
  end

  it("for random streams", function()
    for seed = 1, 600 do
      local random = rt.random(seed)
      assert_same_as_reference(reference.random_stream(random, random(0, 14)), seed % 30 == 0)
    end
  end)

  local VALUES = {
    type = { "", "a", "message", " b" }, id = { "", "1", " x" },
    data = { "", "x", " y", "a\nb", "\n", "\r\r\n", ":" },
    retry = { 0, 1, 123456 }, comment = { "", "c", "data: no\nid: no" },
  }
  local FIELDS = { "type", "id", "data", "retry", "comment" }

  -- The fields as they must be read after a change.
  local function expected_after(fields, field, value)
    if type(value) == "string" then value = value:gsub("\r\n?", "\n") end
    if field == "type" and (value == "" or value == "message") then value = nil end
    fields[field] = value
    return fields
  end

  it("after random changes, with all the rest as it was", function()
    for seed = 1, 1500 do
      local random = rt.random(seed)
      local raw = without_bom(reference.random_stream(random, random(0, 5)))
      raw = raw:gsub("\r\n?", "\n"):gsub("\n\n+", "\n") .. "\n\n"
      local event, bytes = new_event(raw)
      local expected = fields_of(raw)
      local views = {}
      for i = 1, random(1, 3) do
        local field = FIELDS[random(1, #FIELDS)]
        local value = VALUES[field][random(0, #VALUES[field])]
        local err, view = set(event, field, value)
        assert.equal(OK, err)
        views[i] = view
        expected = expected_after(expected, field, value)
      end
      local text = written(event)
      assert.same(expected, (fields_of(text)))
      assert.is_nil(text:find("\n\n.", 1), "one event became two")
      assert.is_true(text == "" or text:sub(-2) == "\n\n")
      assert.is_not_nil(bytes and views)
    end
  end)
end)
