local t = require("gateway.testing")

local function headers(conf)
  return t.plugin("plugins/headers.lua", conf)
end

local function all(message)
  local out = {}
  for name, value in message:each() do out[#out + 1] = name .. ": " .. value end
  return out
end

describe("headers", function()
  local changes = { set = { ["X-B"] = "2", ["X-A"] = { "1", "2" } }, add = { Link = "<x>" },
    remove = { "x-gone", "X-None" } }

  it("changes requests", function()
    local ctx = t.context({ headers = { ["X-Gone"] = "1", ["X-B"] = "old", Link = "<y>" } })
    headers({ request = changes }):access(ctx)
    assert.same({ "link: <y>", "x-a: 1", "x-a: 2", "x-b: 2", "link: <x>" }, all(ctx.req))
  end)

  it("changes responses", function()
    local ctx = t.context({ response = { headers = { ["X-Gone"] = { "1", "2" }, Link = "<y>" } } })
    headers({ response = changes }):response(ctx)
    assert.same({ "link: <y>", "x-a: 1", "x-a: 2", "x-b: 2", "link: <x>" }, all(ctx.res))
  end)

  it("leaves alone what it is not told about", function()
    local ctx = t.context({ headers = { A = "1" } })
    local plugin = headers({})
    plugin:access(ctx)
    plugin:response(ctx)
    assert.same({ "a: 1" }, all(ctx.req))
  end)

  it("refuses what can't be a header, or is not its business", function()
    for text, conf in pairs({
      ['request.set: "a b" is not a header name'] = { request = { set = { ["a b"] = "1" } } },
      ["response.add: Content%-Length is the gateway's own"] =
        { response = { add = { ["Content-Length"] = "1" } } },
      ["request.remove: Transfer%-Encoding is the gateway's own"] =
        { request = { remove = { "Transfer-Encoding" } } },
      ["request.set.X: a header is one line"] = { request = { set = { X = "a\nb" } } },
      ["request.remove: a request needs its Host"] = { request = { remove = { "host" } } },
      ["request.add: a request has one Host"] = { request = { add = { Host = "a" } } },
      ["request.set: a request has one Host"] = { request = { set = { HOST = { "a", "b" } } } },
      ['unknown key "requst"'] = { requst = {} },
    }) do
      assert.error_matches(function() headers(conf) end, text)
    end
  end)
end)
