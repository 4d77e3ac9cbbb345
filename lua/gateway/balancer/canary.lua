--- canary: divides the requests of a rule among services, as weights say, before a policy chooses in one of
-- them. The same key goes to the same service, and more weight for one service moves keys to that one only.
-- A service that can't be asked (no instance, or an open circuit) is left out; its keys come back with it.

local draw = require("gateway.draw")
local rendezvous = require("gateway.rendezvous")
local request_key = require("gateway.request_key")
local session = require("gateway.session")

local canary = {}

---@class gateway.Canary
---@field shares gateway.Candidate[]   the services with a weight above 0
---@field read (fun(ctx: gateway.Context): string?)?
---@field session gateway.Session?     of the rule; where there is no key to read

---@param settings {services: table<string, number>, key: string?}
---@param sessions gateway.Session? of the rule
---@return gateway.Canary
function canary.new(settings, sessions)
  local self = { shares = {} }
  for name, weight in pairs(settings.services) do
    if weight > 0 then table.insert(self.shares, { id = name, weight = weight }) end
  end
  table.sort(self.shares, function(a, b) return a.id < b.id end)
  if settings.key then
    self.read = request_key.reader(settings.key)
  else
    self.session = sessions
  end
  return self
end

local function usable_shares(conf, services)
  local list = {}
  for _, share in ipairs(conf.shares) do
    if services[share.id]:can_be_asked() then list[#list + 1] = share end
  end
  return list[1] and list or conf.shares
end

local function by_key(key, shares)
  return (key and rendezvous.choose(key, shares) or draw.weighted(shares)).id
end

-- A session stays in the service that has it, also when weights have changed, and where a backend has made
-- its name.
local function by_session(sessions, ctx, shares, services)
  local key = session.key(sessions, ctx)
  for i = 1, #shares do
    local name = shares[i].id
    if session.is_at(sessions, ctx, key, services[name]:usable()) then return name end
  end
  return by_key(key, shares)
end

--- The service for a request. A retry stays with it.
---@param ctx gateway.Context
---@param conf gateway.Canary
---@param services table<string, gateway.Service>
---@return string name
function canary.choose(ctx, conf, services)
  if not ctx._canary then
    local shares = usable_shares(conf, services)
    ctx._canary = conf.session and by_session(conf.session, ctx, shares, services)
      or by_key(conf.read and conf.read(ctx), shares)
  end
  return ctx._canary
end

return canary
