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

return list
