--- gateway.event: server-sent events as Lua objects.
-- The runtime hands plugins events of its own with the same fields; these are for events that
-- plugins make, and for tests. https://html.spec.whatwg.org/multipage/server-sent-events.html
-- section 9.2 is what counts.

local json = require("gateway.json")

---@class gateway.Event
---@field type string      name of the event; "message" when it has none
---@field id string?       this event's own id field
---@field data string?     the lines of data, joined by "\n"; nil when there is no data field
---@field retry integer?   reconnection time in milliseconds
---@field json any         data decoded from JSON, nil when it is none; assigning encodes into data
---@field comment string?  comment lines, joined by "\n"
---@field raw string       the bytes it came as; of an event made here, those it is sent as
---@field json_get fun(self: gateway.Event, path: string): any
---@field json_set fun(self: gateway.Event, path: string, value: any): boolean?, string?
local Event = {}

local event = {}

local FIELDS = { type = true, id = true, data = true, retry = true, json = true, comment = true }

local function fail(field, want, value)
  error(("event.%s: expected %s, got %s"):format(field, want, type(value)), 4)
end

local function text_of(field, value)
  if type(value) == "number" then return tostring(value) end
  if type(value) ~= "string" then fail(field, "text", value) end
  return value
end

local function one_line(field, value)
  local text = text_of(field, value)
  if text:find("[\r\n%z]") then
    error(("event.%s: a line break or NUL can't be sent in it"):format(field), 4)
  end
  return text
end

local setters = {}

function setters.type(self, value)
  local name = value ~= nil and one_line("type", value) or nil
  if name == "" or name == "message" then name = nil end
  rawset(self, "_type", name)
end

function setters.id(self, value)
  rawset(self, "_id", value ~= nil and one_line("id", value) or nil)
end

function setters.data(self, value)
  if type(value) == "table" then
    error("event.data: expected text, got table (assign it to event.json)", 3)
  end
  local text = value ~= nil and text_of("data", value) or nil
  -- CR ends a line of the stream too, so it can only arrive as a line break.
  if text and text:find("\r", 1, true) then text = text:gsub("\r\n?", "\n") end
  rawset(self, "_data", text)
  rawset(self, "_json", nil)
end

function setters.retry(self, value)
  local ms = tonumber(value)
  if value ~= nil and not (ms and ms >= 0 and ms % 1 == 0 and ms < 2 ^ 53) then
    error("event.retry: expected milliseconds, a whole number from 0", 3)
  end
  rawset(self, "_retry", ms)
end

function setters.comment(self, value)
  local text = value ~= nil and text_of("comment", value) or nil
  if text and text:find("\r", 1, true) then text = text:gsub("\r\n?", "\n") end
  rawset(self, "_comment", text)
end

function setters.json(self, value)
  local text, err
  if value ~= nil then
    text, err = json.encode(value)
    if not text then error("event.json: " .. err, 3) end
  end
  rawset(self, "_data", text)
  rawset(self, "_json", value)
end

local getters = {
  type = function(self) return self._type or "message" end,
  id = function(self) return self._id end,
  data = function(self) return self._data end,
  retry = function(self) return self._retry end,
  comment = function(self) return self._comment end,
  raw = function(self) return self._raw or event.encode(self) end,
  json = function(self)
    local value = rawget(self, "_json")
    local data = rawget(self, "_data")
    if value == nil and data then
      value = json.decode(data)
      rawset(self, "_json", value)
    end
    return value
  end,
}

local methods = {}

--- Reads one field of the JSON in `data`, `a.b.c`, without decoding the rest. In an array a part is an
--- index, counted from 0.
---@param path string
---@return any value nil when there is no such field, or the data is no JSON
function methods:json_get(path)
  if not self._data then return nil end
  return json.get(self._data, json.path(path))
end

--- Changes one field of the JSON in `data`; everything else stays as it was written. Objects that are
--- missing on the way are made; `nil` removes the field.
---@param path string
---@param value any
---@return boolean? done, string? err nil and why: no data, no JSON, no such place, or no such value
function methods:json_set(path, value)
  if not self._data then return nil, "no data" end
  local text, err = json.set(self._data, json.path(path), value)
  if not text then return nil, err end
  if text ~= self._data then self.data = text end
  return true
end

