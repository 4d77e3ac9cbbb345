--- Open streams while versions change: they go on, under the new one from their next event on.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local site = require "spec.support.site"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

-- A plugin that adds its version, and how many events of the stream it has seen, to what passes.
local function count(version, more)
  return ([[
local plugin = { name = "count" }

function plugin.on_event(ctx, _, event)
  ctx.state.seen = (ctx.state.seen or 0) + 1
  ctx.shared.all = (ctx.shared.all or 0) + 1
  event.data = ("%%s/v%d/%%d/%%d"):format(event.data, ctx.state.seen, ctx.shared.all)
end

%s
return plugin
]]):format(version, more or "")
end

local function mark(version)
  return ([[
return { name = "mark", on_event = function(_, _, event) event.data = event.data .. "/v%d" end }
]]):format(version)
end

local server

-- A gateway with one route, whose plugins are these.
local function start(plugins, files, more)
  local options = {
    services = { api = server.port },
    rules = { { id = "api", path = "/*", serviceName = "api", plugins = plugins } },
    files = files,
  }
  for key, value in pairs(more or {}) do options[key] = value end
  return site.start(options)
end

local function with_plugins(plugins)
  return { rules = { { id = "api", path = "/*", serviceName = "api", plugins = plugins } } }
end

-- The data of the next event.
local function data_of(stream)
  local event, how = stream.client:event()
  return event and event.data or how
end

-- Sends an event and returns its data as the client gets it.
local function echo(stream, data)
  stream:send("data: " .. data .. "\n\n")
  return data_of(stream)
end

-- Waits until no stream is left under an older version.
local function settled(gw, workers)
  gw:wait_metric("generations", workers or 1)
end

local function set_up()
  server = backend.listen()
end

local function tear_down()
  streams.close_all()
  gateway.stop_all()
  server:close()
end

