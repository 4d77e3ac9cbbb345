local event = require("gateway.event")
local json = require("gateway.json")

describe("event", function()
  it("has the fields it was made with", function()
    local ev = event.new({ type = "tick", id = 7, data = "a\nb", retry = 3000, comment = "note" })
    assert.equal("tick", ev.type)
    assert.equal("7", ev.id)
    assert.equal("a\nb", ev.data)
    assert.equal(3000, ev.retry)
    assert.equal(": note\nevent: tick\nid: 7\nretry: 3000\ndata: a\ndata: b\n\n", event.encode(ev))
    assert.equal(event.encode(ev), ev.raw)
  end)

  it("is a message without a type", function()
    assert.equal("message", event.new({ data = "x" }).type)
    assert.equal("data: x\n\n", event.encode(event.new({ type = "message", data = "x" })))
    assert.equal("", event.encode(event.new({})))
    assert.equal("data: \n\n", event.encode(event.new({ data = "" })))
  end)

  it("takes carriage returns in data for line breaks", function()
    assert.equal("data: a\ndata: b\ndata: c\ndata: \n\n", event.encode(event.new({ data = "a\rb\r\nc\n" })))
  end)

  it("decodes JSON when asked and encodes what is assigned", function()
    local ev = event.parse('data: {"a":1}\n\n')[1]
    assert.equal(1, ev.json.a)
    assert.equal(ev.json, ev.json)
    ev.json = { b = 2 }
    assert.equal('{"b":2}', ev.data)
    ev.data = '{"c":3}'
    assert.equal(3, ev.json.c)
    ev.json = nil
    assert.is_nil(ev.data)
    assert.is_nil(event.new({ data = "no json" }).json)
    assert.equal(json.null, event.new({ data = "null" }).json)
  end)

  it("refuses what can't be sent", function()
    local function refused(message, fields)
      assert.error_matches(function() event.new(fields) end, message, 1, false)
    end
    refused("event.type: a line break", { type = "a\nb" })
    refused("event.id: a line break or NUL", { id = "a\0" })
    refused("event.id: a line break", { id = "a\r" })
    refused("event.type: expected text, got table", { type = {} })
    refused("event.data: expected text, got table %(assign it to event.json%)", { data = {} })
    refused("event.retry: expected milliseconds", { retry = -1 })
    refused("event.retry: expected milliseconds", { retry = "soon" })
    refused("event.json: .*function", { json = print })
    refused('no field "event"', { event = "x" })
    assert.error_matches(function() event.new({}).raw = "x" end, "event.raw can't be set")
  end)

  it("copies", function()
    local ev = event.parse("event: a\nid: 1\ndata: x\n\n")[1]
    local copy = event.copy(ev)
    copy.data = "y"
    assert.equal("x", ev.data)
    assert.equal("event: a\nid: 1\ndata: y\n\n", copy.raw)
  end)
end)

describe("event.parse", function()
  local function fields(text)
    local out = {}
    for i, ev in ipairs(event.parse(text)) do
      out[i] = { ev.type, ev.data or false, ev.id or false, ev.retry or false, ev.comment or false }
    end
    return out
  end

  it("reads what the HTML standard's parser reads", function()
    assert.same({ { "message", "YHOO\n+2\n10", false, false, false } },
      fields("data: YHOO\ndata: +2\ndata: 10\n\n"))
    assert.same({ { "message", "first event", "1", false, "test stream" }, { "message", "second event", "",
      false, false },
      { "message", " third event", false, false, false } },
      fields(": test stream\nid: 1\ndata: first event\n\ndata:second event\nid\n\ndata:  third event\n\n"))
    assert.same({ { "message", "", false, false, false }, { "message", "\n", false, false, false } },
      fields("data\n\ndata\ndata\n\ndata:"))
    assert.same({ { "x", "1", false, 10, false } },
      fields("event: a\nevent: x\nretry: 10\nretry: 1x\nid: a\0b\ndata: 1\n\n"))
  end)

  it("knows all line endings, mixed, and a byte order mark", function()
    local list = event.parse("\239\187\191data: a\r\r\ndata: b\r\n\ndata: c\n\r\n")
    assert.equal(3, #list)
    assert.same({ "a", "b", "c" }, { list[1].data, list[2].data, list[3].data })
    assert.equal("data: a\r\r\n", list[1].raw)
  end)

  it("keeps the bytes until something changes, and unknown fields after", function()
    local raw = "foo: 1\n:c\nevent:x\ndata:a\nbar\n\n"
    local ev = event.parse(raw)[1]
    assert.equal(raw, ev.raw)
    ev.data = "b"
    assert.equal(": c\nevent: x\ndata: b\nfoo: 1\nbar\n\n", event.encode(ev))
    assert.equal(raw, ev.raw)
  end)
end)
