-- luacheck: no max line length
--- Why the gateway decides as it does where nginx or HAProxy decide otherwise: by category, or by the name of a
-- case; requests and answers have names of their own. Read by bench/strictness.lua for docs/http-peers.md.
local UNKNOWN = "nobody knows what such a method means for bodies, caches and retries"
local KNOWN = "well-known methods go on"
local OPTIONS = "it asks the gateway (RFC 9110, 7.6.2 and 9.3.7)"
local VALID = "the RFC allows it, and it has one reading"
local EMPTY_LINES = "one is what RFC 9112, 2.2 asks for"
local CONNECT = "the gateway opens no tunnels to where a client says"
local VERSION = "only 1.x is framed as RFC 9112 says (2.5: 505)"
local LF = "RFC 9112, 2.2 allows LF alone; who does not see a line end there reads other fields"
local UNDERSCORE = "servers behind CGI or WSGI take it for the name with dashes; nginx drops the field, HAProxy passes it on"
local REPAIRED = "HAProxy drops the length and goes by the coding, as the RFC allows; who sent both meant two ends"
local FOLD = "RFC 9112, 5.2: refuse it, or put spaces in its place, as HAProxy does; who folds today means two readers"
local CHARS = "no token (RFC 9110, 5.6.2); a backend may end the name there"
local CONTROLS = "RFC 9110, 5.5: invalid; a backend may end the value there"
local ONCE = "a plugin and a backend that take different ones of the two do not speak of the same"
local TRAILER = "not allowed there (RFC 9110, 6.5.1); nginx drops all trailers, HAProxy passes them on"
local EXTENSION = "legal, and more than the lexer reads; nobody needs extensions, and they may be dropped (RFC 9112, 7.1.1)"
local HTTP10 = "a coding in 1.0 makes the framing faulty (RFC 9112, 6.1)"
local TWO_LENGTHS = "RFC 9112, 6.3 allows to go by equal ones; two readers may still take different ones"
local EXPECT = "more than the one expectation there is"
local UPGRADE = "HAProxy wants the fields of WebSocket complete; to the gateway that is up to the backend"

local reasons = {
  categories = {
    ["request line"] = "not as RFC 9112, 3 has it; readers split such a line in different ways",
    Host = "readers take different hosts from it, and rules are chosen by host",
    fields = "readers end or name such a field in different ways",
    ["names and values"] = CHARS,
    ["hop-by-hop"] = "a client must not take away what the backend relies on; the peers do not act on such names",
    ["body length"] = "readers find different ends of the body",
    ["CL.TE, TE.CL, TE.TE"] = "readers find different ends of the body",
    ["0.CL, CL.0, TE.0"] = "readers find different ends of the body",
    chunks = "malformed; the peers frame the body anew, and are lenient in what they read",
    ["chunk games"] = "malformed; the peers frame the body anew, and are lenient in what they read",
    Expect = "an expectation that nobody knows can't be met (RFC 9110, 10.1.1: 417)",
    ["paths that go on"] = VALID,
    ["paths that are refused"] = "no backend needs it, and some read a way out of the root, or another path, in it",
    ["paths around a rule"] = "a backend that reads it in another way serves what the rule is for",
    ["status line"] = "not as RFC 9112, 4 has it; what follows can't be trusted to be framed",
    ["fields of answers"] = "readers end or name such a field in different ways",
    ["bodies of answers"] = "readers find different ends of the body: the next client could get the rest",
    ["interim answers"] = "bounded, without a body, and none that was not asked for",
  },
  requests = {},
  responses = {},
}

local kind = "requests"

local function because(why, names)
  for _, name in ipairs(names) do reasons[kind][name] = why end
end

because(OPTIONS, { "OPTIONS *", "OPTIONS of a whole server in absolute form", "OPTIONS that may go no further" })
because("the field is a number (RFC 9110, 7.6.2), and says who answers", { "OPTIONS with a wild Max-Forwards" })
because(UNKNOWN, { "unknown method", "longer than a known method", "a method of RTSP", "another method of RTSP",
  "method of one letter", "lower-case method", "mixed case in the method" })
because(KNOWN, { "method of ICE in HTTP" })
because("never reflected", { "TRACE", "TRACE that may go no further" })
because(VALID, { "absolute form, only a query", "tab before Host", "tab before chunked", "blanks around the length",
  "tab behind chunked", "tab behind the length", "Host with an empty port", "absolute form of https",
  "single bytes beyond ASCII in a value", "space behind chunked", "trailers are dropped" })
