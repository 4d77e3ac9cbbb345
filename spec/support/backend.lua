--- backend: a server inside the spec, for wire tests: the spec accepts what gatewayd dials, reads the
-- request as it came and answers byte by byte, so that both sides of an exchange stand in one test.
local bit = require("bit")
local ffi = require("ffi")
local http = require("spec.support.http")
local sys = require("spec.support.sys")

local C = sys.C
if not pcall(function() return C.spec_listen end) then -- net declares these two as well
  ffi.cdef([[
    int spec_listen(int, int) __asm__("listen");
    int spec_accept4(int, void *, unsigned *, int) __asm__("accept4");
  ]])
end
if not pcall(ffi.typeof, "struct spec_sockaddr_in6") then
  ffi.cdef([[
    struct spec_sockaddr_in6 {
      uint16_t family; uint16_t port; uint32_t flow; uint8_t addr[16]; uint32_t scope;
    };
    struct spec_sockaddr_un { uint16_t family; char path[108]; };
  ]])
end

local backend = {}

---@class spec.Backend a listening socket
---@field port? integer nil of a unix socket
local Backend = {}
Backend.__index = Backend

local SOCKET_FLAGS = 0x800 + 0x80000 -- non-blocking, close-on-exec
local AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
local SOL_SOCKET, SO_REUSEADDR, IPPROTO_TCP, TCP_NODELAY = 1, 2, 6, 1

local function swapped(port)
  return bit.bor(bit.lshift(bit.band(port, 255), 8), bit.rshift(port, 8))
end

-- The port of an IPv4 or IPv6 socket lies at the same place.
local function bound_port(fd)
  local addr, size = ffi.new("struct spec_sockaddr_in6"), ffi.new("unsigned[1]", 28)
  sys.check(C.spec_getsockname(fd, ffi.cast("struct spec_sockaddr_in *", addr), size), "getsockname")
  return addr.family ~= AF_UNIX and swapped(addr.port) or nil
end

local function socket_address(host, port)
  local path = host:match("^unix:(.*)$")
  if path then return ffi.new("struct spec_sockaddr_un", { family = AF_UNIX, path = path }), AF_UNIX end
  local family = host:find(":", 1, true) and AF_INET6 or AF_INET
  local addr = ffi.new(family == AF_INET6 and "struct spec_sockaddr_in6" or "struct spec_sockaddr_in")
  addr.family, addr.port = family, swapped(port or 0)
  local at = ffi.cast("uint8_t *", addr) + (family == AF_INET6 and 8 or 4)
  assert(C.spec_inet_pton(family, host, at) == 1, host)
  return addr, family
end

--- Listens on 127.0.0.1, or elsewhere.
---@param port? integer default: a free one
---@param host? string an IPv4 or IPv6 address, or unix:/path
---@param backlog? integer
---@return spec.Backend
function backend.listen(port, host, backlog)
  local addr, family = socket_address(host or "127.0.0.1", port)
  local fd = sys.check(C.spec_socket(family, 1 + SOCKET_FLAGS, 0), "socket")
  C.spec_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, ffi.new("int[1]", 1), 4)
  -- Accepted sockets inherit it: what is sent in pieces arrives in pieces.
  C.spec_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ffi.new("int[1]", 1), 4)
  local size = ffi.sizeof(addr)
  sys.check(C.spec_bind(fd, ffi.cast("struct spec_sockaddr_in *", addr), size), "bind")
  sys.check(C.spec_listen(fd, backlog or 128), "listen")
  local self = setmetatable({ fd = fd, port = bound_port(fd) }, Backend)
  self.guard = newproxy(true)
  getmetatable(self.guard).__gc = function() self:close() end
  return self
end

function Backend:close()
  if self.fd then C.spec_close(self.fd) end
  self.fd = nil
end

--- The next connection; nil when none comes.
---@param timeout? number seconds
---@return spec.Conn?
function Backend:try_accept(timeout)
  local deadline = sys.now() + (timeout or http.timeout)
  repeat
    local fd = C.spec_accept4(self.fd, nil, nil, SOCKET_FLAGS)
    if fd >= 0 then return http.adopt(fd) end
  until not next(sys.poll({ [self.fd] = sys.POLLIN }, deadline))
  return nil
end

