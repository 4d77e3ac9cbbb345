--- Where the gateway listens: several listeners, unix sockets, the PROXY protocol.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local local_socket = require "spec.support.local_socket"
local process = require "spec.support.process"
local site = require "spec.support.site"
local sys = require "spec.support.sys"

local LOOPBACK = "127.0.0.1"
local ANY = { host = LOOPBACK, port = 0 }
local V1 = "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n"

local server, dir, gw

local function unix(name, more)
  local listener = { host = "unix:" .. dir .. "/" .. name }
  for key, value in pairs(more or {}) do listener[key] = value end
  return listener
end

local function configuration(options)
  local rule = { id = "api", path = "/*", serviceName = "api" }
  local hash = { id = "hash", path = "/hash", serviceName = "api", loadBalance = "ip_hash" }
  local instance = { id = "api-1", address = LOOPBACK, port = server.port }
  local tree = {
    frontend = {
      http = {
        listeners = options.listeners, trustedProxies = options.trusted,
        readTimeout = options.readTimeout or 30,
      },
      sse = { keepaliveTimeout = 0 },
    },
    backend = { http = { keepAlive = false } },
    registry = { static = { services = { { name = "api", instances = { instance } } } } },
    router = { rules = { rule, hash } },
    workers = options.workers or 1,
    management = options.management or { enabled = false },
  }
  return "gateway: " .. gateway.yaml(tree) .. "\n"
end

local function prepare(options)
  gw = gateway.prepare { yaml = configuration(options) }
end

local function start(options)
  prepare(options)
  gw:launch()
  gw:wait_log "msg=ready"
  return gw
end

local function change(options)
  gw:write("conf/gateway.yaml", configuration(options))
  return gw:reload()
end

