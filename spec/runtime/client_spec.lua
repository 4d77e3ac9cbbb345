local cases = require "spec.runtime.data.client_cases"
local ffi = require "ffi"
local net = require "support.net"
local rt = require "support.runtime"

local C = rt.load("http/fields.h", "http/forwarded.h", "gateway/claim.h")

local trusted, peer, arena = nil, net.addr("10.0.0.1", 4321), nil

local function text_of(addr)
  local text = ffi.new "char[128]"
  return rt.cstring(C.gw_addr_text(addr, text))
end

-- At the end of a buffer of its own, so that a read past the end is seen (ASan).
local function exact(text)
  local bytes = ffi.C.malloc(math.max(#text, 1))
  ffi.copy(bytes, text, #text)
  return ffi.new("struct gw_slice", ffi.cast("const char *", bytes), #text), bytes
end

local function node(text, strict)
  local slice, bytes = exact(text)
  local addr = ffi.new "struct gw_addr"
  local found = C.gw_forwarded_node(slice, strict, addr)
  ffi.C.free(bytes)
  return found and text_of(addr)
end

local function new_head(name, values)
  local head = ffi.new "struct gw_head"
  C.gw_head_init(head, arena)
  for _, value in ipairs(values) do C.gw_fields_add(head, rt.slice(name), rt.slice(value)) end
  return head
end

local function claim_of(head, forwarded)
  local claim = ffi.new "struct gw_claim"
  C.gw_claim_read(claim, trusted, forwarded or false, peer, head)
  return claim
end

local function host_of(addr)
  return rt.cstring(C.gw_addr_host(addr, ffi.new "char[128]"))
end

local function given(slice)
  return slice.ptr ~= nil and rt.string(slice) or nil
end

local function label(values)
  local text = table.concat(values, " | ")
  return #text > 60 and ("%s… (%d bytes)"):format(text:sub(1, 60), #text) or text
end

setup(function()
  pcall(ffi.cdef, "void *malloc(size_t); void free(void *);")
  trusted = ffi.new "struct gw_networks"
  for i, text in ipairs { "10.0.0.0/8", "2001:db8:a::/48" } do
    assert(C.gw_network_parse(trusted.of[i - 1], text))
    trusted.count = i
  end
end)

before_each(function() arena = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear) end)

describe("an address that a proxy names", function()
  for _, case in ipairs(cases.nodes) do
    it(("%q"):format(case[1]:sub(1, 40)), function()
      assert.equal(case[2], node(case[1], false))
      assert.equal(case[3], node(case[1], true))
    end)
  end
end)

describe("the client by X-Forwarded-For", function()
  for _, case in ipairs(cases.x_forwarded_for) do
    it(label(case[1]) .. " is " .. case[2], function()
      local head = new_head("X-Forwarded-For", case[1])
      C.gw_fields_add(head, rt.slice "forwarded", rt.slice "for=203.0.113.99")
      assert.equal(case[2], host_of(claim_of(head, false).client))
    end)
  end

  it("has the port that is said, and the peer its own", function()
    local function client(value) return text_of(claim_of(new_head("X-Forwarded-For", { value })).client) end
    assert.equal("198.51.100.7:4711", client "198.51.100.7:4711")
    assert.equal("10.0.0.1:4321", client "?")
  end)
end)

describe("the client by Forwarded", function()
  for _, case in ipairs(cases.forwarded) do
    it(label(case[1]) .. " is " .. case[2], function()
      local head = new_head("Forwarded", case[1])
      C.gw_fields_add(head, rt.slice "x-forwarded-for", rt.slice "203.0.113.99")
      local claim = claim_of(head, true)
      assert.equal(case[2], host_of(claim.client))
      assert.equal(case[3], given(claim.proto))
      assert.equal(case[4], given(claim.host))
    end)
  end
end)

describe("what is said of the client", function()
  local function stays(fields, trusts, forwarded)
    local head = new_head("first", { "1" })
    for _, field in ipairs(fields) do C.gw_fields_add(head, rt.slice(field[1]), rt.slice(field[2])) end
    C.gw_fields_add(head, rt.slice "last", rt.slice "2")
    C.gw_claim_sift(trusts and claim_of(head, forwarded) or nil, forwarded, head)
    local left = {}
    for i = 0, head.count - 1 do
      left[#left + 1] = rt.string(head.fields[i].name) .. ": " .. rt.string(head.fields[i].value)
    end
    assert.equal("first: 1", table.remove(left, 1))
    assert.equal("last: 2", table.remove(left))
    return left
  end

  for _, case in ipairs(cases.fields) do
    it(("%s: %s"):format(case[1], case[2]), function()
      local whole = { case[1] .. ": " .. case[2] }
      assert.same({}, stays({ case }, false, false))
      assert.same(case[3] and whole or {}, stays({ case }, true, false))
      assert.same(case[4] and whole or {}, stays({ case }, true, true))
    end)
  end

  it("is in doubt when it is said twice, but for lists", function()
    for _, name in ipairs { "proto", "host", "port" } do
      local field = { "x-forwarded-" .. name, name == "proto" and "https" or "80" }
      assert.same({ "a: " }, stays({ field, { "a", "" }, field }, true, false))
    end
    assert.equal(2, #stays({ { "x-forwarded-for", "::1" }, { "x-forwarded-for", "::2" } }, true, false))
  end)

  it("is who was found, in X-Real-IP of a proxy that writes one", function()
    local fields = { { "x-real-ip", "203.0.113.99" }, { "x-real-ip", "203.0.113.98" },
      { "x-forwarded-for", "198.51.100.7" } }
    assert.equal("x-real-ip: 198.51.100.7", stays(fields, true, false)[1])
    assert.equal(2, #stays(fields, true, false))
    assert.same({ "x-real-ip: 10.0.0.1" }, stays(fields, true, true))
    assert.same({}, stays(fields, false, false))
  end)

  it("has nothing to do with other names", function()
    for _, name in ipairs(cases.others) do
      assert.same({ name .. ": v" }, stays({ { name, "v" } }, false, false))
      assert.same({ name .. ": v" }, stays({ { name, "v" } }, true, true))
    end
  end)
end)

describe("garbage", function()
  local PARTS = { "for=", '"', "\\", ",", ";", "=", "[", "]", ":", "10.0.0.1", "198.51.100.7", "::1", "_x",
    " ", "\t", "proto=https", "host=", "\0", "\255", "unknown", "%" }

  it("is read within its bounds, and names nobody who was not named", function()
    math.randomseed(7)
    for _ = 1, 3000 do
      local text = {}
      for i = 1, math.random(1, 24) do text[i] = PARTS[math.random(#PARTS)] end
      text = table.concat(text)
      node(text, true)
      node(text, false)
      local said = ffi.new "struct gw_forwarded"
      local slice, bytes = exact(text)
      local list = ffi.new("struct gw_slice[1]", { slice })
      while list[0].len > 0 do
        local before = tonumber(list[0].len)
        local element = C.gw_forwarded_last(list, true)
        assert.is_true(tonumber(list[0].len) < before)
        C.gw_forwarded_read(element, said)
      end
      ffi.C.free(bytes)
      for _, forwarded in ipairs { true, false } do
        local head = new_head(forwarded and "forwarded" or "x-forwarded-for", { text })
        local client = claim_of(head, forwarded).client
        -- Only what was said at all.
        assert.is_true(client.family == peer.family or text:find("::", 1, true) ~= nil)
      end
      C.gw_arena_clear(arena)
    end
  end)
end)
