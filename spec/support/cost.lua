--- cost: counts what the worker of a running gateway does for a piece of work: its system calls by strace,
-- its instructions and allocations by callgrind, its memory by /proc. None of it depends on how fast the
-- machine is, so that specs can hold the counts against limits.
local backend = require "spec.support.backend"
local http = require "spec.support.http"
local process = require "spec.support.process"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

local cost = {}

local PATIENCE = 60 -- what runs under valgrind is slow, the more so on a busy machine
http.timeout = PATIENCE

local function output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function text_of(path)
  local file = io.open(path)
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

local function ends_well(argv)
  local ok, child = pcall(process.spawn, argv)
  return ok and (child:wait(PATIENCE) or child:kill()).code == 0
end

local GATEWAYD = (os.getenv "GATEWAYD_BUILD" or "build") .. "/gatewayd"
local TRIALS = {
  strace = { "strace", "-f", "-o", "/dev/null", GATEWAYD, "--version" },
  valgrind = { "valgrind", "-q", "--tool=none", GATEWAYD, "--version" },
}

--- Why a tool can't be used here; nil when it can. Containers may forbid what it does, and it may not know
-- what a compiler writes.
---@param tool "strace"|"valgrind"
---@return string?
function cost.missing(tool)
  if output_of("command -v " .. tool) == "" then return tool .. " is not installed" end
  if not ends_well(TRIALS[tool]) then return tool .. " can't run the gateway here" end
end

--- Why instructions of this build can't be compared with others; nil when they can.
---@return string?
function cost.incomparable()
  if jit.arch ~= "x64" then return "the figures are those of x86-64" end
  local flags = text_of((GATEWAYD:gsub("gatewayd$", "flags"))) or ""
  if not flags:find " -O2 " then return "the figures are those of -O2" end
  if output_of("readelf -p .comment " .. GATEWAYD):find "clang" then return "the figures are those of gcc" end
end

--- The process id of a gateway's only worker.
---@param gw spec.Gateway
---@return integer
function cost.worker(gw)
  local pid = gw.process.pid
  local children = text_of(("/proc/%d/task/%d/children"):format(pid, pid)) or ""
  local first, second = children:match "(%d+)%s*(%d*)"
  assert(first and second == "", "there is no worker, or not only one")
  return tonumber(first)
end

--- Counts -----------------------------------------------------------------------------------------

