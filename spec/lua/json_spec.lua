local json = require("gateway.json")

local function path(text) return json.path(text) end

describe("json", function()
  it("decodes and encodes", function()
    local value = json.decode('{"a":[1,{"b":null}],"c":"x/y"}')
    assert.equal(1, value.a[1])
    assert.equal(json.null, value.a[2].b)
    assert.equal('"x/y"', json.encode(value.c))
    assert.equal([["\\/"]], json.encode([[\/]]))
  end)

  it("keeps an empty array an array", function()
    for _, text in ipairs({ "[]", '{"a":[]}', "[[],{},[[]]]", '{"a":"[]"}', '{"a":"\\"[]"}',
      '{"a":[[ ]]}' }) do
      assert.equal((text:gsub(" ", "")), json.encode(json.decode(text)))
    end
    assert.equal("[ ]", json.decode('{"a":"[ ]"}').a)
    assert.equal("[]", json.encode(json.array()))
    assert.equal("{}", json.encode({}))
  end)

  it("writes numbers so that they read back as they were", function()
    for _, number in ipairs({ 0, -1, 0.1, 0.1 + 0.2, 1 / 3, 1700000000123456, -9007199254740991, 1e300,
      5e-324 }) do
      assert.equal(number, json.decode("[" .. json.encode(number) .. "]")[1])
    end
    assert.equal("1700000000123456", json.encode(1700000000123456))
    assert.equal("[0.1,3]", json.encode({ 0.1, 3 }))
  end)

  it("says why when it can't", function()
    local value, err = json.decode("{nope}")
    assert.is_nil(value)
    assert.is_string(err)
    local loop = {}
    loop.loop = loop
    for _, bad in ipairs({ loop, print, 0 / 0, { [{}] = 1 } }) do
      local text, why = json.encode(bad)
      assert.is_nil(text)
      assert.is_string(why)
    end
  end)
end)

describe("json.get", function()
  it("reads a field without the rest", function()
    local text = ' { "a" : {"b":[1,2], "\\u0063":"x"} , "n":null,"f":false, "s":"{\\"a\\":1}" } '
    assert.same({ 1, 2 }, json.get(text, path("a.b")))
    assert.equal("x", json.get(text, path("a.c")))
    assert.equal(json.null, json.get(text, path("n")))
    assert.equal(false, json.get(text, path("f")))
    assert.is_nil(json.get(text, path("s.a")))
    assert.is_nil(json.get(text, path("a.x")))
    assert.is_nil(json.get(text, path("n.x")))
  end)

  it("takes the last of doubled keys, as decoders do", function()
    assert.equal(2, json.get('{"a":1,"a":2}', path("a")))
  end)

  it("gives nil for what is no object, wherever it is cut", function()
    local whole = '{"a":{"b":"x\\"y"},"c":[1,{"d":2}]}'
    for cut = 0, #whole - 1 do
      assert.has_no.errors(function() json.get(whole:sub(1, cut), path("c.d")) end)
      assert.is_nil(json.get(whole:sub(1, cut), path("z")))
    end
    for _, text in ipairs({ "", "[1]", "x", '"a"', "{", '{"a"', '{"a":', '{"a" 1}', "{a:1}", '{"a":1,}' }) do
      assert.is_nil(json.get(text, path("b")))
    end
  end)
end)

