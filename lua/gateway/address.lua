--- IP addresses as text. Called by gateway.settings and gateway.config; holds no state.

local address = {}

local function is_ipv4(text)
  local count = 0
  for part in (text .. "."):gmatch("([^.]*)%.") do
    count = count + 1
    -- No leading zeros: some read them as octal, and two readers of one file must not differ.
    if not part:find("^%d%d?%d?$") or part:find("^0%d") or tonumber(part) > 255 then return false end
  end
  return count == 4
end

-- How many 16-bit groups a colon-separated text has; nil if one of them is none.
local function groups(text, may_end_in_ipv4)
  if text == "" then return 0 end
  local count = 0
  for part, last in (text .. ":"):gmatch("([^:]*):()") do
    local at_end = last > #text + 1
    if part:find("^%x%x?%x?%x?$") then
      count = count + 1
    elseif at_end and may_end_in_ipv4 and is_ipv4(part) then
      count = count + 2
    else
      return nil
    end
  end
  return count
end

-- RFC 4291, section 2.2; no zone.
local function is_ipv6(text)
  local head, tail = text:match("^(.-)::(.*)$")
  if not head then return groups(text, true) == 8 end
  local before, after = groups(head, false), groups(tail, true)
  return before ~= nil and after ~= nil and before + after <= 7
end

---@param text string
---@return 4|6|nil  nil if it is no IP address
function address.family(text)
  if is_ipv4(text) then return 4 end
  if text:find(":", 1, true) and is_ipv6(text) then return 6 end
  return nil
end

return address
