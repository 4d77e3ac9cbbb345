--- gateway.testing.message: requests and responses as hooks see them, without a server.
-- The same fields, methods and checks as the runtime's own; ctx.req and ctx.res in specs are made
-- of these.

local message = {}

local function check_text(what, value)
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then error(("%s: expected text, got %s"):format(what, type(value)), 4) end
  if value:find("[\r\n%z]") then
    error(("%s: a line break or NUL can't be sent in a head"):format(what), 4)
  end
  return value
end

local function check_name(name)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    error(("%q is not a header name"):format(tostring(name)), 4)
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

-- The fields of a head in their order: {lower-case name, value, name as written}.
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
  table.insert(fields, { name:lower(), check_text(name, value), name })
end

local function set_field(fields, name, value)
  remove_field(fields, name)
  if type(value) ~= "table" then value = value ~= nil and { value } or {} end
  for _, item in ipairs(value) do add_field(fields, name, item) end
end

local function headers_of(fields)
  return setmetatable({}, {
    __index = function(_, name)
      local values = find_values(fields, tostring(name))
      return values[1] and table.concat(values, ", ") or nil
    end,
    __newindex = function(_, name, value)
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
  return find_values(self._fields, name)
end

--- Adds a header beside those of its name.
---@param name string
---@param value string
function Message:add(name, value)
  check_settable(name)
  add_field(self._fields, name, value)
end

--- Iterates over all headers: name, value.
function Message:each()
  local i = 0
  return function()
    i = i + 1
    local field = self._fields[i]
    if field then return field[3], field[2] end
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

local setters = {
  method = function(values, value) values.method = check_text("method", value) end,
  path = function(values, value)
    value = check_text("path", value)
    if not value:find("^/[^%s?#]*$") then error("path: begins with / and holds no blank, ? or #", 3) end
    values.path = value
  end,
  querystring = function(values, value) values.querystring = check_text("querystring", value) end,
  body = function(values, value) values.body = check_text("body", value) end,
  host = function(values, value) values.host = check_text("host", value) end,
  target = function(values, value)
    values.path, values.querystring = check_text("target", value):match("^([^?]*)%??(.*)$")
  end,
  status = function(values, value)
    if type(value) ~= "number" or value < 200 or value > 599 then error("status: 200 to 599", 3) end
    values.status = value
  end,
}

local function object(values, settable)
  local self = { _fields = {}, _values = values }
  self.headers = headers_of(self._fields)
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
---@param options {status?: integer, headers?: table, body?: string}
function message.response(options)
  local values = { status = options.status or 200, body = options.body }
  local self = object(values, { status = true })
  add_headers(self, options.headers)
  local media_type = (self.headers["content-type"] or ""):lower():match("^[^;%s]*")
  values.stream = values.status == 200 and media_type == "text/event-stream"
  return self
end

return message
