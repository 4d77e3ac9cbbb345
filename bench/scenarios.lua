--- scenarios: what is measured. A scenario names its variants (contender and filter), what the load
-- generator does, and how long and how often in a quick and in a full run. Read by run.lua and report.lua.

---@class bench.Variant
---@field label string
---@field contender string
---@field filter? string
---@field reload? boolean reloads in the window
---@field workers? integer
---@field over? string label of the variant whose cost is taken off in the column "over"
---@field load? table changes to the scenario's load

---@class bench.Scenario
---@field id string
---@field title string
---@field note? string
---@field table "relay"|"idle"|"filter"|"reload"|"workers" which columns
---@field unit string
---@field variants bench.Variant[]
---@field load table options of the load generator; `mode` is its mode
---@field per_stream? number events per second that each stream gets
---@field sent_per_unit? number events the contender got for each that came through
---@field origins? integer
---@field workers? integer
---@field spread? boolean contender, origin and load generator share all cores
---@field bulk? boolean
---@field quick? {runs: integer, seconds: number} not in the quick run when missing
---@field full {runs: integer, seconds: number}

local GATEWAYD = { label = "gatewayd", contender = "gatewayd" }
local NGINX = { label = "nginx", contender = "nginx" }
local HAPROXY = { label = "HAProxy", contender = "haproxy" }
local RELAY = { label = "bare relay", contender = "relay" }
local DIRECT = { label = "no proxy", contender = "direct" }

local ALL = { GATEWAYD, NGINX, HAPROXY, RELAY }
local ALL_AND_DIRECT = { GATEWAYD, NGINX, HAPROXY, RELAY, DIRECT }

local EVENTS = "/events?plain=1&size=200&rate="
local JSON = "/events?plain=1&json=1&size=200&rate="
local NEVER = 0.0001

local function streams(clients, path, more)
  local load = { mode = "streams", clients = clients, path = path, size = 200 }
  for key, value in pairs(more or {}) do load[key] = value end
  return load
end

local EDITED = { want = '"via":"bench1"' }

-- The same stream through each filter, and through each proxy without one.
local function filters(rate)
  local drop = { path = JSON .. rate .. "&types=debug,tick", step = 2 }
  return {
    { label = "gatewayd", contender = "gatewayd" },
    { label = "gatewayd, look at the type", contender = "gatewayd", filter = "look", over = "gatewayd" },
    { label = "gatewayd, drop every second by type", contender = "gatewayd", filter = "drop",
      over = "gatewayd", load = drop, sent_per_unit = 2 },
    { label = "gatewayd, edit one JSON field", contender = "gatewayd", filter = "field", over = "gatewayd",
      load = EDITED },
    { label = "gatewayd, decode and encode JSON", contender = "gatewayd", filter = "json", over = "gatewayd",
      load = EDITED },
    { label = "nginx", contender = "nginx" },
    { label = "nginx with Lua, decode and encode JSON", contender = "nginx", filter = "json", over = "nginx",
      load = EDITED },
  }
end

