local parse = require("spec.support.yaml")
local null = require("cjson").null
local schema = require("gateway.schema")

-- Checks a value; returns what came out and the faults as "path: text".
local function check(declared, value, options)
  local faults = {}
  local out = schema.check(declared, value, {}, function(path, text)
    faults[#faults + 1] = table.concat(path, ".") .. ": " .. text
  end, options)
  return out, faults
end

local function good(declared, value, options)
  local out, faults = check(declared, value, options)
  assert.same({}, faults)
  return out
end

-- The one fault of a value.
local function bad(declared, value, options)
  local _, faults = check(declared, value, options)
  assert.equal(1, #faults, table.concat(faults, "\n"))
  return faults[1]
end

-- As a plugin's settings come from YAML.
local function from_yaml(declared, text)
  local tree, mark = parse(text)
  return check(declared, tree, { mark = mark })
end

describe("schema: types", function()
  local endless = {}
  endless.again = endless

  local accepted = {
    { "string", "x", "x" }, { "string", "", "" }, { "string", 12, "12" }, { "string", 1.5, "1.5" },
    { "number", 1.5, 1.5 }, { "number", -3, -3 }, { "integer", 3, 3 }, { "integer", -3, -3 },
    { "boolean", true, true }, { "boolean", false, false },
    { "duration", 30, 30 }, { "duration", 0, 0 }, { "duration", 0.5, 0.5 }, { "duration", "100ms", 0.1 },
    { "duration", "5s", 5 }, { "duration", "1m", 60 }, { "duration", "24h", 86400 },
    { "duration", "1d", 86400 },
    { "duration", "1m30s", 90 }, { "duration", "1.5h", 5400 }, { "duration", "30", 30 },
    { "duration", "0", 0 },
    { "size", 0, 0 }, { "size", 4096, 4096 }, { "size", "64KiB", 65536 }, { "size", "1MiB", 1048576 },
    { "size", "1.5KiB", 1536 }, { "size", "2GiB", 2 ^ 31 }, { "size", "32k", 32768 },
    { "size", "1m", 1048576 },
    { "size", "12B", 12 }, { "size", "12", 12 }, { "size", "64 KiB", 65536 },
    { "any", "x", "x" }, { "any", 1, 1 }, { "any", false, false },
  }
  for _, case in ipairs(accepted) do
    it(("takes %s for a %s"):format(tostring(case[2]), case[1]), function()
      assert.equal(case[3], good({ type = case[1] }, case[2]))
    end)
  end

  local duration = ": expected a duration such as 100ms, 5s, 1m, 24h or seconds, got "
  local size = ": expected a size such as 64KiB, 1MiB or bytes, got "
  local refused = {
    { "string", true, ": expected a text, got true (quote it)" },
    { "string", {}, ": expected a text, got a map" }, { "string", { 1 }, ": expected a text, got a list" },
    { "number", "1", ': expected a number, got "1"' }, { "number", 0 / 0, ": expected a number, got " },
    { "number", math.huge, ": expected a number, got inf" },
    { "integer", 1.5, ": expected a whole number, got 1.5" },
    { "integer", "1", ': expected a whole number, got "1"' }, { "integer", math.huge, "got inf" },
    { "integer", 2 ^ 60, ": expected a whole number" },
    { "boolean", "yes", ': expected true or false, got "yes"' }, { "boolean", 1, "got 1" },
    { "duration", -1, duration .. "-1" }, { "duration", "5x", duration .. '"5x"' },
    { "duration", "", duration .. '""' }, { "duration", "s", duration .. '"s"' },
    { "duration", "5 s", duration .. '"5 s"' }, { "duration", "-5s", duration .. '"-5s"' },
    { "duration", "1m30", duration .. '"1m30"' }, { "duration", "5S", duration .. '"5S"' },
    { "duration", true, duration .. "true" }, { "duration", 0 / 0, duration },
    { "duration", math.huge, ": longer than ten years: inf" },
    { "duration", "99999h", ': longer than ten years: "99999h"' },
    { "size", -1, size .. "-1" }, { "size", "1.0001KiB", size }, { "size", "big", size .. '"big"' },
    { "size", "64KB", size .. '"64KB" (write KiB: 1024 at each step)' },
    { "size", "1mb", size .. '"1mb" (write MiB: 1024 at each step)' },
    { "size", 2 ^ 60, size }, { "size", 0.5, size .. "0.5" },
    { "array", { a = 1 }, ": expected a list, got a map" }, { "array", "x", ': expected a list, got "x"' },
    { "map", { 1 }, ": expected a map, got a list" }, { "map", "x", ': expected a map, got "x"' },
    { "any", print, ": expected data, got a function" },
    { "any", endless, ": is nested more than 64 levels deep" },
    { "function", 1, ": expected a function, got 1" },
  }
  for _, case in ipairs(refused) do
    it(("does not take %s for a %s"):format(tostring(case[2]), case[1]), function()
      assert.is_truthy(bad({ type = case[1] }, case[2]):find(case[3], 1, true))
    end)
  end

  it("keeps what it quotes short and printable", function()
    local text = bad({ type = "integer" }, ("x\n"):rep(200))
    assert.is_true(#text < 120)
    assert.is_nil(text:find("%c"))
  end)
end)

describe("schema: bounds", function()
  it("hold for numbers, ends included", function()
    local port = { type = "integer", min = 1, max = 65535 }
    assert.equal(1, good(port, 1))
    assert.equal(65535, good(port, 65535))
    assert.equal(": expected a whole number from 1 to 65535, got 0", bad(port, 0))
    assert.equal(": expected a whole number from 1 to 65535, got 65536", bad(port, 65536))
    assert.equal(": expected a number of at least 0, got -1", bad({ type = "number", min = 0 }, -1))
    assert.equal(": expected a number of at most 1, got 2", bad({ type = "number", max = 1 }, 2))
    assert.matches("a duration of at least 1 seconds, got 0", bad({ type = "duration", min = 1 }, 0))
    assert.matches('a size of at most 10 bytes, got "1KiB"', bad({ type = "size", max = 10 }, "1KiB"))
  end)

  it("hold for the length of texts, lists and maps", function()
    assert.equal(": must not be empty", bad({ type = "string", min = 1 }, ""))
    assert.matches("a text of at most 2 bytes, got one of 3", bad({ type = "string", max = 2 }, "abc"))
    assert.equal(": expected a list of at least 1 items, got 0", bad({ type = "array", min = 1 }, {}))
    assert.matches("a map of at most 1 keys, got 2", bad({ type = "map", max = 1 }, { a = 1, b = 2 }))
  end)
end)

describe("schema: enums and words", function()
  local level = { type = "enum", values = { "debug", "info", "warn" } }

  it("take what they list", function()
    assert.equal("info", good(level, "info"))
    assert.equal("auto", good({ type = "integer", words = { "auto" } }, "auto"))
    assert.equal(2, good({ type = "enum", values = { 1, 2 } }, 2))
  end)

  it("name the nearest, or all", function()
    assert.equal(': unknown value "INFO" (did you mean "info"?)', bad(level, "INFO"))
    assert.equal(': unknown value "loud" (known: debug, info, warn)', bad(level, "loud"))
    assert.equal(": expected one of debug, info, warn, got 1", bad(level, 1))
    assert.matches("expected a whole number", bad({ type = "integer", words = { "auto" } }, "all"))
  end)
end)

describe("schema: lists and maps", function()
  it("check what they hold, with its place", function()
    assert.same({ 1, 2 }, good({ type = "array", of = "integer" }, { 1, 2 }))
    assert.equal('2: expected a whole number, got "x"', bad({ type = "array", of = "integer" }, { 1, "x" }))
    assert.same({ a = 60 }, good({ type = "map", of = "duration" }, { a = "1m" }))
    assert.matches("^b: expected a duration", bad({ type = "map", of = "duration" }, { a = 1, b = "x" }))
  end)

  it("may be one bare value", function()
    local one = { type = "array", single = true, of = "string" }
    assert.same({ "x" }, good(one, "x"))
    assert.same({ "x", "y" }, good(one, { "x", "y" }))
    assert.equal(": expected a list, got a map", bad(one, { a = 1 }))
  end)

  it("take an empty table of Lua for either", function()
    assert.same({}, good({ type = "array" }, {}))
    assert.same({}, good({ type = "map" }, {}))
  end)

  it("tell an empty list of YAML from an empty map", function()
    local _, faults = from_yaml({ l = { type = "array" }, m = { type = "map" } }, "{l: {}, m: []}")
    assert.same({ "l: expected a list, got a map", "m: expected a map, got a list" }, faults)
  end)

  it("refuse nulls as items", function()
    local _, faults = from_yaml({ l = { type = "array", of = "string" } }, "l: [a, ~]")
    assert.same({ "l.2: has no value" }, faults)
    faults = select(2, from_yaml({ m = { type = "map", of = "string" } }, "m: {a: }"))
    assert.same({ "m.a: has no value" }, faults)
  end)

  it("keep tables in a list where one was wrong", function()
    local of = { type = "map", fields = { { "a", type = "integer", default = 1 } } }
    local out, faults = check({ type = "array", of = of }, { "x", { a = 2 } })
    assert.same({ { a = 1 }, { a = 2 } }, out)
    assert.same({ '1: expected a map, got "x"' }, faults)
  end)
end)

describe("schema: fields", function()
  local plugin = {
    drop = { type = "array", of = "string", default = {} },
    wait = { type = "duration", default = "100ms" },
    key = { type = "string", required = true },
    more = { type = "map", fields = { depth = { type = "integer", default = 3 } } },
  }

  it("fill in defaults at every depth, converted like a user's value", function()
    local out = good(plugin, { key = "k" })
    assert.same({ drop = {}, wait = 0.1, key = "k", more = { depth = 3 } }, out)
  end)

  it("say once that a map is missing that may not be empty", function()
    local fields = { shares = { type = "map", required = true, min = 1, of = "number" } }
    local out, faults = check(fields, {})
    assert.same({ "shares: missing" }, faults)
    assert.same({ shares = {} }, out)
  end)

  it("make a default of their own each time", function()
    local first = good(plugin, { key = "k" })
    first.drop[1] = "x"
    assert.same({}, good(plugin, { key = "k" }).drop)
  end)

  it("do not change what they are given", function()
    local given = { key = "k", drop = { "a" }, more = {} }
    good(plugin, given)
    assert.same({ key = "k", drop = { "a" }, more = {} }, given)
  end)

  it("report what is missing and what is unknown", function()
    local _, faults = check(plugin, { dorp = {}, more = { depht = 1 } })
    assert.same({
      'dorp: unknown key "dorp" (did you mean "drop"?)',
      "key: missing",
      'more.depht: unknown key "depht" (did you mean "depth"?)',
    }, faults)
    assert.equal('zzz: unknown key "zzz" (known: drop, key, more, wait)', bad(plugin, { key = "k", zzz = 1 }))
    assert.equal(": expected a map, got a list", bad({ a = { type = "any" } }, { a = 1, [1] = 1 }))
  end)

  it("take null for not given", function()
    local out, faults = from_yaml(plugin, "{key: k, drop: , wait: ~, more: null}")
    assert.same({}, faults)
    assert.same({ drop = {}, wait = 0.1, key = "k", more = { depth = 3 } }, out)
    assert.same({ "key: missing" }, (select(2, from_yaml(plugin, "key: "))))
    assert.equal(1, #select(2, from_yaml(plugin, "{key: k, dorp: }")))
  end)

  it("go on with the default where a value is wrong", function()
    local out = check(plugin, { key = "k", drop = "x", more = 5 })
    assert.same({ drop = {}, wait = 0.1, key = "k", more = { depth = 3 } }, out)
  end)

  it("may leave out a whole map", function()
    local inner = { a = { type = "integer", default = 1 } }
    local fields = { m = { type = "map", optional = true, fields = inner } }
    assert.is_nil(good(fields, {}).m)
    assert.same({ a = 1 }, good(fields, { m = {} }).m)
  end)

  it("may have a key that is called type", function()
    assert.same({ type = "x" }, good({ type = { type = "string" } }, { type = "x" }))
  end)

  it("report in the order of the file", function()
    local _, faults = from_yaml({ a = { type = "integer" } }, "{z: 1, b: 2, a: 1}")
    assert.matches("^z:", faults[1])
    assert.matches("^b:", faults[2])
  end)

  it("prefix what they report with the path they were given", function()
    local paths = {}
    schema.check({ a = { type = "integer" } }, { a = "x" }, { "plugins", 1, "p" }, function(path)
      paths[#paths + 1] = path
    end)
    assert.same({ { "plugins", 1, "p", "a" } }, paths)
  end)

  it("may have a last look of their own", function()
    local even = { type = "integer", parse = function(value)
      if value % 2 == 1 then return nil, "must be even" end
      return value / 2
    end }
    assert.equal(2, good(even, 4))
    assert.equal(": must be even", bad(even, 3))
  end)
end)

describe("schema: data of any kind", function()
  it("is copied, with nulls and empty lists", function()
    local tree, mark = parse("a: [1, {b: ~}, []]\nc: {}\n")
    local out = good({ type = "map" }, tree, { mark = mark })
    assert.same({ a = { 1, { b = null }, {} }, c = {} }, out)
    assert.is_true(schema.is_list(out.a[3]))
    assert.is_false(schema.is_list(out.c))
    out.a[2].b = 1
    assert.equal(null, tree.a[2].b)
  end)
end)

describe("schema: functions", function()
  local rule = { { "name", type = "string", lua = "function" }, { "match", type = "function", lua = true } }

  it("are for Lua only", function()
    assert.equal(print, good(rule, { match = print }, { lua = true }).match)
    assert.equal(print, good(rule, { name = print }, { lua = true }).name)
    assert.equal("name: expected a text, got a function", bad(rule, { name = print }))
    local _, faults = from_yaml(rule, "match: 1")
    assert.equal("match: only a Lua route (router.lua) can have this key", faults[1])
  end)
end)

describe("schema: nearest names", function()
  local known = { "readTimeout", "writeTimeout", "round_robin", "GET", "port" }
  local cases = {
    readTimout = "readTimeout", read_timeout = "readTimeout", READTIMEOUT = "readTimeout",
    ["read-timeout"] = "readTimeout",
    round_robbin = "round_robin", roundrobin = "round_robin", get = "GET", prot = "port", ports = "port",
    pot = "port", xyz = false, [""] = false, q = false, banana = false, [("x"):rep(500)] = false,
  }
  for name, nearest in pairs(cases) do
    it("finds " .. tostring(nearest) .. " for " .. name:sub(1, 20), function()
      assert.equal(nearest or nil, schema.nearest(name, known))
    end)
  end

  it("may be a set", function()
    assert.equal("port", schema.nearest("prt", { port = true, host = true }))
  end)

  it("are listed when they are few, and only then", function()
    assert.equal(" (known: a1, b1)", schema.suggest("zzz", { b1 = 1, a1 = 1 }))
    assert.equal("", schema.suggest("zzz", {}))
    local many = {}
    for i = 1, 20 do many[i] = "name" .. i end
    assert.equal("", schema.suggest("zzz", many))
  end)
end)

describe("schema: plain text from outside", function()
  it("is read as YAML reads it", function()
    for _, text in ipairs({ "12", "-7", "+7", "0x1F", "0o17", "1.5", ".5", "5.", "1e3", "1E-2", "true",
      "False", "TRUE", "word", "yes", "tRUE", "1_000", "0b11", "1e", ".", "0x", "1.2.3", "~x", "inf", "0o8",
      "e5", "1e5.5", "nan", "+", "--1" }) do
      assert.equal(parse("k: " .. text).k, schema.scalar(text), text)
    end
    for _, text in ipairs({ "", "~", "null", "Null", "NULL" }) do
      assert.is_nil(schema.scalar(text))
    end
    assert.equal("nULL", schema.scalar("nULL"))
  end)
end)

describe("schema: mistakes in a declaration", function()
  local function mistakes(declared)
    return table.concat(schema.verify(declared), "\n")
  end

  it("are none in a good one", function()
    assert.equal("", mistakes({ a = { type = "array", of = "string", default = {} },
      b = { type = "duration", default = "5s" }, c = { type = "enum", values = { "x" }, default = "x" },
      d = { type = "map", of = { type = "integer" } },
      e = { type = "map", fields = { f = { type = "any" } } } }))
    assert.equal("", mistakes({}))
    assert.equal("", mistakes({ type = "string" }))
  end)

  it("are found and named", function()
    assert.equal("schema: expected a table, got 5", mistakes(5))
    assert.equal('schema.a: unknown type "strng" (did you mean "string"?)',
      mistakes({ a = { type = "strng" } }))
    assert.equal("schema.a.type: missing", mistakes({ a = {} }))
    assert.matches("^schema.a: expected a table such as", mistakes({ a = 5 }))
    assert.matches("^schema.a: unknown type", mistakes({ a = "strng" }))
    assert.equal("schema.a.values: missing", mistakes({ a = { type = "enum" } }))
    assert.matches("^schema.a.of: unknown type", mistakes({ a = { type = "array", of = "txt" } }))
    assert.equal('schema.a: unknown key "defualt" (did you mean "default"?)',
      mistakes({ a = { type = "string", defualt = 1 } }))
    assert.equal("schema.a.required: expected a boolean, got 1",
      mistakes({ a = { type = "string", required = 1 } }))
    assert.equal('schema.a.default: expected a whole number, got "x"',
      mistakes({ a = { type = "integer", default = "x" } }))
    assert.equal("schema.m.x.type: missing", mistakes({ m = { type = "map", fields = { x = {} } } }))
    assert.equal("schema.x: declared twice", mistakes({ { "x", type = "any" }, { "x", type = "any" } }))
  end)

  it("are none in the gateway's own", function()
    assert.equal("", mistakes(require("gateway.settings").gateway))
  end)
end)
