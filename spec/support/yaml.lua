--- yaml: the runtime's YAML reader, as gateway.core.yaml has it, from the test library.
local build = os.getenv("GATEWAYD_BUILD") or "build"
local open = assert(package.loadlib(build .. "/libgatewayd-test.so", "luaopen_gateway_yaml"))

return open().parse
