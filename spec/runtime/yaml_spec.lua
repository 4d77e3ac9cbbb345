local parse = require("spec.support.yaml")
local null = require("cjson").null

local function read(text)
  local tree, marks = parse(text, "x.yaml")
  assert(tree ~= nil, type(marks) == "table" and marks.message)
  return tree, marks
end

-- The message and place of a fault, as one line.
local function fault(text)
  local tree, why = parse(text, "x.yaml")
  assert.is_nil(tree, "this should not have been read")
  return ("%d:%d: %s"):format(why.line, why.col, why.message)
end

local function lines(...)
  return table.concat({ ... }, "\n") .. "\n"
end

describe("yaml: scalars", function()
  local cases = {
    { "word", "word" }, { "two words", "two words" }, { "'quoted'", "quoted" }, { '"a\\tb"', "a\tb" },
    { "12", 12 }, { "-7", -7 }, { "+7", 7 }, { "007", 7 }, { "0x1F", 31 }, { "0o17", 15 },
    { "1.5", 1.5 }, { ".5", 0.5 }, { "5.", 5 }, { "1e3", 1000 }, { "-1.5E-2", -0.015 }, { "+.5e+1", 5 },
    { ".inf", math.huge }, { "-.Inf", -math.huge }, { "+.INF", math.huge },
    { "true", true }, { "True", true }, { "FALSE", false },
    { "~", null }, { "null", null }, { "NULL", null }, { "", null },
    -- What YAML 1.1 took for something else, and near misses: all text.
    { "yes", "yes" }, { "off", "off" }, { "tRUE", "tRUE" }, { "1_000", "1_000" }, { "0b11", "0b11" },
    { "0x", "0x" }, { "0xfg", "0xfg" }, { "0o8", "0o8" }, { "1e", "1e" }, { ".", "." }, { "+", "+" },
    { "1.2.3", "1.2.3" }, { "12:30:00", "12:30:00" }, { "-.", "-." }, { "inf", "inf" }, { "nan", "nan" },
    { "2024-01-01", "2024-01-01" }, { "${PORT:-80}", "${PORT:-80}" },
    { '"12"', "12" }, { "'true'", "true" }, { '""', "" }, { "'null'", "null" },
    { "!!str 12", "12" }, { '!!int "12"', 12 }, { "!!float 3", 3 }, { "!!bool true", true },
    { '"a\\0b"', "a\0b" }, { "äöü", "äöü" }, { "9007199254740993", 9007199254740992 },
  }
  for _, case in ipairs(cases) do
    it("reads " .. case[1], function()
      assert.equal(case[2], (read("k: " .. case[1]).k))
    end)
  end

  it("reads not-a-number", function()
    local value = read("k: .nan").k
    assert.is_true(value ~= value)
  end)

  it("reads block texts", function()
    local tree = read(lines("a: |", "  one", "  two", "b: >-", "  one", "  two"))
    assert.equal("one\ntwo\n", tree.a)
    assert.equal("one two", tree.b)
  end)

  it("refuses tags that are not of the core schema", function()
    assert.equal('1:4: unknown tag "!thing"', fault("k: !thing 1"))
    assert.equal('1:4: unknown tag "tag:yaml.org,2002:binary"', fault("k: !!binary aGk="))
    assert.equal('1:4: unknown tag "!thing"', fault("k: !thing {a: 1}"))
    assert.equal('1:4: unknown tag "tag:yaml.org,2002:set"', fault("k: !!set {a: 1}"))
    assert.equal('1:4: "word" is not of the type that its tag names', fault("k: !!int word"))
  end)
end)

