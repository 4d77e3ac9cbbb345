--- gateway.pipeline: runs the hooks of a route in their order. What the runtime calls for every
-- exchange. A rule is compiled once into flat lists of guarded functions, one list per hook; a
-- hook nobody has costs nothing. Request hooks run down the list; response, event and close hooks
-- run up. Hooks may wait, so nothing here may stand below a C function that can't be left.

local buffer = require("string.buffer")

local balance = require("gateway.balance")
local bounds = require("gateway.bounds")
local canary = require("gateway.balancer.canary")
local context = require("gateway.context")
local core = require("gateway.core")
local event = require("gateway.event")
local failure = require("gateway.failure")
local hook = require("gateway.hook")
local json = require("gateway.json")
local names = require("gateway.names")
local retry = require("gateway.retry")
local router = require("gateway.router")
local running = require("gateway.running")
local session = require("gateway.session")

local REPLY = core.REPLY

local pipeline = {}

--- What `route` returns: which hooks the rule has.
local HAS_ACCESS, HAS_RESPONSE, HAS_EVENT, HAS_CLOSE, HAS_COMMENTS, HAS_BATCH = 1, 2, 4, 8, 16, 32

local hook_error, describe, guard, hook_list = failure.of, hook.describe, hook.guard, hook.list
local misuse, skip = hook.misuse, hook.skip

-- The functions of a Lua route as its innermost plugin. They get no conf: they are the
-- configuration.
local function rule_entry(conf)
  local hooks = { name = "route " .. conf.id }
  for _, name in ipairs({ "access", "on_response", "on_event", "on_close" }) do
    local fn = conf[name]
    if fn then hooks[name] = function(ctx, _, value) return fn(ctx, value) end end
  end
  return { plugin = hooks, name = hooks.name, skip = false }
end

local function has_functions(conf)
  return conf.access or conf.on_response or conf.on_event or conf.on_close
end

