local ffi = require "ffi"
local rt = require "support.runtime"

local C = rt.load("http/target.h")

local arena

before_each(function()
  arena = rt.new("struct gw_arena", C.gw_arena_init, C.gw_arena_clear)
end)

local function split(method, target)
  local parts = ffi.new "struct gw_slice[2]"
  local err = C.gw_target_split(rt.slice(method), rt.slice(target), parts, parts + 1)
  if err ~= C.GW_OK then
    assert.equal("bad_request", rt.cstring(C.gw_err_slug(err)))
    return nil
  end
  return rt.string(parts[1]), rt.string(parts[0])
end

local function query(text, name)
  local value = C.gw_query_get(arena, rt.slice(text), rt.slice(name))
  return value.ptr ~= nil and rt.string(value) or nil
end

describe("a target", function()
  it("is a path with a query, as it came", function()
    for _, target in ipairs { "/", "/a/b?c=d", "//a", "/../%2e%zz?", "/a?b?c", "/" .. ("a"):rep(9000),
      "/a|{}^`\"<>\\" } do
      assert.equal(target, split("GET", target))
    end
  end)

  it("has an authority in absolute form", function()
    for target, parts in pairs {
      ["http://a.b"] = { "/", "a.b" }, ["http://a/"] = { "/", "a" }, ["HTTPS://a:8/b?c"] = { "/b?c", "a:8" },
      ["http://a?b"] = { "?b", "a" }, ["http://[::1]:80/"] = { "/", "[::1]:80" },
    } do
      assert.same(parts, { split("GET", target) }, target)
    end
    assert.equal("*", (split("OPTIONS", "http://a")))
    assert.equal("/", (split("OPTIONS", "http://a/")))
  end)

  it("is an asterisk for OPTIONS only", function()
    assert.equal("*", (split("OPTIONS", "*")))
    assert.is_nil(split("GET", "*"))
    assert.is_nil(split("OPTIONS", "**"))
  end)

  it("is nothing else", function()
    for _, target in ipairs { "", "a", "a:80", "a/b", "?a", "http:/a", "http://", "http:///a",
      "ftp://a/", "http://u@a/",
      "http://a:b/", "/#", "/a#b", "http://a/#b", "/ ", "/\t", "/\0", "/\127", "/\128", "/\195\164",
        "/\r\n" } do
      assert.is_nil(split("GET", target), target)
    end
  end)
end)

describe("an authority", function()
  local function ok(text) return C.gw_authority_ok(rt.slice(text)) end

  it("is a host with or without a port", function()
    for _, text in ipairs { "a", "a.b-c_d~e", "127.0.0.1", "a:", "[::1]:", "a:0", "a:80", "a:65535", "[::1]",
      "[::1]:80", "[fe80::1.2.3.4]",
      "%41b", "a.", "xn--a", "!$&'()*+,;=" } do
      assert.is_true(ok(text), text)
    end
  end)

  it("is nothing else", function()
    for _, text in ipairs { "", ":80", ":", "a:65536", "a:000080", "a:8a", "a:-1", "a:8:9", "u@a",
      "a/b", "a b", "a\0", "a\\b",
      "a?b", "a#b", "[]", "[::1", "::1", "[::g]", "[::1]a", "[::1]80", "[1.2.3.4]", "[::1%25lo]",
        "[::1]:a", "%4", "%zz", "a%",
      "\195\164", "a\"b", "<a>", "[::1\0]" } do
      assert.is_false(ok(text), text)
    end
  end)
end)

describe("a query", function()
  it("gives the first value of a name, decoded", function()
    assert.equal("1", query("a=1&b=2&a=3", "a"))
    assert.equal("2", query("a=1&b=2&a=3", "b"))
    assert.equal("c d+\195\164", query("x&a=c+d%2B%c3%A4", "a"))
    assert.equal("b=c", query("a=b=c", "a"))
    assert.equal("1", query("a%62=1", "ab"))
    assert.equal("1", query("a+b=1", "a b"))
  end)

  it("tells an empty value from none", function()
    assert.equal("", query("a", "a"))
    assert.equal("", query("b&a=&c", "a"))
    assert.is_nil(query("", "a"))
    assert.is_nil(query("aa=1&A=2&b=a", "a"))
    assert.is_nil(query("&&=&", "a"))
  end)

  it("is compared byte by byte", function()
    assert.equal("1", query("%ff=1", "\255"))
    assert.is_nil(query("a%00=1", "a"))
  end)
end)

describe("percent decoding", function()
  local function decode(text, plus)
    return rt.string(C.gw_percent_decode(arena, rt.slice(text), plus or false))
  end

  it("decodes escapes and leaves broken ones", function()
    assert.equal("a b/\0c", decode "a%20b%2f%00c")
    assert.equal("%", decode "%25")
    assert.equal("%zz%1%", decode "%zz%1%")
    assert.equal("%%41", decode "%%2541")
    assert.equal("", decode "")
  end)

  it("takes a plus for a space only where it is asked to", function()
    assert.equal("a+b", decode "a+b")
    assert.equal("a b+", decode("a+b%2b", true))
  end)
end)
