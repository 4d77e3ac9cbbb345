--- gateway.testing.http: answers for gateway.http in specs, by URL. What a plugin asks for and nobody has
-- named is an error, so that no spec asks the world by accident.

local clock = require("gateway.testing.clock")
local event = require("gateway.event")
local json = require("gateway.json")
local message = require("gateway.testing.message")

---@class gateway.testing.Answer
---@field status? integer                  200
---@field headers? table<string, string|string[]>
---@field body? string
---@field json? any                        a body of JSON
---@field events? (gateway.Event|gateway.EventFields)[]  of an event stream
---@field pieces? string[]                 of any streamed body
---@field error? string                    no answer, but `nil, error`; of a stream: behind what it has
---@field delay? number                    seconds of the spec's clock until it is there

---@class gateway.testing.Call what a plugin has asked
---@field method string
---@field url string
---@field headers gateway.Headers
---@field body? string
---@field timeout? number
---@field stream boolean

---@alias gateway.testing.Answers fun(call: gateway.testing.Call): gateway.testing.Answer

local http = { calls = {}, answers = {} }

function http.reset()
  http.calls, http.answers = {}, {}
end

-- Of "GET http://a/b?c", "http://a/b?c", "http://a/b" and "*", what the spec has named.
local function named(call)
  local answers = http.answers
  if type(answers) == "function" then return answers end
  local bare = call.url:match("^[^?]*")
  return answers[call.method .. " " .. call.url] or answers[call.url] or answers[call.method .. " " .. bare]
    or answers[bare] or answers["*"]
end

local function answer_for(call)
  local answer = named(call)
  if type(answer) == "function" then answer = answer(call) end
  if type(answer) ~= "table" then
    local text = "gateway.http: no answer for %s %s in this spec; t.http names them"
    error(text:format(call.method, call.url), 0)
  end
  return answer
end

local function fields_of(answer)
  local fields, names, has_type = {}, {}, false
  for name in pairs(answer.headers or {}) do
    names[#names + 1] = name
    has_type = has_type or name:lower() == "content-type"
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local values = answer.headers[name]
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      fields[#fields + 1], fields[#fields + 2] = name:lower(), tostring(value)
    end
  end
  local kind = answer.json ~= nil and "application/json" or answer.events and "text/event-stream"
  if kind and not has_type then fields[#fields + 1], fields[#fields + 2] = "content-type", kind end
  return fields
end

local function pieces_of(answer)
  if answer.pieces then return { unpack(answer.pieces) } end
  if answer.json ~= nil then return { assert(json.encode(answer.json)) } end
  local pieces = {}
  for i, item in ipairs(answer.events or {}) do
    pieces[i] = event.encode(event.is(item) and item or event.new(item))
  end
  if answer.body and answer.body ~= "" then pieces[1] = answer.body end
  return pieces
end

local Call = {}
Call.__index = Call

function Call:wait(what)
  if what ~= "head" and what ~= "answer" then return end
  local delay, timeout = self._answer.delay or 0, self._timeout
  local late = timeout and timeout > 0 and delay > timeout
  if delay > 0 then clock.sleep(late and timeout or delay) end
  if late then self._late = true end
end

function Call:answer()
  local answer = self._answer
  if self._late then return nil, "timeout" end
  self._pieces = pieces_of(answer)
  if answer.error and not (self._stream and self._pieces[1]) then return nil, answer.error end
  local status, fields = answer.status or 200, fields_of(answer)
  if self._stream then return status, fields end
  local body = table.concat(self._pieces)
  if self._max_bytes and self._max_bytes > 0 and #body > self._max_bytes then
    return nil, "answer too large"
  end
  return status, fields, body
end

function Call:read()
  if self._closed then return nil, "closed" end
  local piece = table.remove(self._pieces, 1)
  if piece then return piece end
  return nil, self._answer.error
end

function Call:event()
  if self._closed then return nil, "closed" end
  if not self._events then
    self._events = event.parse(table.concat(self._pieces))
    self._pieces = {}
  end
  local ev
  repeat
    ev = table.remove(self._events, 1)
  until not ev or event.has_fields(ev)
  if not ev then return nil, self._answer.error end
  return ev.raw, ev.type, ev.id, ev.data, ev.retry, ev.comment
end

function Call:close()
  self._closed = true
end

local function check_url(method, url)
  local lower = url:lower()
  local wrong = lower:find("^https://") and "https:// is not there yet"
    or not lower:find("^http://[^/?]") and "expected http://HOST/PATH"
    or url:find("[%c #\127-\255]") and "not a URL that can be asked for (no spaces, fragments or user names)"
  if wrong then error(("gateway.http: %s %s: %s"):format(method, url, wrong), 0) end
end

--- The stand-in for core.fetch.
function http.fetch(method, url, headers, body, timeout, max_bytes, stream)
  clock.may_wait("gateway.http")
  check_url(method, url)
  local request = message.request({ method = method, path = "/" })
  for name, value in pairs(headers or {}) do request.headers[name] = value end
  local call = { method = method, url = url, headers = request.headers, body = body, timeout = timeout,
    stream = stream or false }
  table.insert(http.calls, call)
  return setmetatable({ _answer = answer_for(call), _timeout = timeout, _max_bytes = max_bytes,
    _stream = stream }, Call)
end

return http