-- Gives every plugin its place, and a key that finds its state again after a reload.
local function placed(entries, conf)
  local list, count = {}, {}
  for _, entry in ipairs(entries) do list[#list + 1] = entry end
  if conf and has_functions(conf) then list[#list + 1] = rule_entry(conf) end
  local out = {}
  for slot, entry in ipairs(list) do
    count[entry.name] = (count[entry.name] or 0) + 1
    out[slot] = { plugin = entry.plugin, name = entry.name, conf = entry.conf, skip = entry.skip, slot = slot,
      key = entry.name .. "#" .. count[entry.name] }
  end
  return out
end

local function flags_of(rule)
  local at_head = rule.session and rule.session.at_head
  return (rule.access[1] and HAS_ACCESS or 0)
    + ((rule.response[1] or at_head) and HAS_RESPONSE or 0)
    + (rule.events[1] and HAS_EVENT or 0)
    + (rule.close[1] and HAS_CLOSE or 0)
    + (rule.comments and HAS_COMMENTS or 0)
    + (rule.batch and HAS_BATCH or 0)
end

local function is_comment(ev)
  return ev.data == nil and ev.id == nil and ev.retry == nil and ev.type == "message"
end

-- The event hooks for an event that is comments and nothing else: those that did not ask for such let it
-- pass, but see what another hook made of it. Nil when none has asked.
local function comment_list(events)
  local list, asked = { entries = events.entries, hook = events.hook }, false
  for i = 1, #events do
    local fn, wants = events[i], events.entries[i].plugin.comments
    asked = asked or wants
    list[i] = wants and fn or function(ctx, ev)
      if is_comment(ev) then return nil end
      return fn(ctx, ev)
    end
  end
  return asked and list
end

local function add_hooks(rule)
  local entries = rule.entries
  rule.access = hook_list(entries, "access")
  rule.balance = hook_list(entries, "balance")
  rule.response = hook_list(entries, "on_response", true)
  rule.events = hook_list(entries, "on_event", true)
  rule.comments = comment_list(rule.events)
  local last = rule.events.entries[1]
  if #rule.events == 1 and last.plugin.on_events then
    rule.batch = guard(last, "on_events", last.plugin.on_events)
  end
  rule.close = hook_list(entries, "on_close", true)
  for _, entry in ipairs(entries) do
    if entry.plugin.preflight then rule.preflight = true end
  end
end

-- A function of the configuration that is no hook, with errors that name the route.
local function rule_function(rule, key)
  local fn = rule.conf[key]
  if type(fn) ~= "function" then return nil end
  local function fail(err) return hook_error("route " .. rule.id, key, err) end
  return function(ctx)
    local ok, value = xpcall(fn, fail, ctx)
    if not ok then error(value, 0) end
    return value
  end
end

--- Compiles a rule.
---@param conf table the rule as configured, checked
---@param entries gateway.Entry[] its plugins, outermost first
---@param policy_entry gateway.Entry? the plugin that `loadBalance` names
---@param sse table? `frontend.sse`, for its bounds
---@return gateway.Rule
function pipeline.compile(conf, entries, policy_entry, sse)
  local rule = { id = conf.id, conf = conf, entries = placed(entries, conf), timeout = conf.timeout or 0 }
  rule.match = rule_function(rule, "match")
  rule.service = rule_function(rule, "serviceName")
  rule.session = session.compile(conf)
  rule.bounds = bounds.compile(conf, rule.session, sse)
  rule.timed = conf.maxAge or conf.firstEventTimeout or conf.responseTimeout
  local asked_again = retry.plan(conf)
  rule.retry = asked_again and core.pack_retry(asked_again)
  add_hooks(rule)
  rule.policy = balance.policy(rule, policy_entry)
  rule.canary = conf.canary and canary.new(conf.canary, rule.session)
  rule.flags = flags_of(rule)
  router.prepare(rule)
  -- A rule for event streams alone takes no GET that asks for something else.
  rule.upgrades = rule.sse and "" or conf.upgrades and table.concat(conf.upgrades, ",")
  return rule
end

--- Compiles what an exchange runs under before, or without, a rule: the plugins of every route.
---@param entries gateway.Entry[]
---@return table
function pipeline.outer(entries)
  local rule = { entries = placed(entries), outer = true }
  add_hooks(rule)
  rule.route = hook_list(rule.entries, "route")
  return rule
end

local function expect_reply(ctx, entry, name, verdict)
  if verdict == nil or verdict == REPLY then return end
  misuse(ctx, entry, name, ("returned %s; expected nothing or ctx:reply(...)"):format(describe(verdict)))
end

-- Runs the response hooks of the plugins that lie outside of `slot`, innermost first. Those around
-- a hook that replies see its reply; those around one that raises are run again, see Program.response.
local function run_response(ctx, rule, slot)
  local list = rule.response
  for i = 1, #list do
    local entry = list.entries[i]
    if entry.slot < slot then
      ctx._responding = entry.slot
      expect_reply(ctx, entry, "on_response", list[i](ctx))
    end
  end
end

-- A plugin answered, or the gateway did: the plugins around see the answer as they would see the
-- backend's.
local function answered(ctx, rule, slot)
  rawset(ctx, "res", nil)
  run_response(ctx, rule, slot)
  return REPLY
end

local STATUS_TEXT = {
  [400] = "the path of the request is broken",
  [404] = "no route for this path",
  [405] = "this path does not take this method",
  [406] = "this path answers with an event stream: send the header Accept: text/event-stream",
}

local function refuse(ctx, rule, status, allow)
  core.fail(ctx._x, status, STATUS_TEXT[status], status == 405 and { Allow = allow } or nil)
  return answered(ctx, rule, math.huge)
end

---@class gateway.Program
local Program = {}
Program.__index = Program

-- What a route hook returned: nil, a rule, or true for a reply.
function Program:_routed(ctx, entry, verdict)
  if verdict == REPLY or ctx._replied then return true end
  if type(verdict) == "string" then
    return self._by_id[verdict]
      or misuse(ctx, entry, "route", ("returned %q, which is no rule's id"):format(verdict))
  elseif type(verdict) == "table" then
    local rule, err = self._dynamic[verdict], nil
    if not rule then
      rule, err = self._compile(verdict)
      self._dynamic[verdict] = rule
    end
    return rule or misuse(ctx, entry, "route", "returned a rule that is wrong: " .. err)
  end
  local text = ("returned %s; expected nothing, a rule's id or a rule"):format(describe(verdict))
  return misuse(ctx, entry, "route", text)
end

function Program:_choose(ctx)
  local list = self._outer.route
  for i = 1, #list do
    local verdict = list[i](ctx)
    if verdict ~= nil or ctx._replied then
      local rule = self:_routed(ctx, list.entries[i], verdict)
      if rule == true then return nil, answered(ctx, self._outer, list.entries[i].slot) end
      if rule then
        router.read_params(rule, ctx, router.normalise(ctx.req.path) or ctx.req.path)
        return rule
      end
    end
  end
  local rule, status, allow = self._router:match(ctx)
  if rule then return rule end
  return nil, refuse(ctx, self._outer, status, allow)
end

-- The query stays as it came.
local function forward_normalised(ctx)
  local path = router.sendable(ctx.req.path)
  if path then ctx.req.path = path end
end

-- How long streams of a rule go on, where it says so itself.
local function set_clocks(handle, rule)
  local conf = rule.conf
  core.set_clocks(handle, conf.maxAge, conf.firstEventTimeout, conf.responseTimeout)
end

--- Chooses the rule.
---@param ctx gateway.Context
---@return any flags, number timeout_s with a reply: REPLY and the flags of what still has to run
---@return integer? event_hook index in the program's list of lone event hooks
---@return string? retry from core.pack_retry
---@return string? upgrades the rule's own, with commas
---@return number? tunnel_idle_s the rule's own
function Program:route(ctx)
  local rule, reply = self:_choose(ctx)
  if not rule then return reply, self._outer.close[1] and HAS_CLOSE or 0 end
  ctx._rule = rule
  if rule.conf.forwardPath == "normalised" then forward_normalised(ctx) end
  core.set_rule(ctx._x, rule.id)
  if rule.timed then set_clocks(ctx._x, rule) end
  return rule.flags, rule.timeout, rule.event_hook, rule.retry, rule.upgrades, rule.conf.tunnelIdleTimeout
end

--- Runs the access hooks, down.
---@param ctx gateway.Context
---@return any REPLY or nil
function Program.access(_, ctx)
  local rule = ctx._rule
  local list = rule.access
  for i = 1, #list do
    local verdict = list[i](ctx)
    if verdict == REPLY or ctx._replied then return answered(ctx, rule, list.entries[i].slot) end
    expect_reply(ctx, list.entries[i], "access", verdict)
  end
end

local function unavailable(ctx, rule, why, seconds)
  -- Not all clients are to come back in the same second.
  seconds = seconds + math.floor(core.chance() * 10)
  core.fail(ctx._x, 503, why, { ["Retry-After"] = ("%d"):format(seconds) })
  return answered(ctx, rule, math.huge)
end

function Program:_service(ctx, rule)
  local name = rule.conf.serviceName
  if rule.service then name = rule.service(ctx) end
  if rule.canary then name = canary.choose(ctx, rule.canary, self._services) end
  local service = self._services[name]
  if service then return service end
  local text = name == nil and "no serviceName, and access did not reply"
    or ("there is no service called %s"):format(describe(name))
  error(hook_error("route " .. rule.id, "serviceName", text), 0)
end

--- Chooses an instance. Called again for a retry.
---@param ctx gateway.Context
---@return any index of the instance, or REPLY; nil when a retry has none left
---@return string? service, string? id by which the runtime knows that it is still this one
function Program:balance(ctx)
  local rule = ctx._rule
  bounds.set(rule.bounds, ctx._x, ctx)
  local service = self:_service(ctx, rule)
  local refused, seconds = service:refuses(ctx)
  if refused then return unavailable(ctx, rule, refused, seconds) end
  local again = ctx._balanced
  local instances = again and service:untried(ctx) or service:usable()
  ctx._balanced = true
  if not instances[1] then
    if again and service:usable()[1] then return nil end
    return unavailable(ctx, rule, service:absence())
  end
  local chosen, slot = balance.choose(ctx, rule, instances)
  if chosen == REPLY then return answered(ctx, rule, slot) end
  if not chosen then return unavailable(ctx, rule, service:absence()) end
  ctx._instance = chosen
  if ctx._stick then session.stick(rule.session, ctx._stick, chosen) end
  return chosen.index, chosen.service, chosen.id
end

-- Where there were attempts, it may be an earlier one's.
function Program:_see_whose_answer(ctx)
  local name, id = core.asked(ctx._x)
  local service = self._services[name]
  ctx._instance = service and service.by_id[id] or ctx._instance
end

--- Runs the response hooks, up. When one raises, the runtime calls this again with the error as the
--- response, for the hooks around that one.
---@param ctx gateway.Context
---@return any REPLY or nil
function Program:response(ctx)
  local rule, slot = ctx._rule, ctx._responding or math.huge
  ctx._responding = 0
  -- Answers of the gateway's own may come here after a hook read ctx.res.
  rawset(ctx, "res", nil)
  if rule.retry then self:_see_whose_answer(ctx) end
  local at_head = rule.session and rule.session.at_head
  if at_head and slot > 0 then at_head(rule.session, ctx) end
  ctx._replied = false
  run_response(ctx, rule, slot)
  ctx._responding = nil
  if ctx._replied then return REPLY end
end

local EXPECTED = "; expected nothing, an event, false, a list of events or ctx:close(...)"

local spread

-- Made in Lua, or the runtime's own: where a hook takes many at a time, there are several of these.
local function is_event(value)
  return event.is(value) or type(value) == "userdata" and core.is_event(value)
end

-- Sends an event through the hooks from `i` on; what comes out at the top is added to `out`.
local function pass_up(ctx, list, i, ev, out)
  for k = i, #list do
    local verdict = list[k](ctx, ev)
    if verdict ~= nil and verdict ~= ev then return spread(ctx, list, k, ev, verdict, out) end
  end
  out[#out + 1] = ev
  return false
end

-- A plain table stands for a new event; `event.new` says what is wrong with it.
local function made_event(ctx, entry, fields, ev)
  local ok, made = pcall(event.new, fields)
  if ok then return made end
  local text = failure.message(made):gsub("^[^:]*:%d+: ", "")
  return misuse(ctx, entry, "on_event", text, ev)
end

local function spread_list(ctx, list, i, ev, verdicts, out)
  for k = 1, #verdicts do
    if spread(ctx, list, i, ev, verdicts[k], out) then return true end
  end
  return false
end

-- Takes the verdict of hook `i` about `ev` apart. Returns true when the stream ends with it.
function spread(ctx, list, i, ev, verdict, out)
  if verdict == false then return false end
  if verdict == ev or is_event(verdict) then return pass_up(ctx, list, i + 1, verdict, out) end
  if verdict == REPLY or type(verdict) ~= "table" then
    misuse(ctx, list.entries[i], "on_event", "returned " .. describe(verdict) .. EXPECTED, ev)
    return pass_up(ctx, list, i + 1, ev, out)
  end
  if context.is_close(verdict) then
    if verdict.event ~= nil then spread(ctx, list, i, ev, verdict.event, out) end
    return true
  end
  if type(next(verdict)) ~= "string" then return spread_list(ctx, list, i, ev, verdict, out) end
  local made = made_event(ctx, list.entries[i], verdict, ev)
  return pass_up(ctx, list, i + 1, made or ev, out)
end

-- What the runtime is told: nothing changed, nothing left, or what to send instead.
local function result(ev, out, closing)
  if not closing then
    if not out[1] then return false end
    if out[1] == ev and not out[2] then return nil end
  end
  for i = 1, #out do
    if event.is(out[i]) and out[i] ~= ev then out[i] = event.encode(out[i]) end
  end
  return out, closing
end

-- The way without garbage: each hook lets the event pass, changed or not, or drops it.
local function run_events(ctx, list, ev)
  for i = 1, #list do
    local verdict = list[i](ctx, ev)
    if verdict == false then return false end
    if verdict ~= nil and verdict ~= ev then
      local out = {}
      return result(ev, out, spread(ctx, list, i, ev, verdict, out))
    end
  end
end

--- Runs the event hooks, up.
---@param ctx gateway.Context
---@param ev gateway.Event
---@return nil|false|table out, boolean? close
function Program.event(_, ctx, ev)
  return run_events(ctx, ctx._rule.events, ev)
end

--- Runs the only event hook on many events at once.
---@param ctx gateway.Context
---@param events gateway.Event[]
---@return nil|false|table out, boolean? close
function Program.events(_, ctx, events)
  local rule = ctx._rule
  local verdict = rule.batch(ctx, events)
  if verdict == nil or verdict == false then return verdict end
  if type(verdict) ~= "table" and not is_event(verdict) then
    return misuse(ctx, rule.events.entries[1], "on_events", "returned " .. describe(verdict) .. EXPECTED)
  end
  local out = {}
  return result(nil, out, spread(ctx, rule.events, 1, nil, verdict, out))
end

--- Runs the event hooks on an event that is comments and nothing else.
---@param ctx gateway.Context
---@param ev gateway.Event
---@return nil|false|table out, boolean? close
function Program.comment(_, ctx, ev)
  return run_events(ctx, ctx._rule.comments, ev)
end

-- Where a rule has one event hook the runtime calls this instead, from the second event on: it touches
-- nothing of the exchange, which is cold in memory when there are many. `ctx._slot` is still that of the
-- event before, and an error goes to `event_failed`.
local function lone_event_hook(list)
  local entry = list.entries[1]
  local fn, conf = entry.plugin.on_event, entry.conf
  return function(ctx, ev)
    local verdict = fn(ctx, conf, ev)
    if verdict == nil or verdict == ev then return nil end
    if verdict == false then return false end
    local out = {}
    return result(ev, out, spread(ctx, list, 1, ev, verdict, out))
  end
end

--- A lone event hook raised.
---@param ctx gateway.Context
---@param err any
---@param traceback string
---@param ev gateway.Event
---@return any err to be logged, nil when the exchange goes on without the plugin
function Program.event_failed(_, ctx, err, traceback, ev)
  local entries = ctx._rule.events.entries
  if entries[2] or failure.is(err) then return err end
  local failed = hook_error(entries[1].name, "on_event", err, traceback)
  failed.event = ev.id
  if not entries[1].skip then return failed end
  skip(ctx, failed)
  return nil
end

--- Runs the close hook `i`; they go up, each once. One that waits goes on without the exchange while the
--- others run, so each has a context of its own. An error of one does not keep the others from running.
---@param ctx gateway.Context
---@param reason string
---@param i integer
---@return boolean more whether there is another one
function Program.close(_, ctx, reason, i)
  if i == 1 and ctx._closed then return false end
  ctx._closed = true
  local list = ctx._rule.close
  if not list[i] then return false end
  local own = context.leave(ctx)
  local ok, err = pcall(list[i], own, reason)
  if not ok then
    err = hook_error(list.entries[i].name, "on_close", err)
    -- Where it has waited, only the task that it is can tell.
    if not pcall(core.hook_error, own._x, err) then error(err, 0) end
  end
  return list[i + 1] ~= nil
end

--- A new exchange, before routing.
---@param handle any
---@return gateway.Context
function Program:open(handle)
  return context.open(handle, self._outer)
end

-- What is kept by slot, by the keys that find a plugin again.
local function by_key(ctx, slots)
  if not slots then return nil end
  local out = {}
  for slot, entry in ipairs(ctx._rule.entries) do out[entry.key] = slots[slot] end
  return out
end

-- Marked arrays stay so; every other metatable stays behind.
local ARRAY = getmetatable(json.array())
local wire = buffer.new({ metatable = { ARRAY } })

local function encode(value)
  return wire:reset():encode(value):get()
end

local function decode(text)
  return wire:set(text):decode()
end

-- For what has been encoded, and so has an end.
local function holds_object(value)
  if type(value) ~= "table" then return false end
  local mt = getmetatable(value)
  if mt ~= nil and mt ~= ARRAY then return true end
  for key, item in next, value do
    if holds_object(key) or holds_object(item) then return true end
  end
  return false
end

local function objects_in(states)
  local found = {}
  for key, state in pairs(states or {}) do found[key] = holds_object(state) or nil end
  return next(found) and found
end

local function cant_move(key, why)
  return ("ctx.state of %s can't move to a new version: %s"):format(key:gsub("#1$", ""), why)
end

local SHARED_CANT_MOVE = "ctx.shared can't move to a new version; only data can"

local function why_not(saved)
  for key, state in pairs(saved.states or {}) do
    local ok, err = pcall(encode, state)
    if not ok then return cant_move(key, tostring(err)) end
  end
  return SHARED_CANT_MOVE
end

--- All of an open stream that must survive a reload, as one string; "" where there is nothing but the
--- rule and the instance, which the runtime knows.
---@param ctx gateway.Context
---@return string? saved, string? why
function Program.save(_, ctx)
  local saved = { states = by_key(ctx, ctx._states), shared = rawget(ctx, "shared"),
    params = rawget(ctx, "params"), tasked = by_key(ctx, rawget(ctx, "_tasked")) }
  if next(saved) == nil then return "" end
  local ok, text = pcall(encode, saved)
  if not ok then return nil, why_not(saved) end
  if holds_object(saved.shared) then return nil, SHARED_CANT_MOVE end
  saved.objects = objects_in(saved.states)
  return saved.objects and encode(saved) or text
end

local function upgraded(ctx, entry, state)
  if not entry.plugin.upgrade then return state end
  ctx._slot = entry.slot
  running.at[0] = running.number(entry.name, "upgrade")
  local function fail(err) return hook_error(entry.name, "upgrade", err) end
  local ok, new = xpcall(entry.plugin.upgrade, fail, state, entry.conf, ctx)
  if not ok then return nil, tostring(new) end
  if new == nil then return state end
  return new
end

-- An object without its methods is none, unless upgrade makes it one again.
-- A plugin that has started tasks is asked to start them anew, also where it has no state.
local function restore_states(ctx, rule, saved)
  local states, objects, tasked = saved.states or {}, saved.objects or {}, saved.tasked or {}
  for slot, entry in ipairs(rule.entries) do
    local state = states[entry.key]
    if state ~= nil and objects[entry.key] and not entry.plugin.upgrade then
      return cant_move(entry.key, "it holds a table with a metatable, and the plugin has no upgrade")
    end
    if state ~= nil or tasked[entry.key] then
      local new, err = upgraded(ctx, entry, state)
      if err then return err end
      ctx._states = ctx._states or {}
      ctx._states[slot] = new
    end
  end
end

--- Goes on with an exchange that another generation saved.
---@param handle any
---@param text string from `save`
---@param rule_id string
---@param service_name string?
---@param instance_id string?
---@param again boolean it comes from this generation, whose VM was replaced
---@return gateway.Context? ctx, any flags the rule's flags; without ctx: why not
---@return number|string|nil timeout_s without ctx: "pin" or "drain", where the rule wants that
---@return integer? event_hook
function Program:adopt(handle, text, rule_id, service_name, instance_id, again)
  local saved = text ~= "" and decode(text) or {}
  local rule = self._by_id[rule_id]
  if not rule then return nil, ("route %s is not there any more"):format(rule_id) end
  local policy = rule.conf.onReload
  if not again and (policy == "pin" or policy == "drain") then return nil, nil, policy end
  local ctx = context.open(handle, rule)
  rawset(ctx, "shared", saved.shared)
  rawset(ctx, "params", saved.params)
  local service = self._services[service_name]
  ctx._instance = service and service.by_id[instance_id]
  ctx._balanced = true -- or not; but the runtime knows which instances have been tried
  local err = restore_states(ctx, rule, saved)
  if err then return nil, err end
  core.set_rule(handle, rule.id)
  bounds.set(rule.bounds, handle)
  set_clocks(handle, rule) -- also to none: the version before may have had some
  return ctx, rule.flags, rule.timeout, rule.event_hook
end

--- What becomes of open streams of a rule when they meet this version.
---@param rule_id string
---@return "adopt"|"pin"|"drain"|nil nil: there is no such rule
function Program:on_reload(rule_id)
  local rule = self._by_id[rule_id]
  return rule and rule.conf.onReload
end

--- What a host name of the configuration stands for now.
---@param number integer  of the name, in the order of `names`
---@param rows {index: integer, id: string, address: string}[]
function Program:resolved(number, rows)
  names.resolve(self._names[number], rows)
end

local FUNCTIONS = { "open", "route", "access", "balance", "response", "event", "events", "comment",
  "event_failed", "close", "save", "adopt", "on_reload", "resolved" }

--- Puts a generation together.
---@class gateway.Parts
---@field settings table                   the effective configuration
---@field instances gateway.Instance[]     of all services
---@field services table<string, gateway.Service>
---@field names gateway.Name[]?            host names, whose instances the runtime tells
---@field service_rules table[]?           of each service, for the runtime
---@field rules gateway.Rule[]
---@field outer table                      from pipeline.outer
---@field compile fun(rule: table): gateway.Rule?, string?  for rules that a route hook returns

---@param parts gateway.Parts
---@return table program the functions the runtime calls, and settings, instances and names
function pipeline.new(parts)
  local self = setmetatable({ _outer = parts.outer, _services = parts.services, _compile = parts.compile,
    _names = parts.names or {},
    _dynamic = setmetatable({}, { __mode = "k" }), _by_id = {}, _router = router.new(parts.rules) }, Program)
  local program = { settings = parts.settings, instances = parts.instances, names = self._names,
    services = parts.service_rules, event_hooks = {}, event_numbers = {} }
  for _, rule in ipairs(parts.rules) do
    self._by_id[rule.id] = rule
    if #rule.events == 1 and not rule.batch then
      table.insert(program.event_hooks, lone_event_hook(rule.events))
      table.insert(program.event_numbers, running.number(rule.events.entries[1].name, "on_event"))
      rule.event_hook = #program.event_hooks
    end
  end
  for _, name in ipairs(FUNCTIONS) do
    local method = Program[name]
    program[name] = function(a, b, c, d, e, f) return method(self, a, b, c, d, e, f) end
  end
  return program
end

return pipeline