function Event:__index(key)
  local get = getters[key]
  if get then return get(self) end
  return methods[key]
end

function Event:__newindex(key, value)
  local set = setters[key]
  if not set then error(("event.%s can't be set"):format(tostring(key)), 2) end
  set(self, value)
  rawset(self, "_changed", true)
end

Event.__name = "event"
Event.__metatable = false

local function object()
  return setmetatable({}, Event)
end

--- Is this an event made in Lua?
---@param value any
---@return boolean
function event.is(value)
  return type(value) == "table" and rawget(value, "_event") == Event
end

--- Makes an event. Errors name the field.
---@param fields {type?: string, id?: string, data?: string, retry?: integer, json?: any, comment?: string}
---@return gateway.Event
function event.new(fields)
  local self = object()
  rawset(self, "_event", Event)
  for key, value in pairs(fields) do
    if not FIELDS[key] then
      error(("an event has no field %q (type, id, data, json, retry, comment)"):format(tostring(key)), 2)
    end
    setters[key](self, value)
  end
  return self
end

--- An event of your own with the fields of another one, to keep or to send beside it.
---@param other gateway.Event
---@return gateway.Event
function event.copy(other)
  return event.new({
    type = other.type, id = other.id, data = other.data, retry = other.retry, comment = other.comment,
  })
end

--- Does an event made or read here hold more than comments?
---@param ev gateway.Event
---@return boolean
function event.has_fields(ev)
  return (ev._type or ev._id or ev._data or ev._retry or ev._other) ~= nil
end

local function add_lines(out, prefix, text)
  for line in (text .. "\n"):gmatch("(.-)\n") do
    out[#out + 1] = prefix .. line .. "\n"
  end
end

--- The bytes of an event as they are sent, with the blank line that ends it: those it came as, unless
--- it was changed. "" for an event with nothing in it.
---@param ev gateway.Event
---@return string
function event.encode(ev)
  if type(ev) == "userdata" then return ev._encoded end
  if ev._raw and not ev._changed then return ev._raw end
  local out = {}
  if ev._comment then add_lines(out, ": ", ev._comment) end
  if ev._type then out[#out + 1] = "event: " .. ev._type .. "\n" end
  if ev._id then out[#out + 1] = "id: " .. ev._id .. "\n" end
  if ev._retry then out[#out + 1] = ("retry: %.0f\n"):format(ev._retry) end
  if ev._data then add_lines(out, "data: ", ev._data) end
  for _, line in ipairs(ev._other or {}) do out[#out + 1] = line .. "\n" end
  if not out[1] then return "" end
  out[#out + 1] = "\n"
  return table.concat(out)
end

local function joined(old, line)
  return old and old .. "\n" .. line or line
end

-- One line of an event, as "Interpreting an event stream" of the standard says.
local function read_line(ev, line)
  local name, value = line:match("^([^:]*):? ?(.*)$")
  if line:byte() == 58 then
    rawset(ev, "_comment", joined(ev._comment, line:match("^: ?(.*)$")))
  elseif name == "event" then
    rawset(ev, "_type", value ~= "" and value ~= "message" and value or nil)
  elseif name == "data" then
    rawset(ev, "_data", joined(ev._data, value))
  elseif name == "id" then
    if not value:find("%z") then rawset(ev, "_id", value) end
  elseif name == "retry" then
    if value:find("^%d+$") then rawset(ev, "_retry", tonumber(value)) end
  else
    local other = ev._other or {}
    other[#other + 1] = line
    rawset(ev, "_other", other)
  end
end

--- Reads a whole event stream. What comes after the last blank line is no event and is dropped.
---@param text string
---@return gateway.Event[]
function event.parse(text)
  local list, pos, start = {}, 1, 1
  if text:sub(1, 3) == "\239\187\191" then pos, start = 4, 4 end
  local ev
  while true do
    local stop = text:find("[\r\n]", pos)
    if not stop then return list end
    local after = text:sub(stop, stop + 1) == "\r\n" and stop + 2 or stop + 1
    if stop > pos then
      ev = ev or event.new({})
      read_line(ev, text:sub(pos, stop - 1))
    else
      if ev then
        rawset(ev, "_raw", text:sub(start, after - 1))
        list[#list + 1] = ev
      end
      ev, start = nil, after
    end
    pos = after
  end
end

return event
