--- Policies as they are configured: keys, defaults, faults, and what comes of them in a loaded program.
local testing = require("gateway.testing")
local core = require("gateway.core")
core.yaml = require("spec.support.yaml")

local crowd = require("spec.support.crowd")
local loader = require("gateway.loader")
local source = require("gateway.source")

-- A service of four instances.
local function service(name, health)
  local lines = { "      - name: " .. name, "        instances:" }
  for i = 1, 4 do
    lines[i + 2] = ('          - {id: %s-%d, address: "127.0.0.1", port: %d, health: %s}')
      :format(name, i, 3000 + i, health or "healthy")
  end
  return table.concat(lines, "\n") .. "\n"
end

local REGISTRY = "registry:\n  static:\n    services:\n"
local SERVICES = REGISTRY .. service("stable") .. service("next") .. service("third")

-- Loads one rule, which stands on line 4.
local function load(rule, more)
  local head = "router:\n  rules:\n    # the rule\n    - {id: r, path: \"/{room}\", "
  local text = head .. rule .. "}\n" .. SERVICES .. (more or "")
  return loader.load({ file = "conf/x.yaml", source = source.memory({ ["conf/x.yaml"] = text }) })
end

local function loaded(rule, more)
  local program, errors = load(rule, more)
  assert.same({}, errors)
  return program
end

local function rule_of(keys)
  return loaded("serviceName: stable, " .. keys).settings.router.rules[1]
end

-- The faults of a rule, without its place, which is tested.
local function faults(keys, more)
  local program, errors = load(keys, more)
  assert.is_nil(program)
  for i, text in ipairs(errors) do
    local rest = text:match("^conf/x%.yaml:4:%d+: gateway%.router%.rules%[1%]%.(.*)$")
    errors[i] = assert(rest, text)
  end
  return table.concat(errors, "\n")
end

-- The instance that a request goes to; a context is one exchange.
local function sent(program, options, ctx)
  ctx = ctx or program.open(testing.context(options)._x)
  program.route(ctx)
  return program.instances[program.balance(ctx)], ctx
end

before_each(testing.reset)

local PROXIES = 'frontend: {http: {trustedProxies: ["10.0.0.0/8", "unix:"]}}\n'

