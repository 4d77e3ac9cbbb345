local testing = require("gateway.testing")
local router = require("gateway.router")

-- A rule as gateway.config leaves it.
local function conf_of(fields)
  return {
    id = fields.id or fields.path, path = fields.path, host = fields.host or {},
      headers = fields.headers or {},
    methods = fields.methods or {}, ambiguousPath = fields.ambiguousPath,
  }
end

local function routes(list)
  local rules = {}
  for i, fields in ipairs(list) do
    if type(fields) == "string" then fields = { path = fields } end
    local rule = { id = fields.id or fields.path, conf = conf_of(fields), match = fields.match,
      preflight = fields.preflight }
    router.prepare(rule)
    rules[i] = rule
  end
  return router.new(rules)
end

-- The id of the rule for a request, or status and Allow.
local function match(built, path, options)
  options = options or {}
  options.path = path
  local ctx = testing.context(options)
  local rule, status, allow = built:match(ctx)
  if rule then return rule.id, ctx.params end
  return status, allow
end

describe("router.normalise", function()
  it("leaves ordinary paths alone", function()
    for _, path in ipairs({ "/", "/events", "/a.b/c.", "*" }) do
      assert.equal(path, router.normalise(path))
    end
  end)

  it("has one form for each path", function()
    for path, form in pairs({
      ["/%61dmin"] = "/admin", ["/a%2Fb"] = "/a%2Fb", ["/a%2fb"] = "/a%2Fb", ["/a%20b"] = "/a b",
      ["/caf%c3%A9"] = "/caf\195\169", ["/a%25b"] = "/a%25b", ["/a%0ab"] = "/a%0Ab",
      ["/a/./b"] = "/a/b", ["/a/../b"] = "/b", ["/a/b/.."] = "/a/", ["/a/."] = "/a/", ["/."] = "/",
      ["/a/%2e%2E/b"] = "/b", ["/a/.%2e/b"] = "/b", ["/a//../b"] = "/a/b", ["/a/.../b"] = "/a/.../b",
      ["/a//b/"] = "/a/b/", ["//a"] = "/a", ["/a;b/c"] = "/a;b/c", ["/a\\b"] = "/a\\b",
      ["/.well-known/x"] = "/.well-known/x", ["/a/.."] = "/",
    }) do
      assert.equal(form, router.normalise(path), path)
    end
  end)

  it("does not change what it made", function()
    for _, path in ipairs({ "/%2525", "/a%2f%2e", "/%41%7e", "/x/%2e/y" }) do
      local once = router.normalise(path)
      assert.equal(once, router.normalise(once), path)
    end
  end)

  it("refuses broken escapes, NUL, and ways out of the root, however they are written", function()
    for _, path in ipairs({ "/%", "/%4", "/%zz", "/a%00b", "/..", "/../a", "/a/../../b", "/%2e%2e/a",
      "/a/%2e%2e/%2e%2e",
      "/public/..%2fadmin", "/public%2f..%2fadmin", "/public/..\\admin", "/public%5c..%5Cadmin",
        "/a/..%2F" }) do
      assert.is_nil(router.normalise(path), path)
    end
  end)
end)

