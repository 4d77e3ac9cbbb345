--- gateway.testing: run a plugin without a server, from busted or any Lua script.
--     local t = require("gateway.testing")
--     local plugin = t.plugin("plugins/event_filter.lua", { drop = { "debug" } })
--     local events = plugin:event(t.context(), { type = "debug", data = "x" })   -- {}
-- The hooks run in the gateway's own pipeline, sandbox and schema; only the runtime below is a
-- stand-in.

-- Inside gatewayd there is a real core; a script or a spec has none.
if not package.loaded["gateway.core"] then
  package.loaded["gateway.core"] = require("gateway.testing.core")
end

local clock = require("gateway.testing.clock")
local context = require("gateway.context")
local core = require("gateway.core")
local event = require("gateway.event")
local http = require("gateway.testing.http")
local message = require("gateway.testing.message")
local pipeline = require("gateway.pipeline")
local plugin = require("gateway.plugin")
local policies = require("gateway.policies")
local sandbox = require("gateway.sandbox")
local service = require("gateway.service")
local source = require("gateway.source")

local testing = {
  --- What the stand-in saw: logs, errors, sessions, now.
  state = core.state,
  reset = core.reset,
}

--- Lets time pass: timers and tasks run as theirs comes. (A hook that waits is waited for anyway.)
---@param seconds number
function testing.advance(seconds)
  clock.advance(seconds)
end

--- Says what gateway.http is answered: by URL, with or without the method in front and the query behind
--- ("*": any other), an answer or a function that makes one of the call; or one function for all.
---@param answers gateway.testing.Answers|table<string, gateway.testing.Answer|gateway.testing.Answers>
function testing.http(answers)
  http.answers = answers
end

--- What has been asked since the last reset, in order.
---@return gateway.testing.Call[]
function testing.calls()
  return http.calls
end

--- Reads an event stream as a list of events.
testing.events = event.parse

---@class gateway.testing.ContextOptions
---@field method? string                   GET
---@field path? string                     "/", may hold a query
---@field headers? table<string, string|string[]>
---@field host? string
---@field scheme? string
---@field body? string                    of the request
---@field params? table<string, string>    what `{name}` parts matched
---@field client? string                   address; 192.0.2.1
---@field peer? string                     address of the trusted proxy that has named the client
---@field id? string                       the request's id
---@field response? {status?: integer, headers?: table}  what the backend answered; an event stream

--- A handle as the runtime's.
local function new_handle(options)
  return {
    request = message.request(options),
    response = message.response(options.response or { headers = { ["Content-Type"] = "text/event-stream" } }),
    address = options.client or "192.0.2.1", port = not options.peer and 12345 or 0, peer = options.peer,
    id = options.id or "test-1", tried = {},
  }
end

--- A context for hooks.
---@param options? gateway.testing.ContextOptions
---@return gateway.Context
function testing.context(options)
  options = options or {}
  local ctx = context.open(new_handle(options), nil)
  ctx._x.ctx = ctx
  if options.params then rawset(ctx, "params", options.params) end
  return ctx
end

local function take_sent(ctx)
  local text = ctx._x.sent or ""
  ctx._x.sent = nil
  return event.parse(text)
end

--- What ctx:send has sent since it was last asked for. `event` and `stream` give it among theirs.
---@param ctx gateway.Context
---@return gateway.Event[]
function testing.sent(ctx)
  return take_sent(ctx)
end

---@class gateway.testing.Chain one or more plugins as one route would run them
---@field _program table
---@field _rule gateway.Rule
---@field _service gateway.Service
---@field _services table<string, gateway.Service>
local Chain = {}
Chain.__index = Chain

-- A plugin's own errors, as text with the file and line in it.
local function call(fn, ...)
  local results = { pcall(clock.run, fn, ...) }
  if not results[1] then error(tostring(results[2]), 0) end
  return unpack(results, 2, 3)
end

function Chain:_enter(ctx)
  if ctx._rule ~= self._rule then ctx._rule = self._rule end
  return ctx
