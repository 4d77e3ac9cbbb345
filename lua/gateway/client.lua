--- gateway.client: the network of whoever sent a request, for policies. Whose request it is the runtime
-- knows, behind proxies that are trusted too.

local network = require("gateway.network")
local core = require("gateway.core")

local client = {}

local function place(address, bits4, bits6)
  local groups = network.parse(address)
  return groups and network.of(groups, #groups == 2 and bits4 or bits6) or address
end

--- The client's network as bytes to be hashed. What has no IP address (a unix socket) is one of its own.
---@param ctx gateway.Context
---@param bits4 integer of an IPv4 address that count
---@param bits6 integer of an IPv6 address
---@return string
function client.network(ctx, bits4, bits6)
  return place((core.client(ctx._x)), bits4, bits6)
end

--- The same of whoever is connected, a proxy perhaps.
---@param ctx gateway.Context
---@param bits4 integer
---@param bits6 integer
---@return string
function client.peer_network(ctx, bits4, bits6)
  local _, _, peer = core.client(ctx._x)
  return place(peer, bits4, bits6)
end

return client
