--- gateway.shared: what all workers share and reloads leave alone: dictionaries and counters.
-- The memory is the runtime's; here is what may be put into it. Called by plugins, as `gateway.shared(name)`
-- and `gateway.counter(name, window)`.

local core = require("gateway.core")

local shared = {}

local NAME_MAX = 80

-- Groups are told apart by their first letter, so a counter and a dictionary may have the same name.
local function check_name(what, name)
  if type(name) ~= "string" or name == "" or #name > NAME_MAX then
    error(("%s: expected a name of 1 to %d bytes, got %s"):format(what, NAME_MAX,
      type(name) == "string" and #name .. " bytes" or type(name)), 3)
  end
end

-- An amount that may be left out; `what` names it in errors, which blame whoever called the method.
local function amount(value, default, what, least)
  if value == nil then return default end
  if type(value) ~= "number" or value ~= value or least and value < least then
    error(("%s, got %s"):format(what, type(value) == "number" and tostring(value) or type(value)), 3)
  end
  return value
end

local function check_key(self, key)
  if type(key) ~= "string" and type(key) ~= "number" then
    error(("%s: a key is text, got %s"):format(self._label, type(key)), 3)
  end
  return key
end

local storable = { string = true, number = true, boolean = true }

local function check_value(self, value)
  if value == nil then error(self._label .. ": a value is not nil (delete(key) removes)", 3) end
  if not storable[type(value)] then
    error(("%s: a value is a string, a number or a boolean, got %s (gateway.json.encode makes text of it)")
      :format(self._label, type(value)), 3)
  end
end

local TTL = "ttl: expected seconds"

local reasons = {
  large = "a value has at most 16 KiB",
  full = "no room",
}

---@class gateway.Dictionary all workers see the same; it outlives reloads, not the gateway
---@field _group string
---@field _label string
---@field _max integer
local Dictionary = {}
Dictionary.__index = Dictionary

--- The value, nil when there is none, or no more.
---@param key string|number
---@return string|number|boolean|nil
function Dictionary:get(key)
  return core.shared_get(self._group, check_key(self, key))
end

--- Stores a value, in the place of another.
---@param key string|number
---@param value string|number|boolean a text has at most 16 KiB
---@param ttl? number seconds; nil and 0: until it is pushed out
---@return true? done, string? why not
function Dictionary:set(key, value, ttl)
  check_value(self, value)
  ttl = amount(ttl, 0, TTL, 0)
  local result = core.shared_set(self._group, check_key(self, key), value, ttl, self._max, false)
  if result == "ok" then return true end
  return nil, reasons[result]
end

--- Stores a value where there is none.
---@param key string|number
---@param value string|number|boolean
---@param ttl? number
---@return boolean? added, string? why not; false without a reason: there is one
function Dictionary:add(key, value, ttl)
  check_value(self, value)
  ttl = amount(ttl, 0, TTL, 0)
  local result = core.shared_set(self._group, check_key(self, key), value, ttl, self._max, true)
  if result == "ok" then return true end
  if result == "exists" then return false end
  return nil, reasons[result]
end

--- Adds to a number. What others add at the same time is not lost.
---@param key string|number
---@param by? number 1
---@param init? number what a key that is not there counts as; 0
---@param ttl? number seconds, from when it is made; of one that is there it stays as it was
---@return number? sum, string? why not
function Dictionary:incr(key, by, init, ttl)
  by = amount(by, 1, "incr: expected a number")
  init = amount(init, 0, "incr: expected a number to begin with")
  ttl = amount(ttl, 0, TTL, 0)
  local result, sum = core.shared_incr(self._group, check_key(self, key), by, init, ttl, self._max)
  if result == "ok" then return sum end
  if result == "kind" then error(("%s: incr: %q is no number"):format(self._label, tostring(key)), 2) end
  return nil, reasons[result]
end

--- Removes a value.
---@param key string|number
---@return boolean whether there was one
function Dictionary:delete(key)
  return core.shared_delete(self._group, check_key(self, key))
end

--- How long a value stays.
---@param key string|number
---@return number? seconds 0: it has no end; nil: there is none
function Dictionary:ttl(key)
  return core.shared_ttl(self._group, check_key(self, key))
end

--- A dictionary by its name; the same one for all who use the name.
---@param name string
---@param options? {maxEntries?: integer} the least recently used one goes first
---@return gateway.Dictionary
function shared.dictionary(name, options)
  check_name("gateway.shared", name)
  local max = 0
  for key, value in pairs(options or {}) do
    if key ~= "maxEntries" then error(('gateway.shared: no option "%s"'):format(tostring(key)), 2) end
    max = amount(value, 0, "maxEntries: expected a number from 1", 1)
  end
  return setmetatable({ _group = "d:" .. name, _label = ("gateway.shared %q"):format(name), _max = max },
    Dictionary)
end

---@class gateway.Counter what happened in the last so many seconds, by key, in all workers
---@field _group string
---@field _label string
---@field _window number
local Counter = {}
Counter.__index = Counter

--- Counts.
---@param key string|number
---@param n? number 1
---@return number count in the window, these included; an estimate that may have a fraction
function Counter:add(key, n)
  n = amount(n, 1, "add: expected a number")
  return core.counter_add(self._group, check_key(self, key), n, self._window)
end

--- Looks without counting.
---@param key string|number
---@return number count
function Counter:get(key)
  return core.counter_get(self._group, check_key(self, key), self._window)
end

--- A counter by its name and window; the same one for all who use these.
---@param name string
---@param window number seconds
---@return gateway.Counter
function shared.counter(name, window)
  check_name("gateway.counter", name)
  if type(window) ~= "number" or not (window >= 0.001 and window <= 1e9) then
    error(("gateway.counter: expected a window in seconds, got %s"):format(tostring(window)), 2)
  end
  return setmetatable({ _group = ("c:%.14g:%s"):format(window, name), _window = window,
    _label = ("gateway.counter %q"):format(name) }, Counter)
end

return shared