describe("an open stream", function()
  before_each(set_up)
  after_each(tear_down)

  it("goes on under the new version with its ctx.state and ctx.shared", function()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1) })
    local stream = streams.open(gw, server)
    assert.equal("a/v1/1/1", echo(stream, "a"))
    for version = 2, 4 do
      gw:write("plugins/count.lua", count(version))
      gw:renew()
      settled(gw)
      assert.equal(("b/v%d/%d/%d"):format(version, version, version), echo(stream, "b"))
    end
    assert.equal("a/v4/1/1", echo(streams.open(gw, server), "a"))
  end)

  it("takes up a plugin that is added, and goes on without one that is removed", function()
    local gw = start({}, { ["plugins/mark.lua"] = mark(1) })
    local stream = streams.open(gw, server)
    assert.equal("a", echo(stream, "a"))
    gw:renew(with_plugins { "mark" })
    settled(gw)
    assert.equal("b/v1", echo(stream, "b"))
    gw:renew(with_plugins {})
    settled(gw)
    assert.equal("c", echo(stream, "c"))
  end)

  it("has kept its heads, its params and what an access hook left, for a plugin that is added", function()
    local note = [[
local plugin = { name = "note" }

function plugin.access(ctx)
  if ctx.req.query.note then ctx.state.note, ctx.shared.note = ctx.req.query.note, "shared" end
end

return plugin
]]
    local tell = [[
local plugin = { name = "tell" }

function plugin.on_event(ctx, _, event)
  local req, res = ctx.req, ctx.res
  event.data = table.concat({
    req.method, req.path, req.query.note or "-", req.headers["X-Odd"], #req.headers["X-Long"],
    req.host, res.status, res.headers["Content-Type"], res.headers["X-Back"],
    res.headers["X-Request-Id"], ctx.id,
    ctx.params.name, ctx.shared.note or "-", ctx.client.address, ctx.route.id,
  }, " ")
end

return plugin
]]
    local route = { id = "api", path = "/rooms/{name}/events", serviceName = "api", plugins = { "note" } }
    local files = { ["plugins/note.lua"] = note, ["plugins/tell.lua"] = tell }
    local gw = start({}, files, { rules = { route } })
    local function open(query)
      return streams.open(gw, server, {
        path = "/rooms/blue%20one/events" .. query, lines = "X-Back: b\r\n",
        headers = { ["X-Odd"] = "odd", ["X-Long"] = ("x"):rep(3000), ["X-Request-Id"] = "given" },
      })
    end
    local plain, noted = open "", open "?note=n"
    assert.equal("a", echo(plain, "a"))
    route.plugins = { "note", "tell" }
    gw:renew { rules = { route } }
    settled(gw)
    local told = "GET /rooms/blue%%20one/events %s odd 3000 localhost 200 text/event-stream b "
      .. "given given blue one %s 127.0.0.1 api"
    for _ = 1, 2 do
      assert.equal(told:format("-", "-"), echo(plain, "a"))
      assert.equal(told:format("n", "shared"), echo(noted, "a"))
    end
  end)

  it("takes up the functions of a Lua route, with their state", function()
    local function route(version)
      return ([[
return { { id = "lua", path = "/lua", serviceName = "api", on_event = function(ctx, event)
  ctx.state.seen = (ctx.state.seen or 0) + 1
  event.data = event.data .. "/v%d/" .. ctx.state.seen
end } }
]]):format(version)
    end
    local gw = start({}, { ["conf/routes/a.lua"] = route(1) },
      { config = { router = { lua = { "routes/*.lua" } } } })
    local stream = streams.open(gw, server, { path = "/lua" })
    assert.equal("a/v1/1", echo(stream, "a"))
    gw:write("conf/routes/a.lua", route(2))
    gw:renew()
    settled(gw)
    assert.equal("b/v2/2", echo(stream, "b"))
  end)

  it("has on_close called once, by the version it ends under", function()
    local function closing(version)
      local body = "function plugin.on_close(ctx) ctx:log('info', 'closed by v%d of ' .. ctx.state.seen) end"
      return count(version, body:format(version))
    end
    local gw = start({ "count" }, { ["plugins/count.lua"] = closing(1) })
    local stream = streams.open(gw, server)
    echo(stream, "a")
    gw:write("plugins/count.lua", closing(2))
    gw:renew()
    settled(gw)
    stream:finish()
    stream:rest()
    assert.matches("closed by v2 of 1", gw:wait_log "closed by")
    gw:wait_log "msg=request"
    assert.equal(1, #gw:find_log "closed by")
  end)

  it("keeps its backend when the instance is gone from the registry", function()
    local other = backend.listen()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1) })
    local stream = streams.open(gw, server)
    gw:renew { services = { api = other.port } }
    settled(gw)
    assert.equal("a/v1/1/1", echo(stream, "a"))
    other:close()
  end)

  it("goes on under the old version when its rule is gone, and follows when it is there again", function()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1) })
    local stream = streams.open(gw, server)
    gw:write("plugins/count.lua", count(2))
    gw:renew { rules = {} }
    assert.matches('level=warn .* rule=api generation=2 why="route api is not there any more"',
      gw:wait_log "stays under its old version")
    assert.equal(404, http.fetch(gw.port, "/x").status)
    assert.equal("a/v1/1/1", echo(stream, "a"))
    assert.equal("b/v1/2/2", echo(stream, "b"))
    settled(gw, 2)
    gw:renew(with_plugins { "count" })
    settled(gw)
    assert.equal("c/v2/3/3", echo(stream, "c"))
  end)

  it("moves with a rule whose path is another one now", function()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1) })
    local stream = streams.open(gw, server)
    gw:write("plugins/count.lua", count(2))
    gw:renew { rules = { { id = "api", path = "/other", serviceName = "api", plugins = { "count" } } } }
    settled(gw)
    assert.equal("a/v2/1/1", echo(stream, "a"))
  end)

  it("that had no event yet moves as well, also before its response head is there", function()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1) })
    local asked = streams.request(gw, server)
    gw:write("plugins/count.lua", count(2))
    gw:renew()
    settled(gw, 2)
    asked:answer()
    settled(gw)
    assert.equal("a/v2/1/1", echo(asked, "a"))
  end)