--- The next connection. Raises when none comes.
---@param timeout? number seconds
---@return spec.Conn
function Backend:accept(timeout)
  return self:try_accept(timeout) or error("nobody dialled the backend", 2)
end

--- Accepts and reads a request head.
---@param timeout? number seconds
---@return spec.Received
function Backend:request(timeout)
  return backend.read_request(self:accept(timeout), timeout)
end

---@class spec.Received a request as a backend sees it
---@field method string
---@field target string path and query as they came
---@field version string
---@field headers {[1]: string, [2]: string}[]
---@field conn spec.Conn to answer on
---@field raw string the head as it came
local Received = {}
Received.__index = Received

--- Reads the head of the next request on a connection. Raises when none comes, or none that is HTTP.
---@param conn spec.Conn
---@param timeout? number seconds
---@return spec.Received
function backend.read_request(conn, timeout)
  local raw, why = conn:read_until("\r\n\r\n", timeout, true)
  if not raw then error(("%s before a request head; had %q"):format(why, conn.buffer), 2) end
  local self = setmetatable({ conn = conn, raw = raw, headers = {} }, Received)
  self.method, self.target, self.version = raw:match("^(%S+) (%S+) HTTP/(%d%.%d)\r\n")
  if not self.method then error(("not a request head: %q"):format(raw), 2) end
  for line in raw:gmatch("\r\n([^\r\n]+)") do
    local name, value = line:match("^([^:%s]+):[ \t]*(.-)[ \t]*$")
    if not name then error(("not a header line: %q"):format(line), 2) end
    self.headers[#self.headers + 1] = { name, value }
  end
  return self
end

--- All values of a header, whatever the case of its name.
---@param name string
---@return string[]
function Received:all(name)
  local values = {}
  for _, header in ipairs(self.headers) do
    if header[1]:lower() == name:lower() then values[#values + 1] = header[2] end
  end
  return values
end

--- The value of a header that is there once; several are joined, as RFC 9110 (5.3) has it.
---@param name string
---@return string?
function Received:get(name)
  local values = self:all(name)
  return #values > 0 and table.concat(values, ", ") or nil
end

local function read_exactly(conn, n, timeout)
  local pieces = {}
  while n > 0 do
    local piece, why = conn:read_some(timeout)
    if not piece then error(("%s with %d bytes of the body missing"):format(why, n), 3) end
    if #piece > n then
      conn.buffer = piece:sub(n + 1) .. conn.buffer
      piece = piece:sub(1, n)
    end
    n = n - #piece
    pieces[#pieces + 1] = piece
  end
  return table.concat(pieces)
end

--- The next chunk of a chunked body: its bytes, "" for the last one.
---@param timeout? number seconds
---@return string
function Received:chunk(timeout)
  local line, why = self.conn:read_until("\r\n", timeout, true)
  local size = line and tonumber(line:match("^(%x+)[;\r]") or "", 16)
  if not size then error(("%s: no chunk, but %q"):format(why or "garbage", line or ""), 2) end
  if size == 0 then
    self.trailers = ""
    repeat
      line = assert(self.conn:read_until("\r\n", timeout, true))
      self.trailers = self.trailers .. (line == "\r\n" and "" or line)
    until line == "\r\n"
    return ""
  end
  local bytes = read_exactly(self.conn, size, timeout)
  assert(self.conn:read_until("\r\n", timeout, true) == "\r\n", "no CRLF behind a chunk")
  return bytes
end

--- The whole body.
---@param timeout? number seconds
---@return string
function Received:body(timeout)
  if (self:get("transfer-encoding") or ""):lower() == "chunked" then
    local pieces = {}
    repeat
      pieces[#pieces + 1] = self:chunk(timeout)
    until pieces[#pieces] == ""
    return table.concat(pieces)
  end
  return read_exactly(self.conn, tonumber(self:get("content-length") or 0), timeout)
end

--- Answers with a whole response, or with just these bytes.
---@param text string
function Received:reply(text)
  local sent, why = self.conn:send(text)
  if not sent then error("cannot answer: " .. why, 2) end
end

--- Answers 200 with a body of known length, or another status; further header lines may be given.
---@param body? string
---@param status? string
---@param lines? string "Name: value\r\n"…
function Received:ok(body, status, lines)
  body = body or ""
  local head = "HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n"
  self:reply(head:format(status or "200 OK", lines or "", #body) .. body)
end

return backend