describe("a policy's keys", function()
  it("have defaults, which are there when the policy is named", function()
    assert.same({ subnetMask = 32, subnetMask6 = 64 },
      rule_of("loadBalance: ip_hash").ipHash)
    assert.same({ key = "ip", replicaCount = 160, boundedLoad = 1.25 },
      rule_of("loadBalance: consistent_hash").consistentHash)
    assert.same({ percentile = 0 }, rule_of("loadBalance: response_time").responseTime)
    assert.is_nil(rule_of("loadBalance: random").ipHash)
  end)

  it("name the policy", function()
    assert.equal("ip_hash", rule_of("ipHash: {subnetMask: 24}").loadBalance)
    assert.equal("consistent_hash", rule_of('consistentHash: {key: "query:q"}').loadBalance)
    assert.equal("response_time", rule_of("responseTime: {percentile: 95}").loadBalance)
    assert.equal("ip_hash", rule_of("ipHash: {}, stickySession: {ttl: 5}").loadBalance)
    assert.equal("round_robin", rule_of("canary: {services: {stable: 1}}").loadBalance)
  end)

  it("are for a fallback as well", function()
    local rule = rule_of('stickySession: {fallback: consistent_hash}, consistentHash: {key: "query:q"}')
    assert.same({ "sticky_session", "query:q" }, { rule.loadBalance, rule.consistentHash.key })
    assert.equal("ip", rule_of("stickySession: {fallback: consistent_hash}").consistentHash.key)
    assert.equal('ipHash: is for loadBalance: ip_hash, which is "random" here',
      faults("serviceName: stable, stickySession: {fallback: random}, ipHash: {}"))
  end)

  it("are for that policy only", function()
    assert.equal('consistentHash: is for loadBalance: consistent_hash, which is "random" here',
      faults("serviceName: stable, loadBalance: random, consistentHash: {key: ip}"))
    assert.equal('responseTime: is for loadBalance: response_time, which is "ip_hash" here',
      faults("serviceName: stable, responseTime: {}, ipHash: {}"))
  end)

  it("are checked", function()
    local cases = {
      ["loadBalance: wieghted_random"] =
        'loadBalance: unknown policy "wieghted_random" (did you mean "weighted_random"?)',
      ["loadBalance: least_conections"] =
        'loadBalance: unknown policy "least_conections" (did you mean "least_connections"?)',
      ["loadBalance: canary, canary: {services: {stable: 1}}"] =
        'loadBalance: unknown policy "canary" (it is a key of its own, beside loadBalance)',
      ["ipHash: {subnetMask: 33}"] = "ipHash.subnetMask: expected a whole number from 1 to 32, got 33",
      ["ipHash: {subnetmask: 24}"] =
        'ipHash.subnetmask: unknown key "subnetmask" (did you mean "subnetMask"?)',
      ['consistentHash: {key: "user"}'] =
        "consistentHash.key: expected header:NAME, cookie:NAME, query:NAME, path:NAME or ip, got \"user\"",
      ['consistentHash: {key: "header:a b"}'] = 'consistentHash.key: header:a b: "a b" is not a header name',
      ['consistentHash: {key: "path:rom"}'] = 'consistentHash.key: the path "/{room}" has no {rom}',
      ["consistentHash: {boundedLoad: 0.9}"] =
        "consistentHash.boundedLoad: expected 0 or a number above 1, got 0.9",
      ["consistentHash: {replicaCount: 0}"] =
        "consistentHash.replicaCount: expected a whole number from 1 to 10000, got 0",
      ["responseTime: {percentile: 101}"] =
        "responseTime.percentile: expected a number from 0 to 100, got 101",
      ["canary: {}"] = "canary.services: missing",
      ["canary: {services: {stable: -1}}"] =
        "canary.services.stable: expected a number from 0 to 1000000, got -1",
      ["canary: {services: {stable: 0, next: 0}}"] = "canary.services: all weights are 0",
      ["canary: {services: {stable: 1, nxt: 1}}"] =
        'canary.services: unknown service "nxt" (did you mean "next"?)',
      ["canary: {services: {next: 1}}"] = 'canary.services: serviceName, "stable", is not among them',
      ['canary: {services: {stable: 1}, key: "path:x"}'] = 'canary.key: the path "/{room}" has no {x}',
    }
    for keys, want in pairs(cases) do
      assert.message(keys).equal(want, faults("serviceName: stable, " .. keys))
    end
  end)

  it("need proxies that are trusted, where they count on them", function()
    local keys = "serviceName: stable, ipHash: {useForwardedFor: %s}"
    assert.is_truthy(load(keys:format("true"), PROXIES))
    assert.is_truthy(load(keys:format("false")))
    assert.equal("ipHash.useForwardedFor: nobody is believed without frontend.http.trustedProxies",
      faults(keys:format("true")))
  end)

  it("say which proxies are trusted", function()
    local frontend = 'frontend: {http: {trustedProxies: ["%s", "%s"]}}'
    local program = loaded("serviceName: stable", frontend:format("10.0.0.0/8", "::1"))
    assert.same({ "10.0.0.0/8", "::1" }, program.settings.frontend.http.trustedProxies)
    local _, errors = load("serviceName: stable", frontend:format("10.0.0.0/40", "proxy"))
    assert.same({
      'conf/x.yaml:26:36: gateway.frontend.http.trustedProxies[1]: "10.0.0.0/40": there are 32 bits',
      'conf/x.yaml:26:51: gateway.frontend.http.trustedProxies[2]: "proxy" is not a network such as '
        .. "10.0.0.0/8, 2001:db8::/32 or 192.0.2.1",
    }, errors)
  end)
end)

