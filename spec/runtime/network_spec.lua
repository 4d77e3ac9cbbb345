local ffi = require "ffi"
local net = require "support.net"
local rt = require "support.runtime"

local C = rt.load("net/addr.h", "net/network.h")

local function parse(text)
  local network = ffi.new "struct gw_network"
  return C.gw_network_parse(network, text) and network or nil
end

local function has(text, host)
  local list = ffi.new "struct gw_networks"
  list.of[0] = assert(parse(text), text)
  list.count = 1
  return C.gw_networks_have(list, net.addr(host, 80))
end

describe("a network", function()
  teardown(function() C.gw_addr_fini() end)

  for _, case in ipairs {
    { "10.0.0.0/8", "10.255.0.1", "11.0.0.1" },
    { "10.9.9.9/8", "10.0.0.1", "9.255.255.255" },
    { "192.0.2.128/25", "192.0.2.255", "192.0.2.127" },
    { "192.0.2.1", "192.0.2.1", "192.0.2.2" },
    { "192.0.2.1/31", "192.0.2.0", "192.0.2.2" },
    { "0.0.0.0/0", "203.0.113.9", "::1" },
    { "2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1" },
    { "::/0", "2001:db8::1", "127.0.0.1" },
    { "::1", "::1", "::2" },
    { "::ffff:10.0.0.1", "10.0.0.1", "::1" },
    { "::ffff:10.0.0.0/8", "10.9.9.9", "::1" },
    { "unix:", "unix:/run/x.sock", "127.0.0.1" },
  } do
    it(("%s has %s, not %s"):format(unpack(case)), function()
      assert.is_true(has(case[1], case[2]))
      assert.is_false(has(case[1], case[3]))
    end)
  end

  for _, text in ipairs { "", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8 ", "10.0.0/8",
    "::/129", "::ffff:10.0.0.0/40", "::1/1x", "a.example", "unix", "unix:/run/x.sock",
    ("1"):rep(300), "10.0.0.0/99999999999" } do
    it(("is not %q"):format(text:sub(1, 20)), function() assert.is_nil(parse(text)) end)
  end

  it("that is not in the list is nobody's", function()
    assert.is_false(C.gw_networks_have(ffi.new "struct gw_networks", net.addr("127.0.0.1", 1)))
  end)
end)
