local parse = require("spec.support.yaml")
local config = require("gateway.config")

-- The tree of a text that has no faults.
local function good(text)
  local tree, errors = config.load(text, "x.yaml", { yaml = parse, env = function() end })
  assert.equal("", table.concat(errors, "\n"))
  return tree
end

describe("printer", function()
  local full = [==[
registry: {static: {services: [{name: s, instances: [{id: one, address: "127.0.0.1", port: 3000}]}]}}
frontend: {http: {readTimeout: 100ms, maxBodyBytes: 1MiB}, sse: {keepaliveMode: idle}}
router:
  lua: ["routes/*.lua"]
  rules:
    - id: "yes"
      path: /a/{id}/*
      host: ["*.example.com", "[::1]"]
      headers: {X-A: ["*", "12", "true", " #x"], X-B: "a: b"}
      methods: [GET, SSE]
      serviceName: s
      timeout: 1.1
      sessionAffinity: {source: path, pathParam: id}
      plugins:
        - cors
        - p:
            list: []
            map: {}
            null_value: ~
            nested: [[1, [2]], {a: [{b: c}]}, "two\nlines", "${X:-$}{", "$${Y}"]
            "odd key: #": "\t\"\\\x01é"
            numbers: [0.1, -1e300, 9007199254740991, .inf, 1e-7]
            texts: ["1", "0x1", "null", "~", "", " ", "-", "a\r", "on", "1.2.3", ".5", "*a", "&b", "- x", "?"]
          onError: skip
    - {id: b, path: /b, serviceName: s, stickySession: {enabled: false, ttl: 5}}
workers: 3
plugins: [{headers: {a: 1}}]
]==]

  it("can be read again and means the same", function()
    for _, text in ipairs({ "gateway: {}", full }) do
      local tree = good(text)
      local printed = config.print(tree)
      assert.same(tree, good(printed))
      assert.equal(printed, config.print(good(printed)))
    end
  end)

  it("is in the order of the schema, with every default", function()
    local text = config.print(good("workers: 2"))
    assert.matches('^gateway:\n  frontend:\n    http:\n      host: "0.0.0.0"\n      port: 8080\n', text)
    assert.is_truthy(text:find("  router:\n    rules: []\n    lua: []\n", 1, true))
    assert.is_truthy(text:find("  workers: 2\n", 1, true))
  end)

  it("is readable", function()
    local text = config.print(good(full))
    assert.is_truthy(text:find([[
    rules:
      - id: "yes"
        path: "/a/{id}/*"
        host: ["*.example.com", "[::1]"]
        headers:
          x-a: ["*", "12", "true", "#x"]
          x-b: ["a: b"]
        methods: [GET, SSE]
        serviceName: s
        loadBalance: sticky_session
        timeout: 1.1
]], 1, true), text)
    assert.is_truthy(text:find("          - cors: {}\n            onError: fail\n", 1, true))
  end)
end)

describe("printer and secrets", function()
  it("tells how many there are, and is no configuration then", function()
    local text = config.print(good([==[
registry: {static: {services: [{name: s, instances: [{id: one, address: "127.0.0.1", port: 3000}]}]}}
router:
  rules:
    - path: /
      serviceName: s
      sessionAffinity: {stateless: true, secrets: [first-secret-of-all, second-secret-of-all]}
]==]))
    assert.is_nil(text:find("secret-of-all", 1, true))
    assert.is_truthy(text:find('secrets: ["***", "***"]', 1, true), text)
    local tree, errors = config.load(text, "x.yaml", { yaml = parse, env = function() end })
    assert.is_nil(tree)
    assert.matches("secrets%[1%]: a secret has at least 16 bytes", table.concat(errors, "\n"))
  end)
end)

describe("reference", function()
  local reference = require("gateway.reference")

  it("names every key", function()
    local text = reference.markdown()
    for _, line in ipairs({
      "### `frontend.http`", "### `router.rules[].sessionAffinity`",
      "### `registry.static.services[].instances[]`",
      "| `keepaliveMode` | `interval` or `idle` | `interval` |",
      "| `workers` | integer 1 to 256 or `auto` | `auto` |",
      "| `port` | integer 0 to 65535 | `8080` |", "| `address` | address | required |",
    }) do
      assert.is_truthy(text:find(line, 1, true), line)
    end
  end)

  it("has no key without a word about it", function()
    assert.is_nil(reference.markdown():find("| |\n", 1, true))
  end)

  it("replaces itself in a page", function()
    local page = "before\n" .. reference.markdown() .. "\nafter"
    assert.equal(page, reference.update(page))
    assert.equal(page, reference.update(page:gsub("### `log`", "### `logs`")))
    assert.has_error(function() reference.update("no markers") end)
  end)

  it("is what docs/configuration.md has", function()
    local file = assert(io.open("docs/configuration.md"))
    local page = file:read("*a")
    file:close()
    assert.message("run `make docs`").equal(page, reference.update(page))
  end)
end)
