--- Health of instances where it meets names, retries, held heads and reloads: whatever was taken is given
-- back, and each try counts once.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local name_server = require "spec.support.name_server"
local site = require "spec.support.site"
local sys = require "spec.support.sys"

local STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
local SIGKILL = 9
local EVENTS = { Accept = "text/event-stream" }

-- The first instance; on the way to the second one it waits for a request of /go where it is asked to.
local WAITING = [[
  local plugin, gone = { name = "waiting" }, false
  function plugin.access(ctx)
    if ctx.req.path ~= "/go" then return end
    gone = true
    return ctx:reply(200, "gone")
  end
  function plugin.balance(ctx, _, instances)
    if instances[1].id ~= "b" then return instances[ctx.req.headers["X-To"] and 2 or 1] end
    ctx:log("info", "before b")
    while ctx.req.headers["X-Wait"] and not gone do gateway.sleep(0.01) end
    return instances[1]
  end
  return plugin
]]

-- The first service, and the second one for the next try.
local OTHER = [[
  return { {
    id = "other", path = "/*",
    serviceName = function(ctx)
      ctx.shared.tries = (ctx.shared.tries or 0) + 1
      return ctx.shared.tries == 1 and "one" or "two"
    end,
  } }
]]

local CANARY = [[
  return { { id = "canary", path = "/*", canary = { services = { one = 1000000, two = 1 } } } }
]]

