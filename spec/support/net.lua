--- net: loops, timers, tasks and connections of the C code for specs, with Lua functions for callbacks.
--
--     local loop = net.loop()
--     local a, b = net.pair()
--     local user = net.conn(loop, a)           -- reads into user.got, notes events in user.log
--     net.send(b, "hello")
--     net.turn_until(loop, function() return user.got == "hello" end)
--
-- LuaJIT's callbacks are few, so there is one per kind for the whole process, and objects are told
-- apart by their address. An error in one is kept, and raised by the next turn.
local bit = require "bit"
local ffi = require "ffi"
local rt = require "support.runtime"
local sys = require "support.sys"

local C = rt.load("net/loop.h", "net/addr.h", "net/conn.h", "net/fault.h", "net/listener.h",
  "base/log.h")
local S = sys.C
local net = { C = C }

local AF_UNIX, AF_INET, SOCK_STREAM, NONBLOCK, NOSIGNAL = 1, 2, 1, 0x800, 0x4000
local SOL_SOCKET, SO_LINGER, RLIMIT_NOFILE = 1, 13, 7

-- Busted loads modules afresh for each file; declarations and callbacks are made once.
local registry = debug.getregistry()
local shared = registry["gatewayd.spec.net"]

local function address(object)
  return tonumber(ffi.cast("uintptr_t", ffi.cast("void *", object)))
end

local function callback(ctype, name)
  return ffi.cast(ctype, function(object, ...)
    local owner = shared.owners[address(object)]
    if not owner or not owner[name] then return end
    local ok, err = xpcall(owner[name], debug.traceback, owner, ...)
    if not ok then shared.failure = shared.failure or err end
  end)
end

if not shared then
  ffi.cdef [[
    struct spec_rlimit { unsigned long soft, hard; };
    int spec_socketpair(int, int, int, int[2]) __asm__("socketpair");
    int spec_listen(int, int) __asm__("listen");
    int spec_accept4(int, void *, void *, int) __asm__("accept4");
    int spec_getrlimit(int, struct spec_rlimit *) __asm__("getrlimit");
    int spec_setrlimit(int, const struct spec_rlimit *) __asm__("setrlimit");
  ]]
  -- owners: what belongs to a C object, by its address; this also keeps the object alive.
  shared = { owners = {} }
  registry["gatewayd.spec.net"] = shared
  shared.fire = callback("void (*)(struct gw_timer *)", "fire")
  shared.run = callback("void (*)(struct gw_task_node *)", "run")
  shared.free = callback("void (*)(struct gw_grave *)", "free")
  local events = ffi.new "struct gw_conn_events"
  for _, name in ipairs { "on_open", "on_bytes", "on_eof", "on_drained" } do
    events[name] = callback("void (*)(struct gw_conn *)", name)
  end
  events.on_error = callback("void (*)(struct gw_conn *, enum gw_err)", "on_error")
  shared.events = events
  shared.listener_events = ffi.new "struct gw_listener_events"
  shared.listener_events.on_accept =
    callback("void (*)(struct gw_listener *, int, const struct gw_addr *)", "on_accept")
end

local function own(object, owner)
  shared.owners[address(object)] = owner
  return owner
end

--- Forgets all owners; after each test, when its loop and connections are gone.
function net.forget()
  shared.owners, shared.failure = {}, nil
end

-- Loops.

---@return ffi.cdata* loop
function net.loop()
  return rt.new("struct gw_loop", function(loop) assert(C.gw_loop_init(loop)) end, C.gw_loop_fini)
end

---@param loop ffi.cdata*
function net.fini(loop)
  C.gw_loop_fini(ffi.gc(loop, nil))
end

--- One turn.
---@param loop ffi.cdata*
---@param wait? boolean sleep until something happens
function net.turn(loop, wait)
  C.gw_loop_turn(loop, wait or false)
  local failure = shared.failure
  shared.failure = nil
  if failure then error(failure, 0) end
end

--- Turns, sleeping in between, until the condition holds. What is known before the first turn has its
-- callbacks ahead of that turn's sleep, and so the first one does not sleep.
---@param loop ffi.cdata*
---@param condition fun(): any
---@return integer turns
function net.turn_until(loop, condition)
  local late = false
  local guard = net.timer(loop, function() late = true end)
  C.gw_timer_start(loop, guard.timer, 10000)
  local turns = 0
  while not condition() do
    if late then error("the loop turned for 10 s and this did not happen", 2) end
    net.turn(loop, turns > 0)
    turns = turns + 1
  end
  C.gw_timer_stop(loop, guard.timer)
  return turns
end

