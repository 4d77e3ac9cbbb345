-- luacheck: no max line length
--- What public collections of odd and hostile messages hold that was not among our cases: more cases for
-- http1_cases.lua. The facts are theirs, the bytes are ours; `from` names where it is described.
local GET = "GET / HTTP/1.1\r\nHost: x\r\n"
local POST = "POST / HTTP/1.1\r\nHost: x\r\n"
local CHUNKED = POST .. "Transfer-Encoding: chunked\r\n\r\n"
local OK = "HTTP/1.1 200 OK\r\n"
local EMPTY = "Content-Length: 0\r\n\r\n"
local SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: y\r\n\r\n"

local LLHTTP = "nodejs/llhttp, test/request"
local LLHTTP_ANSWERS = "nodejs/llhttp, test/response"
local SMUGGLER = "defparam/smuggler, configs/exhaustive.py"
local PROBE = "MDA2AV/Http11Probe"
local DUBIOUS = "noxxi/p5-app-dubioushttp"

local function all_from(from, cases)
  for _, case in ipairs(cases) do case.from = case.from or from end
  return cases
end

local function coded(field)
  return POST .. "Content-Length: 5\r\n" .. field .. "\r\n\r\n0\r\n\r\n"
end

local function alone(field)
  return POST .. field .. "\r\n\r\n0\r\n\r\n"
end

