--- What a configuration may say of listeners.
local parse = require("spec.support.yaml")
local config = require("gateway.config")

local function load(text)
  return config.load(text, "x.yaml", { yaml = parse, env = function() end })
end

local function good(text)
  local tree, errors = load(text)
  assert.equal("", table.concat(errors, "\n"))
  return tree
end

local function faults(text)
  local tree, errors = load(text)
  assert.is_nil(tree)
  return table.concat(errors, "\n")
end

describe("config: a list of listeners", function()
  local function listed(entries, more)
    return ("frontend: {http: {%s listeners: [%s]}}"):format(more or "", entries)
  end

  it("may be several, with their defaults", function()
    local http = good(listed("{port: 81}, {host: 'unix:/run/g.sock', mode: '0660'}")).frontend.http
    assert.same({ { host = "0.0.0.0", port = 81, proxyProtocol = false },
      { host = "unix:/run/g.sock", mode = "0660", proxyProtocol = false } }, http.listeners)
    assert.same({}, { http.host, http.port, http.proxyProtocol })
    good(listed("{port: 0}, {port: 0}, {host: '::1', port: 81}, {host: '127.0.0.1', port: 81}"))
    good(listed("{port: 81}", "trustedProxies: [10.0.0.1],"))
    assert.equal(8080, good("frontend: {http: {listeners: []}}").frontend.http.port)
  end)

  it("can be paths, which have a mode and no port", function()
    local tree = good("frontend: {http: {host: 'unix:/g', mode: '660'}}\nmanagement: {host: 'unix:/m'}")
    assert.same({ "unix:/g", "660", "unix:/m" }, { tree.frontend.http.host, tree.frontend.http.mode,
      tree.management.host })
    assert.is_nil(tree.frontend.http.port)
    assert.is_nil(tree.management.port)
  end)

  for text, want in pairs({
    [listed("{port: 81}", "host: '127.0.0.1',")] = "http%.host: stands in each entry of listeners",
    [listed("{port: 81}", "port: 80,")] = "http%.port: stands in each entry of listeners",
    [listed("{port: 81}", "mode: '660',")] = "http%.mode: stands in each entry of listeners",
    [listed("{port: 81}", "proxyProtocol: false,")] = "http%.proxyProtocol: stands in each entry",
    [listed("{host: '127.0.0.1'}")] = "listeners%[1%]%.port: missing",
    [listed(("{port: 0}, "):rep(17))] = "listeners",
    [listed("{port: 81}, {host: localhost, port: 81}")] = "listeners%[2%]%.port: 81 is the port of "
      .. "frontend%.http%.listeners%[1%] too",
    [listed("{host: localhost, port: 81}, {host: '127.0.0.1', port: 81}")] = "is the port of",
    [listed("{host: '::', port: 81}, {host: '127.0.0.1', port: 81}")] = "is the port of",
    [listed("{host: 'unix:/g'}, {host: 'unix:/g'}")] = "listeners%[2%]%.host: unix:/g is taken by "
      .. "frontend%.http%.listeners%[1%] too",
    [listed("{port: 9001}")] = "management%.port: 9001 is the port of frontend%.http%.listeners%[1%] too",
    [listed("{host: 'unix:/g'}") .. "\nmanagement: {host: 'unix:/g'}"] = "management%.host: .* is taken by",
    [listed("{host: 'unix:/g', port: 1}")] = "listeners%[1%]%.port: a unix socket has no port",
    [listed("{host: 'unix:" .. ("/x"):rep(54) .. "'}")] = "listeners%[1%]%.host: .* at most 107 bytes",
    [listed("{host: 'unix:/g', mode: '0888'}")] = "listeners%[1%]%.mode: .* three octal digits",
    [listed("{host: 'unix:/g', mode: 'rw'}")] = "listeners%[1%]%.mode: .* three octal digits",
    [listed("{host: 'unix:/g', mode: '4660'}")] = "listeners%[1%]%.mode: .* three octal digits",
    [listed("{port: 81, mode: '0660'}")] = "mode: only the file of a unix socket has a mode",
    [listed("{port: 81, proxyProtocol: true}")] = "listeners%[1%]%.proxyProtocol: nobody may connect: "
      .. "frontend%.http%.trustedProxies is empty",
    ["frontend: {http: {proxyProtocol: true}}"] = "http%.proxyProtocol: nobody may connect",
    ["management: {proxyProtocol: true}"] = "unknown key",
  }) do
    it("are refused: " .. text:sub(1, 100), function() assert.matches(want, faults(text)) end)
  end
end)
