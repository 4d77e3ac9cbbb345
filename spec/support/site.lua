--- site: a gateway with a management listener whose files change while it runs, and what can be seen of
-- its processes: for specs of reloads and of processes.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local sys = require "spec.support.sys"

local site = {}

site.PATIENCE = sys.patience
--- Whether the build has a sanitizer, which keeps freed memory for a while.
site.sanitized = (os.getenv("ASAN_OPTIONS") or "") ~= ""

---@class spec.Site: spec.Gateway
---@field given spec.GatewayOptions what it was started or configured with last
local Site = {}

local function merged(into, from)
  local out = {}
  for key, value in pairs(into) do out[key] = value end
  for key, value in pairs(from) do
    local both = type(value) == "table" and type(out[key]) == "table"
    out[key] = both and #value == 0 and #out[key] == 0 and merged(out[key], value) or value
  end
  return out
end

-- What the harness writes into the options stays out of ours.
local function copy(value)
  if type(value) ~= "table" then return value end
  local out = {}
  for key, item in pairs(value) do out[key] = copy(item) end
  return out
end

local DEFAULTS = {
  config = {
    management = { enabled = true, host = "127.0.0.1", port = 0 },
    frontend = { sse = { keepaliveTimeout = 0 } },
    backend = { http = { keepAlive = false } },
  },
}

--- Starts a gateway with a management listener and without keepalives.
---@param options spec.GatewayOptions
---@return spec.Site
function site.start(options)
  local given = merged(DEFAULTS, options)
  local self = gateway.start(copy(given))
  for name, method in pairs(Site) do self[name] = method end
  self.given = given
  return self
end

--- Writes the configuration with some options changed; they stay changed.
---@param changes spec.GatewayOptions
function Site:change(changes)
  self.given = merged(self.given, changes)
  self:configure(copy(self.given))
end

--- Changes the configuration and has it taken up by HUP. Raises when it is refused.
---@param changes? spec.GatewayOptions
---@return integer generation
function Site:renew(changes)
  if changes then self:change(changes) end
  local generation = self:reload()
  return generation or error("the reload was refused:\n" .. self:log_text(), 2)
end

--- Writes a file in place, as `>` in a shell does.
---@param path string below the site's folder
---@param text string
function Site:put(path, text)
  local file = assert(io.open(self.dir .. "/" .. path, "w"))
  file:write(text)
  file:close()
end

--- Removes a file.
---@param path string below the site's folder
function Site:remove(path)
  assert(os.remove(self.dir .. "/" .. path))
end

--- Renames a file.
---@param from string below the site's folder
---@param to string
function Site:rename(from, to)
  assert(os.rename(self.dir .. "/" .. from, self.dir .. "/" .. to))
end

--- Waits for a reload behind the mark and raises when it was refused.
---@param mark integer
function Site:wait_taken_up(mark)
  local line = self:wait_reload(mark)
  if not line:find "msg=reloaded" then error("the reload was refused:\n" .. self:log_text(), 2) end
end

--- The body that a GET is answered with.
---@param path string
---@return string
function Site:get(path)
  return http.fetch(self.port, path).text
end

--- Waits until a GET is answered with this body: for changes that are noticed by themselves, perhaps in
-- more than one step.
---@param path string
---@param text string
function Site:wait_answer(path, text)
  local last
  local ok = pcall(sys.wait_until, function()
    last = self:get(path)
    return last == text
  end, site.PATIENCE)
  if not ok then error(("%s: %q, not %q; the log:\n%s"):format(path, last, text, self:log_text()), 2) end
end

--- Numbers of the management listener.
---@return table<string, number> by name, without the prefix
function Site:metrics()
  local numbers = {}
  local text = http.fetch(self.admin_port, "/metrics").text
  for name, value in text:gmatch "\ngatewayd_([%w_]+) (%d+)" do numbers[name] = tonumber(value) end
  return numbers
end

--- Waits until a number is right.
---@param name string
---@param value integer
function Site:wait_metric(name, value)
  local last
  local ok = pcall(sys.wait_until, function()
    last = self:metrics()[name]
    return last == value
  end, site.PATIENCE)
  if not ok then error(("%s is %s, not %d; the log:\n%s"):format(name, last, value, self:log_text()), 2) end
end

--- The workers' process ids.
---@return integer[]
function Site:workers()
  return site.workers(self)
end

--- The same of a gateway that is no site.
---@param gw spec.Gateway
---@return integer[]
function site.workers(gw)
  local pids = {}
  local file = io.open(("/proc/%d/task/%d/children"):format(gw.process.pid, gw.process.pid))
  for pid in (file and file:read "*a" or ""):gmatch "%d+" do pids[#pids + 1] = tonumber(pid) end
  if file then file:close() end
  return pids
end

--- The process id of a worker, by its number; right as long as none was replaced.
---@param number integer|string
---@return integer
function Site:worker(number)
  local pids = self:workers()
  table.sort(pids)
  return pids[tonumber(number)]
end

--- Waits until there are that many workers.
---@param count integer
---@return integer[] pids
function Site:wait_workers(count)
  local pids
  sys.wait_until(function()
    pids = self:workers()
    return #pids == count
  end, site.PATIENCE, count .. " workers; the log:\n" .. self:log_text())
  return pids
end

--- How many descriptors a process has.
---@param pid integer
---@return integer
function site.descriptors(pid)
  local pipe = assert(io.popen("ls /proc/" .. pid .. "/fd | wc -l"))
  local count = tonumber(pipe:read "*l")
  pipe:close()
  return count
end

--- The resident memory that is a process's own, in KiB.
---@param pid integer
---@return integer
function site.memory(pid)
  for line in io.lines("/proc/" .. pid .. "/status") do
    local kib = line:match "^RssAnon:%s*(%d+)"
    if kib then return tonumber(kib) end
  end
  error "no RssAnon"
end

--- Whether a process is there and not only waiting to be reaped.
---@param pid integer
---@return boolean
function site.is_alive(pid)
  local file = io.open("/proc/" .. pid .. "/stat")
  local state = file and file:read("*a"):match "^%d+ %b() (%a)"
  if file then file:close() end
  return state ~= nil and state ~= "Z" and state ~= "X"
end

--- Signals a process that is a child of the gateway.
---@param pid integer
---@param number integer
function site.kill(pid, number)
  sys.C.spec_kill(pid, number)
end

return site
