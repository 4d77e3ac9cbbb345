local testing = require("gateway.testing")
local core = require("gateway.core")
core.yaml = require("spec.support.yaml")

local event = require("gateway.event")
local loader = require("gateway.loader")
local source = require("gateway.source")

local SERVICES = [[
registry:
  static:
    services:
      - name: s
        instances:
          - {id: s-1, address: localhost, port: 3010}
          - {id: s-2, address: "127.0.0.1", port: 3011, health: unhealthy}
      - {name: t, instances: [{address: "::1", port: 3012, weight: 2}]}
]]

local FILTER = [[
return { name = "tagger", schema = { tag = { type = "string", required = true } },
  on_event = function(_, conf, event) event.data = event.data .. conf.tag end }
]]

-- Loads conf/x.yaml; what stands in `files` comes with it.
local function load(yaml, files)
  local all = { ["conf/x.yaml"] = yaml .. SERVICES, ["plugins/tagger.lua"] = FILTER }
  for path, text in pairs(files or {}) do all[path] = text end
  return loader.load({ file = "conf/x.yaml", source = source.memory(all) })
end

local function loaded(yaml, files)
  local program, errors = load(yaml, files)
  assert.same({}, errors)
  return program
end

local function errors_of(yaml, files)
  local program, errors = load(yaml, files)
  assert.is_nil(program)
  return errors
end

local function open(program, options)
  local handle = testing.context(options)._x
  return program.open(handle), handle
end

-- Sends an event through the route of a path; what comes out.
local function data_through(program, path)
  local ctx = open(program, { path = path })
  program.route(ctx)
  local ev = event.new({ data = ">" })
  program.event(ctx, ev)
  return ev.data
end

before_each(testing.reset)

