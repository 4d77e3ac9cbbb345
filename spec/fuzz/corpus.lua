--- Makes the first corpora of the fuzz targets, from the cases that specs have and from what is listed
-- here, each below spec/fuzz/corpus/TARGET. What is there already stays.
--
--     luajit spec/fuzz/corpus.lua
local cases = dofile "spec/runtime/data/http1_cases.lua"
local MAX = 4096

local function write(target, name, bytes)
  if #bytes > MAX then return end
  local path = ("spec/fuzz/corpus/%s/%s"):format(target, name:gsub("%W+", "_"):lower())
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
end

local function make(target, list)
  os.execute("mkdir -p spec/fuzz/corpus/" .. target)
  for i, bytes in ipairs(list or {}) do write(target, tostring(i), bytes) end
end

-- Behind the last of them come those of files.
local function add_files(target, pattern, first)
  local i = first
  for path in io.popen("ls " .. pattern):lines() do
    local file = assert(io.open(path, "rb"))
    write(target, tostring(i), file:read "*a")
    file:close()
    i = i + 1
  end
end

make "http_request"
for _, case in ipairs(cases.requests) do write("http_request", case[1], case[2]) end

-- A byte for the method in front: see http_response.c.
make "http_response"
for _, case in ipairs(cases.responses) do
  write("http_response", case[1], (case.method == "HEAD" and "H" or "G") .. case[2])
end

make("chunked", {
  "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", "0\r\nT: v\r\nU: w\r\n\r\n", "000A;x=y\r\n0123456789\r\n0\r\n\r\n",
  "2;a=\"b\"\r\nab\r\n0\r\n\r\n", "2\nab\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "-1\r\n",
  "0x1\r\na\r\n0\r\n\r\n",
  "1 \r\na\r\n0\r\n\r\n", "1\r\nab\r\n0\r\n\r\n", "0\r\nContent-Length: 1\r\n\r\n", "0\r\n a: b\r\n\r\n",
})

make("sse", {
  "data: a\n\n", "\239\187\191data: a\r\n\r\nid: 1\r\rdata\r\ndata:b\n\n",
  ":c\n\nevent: x\nretry: 10\ndata: y\n\n",
  "id: a\0b\ndata: x\n\n", "retry: 1x\n\ndata: " .. ("z"):rep(90) .. "\n\n\n\n\r\n\r\r\n",
  "a: b\nunknown\n: \n:\n\n",
})

make("json_field", {
  "a\0001\000{\"a\":2}", "a.b.0\000\"x\"\000{\"a\":{\"b\":[1,2]},\"a\":{\"b\":[]}}",
  "0\000null\000[1, [2], {}]",
  "x\000{}\000{\"y\":\"\\ud83d\\ude00\\u0000\"}", "\\u0061\0001e3\000{\"\\u0061\": -0.5E+2}",
  "k\000true\000 [ ] ",
})

make("yaml", {
  "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  e: [1, 2.5, 0x1f, ~, true, \"t\"]\n", "- |\n  a\n- >-\n  b\n  c\n",
  "a: !!str 1\nb: '${X}'\n? c\n: d\n", "a: {b: [", "%YAML 1.2\n---\na: 1\n...\n", "a: &a [*a]\n",
  "a: 1\na: 2\n",
})
add_files("yaml", "conf/*.yaml", 20)

make("target", {
  "GET /a/b?c=d", "OPTIONS *", "GET http://user@[::1]:80/x", "GET HTTP://h:1?q", "CONNECT a:1",
  "a=%41&b=+%zz&a",
  "[2001:db8::1%25eth0]:443", "a.b-c_d:65536", "GET //a#b", "h%41st:80", "[v1.a:b]",
})

make("addr", {
  "127.0.0.1", "[::1]", "fe80::1%1", "::ffff:1.2.3.4", "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0",
  "unix:",
  "localhost", "*", "1.2.3", "01.2.3.4", "[::]", "10.0.0.0/33", "1:2:3:4:5:6:7:8", "::1.2.3.4/96",
})