describe("router.sendable", function()
  it("is the same path to rules, and itself when it is made again", function()
    local parts = { "/", "//", "/./", "/../", "a", "%61", "%2F", "%2f", "%5c", "\\", ";", "%3b", "%25", "%2e",
      ".", "%c3%a9", "%0D", "[", "+", "%2b", "%7E" }
    math.randomseed(6)
    local sent = 0
    for _ = 1, 3000 do
      local path = { "/" }
      for i = 2, math.random(2, 9) do path[i] = parts[math.random(#parts)] end
      path = table.concat(path)
      local normal, sendable = router.normalise(path), router.sendable(path)
      assert.equal(normal == nil, sendable == nil, path)
      if sendable then
        sent = sent + 1
        assert.equal(normal, (router.normalise(sendable)), path)
        assert.equal(sendable, router.sendable(sendable), path)
        assert.is_nil(sendable:find("[%z\1-\32\127-\255?#\"<>\\^`{|}%[%]]"), sendable)
      end
    end
    assert.is_true(sent > 1000)
  end)

  it("decodes what means the same, and nothing else", function()
    for path, sendable in pairs({ ["/%61%7e%2D"] = "/a~-", ["/a%3bb"] = "/a%3Bb", ["/%2b+"] = "/%2B+",
      ["/a//./b/../"] = "/a/", ["/a%20b"] = "/a%20b", ["/\\"] = "/%5C", ["/%2561"] = "/%2561" }) do
      assert.equal(sendable, router.sendable(path), path)
    end
    assert.is_nil(router.sendable("/../a"))
    assert.is_nil(router.sendable("/%zz"))
  end)
end)

describe("router", function()
  it("takes the most specific path, whatever the order of rules", function()
    local list = { "/*", "/a/*", "/a/b/*", "/a/b/c", "/a/{x}", "/a/{x}/c", "/a/{x}/*", "/{y}/c", "/a/b" }
    for turn = 1, #list do
      table.insert(list, 1, table.remove(list))
      local built = routes(list)
      for path, id in pairs({
        ["/a/b/c"] = "/a/b/c", ["/a/b"] = "/a/b", ["/a/b/"] = "/a/b/*", ["/a/b/d"] = "/a/b/*",
          ["/a/z"] = "/a/{x}",
        ["/a/z/c"] = "/a/{x}/c", ["/a/z/d"] = "/a/{x}/*", ["/a/"] = "/a/*", ["/a"] = "/*",
          ["/z/c"] = "/{y}/c",
        ["/a/c"] = "/a/{x}", ["/"] = "/*", ["/a//c"] = "/a/{x}",
      }) do
        assert.equal(id, (match(built, path)), path .. " in turn " .. turn)
      end
    end
  end)

  it("comes back from a dead end", function()
    local built = routes({ "/a/b/x", "/a/{p}/y", "/{q}/b/z", "/*" })
    assert.equal("/a/{p}/y", (match(built, "/a/b/y")))
    assert.equal("/{q}/b/z", (match(built, "/a/b/z")))
    assert.equal("/*", (match(built, "/a/b/w")))
  end)

  it("reads parameters, decoded", function()
    local built = routes({ { path = "/users/{id}/events/{kind}", ambiguousPath = "allow" }, "/users/{name}" })
    local id, params = match(built, "/users/al%20ice%2Fbob/events/x")
    assert.equal("/users/{id}/events/{kind}", id)
    assert.same({ id = "al ice/bob", kind = "x" }, params)
    assert.same({ name = "bob" }, select(2, match(built, "/users/bob")))
  end)

  it("matches the form of the path, in rules as well", function()
    local built = routes({ "/admin", "/caf%C3%A9", "/p/*" })
    assert.equal("/admin", (match(built, "/%61dmin")))
    assert.equal("/admin", (match(built, "/p/../admin")))
    assert.equal("/caf%C3%A9", (match(built, "/caf%c3%a9")))
    assert.equal(400, (match(built, "/p/%2e%2e/%2e%2e/admin")))
    assert.equal(404, (match(built, "/nope")))
    assert.equal(404, (match(built, "*")))
  end)

  -- Each of these is the admin's for some backend: it is matched as such, or refused.
  it("lets nobody walk around a rule", function()
    local built = routes({ "/admin/*", "/admin", "/public/*", "/*" })
    for path, id in pairs({
      ["//admin/x"] = "/admin/*", ["/%61dmin"] = "/admin", ["/x/../admin"] = "/admin",
      ["/./admin"] = "/admin",
      ["/x/%2e%2e/admin"] = "/admin", ["/x/.%2E/admin/y"] = "/admin/*", ["/admin//"] = "/admin/*",
      ["/admin/%2e/x"] = "/admin/*", ["/admin/;a=b/x"] = "/admin/*", ["/admin/a%2Fb"] = "/admin/*",
      ["/admin%2F.."] = 400, ["/admin%2Fx"] = 400, ["/admin;x"] = 400, ["/admin;x/y"] = 400,
      ["/;x/admin"] = 400,
      ["/\\admin"] = 400, ["/admin\\x"] = 400, ["/admin%5cx"] = 400, ["/%5Cadmin"] = 400,
      ["/%2561dmin"] = 400, ["/%252561dmin"] = 400, ["/admin%252Fx"] = 400, ["/%25252561dmin"] = 400,
      ["/public/..;/admin"] = 400, ["/public/..;x=y/admin"] = 400, ["/public/..%3B/admin"] = 400,
      ["/public/%252e%252e/admin"] = 400, ["/public/..%252fadmin"] = 400, ["/admin%3Bx"] = 400,
      ["/public//../admin"] = 400, ["/admin/..;/public/x"] = 400, ["/public/..%5cadmin"] = 400,
      ["/x/%c0%ae%c0%ae/admin"] = 400, ["/admin%C0%AFx"] = 400, ["/%c1%a1dmin"] = 400,
      ["/admin%3Fx"] = 400, ["/admin%23"] = 400, ["/admin%253fx"] = 400, ["/public/admin%3Fx"] = "/public/*",
      ["/caf%C0"] = "/*",
      ["/public/%2500"] = 400, ["/public/a;b"] = "/public/*", ["/public/a%2fb"] = "/public/*",
      ["/a;b"] = "/*", ["/a%2fb"] = "/*", ["/100%2525"] = "/*", ["/caf%C3%A9"] = "/*", ["/a\\b"] = "/*",
    }) do
      assert.equal(id, (match(built, path)), path)
    end
  end)

  it("takes a path of two readings where the rule says so, but none that climbs", function()
    local built = routes({ { path = "/projects/{id}", ambiguousPath = "allow" }, "/*" })
    local id, params = match(built, "/projects/group%2Fname")
    assert.equal("/projects/{id}", id)
    assert.same({ id = "group/name" }, params)
    assert.equal(400, (match(built, "/projects/..;%2F..;%2Fx")))
    assert.equal("/*", (match(built, "/projects/group%2Fname/x")))
    assert.equal(400, (match(routes({ "/projects/{id}", "/*" }), "/projects/group%2Fname")))
  end)

  it("does not find more behind a second reading than it has found", function()
    local built = routes({ "/public/*" })
    assert.equal(400, (match(built, "/public/..;/admin")))
    assert.equal(404, (match(built, "/x;y/../z")))
    assert.same({ "/public/*", {} }, { match(built, "/public/a;b") })
  end)

  it("takes a slash in a parameter where the longer path would be no other rule's", function()
    local built = routes({ "/projects/{id}", { path = "/teams/{id}", methods = { "GET" } },
      { path = "/teams/{id}/keys", methods = { "POST" } } })
    assert.same({ "/projects/{id}", { id = "group/name" } }, { match(built, "/projects/group%2Fname") })
    assert.equal(400, (match(built, "/projects/..%2F..%2Fsecret")))
    assert.equal(400, (match(built, "/projects/%252e%252e")))
    assert.equal(400, (match(built, "/teams/a%2Fkeys")))
  end)

  it("takes the narrower rule of one path", function()
    local built = routes({
      { id = "any", path = "/x" },
      { id = "wild", path = "/x", host = { "*.example.com" } },
      { id = "host", path = "/x", host = { "a.example.com" } },
      { id = "header", path = "/x", headers = { ["x-tenant"] = { "acme", "corp" } } },
      { id = "both", path = "/x", host = { "a.example.com" }, headers = { ["x-beta"] = { "*" } } },
      { id = "post", path = "/x", methods = { "POST" } },
    })
    assert.equal("any", (match(built, "/x")))
    assert.equal("wild", (match(built, "/x", { host = "b.example.com:8080" })))
    assert.equal("any", (match(built, "/x", { host = "example.com" })))
    assert.equal("host", (match(built, "/x", { host = "A.Example.com." })))
    assert.equal("both", (match(built, "/x", { host = "a.example.com", headers = { ["X-Beta"] = "1" } })))
    assert.equal("header", (match(built, "/x", { headers = { ["X-Tenant"] = "corp" } })))
    assert.equal("any", (match(built, "/x", { headers = { ["X-Tenant"] = "other" } })))
    assert.equal("post", (match(built, "/x", { method = "POST" })))
  end)

  it("looks further when host or headers rule a path out", function()
    local built = routes({ { id = "narrow", path = "/x", host = { "a.com" } }, "/*" })
    assert.equal("/*", (match(built, "/x")))
    local only = routes({ { id = "narrow", path = "/x", host = { "[::1]" } } })
    assert.equal(404, (match(only, "/x")))
    assert.equal("narrow", (match(only, "/x", { host = "[::1]:80" })))
  end)

  it("answers 405 with what the path allows, and does not fall back to a wider path", function()
    local built = routes({
      { id = "get", path = "/x", methods = { "GET" } },
      { id = "put", path = "/x", methods = { "PUT", "PURGE" } },
      "/*",
    })
    assert.equal("get", (match(built, "/x", { method = "HEAD" })))
    assert.equal("put", (match(built, "/x", { method = "PURGE" })))
    local status, allow = match(built, "/x", { method = "POST" })
    assert.equal(405, status)
    assert.equal("GET, HEAD, PUT, PURGE", allow)
    assert.equal("/*", (match(built, "/y", { method = "POST" })))
  end)

  it("lets an SSE rule take only what accepts event streams", function()
    local built = routes({ { id = "sse", path = "/s", methods = { "SSE", "POST" } },
      { id = "both", path = "/b", methods = { "GET", "SSE" } } })
    local function with(accept) return { headers = { Accept = accept } } end
    assert.equal("sse", (match(built, "/s", with("text/event-stream"))))
    assert.equal("sse", (match(built, "/s", { method = "POST" })))
    assert.equal(406, (match(built, "/s", with("*/*"))))
    assert.equal(406, (match(built, "/s")))
    local status, allow = match(built, "/s", { method = "DELETE" })
    assert.equal(405, status)
    assert.equal("GET, HEAD, POST", allow)
    assert.equal("both", (match(built, "/b", with("*/*"))))
  end)

  it("prefers an SSE rule to a GET rule where both are right", function()
    local built = routes({ { id = "page", path = "/x", methods = { "GET" } },
      { id = "stream", path = "/x", methods = { "SSE" } } })
    assert.equal("stream", (match(built, "/x", { headers = { Accept = "text/event-stream" } })))
    assert.equal("page", (match(built, "/x", { headers = { Accept = "text/html" } })))
  end)

  it("lets preflights through to plugins that answer them", function()
    local list = { { path = "/s", methods = { "SSE" }, preflight = true }, { path = "/p",
      methods = { "POST" } } }
    local built = routes(list)
    local function preflight(asked)
      return { method = "OPTIONS", headers = { Origin = "http://a",
        ["Access-Control-Request-Method"] = asked } }
    end
    assert.equal("/s", (match(built, "/s", preflight("GET"))))
    assert.equal(405, (match(built, "/s", preflight("POST"))))
    assert.equal(405, (match(built, "/s", { method = "OPTIONS" })))
    assert.equal(405, (match(built, "/p", preflight("POST"))))
  end)

  it("asks match functions last, with the parameters", function()
    local seen
    local built = routes({
      { id = "narrow", path = "/u/{id}", match = function(ctx)
        seen = ctx.params.id
        return ctx.params.id == "7"
      end },
      { id = "wide", path = "/u/{name}" },
      { id = "nopath", match = function(ctx) return ctx.req.headers["x-any"] ~= nil end },
    })
    assert.equal("narrow", (match(built, "/u/7")))
    local id, params = match(built, "/u/8")
    assert.equal("wide", id)
    assert.equal("8", seen)
    assert.same({ name = "8" }, params)
    assert.equal("nopath", (match(built, "/elsewhere", { headers = { ["X-Any"] = "1" } })))
    assert.equal(404, (match(built, "/elsewhere")))
  end)
end)

describe("router.accepts_events", function()
  it("wants the media type itself, with a weight", function()
    for accept, want in pairs({
      ["text/event-stream"] = true, ["text/html, Text/Event-Stream;q=0.5"] = true,
      ["text/event-stream ; charset=utf-8"] = true, ["text/event-stream;q=0"] = false,
      ["text/event-stream; q=0.000, */*"] = false, ["*/*"] = false, ["text/*"] = false, [""] = false,
      ["text/event-streams"] = false, ["application/json;x=text/event-stream"] = false,
    }) do
      assert.equal(want, router.accepts_events(accept), accept)
    end
    assert.is_false(router.accepts_events(nil))
  end)
end)
