--- A client that leaves while nothing is read from it: its end lies behind bytes that nobody takes yet,
-- and is noticed all the same.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

local SLEEP = [[
local plugin = { name = "sleep" }

function plugin.access() gateway.sleep(60) end

return plugin
]]

-- More than is read ahead (64 KiB of a body, 96 KiB of what follows a request), and little enough for the
-- rest to lie in the kernel: an end behind bytes that it has no room for is still with the client.
local BODY, BEHIND, MUCH = ("x"):rep(90 * 1024), ("x"):rep(120 * 1024), ("x"):rep(1024 * 1024)
local POST = "POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"

describe("a client that leaves while it is not read", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port },
      rules = {
        { id = "hook", path = "/hook", serviceName = "api", plugins = { "sleep" } },
        { id = "stuck", path = "/stuck", serviceName = "api" },
      },
      files = { ["plugins/sleep.lua"] = SLEEP },
      config = { backend = { http = { responseHeaderTimeout = 60 } } },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  local function leaves(conn, how)
    local mark = gw:mark()
    conn[how](conn)
    return gw:wait_log("msg=request .*end=client_gone", 5, mark)
  end

  for _, how in ipairs { "shutdown", "close", "reset" } do
    it(("by %s, in mid-upload, while a hook waits"):format(how), function()
      local conn = http.connect(gw.port)
      conn:send(POST:format "hook" .. BODY)
      assert.matches("method=POST", leaves(conn, how))
    end)

    it(("by %s, with more requests behind the one that waits"):format(how), function()
      local conn = http.connect(gw.port)
      conn:send("GET /hook HTTP/1.1\r\nHost: a\r\n\r\n" .. BEHIND)
      assert.matches("method=GET", leaves(conn, how))
    end)
  end

  it("while its backend takes nothing, which is let go as well", function()
    local conn = http.connect(gw.port)
    conn:send(POST:format "stuck")
    local received = server:request()
    repeat
      local sent = conn:send(MUCH, 0.3)
    until not sent
    leaves(conn, "reset")
    assert.not_equal("timeout", select(2, received.conn:read_all()))
  end)
end)
