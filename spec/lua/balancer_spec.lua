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

describe("sessionAffinity that learns", function()
  local function backend_cookies(...)
    return { headers = { ["Set-Cookie"] = { ... } } }
  end

  local function learning()
    local ask, chain = route({ sessionAffinity = { enabled = true, learn = true, ttl = 100, source = "cookie",
      cookieName = "JSESSIONID" } })
    return ask, function(options)
      local id, ctx = ask(options)
      chain:response(ctx)
      return id, ctx
    end
  end

  it("keeps to the backend's cookie, and sets none", function()
    local ask, exchange = learning()
    ask({})
    local where, ctx = exchange({ response = backend_cookies("a=b", "JSESSIONID=j1; Path=/; HttpOnly") })
    assert.equal("test-2", where)
    assert.same({ "a=b", "JSESSIONID=j1; Path=/; HttpOnly" }, ctx.res:values("Set-Cookie"))
    for _ = 1, 3 do assert.equal("test-2", (ask({ headers = { Cookie = "x=y; JSESSIONID=j1" } }))) end
  end)

  it("takes a new cookie for an old one's session", function()
    local ask, exchange = learning()
    local where = exchange({ response = backend_cookies("JSESSIONID=j1") })
    ask({})
    exchange({ headers = { Cookie = "JSESSIONID=j1" }, response = backend_cookies("JSESSIONID=j2") })
    assert.equal(where, (ask({ headers = { Cookie = "JSESSIONID=j2" } })))
  end)

  local DELETED = { "JSESSIONID=; Max-Age=0", "JSESSIONID=j1; Expires=Thu, 01 Jan 1970 00:00:00 GMT" }
  for _, gone in ipairs(DELETED) do
    it("forgets a session whose cookie is deleted: " .. gone, function()
      local ask, exchange = learning()
      assert.equal("test-1", (exchange({ response = backend_cookies("JSESSIONID=j1") })))
      exchange({ headers = { Cookie = "JSESSIONID=j1" }, response = backend_cookies(gone) })
      assert.same({}, testing.state.sessions.test.entries)
      assert.equal("test-2", (ask({ headers = { Cookie = "JSESSIONID=j1" } })))
    end)
  end

  it("learns nothing of other cookies, nor where nothing was asked", function()
    local _, exchange = learning()
    exchange({ response = backend_cookies("other=1", "XJSESSIONID=2") })
    exchange({ response = backend_cookies("JSESSIONID=; Max-Age=0") })
    assert.same({}, testing.state.sessions.test and testing.state.sessions.test.entries or {})
  end)
end)

describe("sessionAffinity without a state", function()
  local function stateless(secrets, fields)
    local conf = { enabled = true, stateless = true, ttl = 100, source = "cookie", cookieName = "GW",
      secrets = secrets or { ("n"):rep(16) } }
    for key, value in pairs(fields or {}) do conf[key] = value end
    local ask, chain = route({ sessionAffinity = conf })
    return function(cookie, options)
      options = options or {}
      options.headers = { Cookie = cookie and "a=b; GW=" .. cookie }
      local id, ctx = ask(options)
      chain:response(ctx)
      local set = ctx.res.headers["set-cookie"]
      return id, set and set:match("^GW=([^;]*)"), set
    end, chain
  end

  it("goes where the cookie says, and keeps no table", function()
    local ask = stateless()
    for _, want in ipairs({ "test-1", "test-2" }) do
      local id, ticket, set = ask()
      assert.equal(want, id)
      assert.matches("^GW=%S+; Path=/; Max%-Age=100; HttpOnly; SameSite=Lax$", set)
      for _ = 1, 3 do assert.same({ want }, { ask(ticket) }) end
    end
    assert.same({}, testing.state.sessions)
  end)

  it("has the attributes that the configuration gives", function()
    local ask = stateless(nil, { cookiePath = "/app", cookieDomain = "example.com", ttl = 0 })
    assert.matches("^GW=%S+; Path=/app; Domain=example.com; HttpOnly; SameSite=Lax; Secure$",
      (select(3, ask(nil, { scheme = "https" }))))
  end)

  it("begins anew, and says why in the log, where the cookie is forged", function()
    local ask = stateless()
    local _, ticket = ask()
    local _, forged = stateless({ ("f"):rep(16) })()
    for cookie, why in pairs({ x = "malformed", [forged] = "not signed" }) do
      local id, new = ask(cookie)
      assert.is_string(new)
      assert.equal(id, (ask(new)))
      local log = table.remove(testing.state.logs)
      assert.equal("debug", log.level)
      assert.matches("the cookie GW counts as none: " .. why, log.text)
    end
    testing.advance(101)
    assert.is_string((select(2, ask(ticket))))
    assert.matches("expired", table.remove(testing.state.logs).text)
  end)

  it("slides: has a new cookie when half of the time is over", function()
    local ask = stateless()
    local id, ticket = ask()
    testing.advance(60)
    local again, renewed = ask(ticket)
    assert.equal(id, again)
    testing.advance(90)
    assert.equal(id, (ask(renewed)))
  end)

  it("has a new cookie when the secret is a new one", function()
    local old, new = ("o"):rep(16), ("n"):rep(16)
    local id, ticket = stateless({ old })()
    local both = stateless({ new, old })
    both()
    local again, renewed = both(ticket)
    assert.equal(id, again)
    assert.same({ id }, { stateless({ new })(renewed) })
  end)

  it("has a new cookie when it moves, also at the second attempt", function()
    local ask, chain = stateless()
    local _, ticket = ask()
    chain:_use({ { id = "test-2" }, { id = "test-3" } })
    local moved, renewed = ask(ticket)
    assert.is_string(renewed)
    assert.same({ moved }, { ask(renewed) })
    local ctx = testing.context({ headers = { Cookie = "GW=" .. renewed } })
    local first = chain:balance(ctx)
    ctx._x.tried[first.index] = true
    local second = chain:balance(ctx)
    assert.not_equal(first.id, second.id)
    chain:response(ctx)
    assert.same({ second.id }, { ask(ctx.res.headers["set-cookie"]:match("^GW=([^;]*)")) })
  end)
end)

