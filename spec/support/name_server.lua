--- name_server: a name server in a process of its own, for a gateway that asks while the spec waits for it.
-- Start it before anything that listens: its process has what is open then.
--
--     local names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 1 } }
--     names:set { ["api.test"] = false }
local dns = require "spec.support.dns"
local forks = require "spec.support.forks"
local sys = require "spec.support.sys"

local name_server = {}

---@class spec.NameServer
---@field servers string what a resolver is told
local NameServer = {}
NameServer.__index = NameServer

local PR_SET_PDEATHSIG, SIGKILL, FOR_EVER = 1, 9, 3600

local function literal(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for key, item in pairs(value) do parts[#parts + 1] = ("[%s] = %s"):format(literal(key), literal(item)) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

-- The zone is a file that is read for each question, and the questions are noted in another one.
local function serve(server, zone, asked)
  while true do
    local question = server:question(FOR_EVER)
    local file = assert(io.open(asked, "a"))
    file:write(question.type, " ", question.name, "\n")
    file:close()
    server:say(question, dofile(zone)[question.name])
  end
end

---@param zone table<string, table|false> what Dns:say takes, by name
---@return spec.NameServer
function name_server.start(zone)
  local server = dns.listen()
  local self = setmetatable({ servers = server.servers, zone = os.tmpname() }, NameServer)
  self.asked_file = self.zone .. ".asked"
  self:set(zone)
  self.pid = forks.child(function()
    sys.C.spec_prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    serve(server, self.zone, self.asked_file)
  end)
  server:close()
  return self
end

--- Answers by another zone from now on.
---@param zone table<string, table|false>
function NameServer:set(zone)
  local file = assert(io.open(self.zone .. "~", "w"))
  file:write("return ", literal(zone), "\n")
  file:close()
  assert(os.rename(self.zone .. "~", self.zone))
end

--- How often it was asked, "A api.test" for example; all questions where nothing is given.
---@param question? string
---@return integer
function NameServer:asked(question)
  local count = 0
  local file = io.open(self.asked_file)
  for line in file and file:lines() or function() end do
    if not question or line == question then count = count + 1 end
  end
  if file then file:close() end
  return count
end

--- Waits until it has been asked once more.
---@param question string
function NameServer:wait_asked(question)
  local before = self:asked(question)
  sys.wait_until(function() return self:asked(question) > before end, 15, "somebody to ask for " .. question)
end

--- Ends its process; whoever asks then hears nothing.
function NameServer:stop()
  if self.pid then forks.kill_all() end
  self.pid = nil
  os.remove(self.zone)
  os.remove(self.asked_file)
end

return name_server
