rockspec_format = "3.0"
package = "gatewayd"
version = "scm-1"

-- The rock is built from a working tree, by `luarocks make`; there is no archive of its source.
source = { url = "file://." }

description = {
  summary = "A gateway for event streams (SSE) and HTTP APIs, scripted in Lua",
  detailed = [[
    A server of its own (libev, LuaJIT) and its Lua library: routes, load balancing, sessions and
    plugins that see whole events.]],
  license = "MIT",
}

supported_platforms = { "linux" }

-- The gateway runs these in LuaJIT. llhttp is needed to build as well: `make deps` says how Debian
-- calls it; a library that pkg-config knows as libllhttp serves too.
dependencies = { "lua == 5.1", "lua-cjson >= 2.1" }
external_dependencies = {
  LUAJIT = { header = "luajit-2.1/luajit.h", library = "luajit-5.1" },
  LIBEV = { header = "ev.h", library = "ev" },
  CARES = { header = "ares.h", library = "cares" },
  CRYPTO = { header = "openssl/evp.h", library = "crypto" },
  LIBYAML = { header = "yaml.h", library = "yaml" },
}

build = {
  type = "make",
  build_pass = false, -- `make install` builds what it installs
  variables = { BUILD = "build-rock", PREFIX = "$(PREFIX)" },
  install_variables = { LUADIR = "$(LUADIR)" },
  copy_directories = {},
}