describe("the loader", function()
  it("makes a program of a configuration", function()
    local program = loaded("router: {rules: [{path: /a, serviceName: s, timeout: 5s}]}\n")
    assert.equal(8080, program.settings.frontend.http.port)
    assert.same({ index = 1, id = "s-1", service = "s", address = "127.0.0.1", port = 3010, weight = 1,
      health = "healthy", _of = 1 }, program.instances[1])
    assert.same({ 3, "t", "::1" }, { program.instances[3].index, program.instances[3].service,
      program.instances[3].address })
    for _ = 1, 2 do
      local ctx = open(program, { path = "/a" })
      assert.same({ 0, 5 }, { program.route(ctx) })
      assert.equal(1, program.balance(ctx))
    end
  end)

  it("runs global plugins around those of the rule", function()
    local program = loaded([[
plugins: [tagger: {tag: g}]
router:
  rules:
    - {path: /a, serviceName: s, plugins: [{tagger: {tag: "1"}}, {tagger: {tag: "2"}}]}
    - {path: /b, serviceName: s}
]])
    assert.equal(">21g", data_through(program, "/a"))
    assert.equal(">g", data_through(program, "/b"))
  end)

  it("calls new once per route, and for what runs outside of routes only where it is needed", function()
    local count = [[
      made = 0
      return { name = "NAME",
        new = function(_, route) made = made + 1 return made .. (route and route.id or "-") end,
        HOOK = function(ctx, conf) ctx.shared.NAME = conf end }]]
    local function plugin(name, hook) return (count:gsub("NAME", name):gsub("HOOK", hook)) end
    local program = loaded([[
plugins: [one, two]
router: {rules: [{path: /a, serviceName: s}, {path: /b, serviceName: s}]}
]], { ["plugins/one.lua"] = plugin("one", "access"), ["plugins/two.lua"] = plugin("two", "on_response") })
    local ctx = open(program, { path = "/b" })
    program.route(ctx)
    program.access(ctx)
    program.response(ctx)
    assert.same({ one = "2/b", two = "3/b" }, ctx.shared)
  end)

  it("reports every mistake of plugins at its place, sorted with the others", function()
    assert.same({
      'conf/x.yaml:1:11: gateway.plugins[1].taggr: unknown plugin "taggr" (did you mean "tagger"?): '
        .. "no taggr.lua in plugins",
      "conf/x.yaml:4:52: gateway.router.rules[1].plugins[1].tagger.tag: missing",
      "conf/x.yaml:5:51: gateway.router.rules[2].plugins[1].broken: plugins/broken.lua:1: "
        .. "unexpected symbol near '='",
      'conf/x.yaml:6:18: gateway.router.rules[3].serviceName: unknown service "x" (known: s, t)',
      "conf/x.yaml:7:51: gateway.router.rules[4].plugins[1].picky: new: no thanks",
      "conf/x.yaml:8:51: gateway.router.rules[5].plugins[1].early: has a route hook, which runs "
        .. "before a rule is chosen: list it under gateway.plugins",
    }, errors_of([[
plugins: [taggr]
router:
  rules:
    - {path: /a, serviceName: s, id: a, plugins: [{tagger: {}}]}
    - {path: /b, serviceName: s, id: b, plugins: [broken]}
    - {path: /c, serviceName: x}
    - {path: /d, serviceName: s, id: d, plugins: [picky]}
    - {path: /e, serviceName: s, id: e, plugins: [early]}
]], {
      ["plugins/broken.lua"] = "= 1",
      ["plugins/picky.lua"] = "return { name = 'picky', new = function() error('no thanks', 0) end }",
      ["plugins/early.lua"] = "return { name = 'early', route = function() end }",
    }))
  end)

  it("knows plugins as policies", function()
    local files = { ["plugins/last.lua"] = [[
return { name = "last", balance = function(_, _, instances) return instances[#instances] end }]] }
    local program = loaded("router: {rules: [{path: /a, serviceName: s, loadBalance: last}]}\n", files)
    local ctx = open(program, { path = "/a" })
    program.route(ctx)
    assert.equal(1, program.balance(ctx))
    assert.same({ 'conf/x.yaml:1:45: gateway.router.rules[1].loadBalance: unknown policy "lst" '
      .. '(did you mean "last"?)' },
      errors_of("router: {rules: [{path: /a, serviceName: s, loadBalance: lst}]}\n", files))
    assert.matches("loadBalance: plugins/last.lua:1: ",
      errors_of("router: {rules: [{path: /a, serviceName: s, loadBalance: last}]}\n",
        { ["plugins/last.lua"] = "balance = = 1" })[1])
  end)

  it("tells what it read and looked for, also when it fails", function()
    local _, _, watch = load("plugins: [nope, tagger: {tag: x}]\nrouter: {lua: [routes/*.lua, one.lua]}\n",
      { ["conf/routes/a.lua"] = "return {" })
    assert.same({ "conf/one.lua", "conf/routes/a.lua", "conf/x.yaml", "plugins/nope.lua",
      "plugins/tagger.lua" },
      watch.files)
    assert.same({ "conf/routes", "plugins" }, watch.dirs)
    local program, errors
    program, errors, watch = loader.load({ file = "conf/none.yaml", source = source.memory({}) })
    assert.is_nil(program)
    assert.same({ "conf/none.yaml: No such file" }, errors)
    assert.same({ "conf/none.yaml" }, watch.files)
  end)

  it("says where YAML is broken", function()
    assert.matches("^conf/x.yaml:%d+:%d+: did not find", errors_of("a: [b\n")[1])
  end)
end)

describe("Lua routes", function()
  local function with(text, yaml)
    return (yaml or "") .. "router: {lua: [routes/*.lua], rules: [{path: /yaml, serviceName: s}]}\n",
      { ["conf/routes/r.lua"] = text }
  end

  it("stand beside the rules of YAML, with functions where YAML has data", function()
    local program = loaded(with([[
return {
  { path = "/lua/{id}", methods = { "GET", "SSE" }, serviceName = function(ctx) return ctx.params.id end,
    plugins = { { tagger = { tag = "t" } } },
    access = function(ctx) ctx.state.seen = ctx.route.id end,
    on_event = function(ctx, event) event.data = event.data .. ctx.state.seen end },
  { id = "all", match = function(ctx) return ctx.req.headers["x-all"] == "1" end,
    access = function(ctx) return ctx:reply(200, "hello") end },
}]], "plugins: [tagger: {tag: g}]\n"))
    local ctx = open(program, { path = "/lua/t" })
    assert.same({ 5, 0 }, { program.route(ctx) })
    assert.is_nil(program.access(ctx))
    assert.equal(3, program.balance(ctx))
    local ev = event.new({ data = ">" })
    program.event(ctx, ev)
    assert.equal(">/lua/{id}tg", ev.data)
    local handle
    ctx, handle = open(program, { path = "/x", headers = { ["X-All"] = "1" } })
    program.route(ctx)
    assert.equal("all", handle.rule)
    assert.equal(core.REPLY, program.access(ctx))
    assert.equal("hello", handle.reply._body)
    ctx, handle = open(program, { path = "/yaml" })
    program.route(ctx)
    assert.equal("/yaml", handle.rule)
  end)

  it("are refused with file and place", function()
    for text, want in pairs({
      ["return {"] = "conf/routes/r.lua:1: unexpected symbol near '<eof>'",
      ["error('at load')"] = "conf/routes/r.lua:1: at load",
      ["return io.open"] = "conf/routes/r.lua:1: attempt to index global 'io' (a nil value)",
      ["return 5"] = "conf/routes/r.lua: a Lua route returns a list of rules, not number",
      [""] = "conf/routes/r.lua: a Lua route returns a list of rules, not nil",
      ["return { { path = '/x', serviceName = 'u' } }"] =
        'conf/routes/r.lua: rules[1].serviceName: unknown service "u" (known: s, t)',
      ["return { { path = '/x', serviceName = 's', pth = 1 } }"] =
        'conf/routes/r.lua: rules[1].pth: unknown key "pth" (did you mean "path"?)',
      ["return { { path = '/x', serviceName = 's', plugins = { { tagger = {} } } } }"] =
        "conf/routes/r.lua: rules[1].plugins[1].tagger.tag: missing",
      ["return { { path = '/x', serviceName = 's', id = '/yaml' } }"] =
        'conf/routes/r.lua: rules[1].id: "/yaml" is the id of router.rules[1] too',
      ["return { 7 }"] = "conf/routes/r.lua: rules[1]: expected a map, got 7",
    }) do
      local errors = errors_of(with(text))
      assert.equal(want, errors[1], text)
    end
  end)

  it("must be there when they are named without a pattern", function()
    assert.same({ "conf/one.lua: No such file" }, errors_of("router: {lua: [one.lua]}\n"))
  end)

  it("share one sandbox with plugins, and nothing with the gateway", function()
    local yaml, files = with([[
local util = require("lib.util")
return { { path = "/x", serviceName = util.name } }]])
    files["plugins/lib/util.lua"] = "return { name = 's', io = io }"
    local program = loaded(yaml, files)
    local ctx = open(program, { path = "/x" })
    program.route(ctx)
    assert.equal(1, program.balance(ctx))
  end)
end)

describe("a route hook", function()
  local function hook(body)
    local text = "return { name = 'chooser', route = function(ctx) " .. body .. " end }"
    return { ["plugins/chooser.lua"] = text }
  end

  local function routed(body)
    local program = loaded([[
plugins: [chooser, tagger: {tag: g}]
router: {rules: [{path: /a, serviceName: s}]}
]], hook(body))
    local ctx, handle = open(program, { path = "/a" })
    local ok, err = pcall(program.route, ctx)
    return ok and handle.rule or tostring(err), ctx, program
  end

  it("may make a rule, which is checked and has the global plugins", function()
    local id, ctx, program = routed("r = r or { id = 'made', path = '/m', serviceName = 't' } return r")
    assert.equal("made", id)
    assert.equal(3, program.balance(ctx))
    local ev = event.new({ data = ">" })
    program.event(ctx, ev)
    assert.equal(">g", ev.data)
    assert.matches('plugin chooser, route: returned a rule that is wrong: .*: unknown service "u"',
      (routed("return { path = '/m', serviceName = 'u' }")))
    assert.matches("wrong: .*tagger.tag: missing",
      (routed("return { path = '/m', serviceName = 's', plugins = { 'tagger' } }")))
  end)
end)

describe("the program", function()
  it("has all files of pluginPath with it, for what hooks ask for when they run", function()
    local files = source.memory({
      ["conf/x.yaml"] = "plugins: [late]\nrouter: {rules: [{path: /a, serviceName: s}]}\n" .. SERVICES,
      ["plugins/tagger.lua"] = FILTER,
      ["plugins/lib/deep/util.lua"] = "return { tag = 'late' }",
      ["plugins/broken.lua"] = "return {",
      ["plugins/late.lua"] = [[
        return { name = "late", route = function()
          local tag = require("lib.deep.util").tag
          return { id = "made", path = "/*", serviceName = "s", plugins = { { tagger = { tag = tag } } } }
        end }]],
    })
    assert.is_table((loader.load({ file = "conf/x.yaml", source = files })))
    local program = loader.load({ file = "conf/x.yaml", source = source.unpack(files:pack()) })
    assert.equal(">late", data_through(program, "/a"))
  end)

  it("moves to one that was loaded from a pack", function()
    local files = source.memory({ ["conf/x.yaml"] = "plugins: [tagger: {tag: g}]\n"
      .. "router: {rules: [{path: /a, serviceName: s}]}\n" .. SERVICES, ["plugins/tagger.lua"] = FILTER })
    local first = loader.load({ file = "conf/x.yaml", source = files })
    local second = loader.load({ file = "conf/x.yaml", source = source.unpack(files:pack()) })
    local ctx, handle = open(first, { path = "/a" })
    first.route(ctx)
    first.balance(ctx)
    local moved, flags = second.adopt(handle, first.save(ctx), "/a", "s", ctx._instance.id)
    assert.equal(4, flags)
    assert.equal(second.instances[1], moved._instance)
  end)
end)
