require("gateway.testing")
local plugin = require("gateway.plugin")
local sandbox = require("gateway.sandbox")
local source = require("gateway.source")

local function open(files, dirs)
  local from = source.memory(files)
  dirs = dirs or { "plugins" }
  return plugin.open(from, dirs, sandbox.new(from, dirs))
end

-- Loads one plugin file; its value, or its errors as one text.
local function load(text, name)
  name = name or "p"
  local value, errors = open({ ["plugins/" .. name .. ".lua"] = text }):get(name)
  return value, table.concat(errors, "\n")
end

describe("a plugin file", function()
  it("returns a table with a name and hooks", function()
    local value, errors = load("return { name = 'p', on_event = function() end, _private = 1 }")
    assert.equal("", errors)
    assert.is_function(value.on_event)
  end)

  it("is refused with everything that is wrong", function()
    local function refused(want, text)
      local value, errors = load(text)
      assert.is_nil(value)
      assert.equal(want, errors)
    end
    refused("plugins/p.lua: a plugin file must return a table, this one returned nothing "
      .. "(is `return plugin` missing?)", "local plugin = {}")
    refused("plugins/p.lua:2: unexpected symbol near '='", "local x = 1\n= 2")
    refused("plugins/p.lua:1: no", "error('no')")
    refused('plugins/p.lua: name: is "q", but the file is called p.lua\n'
      .. 'plugins/p.lua: on_close: expected a function, got number\n'
      .. 'plugins/p.lua: schema.drop: unknown type "aray" (did you mean "array"?)\n'
      .. 'plugins/p.lua: unknown key "on_evnt" (did you mean "on_event"?)',
      "return { name = 'q', on_evnt = 1, on_close = 5, schema = { drop = { type = 'aray' } } }")
    refused("plugins/p.lua: comments: is for plugins with an on_event hook",
      "return { name = 'p', comments = true }")
    refused("plugins/p.lua: on_events: stands in the place of on_event; there can't be both",
      "return { name = 'p', on_event = print, on_events = print }")
    refused("plugins/p.lua: name: missing; it must be the file's name, p", "return {}")
  end)

  it("is looked for in every folder of pluginPath, the first wins", function()
    local plugins = open({ ["a/x.lua"] = "return { name = 'x', version = 'a' }",
      ["b/x.lua"] = "return { name = 'x', version = 'b' }", ["b/y.lua"] = "return { name = 'y' }" }, { "a",
        "b" })
    assert.equal("a", plugins:get("x").version)
    assert.equal("y", plugins:get("y").name)
    assert.same({ "x", "y" }, plugins:names())
    assert.equal(plugins:get("x"), plugins:get("x"))
  end)

  it("is suggested when a name is nearly right", function()
    local plugins = open({ ["plugins/event_filter.lua"] = "" })
    assert.same({ nil, {
      'unknown plugin "evnt_filter" (did you mean "event_filter"?): no evnt_filter.lua in plugins' } },
      { plugins:get("evnt_filter") })
    assert.same({ nil, { '"../x" can\'t be a plugin\'s name' } }, { plugins:get("../x") })
  end)

  it("is a policy when it has a balance hook", function()
    local plugins = open({ ["plugins/a.lua"] = "return { name = 'a', balance = function() end }",
      ["plugins/b.lua"] = "-- no balance\nreturn { name = 'b' }",
        ["plugins/c.lua"] = "return { name = 'c', balance =",
      ["plugins/d.lua"] = "error('is not even loaded')" })
    assert.same({ a = true, c = true }, plugins:policies())
  end)
end)

