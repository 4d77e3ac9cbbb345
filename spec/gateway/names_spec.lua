--- Instances that are host names: all their addresses, as they come and go.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local name_server = require "spec.support.name_server"
local process = require "spec.support.process"
local site = require "spec.support.site"
local streams = require "spec.support.streams"

describe("a host name among the instances", function()
  local names, servers, gw, port

  before_each(function()
    names, servers, port = nil, {}, nil
  end)

  after_each(function()
    streams.close_all()
    for _, server in pairs(servers) do server:close() end
    gateway.stop_all()
    if names then names:stop() end
  end)

  -- Backends on one port of several addresses.
  local function listen(...)
    for _, host in ipairs { ... } do
      servers[host] = backend.listen(port, host)
      port = servers[host].port
    end
  end

  local function options(given)
    given = given or {}
    local registry = { dns = { servers = { names.servers }, minTtl = "100ms", timeout = "2s" } }
    for key, value in pairs(given.dns or {}) do registry.dns[key] = value end
    return {
      services = { api = given.instances or { { id = "api", address = "api.test", port = port } } },
      rules = given.rules or { { id = "api", path = "/*", serviceName = "api" } },
      workers = given.workers, files = given.files,
      config = { registry = registry, log = { level = "info" } },
    }
  end

  local function start(given)
    gw = site.start(options(given))
  end

  -- Who is asked, by address; a free request each.
  local function who(count, headers)
    local seen, list = {}, {}
    for _ = 1, count do
      local client = http.connect(gw.port)
      client:send(http.format { path = "/", headers = headers })
      local by
      process.wait_until(function()
        for host, server in pairs(servers) do
          local conn = server:try_accept(0)
          if conn then
            by = host
            backend.read_request(conn):ok(host)
          end
        end
        return by
      end, site.PATIENCE)
      assert.equal(by, (client:response():body()))
      if not seen[by] then list[#list + 1] = by end
      seen[by] = (seen[by] or 0) + 1
    end
    table.sort(list)
    return table.concat(list, " "), seen
  end

  local function status()
    return http.fetch(gw.port, "/").status
  end

  -- A line of the log, which says that it stands for these now.
  local function wait_resolved(addresses, mark)
    local quoted = addresses:find " " and ('"%s"'):format(addresses) or addresses
    local line = 'msg="name resolved" name=api.test service=api count=%d+ addresses='
    return gw:wait_log(line .. quoted:gsub("%p", "%%%0") .. "$", nil, mark)
  end

  it("is all of its addresses, IPv4 and IPv6, each an instance of its own", function()
    names = name_server.start { ["api.test"] = { "127.0.0.2", "::1", "127.0.0.1" } }
    listen("127.0.0.1", "127.0.0.2", "::1")
    start()
    wait_resolved "127.0.0.1 127.0.0.2 ::1"
    local all, count = who(6)
    assert.equal("127.0.0.1 127.0.0.2 ::1", all)
    assert.same({ ["127.0.0.1"] = 2, ["127.0.0.2"] = 2, ["::1"] = 2 }, count)
    gw:wait_log "instance=api@127.0.0.2 "
    gw:wait_log "instance=api@::1 "
  end)
end)
