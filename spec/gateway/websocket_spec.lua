--- WebSocket through the gateway, with a library of others on both sides.
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"

local PYTHON, SCRIPT = "/usr/bin/python3", "spec/support/websocket.py" -- where Debian has its libraries

describe("WebSocket", function()
  local gw, server

  setup(function()
    server = process.spawn { PYTHON, SCRIPT, "serve" }
    local port = assert(tonumber((server:read_line("stdout", 15))), server:text "stderr")
    gw = gateway.start {
      services = { chat = port }, workers = 2,
      rules = { { id = "ws", path = "/ws", methods = { "GET" }, serviceName = "chat" } },
    }
  end)

  teardown(function()
    server:kill()
    gateway.stop_all()
  end)

  for check, what in pairs {
    messages = "carries text and bytes, none, a few and 1 MiB",
    pings = "carries pings and pongs",
    closes = "carries codes and reasons of closes, from either side",
    crowd = "carries a hundred conversations at once",
  } do
    it(what, function()
      local client = process.spawn { PYTHON, SCRIPT, "visit", tostring(gw.port), check }
      local status = client:wait(60)
      if not status then client:kill() end
      assert.equal("ok", client:text "stdout" :match "%S+", client:text "stderr")
    end)
  end

  it("ended well each time", function()
    for _, line in ipairs(gw:find_log "msg=request") do assert.matches("status=101 .* end=ok ", line) end
  end)
end)
