--- Event streams that do not end well: whoever is left can tell, gets what came before, and is let go at
-- once; and the log says why.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local streams = require "spec.support.streams"

local PATHS = { "/bytes/x", "/events/x" }

describe("a stream that breaks", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = streams.gateway(server, {
      rules = {
        { id = "cut", path = "/cut/*", serviceName = "api", timeout = "200ms" },
        {
          id = "cut-events", path = "/cut-events/*", serviceName = "api", timeout = 0.2, plugins = { "look" },
        },
      },
      config = {
        frontend = { sse = { keepaliveTimeout = 0, maxEventBytes = 1024 } },
        backend = { http = { keepAlive = false }, sse = { responseTimeout = 0 } },
      },
    })
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  local function open(options)
    return streams.open(gw, server, options)
  end

  -- The client can tell that more should have come. With HTTP/1.0 only a reset says that.
  local function assert_broken(expected, stream)
    local text, how = stream:rest()
    assert.equal(expected, text)
    local wanted = stream.options.version == "1.0" and { reset = true } or { broken = true, reset = true }
    assert.message("the end looks " .. how).is_true(wanted[how])
  end

  local function assert_logged(pattern, stream)
    assert.matches("^" .. pattern .. "$", stream:logged_end(gw))
  end

  describe("behind the gateway", function()
    local EVENT = "data: one\n\n"

    local deaths = {
      ["ends the connection between chunks"] = {
        framing = "chunked", last = "", by = "close", reason = "upstream_truncated",
      },
      ["ends the connection within a chunk"] = {
        framing = "chunked", last = "20\r\ndata: two\n", part = "data: two\n", by = "close",
        reason = "upstream_truncated",
      },
      ["ends the connection behind a chunk's size"] = {
        framing = "chunked", last = "20\r\n", by = "close", reason = "upstream_truncated",
      },
      ["ends the connection within a chunk's size"] = {
        framing = "chunked", last = "2", by = "close", reason = "upstream_truncated",
      },
      ["ends the connection within the last chunk"] = {
        framing = "chunked", last = "0\r\n", by = "close", reason = "upstream_truncated",
      },
      ["resets the connection between chunks"] = {
        framing = "chunked", last = "", by = "reset", reason = "upstream_%w+",
      },
      ["resets the connection within a chunk"] = {
        framing = "chunked", last = "20\r\ndata: two\n", part = "data: two\n", by = "reset",
        reason = "upstream_%w+",
      },
      ["sends a chunk that is none"] = {
        framing = "chunked", last = "no chunk\r\n", by = "nothing", reason = "upstream_bad_response",
      },
      ["sends less than its length"] = {
        framing = "length", last = "data: two\n", part = "data: two\n", by = "close",
        reason = "upstream_truncated",
      },
      ["resets the connection within its length"] = {
        framing = "length", last = "", by = "reset", reason = "upstream_%w+",
      },
      ["resets a stream that ends with the connection"] = {
        framing = "close", last = "", by = "reset", reason = "upstream_%w+",
      },
      ["resets a stream that ends with the connection, in an event"] = {
        framing = "close", last = "data: two\n", part = "data: two\n", by = "reset", reason = "upstream_%w+",
      },
    }

    for what, death in pairs(deaths) do
      for _, path in ipairs(PATHS) do
        for _, version in ipairs { "1.1", "1.0" } do
          it(("because the backend %s (%s, HTTP/%s)"):format(what, path, version), function()
            local stream = open { path = path, version = version, framing = death.framing, length = 100 }
            stream:send(EVENT)
            stream:expect(EVENT)
            stream.origin:reply(death.last)
            local part = death.part and path == "/bytes/x" and death.part or ""
            if death.by == "reset" then stream:expect(part) end
            if death.by ~= "nothing" then stream.origin.conn[death.by](stream.origin.conn) end
            assert_broken(death.by == "reset" and "" or part, stream)
            assert_logged(death.reason, stream)
          end)
        end
      end
    end

    it("has its client get all that came before", function()
      local events = {}
      for i = 1, 5000 do events[i] = ("id: %d\ndata: %s\n\n"):format(i, ("x"):rep(i % 100)) end
      local text = table.concat(events)
      for _, path in ipairs(PATHS) do
        for _, version in ipairs { "1.1", "1.0" } do
          local stream = open { path = path, version = version, rcvbuf = 16384 }
          stream:send(text)
          stream.origin.conn:close()
          assert_broken(text, stream)
        end
      end
    end)

    it("right behind the head", function()
      for _, path in ipairs(PATHS) do
        for _, version in ipairs { "1.1", "1.0" } do
          for _, by in ipairs { "close", "reset" } do
            local stream = open { path = path, version = version }
            stream.origin.conn[by](stream.origin.conn)
            assert_broken("", stream)
          end
        end
      end
    end)

    it("is told from one that ends well", function()
      for _, path in ipairs(PATHS) do
        for _, version in ipairs { "1.1", "1.0" } do
          for _, framing in ipairs { "chunked", "length", "close" } do
            local stream = open { path = path, version = version, framing = framing, length = #EVENT }
            stream:send(EVENT)
            stream:finish()
            assert.same({ EVENT, "clean" }, { stream:rest() })
            assert_logged("ok", stream)
          end
        end
      end
    end)

    it("does not disturb its neighbours", function()
      local neighbours, broken = {}, {}
      for i = 1, 10 do
        neighbours[i] = open { path = PATHS[i % 2 + 1] }
        broken[i] = open { path = PATHS[i % 2 + 1] }
      end
      for _, stream in ipairs(broken) do
        stream.origin.conn:reset()
        assert_broken("", stream)
      end
      for _, stream in ipairs(neighbours) do
        stream:send(EVENT)
        stream:expect(EVENT)
      end
    end)
  end)

  describe("before the gateway", function()
    local function backend_sees_the_end(stream)
      local how = stream.origin.conn:wait_end()
      assert.is_true(how == "eof" or how == "reset", how)
    end

    local leave = {
      closes = function(conn) conn:close() end,
      resets = function(conn) conn:reset() end,
      ["ends its sending"] = function(conn) conn:shutdown() end,
    }

    for how, go in pairs(leave) do
      for _, path in ipairs(PATHS) do
        it(("because the client %s takes its backend connection with it: %s"):format(how, path), function()
          local waiting = streams.request(gw, server, { path = path })
          go(waiting.conn)
          backend_sees_the_end(waiting)
          assert_logged("client_gone", waiting)

          local quiet = open { path = path }
          go(quiet.conn)
          backend_sees_the_end(quiet)
          assert_logged("client_gone", quiet)

          local busy = open { path = path }
          busy:send "data: one\n\ndata: two\nda"
          busy:expect "data: one\n\n"
          go(busy.conn)
          backend_sees_the_end(busy)
        end)
      end
    end

    it("is one of many", function()
      local sse = origin.sse()
      local many = gateway.start {
        services = { sse = sse.port }, rules = { { id = "sse", path = "/*", serviceName = "sse" } },
      }
      local clients = {}
      for i = 1, 50 do clients[i] = http.stream(many.port, "/events?rate=20") end
      for _, client in ipairs(clients) do assert.equal("connected", client:event().type) end
      assert.equal(50, sse:stats().open_streams)
      for i, client in ipairs(clients) do
        if i % 2 == 0 then client.conn:close() else client.conn:reset() end
      end
      local stats = sse:wait_stat("open_streams", 0)
      assert.equal(50, stats.aborted)
      sse:stop()
    end)
  end)

  describe("for an event that is too large", function()
    local function event_of(size)
      return "data: " .. ("x"):rep(size - #"data: \n\n") .. "\n\n"
    end

    it("in event mode, and not for one that just fits", function()
      local stream = open { path = "/events/x" }
      stream:send(event_of(1024))
      stream:expect(event_of(1024))
      stream:send(event_of(10) .. event_of(1025) .. event_of(10))
      assert_broken(event_of(10), stream)
      assert_logged("upstream_event_too_large", stream)
    end)

    it("without waiting for its end", function()
      for _, version in ipairs { "1.1", "1.0" } do
        local stream = open { path = "/events/x", version = version }
        stream:send "data: x\n\n"
        stream:expect "data: x\n\n"
        stream:send(("y"):rep(2000))
        assert_broken("", stream)
        local how = stream.origin.conn:wait_end()
        assert.is_true(how == "eof" or how == "reset", how)
      end
    end)

    it("and only that one", function()
      local other, stream = open { path = "/events/x" }, open { path = "/events/x" }
      stream:send(event_of(1025))
      assert_broken("", stream)
      other:send(event_of(100))
      other:expect(event_of(100))
    end)

    it("in event mode only", function()
      local stream = open()
      stream:send(event_of(100000))
      stream:finish()
      assert.same({ event_of(100000), "clean" }, { stream:rest() })
    end)
  end)

  describe("because its time is up", function()
    it("does so only where its rule says so", function()
      local endless = { open { path = "/bytes/x" }, open { path = "/events/x" } }
      for _, path in ipairs { "/cut/x", "/cut-events/x" } do
        for _, version in ipairs { "1.1", "1.0" } do
          local stream = open { path = path, version = version }
          stream:send "data: x\n\ndata: y"
          stream:expect "data: x\n\n"
          assert_broken(path == "/cut/x" and "data: y" or "", stream)
          assert_logged("upstream_timeout", stream)
        end
      end
      for _, stream in ipairs(endless) do
        stream:send "data: x\n\n"
        stream:expect "data: x\n\n"
      end
    end)

    it("does so however much is going on", function()
      local stream = open { path = "/cut/x" }
      local sent, why
      repeat sent, why = stream.origin.conn:send(streams.chunk "data: x\n\n") until not sent
      assert.not_equal("timeout", why)
      local text, how = stream:rest()
      local rest = text:gsub("data: x\n\n", "")
      assert.equal(("data: x\n\n"):sub(1, #rest), rest)
      assert.is_true(how == "broken" or how == "reset", how)
    end)

    it("is answered with 504 while there is no head", function()
      local stream = streams.request(gw, server, { path = "/cut/x" })
      local answer = stream.conn:response()
      assert.equal(504, answer.status)
      assert.equal("application/json", answer:get "Content-Type")
      assert.equal("clean", select(2, answer:body()))
      assert.equal("eof", (stream.origin.conn:wait_end()))
    end)

    it("is broken off when it is an ordinary answer", function()
      local stream = open { path = "/cut/x", type = "application/json" }
      stream:send "[1,"
      assert_broken("[1,", stream)
    end)

    it("does so after silence, where silence is limited", function()
      local impatient = streams.gateway(server, {
        config = { backend = { http = { keepAlive = false }, sse = { responseTimeout = "200ms" } } },
      })
      for _, path in ipairs(PATHS) do
        local silent = streams.open(impatient, server, { path = path })
        local lively = streams.open(impatient, server, { path = path })
        local plain = streams.open(impatient, server, { path = path, type = "text/plain" })
        repeat
          lively:send "data: x\n\n"
          lively:expect "data: x\n\n"
          local bytes, how = silent.client:read(0.02)
          assert.is_nil(bytes)
        until how ~= "timeout"
        assert_broken("", silent)
        assert.equal("upstream_silence_timeout", silent:logged_end(impatient))
        lively:send "data: y\n\n"
        lively:expect "data: y\n\n"
        plain:send "more"
        plain:expect "more"
      end
    end)
  end)
end)
