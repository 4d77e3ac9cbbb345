--- A browser's WebSocket through the gateway, to a library of others.
local gateway = require("spec.support.gateway")
local process = require("spec.support.process")
local webdriver = require("spec.support.webdriver")

local PYTHON, SCRIPT = "/usr/bin/python3", "spec/support/websocket.py" -- where Debian has its libraries

local PAGE = [[
  window.got = [];
  window.socket = new WebSocket(arguments[0]);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => got.push(typeof event.data == "string" ? event.data : event.data.byteLength);
  socket.onclose = (event) => got.push(`${event.code} ${event.reason} ${event.wasClean}`);
  socket.onopen = () => {
    socket.send("grüße");
    socket.send(new Uint8Array(300000));
    socket.send("close");
  };
]]

describe("a browser's WebSocket #once", function()
  local browser, server, gw

  setup(function()
    browser = webdriver.start()
    server = process.spawn { PYTHON, SCRIPT, "serve" }
    local port = assert(tonumber((server:read_line("stdout", 15))), server:text "stderr")
    gw = gateway.start {
      services = { chat = port },
      rules = { { id = "ws", path = "/ws", methods = { "GET" }, serviceName = "chat" } },
    }
  end)

  teardown(function()
    if browser then browser:stop() end
    server:kill()
    gateway.stop_all()
  end)

  it("carries messages both ways, and how it was closed", function()
    browser:open(("http://localhost:%d/"):format(gw.port)) -- any page of the same host does, a 404 too
    browser:run(PAGE, ("ws://localhost:%d/ws"):format(gw.port))
    browser:wait "got.length >= 3"
    assert.same({ "grüße", 300000, "4321 as you wish true" }, browser:run "return got")
    assert.matches("end=ok", gw:wait_log "status=101")
  end)
end)
