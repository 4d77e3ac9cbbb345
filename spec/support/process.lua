--- process: runs a program for a spec, captures its lines, signals it, reaps it.
-- Whatever is still running when the Lua state ends is killed with its process group.
local ffi = require("ffi")
local sys = require("spec.support.sys")

local C = sys.C
local process = { wait_until = sys.wait_until }

local SIGNALS = {
  HUP = 1, INT = 2, QUIT = 3, KILL = 9, USR1 = 10, USR2 = 12, TERM = 15, CONT = 18, STOP = 19,
}
local O_CLOEXEC, O_RDWR = 0x80000, 2

---@class spec.Process
---@field pid integer
---@field status? {code?: integer, signal?: integer} once it was reaped
local Process = {}
Process.__index = Process

local live = {} ---@type table<integer, spec.Process>

local function c_strings(list)
  local array = ffi.new("const char *[?]", #list + 1)
  for i, text in ipairs(list) do
    array[i - 1] = text
  end
  return ffi.cast("char *const *", array), { array, list }
end

-- A sanitizer that was preloaded into busted is none of the child's business.
local function environment(changes)
  local changed = { LD_PRELOAD = false }
  for name, value in pairs(changes or {}) do
    changed[name] = value
  end
  local list, i = {}, 0
  while C.spec_environ[i] ~= nil do
    local entry = ffi.string(C.spec_environ[i])
    if changed[entry:match("^[^=]*")] == nil then
      list[#list + 1] = entry
    end
    i = i + 1
  end
  for name, value in pairs(changed) do
    if value then
      list[#list + 1] = name .. "=" .. value
    end
  end
  return list
end

local function pipe()
  local ends = ffi.new("int[2]")
  sys.check(C.spec_pipe2(ends, O_CLOEXEC), "pipe2")
  return ends[0], ends[1]
end

-- A file in memory: the child can read it whenever it likes and nobody has to wait for it.
local function text_fd(text)
  local fd = sys.check(C.spec_memfd_create("stdin", 1), "memfd_create")
  local done = 0
  while done < #text do
    local rest = ffi.cast("const char *", text) + done
    done = done + sys.check(tonumber(C.spec_write(fd, rest, #text - done)), "write")
  end
  C.spec_lseek(fd, 0, 0)
  return fd
end

-- Everything that could allocate or fail was prepared before the fork.
local function child(plan)
  local PR_SET_PDEATHSIG, SYS_CLOSE_RANGE, CLOSE_RANGE_CLOEXEC = 1, 436, 4
  C.spec_setpgid(0, 0)
  C.spec_prctl(PR_SET_PDEATHSIG, SIGNALS.KILL, 0, 0, 0)
  for fd = 0, 2 do
    if plan.fds[fd] then
      C.spec_dup2(plan.fds[fd], fd)
    end
  end
  C.spec_syscall(
    SYS_CLOSE_RANGE,
    ffi.cast("unsigned", 3),
    ffi.cast("unsigned", 0xffffffff),
    ffi.cast("unsigned", CLOSE_RANGE_CLOEXEC)
  )
  if plan.cwd == nil or C.spec_chdir(plan.cwd) == 0 then
    C.spec_execvpe(plan.file, plan.argv, plan.envp)
  end
  plan.errno[0] = ffi.errno()
  C.spec_write(plan.error_fd, plan.errno, 4)
  C.spec__exit(127)
end

local function fork(plan)
  local error_read, error_write = pipe()
  plan.error_fd, plan.errno = error_write, ffi.new("int[1]")
  local pid = sys.check(C.spec_fork(), "fork")
  if pid == 0 then
    child(plan)
  end
  C.spec_setpgid(pid, pid) -- also here: whoever comes first
  C.spec_close(error_write)
  local failed = C.spec_read(error_read, plan.errno, 4) == 4
  C.spec_close(error_read)
  if failed then
    C.spec_waitpid(pid, nil, 0)
    return nil, sys.strerror(plan.errno[0])
  end
  return pid
end

local function open_streams(options)
  local ours, theirs = {}, {}
  theirs[0] = options.stdin and text_fd(options.stdin) or sys.check(C.spec_open("/dev/null", O_RDWR), "open")
  for fd, name in pairs({ [1] = "stdout", [2] = "stderr" }) do
    local mode = options[name] or "pipe"
    if mode == "pipe" then
      ours[name], theirs[fd] = pipe()
      sys.set_nonblocking(ours[name])
      local F_SETPIPE_SZ = 1031
      C.spec_fcntl(ours[name], F_SETPIPE_SZ, ffi.cast("int", 1048576)) -- a chatty child does not block
    elseif mode == "null" then
      theirs[fd] = sys.check(C.spec_open("/dev/null", O_RDWR), "open")
    end
  end
  return ours, theirs
end

local function pidfd_open(pid)
  local SYS_PIDFD_OPEN = 434
  local fd = C.spec_syscall(SYS_PIDFD_OPEN, ffi.cast("int", pid), ffi.cast("int", 0))
  return sys.check(tonumber(fd), "pidfd_open")
end

---@class spec.SpawnOptions
---@field env? table<string, string|false> added to (or, false, taken from) the environment
---@field cwd? string
---@field stdin? string what the program reads; default: nothing
---@field stdout? "pipe"|"null"|"inherit" default: pipe
---@field stderr? "pipe"|"null"|"inherit" default: pipe

--- Starts a program, in a process group of its own. Raises when it cannot be run.
---@param argv string[]
---@param options? spec.SpawnOptions
---@return spec.Process
function process.spawn(argv, options)
  options = options or {}
  local ours, theirs = open_streams(options)
  local argv_c, keep_argv = c_strings(argv)
  local envp_c, keep_envp = c_strings(environment(options.env))
  local plan = { file = argv[1], argv = argv_c, envp = envp_c, cwd = options.cwd, fds = theirs }
  local pid, why = fork(plan)
  for _, fd in pairs(theirs) do
    C.spec_close(fd)
  end
  if not pid or not keep_argv or not keep_envp then
    for _, fd in pairs(ours) do
      C.spec_close(fd)
    end
    error(("cannot run %s: %s"):format(argv[1], why), 2)
  end
  local self = setmetatable({
    pid = pid,
    name = argv[1],
    fds = ours,
    pidfd = pidfd_open(pid),
    partial = { stdout = "", stderr = "" },
    captured = { stdout = {}, stderr = {} },
    cursor = { stdout = 0, stderr = 0 },
  }, Process)
  live[pid] = self
  return self
end

function Process:_add(stream, bytes)
  local lines, text = self.captured[stream], self.partial[stream] .. bytes
  local start = 1
  for line, after in text:gmatch("([^\n]*)\n()") do
    lines[#lines + 1] = line
    start = after
  end
  self.partial[stream] = text:sub(start)
end

function Process:_end_stream(stream)
  C.spec_close(self.fds[stream])
  self.fds[stream] = nil
  if self.partial[stream] ~= "" then
    self:_add(stream, "\n")
  end
end

-- Takes in what the child has written, without waiting.
function Process:_drain()
  for _, stream in ipairs({ "stdout", "stderr" }) do
    local why
    while self.fds[stream] and not why do
      local bytes
      bytes, why = sys.read(self.fds[stream])
      if bytes then
        self:_add(stream, bytes)
      elseif why ~= "again" then
        self:_end_stream(stream)
      end
    end
  end
end

-- Waits until the child wrote something or ended.
function Process:_pump(deadline)
  local wants = {}
  for _, fd in pairs(self.fds) do
    wants[fd] = sys.POLLIN
  end
  if self.pidfd then
    wants[self.pidfd] = sys.POLLIN
  end
  local ready = sys.poll(wants, deadline)
  self:_drain()
  if self.pidfd and ready[self.pidfd] then
    self:_reap()
  end
end

function Process:_reap()
  local status = ffi.new("int[1]")
  C.spec_waitpid(self.pid, status, 0)
  live[self.pid] = nil
  C.spec_close(self.pidfd)
  self.pidfd = nil
  self:_drain()
  for stream in pairs({ stdout = true, stderr = true }) do
    if self.fds[stream] then
      self:_end_stream(stream)
    end
  end
  local signal = status[0] % 128
  if signal == 0 then
    self.status = { code = math.floor(status[0] / 256) % 256 }
  else
    self.status = { signal = signal }
  end
end

--- All lines so far.
---@param stream? "stdout"|"stderr" default: stdout
---@return string[]
function Process:lines(stream)
  self:_drain()
  return self.captured[stream or "stdout"]
end

--- All lines so far as one text; for messages.
---@param stream? "stdout"|"stderr" default: stdout
---@return string
function Process:text(stream)
  return table.concat(self:lines(stream), "\n")
end

--- The next line that was not read yet.
---@param stream? "stdout"|"stderr" default: stdout
---@param timeout? number seconds, default sys.patience
---@return string? line
---@return "timeout"|"eof"|nil why
function Process:read_line(stream, timeout)
  stream = stream or "stdout"
  local deadline = sys.now() + (timeout or sys.patience)
  while true do
    local line = self.captured[stream][self.cursor[stream] + 1]
    if line then
      self.cursor[stream] = self.cursor[stream] + 1
      return line
    elseif not self.fds[stream] then
      return nil, "eof"
    elseif sys.now() > deadline then
      return nil, "timeout"
    end
    self:_pump(deadline)
  end
end

--- Reads on to the first line that matches. Raises when none comes; the message has all lines.
---@param pattern string
---@param timeout? number seconds, default sys.patience
---@param stream? "stdout"|"stderr" default: stdout
---@return string line
---@return string ... captures
function Process:wait_line(pattern, timeout, stream)
  local deadline = sys.now() + (timeout or sys.patience)
  while true do
    local line, why = self:read_line(stream, deadline - sys.now())
    if not line then
      local format = "%s: %s before a line like %q came on %s; stdout:\n%s\nstderr:\n%s"
      local out, err = self:text("stdout"), self:text("stderr")
      error(format:format(self.name, why, pattern, stream or "stdout", out, err), 2)
    elseif line:find(pattern) then
      return line, line:match(pattern)
    end
  end
end

---@param signal string|integer "TERM", "HUP", … or a number
function Process:signal(signal)
  if not self.status then
    C.spec_kill(self.pid, SIGNALS[signal] or signal)
  end
end

---@return boolean
function Process:is_running()
  if self.pidfd then
    self:_pump(sys.now())
  end
  return self.status == nil
end

--- Waits for the end.
---@param timeout? number seconds, default sys.patience
---@return {code?: integer, signal?: integer}? status nil at the deadline
---@return "timeout"|nil why
function Process:wait(timeout)
  local deadline = sys.now() + (timeout or sys.patience)
  while not self.status do
    if sys.now() > deadline then
      return nil, "timeout"
    end
    self:_pump(deadline)
  end
  return self.status
end

--- Ends the program and whatever it started, and reaps it. Safe to call twice.
---@return {code?: integer, signal?: integer} status
function Process:kill()
  if not self.group_killed then
    C.spec_kill(-self.pid, SIGNALS.KILL) -- once: later the number may be somebody else's
    self.group_killed = true
  end
  if not self.status then
    C.spec_kill(self.pid, SIGNALS.KILL)
    self:wait(10)
  end
  return self.status
end

--- Ends the program politely: TERM, then KILL at the deadline.
---@param timeout? number seconds, default sys.patience
---@return {code?: integer, signal?: integer} status
function Process:stop(timeout)
  self:signal("TERM")
  self:wait(timeout)
  return self:kill()
end

--- Kills everything that was started from here and still runs.
function process.kill_all()
  for _, running in pairs(live) do
    C.spec_kill(-running.pid, SIGNALS.KILL)
    C.spec_kill(running.pid, SIGNALS.KILL)
  end
  for _, running in pairs(live) do
    running:wait(10)
  end
end

process.at_exit = newproxy(true)
getmetatable(process.at_exit).__gc = process.kill_all

return process
