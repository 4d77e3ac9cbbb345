--- forks: processes forked off a spec, for what several of them do to the same memory.
local ffi = require "ffi"
local sys = require "spec.support.sys"

local forks = {}

local SIGKILL = 9
local children = {} ---@type table<integer, true>

--- Runs a function in a process of its own, which exits with 0 when it does not raise.
---@param work fun()
---@return integer pid
function forks.child(work)
  local pid = sys.C.spec_fork()
  if pid == 0 then sys.C.spec__exit(pcall(work) and 0 or 1) end
  children[pid] = true
  return pid
end

--- Waits for its end.
---@param pid integer
---@return integer status as of waitpid: 0 when all went well
function forks.wait(pid)
  local status = ffi.new "int[1]"
  sys.C.spec_waitpid(pid, status, 0)
  children[pid] = nil
  return status[0]
end

--- Kills those that are left, for `after_each`.
function forks.kill_all()
  for pid in pairs(children) do
    sys.C.spec_kill(pid, SIGKILL)
    forks.wait(pid)
  end
end

return forks
