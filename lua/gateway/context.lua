--- gateway.context: what hooks get as `ctx`, one table per exchange.
-- Fields are fetched from the runtime when they are first read. Made and kept by gateway.pipeline.
-- Invariant: `_slot` is the place of the running hook's plugin in the route's list while a hook
-- runs.

local core = require("gateway.core")
local event = require("gateway.event")
local failure = require("gateway.failure")
local json = require("gateway.json")
local session = require("gateway.session")
local task = require("gateway.task")

---@class gateway.Context its fields are described in meta/gateway.lua
local Context = {}

local context = {}

---@class gateway.Close   what ctx:close returns
local Close = {}

local getters = {}

function getters.req(self)
  local req = core.request(self._x)
  rawset(self, "req", req)
  return req
end

function getters.res(self)
  local res = core.response(self._x)
  rawset(self, "res", res)
  return res
end

function getters.id(self)
  local id = core.id(self._x)
  rawset(self, "id", id)
  return id
end

function getters.client(self)
  local address, port, peer_address, peer_port = core.client(self._x)
  local client = { address = address, port = port, peer = { address = peer_address, port = peer_port } }
  rawset(self, "client", client)
  return client
end

function getters.params(self)
  local params = {}
  rawset(self, "params", params)
  return params
end

function getters.shared(self)
  local shared = {}
  rawset(self, "shared", shared)
  return shared
end

function getters.route(self)
  return self._rule and self._rule.conf
end

function getters.state(self)
  local states = self._states
  if not states then
    states = {}
    self._states = states
  end
  local state = states[self._slot]
  if state == nil then
    state = {}
    states[self._slot] = state
  end
  return state
end

-- Only for bodies that are text or tables; the runtime checks names, values and the status.
local function with_type(headers, media_type)
  local copy = {}
  for name, value in pairs(headers or {}) do
    if type(name) == "string" and name:lower() == "content-type" then return headers end
    copy[name] = value
  end
  copy["Content-Type"] = media_type
  return copy
end

--- Answers the request; the backend is not asked. `return ctx:reply(...)` from a hook.
---@param status integer 200 to 599
---@param body? string|table a table is sent as JSON
---@param headers? table<string, string|string[]>
---@return any
function Context:reply(status, body, headers)
  if type(body) == "table" then
    local text, err = json.encode(body)
    if not text then error("ctx:reply: " .. err, 2) end
    body, headers = text, with_type(headers, "application/json")
  elseif body ~= nil then
    body, headers = tostring(body), with_type(headers, "text/plain; charset=utf-8")
  end
  local verdict = core.reply(self._x, status, body, headers)
  -- From now on ctx.res is the reply's head.
  rawset(self, "res", nil)
  self._replied = true
  return verdict
end

--- From `on_event`: send this event and end the stream well. Without an event, only end it.
---@param ev? gateway.Event|table
---@return gateway.Close
function Context.close(_, ev)
  return setmetatable({ event = ev }, Close)
end

local function bytes_of(value)
  if event.is(value) or type(value) == "userdata" then return event.encode(value) end
  if type(value) ~= "table" then
    error(("ctx:send: expected an event, got %s"):format(type(value)), 3)
  end
  local ok, made = pcall(event.new, value)
  if not ok then error("ctx:send: " .. failure.message(made):gsub("^[^:]*:%d+: ", ""), 3) end
  return event.encode(made)
end

--- Sends an event to the client, at once or behind the one that is on its way. It passes no hook. Waits
--- while the client is far behind.
---@param ev gateway.Event|table
function Context:send(ev)
  local text = bytes_of(ev)
  while not core.send(self._x, text) do end
end

--- Runs fn(...) as a task of this exchange, which is cancelled when that ends.
---@param fn function
---@return gateway.Task
function Context:spawn(fn, ...)
  return task.start_for("ctx:spawn", self, 0, fn, ...)
end

--- The same after that many seconds, once.
---@param seconds number
---@param fn function
---@return gateway.Task
function Context:timer(seconds, fn, ...)
  return task.start_for("ctx:timer", self, seconds, fn, ...)
end

--- Names the session of this exchange: the next request that carries this name, where the rule's source is,
--- goes to the instance that this one goes to. Before one is chosen it is also what that is chosen by.
---@param name string
function Context:stick(name)
  local conf = self._rule and self._rule.session
  if not conf then error("ctx:stick: the rule has no stickySession or sessionAffinity", 2) end
  if conf.tickets then error("ctx:stick: the rule's sessions are stateless, and kept nowhere", 2) end
  if type(name) ~= "string" or name == "" then
    error("ctx:stick: expected a text, not empty, that names a session, got " .. type(name), 2)
  end
  self._stick = name
  if self._instance then session.stick(conf, name, self._instance) end
end

--- Writes a log line that carries the request's id.
---@param level "debug"|"info"|"warn"|"error"
---@param text string
function Context:log(level, text)
  core.log(level, ("x=%s %s"):format(self.id, tostring(text)))
end

function Context:__index(key)
  local get = getters[key]
  if get then return get(self) end
  return Context[key]
end

function Context:__newindex(key, value)
  if key == "state" then
    self._states = self._states or {}
    self._states[self._slot] = value
  elseif type(key) == "string" and key:byte() == 95 then
    rawset(self, key, value)
  else
    error(("ctx.%s can't be set; keep things in ctx.state or ctx.shared"):format(tostring(key)), 2)
  end
end

Context.__metatable = false

--- A new exchange.
---@param handle any the runtime's handle of the exchange
---@param rule table the compiled rule it starts under
---@return gateway.Context
function context.open(handle, rule)
  -- All that nearly every exchange has, so that the table need not grow.
  return setmetatable({ _x = handle, _rule = rule, _slot = 0, _states = false, _replied = false,
    _balanced = false, _instance = false, req = core.request(handle) }, Context)
end

--- A context for the end, which knows its id when the exchange is over.
---@param ctx gateway.Context
---@return gateway.Context
function context.leave(ctx)
  local id, own = ctx.id, {}
  for key, value in next, ctx do own[key] = value end
  own.id = id
  return setmetatable(own, Context)
end

--- Is this what ctx:close returns?
---@param value any
---@return boolean
function context.is_close(value)
  return getmetatable(value) == Close
end

return context
