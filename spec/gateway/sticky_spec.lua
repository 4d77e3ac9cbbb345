--- Which instance a request goes to: policies, sessions shared by all workers, and instances that are down.
-- The origins answer with their name in X-Server; the policy `placing` and the plugin `watcher` tell whether
-- a session was new, and which worker took the request.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local process = require "spec.support.process"
local sys = require "spec.support.sys"

local NAMES = { "one", "two", "three" }

local function start_origins()
  local list = {}
  for i, name in ipairs(NAMES) do list[i] = origin.sse(name) end
  return list
end

local function stop_origins(list)
  for _, server in ipairs(list) do server:stop() end
end

local function ports(list)
  local out = {}
  for i, server in ipairs(list) do out[i] = server.port end
  return out
end

---@return spec.GatewayOptions
local function options(services, rules, more)
  local all = {
    services = services, rules = rules,
    config = {
      pluginPath = gateway.plugin_path(), plugins = { "watcher" }, log = { access = false },
    },
  }
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

local function rule(path, more)
  local made = { id = path, path = path, serviceName = "api", loadBalance = "placing" }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

-- One request on a connection of its own. `server`: who answered; `placed`: whether the session was new.
local function ask(gw, path, headers, more)
  local request = { path = path, headers = headers }
  for key, value in pairs(more or {}) do request[key] = value end
  local got = http.fetch(gw.port, request)
  assert.message(got.text).equal(200, got.status)
  got.server, got.placed, got.worker = got:get "X-Server", got:get "X-Placed" ~= nil, got:get "X-Worker"
  return got
end

local number = 0
local function new_name()
  number = number + 1
  return "name-" .. number
end

-- Asks on ever new connections until every worker has answered; they may be asked any number of times.
local function on_all_workers(count, fn)
  local seen, left = {}, count
  for _ = 1, 400 do
    local got = fn()
    if not seen[got.worker] then
      seen[got.worker], left = true, left - 1
    end
    if left == 0 then return end
  end
  error(("%d of %d workers never had a connection"):format(left, count))
end

