--- sys: the few system calls that the specs need, through LuaJIT's FFI. Used by process and http.
-- Every wait in here is a poll with a deadline; nothing sleeps.
local ffi = require("ffi")
local bit = require("bit")

-- Busted loads modules afresh for each file while C declarations stay, so declare only once. The
-- names are our own, so that they can't clash with what other specs declare.
if not pcall(ffi.typeof, "struct spec_pollfd") then
  ffi.cdef([[
    struct spec_pollfd { int fd; short events; short revents; };
    struct spec_timespec { long sec; long nsec; };
    struct spec_sockaddr_in { uint16_t family; uint16_t port; uint32_t addr; uint8_t zero[8]; };
    struct spec_linger { int on; int seconds; };

    int spec_poll(struct spec_pollfd *, unsigned long, int) __asm__("poll");
    int spec_clock_gettime(int, struct spec_timespec *) __asm__("clock_gettime");
    int spec_fcntl(int, int, ...) __asm__("fcntl");
    long spec_read(int, void *, size_t) __asm__("read");
    long spec_write(int, const void *, size_t) __asm__("write");
    int spec_close(int) __asm__("close");
    char *spec_strerror(int) __asm__("strerror");

    int spec_fork(void) __asm__("fork");
    int spec_execvpe(const char *, char *const[], char *const[]) __asm__("execvpe");
    void spec__exit(int) __asm__("_exit");
    int spec_waitpid(int, int *, int) __asm__("waitpid");
    int spec_kill(int, int) __asm__("kill");
    int spec_pipe2(int[2], int) __asm__("pipe2");
    int spec_dup2(int, int) __asm__("dup2");
    int spec_open(const char *, int, ...) __asm__("open");
    int spec_setpgid(int, int) __asm__("setpgid");
    int spec_chdir(const char *) __asm__("chdir");
    int spec_prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)
      __asm__("prctl");
    long spec_syscall(long, ...) __asm__("syscall");
    int spec_mkdir(const char *, unsigned) __asm__("mkdir");
    char *spec_mkdtemp(char *) __asm__("mkdtemp");
    int spec_memfd_create(const char *, unsigned) __asm__("memfd_create");
    long spec_lseek(int, long, int) __asm__("lseek");
    extern char **spec_environ __asm__("environ");

    int spec_socket(int, int, int) __asm__("socket");
    int spec_connect(int, const struct spec_sockaddr_in *, unsigned) __asm__("connect");
    int spec_bind(int, const struct spec_sockaddr_in *, unsigned) __asm__("bind");
    int spec_getsockname(int, struct spec_sockaddr_in *, unsigned *) __asm__("getsockname");
    int spec_shutdown(int, int) __asm__("shutdown");
    int spec_setsockopt(int, int, int, const void *, unsigned) __asm__("setsockopt");
    int spec_getsockopt(int, int, int, void *, unsigned *) __asm__("getsockopt");
    long spec_send(int, const void *, size_t, int) __asm__("send");
    int spec_inet_pton(int, const char *, void *) __asm__("inet_pton");
  ]])
end

local C = ffi.C
local sys = { C = C }

--- Seconds for what takes milliseconds: a sanitizer or a busy machine may need more.
sys.patience = 30

sys.POLLIN, sys.POLLOUT, sys.POLLERR, sys.POLLHUP = 1, 4, 8, 16
sys.EINTR, sys.EAGAIN, sys.EPIPE, sys.ECONNRESET, sys.EINPROGRESS = 4, 11, 32, 104, 115

local clock = ffi.new("struct spec_timespec")

--- The time that deadlines are measured in.
---@return number seconds of CLOCK_MONOTONIC
function sys.now()
  C.spec_clock_gettime(1, clock)
  return tonumber(clock.sec) + tonumber(clock.nsec) / 1e9
end

---@param errno integer
---@return string
function sys.strerror(errno)
  return ffi.string(C.spec_strerror(errno))
end

--- Raises an error that names the call when its result is negative.
---@param result integer
---@param what string
---@return integer result
function sys.check(result, what)
  if result < 0 then
    error(what .. ": " .. sys.strerror(ffi.errno()), 2)
  end
  return result
end

--- Waits for descriptors. An interrupted wait goes on.
---@param wants table<integer, integer> events by descriptor
---@param deadline number in seconds of sys.now()
---@return table<integer, integer> ready events by descriptor; empty at the deadline
function sys.poll(wants, deadline)
  local count = 0
  for _ in pairs(wants) do
    count = count + 1
  end
  local set = ffi.new("struct spec_pollfd[?]", math.max(count, 1))
  local i = 0
  for fd, events in pairs(wants) do
    set[i].fd, set[i].events = fd, events
    i = i + 1
  end
  repeat
    local left = math.max(0, math.ceil((deadline - sys.now()) * 1000))
    local n = C.spec_poll(set, count, left)
  until n >= 0 or ffi.errno() ~= sys.EINTR
  local ready = {}
  for j = 0, count - 1 do
    if set[j].revents ~= 0 then
      ready[set[j].fd] = set[j].revents
    end
  end
  return ready
end

--- Asks again and again until the answer is true; for what no descriptor tells.
---@param condition fun(): any
---@param timeout? number seconds, default sys.patience
---@param what? string for the error
---@return any answer of the condition; raises at the deadline
function sys.wait_until(condition, timeout, what)
  local deadline = sys.now() + (timeout or sys.patience)
  while true do
    local answer = condition()
    if answer then
      return answer
    end
    if sys.now() >= deadline then
      error("gave up waiting for " .. (what or "a condition"), 2)
    end
    C.spec_poll(nil, 0, 2)
  end
end

local block_size = 65536
local block = ffi.new("char[?]", block_size)

--- Reads what is there, without waiting.
---@param fd integer a non-blocking descriptor
---@return string? bytes nil when there are none
---@return "again"|"eof"|"reset"|string|nil why
function sys.read(fd)
  local n = tonumber(C.spec_read(fd, block, block_size))
  if n > 0 then
    return ffi.string(block, n)
  elseif n == 0 then
    return nil, "eof"
  end
  local errno = ffi.errno()
  if errno == sys.EAGAIN or errno == sys.EINTR then
    return nil, "again"
  elseif errno == sys.ECONNRESET then
    return nil, "reset"
  end
  return nil, sys.strerror(errno)
end

--- A new folder for temporary files.
---@return string path
function sys.temporary_folder()
  local template = (os.getenv("TMPDIR") or "/tmp") .. "/gatewayd-spec-XXXXXX"
  local path = ffi.new("char[?]", #template + 1, template)
  assert(C.spec_mkdtemp(path) ~= nil, template)
  return ffi.string(path)
end

--- Makes a folder, and those that it lies in, where they are missing.
---@param path string
function sys.make_folder(path)
  for at in path:gmatch("()/") do
    if at > 1 then
      C.spec_mkdir(path:sub(1, at - 1), tonumber("777", 8))
    end
  end
  C.spec_mkdir(path, tonumber("777", 8))
end

---@param fd integer
function sys.set_nonblocking(fd)
  local F_GETFL, F_SETFL, O_NONBLOCK = 3, 4, 0x800
  local flags = C.spec_fcntl(fd, F_GETFL)
  C.spec_fcntl(fd, F_SETFL, ffi.cast("int", bit.bor(flags, O_NONBLOCK)))
end

return sys
