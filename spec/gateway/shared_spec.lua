--- gateway.shared and gateway.counter in the real binary: several workers, reloads, a worker that is killed,
-- sessions beside it. What the functions do is in spec/runtime/shared_spec.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local site = require "spec.support.site"
local sys = require "spec.support.sys"

local TALLY = [[
local gateway = require "gateway"
local tally = gateway.shared "tally"
local requests = gateway.counter("requests", 100000)
tally:incr "loads"

local plugin = { name = "tally" }

function plugin.access(ctx)
  local what = ctx.req.query.what
  if what == "count" then
    tally:incr("worker " .. gateway.worker())
    return ctx:reply(200, tostring(tally:incr "n") .. " " .. requests:add "n")
  elseif what == "fill" then
    local text = ("x"):rep(16000)
    for i = 1, 100 do assert(tally:set(ctx.req.query.key .. i, text)) end
    return ctx:reply(200, "full")
  elseif what then
    return ctx:reply(200, tostring(tally:get(what)))
  end
end

return plugin
]]

describe("gateway.shared", function()
  local server, gw

  before_each(function() server = origin.sse "one" end)

  after_each(function()
    server:stop()
    gateway.stop_all()
  end)

  local function start(more)
    local options = {
      services = { api = server.port },
      rules = { { id = "tally", path = "/*", serviceName = "api", plugins = { "tally" } } },
      files = { ["plugins/tally.lua"] = TALLY },
      config = { workers = 2, log = { access = false } },
    }
    for key, value in pairs(more or {}) do options.config[key] = value end
    gw = site.start(options)
  end

  local function number(what) return tonumber(gw:get("/?what=" .. what)) or 0 end

  -- From 16 connections at a time, on any worker.
  local function count(times)
    local clients = {}
    for i = 1, 16 do clients[i] = http.connect(gw.port) end
    for _ = 1, times do
      for _, client in ipairs(clients) do client:send(http.format { path = "/?what=count" }) end
      for _, client in ipairs(clients) do
        local got = client:response()
        got:body()
        assert.equal(200, got.status)
      end
    end
    for _, client in ipairs(clients) do client:close() end
    return 16 * times
  end

  it("is one for all workers, and loses no count", function()
    start()
    local sum, rounds = count(50), 0
    while number "worker%201" == 0 or number "worker%202" == 0 do
      rounds = rounds + 1
      assert(rounds < 100, "a worker never had a connection")
      sum = sum + count(1)
    end
    assert.equal(sum, number "n")
    assert.equal(("%d %d"):format(sum + 1, sum + 1), gw:get "/?what=count")
    assert.equal(sum + 1, number "worker%201" + number "worker%202")
    assert.equal(2, number "loads")
  end)

  it("outlives a reload, and workers that are killed", function()
    start()
    local sum = count(5)
    gw:renew { files = { ["plugins/tally.lua"] = TALLY .. "\n-- changed" } }
    assert.equal(sum, number "n")
    assert.equal(4, number "loads")
    for _, pid in ipairs(gw:workers()) do site.kill(pid, 9) end
    sys.wait_until(function()
      local ok, text = pcall(gw.get, gw, "/?what=loads")
      return ok and text == "6"
    end, site.PATIENCE, "the workers that replace them")
    assert.equal(sum, number "n")
    gw:stop { faults = true }
  end)

  it("is bounded, and does not push out sessions", function()
    local other = origin.sse "two"
    finally(function() other:stop() end)
    gw = site.start {
      services = { api = { server.port, other.port } },
      rules = {
        { id = "tally", path = "/tally", serviceName = "api", plugins = { "tally" } },
        { id = "echo", path = "/echo", serviceName = "api", sessionAffinity = { source = "header" } },
      },
      files = { ["plugins/tally.lua"] = TALLY },
      config = { workers = 1, shared = { maxBytes = "256KiB" } },
    }
    local function placed()
      local names = {}
      for i = 1, 20 do
        local got = http.fetch(gw.port, { path = "/echo", headers = { ["X-Session-Id"] = "s" .. i } })
        names[i] = got:get "X-Server"
        if i % 3 == 0 then http.fetch(gw.port, { path = "/echo" }) end -- out of step with taking turns
      end
      return table.concat(names, " ")
    end
    local before = placed()
    assert.matches("one.*two", before)
    assert.equal("full", gw:get "/tally?what=fill&key=a")
    assert.equal("nil", gw:get "/tally?what=a1")
    assert.equal(16000, #gw:get "/tally?what=a100")
    assert.equal(before, placed())
  end)

  it("is a private one, empty at first, where a configuration is only checked", function()
    local alone = gateway.prepare {
      services = { api = server.port },
      rules = { { id = "tally", path = "/*", serviceName = "api", plugins = { "tally" } } },
      files = { ["plugins/tally.lua"] = TALLY:gsub('tally:incr "loads"', 'assert(tally:incr "loads" == 1)') },
    }
    local code, _, err = gateway.run { "-t", "-c", alone.conf }
    assert.message(err).equal(0, code)
  end)

  it("says that its size can't change while it runs", function()
    start()
    gw:renew { config = { shared = { maxBytes = "1MiB" } } }
    gw:wait_log "shared.maxBytes: stays 16777216 until the gateway is started anew"
  end)
end)
