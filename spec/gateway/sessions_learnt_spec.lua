--- Sessions that the gateway learns: from a cookie of the backend's, and from plugins by ctx:stick. The
-- backends are the spec's own: who dialled whom is all that matters.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local site = require "spec.support.site"

local HEADER = { source = "header", headerName = "Mcp-Session-Id" }
local COOKIE = { source = "cookie", cookieName = "JSESSIONID", learn = true }

-- Names the session in each way that a plugin can: the field `session` of an event's JSON data, at once, or
-- in a task that has waited; a header of the request's, or of the response's, that says so.
local NAMER = [[
local gateway = require("gateway")
local plugin = { name = "namer" }

function plugin.access(ctx)
  local name = ctx.req.headers["X-Conversation"]
  if name then ctx:stick(name) end
end

function plugin.on_response(ctx)
  local name = ctx.res.headers["X-Made"]
  if name then ctx:stick(name) end
end

function plugin.on_event(ctx, _, event)
  local name = event:json_get("session")
  if not name then return end
  if event.type == "later" then
    ctx:spawn(function()
      gateway.sleep(0.01)
      ctx:stick(name)
      ctx:send({ type = "stuck", data = name })
    end)
  else
    ctx:stick(name)
  end
end

return plugin
]]

local servers

local function options(section, more)
  local rule = { id = "mcp", path = "/*", serviceName = "api", plugins = { "namer" } }
  for key, value in pairs(section) do rule[key] = value end
  local all = {
    services = { api = { servers[1].port, servers[2].port, servers[3].port } }, rules = { rule },
    files = { ["plugins/namer.lua"] = NAMER }, config = { log = { access = false } },
  }
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

-- The backend that is dialled, and the request as it comes there.
local function accept()
  local index, got
  process.wait_until(function()
    for i = 1, #servers do
      local conn = servers[i]:try_accept(0)
      if conn then
        index, got = i, backend.read_request(conn)
        return true
      end
    end
  end, site.PATIENCE, "a request at a backend")
  return index, got
end

-- Sends a request; gives the backend it came to, and what that got, to be answered.
local function request(gw, headers)
  local conn = http.connect(gw.port)
  conn:send(http.format { path = "/x", headers = headers })
  local index, origin = accept()
  return index, origin, conn
end

-- A whole exchange: which backend answered, and what the client got.
local function ask(gw, headers, lines)
  local index, origin, conn = request(gw, headers)
  origin:ok("x", nil, lines)
  origin.conn:close()
  local got = conn:response()
  got:body()
  conn:close()
  return index, got
end

local Open = {}
Open.__index = Open

-- Sends an event, and gives what the client gets.
function Open:event(text)
  self.origin:reply(text .. "\n\n")
  return self.client:event()
end

function Open:close()
  self.conn:close()
  self.origin.conn:close()
end

-- The backend it is at, and an open stream.
local function stream(gw, headers)
  local index, origin, conn = request(gw, headers)
  origin:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
  return index, setmetatable({ origin = origin, conn = conn, client = conn:response() }, Open)
end