end

local function reply_of(ctx)
  local reply = ctx._x.reply
  return { status = reply.status, headers = reply.headers, body = reply._body, error = reply.error,
    head = reply }
end

--- Runs the `route` hooks and the router, which has one rule: `/*`.
---@param ctx gateway.Context
---@return string|table id of the rule, or the reply {status, headers, body}
function Chain:route(ctx)
  ctx._rule = self._outer
  if call(self._program.route, ctx) == core.REPLY then return reply_of(ctx) end
  return ctx._rule.id
end

--- Runs the `access` hooks.
---@param ctx gateway.Context
---@return table? reply {status, headers, body} when a hook replied
function Chain:access(ctx)
  if call(self._program.access, self:_enter(ctx)) == core.REPLY then return reply_of(ctx) end
end

--- Runs the `balance` hooks, and the rule's policy after them: round_robin where it names none.
---@param ctx gateway.Context
---@param instances? table[] {id=, weight=, …}; two by default
---@return table? instance, or the reply
function Chain:balance(ctx, instances)
  self:_enter(ctx)
  if instances then self:_use(instances) end
  local index = call(self._program.balance, ctx)
  if index == core.REPLY then return reply_of(ctx) end
  return self._service.instances[index]
end

--- Runs the `on_response` hooks; look at ctx.res afterwards.
---@param ctx gateway.Context
---@return table? reply {status, headers, body} when a hook replied
function Chain:response(ctx)
  if call(self._program.response, self:_enter(ctx)) == core.REPLY then return reply_of(ctx) end
  ctx._x.answered = true
end

-- An event as the runtime would hand it over.
local function incoming(ev)
  return event.is(ev) and ev or event.new(ev)
end

