--- Work beside hooks in the real binary: tasks of a version and of an exchange, events that they send, and
-- callers that wait for each other.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

local server

local function plugin(name, text)
  return ("local plugin = { name = %q }\n%s\nreturn plugin\n"):format(name, text)
end

-- A gateway with one worker and the plugin `p` on every route but /bytes/, which has `q`, if there is one.
local function start(text, more)
  more = more or {}
  local rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "p" } } }
  if more.q then rules[2] = { id = "q", path = "/bytes/*", serviceName = "api", plugins = { "q" } } end
  local files = { ["plugins/p.lua"] = plugin("p", text) }
  if more.q then files["plugins/q.lua"] = plugin("q", more.q) end
  return site.start { services = { api = server.port }, rules = rules, files = files, config = more.config }
end

local function open(gw, path, more)
  local options = { path = path or "/events" }
  for key, value in pairs(more or {}) do options[key] = value end
  return streams.open(gw, server, options)
end

local function fetch(gw, path)
  return http.fetch(gw.port, path).text
end

describe("a task", function()
  before_each(function() server = backend.listen() end)

  after_each(function()
    streams.close_all()
    gateway.stop_all()
    server:close()
  end)

  describe("beside any exchange", function()
    it("begins when its hook waits or is done, gets its arguments, and may wait and start others", function()
      local gw = start [[
        function plugin.access(ctx)
          if ctx.req.path == "/seen" then return ctx:reply(200, table.concat(plugin.seen, " ")) end
          local seen = {}
          plugin.seen = seen
          gateway.spawn(function(a, b, none, c)
            seen[#seen + 1] = table.concat({ a, b, tostring(none), c }, "-")
            gateway.sleep(0.02)
            gateway.spawn(function() seen[#seen + 1] = "inner" end)
            coroutine.yield()
            seen[#seen + 1] = "after"
          end, 1, "two", nil, 4)
          seen[#seen + 1] = "hook"
          return ctx:reply(204)
        end
      ]]
      http.fetch(gw.port, "/")
      sys.wait_until(function() return fetch(gw, "/seen") == "hook 1-two-nil-4 inner after" end)
    end)

    it("of a timer waits that long, and not when it is cancelled", function()
      local gw = start [[
        local fired = {}
        function plugin.access(ctx)
          if ctx.req.path == "/fired" then return ctx:reply(200, table.concat(fired, " ")) end
          local begin = gateway.now()
          local function fire(name) fired[#fired + 1] = name end
          local own
          local never = gateway.timer(0.02, fire, "never")
          gateway.timer(0.1, function() if gateway.now() - begin > 0.0999 then fire "late" end end)
          gateway.timer(0.05, fire, "soon")
          own = gateway.timer(0.01, function() own:cancel() fire "own" end)
          gateway.timer(0.01, function() never:cancel() never:cancel() end)
          return ctx:reply(204)
        end
      ]]
      http.fetch(gw.port, "/")
      sys.wait_until(function() return fetch(gw, "/fired") == "own soon late" end)
    end)

    it("started while the file is loaded begins when the version serves, in the worker only", function()
      local gw = start [[
        gateway.spawn(function() gateway.log.info("spawned in " .. gateway.worker()) end)
        gateway.timer(0.01, function()
          gateway.sleep(0.01)
          gateway.log.info("timed in " .. gateway.worker())
        end)
      ]]
      gw:wait_log "spawned in 1"
      gw:wait_log "timed in 1"
      assert.same({}, gw:find_log " in 0")
      assert.equal(1, #gw:find_log "spawned in")
    end)

    it("ends with its version, which it does not keep alive", function()
      local function text(version)
        return ([[
          local function tick()
            gateway.log.info("tick of %d")
            gateway.timer(0.01, tick)
          end
          gateway.timer(0, tick)
          gateway.spawn(function() gateway.sleep(1e6) end)
          gateway.spawn(function() gateway.lock("key", gateway.sleep, 1e6) end)
          gateway.spawn(function() gateway.lock("key", gateway.sleep, 1e6) end)
        ]]):format(version)
      end
      local gw = start(text(1))
      gw:wait_log "tick of 1"
      for version = 2, 4 do
        gw:write("plugins/p.lua", plugin("p", text(version)))
        gw:renew()
        gw:wait_log("tick of " .. version)
      end
      gw:wait_metric("generations", 1)
      local mark = gw:mark()
      gw:wait_log("tick of 4", nil, mark)
      assert.same({}, gw:find_log("tick of [123]", mark))
    end)

    it("that raises is logged with plugin, line and traceback, counted, and alone", function()
      local gw = start [[
        local function deep() error("broken task") end
        gateway.timer(0.01, function()
          deep()
        end)
        gateway.spawn(function() error({ message = "a table" }) end)
        gateway.spawn(function() local function loop() return 1 + loop() end loop() end)
      ]]
      local line = gw:wait_log "broken task"
      assert.matches('msg="task failed" plugin=p hook=gateway.timer', line)
      assert.matches('plugins/p.lua:2: broken task', line)
      assert.matches('traceback="stack traceback:.*p.lua:2: in function .deep.*p.lua:4: in function', line)
      gw:wait_log "hook=gateway.spawn message=\"a table\""
      gw:wait_log "stack overflow"
      gw:wait_metric("hook_errors_total", 3)
    end)
  end)

  it("with more arguments than fit is an error where it is started", function()
    local gw = start [[
      function plugin.on_event(ctx, _, event)
        local many = {}
        for i = 1, 7990 do many[i] = i end
        local kind = event.data == "ctx" and ctx.spawn or gateway.spawn
        local function count(...)
          local first = event.data == "ctx" and ctx or print
          local ok, err = pcall(kind, first, print, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ...)
          event.data = tostring(ok) .. " " .. tostring(err):match("[^:]*$")
        end
        count(unpack(many))
      end
    ]]
    local worker = gw:workers()[1]
    local stream = open(gw)
    for _, kind in ipairs { "ctx", "gateway" } do
      stream:send("data: " .. kind .. "\n\n")
      stream:expect("data: false  too many arguments\n\n")
    end
    assert.equal(worker, gw:workers()[1])
  end)

  describe("of an exchange", function()
    it("runs beside its hooks, with its plugin's state, and ends with it at once", function()
      local gw = start [[
        function plugin.on_event(ctx, _, event)
          if event.data ~= "go" then event.data = event.data .. ctx.state.n return end
          ctx.state.n = 0
          local function tick()
            ctx.state.n = ctx.state.n + 1
            if ctx.state.n == 3 then gateway.log.info "three" end
            ctx:timer(0.01, tick)
          end
          ctx:spawn(tick)
          ctx:spawn(function() gateway.sleep(0.1) gateway.log.info("survived") end)
          local ok, why = pcall(coroutine.wrap(function() gateway.sleep(0) end))
          gateway.log.info("wrapped: " .. tostring(why))
        end
        function plugin.on_close(ctx)
          gateway.log.info("closed " .. tostring(ctx.state.n > 2))
          gateway.timer(0.2, gateway.log.info, "later")
          local _, why = pcall(ctx.spawn, ctx, function() end)
          gateway.log.info("too late: " .. why)
        end
      ]]
      local stream = open(gw)
      stream:send "data: go\n\n"
      gw:wait_log "three"
      gw:wait_log "wrapped: .*a coroutine of the plugin's own can't wait"
      stream.conn:close()
      gw:wait_log "closed true"
      gw:wait_log "too late: .*the exchange is over"
      gw:wait_metric("exchanges", 0)
      gw:wait_log "later"
      assert.same({}, gw:find_log "survived")
      assert.equal(1, #gw:find_log "text=\"closed")
    end)

    it("leaves the state of other plugins alone, also while a hook waits", function()
      local gw = site.start {
        services = { api = server.port },
        rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "outer", "inner" } } },
        files = {
          ["plugins/outer.lua"] = plugin("outer", [[
            function plugin.access(ctx)
              ctx.state.who = "outer"
              local function tick() ctx.state.ticks = (ctx.state.ticks or 0) + 1 ctx:timer(0.01, tick) end
              ctx:spawn(tick)
            end
          ]]),
          ["plugins/inner.lua"] = plugin("inner", [[
            function plugin.access(ctx) ctx.state.who = "inner" end
            function plugin.on_event(ctx, _, event)
              local before = ctx.state.who
              if event.type == "slow" then gateway.sleep(0.05) end
              event.data = before .. " " .. ctx.state.who .. " " .. tostring(ctx.state.ticks)
            end
          ]]),
        },
      }
      local stream = open(gw)
      for _, kind in ipairs { "now", "slow", "now", "slow" } do
        stream:send(("event: %s\ndata: x\n\n"):format(kind))
        stream:expect(("event: %s\ndata: inner inner nil\n\n"):format(kind))
      end
    end)

    it("that raises is logged with the exchange and its route, and the stream goes on", function()
      local gw = start [[
        function plugin.on_event(ctx) ctx:spawn(function() error("beside") end) end
      ]]
      local stream = open(gw, nil, { headers = { ["X-Request-Id"] = "beside_1" } })
      stream:send "data: a\n\n"
      local line = gw:wait_log "beside\" traceback"
      assert.matches("x=beside_1 step=relay rule=api plugin=p hook=ctx:spawn", line)
      stream:send "data: b\n\n"
      stream:expect "data: a\n\ndata: b\n\n"
    end)

    it("keeps a stream under its version until it is done", function()
      local function text(version)
        return ([[
          local said = gateway.shared "said"
          local function wait() repeat gateway.sleep(0.01) until said:get "done" end
          function plugin.access(ctx)
            if ctx.req.path == "/done" then
              said:set("done", true)
              return ctx:reply(204)
            end
          end
          function plugin.on_event(ctx, _, event)
            if event.data == "go" then ctx:spawn(gateway.lock, "key", wait) end
            event.data = event.data .. "/v%d"
          end
        ]]):format(version)
      end
      local gw = start(text(1))
      local tied, free = open(gw), open(gw)
      tied:send "data: go\n\n"
      tied:expect "data: go/v1\n\n"
      gw:write("plugins/p.lua", plugin("p", text(2)))
      gw:renew()
      for i = 1, 3 do
        tied:send(("data: %d\n\n"):format(i))
        tied:expect(("data: %d/v1\n\n"):format(i))
      end
      free:send "data: 1\n\n"
      free:expect "data: 1/v2\n\n"
      fetch(gw, "/done")
      gw:wait_metric("generations", 1) -- without any news on the stream
      tied:send "data: x\n\n"
      tied:expect "data: x/v2\n\n"
    end)

    it("that an upgrade starts is none when that fails, and those of the old version go on", function()
      local function text(version, fail)
        return ([[
          local function begin(ctx)
            local function tick() ctx:send { data = "tick of %d" } ctx:timer(0.02, tick) end
            ctx:timer(0, tick)
          end
          function plugin.on_response(ctx) begin(ctx) end
          function plugin.upgrade(state, _, ctx) begin(ctx) %s end
        ]]):format(version, fail or "")
      end
      local gw = start(text(1))
      local stream = open(gw)
      stream:expect "data: tick of 1\n\n"
      gw:write("plugins/p.lua", plugin("p", text(2, "error('no')")))
      gw:renew()
      gw:wait_log "stream stays under its old version"
      stream:available()
      stream:expect(("data: tick of 1\n\n"):rep(3))
      gw:write("plugins/p.lua", plugin("p", text(3)))
      gw:renew()
      gw:wait_metric("generations", 1)
      stream:available()
      stream:expect(("data: tick of 3\n\n"):rep(3))
    end)

    it("may answer in the backend's place, while nobody else has", function()
      local gw = start [[
        function plugin.access(ctx)
          ctx:timer(0.05, function()
            local ok, why = pcall(ctx.reply, ctx, 503, "too slow")
            gateway.log.info(ok and "replied" or why)
          end)
        end
        function plugin.on_response(ctx) ctx.res.headers["X-Seen"] = tostring(ctx.res.status) end
      ]]
      local client = http.connect(gw.port)
      client:send(http.format { path = "/" })
      local received = server:request()
      local got = client:response()
      assert.same({ 503, "503", "too slow" }, { got.status, got:get "X-Seen", (got:body()) })
      assert.not_equal("timeout", received.conn:wait_end())
      local stream = open(gw)
      gw:wait_log "the response has begun already"
      stream:send "data: x\n\n"
      stream:expect "data: x\n\n"
    end)

    it("moves with its stream where its plugin can start it anew", function()
      local function text(version)
        return ([[
          local function begin(ctx)
            local function tick() ctx:send { data = "tick of %d" } ctx:timer(0.02, tick) end
            ctx:timer(0.02, tick)
          end
          function plugin.on_response(ctx) begin(ctx) end
          function plugin.on_close() end
          function plugin.upgrade(state, _, ctx) begin(ctx) return state end
        ]]):format(version)
      end
      local gw = start(text(1))
      local stream = open(gw)
      stream:expect "data: tick of 1\n\n"
      gw:write("plugins/p.lua", plugin("p", text(2)))
      gw:renew()
      gw:wait_metric("generations", 1)
      local seen = stream:available()
      stream:expect(("data: tick of 2\n\n"):rep(3))
      assert.matches("^[^2]*[^1]*$", seen)
    end)
  end)

  describe("sends an event", function()
    local SENDER = [[
      local sends = {
        table = { type = "note", id = "7", data = "a\nb" },
        object = gateway.event.new { data = "made" },
        comment = { comment = "only" },
        json = { json = { a = 1 } },
      }
      function plugin.access(ctx)
        if ctx.req.query.cmd then
          local to = plugin.to
          local ok, why = pcall(to.send, to, sends[ctx.req.query.cmd] or { data = ctx.req.query.cmd })
          return ctx:reply(200, tostring(why))
        end
        plugin.to = ctx
      end
      function plugin.on_close() end
    ]]

    it("of any kind, in byte mode and in event mode", function()
      for _, more in ipairs { "", "function plugin.on_event() end" } do
        local gw = start(SENDER .. more)
        local stream = open(gw)
        for cmd, text in pairs {
          table = "event: note\nid: 7\ndata: a\ndata: b\n\n", object = "data: made\n\n",
          comment = ": only\n\n", json = 'data: {"a":1}\n\n', text = "data: text\n\n",
        } do
          assert.equal("nil", fetch(gw, "/x?cmd=" .. cmd))
          stream:expect(text)
        end
        streams.close_all()
        gw:stop()
      end
    end)

    it("never into one that is on its way", function()
      for _, more in ipairs { "", "function plugin.on_event() end" } do
        local gw = start(SENDER .. more)
        local stream = open(gw)
        stream:send "data: one\n\ndata: tw"
        stream:expect "data: one\n\n"
        if more == "" then stream:expect "data: tw" end
        fetch(gw, "/x?cmd=between")
        if more ~= "" then stream:expect "data: between\n\n" end
        stream:send "o\n\nid: 3\ndata: three\n\nda"
        if more == "" then
          stream:expect "o\n\nid: 3\ndata: three\n\ndata: between\n\n"
        else
          stream:expect "data: two\n\nid: 3\ndata: three\n\n"
        end
        stream:send "ta: x\n\n"
        stream:expect "data: x\n\n"
        streams.close_all()
        gw:stop()
      end
    end)

    it("before the first of the backend's, whose BOM is then none", function()
      local gw = start(SENDER)
      local stream = open(gw)
      fetch(gw, "/x?cmd=first")
      stream:expect "data: first\n\n"
      stream:send "\239\187\191data: one\n\n"
      stream:expect "data: one\n\n"
    end)

    it("ahead of the event whose hook sends it, whatever that does to its own", function()
      local gw = start [[
        function plugin.on_event(ctx, _, event)
          ctx:send { type = "ahead", data = event.data }
          if event.data == "drop" then return false end
          if event.data == "change" then event.data = "changed" end
          if event.data == "list" then return { { data = 1 }, event, { data = 2 } } end
          if event.data == "slow" then
            gateway.sleep(0.02)
            ctx:send { data = "progress" }
            gateway.sleep(0.02)
          end
          if event.data == "end" then return ctx:close { data = "bye" } end
        end
      ]]
      local stream = open(gw)
      for word in ("pass drop change list slow next end"):gmatch "%a+" do
        stream:send(("data: %s\n\n"):format(word))
      end
      local want = {}
      local function ahead(data, own) want[#want + 1] = ("event: ahead\ndata: %s\n\n%s"):format(data, own) end
      ahead("pass", "data: pass\n\n")
      ahead("drop", "")
      ahead("change", "data: changed\n\n")
      ahead("list", "data: 1\n\ndata: list\n\ndata: 2\n\n")
      ahead("slow", "data: progress\n\ndata: slow\n\n")
      ahead("next", "data: next\n\n")
      ahead("end", "data: bye\n\n")
      assert.same({ table.concat(want), "clean" }, { stream:rest() })
    end)

    it("past other plugins' hooks", function()
      local gw = site.start {
        services = { api = server.port },
        rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "shout", "p" } } },
        files = {
          ["plugins/shout.lua"] = plugin("shout",
            "function plugin.on_event(_, _, event) event.data = event.data:upper() end"),
          ["plugins/p.lua"] = plugin("p", 'function plugin.on_event(ctx) ctx:send { data = "quiet" } end'),
        },
      }
      local stream = open(gw)
      stream:send "data: loud\n\n"
      stream:expect "data: quiet\n\ndata: LOUD\n\n"
    end)

    it("only where one can go: else an error says why", function()
      local gw = start [[
        local function try(ctx) return (select(2, pcall(ctx.send, ctx, { data = "x" }))) end
        function plugin.access(ctx)
          if ctx.req.path == "/why" then return ctx:reply(200, tostring(plugin.why)) end
          plugin.why = try(ctx)
        end
        function plugin.on_response(ctx)
          plugin.why = plugin.why .. "; " .. try(ctx)
          ctx:spawn(function() plugin.why = plugin.why .. "; " .. tostring(try(ctx)) end)
          local _, bad = pcall(ctx.send, ctx, { data = "x", nonsense = 1 })
          local _, worse = pcall(ctx.send, ctx, "text")
          plugin.why = plugin.why .. "; " .. bad .. "; " .. worse
        end
        function plugin.on_close(ctx) gateway.log.info("at the end: " .. try(ctx)) end
      ]]
      local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n"
      local function why(media_type)
        local client = http.connect(gw.port)
        client:send(http.format { path = "/" })
        server:request():reply(HEAD:format(media_type))
        client:response()
        local text
        sys.wait_until(function()
          text = fetch(gw, "/why")
          return text:find "expected an event, got string; "
        end)
        client:close()
        gw:wait_log "at the end: .*the stream has ended"
        return text
      end
      local begun = "ctx:send: the response has not begun"
      local before = begun .. "; .*" .. begun
        .. '; .*an event has no field "nonsense".*expected an event, got string; '
      assert.matches(before .. ".*ctx:send: the response is no event stream", why "text/plain")
      assert.matches(before .. ".*Content%-Encoding", why "text/event-stream\r\nContent-Encoding: gzip")
      assert.matches(before .. "nil$", why "text/event-stream")
    end)

    it("when there is room: else the call waits for it, and for nothing when the client leaves", function()
      local gw = start [[
        local text = ("x"):rep(10000)
        function plugin.on_response(ctx)
          ctx:spawn(function()
            for i = 1, 3000 do
              ctx:send { id = tostring(i), data = text }
              plugin.sent = i
            end
            gateway.log.info "all sent"
          end)
        end
        function plugin.access(ctx)
          if ctx.req.path == "/sent" then return ctx:reply(200, tostring(plugin.sent)) end
        end
        function plugin.on_close(_, _, reason) gateway.log.info("closed " .. reason) end
      ]]
      local function stuck()
        local before, same
        sys.wait_until(function()
          local now = tonumber(fetch(gw, "/sent"))
          same = now == before and same + 1 or 0
          before = now
          return same == 10
        end)
        assert.is_true(before < 3000)
      end
      local stream = open(gw, nil, { rcvbuf = 4096 })
      stuck()
      for i = 1, 3000 do stream:expect(("id: %d\ndata: %s\n\n"):format(i, ("x"):rep(10000))) end
      gw:wait_log "all sent"
      stream.conn:close()
      gw:wait_log "closed client_gone"
      local mark = gw:mark()
      local other = open(gw, nil, { rcvbuf = 4096 })
      stuck()
      other.conn:close()
      gw:wait_log("closed client_gone", nil, mark)
      gw:wait_metric("exchanges", 0)
      assert.equal(1, #gw:find_log "all sent")
    end)

    it("which is traffic where keepalives wait for silence", function()
      local gw = start([[
        function plugin.on_response(ctx)
          local function beat() ctx:send { type = "beat" , data = "" } ctx:timer(0.1, beat) end
          ctx:spawn(beat)
        end
      ]], { config = { frontend = { sse = { keepaliveTimeout = 0.4, keepaliveMode = "idle" } } } })
      local stream = open(gw)
      stream:expect(("event: beat\ndata: \n\n"):rep(10))
    end)
  end)

  it("of any kind ends with clients that leave at any moment, while versions change", function()
    local text = [=[
      local ways = {}
      function ways.sleep(ctx) gateway.sleep(math.random() / 50) ctx.state.n = 1 end
      function ways.once(ctx) gateway.once(math.random(3), ways.sleep, ctx) end
      function ways.lock(ctx) gateway.lock(math.random(3), ways.sleep, ctx) end
      function ways.nested(ctx) gateway.lock("a", gateway.once, "b", ways.sleep, ctx) end
      function ways.send(ctx) for i = 1, 3 do ctx:send { data = ("x"):rep(30000) } gateway.sleep(0) end end
      function ways.timer(ctx) ctx:timer(math.random() / 50, ways.send, ctx) end
      function ways.fails() gateway.sleep(0.001) error("fails") end
      function ways.beside(ctx)
        local task = ctx:spawn(ways.lock, ctx)
        gateway.timer(math.random() / 50, task.cancel, task)
      end
      local names = { "sleep", "once", "lock", "nested", "send", "timer", "fails", "beside" }
      local function any(ctx)
        for _ = 1, 3 do
          local way = ways[names[math.random(#names)]]
          if math.random(2) == 1 then ctx:spawn(way, ctx) else gateway.spawn(pcall, way, ctx) end
        end
      end
      function plugin.access(ctx) any(ctx) gateway.sleep(math.random() / 50) end
      function plugin.on_response(ctx) any(ctx) ways[names[math.random(4)]](ctx) end
      function plugin.on_event(ctx) any(ctx) ways[names[math.random(5)]](ctx) end
      function plugin.on_close(ctx) if math.random(5) == 1 then gateway.once(1, gateway.sleep, 1) end end
    ]=]
    local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    local gw = start(text)
    math.randomseed(4)
    for round = 1, 6 do
      local clients = {}
      for i = 1, 30 do
        clients[i] = http.connect(gw.port)
        clients[i]:send(http.format { path = "/events" })
      end
      for i = 1, 30 do
        if math.random(3) == 1 then clients[i]:close() end
        local conn = server:try_accept(0.05)
        if conn then
          pcall(conn.send, conn, HEAD .. "data: a\n\ndata: b\n\n")
          if math.random(3) == 1 then conn:close() end
        end
      end
      gw:write("plugins/p.lua", plugin("p", text .. "-- " .. round))
      gw:renew()
      for i = 1, 30 do clients[i]:close() end
    end
    gw:wait_metric("exchanges", 0)
    gw:wait_metric("generations", 1)
    assert.is_true(#gw:find_log "fails" > 0)
    gw:stop()
  end)

  describe("that many want once:", function()
    -- With `?of=N` it is not done before so many have asked.
    local ONCE = [[
      local runs, asked = 0, 0
      function plugin.access(ctx)
        local kind = ctx.req.path:match "[^/]+$"
        if kind == "runs" then return ctx:reply(200, tostring(runs)) end
        asked = asked + 1
        local ok, a, b = pcall(gateway.once, kind, function()
          runs = runs + 1
          gateway.log.info("runs for " .. ctx.id)
          if kind == "held" and runs == 1 then gateway.sleep(1e6) end
          repeat gateway.sleep(0.01) until asked >= tonumber(ctx.req.query.of or 1)
          if kind == "raises" then error("no luck") end
          return ctx.id, { n = runs }
        end)
        return ctx:reply(200, ok and a .. " " .. b.n or tostring(a))
      end
    ]]

    local function ask(gw, path, count)
      local clients = {}
      path = path .. "?of=" .. count
      for i = 1, count do
        clients[i] = http.connect(gw.port)
        clients[i]:send(http.format { path = path, headers = { ["X-Request-Id"] = "once_" .. i } })
        if i == 1 then gw:wait_log "runs for once_1" end
      end
      return clients
    end

    local function answers(clients, first)
      local out = {}
      for i = first or 1, #clients do
        local text = clients[i]:response():body()
        out[text] = (out[text] or 0) + 1
      end
      return out
    end

    it("one runs, the others get what it returns", function()
      local gw = start(ONCE)
      assert.same({ ["once_1 1"] = 50 }, answers(ask(gw, "/fine", 50)))
      assert.equal("1", fetch(gw, "/runs"))
      assert.matches(" 2$", fetch(gw, "/fine")) -- another time it is another run
    end)

    it("they get its error as well", function()
      local gw = start(ONCE)
      local got = answers(ask(gw, "/raises", 10))
      local text, count = next(got)
      assert.matches("p.lua:%d+: no luck", text)
      assert.equal(10, count)
    end)

    it("when the one that runs is gone the next takes over", function()
      local gw = start(ONCE)
      local clients = ask(gw, "/held", 10)
      clients[2]:close() -- one that waits
      fetch(gw, "/runs")
      local mark = gw:mark()
      clients[1]:close()
      local heir = gw:wait_log("runs for", nil, mark):match "once_%d+"
      assert.same({ [heir .. " 2"] = 8 }, answers(clients, 3))
      assert.equal("2", fetch(gw, "/runs"))
      gw:wait_metric("exchanges", 0)
    end)

    it("a lock is had by one after the other, however each ends", function()
      local gw = start [[
        local inside, most, order = 0, 0, {}
        function plugin.access(ctx)
          local kind = ctx.req.path:match "[^/]+$"
          if kind == "most" then return ctx:reply(200, most .. " " .. table.concat(order, ",")) end
          gateway.lock("door", function(name)
            inside = inside + 1
            most = math.max(most, inside)
            order[#order + 1] = name
            gateway.log.info("in: " .. name)
            if name == "leaves" then inside = 0 gateway.sleep(1e6) end
            gateway.sleep(0.01)
            inside = inside - 1
            if name == "raises" then error("inside") end
            local ok, why = pcall(gateway.lock, "door", print)
            if name == "again" then gateway.log.info(why) end
          end, kind)
          return ctx:reply(204)
        end
      ]]
      local clients = {}
      for i, kind in ipairs { "leaves", "raises", "again", "x", "y" } do
        clients[i] = http.connect(gw.port)
        clients[i]:send(http.format { path = "/" .. kind })
        if i == 1 then gw:wait_log "in: leaves" end
        fetch(gw, "/most")
      end
      clients[1]:close()
      local got = {}
      for i = 2, 5 do got[#got + 1] = clients[i]:response().status end
      assert.same({ 500, 204, 204, 204 }, got)
      assert.equal("1 leaves,raises,again,x,y", fetch(gw, "/most"))
      gw:wait_log "gateway.lock: called for a key inside of the call for that key"
    end)

    it("nothing waits where nothing can", function()
      local gw = start [[
        local _, load_why = pcall(gateway.once, "key", print)
        local function report(ctx)
          local _, sorted = pcall(table.sort, { 2, 1 }, function() gateway.lock("key", print) end)
          return ctx:reply(200, table.concat({ load_why, plugin.new_why, sorted }, "; "))
        end
        function plugin.new() plugin.new_why = select(2, pcall(gateway.sleep, 0)) end
        function plugin.access(ctx) return report(ctx) end
      ]]
      local why = fetch(gw, "/")
      assert.matches("plugins/p.lua:2: gateway.once: no hook runs here that could wait; ", why)
      assert.matches("; %S+plugins/p.lua:7: sleep: no hook runs here that could wait", why)
      assert.matches("; %S+plugins/p.lua:4: gateway.lock: a hook can't wait inside of a callback from C", why)
    end)
  end)
end)