--- The largest first, one in each line.
---@param counts table<string, number>
---@param most? integer lines
---@return string
function cost.list(counts, most)
  local names = {}
  for name in pairs(counts) do names[#names + 1] = name end
  table.sort(names, function(a, b)
    return counts[a] > counts[b] or counts[a] == counts[b] and a < b
  end)
  local lines = {}
  for i, name in ipairs(names) do
    if i > (most or 99) then break end
    lines[i] = ("%10.2f  %s"):format(counts[name], name)
  end
  return table.concat(lines, "\n")
end

-- What is left of `more` without `less`, for each of n units.
local function difference(more, less, n)
  local counts = {}
  for name, count in pairs(more) do
    local each = (count - (less[name] or 0)) / n
    if each > 0 then counts[name] = each end
  end
  return counts
end

--- System calls -----------------------------------------------------------------------------------

-- What the ticks of the watchdog take: one for so many milliseconds of CPU time, of which strace needs many.
local TICKS = { rt_sigreturn = true, clock_gettime = true }

-- The table that `strace -c` writes: % time, seconds, usecs/call, calls, errors where there are any, name.
local function parse_calls(text)
  local counts = {}
  for calls, name in text:gmatch "\n%s*[%d.]+%s+[%d.]+%s+%d+%s+(%d+)[%s%d]*%s([%l_][%w_]*)%f[\n]" do
    if name ~= "total" and not TICKS[name] then counts[name] = tonumber(calls) end
  end
  return counts
end

--- The system calls of a process's first thread while a function runs.
---@param pid integer
---@param work fun()
---@return table<string, integer>? counts by name; nil where a process may not be traced
function cost.calls(pid, work)
  local path = os.tmpname()
  local tracer = process.spawn { "strace", "-c", "-p", tostring(pid), "-o", path }
  local attached = tracer:read_line("stderr", PATIENCE)
  if not attached or not attached:find "attached" then
    tracer:kill()
    os.remove(path)
    return nil
  end
  work()
  tracer:signal "INT"
  assert(tracer:wait(PATIENCE), "strace does not end")
  local counts = parse_calls("\n" .. text_of(path))
  os.remove(path)
  return counts
end

--- The system calls of one unit of work: of 2 n units without those of n units, so that what comes once in
-- a while or with the tracing falls out.
---@param pid integer
---@param n integer
---@param work fun(n: integer) does n units
---@return table<string, number>? counts by name
function cost.calls_each(pid, n, work)
  work(n) -- buffers are there, tables have grown
  local less = cost.calls(pid, function() work(n) end)
  local more = less and cost.calls(pid, function() work(2 * n) end)
  return more and difference(more, less, n)
end

--- Instructions and allocations -------------------------------------------------------------------

---@class spec.Profile a gateway under callgrind
---@field under string[] what it has to be started under
---@field dir string
---@field parts integer how many there are so far
local Profile = {}
Profile.__index = Profile

-- What the gateway calls in its worker when it is told to reopen its logs, which costs next to nothing:
-- callgrind writes down what it has counted, and begins anew.
local MARK = "gw_log_reopen"

--- A profile for one gateway that will be started under it.
---@return spec.Profile
function cost.profile()
  local self = setmetatable({ dir = output_of("mktemp -d"):match "[^\n]+", parts = 0 }, Profile)
  self.under = {
    "valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=" .. self.dir .. "/%p", "--dump-line=no",
    "--separate-threads=yes", "--compress-strings=no", "--compress-pos=no", "--dump-before=" .. MARK,
  }
  return self
end

--- Removes the files.
function Profile:finish()
  os.execute(("rm -rf '%s'"):format(self.dir))
end

-- Ends a part; what its first thread did, as text.
function Profile:_cut(gw)
  self.parts = self.parts + 1
  local path = ("%s/%d.%d-01"):format(self.dir, cost.worker(gw), self.parts)
  gw.process:signal "USR1"
  local text
  process.wait_until(function()
    text = text_of(path)
    return text and text:find "\ntotals:"
  end, PATIENCE, MARK .. " in the worker, where callgrind writes a part")
  return text
end

local ALLOCATORS = {}
for name in ("malloc calloc realloc reallocarray posix_memalign aligned_alloc memalign mmap mmap64 mremap "
  .. "brk sbrk"):gmatch "%S+" do ALLOCATORS[name] = true end

-- LuaJIT's functions, and what its compiler has made, which is in no object, begin with "Lua: ". Code without
-- symbols goes by the library that it is in. A recursion is marked by ' and its depth.
local function name_of(fn, object)
  local name = fn:gsub("'%d+$", "")
  if name:find "^0x" and object ~= "" then name = object:match "([^/]+)$" end
  if object:find "luajit" then return "Lua: " .. name end
  return (object == "" or object == "???") and "Lua: compiled" or name
end

-- Instructions by function, and calls of allocators by who called whom. What comes behind a line of
-- `calls=` is the cost of the callee, which stands in the callee's own block as well.
local function parse_part(text)
  local costs, allocations = {}, {}
  local at, is_call = { ob = "" }, false
  for line in text:gmatch "[^\n]+" do
    local key, value = line:match "^(%l+)=(.*)"
    if key == "fn" then
      at.fn = name_of(value, at.ob)
    elseif key == "ob" or key == "cfn" then
      at[key] = value:gsub("'%d+$", "")
    elseif key == "calls" then
      is_call = true
      if ALLOCATORS[at.cfn] and not ALLOCATORS[at.fn] and not at.ob:find "/libc[.-]" then
        local pair = at.fn .. " -> " .. at.cfn
        allocations[pair] = (allocations[pair] or 0) + tonumber(value:match "%d+")
      end
    elseif not key and at.fn and line:find "^[%d+*-]" then
      if not is_call then costs[at.fn] = (costs[at.fn] or 0) + tonumber(line:match "(%d+)%s*$") end
      is_call = false
    end
  end
  return costs, allocations
end

-- What the interpreter and its compiler do is never quite the same, so it is summed up apart.
local function sums(functions)
  local lua, rest = 0, 0
  for name, n in pairs(functions) do
    if name:find "^Lua: " then lua = lua + n else rest = rest + n end
  end
  return lua, rest
end

---@class spec.Work what one unit of some work costs
---@field c number instructions of the gateway's C code and of libraries
---@field lua number instructions of LuaJIT
---@field functions table<string, number> instructions by function
---@field allocations table<string, number> calls by "caller -> allocator"

--- What one unit of work costs the worker: of 2 n units without those of n units.
---@param gw spec.Gateway started under the profile
---@param n integer
---@param work fun(n: integer) does n units
---@return spec.Work
function Profile:each(gw, n, work)
  work(n) -- buffers are there, tables have grown, the JIT has compiled
  self:_cut(gw)
  work(n)
  local less, few = parse_part(self:_cut(gw))
  work(2 * n)
  local more, many = parse_part(self:_cut(gw))
  local lua_less, c_less = sums(less)
  local lua_more, c_more = sums(more)
  return {
    lua = (lua_more - lua_less) / n, c = (c_more - c_less) / n,
    functions = difference(more, less, n), allocations = difference(many, few, n),
  }
end

--- Limits -----------------------------------------------------------------------------------------

local FILE = "spec/cost/limits.lua"
local SLACK = 0.25 -- of a count: now and then a timer fires, a heap grows

-- With COSTS=show in the environment the figures are told, good ones too.
local function tell(what, figure)
  if os.getenv "COSTS" == "show" then io.stderr:write(("\n%s: %s\n"):format(what, figure)) end
end

local function verdict(figure, most, least)
  if figure > most then return "more than" end
  if figure < least then return "it got cheaper, so lower the limit: less than" end
end

--- Complains where a figure is outside of its limits.
---@param what string
---@param figure number
---@param limit {[1]: number, [2]?: number} the usual figure and the band around it, as a part of it; without
-- a band, the most that is allowed
---@param details string for the message
---@return string complaint "" when there is none
function cost.figure(what, figure, limit, details)
  tell(what, ("%.1f"):format(figure))
  local usual, band = limit[1], limit[2]
  local how = verdict(figure, usual * (1 + (band or 0)), band and usual * (1 - band) or 0)
  if not how then return "" end
  local give = band and (", give or take %g %%"):format(band * 100) or ""
  return ("%s: %.1f, %s the %g%s, of %s\n%s"):format(what, figure, how, usual, give, FILE, details)
end


--- Complains where counts are not those of the limits, one by one; names that the limits have not are not
-- allowed at all.
---@param what string
---@param counts table<string, number>
---@param limits table<string, number>
---@return string complaint "" when there is none
function cost.counts(what, counts, limits)
  tell(what, "\n" .. cost.list(counts))
  local lines, names = {}, {}
  for _, list in ipairs { counts, limits } do
    for name in pairs(list) do names[name] = true end
  end
  for name in pairs(names) do
    local figure, limit = counts[name] or 0, limits[name] or 0
    local how = verdict(figure, limit + SLACK, limit - SLACK)
    if how then
      lines[#lines + 1] = ("%s: %.2f of %s, %s the %g of %s"):format(what, figure, name, how, limit, FILE)
    end
  end
  if #lines == 0 then return "" end
  table.sort(lines)
  return ("%s\nall of them:\n%s"):format(table.concat(lines, "\n"), cost.list(counts))
end

--- Holding a process ------------------------------------------------------------------------------

local SIGCONT, SIGSTOP = 18, 19

local function wait_for_state(pid, letters)
  local path, pattern = ("/proc/%d/stat"):format(pid), "^%d+ %b() [" .. letters .. "]"
  local deadline, looks = sys.now() + PATIENCE, 0
  while not text_of(path):find(pattern) do
    assert(sys.now() < deadline, "the worker does not come to rest")
    looks = looks + 1
    if looks > 20 then sys.C.spec_poll(nil, 0, 1) end -- it may need the core that we are on
  end
end

--- Waits until a process has done all it can and sleeps. What comes next then finds it in the same place each
-- time, whoever is faster.
---@param pid integer
function cost.settle(pid)
  wait_for_state(pid, "S")
end

--- Stops a process while a function runs: all that it does comes to the process at once.
---@param pid integer
---@param work fun()
function cost.hold(pid, work)
  cost.settle(pid)
  sys.C.spec_kill(pid, SIGSTOP)
  wait_for_state(pid, "Tt")
  work()
  sys.C.spec_kill(pid, SIGCONT)
end

--- Pieces of work ---------------------------------------------------------------------------------

---@class spec.Worker a gateway's only worker, the gateway, and the backend behind it
---@field pid integer
---@field gateway spec.Gateway
---@field backend spec.Backend
local Worker = {}
Worker.__index = Worker

---@param gw spec.Gateway
---@param server spec.Backend
---@return spec.Worker
function cost.worker_of(gw, server)
  return setmetatable({ pid = cost.worker(gw), gateway = gw, backend = server }, Worker)
end

--- The backend sends an event and the client gets it, n times.
---@param stream spec.Stream
---@param n integer
---@param sent string
---@param expected? string default: what was sent
function Worker:relay(stream, n, sent, expected)
  for _ = 1, n do
    stream:send(sent)
    stream:expect(expected or sent)
    cost.settle(self.pid)
  end
end

--- The backend sends events, each in a chunk of its own, all there before the worker looks; n times.
---@param stream spec.Stream
---@param n integer
---@param events integer how many
---@param event string
function Worker:relay_burst(stream, n, events, event)
  for _ = 1, n do
    cost.hold(self.pid, function() stream.origin:reply(streams.chunk(event):rep(events)) end)
    stream:expect(event:rep(events))
    cost.settle(self.pid)
  end
end

--- A client opens a stream, gets an event and leaves; n times.
---@param n integer
---@param event string
function Worker:open_streams(n, event)
  for _ = 1, n do
    local conn = http.connect(self.gateway.port)
    cost.settle(self.pid)
    local stream = streams.request(self.gateway, self.backend, { conn = conn })
    cost.settle(self.pid)
    stream:answer()
    cost.settle(self.pid)
    self:relay(stream, 1, event)
    conn:close()
    stream.origin.conn:wait_end()
    cost.settle(self.pid)
    streams.close_all()
  end
end

--- Requests on a connection that stays, to a backend whose connection stays; n times.
---@param client spec.Conn
---@param n integer
---@param body string of the answer
function Worker:request(client, n, body)
  for _ = 1, n do
    cost.settle(self.pid)
    client:send(http.format { path = "/bytes/x" })
    self.origin = self.origin or self.backend:accept()
    local received = backend.read_request(self.origin)
    cost.settle(self.pid)
    received:ok(body)
    assert(client:response():body() == body)
  end
  cost.settle(self.pid)
end

return cost
