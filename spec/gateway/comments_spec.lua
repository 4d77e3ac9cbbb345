--- Comments as events: plugins that ask for them see them, all others and all other bytes are left alone.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local streams = require "spec.support.streams"

local ASKING = [[
local gateway = require "gateway"
local plugin = { name = "asking", comments = true }

function plugin.on_event(ctx, conf, event)
  if event.data or not event.comment then return end
  local what = event.comment
  if what == "drop" then return false end
  if what == "change" then event.comment = "changed" end
  if what == "event" then return { type = "made", data = event.raw } end
  if what == "wait" then
    gateway.sleep(0.001)
    return { event, { data = "waited" } }
  end
  if what == "fields" then return { { type = tostring(event.type) .. tostring(event.id), data = "x" } } end
  if what == "end" then return ctx:close() end
  if what == "raise" then error "so be it" end
end

return plugin
]]

-- Marks all that it sees.
local MARKING = [[
return { name = "marking", on_event = function(ctx, conf, event) event.id = conf.mark end,
  schema = { mark = { type = "string", default = "m" } } }
]]

describe("comments", function()
  local server, gw

  local function start(files)
    server = backend.listen()
    gw = streams.gateway(server, {
      rules = {
        { id = "lone", path = "/lone", serviceName = "api", plugins = { "asking" } },
        { id = "around", path = "/around", serviceName = "api",
          plugins = { { marking = { mark = "out" } }, "asking", { marking = { mark = "in" } } } },
        { id = "nobody", path = "/nobody", serviceName = "api", plugins = { "marking" } },
        { id = "skip", path = "/skip", serviceName = "api", plugins = { { asking = {}, onError = "skip" } } },
      },
      files = files or { ["plugins/asking.lua"] = ASKING, ["plugins/marking.lua"] = MARKING },
    })
  end

  before_each(function() start() end)

  after_each(function()
    streams.close_all()
    server:close()
    gateway.stop_all()
  end)

  local function open(path) return streams.open(gw, server, { path = path }) end

  it("are seen by a plugin that asks, and do what it wants", function()
    local stream = open "/lone"
    for _ = 1, 2 do -- the second time behind an event
      stream:send ":pass\r\n\r\n: drop\n\n:change\n\n"
      stream:expect ":pass\r\n\r\n: changed\n\n"
      stream:send ": event\n\n:fields\n\n:wait\n\n"
      stream:expect("event: made\ndata: : event\ndata: \ndata: \n\n"
        .. "event: messagenil\ndata: x\n\n:wait\n\ndata: waited\n\n")
      stream:send "data: x\n\n: note\ndata: y\n\n"
      stream:expect "data: x\n\n: note\ndata: y\n\n"
    end
    stream:send ": end\n\ndata: never\n\n"
    assert.same({ "", "clean" }, { stream:rest() })
  end)

  it("pass by all who do not ask, but not what comes of them", function()
    local stream = open "/around"
    stream:send ":pass\n\n:change\n\n\n"
    stream:expect ":pass\n\n: changed\n\n\n"
    stream:send ":event\n\ndata: x\n\n"
    stream:expect "event: made\nid: out\ndata: :event\ndata: \ndata: \n\nid: out\ndata: x\n\n"
  end)

  it("pass as they are where nobody asks; a retry alone is an event", function()
    local stream = open "/nobody"
    stream:send ":drop\n\n:x\r:y\r\n\r\n\nretry: 5\n\n"
    stream:expect ":drop\n\n:x\r:y\r\n\r\n\nid: m\nretry: 5\n\n"
  end)

  it("end the stream when the hook raises, or pass", function()
    local stream = open "/lone"
    stream:send ":raise\n\n"
    local _, how = stream:rest()
    assert.equal("broken", how)
    gw:wait_log "plugin=asking hook=on_event"
    stream = open "/skip"
    stream:send ":raise\n\n:drop\n\n:pass\n\n"
    stream:expect ":raise\n\n:pass\n\n"
  end)

  it("are seen from when a new version asks for them", function()
    local quiet = ASKING:gsub(", comments = true", "")
    gw:write("plugins/asking.lua", quiet)
    assert(gw:reload())
    local stream = open "/lone"
    stream:send ":drop\n\n"
    stream:expect ":drop\n\n"
    gw:write("plugins/asking.lua", ASKING)
    assert(gw:reload())
    stream:send ":drop\n\n:change\n\n"
    stream:expect ": changed\n\n"
  end)
end)
