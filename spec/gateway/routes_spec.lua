--- Which rule takes a request, on the wire: rules of YAML, Lua routes, route hooks, and who takes none.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"

-- Plugin `actor` answers `X-Access: show` with the rule and its parameters.
local function shown(port, request)
  local headers = { { "X-Access", "show" } }
  for name, value in pairs(request.headers or {}) do headers[#headers + 1] = { name, value } end
  local got = http.fetch(port, { method = request[1], path = request[2], headers = headers })
  return got, got.status == 200 and request[1] ~= "HEAD" and cjson.decode(got.text) or nil
end

describe("a rule of YAML", function()
  local server, gw

  setup(function()
    server = backend.listen()
    local rules = {
      { path = "/exact", id = "exact" },
      { path = "/prefix/*", id = "prefix" },
      { path = "/prefix/longer/*", id = "longer" },
      { path = "/prefix/longer/exact", id = "deep" },
      { path = "/users/{id}", id = "user", ambiguousPath = "allow" },
      { path = "/users/me", id = "me" },
      { path = "/users/{id}/events", id = "events" },
      { path = "/users/{id}/{what}/*", id = "rest" },
      { path = "/hosts", id = "any-host" },
      { path = "/hosts", id = "one-host", host = { "one.example", "two.example" } },
      { path = "/hosts", id = "wild-host", host = "*.example" },
      { path = "/hosts/only", id = "host-only", host = "one.example" },
      { path = "/headers", id = "no-header" },
      { path = "/headers", id = "one-header", headers = { ["X-Version"] = { "1", "2" } } },
      { path = "/headers", id = "two-headers", headers = { ["x-version"] = "1", ["X-Beta"] = "*" } },
      { path = "/methods", id = "get", methods = { "GET" } },
      { path = "/methods", id = "write", methods = { "PUT", "POST" } },
      { path = "/sse", id = "sse", methods = { "SSE" } },
      { path = "/both", id = "both-sse", methods = { "SSE" } },
      { path = "/both", id = "both-get", methods = { "GET" } },
      { path = "/either", id = "either", methods = { "GET", "SSE" } },
      { path = "/admin/*", id = "admin", methods = { "GET" } },
      { path = "/raw/*", id = "raw" },
    }
    for _, rule in ipairs(rules) do rule.serviceName = "api" end
    gw = gateway.start {
      services = { api = server.port }, rules = rules,
      config = {
        pluginPath = gateway.plugin_path(), plugins = { "actor" }, log = { access = false },
        backend = { http = { keepAlive = false } },
      },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  -- Each: a request {method, path, headers =}, and the id of its rule with its parameters, or a status.
  local cases = {
    { { "GET", "/exact" }, "exact" },
    { { "GET", "/exact?a=/prefix/" }, "exact" },
    { { "GET", "/exact/" }, 404 },
    { { "GET", "/Exact" }, 404 },
    { { "GET", "/" }, 404 },
    { { "DELETE", "/exact" }, "exact" },
    { { "GET", "/prefix" }, 404 },
    { { "GET", "/prefix/" }, "prefix" },
    { { "GET", "/prefix/a/b/c" }, "prefix" },
    { { "GET", "/prefix/longer" }, "prefix" },
    { { "GET", "/prefix/longer/" }, "longer" },
    { { "GET", "/prefix/longer/exact" }, "deep" },
    { { "GET", "/prefix/longer/exact/" }, "longer" },
    { { "GET", "/users/7" }, "user", { id = "7" } },
    { { "GET", "/users/me" }, "me" },
    { { "GET", "/users/m%65" }, "me" },
    { { "GET", "/users/" }, 404 },
    { { "GET", "/users/7/events" }, "events", { id = "7" } },
    { { "GET", "/users/me/events" }, "events", { id = "me" } },
    { { "GET", "/users/7/x/y/z" }, "rest", { id = "7", what = "x" } },
    { { "GET", "/users/a%20b%2Fc%C3%A9" }, "user", { id = "a b/cé" } },
    { { "GET", "/users/%zz" }, 400 },

    { { "GET", "/hosts" }, "any-host" },
    { { "GET", "/hosts", headers = { Host = "one.example" } }, "one-host" },
    { { "GET", "/hosts", headers = { Host = "ONE.example.:8080" } }, "one-host" },
    { { "GET", "/hosts", headers = { Host = "two.example" } }, "one-host" },
    { { "GET", "/hosts", headers = { Host = "a.b.example" } }, "wild-host" },
    { { "GET", "/hosts", headers = { Host = "example" } }, "any-host" },
    { { "GET", "/hosts", headers = { Host = "one.example.org" } }, "any-host" },
    { { "GET", "/hosts", headers = { Host = "[::1]:80" } }, "any-host" },
    { { "GET", "http://one.example/hosts", headers = { Host = "one.example" } }, "one-host" },
    { { "GET", "/hosts/only", headers = { Host = "one.example" } }, "host-only" },
    { { "GET", "/hosts/only" }, 404 },

    { { "GET", "/headers" }, "no-header" },
    { { "GET", "/headers", headers = { ["x-VERSION"] = "2" } }, "one-header" },
    { { "GET", "/headers", headers = { ["X-Version"] = "3" } }, "no-header" },
    { { "GET", "/headers", headers = { ["X-Version"] = "1", ["X-Beta"] = "anything" } }, "two-headers" },
    { { "GET", "/headers", headers = { ["X-Version"] = "2", ["X-Beta"] = "anything" } }, "one-header" },

    { { "GET", "/methods" }, "get" },
    { { "POST", "/methods" }, "write" },
    { { "DELETE", "/methods" }, 405, allow = "GET, HEAD, POST, PUT" },
    { { "OPTIONS", "/methods" }, 405, allow = "GET, HEAD, POST, PUT" },
    { { "GET", "/sse", headers = { Accept = "text/event-stream" } }, "sse" },
    { { "GET", "/sse", headers = { Accept = "text/html, TEXT/event-stream ; q=0.5" } }, "sse" },
    { { "GET", "/sse", headers = { Accept = "*/*" } }, 406 },
    { { "GET", "/sse", headers = { Accept = "text/event-stream;q=0" } }, 406 },
    { { "GET", "/sse", headers = { Accept = "text/event-streams" } }, 406 },
    { { "GET", "/sse" }, 406 },
    { { "POST", "/sse", headers = { Accept = "text/event-stream" } }, 405, allow = "GET, HEAD" },
    { { "GET", "/both", headers = { Accept = "text/event-stream" } }, "both-sse" },
    { { "GET", "/both" }, "both-get" },
    { { "GET", "/either", headers = { Accept = "text/event-stream" } }, "either" },
    { { "GET", "/either" }, "either" },
    { { "PUT", "/either" }, 405, allow = "GET, HEAD" },

    -- Whatever a path looks like, the rule for /admin/ takes what a backend might take for it.
    { { "GET", "/admin/x" }, "admin" },
    { { "GET", "/%61dmin/x" }, "admin" },
    { { "GET", "/%61%64%6D%69%6E%2fx" }, 404 },
    { { "GET", "/admin/./x" }, "admin" },
    { { "GET", "/./admin/x" }, "admin" },
    { { "GET", "/raw/../admin/x" }, "admin" },
    { { "GET", "/raw/%2e%2e/admin/x" }, "admin" },
    { { "GET", "/raw/.%2E/admin/x" }, "admin" },
    { { "GET", "/raw/a/../../admin/x" }, "admin" },
    { { "GET", "/raw/..%2fadmin/x" }, 400 },
    { { "GET", "/raw/..%5cadmin/x" }, 400 },
    { { "GET", "/raw/..\\admin/x" }, 400 },
    { { "GET", "/raw/%252e%252e/admin/x" }, 400 },
    { { "GET", "/raw/%252fb" }, "raw" },
    { { "GET", "/raw/...admin/x" }, "raw" },
    { { "POST", "/raw/../admin/x" }, 405, allow = "GET, HEAD" },
    { { "GET", "/../admin/x" }, 400 },
    { { "GET", "/raw/../../admin/x" }, 400 },
    { { "GET", "//admin/x" }, "admin" },
    { { "GET", "/raw/%00" }, 400 },
    { { "GET", "/raw/%" }, 400 },
    { { "GET", "/raw/%2" }, 400 },
  }

  for _, case in ipairs(cases) do
    local request, expected, params = case[1], case[2], case[3]
    local names = {}
    for name, value in pairs(request.headers or {}) do names[#names + 1] = (" %s: %s"):format(name, value) end
    table.sort(names)
    local what = table.concat { request[1], " ", request[2], unpack(names) }
    it(("is chosen for %s: %s"):format(what, expected), function()
      local got, seen = shown(gw.port, request)
      if type(expected) == "number" then
        assert.equal(expected, got.status)
        assert.equal(case.allow, got:get "Allow")
        assert.is_string(cjson.decode(got.text).error)
      else
        assert.message(got.text).equal(200, got.status)
        assert.equal(expected, seen.route.id)
        assert.same(params or {}, seen.params)
      end
    end)
  end

  it("for GET takes HEAD", function()
    for _, path in ipairs { "/methods", "/both", "/exact" } do
      assert.equal(200, shown(gw.port, { "HEAD", path }).status)
    end
    assert.equal(406, shown(gw.port, { "HEAD", "/sse" }).status)
    assert.equal(200, shown(gw.port, { "HEAD", "/sse", headers = { Accept = "text/event-stream" } }).status)
  end)

  it("for events says what is missing in a 406", function()
    local got = shown(gw.port, { "GET", "/sse" })
    assert.matches("Accept: text/event%-stream", cjson.decode(got.text).error)
  end)

  it("leaves the path as the client wrote it", function()
    for _, target in ipairs {
      "/raw/./a//b/%7e%41", "/admin/../raw/x?y=../..", "/raw/%252e/x", "/%72aw/", "/raw/a%2Fb",
    } do
      local client = http.connect(gw.port)
      client:send(http.format { path = target })
      local received = server:request()
      assert.equal(target, received.target)
      received:ok()
      client:close()
    end
  end)

  it("for the whole server is none: the gateway answers", function()
    assert.equal(200, http.fetch(gw.port, { method = "OPTIONS", path = "*" }).status)
  end)
end)

describe("a Lua route", function()
  local origins, gw

  local ROUTES = [[
local services = { acme = "big", corp = "small" }
return {
  {
    id = "tenant", path = "/tenants/{tenant}/echo", methods = { "GET", "SSE" },
    serviceName = function(ctx) return services[ctx.params.tenant] or ctx.params.tenant end,
    plugins = { "watcher" },
    access = function(ctx)
      ctx.req.path = "/echo"
      if ctx.params.tenant == "nobody" then return ctx:reply(400, { error = "no such tenant" }) end
    end,
    on_response = function(ctx) ctx.res.headers["X-Tenant"] = ctx.params.tenant end,
  },
  {
    id = "beta", path = "/*",
    match = function(ctx) return ctx.req.headers["X-Beta"] == "1" end,
    serviceName = "small",
    loadBalance = function(_, instances) return instances[#instances] end,
  },
  {
    id = "pathless", match = function(ctx) return ctx.req.query.magic end,
    access = function(ctx) return ctx:reply(200, "magic") end,
  },
  {
    id = "last", path = "/echo/last", serviceName = "small",
    loadBalance = function(ctx, instances)
      local want = ctx.req.headers["X-Want"]
      if want == "raise" then error("no luck") end
      if want == "nonsense" then return "small-1" end
      if want == "reply" then return ctx:reply(403, "not you") end
      return instances[tonumber(want)]
    end,
  },
  {
    id = "wrong", path = "/wrong/{what}",
    match = function(ctx)
      if ctx.params.what == "match" then error("in match") end
      return true
    end,
    serviceName = function(ctx)
      local what = ctx.params.what
      if what == "raise" then error("in serviceName") end
      if what == "number" then return 5 end
      if what == "table" then return {} end
      if what == "unknown" then return "nowhere" end
    end,
    access = function(ctx)
      if ctx.params.what == "access" then return 5 end
    end,
  },
  { id = "silent", path = "/silent", access = function() end },
  {
    id = "sticky", path = "/echo/sticky", loadBalance = function(_, instances) return instances[2] end,
    serviceName = function() return "small" end,
    sessionAffinity = { source = "header", headerName = "X-S" }, timeout = "10s",
  },
}
]]

  setup(function()
    origins = { origin.sse "one", origin.sse "two", origin.sse "three" }
    gw = gateway.start {
      services = { big = origins[1].port, small = { origins[2].port, origins[3].port } },
      rules = {
        { id = "yaml", path = "/echo", serviceName = "big" },
        { id = "yaml-wild", path = "/echo/*", serviceName = "big" },
      },
      files = { ["conf/routes/all.lua"] = ROUTES },
      config = { pluginPath = gateway.plugin_path(), router = { lua = { "routes/*.lua" } } },
    }
  end)

  teardown(function()
    gateway.stop_all()
    for _, server in ipairs(origins) do server:stop() end
  end)

  local function ask(path, headers)
    return http.fetch(gw.port, { path = path, headers = headers })
  end

  it("chooses the service by a function", function()
    for tenant, server in pairs { acme = "one", corp = "two", big = "one" } do
      local got = ask(("/tenants/%s/echo?x=1"):format(tenant))
      assert.same({ 200, server, tenant, "1" },
        { got.status, got:get "X-Server", got:get "X-Tenant", got:get "X-Worker" })
      assert.equal("/echo?x=1", cjson.decode(got.text).target)
    end
  end)

  it("may answer by itself", function()
    local got = ask "/tenants/nobody/echo"
    assert.same({ 400, "no such tenant" }, { got.status, cjson.decode(got.text).error })
    assert.equal("magic", ask "/what/ever?magic=1".text)
    assert.equal(404, ask "/what/ever".status)
  end)

  it("takes by a function what its path allows, and no more specific path has", function()
    assert.equal("three", ask("/any/thing", { ["X-Beta"] = "1" }):get "X-Server")
    assert.equal(404, ask "/any/thing".status)
    assert.equal("one", ask("/echo/x", { ["X-Beta"] = "1" }):get "X-Server")
  end)

  it("balances by a function", function()
    assert.equal("two", ask("/echo/last", { ["X-Want"] = "1" }):get "X-Server")
    assert.equal("three", ask("/echo/last", { ["X-Want"] = "2" }):get "X-Server")
    assert.same({ 403, "not you" }, { ask("/echo/last", { ["X-Want"] = "reply" }).status, "not you" })
    local seen = {}
    for _ = 1, 4 do seen[ask("/echo/last"):get "X-Server"] = true end
    assert.same({ two = true, three = true }, seen)
  end)

  it("places sessions by a function", function()
    for i = 1, 4 do
      assert.equal("three", ask("/echo/sticky", { ["X-S"] = "s" .. i }):get "X-Server")
    end
  end)

  it("takes methods and Accept as a rule of YAML does", function()
    local got = http.fetch(gw.port, { method = "POST", path = "/tenants/acme/echo" })
    assert.same({ 405, "GET, HEAD" }, { got.status, got:get "Allow" })
  end)

  local NO_SERVICE = "no serviceName, and access did not reply"

  for what, case in pairs {
    ["whose match raises"] = { "/wrong/match", "match", "routes/all%.lua:%d+: in match" },
    ["whose serviceName raises"] = { "/wrong/raise", "serviceName", "routes/all%.lua:%d+: in serviceName" },
    ["whose serviceName is a number"] = { "/wrong/number", "serviceName", "there is no service called 5" },
    ["whose serviceName is a table"] = { "/wrong/table", "serviceName", "no service called a table" },
    ["whose serviceName is unknown"] = {
      "/wrong/unknown", "serviceName", "there is no service called the text \\\"nowhere\\\"",
    },
    ["whose serviceName is nil"] = { "/wrong/nil", "serviceName", NO_SERVICE },
    ["whose access returns nonsense"] = { "/wrong/access", "access", "returned 5; expected nothing or" },
    ["whose access does not answer, without a service"] = { "/silent", "serviceName", NO_SERVICE, "silent" },
    ["whose loadBalance raises"] = {
      "/echo/last", "balance", "routes/all%.lua:%d+: no luck", "last", { ["X-Want"] = "raise" },
    },
    ["whose loadBalance returns nonsense"] = {
      "/echo/last", "balance", "none of the instances it got", "last", { ["X-Want"] = "nonsense" },
    },
  } do
    it(what .. " is a 500 and a line in the log", function()
      local mark = gw:mark()
      local got = ask(case[1], case[5])
      assert.equal(500, got.status)
      assert.equal("a plugin failed", cjson.decode(got.text).error)
      local line = gw:wait_log('msg="hook failed"', nil, mark)
      assert.matches(('plugin="route %s" hook=%s '):format(case[4] or "wrong", case[2]), line)
      assert.matches(case[3], line)
      assert.equal(200, ask("/echo").status)
    end)
  end
end)

describe("a route hook", function()
  local CHOOSER = [[
local plugin = { name = "chooser" }

local closed = {
  id = "closed", path = "/closed/{what}/*",
  access = function(ctx) return ctx:reply(503, ctx.params.what or "-", { ["Retry-After"] = "120" }) end,
}
local wrong = { id = "wrong", path = "/x", serviceName = "nowhere" }

function plugin.route(ctx)
  local order = ctx.req.headers["X-Order"]
  if order == "closed" then return closed end
  if order == "fresh" then
    return { id = "fresh", path = "/*", serviceName = "api", plugins = { "watcher" } }
  end
  if order == "wrong" then return wrong end
  if order == "rewrite" then ctx.req.path = "/other" return nil end
  return order
end

return plugin
]]

  local server, gw

  setup(function()
    server = origin.sse "one"
    gw = gateway.start {
      services = { api = server.port },
      rules = {
        { id = "echo", path = "/echo/*", serviceName = "api" },
        { id = "other", path = "/other", serviceName = "api", plugins = { "actor" } },
      },
      files = { ["plugins/chooser.lua"] = CHOOSER },
      config = { pluginPath = gateway.plugin_path(), plugins = { "chooser" } },
    }
  end)

  teardown(function()
    gateway.stop_all()
    server:stop()
  end)

  local function ask(path, order)
    return http.fetch(gw.port, { path = path, headers = { ["X-Order"] = order, ["X-Access"] = "show" } })
  end

  it("names a rule by its id", function()
    assert.equal("other", cjson.decode(ask("/echo/x", "other").text).route.id)
    assert.equal("one", ask("/other", "echo"):get "X-Server")
    assert.equal(404, ask("/nowhere").status)
  end)

  it("makes a rule, once or each time", function()
    for _ = 1, 3 do
      local got = ask("/closed/a%20b/c", "closed")
      assert.same({ 503, "a b", "120" }, { got.status, got.text, got:get "Retry-After" })
    end
    for _ = 1, 50 do
      local got = ask("/echo/fresh", "fresh")
      assert.same({ 200, "1" }, { got.status, got:get "X-Worker" })
    end
  end)

  it("changes the path that rules are matched by", function()
    assert.equal("other", cjson.decode(ask("/nowhere", "rewrite").text).route.id)
  end)

  for order, pattern in pairs {
    wrong = "returned a rule that is wrong: .*unknown service",
    nobody = "returned .*nobody.*, which is no rule's id",
  } do
    it("that returns nonsense is a 500: " .. order, function()
      local mark = gw:mark()
      assert.equal(500, ask("/echo/x", order).status)
      local line = gw:wait_log('msg="hook failed"', nil, mark)
      assert.matches("plugin=chooser hook=route", line)
      assert.matches(pattern, line)
      assert.equal(200, ask("/echo/x").status)
    end)
  end
end)
