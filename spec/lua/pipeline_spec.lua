local testing = require("gateway.testing")
local core = require("gateway.core")
local event = require("gateway.event")
local json = require("gateway.json")
local pipeline = require("gateway.pipeline")
local services_of = require("gateway.service")

-- A plugin that notes what runs; `fields` are its hooks.
local function plugin(name, fields)
  fields.name = name
  return fields
end

local function chain(...)
  local list = {}
  for i, item in ipairs({ ... }) do list[i] = item.name and { item } or item end
  return testing.chain(list)
end

local function data_of(events)
  local out = {}
  for i, ev in ipairs(events) do out[i] = ev.data end
  return out
end

before_each(testing.reset)

describe("the order of hooks", function()
  local function noting(name, log)
    return plugin(name, {
      access = function() log[#log + 1] = "access " .. name end,
      on_response = function() log[#log + 1] = "response " .. name end,
      on_event = function(_, _, ev) ev.data = ev.data .. name end,
      on_close = function(_, _, reason) log[#log + 1] = "close " .. name .. " " .. reason end,
    })
  end

  it("is down for requests and up for responses, events and the end", function()
    local log = {}
    local c = chain(noting("a", log), noting("b", log), noting("c", log))
    local ctx = testing.context()
    c:access(ctx)
    c:response(ctx)
    assert.same({ ">cba" }, data_of(c:event(ctx, { data = ">" })))
    c:close(ctx, "client_gone")
    c:close(ctx, "again")
    assert.same({ "access a", "access b", "access c", "response c", "response b", "response a",
      "close c client_gone", "close b client_gone", "close a client_gone" }, log)
  end)

  it("gives each plugin its own state, even the same one twice, and all of them what is shared", function()
    local counter = plugin("counter", { on_event = function(ctx, conf)
      ctx.state.n = (ctx.state.n or 0) + conf.step
      ctx.shared.n = (ctx.shared.n or 0) + 1
    end, on_close = function(ctx) table.insert(ctx.shared, ctx.state.n) end })
    local c = testing.chain({ { counter, { step = 1 } }, { counter, { step = 10 } } })
    local ctx = testing.context()
    c:event(ctx, { data = "" })
    c:event(ctx, { data = "" })
    c:close(ctx)
    assert.same({ 20, 2, n = 4 }, ctx.shared)
  end)

  it("lets a state be anything, and nothing else be set on ctx", function()
    local c = chain(plugin("a", {
      access = function(ctx) ctx.state = 5 end,
      on_event = function(ctx, _, ev) ev.data = tostring(ctx.state) end,
      on_response = function(ctx) ctx.foo = 1 end,
    }))
    local ctx = testing.context()
    c:access(ctx)
    assert.same({ "5" }, data_of(c:event(ctx, { data = "" })))
    assert.error_matches(function() c:response(ctx) end, "ctx.foo can't be set; keep things in ctx.state")
  end)
end)

describe("what on_event returns", function()
  local function verdict(fn, ev)
    local seen = {}
    local c = chain(
      plugin("outer", { on_event = function(_, _, e) seen[#seen + 1] = e.data end }),
      plugin("inner", { on_event = fn }))
    local events, closed = c:event(testing.context(), ev or { type = "x", data = "1" })
    assert.same(data_of(events), seen)
    return events, closed
  end

  it("nil or the event itself: goes on, changed or not", function()
    assert.same({ "1" }, data_of((verdict(function() end))))
    assert.same({ "2" }, data_of((verdict(function(_, _, e) e.data = "2" return e end))))
  end)

  it("false, or an empty list: dropped, and no hook further up sees it", function()
    assert.same({}, (verdict(function() return false end)))
    assert.same({}, (verdict(function() return {} end)))
  end)

  it("a list: each goes on for itself", function()
    local events, closed = verdict(function(_, _, e)
      return { { data = "0", type = "new" }, e, event.new({ json = { n = 2 } }) }
    end)
    assert.same({ "0", "1", '{"n":2}' }, data_of(events))
    assert.equal("new", events[1].type)
    assert.is_false(closed)
  end)

  it("another event in its place, as an object or a plain table", function()
    assert.same({ "z" }, data_of((verdict(function() return event.new({ data = "z" }) end))))
    assert.same({ "z" }, data_of((verdict(function() return { data = "z" } end))))
  end)

  it("ctx:close: sends this and ends", function()
    local events, closed = verdict(function(ctx) return ctx:close({ data = "bye" }) end)
    assert.same({ "bye" }, data_of(events))
    assert.is_true(closed)
    events, closed = verdict(function(ctx, _, e) return { e, ctx:close(), { data = "never" } } end)
    assert.same({ "1" }, data_of(events))
    assert.is_true(closed)
    events, closed = verdict(function(ctx) return ctx:close() end)
    assert.same({}, events)
    assert.is_true(closed)
  end)

  it("a close further up ends what is left of a list", function()
    local c = chain(
      plugin("outer", { on_event = function(ctx, _, e)
        return e.data == "2" and ctx:close({ data = "end" }) or nil
      end }),
      plugin("inner", { on_event = function() return { { data = "1" }, { data = "2" },
        { data = "3" } } end }))
    local events, closed = c:event(testing.context(), { data = "x" })
    assert.same({ "1", "end" }, data_of(events))
    assert.is_true(closed)
  end)

  it("nonsense is an error that names plugin and hook", function()
    for value, text in pairs({ [5] = "returned 5", [true] = "returned true", x = 'returned the text "x"' }) do
      assert.error_matches(function() verdict(function() return value end) end,
        "plugin inner, on_event: " .. text .. "; expected nothing, an event, false")
    end
    assert.error_matches(function() verdict(function() return { evnt = "x" } end) end,
      'plugin inner, on_event: an event has no field "evnt"')
    assert.error_matches(function() verdict(function() return { { data = "a" }, 7 } end) end, "returned 7")
    assert.error_matches(function() verdict(function(ctx) return ctx:reply(500) end) end, "has begun already")
  end)
end)

describe("an error in a hook", function()
  local function failing(hook)
    return plugin("bad", { [hook] = function(_, _, value) error("oops " .. type(value)) end })
  end

  it("is raised with plugin, hook, file, line, traceback and the event's id", function()
    local c = chain(failing("on_event"))
    local ok, err = pcall(c._program.event, c:_enter(testing.context()), event.new({ id = "7", data = "" }))
    assert.is_false(ok)
    assert.equal("bad", err.plugin)
    assert.equal("on_event", err.hook)
    assert.equal("7", err.event)
    assert.matches("pipeline_spec.lua:%d+: oops table", err.message)
    assert.matches("^stack traceback:.-error.-\n[^\n]-pipeline_spec.lua:%d+: in function", err.traceback)
    assert.matches("^plugin bad, on_event: .*oops", tostring(err))
  end)

  it("is told and survived with onError: skip", function()
    local after = plugin("after", { on_event = function(_, _, e) e.data = e.data .. "+" end })
    local c = testing.chain({ { after }, { failing("on_event"), onError = "skip" } })
    assert.same({ "x+" }, data_of(c:event(testing.context(), { data = "x" })))
    assert.equal(1, #testing.state.errors)
    assert.is_true(testing.state.errors[1].skipped)
    c = testing.chain({ { failing("access"), onError = "skip" } })
    assert.is_nil(c:access(testing.context()))
    c = testing.chain({ { plugin("odd", { on_event = function() return 5 end }), onError = "skip" } })
    assert.same({ "x" }, data_of(c:event(testing.context(), { data = "x" })))
  end)

  it("does not keep the other on_close hooks from running", function()
    local closed = false
    local c = chain(plugin("a", { on_close = function() closed = true end }), failing("on_close"))
    c:close(testing.context())
    assert.is_true(closed)
    assert.equal("on_close", testing.state.errors[1].hook)
  end)

  it("may be any value", function()
    local c = chain(plugin("odd", { access = function() error({ message = "told", code = 1 }) end }))
    assert.error_matches(function() c:access(testing.context()) end, "plugin odd, access: told")
    c = chain(plugin("odd", { access = function() error() end }))
    assert.error_matches(function() c:access(testing.context()) end, "plugin odd, access: nil")
  end)
end)

describe("a reply", function()
  it("stops the way down and runs the response hooks of the plugins around, on the reply", function()
    local log = {}
    local function tagging(name)
      return plugin(name, { on_response = function(ctx)
        log[#log + 1] = name .. " " .. ctx.res.status
        ctx.res.headers["X-" .. name] = "1"
      end })
    end
    local c = chain(tagging("outer"),
      plugin("auth", { access = function(ctx) return ctx:reply(401, { error = "who are you" }) end,
        on_response = function() error("never") end }),
      tagging("inner"))
    local reply = c:access(testing.context())
    assert.equal(401, reply.status)
    assert.equal('{"error":"who are you"}', reply.body)
    assert.equal("application/json", reply.headers["Content-Type"])
    assert.equal("1", reply.headers["X-outer"])
    assert.same({ "outer 401" }, log)
  end)

  it("counts without return as well", function()
    local c = chain(plugin("auth", { access = function(ctx) ctx:reply(403, "no") end }),
      plugin("next", { access = function() error("never") end }))
    local reply = c:access(testing.context())
    assert.equal(403, reply.status)
    assert.equal("text/plain; charset=utf-8", reply.headers["content-type"])
  end)

  it("in on_response takes the response's place, and those around see it", function()
    local seen
    local c = chain(plugin("outer", { on_response = function(ctx) seen = ctx.res.status end }),
      plugin("inner", { on_response = function(ctx)
        if ctx.res.status == 200 then return ctx:reply(502, "bad", { ["Content-Type"] = "text/html" }) end
      end }))
    local reply = c:response(testing.context())
    assert.equal(502, reply.status)
    assert.equal("text/html", reply.headers["content-type"])
    assert.equal(502, seen)
    assert.is_nil(c:response(testing.context({ response = { status = 404 } })))
  end)

  it("is the only thing that access may return", function()
    local c = chain(plugin("odd", { access = function() return 403 end }))
    assert.error_matches(function() c:access(testing.context()) end,
      "plugin odd, access: returned 403; expected nothing or ctx:reply")
  end)
end)

-- A program of rules with plugins, and one service `s` of three instances.
local function program(rules, outer, services)
  local service = services_of.new("s")
  for i = 1, 3 do
    service:add { index = i, id = "s-" .. i, service = "s", weight = 1, health = "healthy" }
  end
  local compiled = {}
  for i, rule in ipairs(rules) do
    local conf = rule.conf or rule
    conf.id, conf.serviceName = conf.id or conf.path, conf.serviceName or "s"
    compiled[i] = pipeline.compile(conf, rule.entries or outer or {}, rule.policy)
  end
  local parts = { settings = {}, instances = service.instances, services = services or { s = service },
    rules = compiled, outer = pipeline.outer(outer or {}) }
  parts.compile = function(made)
    if not made.path then return nil, "no path" end
    return pipeline.compile(made, {})
  end
  return pipeline.new(parts), service
end

local function open(built, options)
  local handle = testing.context(options)._x
  return built.open(handle), handle
end

describe("route", function()
  local function entry(fields) return { plugin = fields, name = fields.name, skip = false } end

  it("chooses a rule and says which hooks it has", function()
    local all = { path = "/all", access = print, on_response = print, on_event = print, on_close = print }
    local built = program({
      { path = "/none", timeout = 5 },
      all,
      { path = "/cookie", sessionAffinity = { enabled = true, source = "cookie", cookieName = "c",
        ttl = 5 } },
    })
    local ctx, handle = open(built, { path = "/none" })
    assert.same({ 0, 5 }, { built.route(ctx) })
    assert.equal("/none", handle.rule)
    assert.equal("/none", ctx.route.path)
    assert.same({ 15, 0, 1 }, { built.route((open(built, { path = "/all" }))) })
    assert.same({ 2, 0 }, { built.route((open(built, { path = "/cookie" }))) })
  end)

  it("answers what no rule takes", function()
    local built = program({ { path = "/s", methods = { "SSE" } } }, {})
    for path, want in pairs({ ["/x"] = 404, ["/s"] = 406, ["/%zz"] = 400 }) do
      local ctx, handle = open(built, { path = path })
      assert.equal(core.REPLY, (built.route(ctx)))
      assert.equal(want, handle.reply.status)
    end
    local ctx, handle = open(built, { path = "/s" })
    built.route(ctx)
    assert.matches("Accept: text/event%-stream", handle.reply.error)
    ctx, handle = open(built, { path = "/s", method = "POST" })
    built.route(ctx)
    assert.equal("GET, HEAD", handle.reply.headers.allow)
  end)

  it("runs the global plugins around what it answers itself", function()
    local closed
    local built = program({}, { entry(plugin("g", {
      on_response = function(ctx) ctx.res.headers["X-Seen"] = tostring(ctx.res.status) end,
      on_close = function(_, _, reason) closed = reason end,
    })) })
    local ctx, handle = open(built, { path = "/x" })
    assert.same({ core.REPLY, 8 }, { built.route(ctx) })
    assert.equal("404", handle.reply.headers["x-seen"])
    built.close(ctx, "ok", 1)
    assert.equal("ok", closed)
  end)

  it("asks route hooks first: an id, a rule, a reply, or nothing", function()
    local made = { id = "made", path = "/made", timeout = 1 }
    local built = program({ { id = "a", path = "/a" }, { id = "b", path = "/u/{id}" } }, {
      entry(plugin("g", { route = function(ctx)
        local want = ctx.req.headers["x-to"]
        if want == "reply" then return ctx:reply(302, nil, { Location = "/a" }) end
        return ({ made = made, bad = {}, num = 5 })[want] or want
      end })),
    })
    local function route(to, path)
      local ctx, handle = open(built, { path = path or "/a", headers = { ["X-To"] = to } })
      local ok, result = pcall(built.route, ctx)
      if not ok then return tostring(result) end
      if result == core.REPLY then return handle.reply.status end
      return ctx.route.id, ctx
    end
    assert.equal("a", (route(nil)))
    local id, ctx = route("b", "/u/7")
    assert.equal("b", id)
    assert.equal("7", ctx.params.id)
    assert.equal("made", (route("made")))
    assert.equal(302, (route("reply")))
    assert.matches('plugin g, route: returned "nope", which is no rule', (route("nope")))
    assert.matches("plugin g, route: returned a rule that is wrong: no path", (route("bad")))
    assert.matches("plugin g, route: returned 5", (route("num")))
  end)

  it("keeps state from the route hook for the rule's hooks", function()
    local g = entry(plugin("g", {
      route = function(ctx) ctx.state.t = 1 end,
      access = function(ctx) ctx.state.t = ctx.state.t + 1 end,
    }))
    local built = program({ { path = "/a" } }, { g })
    local ctx = open(built, { path = "/a" })
    built.route(ctx)
    built.access(ctx)
    assert.equal(2, ctx._states[1].t)
  end)

  it("names the route when its own functions fail", function()
    local built = program({ { id = "r", path = "/m", match = function() error("match broke") end } })
    local ok, err = pcall(built.route, (open(built, { path = "/m" })))
    assert.is_false(ok)
    assert.matches("plugin route r, match: .*match broke", tostring(err))
  end)
end)

describe("the functions of a Lua rule", function()
  it("are its innermost plugin, called without conf", function()
    local log = {}
    local c = testing.chain({ { plugin("p", { on_event = function(_, _, e) e.data = e.data
      .. "p" end }) } }, {
      access = function(ctx) log[1] = ctx.route.id end,
      on_event = function(_, e) e.data = e.data .. "r" end,
      on_close = function(_, reason) log[2] = reason end,
    })
    local ctx = testing.context()
    c:access(ctx)
    assert.same({ "xrp" }, data_of(c:event(ctx, { data = "x" })))
    c:close(ctx, "ok")
    assert.same({ "test", "ok" }, log)
  end)
end)

describe("balance", function()
  local function balance(built, ctx)
    return built.balance(ctx)
  end

  local function routed(built, options)
    options = options or { path = "/" }
    local ctx, handle = open(built, options)
    built.route(ctx)
    return ctx, handle
  end

  it("takes turns by default", function()
    local built = program({ { path = "/" } })
    local got = {}
    for i = 1, 4 do got[i] = balance(built, (routed(built))) end
    assert.same({ 1, 2, 3, 1 }, got)
  end)

  it("asks plugins down the list, then the policy", function()
    local seen = {}
    local function entry(name, pick)
      return { name = name, skip = false, plugin = plugin(name, { balance = function(_, _, instances)
        seen[#seen + 1] = name
        return instances[pick]
      end }) }
    end
    local built = program({ { conf = { path = "/", loadBalance = function(_,
      instances) return instances[3] end },
      entries = { entry("a"), entry("b", 2), entry("c", 1) } } })
    assert.equal(2, balance(built, (routed(built))))
    assert.same({ "a", "b" }, seen)
    built = program({ { conf = { path = "/", loadBalance = function(_, instances) return instances[3] end },
      entries = { entry("a") } } })
    assert.equal(3, balance(built, (routed(built))))
  end)

  it("uses a plugin as the policy, and turns where it does not care", function()
    local entry = { name = "last", conf = { 2 }, skip = false,
      plugin = plugin("last", { balance = function(ctx, conf, list)
        return ctx.req.headers["x-last"] and list[conf[1]] or nil
      end }) }
    local built = program({ { conf = { path = "/", loadBalance = "last" }, policy = entry } })
    assert.equal(2, balance(built, (routed(built, { path = "/", headers = { ["X-Last"] = "1" } }))))
    assert.equal(1, balance(built, (routed(built))))
  end)

  it("refuses what is none of the instances", function()
    local built = program({ { path = "/", loadBalance = function() return { id = "s-1" } end } })
    local ok, err = pcall(built.balance, (routed(built)))
    assert.is_false(ok)
    assert.matches("plugin route /, balance: returned a table, which is none of the instances", tostring(err))
  end)

  it("may reply instead", function()
    local built = program({ { path = "/", loadBalance = function(ctx) return ctx:reply(429, "later") end } })
    local ctx, handle = routed(built)
    assert.equal(core.REPLY, built.balance(ctx))
    assert.equal(429, handle.reply.status)
  end)

  it("goes by the service that a function names", function()
    local built = program({ { path = "/", serviceName = function(ctx) return ctx.req.headers["x-s"] end } })
    assert.equal(1, balance(built, (routed(built, { path = "/", headers = { ["X-S"] = "s" } }))))
    local ok, err = pcall(built.balance, (routed(built, { path = "/", headers = { ["X-S"] = "t" } })))
    assert.is_false(ok)
    assert.matches('plugin route /, serviceName: there is no service called the text "t"', tostring(err))
    ok, err = pcall(built.balance, (routed(built)))
    assert.is_false(ok)
    assert.matches("no serviceName", tostring(err))
  end)

  it("answers 503 when no instance is healthy, through the response hooks", function()
    local service = services_of.new("s")
    local function tag(ctx) ctx.res.headers["X-R"] = "1" end
    local built = program({ { path = "/", on_response = tag } }, {}, { s = service })
    local ctx, handle = routed(built)
    assert.equal(core.REPLY, built.balance(ctx))
    assert.equal(503, handle.reply.status)
    local wait = tonumber(handle.reply.headers["retry-after"])
    assert.is_true(wait >= 5 and wait < 15, "Retry-After: " .. wait)
    assert.equal("1", handle.reply.headers["x-r"])
  end)

  it("leaves out what was tried when it is asked again, and gives up when nothing is left", function()
    local built = program({ { path = "/" } })
    local ctx, handle = routed(built)
    for _ = 1, 3 do
      local index = built.balance(ctx)
      assert.is_nil(handle.tried[index])
      handle.tried[index] = true
    end
    assert.is_nil(built.balance(ctx))
    assert.is_nil(handle.reply)
  end)
end)

describe("a reload", function()
  local function counting(version, upgrade)
    return plugin("counter", { upgrade = upgrade, on_event = function(ctx, _, e)
      ctx.state.n = (ctx.state.n or 0) + 1
      e.data = version .. ctx.state.n
    end })
  end

  it("moves state, shared and parameters to the new version", function()
    local old = chain(plugin("x", { access = function(ctx) ctx.shared.who = "me" end }), counting("old"))
    local new = chain(counting("new"), plugin("y", { on_close = function(c) assert.equal("me",
      c.shared.who) end }))
    local ctx = testing.context({ params = { id = "5" } })
    old:access(ctx)
    old:event(ctx, { data = "" })
    local moved = new:adopt(ctx)
    assert.same({ "new2" }, data_of(new:event(moved, { data = "" })))
    assert.equal("5", moved.params.id)
    assert.equal("me", moved.shared.who)
    new:close(moved)
    assert.same({}, testing.state.errors)
  end)

  it("asks upgrade, which may return a new state or change the old one", function()
    local old = chain(counting("old"))
    local ctx = testing.context()
    old:event(ctx, { data = "" })
    local new = chain(counting("new", function(state) return { n = state.n + 100 } end))
    assert.same({ "new102" }, data_of(new:event(new:adopt(ctx), { data = "" })))
    new = chain(counting("new", function(state) state.n = 7 end))
    assert.same({ "new8" }, data_of(new:event(new:adopt(ctx), { data = "" })))
    new = chain(counting("new", function() error("can't") end))
    assert.error_matches(function() new:adopt(ctx) end, "plugin counter, upgrade: .*can't")
  end)

  it("says what can't move", function()
    local c = chain(plugin("p", { access = function(x) x.state.fn = print end }))
    local ctx = testing.context()
    c:access(ctx)
    assert.error_matches(function() c:adopt(ctx) end,
      "ctx.state of p can't move to a new version: .*function")
    c = chain(plugin("p", { access = function(x) x.shared.fn = print end }))
    ctx = testing.context()
    c:access(ctx)
    assert.error_matches(function() c:adopt(ctx) end, "ctx.shared can't move")
  end)

  it("moves objects only where upgrade makes them whole again; arrays stay arrays", function()
    local mt = { __index = { up = function(self) self.n = self.n + 1 return self.n end } }
    local old = chain(plugin("p", { access = function(x)
      x.state = { list = json.array(), deep = { counter = setmetatable({ n = 1 }, mt) } }
    end }))
    local ctx = testing.context()
    old:access(ctx)
    assert.error_matches(function() chain(plugin("p", {})):adopt(ctx) end, "ctx.state of p .*metatable")
    local seen
    local new = chain(plugin("p", {
      upgrade = function(state) setmetatable(state.deep.counter, mt) end,
      access = function(x) seen = { x.state.deep.counter:up(), json.encode(x.state.list) } end,
    }))
    new:access(new:adopt(ctx))
    assert.same({ 2, "[]" }, seen)
    local sharing = chain(plugin("p", { access = function(x) x.shared.o = setmetatable({}, mt) end }))
    ctx = testing.context()
    sharing:access(ctx)
    assert.error_matches(function() sharing:adopt(ctx) end, "ctx.shared can't move")
  end)

  it("needs the route to be there still", function()
    local old, new = program({ { path = "/a" } }), program({ { path = "/b" } })
    local ctx, handle = open(old, { path = "/a" })
    old.route(ctx)
    old.balance(ctx)
    local saved = old.save(ctx)
    assert.equal("", saved)
    assert.same({ nil, "route /a is not there any more" }, { new.adopt(handle, saved, "/a", "s", "s-1") })
    local again, flags, timeout = old.adopt(handle, saved, "/a", "s", "s-1")
    assert.equal("s-1", again._instance.id)
    assert.equal(0, flags)
    assert.equal(0, timeout)
  end)
end)