return function(add, requests, responses)
  add(requests, "request line", "RFC 9112, 3", all_from(LLHTTP, {
    { "a letter before HTTP", "GET / IHTTP/1.1\r\nHost: x\r\n\r\n", 400 },
    { "another method of RTSP", "ANNOUNCE / HTTP/1.1\r\nHost: x\r\n\r\n", 501 },
    { "method of ICE in HTTP", "SOURCE / HTTP/1.1\r\nHost: x\r\n\r\n", { method = "SOURCE" } },
    { "5.6", "GET / HTTP/5.6\r\nHost: x\r\n\r\n", 505 },
    { "method with a quote", "PUT\" / HTTP/1.1\r\nHost: x\r\n\r\n", 400 },
    { "blanks and nothing else", " \t \r\n\r\n", 400, from = PROBE },
    { "absolute form of https", "GET https://x/a HTTP/1.1\r\nHost: x\r\n\r\n", { path = "/a", authority = "x" },
      from = "RFC 9112, 3.2.2" },
    { "absolute form as in the RFC", "GET http://www.example.org/pub/WWW/TheProject.html HTTP/1.1\r\nHost: www.example.org\r\n\r\n",
      { path = "/pub/WWW/TheProject.html", authority = "www.example.org" }, from = "RFC 9112, 3.2.2" },
  }))

  add(requests, "Host", "RFC 9112, 3.2", {
    { "Host of dots and a port of letters", "GET / HTTP/1.1\r\nHost: .jsdh.sfdg.:sfdg.\r\n\r\n", 400,
      from = "lighttpd1.4, tests" },
    { "Host of two ports in IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80:80\r\n\r\n", 400, from = PROBE },
  })

  add(requests, "fields", "RFC 9112, 5", all_from(LLHTTP, {
    { "name folded before its colon", GET .. "A\r\n : b\r\n\r\n", 400 },
    { "CR and a request behind the fields", GET .. "\rZ" .. SMUGGLED, 400 },
    { "length behind an LF of another field", GET .. "A: x\nContent-Length: 23\r\n\r\n" .. SMUGGLED, 400 },
    { "coding behind the CR of an empty field", POST .. "A:\rTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 400 },
    { "coding behind the LF of an empty field", POST .. "A:\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 400 },
    { "length behind a space", GET .. "A: b\r\n Content-Length: 38\r\n\r\n" .. SMUGGLED, 400 },
    { "name of 270 letters that begins as a length", POST .. "Content-Length0" .. ("a"):rep(255) .. ": b\r\n" .. EMPTY,
      { count = 1, body = "" }, from = "CVE-2021-40346" },
    { "control within a name", GET .. "A\1\11b: c\r\n\r\n", 400 },
  }))

  add(requests, "CL.TE, TE.CL, TE.TE", "RFC 9112, 6.1", all_from(SMUGGLER, {
    { "coding in mixed case beside a length", coded "TrAnSFer-EnCODinG: cHuNkeD", 400 },
    { "coding in mixed case", POST .. "TrAnSFer-EnCODinG: cHuNkeD\r\n\r\n1\r\na\r\n0\r\n\r\n", { body = "a" } },
    { "chunked, another", alone "Transfer-Encoding: chunked, cow", 400 },
    { "another, chunked", alone "Transfer-Encoding: cow, chunked", 400 },
    { "chunked between two words", alone "Transfer-Encoding: cow chunked bar", 400 },
    { "another, and chunked in a field of its own", alone "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", 400 },
    { "space within the coding's name", alone "Transfer Encoding: chunked", 400 },
    { "byte beyond ASCII before chunked", alone "Transfer-Encoding:\255chunked", 400 },
    { "byte beyond ASCII in chunked", alone "Transfer-Encoding: ch\150nked", 400 },
    { "byte beyond ASCII in the coding's name", alone "Transf\130r-Encoding: chunked", 400 },
    { "next line of Latin-1 behind chunked", alone "Transfer-Encoding: chunked\133", 400 },
    { "hard space before chunked", alone "Transfer-Encoding: \160chunked", 400 },
    { "CR behind chunked", alone "Transfer-Encoding: chunked\r", 400 },
    { "CR before chunked", alone "Transfer-Encoding: \rchunked", 400, from = "golang/go, issue 53188" },
    { "Content-Encoding: chunked is no coding of a message", coded "Content-Encoding: chunked",
      { body = "0\r\n\r\n", fields = { { "content-encoding", "chunked" } } } },
    { "chunked twice in a word", alone "Transfer-Encoding: chunkedchunked", 400, from = LLHTTP },
    { "empty codings beside a length", coded "Transfer-Encoding:\r\nTransfer-Encoding:\r\nTransfer-Encoding:", 400,
      from = LLHTTP },
    { "folded word behind chunked", alone "Transfer-Encoding: chunked\r\n  abc", 400, from = LLHTTP },
    { "folded element behind chunked", alone "Transfer-Encoding: chunked\r\n , identity", 400, from = "CVE-2022-32215" },
    { "chunked with parameters beside a length", coded "Transfer-Encoding: chunked;ext=val", 400, from = PROBE },
  }))

  add(requests, "chunk games", "RFC 9112, 7.1", all_from(LLHTTP, {
    { "empty line in place of the last chunk", CHUNKED .. "3\r\nfoo\r\n\r\n\r\n", 400 },
    { "space and LF behind a size", CHUNKED .. "3 \n  \r\nfoo\r\n0\r\n\r\n", 400 },
    { "word behind a size", CHUNKED .. "2 erf\r\naa\r\n0\r\n\r\n", 400 },
    { "semicolon and no extension", CHUNKED .. "2;\r\naa\r\n0\r\n\r\n", 400, source = "RFC 9112, 7.1.1" },
    { "two CRs before an extension", CHUNKED .. "5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n" .. SMUGGLED, 400 },
    { "the last size where the line should end", CHUNKED .. "5\r\nABCDE0\r\n\r\n", 400 },
    { "letters behind the digits of a size", CHUNKED .. "1these\r\nZ\r\n0\r\n\r\n", 400,
      from = "apache/trafficserver, issue 10580" },
    { "CR in the blanks before an extension", CHUNKED .. "1 \r;a\r\nZ\r\n0\r\n\r\n", 400,
      from = "apache/trafficserver, issue 10477", source = "RFC 9112, 7.1.1" },
    { "line end for a last chunk", CHUNKED .. "1\r\nZ\r\n\r\n\r\n" .. SMUGGLED, 400, from = "cesanta/mongoose, issue 2552" },
    { "LF and a size in an extension", CHUNKED .. "2;\nxx\r\n47\r\n0\r\n\r\n" .. SMUGGLED, 400,
      from = "CVE-2025-55315", source = "RFC 9112, 7.1.1" },
    { "LF behind a size, extension on the next line", CHUNKED .. "1\n;a\r\nZ\r\n0\r\n\r\n", 400, from = "CVE-2025-22871" },
    { "size of minus zero", CHUNKED .. "-0\r\n\r\n", 400, from = PROBE },
    { "size with a point", CHUNKED .. "1.0\r\na\r\n0\r\n\r\n", 400, from = PROBE },
    { "0X in a size", CHUNKED .. "0X1\r\na\r\n0\r\n\r\n", 400, from = PROBE },
    { "size in Arabic digits", CHUNKED .. "\217\161\r\na\r\n0\r\n\r\n", 400, from = PROBE },
    { "credentials and addresses in the trailers are dropped",
      CHUNKED .. "1\r\na\r\n0\r\nAuthorization: b\r\nCookie: c\r\nX-Forwarded-For: d\r\nContent-Type: e\r\n\r\n",
      { body = "a", fields = {} }, from = PROBE, source = "RFC 9110, 6.5.1" },
    { "the chunks of the RFC", CHUNKED .. "4\r\nWiki\r\n6\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n",
      { body = "Wikipedia in \r\n\r\nchunks." }, from = "RFC 7230, 4.1 and its readers" },
  }))

  add(responses, "status line", "RFC 9112, 4", all_from(LLHTTP_ANSWERS, {
    { "a letter less in HTTP", "HTP/1.1 200 OK\r\n" .. EMPTY, "bad_response" },
    { "0 in front of the version", "HTTP/01.1 200 OK\r\n" .. EMPTY, "bad_response" },
    { "11.1", "HTTP/11.1 200 OK\r\n" .. EMPTY, "bad_response" },
    { "1.01", "HTTP/1.01 200 OK\r\n" .. EMPTY, "bad_response" },
    { "CR in front", "\r" .. OK .. EMPTY, "bad_response" },
    { "5.6", "HTTP/5.6 200 OK\r\n" .. EMPTY, "bad_response" },
    { "one digit", "HTTP/1.1 2 OK\r\n" .. EMPTY, "bad_response" },
    { "two spaces before the reason", "HTTP/1.1 200  OK\r\n" .. EMPTY, { status = 200 } },
    { "status and a letter", "HTTP/1.1 200x OK\r\n" .. EMPTY, "bad_response", from = DUBIOUS },
  }))

  add(responses, "fields of answers", "RFC 9110, 5.3", {
    { "two Location go on as they came", "HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\n" .. EMPTY,
      { fields = { { "location", "/a" }, { "location", "/b" } } } },
    { "two Content-Type go on as they came", OK .. "Content-Type: text/html\r\nContent-Type: text/plain\r\n" .. EMPTY,
      { fields = { { "content-type", "text/html" }, { "content-type", "text/plain" } } } },
  })

  add(responses, "bodies of answers", "RFC 9112, 6.3", all_from(DUBIOUS, {
    { "chunked with a letter in front", OK .. "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "bad_response" },
    { "chunked and a word", OK .. "Transfer-Encoding: chunked foo\r\n\r\n0\r\n\r\n", "bad_response" },
    { "space before the coding's colon", OK .. "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "bad_response" },
    { "NUL before chunked", OK .. "Transfer-Encoding:\0chunked\r\n\r\n0\r\n\r\n", "bad_response" },
    { "vertical tab before chunked", OK .. "Transfer-Encoding:\11chunked\r\n\r\n0\r\n\r\n", "bad_response" },
    { "chunked in quotes", OK .. "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "bad_response" },
    { "chunked behind an empty coding", OK .. "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "bad_response" },
    { "two equal lengths in two cases", OK .. "Content-Length: 1\r\ncontent-length: 1\r\n\r\na", "bad_response" },
    { "length with a parameter", OK .. "Content-Length: 1;a\r\n\r\na", "bad_response" },
    { "length behind CR", OK .. "A: b\rContent-Length: 1\r\n\r\na", "bad_response" },
    { "tab behind a length", OK .. "Content-Length: 1\t\r\n\r\na", { length = 1, body = "a" }, source = "RFC 9110, 5.5" },
    { "0x in a size", OK .. "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", "bad_response", source = "RFC 9112, 7.1" },
    { "space behind a size", OK .. "Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n", "bad_response", source = "RFC 9112, 7.1" },
    { "bytes behind a 304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 30\r\n\r\n" .. OK .. EMPTY,
      { status = 304, length = 30, has_body = false, body = "" }, left = true, from = PROBE },
    { "an answer behind that of a HEAD", OK .. "Content-Length: 9\r\n\r\n" .. OK .. EMPTY, { has_body = false, body = "" },
      method = "HEAD", left = true, from = PROBE },
  }))

  add(responses, "interim answers", "RFC 9110, 15.2", {
    { "body of a 103", "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nab" .. OK .. EMPTY, "bad_response" },
    { "chunks of a 103", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" .. OK .. EMPTY,
      "bad_response" },
    { "an answer in the body of a 103", "HTTP/1.1 103 Early Hints\r\nContent-Length: 38\r\n\r\n" .. OK .. "Set-Cookie: a\r\n" .. EMPTY,
      { status = 200, heads = 2, fields = { { "set-cookie", "a" } } } },
    { "100, 102, 103", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\n\r\n" .. OK .. EMPTY, { status = 200, heads = 4 } },
    { "flood of 103", ("HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n"):rep(17), "bad_response" },
  })
end
