local t = require("gateway.testing")
local core = require("gateway.core")

before_each(t.reset)

describe("a context of gateway.testing", function()
  it("has a request with the runtime's fields", function()
    local req = t.context({ method = "POST", path = "/a%20b?x=1&y=a+b%21&x=2&z", host = "h:1",
      headers = { ["X-A"] = { "1", "2" }, Accept = "*/*" } }).req
    assert.equal("/a%20b", req.path)
    assert.equal("x=1&y=a+b%21&x=2&z", req.querystring)
    assert.same({ x = "1", y = "a b!", z = "" }, req.query)
    assert.equal("/a%20b?x=1&y=a+b%21&x=2&z", req.target)
    assert.equal("POST h:1 http 1.1",
      table.concat({ req.method, req.host, req.scheme, req.version }, " "))
    assert.equal("1, 2", req.headers["x-a"])
    assert.same({ "1", "2" }, req:values("X-A"))
    assert.is_nil(req.headers.none)
    req.path, req.querystring = "/c", ""
    assert.equal("/c", req.target)
    req.target = "/d?e=1"
    assert.equal("1", req.query.e)
  end)

  it("checks what goes into a head", function()
    local ctx = t.context()
    assert.error_matches(function() ctx.req.headers["X-A"] = "a\r\nb" end, "X%-A: a line break or NUL")
    assert.error_matches(function() ctx.req.headers["a b"] = "x" end, '"a b" is not a header name')
    assert.error_matches(function() ctx.res.headers["Content-Length"] = "1" end, "the gateway's framing")
    assert.error_matches(function() ctx.req:add("TE", "x") end, "the gateway's framing")
    assert.error_matches(function() ctx.res:add("X", {}) end, "X: expected text, got table")
    assert.error_matches(function() ctx.req.path = "nope" end, "path: begins with /")
    assert.error_matches(function() ctx.req.scheme = "x" end, "scheme can't be set")
    assert.error_matches(function() ctx.res.status = 99 end, "status: 200 to 599")
    assert.error_matches(function() ctx:reply(99) end, "expected a status from 200 to 599, got 99")
    assert.error_matches(function() ctx:reply(200, "", { ["X-A"] = "a\nb" }) end, "X%-A: a line break")
    assert.error_matches(function() ctx:reply(200, { print }) end, "ctx:reply: .*function")
  end)

  it("has a response that is a stream when it says so", function()
    assert.is_true(t.context().res.stream)
    local function stream(response) return t.context({ response = response }).res.stream end
    assert.is_true(stream({ headers = { ["content-type"] = "Text/Event-Stream; x=y" } }))
    assert.is_false(stream({ headers = { ["Content-Type"] = "text/html" } }))
    assert.is_false(stream({ status = 404 }))
  end)

  it("is over when the exchange is over", function()
    local ctx = t.context()
    ctx._x.over = true
    assert.error_matches(function() return ctx.client end, "the exchange is over")
  end)

  it("knows client, id and log", function()
    local ctx = t.context({ client = "::1", id = "r-7" })
    assert.same({ address = "::1", port = 12345, peer = { address = "::1", port = 12345 } }, ctx.client)
    ctx:log("warn", "hm")
    require("gateway").log.info("%d of %s", 1, "2")
    require("gateway").log.debug("100%")
    assert.same({ { level = "warn", text = "x=r-7 hm" }, { level = "info", text = "1 of 2" },
      { level = "debug", text = "100%" } }, core.state.logs)
  end)
end)

describe("a plugin of gateway.testing", function()
  it("is loaded in the sandbox and checked", function()
    assert.error_matches(function() t.plugin("plugins/none.lua") end, "No such file")
    assert.error_matches(function() t.plugin({ name = "x", acess = print }) end, 'unknown key "acess"')
    assert.error_matches(function() t.plugin("plugins/cors.lua", { maxAge = "soon" }) end,
      "cors: maxAge: expected a duration")
  end)

  it("streams, and says when the stream ends", function()
    local p = t.plugin({ name = "p", on_event = function(ctx, _, ev)
      if ev.data == "end" then return ctx:close({ type = "bye", data = "x" }) end
    end })
    local text, closed = p:stream(t.context(), ":c\n\ndata:1\n\ndata:end\n\ndata:2\n\n")
    assert.equal(":c\n\ndata:1\n\nevent: bye\ndata: x\n\n", text)
    assert.is_true(closed)
  end)

  it("gets many events at a time when it takes them, and comments for themselves", function()
    local sizes = {}
    local p = t.plugin({ name = "p", comments = true, on_events = function(ctx, _, events)
      sizes[#sizes + 1] = #events
      if events[1].comment then return false end
      if events[#events].data == "end" then return { events[1], ctx:close() } end
      events[1].id = "x"
    end })
    local text, closed = p:stream(t.context(),
      "data:1\n\ndata:2\n\n:c\n\ndata:3\n\n:c\n\ndata:4\n\ndata:end\n\n:d\n\n")
    assert.equal("id: x\ndata: 1\n\ndata:2\n\nid: x\ndata: 3\n\ndata:4\n\n", text)
    assert.is_true(closed)
    assert.same({ 2, 1, 1, 1, 2 }, sizes)
    local many = ("data\n\n"):rep(130)
    p = t.plugin({ name = "p", on_events = function(_, _, events) sizes[#sizes + 1] = #events end })
    assert.equal(many, (p:stream(t.context(), many)))
    assert.same({ 64, 64, 2 }, { unpack(sizes, 6) })
    assert.equal("x", p:event(t.context(), { data = "x" })[1].data)
  end)

  it("routes", function()
    local p = t.plugin({ name = "p", route = function(ctx)
      if ctx.req.path == "/no" then return ctx:reply(403, "no") end
    end })
    assert.equal("test", p:route(t.context({ path = "/x" })))
    assert.equal(403, p:route(t.context({ path = "/no" })).status)
  end)
end)
