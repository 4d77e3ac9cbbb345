--- gateway.ticket: a signed text that names an instance, for sessions that no table remembers. Who has
-- the secret can read and make them, so gateways agree that know nothing of each other. Called by
-- gateway.session.
-- Invariant: nothing of a ticket is believed before its signature was found right.

local core = require("gateway.core")

local ticket = {}

-- EXPIRES.NAME.SIGNATURE: the second since 1970 at which it runs out in decimal digits (0: it does not), what
-- the instance is called, and an HMAC-SHA256, in hexadecimal ones.
local FORM = "^(%d+)%.(%x+)%.(%x+)$"
local LONGEST, NAME_DIGITS = 128, 32
-- Clocks of gateways differ; one that is ahead must not have its tickets made anew by the others.
local SKEW_S = 60

---@class gateway.TicketKey
---@field secret string
---@field names table<gateway.Instance, string>  what instances are called under it

---@class gateway.Tickets
---@field ttl number          seconds; 0: without an end
---@field keys gateway.TicketKey[]  the first one signs; all are accepted

--- For one route.
---@param secrets string[]
---@param ttl number
---@return gateway.Tickets
function ticket.new(secrets, ttl)
  local keys = {}
  for i, secret in ipairs(secrets) do
    keys[i] = { secret = secret, names = setmetatable({}, { __mode = "k" }) }
    -- What the library has to set up when it is first used must not keep a request waiting.
    core.hmac_sha256(secret, "")
  end
  return { ttl = ttl, keys = keys }
end

-- Keyed, so that clients can't find out by trying what an instance is called inside.
local function name_of(key, instance)
  local name = key.names[instance]
  if not name then
    local mac = core.hmac_sha256(key.secret, "instance\0" .. instance.service .. "\0" .. instance.id)
    name = mac:sub(1, NAME_DIGITS)
    key.names[instance] = name
  end
  return name
end

local function sign(key, service, expires, name)
  return core.hmac_sha256(key.secret, ("ticket\0%s\0%s.%s"):format(service, expires, name))
end

--- A ticket to an instance.
---@param tickets gateway.Tickets
---@param instance gateway.Instance
---@return string
function ticket.issue(tickets, instance)
  local key, ttl = tickets.keys[1], tickets.ttl
  local expires = ("%d"):format(ttl > 0 and math.ceil(core.time() + ttl) or 0)
  local name = name_of(key, instance)
  return ("%s.%s.%s"):format(expires, name, sign(key, instance.service, expires, name))
end

local function signer(tickets, service, expires, name, signature)
  for i = 1, #tickets.keys do
    if core.equal(sign(tickets.keys[i], service, expires, name), signature) then return i end
  end
end

-- Half of its time is over; or it was made under another ttl.
local function is_due(ttl, expires, now)
  if ttl == 0 then return expires ~= 0 end
  local left = expires - now
  return left < ttl / 2 or left > ttl + SKEW_S
end

--- Reads what a client sent.
---@param tickets gateway.Tickets
---@param text string
---@param instances gateway.Instance[] of one service, those that may be used
---@return gateway.Instance? instance nil when the ticket is none, or its instance is not among them
---@return boolean due whether a new one is to be issued
---@return string? refused why the ticket is none
function ticket.read(tickets, text, instances)
  local expires, name, signature = text:match(FORM)
  if not expires or #text > LONGEST then return nil, true, "malformed" end
  local number = signer(tickets, instances[1].service, expires, name, signature)
  if not number then return nil, true, "not signed for this service with any of the secrets" end
  local seconds, now = tonumber(expires), core.time()
  if seconds ~= 0 and seconds <= now then return nil, true, "expired" end
  local key = tickets.keys[number]
  for i = 1, #instances do
    if name_of(key, instances[i]) == name then
      return instances[i], number > 1 or is_due(tickets.ttl, seconds, now)
    end
  end
  return nil, true
end

return ticket
