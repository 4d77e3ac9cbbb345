--- Plugins that take many events at a time: what they get, what their verdicts do, what ends a batch.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local streams = require "spec.support.streams"

-- Says how many there were in the type of the first, and does what the last one's data says.
local MANY = [[
local gateway = require "gateway"
local plugin = { name = "many" }
local kept

function plugin.on_events(ctx, conf, events)
  local last = events[#events]
  local what = last.data
  if what == "count" then
    events[1].type = tostring(#events)
  elseif what == "drop" then
    return false
  elseif what == "odd" then
    local list = {}
    for i = 1, #events, 2 do list[#list + 1] = events[i] end
    return list
  elseif what == "more" then
    events[#events + 1] = { data = "new" }
    return events
  elseif what == "spoil" then
    for i = 1, #events + 5 do events[i] = i end
    events.x = 1
  elseif what == "one" then
    return { type = "one", data = tostring(#events) }
  elseif what == "same" then
    return last
  elseif what == "wait" then
    gateway.log.info "waits"
    gateway.sleep(0.02)
    last.data = "waited " .. events[1].data
  elseif what == "long" then
    gateway.log.info "waits"
    gateway.sleep(60)
  elseif what == "keep" then
    kept = last
  elseif what == "late" then
    last.data = tostring(pcall(function() return kept.data end))
  elseif what == "json" then
    for _, event in ipairs(events) do event.json = { n = event.json and event.json.n or 0 } end
  elseif what == "wrong" then
    return 5
  elseif what == "raise" then
    error "so be it"
  elseif what == "end" then
    return { events[1], ctx:close { data = "bye" }, last }
  end
end

return plugin
]]

-- Marks all that it sees.
local MARKING = [[
return { name = "marking", on_event = function(ctx, conf, event) event.id = "m" end }
]]

describe("batches", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = streams.gateway(server, {
      rules = {
        { id = "lone", path = "/lone", serviceName = "api", plugins = { "many" } },
        { id = "around", path = "/around", serviceName = "api", plugins = { "marking", "many", "marking" } },
        { id = "skip", path = "/skip", serviceName = "api", plugins = { { many = {}, onError = "skip" } } },
      },
      files = { ["plugins/many.lua"] = MANY, ["plugins/marking.lua"] = MARKING },
    })
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  local function open(path) return streams.open(gw, server, { path = path or "/lone" }) end

  local function play(sent, expected, path)
    local stream = open(path)
    for _ = 1, 2 do
      stream:send(sent)
      stream:expect(expected)
    end
    return stream
  end

  it("are the events that are there together", function()
    play("data: a\n\ndata:b\n\ndata: count\n\n", "event: 3\ndata: a\n\ndata:b\n\ndata: count\n\n")
    play("data: count\n\n", "event: 1\ndata: count\n\n")
  end)

  it("pass as they are where nothing is changed", function()
    play("data:a\r\n\r\nfoo\n\nid:1\rdata\r\rdata: x\n\n", "data:a\r\n\r\nfoo\n\nid:1\rdata\r\rdata: x\n\n")
    play("data: a\n\ndata: spoil\n\n", "data: a\n\ndata: spoil\n\n")
  end)

  it("are dropped, thinned and added to", function()
    local stream = play("data: a\n\ndata: b\n\ndata: odd\n\n", "data: a\n\ndata: odd\n\n")
    stream:send "data: a\n\ndata: drop\n\n:c\n\n"
    stream:expect ":c\n\n"
    play("data:a\n\ndata: more\n\n", "data:a\n\ndata: more\n\ndata: new\n\n")
    play("data:a\n\ndata: one\n\n", "event: one\ndata: 2\n\n")
    play("data:a\n\ndata: same\n\n", "data: same\n\n")
    play('data: {"n":1}\n\ndata: json\n\n', 'data: {"n":1}\n\ndata: {"n":0}\n\n')
  end)

  it("end at comments, which pass in their place", function()
    play("data: a\n\n:c\n\ndata: b\n\ndata: count\n\n:d\n\n",
      "data: a\n\n:c\n\nevent: 2\ndata: b\n\ndata: count\n\n:d\n\n")
  end)

  it("wait, and keep the order", function()
    local stream = open()
    local mark = gw:mark()
    stream:send "data: a\n\ndata: wait\n\ndata: "
    gw:wait_log("text=waits", nil, mark)
    stream:send "b\n\n"
    stream:expect "data: a\n\ndata: waited a\n\ndata: b\n\n"
  end)

  it("are let go when the client leaves while the hook waits", function()
    local stream = open()
    stream:send 'data: {"n":1}\n\ndata: json\n\n'
    stream:expect 'data: {"n":1}\n\ndata: {"n":0}\n\n'
    local mark = gw:mark()
    stream:send "data: a\n\ndata: long\n\n"
    gw:wait_log("text=waits", nil, mark)
    stream.conn:close()
    gw:wait_log("end=client_gone", nil, mark)
    play("data: a\n\ndata: count\n\n", "event: 2\ndata: a\n\ndata: count\n\n")
  end)

  it("go on under a new version", function()
    local stream = open()
    stream:send "data: a\n\ndata: wait\n\n"
    stream:expect "data: a\n\ndata: waited a\n\n"
    gw:write("plugins/many.lua", (MANY:gsub('"waited "', '"anew "')))
    assert(gw:reload())
    stream:send "data: a\n\ndata: wait\n\n"
    stream:expect "data: a\n\ndata: anew a\n\n"
    gw:write("plugins/many.lua", MANY)
    assert(gw:reload())
  end)

  it("are over when the hook is", function()
    play("data: a\n\ndata: keep\n\n", "data: a\n\ndata: keep\n\n")
    play("data: late\n\n", "data: false\n\n")
  end)

  it("have at most 64 events, and any number comes through", function()
    local stream = open()
    local sent, expected = {}, {}
    for i = 1, 1000 do
      sent[i] = "data: count\n\n"
      expected[i] = "data: count\n\n"
    end
    stream:send(table.concat(sent))
    local got = ""
    repeat got = got .. assert(stream.client:read()) until select(2, got:gsub("\n\n", "")) == 1000
    local most = 0
    for number in got:gmatch "event: (%d+)" do most = math.max(most, tonumber(number)) end
    assert.is_true(most > 1 and most <= 64)
    assert.equal(table.concat(expected), (got:gsub("event: %d+\n", "")))
  end)

  it("end the stream where the hook says so", function()
    local stream = open()
    stream:send "data: a\n\ndata: end\n\n"
    assert.same({ "data: a\n\ndata: bye\n\n", "clean" }, { stream:rest() })
  end)

  it("break it, or pass, where the hook has an error", function()
    for _, what in ipairs { "raise", "wrong" } do
      local stream = open()
      stream:send(("data: a\n\ndata: %s\n\n"):format(what))
      local text, how = stream:rest()
      assert.same({ "", "broken" }, { text, how })
      play(("data: a\n\ndata: %s\n\n"):format(what), ("data: a\n\ndata: %s\n\n"):format(what), "/skip")
    end
    gw:wait_log 'plugin=many hook=on_events message="returned 5; expected'
    assert.matches("so be it", gw:wait_log "plugin=many hook=on_events message=%S*plugins/many.lua")
  end)

  it("are of one event between other plugins", function()
    play("data: a\n\ndata: count\n\n", "id: m\ndata: a\n\nevent: 1\nid: m\ndata: count\n\n", "/around")
  end)
end)
