--- http: a small raw HTTP/1 and SSE client for wire tests, on sockets of its own.
-- It shares no code with the gateway: what it reads is what came over the wire, and it tells how a
-- body ended: "clean", "broken" (the end came within the framing), "reset", "malformed", "timeout".
local bit = require("bit")
local ffi = require("ffi")
local sys = require("spec.support.sys")

local C = sys.C
local http = { timeout = sys.patience }

local SOL_SOCKET, SO_ERROR, SO_RCVBUF, SO_LINGER = 1, 4, 8, 13
local MSG_NOSIGNAL = 0x4000

---@class spec.Conn one TCP connection
---@field buffer string bytes that were received and not taken yet
---@field ended? "eof"|"reset" how the peer ended it, once it did
local Conn = {}
Conn.__index = Conn

---@class spec.Response
---@field status integer
---@field reason string
---@field version string "1.1" or "1.0"
---@field headers {[1]: string, [2]: string}[] in the order they came
---@field raw string the head as it came
---@field framing "chunked"|"length"|"close"|"none"
---@field chunks integer[] the chunk sizes so far
---@field how? string how the body ended
local Response = {}
Response.__index = Response

local function deadline_of(timeout)
  return sys.now() + (timeout or http.timeout)
end

local function address(host, port)
  local addr = ffi.new("struct spec_sockaddr_in")
  addr.family, addr.port = 2, bit.bor(bit.lshift(bit.band(port, 255), 8), bit.rshift(port, 8))
  if C.spec_inet_pton(2, host, ffi.cast("char *", addr) + ffi.offsetof(addr, "addr")) ~= 1 then
    error("not an IPv4 address: " .. host, 3)
  end
  return addr
end

local function set_int(fd, level, name, value)
  local number = ffi.new("int[1]", value)
  C.spec_setsockopt(fd, level, name, number, 4)
end

local function socket_error(fd)
  local number, size = ffi.new("int[1]"), ffi.new("unsigned[1]", 4)
  C.spec_getsockopt(fd, SOL_SOCKET, SO_ERROR, number, size)
  return number[0]
end

--- A connection over a socket that is connected already; it is closed with its last reference.
---@param fd integer non-blocking
---@return spec.Conn
function http.adopt(fd)
  local conn = { fd = fd, buffer = "" }
  conn.guard = newproxy(true)
  getmetatable(conn.guard).__gc = function()
    if conn.fd then
      C.spec_close(conn.fd)
    end
  end
  return setmetatable(conn, Conn)
end

--- Connects. Raises when nobody listens there.
---@param port integer
---@param options? {host?: string, rcvbuf?: integer, timeout?: number}
---@return spec.Conn
function http.connect(port, options)
  options = options or {}
  local SOCK_STREAM_NONBLOCK_CLOEXEC = 1 + 0x800 + 0x80000
  local fd = sys.check(C.spec_socket(2, SOCK_STREAM_NONBLOCK_CLOEXEC, 0), "socket")
  local addr = address(options.host or "127.0.0.1", port)
  set_int(fd, 6, 1, 1) -- TCP_NODELAY
  if options.rcvbuf then
    set_int(fd, SOL_SOCKET, SO_RCVBUF, options.rcvbuf)
  end
  local errno = 0
  if C.spec_connect(fd, addr, ffi.sizeof(addr)) < 0 then
    errno = ffi.errno()
    if errno == sys.EINPROGRESS then
      local ready = sys.poll({ [fd] = sys.POLLOUT }, deadline_of(options.timeout))
      errno = next(ready) and socket_error(fd) or 110
    end
  end
  if errno ~= 0 then
    C.spec_close(fd)
    error(("cannot connect to port %d: %s"):format(port, sys.strerror(errno)), 2)
  end
  return http.adopt(fd)
end

--- Whether somebody listens on a port.
---@param port integer
---@return boolean
function http.is_listening(port)
  local ok, conn = pcall(http.connect, port)
  if ok then
    conn:close()
  end
  return ok
end