describe("sessions", function()
  local origins, gw

  setup(function()
    origins = start_origins()
    gw = gateway.start(options({ api = ports(origins), small = ports(origins) }, {
      rule("/health", { stickySession = { enabled = true, ttl = 3600 } }),
      rule("/echo/cookie", { sessionAffinity = { source = "cookie", cookieName = "SID", ttl = 100 } }),
      rule("/echo/endless", { sessionAffinity = { source = "cookie", cookieName = "SID", ttl = 0 } }),
      rule("/echo/header", { sessionAffinity = { source = "header", headerName = "X-Conversation" } }),
      rule("/echo/query", { sessionAffinity = { source = "query", queryParam = "room" } }),
      rule("/echo/path/{user}/*", { sessionAffinity = { source = "path", pathParam = "user" } }),
      rule("/echo/ip", { sessionAffinity = { source = "ip" } }),
      rule("/echo/off", { sessionAffinity = { enabled = false, source = "cookie" } }),
      rule("/echo/plain", { loadBalance = "sticky_session" }),
      rule("/echo/race", { loadBalance = "slow", stickySession = { enabled = true } }),
      rule("/echo/short", { sessionAffinity = { source = "header", headerName = "X-S", ttl = "600ms" } }),
      rule("/echo/shortest", { sessionAffinity = { source = "header", headerName = "X-SS", ttl = "20ms" } }),
      rule("/echo/small", {
        serviceName = "small", sessionAffinity = { source = "header", headerName = "X-S", maxEntries = 10 },
      }),
      rule("/events", { sessionAffinity = { source = "cookie", cookieName = "SID", ttl = 100 } }),
      rule("/echo/forced", { plugins = { "by_tenant" }, stickySession = { enabled = true } }),
    }, { workers = 2 }))
  end)

  teardown(function()
    gateway.stop_all()
    stop_origins(origins)
  end)

  -- The second request belongs to the session that the first one began.
  local function assert_same_session(path, headers, path2, headers2)
    local first = ask(gw, path, headers)
    assert.message("the first").is_true(first.placed)
    local second = ask(gw, path2 or path, headers2 or headers)
    assert.message("the second").is_false(second.placed)
    assert.equal(first.server, second.server)
  end

  local function assert_new(path, headers)
    assert.is_true(ask(gw, path, headers).placed)
  end

  describe("of stickySession", function()
    it("are named by the cookie GATEWAY_SESSION first of all", function()
      local name = new_name()
      assert_same_session("/health", { Cookie = "GATEWAY_SESSION=" .. name }, "/health", {
        Cookie = "GATEWAY_SESSION=" .. name, ["X-Session-Id"] = new_name(), ["X-User-ID"] = new_name(),
      })
    end)

    it("then by X-Session-Id, then by X-User-ID", function()
      local session, user = new_name(), new_name()
      assert_same_session("/health", { ["X-Session-Id"] = session, ["X-User-ID"] = user }, "/health",
        { ["x-session-id"] = session })
      assert_same_session("/health", { ["X-User-ID"] = user })
    end)

    it("last by the client's address", function()
      ask(gw, "/health")
      local first = ask(gw, "/health")
      assert.is_false(first.placed)
      assert.equal(first.server, ask(gw, "/health", { ["X-Forwarded-For"] = "10.1.2.3" }).server)
      assert.equal(first.server, ask(gw, "/health", { Cookie = "other=1", ["X-Session-Id"] = "" }).server)
    end)

    it("are not one because values are the same", function()
      local name = new_name()
      assert_new("/health", { Cookie = "GATEWAY_SESSION=" .. name })
      assert_new("/health", { ["X-Session-Id"] = name })
      assert_new("/health", { ["X-User-ID"] = name })
    end)

    it("are found among other cookies", function()
      local name = new_name()
      ask(gw, "/health", { Cookie = "GATEWAY_SESSION=" .. name })
      for _, cookie in ipairs {
        "a=1; GATEWAY_SESSION=%s; b=2", "XGATEWAY_SESSION=no; GATEWAY_SESSION=%s",
        "a=GATEWAY_SESSION; GATEWAY_SESSION=%s",
        "GATEWAY_SESSIONS=no;GATEWAY_SESSION=%s", "a=b=c; GATEWAY_SESSION=%s;",
      } do
        assert.message(cookie).is_false(ask(gw, "/health", { Cookie = cookie:format(name) }).placed)
      end
      local two = { { "Cookie", "a=1" }, { "Cookie", "GATEWAY_SESSION=" .. name } }
      assert.is_false(ask(gw, "/health", two).placed)
      assert_new("/health", { Cookie = "GATEWAY_SESSION=" .. name .. "x" })
    end)

    it("set no cookie", function()
      assert.same({}, ask(gw, "/health"):all "Set-Cookie")
    end)

    it("are what loadBalance: sticky_session means", function()
      local name = new_name()
      local server = ask(gw, "/echo/plain", { ["X-User-ID"] = name }).server
      for _ = 1, 6 do assert.equal(server, ask(gw, "/echo/plain", { ["X-User-ID"] = name }).server) end
    end)

    it("may have names of any length and bytes", function()
      for _, name in ipairs { ("x"):rep(20000), "日本 €", "a\tb", "'\"\\;,=" } do
        assert_same_session("/health", { ["X-User-ID"] = name })
        assert_new("/health", { ["X-User-ID"] = name .. "2" })
      end
    end)
  end)

  describe("of sessionAffinity", function()
    it("by a cookie that is set when it is missing", function()
      local first = ask(gw, "/echo/cookie", { Cookie = "other=1" })
      local cookies = first:all "Set-Cookie"
      assert.equal(1, #cookies)
      local id, rest = cookies[1]:match "^SID=(%x+); (.*)$"
      assert.equal(32, #id)
      assert.equal("Path=/; Max-Age=100; HttpOnly; SameSite=Lax", rest)
      local second = ask(gw, "/echo/cookie", { Cookie = "SID=" .. id })
      assert.same({ first.server, false, {} }, { second.server, second.placed, second:all "Set-Cookie" })
    end)

    it("by a cookie of the client's own making", function()
      local first = ask(gw, "/echo/cookie", { Cookie = "SID=mine" })
      assert.same({}, first:all "Set-Cookie")
      assert_same_session("/echo/cookie", { Cookie = "SID=mine2" })
    end)

    it("by a cookie that is another one for everybody, beside the backend's", function()
      local seen = {}
      for _ = 1, 20 do
        local cookies = ask(gw, "/echo/cookie?set=Set-Cookie:%20b=1"):all "Set-Cookie"
        assert.same({ 2, "b=1" }, { #cookies, cookies[1] })
        assert.is_nil(seen[cookies[2]])
        seen[cookies[2]] = true
      end
    end)

    it("by a cookie without an end, when the ttl has none", function()
      assert.matches("^SID=%x+; Path=/; HttpOnly; SameSite=Lax$", ask(gw, "/echo/endless"):get "Set-Cookie")
    end)

    it("by a cookie that comes with a stream", function()
      local stream = http.stream(gw.port, "/events?count=1")
      local server, id = stream:get "X-Server", stream:get "Set-Cookie":match "^SID=(%x+);"
      stream:body()
      stream.conn:close()
      for _ = 1, 3 do assert.equal(server, ask(gw, "/echo/cookie", { Cookie = "SID=" .. id }).server) end
    end)

    it("by a header", function()
      assert_same_session("/echo/header", { ["x-conversation"] = new_name() })
      assert_new("/echo/header", { ["X-Session-Id"] = "other" })
    end)

    it("by a header that the backend has made", function()
      local name = new_name()
      local first = ask(gw, "/echo/header?set=X-Conversation:%20" .. name)
      assert.equal(name, first:get "X-Conversation")
      local second = ask(gw, "/echo/header", { ["X-Conversation"] = name })
      assert.same({ first.server, false }, { second.server, second.placed })
    end)

    it("by a header that the backend has changed", function()
      local old, new = new_name(), new_name()
      local first = ask(gw, "/echo/header?set=X-Conversation:%20" .. new, { ["X-Conversation"] = old })
      local second = ask(gw, "/echo/header", { ["X-Conversation"] = new })
      assert.same({ first.server, false }, { second.server, second.placed })
    end)

    it("by a parameter of the query, however it is written", function()
      local name = new_name()
      assert_same_session("/echo/query?a=1&room=" .. name .. "%20b", nil,
        "/echo/query?room=" .. name .. "+b&room=2")
      assert_new("/echo/query?rooms=" .. name, nil)
    end)

    it("by a part of the path, however it is written", function()
      assert_same_session("/echo/path/us%65r-1/x", nil, "/echo/path/user-1/y?z")
      assert_new("/echo/path/user-2/x", nil)
    end)

    it("by the client's address", function()
      ask(gw, "/echo/ip")
      assert.is_false(ask(gw, "/echo/ip", { Cookie = "SID=1", ["X-Session-Id"] = new_name() }).placed)
    end)

    it("only where a request names one; the others are spread", function()
      local seen = {}
      for _ = 1, 12 do
        local got = ask(gw, "/echo/header")
        assert.is_true(got.placed)
        seen[got.server] = true
      end
      assert.same({ one = true, two = true, three = true }, seen)
    end)

    it("not at all when it is not enabled", function()
      local got = ask(gw, "/echo/off", { Cookie = "GATEWAY_SESSION=1" })
      assert.same({ true, {} }, { got.placed, got:all "Set-Cookie" })
      assert_new("/echo/off", { Cookie = "GATEWAY_SESSION=1" })
    end)

    it("unless a plugin's balance hook says otherwise", function()
      local name = new_name()
      local first = ask(gw, "/echo/forced", { ["X-User-ID"] = name })
      local index = first.server == "one" and 2 or 1
      local forced = ask(gw, "/echo/forced", { ["X-User-ID"] = name, ["X-Tenant"] = "api-" .. index })
      assert.equal(NAMES[index], forced.server)
      assert.equal(first.server, ask(gw, "/echo/forced", { ["X-User-ID"] = name }).server)
    end)
  end)

  describe("of all workers", function()
    it("are the same", function()
      for _ = 1, 5 do
        local headers = { ["X-User-ID"] = new_name() }
        local first = ask(gw, "/health", headers)
        on_all_workers(2, function()
          local got = ask(gw, "/health", headers)
          assert.same({ first.server, false }, { got.server, got.placed })
          return got
        end)
      end
    end)

    it("begin once, however many requests of one come at the same time", function()
      for _ = 1, 25 do
        local headers, clients = { ["X-User-ID"] = new_name() }, {}
        for i = 1, 16 do clients[i] = http.connect(gw.port) end
        for i = 1, 16 do clients[i]:send(http.format { path = "/echo/race", headers = headers }) end
        local seen, count = {}, 0
        for i = 1, 16 do
          local got = clients[i]:response()
          got:body()
          clients[i]:close()
          if not seen[got:get "X-Server"] then count = count + 1 end
          seen[got:get "X-Server"] = true
        end
        assert.equal(1, count)
      end
    end)

    it("end when nobody has asked for so long", function()
      local headers = { ["X-SS"] = new_name() }
      assert.is_true(ask(gw, "/echo/shortest", headers).placed)
      -- Each time is a little longer; at some time it is longer than the ttl.
      local pause = 0.005
      process.wait_until(function()
        sys.poll({}, sys.now() + pause)
        pause = pause * 1.5
        return ask(gw, "/echo/shortest", headers).placed
      end, 10)
    end)

    it("do not end while somebody asks", function()
      local TTL = 0.6
      local headers, placed, longest = { ["X-S"] = new_name() }, 0, 0
      local first = sys.now()
      local last = first
      while last - first < 2 * TTL do
        if ask(gw, "/echo/short", headers).placed then placed = placed + 1 end
        local now = sys.now()
        longest, last = math.max(longest, now - last), now
      end
      -- A machine that stood still for so long has let it end.
      if longest < TTL / 2 then assert.equal(1, placed) end
    end)

    it("are no more than maxEntries; the longest unused go first", function()
      local function known(name)
        return not ask(gw, "/echo/small", { ["X-S"] = name }).placed
      end
      local kept = new_name()
      known(kept)
      local names = {}
      for i = 1, 40 do
        names[i] = new_name()
        assert.is_false(known(names[i]))
        assert.is_true(known(kept))
      end
      assert.is_true(known(names[40]))
      local left = 0
      for i = 40, 1, -1 do
        if known(names[i]) then left = left + 1 end
      end
      assert.message(left .. " of 40 left").is_true(left <= 9)
      assert.is_true(left >= 1)
    end)
  end)
end)

describe("sessions and a reload", function()
  local origins, gw

  before_each(function()
    origins = start_origins()
  end)

  after_each(function()
    gateway.stop_all()
    stop_origins(origins)
  end)

  local function instances(health)
    local list = {}
    for i, server in ipairs(origins) do list[i] = { port = server.port, health = health and health[i] } end
    return list
  end

  local function with(health, rules)
    return options({ api = instances(health) },
      rules or { rule("/health", { stickySession = { enabled = true } }) }, { workers = 2 })
  end

  local function reload(opts)
    gw:configure(opts)
    assert.is_number((gw:reload()))
  end

  local function index_of(name)
    for i, known in ipairs(NAMES) do
      if known == name then return i end
    end
  end

  it("go on, whatever else has changed", function()
    gw = gateway.start(with())
    local homes = {}
    for i = 1, 12 do homes[i] = ask(gw, "/health", { ["X-User-ID"] = "user-" .. i }).server end
    local rules = { rule("/health", { stickySession = { enabled = true, ttl = 99 } }), rule("/echo/new") }
    reload(with(nil, rules))
    for i = 1, 12 do
      local got = ask(gw, "/health", { ["X-User-ID"] = "user-" .. i })
      assert.same({ homes[i], false }, { got.server, got.placed })
    end
  end)

  it("move when their instance is unhealthy, and stay where they went", function()
    gw = gateway.start(with())
    local headers = { ["X-User-ID"] = "mover" }
    local home = ask(gw, "/health", headers).server
    local health = { "healthy", "healthy", "healthy" }
    health[index_of(home)] = "unhealthy"
    reload(with(health))
    local moved = ask(gw, "/health", headers)
    assert.not_equal(home, moved.server)
    assert.is_true(moved.placed)
    on_all_workers(2, function()
      local got = ask(gw, "/health", headers)
      assert.same({ moved.server, false }, { got.server, got.placed })
      return got
    end)
    reload(with())
    assert.equal(moved.server, ask(gw, "/health", headers).server)
  end)

  it("move when their instance is not there any more", function()
    gw = gateway.start(with())
    local homes = {}
    for i = 1, 9 do homes[i] = ask(gw, "/health", { ["X-User-ID"] = "user-" .. i }).server end
    local list = instances()
    list[1].id, list[3].id = "api-1", "api-3"
    table.remove(list, 2)
    local rules = { rule("/health", { stickySession = { enabled = true } }) }
    reload(options({ api = list }, rules, { workers = 2 }))
    for i = 1, 9 do
      local got = ask(gw, "/health", { ["X-User-ID"] = "user-" .. i })
      if homes[i] == "two" then
        assert.not_equal("two", got.server)
      else
        assert.same({ homes[i], false }, { got.server, got.placed })
      end
    end
  end)

  it("move when their instance can't be reached, and stay where they went", function()
    gw = gateway.start(with())
    local headers = { ["X-User-ID"] = "mover" }
    local home = index_of(ask(gw, "/health", headers).server)
    origins[home]:stop()
    local moved = ask(gw, "/health", headers)
    assert.not_equal(NAMES[home], moved.server)
    on_all_workers(2, function()
      local got = ask(gw, "/health", headers)
      assert.same({ moved.server, false }, { got.server, got.placed })
      return got
    end)
    origins[home]:restart_on_same_port()
    assert.equal(moved.server, ask(gw, "/health", headers).server)
    assert.equal(1, #gw:find_log 'msg="instance not reached"')
  end)
end)

describe("balancing", function()
  local origins, gw

  setup(function()
    origins = start_origins()
    local some = ports(origins)
    local weighted, sick, lame = ports(origins), ports(origins), ports(origins)
    weighted[1] = { port = some[1], weight = 3 }
    sick[2] = { port = some[2], health = "unhealthy" }
    lame[2] = http.free_port()
    gw = gateway.start(options({
      api = some, weighted = weighted, sick = sick, lame = lame,
      down = { http.free_port(), http.free_port() },
      dead = { { port = some[1], health = "unhealthy" }, { port = some[2], health = "unhealthy" } },
    }, {
      rule("/echo/turns", { loadBalance = "round_robin" }),
      rule("/echo/weighted", { loadBalance = "round_robin", serviceName = "weighted" }),
      rule("/echo/sick", { loadBalance = "round_robin", serviceName = "sick" }),
      rule("/echo/sick-sticky", { loadBalance = "sticky_session", serviceName = "sick" }),
      rule("/echo/lame", { loadBalance = "round_robin", serviceName = "lame" }),
      rule("/events", { loadBalance = "round_robin", serviceName = "lame" }),
      rule("/echo/down", { loadBalance = "round_robin", serviceName = "down" }),
      rule("/echo/dead", { loadBalance = "round_robin", serviceName = "dead" }),
      rule("/echo/named", { loadBalance = "by_tenant" }),
      rule("/echo/listed", { plugins = { "by_tenant" }, loadBalance = "placing" }),
    }, { workers = 2 }))
  end)

  teardown(function()
    gateway.stop_all()
    stop_origins(origins)
  end)

  -- Who answers, by worker, in order; on connections that are kept.
  local function turns(path, count)
    local out = {}
    on_all_workers(2, function()
      local conn = http.connect(gw.port)
      local list, worker = {}, nil
      for i = 1, count do
        local got = conn:request { path = path }
        got:body()
        list[i], worker = got:get "X-Server", got:get "X-Worker"
      end
      conn:close()
      out[worker] = out[worker] or {}
      for _, name in ipairs(list) do table.insert(out[worker], name) end
      return { worker = worker }
    end)
    return out
  end

  local function counted(list)
    local counts = {}
    for _, name in ipairs(list) do counts[name] = (counts[name] or 0) + 1 end
    return counts
  end

  it("gives each instance its turn, on every worker", function()
    for _, list in pairs(turns("/echo/turns", 9)) do
      for i = 4, #list do assert.equal(list[i - 3], list[i]) end
      assert.same({ one = #list / 3, two = #list / 3, three = #list / 3 }, counted(list))
    end
  end)

  it("gives turns by weight", function()
    for _, list in pairs(turns("/echo/weighted", 10)) do
      assert.same({ one = #list * 3 / 5, two = #list / 5, three = #list / 5 }, counted(list))
    end
  end)

  it("leaves out instances that are unhealthy", function()
    for _, path in ipairs { "/echo/sick", "/echo/sick-sticky" } do
      for i = 1, 12 do
        assert.not_equal("two", ask(gw, path, { ["X-User-ID"] = "u" .. i }).server)
      end
    end
  end)

  it("is a 503 with Retry-After when none is healthy", function()
    for _ = 1, 3 do
      local got = http.fetch(gw.port, "/echo/dead")
      assert.equal(503, got.status)
      assert.matches("^%d+$", got:get "Retry-After")
      assert.matches("no healthy instance of dead", got.text)
    end
  end)

  it("goes on to the next where nobody listens, whatever the method", function()
    for i = 1, 12 do
      local body = ("x"):rep(i * 1000)
      local got = ask(gw, "/echo/lame", nil, { method = "POST", body = body })
      assert.not_equal("two", got.server)
      assert.matches('"body_length": ?' .. #body, got.text)
    end
  end)

  it("goes on to the next for a stream", function()
    for _ = 1, 6 do
      local stream = http.stream(gw.port, "/events?count=1")
      assert.equal(200, stream.status)
      assert.equal("clean", select(2, stream:body()))
      stream.conn:close()
    end
  end)

  it("is a 502 when nobody listens anywhere", function()
    local mark = gw:mark()
    local got = http.fetch(gw.port, "/echo/down")
    assert.equal(502, got.status)
    assert.matches("refused", got.text)
    assert.equal(2, #gw:find_log('msg="instance not reached"', mark))
  end)

  for _, path in ipairs { "/echo/named", "/echo/listed" } do
    local way = path == "/echo/named" and "as a policy that loadBalance names" or "as a plugin of the rule"

    it("is done by a plugin, " .. way, function()
      for _ = 1, 3 do
        for i, name in ipairs(NAMES) do
          local got = ask(gw, path, { ["X-Tenant"] = "api-" .. i })
          assert.same({ name, false }, { got.server, got.placed })
        end
      end
      local answer = http.fetch(gw.port, { path = path, headers = { ["X-Tenant"] = "reply" } })
      assert.same({ 403, "no such tenant" }, { answer.status, answer.text })
    end)

    it("is left to the next in line by a plugin, " .. way, function()
      local seen = {}
      for _ = 1, 12 do seen[ask(gw, path, { ["X-Tenant"] = "nobody" }).server] = true end
      assert.same({ one = true, two = true, three = true }, seen)
    end)

    it("is a 500 when it fails, " .. way, function()
      for _, tenant in ipairs { "raise", "nonsense" } do
        local mark = gw:mark()
        local got = http.fetch(gw.port, { path = path, headers = { ["X-Tenant"] = tenant } })
        assert.equal(500, got.status)
        local line = gw:wait_log('msg="hook failed"', nil, mark)
        assert.matches("plugin=by_tenant hook=balance", line)
        assert.matches(tenant == "raise" and "no tenant" or "none of the instances it got", line)
      end
    end)
  end
end)
