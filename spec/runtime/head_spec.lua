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

  for _, length in ipairs { 7, 0, -1 } do
    it("is packed into bytes and unpacked with all its text, length " .. length, function()
      local long = {}
      for size = 1, 300 do long[size] = ("x"):rep(size) end
      local some = { "*", "no-cache", "no-cachE", "accept", "text/event-stream", ("x"):rep(70000) }
      for _, value in ipairs(some) do
        long[#long + 1] = value
      end
      local texts = { method = "abc", scheme = "https", authority = "h:1", path = "/a?b", upgrade_to = "u" }
      for name, value in pairs(texts) do
        head[name] = C.gw_arena_copy(arena, rt.slice(value))
      end
      head.status, head.minor, head.length, head.expect_continue = 201, 0, length, true
      C.gw_fields_add(head, rt.slice "A", rt.slice "1")
      C.gw_fields_add(head, rt.slice "cache-control", rt.slice "")
      for i, value in ipairs(long) do C.gw_fields_add(head, rt.slice("long-" .. i), rt.slice(value)) end

      local size = tonumber(C.gw_head_packed_size(head))
      local packed = ffi.new("char[?]", size + 1)
      packed[size] = 42
      C.gw_head_pack(head, packed)
      assert.equal(42, packed[size])
      C.gw_arena_clear(arena)
      local other = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear)
      local copy = ffi.new "struct gw_head"
      C.gw_head_init(copy, other)
      C.gw_head_unpack(copy, packed)
      ffi.fill(packed, size, 120)

      assert.is_true(copy.arena == other)
      assert.same({ "abc", "https", "h:1", "/a?b", "u" }, { rt.string(copy.method), rt.string(copy.scheme),
        rt.string(copy.authority), rt.string(copy.path), rt.string(copy.upgrade_to) })
      assert.same({ 201, 0, length }, { copy.status, copy.minor, tonumber(copy.length) })
      assert.same({ true, false, false }, { copy.expect_continue, copy.has_body, copy.upgrade })
      assert.equal(2 + #long, copy.count)
      assert.equal("1", rt.string(C.gw_fields_get(copy, rt.slice "a")))
      assert.is_true(C.gw_fields_has(copy, rt.slice "cache-control"))
      for i, value in ipairs(long) do
        assert.is_true(rt.string(C.gw_fields_get(copy, rt.slice("long-" .. i))) == value)
      end
      C.gw_fields_add(copy, rt.slice "c", rt.slice "3")
      assert.equal(3 + #long, copy.count)
    end)
  end

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
