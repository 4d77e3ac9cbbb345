--- gateway.testing.message: requests and responses as hooks see them, without a server.
-- The same fields, methods and checks as the runtime's own; ctx.req and ctx.res in specs are made
-- of these.

local message = {}

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"

local function text_of(what, value)
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then error(("%s: expected text, got %s"):format(what, type(value)), 4) end
  return value
end

-- The value of a field, as it may stand in a head.
local function check_value(name, value)
  local text = text_of(name, value):gsub("^[ \t]+", ""):gsub("[ \t]+$", "")
  if text:find("[\r\n%z]") then error(("%s: a line break or NUL can't be sent in a head"):format(name), 4) end
  if text:find("[%z\1-\8\11-\31\127]") then
    error(("%s: a control byte can't be sent in a head"):format(name), 4)
  end
  return text
end

local function check_name(name)
  if type(name) ~= "string" or not name:find(TOKEN) then
    error(('"%s" is not a header name'):format(tostring(name)), 4)
  end
  return name
end

-- How a message is framed is the gateway's business.
local FRAMING = { ["te"] = true, ["trailer"] = true, ["upgrade"] = true, ["connection"] = true,
  ["keep-alive"] = true, ["content-length"] = true, ["proxy-connection"] = true,
  ["transfer-encoding"] = true }

local function check_settable(name)
  if FRAMING[check_name(name):lower()] then
    error(("header %s belongs to the gateway's framing"):format(name), 4)
  end
end

local MAX_FIELDS = 1000

local function check_room(fields, more)
  if #fields + more > MAX_FIELDS then error(("a head has at most %d fields"):format(MAX_FIELDS), 4) end
end

-- The fields of a head in their order: {lower-case name, value}.
local function find_values(fields, name)
  local lower, values = name:lower(), {}
  for _, field in ipairs(fields) do
    if field[1] == lower then values[#values + 1] = field[2] end
  end
  return values
end

local function remove_field(fields, name)
  local lower = name:lower()
  for i = #fields, 1, -1 do
    if fields[i][1] == lower then table.remove(fields, i) end
  end
end

local function add_field(fields, name, value)
  table.insert(fields, { name:lower(), value })
end

-- Everything is checked before anything is changed.
local function set_field(fields, name, value)
  local texts = {}
  if type(value) ~= "table" then value = value ~= nil and { value } or {} end
  check_room(fields, #value)
  for i, item in ipairs(value) do texts[i] = check_value(name, item) end
  remove_field(fields, name)
  for _, text in ipairs(texts) do add_field(fields, name, text) end
end

local function is_host(name)
  return type(name) == "string" and name:lower() == "host"
end

local function headers_of(owner, fields, is_request)
  return setmetatable({}, {
    __index = function(_, name)
      if is_request and is_host(name) then return owner.host end
      local values = type(name) == "string" and find_values(fields, name) or {}
      return values[1] and table.concat(values, ", ") or nil
    end,
    __newindex = function(_, name, value)
      if is_request and is_host(name) then
        owner.host = value
        return
      end
      check_settable(name)
      set_field(fields, name, value)
    end,
  })
end

---@class gateway.testing.Message
local Message = {}

--- All values of a header, in order.
---@param name string
---@return string[]
function Message:values(name)
  if self._is_request and is_host(name) then return { self.host } end
  return find_values(self._fields, name)
end

--- Adds a header beside those of its name.
---@param name string
---@param value string
function Message:add(name, value)
  if self._is_request and is_host(name) then
    self.host = value
    return
  end
  check_settable(name)
  check_room(self._fields, 1)
  add_field(self._fields, name, check_value(name, value))
end

--- Iterates over all headers: name in lower case, value.
function Message:each()
  local i = 0
  return function()
    i = i + 1
    local field = self._fields[i]
    if field then return field[1], field[2] end
  end
end

local function unescape(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- The first value of a parameter wins.
local function parse_query(text)
  local query = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name = unescape(name)
    if query[name] == nil then query[name] = unescape(value) end
  end
  return query
end

local computed = {
  query = function(self) return parse_query(self._values.querystring) end,
  target = function(self)
    local values = self._values
    return values.querystring == "" and values.path or values.path .. "?" .. values.querystring
  end,
}

local function check_target(name, value, allow_query)
  value = text_of(name, value)
  if name ~= "querystring" and value:byte() ~= 47 then error(name .. ": begins with /", 4) end
  local bad = value:match("[^!-~]") or value:match("#") or (not allow_query and value:match("%?"))
  if bad then error(("%s: byte %d has to be percent-encoded"):format(name, bad:byte()), 4) end
  return value
end

local function check_host(value)
  if type(value) == "table" and #value == 1 then value = value[1] end
  value = text_of("host", value)
  local name, port = value:match("^([^:]+):?(%d*)$")
  if value:find("^%[") then name, port = value:match("^%[([%x:.]+)%]:?(%d*)$") end
  if not name or name:find("[^%w%-._~%%!$&'()*+,;=:]") or (port or "") > "99999" then
    error(('host: "%s" is not a host'):format(value), 4)
  end
  return value
end

local setters = {
  method = function(values, value)
    value = text_of("method", value)
    if not value:find(TOKEN) then error(('method: "%s" is not a method'):format(value), 3) end
    values.method = value
  end,
  path = function(values, value) values.path = check_target("path", value) end,
  querystring = function(values, value) values.querystring = check_target("querystring", value, true) end,
  target = function(values, value)
    values.path, values.querystring = check_target("target", value, true):match("^([^?]*)%??(.*)$")
  end,
  body = function(values, value) values.body = text_of("body", value) end,
  host = function(values, value) values.host = check_host(value) end,
  status = function(values, value)
    if type(value) ~= "number" or value < 200 or value > 599 or value % 1 ~= 0 then
      error("status: 200 to 599", 3)
    end
    values.status = value
  end,
}

local function object(values, settable)
  local self = { _fields = {}, _values = values, _is_request = values.path ~= nil }
  values.headers = headers_of(self, self._fields, self._is_request)
  return setmetatable(self, {
    __index = function(_, key)
      if computed[key] and values.path then return computed[key](self) end
      if values[key] ~= nil then return values[key] end
      return Message[key]
    end,
    __newindex = function(_, key, value)
      if not settable[key] then error(("%s can't be set"):format(tostring(key)), 2) end
      setters[key](values, value)
    end,
  })
end

local function add_headers(self, headers)
  local names = {}
  for name in pairs(headers or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do set_field(self._fields, check_name(name), headers[name]) end
end

--- A request.
---@param options gateway.testing.ContextOptions
function message.request(options)
  local path, query = (options.path or "/"):match("^([^?]*)%??(.*)$")
  local values = { method = options.method or "GET", path = path, querystring = query, version = "1.1",
    scheme = options.scheme or "http", host = options.host or "localhost", body = options.body or "" }
  local self = object(values,
    { method = true, path = true, querystring = true, target = true, host = true, body = true })
  add_headers(self, options.headers)
  return self
end

--- A response head.
---@param options {status?: integer, headers?: table}
function message.response(options)
  local values = { status = options.status or 200 }
  local self = object(values, { status = true })
  add_headers(self, options.headers)
  local media_type = (self.headers["content-type"] or ""):lower():match("^[^;%s]*")
  values.stream = values.status == 200 and media_type == "text/event-stream"
  return self
end

return message
