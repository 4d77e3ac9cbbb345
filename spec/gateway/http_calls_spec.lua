--- gateway.http in the real binary: hooks that ask other services, and what becomes of everything else.
local backend = require "spec.support.backend"
local dns = require "spec.support.dns"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

-- The plugin of a test is the body of one hook.
local function plugin(hooks)
  local parts = { "local plugin = { name = 'caller' }\nlocal other = os.getenv('OTHER')\n" }
  for name, text in pairs(hooks) do
    if name == "load" then
      table.insert(parts, 2, text .. "\n")
    else
      parts[#parts + 1] = ("function plugin.%s(ctx, conf, event)\n%s\nend\n"):format(name, text)
    end
  end
  parts[#parts + 1] = "return plugin\n"
  return table.concat(parts)
end

local server, other, gw

local function start(hooks, options)
  options = options or {}
  gw = gateway.start {
    services = { api = server.port },
    rules = { { id = "api", path = "/*", serviceName = "api",
      plugins = not options.everywhere and { "caller" } or nil } },
    files = { ["plugins/caller.lua"] = plugin(hooks) },
    config = {
      plugins = options.everywhere and { "caller" } or nil,
      backend = options.backend,
      management = { enabled = true, host = "127.0.0.1", port = 0 },
    },
    env = { OTHER = "http://" .. (options.host or "127.0.0.1") .. ":" .. other.port,
      GATEWAYD_DNS = options.dns or "127.0.0.1:1" },
  }
  return gw
end

local function client(path, headers)
  local conn = http.connect(gw.port)
  conn:send(http.format { path = path or "/", headers = headers })
  return conn
end

local function answer_of(conn)
  local response = conn:response()
  local body = response:body()
  return response.status, body, response
end

local function metric(name)
  local text = http.fetch(gw.admin_port, "/metrics").text
  return tonumber(text:match("\ngatewayd_" .. name .. " (%d+)"))
end

local function wait_metric(name, value)
  sys.wait_until(function() return metric(name) == value end, 5, name .. " = " .. value)
end

-- Asks, and replies with what came of it.
local ECHO = [[
  local response, err = gateway.http.request({ url = other .. ctx.req.target, timeout = 5 })
  if not response then return ctx:reply(599, err) end
  return ctx:reply(response.status, response.body, { ["X-Type"] = response.headers["Content-TYPE"] })
]]

local function chunk(text) return ("%x\r\n%s\r\n"):format(#text, text) end
local CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

describe("gateway.http", function()
  before_each(function() server, other = backend.listen(), backend.listen() end)

  after_each(function()
    streams.close_all()
    gateway.stop_all()
    server:close()
    other:close()
  end)

  describe("in an access hook that asks who may pass", function()
    local AUTH = [[
      local answer, err = gateway.http.get(other .. "/check", {
        headers = { Authorization = ctx.req.headers.Authorization }, timeout = 0.3 })
      if not answer then return ctx:reply(503, { error = err }) end
      if answer.status ~= 200 then return ctx:reply(answer.status, "no") end
      ctx.req.headers["X-User"] = answer:json().user
    ]]

    it("lets pass whom the service knows", function()
      start { access = AUTH }
      local conn = client("/x", { Authorization = "Bearer 1" })
      local check = other:request()
      assert.equal("Bearer 1", check:get "authorization")
      assert.equal("gatewayd/0.1.0", check:get "user-agent")
      assert.is_nil(check:get "x-forwarded-for")
      assert.is_nil(check:get "x-request-id")
      check:ok '{"user":"ada"}'
      local request = server:request()
      assert.equal("ada", request:get "x-user")
      request:ok "hello"
      local status, body = answer_of(conn)
      assert.same({ 200, "hello" }, { status, body })
    end)

    it("refuses whom it does not", function()
      start { access = AUTH }
      local conn = client "/x"
      other:request():ok("go away", "401 Unauthorized")
      assert.equal(401, (answer_of(conn)))
      assert.is_nil(server:try_accept(0))
    end)

    it("leaves it to the plugin what to do when the service is down", function()
      start { access = AUTH }
      other:close()
      local status, body = answer_of(client "/x")
      assert.equal(503, status)
      assert.equal('{"error":"connection refused"}', body)
    end)

    it("leaves it to the plugin what to do when the service is slow", function()
      start { access = AUTH }
      local conn = client "/x"
      local check = other:request()
      local status, body = answer_of(conn)
      assert.equal(503, status)
      assert.equal('{"error":"timeout"}', body)
      assert.not_equal("timeout", check.conn:wait_end())
      wait_metric("calls", 0)
    end)
  end)

  it("enriches events while other streams run on", function()
    start { on_event = [[
      if event.type ~= "ask" then return end
      local answer = assert(gateway.http.get(other .. "/about/" .. event.data))
      event.data = event.data .. " " .. answer.body
    ]] }
    local slow, quick = streams.open(gw, server, {}), streams.open(gw, server, {})
    slow:send "event: ask\ndata: a\n\nevent: plain\ndata: behind\n\n"
    local about = other:request()
    assert.equal("/about/a", about.target)
    for i = 1, 3 do
      quick:send(("data: %d\n\n"):format(i))
      quick:expect(("data: %d\n\n"):format(i))
    end
    assert.equal("", slow:available())
    about:ok "known"
    slow:expect "event: ask\ndata: a known\n\nevent: plain\ndata: behind\n\n"
  end)

  it("may be used in every hook", function()
    local ask = "assert(gateway.http.get(other .. '/%s'))"
    start({ route = ask:format "route", access = ask:format "access", balance = ask:format "balance",
      on_response = ask:format "on_response", on_event = ask:format "on_event" .. " event.data = 'seen'",
      on_close = "gateway.spawn(function() " .. ask:format "on_close" .. " end)" }, { everywhere = true })
    local conn = client("/", { Accept = "text/event-stream" })
    local call = other:request()
    assert.equal("/route", call.target)
    for _, hook in ipairs { "access", "balance" } do
      call:ok()
      call = backend.read_request(call.conn)
      assert.equal("/" .. hook, call.target)
    end
    call:ok()
    local request = server:request()
    request:reply(CHUNKED .. chunk "data: x\n\n" .. "0\r\n\r\n")
    for _, hook in ipairs { "on_response", "on_event", "on_close" } do
      call = backend.read_request(call.conn)
      assert.equal("/" .. hook, call.target)
      call:ok()
    end
    assert.equal("data: seen\n\n", select(2, answer_of(conn)))
  end)

  it("asks once for all that miss at the same time", function()
    start { access = [[
      gateway.log.info("asks")
      return ctx:reply(200, gateway.once("key", function() return gateway.http.get(other .. "/").body end))
    ]] }
    local conns = {}
    for i = 1, 100 do conns[i] = client() end
    local call = other:request()
    sys.wait_until(function() return #gw:find_log "asks" == 100 end)
    call:ok "shared"
    for _, conn in ipairs(conns) do assert.equal("shared", select(2, answer_of(conn))) end
    assert.is_nil(other:try_accept(0))
  end)

  it("leaves nothing behind when all sorts of things go wrong at once", function()
    start({ access = [[
      local kind = ctx.req.path
      local answer, err = gateway.http.get(other .. kind, { timeout = kind == "/slow" and 0.05 or 10,
        stream = kind == "/stream" })
      if kind == "/stream" and answer then answer:read() end
      return ctx:reply(200, err or "fine")
    ]] }, { backend = { calls = { maxPerHost = 10 } } })
    local kinds = { "/fine", "/slow", "/stream", "/cut", "/gone", "/reset" }
    local conns, calls, random = {}, {}, 1
    local function draw(n)
      random = (random * 1103515245 + 12345) % 2147483648
      return math.floor(random / 65536) % n + 1
    end
    local deal = {
      ["/fine"] = function(call) call:ok "x" end,
      ["/slow"] = function() end,
      ["/stream"] = function(call) call.conn:send(CHUNKED .. chunk "ab") end,
      ["/cut"] = function(call)
        call.conn:send "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"
        call.conn:close()
      end,
      ["/gone"] = function(call) call.conn:close() end,
      ["/reset"] = function(call) call.conn:reset() end,
    }
    local function pump()
      for conn in function() return other:try_accept(0) end do calls[#calls + 1] = conn end
      for i = #calls, 1, -1 do
        local ok, call = pcall(backend.read_request, calls[i], 0)
        if ok then deal[call.target](call) end
        if calls[i].ended or not calls[i].fd then table.remove(calls, i) end
      end
    end
    for round = 1, 400 do
      conns[#conns + 1] = client(kinds[draw(#kinds)])
      if draw(3) == 1 then table.remove(conns, draw(#conns)):close() end
      if round % 50 == 0 then gw:reload() end
      pump()
    end
    -- Those that are still there are answered, whatever has become of their calls.
    for _, conn in ipairs(conns) do
      sys.wait_until(function()
        pump()
        local response = conn.buffer:find "\r\n\r\n" or conn:read_until("\r\n\r\n", 0.001, true)
        return response or conn.ended
      end, 20)
    end
    wait_metric("calls", 0)
    wait_metric("exchanges", 0)
    wait_metric("generations", 1)
  end)

  it("closes the call of a client that leaves, at once", function()
    start { access = ECHO, on_close = "gateway.log.info('closed ' .. tostring(conf ~= nil))" }
    local conn = client "/x"
    local call = other:request()
    assert.equal(1, metric "calls")
    conn:close()
    assert.not_equal("timeout", call.conn:wait_end())
    wait_metric("calls", 0)
    gw:wait_log "text=\"?closed"
  end)

  -- Answers every request on every connection until so many have been asked.
  local function serve(count, most)
    local conns, asked = {}, 0
    local deadline = sys.now() + 30
    while asked < count do
      assert(sys.now() < deadline, asked .. " were asked")
      local conn = other:try_accept(0)
      if conn then conns[#conns + 1] = conn end
      local wants = { [other.fd] = sys.POLLIN }
      for _, c in ipairs(conns) do
        wants[c.fd] = sys.POLLIN
        while c:read_until("\r\n\r\n", 0, true) do
          asked = asked + 1
          c:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        end
      end
      if not conn then sys.poll(wants, sys.now() + 0.01) end
    end
    assert.is_true(#conns <= most, #conns .. " connections")
    return conns
  end

  it("makes 1,000 calls at once over a bounded number of connections", function()
    start({ access = [[
      local left, failed = 1000, 0
      for i = 1, left do
        gateway.spawn(function()
          local answer = gateway.http.get(other .. "/" .. i, { timeout = 20 })
          if not answer or answer.body ~= "ok" then failed = failed + 1 end
          left = left - 1
        end)
      end
      while left > 0 do gateway.sleep(0.01) end
      return ctx:reply(200, failed .. " failed")
    ]] }, { backend = { calls = { maxPerHost = 20 } } })
    local conn = client()
    serve(1000, 20)
    assert.equal("0 failed", select(2, answer_of(conn)))
    assert.equal(0, metric "calls")
  end)

  it("uses its connections again", function()
    start { access = ECHO }
    local conn = client "/first"
    local call = other:request()
    call:ok "1"
    assert.equal("1", select(2, answer_of(conn)))
    for i = 2, 5 do
      conn = client("/" .. i)
      backend.read_request(call.conn):ok(tostring(i))
      assert.equal(tostring(i), select(2, answer_of(conn)))
    end
    assert.is_nil(other:try_accept(0))
  end)

  it("asks on another connection when the pooled one was closed meanwhile", function()
    start { access = ECHO }
    local conn = client "/first"
    local call = other:request()
    call:ok "1"
    answer_of(conn)
    conn = client "/second"
    backend.read_request(call.conn)
    call.conn:close()
    other:request():ok "2"
    assert.equal("2", select(2, answer_of(conn)))
  end)

  it("reads chunked answers however they are cut, trailers and all", function()
    start { access = ECHO }
    local text = "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX: y\r\n\r\n"
    local conn = client "/x"
    other:request().conn:send_split(text, 1)
    local status, body, response = answer_of(conn)
    assert.same({ 200, "hello world", "a/b" }, { status, body, response:get "x-type" })
  end)

  it("tells a truncated answer, and one that is too large", function()
    start({ access = ECHO }, { backend = { calls = { maxBodyBytes = 1000 } } })
    for _, case in ipairs {
      { "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "truncated" },
      { "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "answer too large" },
      { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" .. chunk(("x"):rep(1001)),
        "answer too large" },
      { "nonsense\r\n\r\n", "bad response" },
      { "", "connection closed" },
    } do
      local conn = client "/x"
      local call = other:request()
      if case[1] ~= "" then call:reply(case[1]) end
      call.conn:shutdown()
      local status, body = answer_of(conn)
      assert.same({ 599, case[2] }, { status, body })
    end
  end)

  it("sends text, or a table as JSON", function()
    start { access = [[
      local body = ctx.req.path == "/table" and { a = { 1, 2 } } or "text"
      local answer = assert(gateway.http.request({ url = other .. "/", body = body,
        headers = { ["X-A"] = { "b", "c" }, Host = "named.test" } }))
      return ctx:reply(200, table.concat(answer:values("set-cookie"), "|"))
    ]] }
    local conn = client "/table"
    local call = other:request()
    assert.same({ "POST", "application/json", '{"a":[1,2]}', "named.test" },
      { call.method, call:get "content-type", call:body(), call:get "host" })
    assert.same({ "b", "c" }, call:all "x-a")
    call:ok("", nil, "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n")
    assert.equal("a=1|b=2", select(2, answer_of(conn)))
    client "/text"
    call = backend.read_request(call.conn)
    assert.same({ "text" }, { call:body(), call:get "content-type" })
  end)

  describe("streamed", function()
    local EVENTS = [[
      local answer = assert(gateway.http.get(other .. "/", { stream = true, timeout = 5 }))
      local seen = {}
      for ev in answer:events() do
        seen[#seen + 1] = ("%s/%s/%s"):format(ev.type, ev.id or "-", (ev.data or "-"):gsub("\n", "+"))
      end
      return ctx:reply(200, table.concat(seen, " ") .. " " .. (answer.error or "end"))
    ]]

    it("gives an answer's events one by one, however they are cut", function()
      start { access = EVENTS }
      local conn = client()
      local call = other:request()
      call:reply(CHUNKED)
      for byte in ("\239\187\191data: 1\n\n: ping\n\nevent: t\r\nid: 7\r\ndata: a\r\ndata: b\r\n\r\n"
        .. "data: 3\r\rretry: 5\n\ndata: lost"):gmatch "." do
        call:reply(chunk(byte))
      end
      call:reply "0\r\n\r\n"
      assert.equal("message/-/1 t/7/a+b message/-/3 message/-/- end", select(2, answer_of(conn)))
    end)

    it("tells a stream that breaks off", function()
      start { access = EVENTS }
      local conn = client()
      local call = other:request()
      call:reply(CHUNKED .. chunk "data: 1\n\ndata: lo")
      call.conn:shutdown()
      assert.equal("message/-/1 truncated", select(2, answer_of(conn)))
    end)

    it("bounds an event", function()
      start { access = EVENTS }
      local conn = client()
      local call = other:request()
      call:reply(CHUNKED .. chunk "data: 1\n\n")
      local piece = chunk(("x"):rep(60000))
      for _ = 1, 30 do
        if not call.conn:send(piece) then break end
      end
      assert.equal("message/-/1 event too large", select(2, answer_of(conn)))
      wait_metric("calls", 0)
    end)

    it("forwards an event that it was given as it came", function()
      start { on_event = [[
        local answer = assert(gateway.http.get(other .. "/", { stream = true }))
        local list = {}
        for ev in answer:events() do list[#list + 1] = ev end
        return list
      ]] }
      local stream = streams.open(gw, server, {})
      stream:send "data: go\n\n"
      other:request():reply(CHUNKED .. chunk "x: y\ndata:  1\nevent:t\n\ndata\n\n" .. "0\r\n\r\n")
      stream:expect "x: y\ndata:  1\nevent:t\n\ndata\n\n"
    end)

    it("gives pieces, and nil at the end", function()
      start { access = [[
        local answer = assert(gateway.http.get(other .. "/", { stream = true }))
        local seen = {}
        for piece in function() return answer:read() end do seen[#seen + 1] = piece end
        return ctx:reply(200, answer.status .. table.concat(seen) .. tostring(answer.body)
          .. tostring(answer:read()))
      ]] }
      local conn = client()
      other:request():reply(CHUNKED .. chunk "ab" .. chunk "cd" .. "0\r\n\r\n")
      assert.equal("200abcdnilnil", select(2, answer_of(conn)))
    end)

    it("is closed when the plugin says so", function()
      start { access = [[
        local answer = assert(gateway.http.get(other .. "/", { stream = true }))
        answer:read()
        answer:close()
        answer:close()
        local piece, err = answer:read()
        return ctx:reply(200, tostring(piece) .. err)
      ]] }
      local conn = client()
      local call = other:request()
      call:reply(CHUNKED .. chunk "ab")
      assert.equal("nilclosed", select(2, answer_of(conn)))
      assert.not_equal("timeout", call.conn:wait_end())
    end)

    it("is read by one task at a time, and may be closed by another", function()
      start { access = [[
        local answer = assert(gateway.http.get(other .. "/", { stream = true }))
        local got
        ctx:spawn(function() got = { answer:read() } end)
        gateway.sleep(0.01)
        local _, why = pcall(answer.read, answer)
        answer:close()
        gateway.sleep(0.01)
        return ctx:reply(200, why:match("gateway.http.*") .. " " .. tostring(got[1]) .. got[2])
      ]] }
      local conn = client()
      other:request():reply(CHUNKED)
      assert.equal("gateway.http: another task waits for this response already nilclosed",
        select(2, answer_of(conn)))
    end)

    it("is closed with its exchange, read or not", function()
      start { access = [[
        ctx.state.answer = assert(gateway.http.get(other .. "/", { stream = true, timeout = 0 }))
        if ctx.req.path == "/read" then ctx.state.answer:read() end
      ]] }
      for _, path in ipairs { "/kept", "/read" } do
        local conn = client(path)
        local call = other:request()
        call:reply(CHUNKED)
        if path == "/kept" then
          server:request():ok "done"
          answer_of(conn)
        else
          wait_metric("calls", 1)
          conn:close()
        end
        assert.not_equal("timeout", call.conn:wait_end())
      end
      wait_metric("calls", 0)
    end)

    it("is closed by the collector at the latest", function()
      start { load = [[
        gateway.spawn(function()
          gateway.http.get(other .. "/", { stream = true, timeout = 0 })
          for _ = 1, 1000 do
            gateway.sleep(0.001)
            local garbage = {}
            for i = 1, 1000 do garbage[i] = {} end
          end
        end)
      ]] }
      local call = other:request()
      call:reply(CHUNKED)
      assert.not_equal("timeout", call.conn:wait_end())
    end)
  end)

  describe("at a reload", function()
    it("is answered under the version that asked", function()
      start { access = ECHO }
      local conn = client "/x"
      local call = other:request()
      gw:write("plugins/caller.lua", plugin { access = "return ctx:reply(200, 'new')" })
      assert.is_number((gw:reload()))
      assert.equal("new", select(2, answer_of(client "/x")))
      call:ok "old"
      assert.equal("old", select(2, answer_of(conn)))
      gw:write("plugins/caller.lua", plugin { access = "return ctx:reply(200, 'newer')" })
      assert.is_number((gw:reload()))
      wait_metric("generations", 1)
    end)

    it("ends with a version that nobody uses any more", function()
      start { load = [[
        gateway.spawn(function()
          local answer = gateway.http.get(other .. "/", { stream = true, timeout = 0 })
          answer:read()
        end)
      ]] }
      local call = other:request()
      call:reply(CHUNKED)
      wait_metric("calls", 1)
      gw:write("plugins/caller.lua", plugin {})
      assert.is_number((gw:reload()))
      assert.not_equal("timeout", call.conn:wait_end())
      wait_metric("calls", 0)
    end)

    it("is closed when the stream that opened it moves on", function()
      start { load = "local kept = {}", on_event = [[
        kept[1] = assert(gateway.http.get(other .. "/", { stream = true, timeout = 0 }))
      ]] }
      local stream = streams.open(gw, server, {})
      stream:send "data: 1\n\n"
      local call = other:request()
      call:reply(CHUNKED)
      stream:expect "data: 1\n\n"
      gw:write("plugins/caller.lua", plugin { on_event = "event.data = 'new'" })
      assert.is_number((gw:reload()))
      assert.not_equal("timeout", call.conn:wait_end())
      stream:send "data: 2\n\n"
      stream:expect "data: new\n\n"
    end)
  end)

  it("does not keep the gateway from stopping", function()
    start { load = "gateway.spawn(function() gateway.http.get(other .. '/', { timeout = 0 }) end)" }
    local call = other:request()
    gw:stop()
    assert.not_equal("timeout", call.conn:wait_end())
  end)

  it("knows names", function()
    local names = dns.listen()
    start({ access = ECHO }, { host = "other.test", dns = names.servers })
    local conn = client "/x"
    for _ = 1, 2 do
      local question = names:question()
      names:answer(question, question.type == "A" and { "127.0.0.1" } or {})
    end
    local call = other:request()
    assert.equal("other.test:" .. other.port, call:get "host")
    call:ok "named"
    assert.equal("named", select(2, answer_of(conn)))
    names:close()
  end)

  it("tells a name that is not known", function()
    local names = dns.listen()
    start({ access = ECHO }, { host = "no.test", dns = names.servers })
    local conn = client "/x"
    for _ = 1, 2 do names:answer(names:question(), { rcode = 3 }) end
    assert.equal("unknown host", select(2, answer_of(conn)))
    names:close()
  end)

  it("raises on misuse, where the plugin stands", function()
    for text, why in pairs {
      ['gateway.http.request({ url = "https://a/" })'] = "https:// is not there yet",
      ['gateway.http.request({ url = "nonsense" })'] = "expected http://HOST/PATH",
      ['gateway.http.get(other, { headers = { ["X-A"] = "b\\r\\nc: d" } })'] = "line break",
      ['gateway.http.get(other, { headers = { ["Content-Length"] = "1" } })'] = "framing",
      ['gateway.http.get(other, { timeut = 1 })'] = "no option",
      ['gateway.http.get(other, { timeout = -1 })'] = "not a time",
      ['gateway.http.request(other)'] = "expected a table",
      ['gateway.http.request({})'] = "url is missing",
      ['table.sort({ 1, 2 }, function() gateway.http.get(other) end)'] = "can't wait inside",
    } do
      start { access = "\n" .. text }
      local status = answer_of(client())
      assert.equal(500, status)
      local line = gw:wait_log "hook failed"
      assert.is_truthy(line:find(why, 1, true), line)
      assert.matches("caller%.lua:5: ", line)
      gateway.stop_all()
    end
    assert.is_nil(other:try_accept(0))
  end)

  it("says that nothing can wait while a file is loaded", function()
    local config = { services = { api = 1 }, rules = { { id = "a", path = "/", serviceName = "api",
      plugins = { "caller" } } }, files = { ["plugins/caller.lua"] = plugin { load =
      "gateway.http.get('http://127.0.0.1:1/')" } } }
    local prepared = gateway.prepare(config)
    local code, _, errors = gateway.run({ "-t", "-c", prepared.conf })
    assert.equal(1, code)
    assert.matches("gateway%.http: no hook runs here that could wait", errors)
  end)
end)
