local bit = require "bit"
local ffi = require "ffi"
local net = require "support.net"
local sys = require "support.sys"

local C = net.C
local F_GETFD, F_GETFL, FD_CLOEXEC, O_NONBLOCK = 1, 3, 1, 0x800

local loop, fds, accepted, peers, addr, fd

local function text(a)
  local out = ffi.new("char[?]", C.GW_ADDR_TEXT)
  return ffi.string(C.gw_addr_text(a, out))
end

local function on_accept(_, new, peer)
  accepted[#accepted + 1] = new
  fds[#fds + 1] = new
  peers[#peers + 1] = text(peer)
end

local function connect(count)
  for _ = 1, count do
    local client = net.connect(addr.port)
    assert(sys.poll({ [client] = sys.POLLOUT }, sys.now() + 5)[client])
    fds[#fds + 1] = client
  end
end

local function flags(of, command)
  return sys.C.spec_fcntl(of, command)
end

before_each(function()
  C.gw_log_setup(C.GW_LOG_ERROR, C.GW_LOG_TEXT, nil)
  loop = net.loop()
  accepted, peers = {}, {}
  addr = net.addr("127.0.0.1", 0)
  fd = C.gw_listener_bind(addr, 64)
  assert(fd >= 0)
  fds = { fd }
end)

after_each(function()
  net.fini(loop)
  net.forget()
  for _, each in ipairs(fds) do net.close(each) end
  C.gw_log_setup(C.GW_LOG_INFO, C.GW_LOG_TEXT, nil)
end)

describe("binding", function()
  it("tells the port it got, and blocks neither callers nor children", function()
    assert.is_true(addr.port > 0)
    assert.equal("127.0.0.1:" .. addr.port, text(addr))
    assert.not_equal(0, bit.band(flags(fd, F_GETFL), O_NONBLOCK))
    assert.not_equal(0, bit.band(flags(fd, F_GETFD), FD_CLOEXEC))
  end)

  it("says why it can't", function()
    local EADDRINUSE, EADDRNOTAVAIL = 98, 99
    assert.equal(-1, C.gw_listener_bind(net.addr("127.0.0.1", addr.port), 64))
    assert.equal(EADDRINUSE, ffi.errno())
    assert.equal(-1, C.gw_listener_bind(net.addr("192.0.2.1", 0), 64)) -- TEST-NET-1, RFC 5737
    assert.equal(EADDRNOTAVAIL, ffi.errno())
  end)
end)

describe("a listener", function()
  it("hands over connections that do not block, with their peer's address", function()
    local listener = net.listener(loop, fd, on_accept)
    assert.is_true(C.gw_addr_eq(addr, listener.listener.addr))
    connect(2)
    net.turn_until(loop, function() return #accepted == 2 end)
    for i, each in ipairs(accepted) do
      assert.not_equal(0, bit.band(flags(each, F_GETFL), O_NONBLOCK))
      assert.not_equal(0, bit.band(flags(each, F_GETFD), FD_CLOEXEC))
      assert.truthy(peers[i]:find "^127%.0%.0%.1:%d+$")
    end
    assert.not_equal(peers[1], peers[2])
    C.gw_listener_stop(listener.listener)
  end)

  it("hands over connections whose queue in the kernel stays short", function()
    local IPPROTO_TCP, TCP_NOTSENT_LOWAT = 6, 25
    local listener = net.listener(loop, fd, on_accept)
    connect(1)
    net.turn_until(loop, function() return #accepted == 1 end)
    assert.equal(131072, net.sockopt(accepted[1], IPPROTO_TCP, TCP_NOTSENT_LOWAT))
    C.gw_listener_stop(listener.listener)
  end)

  it("hands its user timeout down to what it accepts from then on", function()
    local IPPROTO_TCP, TCP_USER_TIMEOUT = 6, 18
    local listener = net.listener(loop, fd, on_accept)
    for at, ms in ipairs { 4321, 0 } do
      C.gw_listener_user_timeout(fd, ms)
      connect(1)
      net.turn_until(loop, function() return #accepted == at end)
      assert.equal(ms, net.sockopt(accepted[at], IPPROTO_TCP, TCP_USER_TIMEOUT))
    end
    C.gw_listener_stop(listener.listener)
  end)

  it("takes sixteen at most before the others get their turn", function()
    local listener = net.listener(loop, fd, on_accept)
    connect(20)
    net.turn(loop, true)
    assert.equal(16, #accepted)
    net.turn(loop, true)
    assert.equal(20, #accepted)
    C.gw_listener_stop(listener.listener)
  end)

  it("pauses, also in the middle of a burst, and goes on", function()
    local listener = net.listener(loop, fd, function(self, ...)
      on_accept(self, ...)
      if #accepted == 3 then C.gw_listener_pause(self.listener, true) end
    end)
    connect(5)
    net.settle(loop)
    assert.equal(3, #accepted)
    assert.equal(0, listener.listener.io.active)
    C.gw_listener_pause(listener.listener, false)
    net.turn_until(loop, function() return #accepted == 5 end)
    C.gw_listener_stop(listener.listener)
  end)

  it("can be stopped while it accepts; the socket stays open for others", function()
    local first = net.listener(loop, fd, function(self, ...)
      on_accept(self, ...)
      C.gw_listener_stop(self.listener)
    end)
    connect(3)
    net.settle(loop)
    assert.equal(1, #accepted)
    C.gw_listener_stop(first.listener)
    C.gw_listener_pause(first.listener, false)
    net.settle(loop)
    assert.equal(1, #accepted)
    local second = net.listener(loop, fd, on_accept)
    net.turn_until(loop, function() return #accepted == 3 end)
    C.gw_listener_stop(second.listener)
  end)

  it("pauses without spinning while there are no descriptors, and goes on by itself", function()
    local listener = net.listener(loop, fd, on_accept)
    connect(2)
    net.without_descriptors(function() net.turn(loop, true) end)
    assert.equal(0, #accepted)
    assert.equal(0, listener.listener.io.active)
    assert.is_true(C.gw_timer_active(listener.listener.retry))
    C.gw_listener_pause(listener.listener, true)
    C.gw_listener_pause(listener.listener, false)
    assert.equal(0, listener.listener.io.active)
    local turns = net.turn_until(loop, function() return #accepted == 2 end)
    assert.is_true(turns <= 4, turns .. " turns")
    C.gw_listener_stop(listener.listener)
  end)

  it("that is stopped while it waits for descriptors stays so", function()
    local listener = net.listener(loop, fd, on_accept)
    connect(1)
    net.without_descriptors(function() net.turn(loop, true) end)
    C.gw_listener_stop(listener.listener)
    assert.is_false(C.gw_timer_active(listener.listener.retry))
    net.settle(loop)
    assert.equal(0, #accepted)
  end)
end)