---@type bench.Scenario[]
local scenarios = {
  {
    id = "idle", title = "9,500 idle streams", table = "idle",
    unit = "stream", variants = ALL,
    note = "Opened all at once (4,000 attempts in flight), one worker; no event comes. gatewayd sends "
      .. "keepalives every 30 s, which only the window of a full run is long enough for.",
    load = streams(9500, EVENTS .. NEVER, { in_flight = 4000, settle = 1 }),
    quick = { runs = 1, seconds = 1.5 }, full = { runs = 1, seconds = 33 },
  },
  {
    id = "idle4", title = "36,000 idle streams over four workers", table = "idle",
    unit = "stream", variants = ALL,
    note = "Two origins. HAProxy as four processes on one port, nginx with `reuseport`: a process has "
      .. "20,000 descriptors.",
    load = streams(36000, EVENTS .. NEVER, { in_flight = 2000, settle = 3 }),
    workers = 4, origins = 2, spread = true,
    full = { runs = 1, seconds = 20 },
  },
  {
    id = "relay", title = "1,000 streams, 10 events a second each", table = "relay",
    unit = "event", variants = ALL,
    load = streams(1000, EVENTS .. 10), per_stream = 10,
    quick = { runs = 3, seconds = 1.5 }, full = { runs = 5, seconds = 4 },
  },
  {
    id = "relay_many", title = "9,500 streams, one event a second each", table = "relay",
    unit = "event", variants = ALL, per_stream = 1,
    load = streams(9500, EVENTS .. 1, { in_flight = 2000, settle = 1.5 }),
    full = { runs = 3, seconds = 5 },
  },
  {
    id = "half_load", title = "Half load: 1,000 streams, 25 events a second each", table = "relay",
    unit = "event", variants = ALL_AND_DIRECT, load = streams(1000, EVENTS .. 25), per_stream = 25,
    quick = { runs = 2, seconds = 1.5 }, full = { runs = 4, seconds = 4 },
  },
  {
    id = "firehose", title = "One firehose stream", table = "relay",
    unit = "event", variants = ALL, bulk = true,
    note = "The origin sends as fast as it is read. Origin and load generator share a core, which is the "
      .. "limit where a contender's own core is not busy. The latency is that of full buffers.",
    load = streams(1, EVENTS .. 0), quick = { runs = 1, seconds = 1 }, full = { runs = 3, seconds = 3 },
  },
  {
    id = "firehose8", title = "Eight firehose streams", table = "relay",
    unit = "event", variants = ALL, bulk = true,
    load = streams(8, EVENTS .. 0), quick = { runs = 2, seconds = 1 }, full = { runs = 3, seconds = 3 },
  },
  {
    id = "opens", title = "Opening and closing streams", table = "relay",
    unit = "opening", variants = ALL,
    note = "Connect, request, first event, close; 64 at a time, the next when one is done. The latency is "
      .. "that of all up to the first event.",
    load = { mode = "opens", clients = 64, path = "/events?rate=" .. NEVER },
    quick = { runs = 2, seconds = 1 }, full = { runs = 5, seconds = 3 },
  },
  {
    id = "requests", title = "Ordinary keep-alive requests, as fast as they are answered", table = "relay",
    unit = "request", variants = ALL,
    note = "64 connections, answers of 1,000 bytes; the next request goes out when the last one is answered. "
      .. "Each contender makes its own load, and a busier one has more to do in each turn of its loop: for "
      .. "the cost at the same load see the next table.",
    load = { mode = "requests", clients = 64, path = "/bytes?n=1000", size = 1000 },
    quick = { runs = 1, seconds = 1 }, full = { runs = 3, seconds = 3 },
  },
  {
    id = "requests_paced", title = "Ordinary keep-alive requests, 5,000 a second", table = "relay",
    unit = "request", variants = ALL_AND_DIRECT,
    note = "64 connections, answers of 1,000 bytes; latency counts from when a request was due.",
    load = { mode = "requests", clients = 64, path = "/bytes?n=1000", size = 1000, rate = 5000 },
    quick = { runs = 2, seconds = 1 }, full = { runs = 4, seconds = 4 },
  },
  {
    id = "filters", title = "Lua filters, 1,000 streams, 10 events a second each", table = "filter",
    unit = "event", variants = filters(10), load = streams(1000, JSON .. 10), per_stream = 10,
    note = "Each event is 200 bytes of JSON. Cost per event that reached the proxy.",
    quick = { runs = 2, seconds = 1 }, full = { runs = 4, seconds = 4 },
  },
  {
    id = "filters_fast", title = "Lua filters, eight firehose streams", table = "filter",
    unit = "event", bulk = true, variants = filters(0), load = streams(8, JSON .. 0),
    quick = { runs = 1, seconds = 1 }, full = { runs = 3, seconds = 3 },
  },
  {
    id = "reload", title = "Reload under load", table = "reload", unit = "event",
    note = "SIGHUP twice in the window of the second row; both rows have the same load.",
    variants = {
      { label = "gatewayd", contender = "gatewayd" },
      { label = "gatewayd, two reloads", contender = "gatewayd", reload = true },
    },
    load = streams(9500, EVENTS .. 1, { in_flight = 2000, settle = 1.5 }), per_stream = 1,
    quick = { runs = 1, seconds = 1.5 }, full = { runs = 3, seconds = 6 },
  },
  {
    id = "workers", title = "Two workers", table = "workers", unit = "event", spread = true,
    variants = {
      { label = "gatewayd, one worker", contender = "gatewayd" },
      { label = "gatewayd, two workers", contender = "gatewayd", workers = 2 },
    },
    note = "Eight firehose streams. The two cores carry origin and load generator as well, so this is no "
      .. "test of throughput: it tells whether an event costs more when there are two workers.",
    load = streams(8, EVENTS .. 0),
    full = { runs = 3, seconds = 3 },
  },
  {
    id = "slow", title = "Slow clients beside others", table = "relay",
    unit = "event", variants = ALL,
    note = "1,000 streams with 10 events a second each are measured; 50 more clients read 40 KiB/s of "
      .. "firehose streams. Memory tells who buffers.",
    load = streams(1050, EVENTS .. 10, { slow = 50, slow_path = EVENTS .. 0 }), per_stream = 10,
    quick = { runs = 1, seconds = 1 }, full = { runs = 3, seconds = 4 },
  },
}

return scenarios