--- Turns until nothing is left to do: for what must not happen.
---@param loop ffi.cdata*
---@param turns? integer
function net.settle(loop, turns)
  for _ = 1, turns or 5 do net.turn(loop) end
end

---@param loop ffi.cdata*
---@param fire fun(self: table)
---@return table owner with .timer, not started
function net.timer(loop, fire)
  local timer = ffi.new "struct gw_timer"
  C.gw_timer_init(timer, shared.fire)
  return own(timer, { timer = timer, loop = loop, fire = fire })
end

---@param run fun(self: table)
---@return table owner with .task
function net.task(run)
  local task = ffi.new "struct gw_task_node"
  return own(task, { task = task, run = run })
end

---@param loop ffi.cdata*
---@param task table made by net.task
function net.wake(loop, task)
  C.gw_loop_wake(loop, task.task, shared.run)
end

---@param loop ffi.cdata*
---@param free fun(self: table)
function net.bury(loop, free)
  local grave = ffi.new "struct gw_grave"
  own(grave, { grave = grave, free = free })
  C.gw_loop_bury(loop, grave, shared.free)
end

-- Descriptors.

--- Two connected Unix sockets; the first is for the C code, the second, non-blocking, for the test.
---@return integer, integer
function net.pair()
  local fds = ffi.new "int[2]"
  sys.check(S.spec_socketpair(AF_UNIX, bit.bor(SOCK_STREAM, NONBLOCK), 0, fds), "socketpair")
  return fds[0], fds[1]
end

--- A bound socket on a free port of 127.0.0.1.
---@param backlog? integer listens when given
---@return integer fd
---@return integer port
function net.bound(backlog)
  local fd = sys.check(S.spec_socket(AF_INET, bit.bor(SOCK_STREAM, NONBLOCK), 0), "socket")
  local addr = ffi.new("struct spec_sockaddr_in", { family = AF_INET, addr = 0x0100007f })
  local len = ffi.new("unsigned[1]", ffi.sizeof(addr))
  sys.check(S.spec_bind(fd, addr, len[0]), "bind")
  sys.check(S.spec_getsockname(fd, addr, len), "getsockname")
  if backlog then sys.check(S.spec_listen(fd, backlog), "listen") end
  return fd, bit.rshift(bit.bswap(addr.port), 16)
end

--- Starts to connect to a port of 127.0.0.1.
---@param port integer
---@return integer fd non-blocking
function net.connect(port)
  local fd = sys.check(S.spec_socket(AF_INET, bit.bor(SOCK_STREAM, NONBLOCK), 0), "socket")
  local addr = ffi.new("struct spec_sockaddr_in", { family = AF_INET, addr = 0x0100007f })
  addr.port = bit.rshift(bit.bswap(port), 16)
  local r = S.spec_connect(fd, addr, ffi.sizeof(addr))
  if r < 0 and ffi.errno() ~= sys.EINPROGRESS then sys.check(r, "connect") end
  return fd
end

--- Takes a connection that is on its way.
---@param listener integer
---@return integer fd non-blocking
function net.accept(listener)
  assert(sys.poll({ [listener] = sys.POLLIN }, sys.now() + 5)[listener], "nobody connected")
  return sys.check(S.spec_accept4(listener, nil, nil, NONBLOCK), "accept4")
end

--- Like pair, with TCP.
---@return integer, integer
function net.tcp_pair()
  local listener, port = net.bound(4)
  local client = net.connect(port)
  local server = net.accept(listener)
  S.spec_close(listener)
  assert(sys.poll({ [client] = sys.POLLOUT }, sys.now() + 5)[client])
  return server, client
end

