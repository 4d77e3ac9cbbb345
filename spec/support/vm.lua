--- vm: a Lua VM of the runtime for specs, with gateway.core as plugins' Lua has it, but nothing to serve.
local ffi = require "ffi"
local rt = require "support.runtime"

local C = rt.load("script/vm.h")
pcall(ffi.cdef, [[
  int luaL_loadstring(lua_State *L, const char *text);
  int lua_pcall(lua_State *L, int args, int results, int handler);
  const char *lua_tolstring(lua_State *L, int index, size_t *len);
  void lua_settop(lua_State *L, int index);
]])

local vm = {}

--- Runs a chunk, and gives the text that it returns.
---@param one ffi.cdata* struct gw_vm
---@param text string
---@return string
function vm.run(one, text)
  local failed = C.luaL_loadstring(one.L, text) ~= 0 or C.lua_pcall(one.L, 0, 1, 0) ~= 0
  local got = ffi.string(C.lua_tolstring(one.L, -1, nil))
  C.lua_settop(one.L, -2)
  if failed then error(got, 0) end
  return got
end

--- Calls work(vm) with a VM that is gone afterwards.
---@param environment ffi.cdata* struct gw_script_env
---@param work fun(vm: ffi.cdata*)
function vm.with(environment, work)
  local one = assert(C.gw_vm_new(environment))
  local ok, err = pcall(work, one)
  C.gw_vm_free(one)
  if not ok then error(err, 0) end
end

return vm
