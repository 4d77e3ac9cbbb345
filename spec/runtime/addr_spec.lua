local ffi = require "ffi"
local net = require "support.net"

local C = net.C

local function parse(host, port)
  local addr = ffi.new "struct gw_addr"
  return C.gw_addr_parse(addr, host, port) and addr or nil
end

local out = ffi.new("char[?]", C.GW_ADDR_TEXT)

local function text(addr)
  return ffi.string(C.gw_addr_text(addr, out))
end

local function host(addr)
  return ffi.string(C.gw_addr_host(addr, out))
end

describe("an address", function()
  teardown(function() C.gw_addr_fini() end)

  local good = {
    { "127.0.0.1", 80, "127.0.0.1:80" },
    { "255.255.255.255", 65535, "255.255.255.255:65535" },
    { "localhost", 3010, "127.0.0.1:3010" },
    { "", 8080, "0.0.0.0:8080" },
    { "*", 8080, "0.0.0.0:8080" },
    { "0.0.0.0", 0, "0.0.0.0:0" },
    { "::1", 80, "[::1]:80" },
    { "[::1]", 80, "[::1]:80" },
    { "::", 1, "[::]:1" },
    { "2001:DB8::0:1", 443, "[2001:db8::1]:443" },
    { "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", 65535,
      "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535" },
  }
  for _, case in ipairs(good) do
    it("is read from " .. case[1] .. " and " .. case[2], function()
      local addr = assert(parse(case[1], case[2]))
      assert.equal(case[3], text(addr))
      assert.equal(case[2], addr.port)
      assert.equal(case[3]:gsub(":%d+$", ""):gsub("[%[%]]", ""), host(addr))
    end)
  end

  local bad = {
    "example.com", "Localhost.", "127.0.0", "127.0.0.1.", "127.0.0.256", "127.0.0.1 ", " ", "[", "[]",
    "[::1", "::1]", "[127.0.0.1]", ":::", "::1%lo", "1.2.3.4:80", ("1"):rep(200),
  }
  for _, case in ipairs(bad) do
    it("is not read from '" .. case .. "'", function() assert.is_nil(parse(case, 80)) end)
  end

  it("has a port of 16 bits", function()
    assert.is_nil(parse("127.0.0.1", 65536))
    assert.is_nil(parse("::1", 4294967295))
  end)

  it("equals one with the same family, host and port", function()
    local all = {
      parse("127.0.0.1", 80), parse("127.0.0.1", 81), parse("127.0.0.2", 80), parse("::1", 80),
      parse("::1", 81), parse("::2", 80), parse("::", 80), parse("*", 80), ffi.new "struct gw_addr",
    }
    for i, a in ipairs(all) do
      for j, b in ipairs(all) do assert.equal(i == j, C.gw_addr_eq(a, b)) end
    end
    assert.is_true(C.gw_addr_eq(parse("[::1]", 80), parse("::1", 80)))
  end)

  it("may be the path of a unix socket, the same for everybody who names it", function()
    local longest = "unix:/" .. ("x"):rep(106)
    for _, path in ipairs { "unix:/run/api.sock", "unix:/run/other.sock", longest } do
      local addr, sa = assert(parse(path, 80)), ffi.new "union gw_sockaddr"
      assert.same({ path, path, 0 }, { text(addr), host(addr), addr.port })
      assert.is_true(C.gw_addr_eq(addr, parse(path, 0)))
      assert.is_false(C.gw_addr_eq(addr, parse(path .. "2", 0) or parse("unix:/run/x", 0)))
      assert.equal(110, tonumber(C.gw_addr_get(addr, sa)))
      assert.equal(path, "unix:" .. ffi.string(sa.un.sun_path))
    end
    assert.is_nil(parse(longest .. "x", 0))
    assert.is_nil(parse("unix:run/api.sock", 0))
    assert.is_nil(parse("unix:", 0))
  end)

  it("has its place among others: IPv4 first, then by host", function()
    local sorted = { "9.0.0.1", "10.0.0.1", "10.0.0.2", "::1", "2001:db8::1" }
    for i, a in ipairs(sorted) do
      for j, b in ipairs(sorted) do
        local apart = C.gw_addr_compare(parse(a, 80), parse(b, 80))
        assert.equal(i < j, apart < 0)
        assert.equal(i > j, apart > 0)
      end
    end
  end)

  it("leads nowhere when it is nobody's", function()
    local nobodys = { "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "fe80::1" }
    for _, nowhere in ipairs(nobodys) do
      assert.is_false(C.gw_addr_reachable(parse(nowhere, 80)), nowhere)
    end
    for _, somewhere in ipairs { "10.0.0.1", "127.0.0.1", "2001:db8::1", "unix:/x" } do
      assert.is_true(C.gw_addr_reachable(parse(somewhere, 80)), somewhere)
    end
    assert.is_false(C.gw_addr_reachable(ffi.new "struct gw_addr"))
  end)

  it("comes from the kernel, and in IPv6 clothes is an IPv4 address", function()
    local function taken(addr, len)
      local copy, sa = ffi.new "struct gw_addr", ffi.new "union gw_sockaddr"
      local whole = C.gw_addr_get(addr, sa)
      C.gw_addr_set(copy, sa.any, len or whole)
      return text(copy)
    end
    assert.equal("10.1.2.3:80", taken(parse("10.1.2.3", 80)))
    assert.equal("[fe80::1]:81", taken(parse("fe80::1", 81)))
    assert.equal("10.1.2.3:82", taken(parse("::ffff:10.1.2.3", 82)))
    assert.equal("-", taken(parse("10.1.2.3", 80), 4)) -- cut short
  end)

  it("that is unknown says so", function()
    local unknown = ffi.new "struct gw_addr"
    assert.equal("-", text(unknown))
    assert.equal("-", host(unknown))
    assert.equal(0, unknown.port)
    local packet = ffi.new("struct sockaddr", { sa_family = 17 }) -- AF_PACKET
    C.gw_addr_set(unknown, packet, ffi.sizeof(packet))
    assert.equal(0, unknown.family)
  end)

  it("of a peer on a unix socket has no path, whatever it is bound to", function()
    local peer, sa = ffi.new "struct gw_addr", ffi.new "union gw_sockaddr"
    local whole = C.gw_addr_get(parse("unix:/run/peer.sock", 0), sa)
    for _, len in ipairs { 2, tonumber(whole) } do
      C.gw_addr_set(peer, sa.any, len)
      assert.equal(1, peer.family)
      assert.equal("unix:", text(peer))
      assert.equal("unix:", host(peer))
    end
    assert.equal(whole, C.gw_addr_get(peer, sa))
    assert.equal(0, sa.un.sun_path[0])
    assert.is_false(C.gw_addr_eq(peer, parse("unix:/run/peer.sock", 0)))
  end)
end)
