--- Bounds on what clients may hold open.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

describe("maxConnections", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = gateway.start {
      services = { api = server.port },
      rules = { { id = "api", path = "/*", serviceName = "api" } },
      config = { frontend = { http = { maxConnections = 2 } }, backend = { http = { keepAlive = false } } },
      workers = 2,
    }
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  local function ask(client)
    client:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
  end

  local function served(client)
    ask(client)
    server:request():ok()
    return client:response().status
  end

  -- The gateway hears of an end a moment after the client made it: until then it refuses.
  local function first_served()
    for _ = 1, 500 do
      local client = http.connect(gw.port)
      ask(client)
      local conn = server:try_accept(0.01)
      if conn then
        backend.read_request(conn):ok()
        return client:response().status
      end
      client:close()
    end
  end

  it("refuses the ones beyond it, in all workers together, and keeps those it has", function()
    local first, second = http.connect(gw.port), http.connect(gw.port)
    assert.same({ 200, 200 }, { served(first), served(second) })
    local third = http.connect(gw.port)
    ask(third)
    local response = third:response()
    assert.equal(503, response.status)
    assert.is_truthy(response:get "Retry-After")
    assert.same({ 200, 200 }, { served(first), served(second) })
    first:close()
    third:close()
    assert.equal(200, first_served())
  end)
end)