describe("a rule's policy", function()
  -- How many different instances requests from many clients go to, all through one proxy.
  local function reached(keys)
    local program = loaded("serviceName: stable, " .. keys, PROXIES)
    local seen, n = {}, 0
    for i = 1, 60 do
      local instance = sent(program, { path = "/a", client = "198.51.100." .. i, peer = "10.0.0.1" })
      if not seen[instance.id] then seen[instance.id], n = true, n + 1 end
    end
    return n
  end

  it("goes by the client, not by its proxy", function()
    assert.equal(4, reached("loadBalance: ip_hash"))
    assert.equal(4, reached("ipHash: {useForwardedFor: true}"))
    assert.equal(1, reached("ipHash: {useForwardedFor: false}"))
    assert.equal(4, reached("loadBalance: consistent_hash"))
  end)

  it("places new sessions", function()
    local program = loaded('serviceName: stable, consistentHash: {key: "query:q"}, stickySession: {ttl: 60}')
    local mine = sent(program, { path = "/a?q=1", headers = { ["X-User-ID"] = "ann" } })
    assert.equal(mine, sent(program, { path = "/a?q=1", headers = { ["X-User-ID"] = "bob" } }))
    for i = 1, 20 do
      assert.equal(mine, sent(program, { path = "/a?q=" .. i, headers = { ["X-User-ID"] = "ann" } }))
    end
  end)

  it("does not place a request again where it was tried in vain", function()
    local program = loaded('serviceName: stable, consistentHash: {key: "path:room", boundedLoad: 0}')
    local first, ctx = sent(program, { path = "/a" })
    ctx._x.tried[first.index] = true
    local second = sent(program, nil, ctx)
    assert.not_equal(first, second)
    assert.equal(second, sent(program, nil, ctx))
    assert.equal(first, (sent(program, { path = "/a" })))
  end)
end)

