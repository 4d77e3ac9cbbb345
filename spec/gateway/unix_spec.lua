--- Instances that listen on a socket in the file system.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local site = require "spec.support.site"
local streams = require "spec.support.streams"

describe("an instance on a unix socket", function()
  local gw, dir, servers

  -- A socket in a folder that is there before the gateway.
  local function listen(name)
    local path = "unix:" .. dir .. "/" .. name
    servers[#servers + 1] = backend.listen(nil, path)
    return servers[#servers], path
  end

  before_each(function()
    local pipe = assert(io.popen "mktemp -d")
    dir, servers = pipe:read "*l", {}
    pipe:close()
  end)

  after_each(function()
    streams.close_all()
    for _, server in ipairs(servers) do server:close() end
    gateway.stop_all()
    os.execute("rm -rf " .. dir)
  end)

  local function start(instances, config)
    gw = site.start {
      services = { api = instances },
      rules = { { id = "api", path = "/*", serviceName = "api" } },
      config = config or { backend = { http = { keepAlive = true } } },
    }
  end

  local function send(request)
    local client = http.connect(gw.port)
    client:send(http.format(request))
    return client
  end

  it("is asked as one behind TCP is, over a connection that is used again", function()
    local server, path = listen "api.sock"
    start { { address = path } }
    local client = send { path = "/one", headers = { { "Host", "api.example" } } }
    local received = server:request()
    assert.same({ "/one", "api.example" }, { received.target, received:get "Host" })
    received:ok "first"
    assert.equal("first", (client:response():body()))
    client = send { method = "POST", path = "/two", body = ("x"):rep(300000) }
    local second = backend.read_request(received.conn)
    assert.equal(300000, #second:body())
    second:ok(("y"):rep(300000))
    assert.equal(300000, #client:response():body())
    assert.is_nil(server:try_accept(0))
    assert.matches("instance=api%-1", gw:wait_log "msg=request.* status=200")
  end)

  it("streams, and sees at once that the client has left", function()
    local server, path = listen "api.sock"
    start { { address = path } }
    local stream = streams.open(gw, server)
    stream:send "data: 1\n\n"
    stream:expect "data: 1\n\n"
    stream.conn:close()
    assert.not_equal("timeout", stream.origin.conn:wait_end())
  end)

  it("that is not there leaves its requests to another one, and says which it was", function()
    local server, path = listen "there.sock"
    start({ { address = "unix:" .. dir .. "/gone.sock" }, { address = path } }, {})
    for _ = 1, 3 do
      local client = send { path = "/" }
      server:request():ok "there"
      assert.equal("there", (client:response():body()))
    end
    local line = gw:wait_log 'msg="instance not reached"'
    assert.matches("instance=api%-1 .*addr=unix:" .. dir:gsub("%W", "%%%0") .. "/gone.sock", line)
    assert.matches("why=refused", line)
  end)

  it("whose backlog is full counts as refused: nobody would tell when there is room", function()
    local path = "unix:" .. dir .. "/full.sock"
    servers[1] = backend.listen(nil, path, 0)
    start { { address = path } }
    local clients, refused = {}, nil
    process.wait_until(function()
      clients[#clients + 1] = send { path = "/" }
      refused = gw:find_log('msg="instance not reached"')[1]
      return refused
    end, site.PATIENCE)
    assert.matches("why=refused", refused)
  end)

  it("comes and goes with a reload; its streams go on", function()
    local one, first_path = listen "one.sock"
    local two, second_path = listen "two.sock"
    start { { id = "one", address = first_path } }
    local stream = streams.open(gw, one)
    gw:renew { services = { api = { { id = "two", address = second_path } } } }
    local client = send { path = "/" }
    two:request():ok "two"
    assert.equal("two", (client:response():body()))
    stream:send "data: 2\n\n"
    stream:expect "data: 2\n\n"
    assert.is_nil(one:try_accept(0))
  end)
end)
