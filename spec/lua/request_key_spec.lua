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

  it("are networks with the number of their bits", function()
    for _, text in ipairs({ "10.0.0.0/8", "192.0.2.1", "0.0.0.0/0", "::/0", "2001:db8::/32",
      "::ffff:10.0.0.1/8" }) do
      assert.message(text).is_true(network.cidr(text))
    end
    for _, text in ipairs({ "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/x", "example.com",
      "10.0.0/8" }) do
      local parsed, why = network.cidr(text)
      assert.message(text).is_nil(parsed)
      assert.message(text).is_string(why)
    end
  end)
end)

describe("the client", function()
  it("is whom the runtime names, not its proxy", function()
    local ctx = testing.context({ client = "198.51.100.7", peer = "192.0.2.1" })
    assert.equal("\198\51\100\7", client.network(ctx, 32, 128))
    assert.equal("\192\0\2\1", client.peer_network(ctx, 32, 128))
    assert.equal("198.51.100.7", request_key.value({ kind = "ip" }, ctx))
    assert.equal("unix:", client.network(testing.context({ client = "unix:" }), 32, 128))
  end)

  it("may stand for its network", function()
    local function place(text) return client.network(testing.context({ client = text }), 24, 64) end
    assert.equal("\192\0\2\0", place("192.0.2.77"))
    assert.equal(place("2001:db8:0:1::1"), place("2001:db8:0:1:ffff::2"))
    assert.not_equal(place("2001:db8:0:1::1"), place("2001:db8:0:2::1"))
  end)
end)