describe("json.set", function()
  it("changes one value and nothing else", function()
    local text = '{ "id": 12345678901234567890, "a" : {"b": 1.0, "e":[]} , "z":1}'
    assert.equal('{ "id": 12345678901234567890, "a" : {"b": "x", "e":[]} , "z":1}', json.set(text,
      path("a.b"), "x"))
    assert.equal('{ "id": 12345678901234567890, "a" : [] , "z":1}', json.set(text, path("a"), json.array()))
    assert.equal('{"a":1, "a": 3}', json.set('{"a":1, "a": 2}', path("a"), 3))
  end)

  it("adds what is missing, objects on the way as well", function()
    assert.equal('{"a":1}', json.set("{}", path("a"), 1))
    assert.equal('{"a":1,"b":{"c":{"d":true}}}', json.set('{"a":1}', path("b.c.d"), true))
    assert.equal('{"a":{"b":1,"c":null}}', json.set('{"a":{"b":1}}', path("a.c"), json.null))
  end)

  it("removes with the right comma, doubled keys too", function()
    assert.equal('{"b":2}', json.set('{"a":1, "b":2}', path("a"), nil))
    assert.equal('{"a":1}', json.set('{"a":1, "b":2}', path("b"), nil))
    assert.equal('{"a":1,"c":3}', json.set('{"a":1,"b":2,"c":3}', path("b"), nil))
    assert.equal("{}", json.set('{"a":1}', path("a"), nil))
    assert.equal('{"b":2}', json.set('{"a":1,"b":2,"a":3}', path("a"), nil))
    assert.equal('{"a":{}}', json.set('{"a":{"b":1}}', path("a.b"), nil))
    assert.equal('{"a":1}', json.set('{"a":1}', path("x.y"), nil))
    assert.equal('{"a":1}', json.set('{"a":1}', path("a.y"), nil))
  end)

  it("refuses what is no object", function()
    for _, text in ipairs({ "", "[1]", "hello", '{"a":1} x', '{"a":1', '{"a":,"b":1}', "{,}" }) do
      assert.is_nil((json.set(text, path("a"), 1)))
    end
    local text, err = json.set('{"a":5}', path("a.b"), 1)
    assert.is_nil(text)
    assert.equal("a is not an object", err)
    assert.is_nil((json.set("{}", path("a"), print)))
  end)
end)

describe("json.get and json.set", function()
  -- A small generator of its own, so that every machine sees the same cases.
  local seed = 7
  local function random(n)
    seed = (seed * 16807) % 2147483647
    return seed % n + 1
  end

  local keys = { "a", "b", "c.d", "k\"q", "\195\169" }
  local blanks = { "", " ", "\n", "\t ", "" }
  local function blank() return blanks[random(#blanks)] end

  local function text_of(depth)
    local kind = random(depth > 0 and 8 or 5)
    if kind == 1 then return tostring(random(1000)) end
    if kind == 2 then return '"x,}]\\"{[\\\\"' end
    if kind == 3 then return ({ "true", "false", "null" })[random(3)] end
    if kind == 4 then return "-1.5e3" end
    if kind == 5 then return "{" .. blank() .. "}" end
    local parts, object = {}, kind > 6
    for i = 1, random(3) do
      local key = object and json.encode(keys[random(#keys)]) .. blank() .. ":" .. blank() or ""
      parts[i] = blank() .. key .. text_of(depth - 1) .. blank()
    end
    local inside = table.concat(parts, ",")
    return object and "{" .. inside .. "}" or "[" .. inside .. "]"
  end

  local function object_text()
    return '{"a":' .. text_of(3) .. blank() .. ',"b":' .. text_of(3) .. "}"
  end

  local function is_object(value)
    return type(value) == "table" and value[1] == nil and getmetatable(value) == nil
  end

  -- What json.set means, on decoded data; false where a part on the way is no object.
  local function set_plainly(value, parts, new)
    for i = 1, #parts - 1 do
      if value[parts[i]] == nil then
        if new == nil then return true end
        value[parts[i]] = {}
      end
      value = value[parts[i]]
      if not is_object(value) then return new == nil end
    end
    value[parts[#parts]] = new
    return true
  end

  it("agree with decoding, changing and encoding", function()
    for _ = 1, 2000 do
      local text = object_text()
      local parts = {}
      for i = 1, random(3) do parts[i] = keys[random(#keys)] end
      local new = ({ 5, "x", false })[random(4)]
      local want = json.decode(text)
      local possible = set_plainly(want, parts, new)
      local got = json.set(text, parts, new)
      if possible then
        assert.same(want, json.decode(got), text)
        assert.equal(new, json.get(got, parts), text)
      else
        assert.is_nil(got, text)
      end
    end
  end)
end)
