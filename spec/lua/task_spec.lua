--- Tasks, waits and what they send, on the clock of gateway.testing: what specs of plugins rely on.
local t = require("gateway.testing")
local gateway = require("gateway")

before_each(t.reset)

local function plugin(hooks)
  hooks.name = "p"
  return t.plugin(hooks)
end

describe("a hook that waits", function()
  it("is waited for in no time", function()
    local begin = t.state.now
    local p = plugin({ on_event = function(_, _, ev)
      gateway.sleep(3600)
      coroutine.yield()
      ev.data = ev.data .. "!"
    end })
    assert.equal("x!", p:event(t.context(), { data = "x" })[1].data)
    assert.equal(3600, t.state.now - begin)
  end)

  it("lets those run that are due before", function()
    local seen = {}
    local p = plugin({ access = function()
      gateway.timer(5, table.insert, seen, "late")
      gateway.timer(1, function() seen[#seen + 1] = "soon" end)
      gateway.spawn(function() seen[#seen + 1] = "now" end)
      seen[#seen + 1] = "hook"
      gateway.sleep(2)
      seen[#seen + 1] = "hook"
    end })
    p:access(t.context())
    assert.same({ "hook", "now", "soon", "hook" }, seen)
    t.advance(2.5)
    assert.equal(4, #seen)
    t.advance(1)
    assert.equal("late", seen[5])
  end)

  it("raises where it can't, with the gateway's words", function()
    assert.error_matches(function() gateway.sleep(1) end, "sleep: no hook runs here that could wait")
    local p = plugin({ access = function(ctx)
      local co = coroutine.wrap(function() gateway.sleep(1) end)
      return ctx:reply(200, select(2, pcall(co)))
    end })
    assert.matches("a coroutine of the plugin's own can't wait", p:access(t.context()).body)
  end)

  it("at the end of its exchange may wait, too", function()
    local seen = 0
    plugin({ on_close = function()
      gateway.spawn(function() gateway.sleep(5) seen = seen + 10 end)
      gateway.sleep(1)
      seen = seen + 1
    end }):close(t.context())
    assert.equal(1, seen)
    t.advance(5)
    assert.equal(11, seen)
  end)

  it("for what never comes is told so", function()
    local p = plugin({ access = function()
      gateway.spawn(gateway.lock, "a", function() gateway.lock("b", print) end)
      gateway.lock("b", function()
        gateway.sleep(1)
        gateway.lock("a", print)
      end)
    end })
    assert.error_matches(function() p:access(t.context()) end, "a hook waits for what never comes")
    plugin({ access = function() gateway.lock("b", t.reset) end }):access(t.context())
  end)
end)

describe("a task", function()
  it("ends with its exchange, or when it is cancelled", function()
    local seen = 0
    local function count() seen = seen + 1 end
    local p = plugin({ access = function(ctx)
      ctx:timer(1, count)
      ctx:timer(1, count):cancel()
      ctx:spawn(function() gateway.sleep(10) count() end)
      gateway.timer(20, count)
    end })
    local ctx = t.context()
    p:access(ctx)
    t.advance(2)
    assert.equal(1, seen)
    p:close(ctx)
    t.advance(100)
    assert.equal(2, seen)
  end)

  it("has its plugin's state, and leaves that of others alone", function()
    local chain = t.chain({
      { { name = "a", access = function(ctx)
        ctx.state = "a"
        ctx:timer(1, function() ctx.state = ctx.state .. "!" end)
      end, on_event = function(ctx, _, ev) ev.data = ev.data .. ctx.state end } },
      { { name = "b", access = function(ctx) ctx.state = "b" end, on_event = function(ctx, _, ev)
        gateway.sleep(2)
        ev.data = ev.data .. ctx.state
      end } },
    })
    local ctx = t.context()
    chain:access(ctx)
    assert.equal("-ba!", chain:event(ctx, { data = "-" })[1].data)
  end)

  it("that raises is told of, with plugin and line", function()
    local p = plugin({ access = function(ctx)
      ctx:spawn(function() error("one") end)
      gateway.spawn(function() error("two") end)
    end })
    p:access(t.context())
    assert.matches("^plugin p, ctx:spawn: .*task_spec.lua:%d+: one$", tostring(t.state.errors[1]))
    assert.matches("^plugin task_spec, gateway.spawn: .*: two$", tostring(t.state.errors[2]))
  end)

  it("is refused without a function or a time", function()
    assert.error_matches(function() gateway.spawn("x") end, "gateway.spawn: expected a function, got string")
    assert.error_matches(function() gateway.timer(-1, print) end, "not a time")
    assert.error_matches(function() gateway.once(nil, print) end, "gateway.once: expected a key")
  end)

  it("moves to a new version by upgrade, or keeps the old one", function()
    local function version(text, upgrade)
      local function begin(ctx) ctx:timer(1, function() ctx:send({ data = text }) end) end
      return plugin({ on_response = begin, upgrade = upgrade and function(_, _, ctx) begin(ctx) end })
    end
    local ctx = t.context()
    version("one", true):response(ctx)
    ctx = version("two", true):adopt(ctx)
    t.advance(5)
    local sent = t.sent(ctx)
    assert.same({ 1, "two" }, { #sent, sent[1].data })
    version("three"):response(ctx)
    assert.error_matches(function() version("four"):adopt(ctx) end, "keeps the stream under its old version")
    t.advance(5)
    assert.equal("three", t.sent(ctx)[1].data)
  end)
end)

describe("ctx:send", function()
  it("comes in its place among the events", function()
    local p = plugin({ on_event = function(ctx, _, ev)
      ctx:send({ comment = "about " .. ev.data })
      if ev.data == "b" then return false end
    end })
    local ctx = t.context()
    assert.equal(": about a\n\ndata: a\n\n: about b\n\n", (p:stream(ctx, "data: a\n\ndata: b\n\n")))
    assert.equal(2, #p:event(ctx, { data = "c" }))
    assert.equal(0, #t.sent(ctx))
  end)

  it("raises where nothing can be sent, and for what is no event", function()
    local why = {}
    local function try(ctx, ev)
      why[#why + 1] = select(2, pcall(ctx.send, ctx, ev or { data = "x" })) or "sent"
    end
    local p = plugin({ access = try, on_event = function(ctx)
      try(ctx, { nonsense = 1 })
      try(ctx, 7)
      try(ctx, gateway.event.new({ data = "x" }))
    end })
    local ctx = t.context()
    p:access(ctx)
    p:event(ctx, { data = "x" })
    p:event(t.context({ response = { headers = { ["Content-Type"] = "text/plain" } } }), { data = "x" })
    assert.matches("the response has not begun", why[1])
    assert.matches('ctx:send: an event has no field "nonsense"', why[2])
    assert.matches("ctx:send: expected an event, got number", why[3])
    assert.equal("sent", why[4])
    assert.matches("the response is no event stream", why[7])
  end)
end)

describe("of many callers", function()
  local runs

  local function asker(key, fn)
    return function()
      local got = { pcall(gateway.once, key, fn) }
      runs[#runs + 1] = tostring(got[2])
    end
  end

  before_each(function() runs = {} end)

  it("one runs, the others get its result", function()
    local n = 0
    for _ = 1, 5 do
      gateway.spawn(asker("key", function() n = n + 1 gateway.sleep(1) return n end))
    end
    t.advance(2)
    assert.same({ "1", "1", "1", "1", "1" }, runs)
    gateway.spawn(asker("key", function() return "again" end))
    t.advance(0)
    assert.equal("again", runs[6])
  end)

  it("all get its error; another key is another call", function()
    for i = 1, 4 do
      gateway.spawn(asker(i % 2, function() gateway.sleep(1) error("no " .. i % 2, 0) end))
    end
    t.advance(2)
    table.sort(runs)
    assert.same({ "no 0", "no 0", "no 1", "no 1" }, runs)
  end)

  it("the next takes over when the one is cancelled", function()
    local first = gateway.spawn(asker("key", function() gateway.sleep(10) return "first" end))
    local second = gateway.spawn(asker("key", function() return "second" end))
    gateway.spawn(asker("key", function() return "third" end))
    gateway.spawn(asker("key", function() return "fourth" end))
    t.advance(1)
    second:cancel()
    first:cancel()
    t.advance(1)
    assert.same({ "third", "third" }, runs)
  end)

  it("one after the other has a lock", function()
    local order = {}
    for i = 1, 3 do
      gateway.spawn(function()
        pcall(gateway.lock, "key", function(n)
          order[#order + 1] = "in" .. n
          gateway.sleep(1)
          order[#order + 1] = "out" .. n
          if n == 1 then error("fails") end
        end, i)
      end)
    end
    t.advance(10)
    assert.same({ "in1", "out1", "in2", "out2", "in3", "out3" }, order)
  end)
end)
