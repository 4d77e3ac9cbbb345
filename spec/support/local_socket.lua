--- local_socket: clients of unix sockets for wire tests.
local ffi = require "ffi"
local http = require "spec.support.http"
local sys = require "spec.support.sys"
require "spec.support.backend" -- declares the address

local local_socket = {}

local AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC = 1, 1 + 0x800 + 0x80000

--- Connects. Raises when nobody listens there.
---@param path string
---@return spec.Conn
function local_socket.connect(path)
  local fd = sys.check(sys.C.spec_socket(AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC, 0), "socket")
  local addr = ffi.new("struct spec_sockaddr_un", { family = AF_UNIX, path = path })
  local conn = http.adopt(fd)
  local size = ffi.sizeof(addr)
  sys.check(sys.C.spec_connect(fd, ffi.cast("struct spec_sockaddr_in *", addr), size), path)
  return conn
end

return local_socket
