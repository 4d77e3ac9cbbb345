--- contenders: what is measured, each with the configuration that suits event streams best.
-- A contender is started afresh for each run, in a folder of its own. Called by run.lua.
local http = require("spec.support.http")
local process = require("spec.support.process")

local BUILD = os.getenv("GATEWAYD_BUILD") or "build"

local contenders = {}

---@class bench.Plan what a run wants of a contender
---@field origins integer[] ports
---@field workers integer
---@field cores string for taskset
---@field filter? "look"|"drop"|"json"|"field" what is done with each event
---@field bulk? boolean fast streams: buffers of 16 KiB where that is an option
---@field guard? boolean a rule answers 403 for /admin/ and /exact

---@class bench.Running
---@field port integer
---@field pids integer[] all its processes
---@field processes spec.Process[]
---@field dir string
---@field config string what was configured, with paths of this machine left out
local Running = {}
Running.__index = Running

local function output_of(command)
  local pipe = assert(io.popen(command .. " 2>/dev/null"))
  local text = pipe:read("*a")
  pipe:close()
  return text
end

local ROOT = output_of("pwd"):match("[^\n]+")
local IS_ROOT = output_of("id -u"):match("^0") ~= nil

local function start(plan, argv)
  local pinned = { "taskset", "-c", plan.cores }
  for _, arg in ipairs(argv) do pinned[#pinned + 1] = arg end
  return process.spawn(pinned)
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function children_of(pid)
  local pids = {}
  for child in output_of("pgrep -P " .. pid):gmatch("%d+") do pids[#pids + 1] = tonumber(child) end
  return pids
end

-- The processes and their children, once there are so many of these for each.
function Running:find_pids(children)
  self.pids = {}
  for _, parent in ipairs(self.processes) do
    local found
    process.wait_until(function()
      found = children_of(parent.pid)
      return #found >= children
    end, 5, "the workers of " .. parent.name)
    self.pids[#self.pids + 1] = parent.pid
    for _, pid in ipairs(found) do self.pids[#self.pids + 1] = pid end
  end
  return self
end

--- Ends all of it; streams that are open are cut.
function Running:stop()
  for _, child in ipairs(self.processes) do
    child:signal(self.stop_signal or "TERM")
    child:wait(3)
    child:kill()
  end
  os.execute(("rm -rf '%s'"):format(self.dir))
end

local function running(config)
  local dir = output_of("mktemp -d"):match("[^\n]+")
  local shown = config:gsub(ROOT:gsub("%p", "%%%0") .. "/", ""):gsub("DIR/", "")
  return setmetatable({ dir = dir, processes = {}, config = shown }, Running)
end

local function wait_for_port(self, port)
  self.port = port
  process.wait_until(function()
    if http.is_listening(port) then return true end
    assert(self.processes[1]:is_running(), self.processes[1]:text("stderr"))
  end, 10, "port " .. port)
  return self
end

--- gatewayd ---------------------------------------------------------------------------------------

local GATEWAYD = [[
frontend:
  http: {host: "0.0.0.0", port: 0, idleTimeout: 1h}
  sse: {keepaliveTimeout: 30}
backend:
  http: {maxIdleConns: 1000, maxIdleConnsPerHost: 256}
registry:
  static:
    services:
      - name: origin
        instances:
INSTANCES
router:
  rules:
    - {path: /events, methods: [GET, SSE], serviceName: origin, plugins: [PLUGINS]}
    - {path: /bytes, serviceName: origin}
pluginPath: [ROOT/plugins, ROOT/bench/plugins]
workers: WORKERS
log: {access: false}
management: {enabled: false}
]]

local PLUGINS = {
  look = "look",
  drop = "{event_filter: {drop: [debug]}}",
  json = "json_edit",
  field = "{event_rewrite: {json: {set: {via: bench1}}}}",
}

local function each_origin(plan, format)
  local lines = {}
  for i, port in ipairs(plan.origins) do lines[i] = format:format(port) end
  return table.concat(lines, "\n")
end

local function start_gatewayd(plan)
  local config = GATEWAYD:gsub("INSTANCES", each_origin(plan, '          - {address: "127.0.0.1", port: %d}'))
    :gsub("PLUGINS", PLUGINS[plan.filter] or ""):gsub("WORKERS", plan.workers):gsub("ROOT", ROOT)
  local self = running(config)
  self.stop_signal = "QUIT"
  write(self.dir .. "/gateway.yaml", config)
  self.processes[1] = start(plan, { BUILD .. "/gatewayd", "-c", self.dir .. "/gateway.yaml" })
  local line = self.processes[1]:wait_line("msg=listening", 10, "stderr")
  self.processes[1]:wait_line("msg=ready", 10, "stderr")
  self.port = tonumber(line:match("addr=%S-:(%d+)"))
  return self:find_pids(plan.workers)
end

--- nginx ------------------------------------------------------------------------------------------

-- With less than a sixteenth of its connections free nginx closes those that have sent no request yet: 9,500
-- streams need more connections than descriptors.
local NGINX = [[
USER
daemon off;
pid DIR/nginx.pid;
error_log DIR/error.log error;
worker_processes WORKERS;
worker_rlimit_nofile 20000;
MODULES
events { worker_connections 21000; use epoll; }
http {
  access_log off;
  client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c;
  uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  LUA
  upstream origin {
SERVERS
    keepalive 256;
    keepalive_requests 1000000000;
  }
  server {
    listen 0.0.0.0:PORT backlog=4096REUSEPORT;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_read_timeout 1h;
    location / { proxy_pass http://origin; proxy_buffering off;EXTRA }
    location /bytes { proxy_pass http://origin; }
    GUARD
  }
}
]]

local LUA_MODULES = "load_module /usr/lib/nginx/modules/ndk_http_module.so;\n"
  .. "load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;"

local function nginx_extra(plan)
  local extra = plan.bulk and " proxy_buffer_size 16k; proxy_buffers 8 16k;" or ""
  if plan.filter then extra = extra .. ' body_filter_by_lua_block { require("bench.nginx_filter").run() }' end
  return extra
end

local function start_nginx(plan)
  local port = http.free_port()
  local values = {
    USER = IS_ROOT and "user root;" or "", WORKERS = plan.workers, PORT = port,
    MODULES = plan.filter and LUA_MODULES or "",
    LUA = plan.filter and ('lua_package_path "%s/?.lua;;";'):format(ROOT) or "",
    SERVERS = each_origin(plan, "    server 127.0.0.1:%d;"),
    REUSEPORT = plan.workers > 1 and " reuseport" or "", EXTRA = nginx_extra(plan),
    GUARD = plan.guard and "location /admin/ { return 403; } location = /exact { return 403; }" or "",
  }
  local config = NGINX:gsub("%f[%u]%u+%f[%U]", values):gsub("\n%s*\n", "\n")
  local self = running(config)
  write(self.dir .. "/nginx.conf", (config:gsub("DIR", self.dir)))
  self.processes[1] = start(plan, { "nginx", "-p", self.dir, "-c", self.dir .. "/nginx.conf" })
  return wait_for_port(self, port):find_pids(plan.workers)
end

--- HAProxy ----------------------------------------------------------------------------------------

-- Without http-no-delay HAProxy gathers what it sends: a third less CPU, and events that come 100 ms late.
local HAPROXY = [[
global
  maxconn 9900
  nbthread 1
defaults
  mode http
  option http-no-delay
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend bench
  bind 0.0.0.0:PORT backlog 4096
GUARD  default_backend origin
backend origin
SERVERS
]]

-- A process has descriptors for 9,900 streams: several workers are several processes on one port.
local function start_haproxy(plan)
  local port, count = http.free_port(), 0
  local servers = each_origin(plan, "  server oN 127.0.0.1:%d"):gsub("oN", function()
    count = count + 1
    return "o" .. count
  end)
  local guard = "  http-request deny deny_status 403 if { path_beg /admin/ } || { path /exact }\n"
  local config = HAPROXY:gsub("PORT", port):gsub("SERVERS", servers):gsub("GUARD", plan.guard and guard or "")
  local self = running(config)
  write(self.dir .. "/haproxy.cfg", config)
  for i = 1, plan.workers do
    self.processes[i] = start(plan, { "haproxy", "-db", "-q", "-f", self.dir .. "/haproxy.cfg" })
  end
  return wait_for_port(self, port):find_pids(0)
end

--- The floor, and nothing at all ------------------------------------------------------------------

local function start_relay(plan)
  local argv = { BUILD .. "/bench/relay", "0", tostring(plan.workers) }
  for _, port in ipairs(plan.origins) do argv[#argv + 1] = tostring(port) end
  local self = running("")
  self.processes[1] = start(plan, argv)
  local _, port = self.processes[1]:wait_line("^listening on [%d.]+:(%d+)$")
  self.port = tonumber(port)
  return self:find_pids(plan.workers - 1)
end

local function start_direct(plan)
  local self = running("")
  self.port, self.pids = plan.origins[1], {}
  return self
end

local function version(command, pattern)
  return output_of("{ " .. command .. " 2>&1; }"):match(pattern)
end

local START = {
  gatewayd = start_gatewayd, nginx = start_nginx, haproxy = start_haproxy, relay = start_relay,
  direct = start_direct,
}

--- Starts a contender by name and waits until it serves.
---@param name string
---@param plan bench.Plan
---@return bench.Running
function contenders.start(name, plan)
  return START[name](plan)
end

--- How the contenders call themselves; a name is missing where the program is.
---@return table<string, string>
function contenders.versions()
  return {
    gatewayd = version(BUILD .. "/gatewayd --version", "[%d.]+"),
    nginx = version("nginx -v", "nginx/([%d.]+)"),
    haproxy = version("haproxy -v", "version ([%d.]+)"),
    relay = "bench/relay.c",
    direct = "no proxy",
    lua = version("dpkg-query -W -f '${Version}' libnginx-mod-http-lua", "%d+%.[%d.]+"),
  }
end

contenders.output_of = output_of

return contenders