describe("a plugin for a route", function()
  local function entry(value, conf, route)
    local errors = {}
    local made = plugin.entry(value, { conf = conf, onError = "skip" }, route or {}, function(path, text)
      errors[#errors + 1] = table.concat(path, ".") .. ": " .. text
    end, { "here" })
    return made, errors
  end

  it("has its settings checked, and made into what the hooks get", function()
    local value = { name = "p", schema = { n = { type = "integer", default = 3 } },
      new = function(conf, route) return { n = conf.n + 1, id = route.id } end }
    local made, errors = entry(value, {}, { id = "r" })
    assert.same({}, errors)
    assert.same({ n = 4, id = "r" }, made.conf)
    assert.is_true(made.skip)
    made, errors = entry(value, { n = "x", m = 1 })
    assert.is_nil(made)
    assert.equal(2, #errors)
  end)

  it("keeps the settings when new returns nothing, and says what new raised", function()
    local made = entry({ name = "p", new = function() end }, { a = 1 })
    assert.same({ a = 1 }, made.conf)
    local failed, errors = entry({ name = "p", new = function() error("give drop", 0) end }, {})
    assert.is_nil(failed)
    assert.same({ "here: new: give drop" }, errors)
  end)
end)

describe("the sandbox", function()
  local function run(text, files)
    files = files or {}
    local box = sandbox.new(source.memory(files), { "plugins" })
    local ok, value = box:run(text, "plugins/p.lua")
    return ok and value or nil, not ok and value or nil
  end

  it("has what is harmless", function()
    assert.same({ 3, "b", "number", "function", true }, run([[
      local t = table.concat({ "a", "b" }):sub(2)
      return { math.max(1, 3), t, type(os.time()), type(coroutine.wrap), pcall(error, "x") == false }
    ]]))
    assert.equal("1.0", run("return ('%.1f'):format(1)"))
    assert.is_number(run("return collectgarbage('count')"))
    assert.is_string(run("return debug.traceback('x')"))
  end)

  it("has nothing else", function()
    for _, name in ipairs({ "io", "package", "ffi", "jit", "dofile", "loadfile", "getfenv", "setfenv",
      "module",
      "newproxy", "os.exit", "os.execute", "os.remove", "os.rename", "os.setlocale", "os.tmpname",
        "debug.getinfo",
      "debug.sethook", "debug.getregistry", "string.dump", "_G.io", "require('gateway').io" }) do
      assert.is_nil(run("return " .. name), name)
    end
    for _, name in ipairs({ "jit", "package", "gateway.core", "gateway.loader", "gateway.sandbox", "../x",
      "" }) do
      local _, err = run(("local x = require(%q)"):format(name))
      assert.matches("plugins/p.lua:1: require: no module", err)
    end
    for _, name in ipairs({ "ffi", "io", "os", "debug" }) do
      local _, err = run(("local x = require(%q)"):format(name))
      assert.matches("plugins/p.lua:1: require: " .. name .. " is closed to plugins", err)
    end
    assert.matches("only \"count\" is allowed", select(2, run("collectgarbage('stop')")))
  end)

  it("has what the configuration opens, and nothing more", function()
    local box = sandbox.new(source.memory({}), {}, { "io", "os", "ffi" })
    local function value(code) return select(2, box:run("return " .. code, "plugins/p.lua")) end
    assert.is_function(value "io.popen")
    assert.is_function(value "os.execute")
    assert.equal(8, value "require('ffi').sizeof('double')")
    assert.equal(value "type(require('io').open)", "function")
    assert.is_nil(value "debug.getinfo")
    assert.is_nil(value "ffi")
    assert.matches("debug is closed", value "require('debug')")
    value "(function() io.open = nil end)()"
    assert.is_function(io.open)
  end)

  it("compiles text, not bytecode, and keeps it inside", function()
    assert.is_nil(run("return loadstring('return io')()"))
    assert.is_nil(run("return load('return os.exit')()"))
    assert.equal(6, run("return load('return 2 * x', '=x', 't', { x = 3 })()"))
    assert.equal(2, run([[
      local parts = { 'return ', '2' }
      return load(function() return table.remove(parts, 1) end)()
    ]]))
    local box = sandbox.new(source.memory({}), {})
    assert.is_false((box:run(string.dump(function() end), "x")))
    assert.is_nil(run("return (load('\\27LJ'))"))
  end)

  it("keeps globals in their file, and libraries whole", function()
    assert.equal(5, run("x = 5 return x"))
    assert.is_nil(rawget(_G, "x"))
    run("string.format = nil; math.max = nil; table.insert = nil")
    assert.is_function(string.format)
    assert.equal(3, run("return math.max(1, 3)"))
    assert.is_nil(run("return getmetatable('')"))
    assert.is_false(run("return getmetatable(_G)") or false)
  end)

  it("gives the gateway's own modules and a few libraries", function()
    assert.is_function(run("return require('gateway').log.info"))
    assert.is_function(run("return gateway.json.decode"))
    assert.is_function(run("return require('gateway.event').new"))
    for _, name in ipairs({ "cjson", "cjson.safe", "bit", "string.buffer", "table.new", "table.clear" }) do
      assert.is_not_nil(run(("return require(%q)"):format(name)), name)
    end
  end)

  it("requires helper modules that lie beside plugins, once, in a sandbox of their own", function()
    local files = {
      ["plugins/lib/util.lua"] = "n = (n or 0) + 1 return { n = n, io = io, sub = require('lib.sub') }",
      ["plugins/lib/sub/init.lua"] = "return 'sub'",
      ["plugins/loop.lua"] = "return require('loop')",
      ["plugins/bad.lua"] = "local x =\n",
      ["plugins/empty.lua"] = "",
    }
    assert.same({ n = 1, sub = "sub" }, run("require('lib.util') return require('lib.util')", files))
    assert.matches("loop is being loaded already", select(2, run("require('loop')", files)))
    assert.matches("^plugins/bad.lua:%d+: unexpected symbol", select(2, run("require('bad')", files)))
    assert.is_true(run("return require('empty')", files))
    assert.matches('no module "gateway.jsn" for plugins %(did you mean "gateway.json"%?%); looked for plug',
      select(2, run("require('gateway.jsn')", files)))
  end)

  it("prints to the log", function()
    local core = require("gateway.core")
    core.reset()
    run("print('a', 1, nil)")
    assert.same({ level = "info", text = "a 1 nil" }, core.state.logs[1])
  end)
end)
