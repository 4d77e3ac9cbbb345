--- gateway: runs the real binary for wire tests, each in a folder of its own, on a free port.
-- A gateway that was started here must end well: `stop` fails the test when it did not.
local process = require("spec.support.process")
local sys = require("spec.support.sys")

local gateway = {}

local function first_line_of(command)
  local pipe = assert(io.popen(command))
  local line = pipe:read("*l")
  pipe:close()
  return assert(line, command)
end

local BINARY = first_line_of("realpath -m '" .. (os.getenv("GATEWAYD_BUILD") or "build") .. "/gatewayd'")
local PATIENCE = sys.patience

---@class spec.Gateway a running gatewayd
---@field port integer of the listener for traffic
---@field admin_port? integer of the management listener, where that is enabled
---@field dir string its folder: conf/gateway.yaml, conf/routes, plugins
---@field process spec.Process
local Gateway = {}
Gateway.__index = Gateway

--- YAML -------------------------------------------------------------------------------------------

local function is_list(value)
  return #value > 0 or next(value) == nil
end

local function scalar(value)
  if type(value) ~= "string" then return tostring(value) end
  local quoted = value:gsub('[%c"\\]', function(c) return ("\\x%02x"):format(c:byte()) end)
  return '"' .. quoted .. '"'
end

