local testing = require("gateway.testing")
local core = require("gateway.core")
local round_robin = require("gateway.balancer.round_robin")

local function instances(...)
  local list = {}
  for i, weight in ipairs({ ... }) do
    list[i] = { index = i, id = "i" .. i, service = "s", weight = weight }
  end
  return list
end

local function turns(list, count)
  local got = {}
  for i = 1, count do got[i] = round_robin.balance(nil, nil, list).id end
  return table.concat(got, " ")
end

before_each(testing.reset)

describe("round_robin", function()
  after_each(function() core.worker = 1 end)

  it("takes turns", function()
    assert.equal("i1 i2 i3 i1 i2 i3", turns(instances(1, 1, 1), 6))
  end)

  it("gives each its weight, spread out", function()
    assert.equal("i1 i1 i2 i1 i3 i1 i1 i1 i1 i2 i1 i3 i1 i1", turns(instances(5, 1, 1), 14))
    local list, count = instances(7, 3, 10), { i1 = 0, i2 = 0, i3 = 0 }
    for _ = 1, 200 do
      local id = round_robin.balance(nil, nil, list).id
      count[id] = count[id] + 1
    end
    assert.same({ i1 = 70, i2 = 30, i3 = 100 }, count)
  end)

  it("begins elsewhere in each worker", function()
    for worker, first in pairs({ "i1", "i2", "i3", "i1" }) do
      core.worker = worker
      assert.equal(first, turns(instances(1, 1, 1), 1))
    end
  end)

  it("goes on with fewer instances", function()
    local list = instances(1, 1, 1)
    round_robin.balance(nil, nil, list)
    assert.equal("i2 i3 i2 i3", turns({ list[2], list[3] }, 4))
  end)

  it("has nothing to say about none", function()
    assert.is_nil(round_robin.balance(nil, nil, {}))
    assert.is_nil(round_robin.balance(nil, nil, instances(0)))
  end)
end)

-- A route with sessions; what it gives is the id of the instance.
local function route(rule)
  local chain = testing.chain({}, rule)
  return function(options, ctx)
    ctx = ctx or testing.context(options)
    local instance = chain:balance(ctx)
    return instance.id, ctx, chain
  end, chain
end

describe("stickySession", function()
  local function sticky(ttl)
    return route({ stickySession = { enabled = true, ttl = ttl or 60 } })
  end

  it("looks at the cookie, X-Session-Id, X-User-ID and the address, in this order", function()
    local ask = sticky()
    local keys = {
      { headers = { Cookie = "a=b; GATEWAY_SESSION=k", ["X-Session-Id"] = "x", ["X-User-ID"] = "u" } },
      { headers = { ["X-Session-Id"] = "k", ["X-User-ID"] = "u" } },
      { headers = { ["X-User-ID"] = "k" } },
      { client = "192.0.2.7" },
    }
    local first = {}
    for i, options in ipairs(keys) do first[i] = ask(options) end
    assert.same({ "test-1", "test-2", "test-1", "test-2" }, first)
    for _ = 1, 3 do
      for i = #keys, 1, -1 do assert.equal(first[i], (ask(keys[i]))) end
    end
    assert.equal(first[1], (ask({ headers = { Cookie = "GATEWAY_SESSION=k", ["X-User-ID"] = "other" } })))
  end)

  it("sets no cookie", function()
    local ask, chain = sticky()
    local _, ctx = ask({})
    chain:response(ctx)
    assert.is_nil(ctx.res.headers["set-cookie"])
  end)

  it("lives as long as it is used, and no longer", function()
    local ask = sticky(10)
    local alice = { headers = { ["X-User-ID"] = "alice" } }
    local mine = ask(alice)
    for _ = 1, 5 do
      testing.advance(9)
      ask({ headers = { ["X-User-ID"] = "bob" .. testing.state.now } })
      assert.equal(mine, (ask(alice)))
    end
    testing.advance(11)
    ask({ headers = { ["X-User-ID"] = "carol" } })
    assert.equal("test-2", (ask(alice)))
    assert.equal("test-1", mine)
  end)

  it("moves when its instance is gone or was tried in vain, and stays there", function()
    local ask, chain = sticky()
    local alice = { headers = { ["X-User-ID"] = "alice" } }
    local first, ctx = ask(alice)
    assert.equal("test-1", first)
    ctx._x.tried[1] = true
    assert.equal("test-2", (ask(nil, ctx)))
    assert.equal("test-2", (ask(alice)))
    chain:_use({ { id = "test-1" }, { id = "test-3" } })
    local moved = ask(alice)
    chain:_use({ { id = "test-1" }, { id = "test-2" }, { id = "test-3" } })
    for _ = 1, 3 do assert.equal(moved, (ask(alice))) end
  end)

  it("goes with another worker's choice when that came first", function()
    local ask = sticky()
    local get = core.session_get
    core.session_get = function(...)
      core.session_get = get
      assert.is_nil(get(...))
      core.session_set("test", "header:X-User-ID=alice", "test-2", 60)
      return nil
    end
    assert.equal("test-2", (ask({ headers = { ["X-User-ID"] = "alice" } })))
  end)
end)

