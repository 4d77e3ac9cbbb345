--- event_cases: what an event object does, as data. Every case is run on the runtime's own events, in a
-- plugin inside the real binary, and on those of lua/gateway/event.lua: a plugin must not be able to tell.
-- Copied into a plugins' folder as well, so it needs nothing but what plugins have.
local gateway = require "gateway"
local json = require "gateway.json"

---@class spec.EventCase
---@field [1] string what it says
---@field text string the event as it comes
---@field run fun(ev: gateway.Event): ... works on it, and gives values
---@field gives? table the values, as a list, with `n` where some are nil; default: none
---@field raises? string pattern of the error that `run` must raise
---@field wire string the event as it goes on; default: as it came

local FULL = "id: 7\nevent: tick\ndata: one\ndata: two\nretry: 3000\n: note\nfoo: bar\n\n"

local list = {}

local function values(...)
  return { n = select("#", ...), ... }
end

local function add(what, text, fields)
  fields[1], fields.text = what, text
  fields.wire = fields.wire or text
  list[#list + 1] = fields
end

-- Members that are read.
local function reads(what, name, text, value)
  add(what, text, { run = function(ev) return ev[name] end, gives = values(value) })
end

-- A member of `text` that is set, what it is then, and what goes on.
local function sets(what, name, value, text, gives, wire)
  add(what, text, {
    run = function(ev)
      ev[name] = value
      return ev[name]
    end,
    gives = values(gives), wire = wire,
  })
end

local function refuses(what, name, value, pattern)
  add(what, FULL, { run = function(ev) ev[name] = value end, raises = pattern })
end

add("passes untouched", FULL, { run = function() end })

reads("has its type", "type", FULL, "tick")
reads("has its id", "id", FULL, "7")
reads("has its data, lines joined", "data", FULL, "one\ntwo")
reads("has retry as a number", "retry", FULL, 3000)
reads("has its comment", "comment", FULL, "note")
reads("has its bytes", "raw", FULL, FULL)
reads("has no JSON where the data is none", "json", FULL, nil)
reads("has no other member", "foo", FULL, nil)
reads("has no member with a number", 1, FULL, nil)
reads("is a message without a type", "type", "data: x\n\n", "message")
reads("is a message with an empty type", "type", "event:\ndata: x\n\n", "message")
reads("takes the last of several types", "type", "event: a\nevent: b\ndata\n\n", "b")
reads("takes the last of several ids", "id", "id: a\nid: b\nid\n\n", "")
reads("has no id", "id", "foo: bar\n\n", nil)
reads("has no data", "data", "foo: bar\n\n", nil)
reads("has no retry", "retry", "foo: bar\n\n", nil)
reads("has no comment", "comment", "foo: bar\n\n", nil)
reads("has no JSON without data", "json", "foo: bar\n\n", nil)
reads("has an id that is empty", "id", "id\n\n", "")
reads("ignores an id with NUL", "id", "id: a\0b\ndata: x\n\n", nil)
reads("has data that is empty", "data", "data:\n\n", "")
reads("has data of empty lines", "data", "data\ndata\ndata\n\n", "\n\n")
reads("has NUL in data", "data", "data: a\0b\n\n", "a\0b")
reads("takes off one space only", "data", "data:  x \n\n", " x ")
reads("takes what is behind the first colon", "data", "data:a: b\n\n", "a: b")
reads("ignores a retry that is no number", "retry", "retry: 1x\ndata:\n\n", nil)
reads("ignores an empty retry", "retry", "retry:\ndata:\n\n", nil)
reads("joins comments", "comment", ":a\n: b\ndata: x\n:\n\n", "a\nb\n")
reads("knows lines that end in CR", "data", "id: 1\rdata: a\rdata: b\r\r", "a\nb")
reads("knows lines that end in CRLF", "data", "id: 1\r\ndata: a\r\ndata: b\r\n\r\n", "a\nb")
reads("does not mistake case", "data", "Data: x\nID: 1\n\n", nil)

reads("decodes a text of JSON", "json", 'data: "x"\n\n', "x")
reads("decodes a number", "json", "data: 1.5\n\n", 1.5)
reads("decodes false", "json", "data: false\n\n", false)
reads("decodes null", "json", "data: null\n\n", json.null)
reads("decodes nothing but JSON", "json", "data: {} x\n\n", nil)

add("decodes JSON that stands in several lines", 'data: {"a":\ndata: [1,"€"]}\n\n', {
  run = function(ev) return ev.json.a[1], ev.json.a[2] end, gives = { 1, "€" },
})
add("decodes it once", 'data: {"a": 1}\n\n', {
  run = function(ev) return rawequal(ev.json, ev.json) end, gives = { true },
})
add("does not change with the table", 'data: {"a": 1}\n\n', {
  run = function(ev)
    ev.json.a = 2
    return ev.data
  end,
  gives = { '{"a": 1}' },
})
add("encodes the table that was decoded, changed", 'data: {"a": 1}\n\n', {
  run = function(ev)
    local data = ev.json
    data.a = 2
    ev.json = data
    return ev.json.a, ev.data
  end,
  gives = { 2, '{"a":2}' }, wire = 'data: {"a":2}\n\n',
})
add("encodes empty arrays as such", "data: x\n\n", {
  run = function(ev) ev.json = { a = json.array() } end, wire = 'data: {"a":[]}\n\n',
})
add("decodes anew when the data was changed", 'data: {"a":1}\n\n', {
  run = function(ev)
    local before = ev.json.a
    ev.data = '{"a":3}'
    return before, ev.json.a
  end,
  gives = { 1, 3 }, wire = 'data: {"a":3}\n\n',
})
sets("encodes null", "json", json.null, "data: x\n\n", json.null, "data: null\n\n")
sets("encodes false", "json", false, "data: x\n\n", false, "data: false\n\n")
sets("encodes a text", "json", "a\nb", "data: x\n\n", "a\nb", 'data: "a\\nb"\n\n')
sets("encodes a long number", "json", 1700000000123456, "data: x\n\n", 1700000000123456,
  "data: 1700000000123456\n\n")
sets("loses its data with its JSON", "json", nil, "id: 1\ndata: {}\n\n", nil, "id: 1\n\n")

sets("is written anew in one order", "type", "tock", FULL, "tock",
  ": note\nevent: tock\nid: 7\nretry: 3000\ndata: one\ndata: two\nfoo: bar\n\n")
sets("is written anew for the value it had", "type", "a", "data:x\nevent:a\n\n", "a", "event: a\ndata: x\n\n")
sets("may have a number for a type", "type", 5, "data: x\n\n", "5", "event: 5\ndata: x\n\n")
sets("may have a number for an id", "id", 1.5, "data: x\n\n", "1.5", "id: 1.5\ndata: x\n\n")
sets("may have a number for data", "data", 7, "data: x\n\n", "7", "data: 7\n\n")
sets("may have a number for a comment", "comment", 7, "data: x\n\n", "7", ": 7\ndata: x\n\n")
sets("loses its type", "type", nil, "event: a\ndata: x\n\n", "message", "data: x\n\n")
sets("loses its type when it is empty", "type", "", "event: a\ndata: x\n\n", "message", "data: x\n\n")
sets("loses the type message", "type", "message", "event: a\ndata: x\n\n", "message", "data: x\n\n")
sets("loses its id", "id", nil, "id: 1\ndata: x\n\n", nil, "data: x\n\n")
sets("gets an id that is empty", "id", "", "id: 1\ndata: x\n\n", "", "id: \ndata: x\n\n")
sets("gets an id of UTF-8 and colons", "id", " é: b", "data: x\n\n", " é: b", "id:  é: b\ndata: x\n\n")
sets("loses its data", "data", nil, "id: 1\ndata: x\n\n", nil, "id: 1\n\n")
sets("gets data that is empty", "data", "", "data: x\n\n", "", "data: \n\n")
sets("gets data of several lines", "data", "a\n\nb\n", "data: x\n\n", "a\n\nb\n",
  "data: a\ndata: \ndata: b\ndata: \n\n")
sets("takes CR in data for the end of a line", "data", "a\rb\r\nc", "data: x\n\n", "a\nb\nc",
  "data: a\ndata: b\ndata: c\n\n")
sets("takes CR in a comment for the end of a line", "comment", "a\rb", "data: x\n\n", "a\nb",
  ": a\n: b\ndata: x\n\n")
sets("keeps NUL in data", "data", "a\0", "data: x\n\n", "a\0", "data: a\0\n\n")
sets("has no data that begins a field", "data", "a\nid: 6\n\nevent: z", "data: x\n\n", "a\nid: 6\n\nevent: z",
  "data: a\ndata: id: 6\ndata: \ndata: event: z\n\n")
sets("loses its retry", "retry", nil, "retry: 5\ndata: x\n\n", nil, "data: x\n\n")
sets("gets a retry", "retry", 0, "data: x\n\n", 0, "retry: 0\ndata: x\n\n")
sets("gets a large retry", "retry", 2 ^ 53 - 1, "data: x\n\n", 2 ^ 53 - 1,
  "retry: 9007199254740991\ndata: x\n\n")
sets("gets a retry from a text", "retry", "50", "data: x\n\n", 50, "retry: 50\ndata: x\n\n")
sets("gets a comment", "comment", "a\nb", "data: x\n\n", "a\nb", ": a\n: b\ndata: x\n\n")
sets("loses its comments", "comment", nil, ":a\n:b\ndata: x\n\n", nil, "data: x\n\n")

add("has the bytes it came as when it was changed", "data:x\n\n", {
  run = function(ev)
    ev.data = "y"
    return ev.raw
  end,
  gives = { "data:x\n\n" }, wire = "data: y\n\n",
})
add("is nothing when all of it is gone", "event: a\nid: 1\nretry: 1\ndata: x\n:c\n\n", {
  run = function(ev) ev.type, ev.id, ev.retry, ev.data, ev.comment = nil, nil, nil, nil, nil end, wire = "",
})
add("keeps the last of many changes", "data: x\n\n", {
  run = function(ev)
    for i = 1, 1000 do ev.type, ev.id, ev.data = "t" .. i, "i" .. i, ("d"):rep(i) end
    return ev.type, ev.id, #ev.data
  end,
  gives = { "t1000", "i1000", 1000 }, wire = "event: t1000\nid: i1000\ndata: " .. ("d"):rep(1000) .. "\n\n",
})

add("keeps what it was set to when the next value is refused", "data: x\n\n", {
  run = function(ev)
    ev.type = ("n"):rep(40) .. #ev.data -- a text that nobody else holds
    local refused = not pcall(function() ev.type = "bad\n" end)
    for i = 1, 100000 do local _ = ("n"):rep(40) .. (i + 1) end -- work for the collector
    return refused, #ev.type
  end,
  gives = { true, 41 }, wire = "event: " .. ("n"):rep(40) .. "1\ndata: x\n\n",
})

-- What is refused leaves the event as it was.
refuses("refuses LF in a type", "type", "a\nb", "^event%.type: a line break or NUL")
refuses("refuses CR in a type", "type", "a\rb", "^event%.type: a line break or NUL")
refuses("refuses NUL in an id", "id", "a\0", "^event%.id: a line break or NUL")
refuses("refuses LF in an id", "id", "\n", "^event%.id: a line break or NUL")
refuses("refuses a table as data", "data", {}, "^event%.data: expected text, got table %(.*event%.json%)")
refuses("refuses true as data", "data", true, "^event%.data: expected text, got boolean")
refuses("refuses false as a type", "type", false, "^event%.type: expected text, got boolean")
refuses("refuses a function as an id", "id", print, "^event%.id: expected text, got function")
refuses("refuses a table as a comment", "comment", {}, "^event%.comment: expected text, got table")
refuses("refuses a retry below 0", "retry", -1, "^event%.retry: expected milliseconds")
refuses("refuses half a millisecond", "retry", 1.5, "^event%.retry: expected milliseconds")
refuses("refuses a retry without end", "retry", math.huge, "^event%.retry: expected milliseconds")
refuses("refuses a retry that is no number", "retry", "soon", "^event%.retry: expected milliseconds")
refuses("refuses true as a retry", "retry", true, "^event%.retry: expected milliseconds")
refuses("refuses a function as JSON", "json", print, "^event%.json: .*function")
refuses("refuses JSON that holds a function", "json", { a = { print } }, "^event%.json: .*function")
refuses("refuses numbers that JSON has no word for", "json", { 0 / 0 }, "^event%.json: ")
refuses("has raw as it is", "raw", "data: y\n\n", "^event%.raw can't be set")
refuses("has no other member to set", "evnt", "x", "^event%.evnt can't be set")
refuses("has no member with a number to set", 1, "x", "^event%.1 can't be set")

add("can be copied", FULL, {
  run = function(ev)
    local copy = gateway.event.copy(ev)
    copy.data = "mine"
    return gateway.event.encode(copy), ev.data
  end,
  gives = { ": note\nevent: tick\nid: 7\nretry: 3000\ndata: mine\n\n", "one\ntwo" },
})
add("can be encoded as it came", FULL, {
  run = function(ev) return gateway.event.encode(ev) end, gives = { FULL },
})
add("can be encoded as it was changed", "data:x\n\n", {
  run = function(ev)
    ev.id = 1
    return gateway.event.encode(ev)
  end,
  gives = { "id: 1\ndata: x\n\n" }, wire = "id: 1\ndata: x\n\n",
})


-- JSON: what the runtime does by itself, and what it leaves to gateway.json, comes out the same.

local function as_event(text)
  return "data: " .. text:gsub("\n", "\ndata: ") .. "\n\n"
end

-- A value as one text, whatever the order of keys; empty arrays are told from empty objects.
local function shown(value)
  if type(value) == "number" then return ("%.17g"):format(value) end
  if value == json.null then return "null" end
  if type(value) ~= "table" then return type(value) .. ":" .. tostring(value) end
  local out = {}
  for key, item in pairs(value) do out[#out + 1] = shown(key) .. "=" .. shown(item) end
  table.sort(out)
  return "{" .. table.concat(out, ",") .. "}" .. (next(value) == nil and json.encode(value) or "")
end

-- Decoded, and once more when it was encoded. The result must not hang on the order of keys.
local function both_ways(ev)
  local first = shown(ev.json)
  if ev.json ~= nil then ev.json = ev.json end
  local second = shown(ev.json)
  ev.data = "done"
  return first, second
end

local function same_both_ways(text)
  local value = json.decode(text)
  add(("decodes and encodes %s"):format(text), as_event(text),
    { run = both_ways, gives = { shown(value), shown(value) }, wire = "data: done\n\n" })
end

for _, text in ipairs { "{}", "[]", " [ ] ", '{"a":[],"b":{},"c":[[]],"d":[{}]}', "0", "-0", "-1", "01",
  "1.", ".5",
  "-", "1e5", "1E+2", "1.5e-3", "123456789012345", "1234567890123456", "12345678901234567890",
  "9007199254740993", "0.1", "123.456", "-0.0", "0.00", "1.50", "-2.500001",
  "0.1.2", "00.1", "-00.5", "1234567890.12345678", "9007199254740992.5",
  "0.30000000000000004", "0.", "-.5", "1.5x",
  "0.00000000000000000000000000001", "0x10", "nan", "inf", "Infinity", "nul", "true",
  "truex", '"', '""', '"a',
  '"\\u0041\\n\\t\\b\\f\\r\\/\\\\\\""', '"\\u20ac"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00x"', '"\\u00"',
  '"\\x"', '"\\u0000"', '"\127"', '"\1"', '"a\tb"', '"€😀"', '{"a":1,}', "[1,]", "[,]",
  "{,}", '{"a"}', '{"a":}',
  "{a:1}", "{1:2}", '{"a":1}}', "[1]]", "[1", '{"a":1', '{"a":1,"a":2}', '{"\\u0061":1}', '{"":1}', "[1 2]",
  '{"a":1 "b":2}', "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]", '{\n"a": 1\n}', "", " ",
  "\239\187\191{}",
  ("["):rep(99) .. ("]"):rep(99), ("["):rep(101) .. ("]"):rep(101), ("["):rep(2000) .. ("]"):rep(2000),
  '"' .. ("long text "):rep(400) .. '"',
  '"' .. ("é\\n"):rep(3000) .. '"', ('{"k":'):rep(90) .. "1" .. ("}"):rep(90) } do
  same_both_ways(text)
end

do
  local parts = {}
  for i = 1, 40 do parts[i] = ('"key%d":%d'):format(i, i) end
  same_both_ways("{" .. table.concat(parts, ",") .. ',"key1":0}')
end

-- Numbers that a generator makes, with few digits and with many.
do
  local parts, seed = {}, 11
  local function random(n)
    seed = (seed * 16807) % 2147483647
    return seed % n + 1
  end
  for i = 1, 2000 do
    local places = random(7)
    parts[i] = ("%." .. places .. "f"):format((random(2) * 2 - 3) * random(10 ^ random(9)) / 10 ^ places)
  end
  local text = "[" .. table.concat(parts, ",") .. "]"
  same_both_ways(text)
  local value = json.decode(text)
  add("encodes numbers with few digits", "data: x\n\n", {
    run = function(ev)
      ev.json = value
      return ev.data
    end,
    gives = { json.encode(value) }, wire = "data: " .. json.encode(value) .. "\n\n",
  })
end

-- What a value is encoded to, byte for byte.
local function encodes(what, value, text)
  add("encodes " .. what, "data: x\n\n", {
    run = function(ev)
      ev.json = value
      return ev.data
    end,
    gives = { text }, wire = as_event(text),
  })
end

encodes("all that is escaped", '"\\/\b\f\n\r\t\0\1\31\127', [["\"\\/\b\f\n\r\t\u0000\u0001\u001f\u007f"]])
encodes("whole numbers", { 0, -1, 99999999999999, -123456789012345, 1700000000123456, 2 ^ 53 },
  "[0,-1,99999999999999,-123456789012345,1700000000123456,9007199254740992]")
encodes("round numbers", { 1e14, 1e15, 1.5e15, 123456789012340, 1234567890123400, 1e17, 1e18, 1e300 },
  "[1e+14,1e+15,1.5e+15,1.2345678901234e+14,1.2345678901234e+15,1e+17,1e+18,1e+300]")
encodes("fractions", { 0.1, 0.1 + 0.2, 1 / 3, -2.5, 5e-324, 123.456 },
  "[0.1,0.30000000000000004,0.3333333333333333,-2.5,4.9406564584125e-324,123.456]")
encodes("short decimals", { 2.5, -0.0001, 0.00001, 1234.56789, 999999999.99999, 1000000000.5, 0.1 + 0.7,
  1.005, 4.35, 0.00012345 }, "[2.5,-0.0001,1e-05,1234.56789,999999999.99999,1000000000.5,"
  .. "0.7999999999999999,1.005,4.35,0.00012345]")
encodes("a zero with a sign", 0 * -1, "-0")
encodes("empty things in each other", { json.array(), {}, json.array { {} } }, "[[],{},[{}]]")
encodes("a marked array that is full", json.array { 1, "a", true, false, json.null },
  '[1,"a",true,false,null]')
encodes("an array with a hole", { 1, nil, 3 }, "[1,null,3]")
encodes("a key that is half a number", { [1.5] = "x" }, '{"1.5":"x"}')
encodes("a key that is a text of digits", { ["1"] = "x" }, '{"1":"x"}')
encodes("a long text", ("é\n"):rep(3000), '"' .. ("é\\n"):rep(3000) .. '"')
encodes("a table with a foreign metatable", setmetatable({}, { __index = { a = 1 } }), "{}")
encodes("an array by another mark", setmetatable({}, { __jsontype = "array" }), "[]")

refuses("refuses a table in itself as JSON", "json", (function()
  local loop = {}
  loop[1] = loop
  return loop
end)(), "^event%.json: .*nest")
refuses("refuses an array that is mostly holes", "json", { [1000] = 1 }, "^event%.json: .*sparse")

-- One field: what is found, and what becomes of the data when it is set.
local function finds(text, path, value)
  add(("finds %s in %s"):format(path, text), as_event(text), {
    run = function(ev) return shown(ev:json_get(path)) end, gives = { shown(value) },
  })
end

local NULL = json.null
for _, case in ipairs {
  { '{"a":1}', "a", 1 }, { '{"a":1}', "b" }, { '{"a":1,"a":2}', "a", 2 }, { '{"\\u0061":"x"}', "a", "x" },
  { '{"a":{"b":[1,{"c":"x"}]}}', "a.b.1.c", "x" }, { '{"a":[1,2]}', "a.0", 1 }, { '{"a":[1,2]}', "a.2" },
  { '{"a":[1,2]}', "a.01" }, { '{"a":[1,2]}', "a.x" }, { '{"a":[1,2]}', "a", { 1, 2 } }, { "[1,2]",
  "1", 2 },
  { '{"a":null,"b":false}', "a", NULL }, { '{"a":null,"b":false}', "b", false }, { '{"a":null}', "a.b" },
  { '{"a":[]}', "a", json.array() }, { '{"a":{}}', "a", {} }, { "7", "a" }, { "7", "", 7 },
  { '{"":{"":1}}', ".", 1 },
  { '{"a":1}', "a." }, { '{"a":{"":1}}', "a.", 1 }, { '{"a":"\\ud83d"}', "a" },
  { '{"a":"\\ud83d","b":1}', "b", 1 },
  { '{"a":1} x', "a" }, { '{"a":1,}', "a" }, { '{"a":01}', "a" }, { '{"a":1,"b":nope}', "a" }, { "hello",
  "a" },
  { '{"a":"x\ty"}', "a" }, { '{"a":\n1}', "a", 1 }, { '{"a":1e400}', "a", math.huge }, { "", "a" },
  { ('{"a":'):rep(129) .. "1" .. ("}"):rep(129), "a" },
} do
  finds(case[1], case[2], case[3])
end

add("finds nothing without data", "id: 1\n\n", { run = function(ev) return ev:json_get("a") end,
  gives = values(nil) })
add("finds what was set before", "data: {}\n\n", {
  run = function(ev)
    ev:json_set("a", { 1 })
    ev:json_set("b.c", "x")
    ev:json_set("a.1", "€")
    return ev:json_get("a.1"), ev:json_get("b.c"), ev.json.a[1]
  end,
  gives = { "€", "x", 1 }, wire = 'data: {"a":[1,"€"],"b":{"c":"x"}}\n\n',
})
add("decodes anew when a field was set", 'data: {"a":1}\n\n', {
  run = function(ev)
    local before = ev.json.a
    ev:json_set("a", 2)
    return before, ev.json.a
  end,
  gives = { 1, 2 }, wire = 'data: {"a":2}\n\n',
})
add("sets a field in data that was set", "data: x\n\n", {
  run = function(ev)
    ev.data = '{"a":1}'
    ev:json_set("a", 2)
    ev.data = ev.data .. "\n"
    return ev:json_set("b", 3)
  end,
  gives = { true }, wire = 'data: {"a":2,"b":3}\ndata: \n\n',
})
add("keeps its bytes when nothing changes", 'data:{"a":1}\n\n', {
  run = function(ev) return ev:json_set("a", 1), ev:json_set("b", nil), ev:json_set("b") end,
  gives = { true, true, true },
})
add("sets no field without data", "id: 1\n\n", {
  run = function(ev) return ev:json_set("a", 1) end, gives = values(nil, "no data"),
})
local function edits(text, path, value, result)
  add(("sets %s in %s"):format(path, text), as_event(text), {
    run = function(ev)
      local done, why = ev:json_set(path, value)
      return done, why, ev.data
    end,
    gives = values(true, nil, result), wire = as_event(result),
  })
end

local function cant_edit(text, path, value, why)
  add(("can't set %s in %s"):format(path, text), as_event(text), {
    run = function(ev) return ev:json_set(path, value) end, gives = values(nil, why),
  })
end

for _, case in ipairs {
  { '{"a":1}', "a", 2, '{"a":2}' }, { "{}", "a", "é\n", '{"a":"é\\n"}' }, { "{ }",
  "a", true, '{"a":true }' },
  { '{"a":1}', "b", NULL, '{"a":1,"b":null}' }, { '{"a" : 1 , "b":2}', "a", 0.5, '{"a" : 0.5 , "b":2}' },
  { '{"a":1}', "b.c.d", json.array(), '{"a":1,"b":{"c":{"d":[]}}}' },
  { '{"a":[1]}', "a.1", 2, '{"a":[1,2]}' },
  { "[]", "0.x", 1, '[{"x":1}]' }, { '{"a":[]}', "a.0", 1, '{"a":[1]}' },
  { '{"a":1, "a":2}', "a", 3, '{"a":1, "a":3}' },
  { '{"a":\n1}', "a", 2, '{"a":\n2}' }, { "{}", 'q"\b\127', 1, '{"q\\"\\b\\u007f":1}' }, { "{}",
  "a..b", 1, '{"a":{"":{"b":1}}}' },
  { '{"big": 12345678901234567890,"a":1.0}', "b", 1, '{"big": 12345678901234567890,"a":1.0,"b":1}' },
  { '{"a":1, "b":2}', "a", nil, '{"b":2}' }, { '{"a":1, "b":2}', "b", nil, '{"a":1}' },
  { '{ "a" : 1 , "b" : 2 , "c" : 3 }', "b", nil, '{ "a" : 1 , "c" : 3 }' },
  { '{ "a" : 1 }', "a", nil, "{ }" },
  { '{ "a":1 , "a" : 2 }', "a", nil, "{ }" }, { '{"a":1, "b":2,"a":3 }', "a", nil, '{"b":2 }' },
  { '{"a":[1, 2, 3]}', "a.1", nil, '{"a":[1, 3]}' }, { "[[1]]", "0.0", nil, "[[]]" }, { "[1]",
  "a", nil, "[1]" },
  { "7", "a", nil, "7" }, { '{"a":1}', "a.b", nil, '{"a":1}' },
} do
  edits(case[1], case[2], case[3], case[4])
end

cant_edit("[1,2]", "3", 1, "the data is not an object")
cant_edit("[1]", "x", 1, "the data is not an object")
cant_edit("7", "x", 1, "the data is not an object")
cant_edit('{"a":{"b":5}}', "a.b.c", 1, "a.b is not an object")
cant_edit('{"a":[]}', "a.1", 1, "a is not an object")
cant_edit('{"a":[]}', "a.x.y", 1, "a is not an object")
cant_edit('{"a":null}', "a.b", 1, "a is not an object")
cant_edit("{}", "", 1, "no path")
cant_edit("{}", "", nil, "no path")
cant_edit("nope", "a", 1, "not JSON")
cant_edit('{"a":1} x', "a", nil, "not JSON")
cant_edit('{"a":1,"b":nope}', "a", 2, "not JSON")
add("can't set a field to what has no JSON form", "data: {}\n\n", {
  run = function(ev)
    local done, why = ev:json_set("a", print)
    return done, why:find("function") ~= nil
  end,
  gives = values(nil, true),
})

-- Documents by a small generator of its own, so that both sides see the same.
local seed = 7
local function random(n)
  seed = (seed * 16807) % 2147483647
  return seed % n + 1
end

local KEYS = { "a", "b", "0", "1", "", 'k"q', "é" }
local SCALARS = { "null", "true",
  "-1.5e3", '"x,}]\\"{[\\\\"', '"\\u00e9\\/"', "12345678901234567890", '"\\ud800"' }
local BLANKS = { "", " ", "\n", "\t " }
local function blank() return BLANKS[random(#BLANKS)] end

local function text_of(depth)
  local kind = random(depth > 0 and 3 or 1)
  if kind == 1 then return SCALARS[random(#SCALARS)] end
  local parts = {}
  for i = 1, random(4) - 1 do
    local key = kind == 2 and json.encode(KEYS[random(#KEYS)]) .. blank() .. ":" .. blank() or ""
    parts[i] = blank() .. key .. text_of(depth - 1) .. blank()
  end
  local inside = #parts > 0 and table.concat(parts, ",") or blank()
  return kind == 2 and "{" .. inside .. "}" or "[" .. inside .. "]"
end

local function edit_at_random(text)
  local parts = {}
  for i = 1, random(3) do parts[i] = KEYS[random(#KEYS)] end
  local path, value = table.concat(parts, "."), ({ 5, "x", false, { y = 1 } })[random(6)]
  local found = shown(json.get(text, json.path(path)))
  local result, why = json.set(text, json.path(path), value)
  add(("edits %s in %s"):format(path, text), as_event(text), {
    run = function(ev)
      local before = shown(ev:json_get(path))
      local done, err = ev:json_set(path, value)
      return before, done, err
    end,
    gives = values(found, result and true, why), wire = as_event(result or text),
  })
end

for _ = 1, 300 do edit_at_random(text_of(3)) end

return list
