--- The test servers themselves: what other specs rely on when they blame the gateway.
local cjson = require("cjson")
local http = require("spec.support.http")
local origin = require("spec.support.origin")
local process = require("spec.support.process")

local BUILD = os.getenv("GATEWAYD_BUILD") or "build"

local function types_of(events)
  local types = {}
  for i, event in ipairs(events) do
    types[i] = event.type
  end
  return types
end

local function ids_of(events)
  local ids = {}
  for i, event in ipairs(events) do
    ids[i] = event.id or "-"
  end
  return table.concat(ids, " ")
end

describe("sse_server", function()
  local server

  setup(function()
    server = origin.sse("sse-7")
  end)

  teardown(function()
    server:stop()
  end)

  local function stream(query, headers)
    return http.stream(server.port, "/events?" .. query, headers)
  end

  local function events(query, headers)
    local response = stream(query, headers)
    local list, how = response:events()
    response.conn:close()
    return list, how, response
  end

  describe("events", function()
    it("come in turns behind a connected event", function()
      local list, how, response = events("rate=200&count=6")
      assert.equal("clean", how)
      assert.equal("chunked", response.framing)
      assert.equal("text/event-stream", response:get("content-type"))
      assert.equal("sse-7", response:get("x-server"))
      local turns = { "message", "tick", "status" }
      assert.same({ "connected", turns[1], turns[2], turns[3], turns[1], turns[2], turns[3] }, types_of(list))
      assert.equal("- - 1 - - 2 -", ids_of(list))
    end)

    it("name the server in JSON, the status on several lines", function()
      local list = events("rate=0&count=3")
      for _, event in ipairs(list) do
        assert.equal("sse-7", cjson.decode(event.data).server)
      end
      local _, breaks = list[4].data:gsub("\n", "")
      assert.is_true(breaks >= 2)
    end)

    it("go on behind Last-Event-ID", function()
      local list = events("rate=0&count=3&ids=1", { ["Last-Event-ID"] = "41" })
      assert.equal("41", cjson.decode(list[1].data).lastEventId)
      assert.equal("- 42 43 44", ids_of(list))
      local odd = events("rate=0&count=1", { ["Last-Event-ID"] = 'ä"x' })
      assert.equal('ä"x', cjson.decode(odd[1].data).lastEventId)
      assert.equal(cjson.null, cjson.decode(events("rate=0&count=1")[1].data).lastEventId)
    end)

    it("end at a last id, and stay ended", function()
      assert.equal("7 8 9", ids_of(events("plain=1&rate=0&start=7&until=9")))
      local spent = stream("plain=1&until=9", { ["Last-Event-ID"] = "9" })
      assert.equal(204, spent.status)
      spent.conn:close()
    end)

    it("have ids on all or none", function()
      assert.equal("- 1 2 3", ids_of(events("rate=0&count=3&ids=1")))
      assert.equal("- - - -", ids_of(events("rate=0&count=3&ids=0")))
      assert.equal("- -", ids_of(events("rate=0&count=2&ids=0&plain=1")))
    end)

    it("carry the same in JSON, and types that go round", function()
      local list = events("plain=1&json=1&rate=0&count=3&size=200&types=even,odd")
      assert.same({ "odd", "even", "odd" }, types_of(list))
      for i, event in ipairs(list) do
        local data = cjson.decode(event.data)
        assert.equal(200, #event.data)
        assert.equal(i, data.n)
        assert.is_truthy(data.t:find("^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$"))
        assert.equal("origin", data.via)
        assert.is_truthy(data.pad:find("^x+$"))
      end
    end)

    it("carry their number, the time of sending and a size when plain", function()
      local list = events("plain=1&rate=0&count=3&size=200")
      for i, event in ipairs(list) do
        local number, time = event.data:match("^(%d+) (%d+) x+$")
        assert.equal(i, tonumber(number))
        assert.is_true(tonumber(time) > 0)
        assert.equal(200, #event.data)
        assert.equal(tostring(i), event.id)
      end
      assert.equal(300, #events("rate=0&count=1&size=300")[2].data)
    end)

    it("take a type, a comment, a retry and an unknown field", function()
      local response = stream("rate=0&count=2&type=news&comment=hi&retry=77&field=foo:%20bar")
      local list = response:events()
      assert.same({ "connected", "news", "news" }, types_of(list))
      assert.equal("77", response.parser.retry)
      assert.same({ "hi", "hi" }, response.parser.comments)
      assert.truthy(list[2].raw:find("\nfoo: bar\n", 1, true))
      response.conn:close()
    end)

    it("are the same with every line ending, split anywhere", function()
      local function normal(list)
        local texts = {}
        for i, event in ipairs(list) do
          texts[i] = ("%s %s %s"):format(event.type, event.id, event.data:gsub('"time":%s*%d+', ""))
        end
        return texts
      end
      local query = "rate=0&count=7&pause=0&bom=1&eol="
      local expected = normal(events(query .. "lf"))
      assert.equal(8, #expected)
      for _, eol in ipairs({ "lf", "cr", "crlf", "mixed" }) do
        for _, cut in ipairs({ "", "&splitall=1", "&split=1,2,5,60,61,62" }) do
          local list, how = events(query .. eol .. cut)
          assert.equal("clean", how)
          assert.same(expected, normal(list), eol .. cut)
        end
      end
    end)

    it("come in chunks that end where they are to be split", function()
      local _, _, response = events("plain=1&rate=0&count=2&split=3,10,11&pause=0")
      local chunks = response.chunks
      assert.same({ 3, 7, 1 }, { chunks[1], chunks[2], chunks[3] })
      _, _, response = events("plain=1&rate=0&count=1&splitall=1&pause=0")
      for i = 1, #response.chunks - 1 do
        assert.equal(1, response.chunks[i])
      end
    end)

    it("come at a rate, all streams of it", function()
      local streams, began = {}, require("spec.support.sys").now()
      for i = 1, 20 do
        streams[i] = stream("plain=1&rate=100&count=11")
      end
      for _, response in ipairs(streams) do
        local list, how = response:events()
        assert.equal("clean", how)
        assert.equal(11, #list)
        response.conn:close()
        local function time(event)
          return tonumber(event.data:match(" (%d+)"))
        end
        -- Ten periods of 10 ms. Being late is the machine's affair, being early the server's.
        assert.is_true(time(list[11]) - time(list[1]) > 50000)
      end
      assert.is_true(require("spec.support.sys").now() - began > 0.05)
    end)

    it("wait before the head, and before the first event", function()
      local response = stream("delay=30&firstdelay=30&rate=0&count=1")
      assert.equal("", response.conn.buffer)
      assert.same({ "connected", "message" }, types_of((response:events())))
      response.conn:close()
    end)
  end)

  describe("framing", function()
    it("is by chunks, by length or by the end", function()
      for _, framing in ipairs({ "chunked", "length", "close" }) do
        local list, how, response = events("rate=0&count=4&framing=" .. framing)
        assert.equal(framing, response.framing)
        assert.equal("clean", how)
        assert.equal(5, #list)
        assert.equal(framing == "close" and "close" or nil, response:get("connection"))
      end
    end)

    it("is never chunked for HTTP/1.0", function()
      local conn = http.connect(server.port)
      local response = conn:request({ path = "/events?rate=0&count=1", version = "1.0" })
      assert.equal("close", response.framing)
      assert.equal(2, #response:events())
      conn:close()
    end)

    it("can lie about the length", function()
      local response = stream("rate=0&count=1&framing=length&length=9&plain=1")
      assert.equal("9", response:get("content-length"))
      assert.equal("id: 1\ndat", (response:body()))
      response.conn:close()
      assert.equal(400, http.fetch(server.port, "/events?framing=length").status)
    end)

    it("is kept for the next request on the connection", function()
      local conn = http.connect(server.port)
      for _, framing in ipairs({ "chunked", "length" }) do
        local response = conn:request({ path = "/events?rate=0&count=3&framing=" .. framing })
        assert.equal(4, #response:events())
      end
      conn:close()
    end)
  end)

  describe("death", function()
    it("breaks the stream within an event, at any byte", function()
      for at = 1, 60, 7 do
        local response = stream("rate=0&plain=1&die=" .. at)
        local text, how = response:body()
        assert.equal("broken", how)
        assert.equal(at, #text)
        response.conn:close()
      end
    end)

    it("comes in the middle of the event that was named", function()
      local list, how = events("rate=0&plain=1&die_event=3")
      assert.equal("broken", how)
      assert.equal("1 2", ids_of(list))
    end)

    it("may come behind a whole chunk, or as a reset", function()
      local _, how, response = events("rate=0&plain=1&die=20&diechunk=1")
      assert.equal("broken", how)
      assert.equal(20, response.chunks[1])
      _, how = events("rate=0&plain=1&die_event=2&reset=1")
      assert.equal("reset", how)
    end)
  end)

  describe("notifications", function()
    it("name the user and the server", function()
      local response = http.stream(server.port, "/notifications/al%20ice?rate=0&count=2")
      local list = response:events()
      assert.same({ "connected", "notification", "notification" }, types_of(list))
      assert.equal("- 1 2", ids_of(list))
      for _, event in ipairs(list) do
        local data = cjson.decode(event.data)
        assert.equal("al ice", data.user)
        assert.equal("sse-7", data.server)
      end
      assert.equal(2, cjson.decode(list[3].data).n)
      response.conn:close()
    end)

    it("need a user", function()
      assert.equal(404, http.fetch(server.port, "/notifications/").status)
    end)
  end)

  describe("counting", function()
    it("tells when a client leaves", function()
      local before = server:stats()
      local response = stream("rate=1000&plain=1")
      assert.truthy(response:event())
      server:wait_stat("open_streams", before.open_streams + 1)
      response.conn:close()
      local after = server:wait_stat("open_streams", before.open_streams)
      assert.equal(before.aborted + 1, after.aborted)
    end)

    it("tells good ends from ordered deaths", function()
      local before = server:stats()
      events("rate=0&count=1")
      events("rate=0&die=10")
      local after = server:stats()
      assert.equal(before.ended + 1, after.ended)
      assert.equal(before.died + 1, after.died)
      assert.equal(before.requests + 3, after.requests)
      assert.equal(before.aborted, after.aborted)
    end)
  end)

  it("does not buffer what a client does not read", function()
    local before = server:stats().events
    local conn = http.connect(server.port, { rcvbuf = 4096 })
    conn:send(http.format({ path = "/events?plain=1&rate=0&size=1000" }))
    local last = -1
    process.wait_until(function()
      local now = server:stats().events
      local stalled = now == last and now > before
      last = now
      return stalled
    end)
    assert.is_true(last - before < 20000)
    assert.truthy(conn:response():event())
    conn:close()
    server:wait_stat("open_streams", 0)
  end)

  describe("ordinary answers", function()
    it("are there", function()
      assert.equal("ok", cjson.decode(http.fetch(server.port, "/health").text).status)
      assert.equal("sse-7", cjson.decode(http.fetch(server.port, "/json").text).server)
      assert.equal(404, http.fetch(server.port, "/nothing").status)
    end)

    it("include the demo page", function()
      local page = http.fetch(server.port, "/?user=bob")
      assert.equal(200, page.status)
      assert.truthy(page:get("content-type"):find("text/html", 1, true))
      assert.truthy(page.text:find("EventSource", 1, true))
    end)

    it("are of any size and framing", function()
      local pattern = ("abcdefghijklmnopqrstuvwxyz"):rep(40000)
      for _, framing in ipairs({ "length", "chunked", "close" }) do
        local path = "/bytes?n=1000003&framing=" .. framing
        local response = http.fetch(server.port, path)
        assert.equal("clean", response.how)
        assert.is_true(pattern:sub(1, 1000003) == response.text)
      end
      assert.equal("", http.fetch(server.port, "/bytes?n=0").text)
    end)

    it("break when told to", function()
      assert.equal("broken", http.fetch(server.port, "/bytes?n=1000&die=500").how)
    end)

    it("take a status, a type and headers", function()
      local cookies = "set=Set-Cookie:%20a=1&set=Set-Cookie:%20b=2"
      local path = "/json?status=429&ctype=text/x&set=Retry-After:%209&" .. cookies
      local response = http.fetch(server.port, path)
      assert.equal(429, response.status)
      assert.equal("text/x", response:get("content-type"))
      assert.equal("9", response:get("retry-after"))
      assert.same({ "a=1", "b=2" }, response:all("set-cookie"))
    end)

    it("stand in for a stream that has an error status", function()
      local response = http.fetch(server.port, "/events?status=503")
      assert.equal(503, response.status)
      assert.equal("application/json", response:get("content-type"))
      assert.equal("clean", response.how)
      response = stream("status=206&ctype=text/event-stream&rate=0&count=1")
      assert.equal(206, response.status)
      assert.equal(2, #response:events())
      response.conn:close()
    end)

    it("have no body for HEAD, 204 and 304", function()
      local conn = http.connect(server.port)
      local head = conn:request({ method = "HEAD", path = "/json" })
      assert.is_true(tonumber(head:get("content-length")) > 0)
      assert.equal(200, conn:request({ method = "HEAD", path = "/events" }).status)
      assert.equal(204, conn:request({ path = "/json?status=204" }).status)
      assert.equal(304, conn:request({ path = "/json?status=304" }).status)
      assert.equal(200, conn:request({ path = "/json" }).status)
      conn:close()
    end)
  end)

  describe("echo", function()
    local function echo(request)
      local response = http.fetch(server.port, request)
      return cjson.decode(response.text), response
    end

    it("tells what came, byte by byte", function()
      local seen = echo({
        method = "PATCH",
        path = "/echo/a%2Fb//c?x=%20y&z",
        headers = { { "Host", "h" }, { "X-B", "2" }, { "x-a", "ü \"q\"" }, { "X-B", "3" } },
        body = "one\r\n\"two\"\0",
      })
      assert.equal("PATCH", seen.method)
      assert.equal("/echo/a%2Fb//c?x=%20y&z", seen.target)
      assert.equal("HTTP/1.1", seen.version)
      assert.same({
        { "Host", "h" }, { "X-B", "2" }, { "x-a", "ü \"q\"" }, { "X-B", "3" }, { "Content-Length", "11" },
      }, seen.headers)
      assert.equal(11, seen.body_length)
      assert.equal("one\r\n\"two\"\0", seen.body)
    end)

    it("reads bodies in chunks, however they are split", function()
      local request = http.format({
        method = "POST", path = "/echo", headers = { ["Transfer-Encoding"] = "chunked" },
      }) .. "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
      for _, size in ipairs({ 1, 2, 3, 7, #request }) do
        local conn = http.connect(server.port)
        conn:send_split(request, size)
        local seen = cjson.decode((conn:response():body()))
        assert.equal("abc0123456789", seen.body)
        conn:close()
      end
    end)

    it("sums up a body that is large", function()
      local seen = echo({ method = "POST", path = "/echo", body = ("x"):rep(200000) })
      assert.equal(200000, seen.body_length)
      assert.is_nil(seen.body)
      -- FNV-1a of "a", as published with the algorithm
      assert.equal("af63dc4c8601ec8c", echo({ method = "POST", path = "/echo", body = "a" }).body_fnv1a)
    end)

    it("says 100 before it takes a body that waits for it", function()
      local conn = http.connect(server.port)
      conn:send("POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
      assert.equal(100, conn:response().status)
      conn:send("ok")
      assert.equal("ok", cjson.decode((conn:response():body())).body)
      conn:close()
    end)

    it("answers pipelined requests in order", function()
      local conn, all = http.connect(server.port), {}
      for i = 1, 20 do
        all[i] = http.format({ path = "/echo/" .. i, headers = { ["X-N"] = tostring(i) } })
      end
      conn:send(table.concat(all))
      for i = 1, 20 do
        assert.equal("/echo/" .. i, cjson.decode((conn:response():body())).target)
      end
      conn:close()
    end)

    it("keeps HTTP/1.0 connections only when asked", function()
      local conn = http.connect(server.port)
      conn:send("GET /json HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
      assert.equal("keep-alive", conn:response():get("connection"))
      conn:close()
      conn = http.connect(server.port)
      conn:send("GET /json HTTP/1.0\r\n\r\n")
      local _, how = conn:read_all()
      assert.equal("eof", how)
    end)
  end)

  describe("bad requests", function()
    local bad = {
      ["not HTTP"] = { "hello\r\n\r\n", 400 },
      ["two spaces"] = { "GET  / HTTP/1.1\r\n\r\n", 400 },
      ["another version"] = { "GET / HTTP/2.0\r\n\r\n", 505 },
      ["a folded field"] = { "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400 },
      ["a bare line feed"] = { "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400 },
      ["a blank in a name"] = { "GET / HTTP/1.1\r\nA : b\r\n\r\n", 400 },
      ["a NUL"] = { "GET / HTTP/1.1\r\nA: b\0\r\n\r\n", 400 },
      ["two lengths"] = { "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400 },
      ["a length that is none"] = { "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", 400 },
      ["length and chunks"] = {
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
      },
      ["another coding"] = { "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501 },
      ["a chunk size that is none"] = { "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n", 400 },
      ["a chunk that is too long"] = {
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400,
      },
      ["too many fields"] = { "GET / HTTP/1.1\r\n" .. ("A: b\r\n"):rep(600) .. "\r\n", 431 },
      ["a head without an end"] = { "GET / HTTP/1.1\r\nA: " .. ("b"):rep(140000), 431 },
    }
    for name, case in pairs(bad) do
      it("are refused: " .. name, function()
        local conn = http.connect(server.port)
        conn:send(case[1])
        local response = conn:response()
        assert.equal(case[2], response.status)
        assert.equal("close", response:get("connection"))
        local _, how = response:body()
        assert.equal("clean", how)
        assert.equal("eof", conn:wait_end())
        conn:close()
      end)
    end

    it("name the parameter that makes no sense", function()
      for _, query in ipairs({ "eol=x", "rate=-1", "rate=x", "count=1x", "split=3,2", "split=x", "ids=2" }) do
        local response = http.fetch(server.port, "/events?" .. query)
        assert.equal(400, response.status, query)
        assert.truthy(response.text:find(query:match("^%w+"), 1, true))
      end
    end)

    it("leave the server as it was", function()
      assert.equal(200, http.fetch(server.port, "/health").status)
    end)
  end)

  describe("life", function()
    it("ends at once on TERM, with streams open", function()
      local other = origin.sse("sse-8")
      local response = http.stream(other.port, "/events")
      assert.same({ code = 0 }, other:stop())
      assert.equal("broken", select(2, response:body()))
      response.conn:close()
    end)

    it("goes on at the same port", function()
      local other = origin.sse("sse-8")
      local port = other.port
      local response = http.stream(port, "/events")
      other:restart_on_same_port()
      assert.equal(port, other.port)
      assert.equal(200, http.fetch(port, "/health").status)
      response.conn:close()
      other:stop()
    end)

    it("says what is wrong with the command line, and with the port", function()
      local run = process.spawn({ BUILD .. "/sse_server", "--port", "x" })
      assert.same({ code = 2 }, run:wait())
      assert.truthy(run:text("stderr"):find("usage:", 1, true))
      run = process.spawn({ BUILD .. "/sse_server", "--port", tostring(server.port) })
      assert.same({ code = 3 }, run:wait())
      assert.truthy(run:text("stderr"):find("Address already in use", 1, true))
    end)

    it("offers one service where told to", function()
      local other = origin.sse("n", { "--service", "notifications" })
      assert.equal(404, http.fetch(other.port, "/events?count=1&rate=0").status)
      assert.equal(200, http.fetch(other.port, "/notifications/a?count=1&rate=0").status)
      other:stop()
    end)
  end)
end)

describe("script_server", function()
  local server

  after_each(function()
    if server then
      server:stop()
      server = nil
    end
  end)

  it("waits for a head and answers", function()
    server = origin.script([[
      expect_head
      send "HTTP/1.1 200 OK\r\n" "Content-Length: 3\r\n\r\n"  # joined
      send "a\x00\\"
    ]])
    local response = http.fetch(server.port, "/x")
    assert.equal("a\0\\", response.text)
    assert.equal("clean", response.how)
    server:wait_line("^accept 1$")
    server:wait_line("^recv 1 GET /x HTTP/1%.1\\r\\nHost: localhost\\r\\n\\r\\n$")
    server:wait_line("^closed 1$")
  end)

  it("takes what it expects, and keeps the rest", function()
    server = origin.script([[
      expect "one"
      send "1"
      expect /t[aw]o+/
      send "2"
      expect_bytes 4
      send "3"
      hold
    ]])
    local conn = http.connect(server.port)
    conn:send("zero onetwooabcd")
    assert.equal("123", conn:read_until("3"))
    conn:close()
    server:wait_line("^eof 1$")
    server:wait_line("^closed 1$")
  end)

  it("has a section for a connection, and one for the others", function()
    server = origin.script([[
      connection 2
        send "two"
      connection *
        send "any"
    ]])
    local seen = {}
    for i = 1, 3 do
      local conn = http.connect(server.port)
      seen[i] = conn:read_all()
      conn:close()
    end
    assert.same({ "any", "two", "any" }, seen)
  end)

  it("repeats, also within repeats", function()
    server = origin.script([[
      repeat 3
        send "a"
        repeat 2
          send "b"
        end
      end
    ]])
    local conn = http.connect(server.port)
    assert.equal("abbabbabb", (conn:read_all()))
    conn:close()
  end)

  it("repeats until the peer has had enough, and serves others meanwhile", function()
    server = origin.script([[
      connection 1
        repeat *
          send "abcdefgh"
        end
      connection 2
        send "x"
    ]])
    local endless, other = http.connect(server.port), http.connect(server.port)
    assert.equal("x", (other:read_all()))
    other:close()
    local total = 0
    while total < 1000000 do
      total = total + #endless:read_some()
    end
    endless:close()
    server:wait_line("^closed 1$")
  end)

  it("sends in pieces, in chunks, and much", function()
    server = origin.script([[
      expect_head
      send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      chunk "hello\n"
      split 1 0ms "3\r\nabc\r\n"
      chunk ""
      expect_head
      send "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"
      fill 3000000
      hold
    ]])
    local conn = http.connect(server.port)
    local response = conn:request({})
    local text, how = response:body()
    assert.equal("hello\nabc", text)
    assert.equal("clean", how)
    assert.same({ 6, 3, 0 }, response.chunks)
    text, how = conn:request({}):body()
    assert.equal(3000000, #text)
    assert.equal("clean", how)
    conn:close()
  end)

  it("closes, half closes and resets", function()
    server = origin.script([[
      connection 1
        close
      connection 2
        send "x"
        shutdown
        expect "more"
        log "got \"more\""
      connection 3
        expect "go"
        reset
    ]])
    assert.equal("eof", http.connect(server.port):wait_end())
    local conn = http.connect(server.port)
    assert.equal("eof", conn:wait_end())
    conn:send("more")
    server:wait_line('^log 2 got "more"$')
    conn:close()
    conn = http.connect(server.port)
    conn:send("go")
    assert.equal("reset", conn:wait_end())
    conn:close()
  end)

  it("tells what was not met, and resets by the peer", function()
    server = origin.script('expect "never"')
    local conn = http.connect(server.port)
    conn:send("nothing")
    server:wait_line("^recv 1 nothing$")
    conn:close()
    server:wait_line("^unmet 1 line 1$")
    conn = http.connect(server.port)
    server:wait_line("^accept 2$")
    conn:reset()
    server:wait_line("^reset 2$")
    server:wait_line("^closed 2$")
  end)

  it("turns deaf, and hears again", function()
    server = origin.script([[
      expect "a"
      deaf
      log "deaf"
      wait 50ms
      hear
      expect "b"
      log "heard"
      hold
    ]])
    local conn = http.connect(server.port)
    conn:send("a")
    server:wait_line("^log 1 deaf$")
    conn:send("b")
    server:wait_line("^log 1 heard$")
    local order = {}
    for _, line in ipairs(server:lines()) do
      order[#order + 1] = line:match("^log 1 (.*)") or line:match("^recv 1 (.*)")
    end
    assert.same({ "a", "deaf", "b", "heard" }, order)
    conn:close()
  end)

  it("refuses connections for a while", function()
    server = origin.script([[
      connection 1
        refuse
        send "x"
        expect "again"
        accept
        send "y"
        hold
    ]])
    local conn = http.connect(server.port)
    assert.equal("x", conn:read_some())
    assert.is_false(http.is_listening(server.port))
    conn:send("again")
    assert.equal("y", conn:read_some())
    assert.is_true(http.is_listening(server.port))
    conn:close()
  end)

  it("sends a file, and is quiet when told", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write("from a file")
    file:close()
    server = origin.script("quiet\nexpect \"x\"\nsend_file " .. path)
    local conn = http.connect(server.port)
    conn:send("x")
    assert.equal("from a file", (conn:read_all()))
    conn:close()
    server:wait_line("^closed 1$")
    assert.is_nil(server.process:text():find("recv", 1, true))
    os.remove(path)
  end)

  local wrong = {
    ["foo"] = "-:1: unknown word `foo`",
    ["\n# c\nsend abc"] = "-:3: a string in double quotes is needed, not `abc`",
    ['send "abc'] = "-:1: the string is not closed",
    ['send "a" b'] = "-:1: `b` is too much here",
    ['send "\\q"'] = "-:1: unknown escape \\q",
    ['send "\\x4"'] = "-:1: \\x needs two hexadecimal digits",
    ['repeat 2\nsend "x"'] = "-:1: this repeat has no end",
    ['repeat 0\nend'] = "-:1: repeat needs 1 or more, or *",
    ["end"] = "-:1: this end has no repeat",
    ["repeat 2\nconnection 1\nend"] = "-:3: this end has no repeat",
    ["connection 1\nconnection 1"] = "-:2: there is a section `connection 1` already",
    ["connection 0"] = "-:1: `connection` needs a number from 1 up, or *",
    ["wait 5"] = "-:1: a time like 50ms or 2s is needed, not `5`",
    ["expect /(/"] = "-:1: /(/: Unmatched ( or \\(",
    ['split 0 "x"'] = "-:1: split needs pieces of one byte or more",
    ["fill x"] = "-:1: a number is needed, not `x`",
    ["send_file /none"] = "-:1: cannot read /none: No such file or directory",
    ["close now"] = "-:1: `now` is too much here",
    [("repeat 2\n"):rep(9) .. ("end\n"):rep(9)] = "-:9: repeats are nested deeper than 8",
  }
  for script, message in pairs(wrong) do
    it(("refuses a script: %q"):format(script:sub(1, 20)), function()
      local run = process.spawn({ BUILD .. "/script_server", "-" }, { stdin = script })
      assert.same({ code = 1 }, run:wait())
      assert.equal(message, run:text("stderr"))
      assert.equal("", run:text("stdout"))
    end)
  end
end)

describe("the helpers for running programs", function()
  it("capture both outputs and the status", function()
    local run = process.spawn({ "sh", "-c", "echo out; echo err >&2; printf last; exit 3" })
    assert.same({ code = 3 }, run:wait())
    assert.same({ "out", "last" }, run:lines())
    assert.same({ "err" }, run:lines("stderr"))
  end)

  it("deliver signals", function()
    local script = "trap 'echo hup; exit 0' HUP; echo ready; while :; do sleep 0.01; done"
    local run = process.spawn({ "sh", "-c", script })
    run:wait_line("^ready$")
    run:signal("HUP")
    run:wait_line("^hup$")
    assert.same({ code = 0 }, run:wait())
    run = process.spawn({ "sleep", "100" })
    run:signal("TERM")
    assert.same({ signal = 15 }, run:wait())
  end)

  it("set the environment and the folder", function()
    local options = { env = { A = "b", HOME = false }, cwd = "/" }
    local run = process.spawn({ "sh", "-c", "echo $A-$HOME; pwd" }, options)
    run:wait()
    assert.same({ "b-", "/" }, run:lines())
  end)

  it("kill what a program has started", function()
    local run = process.spawn({ "sh", "-c", "sleep 100 & echo $!; wait" })
    local _, child = run:wait_line("^(%d+)$")
    run:kill()
    process.wait_until(function()
      local stat = io.open(("/proc/%s/stat"):format(child))
      local text = stat and stat:read("*a") or ") Z"
      if stat then
        stat:close()
      end
      return text:find("%) Z")
    end, 5, "the child's end")
  end)

  it("say why a program does not run, and what came instead of a line", function()
    assert.error_matches(function()
      process.spawn({ "/no/such/program" })
    end, "cannot run /no/such/program: No such file")
    local run = process.spawn({ "sh", "-c", "echo oops >&2" })
    assert.error_matches(function()
      run:wait_line("ready")
    end, "eof before a line like \"ready\".*oops")
  end)
end)
