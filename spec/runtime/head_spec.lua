local ffi = require "ffi"
local rt = require "support.runtime"

local C = rt.load("http/head.h", "http/fields.h")

local arena, head

before_each(function()
  arena = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear)
  head = ffi.new "struct gw_head"
  C.gw_head_init(head, arena)
end)

local function reason(status)
  return rt.cstring(C.gw_status_reason(status))
end

describe("a head", function()
  it("is empty and of HTTP/1.1 at first", function()
    assert.equal(0, head.count)
    assert.equal(1, head.minor)
    assert.equal(0, tonumber(head.length))
    assert.is_false(head.has_body)
    assert.is_true(head.arena == arena)
  end)

  it("is copied with all its text", function()
    local text = ffi.new("char[4]", "abc")
    head.method = ffi.new("struct gw_slice", text, 3)
    head.path = ffi.new("struct gw_slice", text, 2)
    head.status, head.length, head.expect_continue = 201, 7, true
    C.gw_fields_add(head, rt.slice "A", rt.slice "1")
    C.gw_fields_add(head, rt.slice "B", rt.slice "")

    local other = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear)
    local copy = ffi.new "struct gw_head"
    C.gw_head_init(copy, other)
    C.gw_head_copy(copy, head)
    ffi.fill(text, 4, 120)
    C.gw_fields_set(head, rt.slice "a", rt.slice "2")
    C.gw_arena_clear(arena)

    assert.is_true(copy.arena == other)
    assert.equal("abc", rt.string(copy.method))
    assert.equal("ab", rt.string(copy.path))
    assert.equal(201, copy.status)
    assert.equal(7, tonumber(copy.length))
    assert.is_true(copy.expect_continue)
    assert.equal("1", rt.string(C.gw_fields_get(copy, rt.slice "a")))
    assert.is_true(C.gw_fields_has(copy, rt.slice "b"))
    C.gw_fields_add(copy, rt.slice "c", rt.slice "3")
    assert.equal(3, copy.count)
  end)

  it("takes its target apart", function()
    for target, parts in pairs {
      ["/a/b"] = { "/a/b" }, ["/a?b=c?d"] = { "/a", "b=c?d" }, ["/?"] = { "/", "" }, ["*"] = { "*" },
        [""] = { "" },
    } do
      local text = rt.slice(target)
      head.path = text
      local query = C.gw_head_query(head)
      assert.equal(parts[1], rt.string(C.gw_head_path(head)))
      assert.equal(parts[2] == nil, query.ptr == nil)
      assert.equal(parts[2] or "", rt.string(query))
    end
  end)
end)

describe("a status", function()
  it("has its phrase", function()
    assert.equal("Continue", reason(100))
    assert.equal("OK", reason(200))
    assert.equal("Content Too Large", reason(413))
    assert.equal("Network Authentication Required", reason(511))
  end)

  it("has an empty phrase when it is not registered", function()
    for _, status in ipairs { 0, 99, 199, 299, 306, 418, 512, 999 } do assert.equal("", reason(status)) end
  end)

  it("has a phrase for whatever the gateway answers by itself", function()
    for err = 0, tonumber(C.GW_ERR_LIMIT) - 1 do
      local status = C.gw_err_status(err)
      assert.is_true(status == 0 or reason(status) ~= "", tostring(status))
    end
  end)
end)

describe("the date", function()
  it("is an IMF-fixdate of now", function()
    local before = os.time()
    local text = rt.string(C.gw_http_date())
    local after = os.time()
    local matches = false
    for now = before, after do matches = matches or os.date("!%a, %d %b %Y %H:%M:%S GMT", now) == text end
    assert.is_true(matches, text)
    assert.truthy(text:find "^%u%l%l, %d%d %u%l%l %d%d%d%d %d%d:%d%d:%d%d GMT$")
  end)
end)
