--- What is one client, where clients are bounded.
local ffi = require "ffi"
local rt = require "support.runtime"

local C = rt.load("net/addr.h", "gateway/bounds.h")

describe("a client, where clients are bounded,", function()
  teardown(function() C.gw_addr_fini() end)

  local function key(host, prefix6, port)
    local addr = ffi.new "struct gw_addr"
    assert(C.gw_addr_parse(addr, host, port or 80), host)
    return tostring(C.gw_bounds_client(addr, prefix6 or 64))
  end

  it("is an IPv4 address, whatever its port", function()
    assert.equal(key("10.0.0.1", 64, 1), key("10.0.0.1", 128, 2))
    assert.not_equal(key("10.0.0.1"), key("10.0.0.2"))
  end)

  it("is a prefix of an IPv6 address", function()
    assert.equal(key "2001:db8::1", key "2001:db8::ffff:2")
    assert.not_equal(key "2001:db8::1", key "2001:db8:0:1::1")
    assert.not_equal(key("2001:db8::1", 128), key("2001:db8::2", 128))
    assert.equal(key("2001:db8:0:10::1", 60), key("2001:db8:0:1f::1", 60))
    assert.not_equal(key("2001:db8:0:10::1", 60), key("2001:db8:0:20::1", 60))
    assert.not_equal(key("0a00:1::", 64), key("10.0.0.1", 64))
  end)

  it("is nobody on a unix socket", function()
    assert.equal("0ULL", key "unix:/tmp/x")
  end)
end)
