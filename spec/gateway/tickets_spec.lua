--- Sessions without a table: gateways that agree by nothing but a secret, and cookies that are no tickets.
-- The origins answer with their name in X-Server.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local process = require "spec.support.process"
local site = require "spec.support.site"

local OLD, NEW = "an old secret, long enough", "a new secret, long enough"
local NAMES = { "one", "two", "three" }

local origins

local function affinity(secrets, more)
  local section = { source = "cookie", cookieName = "GW", stateless = true, ttl = 100, secrets = secrets }
  for key, value in pairs(more or {}) do section[key] = value end
  return section
end

-- Instances with these ids, "one" for the origin of that name; others are not listed.
local function instances(...)
  local list = {}
  for i, name in ipairs { ... } do
    for at, known in ipairs(NAMES) do
      if known == name then list[i] = { id = name, port = origins[at].port } end
    end
  end
  return list
end

local function options(sections, services, more)
  local rules = {}
  for path, section in pairs(sections) do
    rules[#rules + 1] = { id = path, path = path, serviceName = "api", sessionAffinity = section }
  end
  rules[#rules + 1] = { id = "other", path = "/echo/other", serviceName = "web",
    sessionAffinity = affinity { NEW } }
  services = services or { api = instances(unpack(NAMES)), web = instances(unpack(NAMES)) }
  local all = { services = services, rules = rules, workers = 2,
    config = { log = { access = false, level = "debug" } } }
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

-- Who answers; and the value of the cookie that is set, if any.
local function ask(gw, ticket, path)
  local got = http.fetch(gw.port, { path = path or "/echo/x",
    headers = ticket and { Cookie = "a=b; GW=" .. ticket } or {} })
  assert.message(got.text).equal(200, got.status)
  local set = got:get "Set-Cookie"
  return got:get "X-Server", set and set:match "^GW=([^;]+);", set
end

-- A request without a session; retried until it is placed elsewhere than at `not_at`.
local function begin(gw, not_at, path)
  for _ = 1, 20 do
    local server, ticket = ask(gw, nil, path)
    if server ~= not_at then return server, ticket end
  end
  error "always the same instance"
end

describe("a ticket", function()
  before_each(function()
    origins = {}
    for i, name in ipairs(NAMES) do origins[i] = origin.sse(name) end
  end)

  after_each(function()
    gateway.stop_all()
    for _, server in ipairs(origins) do server:stop() end
  end)

  it("leads to the same instance by every gateway that has the secret", function()
    local secrets = { affinity { NEW } }
    local one = gateway.start(options { ["/echo/x"] = secrets[1] })
    local other = gateway.start(options({ ["/echo/x"] = secrets[1] },
      { api = instances("three", "two", "one"), web = instances "one" }))
    local seen = {}
    for i = 1, 12 do
      local server, ticket = ask(i % 2 == 0 and one or other)
      seen[server] = true
      assert.matches("^%d+%.%x+%.%x+$", ticket)
      for _ = 1, 3 do
        assert.same({ server }, { ask(one, ticket) })
        assert.same({ server }, { ask(other, ticket) })
      end
    end
    assert.same({ one = true, two = true, three = true }, seen)
    one:stop()
    one = gateway.start(options { ["/echo/x"] = secrets[1] })
    local server, ticket = begin(other)
    for _ = 1, 3 do assert.same({ server }, { ask(one, ticket) }) end
  end)

  it("is a cookie like the others, and comes with the head of a stream", function()
    local gw = gateway.start(options({
      ["/events"] = affinity { NEW }, ["/echo/x"] = affinity({ NEW }, { cookiePath = "/echo", ttl = 0 }),
    }))
    local _, _, set = ask(gw)
    assert.matches("^GW=0%.%x+%.%x+; Path=/echo; HttpOnly; SameSite=Lax$", set)
    local stream = http.stream(gw.port, "/events?count=1")
    set = stream:get "Set-Cookie"
    assert.matches("^GW=%S+; Path=/; Max%-Age=100; HttpOnly; SameSite=Lax$", set)
    local server = stream:get "X-Server"
    stream:body()
    stream.conn:close()
    assert.equal(server, (ask(gw, set:match "^GW=([^;]+);")))
  end)

  it("is none when it is forged, cut, of another service or of another secret", function()
    local gw = gateway.start(options {
      ["/echo/x"] = affinity { NEW }, ["/echo/old"] = affinity { OLD },
    })
    local server, ticket = ask(gw)
    local _, foreign = begin(gw, server, "/echo/other")
    local _, old = begin(gw, server, "/echo/old")
    local expires, name, mac = ticket:match "^(%d+)%.(%x+)%.(%x+)$"
    local _, other_name = begin(gw, server)
    other_name = other_name:match "%.(%x+)%."
    local bad = {
      malformed = { "x", name, ticket:sub(1, -2) .. "g", ("1"):rep(5000), expires .. "." .. name },
      ['not signed for this service with any of the secrets'] = {
        ticket:sub(1, -2), expires + 1 .. "." .. name .. "." .. mac, foreign, old,
        expires .. "." .. other_name .. "." .. mac, expires .. "." .. name .. "." .. mac:upper(),
        "0." .. name .. "." .. mac,
      },
    }
    for why, list in pairs(bad) do
      for _, cookie in ipairs(list) do
        local mark = gw:mark()
        local new_server, new = ask(gw, cookie)
        assert.message(cookie).is_string(new)
        gw:wait_log("level=debug.*the cookie GW counts as none: " .. why, nil, mark)
        assert.same({ new_server }, { ask(gw, new) })
      end
    end
    assert.same({ server }, { ask(gw, ticket) })
  end)

  it("ends, and slides while it is used", function()
    local gw = gateway.start(options { ["/echo/x"] = affinity({ NEW }, { ttl = 2 }) })
    local server, ticket, renewed, slid
    -- Asks with a ticket until there is a new one: before its time is over, unless the machine stood still.
    local function live_through()
      local mark, now = gw:mark(), nil
      server, ticket = ask(gw)
      process.wait_until(function()
        now, renewed = ask(gw, ticket)
        return renewed
      end, 10)
      slid = #gw:find_log("expired", mark) == 0
      if slid then assert.equal(server, now) end
    end
    for _ = 1, 5 do
      if not slid then live_through() end
    end
    assert.is_true(slid)
    process.wait_until(function()
      ask(gw, ticket)
      return #gw:find_log "counts as none: expired" > 0
    end, 10)
  end)

  it("goes on when the secret changes, and is made anew with the new one", function()
    local gw = site.start(options({ ["/echo/x"] = affinity { "${OLD}", "${NEW:-}" } }, nil,
      { env = { OLD = OLD } }))
    local server, ticket = ask(gw)
    local function renew(...)
      local changed = options { ["/echo/x"] = affinity { ... } }
      gw:renew({ rules = changed.rules })
    end
    renew(NEW, OLD)
    local again, renewed = ask(gw, ticket)
    assert.equal(server, again)
    assert.is_string(renewed)
    assert.same({ server }, { ask(gw, renewed) })
    renew(NEW)
    assert.same({ server }, { ask(gw, renewed) })
    assert.is_string((select(2, ask(gw, ticket))))
  end)

  it("moves with its cookie when the instance is gone, unhealthy or can't be reached", function()
    local gw = site.start(options { ["/echo/x"] = affinity { NEW } })
    local all = instances(unpack(NAMES))
    local function with(list) gw:renew({ services = { api = list, web = all } }) end

    local function assert_moved(from, ticket)
      local server, renewed = ask(gw, ticket)
      assert.not_equal(from, server)
      assert.is_string(renewed)
      for _ = 1, 3 do assert.same({ server }, { ask(gw, renewed) }) end
    end

    local server, ticket = begin(gw, "one")
    with(instances "one")
    assert_moved(server, ticket)
    with(all)
    assert.same({ server }, { ask(gw, ticket) })

    local sick = instances(unpack(NAMES))
    for _, instance in ipairs(sick) do instance.health = instance.id == server and "unhealthy" or nil end
    with(sick)
    assert_moved(server, ticket)
    with(all)

    for i, name in ipairs(NAMES) do
      if name == server then origins[i]:stop() end
    end
    assert_moved(server, ticket)
  end)

  it("keeps its secrets to itself", function()
    local made = options { ["/echo/x"] = affinity { NEW, OLD } }
    made.files = { ["plugins/keys.lua"] = [[
      local text = { type = "string", secret = true }
      local many = { type = "array", of = text }
      return { name = "keys", schema = { one = text, plain = "string", many = many } }
    ]] }
    made.config.plugins = { { keys = { one = NEW, plain = "shown", many = { OLD, NEW } } } }
    local gw = gateway.start(made)
    local code, printed = gateway.run { "--print-conf", "-c", gw.conf }
    assert.equal(0, code)
    assert.is_truthy(printed:find('secrets: ["***", "***"]', 1, true))
    assert.matches('many: %["%*%*%*", "%*%*%*"%]\n +one: "%*%*%*"\n +plain: shown\n', printed)
    assert.is_nil(printed:find("secret, long", 1, true))
    ask(gw, "x")
    assert.is_nil(gw:log_text():find("secret, long", 1, true))
  end)

  it("needs a secret that is long enough", function()
    local gw = gateway.prepare(options { ["/echo/x"] = affinity { "short" } })
    local code, _, errors = gateway.run { "-t", "-c", gw.conf }
    assert.equal(1, code)
    assert.matches("gateway%.yaml:%d+:%d+: gateway%.router%.rules%[%d%]%.sessionAffinity%.secrets%[1%]: "
      .. "a secret has at least 16 bytes, this one has 5", errors)
  end)
end)
