--- gateway.client: whose request it is, where proxies that are trusted stand in front of the gateway.
-- Each of them adds the address that it was called from at the end of X-Forwarded-For. So the list is read
-- from its end, and what stands in front of the first address that is not trusted is hearsay.

local network = require("gateway.network")
local core = require("gateway.core")

local byte = string.byte

local client = {}

--- The networks of `frontend.http.trustedProxies`.
---@param list string[]? checked
---@return gateway.Network[]? nil when nobody is trusted
function client.trusted(list)
  if not list or not list[1] then return nil end
  local networks = {}
  for _, text in ipairs(list) do networks[#networks + 1] = network.cidr(text) end
  return networks
end

local COMMA, LONGEST = byte(","), 64

-- The entry of the list that ends at `stop`, and where the one in front of it ends. Some proxies write
-- brackets and a port. Nil where it is no address; what is too long for one is not looked at.
local function entry_at(header, stop)
  local start = stop
  while start > 0 and byte(header, start) ~= COMMA do start = start - 1 end
  if stop - start > LONGEST then return nil end
  local text = header:sub(start + 1, stop):match("^%s*(%S*)%s*$") or ""
  local groups = network.parse(text:match("^%[(.-)%]") or text:match("^([%d.]+):%d+$") or text)
  return groups, start - 1
end

-- From the end on, the first address that is not trusted; where all are, or one can't be read, the last one
-- that was.
local function forwarded(header, groups, trusted)
  local stop = #header
  while stop > 0 and network.within(groups, trusted) do
    local found, before = entry_at(header, stop)
    if not found then return groups end
    groups, stop = found, before
  end
  return groups
end

--- The network of whoever sent the request, as bytes to be hashed.
---@param ctx gateway.Context
---@param trusted gateway.Network[]? whose X-Forwarded-For counts
---@param bits4 integer of an IPv4 address that count
---@param bits6 integer of an IPv6 address
---@return string
function client.network(ctx, trusted, bits4, bits6)
  local peer = core.client(ctx._x)
  local groups = network.parse(peer)
  if not groups then return peer end
  local header = trusted and ctx.req.headers["x-forwarded-for"]
  if header then groups = forwarded(header, groups, trusted) end
  return network.of(groups, #groups == 2 and bits4 or bits6)
end

return client
