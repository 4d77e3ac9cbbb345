--- Where listeners, the PROXY protocol, client addresses and bounds meet.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local site = require "spec.support.site"

local HOST = "127.0.0.1"
local GET = "GET /x HTTP/1.1\r\nHost: a\r\n%s\r\n"

-- What hooks see of the client, each in its turn, in the answer and at the end.
local SEES = [[
local function note(ctx) ctx.state.seen = (ctx.state.seen or "") .. ctx.client.address .. ";" end
return {
  name = "sees",
  route = note, access = note,
  balance = function(ctx, _, instances) note(ctx) return instances[1] end,
  on_response = function(ctx) note(ctx) ctx.res.headers["X-Seen"] = ctx.state.seen end,
  on_close = function(ctx, _, reason) gateway.log.info("closed " .. reason .. " " .. ctx.client.address) end,
}
]]

describe("a listener", function()
  local gw, server, ports

  before_each(function() server = backend.listen() end)
  after_each(function()
    server:close()
    gateway.stop_all()
  end)

  local function ports_of(mark)
    local found = {}
    for _, line in ipairs(gw:find_log("msg=listening addr=127.* for=traffic", mark)) do
      found[#found + 1] = tonumber(line:match ":(%d+) for=")
    end
    return found
  end

  local function tree(listeners, frontend, more)
    local all = {
      frontend = { http = frontend },
      backend = { http = { keepAlive = false } },
      registry = { static = { services = { { name = "api",
        instances = { { id = "api-1", address = HOST, port = server.port } } } } } },
      router = { rules = { { id = "api", path = "/*", serviceName = "api" } } },
      management = { enabled = true, host = HOST, port = 0 },
      workers = 1,
    }
    frontend.listeners = listeners
    for key, value in pairs(more or {}) do all[key] = value end
    return gateway.yaml(all) .. "\n"
  end

  local function start(listeners, frontend, more, files)
    gw = gateway.prepare { yaml = tree(listeners, frontend, more), files = files }
    gw:launch()
    gw:wait_log "msg=ready"
    gw.admin_port = tonumber(gw:find_log("for=management")[1]:match ":(%d+) for=")
    ports = ports_of()
  end

  local function metric(name)
    local text = http.fetch(gw.admin_port, { path = "/metrics" }).text
    return tonumber(text:match("\ngatewayd_" .. name .. " (%d+)"))
  end

  local function wait_metric(name, value)
    process.wait_until(function() return metric(name) == value end, 15, name .. "=" .. value)
  end

  local ANY, PROXIED = { host = HOST, port = 0 }, { host = HOST, port = 0, proxyProtocol = true }

  local function header(address)
    return ("PROXY TCP4 %s 192.0.2.1 40000 443\r\n"):format(address)
  end

  local function ask(client, fields)
    client:send(GET:format(fields or ""))
    local received = server:request()
    received:ok "x"
    local answer = client:response()
    answer:body()
    return received, answer
  end

  local function send(bytes)
    local client = http.connect(ports[1])
    client:send(bytes)
    return client
  end

  it("goes by whom the header names: his X-Forwarded-For counts if he is trusted himself",
    function()
      start({ PROXIED }, { trustedProxies = { "127.0.0.0/8", "10.0.0.0/8" } }, { plugins = { "sees" } },
        { ["plugins/sees.lua"] = SEES })
      local stranger = send(header "203.0.113.7")
      local received, answer = ask(stranger, "X-Forwarded-For: 1.2.3.4\r\n")
      assert.equal("203.0.113.7", received:get "X-Forwarded-For")
      assert.equal(("203.0.113.7;"):rep(4), answer:get "X-Seen")
      gw:wait_log "closed ok 203.0.113.7"
      -- One connection, a client per request.
      local proxy = send(header "10.0.0.9")
      for _, whose in ipairs { "198.51.100.1", "198.51.100.2" } do
        received, answer = ask(proxy, "X-Forwarded-For: 6.6.6.6, " .. whose .. "\r\n")
        assert.equal("6.6.6.6, " .. whose .. ", 10.0.0.9", received:get "X-Forwarded-For")
        assert.equal((whose .. ";"):rep(4), answer:get "X-Seen")
        gw:wait_log("closed ok " .. whose)
        gw:wait_log("client=" .. whose .. " peer=10.0.0.9:40000")
      end
      received, answer = ask(proxy)
      assert.equal(("10.0.0.9;"):rep(4), answer:get "X-Seen")
      assert.equal("10.0.0.9", received:get "X-Forwarded-For")
    end)

  it("looks at the end of a list of a thousand trusted addresses, and goes on", function()
    start({ ANY }, { trustedProxies = { "127.0.0.0/8", "10.0.0.0/8" }, maxHeaderBytes = "64KiB" })
    local list = ("10.1.2.3, "):rep(999) .. "10.1.2.4"
    local received = ask(send "", "X-Forwarded-For: " .. list .. "\r\n")
    assert.equal(list .. ", 127.0.0.1", received:get "X-Forwarded-For")
    gw:wait_log "client=10.1.2.3 peer=127.0.0.1:"
  end)

  it("counts connections for whom they are, and gives their places back once", function()
    start({ PROXIED }, { trustedProxies = { "127.0.0.0/8" }, maxConnectionsPerClient = 2, readTimeout = 2 })
    for _ = 1, 3 do
      -- Neither those that never say whom they are for, nor those that leave in the middle of it.
      for _, bytes in ipairs { "", "PROXY TC", "PROXY TCP4 1.2.3.4\r\n" } do send(bytes):close() end
      local open = {}
      for i = 1, 2 do
        open[i] = send(header "203.0.113.7")
        ask(open[i])
      end
      local third = send(header "203.0.113.7" .. GET:format "")
      assert.equal(429, third:response().status)
      ask(send(header "203.0.113.8")) -- another client has his own
      ask(send(header "127.0.0.3")) -- a trusted proxy's are those of many
      open[1]:reset()
      open[2]:close()
      third:close()
      collectgarbage()
      wait_metric("connections", 0)
    end
    assert.equal(0, metric "newcomers")
    gw:wait_log "client=203.0.113.7:40000 status=429 why=max_connections_per_client"
  end)

  it("is closed with the others, and reopened, while requests go on at the one that stays", function()
    local function listeners(n, stays)
      local list = { stays or ANY }
      for i = 2, 16 do list[i] = i % 2 == n % 2 and ANY or PROXIED end
      return list
    end
    local frontend, more = { trustedProxies = { "127.0.0.0/8" } }, { workers = 4 }
    start(listeners(1), frontend, more)
    assert.equal(16, #ports)
    more.management = { enabled = true, host = HOST, port = gw.admin_port }
    local stays, client = { host = HOST, port = ports[1] }, send ""
    local before
    for round = 1, 8 do
      gw:write("conf/gateway.yaml", tree(listeners(round, stays), frontend, more))
      assert.truthy(gw:reload())
      ask(client)
      local count = site.descriptors(gw.process.pid)
      before = before or count
      assert.is_true(count <= before + 2, count .. " descriptors, " .. before .. " before")
    end
    assert.equal(0, metric "proxy_protocol_refused_total")
  end)

  it("is handed whole to a worker that takes another one's place", function()
    local listeners = {}
    for i = 1, 16 do listeners[i] = i % 2 == 0 and PROXIED or ANY end
    start(listeners, { trustedProxies = { "127.0.0.0/8" } })
    local first = site.workers(gw)[1]
    site.kill(first, 9)
    process.wait_until(function()
      local now = site.workers(gw)[1]
      return now and now ~= first
    end, 15, "another worker")
    for i, port in ipairs(ports_of()) do
      local client = http.connect(port)
      if i % 2 == 0 then client:send(header "203.0.113.7") end
      local received = ask(client)
      assert.equal(i % 2 == 0 and "203.0.113.7" or HOST, received:get "X-Forwarded-For")
    end
    gw:stop { faults = true }
  end)

  -- While one worker is stopped the other one takes all there is, at the first door. Later it has more to do:
  -- once it has stepped back there, it has at the others, too.
  it("is one of those at which a worker with more to do steps back", function()
    start({ ANY, ANY, ANY, ANY }, {}, { workers = 2 })
    local pids, open, idle = site.workers(gw), {}, {}
    for i, pid in ipairs(pids) do idle[i] = site.descriptors(pid) end
    local function take(port)
      local client = http.connect(port)
      client:send(GET:format "Accept: text/event-stream\r\n")
      local received = server:request()
      received:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
      client:response()
      open[#open + 1] = { client, received }
    end
    local function count() return (site.descriptors(pids[1]) - idle[1]) / 2 end
    site.kill(pids[2], 19)
    for _ = 1, 70 do take(ports[1]) end
    site.kill(pids[2], 18)
    local in_row = 0
    repeat
      local before = count()
      take(ports[1])
      in_row = count() == before and in_row + 1 or 0
    until in_row == 8 or #open > 110
    local before = count()
    for i = 1, 24 do take(ports[i % 3 + 2]) end
    assert.is_true(count() - before <= 4, before .. " " .. count())
  end)
end)