describe("yaml: collections and marks", function()
  it("tells an empty list from an empty map", function()
    local tree, marks = read("a: []\nb: {}")
    assert.same({ a = {}, b = {} }, tree)
    assert.equal("list", marks.at.a.kind)
    assert.equal("map", marks.at.b.kind)
  end)

  it("remembers where everything stood", function()
    local _, marks = read(lines("a: 1", "list:", "  - x", "  - {k: v}", "  -   - deep"))
    assert.equal("x.yaml", marks.file)
    assert.same({ line = 1, col = 1 }, marks.key_at.a)
    assert.same({ line = 1, col = 4, kind = "scalar", plain = true, text = "1" }, marks.at.a)
    assert.same({ line = 2, col = 1 }, marks.key_at.list)
    local list = marks.at.list
    assert.same({ 3, 3 }, { list.line, list.col })
    assert.same({ 3, 5 }, { list.at[1].line, list.at[1].col })
    assert.same({ line = 4, col = 6 }, list.at[2].key_at.k)
    assert.same({ 5, 9 }, { list.at[3].at[1].line, list.at[3].at[1].col })
  end)

  it("counts columns in characters, and not the byte order mark", function()
    local _, marks = read("\239\187\191ä: {ö: 1, k: 2}")
    assert.same({ line = 1, col = 1 }, marks.key_at["ä"])
    assert.same({ line = 1, col = 11 }, marks.at["ä"].key_at.k)
  end)

  it("keeps the order of keys", function()
    local _, marks = read("z: 1\na: 2\nm: 3\n'10': 4\n")
    assert.same({ "z", "a", "m", "10" }, marks.keys)
  end)

  it("has text keys only", function()
    local tree = read("1: a\ntrue: b\n~: c\n")
    assert.same({ ["1"] = "a", ["true"] = "b", ["~"] = "c" }, tree)
  end)

  it("tells quoted scalars from plain ones", function()
    local _, marks = read("a: x\nb: 'x'\nc: |\n  x\n")
    assert.is_true(marks.at.a.plain)
    assert.is_false(marks.at.b.plain)
    assert.is_false(marks.at.c.plain)
  end)

  it("reads CRLF lines", function()
    local tree, marks = read("a: 1\r\nb: x\r\n")
    assert.same({ a = 1, b = "x" }, tree)
    assert.same({ line = 2, col = 1 }, marks.key_at.b)
  end)

  it("reads nothing as null", function()
    for _, text in ipairs({ "", "# only a comment\n", "---\n", "\n\n" }) do
      local tree, marks = read(text)
      assert.equal(null, tree)
      assert.equal("scalar", marks.kind)
    end
  end)

  it("reads a document with its markers and directive", function()
    assert.same({ a = 1 }, (read("%YAML 1.2\n---\na: 1\n...\n")))
  end)
end)

