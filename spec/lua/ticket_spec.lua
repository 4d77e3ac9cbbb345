--- Signed texts that name an instance. The keyed hash here is a stand-in; spec/runtime/crypto_spec.lua has
-- the real one, and spec/gateway/tickets_spec.lua shows both at work.
local testing = require("gateway.testing")
local core = require("gateway.core")
local ticket = require("gateway.ticket")

local OLD, NEW = ("old"):rep(8), ("new"):rep(8)

local function instances(service, ...)
  local list = {}
  for i, id in ipairs({ ... }) do list[i] = { index = i, id = id, service = service } end
  return list
end

describe("a ticket", function()
  local list, tickets

  before_each(function()
    testing.reset()
    list = instances("api", "a", "b", "c")
    tickets = ticket.new({ NEW, OLD }, 100)
  end)

  local function read(text, of, among)
    local instance, due, refused = ticket.read(of or tickets, text, among or list)
    return instance and instance.id, due, refused
  end

  it("names its instance, for whoever has the secret", function()
    for i = 1, 3 do
      local text = ticket.issue(tickets, list[i])
      assert.same({ list[i].id, false }, { read(text) })
      local elsewhere = instances("api", "c", "b", "x", "a")
      assert.same({ list[i].id, false }, { read(text, ticket.new({ NEW }, 100), elsewhere) })
    end
  end)

  it("does not tell what the instance is called", function()
    local text = ticket.issue(tickets, instances("api", "10.0.0.7:3010")[1])
    assert.matches("^%d+%.%x+%.%x+$", text)
    assert.is_nil(text:find("10.0.0.7", 1, true))
    local name = text:match("%.(%x+)%.")
    assert.not_equal(name, ticket.issue(ticket.new({ OLD }, 100), list[1]):match("%.(%x+)%."))
  end)

  it("is none when a digit of it is another one", function()
    local text = ticket.issue(tickets, list[1])
    for at = 1, #text do
      local digit = text:sub(at, at)
      local forged = text:sub(1, at - 1) .. (digit == "1" and "2" or "1") .. text:sub(at + 1)
      local id, due, refused = read(forged)
      assert.same({ nil, true }, { id, due }, forged)
      assert.is_string(refused)
    end
  end)

  it("is none when it is cut, or longer, or something else", function()
    local text = ticket.issue(tickets, list[1])
    for at = 0, #text - 1 do assert.is_nil((read(text:sub(1, at)))) end
    for _, other in ipairs({ text .. "0", "0" .. text, text .. ".", "x" .. text, ("1"):rep(20000), "..",
      "1.2.3", ("9"):rep(400) .. ".a.b" }) do
      assert.is_nil((read(other)))
    end
    assert.equal("malformed", select(3, read("x")))
  end)

  it("is none for another service, or with other secrets", function()
    local text = ticket.issue(tickets, list[1])
    local why = "not signed for this service with any of the secrets"
    assert.same({ nil, true, why }, { read(text, nil, instances("web", "a", "b", "c")) })
    assert.same({ nil, true, why }, { read(text, ticket.new({ OLD }, 100)) })
  end)

  it("compares signatures in constant time", function()
    local equal, compared = core.equal, 0
    core.equal = function(...)
      compared = compared + 1
      return equal(...)
    end
    read(ticket.issue(tickets, list[1]))
    read("1.aa.bb")
    core.equal = equal
    assert.equal(3, compared)
  end)

  it("is due when it was signed with another secret than the first", function()
    local text = ticket.issue(ticket.new({ OLD }, 100), list[2])
    assert.same({ "b", true }, { read(text) })
    assert.same({ "b", false }, { read(ticket.issue(tickets, list[2])) })
  end)

  it("is due when half of its time is over, and is none when all of it is", function()
    local text = ticket.issue(tickets, list[1])
    testing.advance(50)
    assert.same({ "a", false }, { read(text) })
    testing.advance(1)
    assert.same({ "a", true }, { read(text) })
    testing.advance(48)
    assert.same({ "a", true }, { read(text) })
    testing.advance(1)
    assert.same({ nil, true, "expired" }, { read(text) })
  end)

  it("is due when it would last longer than tickets do now, or shorter", function()
    local long, endless = ticket.issue(ticket.new({ NEW }, 1000), list[1]), ticket.new({ NEW }, 0)
    assert.same({ "a", true }, { read(long) })
    assert.same({ "a", true }, { read(ticket.issue(endless, list[1])) })
    assert.same({ "a", true }, { read(ticket.issue(tickets, list[1]), endless) })
    -- Another gateway's clock is a little ahead.
    local ahead = ticket.issue(ticket.new({ NEW }, 130), list[1])
    assert.same({ "a", false }, { read(ahead) })
  end)

  it("has no end where the ttl has none", function()
    local endless = ticket.new({ NEW }, 0)
    local text = ticket.issue(endless, list[1])
    assert.matches("^0%.", text)
    testing.advance(1e9)
    assert.same({ "a", false }, { read(text, endless) })
  end)

  it("is due, and no forgery, when its instance is not there", function()
    local text = ticket.issue(tickets, list[1])
    assert.same({ nil, true }, { read(text, nil, { list[2], list[3] }) })
  end)
end)
