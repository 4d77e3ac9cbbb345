--- gateway.testing.core: a stand-in for gateway.core, the part of the runtime that is written in C.
-- What it holds is in the open: logs, errors, sessions, the clock. Only specs load it, through
-- gateway.testing.

local clock = require("gateway.testing.clock")
local hash = require("gateway.testing.hash")
local http = require("gateway.testing.http")
local message = require("gateway.testing.message")
local shared = require("gateway.testing.shared")

local core = {
  REPLY = setmetatable({}, { __tostring = function() return "ctx:reply(...)" end }),
  worker = 1,
  version = "test",
}

--- What was done, for specs to look at; `core.reset()` empties it.
---@class gateway.testing.State
---@field now number          the clock, in seconds; testing.advance moves it
---@field logs {level: string, text: string}[]
---@field errors table[]      errors that were survived
---@field sessions table
---@field randoms integer
---@field shared table        what gateway.shared and gateway.counter hold, by group
---@field uses integer        of these, to know which was used last
local state = setmetatable({}, {
  __index = function(_, key) return key == "now" and clock.now or nil end,
  __newindex = function(self, key, value)
    if key == "now" then clock.now = value else rawset(self, key, value) end
  end,
})
core.state = state

function core.reset()
  clock.drop_all(function() return true end)
  http.reset()
  state.now, state.logs, state.errors, state.sessions, state.randoms = 1000, {}, {}, {}, 0
  state.shared, state.uses = {}, 0
end

core.reset()

function core.log(level, text)
  table.insert(state.logs, { level = level, text = text })
end

function core.progress() end

function core.name_hook() return 0 end

function core.now() return state.now end
core.sleep = clock.sleep
core.fetch = http.fetch
core.enter = clock.enter
core.leave = clock.leave
function core.hold() return { waiters = {} } end
function core.time() return 1700000000 + state.now end

function core.list(dir)
  local ok, lfs = pcall(require, "lfs")
  if not ok then return nil, "listing a folder needs luafilesystem" end
  if lfs.attributes(dir, "mode") ~= "directory" then return nil, dir .. ": No such folder" end
  local names = {}
  for name in lfs.dir(dir) do
    if name ~= "." and name ~= ".." then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

function core.random(bytes)
  state.randoms = state.randoms + 1
  return ("%0" .. bytes * 2 .. "x"):format(state.randoms)
end

-- Depends on all of both texts as the real one does, but guards nothing.
function core.hmac_sha256(key, text)
  local words, out = key .. "\0" .. text, {}
  for part = 1, 8 do
    local part_hash = 2166136261 + part
    for i = 1, #words do part_hash = (bit.bxor(part_hash, words:byte(i)) * 403) % 4294967296 end
    out[part] = ("%08x"):format(part_hash)
  end
  return table.concat(out)
end

function core.equal(a, b) return a == b end

for name, fn in pairs(shared(state)) do core[name] = fn end

local function live(handle)
  if handle.over then error("the exchange is over", 3) end
  return handle
end

function core.request(handle) return live(handle).request end
function core.client(handle)
  local address, port = live(handle).address, handle.port
  return address, port, handle.peer or address, handle.peer and 12345 or port
end
function core.id(handle) return live(handle).id end
function core.set_rule(handle, id) live(handle).rule = id end
function core.tried(handle, index) return live(handle).tried[index] == true end

function core.pack_retry(rule) return rule end
function core.asked() end
function core.set_bounds(handle, ...) live(handle).bounds = { ... } end
function core.set_clocks(handle, ...) live(handle).clocks = { ... } end

-- Specs write facts into the instances that they give.
function core.fact() return 0 end
function core.percentile() return 0 end

function core.facts(instances, name, out)
  for i = 1, #instances do out[i] = instances[i][name] or 0 end
  return out
end

function core.hash(text, salt) return hash(text, salt or 0) end

-- The same numbers after each reset.
function core.chance()
  state.randoms = state.randoms + 1
  return hash("chance", state.randoms) / 2 ^ 53
end
-- All instances of specs are well.
function core.standing() return 0 end
function core.share() return 10 end
function core.admit() end
function core.refuses() return false end
function core.absence() return false, 5 end

--- The answer that is pending, or else the backend's, or nil.
function core.response(handle)
  return live(handle).reply or handle.response
end

function core.reply(handle, status, body, headers)
  if type(status) ~= "number" or status < 200 or status > 599 or status % 1 ~= 0 then
    error("ctx:reply: expected a status from 200 to 599, got " .. tostring(status), 3)
  end
  if live(handle).streaming then error("ctx:reply: the response has begun already", 3) end
  handle.reply = message.response({ status = status })
  rawset(handle.reply, "_body", body)
  for name, value in pairs(headers or {}) do handle.reply.headers[name] = value end
  return core.REPLY
end

function core.fail(handle, status, text, headers)
  local verdict = core.reply(handle, status, nil, headers)
  rawset(handle.reply, "error", text)
  return verdict
end

-- Those of the runtime; there are none here.
function core.is_event() return false end

function core.hook_error(_, err)
  table.insert(state.errors, err)
end

local function start(handle, seconds, fn, ...)
  if type(seconds) ~= "number" or seconds < 0 then error("not a time: " .. tostring(seconds), 3) end
  local task = clock.start(seconds, fn, ...)
  task.handle = handle
  task.failed = function(err) table.insert(state.errors, err) end
  return task, { cancel = function() clock.drop(task) end }
end

function core.spawn(seconds, fn, ...)
  return select(2, start(nil, seconds, fn, ...))
end

function core.spawn_for(handle, slot, movable, seconds, fn, ...)
  live(handle)
  local task, started = start(handle, seconds, fn, ...)
  task.slot, task.movable, task.ctx = slot, movable, function() return handle.ctx end
  return started
end

function core.send(handle, text)
  if not (live(handle).streaming or handle.answered) then
    error("ctx:send: the response has not begun", 3)
  end
  if not handle.response.stream then
    error("ctx:send: the response is no event stream, or has a Content-Encoding", 3)
  end
  handle.sent = (handle.sent or "") .. text
  return true
end

local function group_of(name)
  local group = state.sessions[name] or { order = {}, entries = {} }
  state.sessions[name] = group
  return group
end

function core.session_get(group, key, ttl)
  local entry = group_of(group).entries[key]
  if not entry or entry.until_time <= state.now then return nil end
  entry.until_time = ttl > 0 and state.now + ttl or math.huge
  return entry.value
end

function core.session_set(name, key, value, ttl, max_entries)
  local group = group_of(name)
  if not group.entries[key] then table.insert(group.order, key) end
  group.entries[key] = { value = value, until_time = ttl > 0 and state.now + ttl or math.huge }
  if max_entries and #group.order > max_entries then group.entries[table.remove(group.order, 1)] = nil end
end

function core.session_add(group, key, value, ttl, max_entries)
  local now = core.session_get(group, key, ttl)
  if now then return now end
  core.session_set(group, key, value, ttl, max_entries)
  return value
end

function core.session_delete(group, key)
  group_of(group).entries[key] = nil
end

return core
