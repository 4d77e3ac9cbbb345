--- gateway.client: whose request it is, where proxies that are trusted stand in front of the gateway.
-- Each of them adds the address that it was called from at the end of X-Forwarded-For. So the list is read
-- from its end, and what stands in front of the first address that is not trusted is hearsay.

local address = require("gateway.address")
local core = require("gateway.core")

local client = {}

--- The networks of `frontend.http.trustedProxies`.
---@param list string[]? checked
---@return gateway.Network[]? nil when nobody is trusted
function client.trusted(list)
  if not list or not list[1] then return nil end
  local networks = {}
  for i, text in ipairs(list) do networks[i] = assert(address.cidr(text)) end
  return networks
end

-- An entry of X-Forwarded-For; some proxies write brackets and a port.
local function entry_groups(text)
  return address.parse(text:match("^%[(.-)%]") or text:match("^([%d.]+):%d+$") or text)
end

-- From the end on, the first address that is not trusted; where all are, or one can't be read, the last one
-- that was.
local function forwarded(header, groups, trusted)
  local stop = #header
  while stop > 0 and address.within(groups, trusted) do
    local before = header:sub(1, stop)
    local start, entry = before:match("()([^,]*)$")
    local found = entry_groups((entry:gsub("^%s+", ""):gsub("%s+$", "")))
    if not found then return groups end
    groups, stop = found, start - 2
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
  local groups = address.parse(peer)
  if not groups then return peer end
  local header = trusted and ctx.req.headers["x-forwarded-for"]
  if header then groups = forwarded(header, groups, trusted) end
  return address.network(groups, #groups == 2 and bits4 or bits6)
end

return client
