--- http1: codecs of the C code for specs, with Lua in place of exchanges. Each stream is a record that
-- notes what comes; what it does then is up to the test.
--
--     local server = http1.server(loop, { on_end = function(s) s:reply { body = "ok" } end })
--     net.send(server.fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
--     net.turn(loop)
--     server.streams[1].path, server:story()
local ffi = require "ffi"
local net = require "support.net"
local rt = require "support.runtime"

local C = rt.load("http/http1.h", "http/fields.h", "http/head.h")
local http1 = { C = C }

-- Callbacks are made once for the process, like those of support.net.
local registry = debug.getregistry()
local shared = registry["gatewayd.spec.http1"]

local function address(object)
  return tonumber(ffi.cast("uintptr_t", ffi.cast("void *", object)))
end

local function slug(err)
  return rt.cstring(C.gw_err_slug(err))
end

local function guarded(f)
  return function(...)
    local ok, result = xpcall(f, debug.traceback, ...)
    if ok then return result end
    shared.failure = shared.failure or result
    return false
  end
end

local function text(slice)
  return slice.ptr ~= nil and rt.string(slice) or nil
end

-- Streams.

local Stream = {}
Stream.__index = Stream

local function fields_of(head)
  local fields = {}
  for i = 0, head.count - 1 do
    fields[#fields + 1] = { rt.string(head.fields[i].name), rt.string(head.fields[i].value) }
  end
  return fields
end

local function plain_head(head)
  return {
    method = text(head.method), scheme = text(head.scheme), authority = text(head.authority),
    path = text(head.path), status = head.status, minor = head.minor,
    length = tonumber(head.length), has_body = head.has_body,
    expect_continue = head.expect_continue, upgrade = head.upgrade,
    upgrade_to = text(head.upgrade_to), fields = fields_of(head),
  }
end

--- The value of the first field of that name.
---@param head table
---@param name string lower case
---@return string?
function http1.field(head, name)
  for _, field in ipairs(head.fields) do
    if field[1] == name then return field[2] end
  end
end

function Stream:note(event)
  local log = self.side.log
  log[#log + 1] = event
end

--- Sends a head: method, path, authority or status; fields = { {name, value} }; length (unknown when
-- it is not given), body = false for a message without one, upgrade_to = for a tunnel.
---@param options table
---@return string slug
function Stream:send_head(options)
  local arena = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear)
  local head = ffi.new "struct gw_head"
  C.gw_head_init(head, arena)
  head.upgrade = options.upgrade_to ~= nil
  for _, name in ipairs { "method", "path", "authority", "upgrade_to" } do
    if options[name] then head[name] = C.gw_arena_copy(arena, rt.slice(options[name])) end
  end
  head.status = options.status or 0
  head.length = options.length or C.GW_LENGTH_UNKNOWN
  head.has_body = options.body ~= false
  for _, field in ipairs(options.fields or {}) do
    C.gw_fields_add(head, rt.slice(field[1]), rt.slice(field[2]))
  end
  return slug(self.stream.codec.ops.stream.send_head(self.stream, head))
end

---@param bytes string
---@param last? boolean
---@return string slug
function Stream:send(bytes, last)
  local buf = ffi.new "struct gw_buf"
  C.gw_buf_append(buf, bytes, #bytes)
  local err = slug(self.stream.codec.ops.stream.send(self.stream, buf, last or false))
  assert(rt.len(buf) == 0, "send leaves nothing")
  return err
end

--- A whole answer with Content-Length.
---@param options? table status, fields, body
function Stream:reply(options)
  options = options or {}
  local body = options.body or ""
  local err = self:send_head { status = options.status or 200, length = #body, fields = options.fields }
  return err ~= "ok" and err or self:send(body, true)
end

function Stream:consumed(n)
  self.held = self.held - n
  self.stream.codec.ops.stream.consumed(self.stream, n)
end

function Stream:reset(why)
  self.stream.codec.ops.stream.reset(self.stream, why or C.GW_ERR_CANCELLED)
  self.over = true
end

function Stream:pending()
  return tonumber(self.stream.codec.ops.stream.pending(self.stream))
end

local function record(side, stream)
  local s = setmetatable({ side = side, stream = stream, heads = {}, got = "", held = 0 }, Stream)
  stream.events = shared.events
  side.streams[#side.streams + 1] = s
  shared.streams[address(stream)] = s
  return s
end

local on = {}

function on.open(s)
  s:note "open"
  if s.side.on_open then s.side.on_open(s) end
end

function on.head(s, head)
  head = plain_head(head)
  s.heads[#s.heads + 1], s.head = head, head
  s:note("head " .. (head.method and head.method .. " " .. head.path or head.status))
  if s.side.on_head then s.side.on_head(s) end
end

function on.body(s, buf, last)
  local bytes = net.take(buf)
  s.pieces = (s.pieces or 0) + 1
  s.got, s.held = s.got .. bytes, s.held + #bytes
  assert(not s.ended, "nothing comes after the end")
  s.ended = last
  if not s.side.hold then s:consumed(s.held) end
  if s.side.on_body then s.side.on_body(s, bytes) end
  if last then
    s:note "end"
    if s.side.on_end then s.side.on_end(s) end
  end
end

function on.drained(s)
  s:note "drained"
end

function on.close(s, why)
  assert(not s.over, "on_close comes once, and not after reset")
  s.over, s.why = true, slug(why)
  s.written, s.received, s.sent = s.stream.written, s.stream.received, s.stream.sent
  s.reused = s.stream.reused
  s:note("close " .. s.why)
  if s.side.on_close then s.side.on_close(s) end
end

-- Sides.

local Side = {}
Side.__index = Side

---@return string events so far, in one line
function Side:story()
  return table.concat(self.log, ", ")
end

function Side:close(why)
  self.codec.ops.close(self.codec, why or C.GW_ERR_SHUTDOWN)
end

function Side:drain()
  self.codec.ops.drain(self.codec)
end

--- One more stream (client side); nil when the codec can't take one.
function Side:open()
  local stream = self.codec.ops.open(self.codec, shared.events, nil)
  return stream ~= nil and record(self, stream) or nil
end

--- Sends bytes from the test's end, and turns.
---@param loop ffi.cdata*
---@param bytes string
---@param turns? integer
---@return integer sent
function Side:feed(loop, bytes, turns)
  local sent = net.send(self.fd, bytes)
  http1.turn(loop, turns or 2)
  return sent
end

--- What the test's end has got so far.
---@param loop ffi.cdata*
---@return string bytes
---@return string? ended
function Side:received(loop)
  http1.turn(loop, 2)
  local bytes, ended = net.recv(self.fd)
  self.seen = (self.seen or "") .. bytes
  return self.seen, ended
end

function Side:note(event)
  self.log[#self.log + 1] = event
end

local host = {}

function host.on_stream(codec, stream)
  local side = shared.sides[address(codec)]
  if side.full then return C.GW_ERR_OVERLOADED end
  record(side, stream)
  return C.GW_OK
end

function host.on_refused(codec, why, head, body)
  local side = shared.sides[address(codec)]
  side:note("refused " .. slug(why))
  if side.page then
    C.gw_fields_set(head, rt.slice "content-type", rt.slice "text/plain")
    C.gw_buf_append(body, side.page, #side.page)
  end
end

function host.on_open(codec)
  shared.sides[address(codec)]:note "open"
end

function host.on_unopened(codec, why)
  shared.sides[address(codec)]:note("unopened " .. slug(why))
end

function host.on_idle(codec)
  local side = shared.sides[address(codec)]
  side:note "idle"
  if side.on_idle then side.on_idle(side) end
end

function host.on_gone(codec)
  local side = shared.sides[address(codec)]
  assert(codec.conn == nil and not side.gone)
  side.gone = true
  side:note "gone"
end

local function stream_event(ctype, name)
  return ffi.cast(ctype, guarded(function(stream, ...)
    on[name](shared.streams[address(stream)], ...)
  end))
end

if not shared then
  shared = { sides = {}, streams = {} }
  registry["gatewayd.spec.http1"] = shared
  local events = ffi.new "struct gw_stream_events"
  events.on_open = stream_event("void (*)(struct gw_stream *)", "open")
  events.on_head = stream_event("void (*)(struct gw_stream *, struct gw_head *)", "head")
  events.on_body = stream_event("void (*)(struct gw_stream *, struct gw_buf *, bool)", "body")
  events.on_drained = stream_event("void (*)(struct gw_stream *)", "drained")
  events.on_close = stream_event("void (*)(struct gw_stream *, enum gw_err)", "close")
  shared.events = events
  local ops = ffi.new "struct gw_codec_events"
  ops.on_stream = ffi.cast("enum gw_err (*)(struct gw_codec *, struct gw_stream *)",
    guarded(function(...) return host.on_stream(...) end))
  ops.on_refused = ffi.cast(
    "void (*)(struct gw_codec *, enum gw_err, struct gw_head *, struct gw_buf *)",
    guarded(function(...) host.on_refused(...) end))
  ops.on_open = ffi.cast("void (*)(struct gw_codec *)", guarded(function(codec) host.on_open(codec) end))
  ops.on_unopened = ffi.cast("void (*)(struct gw_codec *, enum gw_err)",
    guarded(function(...) host.on_unopened(...) end))
  ops.on_idle = ffi.cast("void (*)(struct gw_codec *)", guarded(function(codec) host.on_idle(codec) end))
  ops.on_gone = ffi.cast("void (*)(struct gw_codec *)", guarded(function(codec) host.on_gone(codec) end))
  shared.host_events = ops
end

local DEFAULTS = {
  max_header_bytes = 4096, max_headers = 20, max_target_bytes = 0, max_body_bytes = 0,
  head_ms = 0, idle_ms = 0, body_ms = 0, write_ms = 0, linger_ms = 1000,
}

local function new_side(loop, options)
  local side = setmetatable({ log = {}, streams = {} }, Side)
  for key, value in pairs(options or {}) do side[key] = value end
  side.limits = ffi.new "struct gw_http_limits"
  for key, default in pairs(DEFAULTS) do side.limits[key] = side[key] or default end
  side.host = ffi.new("struct gw_codec_host", loop, side.limits, shared.host_events)
  return side
end

local function adopt(side, codec)
  side.codec = codec
  shared.sides[address(codec)] = side
  return side
end

--- A server on one end of a socket pair; the other one is .fd, non-blocking.
---@param loop ffi.cdata*
---@param options? table limits, on_head, on_body, on_end, on_close, hold, full, page, tcp, plan,
-- transport
function http1.server(loop, options)
  local side = new_side(loop, options)
  local fd
  if side.tcp then fd, side.fd = net.tcp_pair() else fd, side.fd = net.pair() end
  local transport = side.transport or side.plan and side.plan.ops or C.gw_tcp
  adopt(side, C.gw_http1_serve(side.host, fd, nil, transport))
  return side
end

--- A client that dials .listener; accept() gives the other end as .fd.
---@param loop ffi.cdata*
---@param options? table limits, on_open, on_head, on_body, on_end, on_close, hold, port, plan
function http1.client(loop, options)
  local side = new_side(loop, options)
  if not side.port then side.listener, side.port = net.bound(4) end
  local err = ffi.new "enum gw_err[1]"
  local transport = side.plan and side.plan.ops or C.gw_tcp
  local codec = C.gw_http1_dial(side.host, net.addr("127.0.0.1", side.port), 5000, 0, transport, err)
  if codec == nil then return nil, slug(err[0]) end
  adopt(side, codec)
  function side:accept()
    self.fd = net.accept(self.listener)
    net.close(self.listener)
    return self.fd
  end
  return side
end

--- Turns, and raises what went wrong in a callback.
---@param loop ffi.cdata*
---@param turns? integer
function http1.turn(loop, turns)
  for _ = 1, turns or 1 do net.turn(loop) end
  local failure = shared.failure
  shared.failure = nil
  if failure then error(failure, 0) end
end

--- Turns, sleeping in between, until the condition holds.
---@param loop ffi.cdata*
---@param condition fun(): any
function http1.turn_until(loop, condition)
  net.turn_until(loop, function() return shared.failure or condition() end)
  http1.turn(loop, 0)
end

--- Turns and reads until the other end has closed.
---@param loop ffi.cdata*
---@param fd integer
---@return string bytes, string ended
function http1.read_all(loop, fd)
  local got = {}
  while true do
    local bytes, ended = net.recv(fd)
    got[#got + 1] = bytes
    if ended then return table.concat(got), ended end
    net.turn(loop, true)
  end
end

--- Closes all sides.
function http1.forget()
  for _, side in pairs(shared.sides) do
    if not side.gone then side:close() end
    if side.fd then net.close(side.fd) end
  end
  shared.sides, shared.streams, shared.failure = {}, {}, nil
end

--- After each test: closes all sides and the loop, and sees that no connection is left.
---@param loop ffi.cdata*
function http1.clean(loop)
  http1.forget()
  net.settle(loop, 2)
  http1.turn_until(loop, function() return C.gw_conn_count() == 0 end)
  net.fini(loop)
  net.forget()
end

return http1
