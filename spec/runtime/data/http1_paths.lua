-- luacheck: no max line length
--- Paths, and what they are taken for: more cases for http1_cases.lua. For HTTP/1 all of them are well formed; the
-- router decides. Before the whole gateway there are rules for /*, for /admin/* and /exact (which answer 403), for /normal/*
-- (forwardPath: normalised) and for /both/* (that, and ambiguousPath: allow). own = 403 is a path that was taken
-- for the admin's. sends: the path that the backend gets, where that is not the one that came.
local DOTS, ESCAPES, UNRESERVED, SEGMENTS = "RFC 3986, 6.2.2.3", "RFC 3986, 2.1", "RFC 3986, 6.2.2.2", "RFC 3986, 3.3"
local OURS = "our choice"

local function case(name, source, target, own, sends)
  local path = target:gsub("^http://x", "")
  return { name, "GET " .. target .. " HTTP/1.1\r\nHost: x\r\n\r\n", { path = path }, source = source, own = own,
    sends = sends }
end

return function(add, requests)
  add(requests, "paths that go on", SEGMENTS, {
    case("slashes in a row go on", SEGMENTS, "/a//b///"),
    case("%2F within a segment", UNRESERVED, "/a%2Fb"),
    case("backslash within a segment", OURS, "/a\\b"),
    case("%5C within a segment", UNRESERVED, "/a%5cb"),
    case("parameters of a segment", SEGMENTS, "/a;b=c/d"),
    case("escape of an escape", UNRESERVED, "/a%252Fb"),
    case("escaped letters", UNRESERVED, "/%61bc"),
    case("dot segments below the root", DOTS, "/a/./b/../c"),
    case("dots that are no segment", DOTS, "/.../a..b/.c"),
    case("escaped query", ESCAPES, "/a%3Fb"),
    case("escaped fragment", ESCAPES, "/a%23b"),
    case("escaped bytes beyond ASCII", ESCAPES, "/caf%c3%a9"),
    case("dot segments in the query", DOTS, "/a?/../../b"),
    case("broken escape in the query", "RFC 3986, 3.4", "/a?%zz%"),
  })

  add(requests, "paths that are refused", OURS, {
    case("climbs above the root", DOTS, "/../a", 400),
    case("climbs above the root in escapes", DOTS, "/a/%2e%2E/%2e./b", 400),
    case("climbs with %2F", OURS, "/a/..%2f..%2fb", 400),
    case("climbs with a backslash", OURS, "/a\\..\\..\\b", 400),
    case("climbs with %5C", OURS, "/a/..%5c..%5cb", 400),
    case("climbs with a parameter", OURS, "/a/..;/..;x=y/b", 400),
    case("climbs with escapes of escapes", OURS, "/%252e%252e/b", 400),
    case("climbs with overlong UTF-8", "RFC 3629, 3", "/%c0%ae%c0%ae/b", 400),
    case("escape of nothing", ESCAPES, "/a%", 400),
    case("escape of one digit", ESCAPES, "/a%2", 400),
    case("escape that is no number", ESCAPES, "/a%zz", 400),
    case("escape of sixteen bits", ESCAPES, "/a%u002fb", 400),
    case("escaped NUL", OURS, "/a%00b", 400),
    case("escaped NUL in an escape", OURS, "/a%2500b", 400),
    case("escapes without an end", OURS, "/a%252525252Fb", 400),
  })

  add(requests, "paths around a rule", OURS, {
    case("the rule's own path", SEGMENTS, "/admin/x", 403),
    case("rule in escaped letters", UNRESERVED, "/%61%64min/x", 403),
    case("rule behind a dot segment", DOTS, "/./admin/x", 403),
    case("rule behind two dots", DOTS, "/a/../admin/x", 403),
    case("rule behind two escaped dots", DOTS, "/a/%2e%2E/admin/x", 403),
    case("rule behind two slashes", OURS, "//admin/x", 403),
    case("rule before two slashes", OURS, "/admin//x", 403),
    case("rule before a dot segment", DOTS, "/admin/./x", 403),
    case("rule with an empty parameter below it", SEGMENTS, "/admin/;/x", 403),
    case("rule in absolute form", "RFC 9112, 3.2.2", "http://x/%61dmin/x", 403),
    case("rule before %2F", OURS, "/admin%2Fx", 400),
    case("rule behind %2F", OURS, "/a/..%2fadmin/x", 400),
    case("rule behind an escaped slash of its own", OURS, "/%2Fadmin/x", 400),
    case("rule before a backslash", OURS, "/admin\\x", 400),
    case("rule behind a backslash", OURS, "/\\admin/x", 400),
    case("rule before %5C", OURS, "/admin%5cx", 400),
    case("rule behind dots and %5C", OURS, "/a/..%5Cadmin/x", 400),
    case("rule with a parameter", SEGMENTS, "/admin;a=b/x", 400),
    case("rule with an escaped parameter", SEGMENTS, "/admin%3Ba/x", 400),
    case("rule behind a parameter", SEGMENTS, "/;a/admin/x", 400),
    case("rule behind dots with a parameter", SEGMENTS, "/a/..;/admin/x", 400),
    case("rule behind a dot with a parameter", SEGMENTS, "/.;/admin/x", 400),
    case("rule in escapes of escapes", UNRESERVED, "/%2561dmin/x", 400),
    case("rule in escapes of escapes of escapes", UNRESERVED, "/%252561dmin/x", 400),
    case("rule before an escape of %2F", UNRESERVED, "/admin%252fx", 400),
    case("rule behind escapes of dots", UNRESERVED, "/a/%252e%252e/admin/x", 400),
    case("rule behind slashes before dots", OURS, "/a//../admin/x", 400),
    case("rule behind overlong dots", "RFC 3629, 3", "/a/%c0%ae%c0%ae/admin/x", 400),
    case("rule before an overlong slash", "RFC 3629, 3", "/admin%c0%afx", 400),
    case("rule before an overlong backslash", "RFC 3629, 3", "/admin%c1%9cx", 400),
    case("rule in overlong letters", "RFC 3629, 3", "/%c1%a1dmin/x", 400),
    case("exact rule before an escaped query", OURS, "/exact%3Fx", 400),
    case("exact rule before an escaped fragment", OURS, "/exact%2523x", 400),
    case("two readings, both the rule's", SEGMENTS, "/admin/a%2Fb;c", 403),
    case("out of the rule by two readings", OURS, "/admin/..;/a", 400),
  })

  add(requests, "paths in normalised form", UNRESERVED, {
    case("escaped letters are decoded", UNRESERVED, "/norm%61l/%7Ea", nil, "/normal/~a"),
    case("dot segments are removed", DOTS, "/normal/./a/../b", nil, "/normal/b"),
    case("slashes are merged", OURS, "/normal//a///b", nil, "/normal/a/b"),
    case("a slash at the end stays", SEGMENTS, "/normal/a/", nil, "/normal/a/"),
    case("dots at the end leave a slash", DOTS, "/normal/a/b/..", nil, "/normal/a/"),
    case("capitals in escapes", "RFC 3986, 6.2.2.1", "/normal/a%2fb%c3%a9", nil, "/normal/a%2Fb%C3%A9"),
    case("escapes that must stay", ESCAPES, "/normal/a%3fb%23c%20d%5b", nil, "/normal/a%3Fb%23c%20d%5B"),
    case("reserved characters stay as they came", "RFC 3986, 2.2", "/normal/a%3bb;c%2b+%40@", nil, "/normal/a%3Bb;c%2B+%40@"),
    case("an escape of an escape stays", UNRESERVED, "/normal/a%252fb", nil, "/normal/a%252fb"),
    case("a backslash is escaped", OURS, "/normal/a\\b", nil, "/normal/a%5Cb"),
    case("escaped line end stays", ESCAPES, "/normal/%0d%0aX:%20y", nil, "/normal/%0D%0AX:%20y"),
    case("the query is not touched", "RFC 3986, 3.4", "/normal/%61?%61=/../%zz//", nil, "/normal/a?%61=/../%zz//"),
    case("two readings, and the rule allows them", OURS, "/both/%61%2Fb/..;/c", nil, "/both/a%2Fb/..;/c"),
    case("two readings, and the rule does not", OURS, "/normal/..;/c", 400),
  })
end