--- Data as YAML in flow style; an empty table may be a list or a map, so nothing is given there.
---@param value any
---@return string
function gateway.yaml(value)
  if type(value) ~= "table" then return scalar(value) end
  if next(value) == nil then return "null" end
  local parts = {}
  if is_list(value) then
    for i, item in ipairs(value) do parts[i] = gateway.yaml(item) end
    return "[" .. table.concat(parts, ", ") .. "]"
  end
  for key, item in pairs(value) do
    parts[#parts + 1] = scalar(tostring(key)) .. ": " .. gateway.yaml(item)
  end
  table.sort(parts)
  return "{" .. table.concat(parts, ", ") .. "}"
end

-- An empty table says nothing where there is a map.
local function merge(into, from)
  for key, value in pairs(from or {}) do
    local old = into[key]
    local both = type(value) == "table" and type(old) == "table"
    local map = both and (not is_list(value) or #value == 0 and not is_list(old))
    if map then merge(old, value) else into[key] = value end
  end
  return into
end

local function services_of(given)
  local services = {}
  for name, list in pairs(given or {}) do
    local instances = {}
    for i, port in ipairs(type(list) == "table" and list or { list }) do
      local instance = { id = name .. "-" .. i, address = "127.0.0.1" }
      instances[i] = merge(instance, type(port) == "table" and port or { port = port })
    end
    services[#services + 1] = { name = name, instances = instances }
  end
  return services
end

-- The configuration as text, one line for each key at the root.
local function configuration(options)
  if options.yaml then return options.yaml end
  local tree = merge({
    frontend = { http = { host = "127.0.0.1", port = 0 } },
    registry = { type = "static", static = { services = services_of(options.services) } },
    router = { rules = options.rules or {} },
    workers = options.workers or 1,
    management = { enabled = false },
    lua = { maxRunTime = "5s" }, -- a sanitizer makes hooks slow
  }, options.config)
  local lines = {}
  for key, value in pairs(tree) do lines[#lines + 1] = key .. ": " .. gateway.yaml(value) end
  table.sort(lines)
  return table.concat(lines, "\n") .. "\n"
end

--- Folders for `pluginPath`: the gateway's own, those of the specs, and those that come with gatewayd.
---@return string[]
function gateway.plugin_path()
  local here = first_line_of "pwd"
  return { "../plugins", here .. "/spec/support/plugins", here .. "/plugins" }
end

--- Starting ---------------------------------------------------------------------------------------

---@class spec.GatewayOptions
---@field yaml? string the whole configuration, instead of what follows
---@field services? table<string, integer|(integer|table)[]> ports, or instances; ids are NAME-1, …
---@field rules? table[] as in router.rules
---@field config? table further keys, merged over the defaults (free port, one worker, no management)
---@field workers? integer
---@field files? table<string, string> text by path: "plugins/x.lua", "conf/routes/y.lua"
---@field env? table<string, string|false>
---@field args? string[] instead of `-c CONFIGURATION`
---@field under? string[] a program that runs it, with its arguments: valgrind, say

local folders = {} ---@type table<string, boolean> to be removed

local function remove_folders()
  local list = {}
  for dir in pairs(folders) do list[#list + 1] = "'" .. dir .. "'" end
  if #list > 0 then os.execute("rm -rf " .. table.concat(list, " ")) end
  folders = {}
end

gateway.at_exit = newproxy(true)
getmetatable(gateway.at_exit).__gc = remove_folders

--- A gateway's folder with its files, and no process yet; for `run` and `launch`.
---@param options spec.GatewayOptions
---@return spec.Gateway
function gateway.prepare(options)
  local self = setmetatable({ dir = sys.temporary_folder(), options = options }, Gateway)
  folders[self.dir] = true
  self.conf = self.dir .. "/conf/gateway.yaml"
  self:write("conf/gateway.yaml", configuration(options))
  for path, text in pairs(options.files or {}) do self:write(path, text) end
  return self
end

--- Starts the process; waits for nothing.
function Gateway:launch()
  local argv = { unpack(self.options.under or {}) }
  argv[#argv + 1] = BINARY
  for _, arg in ipairs(self.options.args or { "-c", self.conf }) do argv[#argv + 1] = arg end
  self.process = process.spawn(argv, { env = self.options.env, stdout = "inherit" })
end

--- Runs the binary to its end.
---@param args string[]
---@param options? {env?: table<string, string|false>, cwd?: string}
---@return integer? code nil when it was killed by a signal
---@return string stdout
---@return string stderr
function gateway.run(args, options)
  local child = process.spawn({ BINARY, unpack(args) }, options)
  local status = child:wait(4 * PATIENCE) -- plugins may take seconds of processor time
  if not status then
    child:kill()
    error(("gatewayd %s does not end:\n%s"):format(table.concat(args, " "), child:text("stderr")), 2)
  end
  return status.code, child:text("stdout"), child:text("stderr")
end

local running = {} ---@type table<spec.Gateway, boolean>

-- A program that it runs under makes it slow.
function Gateway:patience()
  return self.options.under and 4 * PATIENCE or PATIENCE
end

--- Starts gatewayd and waits until it serves. Raises with its log when it does not.
---@param options spec.GatewayOptions
---@return spec.Gateway
function gateway.start(options)
  local self = gateway.prepare(options)
  self:launch()
  running[self] = true
  self:wait_log("msg=ready", self:patience())
  local listeners = self:find_log("msg=listening")
  self.port = tonumber(listeners[1] and listeners[1]:match("addr=%S-:(%d+)"))
  self.admin_port = tonumber(listeners[2] and listeners[2]:match("addr=%S-:(%d+)"))
  assert(self.port, "no listener in the log")
  return self
end

--- Files ------------------------------------------------------------------------------------------

--- Writes a file below the gateway's folder, in one go, as an editor that renames would.
---@param path string
---@param text string
function Gateway:write(path, text)
  local target = self.dir .. "/" .. path
  sys.make_folder(target:match("^(.*)/"))
  local file = assert(io.open(target .. "~", "w"))
  file:write(text)
  file:close()
  assert(os.rename(target .. "~", target))
end

--- Writes the configuration anew from other options; it is taken up by a reload.
---@param options spec.GatewayOptions
function Gateway:configure(options)
  local keep = { frontend = { http = { port = self.port } } }
  options.config = merge(keep, options.config)
  self:write("conf/gateway.yaml", configuration(options))
end

--- Log --------------------------------------------------------------------------------------------

--- The lines of the log so far.
---@return string[]
function Gateway:log()
  return self.process:lines("stderr")
end

--- The log as one text; for messages.
function Gateway:log_text()
  return self.process:text("stderr")
end

--- How far the log has got: what comes after it is what happens next.
---@return integer mark for find_log and wait_log
function Gateway:mark()
  return #self:log()
end

--- The lines that match, all of them or those behind a mark.
---@param pattern string
---@param mark? integer
---@return string[]
function Gateway:find_log(pattern, mark)
  local found, lines = {}, self:log()
  for i = (mark or 0) + 1, #lines do
    if lines[i]:find(pattern) then found[#found + 1] = lines[i] end
  end
  return found
end

--- Waits for a line that matches. Raises, with the whole log, at the deadline or when the process ends.
---@param pattern string
---@param timeout? number seconds
---@param mark? integer lines before it do not count
---@return string line
function Gateway:wait_log(pattern, timeout, mark)
  local line
  local ok = pcall(process.wait_until, function()
    line = self:find_log(pattern, mark)[1]
    return line or not self.process:is_running()
  end, timeout or PATIENCE)
  line = line or self:find_log(pattern, mark)[1]
  if line then return line end
  local why = ok and "ended" or "timeout"
  error(("%s before a log line like %q; the log:\n%s"):format(why, pattern, self:log_text()), 2)
end

--- Signals ----------------------------------------------------------------------------------------

--- Reloads by HUP and waits for the outcome.
---@return integer? generation nil when the new set was refused
---@return string line the log's line about it
function Gateway:reload()
  local mark = self:mark()
  self.process:signal("HUP")
  local line = self:wait_reload(mark, "signal")
  return tonumber(line:match("generation=(%d+)")), line
end

--- Waits for the outcome of a reload that was asked for behind the mark, by HUP or by a changed file: one
-- change of a file may well have both.
---@param mark integer
---@param cause? "signal"|"change" default: either
---@return string line
function Gateway:wait_reload(mark, cause)
  local line
  local pattern = "msg=\"?reload.* cause=" .. (cause or "")
  process.wait_until(function()
    line = self:find_log(pattern, mark)[1]
    return line or not self.process:is_running()
  end, 4 * PATIENCE, "a reload; the log:\n" .. self:log_text())
  return assert(line, "gatewayd ended:\n" .. self:log_text())
end

local FAULTS = { "AddressSanitizer", "LeakSanitizer", "runtime error:", "broken invariant", "worker died" }

--- Stops it by TERM. Raises when it does not end, does not end well, or has reported a fault of its own.
---@param options? {faults?: boolean} faults: the test has provoked some
function Gateway:stop(options)
  collectgarbage() -- closes the connections that tests have left lying; what is open is drained
  self.process:signal("TERM")
  local status = self.process:wait(self:patience())
  if not status then self.process:kill() end
  local log = self:log_text()
  running[self] = nil
  if not status then error("gatewayd did not stop; its log:\n" .. log, 2) end
  if status.code ~= 0 then
    local how = status.code and "exit code " .. status.code or "signal " .. status.signal
    error(("gatewayd ended with %s; its log:\n%s"):format(how, log), 2)
  end
  for _, fault in ipairs(options and options.faults and {} or FAULTS) do
    if log:find(fault, 1, true) then error(("%s in gatewayd's log:\n%s"):format(fault, log), 2) end
  end
end

--- Stops the gateways of a test and removes their folders, for `after_each`; fails when one has not ended
-- well.
function gateway.stop_all()
  local first
  for self in pairs(running) do
    local ok, why = pcall(self.stop, self)
    if not ok then
      self.process:kill()
      running[self] = nil
      first = first or why
    end
  end
  remove_folders()
  if first then error(first, 2) end
end

return gateway
