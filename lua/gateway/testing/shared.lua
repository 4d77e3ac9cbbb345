--- gateway.testing.shared: in place of the runtime's shared dictionary, with the clock of gateway.testing.
-- Called by gateway.testing.core. Bounded by `maxEntries` alone: a spec does not fill megabytes.

local TEXT_MAX = 16 * 1024

---@param state gateway.testing.State its `now` is the time, its `shared` holds the entries
---@return table functions of gateway.core
return function(state)
  local functions = {}

  -- Milliseconds, as the runtime's clock.
  local function now_ms() return math.floor(state.now * 1000 + 0.5) end
  local function lasting_ms(seconds) return seconds > 0 and math.max(1, math.floor(seconds * 1000)) or nil end

  local function group_of(name)
    local group = state.shared[name] or { count = 0, entries = {} }
    state.shared[name] = group
    return group
  end

  local function remove(group, key)
    if group.entries[key] then group.count = group.count - 1 end
    group.entries[key] = nil
  end

  local function touch(entry)
    state.uses = state.uses + 1
    entry.used = state.uses
    return entry
  end

  -- The entry, unless it has run out.
  local function find(name, key)
    local group = group_of(name)
    local entry = group.entries[tostring(key)]
    if entry and entry.ends and entry.ends <= now_ms() then
      remove(group, tostring(key))
      return nil
    end
    return entry
  end

  local function least_used(group)
    local found
    for key, entry in pairs(group.entries) do
      if not found or entry.used < group.entries[found].used then found = key end
    end
    return found
  end

  local function store(name, key, value, ttl_ms, max)
    local group = group_of(name)
    remove(group, tostring(key))
    group.entries[tostring(key)] = touch({ value = value, ends = ttl_ms and now_ms() + ttl_ms })
    group.count = group.count + 1
    while max and max > 0 and group.count > max do remove(group, least_used(group)) end
  end

  function functions.shared_get(group, key)
    local entry = find(group, key)
    if not entry then return nil end
    return touch(entry).value
  end

  function functions.shared_set(group, key, value, ttl, max, only_absent)
    if type(value) == "string" and #value > TEXT_MAX then return "large" end
    local entry = only_absent and find(group, key)
    if entry then
      touch(entry)
      return "exists"
    end
    store(group, key, value, lasting_ms(ttl), max)
    return "ok"
  end

  function functions.shared_incr(group, key, by, init, ttl, max)
    local entry = find(group, key)
    if not entry then
      store(group, key, init + by, lasting_ms(ttl), max)
      return "ok", init + by
    end
    touch(entry)
    if type(entry.value) ~= "number" then return "kind", by end
    entry.value = entry.value + by
    return "ok", entry.value
  end

  function functions.shared_delete(group, key)
    local found = find(group, key) ~= nil
    remove(group_of(group), tostring(key))
    return found
  end

  function functions.shared_ttl(group, key)
    local entry = find(group, key)
    if not entry then return nil end
    return entry.ends and (entry.ends - now_ms()) / 1000 or 0
  end

  -- As runtime/base/shared.c: what happened in the window before counts by how much of it is still in sight.
  local function rolled(window, window_ms)
    local number = math.floor(now_ms() / window_ms)
    if number <= window.number then return window end
    local previous = number == window.number + 1 and window.current or 0
    return { number = number, current = 0, previous = previous }
  end

  local function estimate(window, window_ms)
    return window.current + window.previous * (1 - (now_ms() / window_ms - window.number))
  end

  local EMPTY = { number = 0, current = 0, previous = 0 }

  function functions.counter_add(group, key, n, seconds)
    local window_ms = lasting_ms(seconds)
    local entry = find(group, key)
    local window = rolled(entry and entry.value or EMPTY, window_ms)
    window = { number = window.number, current = window.current + n, previous = window.previous }
    store(group, key, window, 2 * window_ms)
    return estimate(window, window_ms)
  end

  function functions.counter_get(group, key, seconds)
    local entry = find(group, key)
    if not entry then return 0 end
    return estimate(rolled(entry.value, lasting_ms(seconds)), lasting_ms(seconds))
  end

  return functions
end
