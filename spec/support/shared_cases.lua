--- shared_cases: what gateway.shared and gateway.counter do, as data. Every case is run on the runtime's own
-- functions, in one of its VMs, and on those of gateway.testing: a plugin must not be able to tell.
local gateway = require "gateway"

---@class spec.SharedCase
---@field [1] string what it says
---@field run fun(d: gateway.Dictionary, advance: fun(seconds: number)): ...  the clock begins at 1000 s
---@field gives? table the values, as a list, with `n` where some are nil; default: none
---@field raises? string pattern of the error that `run` must raise

local list = {}

local function add(what, gives, run)
  list[#list + 1] = { what, run = run, gives = gives }
end

local function refuses(what, raises, run)
  list[#list + 1] = { what, run = run, raises = raises }
end

add("has nothing at first", { n = 2, nil, nil }, function(d) return d:get "a", d:ttl "a" end)
add("keeps texts, numbers and booleans", { "x", 1.5, true, false, "" }, function(d)
  d:set("a", "x")
  d:set("b", 1.5)
  d:set("c", true)
  d:set("d", false)
  d:set("e", "")
  return d:get "a", d:get "b", d:get "c", d:get "d", d:get "e"
end)
add("keeps any bytes", { "\0\255\n", "k" }, function(d)
  d:set("a", "\0\255\n")
  d:set("\0", "k")
  return d:get "a", d:get "\0"
end)
add("keeps numbers as they are", { 2 ^ 53 + 2, -0.1, math.huge, 1 / 3 }, function(d)
  for i, number in ipairs { 2 ^ 53 + 2, -0.1, math.huge, 1 / 3 } do d:set(i, number) end
  return d:get(1), d:get(2), d:get(3), d:get(4)
end)
add("takes a number for a key as its text", { "x" }, function(d)
  d:set(7, "x")
  return d:get "7"
end)
add("takes keys of any length", { "x", "y" }, function(d)
  d:set(("k"):rep(5000), "x")
  d:set(("k"):rep(5001), "y")
  return d:get(("k"):rep(5000)), d:get(("k"):rep(5001))
end)
add("replaces, whatever was there", { true, true, 2 }, function(d)
  local first = d:set("a", ("x"):rep(1000))
  return first, d:set("a", 2), d:get "a"
end)
add("keeps the largest text", { true, 16384, true }, function(d)
  local text = ("0123456789abcdef"):rep(1024)
  local done = d:set("a", text)
  return done, #d:get "a", d:get "a" == text
end)
add("refuses a larger one, and keeps what there was", { n = 5, nil, "a value has at most 16 KiB", nil,
  "a value has at most 16 KiB", 1 }, function(d)
  d:set("a", 1)
  local done, why = d:set("a", ("x"):rep(16385))
  local added, why_not = d:add("b", ("x"):rep(16385))
  return done, why, added, why_not, d:get "a"
end)
add("deletes, and says whether there was one", { n = 3, true, false, nil }, function(d)
  d:set("a", 1)
  return d:delete "a", d:delete "a", d:get "a"
end)
add("is the same by its name, and another one by another", { n = 2, 1, nil }, function(d)
  d:set("a", 1)
  return gateway.shared("cases"):get "a", gateway.shared("cases2"):get "a"
end)
add("adds where there is none", { true, false, 1 }, function(d)
  return d:add("a", 1), d:add("a", 2), d:get "a"
end)
add("adds again what has run out", { false, true, 2, 5 }, function(d, advance)
  d:add("a", 1, 10)
  local early = d:add("a", 9)
  advance(10)
  return early, d:add("a", 2, 5), d:get "a", d:ttl "a"
end)

add("ends at its time", { n = 4, 1, 0.5, nil, nil }, function(d, advance)
  d:set("a", 1, 10)
  advance(9.5)
  local value, left = d:get "a", d:ttl "a"
  advance(0.5)
  return value, left, d:get "a", d:ttl "a"
end)
add("has no end without a ttl, or with 0", { 0, 0, 1 }, function(d, advance)
  d:set("a", 1)
  d:set("b", 1, 0)
  advance(1e6)
  return d:ttl "a", d:ttl "b", d:get "b"
end)
add("has a new ttl with each set", { 20, 0 }, function(d, advance)
  d:set("a", 1, 10)
  advance(5)
  d:set("a", 1, 20)
  local left = d:ttl "a"
  d:set("a", 1)
  return left, d:ttl "a"
end)
add("does not take the shortest ttl for none", { n = 1, nil }, function(d, advance)
  d:set("a", 1, 0.0001)
  advance(0.002)
  return d:get "a"
end)
add("does not delete what has run out", { false }, function(d, advance)
  d:set("a", 1, 1)
  advance(1)
  return d:delete "a"
end)

add("counts from 0", { 1, 2, 5, 4.5 }, function(d)
  return d:incr "a", d:incr "a", d:incr("a", 3), d:incr("a", -0.5)
end)
add("counts from what it is told", { 11, 12, 12 }, function(d)
  return d:incr("a", 1, 10), d:incr("a", 1, 10), d:get "a"
end)
add("counts what was set", { 8 }, function(d)
  d:set("a", 7)
  return d:incr "a"
end)
add("counts under keys of every length", { 0 }, function(d)
  local wrong = 0
  for length = 1, 600 do
    local key = ("k"):rep(length)
    d:incr(key, 2 ^ 40)
    d:incr(key, length)
    if d:get(key) ~= 2 ^ 40 + length then wrong = wrong + 1 end
  end
  return wrong
end)
add("keeps the ttl while it counts", { 10, 6, 2, 1, 0 }, function(d, advance)
  d:incr("a", 1, 0, 10)
  local first = d:ttl "a"
  advance(4)
  local second = d:incr("a", 1, 0, 10) and d:ttl "a"
  local value = d:get "a"
  advance(6)
  return first, second, value, d:incr "a", d:ttl "a"
end)

add("gives up the least recently used one at its bound", { n = 4, 1, nil, 3, 4 }, function(d)
  local few = gateway.shared("cases", { maxEntries = 3 })
  few:set("a", 1)
  few:set("b", 2)
  few:set("c", 3)
  few:get "a"
  few:set("d", 4)
  return d:get "a", d:get "b", d:get "c", d:get "d"
end)
add("is bounded by add and incr as well", { n = 3, nil, 1, 1 }, function(d)
  local few = gateway.shared("cases", { maxEntries = 2 })
  few:set("a", 1)
  few:add("b", 1)
  few:incr "c"
  return d:get "a", d:get "b", d:get "c"
end)

refuses("refuses a table", "^gateway.shared \"cases\": a value is a string, a number or a boolean, got table "
  .. "%(gateway%.json%.encode makes text of it%)$", function(d) d:set("a", {}) end)
refuses("refuses a function", "got function", function(d) d:add("a", print) end)
refuses("refuses nil", "a value is not nil %(delete%(key%) removes%)", function(d) d:set "a" end)
refuses("refuses a key that is no text", "a key is text, got nil", function(d) return d:get() end)
refuses("refuses a key that is a table", "a key is text, got table", function(d) return d:incr {} end)
refuses("refuses a ttl that is no number", "ttl: expected seconds, got string",
  function(d) d:set("a", 1, "5s") end)
refuses("refuses a ttl below 0", "ttl: expected seconds, got %-1", function(d) d:set("a", 1, -1) end)
refuses("refuses to count a text", "incr: \"a\" is no number", function(d)
  d:set("a", "1")
  d:incr "a"
end)
refuses("refuses to count by text", "incr: expected a number, got string", function(d) d:incr("a", "x") end)
refuses("has a name", "gateway.shared: expected a name of 1 to 80 bytes, got 0 bytes",
  function() gateway.shared "" end)
refuses("has a short name", "expected a name of 1 to 80 bytes, got 81 bytes",
  function() gateway.shared(("n"):rep(81)) end)
refuses("knows its options", 'gateway.shared: no option "maxentries"',
  function() gateway.shared("cases", { maxentries = 1 }) end)
refuses("has a bound that is a number", "maxEntries: expected a number from 1, got 0",
  function() gateway.shared("cases", { maxEntries = 0 }) end)

add("counters count", { 0, 1, 3, 3, 0 }, function()
  local c = gateway.counter("cases", 10)
  return c:get "a", c:add "a", c:add("a", 2), c:get "a", c:get "b"
end)
add("counters forget what is past the window", { 4, 4, 2, 0 }, function(_, advance)
  local c = gateway.counter("cases", 10)
  c:add("a", 4)
  local now = c:get "a"
  advance(10)
  local first = c:get "a"
  advance(5)
  local half = c:get "a"
  advance(5)
  return now, first, half, c:get "a"
end)
add("counters add to what is still in sight", { 3, 2, 1, 1 }, function(_, advance)
  local c = gateway.counter("cases", 10)
  c:add("a", 4)
  advance(15)
  local sum = c:add "a"
  advance(10)
  local later = c:add("a", 1.5)
  advance(20)
  return sum, later, c:add "a", c:get "a"
end)
add("counters of other windows and names are others", { 1, 1, 1 }, function()
  return gateway.counter("cases", 10):add "a", gateway.counter("cases", 20):add "a",
    gateway.counter("cases2", 10):add "a"
end)
add("counters are apart from dictionaries", { n = 1, nil }, function(d)
  gateway.counter("cases", 10):add "a"
  return d:get "a"
end)
refuses("counters have a window", "gateway.counter: expected a window in seconds, got nil",
  function() gateway.counter "x" end)
refuses("counters have a window that has a length", "gateway.counter: expected a window in seconds, got 0",
  function() gateway.counter("x", 0) end)
refuses("counters count numbers", "add: expected a number, got string",
  function() gateway.counter("x", 1):add("a", "b") end)
refuses("counters have keys", "gateway.counter \"x\": a key is text, got nil",
  function() gateway.counter("x", 1):get() end)

return list
