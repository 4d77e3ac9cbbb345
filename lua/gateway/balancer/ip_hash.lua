--- ip_hash: the same instance for the same client, or for all clients of one network, as long as it is there.

local client = require("gateway.client")
local rendezvous = require("gateway.rendezvous")

local ip_hash = { name = "ip_hash" }

---@class gateway.IpHash
---@field network fun(ctx: gateway.Context, bits4: integer, bits6: integer): string
---@field bits4 integer
---@field bits6 integer

---@param settings {useForwardedFor: boolean?, subnetMask: integer, subnetMask6: integer}
---@return gateway.IpHash
function ip_hash.new(settings)
  return { network = settings.useForwardedFor == false and client.peer_network or client.network,
    bits4 = settings.subnetMask, bits6 = settings.subnetMask6 }
end

---@param ctx gateway.Context
---@param conf gateway.IpHash
---@param instances gateway.Instance[]
---@return gateway.Instance? nil when no instance has a weight above 0
function ip_hash.balance(ctx, conf, instances)
  return rendezvous.choose(conf.network(ctx, conf.bits4, conf.bits6), instances)
end

return ip_hash
