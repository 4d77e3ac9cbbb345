--- ctx.req.body: hooks that read the whole request body wait for it, and may replace it.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

local PLUGIN = [[
local plugin = { name = "reader" }
function plugin.access(ctx)
  local body = ctx.req.body
  ctx.req.headers["X-Read"] = body and tostring(#body) or "too large"
  if body == "deny" then return ctx:reply(403, "denied") end
  if body == "change" then ctx.req.body = "something else" end
end
function plugin.on_response(ctx)
  ctx.res.headers["X-Later"] = tostring(ctx.req.body)
end
return plugin
]]

local LIMIT = 128 * 1024

describe("a request body that a hook reads", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port },
      rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "reader" } } },
      files = { ["plugins/reader.lua"] = PLUGIN },
      config = { frontend = { http = { maxBufferedBody = LIMIT } },
        backend = { http = { keepAlive = false } } },
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  local function post(body, framing)
    local client = http.connect(gw.port)
    client:send("POST /up HTTP/1.1\r\nHost: a\r\n" .. framing .. "\r\n" .. body)
    return client
  end

  local function with_length(body)
    return post(body, ("Content-Length: %d\r\n"):format(#body))
  end

  local function in_chunks(body)
    local chunks = {}
    for at = 1, #body, 1000 do
      local part = body:sub(at, at + 999)
      chunks[#chunks + 1] = ("%x\r\n%s\r\n"):format(#part, part)
    end
    return post(table.concat(chunks) .. "0\r\n\r\n", "Transfer-Encoding: chunked\r\n")
  end

  local function answered(client)
    local response = client:response()
    return response.status, (response:body()), response
  end

  it("is there whole when it comes with the head, and goes on as it was", function()
    local client = with_length "hello"
    local received = server:request()
    assert.same({ "5", "hello" }, { received:get "X-Read", (received:body()) })
    received:ok()
    local status, _, response = answered(client)
    assert.same({ 200, "nil" }, { status, response:get "X-Later" })
  end)

  it("is waited for when it comes later", function()
    local client = post("hel", "Content-Length: 5\r\n")
    local other = with_length "other"
    server:request():ok()
    assert.equal(200, (answered(other)))
    client:send "lo"
    local received = server:request()
    assert.same({ "5", "hello" }, { received:get "X-Read", (received:body()) })
    received:ok()
    assert.equal(200, (answered(client)))
  end)

  it("may be larger than a connection's window", function()
    local body = ("x"):rep(LIMIT)
    for _, send in ipairs { with_length, in_chunks } do
      local client = send(body)
      local received = server:request()
      assert.equal(tostring(LIMIT), received:get "X-Read")
      assert.is_true(received:body() == body)
      received:ok()
      assert.equal(200, (answered(client)))
    end
  end)

  it("is nil past the bound, and still reaches the backend", function()
    local body = ("x"):rep(LIMIT + 1)
    for _, send in ipairs { with_length, in_chunks } do
      local client = send(body)
      local received = server:request()
      assert.equal("too large", received:get "X-Read")
      assert.is_true(received:body() == body)
      received:ok()
      assert.equal(200, (answered(client)))
    end
  end)

  it("is empty where there is none", function()
    local client = http.connect(gw.port)
    client:send "GET /up HTTP/1.1\r\nHost: a\r\n\r\n"
    local received = server:request()
    assert.equal("0", received:get "X-Read")
    received:ok()
    assert.equal(200, (answered(client)))
  end)

  it("may be refused", function()
    local status, body = answered(with_length "deny")
    assert.same({ 403, "denied" }, { status, body })
  end)

  it("may be replaced, with the length that it has then", function()
    local client = with_length "change"
    local received = server:request()
    assert.same({ "14", "something else" }, { received:get "Content-Length", (received:body()) })
    received:ok()
    assert.equal(200, (answered(client)))
  end)

  it("is asked for where the client waits to be told", function()
    local client = post("", "Content-Length: 5\r\nExpect: 100-continue\r\n")
    assert.equal(100, client:response().status)
    client:send "hello"
    local received = server:request()
    assert.same({ "5", "hello" }, { received:get "X-Read", (received:body()) })
    received:ok()
    assert.equal(200, (answered(client)))
  end)

  it("is not waited for any more when the client leaves", function()
    post("hel", "Content-Length: 5\r\n"):close()
    assert.matches("method=POST", gw:wait_log("end=client_gone"))
  end)
end)