end)

describe("ctx.state in a new version", function()
  before_each(set_up)
  after_each(tear_down)

  local function replaced(version, more)
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1, version) })
    local stream = streams.open(gw, server)
    assert.equal("a/v1/1/1", echo(stream, "a"))
    gw:write("plugins/count.lua", count(2, more))
    gw:renew()
    return gw, stream
  end

  it("is what upgrade makes of it", function()
    local gw, stream = replaced("", [[
      function plugin.new() return { add = 10 } end
      function plugin.upgrade(state, conf) return { seen = state.seen + conf.add } end
    ]])
    settled(gw)
    assert.equal("b/v2/12/2", echo(stream, "b"))
  end)

  it("stays as it is when upgrade returns nothing", function()
    local gw, stream = replaced("", "function plugin.upgrade(state) state.seen = 5 end")
    settled(gw)
    assert.equal("b/v2/6/2", echo(stream, "b"))
  end)

  it("keeps the stream where it is when upgrade raises", function()
    local gw, stream = replaced("", "function plugin.upgrade() error 'no way' end")
    assert.matches("plugin count, upgrade: %S+count.lua:9: no way", gw:wait_log "stays under its old version")
    assert.equal("b/v1/2/2", echo(stream, "b"))
    assert.equal("a/v2/1/1", echo(streams.open(gw, server), "a"))
  end)

  for what, value in pairs {
    ["a function"] = "function() end",
    ["a coroutine"] = "coroutine.create(function() end)",
    ["itself"] = "ctx.state",
  } do
    it("keeps the stream where it is when it holds " .. what, function()
      local gw, stream = replaced(([[
        local look = plugin.on_event
        function plugin.on_event(ctx, conf, event)
          ctx.state.odd = %s
          return look(ctx, conf, event)
        end
      ]]):format(value))
      assert.matches("ctx.state of count can't move", gw:wait_log "stays under its old version")
      assert.equal("b/v1/2/2", echo(stream, "b"))
      assert.equal("a/v2/1/1", echo(streams.open(gw, server), "a"))
      settled(gw, 2)
      stream.conn:close()
      settled(gw)
    end)
  end

  local OBJECT = [[
    local Counter = {}
    Counter.__index = Counter
    function Counter:up() self.n = self.n + 1 return self.n end
    function plugin.on_event(ctx, _, event)
      ctx.state.counter = ctx.state.counter or setmetatable({ n = 0 }, Counter)
      event.data = event.data .. "/" .. ctx.state.counter:up()
    end
  ]]

  local function replaced_object(more)
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1, OBJECT) })
    local stream = streams.open(gw, server)
    assert.equal("a/1", echo(stream, "a"))
    gw:write("plugins/count.lua", count(2, OBJECT .. more))
    gw:renew()
    return gw, stream
  end

  it("keeps the stream where it is when it holds an object, whose methods would be lost", function()
    local gw, stream = replaced_object ""
    assert.matches("metatable", gw:wait_log "stays under its old version")
    assert.equal("b/2", echo(stream, "b"))
  end)

  it("moves with an object when the plugin has an upgrade to restore it", function()
    local gw, stream = replaced_object [[
      function plugin.upgrade(state) setmetatable(state.counter, Counter) end
    ]]
    settled(gw)
    assert.equal("b/2", echo(stream, "b"))
  end)

  it("keeps the stream where it is when ctx.shared can't move", function()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1, [[
      function plugin.on_response(ctx) ctx.shared.call = function() end end
    ]]) })
    local stream = streams.open(gw, server)
    gw:write("plugins/count.lua", count(2))
    gw:renew()
    assert.matches("ctx.shared can't move", gw:wait_log "stays under its old version")
    assert.equal("a/v1/1/1", echo(stream, "a"))
  end)
end)