describe("a fallback", function()
  it("places where loadBalance is sticky_session", function()
    local asked = 0
    local function last(_, list)
      asked = asked + 1
      return list[#list]
    end
    for _, section in ipairs({ "stickySession", "sessionAffinity" }) do
      local ask = route({ loadBalance = "sticky_session",
        [section] = { enabled = true, ttl = 5, source = "ip", fallback = last } })
      for _ = 1, 3 do assert.equal("test-2", (ask({}))) end
    end
    assert.equal(1, asked)
  end)
end)

describe("ctx:stick", function()
  local HEADER = { enabled = true, ttl = 60, source = "header", headerName = "Mcp-Session-Id" }

  local function with(rule, hooks)
    hooks.name = "p"
    local chain = testing.chain({ { hooks } }, rule)
    return chain, function(options)
      local ctx = testing.context(options)
      chain:access(ctx)
      return chain:balance(ctx).id, ctx
    end
  end

  it("binds a session that an event names", function()
    local chain, ask = with({ sessionAffinity = HEADER }, { on_event = function(ctx, _, event)
      if event.type == "session" then ctx:stick(event.data) end
    end })
    ask({})
    local id, ctx = ask({})
    assert.equal("test-2", id)
    chain:event(ctx, { type = "session", data = "s1" })
    for _ = 1, 3 do assert.equal("test-2", (ask({ headers = { ["mcp-session-id"] = "s1" } }))) end
  end)

  it("binds at the response, and after a reload", function()
    local chain, ask = with({ sessionAffinity = HEADER }, {
      on_response = function(ctx) ctx:stick("at-head") end,
      on_event = function(ctx) ctx:stick("later") end,
    })
    ask({})
    local _, ctx = ask({})
    chain:response(ctx)
    chain:event(chain:adopt(ctx), { data = "x" })
    assert.equal("test-2", (ask({ headers = { ["Mcp-Session-Id"] = "at-head" } })))
    assert.equal("test-2", (ask({ headers = { ["Mcp-Session-Id"] = "later" } })))
  end)

  it("before the balance is what the instance is chosen by", function()
    local _, ask = with({ sessionAffinity = HEADER }, { access = function(ctx)
      ctx:stick(ctx.req.query.conversation)
    end })
    local first = ask({ path = "/?conversation=a" })
    ask({ path = "/?conversation=b" })
    for _ = 1, 3 do assert.equal(first, (ask({ path = "/?conversation=a" }))) end
    local id = ask({ path = "/?conversation=c", headers = { ["Mcp-Session-Id"] = "a" } })
    assert.equal("test-1", id)
    assert.equal(id, (ask({ path = "/?conversation=c" })))
  end)

  it("goes with a hook that chooses, and with a retry", function()
    local _, ask = with({ sessionAffinity = HEADER }, {
      access = function(ctx) ctx:stick("s") end,
      balance = function(_, _, list) return list[2] end,
    })
    assert.equal("test-2", (ask({})))
    assert.equal("test-2", core.session_get("test", "header:Mcp-Session-Id=s", 60))
    local chain
    chain, ask = with({ sessionAffinity = HEADER }, { access = function(ctx) ctx:stick("t") end })
    local id, ctx = ask({})
    ctx._x.tried[id == "test-1" and 1 or 2] = true
    assert.not_equal(id, chain:balance(ctx).id)
    assert.equal(ctx._instance.id, core.session_get("test", "header:Mcp-Session-Id=t", 60))
  end)

  it("with stickySession holds under each of its names, and finds a session under any", function()
    local chain, ask = with({ stickySession = { enabled = true, ttl = 60 } }, {
      access = function(ctx) if ctx.req.query.key then ctx:stick(ctx.req.query.key) end end,
      on_event = function(ctx) ctx:stick("named") end,
    })
    ask({ client = "::1" })
    local id, ctx = ask({ client = "::2" })
    chain:event(ctx, { data = "x" })
    for name, value in pairs({ Cookie = "GATEWAY_SESSION=named", ["X-Session-Id"] = "named",
      ["X-User-ID"] = "named" }) do
      assert.equal(id, (ask({ client = "::1", headers = { [name] = value } })))
    end
    local alice = ask({ headers = { ["X-User-ID"] = "alice" } })
    ask({ headers = { ["X-User-ID"] = "bob" } })
    assert.equal(alice, (ask({ path = "/?key=alice", client = "::3" })))
  end)

  it("says what it can't do", function()
    local function told(rule, key)
      local _, ask = with(rule, { access = function(ctx) ctx:stick(key) end })
      local ok, err = pcall(ask, {})
      assert.is_false(ok)
      return err
    end
    assert.matches("ctx:stick: the rule has no stickySession or sessionAffinity", told({}, "a"))
    assert.matches("the rule has no stickySession",
      told({ stickySession = { enabled = false, ttl = 1 } }, "a"))
    for _, key in ipairs({ "", 5, false }) do
      assert.matches("ctx:stick: expected a text, not empty, that names a session, got " .. type(key),
        told({ sessionAffinity = HEADER }, key))
    end
    assert.matches("sessions are stateless", told({ sessionAffinity = { enabled = true, stateless = true,
      ttl = 1, source = "cookie", cookieName = "S", secrets = { ("s"):rep(16) } } }, "a"))
  end)
end)