--- Runs the `on_event` hooks.
---@param ctx gateway.Context
---@param ev gateway.Event|table {type=, id=, data=, json=, retry=}
---@return gateway.Event[] events what goes on to the client
---@return boolean closed whether the stream ends with them
function Chain:event(ctx, ev)
  ev = incoming(ev)
  ctx._x.streaming = true
  local comment = self._rule.comments and not event.has_fields(ev)
  local run = comment and self._program.comment or self._program.event
  local out, closed = call(run, self:_enter(ctx), ev)
  local events = take_sent(ctx)
  if out == nil then out = { ev } end
  for _, item in ipairs(out or {}) do
    events[#events + 1] = item == ev and ev or event.parse(item)[1]
  end
  return events, closed or false
end

-- The events as the runtime hands them to a plugin that takes many: those that are there together.
function Chain:_batch(ctx, list, out)
  local given, closed = call(self._program.events, self:_enter(ctx), list)
  for _, item in ipairs(given == nil and list or given or {}) do
    out[#out + 1] = type(item) == "string" and item or event.encode(item)
  end
  return closed or false
end

function Chain:_stream_batches(ctx, list)
  local out, batch = {}, {}
  ctx._x.streaming = true
  for i, ev in ipairs(list) do
    local many = event.has_fields(ev)
    if many then batch[#batch + 1] = ev end
    if batch[1] and (not many or #batch == 64 or i == #list) then
      if self:_batch(ctx, batch, out) then return table.concat(out), true end
      batch = {}
    end
    if not many then
      local events, closed = { ev }, false
      if self:_sees(ev) then events, closed = self:event(ctx, ev) end
      for _, item in ipairs(events) do out[#out + 1] = event.encode(item) end
      if closed then return table.concat(out), true end
    end
  end
  return table.concat(out), false
end

-- Blocks that no hook sees pass by: blank lines, and comments unless a plugin has asked for them.
function Chain:_sees(ev)
  return event.has_fields(ev) or self._rule.comments and ev.comment ~= nil
end

--- Feeds a whole stream.
---@param ctx gateway.Context
---@param text string
---@return string text what the client gets
---@return boolean closed
function Chain:stream(ctx, text)
  local out = {}
  if self._rule.batch then return self:_stream_batches(ctx, event.parse(text)) end
  for _, ev in ipairs(event.parse(text)) do
    local events, closed = { ev }, false
    if self:_sees(ev) then events, closed = self:event(ctx, ev) end
    for _, item in ipairs(events) do out[#out + 1] = event.encode(item) end
    if closed then return table.concat(out), true end
  end
  return table.concat(out), false
end

--- Runs the `on_close` hooks.
---@param ctx gateway.Context
---@param reason? string "ok"
function Chain:close(ctx, reason)
  call(function()
    local i = 0
    repeat i = i + 1 until not self._program.close(self:_enter(ctx), reason or "ok", i)
  end)
  clock.drop_all(function(task) return task.handle == ctx._x end)
end

--- Takes over an exchange from another chain, as a reload does; runs `upgrade`.
---@param ctx gateway.Context
---@return gateway.Context ctx the exchange under this chain
function Chain:adopt(ctx)
  local saved, err = self._program.save(ctx)
  if not saved then error(err, 2) end
  clock.drop_all(function(task)
    if task.handle ~= ctx._x then return false end
    return task.movable or error("a task keeps the stream under its old version", 0)
  end)
  local at = ctx._instance or {}
  local adopted, why = self._program.adopt(ctx._x, saved, ctx._rule.id, at.service, at.id, true)
  ctx._x.ctx = adopted
  return adopted or error(why, 2)
end

function Chain:_use(instances)
  self._service = service.new("test")
  self._services[self._rule.conf.serviceName] = self._service
  for i, given in ipairs(instances) do
    local instance = { index = i, service = "test", address = "127.0.0.1", port = 3000 + i, weight = 1,
      health = "healthy" }
    for key, value in pairs(given) do instance[key] = value end
    instance.id = instance.id or "test-" .. i
    self._service:add(instance)
  end
end

local function load_plugin(what)
  if type(what) == "table" then
    local errors = plugin.verify(what, what.name)
    return #errors == 0 and what or nil, errors
  end
  local files, dirs = source.disk(), { source.folder(what) }
  return plugin.open(files, dirs, sandbox.new(files, dirs)):file(what)
end

local function entry_of(item, rule)
  local value, errors = load_plugin(item[1])
  if not value then error(table.concat(errors, "\n"), 0) end
  local found = {}
  local entry = plugin.entry(value, { conf = item[2], onError = item.onError }, rule, function(path, text)
    table.insert(found, #path > 0 and table.concat(path, ".") .. ": " .. text or text)
  end, {})
  if not entry then error(value.name .. ": " .. table.concat(found, "\n"), 0) end
  return entry
end

--- Several plugins in the order of a route's list, outermost first.
---@param list {[1]: string|table, [2]: table?, onError: string?}[] file or plugin table, settings
---@param rule? table keys of a rule, for plugins that look at ctx.route
---@return gateway.testing.Chain
function testing.chain(list, rule)
  local conf = { id = "test", path = "/*", serviceName = "test", timeout = 0 }
  for key, value in pairs(rule or {}) do conf[key] = value end
  policies.complete(conf)
  local entries = {}
  for i, item in ipairs(list) do entries[i] = entry_of(item, conf) end
  local self = setmetatable({ _rule = pipeline.compile(conf, entries), _outer = pipeline.outer(entries),
    _services = {} }, Chain)
  self:_use({ {}, {} })
  self._program = pipeline.new({ settings = {}, instances = {}, rules = { self._rule },
    services = self._services, outer = self._outer,
    compile = function() return nil, "specs have one rule" end })
  return self
end

--- One plugin, loaded and checked as gatewayd would; what is wrong with it or its settings is
--- raised.
---@param what string|table file, or a plugin table
---@param conf? table settings, as in YAML
---@param options? {onError: "fail"|"skip"}
---@return gateway.testing.Chain
function testing.plugin(what, conf, options)
  return testing.chain({ { what, conf or {}, onError = options and options.onError } })
end

return testing
