-- luacheck: no max line length
--- Why the gateway decides as it does where nginx or HAProxy decide otherwise: by category, or by the name of a
-- case. Read by bench/strictness.lua for docs/http-peers.md.
local UNKNOWN = "nobody knows what such a method means for bodies, caches and retries"
local OPTIONS = "it asks the gateway (RFC 9110, 7.6.2 and 9.3.7)"
local VALID = "the RFC allows it, and it has one reading"

return {
  categories = {
    ["request line"] = "readers split such a line in different ways",
    Host = "readers take different hosts from it, and rules are chosen by host",
    fields = "readers end or name such a field in different ways",
    ["names and values"] = "readers end, name or choose such a field in different ways",
    ["hop-by-hop"] = "a client must not take away what the backend relies on; the peers pass such fields by",
    ["body length"] = "readers find different ends of the body; to repair it trusts the next one to do the same",
    ["CL.TE, TE.CL, TE.TE"] = "readers find different ends of the body; to repair it trusts the next one to do the same",
    ["0.CL, CL.0, TE.0"] = "readers find different ends of the body",
    chunks = "malformed framing; the peers write chunks anew, and are lenient in what they read",
    ["chunk games"] = "malformed framing; the peers write chunks anew, and are lenient in what they read",
    Expect = "an expectation that nobody knows can't be met (RFC 9110, 10.1.1: 417)",
    ["status line"] = "not HTTP/1.x as RFC 9112 has it; what follows can't be trusted to be framed",
    ["fields of answers"] = "readers end or name such a field in different ways",
    ["bodies of answers"] = "readers find different ends of the body: the next client could get the rest",
    ["interim answers"] = "bounded, without a body, and none that was not asked for",
  },
  cases = {
    ["OPTIONS *"] = OPTIONS, ["OPTIONS of a whole server in absolute form"] = OPTIONS,
    ["OPTIONS that may go no further"] = OPTIONS, ["unknown method"] = UNKNOWN,
    ["longer than a known method"] = UNKNOWN, ["a method of RTSP"] = UNKNOWN, ["method of one letter"] = UNKNOWN,
    TRACE = "never reflected", ["TRACE that may go no further"] = "never reflected",
    ["absolute form, only a query"] = VALID, ["tab before Host"] = VALID, ["tab before chunked"] = VALID,
    ["blanks around the length"] = VALID,
    ["two empty lines in front"] = "one is what RFC 9112, 2.2 asks for",
    ["many empty lines in front"] = "one is what RFC 9112, 2.2 asks for",
  },
}
