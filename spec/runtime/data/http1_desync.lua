-- luacheck: no max line length
--- What attacks on the border between two messages are made of, and games with names, hosts and line ends:
-- more cases for http1_cases.lua, which adds them to its own. Techniques are public knowledge (papers on
-- request smuggling and desync, tests of llhttp and nginx); the bytes are written here.
local GET = "GET / HTTP/1.1\r\nHost: x\r\n"
local POST = "POST / HTTP/1.1\r\nHost: x\r\n"
local CHUNKED = POST .. "Transfer-Encoding: chunked\r\n\r\n"
local OK = "HTTP/1.1 200 OK\r\n"
local OK_CHUNKED = OK .. "Transfer-Encoding: chunked\r\n\r\n"
local SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: y\r\n\r\n"

-- A POST whose coding is written in some way, with a length beside it that a reader may go by instead.
local function coded(field)
  return POST .. "Content-Length: 4\r\n" .. field .. "\r\n\r\n0\r\n\r\n"
end

local function long(field)
  return POST .. field .. "\r\n\r\nabcde"
end

local function hosted(host)
  return "GET / HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n"
end

local function named(name)
  return GET .. name .. ": b\r\n\r\n"
end

local function first_line(line)
  return line .. "\r\nHost: x\r\n\r\n"
end

local function answer_with(fields, body)
  return OK .. fields .. "\r\n\r\n" .. (body or "")
end

