--- Event streams through the gateway that nobody changes: the same bytes, as soon as they come; and the
-- heads of requests and answers around them.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"

describe("an event stream", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = streams.gateway(server, {
      rules = {
        { id = "sse", path = "/sse/*", methods = { "GET", "SSE" }, serviceName = "api" },
        { id = "pooled", path = "/pooled/*", serviceName = "api" },
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

  -- The client gets all that the backend sends, and the end.
  local function passes(options, text)
    local stream = open(options)
    stream:send(text)
    stream:finish()
    assert.same({ text, "clean" }, { stream:rest() })
    return stream
  end

  for path, mode in pairs { ["/bytes/x"] = "in byte mode", ["/events/x"] = "in event mode" } do
    describe(mode .. " reaches the client as the same bytes", function()
      for what, text in pairs(streams.TEXTS) do
        it("when it " .. what, function()
          passes({ path = path }, text)
        end)

        it("when it " .. what .. ", byte by byte", function()
          local stream = open { path = path }
          stream:send_bytewise(text)
          stream:finish()
          assert.same({ text, "clean" }, { stream:rest() })
        end)

        -- All streams at once: when the second parts are sent, the gateway has read the first ones.
        it("when it " .. what .. ", split anywhere", function()
          local split = {}
          for i = 0, #text do
            split[i] = open { path = path, framing = i % 2 == 0 and "close" or "chunked" }
            split[i]:send(text:sub(1, i))
          end
          streams.settle(gw, server)
          for i = 0, #text do
            split[i]:send(text:sub(i + 1))
            split[i]:finish()
          end
          for i = 0, #text do
            assert.message("split at " .. i).same({ text, "clean" }, { split[i]:rest() })
          end
        end)
      end

      for _, framing in ipairs { "chunked", "length", "close" } do
        it("when the backend frames it as " .. framing, function()
          local text = "data: one\n\ndata: two\r\n\r\n"
          local stream = passes({ path = path, framing = framing, length = #text }, text)
          assert.equal("chunked", stream.client.framing)
          assert.is_nil(stream.client:get "Content-Length")
        end)
      end

      it("when nothing is in it", function()
        for _, framing in ipairs { "chunked", "length", "close" } do
          passes({ path = path, framing = framing, length = 0 }, "")
        end
      end)

      it("when lines and events are long", function()
        local long = ("abc\226\130\172"):rep(30000)
        passes({ path = path }, "data: " .. long .. "\n\n:" .. long .. "\r\n\r\ndata:x\n\n")
      end)

      it("when there are very many small events", function()
        local events = {}
        for i = 1, 5000 do events[i] = ("id: %d\ndata: %d\n\n"):format(i, i * i) end
        passes({ path = path }, table.concat(events))
      end)

      it("event by event, each as soon as it is there", function()
        local stream = open { path = path }
        for i = 1, 20 do
          local event = ("data: %d\r\n\r\n"):format(i)
          stream:send(event)
          stream:expect(event)
        end
        stream:finish()
        assert.same({ "", "clean" }, { stream:rest() })
      end)

      it("and dispatches an event whose blank line ends in CR at once", function()
        local stream = open { path = path }
        stream:send "data: x\r\n\r"
        stream:expect "data: x\r\n\r"
        stream:send "\ndata: y\r\r"
        stream:expect "\ndata: y\r\r"
      end)
    end)
  end

  describe("in byte mode", function()
    it("passes parts of lines at once", function()
      local stream = open()
      for _, part in ipairs { "da", "ta: o", "ne", "\r", "\n", "\r", "\nid", "\n" } do
        stream:send(part)
        stream:expect(part)
      end
    end)

    it("passes an incomplete last event", function()
      passes({}, "data: one\n\ndata: two\n")
      passes({}, "data: one\n\ndata: tw")
      passes({}, "\239\187")
    end)

    it("knows no limit for an event", function()
      local text = "data: " .. ("x"):rep(3 * 1048576) .. "\n\n"
      passes({}, text)
    end)
  end)

  describe("in event mode", function()
    for what, tail in pairs {
      ["without a blank line"] = "data: two\n", ["within a line"] = "data: tw",
      ["behind a CR"] = "data: two\r", ["that is a comment"] = ": bye",
    } do
      it("loses an incomplete last event " .. what, function()
        for _, framing in ipairs { "chunked", "close" } do
          local stream = open { path = "/events/x", framing = framing }
          stream:send("data: one\n\n" .. tail)
          stream:finish()
          assert.same({ "data: one\n\n", "clean" }, { stream:rest() })
        end
      end)
    end
  end)

  describe("has a response head that", function()
    it("goes out before the first event", function()
      for _, path in ipairs { "/bytes/x", "/events/x" } do
        local stream = open { path = path } -- and the backend has sent no more than its head
        assert.same({ 200, "text/event-stream" }, { stream.client.status, stream.client:get "Content-Type" })
        stream:send "data: x\n\n"
        stream:expect "data: x\n\n"
      end
    end)

    it("keeps caches and other proxies from holding the stream back", function()
      local stream = open()
      assert.same({ "no-cache" }, stream.client:all "Cache-Control")
      assert.same({ "no" }, stream.client:all "X-Accel-Buffering")
    end)

    it("leaves that to a backend that has said it", function()
      local stream = open { lines = "cache-control: no-store, private\r\nX-ACCEL-BUFFERING: yes\r\n" }
      assert.same({ "no-store, private" }, stream.client:all "Cache-Control")
      assert.same({ "yes" }, stream.client:all "X-Accel-Buffering")
    end)

    it("has no length", function()
      local stream = open { framing = "length", length = 9 }
      assert.same({}, stream.client:all "Content-Length")
      assert.same({ "chunked" }, stream.client:all "Transfer-Encoding")
    end)

    for _, media_type in ipairs {
      "text/event-stream; charset=utf-8", "text/event-stream;charset=UTF-8", "Text/Event-Stream",
      "text/event-stream ;x=y",
    } do
      it("may say " .. media_type, function()
        for _, path in ipairs { "/bytes/x", "/events/x" } do
          local stream = passes({ path = path, type = media_type }, "data: x\n\n")
          assert.equal(media_type, stream.client:get "Content-Type")
          assert.same({ "no-cache" }, stream.client:all "Cache-Control")
        end
      end)
    end

    it("keeps CORS fields and several cookies as they are", function()
      local stream = open {
        lines = "Access-Control-Allow-Origin: https://a.example\r\nSet-Cookie: a=1; Path=/\r\n"
          .. "Vary: Origin\r\nSet-Cookie: b=2; HttpOnly\r\nSet-Cookie: a=1; Path=/x\r\n",
      }
      assert.same({ "https://a.example" }, stream.client:all "Access-Control-Allow-Origin")
      assert.same({ "Origin" }, stream.client:all "Vary")
      assert.same({ "a=1; Path=/", "b=2; HttpOnly", "a=1; Path=/x" }, stream.client:all "Set-Cookie")
    end)

    it("is not compressed by the gateway", function()
      local stream = open { headers = { ["Accept-Encoding"] = "gzip, br" } }
      assert.is_nil(stream.client:get "Content-Encoding")
      assert.equal("gzip, br", stream.origin:get "Accept-Encoding")
    end)
  end)

  describe("is asked for with", function()
    it("the client's path, query and fields", function()
      local id = ("\230\151\165\226\130\172 "):rep(585):sub(1, 4095) .. "\226\130\172"
      local stream = open {
        path = "/bytes/a%2Fb//%E2%82%AC;p=1?lastEventId=%20x&&y=%zz&z",
        headers = {
          ["Last-Event-ID"] = id, Accept = "text/event-stream;q=0.9, */*",
          ["Cache-Control"] = "no-cache, max-age=0",
        },
      }
      assert.equal("/bytes/a%2Fb//%E2%82%AC;p=1?lastEventId=%20x&&y=%zz&z", stream.origin.target)
      assert.same({ id }, stream.origin:all "Last-Event-ID")
      assert.same({ "text/event-stream;q=0.9, */*" }, stream.origin:all "Accept")
      assert.same({ "no-cache, max-age=0" }, stream.origin:all "Cache-Control")
    end)

    it("POST, and then it is a stream like any other", function()
      for _, path in ipairs { "/bytes/x", "/events/x" } do
        local stream = streams.request(gw, server, {
          path = path, method = "POST", body = '{"stream":true}', headers = { Accept = "*/*" },
        })
        assert.equal('{"stream":true}', stream.origin:body())
        stream:answer()
        assert.same({ "no-cache" }, stream.client:all "Cache-Control")
        stream:send 'data: {"delta":"a"}\n\n'
        stream:expect 'data: {"delta":"a"}\n\n'
        stream:send "data: [DONE]\n\n"
        stream:finish()
        assert.same({ "data: [DONE]\n\n", "clean" }, { stream:rest() })
      end
    end)

    it("POST, also when it begins before the body has ended", function()
      local stream = streams.request(gw, server, {
        method = "POST", headers = { ["Transfer-Encoding"] = "chunked" },
      })
      stream:answer()
      stream:send "data: early\n\n"
      stream:expect "data: early\n\n"
      stream.conn:send(streams.chunk "late" .. streams.chunk "")
      assert.equal("late", stream.origin:body())
      stream:finish()
      assert.same({ "", "clean" }, { stream:rest() })
    end)

    it("an Accept that a rule for event streams insists on", function()
      local stream = open { path = "/sse/x", headers = { Accept = "text/html, text/event-stream;q=0.5" } }
      assert.equal(200, stream.client.status)
    end)
  end)

  describe("is refused by the backend with", function()
    for _, status in ipairs {
      "204 No Content", "401 Unauthorized", "429 Too Many Requests", "503 Gone Fishing",
    } do
      it(status .. ", which passes unchanged", function()
        for _, path in ipairs { "/bytes/x", "/events/x" } do
          local has_body = not status:find "204"
          local body = has_body and '{"error": "not now"}\n' or ""
          local stream = open {
            path = path, status = status, type = "application/problem+json", framing = "length",
            length = #body, lines = "Retry-After: 17\r\nWWW-Authenticate: Bearer\r\n",
          }
          stream:send(body)
          assert.same({ body, "clean" }, { stream:rest() })
          assert.same({ tonumber(status:sub(1, 3)), "17", "Bearer" },
            { stream.client.status, stream.client:get "Retry-After", stream.client:get "WWW-Authenticate" })
          assert.is_nil(stream.client:get "X-Accel-Buffering")
          assert.equal(has_body and tostring(#body) or nil, stream.client:get "Content-Length")
        end
      end)
    end

    it("an error in the dress of an event stream, which is none", function()
      local body = "event: error\ndata: no\n"
      local stream = open { path = "/events/x", status = "500 Oops", framing = "length", length = #body }
      stream:send(body)
      assert.same({ body, "clean" }, { stream:rest() })
      assert.same({ 500, tostring(#body) }, { stream.client.status, stream.client:get "Content-Length" })
      assert.is_nil(stream.client:get "Cache-Control")
    end)
  end)

  describe("that ends", function()
    it("ends at once", function()
      for _, path in ipairs { "/bytes/x", "/events/x" } do
        local stream = open { path = path }
        stream:send "data: x\n\n"
        stream:expect "data: x\n\n"
        stream.origin:reply(streams.chunk "") -- and the backend's connection stays
        assert.same({ "", "clean" }, { stream:rest() })
      end
    end)

    it("leaves the client's connection to the next request", function()
      local conn = http.connect(gw.port)
      for i = 1, 3 do
        local stream = open { conn = conn, path = i == 2 and "/events/x" or "/bytes/x" }
        stream:send(("data: %d\n\n"):format(i))
        stream:finish()
        assert.same({ ("data: %d\n\n"):format(i), "clean" }, { stream:rest() })
      end
      conn:send(http.format { path = "/bytes/plain" })
      server:request():ok "plain"
      assert.equal("plain", (conn:response():body()))
    end)

    it("closes the client's connection where the client wants that", function()
      local stream = open { headers = { Connection = "close" } }
      assert.equal("close", stream.client:get "Connection")
      stream:send "data: x\n\n"
      stream.origin:reply(streams.chunk "")
      assert.same({ "data: x\n\n", "clean" }, { stream:rest() })
      assert.equal("eof", stream.conn:wait_end())
    end)

    it("goes on with what was asked for meanwhile", function()
      local conn = http.connect(gw.port)
      conn:send(http.format { path = "/bytes/1" } .. http.format { path = "/bytes/2" })
      local first = server:request()
      assert.equal("/bytes/1", first.target)
      first:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n"
      local stream = conn:response()
      assert.equal("data: x\n\n", stream:read())
      first.conn:close()
      assert.same({ "", "clean" }, { stream:body() })
      server:request():ok "second"
      assert.equal("second", (conn:response():body()))
    end)
  end)

  it("is not there for HEAD, and its head is", function()
    for _, path in ipairs { "/bytes/x", "/events/x" } do
      local stream = open { path = path, method = "HEAD" }
      assert.equal("HEAD", stream.origin.method)
      assert.same({ 200, "text/event-stream" }, { stream.client.status, stream.client:get "Content-Type" })
      stream.conn:send(http.format { path = "/bytes/next" })
      server:request():ok "next"
      assert.equal("next", (stream.conn:response():body()))
    end
  end)

  describe("for an HTTP/1.0 client", function()
    for _, path in ipairs { "/bytes/x", "/events/x" } do
      it("ends with the connection: " .. path, function()
        local stream = open { path = path, version = "1.0", headers = { Connection = "keep-alive" } }
        assert.same({}, stream.client:all "Transfer-Encoding")
        assert.equal("close", stream.client.framing)
        stream:send "data: x\n\n"
        stream:expect "data: x\n\n"
        stream:finish()
        assert.same({ "", "clean" }, { stream:rest() })
      end)
    end
  end)

  it("may stand beside many others", function()
    local many = {}
    for i = 1, 100 do many[i] = open { path = i % 2 == 0 and "/bytes/x" or "/events/x" } end
    for round = 1, 3 do
      for i, stream in ipairs(many) do stream:send(("id: %d\ndata: %d\n\n"):format(round, i)) end
    end
    for i, stream in ipairs(many) do
      stream:finish()
      local text = ("id: %%d\ndata: %d\n\n"):format(i)
      assert.same({ text:format(1) .. text:format(2) .. text:format(3), "clean" }, { stream:rest() })
    end
  end)
end)
