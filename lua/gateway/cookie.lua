--- gateway.cookie: what Set-Cookie says, of a backend's or our own. gateway.request_key reads Cookie.
-- Called by gateway.session. Holds no state.

local cookie = {}

local MONTHS = { jan = 1, feb = 2, mar = 3, apr = 4, may = 5, jun = 6, jul = 7, aug = 8, sep = 9, oct = 10,
  nov = 11, dec = 12 }

-- Days since 1970-01-01; a year begins in March here, so that the leap day is its last.
local function days(year, month, day)
  if month < 3 then year, month = year - 1, month + 12 end
  local leaps = math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
  return 365 * year + leaps + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

local function full_year(text)
  local year = tonumber(text)
  if #text > 2 then return year end
  return year + (year < 70 and 2000 or 1900)
end

--- A date as Expires has it, in the forms that RFC 6265, 5.1.1 allows: the common ones of them.
---@param text string
---@return number? seconds since 1970
function cookie.date(text)
  local day, month, year = text:match("(%d%d?)[ -](%a%a%a)%a*[ -](%d%d%d?%d?)")
  if not day then
    month, day, year = text:match("(%a%a%a) +(%d%d?) +%d+:%d+:%d+ +(%d%d%d%d)")
  end
  local hour, minute, second = text:match("(%d%d?):(%d%d?):(%d%d?)")
  month = month and MONTHS[month:lower()]
  if not month or not hour then return nil end
  return days(full_year(year), month, tonumber(day)) * 86400 + hour * 3600 + minute * 60 + second
end

-- Max-Age goes before Expires.
local function is_over(attributes, now)
  attributes = attributes:lower()
  local age = attributes:match(";%s*max%-age%s*=%s*(%-?%d+)")
  if age then return tonumber(age) <= 0 end
  local ends = attributes:match(";%s*expires%s*=%s*([^;]*)")
  ends = ends and cookie.date(ends)
  return ends ~= nil and ends <= now
end

--- What a response says of a cookie; of several words about it the last one counts, as in browsers.
---@param lines string[] values of Set-Cookie
---@param name string
---@param now number seconds since 1970
---@return string? value as a request will carry it; "" when the cookie is deleted; nil: nothing is said
function cookie.find_set(lines, name, now)
  for i = #lines, 1, -1 do
    -- A name has no blanks, and none are looked for in it: a backend may send thousands of them.
    local first = lines[i]:match("^%s*()")
    local key, value, attributes = lines[i]:match("^([^=;%s]*)%s*=%s*([^;, ]*)(.*)$", first)
    if key == name then return is_over(attributes, now) and "" or value end
  end
end

---@class gateway.CookieAttributes
---@field path string
---@field domain string?
---@field max_age number?  seconds

--- A value of Set-Cookie, for a cookie that scripts in pages can't read.
---@param name string
---@param value string
---@param attributes gateway.CookieAttributes
---@param secure boolean  the client came by https
---@return string
function cookie.format(name, value, attributes, secure)
  local parts = { name .. "=" .. value, "Path=" .. attributes.path }
  if attributes.domain then parts[#parts + 1] = "Domain=" .. attributes.domain end
  if attributes.max_age then parts[#parts + 1] = ("Max-Age=%d"):format(math.max(1, attributes.max_age)) end
  parts[#parts + 1] = "HttpOnly"
  parts[#parts + 1] = "SameSite=Lax"
  if secure then parts[#parts + 1] = "Secure" end
  return table.concat(parts, "; ")
end

return cookie
