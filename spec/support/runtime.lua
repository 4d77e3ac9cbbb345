--- runtime: the C code of floors 0 to 2 for specs, called through LuaJIT's FFI.
--
--     local rt = require "support.runtime"
--     local C = rt.load("base/buf.h", "base/slab.h")
--     local buf = rt.new("struct gw_buf", C.gw_buf_init, C.gw_buf_clear)
--
-- Headers are declared as they are written: comments, directives and inline functions are taken out,
-- headers they include with quotes come first. What they need of the system is declared below.
local bit = require "bit"
local ffi = require "ffi"

-- A C function that calls back into Lua must not be called from compiled code.
jit.off()

local SYSTEM = [[
  typedef uint32_t socklen_t;
  struct iovec { void *iov_base; size_t iov_len; };
  struct sockaddr { uint16_t sa_family; char sa_data[14]; };
  struct in_addr { uint32_t s_addr; };
  struct in6_addr { uint8_t s6_addr[16]; };
  struct sockaddr_in {
    uint16_t sin_family, sin_port;
    struct in_addr sin_addr;
    uint8_t sin_zero[8];
  };
  struct sockaddr_in6 {
    uint16_t sin6_family, sin6_port;
    uint32_t sin6_flowinfo;
    struct { uint32_t word[4]; } sin6_addr;
    uint32_t sin6_scope_id;
  };
  struct sockaddr_un { uint16_t sun_family; char sun_path[108]; };
  typedef union { char size[40]; long align; } pthread_mutex_t;
  typedef unsigned long pthread_t;
  typedef struct lua_State lua_State;
  typedef int (*lua_CFunction)(lua_State *L);
  struct ev_loop;
  struct ev_io {
    int active, pending, priority;
    void *data;
    void (*cb)(struct ev_loop *, struct ev_io *, int);
    void *next;
    int fd, events;
  };
  struct ev_timer {
    int active, pending, priority;
    void *data;
    void (*cb)(struct ev_loop *, struct ev_timer *, int);
    double at, repeat;
  };
  struct ev_prepare {
    int active, pending, priority;
    void *data;
    void (*cb)(struct ev_loop *, struct ev_prepare *, int);
  };
  struct ev_check {
    int active, pending, priority;
    void *data;
    void (*cb)(struct ev_loop *, struct ev_check *, int);
  };
  struct ev_idle {
    int active, pending, priority;
    void *data;
    void (*cb)(struct ev_loop *, struct ev_idle *, int);
  };
  struct ev_async {
    int active, pending, priority;
    void *data;
    void (*cb)(struct ev_loop *, struct ev_async *, int);
    int sent;
  };
  int __asan_init(void);
]]

-- Declarations outlive this module, which busted loads afresh for each file.
local registry = debug.getregistry()
local known = registry["gatewayd.spec.declared"]
if not known then
  known = {}
  registry["gatewayd.spec.declared"] = known
  ffi.cdef(SYSTEM)
end

local rt = {}

--- True when the object was built with AddressSanitizer: pools cache nothing then.
rt.asan = pcall(function() return ffi.C.__asan_init end)

--- Bytes in a struct gw_buf.
---@param buf ffi.cdata*
---@return integer
function rt.len(buf)
  return buf.head ~= nil and tonumber(buf.head.len) or 0
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

-- Without what the FFI's parser does not know; the names of the headers it includes as well.
local function declarations(text)
  local needs = {}
  text = ("\n" .. text .. "\n"):gsub("/%*.-%*/", " "):gsub("\\\n", " "):gsub("_Alignas%s*%b()", "")
  for name in text:gmatch '\n%s*#%s*include%s*"([^"]+)"' do needs[#needs + 1] = name end
  repeat
    local n
    text, n = text:gsub("\n[ \t]*#[^\n]*", "")
  until n == 0
  text = text:gsub("\nstatic inline.-\n}", "\n"):gsub("__attribute__%s*%b()", "")
  text = text:gsub("GW_PRINTF%s*%b()", ""):gsub("GW_MUST_CHECK", ""):gsub("GW_UNUSED", "")
  return text:gsub("_Static_assert%s*%b()%s*;", ""), needs
end

local function declare(header)
  if known[header] then return end
  known[header] = true
  local text, needs = declarations(read("runtime/" .. header))
  for _, name in ipairs(needs) do declare(name) end
  local ok, err = pcall(ffi.cdef, text)
  if not ok then error(header .. ": " .. err, 0) end
end

--- Declares headers (paths below runtime/) and opens the object with the code.
---@param ... string
---@return ffi.namespace*
function rt.load(...)
  for _, header in ipairs { ... } do declare(header) end
  return ffi.load((os.getenv "GATEWAYD_BUILD" or "build") .. "/libgatewayd-test.so")
end

-- What a slice views must not be collected before the slice.
local kept = setmetatable({}, { __mode = "k" })

--- A view of a Lua string, which lives as long as the slice that is returned here (not its copies).
---@param text string
---@return ffi.cdata* slice
function rt.slice(text)
  local slice = ffi.new("struct gw_slice", ffi.cast("const char *", text), #text)
  kept[slice] = text
  return slice
end

--- The bytes of a slice.
---@param slice ffi.cdata*
---@return string
function rt.string(slice)
  return slice.len > 0 and ffi.string(slice.ptr, slice.len) or ""
end

--- The text of a NUL-terminated C string, nil for NULL.
---@param text ffi.cdata*
---@return string?
function rt.cstring(text)
  return text ~= nil and ffi.string(text) or nil
end

--- A struct that is initialised now and finished when it is collected.
---@param ctype string
---@param init fun(object: ffi.cdata*)
---@param fini? fun(object: ffi.cdata*)
---@return ffi.cdata*
function rt.new(ctype, init, fini)
  local object = ffi.new(ctype)
  init(object)
  return fini and ffi.gc(object, fini) or object
end

--- Numbers that are the same in each run (xorshift), whatever else draws numbers.
---@param seed integer
---@return fun(low: integer, high: integer): integer
function rt.random(seed)
  local x = bit.tobit(seed * 2654435 + 1)
  return function(low, high)
    x = bit.bxor(x, bit.lshift(x, 13))
    x = bit.bxor(x, bit.rshift(x, 17))
    x = bit.bxor(x, bit.lshift(x, 5))
    return low + x % 4294967296 % (high - low + 1)
  end
end

return rt
