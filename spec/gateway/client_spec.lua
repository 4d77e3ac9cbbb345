--- Whose request it is, in the real binary: what backends, hooks, the log and sessions are told, from proxies
-- that are trusted and from everybody else.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local site = require "spec.support.site"

-- Replies with what a hook sees, or notes it at the end of a stream.
local SEES = [[
local json = require("gateway.json")
local function seen(ctx)
  local req = ctx.req
  return { client = ctx.client, scheme = req.scheme, xff = req.headers["X-Forwarded-For"],
    forwarded = req.headers.Forwarded, real = req.headers["X-Real-IP"] }
end
return {
  name = "sees",
  access = function(ctx) if ctx.req.headers["X-See"] then return ctx:reply(200, seen(ctx)) end end,
  on_close = function(ctx, _, reason)
    ctx:log("info", "closed " .. reason .. " " .. json.encode(seen(ctx)))
  end,
}
]]

local CLAIMS = {
  ["X-Forwarded-For"] = "203.0.113.1, 198.51.100.7", ["X-Forwarded-Proto"] = "https",
  ["X-Forwarded-Host"] = "shop.example", ["X-Forwarded-Port"] = "443", ["X-Real-IP"] = "203.0.113.9",
  Forwarded = "for=203.0.113.7;proto=http;host=evil.example",
}

local function with_claims(more)
  local headers = {}
  for name, value in pairs(CLAIMS) do headers[name] = value end
  for name, value in pairs(more or {}) do headers[name] = value end
  return headers
end

