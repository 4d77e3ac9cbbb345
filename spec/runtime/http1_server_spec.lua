local http1 = require "support.http1"
local rt = require "support.runtime"
local net = require "support.net"

local C = http1.C
local GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
local POST = "POST / HTTP/1.1\r\nHost: x\r\n"

local loop

before_each(function()
  loop = net.loop()
end)

after_each(function()
  http1.clean(loop)
end)

local function server(options)
  return http1.server(loop, options)
end

local function send(side, bytes, turns)
  return side:feed(loop, bytes, turns)
end

local function got(side)
  return side:received(loop)
end

local function count(text, what)
  local _, n = text:gsub(what, "")
  return n
end

local function reply_ok(s)
  s:reply { body = "ok" }
end

describe("a server's connection", function()
  it("answers pipelined requests in their order, one at a time", function()
    local side = server()
    send(side, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.equal(1, #side.streams)
    side.streams[1]:reply { body = "one" }
    assert.equal(1, #side.streams, "nothing happens inside of an op")
    http1.turn(loop, 3)
    assert.equal("/2", side.streams[2].head.path)
    side.streams[2]:reply { body = "two" }
    local bytes = got(side)
    assert.truthy(bytes:find "one.*two$")
    assert.equal("head GET /1, end, close ok, head GET /2, end, close ok", side:story())
  end)

  it("carries a hundred pipelined requests that are answered at once", function()
    local side = server { on_end = reply_ok }
    send(side, GET:rep(100))
    assert.equal(100, count(got(side), "HTTP/1%.1 200"))
  end)

  it("keeps a body and what is pipelined behind it apart", function()
    local side = server { on_end = reply_ok }
    send(side, POST .. "Content-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.equal("abc", side.streams[1].got)
    assert.equal("/2", side.streams[2].head.path)
  end)

  it("lives on or ends by the rules of the version", function()
    for _, case in ipairs {
      { "HTTP/1.1\r\nHost: x", nil }, { "HTTP/1.1\r\nHost: x\r\nConnection: close", "eof" },
      { "HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close", "eof" },
      { "HTTP/1.0", "eof" }, { "HTTP/1.0\r\nConnection: Keep-Alive", nil },
      { "HTTP/1.0\r\nConnection: keep-alive, close", "eof" },
    } do
      local side = server { on_end = reply_ok }
      send(side, "GET / " .. case[1] .. "\r\n\r\n")
      local bytes, ended = got(side)
      assert.equal(case[2], ended, case[1])
      assert.equal(ended == "eof", bytes:find("Connection: close", 1, true) ~= nil, case[1])
      assert.equal(case[1] == "HTTP/1.0\r\nConnection: Keep-Alive",
        bytes:find("Connection: keep-alive", 1, true) ~= nil, case[1])
    end
  end)

  it("tells each end of a body in the way that the client knows", function()
    for _, case in ipairs {
      -- version, head of the answer, expected tail of what is sent, connection ends
      { "1.1", { length = 4 }, "Content%-Length: 4\r\n\r\nabcd$" },
      { "1.1", {}, "Transfer%-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n$" },
      { "1.0", {}, "Connection: close\r\n\r\nabcd$", true },
      { "1.0", { length = 4 }, "Content%-Length: 4\r\nConnection: close\r\n\r\nabcd$", true },
    } do
      local side = server()
      send(side, "GET / HTTP/" .. case[1] .. "\r\nHost: x\r\n\r\n")
      local s = side.streams[1]
      assert.equal("ok", s:send_head { status = 200, length = case[2].length })
      assert.equal("ok", s:send "ab")
      assert.equal("ok", s:send("cd", true))
      local bytes, ended = got(side)
      assert.truthy(bytes:find(case[3]), bytes)
      assert.equal(case[4], ended == "eof" or nil)
      assert.equal(case[2].length and 1 or 0, count(bytes, "Content%-Length"))
    end
  end)

  it("sends no body where there is none, with the length where it may", function()
    for _, case in ipairs {
      { "HEAD", 200, 4, "Content%-Length: 4\r\n\r\n$" }, { "HEAD", 200, 0, "Content%-Length: 0\r\n\r\n$" },
      { "HEAD", 200, nil, "GMT\r\n\r\n$" }, { "GET", 204, 4, "GMT\r\n\r\n$" },
      { "GET", 304, 4, "Content%-Length: 4\r\n\r\n$" }, { "GET", 304, nil, "GMT\r\n\r\n$" },
    } do
      local side = server()
      send(side, case[1] .. " / HTTP/1.1\r\nHost: x\r\n\r\n")
      local s = side.streams[1]
      s:send_head { status = case[2], length = case[3] }
      assert.equal("ok", s:send("abcd", true))
      assert.truthy(got(side):find(case[4]), side.seen)
      assert.equal("ok", s.why)
      send(side, GET)
      assert.equal(2, #side.streams)
    end
  end)

  it("says that an answer without a body is empty", function()
    local side = server()
    send(side, GET)
    side.streams[1]:send_head { status = 200, body = false }
    side.streams[1]:send("", true)
    assert.truthy(got(side):find "Content%-Length: 0\r\n\r\n$")
  end)

  it("writes fields in the usual spelling, its own framing, and Date where there is none", function()
    local side = server()
    send(side, GET)
    side.streams[1]:reply { status = 299, fields = { { "X-a-bc", "1" }, { "content-length", "77" },
      { "transfer-encoding", "chunked" }, { "connection", "close" }, { "date", "then" } } }
    assert.equal("HTTP/1.1 299 \r\nX-A-Bc: 1\r\nDate: then\r\nContent-Length: 0\r\n\r\n", (got(side)))
  end)

  it("sends head and body in one piece, and each later piece in one", function()
    local plan = net.plan()
    local side = server { plan = plan }
    send(side, GET)
    local s = side.streams[1]
    s:send_head { status = 200 }
    s:send(("a"):rep(3000))
    assert.is_true(plan.write.calls <= 2)
    local before = tonumber(plan.write.calls)
    s:send(("b"):rep(3000))
    s:send(("c"):rep(200), true)
    assert.equal(before + 2, tonumber(plan.write.calls))
    assert.truthy(got(side):find("c8\r\n" .. ("c"):rep(200) .. "\r\n0\r\n\r\n", 1, true))
  end)

  it("sends a head alone at the next turn", function()
    local side = server()
    send(side, GET)
    side.streams[1]:send_head { status = 200 }
    assert.equal("", (net.recv(side.fd)))
    assert.truthy(got(side):find "\r\n\r\n$")
  end)

  it("closes when more or less is sent than was announced", function()
    local side = server()
    send(side, GET)
    side.streams[1]:send_head { status = 200, length = 2 }
    assert.equal("bad_response", side.streams[1]:send "abc")
    http1.turn(loop, 2)
    assert.equal("bad_response", side.streams[1].why)
    assert.is_true(side.gone)

    side = server()
    send(side, GET)
    side.streams[1]:send_head { status = 200, length = 2 }
    assert.equal("truncated", side.streams[1]:send("a", true))
    http1.turn(loop, 2)
    assert.equal("truncated", side.streams[1].why)
    assert.is_true(side.gone)
  end)

  it("passes 1xx on, but not to HTTP/1.0", function()
    for version, found in pairs { ["1.1"] = true, ["1.0"] = false } do
      local side = server()
      send(side, "GET / HTTP/" .. version .. "\r\nHost: x\r\n\r\n")
      local s = side.streams[1]
      assert.equal("ok", s:send_head { status = 103, fields = { { "link", "a" } } })
      s:reply { body = "ok" }
      local bytes = got(side)
      assert.equal(found, bytes:find("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200", 1, true) == 1)
      assert.equal(not found, bytes:find "^HTTP/1%.1 200" == 1)
    end
  end)

  it("gives the body while the answer goes out", function()
    local side = server { on_body = function(s, bytes)
      if not s.started then s:send_head { status = 200 } end
      s.started = true
      s:send(bytes)
    end, on_end = function(s) s:send("", true) end }
    send(side, POST .. "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    assert.truthy(got(side):find "ab\r\n$")
    send(side, "2\r\ncd\r\n0\r\n\r\n")
    assert.truthy(got(side):find "cd\r\n0\r\n\r\n$")
    assert.equal("ok", side.streams[1].why)
  end)

  it("stops reading at the window and goes on below half of it", function()
    local side = server { hold = true }
    local total = 2 * 1024 * 1024
    send(side, POST .. "Content-Length: " .. total .. "\r\n\r\n")
    local s, block, sent = side.streams[1], ("a"):rep(65536), 0
    local function push()
      for _ = 1, 200 do
        if sent < total then sent = sent + net.send(side.fd, block:sub(1, math.min(#block, total - sent))) end
        http1.turn(loop)
      end
    end
    push()
    local stopped = #s.got
    assert.is_true(stopped >= C.GW_STREAM_WINDOW and stopped < C.GW_STREAM_WINDOW + 32768, stopped)
    s:consumed(1000)
    push()
    assert.equal(stopped, #s.got)
    while not s.ended do
      s:consumed(s.held)
      push()
    end
    assert.equal(total, #s.got)
  end)

  it("does not read on without bound behind a request that is not answered", function()
    local side = server { max_header_bytes = 1024 }
    send(side, GET)
    local block, sent = ("a"):rep(65536), 0
    for _ = 1, 200 do
      sent = sent + net.send(side.fd, block)
      http1.turn(loop)
    end
    local held = rt.len(side.codec.conn["in"])
    assert.is_true(held >= 65536 and held < 65536 + 1024 + 32768, held)
    side.streams[1]:reply()
    assert.truthy(got(side):find "^HTTP/1.1 200.*HTTP/1.1 414")
  end)

  it("takes a client that closes, or half-closes, as gone", function()
    for _, tcp in ipairs { false, true } do
      local side = server { tcp = tcp }
      send(side, GET)
      net.close(side.fd)
      side.fd = nil
      http1.turn_until(loop, function() return side.gone end)
      assert.equal("head GET /, end, close client_gone, gone", side:story())
    end
    local side = server { tcp = true }
    send(side, POST .. "Content-Length: 2\r\n\r\na")
    net.reset(side.fd)
    side.fd = nil
    http1.turn_until(loop, function() return side.gone end)
    assert.equal("head POST /, close client_gone, gone", side:story())
  end)

  it("says nothing when the client leaves in mid-head", function()
    local side = server()
    send(side, "GET / HT")
    net.close(side.fd)
    side.fd = nil
    http1.turn(loop, 2)
    assert.equal("gone", side:story())
  end)

  it("ends an answer whose client takes nothing only when the rest is out", function()
    local side = server()
    send(side, GET)
    local s = side.streams[1]
    s:reply { body = ("x"):rep(4 * 1024 * 1024) }
    http1.turn(loop, 3)
    assert.is_nil(s.why)
    assert.is_true(s:pending() > 0)
    http1.turn_until(loop, function()
      got(side)
      return s.why
    end)
    assert.equal("ok", s.why)
    assert.truthy(side:story():find("drained, close ok", 1, true))
    send(side, GET)
    assert.equal(2, #side.streams)
  end)
end)

describe("a request that is answered early", function()
  local function early(announce, sent, options)
    options = options or {}
    options.on_head = function(s)
      if not options.once then s:reply { status = 403, body = "no" } end
      options.once = true
    end
    local side = server(options)
    send(side, POST .. announce .. "\r\n\r\n" .. sent)
    return side
  end

  it("is read to its end and dropped, and the connection goes on", function()
    local side = early("Content-Length: 10", "abcde")
    assert.equal("head POST /, close ok", side:story())
    assert.is_false(side.streams[1].received)
    send(side, "fghij" .. GET)
    assert.equal("/", side.streams[2].head.path)
    side = early("Transfer-Encoding: chunked", "5\r\nabcde\r\n")
    send(side, "0\r\n\r\n" .. GET)
    assert.equal(2, #side.streams)
    assert.is_nil(got(side):find "Connection: close")
  end)

  it("is not taken for the next request", function()
    local body = "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
    local side = early("Content-Length: " .. #body, "")
    send(side, body)
    assert.equal(1, #side.streams)
    send(side, GET)
    assert.equal("/", side.streams[2].head.path)
  end)

  it("ends the connection when too much would have to be dropped", function()
    local side = early("Content-Length: 1000000", "abcde")
    local bytes, ended = got(side)
    assert.truthy(bytes:find "Connection: close")
    assert.equal("eof", ended)
    side = early("Transfer-Encoding: chunked", "8000\r\n", { linger_ms = 60000 })
    for _ = 1, 3 do send(side, ("a"):rep(32768) .. "\r\n8000\r\n", 5) end
    http1.turn_until(loop, function() return side.gone end)
    assert.equal(1, #side.streams)
  end)

  it("ends the connection when the rest does not come", function()
    local side = early("Content-Length: 10", "abcde", { linger_ms = 30 })
    http1.turn_until(loop, function() return side.gone end)
    assert.equal("head POST /, close ok, gone", side:story())
  end)

  it("ends also when the answer is stuck and the body waits for nobody", function()
    for _, body in ipairs { "", ("a"):rep(40000) } do
      local side = server { hold = true, linger_ms = 40, write_ms = 40 }
      send(side, POST .. "Content-Length: 50000\r\n\r\n" .. body)
      side.streams[1]:reply { body = ("x"):rep(4 * 1024 * 1024) }
      http1.turn_until(loop, function() return C.gw_conn_count() == 0 end)
      assert.equal("head POST /, close write_timeout, gone", side:story())
    end
  end)

  it("gives the exchange no more of the body", function()
    local side = server { on_head = function(s) s.asked = true end }
    send(side, POST .. "Content-Length: 6\r\n\r\nab")
    side.streams[1]:reply { body = ("x"):rep(4 * 1024 * 1024) }
    send(side, "cdef" .. GET)
    assert.equal("ab", side.streams[1].got)
    http1.turn_until(loop, function()
      got(side)
      return #side.streams == 2
    end)
  end)

  it("ends the connection when garbage comes for the rest", function()
    local side = early("Transfer-Encoding: chunked", "5\r\nabcde\r\n")
    send(side, "xyz\r\n")
    assert.is_true(side.gone)
  end)

  it("ends the connection when the client was not told to send the rest", function()
    local side = early("Content-Length: 10\r\nExpect: 100-continue", "")
    local bytes, ended = got(side)
    assert.truthy(bytes:find "^HTTP/1.1 403.*Connection: close")
    assert.equal("eof", ended)
  end)

  it("goes on after a 100 of the exchange's", function()
    local side = server { on_end = reply_ok }
    function side.on_head(s) s:send_head { status = 100, body = false } end
    send(side, POST .. "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert.equal("HTTP/1.1 100 Continue\r\n\r\n", (got(side)))
    send(side, "ab")
    assert.truthy(got(side):find "^HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert.is_nil(side.seen:find "Connection: close")
  end)
end)

describe("a refused request", function()
  it("gets the page of the owner", function()
    local side = server { page = "no such thing" }
    send(side, "GET /\r\n\r\n")
    local bytes, ended = got(side)
    assert.equal("eof", ended)
    assert.truthy(bytes:find "^HTTP/1.1 400 Bad Request\r\nContent%-Type: text/plain\r\n")
    assert.truthy(bytes:find "Content%-Length: 13\r\nConnection: close\r\n\r\nno such thing$")
    assert.equal("refused bad_request, gone", side:story())
  end)

  it("gets no body where it asked for HEAD", function()
    local side = server { page = "no such thing" }
    send(side, "HEAD / HTTP/1.1\r\n\r\n")
    assert.truthy(got(side):find "Content%-Length: 13\r\nConnection: close\r\n\r\n$")
  end)

  it("gets 503 when the owner takes no stream", function()
    local side = server { full = true }
    send(side, GET)
    assert.truthy(got(side):find "^HTTP/1.1 503")
    assert.equal("refused overloaded, gone", side:story())
  end)

  it("is answered behind the answer before it", function()
    local side = server()
    send(side, GET .. "BAD\r\n\r\n")
    assert.equal("", (got(side)))
    side.streams[1]:reply { body = "ok" }
    assert.truthy(got(side):find "^HTTP/1.1 200.*okHTTP/1.1 400")
  end)

  it("has its answer in spite of what it still sends", function()
    local side = server { tcp = true }
    send(side, "BAD\r\n\r\n")
    for _ = 1, 5 do send(side, ("a"):rep(1000)) end
    local bytes, ended = http1.read_all(loop, side.fd)
    assert.truthy(bytes:find "^HTTP/1.1 400")
    assert.equal("eof", ended)
  end)

  it("is broken off when its body goes wrong behind the answer's head", function()
    local side = server { on_head = function(s)
      s:send_head { status = 200 }
      s:send "ab"
    end }
    send(side, POST .. "Transfer-Encoding: chunked\r\n\r\nxyz\r\n")
    local bytes, ended = got(side)
    assert.truthy(bytes:find "2\r\nab\r\n$")
    assert.equal("eof", ended)
    assert.equal("head POST /, close bad_request, gone", side:story())
  end)

  it("is told to the exchange before it is answered", function()
    local side = server { max_body_bytes = 5 }
    send(side, POST .. "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n1\r\nf\r\n0\r\n\r\n")
    assert.truthy(got(side):find "^HTTP/1.1 413")
    assert.equal("head POST /, close body_too_large, refused body_too_large, gone", side:story())
    assert.equal("abcde", side.streams[1].got)
  end)
end)

describe("time", function()
  local function gone(side)
    http1.turn_until(loop, function() return side.gone end)
    return side:story(), (got(side))
  end

  it("ends a connection that sends nothing, silently", function()
    local story, bytes = gone(server { idle_ms = 30 })
    assert.equal("gone", story)
    assert.equal("", bytes)
  end)

  it("ends a connection between requests, silently", function()
    local side = server { idle_ms = 30, on_end = reply_ok }
    send(side, GET)
    local story, bytes = gone(side)
    assert.equal("head GET /, end, close ok, gone", story)
    assert.equal(1, count(bytes, "HTTP/1%.1"))
  end)

  it("ends a head that takes too long in total, with 408", function()
    local side = server { head_ms = 60, idle_ms = 10000 }
    local head, byte = "GET / HTTP/1.1\r\nA: " .. ("b"):rep(1000), 0
    http1.turn_until(loop, function()
      byte = byte + 1
      if not side.gone then net.send(side.fd, head:sub(byte, byte)) end
      return side.gone or byte > 900
    end)
    local story, bytes = gone(side)
    assert.equal("refused head_timeout, gone", story)
    assert.truthy(bytes:find "^HTTP/1.1 408")
  end)

  it("gives a head its time again after each request", function()
    local side = server { head_ms = 40, on_end = reply_ok }
    send(side, GET)
    http1.turn_until(loop, (function()
      local late = false
      C.gw_timer_start(loop, net.timer(loop, function() late = true end).timer, 60)
      return function() return late end
    end)())
    send(side, GET)
    assert.equal(2, #side.streams)
    assert.is_nil(side.gone)
  end)

  it("ends a body that does not go on, with 408 if no head went out", function()
    local side = server { body_ms = 30 }
    send(side, POST .. "Content-Length: 5\r\n\r\nab")
    local story, bytes = gone(side)
    assert.equal("head POST /, close body_timeout, refused body_timeout, gone", story)
    assert.truthy(bytes:find "^HTTP/1.1 408")
  end)

  it("does not count against the client while the gateway does not read", function()
    local side = server { body_ms = 30, hold = true }
    send(side, POST .. "Content-Length: 1000000\r\n\r\n")
    local s = side.streams[1]
    for _ = 1, 50 do
      net.send(side.fd, ("a"):rep(16384))
      http1.turn(loop)
    end
    local late = false
    C.gw_timer_start(loop, net.timer(loop, function() late = true end).timer, 80)
    http1.turn_until(loop, function() return late end)
    assert.is_nil(s.why)
    side.hold = nil
    s:consumed(s.held)
    http1.turn_until(loop, function() return s.why end)
    assert.equal("body_timeout", s.why)
  end)

  it("waits for the exchange's 100 before it waits for a body", function()
    local side = server { body_ms = 30 }
    send(side, POST .. "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    local late = false
    C.gw_timer_start(loop, net.timer(loop, function() late = true end).timer, 80)
    http1.turn_until(loop, function() return late end)
    assert.is_nil(side.streams[1].why)
    side.streams[1]:send_head { status = 100, body = false }
    assert.truthy(gone(side):find("close body_timeout", 1, true))
  end)

  it("ends an answer that nobody takes and nobody looks after", function()
    local side = server { write_ms = 40 }
    send(side, GET)
    side.streams[1]:reply { body = ("x"):rep(4 * 1024 * 1024) }
    assert.truthy(gone(side):find("close write_timeout, gone", 1, true))
  end)
end)

describe("a reset on the server side", function()
  local function started(version, length)
    local side = server { tcp = true }
    send(side, "GET / HTTP/" .. version .. "\r\nHost: x\r\n\r\n")
    http1.turn_until(loop, function() return side.streams[1] end)
    side.streams[1]:send_head { status = 200, length = length }
    side.streams[1]:send "ab"
    http1.turn_until(loop, function() return got(side):find "ab" end)
    return side
  end

  it("leaves the last chunk out", function()
    local side = started "1.1"
    side.streams[1]:reset()
    assert.is_nil(side.gone, "nothing is called from inside of an op")
    local bytes, ended = http1.read_all(loop, side.fd)
    assert.equal("", bytes)
    assert.equal("eof", ended)
    http1.turn(loop)
    assert.equal("head GET /, end, gone", side:story())
  end)

  it("leaves the rest of a length out", function()
    local side = started("1.1", 5)
    side.streams[1]:reset()
    assert.equal("eof", select(2, http1.read_all(loop, side.fd)))
  end)

  it("is a reset of the connection where its end would be that of the body", function()
    local side = started "1.0"
    side.streams[1]:reset()
    assert.equal("reset", select(2, http1.read_all(loop, side.fd)))
  end)

  it("is a reset also when all was sent and not all is out", function()
    local side = server { tcp = true }
    send(side, "GET / HTTP/1.0\r\n\r\n")
    http1.turn_until(loop, function() return side.streams[1] end)
    side.streams[1]:send_head { status = 200 }
    side.streams[1]:send(("x"):rep(16 * 1024 * 1024), true)
    assert.is_true(side.streams[1]:pending() > 0)
    side.streams[1]:reset(C.GW_ERR_WRITE_TIMEOUT)
    assert.equal("reset", select(2, http1.read_all(loop, side.fd)))
  end)

  it("just closes before a head went out", function()
    local side = server()
    send(side, GET)
    side.streams[1]:reset()
    local bytes, ended = got(side)
    assert.equal("", bytes)
    assert.equal("eof", ended)
  end)

  it("may come from inside of any event", function()
    for _, name in ipairs { "on_head", "on_body", "on_end" } do
      local side = server { [name] = function(s) s:reset() end }
      send(side, POST .. "Content-Length: 2\r\n\r\nab" .. GET)
      assert.is_true(side.gone)
      assert.equal(1, #side.streams)
    end
  end)
end)

describe("the owner of a server's connection", function()
  it("drains an idle one at once", function()
    local side = server()
    side:drain()
    assert.equal("gone", side:story())
    assert.equal("eof", select(2, got(side)))
  end)

  it("drains a busy one after its answer, which says so", function()
    local side = server()
    send(side, GET .. GET)
    side:drain()
    side.streams[1]:reply()
    local bytes, ended = got(side)
    assert.truthy(bytes:find "Connection: close")
    assert.equal("eof", ended)
    assert.equal("head GET /, end, close ok, gone", side:story())
  end)

  it("lets a head that has begun come to its end when draining", function()
    local side = server { on_end = reply_ok }
    send(side, "GET / HTTP/1.1\r\n")
    side:drain()
    send(side, "Host: x\r\n\r\n")
    assert.truthy(got(side):find "^HTTP/1.1 200.*Connection: close")
    assert.is_true(side.gone)
  end)

  it("closes with a stream on it", function()
    local side = server()
    send(side, GET)
    assert.equal(1, side.codec.ops.streams(side.codec))
    side:close(C.GW_ERR_SHUTDOWN)
    assert.equal("head GET /, end, close shutdown, gone", side:story())
  end)

  it("may close from inside of any event", function()
    for _, name in ipairs { "on_head", "on_body", "on_end", "on_close" } do
      local side
      side = server { [name] = function() side:close() end }
      send(side, POST .. "Content-Length: 2\r\n\r\nab")
      if name == "on_close" then
        side.streams[1]:reply()
        http1.turn(loop, 2)
      end
      assert.is_true(side.gone)
    end
  end)
end)

describe("memory", function()
  it("is held by no buffer while a connection waits", function()
    local before = tonumber(C.gw_buf_memory())
    local side = server { on_end = reply_ok }
    send(side, GET)
    assert.equal("ok", side.streams[1].why)
    assert.equal(before, tonumber(C.gw_buf_memory()))
    send(side, GET)
    got(side)
    assert.equal(before, tonumber(C.gw_buf_memory()))
  end)
end)