--- Sends what fits.
---@param fd integer
---@param bytes string
---@return integer sent 0 when the kernel takes none
function net.send(fd, bytes)
  local n = tonumber(S.spec_send(fd, bytes, #bytes, NOSIGNAL))
  if n < 0 and ffi.errno() == sys.EAGAIN then return 0 end
  return sys.check(n, "send")
end

--- Reads what is there.
---@param fd integer
---@return string bytes
---@return string? ended "eof", "reset" or another error
function net.recv(fd)
  local got = {}
  while true do
    local bytes, why = sys.read(fd)
    if not bytes then return table.concat(got), why ~= "again" and why or nil end
    got[#got + 1] = bytes
  end
end

---@param fd integer
function net.close(fd)
  S.spec_close(fd)
end

--- Closes so that the peer gets an RST.
---@param fd integer
function net.reset(fd)
  local linger = ffi.new("struct spec_linger", 1, 0)
  S.spec_setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, ffi.sizeof(linger))
  S.spec_close(fd)
end

---@param fd integer
---@param level integer
---@param name integer
---@return integer
function net.sockopt(fd, level, name)
  local value, len = ffi.new "int[1]", ffi.new("unsigned[1]", 4)
  sys.check(S.spec_getsockopt(fd, level, name, value, len), "getsockopt")
  return value[0]
end

--- Runs f while the process can have no descriptor more than it has.
---@param f fun()
function net.without_descriptors(f)
  local old, none = ffi.new "struct spec_rlimit", ffi.new "struct spec_rlimit"
  S.spec_getrlimit(RLIMIT_NOFILE, old)
  none.soft, none.hard = 0, old.hard
  sys.check(S.spec_setrlimit(RLIMIT_NOFILE, none), "setrlimit")
  local ok, err = pcall(f)
  S.spec_setrlimit(RLIMIT_NOFILE, old)
  if not ok then error(err, 0) end
end

-- Addresses, connections, listeners.

---@param host string
---@param port integer
---@return ffi.cdata* addr
function net.addr(host, port)
  local addr = ffi.new "struct gw_addr"
  assert(C.gw_addr_parse(addr, host, port), host)
  return addr
end

--- Takes all bytes out of a buffer.
---@param buf ffi.cdata*
---@return string
function net.take(buf)
  local bytes = rt.string(C.gw_buf_linear(buf, rt.len(buf)))
  C.gw_buf_consume(buf, rt.len(buf))
  return bytes
end

-- What a user of a connection does unless the test says otherwise.
local User = {}
User.__index = User

function User:note(event)
  self.log[#self.log + 1] = event
end

function User:on_open()
  self:note "open"
end

function User:on_bytes()
  self:note "bytes"
  self.got = self.got .. net.take(self.conn["in"])
end

function User:on_eof()
  self:note "eof"
end

function User:on_drained()
  self:note "drained"
end

function User:on_error(err)
  self:note("error " .. rt.cstring(C.gw_err_slug(err)))
  self:close()
end

function User:close()
  if self.closed then return end
  self.closed = true
  C.gw_conn_close(self.conn)
end

--- Puts bytes into out and flushes.
---@param bytes string
---@return string slug of what came back, such as "ok"
function User:write(bytes)
  C.gw_buf_append(self.conn.out, bytes, #bytes)
  return self:flush()
end

function User:flush()
  return rt.cstring(C.gw_err_slug(C.gw_conn_flush(self.conn)))
end

---@return string events so far, in one line
function User:story()
  return table.concat(self.log, ", ")
end

local function user_of(conn, user)
  user.conn, user.log, user.got = conn, {}, ""
  return own(conn, setmetatable(user, User))
end

--- A connection on an accepted descriptor, reading. With options.plan (a gw_fault_plan) on the fault
--- transport; other options replace the user's callbacks.
---@param loop ffi.cdata*
---@param fd integer
---@param options? table
---@return table user
function net.conn(loop, fd, options)
  options = options or {}
  local transport = options.transport or (options.plan and options.plan.ops or C.gw_tcp)
  local user = user_of(C.gw_conn_accepted(loop, fd, nil, transport, shared.events, nil), options)
  C.gw_conn_read(user.conn, true)
  return user
end

--- A connection to a port of 127.0.0.1 on its way, reading when it is open.
---@param loop ffi.cdata*
---@param port integer
---@param options? table also dial_ms, keepalive_s, user_ms
---@return table? user
---@return string? err slug
function net.dial(loop, port, options)
  options = options or {}
  local err = ffi.new "enum gw_err[1]"
  local transport = options.transport or (options.plan and options.plan.ops or C.gw_tcp)
  local conn = C.gw_conn_dial(loop, net.addr("127.0.0.1", port), options.dial_ms or 0,
    options.keepalive_s or 0, options.user_ms or 0, transport, shared.events, nil, err)
  if conn == nil then return nil, rt.cstring(C.gw_err_slug(err[0])) end
  local user = user_of(conn, options)
  C.gw_conn_read(conn, true)
  return user
end

--- A plan for the fault transport.
---@param read? table fields of struct gw_fault_side
---@param write? table
---@return ffi.cdata* plan
function net.plan(read, write)
  local plan = ffi.new "struct gw_fault_plan"
  C.gw_fault_init(plan)
  for side, fields in pairs { read = read or {}, write = write or {} } do
    for name, value in pairs(fields) do plan[side][name] = value end
  end
  return plan
end

--- A started listener.
---@param loop ffi.cdata*
---@param fd integer
---@param on_accept fun(self: table, fd: integer, peer: ffi.cdata*)
---@return table owner with .listener
function net.listener(loop, fd, on_accept)
  local listener = ffi.new "struct gw_listener"
  C.gw_listener_start(listener, loop, fd, shared.listener_events, nil)
  return own(listener, { listener = listener, on_accept = on_accept })
end

return net
