--- The plugins that come with the gateway, on the wire: event_filter, event_rewrite, cors, headers.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"

local PAGE = "https://app.example.com"

describe("the plugin", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = {
        api = server.port, down = http.free_port(), none = { { port = 1, health = "unhealthy" } },
      },
      rules = {
        {
          id = "drop", path = "/drop", serviceName = "api",
          plugins = { { event_filter = { drop = { "debug" } } } },
        },
        {
          id = "keep", path = "/keep", serviceName = "api",
          plugins = { { event_filter = { field = "user.plan", keep = { "pro", "3" } } } },
        },
        {
          id = "rewrite", path = "/rewrite", serviceName = "api",
          plugins = {
            {
              event_rewrite = {
                rename = { status = "state" }, set = { retry = 5000 }, remove = { "id" },
                json = { set = { ["meta.via"] = "gateway" }, remove = { "user.email" } },
              },
            },
          },
        },
        {
          id = "only", path = "/only", serviceName = "api",
          plugins = { { event_rewrite = { only = { "tick" }, set = { data = "a\nb", type = "tock" } } } },
        },
        {
          id = "headers", path = "/headers", serviceName = "api",
          plugins = {
            {
              headers = {
                request = {
                  set = { ["X-Tenant"] = "acme", Host = "internal.example" }, remove = { "X-Debug" },
                  add = { ["X-Via"] = { "1", "2" } },
                },
                response = {
                  set = { ["Cache-Control"] = "no-store" }, remove = { "server" },
                  add = { ["Set-Cookie"] = { "a=1", "b=2" } },
                },
              },
            },
          },
        },
        { id = "page", path = "/page", methods = { "GET", "SSE" }, serviceName = "api" },
        { id = "post", path = "/post", methods = { "POST" }, serviceName = "api" },
        { id = "sse", path = "/sse", methods = { "SSE" }, serviceName = "api" },
        { id = "down", path = "/down", serviceName = "down" },
        { id = "none", path = "/none", serviceName = "none" },
        { id = "raise", path = "/raise", serviceName = "api", plugins = { "actor" } },
        {
          id = "open", path = "/open", serviceName = "api",
          plugins = { { cors = { origins = { "*" }, headers = { "X-One", "X-Two" }, maxAge = "1h" } } },
        },
      },
      config = {
        pluginPath = gateway.plugin_path(),
        plugins = {
          {
            cors = {
              origins = { PAGE, "https://*.preview.example.com" }, credentials = true,
              exposed = { "X-Request-Id", "X-Other" },
            },
          },
        },
        frontend = { sse = { keepaliveTimeout = 0 } },
        backend = { http = { keepAlive = false } },
      },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  -- A stream of that text through a path, as the client gets it.
  local function through(path, text)
    local stream = streams.open(gw, server, { path = path })
    stream:send(text)
    stream:finish()
    local got, how = stream:rest()
    assert.equal("clean", how)
    return got
  end

  describe("event_filter", function()
    it("drops events by type, and leaves all else as it came", function()
      local rest = "data:1\r\n\r\nevent: debugger\ndata\n\n"
      assert.equal(":c\n\n" .. rest,
        through("/drop", "event: debug\ndata: 0\n\n:c\n\nevent:debug\n\n" .. rest))
    end)

    it("keeps events by a field of their JSON", function()
      local kept = 'data: {"user": {"plan": "pro"}}\n\ndata: {"user":\ndata:   {"plan": 3}}\n\n'
      assert.equal(kept, through("/keep", 'data: {"user": {"plan": "free"}}\n\n' .. kept
        .. "data: pro\n\nid: 3\n\n" .. 'data: {"user": null}\n\n'))
    end)
  end)

  describe("event_rewrite", function()
    it("sets and removes parts and fields", function()
      assert.equal('event: state\nretry: 5000\ndata: {"n": 12345678901234567890, "user":{"a":1},'
        .. '"meta":{"via":"gateway"}}\n\nretry: 5000\ndata: no json\n\n',
        through("/rewrite", 'id: 4\nevent: status\ndata: {"n": 12345678901234567890, '
          .. '"user":{"email":"x@y","a":1}}\n\ndata: no json\nid: 5\n\n'))
    end)

    it("is for some types only", function()
      assert.equal("data:x\n\nevent: tock\ndata: a\ndata: b\n\n",
        through("/only", "data:x\n\nevent: tick\ndata: 1\n\n"))
    end)
  end)

  describe("headers", function()
    it("changes what goes to the backend and what comes back", function()
      local client = http.connect(gw.port)
      client:send(http.format {
        path = "/headers", headers = { ["X-Tenant"] = "evil", ["x-debug"] = "1", ["X-Via"] = "0" },
      })
      local received = server:request()
      assert.same({ "acme" }, received:all "X-Tenant")
      assert.same({ "internal.example" }, received:all "Host")
      assert.same({}, received:all "X-Debug")
      assert.same({ "0", "1", "2" }, received:all "X-Via")
      received:ok("body", nil, "Server: x\r\nCache-Control: max-age=1\r\nSet-Cookie: c=3\r\n")
      local got = client:response()
      assert.same({ "no-store" }, got:all "Cache-Control")
      assert.same({ "c=3", "a=1", "b=2" }, got:all "Set-Cookie")
      assert.is_nil(got:get "Server")
      assert.same({ "body", "clean" }, { got:body() })
    end)
  end)

  describe("cors", function()
    local function fetch(path, headers, method)
      local got = http.fetch(gw.port, { path = path, method = method, headers = headers })
      assert.is_nil(server:try_accept(0))
      return got
    end

    local function preflight(path, method, origin, asked)
      return fetch(path, {
        Origin = origin or PAGE, ["Access-Control-Request-Method"] = method,
        ["Access-Control-Request-Headers"] = asked or "x-user-id",
      }, "OPTIONS")
    end

    -- A request that the backend answers.
    local function ask(path, headers, lines)
      local client = http.connect(gw.port)
      client:send(http.format { path = path, headers = headers })
      server:request():ok("body", nil, lines)
      return client:response()
    end

    it("answers preflights for what a rule takes", function()
      local got = preflight("/page", "GET")
      assert.equal(204, got.status)
      assert.same({ PAGE }, got:all "Access-Control-Allow-Origin")
      assert.same({ "true" }, got:all "Access-Control-Allow-Credentials")
      assert.matches("GET", got:get "Access-Control-Allow-Methods")
      assert.equal("x-user-id", got:get "Access-Control-Allow-Headers")
      assert.equal("600", got:get "Access-Control-Max-Age")
      assert.matches("Origin", got:get "Vary")
      assert.equal(204, preflight("/sse", "GET").status)
      assert.equal(204, preflight("/post", "POST", "https://a.b.preview.example.com").status)
    end)

    it("by the rule's own settings, where it has them", function()
      local got = preflight("/open", "DELETE", "https://other.example")
      -- The outer one, of the gateway, is asked first and does not know that origin.
      assert.is_nil(got:get "Access-Control-Allow-Methods")
      assert.equal(204, got.status)
    end)

    it("allows nothing to other origins", function()
      local got = preflight("/page", "GET", "https://evil.example")
      assert.equal(204, got.status)
      assert.is_nil(got:get "Access-Control-Allow-Origin")
      got = ask("/page", { Origin = "https://evil.example" })
      assert.is_nil(got:get "Access-Control-Allow-Origin")
      assert.equal("Origin", got:get "Vary")
    end)

    it("leaves it to the rule which methods there are", function()
      local got = preflight("/post", "GET")
      assert.equal(405, got.status)
      assert.equal("POST", got:get "Allow")
      assert.equal(405, fetch("/post", { Origin = PAGE }, "OPTIONS").status)
      assert.equal(404, preflight("/nowhere", "GET").status)
    end)

    it("lets pages read answers, cookies and all", function()
      local got = ask("/page", { Origin = PAGE })
      assert.same({ PAGE }, got:all "Access-Control-Allow-Origin")
      assert.same({ "true" }, got:all "Access-Control-Allow-Credentials")
      assert.equal("X-Request-Id, X-Other", got:get "Access-Control-Expose-Headers")
      assert.equal("Origin", got:get "Vary")
      assert.is_nil(ask("/page", {}):get "Access-Control-Allow-Origin")
    end)

    it("lets pages read streams", function()
      local stream = streams.open(gw, server, { path = "/page", headers = { Origin = PAGE } })
      assert.same({ PAGE }, stream.client:all "Access-Control-Allow-Origin")
      stream:send "data: 1\n\n"
      stream:expect "data: 1\n\n"
    end)

    it("does not say twice what the backend has said", function()
      local got = ask("/page", { Origin = PAGE }, "Access-Control-Allow-Origin: *\r\n")
      assert.same({ "*" }, got:all "Access-Control-Allow-Origin")
      assert.same({}, got:all "Access-Control-Allow-Credentials")
    end)

    local refusals = {
      ["/nowhere"] = 404, ["/post"] = 405, ["/sse"] = 406, ["/down"] = 502, ["/none"] = 503, ["/../x"] = 400,
      ["/raise"] = 500,
    }
    for path, status in pairs(refusals) do
      it(("lets pages read the gateway's own %d"):format(status), function()
        local got = fetch(path, { Origin = PAGE, ["X-Access"] = "raise" })
        assert.equal(status, got.status)
        assert.same({ PAGE }, got:all "Access-Control-Allow-Origin")
        assert.same({ "true" }, got:all "Access-Control-Allow-Credentials")
      end)
    end
  end)
end)