-- Where the events of a text end: behind the first byte of the line end of a blank line. An LF behind
-- that CR belongs to it.
local function boundaries(text)
  local ends, at, blank = {}, text:sub(1, 3) == "\239\187\191" and 4 or 1, true
  local starts = { at - 1 }
  while at <= #text do
    local line, ending, rest = text:match("^([^\r\n]*)(\r?\n?)()", at)
    if line == "" and not blank then
      ends[#ends + 1] = at
      starts[#starts + 1] = at + #ending - 1
    end
    blank, at = line == "", rest
  end
  return starts, ends
end

local TEXTS = {
  "event: tick\nid: 1\ndata: one\n\ndata: two\n\ndata: three\n\n",
  "event: tick\r\nid: 1\r\ndata: one\r\n\r\ndata: two\r\n\r\ndata: three\r\n\r\n",
  "event: tick\rid: 1\rdata: one\r\rdata: two\r\rdata: three\r\r",
  "\239\187\191data: one\r\n\ndata: two\r\r\ndata: three\n\r\n",
}

local WORDS = { "one", "two", "three" }

-- What becomes of event `i` when the version changes behind `cut` bytes. In byte mode an event that has
-- begun goes on as it began.
local function expected(text, i, cut, from, to)
  local starts, ends = boundaries(text)
  local old = ends[i] <= cut or (from == "bytes" and starts[i] < cut)
  local version = old and 1 or 2
  return WORDS[i] .. ((old and from or to) == "events" and "/v" .. version or "")
end

describe("a stream whose version changes at any byte", function()
  before_each(set_up)
  after_each(tear_down)

  local PLUGINS = { bytes = {}, events = { "mark" } }

  local function open_all(gw)
    local open = {}
    for _, text in ipairs(TEXTS) do
      for cut = 0, #text do
        local stream = streams.open(gw, server)
        stream.text, stream.cut = text, cut
        stream:send(text:sub(1, cut))
        open[#open + 1] = stream
      end
    end
    return open
  end

  for _, way in ipairs {
    { "events", "events" }, { "bytes", "events" }, { "events", "bytes" }, { "bytes", "bytes" },
  } do
    local from, to = way[1], way[2]
    it(("loses, doubles and reorders nothing: from %s to %s"):format(from, to), function()
      local gw = start(PLUGINS[from], { ["plugins/mark.lua"] = mark(1) },
        { config = { frontend = { sse = { keepaliveTimeout = 0.05 } } } })
      local open = open_all(gw)
      streams.settle(gw, server)
      gw:write("plugins/mark.lua", mark(2))
      gw:renew(with_plugins(PLUGINS[to]))
      settled(gw)
      sys.wait_until(function() return gw:metrics().keepalives_total > 0 end, site.PATIENCE, "a keepalive")
      for _, stream in ipairs(open) do stream:send(stream.text:sub(stream.cut + 1)) end
      for _, stream in ipairs(open) do
        stream:finish()
        local text, how = stream:rest()
        local got, wanted = {}, {}
        for i, event in ipairs(http.parse_events(text)) do got[i] = event.data end
        for i = 1, 3 do wanted[i] = expected(stream.text, i, stream.cut, from, to) end
        local what = ("cut at %d of %q: %q"):format(stream.cut, stream.text, text)
        assert.equal(table.concat(wanted, " "), table.concat(got, " "), what)
        assert.equal("clean", how, what)
      end
    end)
  end

  it("gets part of an event that has come as soon as nobody needs it whole", function()
    local gw = start({ "mark" }, { ["plugins/mark.lua"] = mark(1) })
    local stream = streams.open(gw, server)
    stream:send "data: half"
    streams.settle(gw, server)
    gw:renew(with_plugins {})
    stream:expect "data: half"
  end)
end)

describe("streams in full flow", function()
  before_each(set_up)
  after_each(tear_down)

  -- Sends events of a number in pieces that end anywhere, and asks for a reload now and then.
  local function flow(gw, open, rounds, change)
    local rest, sent = {}, 0
    for round = 1, rounds do
      change(round)
      gw.process:signal "HUP"
      for _ = 1, 30 do
        sent = sent + 1
        for i, stream in ipairs(open) do
          local text = (rest[i] or "") .. ("id: %d\ndata: %d\n\n"):format(sent, sent)
          local cut = (sent * 7 + i * 3) % #text
          stream:send(text:sub(1, cut))
          rest[i] = text:sub(cut + 1)
        end
      end
    end
    for i, stream in ipairs(open) do
      stream:send(rest[i])
      stream:finish()
    end
    return sent
  end

  local function check(open, sent)
    for i, stream in ipairs(open) do
      local text, how = stream:rest(site.PATIENCE)
      local events, version = http.parse_events(text), 0
      for k, event in ipairs(events) do
        local number, found = event.data:match "^(%d+)/?v?(%d*)"
        assert.equal(k, tonumber(number), "stream " .. i)
        assert.is_true((tonumber(found) or version) >= version, "an older version behind a newer one")
        version = tonumber(found) or version
      end
      assert.same({ sent, "clean" }, { #events, how })
    end
  end

  it("lose nothing through many reloads", function()
    local gw = start({ "mark" }, { ["plugins/mark.lua"] = mark(0) }, { workers = 2 })
    local open = {}
    for i = 1, 12 do open[i] = streams.open(gw, server) end
    check(open, flow(gw, open, 12, function(round) gw:write("plugins/mark.lua", mark(round)) end))
    assert.is_true(#gw:find_log "msg=reloaded" > 1)
    assert.same({}, gw:find_log "reload failed")
  end)

  it("lose nothing while plugins come and go", function()
    local gw = start({ "mark" }, { ["plugins/mark.lua"] = mark(0) }, { workers = 2 })
    local open = {}
    for i = 1, 12 do open[i] = streams.open(gw, server) end
    check(open, flow(gw, open, 12, function(round)
      gw:write("plugins/mark.lua", mark(round))
      gw:change(with_plugins(round % 2 == 0 and { "mark" } or {}))
    end))
  end)
end)

describe("while streams are carried over", function()
  before_each(set_up)
  after_each(tear_down)

  -- An upgrade of ten milliseconds, and what tells how many there have been.
  local UPGRADE = [[
local moved = 0

function plugin.upgrade()
  local stop = os.clock() + 0.01
  while os.clock() < stop do end
  moved = moved + 1
end

local look = plugin.on_event
function plugin.on_event(ctx, conf, event)
  look(ctx, conf, event)
  event.data = tostring(moved)
end
]]

  it("events of the others pass", function()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1) })
    local open, between = {}, 0
    for i = 1, 50 do
      open[i] = streams.open(gw, server)
      echo(open[i], "a")
    end
    gw:write("plugins/count.lua", count(2, UPGRADE))
    gw.process:signal "HUP"
    repeat
      local moved = tonumber(echo(open[1], "b"))
      if moved and moved < #open then between = between + 1 end
    until moved == #open
    assert.is_true(between > 1) -- the stream's own move may be the first
  end)
end)

describe("while a worker loads a version", function()
  before_each(set_up)
  after_each(tear_down)

  -- A plugin whose file keeps a worker busy for a second of its own time.
  local SLOW = [[
local gateway = require "gateway"
if gateway.worker() > 0 then
  gateway.log.info("loading begins")
  local stop = os.clock() + 1
  while os.clock() < stop do end
  gateway.log.info("loading ends")
end
return { name = "slow" }
]]

  -- A gateway that has begun to load such a plugin, and a stream through it.
  local function start_loading()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1), ["plugins/slow.lua"] = SLOW })
    local stream = streams.open(gw, server)
    gw:change(with_plugins { "count", "slow" })
    gw.process:signal "HUP"
    gw:wait_log "loading begins"
    return gw, stream
  end

  it("its streams go on", function()
    local gw, stream = start_loading()
    assert.equal("a/v1/1/1", echo(stream, "a"))
    assert.same({}, gw:find_log "loading ends")
    gw:wait_log "msg=reloaded"
    settled(gw)
    assert.equal("b/v1/2/2", echo(stream, "b"))
  end)

  it("the next version waits for its turn", function()
    local gw, stream = start_loading()
    gw:write("plugins/count.lua", count(2))
    gw.process:signal "HUP"
    gw:wait_log "msg=reloaded"
    gw:wait_log "generation=3"
    settled(gw)
    assert.equal("a/v2/1/1", echo(stream, "a"))
  end)

  it("it can be told to end", function()
    local gw, stream = start_loading()
    gw.process:signal "TERM"
    gw:wait_log "draining"
    assert.equal("a/v1/1/1", echo(stream, "a"))
    stream:finish()
    stream:rest()
    gw:stop()
    assert.same({}, gw:find_log "worker died")
  end)
end)