-- The ports of listeners in the order of the log, from a mark on.
local function ports(mark, use)
  local found = {}
  for _, line in ipairs(gw:find_log("msg=listening addr=127.* for=" .. (use or "traffic"), mark)) do
    found[#found + 1] = tonumber(line:match ":(%d+) for=")
  end
  return found
end

local function exists(path)
  return os.execute("test -e " .. path) == 0
end

local function connect(where)
  if type(where) == "number" then return http.connect(where) end
  return local_socket.connect(dir .. "/" .. where)
end

-- A request's status, and who the backend was told the client is.
local function ask(where, before, path)
  local client = connect(where)
  client:send((before or "") .. "GET " .. (path or "/x") .. " HTTP/1.1\r\nHost: a\r\n\r\n")
  local received = server:request()
  local whose = received:get "X-Forwarded-For"
  received:ok "x"
  local status = client:response().status
  client:close()
  return status, whose
end

local function open_stream(where)
  local client = connect(where)
  client:send "GET /x HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
  local received = server:request()
  received:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
  client:response()
  return { client = client, received = received }
end

local function goes_on(stream)
  stream.received.conn:send "data: more\n\n"
  return stream.client:read_until "data: more\n\n" ~= nil
end

local function workers()
  local pids = {}
  local file = io.open(("/proc/%d/task/%d/children"):format(gw.process.pid, gw.process.pid))
  for pid in (file and file:read "*a" or ""):gmatch "%d+" do pids[#pids + 1] = tonumber(pid) end
  if file then file:close() end
  return pids
end

local function metric(name)
  local client = connect "m.sock"
  client:send "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
  return tonumber(client:read_all():match("\ngatewayd_" .. name .. " (%d+)"))
end

before_each(function()
  local pipe = assert(io.popen "mktemp -d")
  dir = pipe:read "*l"
  pipe:close()
  server = backend.listen()
end)

after_each(function()
  if gw and gw.process and gw.process:is_running() then gw:stop() end
  gw = nil
  server:close()
  gateway.stop_all()
  os.execute("rm -rf " .. dir)
end)

describe("several listeners", function()
  it("are all served, by ports of their own and by a path", function()
    start { listeners = { ANY, unix "g.sock", ANY }, workers = 2 }
    local found = ports()
    assert.equal(2, #found)
    assert.not_equal(found[1], found[2])
    assert.same({ 200, LOOPBACK }, { ask(found[1]) })
    assert.same({ 200, LOOPBACK }, { ask(found[2]) })
    assert.same({ 200 }, { ask "g.sock" }) -- such a peer has no address to be named by
    assert.same({ 200 }, { ask("g.sock", nil, "/hash") })
  end)

  it("are handed to a worker that takes another one's place", function()
    start { listeners = { ANY, unix "g.sock" } }
    local pid = workers()[1]
    site.kill(pid, 9)
    process.wait_until(function() return workers()[1] and workers()[1] ~= pid end, 15, "another worker")
    assert.same({ 200, 200 }, { (ask(ports()[1])), (ask "g.sock") })
    gw:stop { faults = true }
  end)

  it("are balanced together: who has more streams steps back at all of them", function()
    start { listeners = { ANY, ANY }, workers = 2 }
    local found, open, idle = ports(), {}, {}
    for i, pid in ipairs(workers()) do idle[i] = site.descriptors(pid) end
    for i = 1, 60 do open[i] = open_stream(found[i % 2 + 1]) end
    assert.is_true(goes_on(open[60]))
    local counts = {}
    for i, pid in ipairs(workers()) do counts[i] = (site.descriptors(pid) - idle[i]) / 2 end
    assert.equal(60, counts[1] + counts[2])
    assert.is_true(math.abs(counts[1] - counts[2]) <= 12, table.concat(counts, " "))
  end)

  it("stay, come and go by a reload, and no stream is lost", function()
    start { listeners = { ANY, unix "stays.sock", unix "goes.sock" }, workers = 2 }
    local port = ports()[1]
    local there = { open_stream(port), open_stream "stays.sock", open_stream "goes.sock" }
    local mark = gw:mark()
    local listeners = { { host = LOOPBACK, port = port }, unix "stays.sock", unix "new.sock", ANY }
    assert.truthy(change { listeners = listeners, workers = 2 })
    assert.equal(2, #gw:find_log("msg=listening", mark)) -- new.sock, and the other port
    for _, stream in ipairs(there) do assert.is_true(goes_on(stream)) end
    local statuses = {}
    local wanted = { port, "stays.sock", "new.sock", ports(mark)[1] }
    for i, where in ipairs(wanted) do statuses[i] = ask(where) end
    assert.same({ 200, 200, 200, 200 }, statuses)
    assert.is_false(exists(dir .. "/goes.sock"))
  end)

  it("are all bound before a reload, or none", function()
    start { listeners = { ANY, unix "stays.sock" } }
    local port, taken = ports()[1], backend.listen()
    local wanted = { unix "new.sock", { host = LOOPBACK, port = taken.port } }
    local generation, line = change { listeners = wanted }
    assert.is_nil(generation, line)
    assert.matches("can't listen on 127.0.0.1:" .. taken.port, gw:log_text(), 1, true)
    assert.same({ false, true }, { exists(dir .. "/new.sock"), exists(dir .. "/stays.sock") })
    assert.same({ 200, 200 }, { (ask(port)), (ask "stays.sock") })
    taken:close()
  end)
end)

describe("a unix socket", function()
  local function mode(name)
    local pipe = assert(io.popen("stat -c %a " .. dir .. "/" .. name))
    local digits = pipe:read "*l"
    pipe:close()
    return digits
  end

  it("has the mode that is configured, also after a reload, and goes with the gateway", function()
    start { listeners = { unix("g.sock", { mode = "0600" }) }, management = unix("m.sock", { mode = "660" }) }
    assert.same({ "600", "660" }, { mode "g.sock", mode "m.sock" })
    assert.equal(0, metric "connections")
    assert.truthy(change { listeners = { unix("g.sock", { mode = "0666" }) } })
    assert.equal("666", mode "g.sock")
    assert.is_false(exists(dir .. "/m.sock"))
    assert.equal(200, (ask "g.sock"))
    gw:stop()
    assert.is_false(exists(dir .. "/g.sock"))
  end)

  it("takes the place of one that nobody listens on any more", function()
    backend.listen(nil, "unix:" .. dir .. "/g.sock"):close()
    start { listeners = { unix "g.sock" } }
    assert.equal(200, (ask "g.sock"))
  end)

  local function refused()
    prepare { listeners = { unix "new.sock", unix "g.sock" } }
    local code, _, err = gateway.run { "-c", gw.conf }
    assert.equal(3, code, err)
    assert.matches("can't listen on unix:" .. dir .. "/g.sock (traffic)", err, 1, true)
    assert.is_true(exists(dir .. "/g.sock"))
    assert.is_false(exists(dir .. "/new.sock"))
  end

  it("that is in use is not taken", function()
    local taken = backend.listen(nil, "unix:" .. dir .. "/g.sock")
    refused()
    taken:close()
  end)

  it("does not replace a file of another kind", function()
    os.execute("echo precious > " .. dir .. "/g.sock")
    refused()
  end)

  it("is left alone at the end when it is not ours any more", function()
    start { listeners = { unix "g.sock" } }
    os.remove(dir .. "/g.sock")
    local other = backend.listen(nil, "unix:" .. dir .. "/g.sock")
    gw:stop()
    assert.is_true(exists(dir .. "/g.sock"))
    other:close()
  end)

  it("is made anew by a reload when its file is gone", function()
    start { listeners = { unix "g.sock" } }
    os.remove(dir .. "/g.sock")
    assert.truthy(gw:reload())
    assert.equal(200, (ask "g.sock"))
  end)
end)

describe("the PROXY protocol", function()
  local function proxied(trusted, more)
    local listeners = { ANY, { host = LOOPBACK, port = 0, proxyProtocol = true },
      unix("p.sock", { proxyProtocol = true }) }
    local options = { listeners = listeners, trusted = trusted, management = unix "m.sock" }
    for key, value in pairs(more or {}) do options[key] = value end
    start(options)
    return ports()
  end

  it("says who the client is, where it is wanted", function()
    local found = proxied { "127.0.0.0/8", "unix:" }
    assert.same({ 200, "203.0.113.7" }, { ask(found[2], V1) })
    assert.same({ 200, "203.0.113.7" }, { ask("p.sock", V1) })
    assert.same({ 200, LOOPBACK }, { ask(found[2], "PROXY UNKNOWN\r\n") })
    assert.same({ 200, LOOPBACK }, { ask(found[1]) })
    assert.equal(0, metric "proxy_protocol_refused_total")
  end)

  it("is required there, and refused elsewhere", function()
    local found = proxied { "127.0.0.0/8" }
    local client = connect(found[2])
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal("", (client:read_all()))
    gw:wait_log 'msg="connection refused" client=127.0.0.1:%d+ why=no_proxy_header'
    client = connect(found[2])
    client:send "PROXY TCP4 1.2.3.4\r\n"
    assert.equal("", (client:read_all()))
    gw:wait_log "why=bad_proxy_header"
    client = connect(found[1])
    client:send(V1 .. "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.equal(400, client:response().status)
    assert.equal(2, metric "proxy_protocol_refused_total")
    assert.equal(0, metric "newcomers")
  end)

  it("is believed from trusted proxies only", function()
    local found = proxied { "192.0.2.0/24" }
    for _, where in ipairs { found[2], "p.sock" } do
      local client = connect(where)
      client:send(V1 .. "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.equal("", (client:read_all()))
    end
    gw:wait_log "client=127.0.0.1:%d+ why=untrusted_proxy"
    gw:wait_log "client=unix: why=untrusted_proxy"
    assert.equal(2, metric "proxy_protocol_refused_total")
    assert.equal(0, metric "connections")
  end)

  it("has the time of a request head, and nobody waits for it meanwhile", function()
    local found = proxied({ "127.0.0.0/8" }, { readTimeout = 0.2 })
    local client = connect(found[2])
    client:send "PROXY TC"
    assert.equal(200, (ask(found[1])))
    assert.equal("", (client:read_all()))
    gw:wait_log "why=head_timeout"
    process.wait_until(function() return metric "connections" == 0 end, 15, "no connection")
  end)

  it("is switched on by a reload, for the same socket", function()
    start { listeners = { ANY }, trusted = { "127.0.0.0/8" } }
    local port = ports()[1]
    local listener = { host = LOOPBACK, port = port, proxyProtocol = true }
    local client = connect(port)
    assert.truthy(change { listeners = { listener }, trusted = { "127.0.0.0/8" } })
    assert.same({ 200, "203.0.113.7" }, { ask(port, V1) })
    client:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    server:request():ok()
    assert.equal(200, client:response().status)
  end)

  it("does not hold up the end of the gateway", function()
    local found = proxied { "127.0.0.0/8" }
    local client = connect(found[2])
    client:send "PROXY TC"
    process.wait_until(function() return metric "connections" == 1 end, 15, "the connection")
    gw:stop()
    assert.equal("", (client:read_all()))
  end)
end)

describe("out of descriptors", function()
  local function limit(pid, most)
    assert.equal(0, os.execute(("prlimit --pid %d --nofile=%d:20000"):format(pid, most)))
  end

  -- How often the process has gone to sleep.
  local function wakeups(pid)
    for line in io.lines("/proc/" .. pid .. "/status") do
      local count = line:match "^voluntary_ctxt_switches:%s*(%d+)"
      if count then return tonumber(count) end
    end
  end

  it("accepting pauses without spinning, what is open goes on, and it resumes", function()
    start { listeners = { ANY }, management = unix "m.sock" }
    local port, pid = ports()[1], workers()[1]
    local stream = open_stream(port)
    local monitor = connect "m.sock"
    local asked = 0
    local function pauses()
      asked = asked + 1
      monitor:send "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
      local response = monitor:response()
      return tonumber((response:body()):match "\ngatewayd_accept_pauses_total (%d+)")
    end
    assert.equal(0, pauses())
    limit(pid, site.descriptors(pid))
    local crowd = {}
    for i = 1, 50 do crowd[i] = connect(port) end
    gw:wait_log 'msg="accepting pauses: Too many open files"'
    local began, asleep = sys.now(), wakeups(pid)
    local first = pauses()
    asked = 0
    assert.is_true(goes_on(stream))
    process.wait_until(function() return pauses() >= first + 5 end, 15, "five more pauses")
    -- Each is of a tenth of a second at least: a slow machine has fewer of them, never more.
    local n, woken, seconds = pauses() - first, wakeups(pid) - asleep, sys.now() - began
    assert.is_true(n <= 10 * seconds + 1, n .. " pauses in " .. seconds)
    assert.is_true(woken <= 2 * n + 3 * asked + 20, n .. " pauses, woken " .. woken .. ", asked " .. asked)
    limit(pid, 20000)
    crowd[50]:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    server:request():ok()
    assert.equal(200, crowd[50]:response().status)
    assert.is_true(goes_on(stream))
  end)

  it("a request that needs a backend is answered 503", function()
    start { listeners = { ANY } }
    local port, pid = ports()[1], workers()[1]
    local stream, client = open_stream(port), connect(port)
    client:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    server:request():ok()
    assert.equal(200, client:response().status)
    limit(pid, site.descriptors(pid))
    client:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    local response = client:response()
    assert.equal(503, response.status)
    response:body()
    assert.is_true(goes_on(stream))
    limit(pid, 20000)
    client:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    server:request():ok()
    assert.equal(200, client:response().status)
  end)

  it("a reload is refused as a whole, and the old listeners go on", function()
    start { listeners = { ANY, unix "g.sock" } }
    local port, pid = ports()[1], workers()[1]
    local stream = open_stream(port)
    limit(pid, site.descriptors(pid) + 1)
    local mark = gw:mark()
    assert.is_nil((change { listeners = { { host = LOOPBACK, port = port }, unix "new.sock" } }))
    gw:wait_log("out of descriptors", nil, mark)
    assert.same({ false, true }, { exists(dir .. "/new.sock"), exists(dir .. "/g.sock") })
    limit(pid, 20000)
    assert.same({ 200, 200 }, { (ask(port)), (ask "g.sock") })
    assert.truthy(change { listeners = { { host = LOOPBACK, port = port }, unix "new.sock" } })
    assert.equal(200, (ask "new.sock"))
    assert.is_true(goes_on(stream))
  end)
end)
