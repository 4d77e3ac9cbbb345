--- Faults of plugins, backends and clients that come at a bad moment: each has once done harm.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local sys = require "spec.support.sys"

describe("a fault", function()
  local server

  before_each(function()
    server = backend.listen()
  end)

  after_each(function()
    server:close()
    gateway.stop_all()
  end)

  -- A gateway with the plugin `p` on every route: /down has no backend, the rest has this one.
  local function start(plugin, config)
    return gateway.start {
      services = { api = server.port, down = http.free_port() },
      rules = {
        { id = "api", path = "/*", serviceName = "api", plugins = plugin and { "p" } },
        { id = "timed", path = "/timed/*", serviceName = "api", plugins = plugin and { "p" }, timeout = 0.2 },
        { id = "down", path = "/down", serviceName = "down", plugins = plugin and { "p" } },
      },
      files = { ["plugins/p.lua"] = ("local plugin = {name = 'p'} %s return plugin"):format(plugin or "") },
      config = config,
    }
  end

  local function send(gw, request)
    local client = http.connect(gw.port)
    client:send(http.format(request))
    return client
  end

  describe("of a plugin:", function()
    it("a reply that is refused leaves the answer that was there", function()
      local gw = start [[
        function plugin.on_response(ctx)
          for _ = 1, 3 do
            ctx.state.ok, ctx.state.why = pcall(ctx.reply, ctx, 200, "x", { ["not a name"] = "y" })
          end
          ctx.res.headers["X-Why"] = tostring(ctx.state.why)
        end
      ]]
      local response = http.fetch(gw.port, "/down")
      assert.equal(502, response.status)
      assert.match("not a header name", response:get "X-Why")
      assert.same({ '{"error":"the connection was refused"', "clean" },
        { response.text:match "^[^,]*", response.how })
    end)

    it("to wait where it can't raises, and nothing comes after the hook", function()
      local gw = start [[
        function plugin.access(ctx)
          local list, why = { 3, 1, 2 }, nil
          table.sort(list, function(a, b)
            why = select(2, pcall(gateway.sleep, 0.01))
            why = why .. select(2, pcall(function() return ctx.req.body end))
            return a < b
          end)
          return ctx:reply(200, why)
        end
      ]]
      for _ = 1, 3 do
        local client = send(gw, { method = "POST", path = "/", headers = { ["Content-Length"] = "5" } })
        local response = client:response()
        assert.match("can't wait inside of a callback.*ctx.req.body: a hook can't wait", (response:body()))
      end
      -- Longer than the sleeps would have been.
      local waited = start [[
        function plugin.access(ctx)
          gateway.sleep(0.1)
          return ctx:reply(200, "slept")
        end
      ]]
      assert.equal("slept", http.fetch(waited.port, "/").text)
      assert.equal(0, #gw:find_log "worker died")
    end)

    it("an error whose own fields raise ends one exchange, not the process", function()
      local gw = gateway.start {
        services = { api = server.port },
        rules = { { id = "api", path = "/*", serviceName = "api" } },
        config = { plugins = { "deep" } },
        files = { ["plugins/deep.lua"] = [[
          local function raise() error(setmetatable({}, { __index = function() error("deeper") end })) end
          return { name = "deep", route = function() return setmetatable({}, { __index = raise }) end }
        ]] },
      }
      assert.equal(500, http.fetch(gw.port, "/").status)
      assert.equal(500, http.fetch(gw.port, "/").status)
      assert.equal(0, #gw:find_log "worker died")
    end)

    it("calling itself without end raises, whatever lies in between", function()
      local gw = start [[
        local deep = {}
        function deep.plain(ctx) return 1 + deep.plain(ctx) end
        function deep.gsub() return ("x"):gsub("x", deep.gsub) end
        function deep.sort() table.sort({ 1, 2 }, deep.sort) end
        function plugin.access(ctx)
          local way = deep[ctx.req.path:sub(2)]
          if way then way(ctx) end
        end
        function plugin.on_event()
          local list = {}
          list[1] = list
          return list
        end
      ]]
      for _, way in ipairs { "plain", "gsub", "sort" } do
        assert.message(way).equal(500, http.fetch(gw.port, "/" .. way, 20).status)
      end
      local client = send(gw, { path = "/event" })
      local stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n"
      server:request():reply(stream)
      assert.equal("broken", select(2, client:response():body()))
      gw:wait_log "stack overflow"
      assert.equal(0, #gw:find_log "worker died")
    end)

    it("another method is the backend's alone: the client gets the framing of its own", function()
      local gw = start [[
        function plugin.access(ctx) ctx.req.method = ctx.req.headers["X-Method"] end
      ]]
      local client = send(gw, { path = "/", headers = { ["X-Method"] = "HEAD" } })
      local received = server:request()
      assert.equal("HEAD", received.method)
      received:reply "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
      local response = client:response()
      assert.same({ "", "clean" }, { response:body() })
      client:send(http.format { method = "HEAD", path = "/", headers = { ["X-Method"] = "GET" } })
      received = backend.read_request(received.conn)
      assert.equal("GET", received.method)
      received:ok "hello"
      assert.equal("5", client:response({ head = true }):get "Content-Length")
      client:send(http.format { path = "/", headers = { ["X-Method"] = "GET" } })
      backend.read_request(received.conn):ok "again"
      assert.equal("again", (client:response():body()))
    end)

    it("a status with a body in the place of one without is an empty answer", function()
      local gw = start [[
        function plugin.on_response(ctx) ctx.res.status = 200 end
      ]]
      local client = send(gw, { path = "/" })
      server:request():reply "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"
      local response = client:response()
      assert.equal(200, response.status)
      assert.same({ "", "clean" }, { response:body() })
    end)

    it("while it is loaded can't wait", function()
      local gw = gateway.prepare {
        rules = { { path = "/*", serviceName = "api", plugins = { "p" } } },
        services = { api = server.port },
        files = { ["plugins/p.lua"] = "gateway.sleep(1)\nreturn { name = 'p' }\n" },
      }
      local code, _, err = gateway.run { "-t", "-c", gw.conf }
      assert.equal(1, code)
      assert.match("no hook runs here", err)
    end)
  end)

  describe("of time:", function()
    it("a connection that lay idle for long has not been stuck for long", function()
      local gw = start([[
        function plugin.on_response()
          local start = os.clock()
          while os.clock() - start < 0.05 do end
        end
      ]], { frontend = { sse = { writeTimeout = 0.2 } }, backend = { http = { keepAlive = false } } })
      local client = send(gw, { path = "/one" })
      server:request():ok "one"
      assert.equal("one", (client:response():body()))
      assert.same({ nil, "timeout" }, { client:read_some(0.4) })
      client:send(http.format { path = "/two" })
      local received = server:request()
      received:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
      local stream = client:response()
      assert.equal(200, stream.status)
      received:reply "data: x\n\n"
      assert.equal("x", stream:event().data)
    end)

    it("a backend that waits for the rest of a request is not late", function()
      local gw = start(nil, { backend = { http = { responseHeaderTimeout = 0.3 } } })
      local client = http.connect(gw.port)
      client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc"
      local received = server:request()
      assert.same({ nil, "timeout" }, { client:read_some(0.6) })
      client:send "def"
      assert.equal("abcdef", received:body())
      received:ok "thanks"
      assert.equal("thanks", (client:response():body()))
    end)

    it("a backend that has the whole request and says nothing is late", function()
      local gw = start(nil, { backend = { http = { responseHeaderTimeout = 0.1 } } })
      local client = http.connect(gw.port)
      client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc"
      local received = server:request()
      client:send "def"
      assert.equal(504, client:response().status)
      assert.not_equal("timeout", received.conn:wait_end())
    end)

    it("a backend that takes no more of a request is late", function()
      local gw = start(nil, { backend = { http = { writeTimeout = 0.2 } } })
      local client = http.connect(gw.port)
      client:send "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      local received = server:request()
      local chunk = ("8000\r\n%s\r\n"):format(("x"):rep(0x8000))
      repeat until not client:send(chunk, 0.05)
      assert.equal(504, client:response().status)
      assert.not_equal("timeout", received.conn:wait_end())
    end)
  end)

  describe("in each step:", function()
    local DAWDLER = [[
      local function dawdle(hook)
        return function(ctx)
          if ctx.req.path:match "[^/]+$" ~= hook then return end
          gateway.log.info("waits in " .. hook)
          gateway.sleep(30)
        end
      end
      for _, hook in ipairs { "access", "balance", "on_response", "on_event" } do
        plugin[hook] = dawdle(hook)
      end
      function plugin.on_close(ctx, _, reason)
        gateway.log.info(("over: %s %s"):format(ctx.req.path, reason))
      end
    ]]
    local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    local mark -- in the log, before the last exchange

    -- Brings an exchange to where its name says.
    local function bring(gw, where, prefix)
      mark = gw:mark()
      local client, received = send(gw, { path = (prefix or "/") .. where }), nil
      if where ~= "access" and where ~= "balance" then received = server:request() end
      if where == "on_response" or where == "on_event" then received:reply(HEAD .. "9\r\ndata: x\n\n\r\n") end
      if where ~= "sent" then gw:wait_log("waits in " .. where, nil, mark) end
      return client, received
    end

    local function over(gw, where, reason)
      gw:wait_log(("over: /%s %s"):format(where, reason), nil, mark)
      sys.wait_until(function()
        return http.fetch(gw.admin_port, "/metrics").text:find "\ngatewayd_exchanges 0\n"
      end)
    end

    local function settings(more)
      more.management = { enabled = true, host = "127.0.0.1", port = 0 }
      return more
    end

    for _, where in ipairs { "access", "balance", "sent", "on_response", "on_event" } do
      it("a client that leaves takes its backend along: " .. where, function()
        local gw = start(DAWDLER, settings {})
        for _, leave in ipairs { "close", "reset", "shutdown" } do
          local client, received = bring(gw, where)
          client[leave](client)
          over(gw, where, "client_gone")
          if received then assert.not_equal("timeout", received.conn:wait_end()) end
        end
      end)

      it("a gateway that stops ends it: " .. where, function()
        local gw = start(DAWDLER, settings { drainTimeout = 0.1 })
        local client, received = bring(gw, where)
        gw.process:signal "TERM"
        gw:wait_log(("over: /%s shutdown"):format(where), nil, mark)
        if where ~= "on_event" then assert.equal(503, client:response().status) end
        assert.not_equal("timeout", client:wait_end())
        if received then assert.not_equal("timeout", received.conn:wait_end()) end
      end)

      it("the timeout of its route ends it: " .. where, function()
        local gw = start(DAWDLER, settings {})
        local client, received = bring(gw, where, "/timed/")
        local response = client:response()
        assert.equal(where == "on_event" and 200 or 504, response.status)
        assert.equal(where == "on_event" and "broken" or "clean", select(2, response:body()))
        over(gw, "timed/" .. where, "upstream_timeout")
        if received then assert.not_equal("timeout", received.conn:wait_end()) end
      end)
    end

    for _, where in ipairs { "sent", "on_response", "on_event" } do
      it("a backend that dies is noticed: " .. where, function()
        local gw = start(DAWDLER:gsub("sleep%(30%)", "sleep(0.1)"), settings {})
        local client, received = bring(gw, where)
        received.conn:reset()
        local response = client:response()
        assert.equal(where == "sent" and 502 or 200, response.status)
        assert.equal(where == "sent" and "clean" or "broken", select(2, response:body()))
        over(gw, where, "upstream_%l+")
      end)
    end
  end)

  -- Processor time of all processes of a gateway so far, in seconds (proc(5): fields 14 and 15 of stat).
  local function cpu_of(gw)
    local total, pids = 0, { gw.process.pid }
    local children = io.open(("/proc/%d/task/%d/children"):format(pids[1], pids[1]))
    for pid in children:read("*a"):gmatch "%d+" do pids[#pids + 1] = tonumber(pid) end
    children:close()
    for _, pid in ipairs(pids) do
      local stat = io.open(("/proc/%d/stat"):format(pid))
      local user, system = stat:read("*a"):match "^.*%) %S+%s(.*)$":match(("%S+ "):rep(10) .. "(%d+) (%d+)")
      stat:close()
      total = total + (user + system) / 100
    end
    return total
  end

  it("that makes everybody wait costs no processor time", function()
    local gw = start([[
      function plugin.on_event(ctx) if ctx.req.path == "/busy" then gateway.sleep(30) end end
      function plugin.on_response(ctx) if ctx.req.path == "/head" then gateway.sleep(30) end end
    ]], { frontend = { sse = { keepaliveTimeout = 0.05 } }, drainTimeout = 0.1 })
    local held = {}
    local function open(request, answer)
      local client = http.connect(gw.port, { rcvbuf = 4096 })
      client:send(http.format(request))
      local received = server:request()
      if answer then received.conn:send(answer, 0.1) end
      held[#held + 1], held[#held + 2] = client, received.conn
    end
    local stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    for _ = 1, 2 do
      open({ path = "/busy" }, stream .. "data: x\n\ndata: y\n\nda")
      open({ path = "/stuck" }, stream .. ("data: %s\n\n"):format(("x"):rep(1000)):rep(8000))
      open({ path = "/part" }, stream .. "data: x\n\ndata: y")
      open({ path = "/head" }, stream .. "data: x\n\n")
      open({ path = "/gone" }, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" .. ("x"):rep(8000000))
      open({ path = "/upload", headers = { ["Content-Length"] = "10" }, method = "POST" })
    end
    local before = cpu_of(gw)
    held[1]:wait_end(1) -- reads nothing but keepalives
    local used = cpu_of(gw) - before
    assert.message(("%.2f s of processor time in a second"):format(used)).is_true(used < 0.3)
  end)
end)
