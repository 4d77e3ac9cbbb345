--- Streams that become tunnels, on either side of a codec.
local http1 = require "support.http1"
local net = require "support.net"
local sys = require "support.sys"

local ASK = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n"
local AGREE = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n"

describe("a tunnel", function()
  local loop

  before_each(function() loop = net.loop() end)
  after_each(function() http1.clean(loop) end)

  local function until_true(f) http1.turn_until(loop, f) end

  describe("on a server's connection", function()
    local function asked(bytes, split)
      local side = http1.server(loop, {})
      for i = 1, split and #bytes or 1 do side:feed(loop, split and bytes:sub(i, i) or bytes, 1) end
      until_true(function() return side.streams[1] and side.streams[1].ended end)
      return side, side.streams[1]
    end

    -- The request's own end was noted before.
    local function open(s)
      s.ended = false
      return s:send_head { status = 101, upgrade_to = "ws", body = false }
    end

    for _, split in ipairs { false, true } do
      it("begins with what came behind the request" .. (split and ", byte by byte" or ""), function()
        local side, s = asked(ASK .. "early", split)
        assert.equal("", s.got)
        assert.equal("ok", open(s))
        until_true(function() return s.got == "early" end)
        assert.equal(AGREE, (side:received(loop)))
        side:feed(loop, "GET / HTTP/9\r\n\0")
        assert.equal("earlyGET / HTTP/9\r\n\0", s.got)
        s:send("HTTP/1.1 200\r\n")
        assert.equal(AGREE .. "HTTP/1.1 200\r\n", (side:received(loop)))
        assert.equal("head GET /, end", side:story())
      end)
    end

    it("ends when both have ended, in either order", function()
      for _, first in ipairs { true, false } do
        local side, s = asked(ASK)
        open(s)
        local function hear()
          sys.C.spec_shutdown(side.fd, 1)
          until_true(function() return s.ended end)
        end
        local function say()
          assert.equal("ok", s:send("bye", true))
          until_true(function() return select(2, side:received(loop)) end)
        end
        if first then hear() else say() end
        assert.is_nil(s.why)
        if first then say() else hear() end
        until_true(function() return side.gone end)
        assert.same({ "ok", AGREE .. "bye" }, { s.why, side.seen })
      end
    end)

    it("opens for those alone that have asked", function()
      for _, ask in ipairs { "GET / HTTP/1.1\r\nHost: x\r\n\r\n", (ASK:gsub("1%.1", "1.0")),
        (ASK:gsub("\r\n\r\n$", "\r\nContent-Length: 1\r\n\r\na")) } do
        local _, s = asked(ask)
        assert.equal("not_implemented", open(s))
      end
      local _, s = asked(ASK)
      assert.equal("not_implemented", s:send_head { status = 101, body = false })
    end)

    it("that is not opened leaves the next request where it is", function()
      local side, s = asked(ASK .. "GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
      s:reply { status = 426, body = "no" }
      until_true(function() return side.streams[2] end)
      assert.equal("/next", side.streams[2].head.path)
    end)
  end)

  describe("on a client's connection", function()
    local function ask(options)
      local side = http1.client(loop, options or {})
      local s = side:open()
      s:send_head { method = "GET", path = "/", authority = "x", body = false, upgrade_to = "ws" }
      s:send("", true)
      side:accept()
      until_true(function() return side:received(loop):find "\r\n\r\n$" end)
      return side, s
    end

    it("is asked for by both fields", function()
      local side = ask()
      assert.equal("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n", side.seen)
    end)

    it("opens by a 101 that is cut anywhere", function()
      for at = 1, #AGREE + 2 do
        local side, s = ask()
        local bytes = AGREE .. "abc"
        side:feed(loop, bytes:sub(1, at), 1)
        side:feed(loop, bytes:sub(at + 1), 1)
        until_true(function() return s.got == "abc" end)
        assert.same({ 101, "ws", true }, { s.head.status, s.head.upgrade_to, s.stream.tunnel })
        s:send "up"
        assert.matches("\r\n\r\nup$", (side:received(loop)))
        s:reset()
        until_true(function() return side.gone end)
      end
    end)

    it("comes after other interim answers, and ends as both have", function()
      local side, s = ask()
      side:feed(loop, "HTTP/1.1 103 Early Hints\r\n\r\n" .. AGREE)
      until_true(function() return #s.heads == 2 end)
      sys.C.spec_shutdown(side.fd, 1)
      until_true(function() return s.ended end)
      s:send("last", true)
      until_true(function() return side.gone end)
      assert.equal("ok", s.why)
    end)

    it("is none without both fields, in HTTP/1.0, or where the answer is another one", function()
      for _, head in ipairs { "HTTP/1.1 101 X\r\nUpgrade: ws\r\n\r\n",
        "HTTP/1.1 101 X\r\nConnection: upgrade\r\n\r\n",
        (AGREE:gsub("HTTP/1.1", "HTTP/1.0")) } do
        local side, s = ask()
        side:feed(loop, head)
        until_true(function() return s.why end)
        assert.equal("bad_response", s.why)
      end
      local side, s = ask()
      side:feed(loop, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
      until_true(function() return side.gone end)
      assert.same({ "ok", "a" }, { s.why, s.got })
      assert.is_nil(side:story():find "idle") -- it is not used again
    end)
  end)

  it("stops to read at the window", function()
    local side = http1.server(loop, { hold = true })
    side:feed(loop, ASK)
    local s = side.streams[1]
    s.ended = false
    s:send_head { status = 101, upgrade_to = "ws", body = false }
    local sent, more = 0, ("x"):rep(65536)
    for _ = 1, 20 do
      sent = sent + math.max(0, side:feed(loop, more) or 0)
    end
    assert.equal(65536, #s.got)
    side.hold = false
    s:consumed(s.held)
    until_true(function() return #s.got == sent end)
  end)

  describe("whose client is not read", function()
    local POST = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    local BODY = ("x"):rep(90 * 1024) -- more than the window, and little enough to be with the kernel

    local function full()
      local side = http1.server(loop, { hold = true, tcp = true })
      side:feed(loop, ASK)
      until_true(function() return side.streams[1] end)
      local s = side.streams[1]
      s.ended = false
      s:send_head { status = 101, upgrade_to = "ws", body = false }
      side:feed(loop, BODY)
      until_true(function() return #s.got == 65536 end)
      return side, s
    end

    -- All who are not read are looked at together: who is missed first was there to be missed.
    local function look_at_unread()
      local side = http1.server(loop, { hold = true })
      side:feed(loop, POST .. BODY)
      net.close(side.fd)
      until_true(function() return side.streams[1].why end)
    end

    it("keeps what came before the client's end", function()
      local side, s = full()
      sys.C.spec_shutdown(side.fd, 1)
      look_at_unread()
      side.hold = false
      s:consumed(s.held)
      until_true(function() return s.ended end)
      assert.same({ #BODY, nil }, { #s.got, s.why })
      s:send("bye", true)
      until_true(function() return side.gone end)
      assert.equal("ok", s.why)
    end)

    it("hears when it breaks off, also behind its end", function()
      for _, ended in ipairs { false, true } do
        local side, s = full()
        if ended then
          sys.C.spec_shutdown(side.fd, 1)
          look_at_unread()
        end
        net.reset(side.fd)
        until_true(function() return s.why end)
        assert.equal("client_gone", s.why)
      end
    end)
  end)
end)
