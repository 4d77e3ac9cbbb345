local ffi = require "ffi"
local rt = require "support.runtime"

local C = rt.load("http/fields.h")

local arena, head

before_each(function()
  arena = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear)
  head = ffi.new "struct gw_head"
  C.gw_head_init(head, arena)
end)

local function add(name, value)
  C.gw_fields_add(head, rt.slice(name), rt.slice(value))
end

local function text(slice)
  return slice.ptr ~= nil and rt.string(slice) or nil
end

local function get(name)
  return text(C.gw_fields_get(head, rt.slice(name)))
end

-- "a: 1, b: 2"
local function all()
  local list = {}
  for i = 0, head.count - 1 do
    list[#list + 1] = rt.string(head.fields[i].name) .. ": " .. rt.string(head.fields[i].value)
  end
  return table.concat(list, ", ")
end

local function elements(list)
  local rest, element, found = ffi.new "struct gw_slice[1]", ffi.new "struct gw_slice[1]", {}
  rest[0] = rt.slice(list)
  while C.gw_list_next(rest, element) do found[#found + 1] = rt.string(element[0]) end
  return found
end

describe("fields", function()
  it("are found in any case, the first one of a name", function()
    add("Content-Type", "a")
    add("content-TYPE", "b")
    assert.equal("content-type: a, content-type: b", all())
    assert.equal("a", get "CONTENT-type")
    assert.is_nil(get "content-typ")
    assert.is_true(C.gw_fields_has(head, rt.slice "content-type"))
    assert.is_false(C.gw_fields_has(head, rt.slice ""))
  end)

  it("tell an empty value from none", function()
    add("a", "")
    assert.equal("", get "a")
    assert.is_nil(get "b")
  end)

  it("are copies", function()
    local bytes = ffi.new("char[2]", "x")
    C.gw_fields_add(head, ffi.new("struct gw_slice", bytes, 1), ffi.new("struct gw_slice", bytes, 1))
    bytes[0] = 121
    assert.equal("x: x", all())
  end)

  it("are set: one instead of all of that name, in the place of the first", function()
    add("a", "1")
    add("b", "2")
    add("A", "3")
    add("c", "4")
    C.gw_fields_set(head, rt.slice "A", rt.slice "5")
    assert.equal("a: 5, b: 2, c: 4", all())
    C.gw_fields_set(head, rt.slice "D", rt.slice "6")
    assert.equal("a: 5, b: 2, c: 4, d: 6", all())
  end)

  it("get defaults", function()
    add("a", "1")
    C.gw_fields_default(head, rt.slice "A", rt.slice "2")
    C.gw_fields_default(head, rt.slice "B", rt.slice "3")
    assert.equal("a: 1, b: 3", all())
  end)

  it("are removed, the others staying in order", function()
    for i, name in ipairs { "a", "b", "a", "c", "a" } do add(name, tostring(i)) end
    assert.equal(3, C.gw_fields_remove(head, rt.slice "A"))
    assert.equal("b: 2, c: 4", all())
    assert.equal(0, C.gw_fields_remove(head, rt.slice "A"))
  end)

  it("are appended to, at the end of the list that several of them make", function()
    C.gw_fields_append(head, rt.slice "Via", rt.slice "1")
    assert.equal("via: 1", all())
    add("via", "2")
    C.gw_fields_append(head, rt.slice "Via", rt.slice "3")
    assert.equal("via: 1, via: 2, 3", all())
  end)

  it("are joined", function()
    assert.is_nil(text(C.gw_fields_joined(head, rt.slice "a")))
    add("a", "1")
    assert.equal("1", text(C.gw_fields_joined(head, rt.slice "A")))
    add("b", "x")
    add("a", "")
    add("a", "2,3")
    assert.equal("1, , 2,3", text(C.gw_fields_joined(head, rt.slice "a")))
  end)

  it("may be many", function()
    for i = 1, 1000 do add("n" .. i, tostring(i)) end
    for i = 1, 1000 do assert.equal(tostring(i), get("N" .. i)) end
    for i = 1, 1000, 2 do C.gw_fields_remove(head, rt.slice("n" .. i)) end
    assert.equal(500, head.count)
    assert.equal("n2", rt.string(head.fields[0].name))
  end)
end)

describe("the syntax of fields", function()
  it("allows tokens for names", function()
    local allowed = "!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ"
    for byte = 0, 255 do
      local char = string.char(byte)
      local expected = allowed:find(char, 1, true) ~= nil or char:find "^%a$" ~= nil
      assert.equal(expected, C.gw_field_name_ok(rt.slice(char)), byte)
      assert.equal(expected, C.gw_field_name_ok(rt.slice("a" .. char .. "b")), byte)
    end
    assert.is_false(C.gw_field_name_ok(rt.slice ""))
  end)

  it("allows all but controls in values", function()
    for byte = 0, 255 do
      local expected = byte == 9 or (byte >= 32 and byte ~= 127)
      assert.equal(expected, C.gw_field_value_ok(rt.slice("a" .. string.char(byte))), byte)
    end
    assert.is_true(C.gw_field_value_ok(rt.slice ""))
  end)

  it("knows what belongs to codecs", function()
    for _, name in ipairs { "Content-Length", "transfer-encoding", "CONNECTION", "keep-alive",
      "proxy-connection",
      "te", "trailer", "upgrade" } do
      assert.is_true(C.gw_field_is_framing(rt.slice(name)), name)
    end
    for _, name in ipairs { "host", "content-type", "content-lengt", "", "t" } do
      assert.is_false(C.gw_field_is_framing(rt.slice(name)), name)
    end
  end)
end)

describe("lists", function()
  it("are walked by their elements", function()
    for list, expected in pairs {
      [""] = {}, [","] = {}, [" , ,\t,"] = {}, ["a"] = { "a" }, [" a ,b,, c\t"] = { "a", "b", "c" },
      ['a="b,c", d'] = { 'a="b,c"', "d" }, ['"a\\",b", c'] = { '"a\\",b"', "c" }, ['"a, b'] = { '"a, b' },
      ['"a\\'] = { '"a\\' },
    } do
      assert.same(expected, elements(list), list)
    end
  end)

  it("have tokens, in any case and in any of the fields", function()
    local function has(token) return C.gw_fields_have_token(head, rt.slice "Connection", rt.slice(token)) end
    add("connection", "keep-alive, Upgrade")
    add("other", "close")
    assert.is_true(has "upgrade")
    assert.is_true(has "KEEP-ALIVE")
    assert.is_false(has "close")
    assert.is_false(has "keep")
    add("connection", "Close")
    assert.is_true(has "close")
  end)
end)

describe("the media type", function()
  it("is without parameters and blanks", function()
    assert.equal("", rt.string(C.gw_fields_media_type(head)))
    for value, expected in pairs {
      ["text/event-stream"] = "text/event-stream", ["text/event-stream;charset=utf-8"] = "text/event-stream",
      ["text/html ; a"] = "text/html", [";"] = "",
    } do
      C.gw_fields_set(head, rt.slice "content-type", rt.slice(value))
      assert.equal(expected, rt.string(C.gw_fields_media_type(head)))
    end
  end)
end)
