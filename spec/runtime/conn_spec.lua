local ffi = require "ffi"
local net = require "support.net"
local rt = require "support.runtime"
local sys = require "support.sys"

local C = net.C
local SOL_SOCKET, SO_KEEPALIVE, IPPROTO_TCP, TCP_NODELAY, TCP_KEEPIDLE = 1, 9, 6, 1, 4
local LINGER_BYTES = 256 * 1024

local loop, open_fds, users

-- The descriptors of the test are closed after it; those given to a connection are the connection's.
local function keep(fd)
  open_fds[#open_fds + 1] = fd
  return fd
end

local function keep_user(user)
  users[#users + 1] = user
  return user
end

-- A connection and its peer's descriptor.
local function connected(options)
  local mine, theirs = net.pair()
  return keep_user(net.conn(loop, mine, options)), keep(theirs)
end

local function connected_tcp(options)
  local mine, theirs = net.tcp_pair()
  return keep_user(net.conn(loop, mine, options)), keep(theirs)
end

local function dial(port, options)
  local user, err = net.dial(loop, port, options)
  return user and keep_user(user), err
end

local function drop(fd)
  for i, kept in ipairs(open_fds) do
    if kept == fd then
      table.remove(open_fds, i)
      return fd
    end
  end
  error "not a descriptor of this test"
end

local function hang_up(fd)
  net.close(drop(fd))
end

local function writing(conn)
  return conn.io.active ~= 0 and bit.band(conn.io.events, 2) ~= 0
end

local function reading(conn)
  return conn.io.active ~= 0 and bit.band(conn.io.events, 1) ~= 0
end

-- Reads at the peer, while the loop turns, until the stream has ended or `count` bytes are there.
local function collect(fd, count)
  local got, deadline = {}, sys.now() + 10
  local length, ended = 0
  repeat
    assert(sys.now() < deadline, "the peer got too little")
    net.turn(loop)
    sys.poll({ [fd] = sys.POLLIN }, sys.now() + 0.002)
    local bytes, why = net.recv(fd)
    got[#got + 1], length, ended = bytes, length + #bytes, why
  until ended or (count and length >= count)
  return table.concat(got), ended
end

local function slug(err)
  return rt.cstring(C.gw_err_slug(err))
end

local function alive()
  return tonumber(C.gw_conn_count())
end

local function pattern(count)
  local random = rt.random(count)
  local bytes = {}
  for i = 1, count do bytes[i] = string.char(random(0, 255)) end
  return table.concat(bytes)
end

before_each(function()
  open_fds, users = {}, {}
  loop = net.loop()
end)

after_each(function()
  for _, user in ipairs(users) do
    if not user.closed then user:close() end
  end
  for _, fd in ipairs(open_fds) do net.close(fd) end
  net.turn(loop)
  net.turn_until(loop, function() return alive() == 0 end)
  assert.equal(0, tonumber(C.gw_buf_memory()))
  net.fini(loop)
  net.forget()
end)

describe("reading", function()
  it("gives the bytes and then holds no memory for them", function()
    local user, peer = connected()
    net.send(peer, "hello")
    net.turn_until(loop, function() return user.got == "hello" end)
    assert.equal("bytes", user:story())
    assert.equal(0, tonumber(C.gw_buf_memory()))
  end)

  it("takes one read per readiness, so that the others get their turn", function()
    local user, peer = connected()
    local sent = net.send(peer, ("x"):rep(50000))
    assert.is_true(sent > C.GW_READ_SIZE)
    net.turn(loop, true)
    assert.equal(C.GW_READ_SIZE, #user.got)
    net.turn_until(loop, function() return #user.got == sent end)
    assert.equal(math.ceil(sent / C.GW_READ_SIZE), #user.log)
  end)

  it("leaves what the user does not take", function()
    local seen = {}
    local user, peer = connected {
      on_bytes = function(self)
        seen[#seen + 1] = rt.string(C.gw_buf_peek(self.conn["in"]))
        C.gw_buf_consume(self.conn["in"], 1)
      end,
    }
    net.send(peer, "abc")
    net.turn_until(loop, function() return #seen == 1 end)
    net.settle(loop)
    net.send(peer, "d")
    net.turn_until(loop, function() return #seen == 2 end)
    assert.same({ "abc", "bcd" }, seen)
    assert.equal("cd", net.take(user.conn["in"]))
  end)

  it("gives the same bytes however they are cut", function()
    local bytes = pattern(700)
    for _, side in ipairs { { max = 1 }, { max = 7 }, { again = true }, { max = 3, again = true } } do
      local plan = net.plan(side)
      local user, peer = connected { plan = plan }
      net.send(peer, bytes)
      net.turn_until(loop, function() return #user.got == #bytes end)
      assert.equal(bytes, user.got)
      if side.max then assert.equal(math.ceil(#bytes / side.max), #user.log) end
    end
  end)

  it("fills its chunks before it takes more, though the reads are small", function()
    local user, peer = connected { on_bytes = function() end }
    for got = 1000, 18000, 1000 do
      net.send(peer, ("x"):rep(1000))
      net.turn_until(loop, function() return rt.len(user.conn["in"]) == got end)
    end
    assert.is_true(tonumber(C.gw_buf_memory()) <= 2 * C.GW_CHUNK_LARGE)
  end)

  it("pauses and goes on", function()
    local user, peer = connected()
    C.gw_conn_read(user.conn, false)
    net.send(peer, "later")
    net.settle(loop)
    assert.equal("", user:story())
    C.gw_conn_read(user.conn, true)
    net.turn_until(loop, function() return user.got == "later" end)
  end)

  it("does not keep the loop awake when the peer has gone, paused or not", function()
    for _, paused in ipairs { true, false } do
      local user, peer = connected()
      if paused then C.gw_conn_read(user.conn, false) end
      hang_up(peer)
      local fired = false
      local timer = net.timer(loop, function() fired = true end)
      C.gw_timer_start(loop, timer.timer, 60)
      local turns = net.turn_until(loop, function() return fired end)
      assert.is_true(turns <= 5, turns .. " turns")
      assert.equal(paused and "" or "eof", user:story())
    end
  end)

  it("tells of the end once, after the bytes, and writing goes on", function()
    local user, peer = connected()
    net.send(peer, "last words")
    sys.C.spec_shutdown(peer, 1)
    net.turn_until(loop, function() return user:story():find "eof" end)
    assert.equal("bytes, eof", user:story())
    assert.equal("last words", user.got)
    assert.is_false(reading(user.conn))
    C.gw_conn_read(user.conn, true)
    net.settle(loop)
    assert.equal("bytes, eof", user:story())
    assert.equal("ok", user:write "still here")
    assert.equal("still here", (net.recv(peer)))
  end)

  it("tells of a reset", function()
    local user, peer = connected_tcp()
    net.reset(drop(peer))
    net.turn_until(loop, function() return user.closed end)
    assert.equal("error " .. slug(C.GW_ERR_RESET), user:story())
  end)

  it("gives the bytes that came before an error, then the error", function()
    local plan = net.plan { err = C.GW_ERR_IO, err_after = 5 }
    local user, peer = connected { plan = plan }
    net.send(peer, "12345678")
    net.turn_until(loop, function() return user.closed end)
    assert.equal("12345", user.got)
    assert.equal("bytes, error " .. slug(C.GW_ERR_IO), user:story())
    assert.equal(1, tonumber(plan.closes))
  end)

  it("gives the bytes that came together with the end", function()
    -- A transport of records, as TLS is, can learn of both in one call.
    local ops = ffi.new "struct gw_transport_ops"
    local read = ffi.cast(ops.read, function(_, input)
      C.gw_buf_append(input, "bye", 3)
      return C.GW_EOF
    end)
    ops.read, ops.write = read, C.gw_tcp.write
    local user, peer = connected { transport = ops }
    net.send(peer, "x")
    net.turn_until(loop, function() return user:story():find "eof" end)
    assert.equal("bytes, eof", user:story())
    assert.equal("bye", user.got)
    user:close()
    read:free()
  end)
end)

describe("writing", function()
  it("is done at once, without the watcher, and frees the memory", function()
    local user, peer = connected()
    assert.equal("ok", user:write "hello")
    assert.equal("hello", (net.recv(peer)))
    assert.is_false(writing(user.conn))
    assert.is_true(user.conn.wrote)
    assert.equal(0, tonumber(C.gw_buf_memory()))
    net.settle(loop)
    assert.equal("", user:story())
  end)

  it("of nothing does nothing", function()
    local plan = net.plan()
    local user = connected { plan = plan }
    assert.equal("ok", user:flush())
    assert.equal(0, tonumber(plan.write.calls))
  end)

  it("sends several chunks in their order", function()
    local user, peer = connected()
    local bytes = pattern(60000)
    for i = 1, #bytes, 3000 do
      -- A buffer of its own for each piece, so that chunks are linked and not filled up.
      local piece = rt.new("struct gw_buf", C.gw_buf_init, C.gw_buf_clear)
      C.gw_buf_append(piece, bytes:sub(i, i + 2999), math.min(3000, #bytes - i + 1))
      C.gw_buf_move(user.conn.out, piece)
    end
    assert.equal("ok", user:flush())
    assert.equal(bytes, (collect(peer, #bytes)))
  end)

  it("goes on when there is room, and says once that all is out", function()
    local user, peer = connected { plan = net.plan(nil, { max = 3 }) }
    assert.equal("ok", user:write "0123456789")
    assert.equal(7, rt.len(user.conn.out))
    assert.is_true(writing(user.conn))
    for left = 4, 1, -3 do
      net.turn(loop, true)
      assert.equal(left, rt.len(user.conn.out))
      assert.equal("", user:story())
    end
    net.turn(loop, true)
    assert.equal("drained", user:story())
    assert.is_false(writing(user.conn))
    net.settle(loop)
    assert.equal("drained", user:story())
    assert.equal("0123456789", (net.recv(peer)))
  end)

  it("that is stuck is not tried by flush again", function()
    local plan = net.plan(nil, { max = 1 })
    local user, peer = connected { plan = plan }
    user:write "abc"
    assert.equal("ok", user:write "def")
    assert.equal(1, tonumber(plan.write.calls))
    assert.equal("abcdef", (collect(peer, 6)))
  end)

  it("gives the same bytes however they are cut", function()
    local bytes = pattern(600)
    for _, side in ipairs { { max = 1 }, { max = 7 }, { again = true }, { max = 3, again = true } } do
      local user, peer = connected { plan = net.plan(nil, side) }
      assert.equal("ok", user:write(bytes))
      assert.equal(bytes, (collect(peer, #bytes)))
      net.turn_until(loop, function() return user:story() == "drained" end)
    end
  end)

  it("waits for a peer that reads slowly", function()
    local user, peer = connected()
    local bytes = pattern(1000):rep(3000)
    assert.equal("ok", user:write(bytes))
    assert.is_true(writing(user.conn))
    net.settle(loop)
    assert.equal("", user:story())
    assert.is_true(bytes == collect(peer, #bytes))
    net.turn_until(loop, function() return user:story() == "drained" end)
  end)

  it("keeps what is stuck in little memory", function()
    local user, peer = connected { plan = net.plan(nil, { max = 17950 }) }
    user:write(("x"):rep(18000))
    assert.equal(50, rt.len(user.conn.out))
    assert.equal(C.GW_CHUNK_SMALL, tonumber(C.gw_buf_memory()))
    collect(peer, 18000)
  end)

  it("stamps when it got stuck and when bytes went", function()
    local plan = net.plan(nil, { max = 2 })
    local user = connected { plan = plan }
    loop.now_ms = 1000
    user:write "ok"
    assert.equal(1000, tonumber(user.conn.write_ms))
    plan.write.again = true -- the next call, and every other one after it, takes nothing
    plan.write.calls = 0
    loop.now_ms = 2000
    user:write "abc"
    assert.equal(2000, tonumber(user.conn.write_ms))
    loop.now_ms = 3000
    user:write "d"
    plan.write.calls = 0
    net.turn(loop, true)
    assert.equal(1, tonumber(plan.write.calls))
    assert.equal(2000, tonumber(user.conn.write_ms))
    net.turn(loop, true)
    assert.equal(2, rt.len(user.conn.out))
    assert.equal(loop.now_ms, user.conn.write_ms)
  end)

  it("to a peer that is gone fails in flush and nowhere else", function()
    local user, peer = connected_tcp()
    C.gw_conn_read(user.conn, false)
    net.reset(drop(peer))
    assert.equal(slug(C.GW_ERR_RESET), user:write "anybody?")
    assert.equal(0, rt.len(user.conn.out))
    net.settle(loop)
    assert.equal("", user:story())
  end)

  it("that fails later tells of it", function()
    local plan = net.plan(nil, { max = 2, err = C.GW_ERR_RESET, err_after = 5 })
    local user, peer = connected { plan = plan }
    assert.equal("ok", user:write "abcdefgh")
    net.turn_until(loop, function() return user.closed end)
    assert.equal("error " .. slug(C.GW_ERR_RESET), user:story())
    assert.equal("abcde", (net.recv(peer)))
  end)

  it("ends the watcher when the user has dropped what was stuck", function()
    local user = connected { plan = net.plan(nil, { max = 1 }) }
    user:write "abc"
    C.gw_buf_clear(user.conn.out)
    net.turn(loop, true)
    assert.is_false(writing(user.conn))
    assert.equal("", user:story())
  end)

  it("sends FIN behind the last byte where shut says so", function()
    local user, peer = connected { plan = net.plan(nil, { max = 2 }) }
    user.conn.shut = true
    user:write "goodbye"
    local got, ended = collect(peer)
    assert.equal("goodbye", got)
    assert.equal("eof", ended)
    net.send(peer, "and you")
    net.turn_until(loop, function() return user.got == "and you" end)
  end)

  it("from inside on_bytes is what codecs do", function()
    local user, peer = connected {
      on_bytes = function(self)
        C.gw_buf_move(self.conn.out, self.conn["in"])
        self:note(self:flush())
      end,
    }
    net.send(peer, "echo")
    assert.equal("echo", (collect(peer, 4)))
    assert.equal("ok", user:story())
  end)
end)

describe("closing", function()
  it("is legal in each callback, and nothing follows", function()
    local function close_in(event, prepare, options)
      options = options or {}
      options.plan = net.plan()
      options[event] = function(self)
        self:note(event)
        self:close()
      end
      local user, peer = connected(options)
      prepare(user, peer)
      net.turn_until(loop, function() return user.closed end)
      net.settle(loop)
      assert.equal(event, user:story())
      assert.equal(1, tonumber(options.plan.closes))
      assert.equal(0, alive())
    end
    close_in("on_bytes", function(_, peer)
      net.send(peer, "x")
      sys.C.spec_shutdown(peer, 1)
    end)
    close_in("on_eof", function(_, peer) sys.C.spec_shutdown(peer, 1) end)
    close_in("on_drained", function(user, peer)
      net.send(peer, "unread")
      C.gw_conn_read(user.conn, false)
      user.plan.write.max = 2
      user:write "abc"
      C.gw_conn_read(user.conn, true)
    end, { on_bytes = function() end })
    close_in("on_error", function(user, peer)
      user.plan.read.err = C.GW_ERR_IO
      net.send(peer, "x")
    end)
  end)

  it("by another one's callback silences a connection that is ready as well", function()
    local first, second
    local function close_both(self)
      self:note "bytes"
      first:close()
      second:close()
    end
    local peer_one, peer_two
    first, peer_one = connected { on_bytes = close_both }
    second, peer_two = connected { on_bytes = close_both }
    net.send(peer_one, "x")
    net.send(peer_two, "x")
    net.turn(loop, true)
    net.settle(loop)
    assert.equal(1, #first.log + #second.log)
  end)

  it("twice is closing once, and the memory goes at the end of the turn", function()
    local user, peer = connected()
    user:close()
    C.gw_conn_close(user.conn)
    assert.equal(1, alive())
    assert.equal("eof", select(2, net.recv(peer)))
    net.turn(loop)
    assert.equal(0, alive())
  end)

  it("drops what is in the buffers", function()
    local user = connected { plan = net.plan(nil, { max = 1 }) }
    user:write "not sent"
    user:close()
    assert.equal(0, tonumber(C.gw_buf_memory()))
    assert.not_equal("ok", user:flush())
  end)

  it("with reset looks like a break", function()
    local user, peer = connected_tcp()
    user:write "half an ans"
    user.conn.reset = true
    user:close()
    assert(sys.poll({ [peer] = sys.POLLIN }, sys.now() + 5)[peer])
    assert.equal("reset", select(2, collect(peer)))
  end)
end)

describe("lingering", function()
  local function linger(user, ms)
    user.closed = true
    C.gw_conn_linger(user.conn, ms)
  end

  it("writes what is stuck, sends FIN, drops what comes, and ends with the peer", function()
    local user, peer = connected { plan = net.plan(nil, { max = 4 }) }
    net.send(peer, "never read")
    user:write "the whole answer"
    linger(user, 5000)
    net.send(peer, "nor this")
    local got, ended = collect(peer)
    assert.equal("the whole answer", got)
    assert.equal("eof", ended)
    assert.equal(1, alive())
    hang_up(peer)
    net.turn_until(loop, function() return alive() == 0 end)
    assert.equal("", user:story())
  end)

  it("keeps the kernel from destroying an answer over unread bytes", function()
    local user, peer = connected_tcp()
    C.gw_conn_read(user.conn, false)
    net.send(peer, ("x"):rep(100000))
    user:write "413"
    linger(user, 5000)
    local got, ended = collect(peer)
    assert.equal("413", got)
    assert.equal("eof", ended)
  end)

  it("ends at once where both ends have come", function()
    local user, peer = connected()
    sys.C.spec_shutdown(peer, 1)
    net.turn_until(loop, function() return user:story() == "eof" end)
    user:write "answer"
    linger(user, 5000)
    net.turn(loop)
    assert.equal(0, alive())
    local got, ended = net.recv(peer)
    assert.equal("answer", got)
    assert.equal("eof", ended)
  end)

  it("waits so long for a peer that stays silent, and no longer", function()
    local user, peer = connected()
    linger(user, 40)
    local due_ms = loop.now_ms + 40
    assert.equal("eof", select(2, net.recv(peer)))
    net.turn_until(loop, function() return alive() == 0 end)
    assert.is_true(loop.now_ms >= due_ms)
  end)

  it("is not prolonged by a peer that goes on and on", function()
    local user, peer = connected()
    linger(user, 40)
    local due_ms, sent = loop.now_ms + 40, 0
    -- So slowly that it is not the bound on bytes which ends it.
    while alive() > 0 and sent < 2000 do
      sent = sent + net.send(peer, "x")
      net.turn(loop, true)
      sys.poll({}, sys.now() + 0.001)
    end
    assert.equal(0, alive())
    assert.is_true(loop.now_ms >= due_ms)
  end)

  it("gives up on a peer that takes nothing", function()
    local user = connected()
    user:write(("x"):rep(4 * 1024 * 1024))
    assert.is_true(writing(user.conn))
    linger(user, 30)
    net.turn_until(loop, function() return alive() == 0 end)
  end)

  it("drops a bounded number of bytes", function()
    local user, peer = connected()
    linger(user, 60000)
    local sent = 0
    while alive() > 0 and sent < 4 * LINGER_BYTES do
      sent = sent + net.send(peer, ("x"):rep(10000))
      net.turn(loop)
    end
    assert.equal(0, alive())
    assert.is_true(sent >= LINGER_BYTES)
  end)

  it("resets when the peer has got all of it: a reset destroys what is on its way", function()
    local user, peer = connected_tcp()
    local answer = ("half an answer "):rep(1000000)
    user:write(answer)
    assert.is_true(writing(user.conn))
    user.conn.reset = true
    linger(user, 5000)
    local got, ended = collect(peer)
    assert.equal(#answer, #got)
    assert.equal("reset", ended)
    assert.equal(0, alive())
  end)

  it("resets a peer that takes nothing after a while", function()
    local user = connected_tcp()
    user:write(("x"):rep(8 * 1024 * 1024))
    user.conn.reset = true
    local due_ms = loop.now_ms + 30
    linger(user, 30)
    net.turn_until(loop, function() return alive() == 0 end)
    assert.is_true(loop.now_ms >= due_ms)
  end)

  it("closes at once what never opened, is broken, or is to be reset and has nothing to say", function()
    local user, peer = connected_tcp()
    user.conn.reset = true
    linger(user, 5000)
    net.turn(loop)
    assert.equal(0, alive())
    assert(sys.poll({ [peer] = sys.POLLIN }, sys.now() + 5)[peer])
    assert.equal("reset", select(2, collect(peer)))

    local listener, port = net.bound(4)
    keep(listener)
    linger(dial(port), 5000)
    net.turn(loop)
    assert.equal(0, alive())
  end)

  it("is legal in on_bytes, also when the end comes with them", function()
    local user, peer = connected {
      on_bytes = function(self)
        self:note "bytes"
        linger(self, 5000)
      end,
    }
    net.send(peer, "x")
    sys.C.spec_shutdown(peer, 1)
    net.turn_until(loop, function() return alive() == 0 end)
    assert.equal("bytes", user:story())
  end)
end)

describe("dialling", function()
  it("opens, writes what was waiting, and reads", function()
    local listener, port = net.bound(4)
    keep(listener)
    local user = dial(port, { dial_ms = 5000, keepalive_s = 17 })
    assert.equal("ok", user:write "early")
    assert.equal(5, rt.len(user.conn.out))
    assert.equal("", user:story())
    local peer = keep(net.accept(listener))
    assert.equal("early", (collect(peer, 5)))
    assert.equal("open", user:story())
    assert.is_false(writing(user.conn))
    assert.is_true(user.conn.timer == nil)
    net.send(peer, "answer")
    net.turn_until(loop, function() return user.got == "answer" end)
    local fd = user.conn.io.fd
    assert.equal(1, net.sockopt(fd, IPPROTO_TCP, TCP_NODELAY))
    assert.equal(1, net.sockopt(fd, SOL_SOCKET, SO_KEEPALIVE))
    assert.equal(17, net.sockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE))
  end)

  it("sets no keepalive unless it is asked to", function()
    local listener, port = net.bound(4)
    keep(listener)
    assert.equal(0, net.sockopt(dial(port).conn.io.fd, SOL_SOCKET, SO_KEEPALIVE))
  end)

  it("has a user timeout where one is wanted, and no count of probes then", function()
    local TCP_KEEPCNT, TCP_USER_TIMEOUT = 6, 18
    local listener, port = net.bound(4)
    keep(listener)
    local with = dial(port, { keepalive_s = 17, user_ms = 4321 }).conn.io.fd
    local without = dial(port, { keepalive_s = 17 }).conn.io.fd
    assert.equal(4321, net.sockopt(with, IPPROTO_TCP, TCP_USER_TIMEOUT))
    assert.equal(0, net.sockopt(without, IPPROTO_TCP, TCP_USER_TIMEOUT))
    assert.equal(3, net.sockopt(without, IPPROTO_TCP, TCP_KEEPCNT))
    assert.not_equal(3, net.sockopt(with, IPPROTO_TCP, TCP_KEEPCNT))
  end)

  it("knows a peer that the system has given up from one that has reset", function()
    local ECONNRESET, ETIMEDOUT, EPIPE = 104, 110, 32
    assert.equal("peer_timeout", slug(C.gw_transport_err(ETIMEDOUT)))
    assert.equal("reset", slug(C.gw_transport_err(ECONNRESET)))
    assert.equal("reset", slug(C.gw_transport_err(EPIPE)))
  end)

  it("is refused, but not from inside the call", function()
    local bound, port = net.bound()
    keep(bound)
    local user = dial(port, { dial_ms = 5000 })
    assert.equal("", user:story())
    net.turn_until(loop, function() return user.closed end)
    local refused = slug(C.GW_ERR_REFUSED)
    assert.equal("error " .. refused, user:story())
    net.settle(loop)
    assert.equal(0, alive())
  end)

  it("hears of an error that connect tells at once only from the loop", function()
    local err = ffi.new "enum gw_err[1]"
    local broadcast = net.addr("255.255.255.255", 9)
    local conn = C.gw_conn_dial(loop, broadcast, 0, 0, 0, C.gw_tcp, nil, nil, err)
    assert.is_true(conn ~= nil)
    assert.not_equal(0, tonumber(conn.failed))
    assert.equal(0, conn.io.active)
    C.gw_conn_close(conn)
  end)

  it("gives up in time", function()
    local listener, port = net.bound(0)
    keep(listener)
    -- Two fill the queue of a listener that takes none; later ones get no answer.
    for _ = 1, 3 do keep(net.connect(port)) end
    local user = dial(port, { dial_ms = 30 })
    local due_ms = loop.now_ms + 30
    net.turn_until(loop, function() return user.closed end)
    assert.equal("error " .. slug(C.GW_ERR_DIAL_TIMEOUT), user:story())
    assert.is_true(loop.now_ms >= due_ms)
  end)

  it("says so when there is no descriptor left", function()
    local user, err
    net.without_descriptors(function() user, err = dial(1) end)
    assert.is_nil(user)
    assert.equal(slug(C.GW_ERR_OVERLOADED), err)
  end)

  it("can be closed on its way, and in on_open", function()
    local listener, port = net.bound(4)
    keep(listener)
    dial(port):close()
    local user = dial(port, {
      on_open = function(self)
        self:note "open"
        self:close()
      end,
    })
    user:write "never sent"
    net.turn_until(loop, function() return user.closed end)
    net.settle(loop)
    assert.equal("open", user:story())
    assert.equal(0, alive())
  end)
end)

describe("a transport with a handshake", function()
  local ops, callbacks, answers

  local function method(name, f)
    local cb = ffi.cast(ops[name], f)
    callbacks[#callbacks + 1] = cb
    ops[name] = cb
  end

  before_each(function()
    callbacks, answers = {}, {}
    ops = ffi.new "struct gw_transport_ops"
    ops.read, ops.write = C.gw_tcp.read, C.gw_tcp.write
    method("handshake", function() return table.remove(answers, 1) or C.GW_OK end)
    method("want", function(conn) return conn.state == C.GW_CONN_HANDSHAKE and 1 or 0 end)
  end)

  after_each(function()
    for _, user in ipairs(users) do user:close() end
    for _, cb in ipairs(callbacks) do cb:free() end
  end)

  it("opens when it is done", function()
    answers = { C.GW_AGAIN, C.GW_AGAIN }
    local user, peer = connected { transport = ops }
    assert.equal(tonumber(C.GW_CONN_HANDSHAKE), tonumber(user.conn.state))
    user:write "welcome"
    net.settle(loop)
    assert.equal("", user:story())
    net.send(peer, "hello")
    net.turn_until(loop, function() return user.got == "hello" end)
    assert.equal("open, bytes", user:story())
    assert.equal("welcome", (net.recv(peer)))
  end)

  it("that fails tells of it", function()
    answers = { C.GW_AGAIN, C.GW_EOF }
    local user, peer = connected { transport = ops }
    net.send(peer, "hello")
    net.turn_until(loop, function() return user.closed end)
    assert.equal("error " .. slug(C.GW_ERR_RESET), user:story())
  end)

  it("counts as dialling until it is done", function()
    local listener, port = net.bound(4)
    keep(listener)
    answers = { C.GW_AGAIN }
    local user = dial(port, { transport = ops, dial_ms = 40 })
    net.turn_until(loop, function() return user.closed end)
    assert.equal("error " .. slug(C.GW_ERR_DIAL_TIMEOUT), user:story())
  end)
end)

describe("an idle connection", function()
  it("is readable when the peer has spoken, has gone, or the connection has ended", function()
    local user, peer = connected()
    C.gw_conn_read(user.conn, false)
    assert.is_false(C.gw_conn_readable(user.conn))
    net.send(peer, "x")
    assert.is_true(C.gw_conn_readable(user.conn))
    C.gw_conn_read(user.conn, true)
    net.turn_until(loop, function() return user.got == "x" end)
    assert.is_false(C.gw_conn_readable(user.conn))
    hang_up(peer)
    assert.is_true(C.gw_conn_readable(user.conn))
    net.turn_until(loop, function() return user:story() == "bytes, eof" end)
    assert.is_true(C.gw_conn_readable(user.conn))
  end)

  it("is readable while bytes are left in it", function()
    local user, peer = connected { on_bytes = function(self) self:note "bytes" end }
    net.send(peer, "x")
    net.turn_until(loop, function() return user:story() == "bytes" end)
    assert.is_true(C.gw_conn_readable(user.conn))
  end)
end)