describe("canary", function()
  local function user(i, path) return { path = path or "/a", headers = { Cookie = "user=u" .. i } } end

  -- The services of many users.
  local function services(keys, count)
    local program, found = loaded(keys), {}
    for i = 1, count do found[i] = sent(program, user(i)).service end
    return found
  end

  local function share(found, name)
    local n = 0
    for _, service_name in ipairs(found) do n = n + (service_name == name and 1 or 0) end
    return n / #found
  end

  local function assert_near(want, got)
    assert.message(got).is_true(math.abs(want - got) < 0.02)
  end

  it("divides keys as the weights say, the same key always to the same service", function()
    local keys = 'canary: {services: {stable: 85, next: 10, third: 5}, key: "cookie:user"}'
    local found = services(keys, 4000)
    assert_near(0.85, share(found, "stable"))
    assert_near(0.10, share(found, "next"))
    assert_near(0.05, share(found, "third"))
    assert.same(found, services(keys, 4000))
  end)

  it("moves keys only to the service that gets more", function()
    local steps = { 0, 1, 5, 20, 50, 100 }
    local last
    for _, percent in ipairs(steps) do
      local keys = 'canary: {services: {stable: %d, next: %d}, key: "cookie:user"}'
      local found = services(keys:format(100 - percent, percent), 1000)
      for i = 1, last and #last or 0 do
        assert.is_true(found[i] == last[i] or found[i] == "next")
      end
      last = found
    end
    assert.equal(1, share(last, "next"))
  end)

  it("moves no key between two others", function()
    local function with(third) return services(('canary: {services: {stable: 50, next: 50, third: %d}, '
      .. 'key: "header:cookie"}'):format(third), 1000) end
    local without, some = with(0), with(25)
    for i, name in ipairs(some) do assert.is_true(name == without[i] or name == "third") end
    assert.is_true(share(some, "third") > 0.15)
  end)

  it("divides by chance where a request has no key, and where none is wanted", function()
    for _, key in ipairs({ "", ', key: "query:none"' }) do
      local found = services("canary: {services: {stable: 3, next: 1}" .. key .. "}", 4000)
      local counts = { share(found, "stable") * 4000, share(found, "next") * 4000 }
      assert.is_true(crowd.chi_square(counts, { 3, 1 }) < 12)
    end
  end)

  it("leaves the choice in the service to the rule's policy", function()
    local program = loaded('canary: {services: {next: 1}}, consistentHash: {key: "path:room"}')
    local first = sent(program, user(1, "/x"))
    local seen = {}
    for i = 1, 40 do
      assert.equal(first, sent(program, user(i, "/x")))
      seen[sent(program, user(i, "/room-" .. i)).id] = true
    end
    assert.same({ ["next-1"] = true, ["next-2"] = true, ["next-3"] = true, ["next-4"] = true }, seen)
  end)

  it("keeps a retry in the service", function()
    local program = loaded("canary: {services: {stable: 1, next: 1}}")
    for i = 1, 20 do
      local first, ctx = sent(program, user(i))
      ctx._x.tried[first.index] = true
      assert.equal(first.service, sent(program, nil, ctx).service)
    end
  end)

  it("keeps a session where it is, also when its weights have changed", function()
    local sticky = "canary: {services: {stable: %d, next: %d}}, "
      .. "sessionAffinity: {source: header, headerName: X-Sid}"
    local before, homes = loaded(sticky:format(50, 50)), {}
    for i = 1, 50 do homes[i] = sent(before, { path = "/a", headers = { ["X-Sid"] = "s" .. i } }) end
    local after = loaded(sticky:format(1, 99))
    for i = 1, 50 do
      assert.equal(homes[i].id, sent(after, { path = "/a", headers = { ["X-Sid"] = "s" .. i } }).id)
    end
    local rolled_back = loaded(sticky:format(1, 0))
    for i = 1, 50 do
      assert.equal("stable", sent(rolled_back, { path = "/a", headers = { ["X-Sid"] = "s" .. i } }).service)
    end
  end)

  it("knows a session that a backend has made", function()
    local program = loaded("canary: {services: {stable: 50, next: 50}}, "
      .. "sessionAffinity: {source: header, headerName: X-Sid}")
    for i = 1, 20 do
      local made = "made-" .. i
      local home, ctx = sent(program, { path = "/a", response = { headers = { ["X-Sid"] = made } } })
      program.response(ctx)
      for _ = 1, 3 do
        assert.equal(home, (sent(program, { path = "/a", headers = { ["X-Sid"] = made } })))
      end
    end
  end)

  it("goes where a ticket says, though its text changes", function()
    local program = loaded("canary: {services: {stable: 50, next: 50}}, sessionAffinity: {source: cookie, "
      .. "cookieName: T, ttl: 100, stateless: true, secrets: [0123456789abcdef]}")
    local function exchange(ticket)
      local home, ctx = sent(program, { path = "/a", headers = { Cookie = ticket } })
      program.response(ctx)
      local set = ctx.res.headers["set-cookie"]
      return home, set and set:match("^[^;]+") or ticket
    end
    local seen = {}
    for _ = 1, 20 do
      local home, ticket = exchange()
      seen[home.service] = true
      for _ = 1, 4 do
        local again
        testing.advance(60)
        again, ticket = exchange(ticket)
        assert.equal(home, again)
      end
    end
    assert.same({ stable = true, next = true }, seen)
  end)

  it("goes by its key where it has one, session or not", function()
    local program = loaded('canary: {services: {stable: 50, next: 50}, key: "query:q"}, stickySession: {}')
    local seen = {}
    for i = 1, 40 do
      local options = { path = "/a?q=" .. i, headers = { ["X-User-ID"] = "ann" } }
      seen[sent(program, options).id] = true
    end
    local n = 0
    for _ in pairs(seen) do n = n + 1 end
    assert.equal(2, n)
  end)

  it("leaves out a service that has nobody to ask", function()
    local down = REGISTRY .. service("stable") .. service("next", "unhealthy")
    local function with(shares)
      local text = ("router: {rules: [{path: /a, canary: {services: {%s}}}]}\n"):format(shares)
      return assert(loader.load({ file = "conf/x.yaml",
        source = source.memory({ ["conf/x.yaml"] = text .. down }) }))
    end
    local program = with("stable: 1, next: 9")
    for i = 1, 20 do assert.equal("stable", sent(program, user(i)).service) end
    program = with("next: 9")
    local ctx = program.open(testing.context({ path = "/a" })._x)
    program.route(ctx)
    assert.equal(core.REPLY, program.balance(ctx))
    assert.equal(503, ctx._x.reply.status)
  end)

  it("needs no serviceName, and goes with no function", function()
    local files = { ["conf/x.yaml"] = "router: {lua: [r.lua]}\n" .. SERVICES }
    files["conf/r.lua"] = [[return { { path = "/a", canary = { services = { stable = 1 } },
      serviceName = function() return "next" end } }]]
    local _, errors = loader.load({ file = "conf/x.yaml", source = source.memory(files) })
    assert.same({ "conf/r.lua: rules[1].canary: chooses the service, and so does the function serviceName; "
      .. "a rule can have one" }, errors)
    files["conf/r.lua"] = [[return { { path = "/a", canary = { services = { next = 1 } },
      loadBalance = function(_, instances) return instances[3] end } }]]
    local program = assert(loader.load({ file = "conf/x.yaml", source = source.memory(files) }))
    assert.equal("next-3", sent(program, user(1)).id)
  end)
end)