because(EMPTY_LINES, { "two empty lines in front", "many empty lines in front" })
because(CONNECT, { "CONNECT", "CONNECT with a path", "CONNECT in 1.0", "authority form" })
because(VERSION, { "0.9 by name", "2.0", "preface of HTTP/2", "3.0", "5.6", "0.9" })
because("RFC 9112, 3.2.2 lets the target win; a reader that goes by Host reads another one",
  { "absolute form against Host", "absolute form with another port" })
because("the gateway speaks for http and https only", { "absolute form, other scheme" })
because("RFC 9110, 4.2.4: take it for an error; it hides where a request goes", { "absolute form with user" })
because("only OPTIONS asks about the whole server (RFC 9112, 3.2.4)", { "GET *", "asterisk with more" })
because("no URI (RFC 3986, 2): readers decode it in different ways", { "raw non-ASCII in the target" })
because("never sent (RFC 9112, 3.2): readers cut it off, or do not", { "fragment" })
because(LF, { "LF behind the request line", "LF behind a field", "LF as the last line", "LF throughout", "LF in front",
  "coding behind LF", "length behind LF", "length behind an LF of another field", "coding behind the LF of an empty field" })
because(FOLD, { "folded line", "folded by a tab", "folded Host", "folded chunked", "coding behind a folded line", "folded length",
  "folded expectation", "length behind a space", "name folded before its colon", "folded word behind chunked",
  "folded element behind chunked" })
because(CHARS, { "UTF-8 in a name", "parenthesis in a name" })
because(CONTROLS, { "NUL in a value", "control in a value", "DEL in a value", "vertical tab in a value", "form feed in a value",
  "escape character in a value" })
because(UNDERSCORE, { "Content_Length", "Transfer_Encoding", "X_Forwarded_For", "X-Forwarded_Proto" })
because(ONCE, { "two Content-Type", "two Authorization" })
because(REPAIRED, { "length and coding", "coding and length", "CL.TE", "TE.CL", "coding in mixed case beside a length" })
because(HTTP10, { "coding in 1.0" })
because(TWO_LENGTHS, { "the same length twice", "list of lengths" })
because("an empty element is legal in a list, and one more way to write the same",
  { "chunked before an empty element", "chunked behind an empty element" })
because("a long name and no other; HAProxy bounds names", { "name of 270 letters that begins as a length" })
because("no escape (RFC 3986, 2.1): readers pass it by, or take it for other bytes",
  { "escape of nothing", "escape of one digit", "escape that is no number", "escape of sixteen bits" })
because(EXTENSION, { "extension behind one with a value, which the lexer does not know", "space before an extension" })
because(TRAILER, { "length in the trailers", "coding in the trailers", "Host in the trailers",
  "Content-Length in capitals in the trailers" })
because("RFC 9110, 6.5.1 lets trailers be dropped; HAProxy passes them on",
  { "credentials and addresses in the trailers are dropped" })
because("bounded", { "endless extension", "endless zeros before a size", "too many Connection options",
  "too many Connection fields" })
because("no option (RFC 9110, 7.6.1): readers take different names from it", { "Connection is no token" })
because(EXPECT, { "expectation twice", "list of expectations", "empty expectation" })
because(UPGRADE, { "Upgrade", "Upgrade with a body", "h2c" })

kind = "responses"
because(VERSION, { "0.9", "2.0", "5.6" })
because(LF, { "LF for a line end", "LF as the last line", "LF behind the reason" })
because(FOLD, { "folded line", "folded coding" })
because("RFC 9110, 5.5: invalid; a client may end the value there", { "NUL in a value" })
because("the peers go by the coding, as the RFC allows; who sent both meant two ends",
  { "length and coding", "length and coding for HEAD" })
because(HTTP10, { "coding in 1.0" })
because(TWO_LENGTHS, { "two lengths", "list of lengths", "two equal lengths in two cases" })
because(TRAILER, { "length in the trailers" })
because("bounded", { "endless extension", "too many trailers", "endless 100", "flood of 103" })
because("no option (RFC 9110, 7.6.1): readers take different names from it", { "Connection is no token" })
because(VALID, { "tab behind a length", "chunks" })
because("interim answers go on, and end with their empty line (RFC 9110, 15.2); nginx takes one for the answer",
  { "100 first", "103 with a length", "as many 100 as allowed", "100 with chunks", "199", "100, 102, 103",
    "an answer in the body of a 103" })
because("what is behind an interim answer is no answer", { "end behind a 100", "body of a 103", "chunks of a 103" })
because("faulty framing, also where nothing is framed by it", { "length and coding in a 100" })
because("nobody asked for it: what follows would be a tunnel", { "101 that nobody asked for", "101 behind a 100" })

return reasons
