--- Requests that are asked again before a byte of an answer has gone to the client: which faults lead to
-- it, what must never go twice, and what the client, the log and the hooks see of it.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local site = require "spec.support.site"
local sys = require "spec.support.sys"

-- Counts its calls, and takes the first instance that there is.
local COUNT = [[
  local plugin = { name = "count" }
  function plugin.access(ctx) ctx.shared.access = (ctx.shared.access or 0) + 1 end
  function plugin.balance(ctx, _, instances)
    ctx.shared.balance = (ctx.shared.balance or 0) + 1
    return instances[1]
  end
  function plugin.on_response(ctx)
    ctx.shared.response = (ctx.shared.response or 0) + 1
    local seen = ctx.shared
    ctx.res.headers["X-Hooks"] = ("%d %d %d"):format(seen.access, seen.balance, seen.response)
  end
  return plugin
]]

local FIRST = [[
  return { name = "first", balance = function(_, _, instances) return instances[1] end }
]]

local SLOW = [[
  return { name = "slow", on_response = function() for _ = 1, 3 do gateway.sleep(0.01) end end }
]]

-- Asks the backend of the port in the query, and then replies by itself.
local TASK = [[
  local plugin = { name = "task" }
  function plugin.access(ctx)
    ctx:spawn(function()
      gateway.sleep(0.2)
      gateway.http.request { url = ("http://127.0.0.1:%s/"):format(ctx.req.query.port) }
      ctx:reply(200, "from a task")
    end)
  end
  return plugin
]]

-- Is stopped by force alone, and takes its VM along.
local STUCK = [[
  return { name = "stuck", access = function() ("a"):rep(1e5):find((".-"):rep(20) .. "b") end }
]]

