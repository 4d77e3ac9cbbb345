--- `firstEvent`: an event stream's head is held until its first event. What ends the hold, what the client
-- gets of it, and what becomes of backends that fail meanwhile.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-From: %s\r\n"
  .. "Transfer-Encoding: chunked\r\n\r\n"

-- Sees every event, counts its calls, and takes the first instance that there is.
local COUNT = [[
  local plugin = { name = "count" }
  function plugin.balance(_, _, instances) return instances[1] end
  function plugin.on_response(ctx)
    ctx.shared.response = (ctx.shared.response or 0) + 1
    ctx.res.headers["X-Hooks"] = ctx.shared.response
  end
  function plugin.on_event() end
  return plugin
]]

local FIRST = [[
  return { name = "first", balance = function(_, _, instances) return instances[1] end }
]]

local SLOW = [[
  return { name = "slow", on_response = function() for _ = 1, 3 do gateway.sleep(0.01) end end }
]]

for mode, plugin in pairs { bytes = "first", events = "count" } do
  describe("the first event of a stream in the mode of " .. mode, function()
    local one, two, gw

    before_each(function()
      one, two = backend.listen(), backend.listen()
    end)

    after_each(function()
      one:close()
      two:close()
      gateway.stop_all()
    end)

    local function start(first_event, retry, config, ...)
      gw = site.start {
        services = { api = { one.port, two.port } },
        rules = { { id = "api", path = "/*", serviceName = "api", plugins = { plugin, ... }, retry = retry,
          firstEvent = first_event } },
        files = { ["plugins/count.lua"] = COUNT, ["plugins/first.lua"] = FIRST, ["plugins/slow.lua"] = SLOW },
        config = config,
      }
    end

    local function send(request)
      request = request or {}
      request.headers = request.headers or { Accept = "text/event-stream" }
      local client = http.connect(gw.port)
      client:send(http.format(request))
      return client
    end

    -- The backend answers with a head and these bytes of its stream.
    local function begin(server, bytes)
      local received = server:request()
      received:reply(HEAD:format(server == one and "one" or "two"))
      if bytes then received:reply(streams.chunk(bytes)) end
      return received
    end

    local function finish(received, bytes)
      received:reply((bytes and streams.chunk(bytes) or "") .. "0\r\n\r\n")
    end

    local function nothing(client)
      assert.same({ nil, "timeout" }, { client:read_some(0) })
    end

    -- What the gateway was sent before has been seen when this returns.
    local function settle(received, bytes)
      local before = gw:metrics().upstream_bytes_total
      received:reply(streams.chunk(bytes))
      gw:wait_metric("upstream_bytes_total", before + #bytes)
    end

    it("lets the head go, and all bytes before it as they came", function()
      start { hold = "60s" }
      local client = send()
      local received = begin(one)
      settle(received, "\239\187\191: hello\r\n\r\n\r\n:\rretry: 7\r\r")
      nothing(client)
      settle(received, "id: 1\ndata: o")
      nothing(client)
      finish(received, "ne\n\ndata: two\n\n")
      local response = client:response()
      assert.equal("one", response:get "X-From")
      if mode == "events" then assert.equal("1", response:get "X-Hooks") end
      local before = "\239\187\191: hello\r\n\r\n\r\n:\rretry: 7\r\r"
      assert.same({ before .. "id: 1\ndata: one\n\ndata: two\n\n", "clean" }, { response:body() })
      gw:wait_log "msg=request .*status=200 .*end=ok"
      gw:wait_metric("held_total", 1)
    end)

    it("may come byte by byte, and be one that looks like a comment at first", function()
      start { hold = "60s" }
      for name, text in pairs(streams.TEXTS) do
        if text:find "data" then
          local client = send()
          local received = begin(one)
          for byte in text:gmatch "." do received:reply(streams.chunk(byte)) end
          finish(received)
          local bytes, how = client:response():body()
          assert.message(name).same({ text, "clean" }, { bytes, how })
        end
      end
    end)

    it("is waited for once, however long the hooks of the answer take", function()
      start({ hold = "60s" }, nil, nil, "slow")
      local client = send()
      local received = begin(one, "data: one\n\n")
      assert.equal("data: one\n\n", client:response():read())
      finish(received)
      assert.equal(1, gw:metrics().held_total)
    end)

    it("is waited for no longer than the hold; then keepalives begin", function()
      start({ hold = "200ms" }, nil, { frontend = { sse = { keepaliveTimeout = 0.1 } } })
      local client, begun = send(), sys.now()
      local received = begin(one, ": one moment\n\n")
      local response = client:response()
      assert.is_true(sys.now() - begun >= 0.19)
      local text = ""
      while not text:find ":keepalive" do text = text .. response:read() end
      assert.match("^: one moment\n\n:keepalive\n\n", text)
      finish(received, "data: late\n\n")
      assert.match("data: late\n\n$", (response:body()))
      assert.is_true(tonumber(gw:wait_log("msg=request "):match "held_ms=(%d+)") >= 200)
    end)

    it("is not waited for where it can't come: other types, other statuses, codings, HEAD", function()
      start { hold = "60s" }
      for _, head in ipairs { "200 OK\r\nContent-Type: application/json",
        "429 Slow\r\nContent-Type: text/event-stream",
        "200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip" } do
        local client = send()
        local received = one:request()
        received:reply("HTTP/1.1 " .. head .. "\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert.equal(tonumber(head:match "%d+"), client:response().status)
        finish(received)
      end
      local client = send { method = "HEAD" }
      one:request():reply(HEAD:format "one")
      assert.equal(200, client:response({ head = true }).status)
    end)

    it("is let go with what came when it grows beyond maxEventBytes", function()
      start({ hold = "60s" }, nil, { frontend = { sse = { maxEventBytes = 100000 } } })
      local client = send()
      local received = begin(one)
      local comment = ": " .. ("x"):rep(997) .. "\n"
      for _ = 1, 101 do received:reply(streams.chunk(comment)) end
      local response = client:response()
      assert.equal(200, response.status)
      received.conn:close()
      if mode == "bytes" then assert.equal(101 * 1000, #(response:body())) end
    end)

    it("is long, and not more than is let through at a time is missing", function()
      start { hold = "60s" }
      local client = send()
      local received = begin(one)
      local line = "data: " .. ("x"):rep(993) .. "\n"
      for _ = 1, 500 do received:reply(streams.chunk(line)) end
      finish(received, "\n")
      assert.equal(500 * 1000 + 1, #(client:response():body()))
    end)

    it("that never comes, for the stream ends, is a 502", function()
      start { hold = "60s" }
      local client = send()
      finish(begin(one, ": nothing to say\n\n"))
      local response = client:response()
      assert.equal(502, response.status)
      assert.match("the stream ended without an event", (response:body()))
      gw:wait_log "end=upstream_no_event"
      client:send(http.format { path = "/next" })
      one:request():ok "again"
      assert.equal("again", (client:response():body()))
    end)

    it("that never comes, for the backend breaks off, is a 502", function()
      start { hold = "60s" }
      local client = send()
      begin(one, "data: half").conn:close()
      assert.equal(502, client:response().status)
      gw:wait_log "end=upstream_truncated"
    end)

    it("that never comes, for the backend is silent for too long, is a 504", function()
      start({ hold = "60s" }, nil, { backend = { sse = { responseTimeout = 0.2 } } })
      local client = send()
      local _ = begin(one, ": hello\n\n")
      assert.equal(504, client:response().status)
      gw:wait_log "end=upstream_silence_timeout"
    end)

    it("that stands for an overload is a 503", function()
      start { hold = "60s", errors = { "overloaded", "error" } }
      local client = send()
      local received = begin(one, ": hello\n\nevent: error\ndata: {\"type\":\"overloaded_error\"}\n\n")
      local response = client:response()
      assert.equal(503, response.status)
      assert.matches("^%d%d?$", response:get "Retry-After")
      assert.not_equal("timeout", received.conn:wait_end())
      gw:wait_log "end=upstream_error_event"
      client = send()
      finish(begin(one, "event: errors\ndata: 1\n\n"))
      assert.equal(200, client:response().status)
    end)

    it("comes from another instance where retry allows it", function()
      local faults = {
        function(received) received.conn:close() end,
        function(received) finish(received, ": bye\n\n") end,
        function(received) received:reply(streams.chunk "event: overloaded\n\n") end,
        function() end, -- silent
      }
      start({ hold = "60s", errors = { "overloaded" } }, { on = { "reset", "timeout" } },
        { backend = { sse = { responseTimeout = 0.3 } } })
      for i, fault in ipairs(faults) do
        local client = send { headers = { Accept = "text/event-stream", ["Last-Event-ID"] = "7" } }
        local first = begin(one, ": hello\n\n")
        fault(first)
        local second = two:request()
        assert.equal("7", second:get "Last-Event-ID")
        second:reply(HEAD:format "two" .. streams.chunk "data: here\n\n")
        finish(second)
        local response = client:response()
        assert.message(i).same({ "two", "data: here\n\n" }, { response:get "X-From", (response:body()) })
        if mode == "events" then assert.equal("1", response:get "X-Hooks") end
      end
      sys.wait_until(function() return #gw:find_log "msg=request " == #faults end)
      for _, line in ipairs(gw:find_log "msg=request ") do
        assert.match("instance=api%-2 attempts=2 failed=api%-1 .*end=ok", line)
      end
    end)

    it("that does not come in the rule's time leaves the client the answer that another one gave", function()
      start { hold = "60s" }
      gw:renew { rules = { { id = "api", path = "/*", serviceName = "api", plugins = { plugin }, timeout = 1,
        retry = { statuses = { 503 }, backoff = { base = "1ms" } }, firstEvent = { hold = 60 } } } }
      local client = send()
      one:request():ok("busy", "503 Service Unavailable")
      local received = begin(two, ": hello\n\ndata: half")
      local response = client:response()
      assert.same({ 503, "busy", "clean" }, { response.status, response:body() })
      assert.not_equal("timeout", received.conn:wait_end())
      gw:wait_log "end=upstream_timeout"
    end)

    it("does not come from another instance for a POST, unless it is named", function()
      start({ hold = "60s" }, { attempts = 3 })
      local client = send { method = "POST", body = "prompt" }
      local received = begin(one)
      received:body()
      received.conn:close()
      assert.equal(502, client:response().status)
      assert.is_nil(two:try_accept(0))
      gw:renew { rules = { { id = "api", path = "/*", serviceName = "api", plugins = { plugin },
        retry = { methods = { "POST" } }, firstEvent = { hold = 60 } } } }
      client = send { method = "POST", body = "prompt" }
      received = begin(one)
      received:body()
      received.conn:close()
      received = begin(two, "data: answer\n\n")
      assert.equal("prompt", received:body())
      finish(received)
      assert.equal("data: answer\n\n", (client:response():body()))
    end)

    it("of a client of HTTP/1.0 is the same", function()
      start { hold = "60s" }
      local client = send { version = "1.0" }
      local received = begin(one, ": hello\n\n")
      settle(received, ": still\n\n")
      nothing(client)
      finish(received, "data: one\n\n")
      assert.same({ ": hello\n\n: still\n\ndata: one\n\n", "clean" }, { client:response():body() })
    end)

    it("is no matter any more when the client has left", function()
      start { hold = "60s" }
      local client = send()
      local received = begin(one, ": hello\n\n")
      gw:wait_metric("held_total", 1)
      client:close()
      assert.not_equal("timeout", received.conn:wait_end())
      gw:wait_log "msg=request .*end=client_gone"
      gw:wait_metric("exchanges", 0)
    end)

    it("is waited for through a reload, and the stream goes on under the new version", function()
      start { hold = "60s" }
      local client = send()
      local received = begin(one, ": hello\n\n")
      gw:wait_metric("held_total", 1)
      gw:renew { rules = { { id = "api", path = "/*", serviceName = "api", plugins = { plugin } } } }
      nothing(client)
      received:reply(streams.chunk "data: one\n\n")
      local response = client:response()
      assert.equal(": hello\n\ndata: one\n\n", response:read())
      gw:wait_metric("generations", 1)
      finish(received, "data: two\n\n")
      assert.same({ "data: two\n\n", "clean" }, { response:body() })
    end)

    it("may have been what a stream that is carried over is logged with", function()
      start({ hold = "60s" }, { attempts = 3 })
      local client = send()
      begin(one).conn:close()
      local received = begin(two, "data: one\n\n")
      local response = client:response()
      assert.equal("data: one\n\n", response:read())
      gw:renew()
      finish(received)
      response:body()
      assert.match("attempts=2 failed=api%-1 ", gw:wait_log "msg=request ")
    end)
  end)
end