return function(add, requests, responses)
  add(requests, "request line", "RFC 9112, 3", {
    { "NUL behind the method", first_line "GET\0/ HTTP/1.1", 400 },
    { "NUL in the target", first_line "GET /\0 HTTP/1.1", 400 },
    { "DEL in the target", first_line "GET /\127 HTTP/1.1", 400 },
    { "NUL behind the version", first_line "GET / HTTP/1.1\0", 400 },
    { "vertical tab in the request line", first_line "GET\11/ HTTP/1.1", 400 },
    { "more behind the version", first_line "GET / HTTP/1.1 x", 400 },
    { "two versions", first_line "GET / HTTP/1.1 HTTP/1.1", 400 },
    { "0 in front of the version", first_line "GET / HTTP/01.1", 400 },
    { "sign in the version", first_line "GET / HTTP/+1.1", 400 },
    { "version without a minor one", first_line "GET / HTTP/1.", 400 },
    { "version without a dot", first_line "GET / HTTP/11", 400 },
    { "version with a comma", first_line "GET / HTTP/1,1", 400 },
    { "other protocol in the version", first_line "GET / HTTPS/1.1", 400 },
    { "3.0", first_line "GET / HTTP/3.0", 505 },
    { "tab in front", first_line "\tGET / HTTP/1.1", 400 },
    { "space in front", first_line " GET / HTTP/1.1", 400 },
    { "byte order mark in front", first_line "\239\187\191GET / HTTP/1.1", 400 },
    { "LF in front", first_line "\nGET / HTTP/1.1", 400 },
    { "CR in front", first_line "\rGET / HTTP/1.1", 400 },
    { "two CRs behind the request line", first_line "GET / HTTP/1.1\r", 400 },
    { "line end within the request line", first_line "GET /\r\n HTTP/1.1", 400 },
    { "many empty lines in front", ("\r\n"):rep(40) .. GET .. "\r\n", 400 },
    { "target at its bound", first_line("GET /" .. ("a"):rep(599) .. " HTTP/1.1"), { method = "GET" } },
    { "target past its bound", first_line("GET /" .. ("a"):rep(600) .. " HTTP/1.1"), 414 },
    { "absolute form past the bound", first_line("GET http://x/" .. ("a"):rep(592) .. " HTTP/1.1"), 414 },
    { "target without a slash", first_line "GET x HTTP/1.1", 400 },
    { "target that is a query", first_line "GET ?a HTTP/1.1", 400 },
    { "two slashes in front", first_line "GET //y/z HTTP/1.1", { path = "//y/z", authority = "x" } },
    { "escaped line end in the target", first_line "GET /%0d%0aHost:%20y HTTP/1.1", { path = "/%0d%0aHost:%20y" } },
    { "asterisk with more", first_line "OPTIONS */x HTTP/1.1", 400 },
    { "CONNECT with a path", first_line "CONNECT /x HTTP/1.1", 501 },
    { "CONNECT in 1.0", "CONNECT x:80 HTTP/1.0\r\n\r\n", 501 },
    { "method of one letter", first_line "G / HTTP/1.1", 501 },
    { "method with a colon", first_line "GET: / HTTP/1.1", 400 },
    { "mixed case in the method", first_line "Get / HTTP/1.1", 501 },
  })

  add(requests, "Host", "RFC 9112, 3.2", {
    { "Host with a dot at its end", hosted "x.", { authority = "x." } },
    { "Host in capitals", hosted "EXAMPLE.com", { authority = "EXAMPLE.com" } },
    { "Host in IPv4", hosted "127.0.0.1:8080", { authority = "127.0.0.1:8080" } },
    { "Host with an underscore", hosted "a_b", { authority = "a_b" } },
    { "tab before Host", hosted "\tx", { authority = "x" } },
    { "Host with an empty port", hosted "x:", { authority = "x:" }, source = "RFC 3986, 3.2.3" },
    { "Host with a port past the last", hosted "x:65536", 400 },
    { "Host with two ports", hosted "x:80:80", 400 },
    { "Host with a signed port", hosted "x:+80", 400 },
    { "Host of a port alone", hosted ":80", 400 },
    { "Host of two names", hosted "x, y", 400 },
    { "Host with a fragment", hosted "x#y", 400 },
    { "Host with a query", hosted "x?y", 400 },
    { "Host with a backslash", hosted "x\\y", 400 },
    { "Host with a scheme", hosted "http://x", 400 },
    { "Host in raw non-ASCII", hosted "\195\164", 400 },
    { "Host with a broken escape", hosted "x%2", 400 },
    { "Host in IPv6 without brackets", hosted "::1", 400 },
    { "Host in IPv6 with a zone", hosted "[fe80::1%25eth0]", 400 },
    { "Host in IPv6 with a raw zone", hosted "[fe80::1%eth0]", 400 },
    { "Host in IPv6 with more", hosted "[::1]x", 400 },
    { "Host of a future address", hosted "[v1.x]", 400 },
    { "Host of empty brackets", hosted "[]", 400 },
    { "Host twice in two cases", "GET / HTTP/1.1\r\nHost: x\r\nhOsT: y\r\n\r\n", 400 },
    { "Host behind a space", "GET / HTTP/1.1\r\nA: b\r\n Host: x\r\n\r\n", 400 },
    { "NUL behind Host", "GET / HTTP/1.1\r\nHost\0: x\r\n\r\n", 400 },
    { "NUL in Host", hosted "x\0y", 400 },
    { "absolute form with another port", first_line "GET http://x:81/ HTTP/1.1", 400 },
    { "absolute form without a host", first_line "GET http:///y HTTP/1.1", 400 },
    { "absolute form with one slash", first_line "GET http:/x HTTP/1.1", 400 },
    { "absolute form with a backslash", first_line "GET http://x\\@y/ HTTP/1.1", 400 },
    { "absolute form in 1.0, no Host", "GET http://x/y HTTP/1.0\r\n\r\n", { path = "/y", authority = "x" } },
    { "absolute form with an empty Host", "GET http://x/ HTTP/1.1\r\nHost:\r\n\r\n", 400 },
  })

  add(requests, "names and values", "RFC 9110, 5.1", {
    { "all that a name may hold", named "!#$%&'*+-.^_`|~1aA", { fields = { { "!#$%&'*+-.^_`|~1aa", "b" } } } },
    { "bracket in a name", named "A[]", 400 },
    { "quotes around a name", named "\"A\"", 400 },
    { "slash in a name", named "A/B", 400 },
    { "at sign in a name", named "A@B", 400 },
    { "DEL in a name", named "A\127", 400 },
    { "vertical tab before the colon", named "A\11", 400 },
    { "CR in a name", named "A\rB", 400 },
    { "pseudo-header of HTTP/2", GET .. ":authority: y\r\n\r\n", 400, source = "RFC 9113, 8.3" },
    { "vertical tab in a value", GET .. "A: b\11c\r\n\r\n", 400, source = "RFC 9110, 5.5" },
    { "form feed in a value", GET .. "A: b\12c\r\n\r\n", 400, source = "RFC 9110, 5.5" },
    { "escape character in a value", GET .. "A: \27[31m\r\n\r\n", 400, source = "RFC 9110, 5.5" },
    { "single bytes beyond ASCII in a value", GET .. "A: \133\255\r\n\r\n", { fields = { { "a", "\133\255" } } },
      source = "RFC 9110, 5.5" },
    { "Content_Length", POST .. "Content_Length: 5\r\n\r\n", 400, source = "our choice" },
    { "Transfer_Encoding", POST .. "Transfer_Encoding: chunked\r\n\r\n", 400, source = "our choice" },
    { "X_Forwarded_For", GET .. "X_Forwarded_For: 1.2.3.4\r\n\r\n", 400, source = "our choice" },
    { "X-Forwarded_Proto", GET .. "X-Forwarded_Proto: https\r\n\r\n", 400, source = "our choice" },
    { "other names with underscores", GET .. "Api_Key: a\r\n\r\n", { fields = { { "api_key", "a" } } },
      source = "our choice" },
    { "two Content-Type", GET .. "Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 400,
      source = "RFC 9110, 5.3" },
    { "two Authorization", GET .. "Authorization: a\r\nAuthorization: b\r\n\r\n", 400, source = "RFC 9110, 5.3" },
    { "two Cookie", GET .. "Cookie: a=b\r\nCookie: c=d\r\n\r\n", { count = 2 }, source = "RFC 9110, 5.3" },
  })

  add(requests, "CL.TE, TE.CL, TE.TE", "RFC 9112, 6.1", {
    { "CL.TE", POST .. "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400 },
    { "TE.CL", POST .. "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n26\r\n" .. SMUGGLED .. "0\r\n\r\n", 400 },
    { "coding, and another in other case", coded "Transfer-Encoding: chunked\r\nTransfer-encoding: cow", 400 },
    { "chunked, identity", coded "Transfer-Encoding: chunked, identity", 400 },
    { "identity, chunked", coded "Transfer-Encoding: identity, chunked", 400 },
    { "chunked behind an empty element", CHUNKED:gsub("chunked", ",chunked") .. "0\r\n\r\n", 400 },
    { "chunked before an empty element", CHUNKED:gsub("chunked", "chunked,") .. "0\r\n\r\n", 400 },
    { "a part of chunked", CHUNKED:gsub("chunked", "chunk") .. "0\r\n\r\n", 400 },
    { "chunked in single quotes", CHUNKED:gsub("chunked", "'chunked'") .. "0\r\n\r\n", 400 },
    { "chunked with a wide space", CHUNKED:gsub("chunked", "\194\160chunked") .. "0\r\n\r\n", 400 },
    { "chunked with a Kelvin sign", CHUNKED:gsub("chunked", "chun\226\132\170ed") .. "0\r\n\r\n", 400 },
    { "chunked and a word", CHUNKED:gsub("chunked", "chunked x") .. "0\r\n\r\n", 400 },
    { "NUL behind chunked", CHUNKED:gsub("chunked", "chunked%%z"):gsub("%%z", "\0") .. "0\r\n\r\n", 400 },
    { "tab within chunked", CHUNKED:gsub("chunked", "chun\tked") .. "0\r\n\r\n", 400 },
    { "no blank before chunked", CHUNKED:gsub(": chunked", ":chunked") .. "1\r\na\r\n0\r\n\r\n", { body = "a" } },
    { "tab before chunked", CHUNKED:gsub(": chunked", ":\tchunked") .. "1\r\na\r\n0\r\n\r\n", { body = "a" } },
    { "space behind chunked", CHUNKED:gsub("chunked", "chunked ") .. "1\r\na\r\n0\r\n\r\n", { body = "a" } },
    { "tab behind chunked", CHUNKED:gsub("chunked", "chunked\t \t") .. "1\r\na\r\n0\r\n\r\n", { body = "a" } },
    { "folded chunked", coded "Transfer-Encoding:\r\n chunked", 400 },
    { "coding behind a folded line", coded "A: b\r\n Transfer-Encoding: chunked", 400 },
    { "coding behind LF", coded "A: b\nTransfer-Encoding: chunked", 400 },
    { "coding behind CR", coded "A: b\rTransfer-Encoding: chunked", 400 },
    { "coding behind a line of CR", coded "A: b\r\n\rTransfer-Encoding: chunked", 400 },
    { "line end before the colon", coded "Transfer-Encoding\r\n: chunked", 400 },
    { "NUL before the colon", coded "Transfer-Encoding\0: chunked", 400 },
    { "coding named with a prefix", POST .. "X-Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nabcde",
      { body = "abcde", fields = { { "x-transfer-encoding", "chunked" } } } },
    { "TE: chunked is no coding", POST .. "TE: chunked\r\nContent-Length: 5\r\n\r\nabcde",
      { body = "abcde", fields = {} }, source = "RFC 9110, 10.1.4" },
  })

  add(requests, "0.CL, CL.0, TE.0", "RFC 9112, 6.3", {
    { "a request in the body of a GET", GET .. "Content-Length: " .. #SMUGGLED .. "\r\n\r\n" .. SMUGGLED,
      { method = "GET", body = SMUGGLED } },
    { "a request in the body of a POST", POST .. "Content-Length: " .. #SMUGGLED .. "\r\n\r\n" .. SMUGGLED,
      { body = SMUGGLED } },
    { "a request in the chunk of an OPTIONS", (CHUNKED:gsub("^POST", "OPTIONS")) ..
      ("%x\r\n"):format(#SMUGGLED) .. SMUGGLED .. "\r\n0\r\n\r\n", { method = "OPTIONS", body = SMUGGLED } },
    { "body of a HEAD", (POST:gsub("^POST", "HEAD")) .. "Content-Length: 2\r\n\r\nab",
      { method = "HEAD", body = "ab" } },
    { "body of a DELETE", (POST:gsub("^POST", "DELETE")) .. "Content-Length: 2\r\n\r\nab", { body = "ab" } },
    { "folded length", long "Content-Length:\r\n 5", 400 },
    { "length behind CR", long "A: b\rContent-Length: 5", 400 },
    { "length behind LF", long "A: b\nContent-Length: 5", 400 },
    { "length, space before the colon", long "Content-Length : 5", 400 },
    { "length, NUL before the colon", long "Content-Length\0: 5", 400 },
    { "two lengths in two cases", long "Content-Length: 5\r\ncontent-length: 0", 400 },
    { "length with a parameter", long "Content-Length: 5;a=b", 400 },
    { "length with a fraction", long "Content-Length: 5.0", 400 },
    { "length with an exponent", long "Content-Length: 5e0", 400 },
    { "length with an underscore", long "Content-Length: 0_5", 400 },
    { "octal length", long "Content-Length: 0o5", 400 },
    { "length -0", long "Content-Length: -0", 400 },
    { "list that ends in nothing", long "Content-Length: 5,", 400 },
    { "vertical tab behind the length", long "Content-Length: 5\11", 400 },
    { "length in Arabic digits", long "Content-Length: \217\165", 400 },
    { "length in quotes", long "Content-Length: \"5\"", 400 },
    { "length of 2^64 + 5", long "Content-Length: 18446744073709551621", 400 },
    { "length of nineteen digits", long "Content-Length: 1000000000000000000", 400 },
    { "blanks around the length", long "Content-Length: \t5 ", { length = 5, body = "abcde" } },
    { "tab behind the length", long "Content-Length: 5\t", { length = 5, body = "abcde" } },
    { "tab within the length", long "Content-Length: 5\t5", 400 },
    { "length in 1.0", "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nabcde", { minor = 0, body = "abcde" } },
  })

  add(requests, "chunk games", "RFC 9112, 7.1", {
    { "two CRs behind a size", CHUNKED .. "1\r\r\na\r\n0\r\n\r\n", 400 },
    { "two CRs behind a chunk", CHUNKED .. "1\r\na\r\r\n0\r\n\r\n", 400 },
    { "CR alone behind a chunk", CHUNKED .. "1\r\na\r0\r\n\r\n", 400 },
    { "nothing behind a chunk", CHUNKED .. "1\r\na0\r\n\r\n", 400 },
    { "two bytes of anything behind a chunk", CHUNKED .. "1\r\naXX0\r\n\r\n", 400 },
    { "LF behind an extension's semicolon", CHUNKED .. "1;\na\r\n0\r\n\r\n", 400, source = "RFC 9112, 7.1.1" },
    { "CR behind an extension's semicolon", CHUNKED .. "1;\ra\r\n0\r\n\r\n", 400, source = "RFC 9112, 7.1.1" },
    { "two CRs behind an extension", CHUNKED .. "1;a\r\r\na\r\n0\r\n\r\n", 400, source = "RFC 9112, 7.1.1" },
    { "LF in a quoted extension", CHUNKED .. "1;a=\"\n\"\r\na\r\n0\r\n\r\n", 400, source = "RFC 9112, 7.1.1" },
    { "line end in a quoted extension", CHUNKED .. "1;a=\"\r\n\"\r\na\r\n0\r\n\r\n", 400,
      source = "RFC 9112, 7.1.1" },
    { "NUL in an extension", CHUNKED .. "1;a\0\r\na\r\n0\r\n\r\n", 400, source = "RFC 9112, 7.1.1" },
    { "space before an extension", CHUNKED .. "1 ;a\r\na\r\n0\r\n\r\n", 400, source = "RFC 9112, 7.1.1" },
    { "extensions past the bound of a request", CHUNKED .. ("1;" .. ("a"):rep(900) .. "\r\na\r\n"):rep(20), 400,
      source = "our choice", coarse = true },
    { "many chunks of one byte", CHUNKED .. ("1\r\na\r\n"):rep(400) .. "0\r\n\r\n", { body = ("a"):rep(400) },
      coarse = true },
    { "zeros before a size", CHUNKED .. ("0"):rep(40) .. "1\r\na\r\n0\r\n\r\n", { body = "a" } },
    { "endless zeros before a size", CHUNKED .. ("0"):rep(1100), 400 },
    { "largest size", CHUNKED .. "FFFFFFFFFFFFFFFF\r\n", 413, source = "RFC 9110, 15.5.14" },
    { "size that wraps around to one", CHUNKED .. "10000000000000001\r\na\r\n0\r\n\r\n", 400 },
    { "size with an underscore", CHUNKED .. "1_0\r\na\r\n0\r\n\r\n", 400 },
    { "size in capitals and not", CHUNKED .. "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
      { body = "01234567890123456789a" } },
    { "tab behind a size", CHUNKED .. "1\t\r\na\r\n0\r\n\r\n", 400 },
    { "comma behind a size", CHUNKED .. "1,\r\na\r\n0\r\n\r\n", 400 },
    { "CR behind the last chunk", CHUNKED .. "0\r\n\r\r\n", 400 },
    { "Content-Length in capitals in the trailers", CHUNKED .. "0\r\nCONTENT-LENGTH: 5\r\n\r\n", 400,
      source = "RFC 9110, 6.5.1" },
    { "NUL in a trailer", CHUNKED .. "0\r\nA: \0\r\n\r\n", 400, source = "RFC 9112, 7.1.2" },
    { "trailer of an empty line and a request", CHUNKED .. "0\r\nA\r\n\r\n", 400, source = "RFC 9112, 7.1.2" },
  })

  add(requests, "hop-by-hop", "RFC 9110, 7.6.1", {
    { "Connection names Transfer-Encoding", POST .. "Transfer-Encoding: chunked\r\n" ..
      "Connection: transfer-encoding\r\n\r\n0\r\n\r\n", 400 },
    { "Connection names Forwarded", GET .. "Connection: forwarded\r\n\r\n", 400 },
    { "Connection names X-Real-IP", GET .. "Connection: X-Real-IP\r\n\r\n", 400 },
    { "Connection names X-Request-Id", GET .. "Connection: x-request-id\r\n\r\n", 400 },
    { "Connection names Content-Type", GET .. "Connection: content-type\r\n\r\n", 400 },
    { "Connection names Host behind keep-alive", GET .. "Connection: keep-alive, host\r\n\r\n", 400 },
    { "Connection says both", GET .. "Connection: keep-alive, close\r\n\r\n", { close = true } },
    { "empty Connection", GET .. "Connection:\r\n\r\n", { fields = {} } },
    { "Connection of commas", GET .. "Connection: ,, ,\r\n\r\n", { fields = {} } },
    { "too many Connection fields", GET .. ("Connection: a\r\n"):rep(5) .. "\r\n", 400 },
    { "h2c", GET .. "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
      { upgrade = true, upgrade_to = "h2c", fields = {} }, source = "RFC 9113, 3.1" },
    { "h2c settings without Upgrade", GET .. "Connection: HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\n\r\n",
      { upgrade = false, fields = {} }, source = "RFC 9113, 3.1" },
  })

  add(requests, "Expect", "RFC 9110, 10.1.1", {
    { "word before the expectation", POST .. "Expect: y 100-continue\r\nContent-Length: 1\r\n\r\na", 400 },
    { "expectation twice",
      POST .. "Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na", 400 },
    { "list of expectations", POST .. "Expect: 100-continue, x\r\nContent-Length: 1\r\n\r\na", 400 },
    { "longer expectation", POST .. "Expect: 100-continued\r\nContent-Length: 1\r\n\r\na", 400 },
    { "empty expectation", POST .. "Expect:\r\nContent-Length: 1\r\n\r\na", 400 },
    { "folded expectation", POST .. "Expect:\r\n 100-continue\r\nContent-Length: 1\r\n\r\na", 400 },
    { "Expect of a GET with a body", GET .. "Expect: 100-continue\r\nContent-Length: 1\r\n\r\na",
      { expect_continue = true, body = "a" } },
    { "Expect with length 0", POST .. "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n",
      { expect_continue = false, body = "" } },
  })

  add(responses, "status line", "RFC 9112, 4", {
    { "tab before the status", "HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n", "bad_response" },
    { "tab behind the status", "HTTP/1.1 200\tOK\r\nContent-Length: 0\r\n\r\n", "bad_response" },
    { "signed status", "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", "bad_response" },
    { "lower-case version", "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "bad_response" },
    { "1.2 counts as 1.1", "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", { status = 200, body = "" } },
    { "two CRs behind the reason", "HTTP/1.1 200 OK\r\r\nContent-Length: 0\r\n\r\n", "bad_response" },
    { "LF behind the reason", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "bad_response" },
  })

  add(responses, "fields of answers", "RFC 9112, 5", {
    { "Connection names Content-Length", answer_with("Connection: content-length\r\nContent-Length: 1", "a"),
      { length = 1, body = "a" }, source = "RFC 9110, 7.6.1" },
    { "Connection is no token", answer_with("Connection: a b\r\nContent-Length: 0"), "bad_response",
      source = "RFC 9110, 7.6.1" },
    { "space in a name", answer_with("A B: c\r\nContent-Length: 0"), "bad_response" },
    { "no colon", answer_with("A\r\nContent-Length: 0"), "bad_response" },
    { "CR in a value", answer_with("A: b\rSet-Cookie: c\r\nContent-Length: 0"), "bad_response" },
    { "blank before the first field", OK .. " A: b\r\nContent-Length: 0\r\n\r\n", "bad_response" },
    { "UTF-8 in a value", answer_with("A: \195\164\r\nContent-Length: 0"), { fields = { { "a", "\195\164" } } } },
  })

  add(responses, "bodies of answers", "RFC 9112, 6.3", {
    { "list of lengths", answer_with("Content-Length: 1, 1", "a"), "bad_response" },
    { "hexadecimal length", answer_with("Content-Length: 0x1", "a"), "bad_response" },
    { "empty length", answer_with("Content-Length:", "a"), "bad_response" },
    { "length that overflows", answer_with("Content-Length: 18446744073709551617", "a"), "bad_response" },
    { "two different lengths", answer_with("Content-Length: 1\r\nContent-Length: 2", "ab"), "bad_response" },
    { "coding twice", answer_with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
      "bad_response" },
    { "identity", answer_with("Transfer-Encoding: identity", "a"), "bad_response" },
    { "coding with a parameter", answer_with("Transfer-Encoding: chunked;a", "0\r\n\r\n"), "bad_response" },
    { "folded coding", answer_with("Transfer-Encoding:\r\n chunked", "0\r\n\r\n"), "bad_response" },
    { "length and coding for HEAD", answer_with("Content-Length: 5\r\nTransfer-Encoding: chunked"),
      "bad_response", method = "HEAD" },
    { "more than the length", answer_with("Content-Length: 1", "ab"), { body = "a" },
      left = true, source = "RFC 9112, 9.2" },
    { "an answer behind the answer", answer_with("Content-Length: 1", "a" .. OK .. "Content-Length: 0\r\n\r\n"),
      { status = 200, body = "a" }, left = true, source = "RFC 9112, 9.2" },
    { "line end behind the body", answer_with("Content-Length: 1", "a\r\n"), { body = "a" },
      left = true, source = "RFC 9112, 9.2" },
    { "more than the last chunk", OK_CHUNKED .. "1\r\na\r\n0\r\n\r\nb", { body = "a" }, left = true, source = "RFC 9112, 9.2" },
    { "body of a HEAD", answer_with("Content-Length: 2", "ab"), { has_body = false, body = "" }, left = true,
      method = "HEAD" },
    { "body of a 204", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nab", { has_body = false, body = "" }, left = true },
    { "chunks of a 204", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
      { has_body = false, body = "" }, left = true },
    { "body of a 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nab", { has_body = false, body = "" }, left = true },
    { "body of a 205", "HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nab", { status = 205, body = "ab" } },
    { "endless extension", OK_CHUNKED .. "1;" .. ("a"):rep(1100), "bad_response", source = "RFC 9112, 7.1.1" },
    { "LF in an extension", OK_CHUNKED .. "1;a\nb\r\na\r\n0\r\n\r\n", "bad_response", source = "RFC 9112, 7.1.1" },
    { "two CRs behind a size", OK_CHUNKED .. "1\r\r\na\r\n0\r\n\r\n", "bad_response", source = "RFC 9112, 7.1" },
    { "negative size", OK_CHUNKED .. "-1\r\na\r\n0\r\n\r\n", "bad_response", source = "RFC 9112, 7.1" },
    { "size that overflows", OK_CHUNKED .. "FFFFFFFFFFFFFFFFF\r\na", "bad_response", source = "RFC 9112, 7.1" },
    { "chunk longer than its size", OK_CHUNKED .. "1\r\nab\r\n0\r\n\r\n", "bad_response", got = "a",
      source = "RFC 9112, 7.1" },
    { "too many trailers", OK_CHUNKED .. "0\r\n" .. ("A: b\r\n"):rep(9) .. "\r\n", "bad_response",
      source = "RFC 9112, 7.1.2" },
    { "end within a size", OK_CHUNKED .. "2", "truncated", eof = true, source = "RFC 9112, 8" },
    { "end behind the last size", OK_CHUNKED .. "1\r\na\r\n0\r\n", "truncated", eof = true, got = "a",
      source = "RFC 9112, 8" },
  })

  add(responses, "interim answers", "RFC 9110, 15.2", {
    { "as many 100 as allowed", ("HTTP/1.1 100 C\r\n\r\n"):rep(16) .. OK .. "Content-Length: 0\r\n\r\n",
      { status = 200, heads = 17 } },
    { "100 with chunks", "HTTP/1.1 100 C\r\nTransfer-Encoding: chunked\r\n\r\n" .. OK .. "Content-Length: 0\r\n\r\n",
      { status = 200, heads = 2, body = "" } },
    { "199", "HTTP/1.1 199 X\r\n\r\n" .. OK .. "Content-Length: 1\r\n\r\na", { status = 200, body = "a" } },
    { "101 behind a 100", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 101 X\r\n\r\n", "bad_response" },
    { "length and coding in a 100", "HTTP/1.1 100 C\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      "bad_response" },
  })
end