describe("a retry", function()
  local one, two, gw, busy

  before_each(function()
    one, two = backend.listen(), backend.listen()
  end)

  after_each(function()
    one:close()
    two:close()
    if busy then busy:stop() end
    busy = nil
    gateway.stop_all()
  end)

  -- A gateway whose service `api` has both backends, in this order, unless ports are given.
  local function start(retry, options)
    options = options or {}
    gw = site.start {
      services = { api = options.ports or { one.port, two.port } },
      rules = { { id = "api", path = "/*", serviceName = "api", retry = retry, timeout = options.timeout,
        loadBalance = options.policy, sessionAffinity = options.session,
        plugins = options.plugins or { "count" } },
        { id = "stuck", path = "/stuck", serviceName = "api", plugins = { "stuck" } } },
      files = { ["plugins/count.lua"] = COUNT, ["plugins/first.lua"] = FIRST, ["plugins/slow.lua"] = SLOW,
        ["plugins/task.lua"] = TASK, ["plugins/stuck.lua"] = STUCK },
      config = { backend = { http = options.http or { keepAlive = false } }, drainTimeout = options.drain,
        lua = { maxRunTime = "30ms" } },
      workers = options.workers,
    }
  end

  local function send(request)
    local client = http.connect(gw.port)
    client:send(type(request) == "string" and request or http.format(request or {}))
    return client
  end

  local function answer(client, head)
    local response = client:response { head = head }
    response.text, response.how = response:body()
    return response
  end

  local function logged(which)
    local line = gw:wait_log("msg=request .*" .. (which or ""))
    return line:match "attempts=(%S+)", line:match "failed=(%S+)", line:match "instance=(%S+)",
      line:match "end=(%S+)"
  end

  describe("after a status", function()
    it("goes to another instance, whose answer is the client's", function()
      start { statuses = { 503 } }
      local client = send()
      one:request():ok("busy", "503 Service Unavailable")
      two:request():ok "hello"
      local response = answer(client)
      assert.same({ 200, "hello", "clean", "1 2 1" },
        { response.status, response.text, response.how, response:get "X-Hooks" })
      assert.same({ "2", "api-1", "api-2", "ok" }, { logged() })
      assert.match("instance=api%-1 .*status=503 attempt=1 retry_after_ms=%d+", gw:wait_log "attempt failed")
      gw:wait_metric("retries_total", 1)
    end)

    it("goes to one that was not tried yet, though its VM was replaced meanwhile", function()
      start({ statuses = { 503 } }, { plugins = { "first" } })
      local client = send()
      one:request():ok("busy", "503 Service Unavailable", "Retry-After: 1\r\n")
      gw:wait_log "attempt failed"
      assert.equal(500, http.fetch(gw.port, "/stuck").status)
      gw:wait_log "its VM is replaced"
      two:request():ok "hello"
      assert.equal("hello", answer(client).text)
      assert.same({ "2", "api-1", "api-2", "ok" }, { logged "rule=api" })
      gw:stop { faults = true }
    end)

    it("does not come where the rule names no status", function()
      start { attempts = 3 }
      local client = send()
      one:request():ok("busy", "503 Service Unavailable", "Retry-After: 7\r\n")
      local response = answer(client)
      assert.same({ 503, "busy", "7" }, { response.status, response.text, response:get "Retry-After" })
      assert.is_nil(two:try_accept(0))
    end)

    it("does not come where there is no retry key", function()
      start(nil)
      local client = send()
      one:request():ok("busy", "503 Service Unavailable")
      assert.equal(503, answer(client).status)
      assert.is_nil(two:try_accept(0))
    end)

    it("passes the last answer on as it came when there are no attempts left", function()
      start { statuses = { 429, 503 }, attempts = 2 }
      local client = send()
      one:request():ok("first", "503 Service Unavailable")
      two:request():ok("second", "429 Too Many", "Retry-After: 1\r\nX-Mine: a\r\nX-Mine: b\r\n")
      local response = answer(client)
      assert.same({ 429, "second", "1", { "a", "b" }, "1 2 1" }, { response.status, response.text,
        response:get "Retry-After", response:all "X-Mine", response:get "X-Hooks" })
      assert.match("attempt=2 no_retry=attempts", gw:wait_log "no_retry")
    end)

    it("comes to the same instance again where there is no other, after a while", function()
      start({ statuses = { 503 }, backoff = { base = 0.2, max = 1, jitter = 0 } }, { ports = { one.port } })
      local client, begun = send(), sys.now()
      one:request():ok("busy", "503 Service Unavailable")
      one:request():ok "hello"
      assert.is_true(sys.now() - begun >= 0.19)
      assert.equal("hello", answer(client).text)
      assert.same({ "2", "api-1", "api-1", "ok" }, { logged() })
    end)

    it("gives an answer of before when no later attempt gets any", function()
      start({ statuses = { 503 }, attempts = 2 }, { ports = { one.port, http.free_port() } })
      local client = send()
      one:request():ok("really busy", "503 Service Unavailable", "X-From: one\r\n")
      local response = answer(client)
      assert.same({ 503, "really busy", "one", "clean" },
        { response.status, response.text, response:get "X-From", response.how })
      assert.same({ "2", "api-1,api-2", "api-1", "ok" }, { logged() })
    end)

    it("learns from an answer of before for the instance whose it was", function()
      start({ attempts = 2, statuses = { 502 } }, { plugins = { "slow" }, session = { source = "header" } })
      local client = send()
      one:request():ok("bad", "502 Bad Gateway", "X-Session-Id: s1\r\n")
      two:request().conn:close()
      assert.equal("bad", answer(client).text)
      assert.same({ "2", "api-1", "api-1", "ok" }, { logged() })
      for _ = 1, 3 do
        client = send { headers = { ["X-Session-Id"] = "s1" } }
        one:request():ok "at home"
        assert.equal("at home", answer(client).text)
      end
    end)

    it("gives no answer of before that was not whole, or too long", function()
      start({ statuses = { 503 }, attempts = 2 }, { ports = { one.port, http.free_port() } })
      for _, body in ipairs { "half of", ("x"):rep(200000) } do
        local client = send()
        local received = one:request()
        received:reply("HTTP/1.1 503 Busy\r\nContent-Length: 200001\r\n\r\n")
        received.conn:send(body, 0.1)
        local response = answer(client)
        assert.same({ 502, "clean" }, { response.status, response.how })
        assert.match("the connection was refused", response.text)
      end
    end)

    it("does not wait for the end of an answer that it does not pass on", function()
      start { statuses = { 503 } }
      local client = send()
      local first = one:request()
      first:reply "HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\npart of it"
      two:request():ok "hello"
      assert.not_equal("timeout", first.conn:wait_end())
      assert.equal("hello", answer(client).text)
    end)

    it("leaves a connection on which all has come to the next request", function()
      start({ statuses = { 503 } }, { http = { keepAlive = true } })
      local client = send()
      local first = one:request()
      first:ok("busy", "503 Service Unavailable")
      local second = two:request()
      second:ok "hello"
      assert.equal("hello", answer(client).text)
      client:send(http.format {})
      backend.read_request(first.conn):ok "again"
      assert.equal("again", answer(client).text)
    end)

    it("waits for as long as Retry-After says, if that is no longer than the limit", function()
      start { statuses = { 503 }, backoff = { base = "1ms", max = "3s" } }
      local client, begun = send(), sys.now()
      one:request():ok("busy", "503 Service Unavailable", "Retry-After: 1\r\n")
      two:request():ok "hello"
      assert.is_true(sys.now() - begun >= 0.99)
      assert.equal("hello", answer(client).text)
    end)

    for name, value in pairs { seconds = "4", ["a date"] = "Fri, 01 Jan 2100 00:00:00 GMT",
      ["too many seconds"] = "99999999999999" } do
      it("does not come when Retry-After is beyond the limit: " .. name, function()
        start { statuses = { 503 }, backoff = { max = "3s" } }
        local client = send()
        one:request():ok("busy", "503 Service Unavailable", "Retry-After: " .. value .. "\r\n")
        local response = answer(client)
        assert.same({ 503, value }, { response.status, response:get "Retry-After" })
        assert.is_nil(two:try_accept(0))
      end)
    end

    it("does not come when the rule's timeout would not let it begin", function()
      start({ statuses = { 503 }, backoff = { base = "20s", max = "20s", jitter = 0 } }, { timeout = 10 })
      local client = send()
      one:request():ok("busy", "503 Service Unavailable")
      assert.equal("busy", answer(client).text)
      gw:wait_log "no_retry=timeout"
    end)

    it("keeps the rule's timeout, which is one for all attempts", function()
      start({ statuses = { 503 }, backoff = { base = "1ms" } }, { timeout = 0.5 })
      local client = send()
      one:request():ok("busy", "503 Service Unavailable")
      local second = two:request()
      local response = answer(client) -- the one real answer that there was
      assert.same({ 503, "busy" }, { response.status, response.text })
      assert.not_equal("timeout", second.conn:wait_end())
      assert.equal("upstream_timeout", select(4, logged()))
    end)

    it("is decided on once, however long the hooks of the answer take", function()
      start({ statuses = { 503 }, attempts = 1 }, { plugins = { "count", "slow" } })
      local client = send()
      one:request():ok("busy", "503 Service Unavailable")
      local response = answer(client)
      assert.same({ 503, "busy", "1 1 1" }, { response.status, response.text, response:get "X-Hooks" })
      gw:wait_log "msg=request "
      assert.equal(1, #gw:find_log "no_retry=attempts")
    end)

    it("is the same for a HEAD and for a client of HTTP/1.0", function()
      start { statuses = { 503 } }
      local client = send { method = "HEAD" }
      one:request():reply "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n"
      two:request():reply "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
      local response = answer(client, true)
      assert.same({ 200, "5", "" }, { response.status, response:get "Content-Length", response.text })
      client = send { version = "1.0" }
      one:request():ok("busy", "503 Service Unavailable")
      two:request():ok "old"
      response = answer(client)
      assert.same({ 200, "old", "clean" }, { response.status, response.text, response.how })
    end)

    it("moves a sticky session along", function()
      start({ statuses = { 503 } }, { plugins = {}, policy = "sticky_session" })
      local user = { headers = { ["X-User-ID"] = "u" } }
      local client = send(user)
      local both = { [one.fd] = sys.POLLIN, [two.fd] = sys.POLLIN }
      local first, second = one, two
      if sys.poll(both, sys.now() + 5)[two.fd] then first, second = two, one end
      first:request():ok("busy", "503 Service Unavailable")
      second:request():ok "hello"
      assert.equal("hello", answer(client).text)
      for _ = 1, 3 do
        client:send(http.format(user))
        second:request():ok "again"
        assert.equal("again", answer(client).text)
      end
    end)

    it("leaves the client's connection as usable as it was", function()
      start { statuses = { 503 }, attempts = 2 }
      local client = send()
      for i = 1, 3 do
        one:request():ok("busy", "503 Service Unavailable")
        two:request():ok("answer " .. i)
        assert.equal("answer " .. i, answer(client).text)
        client:send(http.format {})
      end
    end)
  end)

  describe("after a break", function()
    local breaks = {
      ["accepts and closes"] = function(received) received.conn:close() end,
      ["accepts and resets"] = function(received) received.conn:reset() end,
      ["answers half a head"] = function(received)
        received:reply "HTTP/1.1 200 OK\r\nContent-Le"
        received.conn:close()
      end,
      ["does not speak HTTP"] = function(received) received:reply "220 ready for mail\r\n\r\n" end,
      ["ends with an interim answer"] = function(received)
        received:reply "HTTP/1.1 102 Processing\r\n\r\n"
        received.conn:close()
      end,
    }

    for name, fault in pairs(breaks) do
      it("asks another instance when a backend " .. name, function()
        start { attempts = 2 }
        local client = send()
        fault(one:request())
        two:request():ok "hello"
        local response = client:response { skip_informational = true }
        assert.equal("hello", (response:body()))
        assert.same({ "2", "api-1", "api-2", "ok" }, { logged() })
        gw:wait_log "msg=\"attempt failed\".*instance=api%-1 .*why=%S+ attempt=1"
      end)

      it("never asks again for a POST when a backend " .. name, function()
        start { attempts = 2 }
        local client = send { method = "POST", body = "pay" }
        local received = one:request()
        received:body()
        fault(received)
        local response = client:response { skip_informational = true }
        assert.equal(502, response.status)
        assert.is_nil(two:try_accept(0.05))
        gw:wait_log "no_retry=method"
      end)
    end

    it("does not come where `on` does not name it", function()
      start { on = { "connect" } }
      local client = send()
      one:request().conn:close()
      assert.equal(502, answer(client).status)
      assert.is_nil(two:try_accept(0))
    end)

    it("does not come in the middle of a body", function()
      start { statuses = { 503 } }
      local client = send()
      local received = one:request()
      received:reply "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
      local response = client:response()
      received.conn:close()
      assert.same({ "hello", "broken" }, { response:body() })
      assert.is_nil(two:try_accept(0.05))
    end)
  end)

  describe("after silence", function()
    for name, before in pairs { ["of all"] = "", ["behind half a head"] = "HTTP/1.1 200 OK\r\nCont" } do
      it("asks another instance where `on` names timeout: " .. name, function()
        start({ on = { "timeout" } }, { http = { responseHeaderTimeout = 0.2 } })
        local client = send()
        local silent = one:request()
        silent:reply(before)
        two:request():ok "hello"
        assert.equal("hello", answer(client).text)
        assert.not_equal("timeout", silent.conn:wait_end())
        gw:wait_log "attempt failed.*why=response_timeout"
      end)
    end

    it("is a 504 where it does not, and where all are silent", function()
      start({ on = { "reset" } }, { http = { responseHeaderTimeout = 0.2 } })
      local client = send()
      local _ = one:request()
      assert.equal(504, answer(client).status)
      assert.is_nil(two:try_accept(0))
      gw:renew { rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "count" },
        retry = { on = { "timeout" }, attempts = 2 } } } }
      client = send()
      local received = { one:request(), two:request() }
      assert.equal(504, answer(client).status)
      assert.equal(2, #received)
    end)
  end)

  describe("where no instance is reached", function()
    it("begins anew after a while, whatever the method", function()
      local port = http.free_port()
      start({ backoff = { base = "1s", max = "1s", jitter = 0 }, attempts = 2 }, { ports = { port } })
      local client = send { method = "POST", body = "pay" }
      gw:wait_log "attempt failed.*why=refused attempt=1 retry_after_ms=1000"
      local late = backend.listen(port)
      local received = late:request()
      assert.equal("pay", received:body())
      received:ok "paid"
      assert.equal("paid", answer(client).text)
      late:close()
    end)

    it("gives up after as many rounds as there are attempts", function()
      start({ attempts = 2 }, { ports = { http.free_port(), http.free_port(), http.free_port() } })
      assert.equal(502, answer(send()).status)
      assert.same({ "6", "api-1,api-2,api-3,api-1,api-2,api-3", "api-3", "upstream_refused" }, { logged() })
    end)

    it("asks every instance once without any of it", function()
      start(nil, { ports = { http.free_port(), http.free_port(), one.port } })
      local client = send { method = "POST", body = "x" }
      local received = one:request()
      assert.equal("x", received:body())
      received:ok "hello"
      assert.equal("hello", answer(client).text)
      assert.same({ "3", "api-1,api-2", "api-3", "ok" }, { logged() })
    end)
  end)

  describe("of a request with a body", function()
    local NAMED = { methods = { "GET", "POST" }, statuses = { 503 }, maxBody = "100KiB" }

    it("sends the same body again where its method is named", function()
      start(NAMED)
      local client = send { method = "POST", body = "pay once", headers = { ["X-Key"] = "7" } }
      local received = one:request()
      assert.equal("pay once", received:body())
      received.conn:reset()
      received = two:request()
      assert.same({ "POST", "7", "8", "pay once" }, { received.method, received:get "X-Key",
        received:get "Content-Length", received:body() })
      received:ok "paid"
      assert.equal("paid", answer(client).text)
    end)

    it("sends all of one that was under way, and of the rest what comes", function()
      start(NAMED)
      local client = send "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
      local received = one:request()
      assert.equal("one", received:chunk())
      received:ok("busy", "503 Service Unavailable")
      received = two:request()
      assert.equal("one", received:chunk())
      client:send "3\r\ntwo\r\n0\r\n\r\n"
      assert.equal("two", received:body())
      received:ok "paid"
      assert.equal("paid", answer(client).text)
      client:send(http.format { path = "/next" })
      received = one:request()
      received:ok(received.target)
      assert.equal("/next", answer(client).text)
    end)

    it("asks for it once with Expect: 100-continue", function()
      start(NAMED)
      local client = send "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
      assert.equal(100, client:response().status)
      local received = one:request()
      client:send "pay"
      assert.equal("pay", received:body())
      received.conn:close()
      received = two:request()
      assert.equal("pay", received:body())
      received:ok "paid"
      local response = answer(client)
      assert.same({ 200, "paid" }, { response.status, response.text })
    end)

    it("does not take another connection that may be stale for it", function()
      start({ methods = { "POST" } }, { ports = { one.port }, http = { keepAlive = true } })
      local clients, idle = {}, {}
      for i = 1, 3 do clients[i], idle[i] = send { path = "/" .. i }, one:request() end
      for i = 1, 3 do
        idle[i]:ok "x"
        answer(clients[i])
      end
      local client = send { method = "POST", body = "pay" }
      local ready = {}
      for _, received in ipairs(idle) do ready[received.conn.fd] = sys.POLLIN end
      local fd = next(sys.poll(ready, sys.now() + 5))
      for _, received in ipairs(idle) do if received.conn.fd == fd then received.conn:reset() end end
      local received = one:request()
      assert.equal("pay", received:body())
      received:ok "paid"
      assert.equal("paid", answer(client).text)
    end)

    it("keeps up to maxBody of it, and does not come beyond", function()
      start(NAMED)
      local body = ("x"):rep(100 * 1024)
      local client = send { method = "POST", body = body }
      local received = one:request()
      assert.equal(#body, #received:body())
      received:ok("busy", "503 Service Unavailable")
      received = two:request()
      assert.is_true(received:body() == body)
      received:ok "paid"
      assert.equal("paid", answer(client).text)
      client = send { method = "POST", body = body .. "y" }
      received = one:request()
      assert.equal(#body + 1, #received:body())
      received:ok("busy", "503 Service Unavailable")
      assert.equal(503, answer(client).status)
      assert.is_nil(two:try_accept(0))
      gw:wait_log "no_retry=body"
    end)

    it("does not come when more has gone than was kept, whatever was announced", function()
      start { methods = { "POST" }, statuses = { 503 }, maxBody = 4 }
      local client = send "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
      local received = one:request()
      assert.equal("one", received:chunk())
      client:send "3\r\ntwo\r\n0\r\n\r\n"
      assert.equal("two", received:body())
      received:ok("busy", "503 Service Unavailable")
      assert.equal(503, answer(client).status)
      assert.is_nil(two:try_accept(0))
    end)

    it("does not come for a PUT that is not named, and for a GET with a body it does", function()
      start { statuses = { 503 } }
      local client = send { method = "PUT", body = "x" }
      one:request():ok("busy", "503 Service Unavailable")
      assert.equal(503, answer(client).status)
      client = send { method = "GET", body = "query" }
      one:request():ok("busy", "503 Service Unavailable")
      local received = two:request()
      assert.equal("query", received:body())
      received:ok "found"
      assert.equal("found", answer(client).text)
    end)
  end)

  describe("while it waits", function()
    local LONG = { statuses = { 503 }, backoff = { base = "60s", max = "60s", jitter = 0 } }

    local function waiting()
      local client = send { path = "/?port=" .. one.port }
      one:request():ok("busy", "503 Service Unavailable")
      gw:wait_log "retry_after_ms=60000"
      return client
    end

    it("ends when the client leaves", function()
      start(LONG)
      waiting():close()
      assert.equal("client_gone", select(4, logged()))
      gw:wait_metric("exchanges", 0)
      assert.is_nil(two:try_accept(0))
    end)

    it("gives way to what a task of the exchange replies", function()
      start(LONG, { plugins = { "count", "task" } })
      local client = waiting()
      one:request():ok() -- what the task asks
      local response = answer(client)
      assert.same({ 200, "from a task" }, { response.status, response.text })
      assert.is_nil(two:try_accept(0))
    end)

    it("keeps nobody else waiting", function()
      start(LONG)
      local client, other = waiting(), send { path = "/other" }
      local received = one:request()
      received:ok(received.target)
      assert.equal("/other", answer(other).text)
      client:close()
    end)

    it("lives through a reload, by the words it began with", function()
      start { statuses = { 503 }, backoff = { base = "2s", max = "2s", jitter = 0 } }
      local client = send()
      one:request():ok("busy", "503 Service Unavailable")
      gw:wait_log "retry_after_ms=2000"
      gw:renew { rules = { { id = "api", path = "/*", serviceName = "api" } } }
      assert.equal(0, #gw:find_log "msg=request ")
      two:request():ok "hello"
      assert.equal("hello", answer(client).text)
    end)

    it("gives way to a stop", function()
      start(LONG, { drain = "200ms" })
      local client = waiting()
      gw.process:signal "TERM"
      assert.match("^HTTP/1.1 503", (client:read_all()))
      assert.equal("shutdown", select(4, logged()))
    end)
  end)

  local BUSY = [[
    connection *
      expect_head
      send "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"
      close
  ]]

  it("makes no storm, however many clients and workers there are", function()
    busy = origin.script(BUSY)
    start({ statuses = { 503 }, attempts = 10, backoff = { base = "50ms", max = "50ms", jitter = 1 } },
      { ports = { busy.port }, workers = 2 })
    local clients = {}
    for i = 1, 200 do clients[i] = send() end
    for i = 1, 200 do
      local response = answer(clients[i])
      assert.same({ 503, "busy" }, { response.status, response.text })
    end
    local numbers = gw:metrics()
    assert.is_true(numbers.retries_total >= 20, numbers.retries_total)
    assert.is_true(numbers.retries_total <= 100, numbers.retries_total)
    local accepted = 0
    for _, line in ipairs(busy:lines()) do accepted = accepted + (line:find "^accept " and 1 or 0) end
    assert.equal(200 + numbers.retries_total, accepted)
  end)

  it("is bounded by the budget of the service", function()
    busy = origin.script(BUSY)
    start({ statuses = { 503 }, attempts = 4, backoff = { base = "1ms", max = "1ms" },
      budget = { ratio = 0.1, minRequests = 5 } }, { ports = { busy.port } })
    local client = send()
    for _ = 1, 100 do
      local response = answer(client)
      assert.same({ 503, "busy" }, { response.status, response.text })
      client:send(http.format {})
    end
    answer(client)
    local numbers = gw:metrics()
    -- Four requests are free of it, in every ten seconds.
    assert.is_true(numbers.retries_total >= 12, numbers.retries_total)
    assert.is_true(numbers.retries_total <= 40, numbers.retries_total)
    assert.is_true(numbers.retries_denied_total >= 60, numbers.retries_denied_total)
    gw:wait_log "no_retry=budget"
  end)
end)
