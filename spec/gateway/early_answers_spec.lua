--- Answers that come before the request is complete, and answers that claim more than they may: what the
-- client gets, what becomes of its connection, and that the one to the backend is never used again.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"

local HOOKS = [[
return {
  name = "hooks",
  access = function() end,
  on_response = function(ctx) ctx.res.headers["X-Seen"] = tostring(ctx.res.status) end,
  on_event = function() end,
}
]]

describe("an early answer", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port }, files = { ["plugins/hooks.lua"] = HOOKS },
      rules = {
        { path = "/*", serviceName = "api" },
        { path = "/hooks/*", serviceName = "api", plugins = { "hooks" } },
      },
      config = { pluginPath = { "../plugins" }, backend = { http = { keepAlive = true } } },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  -- What the client sent may have been read, not been read, or been cut off: but it has an end.
  local function assert_over(conn)
    local bytes, how = conn:read_all(5)
    assert.is_true(how == "eof" or how == "reset", how)
    assert.is_nil(bytes:find("/next", 1, true))
  end

  -- The next request of this client: on the same connection as long as that is open, and never to the old
  -- backend connection.
  local function ask_next(client)
    client:send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    local up
    process.wait_until(function()
      up = server:try_accept(0)
      return up or select(2, client:read_some(0)) ~= "timeout"
    end, 5, "the next request, or the end")
    if not up then return "closed" end
    local request = backend.read_request(up)
    assert.equal("/next", request.target)
    request:ok("next", nil, "Connection: close\r\n")
    local got = client:response()
    assert.same({ 200, "next" }, { got.status, (got:body()) })
    up:close()
    return "open"
  end

  local FRAMINGS = {
    length = { "Content-Length: 13\r\n", "ab", "GET /x HTTP" },
    chunks = { "Transfer-Encoding: chunked\r\n", "2\r\nab\r\n", "b\r\nGET /x HTTP\r\n0\r\n\r\n" },
  }

  for _, status in ipairs { "200 OK", "413 Content Too Large", "401 Unauthorized" } do
    for framing, parts in pairs(FRAMINGS) do
      for _, close in ipairs { false, true } do
        for _, path in ipairs { "/up", "/hooks/up" } do
          local what = ("of %s to %s of %s%s"):format(status, path, framing, close and ", and the end" or "")
          it(what, function()
            local client = http.connect(gw.port)
            client:send("POST " .. path .. " HTTP/1.1\r\nHost: a\r\n" .. parts[1] .. "\r\n" .. parts[2])
            local received = server:request()
            assert.truthy(received.conn:read_until("ab", 5, true))
            received:ok("no", status, close and "Connection: close\r\n" or "")
            if close then received.conn:close() end
            local got = client:response()
            assert.same({ tonumber(status:match "%d+"), "no" }, { got.status, (got:body()) })
            client:send(parts[3])
            ask_next(client)
            if not close then assert_over(received.conn) end
            client:close()
          end)
        end
      end
    end
  end

  it("to a client that waits for 100 is the answer, and the body never comes", function()
    local client = http.connect(gw.port)
    client:send("POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    local received = server:request()
    received:ok("no", "413 Content Too Large")
    local got = client:response { skip_informational = true }
    assert.same({ 413, "no" }, { got.status, (got:body()) })
    assert_over(received.conn)
    client:close()
  end)

  it("that is an event stream goes on while the request does", function()
    local client = http.connect(gw.port)
    local parts = FRAMINGS.chunks
    client:send("POST /hooks/up HTTP/1.1\r\nHost: a\r\n" .. parts[1] .. "\r\n" .. parts[2])
    local received = server:request()
    assert.equal("ab", received:chunk())
    received:reply "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
    local got = client:response()
    assert.equal("1", got:event().data)
    client:send(parts[3])
    assert.equal("GET /x HTTP", received:chunk())
    received:reply "data: 2\n\n"
    assert.equal("2", got:event().data)
    client:close()
    assert_over(received.conn)
  end)

  local function ask(path, version)
    local client = http.connect(gw.port)
    client:send(("GET %s HTTP/%s\r\nHost: a\r\n\r\n"):format(path, version or "1.1"))
    return client, server:request()
  end

  for _, path in ipairs { "/", "/hooks/" } do
    it("of 101 that nobody asked for is a 502, at " .. path, function()
      local client, received = ask(path)
      received:reply "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes"
      local got = client:response()
      assert.equal(502, got.status)
      assert.is_nil((got:body()):find("bytes", 1, true))
      assert_over(received.conn)
      client:close()
    end)

    it("of 103, more often than anybody needs, is a 502, at " .. path, function()
      local client, received = ask(path)
      received.conn:send(("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"):rep(10000))
      assert.equal(502, client:response { skip_informational = true }.status)
      assert_over(received.conn)
      client:close()
    end)

    it("to HTTP/1.0 has neither chunks nor what is behind them, at " .. path, function()
      local client, received = ask(path, "1.0")
      received:reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "2;a\r\nab\r\n0\r\nT: v\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
      local text, how = client:read_all(5)
      assert.same({ "ab", "eof" }, { text:match "\r\n\r\n(.*)$", how })
      assert.is_nil(text:lower():find("transfer-encoding", 1, true))
      assert_over(received.conn)
      client:close()
    end)

    it("without a body that has one all the same is told apart from the next, at " .. path, function()
      for _, status in ipairs { "204 No Content", "304 Not Modified" } do
        local client, received = ask(path)
        received:reply("HTTP/1.1 " .. status .. "\r\nContent-Length: 4\r\n\r\nHTTP")
        assert.equal(tonumber(status:match "%d+"), client:response().status)
        assert.equal("open", ask_next(client))
        assert_over(received.conn)
        client:close()
      end
    end)
  end

  it("of a HEAD that has a body is told apart from the next", function()
    local client = http.connect(gw.port)
    client:send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    local received = server:request()
    received:reply("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
      .. "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nab")
    assert.equal("40", client:response({ head = true }):get "Content-Length")
    assert.equal("open", ask_next(client))
    assert_over(received.conn)
    client:close()
  end)
end)
