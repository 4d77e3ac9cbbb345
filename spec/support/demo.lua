--- demo: what `make run` starts, for specs: three backends and a gateway with conf/gateway-sse.yaml, its Lua
-- routes and its plugins, in a folder where they may be edited, and on free ports.
local gateway = require("spec.support.gateway")
local origin = require("spec.support.origin")

local demo = {}

---@class spec.Demo
---@field gateway spec.Gateway
---@field sse spec.Origin behind /events
---@field event_1 spec.Origin behind /notifications
---@field event_2 spec.Origin
local Demo = {}
Demo.__index = Demo

--- A whole file of the working tree.
---@param path string
---@return string
function demo.read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

--- Replaces the first such text, which must be there, as somebody who edits a file would.
---@param text string
---@param old string
---@param new string
---@return string
function demo.replaced(text, old, new)
  local first, last = text:find(old, 1, true)
  if not first then error("no such text: " .. old, 2) end
  return text:sub(1, first - 1) .. new .. text:sub(last + 1)
end

-- The demo's configuration with other ports, and the files that it names.
local function files_of(ports)
  local yaml = demo.replaced(demo.read("conf/gateway-sse.yaml"), '"0.0.0.0"', '"127.0.0.1"')
  for from, to in pairs(ports) do yaml = demo.replaced(yaml, "port: " .. from, "port: " .. to) end
  local files = {}
  local pipe = assert(io.popen("ls conf/routes/*.lua plugins/*.lua"))
  for path in pipe:lines() do files[path] = demo.read(path) end
  pipe:close()
  return yaml, files
end

--- Starts it all; end it with `stop`.
---@return spec.Demo
function demo.start()
  local self = setmetatable({}, Demo)
  self.sse, self.event_1, self.event_2 = origin.sse("sse-1"), origin.sse("event-1"), origin.sse("event-2")
  local yaml, files = files_of({
    [8080] = 0, [9001] = 0, [3010] = self.sse.port, [3011] = self.event_1.port, [3012] = self.event_2.port,
  })
  self.gateway = gateway.start({ yaml = yaml, files = files })
  return self
end

--- The backends.
---@return spec.Origin[]
function Demo:backends()
  return { self.sse, self.event_1, self.event_2 }
end

--- Fails when the gateway does not end well.
function Demo:stop()
  for _, server in ipairs(self:backends()) do server:stop() end
  gateway.stop_all()
end

return demo