describe("health meets", function()
  local names, servers, gw

  before_each(function() names, servers = nil, {} end)

  after_each(function()
    gateway.stop_all()
    for _, server in pairs(servers) do server:close() end
    if names then names:stop() end
  end)

  local function listen(key, port, host)
    servers[key] = backend.listen(port, host)
    return servers[key]
  end

  local function service(name, keys, instances)
    local of = { name = name, instances = instances }
    for key, value in pairs(keys) do of[key] = value end
    return of
  end

  local function start(services, rule, more)
    rule = rule or {}
    rule.id, rule.path, rule.serviceName = "all", rule.path or "/*", services[1].name
    local options = { config = { registry = { static = { services = services } } }, rules = { rule } }
    more = more or {}
    options.files, options.config.router = more.files, more.router
    if names then
      options.config.registry.dns = { servers = { names.servers }, minTtl = "100ms", timeout = "2s" }
    end
    gw = site.start(options)
  end

  local function at(id, port)
    return { id = id, address = "127.0.0.1", port = port }
  end

  local function send(request)
    local client = http.connect(gw.port)
    client:send(http.format(request or { path = "/" }))
    return client
  end

  local function state_of(id)
    for _, item in ipairs(cjson.decode(http.fetch(gw.admin_port, "/instances").text).instances) do
      if item.instance == id then return item.state end
    end
  end

  local function wait_log(line, mark)
    return gw:wait_log(line, site.PATIENCE, mark)
  end

  describe("names:", function()
    local port

    before_each(function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", "127.0.0.2", ttl = 0 } }
      port = listen("first", nil, "127.0.0.1").port
    end)

    local function named(more)
      local instance = { id = "api", address = "api.test", port = port }
      for key, value in pairs(more or {}) do instance[key] = value end
      return { instance }
    end

    -- Answers whoever comes to the first address.
    local function ask()
      local client = send()
      sys.wait_until(function()
        local conn = servers.first:try_accept(0) or servers.second and servers.second:try_accept(0)
        if conn then backend.read_request(conn):ok() end
        return conn
      end, site.PATIENCE)
      assert.equal(200, client:response().status)
    end

    local function eject(time)
      start { service("api", { passiveHealth = { consecutiveFailures = 1, baseEjection = time } }, named()) }
      wait_log 'addresses="127.0.0.1 127.0.0.2"$'
      for _ = 1, 2 do ask() end
      wait_log "instance=api@127.0.0.2 .*to=ejected"
      listen("second", port, "127.0.0.2")
    end

    local function wait_back(mark)
      sys.wait_until(function()
        ask()
        return gw:find_log("instance=api@127.0.0.2 .*from=ejected to=up", mark)[1]
      end, site.PATIENCE)
    end

    it("an address that was ejected comes back", function()
      eject "1500ms" -- the master looks through its services each second
      wait_back()
    end)

    it("an address whose ejection ended while the name was without it is asked again with it", function()
      eject "300ms"
      local mark = gw:mark()
      names:set { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      wait_log("worker.* addresses=127.0.0.1$", mark)
      local over = sys.now() + 0.4
      sys.wait_until(function() return sys.now() > over end)
      ask() -- so that somebody looks
      mark = gw:mark()
      names:set { ["api.test"] = { "127.0.0.1", "127.0.0.2", ttl = 0 } }
      wait_log('worker.* addresses="127.0.0.1 127.0.0.2"$', mark)
      wait_back()
    end)

    it("places of a worker that died are free again", function()
      names:set { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      start { service("api", { maxStreams = 1 }, named()) }
      wait_log "worker.* addresses=127.0.0.1$"
      local stream = send { path = "/", headers = EVENTS }
      servers.first:request():reply(STREAM)
      assert.equal(200, stream:response().status)
      assert.equal(503, http.fetch(gw.port, "/").status)
      site.kill(gw:worker(1), SIGKILL)
      wait_log 'msg="worker died"'
      sys.wait_until(function()
        local there, state = pcall(state_of, "api@127.0.0.1")
        return there and state == "up"
      end, site.PATIENCE)
      ask()
      gw:stop { faults = true }
    end)

    it("their addresses are unhealthy where the entry says so, and are not checked", function()
      local instances = named { health = "unhealthy" }
      start { service("api", { health = { type = "tcp", interval = "10ms" } }, instances) }
      wait_log 'worker.* addresses="127.0.0.1 127.0.0.2"$'
      assert.equal("unhealthy", state_of "api@127.0.0.1")
      assert.equal(503, http.fetch(gw.port, "/").status)
      assert.is_nil(servers.first:try_accept(0.1))
    end)
  end)

  describe("places for streams:", function()
    it("a request that is asked again does not hold the one that it had", function()
      local one = listen "one"
      start({ service("api", { maxStreams = 1 }, { at("a", one.port) }) },
        { retry = { statuses = { 503 } } })
      local client = send()
      one:request():ok("not now", "503 Service Unavailable")
      one:request():ok "well"
      assert.equal("well", (client:response():body()))
    end)

    it("an instance that is not reached is not full", function()
      local one = listen "one"
      local port = one.port
      one:close()
      start { service("api", { maxStreams = 1 }, { at("a", port) }) }
      assert.equal(502, http.fetch(gw.port, "/").status)
    end)

    it("one that is taken while a hook thinks about it ends the search, and nothing else", function()
      local one, two = listen "one", listen "two"
      local port = one.port
      one:close()
      local both = { at("a", port), at("b", two.port) }
      start({ service("api", { maxStreams = 1 }, both) },
        { plugins = { "waiting" } }, { files = { ["plugins/waiting.lua"] = WAITING } })
      local late = send { path = "/", headers = { ["X-Wait"] = "1" } }
      wait_log "before b"
      local stream = send { path = "/", headers = { ["X-To"] = "b" } }
      two:request():reply(STREAM)
      assert.equal(200, stream:response().status)
      assert.equal("gone", http.fetch(gw.port, "/go").text)
      assert.equal(502, late:response().status)
    end)

    it("they are as many as the new version says, also when streams of the old one end", function()
      local one = listen "one"
      local function services(places)
        return { service("api", { maxStreams = places }, { at("a", one.port) }) }
      end
      start(services(2))
      local clients = {}
      local function open()
        local client = send { path = "/", headers = EVENTS }
        clients[#clients + 1] = client
        one:request():reply(STREAM)
        assert.equal(200, client:response().status)
      end
      for _ = 1, 2 do open() end
      gw:renew { config = { registry = { static = { services = services(5) } } } }
      for _ = 1, 2 do open() end
      clients[1]:close()
      gw:wait_metric("streams", 3)
      open()
    end)
  end)

  it("held heads: a stream that breaks before its first event is one failure, and no success", function()
    local one, two = listen "one", listen "two"
    start({ service("api", { passiveHealth = { consecutiveFailures = 3, errorRate = 0 } },
      { at("a", one.port), at("b", two.port) }) },
      { firstEvent = { hold = "60s" }, plugins = { "waiting" } },
      { files = { ["plugins/waiting.lua"] = WAITING } })
    for _ = 1, 3 do
      assert.equal("up", state_of "a")
      local client = send { path = "/", headers = EVENTS }
      one:request():reply(STREAM .. "0\r\n\r\n")
      assert.equal(502, client:response().status)
    end
    wait_log 'instance=a .*to=ejected why="3 failures in a row'
  end)

  describe("a circuit:", function()
    -- A service whose circuit opens by one failure.
    local function broken(name, port)
      return service(name, { circuitBreaker = { failureThreshold = 1 } }, { at("a", port) })
    end

    it("an answer of before that goes on is no failure", function()
      local one = listen "one"
      start({ broken("api", one.port) }, { retry = { statuses = { 429 }, attempts = 2 } })
      for _ = 1, 2 do
        local client = send()
        one:request():ok("busy", "429 Too Many Requests")
        one:request().conn:reset()
        assert.equal("busy", (client:response():body()))
      end
    end)

    it("a client that leaves before the next try counts for nothing", function()
      local one = listen "one"
      local slow = { base = "60s", max = "60s" }
      start({ broken("api", one.port) }, { retry = { statuses = { 503 }, backoff = slow } })
      local client = send()
      one:request():ok("not now", "503 Service Unavailable")
      wait_log "retry_after_ms"
      client:close()
      gw:wait_metric("exchanges", 0)
      assert.same({}, gw:find_log "circuit changed")
    end)

    it("is told of the tries of its own service only", function()
      local one, two = listen "one", listen "two"
      local port = one.port
      one:close()
      local second = service("two", {}, { at("b", two.port) })
      start({ broken("one", port), second }, { path = "/never" },
        { files = { ["conf/routes/other.lua"] = OTHER }, router = { lua = { "routes/*.lua" } } })
      local client = send()
      two:request():ok "well"
      assert.equal("well", (client:response():body()))
      wait_log "circuit changed.* service=one from=closed to=open"
    end)

    it("that is open leaves its share of a canary to the others", function()
      local one, two = listen "one", listen "two"
      start({ broken("one", one.port), service("two", {}, { at("b", two.port) }) }, { path = "/never" },
        { files = { ["conf/routes/canary.lua"] = CANARY }, router = { lua = { "routes/*.lua" } } })
      local client = send()
      one:request().conn:reset()
      assert.equal(502, client:response().status)
      for _ = 1, 5 do -- all of the weight was the other one's
        client = send()
        two:request():ok "well"
        assert.equal("well", (client:response():body()))
      end
    end)
  end)
end)
