--- Runs busted in the interpreter that runs this file, which is LuaJIT: specs call C through its FFI.
-- What is preloaded for the sake of that C code (a sanitizer's library) is not for child processes.

local ffi = require "ffi"
ffi.cdef "int unsetenv(const char *name);"
ffi.C.unsetenv("LD_PRELOAD")

require "busted.runner"({ standalone = false })