make("proxy_protocol", {
  "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\nGET / HTTP/1.1\r\n\r\n", "PROXY UNKNOWN\r\n",
  "PROXY UNKNOWN ffff::1 ::1 1 2\r\n", "PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 65535 0\r\nx",
  "PROXY TCP4 1.2.3.4 1.2.3.4 01 80\r\n", "PROXY TCP4  1.2.3.4 1.2.3.4 1 80\r\n",
  "\r\n\r\n\0\r\nQUIT\n\33\17\0\12\1\2\3\4\5\6\7\8\0\80\1\187GET",
  "\r\n\r\n\0\r\nQUIT\n\33\33\0\39" .. ("a"):rep(36) .. "\4\0\0X",
  "\r\n\r\n\0\r\nQUIT\n\32\0\0\0GET", "\r\n\r\n\0\r\nQUIT\n\33\49\0\216" .. ("/"):rep(216) .. "GET",
  "\r\n\r\n\0\r\nQUIT\n\33\0\1\0" .. ("t"):rep(256) .. "G", "GET / HTTP/1.1\r\n\r\n",
})

make("forwarded", {
  "0x-forwarded-for:1.2.3.4, 10.0.0.2:80,, [fc00::1]:1\nX-Forwarded-For: fc00::7\nX-Real-IP:1.1.1.1\na:b",
  "1forwarded:for=\"[2001:db8::1]:_x\";proto=https, For=10.0.0.3;host=\"a:1\";by=_b\nForwarded:for=192.0.2.1",
  "0x-forwarded-proto:http\nx-forwarded-proto:https\nx_forwarded_host:a\nx-forwarded-port:80\nx_real_ip:1",
  "0x-forwarded-for:unknown, ::ffff:10.1.1.1\nforwarded:for=a\nx-forwarded-host:h:80\nx-forwarded-port:0",
  "1forwarded:for=\"a\\\"b,c\";for=1.1.1.1\nforwarded:for=\"10.0.0.1",
  "0x-forwarded-for:" .. ("10.0.0.1,"):rep(70),
  "1forwarded:for=192.0.2.9, by=\"a,b\";for=10.0.0.5\nforwarded:for=192.0.2.1;by=\",\"",
  "1forwarded:for=\"2001:db8::1\"\nforwarded:for=\"[::ffff:10.0.0.9]\", for=\"10.0.0.7:80\"",
})

make("head", {
  "GET /a h http\n+Accept:text/event-stream\n+x:1\n+X:2\n~x:3\n=accept:*/*\n?y:\n-x:\n",
  "POST /" .. ("p"):rep(300) .. " a:1 https websocket\n+" .. ("n"):rep(215) .. ":" .. ("v"):rep(216),
  "\n+cache-control:no-cache\n+vary:a, \"b,c\" ,,d\n+vary:e\n+content-type:text/plain\n=vary:\n~vary:q",
})

-- Operations of exchange.c: a tunnel that both use and end, one that nobody uses, one that breaks, one
-- through clients that are proxies, one to another protocol, a stream that grows old, and a reload.
local function schedule(last, ...)
  return string.char(...) .. string.char(last)
end
local OPEN = { 0x02, 22, 0x03, 0, 0x30, 0x05, 20, 0x06, 0, 0x30 }
local TALK = { 0x05, 3, 0x06, 0, 0x02, 23, 0x03, 0, 0x30, 0x01, 3, 97, 98, 99, 0x03, 2, 0x06, 0, 0x03, 0 }
local STREAM = { 0x05, 2, 0x05, 3, 0x06, 0, 0x30 }
local END = { 0x08, 0x30, 0x07, 0x30 }

local function chain(...)
  local all = { 0 }
  for _, list in ipairs { ... } do
    for _, byte in ipairs(list) do all[#all + 1] = byte end
  end
  return unpack(all)
end

make("exchange", {
  schedule(0x01, chain(OPEN, TALK, END)), schedule(0x09, chain(OPEN, TALK, { 0x07 }, TALK, END)),
  schedule(0x11, chain(OPEN, TALK)), schedule(0x01, chain(OPEN, TALK, { 0x18, 0x30 }, TALK)),
  schedule(0x21, chain({ 0x02, 20 }, OPEN, TALK, END)), schedule(0x61, chain({ 0x02, 21 }, OPEN, TALK, END)),
  schedule(0x01, chain({ 0x02, 16, 0x03, 0, 0x30, 0x05, 22, 0x06, 0, 0x30 }, TALK)),
  schedule(0x11, chain({ 0x02, 4, 0x03, 0, 0x30 }, STREAM, { 0xfb, 0x30 })),
  schedule(0x91, chain({ 0x02, 4, 0x03, 0, 0x30 }, STREAM)),
  schedule(0x09, chain({ 0x02, 4, 0x03, 0, 0x12, 4, 0x13, 0, 0x22, 4, 0x23, 0, 0x30 }, STREAM)),
  schedule(0x01, chain({ 0x02, 4, 0x03, 0, 0x30 }, STREAM, { 0x5c, 0x30, 0x05, 3, 0x06, 0 }, END)),
})
