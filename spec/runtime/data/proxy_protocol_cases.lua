--- Headers of the PROXY protocol by HAProxy's proxy-protocol.txt: what they say of the client, or how they
-- are refused. client "" = the peer stays who it is. Whatever is behind a good header is not read.
local SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"

local function u16(n)
  return string.char(math.floor(n / 256), n % 256)
end

-- Version 2; length: what it says of itself, by default the truth.
local function binary(command, family, payload, length)
  return SIGNATURE .. string.char(command, family) .. u16(length or #payload) .. payload
end

local V4 = "\203\0\113\7\192\0\2\1" .. u16(40000) .. u16(443)
local V6 = ("\32\1\13\184" .. ("\0"):rep(11) .. "\7") .. ("\32\1\13\184" .. ("\0"):rep(11) .. "\1")
  .. u16(65535) .. u16(80)
local MAPPED = ("\0"):rep(10) .. "\255\255\203\0\113\7" .. ("\0"):rep(15) .. "\1" .. u16(9) .. u16(80)
local PATHS = "/run/client.sock" .. ("\0"):rep(92) .. "/run/here.sock" .. ("\0"):rep(94)
local TLV = "\3" .. u16(4) .. "\1\2\3\4" -- a checksum

local function good(name, bytes, client)
  return { name = name, bytes = bytes, client = client }
end

local function bad(name, bytes)
  return { name = name, bytes = bytes, err = "bad_proxy_header" }
end

local function none(name, bytes)
  return { name = name, bytes = bytes, err = "no_proxy_header" }
end

local longest = "PROXY TCP6 " .. ("ffff:"):rep(7) .. "ffff " .. ("ffff:"):rep(7) .. "ffff 65535 65535\r\n"

return {
  -- Version 1 (section 2.1).
  good("v1 TCP4", "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n", "203.0.113.7:40000"),
  good("v1 TCP4, extremes", "PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", "255.255.255.255:65535"),
  good("v1 TCP6", "PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", "[2001:db8::7]:1"),
  good("v1 TCP6, longest", longest, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
  good("v1 UNKNOWN", "PROXY UNKNOWN\r\n", ""),
  good("v1 UNKNOWN with addresses", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", ""),
  good("v1 UNKNOWN with anything, 107 bytes", "PROXY UNKNOWN " .. ("x"):rep(91) .. "\r\n", ""),
  bad("v1 of 108 bytes", "PROXY UNKNOWN " .. ("x"):rep(92) .. "\r\n"),
  bad("v1 without an end", "PROXY UNKNOWN " .. ("x"):rep(200)),
  bad("v1 UNKNOWN and more", "PROXY UNKNOWNS\r\n"),
  bad("v1 of another family", "PROXY UDP4 203.0.113.7 192.0.2.1 40000 443\r\n"),
  bad("v1 in lower case", "PROXY tcp4 203.0.113.7 192.0.2.1 40000 443\r\n"),
  bad("v1 with the other family's address", "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n"),
  bad("v1 with two families", "PROXY TCP6 2001:db8::7 192.0.2.1 1 2\r\n"),
  bad("v1 with brackets", "PROXY TCP6 [2001:db8::7] [2001:db8::1] 1 2\r\n"),
  bad("v1 with a leading zero", "PROXY TCP4 203.0.113.07 192.0.2.1 40000 443\r\n"),
  bad("v1 with three numbers", "PROXY TCP4 203.0.113 192.0.2.1 40000 443\r\n"),
  bad("v1 with a name", "PROXY TCP4 localhost 192.0.2.1 40000 443\r\n"),
  bad("v1 with a port too large", "PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n"),
  bad("v1 with a port with a zero", "PROXY TCP4 203.0.113.7 192.0.2.1 040 443\r\n"),
  bad("v1 with a signed port", "PROXY TCP4 203.0.113.7 192.0.2.1 +40 443\r\n"),
  bad("v1 with a bad port of its own", "PROXY TCP4 203.0.113.7 192.0.2.1 40000 x\r\n"),
  bad("v1 with two blanks", "PROXY TCP4  203.0.113.7 192.0.2.1 40000 443\r\n"),
  bad("v1 with a blank at its end", "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443 \r\n"),
  bad("v1 with a word too many", "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443 1\r\n"),
  bad("v1 with a word too few", "PROXY TCP4 203.0.113.7 192.0.2.1 40000\r\n"),
  bad("v1 with a tab", "PROXY TCP4\t203.0.113.7 192.0.2.1 40000 443\r\n"),
  bad("v1 with a NUL", "PROXY UNKNOWN\0\r\n"),
  bad("v1 that ends in LF", "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\n"),
  bad("v1 with CR in it", "PROXY UNKNOWN \rx\r\n"),
  bad("v1 that ends in two CR", "PROXY UNKNOWN\r\r\n"),
  bad("v1 that is empty", "PROXY \r\n"),
  none("v1 without its blank", "PROXY\r\n"),
  none("v1 in small letters", "proxy UNKNOWN\r\n"),
  -- Version 2 (section 2.2).
  good("v2 LOCAL", binary(0x20, 0x00, ""), ""),
  good("v2 LOCAL with a family, which does not count", binary(0x20, 0x11, V4), ""),
  good("v2 LOCAL with a family that does not exist", binary(0x20, 0xff, "abc"), ""),
  good("v2 UNSPEC", binary(0x21, 0x00, ""), ""),
  good("v2 UNSPEC with bytes", binary(0x21, 0x00, ("x"):rep(300)), ""),
  good("v2 TCP4", binary(0x21, 0x11, V4), "203.0.113.7:40000"),
  good("v2 TCP4 with TLVs", binary(0x21, 0x11, V4 .. TLV:rep(40)), "203.0.113.7:40000"),
  good("v2 TCP6", binary(0x21, 0x21, V6), "[2001:db8::7]:65535"),
  good("v2 TCP6, an IPv4 address in its clothes", binary(0x21, 0x21, MAPPED), "203.0.113.7:9"),
  good("v2 UNIX", binary(0x21, 0x31, PATHS), "unix:"),
  good("v2 UNIX with TLVs", binary(0x21, 0x31, PATHS .. TLV), "unix:"),
  good("v2 of 4096 bytes", binary(0x21, 0x11, V4 .. ("x"):rep(4096 - 16 - 12)), "203.0.113.7:40000"),
  bad("v2 of 4097 bytes", binary(0x21, 0x11, V4 .. ("x"):rep(4097 - 16 - 12))),
  bad("v2 of the greatest length", binary(0x21, 0x11, V4, 65535)),
  bad("v2 TCP4 that is too short", binary(0x21, 0x11, V4:sub(1, 11))),
  bad("v2 TCP6 that is too short", binary(0x21, 0x21, V4)),
  bad("v2 UNIX that is too short", binary(0x21, 0x31, V6)),
  bad("v2 UDP4", binary(0x21, 0x12, V4)),
  bad("v2 UDP6", binary(0x21, 0x22, V6)),
  bad("v2 UNIX datagrams", binary(0x21, 0x32, PATHS)),
  bad("v2 of another family", binary(0x21, 0x41, V4)),
  bad("v2 of another command", binary(0x22, 0x11, V4)),
  bad("v2 of version 1", binary(0x11, 0x11, V4)),
  bad("v2 of version 3", binary(0x31, 0x11, V4)),
  none("v2 with a signature that is not quite one", "\r\n\r\n\0\r\nQUIT\r" .. "\33\17" .. u16(12) .. V4),
  -- Neither.
  none("a request", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
  none("TLS", "\22\3\1\2\0\1\0\1"),
  none("an empty line", "\r\nGET / HTTP/1.1\r\n"),
  none("a PUT, whose first letter fits", "PUT / HTTP/1.1\r\n"),
}
