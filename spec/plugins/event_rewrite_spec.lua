local t = require("gateway.testing")
local json = require("gateway.json")

-- What becomes of a stream.
local function rewritten(conf, text)
  return (t.plugin("plugins/event_rewrite.lua", conf):stream(t.context(), text))
end

describe("event_rewrite", function()
  it("sets and removes the parts of an event", function()
    assert.equal("event: beat\nid: 9\nretry: 5000\ndata: x\n\n",
      rewritten({ set = { type = "beat", id = "9", retry = 5000 } }, "data: x\nid: 1\n\n"))
    assert.equal("data: x\n\n", rewritten({ remove = { "type", "id", "retry" } },
      "event: a\nid: 1\nretry: 7\ndata: x\n\n"))
    assert.equal("data: new\n\n", rewritten({ set = { data = "new" } }, "data: old\ndata: lines\n\n"))
  end)

  it("renames types", function()
    assert.equal("event: trace\ndata: 1\n\nevent: tick\ndata: 2\n\nevent: plain\ndata: 3\n\n",
      rewritten({ rename = { debug = "trace", message = "plain" } },
        "event: debug\ndata: 1\n\nevent: tick\ndata: 2\n\ndata: 3\n\n"))
  end)

  it("sets and removes fields of JSON data, and leaves the rest of the text alone", function()
    local conf = { json = {
      set = { ["meta.via"] = "gw", ["meta.n"] = json.array() },
      remove = { "user.email", "none" },
    } }
    assert.equal('data: {"big": 12345678901234567890, "user":{"name":"a"},"meta":{"n":[],"via":"gw"}}\n\n',
      rewritten(conf, 'data: {"big": 12345678901234567890, "user":{"name":"a","email":"x@y"}}\n\n'))
    conf = { json = { set = { a = 2 } } }
    assert.equal('data: {"a":\ndata: 2}\n\n', rewritten(conf, 'data: {"a":\ndata: 1}\n\n'))
  end)

  it("leaves data alone that is no JSON object, and what would not change", function()
    local text = 'data:hello\n\ndata:[1]\n\ndata:{"a":1\n\nevent:x\n\ndata:{"b":1}\n\n'
    assert.equal(text, rewritten({ json = { remove = { "a" } } }, text))
  end)

  it("is for some types only when told so", function()
    assert.equal("event: a\nid: 1\ndata: 1\n\nevent:b\ndata:2\n\n",
      rewritten({ only = { "a" }, set = { id = "1" } }, "event:a\ndata:1\n\nevent:b\ndata:2\n\n"))
  end)

  it("keeps unknown fields and comments of what it changes", function()
    assert.equal(": note\nid: 1\ndata: x\nfoo: bar\n\n",
      rewritten({ set = { id = "1" } }, ": note\nfoo: bar\ndata: x\n\n"))
  end)

  it("says what is wrong with its settings", function()
    assert.error_matches(function() rewritten({ set = { typ = "x" } }, "") end, 'unknown key "typ"')
    assert.error_matches(function() rewritten({ remove = { "name" } }, "") end, 'unknown value "name"')
  end)
end)
