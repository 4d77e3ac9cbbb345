--- sticky_session: the requests of one session go to one instance.
-- Another policy places new sessions, and those whose instance is gone or unhealthy.

local core = require("gateway.core")
local session = require("gateway.session")

local sticky_session = { name = "sticky_session" }

---@class gateway.Sticky
---@field session gateway.Session
---@field place fun(ctx: gateway.Context, instances: gateway.Instance[]): any  the policy for new sessions

--- Settings for `balance`.
---@param settings gateway.Session
---@param place fun(ctx: gateway.Context, instances: gateway.Instance[]): any
---@return gateway.Sticky
function sticky_session.new(settings, place)
  return { session = settings, place = place }
end

---@param ctx gateway.Context
---@param conf gateway.Sticky
---@param instances gateway.Instance[]
---@return any instance, or what the placing policy returned
function sticky_session.balance(ctx, conf, instances)
  if conf.session.tickets then
    return session.read_ticket(conf.session, ctx, instances) or conf.place(ctx, instances)
  end
  local service = instances[1].service
  local key = session.key(conf.session, ctx, service)
  if not key then return conf.place(ctx, instances) end
  local instance, known = session.find(conf.session, service, key, instances)
  if instance then return instance end
  instance = conf.place(ctx, instances)
  if not instance or instance == core.REPLY then return instance end
  return session.bind(conf.session, service, key, instance, instances, known)
end

return sticky_session