describe("sessions that are learnt", function()
  before_each(function()
    servers = { backend.listen(), backend.listen(), backend.listen() }
  end)

  after_each(function()
    gateway.stop_all()
    for _, server in ipairs(servers) do server:close() end
  end)

  -- Requests with the session go there, whatever else is asked in between.
  local function assert_at(index, gw, headers)
    for _ = 1, 4 do
      assert.equal(index, (ask(gw, headers)))
      ask(gw)
    end
  end

  describe("from a cookie of the backend's", function()
    it("stay where it was set, and the gateway sets none", function()
      local gw = gateway.start(options({ sessionAffinity = COOKIE }, { workers = 2 }))
      for i = 1, 4 do
        local set = ("JSESSIONID=j%d; Path=/; HttpOnly"):format(i)
        local index, got = ask(gw, nil, "Set-Cookie: a=b\r\nSet-Cookie: " .. set .. "\r\n")
        assert.same({ "a=b", set }, got:all "Set-Cookie")
        assert_at(index, gw, { Cookie = ("x=y; JSESSIONID=j%d"):format(i) })
      end
      assert.same({}, (select(2, ask(gw)):all "Set-Cookie"))
    end)

    it("are learnt from the head of a stream", function()
      local gw = gateway.start(options { sessionAffinity = COOKIE })
      ask(gw)
      local index, origin, conn = request(gw)
      origin:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: JSESSIONID=s\r\n\r\n"
      conn:response()
      assert_at(index, gw, { Cookie = "JSESSIONID=s" })
      conn:close()
      origin.conn:close()
    end)

    local DELETED = { "JSESSIONID=; Max-Age=0", "JSESSIONID=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT" }
    for _, gone in ipairs(DELETED) do
      it("end when it is deleted: " .. gone, function()
        local gw = gateway.start(options { sessionAffinity = COOKIE })
        local index = ask(gw, nil, "Set-Cookie: JSESSIONID=x\r\n")
        local cookie = { Cookie = "JSESSIONID=x" }
        assert_at(index, gw, cookie)
        assert.equal(index, (ask(gw, cookie, "Set-Cookie: " .. gone .. "\r\n")))
        -- It is placed anew, wherever turns have come to.
        process.wait_until(function()
          local now = ask(gw, cookie, "Set-Cookie: " .. gone .. "\r\n")
          return now ~= index
        end, site.PATIENCE)
      end)
    end
  end)

  describe("by ctx:stick", function()
    it("are named by an event, or by a task that has waited", function()
      local gw = gateway.start(options({ sessionAffinity = HEADER }, { workers = 2 }))
      for i = 1, 3 do
        local index, open = stream(gw)
        assert.equal("message", open:event(('data: {"session":"s%d"}'):format(i)).type)
        assert_at(index, gw, { ["Mcp-Session-Id"] = "s" .. i })
        assert.equal("later", open:event(('event: later\ndata: {"session":"t%d"}'):format(i)).type)
        assert.equal("stuck", open.client:event().type)
        assert_at(index, gw, { ["Mcp-Session-Id"] = "t" .. i })
        open:close()
      end
    end)

    it("are named on a stream that has moved to a new version", function()
      local gw = site.start(options { sessionAffinity = HEADER })
      ask(gw)
      local index, open = stream(gw)
      gw:renew { config = { frontend = { sse = { keepaliveTimeout = 1000 } } } }
      gw:wait_metric("generations", 1)
      open:event 'data: {"session":"moved"}'
      assert_at(index, gw, { ["Mcp-Session-Id"] = "moved" })
      open:close()
    end)

    it("are not bound to an instance that is not there any more", function()
      local gw = site.start(options { sessionAffinity = HEADER })
      local index, open = stream(gw)
      local left = {}
      for i, server in ipairs(servers) do
        if i ~= index then left[#left + 1] = { id = "api-" .. i, port = server.port } end
      end
      gw:renew { services = { api = left } }
      gw:wait_metric("generations", 1)
      assert.equal("message", open:event('data: {"session":"orphan"}').type)
      local home = ask(gw, { ["Mcp-Session-Id"] = "orphan" })
      assert.not_equal(index, home)
      assert_at(home, gw, { ["Mcp-Session-Id"] = "orphan" })
      open:close()
    end)

    it("are named by a response", function()
      local gw = gateway.start(options { sessionAffinity = HEADER })
      local index = ask(gw, nil, "X-Made: made\r\n")
      assert_at(index, gw, { ["Mcp-Session-Id"] = "made" })
    end)

    it("are named before an instance is chosen, which is chosen by that then", function()
      local gw = gateway.start(options { stickySession = { ttl = 60 } })
      local index = ask(gw, { ["X-Conversation"] = "c1", ["X-User-ID"] = "u1" })
      for i = 1, 6 do
        assert.equal(index, (ask(gw, { ["X-Conversation"] = "c1", ["X-User-ID"] = "u" .. i })))
      end
      assert.equal(index, (ask(gw, { ["X-Session-Id"] = "c1" })))
    end)

    it("are an error where the rule has no sessions, which ends the stream", function()
      local gw = gateway.start(options {})
      local _, open = stream(gw)
      open.origin:reply 'data: {"session":"s"}\n\n'
      local line = gw:wait_log 'msg="hook failed"'
      assert.matches("plugin=namer hook=on_event", line)
      assert.matches("namer.lua:%d+: ctx:stick: the rule has no stickySession or sessionAffinity", line)
      open:close()
    end)
  end)
end)

describe("a fallback", function()
  it("places new sessions by a plugin, where loadBalance is sticky_session", function()
    servers = { backend.listen(), backend.listen(), backend.listen() }
    local last = 'return { name = "last", balance = function(_, _, list) return list[#list] end }'
    local made = options { loadBalance = "sticky_session", stickySession = { fallback = "last" } }
    made.files["plugins/last.lua"] = last
    local gw = gateway.start(made)
    for i = 1, 5 do assert.equal(3, (ask(gw, { ["X-User-ID"] = "u" .. i }))) end
    gateway.stop_all()
    for _, server in ipairs(servers) do server:close() end
  end)
end)
