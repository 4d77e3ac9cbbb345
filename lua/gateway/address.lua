--- Addresses as text: of IP, of unix sockets, and names of hosts. Called by gateway.settings, gateway.config
-- and gateway.loader; holds no state.

local network = require("gateway.network")

local address = {}

address.family = network.family

local PATH_MAX = 107 -- bytes that the kernel has room for
local NAME_MAX, LABEL_MAX = 253, 63 -- RFC 1035, section 2.3.4

---@param text any
---@return string? path  of a unix socket; nil: it is none
function address.unix_path(text)
  return type(text) == "string" and text:match("^unix:(.*)$") or nil
end

---@param text string
---@return boolean  whether it has to be asked for: neither literal nor path, nor this host
function address.is_name(text)
  return text ~= "localhost" and not address.family(text) and not address.unix_path(text)
end

local function parse_unix(text, path)
  if path:sub(1, 1) ~= "/" then return nil, 'the path of a socket begins with "/": unix:/run/api.sock' end
  if path:find("%z") then return nil, "holds a NUL" end
  if #path > PATH_MAX then
    return nil, ("the path of a socket has at most %d bytes, this one has %d"):format(PATH_MAX, #path)
  end
  return text
end

local function parse_name(text)
  if #text > NAME_MAX then return nil, ("a host name has at most %d bytes"):format(NAME_MAX) end
  for label in (text:gsub("%.$", "") .. "."):gmatch("([^.]*)%.") do
    if not label:find("^[%w_][%w_-]*$") then
      return nil, ('"%s" is not a host name or an address'):format(text)
    end
    if #label > LABEL_MAX then
      return nil, ("between two dots a host name has at most %d bytes"):format(LABEL_MAX)
    end
  end
  return text
end

-- What people write by mistake where an address stands.
local function misspelt(text)
  if text:find("^%[.*%]$") then return "write an IPv6 address without brackets" end
  if text:find("^[%w.-]+:%d+$") then return 'the port has a key of its own, "port"' end
  if text:find("^%d[%d.]*$") then return ('"%s" is not an IPv4 address'):format(text) end
  if text:find("://", 1, true) then return "an address is no URL: write the host alone" end
end

--- What the gateway itself can listen on.
---@param text string
---@return string? text
---@return string? why
function address.parse_listen(text)
  local path = address.unix_path(text)
  if path then return parse_unix(text, path) end
  if text == "localhost" or address.family(text) then return text end
  return nil, misspelt(text)
    or ('"%s" is not an IP address; a name other than localhost can\'t be listened on'):format(text)
end

--- Where an instance can run.
---@param text string
---@return string? text
---@return string? why
function address.parse(text)
  local path = address.unix_path(text)
  if path then return parse_unix(text, path) end
  if not address.is_name(text) then return text end
  local why = misspelt(text)
  if why then return nil, why end
  return parse_name(text)
end

--- A name server: an address, and perhaps a port.
---@param text string
---@return string? text  an IPv6 address in brackets
---@return string? why
function address.parse_server(text)
  local host, port = text:match("^%[(.*)%]:(%d+)$")
  if not host then host, port = text:match("^([%d.]+):(%d+)$") end
  host = host or text:match("^%[(.*)%]$") or text
  local family = address.family(host)
  if not family then return nil, ('"%s" is not the IP address of a name server'):format(text) end
  if port and (#port > 5 or tonumber(port) < 1 or tonumber(port) > 65535) then
    return nil, ("%s is no port"):format(port)
  end
  return (family == 6 and "[%s]" or "%s"):format(host) .. (port and ":" .. port or "")
end

return address
