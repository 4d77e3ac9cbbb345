--- Health of instances: what checks and requests say of them, and what becomes of requests then.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local site = require "spec.support.site"
local sys = require "spec.support.sys"

local SIGKILL = 9

-- Some chance is added, so that not all clients come back in the same second.
local function assert_wait(seconds, answer)
  local wait = tonumber(answer:get "Retry-After")
  assert.is_true(wait >= seconds and wait < seconds + 10, "Retry-After: " .. wait)
end

describe("health:", function()
  local servers, streams

  before_each(function() servers, streams = {}, {} end)

  after_each(function()
    for _, response in ipairs(streams) do response.conn:close() end
    gateway.stop_all()
    for _, server in ipairs(servers) do server:kill() end
  end)

  -- sse_servers called s1, s2, …
  local function start_servers(n)
    for i = 1, n do servers[i] = origin.sse("s" .. i) end
  end

  -- A site with one service, api, of these instances (ids as of the servers) and keys.
  local function config_of(keys, instances)
    local service = { name = "api", instances = instances }
    for key, value in pairs(keys) do service[key] = value end
    return { registry = { static = { services = { service } } } }
  end

  local function instances_of(list, more)
    local instances = {}
    for i, server in ipairs(list) do
      instances[i] = { id = "s" .. i, address = "127.0.0.1", port = server.port }
      for key, value in pairs(more or {}) do instances[i][key] = value end
    end
    return instances
  end

  local function start(keys, options)
    options = options or {}
    return site.start {
      workers = options.workers,
      config = config_of(keys, options.instances or instances_of(servers)),
      rules = { { id = "all", path = "/*", serviceName = "api", timeout = options.timeout } },
    }
  end

  local function ask(gw, path)
    local response = http.fetch(gw.port, path or "/json")
    return response.status, response:get "X-Server", response
  end

  local function served(gw)
    local status, name = ask(gw)
    return status .. " " .. tostring(name)
  end

  -- How often each server answers a number of requests.
  local function shares(gw, n, path)
    local counts = {}
    for _ = 1, n do
      local _, name = ask(gw, path)
      counts[name or "none"] = (counts[name or "none"] or 0) + 1
    end
    return counts
  end

  -- What the management listener says of an instance.
  local function instance(gw, id)
    for _, item in ipairs(cjson.decode(http.fetch(gw.admin_port, "/instances").text).instances) do
      if item.instance == id then return item end
    end
  end

  local function changes(gw, mark)
    local list = {}
    for i, line in ipairs(gw:find_log('msg="instance changed"', mark)) do
      list[i] = line:match "instance=(%S+)" .. " " .. line:match "from=(%S+)" .. " " .. line:match "to=(%S+)"
    end
    return list
  end

  local function wait_change(gw, what, mark)
    local id, from, to = what:match "(%S+) (%S+) (%S+)"
    return gw:wait_log(("instance=%s .*from=%s to=%s "):format(id, from, to), site.PATIENCE, mark)
  end

  describe("checks", function()
    local checked -- what is asked by them, in the spec itself

    before_each(function()
      checked = backend.listen()
      start_servers(2)
    end)

    after_each(function() checked:close() end)

    -- The first server is checked at a port of ours, the other one is not checked: it is out.
    local function start_checked(health, keys, options)
      local settings = { interval = "20ms", jitter = 0, timeout = "10s", port = checked.port }
      for key, value in pairs(health or {}) do settings[key] = value end
      keys = keys or {}
      keys.health = settings
      options = options or {}
      options.instances = options.instances or instances_of({ servers[1] })
      return start(keys, options)
    end

    local function play(...)
      for _, good in ipairs { ... } do
        checked:request():ok("", good == 1 and "200 OK" or "503 Service Unavailable")
      end
    end

    it("take it out after `fall` failures, and back in after `rise` successes", function()
      local gw = start_checked { rise = 2, fall = 3 }
      play(1)
      wait_change(gw, "s1 unknown up")
      play(0, 0, 1, 0, 1, 0, 0)
      assert.equal("200 s1", served(gw))
      local mark = gw:mark()
      play(1, 0, 0, 0)
      assert.matches("check: status 503", wait_change(gw, "s1 up down", mark))
      local status, _, answer = ask(gw)
      assert.equal(503, status)
      assert_wait(5, answer)
      assert.matches("no healthy instance of api", answer.text)
      play(1, 0, 1, 0, 0)
      assert.equal(503, (ask(gw)))
      play(1, 1)
      wait_change(gw, "s1 down up", mark)
      assert.equal("200 s1", served(gw))
      assert.same({ "s1 unknown up", "s1 up down", "s1 down up" }, changes(gw))
      assert.equal(1, #gw:find_log 'msg="no instance to ask" service=api why="none is healthy"')
    end)

    it("let the very first one decide", function()
      local gw = start_checked { fall = 100 }
      assert.equal("200 s1", served(gw))
      play(0)
      wait_change(gw, "s1 unknown down")
      assert.equal(503, (ask(gw)))
    end)

    it("ask for what is configured, on a connection of their own", function()
      local gw = start_checked { path = "/live?deep=1", method = "HEAD", host = "api.example" }
      for _ = 1, 2 do
        local request = checked:request()
        assert.same({ "HEAD", "/live?deep=1", "api.example", "close" },
          { request.method, request.target, request:get "Host", request:get "Connection" })
        assert.matches("^gatewayd/", request:get "User-Agent")
        request:reply("HTTP/1.1 204 No Content\r\n\r\n")
        request.conn:wait_end(site.PATIENCE)
      end
      wait_change(gw, "s1 unknown up")
    end)

    it("look for a text in the body, and at the status", function()
      local gw = start_checked { expectedStatus = { 200, "300-302" }, expectedBody = "all is well", fall = 1,
        rise = 1 }
      checked:request():ok("today all is well here")
      wait_change(gw, "s1 unknown up")
      checked:request():ok("all is not well")
      assert.matches('why="check: status 200 without the expected text"', wait_change(gw, "s1 up down"))
      checked:request():ok("all is well", "302 Found")
      wait_change(gw, "s1 down up")
      local mark = gw:mark()
      checked:request():ok("all is well", "303 See Other")
      assert.matches('why="check: status 303"', wait_change(gw, "s1 up down", mark))
    end)

    it("tell what went wrong: silence", function()
      local gw = start_checked { timeout = "100ms", fall = 1, rise = 1 }
      sys.wait_until(function() -- on a busy machine an answer may come too late as well
        local conn = checked:try_accept(0)
        if conn and conn:read_until "\r\n\r\n" then conn:send "HTTP/1.1 204 No Content\r\n\r\n" end
        return #gw:find_log "instance=s1 .*to=up " > 0
      end, site.PATIENCE)
      assert.matches('why="check: timeout"', wait_change(gw, "s1 up down"))
    end)

    it("tell what went wrong: a reset, half a head, too long a body", function()
      local gw = start_checked { fall = 1, rise = 1, expectedBody = "x" }
      local function expect(why, spoil)
        local mark = gw:mark()
        checked:request():ok "x"
        wait_change(gw, "s1 %S+ up", mark)
        local request = checked:request()
        spoil(request)
        assert.matches("why=" .. why, wait_change(gw, "s1 up down", mark))
      end
      expect('"check: reset"', function(request) request.conn:reset() end)
      expect('"check: %S+"', function(request)
        request:reply "HTTP/1.1 200 O"
        request.conn:close()
      end)
      expect('"check: body_too_large"', function(request) request:ok(("y"):rep(65537)) end)
    end)

    it("of type tcp want a connection, and send nothing", function()
      local gw = start_checked { type = "tcp", rise = 1, fall = 1 }
      local conn = checked:accept()
      assert.equal("", (conn:read_all(site.PATIENCE)))
      wait_change(gw, "s1 unknown up")
      local port = checked.port
      checked:close()
      assert.matches('why="check: refused"', wait_change(gw, "s1 up down"))
      checked = backend.listen(port)
      wait_change(gw, "s1 down up")
    end)

    it("are made once, however many workers there are", function()
      local gw = start_checked({ interval = "10ms" }, nil, { workers = 2 })
      local first = checked:request()
      assert.is_nil(checked:try_accept(0.2)) -- no other one while this one waits
      first:ok()
      wait_change(gw, "s1 unknown up")
      assert.equal(1, #changes(gw))
    end)

    it("are not made of instances that are configured as unhealthy, which stay out", function()
      local barred = instances_of({ servers[1] }, { health = "unhealthy" })
      local gw = start_checked(nil, nil, { instances = barred })
      assert.is_nil(checked:try_accept(0.1))
      assert.equal(503, (ask(gw)))
      assert.equal("unhealthy", instance(gw, "s1").state)
    end)

    it("go on over a reload as if there was none", function()
      local gw = start_checked { fall = 1, rise = 1 }
      play(0)
      wait_change(gw, "s1 unknown down")
      local under_way = checked:request()
      local mark = gw:mark()
      gw:renew { config = { log = { level = "debug" } } }
      assert.equal(503, (ask(gw)))
      under_way:ok() -- the check that was under way then
      wait_change(gw, "s1 down up", mark)
      assert.equal("200 s1", served(gw))
      gw:renew { config = { log = { level = "info" } } }
      assert.same({ "s1 unknown down", "s1 down up" }, changes(gw))
    end)

    it("end with the section, and what they said is forgotten", function()
      local gw = start_checked()
      play(0)
      wait_change(gw, "s1 unknown down")
      gw:renew { config = config_of({}, instances_of { servers[1] }) }
      assert.equal("200 s1", served(gw))
    end)

    it("leave nothing behind in a worker that is forked while one is under way", function()
      local gw = start_checked({ timeout = "60s" }, nil, { workers = 2 })
      play(0)
      wait_change(gw, "s1 unknown down")
      local request = checked:request()
      local before = gw:worker(1)
      site.kill(before, SIGKILL)
      gw:wait_log("msg=\"worker died\"", site.PATIENCE)
      sys.wait_until(function()
        local pids = gw:workers()
        return #pids == 2 and pids[1] ~= before and pids[2] ~= before
      end, site.PATIENCE)
      sys.wait_until(function() return #gw:find_log "msg=ready" > 0 end, site.PATIENCE)
      for _ = 1, 10 do assert.equal(503, (ask(gw))) end -- what was found out stays
      -- Were it open in the new worker as well, the end of it would not be seen.
      request:ok()
      request.conn:wait_end(site.PATIENCE)
      gw:stop { faults = true }
    end)
  end)

  describe("requests", function()
    local WELL, ILL = "/json", "/json?status=503"

    -- Fails one server until it is ejected; the others get their share of failures as well.
    local function fail_until(gw, what, path)
      local mark = gw:mark()
      sys.wait_until(function()
        ask(gw, path or ILL)
        return gw:find_log(what, mark)[1] ~= nil
      end, site.PATIENCE, what .. "; the log:\n" .. gw:log_text())
    end

    it("that fail in a row eject an instance, for some time", function()
      start_servers(2)
      local gw = start { passiveHealth = { consecutiveFailures = 3, errorRate = 0, baseEjection = "300ms" } }
      assert.same({ s1 = 2, s2 = 2 }, shares(gw, 4))
      for _ = 1, 2 do shares(gw, 4, ILL) shares(gw, 2, WELL) end -- a success in between: no row
      assert.same({}, changes(gw))
      fail_until(gw, "to=ejected")
      local line = gw:find_log "to=ejected"[1]
      assert.matches('from=up to=ejected why="3 failures in a row, now status 503"', line)
      local out = line:match "instance=(%S+)"
      assert.equal("ejected", instance(gw, out).state)
      assert.is_nil(shares(gw, 10)[out])
      wait_change(gw, out .. " ejected up")
      assert.equal(5, shares(gw, 10)[out])
    end)

    it("to an instance that has died go to another one, and eject it", function()
      start_servers(2)
      local gw = start { passiveHealth = { consecutiveFailures = 2, baseEjection = "60s" } }
      servers[2]:kill()
      assert.same({ s1 = 20 }, shares(gw, 20))
      assert.matches("2 failures in a row, now refused", wait_change(gw, "s2 up ejected"))
      assert.equal(2, #gw:find_log 'msg="instance not reached"')
      assert.equal(2, instance(gw, "s2").failures_total)
    end)

    it("that are not answered in time, or are broken off, count as failures", function()
      start_servers(1)
      local mute = backend.listen()
      local gw = site.start {
        config = {
          registry = config_of({ passiveHealth = { consecutiveFailures = 2, errorRate = 0 } },
            instances_of { servers[1], mute }).registry,
          backend = { http = { responseHeaderTimeout = "50ms" } },
        },
        rules = { { id = "all", path = "/*", serviceName = "api" } },
      }
      local first = http.connect(gw.port)
      sys.wait_until(function()
        first:send(http.format { path = "/json" })
        local request = mute:try_accept(0.1)
        if not request then first:response():body() end
        return request
      end)
      assert.equal(504, first:response().status)
      local second
      sys.wait_until(function()
        second = http.connect(gw.port)
        second:send(http.format { path = "/json" })
        local conn = mute:try_accept(0.1)
        if conn then backend.read_request(conn).conn:reset() end
        return conn
      end)
      assert.equal(502, second:response().status)
      assert.matches("2 failures in a row, now reset", wait_change(gw, "s2 up ejected"))
      mute:close()
    end)

    it("eject by their rate of failures within a window", function()
      start_servers(2)
      local gw = start { passiveHealth = { consecutiveFailures = 0, errorRate = 0.5, minRequests = 10 } }
      for _ = 1, 4 do shares(gw, 2, ILL) end
      assert.same({}, changes(gw))
      for _ = 1, 4 do shares(gw, 2, WELL) end -- 8 of each, half of them failed
      assert.same({}, changes(gw))
      shares(gw, 2, WELL)
      fail_until(gw, "to=ejected")
      assert.matches("why=\"5 of 10 requests failed, now status 503\"", gw:find_log "to=ejected"[1])
    end)

    it("eject no more than the percentage, but at least one of several", function()
      start_servers(4)
      local gw = start { passiveHealth = { consecutiveFailures = 2, errorRate = 0 } }
      fail_until(gw, 'msg="instance not ejected"')
      shares(gw, 20, ILL)
      assert.equal(2, #changes(gw))
      local left = 0
      for _ in pairs(shares(gw, 10)) do left = left + 1 end
      assert.equal(2, left)
      gw:renew { config = config_of({ passiveHealth = { consecutiveFailures = 2, errorRate = 0,
        maxEjectionPercent = 1 } }, instances_of(servers)) }
      assert.equal(2, #changes(gw)) -- who is out stays out
    end)

    it("do not eject the only instance", function()
      start_servers(1)
      local gw = start { passiveHealth = { consecutiveFailures = 2, errorRate = 0 } }
      fail_until(gw, 'msg="instance not ejected" service=api instance=s1')
      assert.same({ s1 = 5 }, shares(gw, 5))
      assert.same({}, changes(gw))
    end)

    it("are no failures of an instance when it is the client who leaves", function()
      start_servers(2)
      local gw = start { passiveHealth = { consecutiveFailures = 1, errorRate = 0 } }
      for _ = 1, 4 do
        local client = http.connect(gw.port)
        client:send(http.format { path = "/json?delay=10000" })
        sys.wait_until(function() return gw:metrics().exchanges == 1 end)
        client:close()
        gw:wait_metric("exchanges", 0)
      end
      assert.same({}, changes(gw))
    end)

    it("are no failures of an instance either when the client does not send all of them", function()
      start_servers(2)
      local gw = start({ passiveHealth = { consecutiveFailures = 1, errorRate = 0 } }, { timeout = "100ms" })
      for _ = 1, 4 do
        local client = http.connect(gw.port)
        client:send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        assert.equal(504, client:response().status)
      end
      assert.same({}, changes(gw))
      ask(gw, "/json?delay=10000") -- this one is the instance's fault
      gw:wait_log('from=up to=ejected why="1 failures in a row, now timeout"', site.PATIENCE)
    end)

    it("find no one when all have died, and go on when they are back", function()
      start_servers(3)
      local gw = start { passiveHealth = { consecutiveFailures = 1, maxEjectionPercent = 100,
        baseEjection = "200ms", maxEjection = "200ms" } }
      for _, server in ipairs(servers) do server:kill() end
      for _ = 1, 2 do -- the first one finds out, about all of them
        local status, _, answer = ask(gw)
        assert.equal(503, status)
        assert_wait(5, answer)
        assert.equal(3, #changes(gw))
      end
      gw:wait_log('msg="no instance to ask" service=api why="none is healthy"', site.PATIENCE)
      for _, server in ipairs(servers) do server:restart_on_same_port() end
      sys.wait_until(function() return (ask(gw)) == 200 end, site.PATIENCE)
      for i = 1, 3 do wait_change(gw, ("s%d ejected up"):format(i)) end
      sys.wait_until(function()
        local counts = shares(gw, 30)
        return counts.s1 == 10 and counts.s2 == 10 and counts.s3 == 10
      end, site.PATIENCE)
    end)

    it("find the same instances out in all workers, over reloads, and when a worker dies", function()
      start_servers(2)
      local keys = { passiveHealth = { consecutiveFailures = 3, errorRate = 0, baseEjection = "1h",
        maxEjection = "1h" } }
      local gw = start(keys, { workers = 2 })
      fail_until(gw, "to=ejected")
      local out = changes(gw)[1]:match "%S+"
      local function is_out() return shares(gw, 20)[out] == nil end
      assert.is_true(is_out())
      gw:renew { config = { log = { level = "debug" } } }
      assert.is_true(is_out())
      site.kill(gw:worker(1), SIGKILL)
      gw:wait_log('msg="worker died"', site.PATIENCE)
      gw:wait_workers(2)
      assert.is_true(is_out())
      assert.equal(1, #changes(gw))
      gw:stop { faults = true }
    end)

    it("are few when an instance comes back, and become more", function()
      start_servers(2)
      local gw = start { slowStart = "1h", passiveHealth = { consecutiveFailures = 3, errorRate = 0,
        baseEjection = "100ms" } }
      fail_until(gw, "to=ejected")
      local back = changes(gw)[1]:match "%S+"
      wait_change(gw, back .. " ejected slow_start")
      assert.equal("slow_start", instance(gw, back).state)
      assert.equal(0.1, instance(gw, back).weight_share)
      local few = shares(gw, 110)[back] -- 10: it has 0.1 of 1.1. What went before may move it by one
      assert.is_true(few >= 9 and few <= 11, tostring(few))
      gw:renew { config = config_of({ slowStart = "500ms", passiveHealth = { consecutiveFailures = 3 } },
        instances_of(servers)) }
      wait_change(gw, back .. " slow_start up")
      local half = shares(gw, 110)[back]
      assert.is_true(half >= 54 and half <= 56, tostring(half))
    end)
  end)

  describe("a circuit", function()
    local function circuit(gw)
      local text = http.fetch(gw.admin_port, "/metrics").text
      return tonumber(text:match 'gatewayd_service_circuit{service="api"} (%d)')
    end

    it("opens by failures in a row, lets a few requests through, and closes by successes", function()
      start_servers(1)
      local gw = start({ circuitBreaker = { failureThreshold = 3, successThreshold = 2, timeout = "300ms",
        halfOpenRequests = 1 } }, { workers = 2 })
      for _ = 1, 2 do ask(gw, "/json?status=500") end
      ask(gw)
      for _ = 1, 2 do ask(gw, "/json?status=500") end
      assert.equal(0, circuit(gw))
      ask(gw, "/json?status=502")
      gw:wait_log 'msg="circuit changed" service=api from=closed to=open why="failures in a row"'
      local requests = servers[1]:stats().requests
      local status, _, answer = ask(gw)
      assert.equal(503, status)
      assert_wait(1, answer)
      assert.matches("the circuit of api is open", answer.text)
      assert.equal(requests + 1, servers[1]:stats().requests) -- nobody but us has asked
      -- A failure while it is half open opens it again.
      sys.wait_until(function() return (ask(gw, "/json?status=500")) == 500 end, site.PATIENCE)
      gw:wait_log "from=half_open to=open why=\"a probe failed\""
      -- One at a time, whichever worker it is at.
      local slow = http.connect(gw.port)
      sys.wait_until(function()
        slow = http.connect(gw.port)
        slow:send(http.format { path = "/json?delay=500" })
        return slow:response().status == 200
      end, site.PATIENCE)
      assert.equal(2, circuit(gw))
      assert.equal(200, (ask(gw)))
      gw:wait_log 'from=half_open to=closed why="probes succeeded"'
      assert.equal(0, circuit(gw))
      assert.equal(200, (ask(gw)))
    end)

    it("counts requests with all their tries, and does not ask while it is open", function()
      start_servers(2)
      local gw = start { circuitBreaker = { failureThreshold = 2, timeout = "1h" } }
      servers[1]:kill()
      for _ = 1, 6 do assert.equal("200 s2", served(gw)) end -- half of them had to be tried twice
      servers[2]:kill()
      for _ = 1, 2 do assert.equal(502, (ask(gw))) end
      gw:wait_log('from=closed to=open why="failures in a row"', site.PATIENCE)
      local mark = gw:mark()
      local status, _, answer = ask(gw)
      assert.equal(503, status)
      assert.is_true(tonumber(answer:get "Retry-After") > 3500)
      assert.equal(0, #gw:find_log('msg="instance not reached"', mark))
    end)

    it("that is half open refuses all but the probes; one whose client leaves says nothing", function()
      start_servers(1)
      local gw = start({ circuitBreaker = { failureThreshold = 1, successThreshold = 1, timeout = "50ms" } },
        { workers = 2 })
      ask(gw, "/json?status=500")
      gw:wait_log "to=open"
      local probe
      sys.wait_until(function()
        probe = http.connect(gw.port)
        probe:send(http.format { path = "/json?delay=60000" })
        return not pcall(probe.response, probe, nil, 0.1)
      end, site.PATIENCE)
      for _ = 1, 5 do assert.equal(503, (ask(gw))) end
      probe:close()
      sys.wait_until(function() return (ask(gw)) == 200 end, site.PATIENCE)
      gw:wait_log "from=half_open to=closed"
    end)
  end)

  describe("places for streams", function()
    local function open(gw)
      local response = http.stream(gw.port, "/events")
      streams[#streams + 1] = response
      return response
    end

    local function open_streams()
      local n = 0
      for _, server in ipairs(servers) do n = n + server:stats().open_streams end
      return n
    end

    it("are as many as configured, over all workers", function()
      start_servers(2)
      local gw = start({ maxStreams = 5 }, { workers = 2 })
      local clients, opened = {}, 0
      for i = 1, 30 do
        clients[i] = http.connect(gw.port)
        clients[i]:send(http.format { path = "/events", headers = { Accept = "text/event-stream" } })
      end
      local refused
      for i = 1, 30 do
        streams[i] = clients[i]:response()
        opened = opened + (streams[i].status == 200 and 1 or 0)
        refused = streams[i].status == 503 and streams[i] or refused
      end
      assert.equal(10, opened)
      assert.equal(10, open_streams())
      assert_wait(1, refused)
      assert.matches("all instances of api are full", refused:body())
      gw:wait_log('msg="no instance to ask" service=api why="all are full"', site.PATIENCE)
      assert.equal("full", instance(gw, "s1").state)
      for _, response in ipairs(streams) do response.conn:close() end
      gw:wait_metric("streams", 0)
      assert.equal(200, open(gw).status)
    end)

    it("are given back by requests that turn out not to be streams", function()
      start_servers(1)
      local gw = start { maxStreams = 1 }
      local slow = http.connect(gw.port)
      slow:send(http.format { path = "/bytes?n=10000000&ctype=text/plain" })
      assert.equal(200, slow:response().status) -- its body is still under way
      assert.equal(200, open(gw).status)
      assert.equal(503, open(gw).status)
      slow:close()
    end)

    it("are given back when a worker dies", function()
      start_servers(1)
      local gw = start({ maxStreams = 4 }, { workers = 1 })
      for _ = 1, 4 do assert.equal(200, open(gw).status) end
      assert.equal(503, open(gw).status)
      site.kill(gw:worker(1), SIGKILL)
      gw:wait_log('msg="worker died"', site.PATIENCE)
      sys.wait_until(function()
        local ok, response = pcall(open, gw)
        return ok and response.status == 200
      end, site.PATIENCE)
      for _, response in ipairs(streams) do response.conn:close() end
      gw:stop { faults = true }
    end)

    it("stay taken over a reload", function()
      start_servers(1)
      local gw = start { maxStreams = 2 }
      for _ = 1, 2 do assert.equal(200, open(gw).status) end
      gw:renew { config = { log = { level = "debug" } } }
      assert.equal(503, open(gw).status)
      gw:renew { config = config_of({ maxStreams = 3 }, instances_of(servers)) }
      assert.equal(200, open(gw).status)
      assert.equal(503, open(gw).status)
    end)
  end)

  it("figures of instances have labels, which are escaped", function()
    start_servers(1)
    local gw = site.start {
      config = { registry = { static = { services = { { name = 'a "b"\\', instances = {
        { id = "one", address = "127.0.0.1", port = servers[1].port } } } } } } },
      rules = { { id = "all", path = "/*", serviceName = 'a "b"\\' } },
    }
    local response = http.stream(gw.port, "/events")
    local text = http.fetch(gw.admin_port, "/metrics").text
    local labels = '{service="a \\"b\\"\\\\",instance="one"} '
    for name, value in pairs { up = 1, weight_share = 1, open_streams = 1, in_flight = 1, ejected = 0 } do
      assert.truthy(text:find("\ngatewayd_instance_" .. name .. labels .. value .. "\n", 1, true), name)
    end
    local item = cjson.decode(http.fetch(gw.admin_port, "/instances").text).instances[1]
    assert.same({ 'a "b"\\', "one", "up", 1 }, { item.service, item.instance, item.state, item.open_streams })
    response.conn:close()
  end)
end)
