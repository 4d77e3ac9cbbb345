local parse = require("spec.support.yaml")
local config = require("gateway.config")

local SERVICE = [[
registry:
  static:
    services:
      - name: s
        instances: [{id: one, address: "127.0.0.1", port: 3000}]
]]

local function load(text, opts)
  opts = opts or {}
  opts.yaml = parse
  local env = opts.env or {}
  opts.env = function(name) return env[name] end
  return config.load(text, "x.yaml", opts)
end

-- The tree of a text that has no faults.
local function good(text, opts)
  local tree, errors = load(text, opts)
  assert.equal("", table.concat(errors, "\n"))
  return tree
end

-- The faults of a text, one a line, without the file's name.
local function faults(text, opts)
  local tree, errors = load(text, opts)
  assert.is_nil(tree)
  assert.is_true(#errors > 0)
  return (table.concat(errors, "\n"):gsub("x%.yaml:", ""))
end

-- Checks one rule: `path` and `serviceName` are there unless they are given.
local function rule_text(keys)
  local text = SERVICE .. "router:\n  rules:\n    - " .. keys:gsub("\n", "\n      ") .. "\n"
  if not keys:find("path:", 1, true) then text = text .. "      path: /a\n" end
  if not keys:find("serviceName:", 1, true) then text = text .. "      serviceName: s\n" end
  return text
end

local function good_rule(keys, opts)
  return good(rule_text(keys), opts).router.rules[1]
end

local function bad_rule(keys, opts)
  return (faults(rule_text(keys), opts):gsub("gateway%.router%.rules%[1%]%.?", ""):gsub("%f[%d]%d+:%d+: ",
    ""))
end

describe("config: defaults", function()
  it("are those of the contract", function()
    local tree = good("gateway: {}")
    assert.same({
      frontend = {
        http = { host = "0.0.0.0", port = 8080, readTimeout = 30, writeTimeout = 30, idleTimeout = 75,
          tcpUserTimeout = 60,
          maxHeaderBytes = 32768, maxHeaders = 100, maxTargetBytes = 8192, maxBodyBytes = 0,
          maxBufferedBody = 1048576,
          maxConnections = 0, trustedProxies = {}, clientAddressHeader = "X-Forwarded-For",
          maxConnectionsPerClient = 0, clientPrefix6 = 64, maxPipelinedBytes = 65536,
          maxRequestsPerConnection = 0,
          proxyProtocol = false, listeners = {}, upgrades = { "websocket" }, tunnelIdleTimeout = 300 },
        sse = { enabled = true, writeTimeout = 60, keepaliveTimeout = 30, keepaliveMode = "interval",
          maxAge = 0, maxAgeJitter = 0.1,
          maxEventBytes = 1048576, maxBufferedBytes = 65536, maxStreams = 0, maxStreamsPerClient = 0 },
      },
      backend = {
        http = { maxIdleConns = 100, maxIdleConnsPerHost = 10, idleConnTimeout = 90, keepAlive = true,
          keepAliveTimeout = 30, dialTimeout = 10, tcpUserTimeout = 60, responseHeaderTimeout = 10,
          writeTimeout = 30 },
        sse = { dialTimeout = 10, firstEventTimeout = 0, responseTimeout = 0, keepaliveTimeout = 30 },
        calls = { timeout = 30, maxBodyBytes = 1048576, maxPerHost = 100 },
      },
      registry = { type = "static", static = { services = {} }, dns = { servers = {}, timeout = 5, minTtl = 5,
        maxTtl = 300, hold = 30, family = "any" } },
      router = { rules = {}, lua = {} },
      pluginPath = { "../plugins" }, plugins = {}, workers = "auto", drainTimeout = 25,
      lua = { maxRunTime = 0.05, maxMemory = 268435456, open = {} },
      log = { level = "info", format = "text", access = true, file = "" },
      shared = { maxBytes = 16777216 }, limits = { maxBufferedBytes = 268435456 },
      management = { enabled = true, host = "127.0.0.1", port = 9001 },
    }, tree)
  end)

  it("stand in for keys without a value", function()
    assert.same(good("gateway: {}"), good("frontend:\nrouter:\n  rules:\nlog: ~\nworkers: null\n"))
  end)

  it("of a rule", function()
    assert.same({ id = "/a", path = "/a", host = {}, headers = {}, methods = {}, serviceName = "s",
      loadBalance = "round_robin", timeout = 0, onReload = "adopt", plugins = {}, maxStreams = 0,
      maxStreamsPerClient = 0, maxStreamsPerSession = 0, forwardPath = "received",
      ambiguousPath = "refuse" }, good_rule("path: /a"))
  end)

  it("of an instance", function()
    local tree = good([[
registry: {static: {services: [{name: s, instances: [
  {address: "127.0.0.1", port: 80}, {address: "::1", port: 81},
  {address: localhost, port: 82, id: x, weight: 3}
]}]}}]])
    assert.same({
      { id = "127.0.0.1:80", address = "127.0.0.1", port = 80, health = "healthy", weight = 1 },
      { id = "[::1]:81", address = "::1", port = 81, health = "healthy", weight = 1 },
      { id = "x", address = "localhost", port = 82, health = "healthy", weight = 3 },
    }, tree.registry.static.services[1].instances)
  end)
end)

describe("config: units", function()
  it("become seconds and bytes", function()
    local http = good("frontend: {http: {readTimeout: 1m30s, idleTimeout: 0.5, maxHeaderBytes: 64KiB,"
      .. " maxBodyBytes: 10}}").frontend.http
    assert.same({ 90, 0.5, 65536, 10 },
      { http.readTimeout, http.idleTimeout, http.maxHeaderBytes, http.maxBodyBytes })
  end)
end)

describe("config: the root", function()
  it("may leave out gateway:", function()
    assert.same(good("gateway: {workers: 2}"), good("workers: 2"))
  end)

  it("has nothing beside gateway:", function()
    assert.equal('2:1: workers: unknown key beside "gateway" (the keys of a configuration stand below it)',
      faults("gateway: {}\nworkers: 2\n"))
  end)

  it("is a map that holds something", function()
    assert.equal("1:1: gateway: the configuration is empty", faults(""))
    assert.equal("2:1: gateway: the configuration is empty", faults("# nothing\n"))
    assert.equal("1:9: gateway: the configuration is empty", faults("gateway:\n"))
    assert.equal("1:1: gateway: a configuration is a map of keys", faults("[1, 2]"))
    assert.equal("1:10: gateway: a configuration is a map of keys", faults("gateway: word"))
  end)

  it("names the file of broken YAML", function()
    local _, errors, marks = load("a: [1}")
    assert.matches("^x.yaml:1:%d+: did not find expected", errors[1])
    assert.is_nil(marks)
  end)
end)

describe("config: faults", function()
  it("are told by place, all of them, with the nearest name", function()
    assert.equal(table.concat({
      '3:5: gateway.frontend.htp: unknown key "htp" (did you mean "http"?)',
      '5:7: gateway.frontend.sse.writeTimout: unknown key "writeTimout" (did you mean "writeTimeout"?)',
      '6:7: gateway.frontend.sse.keepaliveMode: unknown value "idel" (did you mean "idle"?)',
      '7:3: gateway.wrokers: unknown key "wrokers" (did you mean "workers"?)',
      '10:7: gateway.router.rules[1].serviceName: unknown service "s" (known: t)',
      '12:7: gateway.router.rules[2].loadBalance: unknown policy "round_robbin"'
        .. ' (did you mean "round_robin"?)',
    }, "\n"), faults([[
gateway:
  frontend:
    htp: {}
    sse:
      writeTimout: 5
      keepaliveMode: idel
  wrokers: 2
  router: {rules: [
    {path: /a,
      serviceName: s},
    {path: /b, serviceName: t,
      loadBalance: round_robbin}]}
  registry: {static: {services: [{name: t, instances: [{address: "127.0.0.1", port: 1}]}]}}
]], { policies = {} }))
  end)

  it("stand at the key, for a list's item at the item", function()
    assert.equal("4:9: gateway.router.rules[1].methods[2]: unknown value \"PSOT\" (did you mean \"POST\"?)",
      faults("router:\n  rules:\n  - methods: [GET,\n        PSOT]\n    path: /a\n    serviceName: s\n"
        .. SERVICE))
  end)

  it("of a missing key stand where its map begins", function()
    assert.equal("3:7: gateway.router.rules[1].path: missing\n"
      .. "3:7: gateway.router.rules[1].serviceName: missing", faults("router:\n  rules:\n    - id: x\n"))
  end)

  it("of a wrong value do not make it missing as well", function()
    assert.equal("path: a path begins with \"/\"", bad_rule("path: a"))
    assert.equal("serviceName: expected a text, got a map", bad_rule("serviceName: {}"))
  end)

  local cases = {
    { "workers: 0", "gateway.workers: expected a whole number from 1 to 256, got 0" },
    { "workers: many", 'gateway.workers: expected a whole number from 1 to 256, got "many"' },
    { "workers: 1.5", "gateway.workers: expected a whole number from 1 to 256, got 1.5" },
    { "frontend: {http: {port: 65536}}",
      "gateway.frontend.http.port: expected a whole number from 0 to 65535, got 65536" },
    { "frontend: {http: {port: -1}}", "got -1" },
    { "frontend: {http: {port: http}}", 'got "http"' },
    { "frontend: {http: {host: example.com}}",
      "is not an IP address; a name other than localhost can't be listened on" },
    { "frontend: {http: {host: 'unix:run/x'}}", 'the path of a socket begins with "/"' },
    { "frontend: {http: {host: '[::1]'}}", "write an IPv6 address without brackets" },
    { "frontend: {http: {host: '127.0.0.1:80'}}", 'the port has a key of its own, "port"' },
    { "frontend: {http: {host: ''}}", "is not an IP address" },
    { "frontend: {http: {readTimeout: soon}}", "gateway.frontend.http.readTimeout: expected a duration" },
    { "frontend: {http: {readTimeout: -1}}",
      "expected a duration such as 100ms, 5s, 1m, 24h or seconds, got -1" },
    { "frontend: {http: {maxHeaderBytes: 32KB}}", "(write KiB: 1024 at each step)" },
    { "frontend: {http: {maxHeaders: lots}}", "expected a whole number from 0 to 1000000000" },
    { "backend: {http: {maxIdleConns: 1000000000000}}", "expected a whole number from 0 to 1000000000" },
    { "frontend: {http: {unknown: 1}}", 'gateway.frontend.http.unknown: unknown key "unknown"' },
    { "frontend: {sse: {enabled: yes}}", 'expected true or false, got "yes"' },
    { "frontend: []", "gateway.frontend: expected a map, got a list" },
    { "frontend: 5", "gateway.frontend: expected a map, got 5" },
    { "backend: {http: {dialTimeout: 11y}}", "gateway.backend.http.dialTimeout: expected a duration" },
    { "registry: {type: consul}", 'gateway.registry.type: unknown value "consul" (known: static)' },
    { "registry: {dns: {servers: [dns.example]}}", '"dns.example" is not the IP address of a name server' },
    { "registry: {dns: {servers: ['10.0.0.1:0']}}", "0 is no port" },
    { "registry: {dns: {servers: ['[10.0.0.1']}}", '"[10.0.0.1" is not the IP address of a name server' },
    { "registry: {dns: {minTtl: 0}}", "gateway.registry.dns.minTtl: expected a duration" },
    { "registry: {dns: {minTtl: 10s, maxTtl: 5s}}", "dns.minTtl: longer than maxTtl (5 seconds)" },
    { "registry: {dns: {family: 4}}", "gateway.registry.dns.family: " },
    { "registry: {static: {services: {}}}", "gateway.registry.static.services: expected a list, got a map" },
    { "registry: {static: {services: [{}]}}", "services[1].name: missing" },
    { "registry: {static: {services: [{name: s}]}}", "services[1].instances: missing" },
    { "registry: {static: {services: [{name: s, instances: []}]}}",
      "expected a list of at least 1 items, got 0" },
    { "registry: {static: {services: [~]}}", "services[1]: has no value" },
    { "registry: {static: {services: [{name: s, instances: [{port: 1}]}]}}",
      "instances[1].address: missing" },
    { "registry: {static: {services: [{name: s, instances: [{address: '::1'}]}]}}",
      "instances[1].port: missing" },
    { "router: {rules: {}}", "gateway.router.rules: expected a list, got a map" },
    { "router: {rules: [x]}", 'gateway.router.rules[1]: expected a map, got "x"' },
    { "router: {lua: x.lua}", 'gateway.router.lua: expected a list, got "x.lua"' },
    { "router: {lua: ['']}", "gateway.router.lua[1]: must not be empty" },
    { "pluginPath: plugins", "gateway.pluginPath: expected a list" },
    { "log: {level: loud}", 'gateway.log.level: unknown value "loud" (known: debug, info, warn, error)' },
    { "log: {format: xml}", 'gateway.log.format: unknown value "xml" (known: text, json)' },
    { "management: {port: 70000}", "gateway.management.port: expected a whole number" },
    { "1: 2", 'gateway.1: unknown key "1"' },
    { "'a b': 2", 'gateway["a b"]: unknown key "a b"' },
  }
  for _, case in ipairs(cases) do
    it("are told: " .. case[1], function()
      local text = faults(case[1])
      assert.is_truthy(text:find(case[2], 1, true), text)
    end)
  end
end)

describe("config: services", function()
  local function services(text)
    return faults("registry: {static: {services: [" .. text .. "]}}")
  end
  local one = "{address: '127.0.0.1', port: 1}"

  it("have names and ids once", function()
    assert.equal('1:90: gateway.registry.static.services[2].name: "s" is the name of services[1] too',
      services("{name: s, instances: [" .. one .. "]}, {name: s, instances: [" .. one .. "]}"))
    assert.matches('instances%[2%].id: "127.0.0.1:1" is the id of instances%[1%] too',
      services("{name: s, instances: [" .. one .. "," .. one .. "]}"))
    assert.matches('instances%[2%].id: "a" is the id of instances%[1%] too', services(
      "{name: s, instances: [{id: a, address: '::1', port: 1}, {id: a, address: '::1', port: 2}]}"))
    good("registry: {static: {services: [{name: s, instances: [" .. one .. "]}, {name: t, instances: ["
      .. one .. "]}]}}")
  end)

  local addresses = {
    ["127.0.0.1"] = true, ["10.0.0.255"] = true, ["::"] = true, ["::1"] = true, ["fe80::1"] = true,
    localhost = true,
    ["2001:db8::8:800:200c:417a"] = true, ["::ffff:10.0.0.1"] = true, ["1:2:3:4:5:6:7:8"] = true,
    ["1:2:3:4:5:6:10.0.0.1"] = true, ["1::"] = true, ["1:2:3:4:5:6:7::"] = true,
    ["256.0.0.1"] = false, ["1.2.3"] = false, ["1.2.3.4.5"] = false, ["01.2.3.4"] = false, ["1.2.3."] = false,
    [":::"] = false, ["1:2:3:4:5:6:7"] = false, ["1:2:3:4:5:6:7:8:9"] = false, ["1::2::3"] = false,
    ["12345::"] = false, ["g::"] = false, ["::1%lo"] = false, ["1:2:3:4:5:6:7:8::"] = false,
    ["10.0.0.1::"] = false,
    ["1:"] = false, [":1"] = false, [" ::1"] = false,
    example = true, ["LOCALHOST"] = true, ["api.example.com"] = true, ["api.example.com."] = true,
    ["_http._tcp.api-1.svc"] = true, ["xn--bcher-kva.example"] = true, ["1st.example"] = true,
    [("x"):rep(63) .. ".com"] = true, [("x"):rep(64) .. ".com"] = false, [("x."):rep(126) .. "xx"] = false,
    [""] = false, ["."] = false, ["a..b"] = false, [".a"] = false, ["-a.b"] = false, ["a b"] = false,
    ["a/b"] = false, ["http://a"] = false, ["a.b:80"] = false, ["bücher.example"] = false, ["*"] = false,
  }
  for address, fine in pairs(addresses) do
    it((fine and "run at " or "do not run at ") .. address, function()
      local text = "registry: {static: {services: [{name: s, instances: [{port: 1, address: '"
        .. address .. "'}]}]}}"
      if fine then
        good(text)
      else
        assert.matches("instances%[1%].address: ", faults(text))
      end
    end)
  end

  it("are asked for at these name servers", function()
    local tree = good("registry: {dns: {servers: ['10.0.0.1', '10.0.0.1:5353', '::1', '[::1]', '[::1]:53']}}")
    assert.same({ "10.0.0.1", "10.0.0.1:5353", "[::1]", "[::1]", "[::1]:53" }, tree.registry.dns.servers)
  end)

  it("may be unix sockets, which have no port", function()
    local tree = good(
      "registry: {static: {services: [{name: s, instances: [{address: 'unix:/run/api.sock'}]}]}}")
    local instance = tree.registry.static.services[1].instances[1]
    assert.same({ "unix:/run/api.sock", "unix:/run/api.sock" }, { instance.id, instance.address })
    assert.is_nil(instance.port)
    for text, why in pairs({
      ["unix:/x', port: '80"] = "1:%d+: .*instances%[1%].port: a unix socket has no port",
      ["unix:run/x"] = 'address: the path of a socket begins with "/"',
      ["unix:"] = 'address: the path of a socket begins with "/"',
      ["unix:/" .. ("x"):rep(107)] = "address: the path of a socket has at most 107 bytes, this one has 108",
    }) do
      assert.matches(why, services("{name: s, instances: [{address: '" .. text .. "'}]}"))
    end
  end)

  it("are told what is wrong with their address", function()
    for text, why in pairs({
      ["a.example:80"] = 'the port has a key of its own, "port"', ["http://a/"] = "an address is no URL",
      ["[::1]"] = "without brackets", ["1.2.3"] = '"1.2.3" is not an IPv4 address',
      ["a b"] = '"a b" is not a host name or an address', [("x"):rep(64)] = "at most 63 bytes",
      [("x."):rep(127)] = "at most 253 bytes",
    }) do
      local fault = services("{name: s, instances: [{port: 1, address: '" .. text .. "'}]}")
      assert.is_truthy(fault:find(why, 1, true), fault)
    end
  end)

  for _, port in ipairs({ "0", "65536", "-1", "1.5", "'80'", "http" }) do
    it("do not listen on " .. port, function()
      assert.matches("instances%[1%].port: expected a whole number from 1 to 65535",
        services("{name: s, instances: [{address: '::1', port: " .. port .. "}]}"))
    end)
  end
end)

describe("config: listeners", function()
  it("do not share a port", function()
    assert.equal("1:37: gateway.management.port: 9000 is the port of frontend.http too",
      faults("management: {host: '127.0.0.1',     port: 9000}\nfrontend: {http: {port: 9000}}"))
    assert.matches("too$", faults("management: {port: 8080}"))
  end)

  it("may, at different addresses, when one is off, or when the system chooses", function()
    good("management: {port: 8080, host: '127.0.0.2'}\nfrontend: {http: {host: '127.0.0.1'}}")
    good("management: {port: 8080, enabled: false}")
    good("management: {port: 0}\nfrontend: {http: {port: 0}}")
  end)
end)

describe("config: paths of rules", function()
  for _, path in ipairs({ "/", "/a", "/a/b", "/*", "/a/*", "/{id}", "/users/{id}/events", "/{a}/{b}/*",
    "/a//b", "/a/",
    "/a%20b", "/a.b-c_d~e", "/{_x1}", "/a:b@c!$&'()+,;=" }) do
    it("can be " .. path, function()
      assert.equal(path, good_rule(("path: %q"):format(path)).path)
    end)
  end

  local bad = {
    { "a", 'a path begins with "/"' }, { "*", 'a path begins with "/"' }, { "", 'a path begins with "/"' },
    { "/a*", '"*" can only be the whole last segment' }, { "/*/a", '"*" can only be the whole last segment' },
    { "/a/*/", '"*" can only be the whole last segment' },
    { "/**", '"*" can only be the whole last segment' },
    { "/{id", "{name} stands for a whole segment" }, { "/a{id}", "{name} stands for a whole segment" },
    { "/{id}b", "{name} stands for a whole segment" }, { "/{}", "a name is letters, digits and _" },
    { "/{1a}", "a name is letters, digits and _" }, { "/{a-b}", "a name is letters, digits and _" },
    { "/{a}/{a}", '"{a}" appears twice' }, { "/{a}{b}", "a name is letters" },
    { "/{*}", "can only be the whole last" },
    { "/a b", "a path pattern cannot hold \" \" (write it as %20" }, { "/a?b", "cannot hold \"?\"" },
    { "/a#b", "cannot hold \"#\"" }, { "/ä", "(write it as %C3" }, { "/a\\b", "cannot hold" },
  }
  for _, case in ipairs(bad) do
    it("cannot be " .. case[1], function()
      local text = bad_rule("path: '" .. case[1] .. "'")
      assert.is_truthy(text:find(case[2], 1, true), text)
    end)
  end
end)

describe("config: rules", function()
  it("have an id once", function()
    local rules = "router:\n  rules:\n  - {id: x, path: /a, serviceName: s}\n"
    assert.equal('4:6: gateway.router.rules[2].id: "x" is the id of rules[1] too',
      faults(rules .. "  - {id: x, path: /b, serviceName: s}\n" .. SERVICE))
    local text = faults(rules .. "  - {path: /c, serviceName: s}\n  - {path: /c, serviceName: s, host: h}\n"
      .. SERVICE)
    assert.equal('5:5: gateway.router.rules[3].id: missing (the default, "/c", is the id of rules[2])',
      text)
  end)

  it("name services that exist", function()
    assert.equal('serviceName: unknown service "t" (known: s)', bad_rule("serviceName: t"))
  end)

  it("name methods", function()
    assert.same({ "GET", "SSE", "M-SEARCH" }, good_rule("methods: [GET, SSE, M-SEARCH]").methods)
    assert.equal('methods[1]: unknown value "get" (did you mean "GET"?)', bad_rule("methods: [get]"))
    assert.equal('methods[1]: unknown value "CONNECT"', bad_rule("methods: [CONNECT]"):sub(1, 35))
    assert.equal('methods: expected a list, got "GET"', bad_rule("methods: GET"))
    assert.equal("methods[1]: has no value", bad_rule("methods: [~]"))
  end)

  it("narrow by host", function()
    assert.same({ "example.com" }, good_rule("host: Example.COM").host)
    assert.same({ "*.example.com", "10.0.0.1", "[::1]" },
      good_rule("host: ['*.example.com', 10.0.0.1, '[::1]']").host)
    for _, host in ipairs({ "a b", "a:80", "*", "a.*.b", "::1", "http://a", ".a", "a..b", "", "[a]" }) do
      assert.matches("^host%[1%]: ", bad_rule(("host: %q"):format(host)))
    end
  end)

  it("narrow by headers", function()
    assert.same({ ["x-a"] = { "1" }, ["x-b"] = { "u", "*" } },
      good_rule("headers: {X-A: 1, x-B: [u, '*']}").headers)
    assert.equal('headers["X A"]: not a header name', bad_rule("headers: {X A: 1}"))
    assert.matches("the header x%-a appears twice", bad_rule("headers: {X-A: 1, x-a: 2}"))
    assert.equal("headers.X-A[1]: a header value has no control characters",
      bad_rule('headers: {X-A: "a\\nb"}'))
    assert.matches("expected a list of at least 1 items", bad_rule("headers: {X-A: []}"))
    assert.equal("headers.X-A: has no value", bad_rule("headers: {X-A: }"))
  end)

  it("have keys of their own, and not those of Lua routes", function()
    assert.equal('lodBalance: unknown key "lodBalance" (did you mean "loadBalance"?)',
      bad_rule("lodBalance: x"))
    assert.equal("match: only a Lua route (router.lua) can have this key",
      bad_rule("match: x"))
    assert.equal("timeout: expected a duration such as 100ms, 5s, 1m, 24h or seconds, got \"never\"",
      bad_rule("timeout: never"))
  end)

  it("are not for the very same requests twice", function()
    local function two(a, b)
      return "router:\n  rules:\n  - {id: a, serviceName: s, " .. a .. "}\n  - {id: b, serviceName: s, "
        .. b .. "}\n" .. SERVICE
    end
    local clashes = {
      { "path: /a", "path: /a" }, { "path: '/{x}'", "path: '/{y}'" },
      { "path: /a, host: h", "path: /a, host: [g, H]" },
      { "path: /a, methods: [GET, POST]", "path: /a, methods: [POST]" },
      { "path: /a, headers: {A: [1, 2]}", "path: /a, headers: {a: [2, 1]}" },
    }
    for _, pair in ipairs(clashes) do
      assert.matches("^4:%d+: gateway.router.rules%[2%].path: takes the same requests as rules%[1%]$",
        faults(two(pair[1], pair[2])))
    end
    local apart = {
      { "path: /a", "path: /a/" }, { "path: /a", "path: /a, host: h" },
      { "path: /a, methods: [GET]", "path: /a, methods: [SSE]" },
      { "path: /a", "path: /a, methods: [GET]" },
      { "path: /a, headers: {A: 1}", "path: /a, headers: {A: 2}" },
      { "path: '/{x}'", "path: /*" },
    }
    for _, pair in ipairs(apart) do good(two(pair[1], pair[2])) end
  end)
end)

local POLICIES = "consistent_hash, ip_hash, least_connections, random, response_time, round_robin, "
  .. "sticky_session, weighted_random, weighted_round_robin"

describe("config: policies", function()
  it("are checked against those that are known", function()
    assert.equal("least_conn", good_rule("loadBalance: least_conn").loadBalance)
    assert.equal("mine", good_rule("loadBalance: mine", { policies = { mine = true } }).loadBalance)
    assert.equal("mine",
      good_rule("loadBalance: mine", { policies = function() return { mine = true } end }).loadBalance)
    assert.equal('loadBalance: unknown policy "mien" (did you mean "mine"?)',
      bad_rule("loadBalance: mien", { policies = { mine = true } }))
    assert.equal('loadBalance: unknown policy "x" (known: ' .. POLICIES .. ")",
      bad_rule("loadBalance: x", { policies = {} }))
  end)

  it("are asked for with the tree", function()
    local seen
    good("pluginPath: [p]", { policies = function(tree) seen = tree.pluginPath return {} end })
    assert.same({ "p" }, seen)
  end)
end)

describe("config: what is asked again", function()
  it("is nothing by default, and has defaults of its own", function()
    local rule = good_rule("path: /x")
    assert.is_nil(rule.retry)
    assert.is_nil(rule.firstEvent)
    rule = good_rule("retry: {}\nfirstEvent: {}")
    assert.same({ attempts = 3, on = { "connect", "reset" }, statuses = {},
      methods = { "GET", "HEAD", "OPTIONS" }, maxBody = 65536,
      backoff = { base = 0.025, max = 1, jitter = 0.5 }, budget = { ratio = 0.2, minRequests = 10 },
    }, rule.retry)
    assert.same({ hold = 3, errors = {} }, rule.firstEvent)
    assert.same({ "timeout" }, good_rule("retry:\n  on: [timeout]").retry.on)
  end)

  local cases = {
    { "retry: {statuses: [503, 200]}", "retry.statuses[2]: expected a whole number from 400 to 599" },
    { "retry: {on: [conect]}", 'retry.on[1]: unknown value "conect" (did you mean "connect"?)' },
    { "retry: {methods: [SSE]}", 'retry.methods[1]: unknown value "SSE"' },
    { "retry: {attempts: 0}", "retry.attempts: expected a whole number from 1 to 10" },
    { "retry: {maxBody: 0, methods: [GET, POST]}", "retry.methods: a POST can't go again without its body" },
    { "retry: {backoff: {base: 2s}}", "retry.backoff.base: is longer than max, 1s" },
    { "retry: {budget: {ration: 1}}", 'unknown key "ration" (did you mean "ratio"?)' },
    { "firstEvent: {hold: 2h}", "firstEvent.hold: expected a duration" },
    { 'firstEvent: {errors: ["a\\nb"]}', "firstEvent.errors[1]: the type of an event is one line" },
    { 'firstEvent: {errors: ["a\\0b"]}', "firstEvent.errors[1]: the type of an event is one line" },
    { "upgrades: [h2c]", "upgrades[1]: h2c cannot be tunnelled: requests in it would pass by the rules" },
    { "upgrades: [websocket, TLS/1.0]", "upgrades[2]: TLS/1.0 cannot be tunnelled" },
    { "upgrades: [HTTP/2.0]", "upgrades[1]: HTTP/2.0 cannot be tunnelled" },
    { 'upgrades: ["a, b"]', 'upgrades[1]: "a, b" is not the name of a protocol' },
  }
  for _, case in ipairs(cases) do
    it("is checked: " .. case[1], function()
      local text = bad_rule(case[1])
      assert.is_truthy(text:find(case[2], 1, true), text)
    end)
  end
end)

describe("config: sessions", function()
  it("are sticky by the policy or by the section", function()
    local rule = good_rule("loadBalance: sticky_session")
    assert.same({ enabled = true, ttl = 3600 }, rule.stickySession)
    rule = good_rule("stickySession: {ttl: 1h}")
    assert.same({ { enabled = true, ttl = 3600 }, "sticky_session" },
      { rule.stickySession, rule.loadBalance })
    rule = good_rule("stickySession: {enabled: false}")
    assert.same({ { enabled = false, ttl = 3600 }, "round_robin" }, { rule.stickySession, rule.loadBalance })
    rule = good_rule("stickySession:\nloadBalance: round_robin")
    assert.is_nil(rule.stickySession)
    assert.equal("round_robin", good_rule("stickySession: {}\nloadBalance: round_robin").loadBalance)
  end)

  it("have one source by affinity", function()
    local rule = good_rule("sessionAffinity: {source: header, ttl: 60, maxEntries: 10}")
    assert.same({ enabled = true, ttl = 60, source = "header", cookieName = "GATEWAY_SESSION",
      headerName = "X-Session-Id",
      queryParam = "session", maxEntries = 10, cookiePath = "/", learn = false, stateless = false,
      secrets = {} }, rule.sessionAffinity)
    assert.is_nil(rule.stickySession)
    assert.equal("sticky_session", rule.loadBalance)
    assert.equal("id",
      good_rule("path: '/u/{id}'\nsessionAffinity: {source: path, pathParam: id}").sessionAffinity.pathParam)
  end)

  local cases = {
    { "stickySession: {}\nsessionAffinity: {}",
      "sessionAffinity: stickySession is given too; a rule can have one" },
    { "stickySession: {tll: 5}", 'stickySession.tll: unknown key "tll" (did you mean "ttl"?)' },
    { "stickySession: true", "stickySession: expected a map, got true" },
    { "stickySession: {ttl: x}", "stickySession.ttl: expected a duration" },
    { "sessionAffinity: {source: cokie}",
      'sessionAffinity.source: unknown value "cokie" (did you mean "cookie"?)' },
    { "sessionAffinity: {source: path}", "sessionAffinity: source: path needs pathParam" },
    { "sessionAffinity: {source: path, pathParam: id}",
      'sessionAffinity.pathParam: the path "/a" has no {id}' },
    { "sessionAffinity: {cookieName: 'a b'}", 'sessionAffinity.cookieName: "a b" is not a cookie name' },
    { "sessionAffinity: {cookieName: ''}", "sessionAffinity.cookieName: must not be empty" },
    { "sessionAffinity: {headerName: 'a:'}", 'sessionAffinity.headerName: "a:" is not a header name' },
    { "sessionAffinity: {maxEntries: 0}",
      "sessionAffinity.maxEntries: expected a whole number of at least 1" },
    { "sessionAffinity: {queryParm: a}", 'unknown key "queryParm" (did you mean "queryParam"?)' },
    { "sessionAffinity: {cookiePath: a}", 'sessionAffinity.cookiePath: "a" is not the path of a cookie' },
    { "sessionAffinity: {cookiePath: '/a; Secure'}", "sessionAffinity.cookiePath: " },
    { "sessionAffinity: {cookieDomain: 'a.b; c'}", 'sessionAffinity.cookieDomain: "a.b; c" is not a domain' },
    { "sessionAffinity: {source: query, learn: true}",
      "sessionAffinity.learn: is for source: cookie; a response carries no query" },
    { "sessionAffinity: {stateless: true}", "sessionAffinity.stateless: needs secrets" },
    { "sessionAffinity: {stateless: true, secrets: ['', '']}", "sessionAffinity.stateless: needs secrets" },
    { "sessionAffinity: {stateless: true, secrets: [0123456789abcdef, short]}",
      "sessionAffinity.secrets[2]: a secret has at least 16 bytes, this one has 5" },
    { "sessionAffinity: {stateless: true, source: header, secrets: [0123456789abcdef]}",
      "sessionAffinity.stateless: needs source: cookie" },
    { "sessionAffinity: {stateless: true, learn: true, secrets: [0123456789abcdef]}",
      "sessionAffinity.stateless: can't be had with learn" },
    { "sessionAffinity: {secrets: [0123456789abcdef]}", "sessionAffinity.secrets: are for stateless: true" },
    { "stickySession: {fallback: round_robbin}",
      'stickySession.fallback: unknown policy "round_robbin" (did you mean "round_robin"?)',
      { policies = {} } },
    { "sessionAffinity: {fallback: sticky_session}",
      "sessionAffinity.fallback: sticky_session can't be its own fallback" },
    { "loadBalance: round_robin\nstickySession: {fallback: round_robin}",
      "stickySession.fallback: is for loadBalance: sticky_session" },
  }
  for _, case in ipairs(cases) do
    it("are checked: " .. case[1]:gsub("\n", " "), function()
      local text = bad_rule(case[1], case[3])
      assert.is_truthy(text:find(case[2], 1, true), text)
    end)
  end

  it("have secrets, of which empty ones do not count", function()
    local rule = good_rule("sessionAffinity: {stateless: true, secrets: ['${NEW}', '${OLD:-}']}",
      { env = { NEW = "0123456789abcdef" } })
    assert.same({ "0123456789abcdef" }, rule.sessionAffinity.secrets)
  end)

  it("say nothing of a secret in messages", function()
    local text = bad_rule("sessionAffinity: {stateless: true, secrets: ['${A}']}", { env = { A = "hush" } })
    assert.is_nil(text:find("hush", 1, true))
  end)

  it("have a policy that places new ones", function()
    local rule = good_rule("stickySession: {fallback: mine}", { policies = { mine = true } })
    assert.same({ "mine", "sticky_session" }, { rule.stickySession.fallback, rule.loadBalance })
  end)
end)

describe("config: plugins", function()
  it("are names, or names with settings, and may be skipped on errors", function()
    local rule = good_rule([[
plugins:
  - cors
  - event_filter: {drop: [debug]}
  - headers:
      set: {X-A: "1"}
    onError: skip
  - none:
    onError: fail
]])
    assert.same({
      { name = "cors", conf = {}, onError = "fail" },
      { name = "event_filter", conf = { drop = { "debug" } }, onError = "fail" },
      { name = "headers", conf = { set = { ["X-A"] = "1" } }, onError = "skip" },
      { name = "none", conf = {}, onError = "fail" },
    }, rule.plugins)
    assert.same({ { name = "cors", conf = {}, onError = "fail" } }, good("plugins: [cors]").plugins)
  end)

  local cases = {
    { "5", "plugins[1]: expected a plugin's name" }, { "[cors]", "plugins[1]: expected a plugin's name" },
    { "~", "plugins[1]: expected a plugin's name" }, { "{}", "plugins[1]: names no plugin" },
    { "{onError: skip}", "plugins[1]: names no plugin" },
    { "{a: {}, b: {}}", 'plugins[1]: one plugin per entry, found "a" and "b"' },
    { "{a: [1]}", "plugins[1].a: a plugin's settings are a map" },
    { "{a: []}", "plugins[1].a: a plugin's settings are a map" },
    { "{a: 5}", "plugins[1].a: a plugin's settings are a map" },
    { "{a: {}, onError: ignore}", "plugins[1].onError: expected fail or skip, got ignore" },
    { "a/b", 'plugins[1]: "a/b" cannot be the name of a plugin' },
    { "../a", "cannot be the name of a plugin" }, { "a.lua", "cannot be the name of a plugin" },
    { "''", "cannot be the name of a plugin" },
  }
  for _, case in ipairs(cases) do
    it("cannot be " .. case[1], function()
      local text = faults("plugins: [" .. case[1] .. "]")
      assert.is_truthy(text:find("gateway." .. case[2], 1, true) or text:find(case[2], 1, true), text)
    end)
  end
end)

describe("config: the environment", function()
  local env = { PORT = "8081", NAME = "s", NUMBER = "12345", EMPTY = "", YES = "true", TEXT = "a: ${PORT}" }
  local function value(text, key)
    local tree = good("plugins: [{p: {v: " .. text .. "}}]", { env = env })
    return tree.plugins[1].conf[key or "v"]
  end

  it("fills in values of every type", function()
    local tree = good([[
frontend:
  http: {port: "${PORT}", host: "${HOST:-127.0.0.1}"}
  sse: {enabled: "${YES}", keepaliveTimeout: "${KEEP:-1m}"}
workers: ${WORKERS:-auto}
management:
  port: ${ADMIN:-9002}
]], { env = env })
    assert.same({ 8081, "127.0.0.1" }, { tree.frontend.http.port, tree.frontend.http.host })
    assert.same({ true, 60 }, { tree.frontend.sse.enabled, tree.frontend.sse.keepaliveTimeout })
    assert.same({ "auto", 9002 }, { tree.workers, tree.management.port })
    assert.equal(3, good("workers: ${WORKERS:-auto}", { env = { WORKERS = "3" } }).workers)
  end)

  it("gives a text where a text is wanted", function()
    local tree = good(rule_text("id: ${NUMBER}"), { env = env })
    assert.equal("12345", tree.router.rules[1].id)
    assert.equal("true", good(rule_text("id: ${YES}"), { env = env }).router.rules[1].id)
  end)

  it("reads a plain value as if it stood there, a quoted one as text", function()
    assert.equal(8081,
      value("'x'") and good("plugins:\n- p:\n    v: ${PORT}", { env = env }).plugins[1].conf.v)
    assert.equal("8081", value("'${PORT}'"))
    assert.equal("80812", value("'${PORT}2'"))
  end)

  it("fills in several, in the middle, and none twice", function()
    assert.equal("http://s:8081/", value("'http://${NAME}:${PORT}/'"))
    assert.equal("a: ${PORT}", value("'${TEXT}'"))
  end)

  it("has defaults for what is unset or empty", function()
    assert.equal("x", value("'${NONE:-x}'"))
    assert.equal("x", value("'${EMPTY:-x}'"))
    assert.equal("", value("'${EMPTY}'"))
    assert.equal("", value("'${NONE:-}'"))
    assert.equal(":-", value("'${NONE:-:-}'"))
  end)

  it("leaves other dollars alone", function()
    assert.equal("$PORT $ $$ $1", value("'$PORT $ $$ $1'"))
    assert.equal("${PORT}", value("'$${PORT}'"))
    assert.equal("a${PORT}8081", value("'a$${PORT}${PORT}'"))
  end)

  it("takes an empty plain value for none", function()
    assert.equal("auto", good("workers: ${EMPTY}", { env = env }).workers)
  end)

  it("does not fill in keys", function()
    assert.equal(1, value("1", "v"))
    assert.matches('unknown key "%${NAME}"', faults("'${NAME}': 1", { env = env }))
  end)

  it("goes through aliases", function()
    local text = "frontend: {http: &h {host: &a '${H}'}}\nmanagement: {host: *a, port: 1}\n"
    local tree = good(text, { env = { H = "127.0.0.1" } })
    assert.equal("127.0.0.1", tree.management.host)
    assert.equal("127.0.0.1", tree.frontend.http.host)
  end)

  it("must have what is asked for", function()
    assert.equal("1:1: gateway.workers: the environment has no NONE (and ${NONE} no default)",
      faults("workers: ${NONE}"))
    assert.equal("1:1: gateway.workers: ${1A} is not ${NAME} or ${NAME:-default}", faults("workers: ${1A}"))
    assert.matches("is not %${NAME} or", faults("workers: ${A-b}"))
    assert.matches("is not %${NAME} or", faults("workers: ${}"))
    assert.equal('1:1: gateway.workers: "${" without "}"', faults("workers: ${A"))
    assert.equal('1:1: gateway.workers: expected a whole number from 1 to 256, got "x"',
      faults("workers: ${X}", { env = { X = "x" } }))
  end)

  it("does not report what lacks a variable as missing too", function()
    local text = faults("registry: {static: {services: [{name: s, instances: [{port: 1, address: '${A}'}"
      .. "]}]}}")
    assert.matches("instances%[1%].address: the environment has no A", text)
    assert.is_nil(text:find("\n"))
    assert.is_nil(bad_rule("path: ${A}"):find("missing"))
    assert.equal("serviceName: missing", bad_rule("serviceName:"))
  end)

  it("gives a hint where braces end in a flow map", function()
    assert.matches("inside { } and %[ %] a %${NAME} is written in quotes",
      faults("frontend: {http: {port: ${PORT}}}"))
  end)
end)

describe("config: places", function()
  local text = [[
gateway:
  router:
    rules:
      - id: a
        path: /a
        plugins:
          - p: {x: 1}
        serviceName: s
]]

  it("are found by path", function()
    local _, _, marks = load(text)
    local function at(path) return { config.position(marks, path) } end
    assert.same({ 2, 3 }, at({ "router" }))
    assert.same({ 4, 9 }, at({ "router", "rules", 1 }))
    assert.same({ 5, 9 }, at({ "router", "rules", 1, "path" }))
    assert.same({ 7, 17 }, at({ "router", "rules", 1, "plugins", 1, "p", "x" }))
    assert.same({ 7, 17 }, at("gateway.router.rules[1].plugins[1].p.x"))
    assert.same({ 5, 9 }, at("router.rules[1].path"))
  end)

  it("are the nearest around what is not there", function()
    local _, _, marks = load(text)
    assert.same({ 7, 13 }, { config.position(marks, { "router", "rules", 1, "plugins", 1, "p", "y" }) })
    assert.same({ 4, 9 }, { config.position(marks, { "router", "rules", 1, "timeout" }) })
    assert.same({ 3, 5 }, { config.position(marks, { "router", "rules", 7 }) })
    assert.same({ 2, 3 }, { config.position(marks, { "log", "level" }) })
  end)

  it("are written as they are in the file", function()
    assert.equal("gateway.router.rules[2].headers.X-A[1]",
      config.path({ "router", "rules", 2, "headers", "X-A", 1 }))
    assert.equal('gateway["a b"]', config.path({ "a b" }))
    assert.equal("rules[1].path", config.path({ 1, "path" }, "rules"))
  end)

  it("are for others to report too, sorted in with the rest", function()
    local _, errors = load(text, { check = function(tree, report)
      assert.equal("p", tree.router.rules[1].plugins[1].name)
      report({ "router", "rules", 1, "plugins", 1, "p" }, "unknown plugin")
      report({ "router", "rules", 1, "id" }, "not nice")
    end })
    assert.same({
      "x.yaml:4:9: gateway.router.rules[1].id: not nice",
      "x.yaml:7:13: gateway.router.rules[1].plugins[1].p: unknown plugin",
      'x.yaml:8:9: gateway.router.rules[1].serviceName: unknown service "s"',
    }, errors)
  end)

  it("are reported when the tree is broken, which is whole all the same", function()
    local seen
    faults("router: {rules: [5, {path: /a, plugins: [{}]}]}\nfrontend: 7",
      { check = function(tree) seen = tree end })
    assert.equal(2, #seen.router.rules)
    assert.same({}, seen.router.rules[1].plugins)
    assert.same({ { conf = {}, onError = "fail" } }, seen.router.rules[2].plugins)
    assert.equal(8080, seen.frontend.http.port)
  end)
end)

describe("config: rules of Lua routes", function()
  local services = { s = {} }
  local function rules(list, opts)
    opts = opts or {}
    opts.file = "r.lua"
    opts.services = opts.services or services
    local checked, errors = config.rules(list, opts)
    return checked, table.concat(errors, "\n")
  end

  it("have defaults as in YAML, and functions", function()
    local checked,
      errors = rules({ { path = "/a", serviceName = print, loadBalance = print, match = print, timeout = "1m",
      host = "H", plugins = { "cors", { event_filter = { drop = { "x" } }, onError = "skip" } } } })
    assert.equal("", errors)
    assert.same({ { id = "/a", path = "/a", serviceName = print, loadBalance = print, match = print,
      maxStreams = 0, maxStreamsPerClient = 0, maxStreamsPerSession = 0,
      timeout = 60, onReload = "adopt", forwardPath = "received", ambiguousPath = "refuse",
      host = { "h" }, headers = {}, methods = {}, plugins = {
        { name = "cors", conf = {}, onError = "fail" },
        { name = "event_filter", conf = { drop = { "x" } }, onError = "skip" } } } }, checked)
  end)

  it("need no path beside a match, and no service beside an access", function()
    local checked, errors = rules({ { match = print, access = print } })
    assert.equal("", errors)
    assert.equal("r.lua#1", checked[1].id)
    assert.equal("r.lua: rules[1].path: missing\nr.lua: rules[1].serviceName: missing",
      select(2, rules({ {} })))
  end)

  it("are checked as in YAML", function()
    assert.equal('r.lua: rules[1].serviceName: unknown service "t" (known: s)',
      select(2, rules({ { path = "/a", serviceName = "t" } })))
    assert.equal('r.lua: rules[1].pth: unknown key "pth" (did you mean "path"?)',
      select(2, rules({ { path = "/a", serviceName = "s", pth = 1 } })))
    assert.equal('r.lua: rules[1].loadBalance: unknown policy "x" (known: ' .. POLICIES .. ")",
      select(2, rules({ { path = "/a", serviceName = "s", loadBalance = "x" } }, { policies = {} })))
    assert.equal("r.lua: rules[1].on_event: expected a function, got \"x\"",
      select(2, rules({ { path = "/a", serviceName = "s", on_event = "x" } })))
    assert.equal("r.lua: rules[1].serviceName: expected a text, got true (quote it)",
      select(2, rules({ { path = "/a", serviceName = true } })))
    assert.matches("^r.lua: rules%[1%].timeout: expected a duration such as .*, got a function$",
      select(2, rules({ { path = "/a", serviceName = "s", timeout = print } })))
    assert.equal('r.lua: rules[1].plugins[1]: one plugin per entry, found "a" and "b" (begin each with "- ")',
      select(2, rules({ { path = "/a", serviceName = "s", plugins = { { a = {}, b = {} } } } })))
    assert.equal("r.lua: rules[1].plugins[1].a: a plugin's settings are a map",
      select(2, rules({ { path = "/a", serviceName = "s", plugins = { { a = { 1 } } } } })))
    assert.equal('r.lua: rules[2]: expected a map, got "x"',
      (select(2, rules({ { path = "/a", serviceName = "s" }, "x" })))
      :match("^[^\n]*"))
  end)

  it("are a list", function()
    assert.equal("r.lua: a Lua route returns a list of rules, not nil", select(2, rules(nil)))
    assert.equal("r.lua: a Lua route returns a list of rules, not function", select(2, rules(print)))
    assert.equal("r.lua: a Lua route returns a list of rules, also when it is one: return { { … } }",
      select(2, rules({ path = "/a" })))
    assert.equal("r.lua: a Lua route returns a list of rules; x is not a place in a list",
      select(2, rules({ x = {} })))
    assert.same({}, (rules({})))
  end)

  it("do not clash with those of the file, or of another file", function()
    local tree = good(rule_text("id: a\npath: /a"))
    local taken = config.taken(tree)
    assert.equal('r.lua: rules[1].id: "a" is the id of router.rules[1] too',
      select(2, rules({ { id = "a", path = "/b", serviceName = "s" } }, { taken = taken })))
    assert.equal("r.lua: rules[1].path: takes the same requests as router.rules[1]",
      select(2, rules({ { id = "c", path = "/a", serviceName = "s" } }, { taken = taken })))
    assert.equal("",
      select(2, rules({ { id = "d", path = "/a", serviceName = "s", match = print } }, { taken = taken })))
    assert.equal('r.lua: rules[1].id: "d" is the id of r.lua#1 too',
      select(2, rules({ { id = "d", path = "/d", serviceName = "s" } }, { taken = taken })))
  end)
end)