describe("a request's client", function()
  local server, streams, sites = nil, nil, {}

  local function start(frontend)
    return site.start {
      services = { api = { server.port }, events = { streams.port } },
      rules = {
        { id = "api", path = "/*", serviceName = "api" },
        { id = "session", path = "/session", serviceName = "api",
          sessionAffinity = { enabled = true, source = "cookie", cookieName = "S" } },
        { id = "events", path = "/events", serviceName = "events" },
      },
      files = { ["plugins/sees.lua"] = SEES },
      config = { plugins = { "sees" }, frontend = { http = frontend },
        backend = { http = { keepAlive = false } } },
    }
  end

  setup(function()
    server = backend.listen()
    streams = origin.sse("one")
    sites.nobody = start({})
    sites.list = start({ trustedProxies = { "127.0.0.0/8" } })
    sites.forwarded = start({ trustedProxies = { "127.0.0.1" }, clientAddressHeader = "Forwarded" })
  end)

  teardown(function()
    gateway.stop_all()
    server:close()
    streams:stop()
  end)

  -- The request as the backend gets it.
  local function received(gw, headers)
    local client = http.connect(gw.port)
    client:send(http.format { path = "/x", headers = headers })
    local got = server:request()
    got:ok()
    client:response():body()
    return got
  end

  local function seen(gw, headers)
    headers["X-See"] = "1"
    local client = http.connect(gw.port)
    client:send(http.format { path = "/x", headers = headers })
    return cjson.decode((client:response():body()))
  end

  local function told(got)
    local list = {}
    for _, name in ipairs { "For", "Proto", "Host", "Port" } do
      list[#list + 1] = name .. "=" .. table.concat(got:all("X-Forwarded-" .. name), "|")
    end
    list[#list + 1] = "Real=" .. table.concat(got:all "X-Real-IP", "|")
    return table.concat(list, " ")
  end

  local function session_cookie(gw, headers)
    local client = http.connect(gw.port)
    client:send(http.format { path = "/session", headers = headers })
    server:request():ok()
    return client:response():get "Set-Cookie"
  end

  describe("where nobody is trusted", function()
    it("is the peer, whatever is said", function()
      local got = received(sites.nobody, with_claims { Host = "a.example" })
      assert.equal("For=127.0.0.1 Proto=http Host=a.example Port= Real=", told(got))
      assert.is_nil(got:get "Forwarded")
    end)

    it("is the peer for hooks too, who see nothing that was said", function()
      local said = seen(sites.nobody, with_claims())
      assert.same({ "127.0.0.1", "127.0.0.1", "http" },
        { said.client.address, said.client.peer.address, said.scheme })
      assert.equal(said.client.port, said.client.peer.port)
      assert.same({}, { said.xff, said.forwarded, said.real })
    end)

    it("gets no cookie for https because it says so", function()
      assert.not_matches("Secure", session_cookie(sites.nobody, with_claims()))
    end)

    it("is in the log, alone", function()
      received(sites.nobody, with_claims { ["X-Request-Id"] = "log-nobody" })
      local line = sites.nobody:wait_log "msg=request x=log%-nobody "
      assert.matches(" client=127%.0%.0%.1:%d+ ", line)
      assert.not_matches(" peer=", line)
    end)
  end)

  describe("behind a trusted proxy that writes X-Forwarded-For", function()
    it("is told to backends with the list that came", function()
      local got = received(sites.list, with_claims { Host = "a.example" })
      assert.equal("For=203.0.113.1, 198.51.100.7, 127.0.0.1 Proto=https Host=shop.example Port=443 "
        .. "Real=198.51.100.7", told(got))
      assert.is_nil(got:get "Forwarded")
    end)

    it("is told from the connection where the proxy says nothing, or nothing sensible", function()
      assert.equal("For=127.0.0.1 Proto=http Host=a.example Port= Real=",
        told(received(sites.list, { Host = "a.example" })))
      local got = received(sites.list, {
        Host = "a.example", ["X-Forwarded-For"] = "x", ["X-Forwarded-Proto"] = "https,http",
        ["X-Forwarded-Host"] = "a b", ["X-Forwarded-Port"] = "x", ["X-Real-IP"] = "203.0.113.9",
      })
      assert.equal("For=x, 127.0.0.1 Proto=http Host=a.example Port= Real=127.0.0.1", told(got))
    end)

    it("is the last one in the list that is not trusted", function()
      local list = "203.0.113.1, 198.51.100.7:99, 127.9.9.9"
      local said = seen(sites.list, with_claims { ["X-Forwarded-For"] = list })
      assert.same({ "198.51.100.7", 99, "127.0.0.1" },
        { said.client.address, said.client.port, said.client.peer.address })
      assert.is_true(said.client.peer.port > 0)
      assert.equal(list, said.xff)
      assert.same({ "https", "198.51.100.7" }, { said.scheme, said.real })
      assert.is_nil(said.forwarded)
    end)

    it("is the proxy where it can't be read, or is written too often", function()
      for list, want in pairs { ["198.51.100.7, unknown"] = "127.0.0.1",
        ["198.51.100.7" .. (", 127.0.0.2"):rep(700)] = "127.0.0.2" } do
        assert.equal(want, seen(sites.list, { ["X-Forwarded-For"] = list }).client.address)
      end
    end)

    it("gets cookies for https where its connection is", function()
      assert.matches("Secure", session_cookie(sites.list, with_claims()))
      assert.not_matches("Secure", session_cookie(sites.list, {}))
    end)

    it("is in the log with its proxy", function()
      received(sites.list, with_claims { ["X-Request-Id"] = "log-list" })
      local line = sites.list:wait_log "msg=request x=log%-list "
      assert.matches(" client=198%.51%.100%.7 peer=127%.0%.0%.1:%d+ ", line)
    end)

    it("is known as long as its stream is open, and when it has gone", function()
      local client = http.connect(sites.list.port)
      client:send(http.format { path = "/events", headers = { Accept = "text/event-stream",
        ["X-Forwarded-For"] = "2001:db8::7", ["X-Request-Id"] = "stream-1" } })
      assert.equal(200, client:response().status)
      client:close()
      local note = sites.list:wait_log "closed client_gone"
      local said = cjson.decode((note:match("{.*}"):gsub('\\"', '"')))
      assert.same({ "2001:db8::7", "127.0.0.1" }, { said.client.address, said.client.peer.address })
      local line = sites.list:wait_log "msg=request x=stream%-1 "
      assert.matches(" client=2001:db8::7 peer=127%.0%.0%.1:%d+ .* end=client_gone", line)
    end)

    it("is told anew for each request of a connection", function()
      local client, addresses = http.connect(sites.list.port), {}
      for i = 1, 3 do
        local list = i ~= 2 and "198.51.100." .. i or nil
        client:send(http.format { path = "/x", headers = { ["X-See"] = "1", ["X-Forwarded-For"] = list } })
        addresses[i] = cjson.decode((client:response():body())).client.address
      end
      assert.same({ "198.51.100.1", "127.0.0.1", "198.51.100.3" }, addresses)
    end)
  end)

  describe("behind a trusted proxy that writes Forwarded", function()
    it("is told by both headers, and nothing else that was said counts", function()
      local list = 'for=203.0.113.1, for="[2001:db8::7]:80";proto=https;host="shop.example:8443"'
      local got = received(sites.forwarded, with_claims { Host = "a.example", Forwarded = list })
      assert.equal("For=2001:db8::7, 127.0.0.1 Proto=https Host=shop.example:8443 Port= Real=2001:db8::7",
        told(got))
      assert.same({ list .. ", for=127.0.0.1" }, got:all "Forwarded")
    end)

    it("is told by an element of our own where there is none", function()
      local got = received(sites.forwarded, { Host = "a.example:81", ["X-Forwarded-For"] = "203.0.113.1" })
      assert.equal("For=127.0.0.1 Proto=http Host=a.example:81 Port= Real=", told(got))
      assert.same({ 'for=127.0.0.1;host="a.example:81";proto=http' }, got:all "Forwarded")
    end)

    it("is not whom its own quotes name", function()
      for text, want in pairs {
        ['for="203.0.113.1, for=198.51.100.7'] = "198.51.100.7",
        ['for=203.0.113.1", for="198.51.100.7"'] = "198.51.100.7",
        ["for=198.51.100.7, for=_hidden"] = "127.0.0.1",
      } do
        assert.equal(want, seen(sites.forwarded, { Forwarded = text }).client.address)
      end
    end)
  end)
end)
