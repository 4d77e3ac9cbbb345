--- origin: backends for specs: sse_server, and script_server with a script.
local cjson = require("cjson")
local http = require("spec.support.http")
local process = require("spec.support.process")

local BUILD = os.getenv("GATEWAYD_BUILD") or "build"

local origin = {}

---@class spec.Origin a running server
---@field port integer
---@field process spec.Process
local Origin = {}
Origin.__index = Origin

local function launch(self, port)
  local argv = { self.bin, "--port", tostring(port) }
  for _, arg in ipairs(self.args) do
    argv[#argv + 1] = arg
  end
  self.process = process.spawn(argv, { stdin = self.stdin })
  local _, got = self.process:wait_line("^listening on [%d.]+:(%d+)$")
  self.port = tonumber(got)
end

--- Starts a server that takes --port and says "listening on HOST:PORT".
---@param bin string from the repository's root, build/sse_server say
---@param args? string[]
---@param options? {port?: integer, stdin?: string}
---@return spec.Origin
function origin.start(bin, args, options)
  options = options or {}
  local self = setmetatable({ bin = bin, args = args or {}, stdin = options.stdin }, Origin)
  launch(self, options.port or 0)
  return self
end

--- An sse_server of that name.
---@param name? string default: sse-1
---@param args? string[]
---@return spec.Origin
function origin.sse(name, args)
  local all = { "--name", name or "sse-1" }
  for _, arg in ipairs(args or {}) do
    all[#all + 1] = arg
  end
  return origin.start(BUILD .. "/sse_server", all)
end

--- A server that plays the script (see test-servers/README.md) for each connection.
---@param text string
---@return spec.Origin
function origin.script(text)
  return origin.start(BUILD .. "/script_server", { "-" }, { stdin = text })
end

--- Ends the server.
---@return {code?: integer, signal?: integer} status
function Origin:stop()
  return self.process:stop()
end

--- Kills the server, as a crash would.
function Origin:kill()
  return self.process:kill()
end

--- Stops the server if it runs, and starts it again on the port it had.
function Origin:restart_on_same_port()
  self.process:stop()
  process.wait_until(function()
    return pcall(launch, self, self.port)
  end, 10, "port " .. self.port)
end

--- What sse_server counts: open_streams, requests, connections, aborted, …
---@return table<string, number>
function Origin:stats()
  return cjson.decode(http.fetch(self.port, "/stats").text)
end

--- Waits until a number of the statistics is right.
---@param name string
---@param value number|fun(value: number): boolean
---@param timeout? number seconds
---@return table<string, number> stats
function Origin:wait_stat(name, value, timeout)
  local stats
  process.wait_until(function()
    stats = self:stats()
    return type(value) == "function" and value(stats[name]) or stats[name] == value
  end, timeout, ("%s == %s of the origin"):format(name, tostring(value)))
  return stats
end

--- All lines a script_server has logged so far.
---@return string[]
function Origin:lines()
  return self.process:lines("stdout")
end

--- Reads on to the first logged line that matches. Raises when none comes.
---@param pattern string
---@param timeout? number seconds
---@return string line
---@return string ... captures
function Origin:wait_line(pattern, timeout)
  return self.process:wait_line(pattern, timeout, "stdout")
end

return origin
