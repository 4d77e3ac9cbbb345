--- What in a request names its session or its user; and who the client is behind proxies.
local testing = require("gateway.testing")
local network = require("gateway.network")
local client = require("gateway.client")
local request_key = require("gateway.request_key")

before_each(testing.reset)

describe("request_key", function()
  it("finds the one cookie", function()
    for header, want in pairs({
      ["S=1"] = "1", ["a=b; S=2; c=d"] = "2", ["XS=1; S=3"] = "3", ["a=S=9; S=4"] = "4", ["SS=1;S=5"] = "5",
      ["a=1, S=6"] = "6",
    }) do
      assert.equal(want, request_key.cookie(header, "S"), header)
    end
    for _, header in ipairs({ "", "S", "S=", "XS=1", "a=S", "S =1", "SX=1" }) do
      assert.is_nil(request_key.cookie(header, "S"), header)
    end
    assert.is_nil(request_key.cookie(nil, "S"))
  end)

  it("reads what its text says", function()
    local ctx = testing.context({ path = "/?room=7&empty=", params = { user = "ann" },
      headers = { Cookie = "sid=c", ["X-Shard"] = "h", ["X-Empty"] = "" } })
    for text, want in pairs({ ["header:x-shard"] = "h", ["cookie:sid"] = "c", ["query:room"] = "7",
      ["path:user"] = "ann", ip = "\192\0\2\1" }) do
      assert.message(text).equal(want, request_key.reader(text)(ctx))
    end
    for _, text in ipairs({ "header:X-Other", "header:X-Empty", "cookie:other", "query:empty",
      "path:other" }) do
      assert.message(text).is_nil(request_key.reader(text)(ctx))
    end
  end)
end)

describe("addresses", function()
  it("are taken apart", function()
    for text, want in pairs({
      ["192.0.2.1"] = "c000 0201", ["0.0.0.0"] = "0000 0000", ["::ffff:192.0.2.1"] = "c000 0201",
      ["::"] = "0000 0000 0000 0000 0000 0000 0000 0000",
      ["2001:db8::1"] = "2001 0db8 0000 0000 0000 0000 0000 0001",
      ["1:2:3:4:5:6:7:8"] = "0001 0002 0003 0004 0005 0006 0007 0008",
      ["64:ff9b::192.0.2.33"] = "0064 ff9b 0000 0000 0000 0000 c000 0221",
    }) do
      local groups = assert(network.parse(text), text)
      for i, group in ipairs(groups) do groups[i] = ("%04x"):format(group) end
      assert.message(text).equal(want, table.concat(groups, " "))
    end
    for _, text in ipairs({ "", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "unknown", ":",
      ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8", "12345::", "g::",
      "1.2.3.4::", "fe80::1%eth0" }) do
      assert.message(text).is_nil(network.parse(text))
    end
  end)

  it("belong to networks", function()
    local function within(text, ...)
      local networks = {}
      for i, cidr in ipairs({ ... }) do networks[i] = assert(network.cidr(cidr)) end
      return network.within(network.parse(text), networks)
    end
    assert.is_true(within("10.255.0.1", "10.0.0.0/8"))
    assert.is_true(within("10.255.0.1", "192.0.2.0/24", "10.9.9.9/8"))
    assert.is_false(within("11.0.0.1", "10.0.0.0/8"))
    assert.is_true(within("192.0.2.77", "192.0.2.64/26"))
    assert.is_false(within("192.0.2.63", "192.0.2.64/26"))
    assert.is_true(within("1.2.3.4", "0.0.0.0/0"))
    assert.is_false(within("1.2.3.4", "::/0"))
    assert.is_true(within("1.2.3.4", "1.2.3.4"))
    assert.is_false(within("1.2.3.5", "1.2.3.4"))
    assert.is_true(within("2001:db8:ffff::1", "2001:db8::/32"))
    assert.is_false(within("2001:db9::1", "2001:db8::/32"))
    assert.is_true(within("::ffff:10.0.0.1", "10.0.0.0/8"))
    for _, text in ipairs({ "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/x", "example.com",
      "10.0.0/8" }) do
      local parsed, why = network.cidr(text)
      assert.message(text).is_nil(parsed)
      assert.message(text).is_string(why)
    end
  end)
end)

describe("the client", function()
  local PROXIES = client.trusted({ "192.0.2.0/24", "2001:db8::/32" })

  local function seen(forwarded, peer, trusted)
    local ctx = testing.context({ client = peer, headers = { ["X-Forwarded-For"] = forwarded } })
    local bytes = { client.network(ctx, trusted, 32, 128):byte(1, -1) }
    if #bytes == 4 then return table.concat(bytes, ".") end
    for i, byte in ipairs(bytes) do bytes[i] = ("%02x"):format(byte) end
    return table.concat(bytes)
  end

  it("is the peer where nobody is trusted", function()
    assert.equal("192.0.2.1", seen("198.51.100.7"))
    assert.equal("198.51.100.9", seen("198.51.100.7", "198.51.100.9", PROXIES))
    assert.is_nil(client.trusted({}))
    assert.is_nil(client.trusted(nil))
  end)

  it("is the last one in the list that is not trusted", function()
    assert.equal("198.51.100.7", seen("198.51.100.7", nil, PROXIES))
    assert.equal("198.51.100.7", seen("203.0.113.1, 198.51.100.7", nil, PROXIES))
    assert.equal("198.51.100.7", seen("203.0.113.1, 198.51.100.7 ,192.0.2.9,\t2001:db8::5", nil, PROXIES))
    assert.equal("198.51.100.7", seen("198.51.100.7", "2001:db8::1", PROXIES))
    assert.equal("198.51.100.7", seen({ "203.0.113.1", "198.51.100.7" }, nil, PROXIES))
  end)

  it("is the outermost proxy where all are trusted", function()
    assert.equal("192.0.2.8", seen("192.0.2.8, 192.0.2.9", nil, PROXIES))
    assert.equal("192.0.2.1", seen(nil, nil, PROXIES))
  end)

  it("is the proxy that wrote what can't be read", function()
    assert.equal("192.0.2.1", seen("unknown", nil, PROXIES))
    assert.equal("192.0.2.1", seen("", nil, PROXIES))
    assert.equal("192.0.2.9", seen("198.51.100.7, _hidden, 192.0.2.9", nil, PROXIES))
    assert.equal("192.0.2.9", seen("198.51.100.7,, 192.0.2.9", nil, PROXIES))
    assert.equal("192.0.2.1", seen("198.51.100.7" .. (" "):rep(30000) .. "x", nil, PROXIES))
    assert.equal("192.0.2.9", seen("198.51.100.7 198.51.100.8, 192.0.2.9", nil, PROXIES))
  end)

  it("may come with a port", function()
    assert.equal("198.51.100.7", seen("198.51.100.7:4711", nil, PROXIES))
    for _, text in ipairs({ "2001:db9::1", "[2001:db9::1]", "[2001:db9::1]:4711" }) do
      assert.equal("20010db9" .. ("0"):rep(23) .. "1", seen(text, nil, PROXIES))
    end
  end)

  it("may stand for its network", function()
    local function place(text) return client.network(testing.context({ client = text }), nil, 24, 64) end
    assert.equal("\192\0\2\0", place("192.0.2.77"))
    assert.equal(place("2001:db8:0:1::1"), place("2001:db8:0:1:ffff::2"))
    assert.not_equal(place("2001:db8:0:1::1"), place("2001:db8:0:2::1"))
  end)
end)