describe("sessionAffinity", function()
  local function affinity(fields)
    local conf = { enabled = true, ttl = 3600, source = "cookie", cookieName = "SID", headerName = "X-Sid",
      queryParam = "sid", pathParam = "room", maxEntries = 3 }
    for key, value in pairs(fields) do conf[key] = value end
    return route({ sessionAffinity = conf, path = "/{room}" })
  end

  it("by cookie: sets it when it is missing, and only then", function()
    local ask, chain = affinity({})
    local first, ctx = ask({})
    chain:response(ctx)
    local cookie = ctx.res.headers["set-cookie"]
    assert.matches("^SID=(%x+); Path=/; Max%-Age=3600; HttpOnly; SameSite=Lax$", cookie)
    local again
    again, ctx = ask({ headers = { Cookie = "x=1; " .. cookie:match("^[^;]*") } })
    assert.equal(first, again)
    chain:response(ctx)
    assert.is_nil(ctx.res.headers["set-cookie"])
  end)

  it("by cookie: beside those of the backend, before the hooks, Secure on https, no Max-Age without ttl",
    function()
    local seen
    local chain = testing.chain({ { { name = "p",
      on_response = function(ctx) seen = ctx.res:values("Set-Cookie") end } } },
      { sessionAffinity = { enabled = true, source = "cookie", cookieName = "SID", ttl = 0 } })
    local ctx = testing.context({ scheme = "https",
      response = { headers = { ["Set-Cookie"] = { "a=1", "b=2" } } } })
    chain:balance(ctx)
    chain:response(ctx)
    assert.equal(3, #seen)
    assert.matches("^SID=%x+; Path=/; HttpOnly; SameSite=Lax; Secure$", seen[3])
  end)

  it("by cookie: a retry goes on with the session it began", function()
    local ask, chain = affinity({})
    local _, ctx = ask({})
    ctx._x.tried[1] = true
    assert.equal("test-2", (ask(nil, ctx)))
    chain:response(ctx)
    local cookie = ctx.res.headers["set-cookie"]:match("^[^;]*")
    assert.equal("test-2", (ask({ headers = { Cookie = cookie } })))
  end)

  it("by header: a response teaches the session as well", function()
    local ask, chain = affinity({ source = "header" })
    ask({})
    local where, ctx = ask({ response = { headers = { ["X-Sid"] = "made-by-backend" } } })
    assert.equal("test-2", where)
    chain:response(ctx)
    for _ = 1, 3 do assert.equal("test-2", (ask({ headers = { ["X-Sid"] = "made-by-backend" } }))) end
  end)

  it("by query, path and address", function()
    for source,
      options in pairs({ query = { path = "/?sid=a" }, path = { params = { room = "a" } },
        ip = { client = "::1" } }) do
      testing.reset()
      local ask = affinity({ source = source })
      local first = ask(options)
      ask({ path = "/?sid=b", params = { room = "b" }, client = "::2" })
      for _ = 1, 3 do assert.equal(first, (ask(options))) end
    end
  end)

  it("takes turns where nothing names a session", function()
    local ask = affinity({ source = "header" })
    assert.same({ "test-1", "test-2", "test-1" }, { (ask({})), (ask({})), (ask({})) })
    assert.same({}, testing.state.sessions)
  end)

  it("holds with any policy, which places new sessions", function()
    local asked = 0
    local ask = route({ stickySession = { enabled = true, ttl = 5 }, loadBalance = function(_, list)
      asked = asked + 1
      return list[2]
    end })
    for _ = 1, 3 do assert.equal("test-2", (ask({}))) end
    assert.equal(1, asked)
  end)

  it("is off when it is not enabled", function()
    local ask = route({ stickySession = { enabled = false, ttl = 5 }, loadBalance = "sticky_session" })
    assert.same({ "test-1", "test-2" }, { (ask({})), (ask({})) })
  end)

  it("tells the runtime how many sessions to keep", function()
    local ask = affinity({ source = "header" })
    for i = 1, 4 do ask({ headers = { ["X-Sid"] = "s" .. i } }) end
    assert.is_nil(core.session_get("test", "header:X-Sid=s1", 1))
    assert.is_not_nil(core.session_get("test", "header:X-Sid=s4", 1))
  end)
end)