describe("old versions", function()
  before_each(set_up)
  after_each(tear_down)

  -- A file that is written anew, so that each reload has a version of its own.
  local function renew(gw, version)
    gw:write("plugins/count.lua", count(version))
    gw:renew()
  end

  it("are gone after fifty reloads with open streams, and so is what they held", function()
    local gw = start({ "count" }, { ["plugins/count.lua"] = count(1) }, { workers = 2 })
    local open = {}
    for i = 1, 60 do open[i] = streams.open(gw, server, { path = i % 2 == 0 and "/x" or "/y" }) end
    for version = 2, 21 do renew(gw, version) end
    settled(gw, 2)
    local pids, before = gw:workers(), {}
    pids[3] = gw.process.pid
    for i, pid in ipairs(pids) do before[i] = { site.memory(pid), site.descriptors(pid) } end
    for version = 22, 51 do renew(gw, version) end
    settled(gw, 2)
    for i, pid in ipairs(pids) do
      local grown = site.memory(pid) - before[i][1]
      assert.is_true(site.descriptors(pid) < before[i][2] + 10, "30 reloads took descriptors")
      assert.is_true(site.sanitized or grown < 2048, ("30 reloads took %d KiB"):format(grown))
    end
    for _, stream in ipairs(open) do assert.equal("a/v51/1/1", echo(stream, "a")) end
  end)

  it("live as long as an ordinary request needs them", function()
    local function reader(version)
      return ([[
return { name = "reader", access = function(ctx) return ctx:reply(200, ctx.req.body .. "/v%d") end }
]]):format(version)
    end
    local gw = start({ "reader" }, { ["plugins/reader.lua"] = reader(1) })
    local conn = http.connect(gw.port)
    conn:send "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc"
    gw:wait_metric("requests_total", 1)
    gw:write("plugins/reader.lua", reader(2))
    gw:renew()
    settled(gw, 2)
    conn:send "def"
    assert.equal("abcdef/v1", (conn:response():body()))
    settled(gw)
    assert.equal("x/v2", http.fetch(gw.port, { method = "POST", path = "/x", body = "x" }).text)
  end)

  -- Hooks of the first version wait until a request of that version, which waits for its body, has it.
  local PATIENT = [[
local gateway = require "gateway"
local go = false
local plugin = { name = "patient" }

function plugin.access(ctx)
  if ctx.req.path ~= "/go" then return end
  local _ = ctx.req.body
  go = true
  return ctx:reply(200)
end

function plugin.on_event(ctx, _, event)
  if event.data == "one" then ctx:log("info", "waiting") end
  while event.data == "one" and not go do gateway.sleep(0.01) end
  event.data = event.data .. "/vVERSION"
end

return plugin
]]

  it("finish the event that a hook of theirs is busy with; the next one is the new version's", function()
    local gw = start({ "patient" }, { ["plugins/patient.lua"] = PATIENT:gsub("VERSION", "1") })
    local conn = http.connect(gw.port)
    conn:send "POST /go HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
    local stream = streams.open(gw, server)
    stream:send "data: one\n\ndata: two\n\ndata: three\n\n"
    gw:wait_log "waiting"
    gw:write("plugins/patient.lua", (PATIENT:gsub("VERSION", "2")))
    gw:renew()
    settled(gw, 2)
    conn:send "x"
    assert.equal(200, conn:response().status)
    assert.same({ "one/v1", "two/v2", "three/v2" }, { data_of(stream), data_of(stream), data_of(stream) })
    settled(gw)
  end)
end)
