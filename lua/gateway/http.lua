--- gateway.http: requests of a plugin's own, made while its hook waits; everything else goes on.
--     local response, err = gateway.http.request({ url = "http://127.0.0.1:8081/check", timeout = 0.5 })
-- Connections come from the pool that the gateway's own traffic uses. What the other side does is never
-- an error that is raised: it is `nil, err`. Raised is misuse: no URL, a header that can't be sent, a
-- place where nothing can wait.

local core = require("gateway.core")
local event = require("gateway.event")
local json = require("gateway.json")

local http = {}

---@class gateway.http.Options
---@field url string                     http://HOST[:PORT]/PATH; names are looked up without blocking
---@field method? string                 GET, or POST where there is a body
---@field headers? table<string, string|string[]>
---@field body? string|table             a table is sent as JSON
---@field timeout? number                seconds for all of it; 0 = no limit; default: backend.calls.timeout
---@field max_bytes? integer             of an answer that is given whole; default: backend.calls.maxBodyBytes
---@field stream? boolean                the answer's body is read in pieces; `timeout` is then that for its
---                                      head, and for the silence between two pieces

local OPTIONS = { url = "string", method = "string", headers = "table", body = "any", timeout = "number",
  max_bytes = "number", stream = "boolean" }

-- Header names are case-insensitive, as everywhere.
local Headers = {
  __index = function(self, name)
    return type(name) == "string" and rawget(self, name:lower()) or nil
  end,
}

---@class gateway.http.Response
---@field status integer
---@field headers table<string, string>  several of a name are joined by ", "
---@field body string?                   nil where it is streamed
---@field error string?                  of a stream that has ended before its end: why
---@field _fields string[]               name, value, name, value, …
---@field _call table?
local Response = {}
Response.__index = Response

local function new_response(status, fields, body, call)
  local headers = setmetatable({}, Headers)
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local before = rawget(headers, name)
    headers[name] = before and before .. ", " .. value or value
  end
  return setmetatable({ status = status, headers = headers, body = body, _fields = fields, _call = call },
    Response)
end

--- All values of a header, in order.
---@param name string
---@return string[]
function Response:values(name)
  local values, lower = {}, name:lower()
  for i = 1, #self._fields, 2 do
    if self._fields[i] == lower then values[#values + 1] = self._fields[i + 1] end
  end
  return values
end

--- The body, decoded.
---@return any value, string? err nil and why when it is no JSON
function Response:json()
  if not self.body then return nil, "no body" end
  return json.decode(self.body)
end

local function call_of(self)
  return self._call or error("this response is not streamed: its body is there", 3)
end

--- The next piece of a streamed body; waits for it.
---@return string? bytes nil at the end
---@return string? err why, if it is not the end that was meant
function Response:read()
  local call = call_of(self)
  call:wait("piece")
  local bytes, err = call:read()
  self.error = err
  return bytes, err
end

local function make_event(raw, type, id, data, retry, comment)
  local ev = event.new({ type = type, id = id, data = data, retry = retry, comment = comment })
  rawset(ev, "_raw", raw)
  return ev
end

--- The events of a streamed answer, for `for`; each turn waits for the next one. Comments alone are passed
--- over. The loop ends with the stream; `response.error` tells whether that was the end that was meant.
---@return fun(): gateway.Event?
function Response:events()
  local call = call_of(self)
  return function()
    call:wait("event")
    local raw, type, id, data, retry, comment = call:event()
    if raw then return make_event(raw, type, id, data, retry, comment) end
    self.error = type
    return nil
  end
end

--- Ends a streamed answer; its connection is closed. Harmless on others, and when it has ended.
function Response:close()
  if self._call then self._call:close() end
end

local function check(options, level)
  if type(options) ~= "table" then
    error("gateway.http: expected a table of options, got " .. type(options), level + 1)
  end
  for key, value in pairs(options) do
    local want = OPTIONS[key]
    if not want then error(("gateway.http: no option %q"):format(tostring(key)), level + 1) end
    if want ~= "any" and type(value) ~= want then
      error(("gateway.http: %s: expected a %s, got %s"):format(key, want, type(value)), level + 1)
    end
  end
  if not options.url then error("gateway.http: url is missing", level + 1) end
end

local function has_header(headers, name)
  for key in pairs(headers or {}) do
    if type(key) == "string" and key:lower() == name then return true end
  end
  return false
end

-- A table becomes JSON, and says so unless the caller does.
local function encode(options, level)
  local body, headers = options.body, options.headers
  if body == nil or type(body) == "string" then return body, headers end
  if type(body) ~= "table" then
    error("gateway.http: body: expected text or a table, got " .. type(body), level + 1)
  end
  local text, err = json.encode(body)
  if not text then error("gateway.http: body: " .. err, level + 1) end
  if has_header(headers, "content-type") then return text, headers end
  local more = { ["Content-Type"] = "application/json" }
  for name, value in pairs(headers or {}) do more[name] = value end
  return text, more
end

local function request(options, level)
  check(options, level + 1)
  local body, headers = encode(options, level + 1)
  local method = options.method or (body and "POST" or "GET")
  local call = core.fetch(method, options.url, headers, body, options.timeout, options.max_bytes,
    options.stream)
  call:wait(options.stream and "head" or "answer")
  local status, fields, whole = call:answer()
  if not status then return nil, fields end
  return new_response(status, fields, whole, options.stream and call or nil)
end

--- Asks, waits, and gives the answer, whatever its status: redirects are not followed.
---@param options gateway.http.Options
---@return gateway.http.Response? response
---@return string? err "timeout", "connection refused", "connection closed", "unknown host",
--- "no name server answered", "truncated", "answer too large", "bad response", "overloaded", "shutdown"
function http.request(options)
  local response, err = request(options, 2)
  return response, err
end

--- The same for a GET of a URL.
---@param url string
---@param options? gateway.http.Options
---@return gateway.http.Response? response
---@return string? err
function http.get(url, options)
  local all = { url = url }
  for key, value in pairs(options or {}) do all[key] = value end
  local response, err = request(all, 2)
  return response, err
end

return http