--- Sends all of the bytes, waiting where the peer is slow.
---@param bytes string
---@param timeout? number seconds
---@return boolean? sent
---@return string|nil why "timeout", or the text of an error
---@return integer done bytes that went out
function Conn:send(bytes, timeout)
  local deadline, done = deadline_of(timeout), 0
  while done < #bytes do
    local rest = ffi.cast("const char *", bytes) + done
    local n = tonumber(C.spec_send(self.fd, rest, #bytes - done, MSG_NOSIGNAL))
    if n >= 0 then
      done = done + n
    else
      local errno = ffi.errno()
      if errno ~= sys.EAGAIN then
        return nil, sys.strerror(errno), done
      elseif not next(sys.poll({ [self.fd] = sys.POLLOUT }, deadline)) then
        return nil, "timeout", done
      end
    end
  end
  return true, nil, done
end

--- Sends the bytes in pieces, each in a segment of its own.
---@param bytes string
---@param size? integer default 1
function Conn:send_split(bytes, size)
  size = size or 1
  for i = 1, #bytes, size do
    local sent, why = self:send(bytes:sub(i, i + size - 1))
    if not sent then
      return nil, why
    end
  end
  return true
end

-- Receives once into the buffer.
function Conn:_fill(deadline)
  if self.ended then
    return nil, self.ended
  end
  while true do
    local bytes, why = sys.read(self.fd)
    if bytes then
      self.buffer = self.buffer .. bytes
      return true
    elseif why ~= "again" then
      self.ended = why == "eof" and "eof" or "reset"
      return nil, self.ended
    elseif sys.now() > deadline or not next(sys.poll({ [self.fd] = sys.POLLIN }, deadline)) then
      return nil, "timeout"
    end
  end
end

function Conn:_take(n)
  local bytes = self.buffer:sub(1, n)
  self.buffer = self.buffer:sub(n + 1)
  return bytes
end

--- What has come, or comes first.
---@param timeout? number seconds
---@return string? bytes
---@return "timeout"|"eof"|"reset"|nil why
function Conn:read_some(timeout)
  if self.buffer == "" then
    local ok, why = self:_fill(deadline_of(timeout))
    if not ok then
      return nil, why
    end
  end
  return self:_take(#self.buffer)
end

--- Reads through the first match. What came instead is the second result's rest.
---@param pattern string
---@param timeout? number seconds
---@param plain? boolean the pattern is plain text
---@return string? bytes
---@return "timeout"|"eof"|"reset"|nil why
function Conn:read_until(pattern, timeout, plain)
  local deadline = deadline_of(timeout)
  while true do
    local _, last = self.buffer:find(pattern, 1, plain)
    if last then
      return self:_take(last)
    end
    local ok, why = self:_fill(deadline)
    if not ok then
      return nil, why
    end
  end
end

--- Everything up to the peer's end.
---@param timeout? number seconds
---@return string bytes
---@return "eof"|"reset"|"timeout" how
function Conn:read_all(timeout)
  local deadline, pieces = deadline_of(timeout), {}
  while true do
    local ok, why = self:_fill(deadline)
    pieces[#pieces + 1] = self:_take(#self.buffer)
    if not ok then
      return table.concat(pieces), why
    end
  end
end

--- Waits until the peer ends the connection; what still comes is dropped.
---@param timeout? number seconds
---@return "eof"|"reset"|"timeout" how
function Conn:wait_end(timeout)
  local _, how = self:read_all(timeout)
  return how
end

function Conn:close()
  if self.fd then
    C.spec_close(self.fd)
    self.fd = nil
  end
end

--- Closes with a reset.
function Conn:reset()
  C.spec_setsockopt(self.fd, SOL_SOCKET, SO_LINGER, ffi.new("struct spec_linger", { 1, 0 }), 8)
  self:close()
end

--- Ends the sending side only.
function Conn:shutdown()
  C.spec_shutdown(self.fd, 1)
end

local function header_lines(headers, lines)
  local names = {}
  for name in pairs(headers or {}) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    return tostring(a) < tostring(b)
  end)
  for _, name in ipairs(names) do
    local value = headers[name]
    if type(name) == "number" then
      name, value = value[1], value[2]
    end
    lines[#lines + 1] = name .. ": " .. value
    lines[name:lower()] = true
  end
end

---@class spec.Request
---@field method? string default: GET
---@field path? string default: /
---@field headers? table<string, string>|{[1]: string, [2]: string}[]
---@field body? string sent with its Content-Length unless headers frame it
---@field version? string default: 1.1

--- The text of a request: a Host field is added, and Content-Length where there is a body.
---@param request spec.Request
---@return string
function http.format(request)
  local version = request.version or "1.1"
  local lines = { ("%s %s HTTP/%s"):format(request.method or "GET", request.path or "/", version) }
  header_lines(request.headers, lines)
  if not lines.host then
    table.insert(lines, 2, "Host: localhost")
  end
  if request.body and not lines["content-length"] and not lines["transfer-encoding"] then
    lines[#lines + 1] = "Content-Length: " .. #request.body
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (request.body or "")
end

--- Sends a request and reads the head of its answer.
---@param request spec.Request
---@param timeout? number seconds
---@return spec.Response
function Conn:request(request, timeout)
  self:send(http.format(request))
  return self:response({ head = request.method == "HEAD" }, timeout)
end

local function parse_head(raw)
  local version, status, reason = raw:match("^HTTP/(%d%.%d) (%d%d%d) ?([^\r\n]*)\r\n")
  if not version then
    error(("not a response head: %q"):format(raw), 0)
  end
  local headers = {}
  for line in raw:gmatch("\r\n([^\r\n]+)") do
    local name, value = line:match("^([^:%s]+):[ \t]*(.-)[ \t]*$")
    if not name then
      error(("not a header line: %q"):format(line), 0)
    end
    headers[#headers + 1] = { name, value }
  end
  return { version = version, status = tonumber(status), reason = reason, headers = headers, raw = raw }
end

--- Reads the head of an answer; raises when none comes. Informational answers are answers too.
---@param options? {head?: boolean, skip_informational?: boolean} head: it answers a HEAD
---@param timeout? number seconds
---@return spec.Response
function Conn:response(options, timeout)
  options = options or {}
  local raw, why = self:read_until("\r\n\r\n", timeout, true)
  if not raw then
    error(("%s before a response head; had %q"):format(why, self.buffer), 2)
  end
  local response = setmetatable(parse_head(raw), Response)
  response.conn, response.chunks, response.trailers = self, {}, ""
  if options.skip_informational and response.status < 200 then
    return self:response(options, timeout)
  end
  response:_choose_framing(options.head)
  return response
end

--- The first value of a header, whatever the case of its name.
---@param name string
---@return string?
function Response:get(name)
  return self:all(name)[1]
end

--- All values of a header.
---@param name string
---@return string[]
function Response:all(name)
  local values = {}
  for _, header in ipairs(self.headers) do
    if header[1]:lower() == name:lower() then
      values[#values + 1] = header[2]
    end
  end
  return values
end

function Response:_choose_framing(is_head)
  local length = tonumber(self:get("content-length"))
  if is_head or self.status < 200 or self.status == 204 or self.status == 304 then
    self.framing, self.how = "none", "clean"
  elseif (self:get("transfer-encoding") or ""):lower():find("chunked") then
    self.framing, self.state = "chunked", "size"
  elseif length then
    self.framing, self.left = "length", length
    self.how = length == 0 and "clean" or nil
  else
    self.framing = "close"
  end
end

-- Each decoder takes what it can from the connection's buffer: a piece of the body, "" when only
-- framing was taken, or nil when it needs more bytes.
local decode = {}

function decode.close(self)
  return #self.conn.buffer > 0 and self.conn:_take(#self.conn.buffer) or nil
end

function decode.length(self)
  if self.conn.buffer == "" then
    return nil
  end
  local piece = self.conn:_take(self.left)
  self.left = self.left - #piece
  if self.left == 0 then
    self.how = "clean"
  end
  return piece
end

local chunked = {}

function chunked.size(self)
  local line = self.conn.buffer:match("^([^\r\n]*)\r\n")
  if not line then
    if self.conn.buffer:find("^[^%x]") then
      self.how = "malformed"
    end
    return nil
  end
  self.conn:_take(#line + 2)
  local size = tonumber(line:match("^(%x+)%s*;?") or "", 16)
  if not size then
    self.how = "malformed"
    return ""
  end
  self.chunks[#self.chunks + 1] = size
  self.left, self.state = size, size > 0 and "data" or "trailer"
  return ""
end

function chunked.data(self)
  if self.conn.buffer == "" then
    return nil
  end
  local piece = self.conn:_take(self.left)
  self.left = self.left - #piece
  if self.left == 0 then
    self.state = "crlf"
  end
  return piece
end

function chunked.crlf(self)
  if #self.conn.buffer < 2 then
    return nil
  end
  if self.conn:_take(2) == "\r\n" then
    self.state = "size"
  else
    self.how = "malformed"
  end
  return ""
end

function chunked.trailer(self)
  local line = self.conn.buffer:match("^([^\r\n]*)\r\n")
  if not line then
    return nil
  end
  self.conn:_take(#line + 2)
  if line == "" then
    self.how = "clean"
  else
    self.trailers = self.trailers .. line .. "\r\n"
  end
  return ""
end

function decode.chunked(self)
  return chunked[self.state](self)
end

-- The connection ended: what that means for the body.
function Response:_conn_ended(why)
  if why == "timeout" then
    return why
  elseif why == "reset" then
    self.how = "reset"
  else
    self.how = self.framing == "close" and "clean" or "broken"
  end
  return self.how
end

--- The next piece of the body, without its framing.
---@param timeout? number seconds
---@return string? bytes never empty; nil at the end
---@return "clean"|"broken"|"reset"|"malformed"|"timeout"|nil how
function Response:read(timeout)
  local deadline = deadline_of(timeout)
  while not self.how do
    local piece = decode[self.framing](self)
    if piece and piece ~= "" then
      return piece
    elseif not piece and not self.how then
      local ok, why = self.conn:_fill(deadline)
      if not ok then
        return nil, self:_conn_ended(why)
      end
    end
  end
  return nil, self.how
end

--- The (rest of the) body.
---@param timeout? number seconds
---@return string bytes
---@return "clean"|"broken"|"reset"|"malformed"|"timeout" how
function Response:body(timeout)
  local deadline, pieces = deadline_of(timeout), {}
  while true do
    local piece, how = self:read(deadline - sys.now())
    if not piece then
      return table.concat(pieces), how
    end
    pieces[#pieces + 1] = piece
  end
end

---@class spec.Event
---@field type string "message" where none was given
---@field data string
---@field id? string the id field of this event
---@field last_id string the last id of the stream so far
---@field retry? string
---@field raw string its bytes, with the blank line

-- One line of the stream, by the HTML standard; returns an event when the line was the blank one.
local function take_line(parser, line)
  if line == "" then
    local event = parser.event
    event.last_id, event.raw = parser.last_id, parser.raw
    parser.event, parser.raw = {}, ""
    if not event.data then
      return nil
    end
    event.data = table.concat(event.data, "\n")
    event.type = event.type and event.type ~= "" and event.type or "message"
    return event
  end
  local name, value = line:match("^([^:]*): ?(.*)$")
  if name == "" then
    parser.comments[#parser.comments + 1] = value
    parser.items[#parser.items + 1] = { comment = value }
    return nil
  end
  name, value = name or line, value or ""
  local event = parser.event
  if name == "data" then
    event.data = event.data or {}
    event.data[#event.data + 1] = value
  elseif name == "event" then
    event.type = value
  elseif name == "id" then
    event.id, parser.last_id = value, value
  elseif name == "retry" then
    event.retry, parser.retry = value, value
  end
end

---@class spec.Parser
---@field comments string[] all so far
---@field last_id string
---@field retry? string the last one
local Parser = {}
Parser.__index = Parser

--- An event parser of its own, for bytes from anywhere.
---@return spec.Parser
function http.parser()
  local self = { text = "", comments = {}, items = {}, event = {}, last_id = "", raw = "", first = true }
  return setmetatable(self, Parser)
end

--- Feeds bytes; events and comments are then found in `items`, in order.
---@param bytes string
function Parser:feed(bytes)
  self.text = self.text .. bytes
  if self.first and #self.text < 3 and ("\239\187\191"):sub(1, #self.text) == self.text then
    return
  elseif self.first then
    self.text = self.text:gsub("^\239\187\191", "")
  end
  self.first = false
  while true do
    if self.after_cr and self.text ~= "" then
      self.raw = self.raw .. (self.text:match("^\n") or "")
      self.text, self.after_cr = self.text:gsub("^\n", ""), false
    end
    local line, ending, rest = self.text:match("^([^\r\n]*)(\r?\n?)()")
    if ending == "" then
      return
    end
    self.raw = self.raw .. line .. ending
    self.text, self.after_cr = self.text:sub(rest), ending == "\r"
    local event = take_line(self, line)
    self.items[#self.items + 1] = event
  end
end

--- All events of a text; an incomplete last one is dropped.
---@param text string
---@return spec.Event[]
function http.parse_events(text)
  local parser, events = http.parser(), {}
  parser:feed(text)
  for _, item in ipairs(parser.items) do
    if not item.comment then
      events[#events + 1] = item
    end
  end
  return events
end

--- The next event or comment of the body.
---@param timeout? number seconds
---@return spec.Event|{comment: string}|nil item
---@return "clean"|"broken"|"reset"|"malformed"|"timeout"|nil how
function Response:item(timeout)
  self.parser = self.parser or http.parser()
  local deadline = deadline_of(timeout)
  while #self.parser.items == 0 do
    local piece, how = self:read(deadline - sys.now())
    if not piece then
      return nil, how
    end
    self.parser:feed(piece)
  end
  return table.remove(self.parser.items, 1)
end

--- The next event; comments on the way are kept in `parser.comments`.
---@param timeout? number seconds
---@return spec.Event? event
---@return "clean"|"broken"|"reset"|"malformed"|"timeout"|nil how
function Response:event(timeout)
  local deadline = deadline_of(timeout)
  while true do
    local item, how = self:item(deadline - sys.now())
    if not item or not item.comment then
      return item, how
    end
  end
end

--- That many events, or fewer when the stream ends or stays silent.
---@param count? integer default: all
---@param timeout? number seconds, for all of them
---@return spec.Event[] events
---@return string? how set when there are fewer
function Response:events(count, timeout)
  local deadline, events = deadline_of(timeout), {}
  while #events < (count or math.huge) do
    local event, how = self:event(deadline - sys.now())
    if not event then
      return events, how
    end
    events[#events + 1] = event
  end
  return events
end

--- One request on a connection of its own, with its whole body in `text`.
---@param port integer
---@param request spec.Request|string a request, or a path to GET
---@param timeout? number seconds
---@return spec.Response response with `text` and `how`
function http.fetch(port, request, timeout)
  if type(request) == "string" then
    request = { path = request }
  end
  local conn = http.connect(port)
  local response = conn:request(request, timeout)
  response.text, response.how = response:body(timeout)
  conn:close()
  return response
end

--- Opens an event stream: a GET that accepts events.
---@param port integer
---@param path string
---@param headers? table<string, string>
---@param timeout? number seconds
---@return spec.Response response with its connection in `conn`
function http.stream(port, path, headers, timeout)
  local all = { Accept = "text/event-stream" }
  for name, value in pairs(headers or {}) do
    all[name] = value
  end
  return http.connect(port):request({ path = path, headers = all }, timeout)
end

--- A port nobody listens on, for tests of backends that are down.
---@return integer port
function http.free_port()
  local fd = sys.check(C.spec_socket(2, 1 + 0x80000, 0), "socket")
  local addr, size = address("127.0.0.1", 0), ffi.new("unsigned[1]", 16)
  sys.check(C.spec_bind(fd, addr, 16), "bind")
  sys.check(C.spec_getsockname(fd, addr, size), "getsockname")
  C.spec_close(fd)
  return bit.bor(bit.lshift(bit.band(addr.port, 255), 8), bit.rshift(addr.port, 8))
end

return http
