--- gateway.session: which session a request belongs to, and which instance a session is bound to.
-- The table of sessions is the runtime's (all workers share it); this is what is kept in it and
-- when. Stateless sessions are in no table: their cookie is a ticket. Called by
-- gateway.balancer.sticky_session, by gateway.pipeline at the response head, and by ctx:stick.

local cookie = require("gateway.cookie")
local core = require("gateway.core")
local request_key = require("gateway.request_key")
local ticket = require("gateway.ticket")

local session = {}

---@class gateway.Session the settings of one route, from `session.compile`
---@field ttl number
---@field max_entries integer?
---@field sources gateway.KeySource[]  looked at in this order
---@field named gateway.KeySource[]    of these, the ones that ctx:stick names a session for
---@field begins boolean?                  a request without a session begins one
---@field cookie gateway.CookieAttributes  of the cookie that the gateway sets
---@field tickets gateway.Tickets?         the session is stateless
---@field at_head (fun(conf: gateway.Session, ctx: gateway.Context))?  at each response head

local STICKY = {
  { kind = "cookie", name = "GATEWAY_SESSION" },
  { kind = "header", name = "X-Session-Id" },
  { kind = "header", name = "X-User-ID" },
  { kind = "ip" },
}
-- An address is no name that anybody gives.
local STICKY_NAMED = { STICKY[1], STICKY[2], STICKY[3] }

local function key_of(source, value)
  return source.kind .. ":" .. (source.name or "") .. "=" .. value
end

local function store(conf, service, key, instance)
  core.session_set(service, key, instance.id, conf.ttl, conf.max_entries)
end

--- What is done at the response head -----------------------------------------------------------------

local function set_cookie(conf, ctx, value)
  local secure = ctx.req.scheme == "https"
  ctx.res:add("Set-Cookie", cookie.format(conf.sources[1].name, value, conf.cookie, secure))
end

local function begin_session(conf, ctx)
  if ctx._new_session then set_cookie(conf, ctx, ctx._new_session) end
end

local function renew_ticket(conf, ctx)
  local instance = ctx._ticket_due and ctx._instance
  if instance then set_cookie(conf, ctx, ticket.issue(conf.tickets, instance)) end
end

local function learn_header(conf, ctx)
  local instance, source = ctx._instance, conf.sources[1]
  local value = instance and ctx.res.headers[source.name]
  if not value or value == "" or value == ctx.req.headers[source.name] then return end
  store(conf, instance.service, key_of(source, value), instance)
end

local function learn_cookie(conf, ctx)
  local instance, source = ctx._instance, conf.sources[1]
  local value = instance and cookie.find_set(ctx.res:values("Set-Cookie"), source.name, core.time())
  if not value then return end
  if value ~= "" then return store(conf, instance.service, key_of(source, value), instance) end
  local old = request_key.value(source, ctx)
  if old then core.session_delete(instance.service, key_of(source, old)) end
end

--- The settings of a route ---------------------------------------------------------------------------

-- What `source: cookie` means: a cookie of the backend's, one that holds everything, or one of ours.
local function compile_cookie(conf, affinity)
  if affinity.learn then
    conf.at_head = learn_cookie
  elseif affinity.stateless then
    conf.at_head, conf.tickets = renew_ticket, ticket.new(affinity.secrets, affinity.ttl)
  else
    conf.at_head, conf.begins = begin_session, true
  end
  conf.cookie = { path = affinity.cookiePath or "/", domain = affinity.cookieDomain,
    max_age = affinity.ttl > 0 and affinity.ttl or nil }
end

--- The settings of a route, ready for use; nil when it has no sessions.
---@param rule table as configured
---@return gateway.Session?
function session.compile(rule)
  local affinity, sticky = rule.sessionAffinity, rule.stickySession
  if affinity and affinity.enabled then
    local kind = affinity.source
    local name = ({ cookie = affinity.cookieName, header = affinity.headerName, query = affinity.queryParam,
      path = affinity.pathParam })[kind]
    local sources = { { kind = kind, name = name } }
    local conf = { ttl = affinity.ttl, max_entries = affinity.maxEntries, sources = sources, named = sources }
    if kind == "cookie" then compile_cookie(conf, affinity) end
    if kind == "header" then conf.at_head = learn_header end
    return conf
  elseif sticky and sticky.enabled then
    return { ttl = sticky.ttl, max_entries = sticky.maxEntries, sources = STICKY, named = STICKY_NAMED }
  end
