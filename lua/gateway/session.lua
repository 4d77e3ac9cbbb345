--- gateway.session: which session a request belongs to, and which instance a session is bound to.
-- The table of sessions is the runtime's (all workers share it); this is what is kept in it and
-- when. Called by gateway.balancer.sticky_session and, at the response head, by gateway.pipeline.

local core = require("gateway.core")
local request_key = require("gateway.request_key")

local session = {}

---@class gateway.Session the settings of one route, from `session.compile`
---@field ttl number
---@field max_entries integer?
---@field sources gateway.KeySource[]  looked at in this order
---@field set_cookie string?   the cookie to set when it is missing
---@field learn string?        the response header that teaches a session

local STICKY = {
  { kind = "cookie", name = "GATEWAY_SESSION" },
  { kind = "header", name = "X-Session-Id" },
  { kind = "header", name = "X-User-ID" },
  { kind = "ip" },
}

--- The settings of a route, ready for use; nil when it has no sessions.
---@param rule table as configured
---@return gateway.Session?
function session.compile(rule)
  local affinity, sticky = rule.sessionAffinity, rule.stickySession
  if affinity and affinity.enabled then
    local kind = affinity.source
    local name = ({ cookie = affinity.cookieName, header = affinity.headerName, query = affinity.queryParam,
      path = affinity.pathParam })[kind]
    return {
      ttl = affinity.ttl, max_entries = affinity.maxEntries, sources = { { kind = kind, name = name } },
      set_cookie = kind == "cookie" and name or nil, learn = kind == "header" and name or nil,
    }
  elseif sticky and sticky.enabled then
    return { ttl = sticky.ttl, max_entries = sticky.maxEntries, sources = STICKY }
  end
end

local function key_of(source, value)
  return source.kind .. ":" .. (source.name or "") .. "=" .. value
end

--- The key of the request's session, nil when nothing in the request tells. Where the route sets a
--- cookie and the request has none, a new session begins.
---@param conf gateway.Session
---@param ctx gateway.Context
---@return string? key
function session.key(conf, ctx)
  for i = 1, #conf.sources do
    local source = conf.sources[i]
    local value = request_key.value(source, ctx)
    if value then return key_of(source, value) end
  end
  if not conf.set_cookie then return nil end
  -- A retry goes on with the session that its first attempt began.
  ctx._new_session = ctx._new_session or core.random(16)
  return key_of(conf.sources[1], ctx._new_session)
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
  for i = 1, #instances do
    if instances[i].id == id then return instances[i], true end
  end
  return nil, true
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
    core.session_set(service, key, instance.id, conf.ttl, conf.max_entries)
    return instance
  end
  local id = core.session_add(service, key, instance.id, conf.ttl, conf.max_entries)
  if id == instance.id then return instance end
  for i = 1, #instances do
    if instances[i].id == id then return instances[i] end
  end
  return instance
end

local function set_cookie(conf, ctx)
  local parts = { conf.set_cookie .. "=" .. ctx._new_session, "Path=/" }
  if conf.ttl > 0 then parts[#parts + 1] = ("Max-Age=%d"):format(math.max(1, conf.ttl)) end
  parts[#parts + 1] = "HttpOnly"
  parts[#parts + 1] = "SameSite=Lax"
  if ctx.req.scheme == "https" then parts[#parts + 1] = "Secure" end
  ctx.res:add("Set-Cookie", table.concat(parts, "; "))
end

--- At the response head, before the hooks: sets the cookie of a new session, or learns one from a
--- header.
---@param conf gateway.Session
---@param ctx gateway.Context
function session.on_response(conf, ctx)
  if conf.set_cookie and ctx._new_session then set_cookie(conf, ctx) end
  local instance = conf.learn and ctx._instance
  if not instance then return end
  local value = ctx.res.headers[conf.learn]
  if not value or value == "" or value == ctx.req.headers[conf.learn] then return end
  core.session_set(instance.service, key_of(conf.sources[1], value), instance.id, conf.ttl, conf.max_entries)
end

return session