describe("yaml: aliases and merges", function()
  it("repeats what an anchor named", function()
    local tree = read(lines("a: &x {p: [1, 2]}", "b: *x", "c: &s text", "d: *s"))
    assert.same({ p = { 1, 2 } }, tree.b)
    assert.equal("text", tree.d)
  end)

  it("takes the anchor that was written last", function()
    local tree = read("a: &x 1\nb: *x\nc: &x 2\nd: *x\n")
    assert.same({ a = 1, b = 1, c = 2, d = 2 }, tree)
  end)

  it("merges maps, with the map's own keys first", function()
    local text = lines("a: &a {x: 1, y: 1}", "b: &b {y: 2, z: 2}", "c:", "  y: 3", "  <<: [*a, *b]")
    local tree, marks = read(text)
    assert.same({ x = 1, y = 3, z = 2 }, tree.c)
    assert.same({ "y", "x", "z" }, marks.at.c.keys)
    assert.same({ line = 2, col = 14 }, marks.at.c.key_at.z)
    assert.same({ x = 1, y = 1, z = 2 }, (read("c: {<<: [{x: 1, y: 1}, {y: 2, z: 2}]}").c))
  end)

  it("merges into a map that is merged itself", function()
    local tree = read("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\n")
    assert.same({ x = 1, y = 2, z = 3 }, tree.c)
  end)

  it("takes a quoted << for a key", function()
    assert.same({ ["<<"] = 1 }, (read('"<<": 1')))
  end)

  it("refuses to merge what is no map", function()
    assert.equal('1:5: "<<" merges a map or a list of maps', fault("<<: 5"))
    assert.matches('"<<" merges a map or a list of maps', fault("<<: [{a: 1}, 5]"))
    assert.matches('key "<<" appears twice', fault("a: {<<: {b: 1}, <<: {c: 1}}"))
  end)

  it("refuses an alias that names nothing, or what it stands in", function()
    assert.equal('1:4: alias "*x" without a finished anchor "&x" before it', fault("a: *x"))
    assert.equal('1:8: alias "*x" without a finished anchor "&x" before it', fault("a: &x [*x]"))
    assert.matches("without a finished anchor", fault("a: &x 1\nb: &x {c: *x}\n"))
  end)

  it("bounds what aliases multiply", function()
    local text = { "a0: &a0 [x, x, x, x, x, x, x, x, x, x]" }
    for i = 1, 9 do
      local alias = ("*a%d"):format(i - 1)
      text[#text + 1] = ("a%d: &a%d [%s]"):format(i, i, (alias .. ", "):rep(9) .. alias)
    end
    assert.matches("too many values", fault(lines(unpack(text))))
  end)

  it("bounds the depth that aliases add up to", function()
    local text = { "a0: &a0 [x]" }
    for i = 1, 70 do text[#text + 1] = ("a%d: &a%d [*a%d]"):format(i, i, i - 1) end
    assert.matches("nested too deeply", fault(lines(unpack(text))))
  end)
end)

describe("yaml: bounds", function()
  it("nests 64 levels and no more", function()
    assert.is_table((read(("["):rep(64) .. ("]"):rep(64))))
    assert.matches("nested too deeply", fault(("["):rep(65) .. ("]"):rep(65)))
    assert.matches("nested too deeply", fault(("{a: "):rep(65) .. ("}"):rep(65)))
    assert.is_string(fault(("["):rep(20000)))
  end)

  it("holds 100000 values and no more", function()
    assert.equal(99999, #(read("[" .. ("1,"):rep(99999) .. "]")))
    assert.matches("too many values", fault("[" .. ("1,"):rep(100000) .. "]"))
  end)

  it("refuses an endless text", function()
    assert.equal("1:1: longer than 8388608 bytes", fault(("#"):rep(9 * 1024 * 1024)))
  end)
end)

describe("yaml: faults", function()
  local cases = {
    { "a: 1\na: 2\n", '2:1: key "a" appears twice (first on line 1)' },
    { "a: {b: 1, 'b': 2}", '1:11: key "b" appears twice (first on line 1)' },
    { "a: {\"b\\0c\": 1, \"b\\0c\": 2}", '1:16: key "b' },
    { "--- a\n--- b\n", "2:1: a second document begins here; one file holds one" },
    { "a:\n\tb: 1\n", "2:1: a tab indents this line; YAML wants spaces" },
    { "? [a, b]\n: 1\n", "1:3: a key must be a plain word or a text" },
    { "{[a]: 1}", "1:2: a key must be a plain word or a text" },
    { "'': 1", "1:1: a key is empty" },
    { "a: [1, 2\n", "did not find expected ',' or ']'" },
    { "a: 'open\n", "found unexpected end of stream" },
    { "a: b: c\n", "1:5: mapping values are not allowed in this context" },
    { "a: 1\n b: 2\n", "2:3: mapping values are not allowed" },
    { "a:\n  - 1\n b: 2\n", "3:2: did not find expected key" },
    { "a: {b: ${PORT}}", "1:9: did not find expected ',' or '}'" },
    { "a: @b", "found character that cannot start any token" },
    { "a: \"\\q\"", "found unknown escape character" },
    { "a: x\255\n", "1:5: not valid YAML text: invalid leading UTF-8 octet" },
    { "ä: 1\nä: \1\n", "2:4: not valid YAML text: control characters are not allowed" },
    { "a: x\0y", "1:5: not valid YAML text: control characters are not allowed" },
    { "%YAML 9.9\n---\na: 1\n", "1:1: found incompatible YAML document" },
    { "a: *", "did not find expected alphabetic or numeric character" },
  }
  for _, case in ipairs(cases) do
    it("says where and why: " .. case[1]:gsub("%c", "?"), function()
      local text = fault(case[1])
      assert.is_truthy(text:find(case[2], 1, true), text)
    end)
  end

  it("refuses what is no text at all", function()
    assert.has_error(function() parse(nil) end)
    assert.has_error(function() parse({}) end)
  end)

  -- Whatever a broken file holds, the answer is a tree or a place.
  it("survives every cut and every changed byte of a file", function()
    local text = lines("gateway:", "  list: [1, 'two', &x {k: \"v\\n\"}]", "  alias: *x", "  text: |",
      "    a", "  <<: {m: !!str 1}", "  last: ~")
    for at = 0, #text do
      for _, broken in ipairs({ text:sub(1, at), text:sub(at + 1),
        text:sub(1, at) .. "\255" .. text:sub(at + 2), text:sub(1, at) .. "\t" .. text:sub(at + 2),
        text:sub(1, at) .. "{" .. text:sub(at + 1), text:sub(1, at) .. ":" .. text:sub(at + 1) }) do
        local tree, marks = parse(broken, "x")
        if tree == nil then
          assert.is_true(marks.line >= 1 and marks.col >= 1 and #marks.message > 0)
        else
          assert.is_string(marks.kind)
        end
      end
    end
  end)
end)