end

--- Keys and what they are bound to -------------------------------------------------------------------

-- ctx:stick has named the session. Where several sources may, it is known under any of them.
local function stuck_key(conf, ctx, service)
  for i = 2, service and #conf.named or 0 do
    local key = key_of(conf.named[i], ctx._stick)
    if core.session_get(service, key, conf.ttl) then return key end
  end
  return key_of(conf.named[1], ctx._stick)
end

--- The key of the request's session, nil when nothing in the request tells. Where the route sets a
--- cookie and the request has none, a new session begins. A ticket is no key: it is renewed.
---@param conf gateway.Session
---@param ctx gateway.Context
---@param service string? nil: not chosen yet
---@return string? key
function session.key(conf, ctx, service)
  if conf.tickets then return nil end
  if ctx._stick then return stuck_key(conf, ctx, service) end
  for i = 1, #conf.sources do
    local source = conf.sources[i]
    local value = request_key.value(source, ctx)
    if value then return key_of(source, value) end
  end
  if not conf.begins then return nil end
  -- A retry goes on with the session that its first attempt began.
  ctx._new_session = ctx._new_session or core.random(16)
  return key_of(conf.sources[1], ctx._new_session)
end

local function by_id(instances, id)
  for i = 1, #instances do
    if instances[i].id == id then return instances[i] end
  end
end

--- The instance a session is bound to, among those that may be used.
---@param conf gateway.Session
---@param service string
---@param key string
---@param instances gateway.Instance[]
---@return gateway.Instance? instance, boolean known whether the session exists
function session.find(conf, service, key, instances)
  local id = core.session_get(service, key, conf.ttl)
  if not id then return nil, false end
  return by_id(instances, id), true
end

--- Binds a session to an instance. A new session may have been bound by another worker just now;
--- then that counts.
---@param conf gateway.Session
---@param service string
---@param key string
---@param instance gateway.Instance
---@param instances gateway.Instance[]
---@param moved boolean the session exists, and its instance can't be used
---@return gateway.Instance
function session.bind(conf, service, key, instance, instances, moved)
  if moved then
    store(conf, service, key, instance)
    return instance
  end
  local id = core.session_add(service, key, instance.id, conf.ttl, conf.max_entries)
  return by_id(instances, id) or instance
end

--- Binds the session that ctx:stick has named to an instance, whatever it was bound to.
---@param conf gateway.Session
---@param name string
---@param instance gateway.Instance
function session.stick(conf, name, instance)
  for i = 1, #conf.named do store(conf, instance.service, key_of(conf.named[i], name), instance) end
end

--- Whether the request's session is at one of these instances, for who chooses among services.
---@param conf gateway.Session
---@param ctx gateway.Context
---@param key string? from session.key
---@param instances gateway.Instance[] of one service
---@return boolean
function session.is_at(conf, ctx, key, instances)
  if not instances[1] then return false end
  if not conf.tickets then
    return key ~= nil and session.find(conf, instances[1].service, key, instances) ~= nil
  end
  local text = request_key.value(conf.sources[1], ctx)
  return text ~= nil and ticket.read(conf.tickets, text, instances) ~= nil
end

--- Where sessions are stateless: the instance that the request's cookie names, if that may be used.
---@param conf gateway.Session
---@param ctx gateway.Context
---@param instances gateway.Instance[]
---@return gateway.Instance?
function session.read_ticket(conf, ctx, instances)
  local text = request_key.value(conf.sources[1], ctx)
  ctx._ticket_due = true
  if not text then return nil end
  local instance, due, refused = ticket.read(conf.tickets, text, instances)
  ctx._ticket_due = due
  if refused then
    ctx:log("debug", ("the cookie %s counts as none: %s"):format(conf.sources[1].name, refused))
  end
  return instance
end

return session
