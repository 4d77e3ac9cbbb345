local http1 = require "support.http1"
local net = require "support.net"

local C = http1.C

local loop

before_each(function()
  loop = net.loop()
end)

after_each(function()
  http1.clean(loop)
end)

local function client(options)
  return http1.client(loop, options)
end

local function send(side, bytes, turns)
  return side:feed(loop, bytes, turns)
end

local function got(side)
  return side:received(loop)
end

describe("a client's connection", function()
  local function ask(side, options)
    local s = assert(side:open())
    options = options or {}
    s:send_head { method = options.method or "GET", path = "/", authority = "x", body = false }
    s:send("", true)
    return s
  end

  local function answered(side, bytes)
    send(side, bytes or "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    http1.turn_until(loop, function() return side.log[#side.log] == "idle" or side.gone end)
  end

  local function with_request(options)
    local side = client(options)
    local s = ask(side)
    side:accept()
    http1.turn_until(loop, function() return got(side):find "\r\n\r\n$" end)
    return side, s
  end

  it("sends what was given before it was up", function()
    local side = client()
    local s = assert(side:open())
    assert.is_false(s.stream.opened)
    s:send_head { method = "POST", path = "/a?b", authority = "h:1", fields = { { "x-a", "1" }, { "host",
      "y" },
      { "connection", "x" } }, length = 3 }
    s:send("abc", true)
    side:accept()
    http1.turn_until(loop, function() return got(side):find "abc$" end)
    assert.equal("POST /a?b HTTP/1.1\r\nHost: h:1\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabc", side.seen)
    assert.equal("open", side.log[1])
    assert.is_true(s.stream.opened)
    assert.is_false(s.stream.reused)
    answered(side)
    assert.equal("open, head 200, end, close ok, idle", side:story())
    assert.is_true(s.written)
  end)

  it("frames requests", function()
    for _, case in ipairs {
      { "GET", false, nil, "x\r\n\r\n$" }, { "POST", false, nil, "Content%-Length: 0\r\n\r\n$" },
      { "PUT", false, 0, "Content%-Length: 0\r\n\r\n$" }, { "DELETE", false, 0, "x\r\n\r\n$" },
      { "POST", true, nil, "Transfer%-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n$", "ab" },
      { "GET", true, 2, "Content%-Length: 2\r\n\r\nab$", "ab" },
    } do
      local side = client()
      local s = side:open()
      s:send_head { method = case[1], path = "/", authority = "x", body = case[2], length = case[3] }
      s:send(case[5] or "", true)
      side:accept()
      http1.turn_until(loop, function() return got(side):find(case[4]) end)
    end
  end)

  it("is used again and again", function()
    local side, first = with_request()
    assert.is_nil(side:open(), "one stream at a time")
    answered(side)
    assert.equal("ok", first.got)
    local second = ask(side)
    assert.is_true(second.stream.reused)
    assert.is_true(second.stream.opened)
    answered(side)
    assert.equal("open, head 200, end, close ok, idle, head 200, end, close ok, idle", side:story())
  end)

  it("is not used again when either side ends it", function()
    for _, bytes in ipairs {
      "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
      "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
      "HTTP/1.1 204 No Content\r\n\r\n0\r\n\r\n",
    } do
      local side, s = with_request()
      answered(side, bytes)
      assert.equal("ok", s.why)
      assert.equal("close ok, gone", side:story():match "close.*", bytes)
    end
    local side = client()
    side:drain()
    assert.equal("gone", side:story())
  end)

  it("says close when it is the last request", function()
    local side = client()
    local s = side:open()
    side:drain()
    s:send_head { method = "GET", path = "/", authority = "x", body = false }
    s:send("", true)
    side:accept()
    http1.turn_until(loop, function() return got(side):find "Connection: close\r\n\r\n$" end)
    answered(side)
    assert.is_true(side.gone)
  end)

  it("is used again in 1.0 with keep-alive", function()
    local side = with_request()
    answered(side, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    assert.equal("idle", side.log[#side.log])
  end)

  it("is not used again when the answer came before the request was complete", function()
    local side = client()
    local s = side:open()
    s:send_head { method = "POST", path = "/", authority = "x", length = 10 }
    s:send "abc"
    side:accept()
    http1.turn_until(loop, function() return got(side):find "abc$" end)
    answered(side, "HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
    assert.equal("open, head 413, end, close ok, gone", side:story())
    assert.is_false(s.sent)
  end)

  it("ends when anything comes while it is idle", function()
    for _, way in ipairs { "bytes", "eof", "reset" } do
      local side = with_request()
      answered(side)
      if way == "bytes" then net.send(side.fd, "HTTP/1.1 408 Late\r\n") end
      if way == "eof" then net.close(side.fd) end
      if way == "reset" then net.reset(side.fd) end
      if way ~= "bytes" then side.fd = nil end
      -- The kernel knows before the loop does.
      assert.is_nil(side:open())
      http1.turn_until(loop, function() return side.gone end)
      assert.equal("gone", side.log[#side.log])
    end
  end)

  it("ends when bytes come before anything was asked", function()
    local side = client()
    local s = side:open()
    side:accept()
    http1.turn_until(loop, function() return s.stream.opened end)
    net.send(side.fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    http1.turn_until(loop, function() return side.gone end)
    assert.equal("open, close bad_response, gone", side:story())
    assert.is_false(s.written)
  end)

  it("tells a lost connection, and whether anything was sent and it was an old one", function()
    local side, s = with_request()
    net.close(side.fd)
    side.fd = nil
    http1.turn_until(loop, function() return side.gone end)
    assert.equal("eof", s.why)
    assert.is_true(s.written)
    assert.is_false(s.reused)

    side = with_request()
    answered(side)
    s = ask(side)
    http1.turn(loop, 2)
    net.reset(side.fd)
    side.fd = nil
    http1.turn_until(loop, function() return side.gone end)
    assert.equal("reset", s.why)
    assert.is_true(s.reused)
  end)

  it("tells a refused one", function()
    local fd, port = net.bound()
    local side = client { port = port }
    local s = ask(side)
    http1.turn_until(loop, function() return side.gone end)
    assert.equal("close refused, gone", side:story())
    assert.is_false(s.written)
    net.close(fd)
  end)

  it("tells when no descriptor is left", function()
    net.without_descriptors(function()
      local side, err = http1.client(loop, { port = 1 })
      assert.is_nil(side)
      assert.equal("overloaded", err)
    end)
  end)

  it("tells a reset in mid-body", function()
    for _, head in ipairs { "Content-Length: 9", "Transfer-Encoding: chunked", "A: b" } do
      local side, s = with_request()
      send(side, "HTTP/1.1 200 OK\r\n" .. head .. "\r\n\r\n1\r\n")
      http1.turn_until(loop, function() return s.head end)
      net.reset(side.fd)
      side.fd = nil
      http1.turn_until(loop, function() return side.gone end)
      assert.equal("reset", s.why)
    end
  end)

  -- The error comes back from send, and the end of the answer comes in order; or from the loop.
  it("reads an answer although writing has failed", function()
    for answer, expected in pairs {
      ["HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno"] = { "no", "ok", "ok" },
      ["HTTP/1.1 413 Too much\r\n\r\nno"] = { "no", "ok", "reset" },
      ["HTTP/1.1 413 Too much\r\nContent-Length: 3\r\n\r\nno"] = { "no", "truncated", "reset" },
      ["HTTP/1.1 413"] = { "", "truncated", "reset" },
      [""] = { "", "eof", "reset" },
    } do
      for i, err_after in ipairs { 100, 1000 } do
        local plan = net.plan(nil, { err = C.GW_ERR_RESET, err_after = err_after })
        local side = client { plan = plan }
        local s = side:open()
        s:send_head { method = "POST", path = "/", authority = "x", length = 100000 }
        side:accept()
        http1.turn_until(loop, function() return got(side):find "\r\n\r\n$" end)
        net.send(side.fd, answer)
        if err_after == 100 then
          net.close(side.fd)
          side.fd = nil
        end
        assert.equal("ok", s:send(("a"):rep(100 - #side.seen)))
        assert.equal("ok", s:send(("a"):rep(2000)))
        http1.turn_until(loop, function() return side.gone end)
        assert.equal(expected[1 + i], s.why, answer)
        assert.equal(expected[1], s.got, answer)
      end
    end
  end)

  it("stops reading at the window, and meets the end behind it", function()
    local side, s = with_request { hold = true }
    local block, sent, total = ("a"):rep(65536), 0, 1024 * 1024
    net.send(side.fd, "HTTP/1.1 200 OK\r\n\r\n")
    local function push()
      for _ = 1, 100 do
        if sent < total then sent = sent + net.send(side.fd, block:sub(1, math.min(#block, total - sent))) end
        http1.turn(loop)
      end
    end
    push()
    assert.is_true(#s.got >= C.GW_STREAM_WINDOW and #s.got < C.GW_STREAM_WINDOW + 32768)
    while sent < total do
      s:consumed(s.held)
      push()
    end
    net.close(side.fd)
    side.fd = nil
    http1.turn_until(loop, function()
      if not s.over then s:consumed(s.held) end
      return side.gone
    end)
    assert.equal(total, #s.got)
    assert.equal("ok", s.why)
  end)

  it("hands bodies on in the chunks they were read into", function()
    local seen = {}
    local side, s = with_request { on_body = function(_, bytes) seen[#seen + 1] = bytes end }
    send(side, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    http1.turn_until(loop, function() return s.head end)
    send(side, "3\r\nabc\r\n1;x\r\nd\r\n2\r\nef")
    http1.turn_until(loop, function() return #seen > 0 end)
    assert.same({ "abcdef" }, seen)
  end)

  it("is closed by a reset, and says so later", function()
    local side, s = with_request()
    s:reset()
    assert.is_nil(side.gone)
    http1.turn(loop, 2)
    assert.equal("open, gone", side:story())
    assert.equal("eof", select(2, http1.read_all(loop, side.fd)))
  end)

  it("is closed with its stream by the owner", function()
    local side, s = with_request()
    side:close(C.GW_ERR_SHUTDOWN)
    assert.equal("shutdown", s.why)
    assert.equal("open, close shutdown, gone", side:story())
  end)

  it("may be closed or reset from inside of any event", function()
    for _, what in ipairs { "reset", "close" } do
      for _, name in ipairs { "on_open", "on_head", "on_body", "on_end", "on_close", "on_idle" } do
        local side
        if not (what == "reset" and (name == "on_close" or name == "on_idle")) then
          side = client { [name] = function(s)
            if what == "reset" then s:reset() else side:close() end
          end }
          ask(side)
          side:accept()
          http1.turn_until(loop, function()
            local bytes = got(side)
            return side.gone or bytes:find "\r\n\r\n$"
          end)
          if not side.gone then answered(side) end
          assert.is_true(side.gone, what .. " in " .. name)
        end
      end
    end
  end)
end)
