--- gateway.network: IP addresses and networks as numbers. Called by gateway.address, gateway.settings and
-- gateway.client; holds no state.

local bit = require("bit")

local band, lshift, rshift = bit.band, bit.lshift, bit.rshift

local network = {}

-- 16-bit groups: two. No loop, which LuaJIT would compile while a version is loaded: the code of a VM that is
-- stopped by force and not in compiled code is never freed.
local function ipv4_groups(text)
  local a, b, c, d = text:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$")
  -- No leading zeros: some read them as octal, and two readers of one file must not differ.
  if not a or text:find("%f[%d]0%d") then return nil end
  a, b, c, d = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
  if a > 255 or b > 255 or c > 255 or d > 255 then return nil end
  return { a * 256 + b, c * 256 + d }
end

-- The groups of one side of "::"; nil if one of them is none.
local function ipv6_side(text, may_end_in_ipv4)
  local groups = {}
  if text == "" then return groups end
  for part, last in (text .. ":"):gmatch("([^:]*):()") do
    local ipv4 = last > #text + 1 and may_end_in_ipv4 and ipv4_groups(part)
    if part:find("^%x%x?%x?%x?$") then
      groups[#groups + 1] = tonumber(part, 16)
    elseif ipv4 then
      groups[#groups + 1], groups[#groups + 2] = ipv4[1], ipv4[2]
    else
      return nil
    end
  end
  return groups
end

-- RFC 4291, section 2.2; no zone. Eight groups.
local function ipv6_groups(text)
  local head, tail = text:match("^(.-)::(.*)$")
  if not head then
    local groups = ipv6_side(text, true)
    return groups and #groups == 8 and groups or nil
  end
  local before, after = ipv6_side(head, false), ipv6_side(tail, true)
  if not before or not after or #before + #after > 7 then return nil end
  local zeros = 8 - #before - #after
  for _ = 1, zeros do before[#before + 1] = 0 end
  for _, group in ipairs(after) do before[#before + 1] = group end
  return before
end

local function is_mapped(groups)
  for i = 1, 5 do
    if groups[i] ~= 0 then return false end
  end
  return groups[6] == 0xffff
end

---@param text string
---@return 4|6|nil  nil if it is no IP address
function network.family(text)
  if ipv4_groups(text) then return 4 end
  if text:find(":", 1, true) and ipv6_groups(text) then return 6 end
  return nil
end

--- An address as 16-bit groups: two of IPv4, eight of IPv6. An IPv4 address in IPv6 clothes
--- (::ffff:a.b.c.d) becomes an IPv4 one, as it does in the runtime.
---@param text string
---@return integer[]? nil if it is no IP address
function network.parse(text)
  local groups = ipv4_groups(text)
  if groups or not text:find(":", 1, true) then return groups end
  groups = ipv6_groups(text)
  if groups and is_mapped(groups) then return { groups[7], groups[8] } end
  return groups
end

--- The network that an address lies in, as bytes.
---@param groups integer[] from network.parse
---@param bits integer how many of the address name the network
---@return string
function network.of(groups, bits)
  local bytes = {}
  for i = 1, #groups do
    local spare = math.max(0, math.min(16, 16 * i - bits))
    local group = lshift(rshift(groups[i], spare), spare)
    bytes[2 * i - 1], bytes[2 * i] = rshift(group, 8), band(group, 255)
  end
  return string.char(unpack(bytes))
end

--- Whether a text is a network, in the form of "10.0.0.0/8"; an address alone is a network of one. What lies
--- in it the runtime knows.
---@param text string
---@return true?
---@return string? why not
function network.cidr(text)
  local host, bits = text:match("^([^/]*)/(%d+)$")
  local groups = network.parse(host or text)
  if not groups then
    return nil, ('"%s" is not a network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1'):format(text)
  end
  local most = 16 * #groups
  bits = tonumber(bits) or most
  if bits > most then return nil, ('"%s": there are %d bits'):format(text, most) end
  return true
end

return network
