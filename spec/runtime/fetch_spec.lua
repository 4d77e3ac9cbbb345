local ffi = require "ffi"
local dns = require "spec.support.dns"
local net = require "support.net"
local rt = require "support.runtime"

local C = rt.load("gateway/fetch.h", "gateway/stats.h", "base/shm.h", "http/fields.h")

local registry = debug.getregistry()
local shared = registry["gatewayd.spec.fetch"]

local function address(object)
  return tonumber(ffi.cast("uintptr_t", ffi.cast("void *", object)))
end

if not shared then
  shared = {}
  registry["gatewayd.spec.fetch"] = shared
  shared.changed = ffi.cast("void (*)(struct gw_fetch *)", function(fetch)
    local ok, err = xpcall(shared.on_changed, debug.traceback, fetch)
    if not ok then shared.failure = err end
  end)
end

local MIB = 1024 * 1024

describe("a fetch", function()
  local loop, gateway, settings, shm, listener, port, conns, live

  local function boot(options)
    options = options or {}
    settings = ffi.new "struct gw_settings"
    settings.keep_alive, settings.max_idle_per_host, settings.dial_ms = true, 10, 5000
    settings.origin.max_header_bytes, settings.origin.max_headers = 4096, 20
    settings.calls_per_host = options.calls or 0
    C.gw_pool_settings(gateway.pool, settings)
  end

  before_each(function()
    live, conns, shared.failure = {}, {}, nil
    shared.on_changed = function(fetch)
      local f = live[address(fetch)]
      f.changes = f.changes + 1
      if f.on_changed then f.on_changed(f) end
    end
    loop = net.loop()
    shm = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, 16 * MIB))
    gateway = ffi.new "struct gw_gateway"
    C.gw_gateway_init(gateway, loop, C.gw_facts_new(shm, C.gw_stats_new(shm)), 1)
    boot()
    listener, port = net.bound(1024)
  end)

  after_each(function()
    for _, f in pairs(live) do
      if not f.freed then C.gw_fetch_free(f.fetch) end
    end
    C.gw_gateway_fini(gateway)
    for _, conn in ipairs(conns) do net.close(conn.fd) end
    if listener then net.close(listener) end
    net.settle(loop, 3)
    assert.equal(0, tonumber(C.gw_conn_count()), "no connection is left")
    net.fini(loop)
    net.forget()
    C.gw_shm_fini(shm)
  end)

  local function slug(err) return rt.cstring(C.gw_err_slug(err)) end

  local function ask(options)
    options = options or {}
    local fetch = C.gw_fetch_new(gateway, shared.changed, nil)
    local f = { fetch = fetch, changes = 0, on_changed = options.on_changed }
    live[address(fetch)] = f
    local url = options.url or ("http://127.0.0.1:%d/x?y"):format(port)
    local wrong = C.gw_fetch_target(fetch, rt.slice(options.method or "GET"), rt.slice(url))
    if wrong ~= nil then return nil, ffi.string(wrong) end
    for name, value in pairs(options.headers or {}) do
      C.gw_fields_add(fetch.request, rt.slice(name), rt.slice(value))
    end
    local wish = ffi.new "struct gw_fetch_wish"
    wish.has_payload = options.body ~= nil
    wish.payload = rt.slice(options.body or "")
    wish.streamed, wish.timeout_ms = options.streamed or false, options.timeout_ms or 0
    wish.max_bytes = options.max_bytes or MIB
    C.gw_fetch_start(fetch, wish)
    assert.equal(0, f.changes)
    return f
  end

  -- What the backend has got, connection by connection.
  local function pump()
    while true do
      local fd = ffi.C.spec_accept4(listener, nil, nil, 0x800)
      if fd < 0 then break end
      ffi.C.spec_setsockopt(fd, 6, 1, ffi.new("int[1]", 1), 4) -- TCP_NODELAY: pieces stay pieces
      conns[#conns + 1] = { fd = fd, got = "" }
    end
    for _, conn in ipairs(conns) do
      if not conn.ended then
        local bytes, ended = net.recv(conn.fd)
        conn.got, conn.ended = conn.got .. bytes, ended
      end
    end
  end

  local function turn_until(condition)
    local tick = net.timer(loop, function() end)
    net.turn_until(loop, function()
      if listener then pump() end
      C.gw_timer_start(loop, tick.timer, 1)
      return shared.failure or condition()
    end)
    C.gw_timer_stop(loop, tick.timer)
    if shared.failure then error(shared.failure, 0) end
  end

  local function request_on(n)
    turn_until(function() return conns[n] and conns[n].got:find "\r\n\r\n" end)
    return conns[n]
  end

  local function over(f)
    turn_until(function() return f.fetch.over end)
    return slug(f.fetch.why)
  end

  local function body_of(f)
    return rt.string(C.gw_buf_linear(f.fetch.body, rt.len(f.fetch.body)))
  end

  local function free(f)
    f.freed = true
    live[address(f.fetch)] = nil
    C.gw_fetch_free(f.fetch)
  end

  local OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok"

  local function calls()
    return tonumber(gateway.count.value[C.GW_STAT_CALLS])
  end

  it("asks and keeps the whole answer", function()
    local f = ask { headers = { accept = "text/plain" } }
    local conn = request_on(1)
    assert.equal(("GET /x?y HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/plain\r\n"):format(port)
      .. "User-Agent: gatewayd/0.1.0\r\n\r\n", conn.got)
    assert.equal(1, calls())
    net.send(conn.fd, OK)
    assert.equal("ok", over(f))
    assert.equal("ok", body_of(f))
    assert.equal(200, f.fetch.response.status)
    assert.equal("b", rt.string(C.gw_fields_get(f.fetch.response, rt.slice "x-a")))
    assert.equal(0, calls())
  end)

  it("uses a connection again", function()
    for i = 1, 3 do
      local f = ask()
      turn_until(function() return conns[1] and conns[1].got:find "\r\n\r\n" end)
      conns[1].got = ""
      net.send(conns[1].fd, OK)
      assert.equal("ok", over(f), i)
    end
    assert.equal(1, #conns)
  end)

  it("sends a body, also one that is larger than any buffer", function()
    local text = ("0123456789abcdef"):rep(MIB / 4)
    local f = ask { method = "POST", body = text }
    turn_until(function() return conns[1] and #conns[1].got > #text end)
    turn_until(function() return select(2, conns[1].got:match "^(.-)\r\n\r\n(.*)$") == text end)
    assert.matches("Content%-Length: " .. #text, conns[1].got:sub(1, 200))
    net.send(conns[1].fd, OK)
    assert.equal("ok", over(f))
  end)

  it("takes an answer that is split at every byte", function()
    local answers = {
      "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
        .. "X-B: c\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
    }
    for n, answer in ipairs(answers) do
      for at = 1, #answer - 1 do
        local f = ask()
        turn_until(function() return conns[1] and conns[1].got:find "\r\n\r\n" end)
        conns[1].got = ""
        net.send(conns[1].fd, answer:sub(1, at))
        net.settle(loop, 3)
        assert.is_false(f.fetch.over)
        net.send(conns[1].fd, answer:sub(at + 1))
        assert.equal("ok", over(f), n .. " at " .. at)
        assert.equal("abcde", body_of(f))
        free(f)
      end
    end
    assert.equal(1, #conns)
  end)

  it("ends where the backend closes, if that is how the answer is framed", function()
    local f = ask()
    net.send(request_on(1).fd, "HTTP/1.0 200 OK\r\n\r\nabc")
    ffi.C.spec_shutdown(conns[1].fd, 1)
    assert.equal("ok", over(f))
    assert.equal("abc", body_of(f))
  end)

  it("has no body where there is none", function()
    local f = ask { method = "HEAD" }
    net.send(request_on(1).fd, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    assert.equal("ok", over(f))
    assert.equal("", body_of(f))
  end)

  it("tells a truncated answer", function()
    for i, answer in ipairs { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "HTTP/1.1 200 O" } do
      local f = ask()
      net.send(request_on(i).fd, answer)
      ffi.C.spec_shutdown(conns[i].fd, 1)
      assert.equal("truncated", over(f))
    end
  end)

  it("tells garbage", function()
    local f = ask()
    net.send(request_on(1).fd, "SSH-2.0-x\r\n\r\n")
    assert.equal("bad_response", over(f))
  end)

  it("bounds the head by the backend's limits", function()
    local f = ask()
    net.send(request_on(1).fd, "HTTP/1.1 200 OK\r\nX-A: " .. ("a"):rep(5000) .. "\r\n\r\n")
    assert.not_equal("ok", over(f))
  end)

  it("bounds a body that it keeps, announced or not", function()
    for i, answer in ipairs { "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" .. ("x"):rep(101) } do
      local f = ask { max_bytes = 100 }
      net.send(request_on(i).fd, answer)
      assert.equal("body_too_large", over(f))
      turn_until(function() return conns[i].ended end)
    end
    local f = ask { max_bytes = 100 }
    net.send(request_on(3).fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" .. ("x"):rep(100))
    assert.equal("ok", over(f))
  end)

  it("has one time for all of it", function()
    local f = ask { timeout_ms = 50 }
    net.send(request_on(1).fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert.equal("timeout", over(f))
    turn_until(function() return conns[1].ended end)
    assert.equal(0, calls())
  end)

  it("tells that nobody listens", function()
    net.close(listener)
    listener = nil
    assert.equal("refused", over(assert(ask())))
  end)

  describe("on a connection that was closed meanwhile", function()
    local function used()
      local f = ask()
      net.send(request_on(1).fd, OK)
      assert.equal("ok", over(f))
      conns[1].got = ""
    end

    -- The backend takes the request and is gone: only a used connection may do that.
    local function die_with_the_next_request(options)
      used()
      local f = ask(options)
      turn_until(function() return conns[1].got:find "\r\n\r\n" end)
      ffi.C.spec_shutdown(conns[1].fd, 1)
      return f
    end

    it("dials another one before it asks", function()
      used()
      ffi.C.spec_shutdown(conns[1].fd, 1)
      local f = ask { method = "POST", body = "x" }
      net.send(request_on(2).fd, OK)
      assert.equal("ok", over(f))
    end)

    it("asks once more", function()
      for _, method in ipairs { "GET", "PUT" } do
        local f = die_with_the_next_request { method = method, body = method == "PUT" and "xyz" or nil }
        net.send(request_on(2).fd, OK)
        assert.equal("ok", over(f))
        if method == "PUT" then assert.matches("\r\n\r\nxyz$", conns[2].got) end
        for _, conn in ipairs(conns) do net.close(conn.fd) end
        conns = {}
        net.settle(loop, 5)
      end
    end)

    it("does not ask twice more", function()
      local f = die_with_the_next_request()
      request_on(2)
      ffi.C.spec_shutdown(conns[2].fd, 1)
      assert.equal("eof", over(f))
      assert.equal(2, #conns)
    end)

    it("does not repeat what may do something twice", function()
      assert.equal("eof", over(die_with_the_next_request { method = "POST", body = "x" }))
      assert.equal(1, #conns)
    end)

    it("does not ask again when an answer had begun", function()
      used()
      local f = ask()
      turn_until(function() return conns[1].got:find "\r\n\r\n" end)
      net.send(conns[1].fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na")
      turn_until(function() return f.fetch.response ~= nil end)
      ffi.C.spec_shutdown(conns[1].fd, 1)
      assert.equal("truncated", over(f))
      assert.equal(1, #conns)
    end)
  end)

  it("does not ask again on a new connection that ends without a word", function()
    local f = ask()
    request_on(1)
    ffi.C.spec_shutdown(conns[1].fd, 1)
    assert.equal("eof", over(f))
    net.settle(loop, 3)
    pump()
    assert.equal(1, #conns)
  end)

  describe("streamed", function()
    local function opened()
      local f = ask { streamed = true, max_bytes = 1 }
      net.send(request_on(1).fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
      turn_until(function() return f.fetch.response ~= nil end)
      return f
    end

    local function take(f)
      local out = ffi.new "struct gw_buf"
      C.gw_fetch_take(f.fetch, out)
      return net.take(out)
    end

    it("gives the body as it comes", function()
      local f = opened()
      for _, piece in ipairs { "abc", "defg" } do
        net.send(conns[1].fd, ("%x\r\n%s\r\n"):format(#piece, piece))
        turn_until(function() return rt.len(f.fetch.body) > 0 end)
        assert.equal(piece, take(f))
      end
      net.send(conns[1].fd, "2\r\nhi\r\n0\r\n\r\n")
      assert.equal("ok", over(f))
      assert.equal("hi", take(f))
    end)

    it("does not read ahead of who takes it", function()
      local f = opened()
      local piece = ("%x\r\n%s\r\n"):format(32768, ("x"):rep(32768))
      local sent = 0
      for _ = 1, 2000 do
        local n = net.send(conns[1].fd, piece:sub(sent % #piece + 1))
        sent = sent + n
        net.settle(loop, 1)
        if n == 0 and sent > 0 then break end
      end
      assert.is_true(rt.len(f.fetch.body) <= C.GW_STREAM_WINDOW + C.GW_READ_SIZE)
      local got, all = 0, math.floor(sent / #piece) * 32768
      turn_until(function()
        got = got + #take(f)
        return got >= all
      end)
    end)

    it("has the time for each piece that is waited for", function()
      local f = ask { streamed = true, timeout_ms = 60 }
      net.send(request_on(1).fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
      turn_until(function() return rt.len(f.fetch.body) > 0 end)
      local late = false
      local timer = net.timer(loop, function() late = true end)
      C.gw_timer_start(loop, timer.timer, 200)
      turn_until(function() return late end)
      assert.is_false(f.fetch.over, "it is the reader who does not read")
      take(f)
      assert.equal("timeout", over(f))
    end)

    it("keeps what came before a break", function()
      local f = opened()
      net.send(conns[1].fd, "2\r\nhi\r\n")
      turn_until(function() return rt.len(f.fetch.body) > 0 end)
      net.reset(table.remove(conns).fd)
      assert.not_equal("ok", over(f))
      assert.equal("hi", take(f))
    end)
  end)

  describe("that is cancelled", function()
    it("closes its connection, wherever it stands", function()
      local before = ask()
      free(before)
      local dialling = ask()
      net.turn(loop)
      free(dialling)
      local asking = ask()
      turn_until(function() return conns[#conns] and conns[#conns].got:find "\r\n\r\n" end)
      free(asking)
      turn_until(function()
        for _, conn in ipairs(conns) do
          if not conn.ended then return false end
        end
        return true
      end)
      assert.equal(0, calls())
    end)

    it("may be freed by its owner in a callback", function()
      for _, answer in ipairs { OK, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "garbage\r\n\r\n" } do
        local done
        local f = ask { streamed = true, on_changed = function(self)
          free(self)
          done = true
        end }
        turn_until(function() return conns[#conns] and conns[#conns].got:find "\r\n\r\n" end)
        local conn = table.remove(conns)
        net.send(conn.fd, answer)
        turn_until(function() return done end)
        assert.equal(1, f.changes)
        net.close(conn.fd)
        net.settle(loop, 3)
      end
    end)

    it("goes with the gateway", function()
      local f = ask()
      request_on(1)
      C.gw_fetch_abort_all(gateway, C.GW_ERR_SHUTDOWN)
      assert.equal("shutdown", slug(f.fetch.why))
    end)
  end)

  describe("among many", function()
    it("waits for its turn where the address has enough to do", function()
      boot { calls = 3 }
      local all, done = {}, 0
      for i = 1, 50 do
        all[i] = ask { on_changed = function(f) if f.fetch.over then done = done + 1 end end }
      end
      turn_until(function()
        for _, conn in ipairs(conns) do
          while conn.got:find "\r\n\r\n" do
            conn.got = conn.got:gsub("^.-\r\n\r\n", "", 1)
            net.send(conn.fd, OK)
          end
        end
        return done == 50
      end)
      for _, f in ipairs(all) do assert.equal("ok", slug(f.fetch.why)) end
      assert.equal(3, #conns)
    end)

    it("leaves the queue when its time is over, and hands on its turn", function()
      boot { calls = 1 }
      local first = ask()
      request_on(1)
      local second, third = ask { timeout_ms = 30 }, ask()
      assert.equal("timeout", over(second))
      free(first)
      net.send(request_on(2).fd, OK)
      assert.equal("ok", over(third))
    end)

    it("does not count streamed ones", function()
      boot { calls = 1 }
      ask { streamed = true }
      local f = ask()
      turn_until(function() return conns[2] and conns[2].got:find "\r\n\r\n" end)
      net.send(conns[1].fd, OK)
      net.send(conns[2].fd, OK)
      assert.equal("ok", over(f))
    end)
  end)

  describe("of a name", function()
    local server

    before_each(function()
      server = dns.listen()
      C.gw_resolver_free(gateway.resolver)
      gateway.resolver = C.gw_resolver_new(loop,
        ffi.new("struct gw_resolver_options", { servers = server.servers, deadline_ms = 200 }))
    end)

    after_each(function() server:close() end)

    local function by_name(zone, name)
      local f = assert(ask { url = ("http://%s:%d/"):format(name, port) })
      turn_until(function()
        server:serve(zone)
        return f.fetch.over or conns[1] and conns[1].got:find "\r\n\r\n"
      end)
      return f
    end

    it("looks it up", function()
      local f = by_name({ ["back.test"] = { "127.0.0.1" } }, "back.test")
      assert.matches("\r\nHost: back%.test:%d+\r\n", conns[1].got)
      net.send(conns[1].fd, OK)
      assert.equal("ok", over(f))
    end)

    it("goes on to the next address", function()
      local f = by_name({ ["back.test"] = { "127.0.0.9", "127.0.0.8", "127.0.0.1" } }, "back.test")
      net.send(conns[1].fd, OK)
      assert.equal("ok", over(f))
    end)

    it("knows localhost", function()
      local f = by_name({}, "localhost")
      net.send(conns[1].fd, OK)
      assert.equal("ok", over(f))
    end)

    it("tells that it is not known, and that nobody says", function()
      assert.equal("unknown_name", slug(by_name({ ["no.test"] = false }, "no.test").fetch.why))
      assert.equal("resolve_failed", slug(by_name({}, "silent.test").fetch.why))
    end)

    it("can be cancelled while it is looked up", function()
      local f = assert(ask { url = "http://slow.test/" })
      net.turn(loop)
      free(f)
      net.settle(loop, 3)
    end)
  end)

  it("refuses what it can't ask", function()
    for url, why in pairs {
      ["https://a/"] = "https", ["ftp://a/"] = "http://HOST", [""] = "http://HOST", ["/x"] = "http://HOST",
      ["http://"] = "http://HOST", ["http://a b/"] = "URL", ["http://a/#b"] = "URL",
      ["http://u:p@a/"] = "URL", ["http://a:99999/"] = "URL",
      ["http://a/\r\nX: y"] = "URL", ["http://[::1/"] = "URL", ["http:///x"] = "URL",
    } do
      local f, wrong = ask { url = url }
      assert.is_nil(f, url)
      assert.matches(why, wrong)
    end
    for _, method in ipairs { "", "CONNECT", "A B", "G\n" } do
      assert.is_nil((ask { method = method }))
    end
  end)

  it("reads all forms of a URL", function()
    for url, want in pairs {
      ["http://a.test"] = { "a.test", 80, "a.test", "/" },
      ["HTTP://a.test:81?x"] = { "a.test", 81, "a.test:81", "/?x" },
      ["http://[::1]:82/y?z=%20"] = { "::1", 82, "[::1]:82", "/y?z=%20" },
      ["http://[2001:db8::1]/"] = { "2001:db8::1", 80, "[2001:db8::1]", "/" },
    } do
      local f = C.gw_fetch_new(gateway, shared.changed, nil)
      assert.is_nil(rt.cstring(C.gw_fetch_target(f, rt.slice "GET", rt.slice(url))), url)
      assert.same(want, { ffi.string(f.name), f.port, rt.string(f.request.authority),
        rt.string(f.request.path) })
      C.gw_fetch_free(f)
    end
  end)
end)
