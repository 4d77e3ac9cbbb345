--- Master and workers: how they end, what signals do, and what the death of one does to the others.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local origin = require "spec.support.origin"
local site = require "spec.support.site"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

local KILL, TERM, STOP, CONT = 9, 15, 19, 18

-- Tells which worker has answered.
local WHO = [[
local gateway = require "gateway"
local plugin = { name = "who" }

function plugin.access(ctx)
  if ctx.req.path == "/who" then return ctx:reply(200, tostring(gateway.worker())) end
end

function plugin.on_response(ctx)
  ctx.res.headers["X-Worker"] = tostring(gateway.worker())
end

return plugin
]]

local server

local function start(more)
  local options = {
    services = { api = server.port },
    rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "who" } } },
    files = { ["plugins/who.lua"] = WHO },
  }
  for key, value in pairs(more or {}) do options[key] = value end
  return site.start(options)
end

local function set_up()
  server = backend.listen()
end

local function tear_down()
  streams.close_all()
  gateway.stop_all()
  server:close()
end

-- Waits for the end of the process and returns its status.
local function ended(gw)
  return gw.process:wait(site.PATIENCE)
end

-- Waits until nobody listens there; a queue that is full does not count.
local function wait_refused(port)
  sys.wait_until(function()
    local ok, why = pcall(http.connect, port)
    return not ok and why:find "refused"
  end, site.PATIENCE, "no listener")
end

local function echo(stream)
  stream:send "data: x\n\n"
  stream:expect "data: x\n\n"
end

for _, signal in ipairs { "TERM", "INT" } do
  describe(signal, function()
    before_each(set_up)
    after_each(tear_down)

    it("closes idle connections, refuses new ones, and lets requests in flight finish", function()
      local gw = start { workers = 2 }
      local idle, busy = {}, {}
      for i = 1, 4 do
        idle[i], busy[i] = http.connect(gw.port), http.connect(gw.port)
        assert.equal(200, idle[i]:request({ path = "/who" }).status)
        idle[i].buffer = ""
        busy[i]:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
        busy[i].request = server:request()
      end
      gw.process:signal(signal)
      for i = 1, 4 do assert.equal("eof", idle[i]:wait_end()) end
      wait_refused(gw.port)
      for i = 1, 4 do
        busy[i].request:ok "done"
        local response = busy[i]:response()
        assert.same({ "done", "clean" }, { response:body() })
        assert.equal("close", response:get "Connection")
        assert.equal("eof", busy[i]:wait_end())
        busy[i]:close()
      end
      assert.same({ code = 0 }, ended(gw))
    end)

    it("answers what has been asked already", function()
      local gw, conns = start { workers = 1 }, {}
      local pid = gw:workers()[1]
      site.kill(pid, STOP)
      for i = 1, 4 do conns[i] = http.connect(gw.port) end
      for i = 1, 4 do conns[i]:send "GET /who HTTP/1.1\r\nHost: a\r\n\r\n" end
      gw.process:signal(signal)
      gw:wait_log 'msg="draining'
      site.kill(pid, CONT)
      for i = 1, 4 do
        local response = conns[i]:response()
        assert.same({ "1", "clean" }, { response:body() })
        conns[i]:close()
      end
      assert.same({ code = 0 }, ended(gw))
    end)

    it("lets streams go on until drainTimeout, then breaks them off visibly", function()
      local gw = start { workers = 2, config = { drainTimeout = 0.5 } }
      local open = {}
      for i, options in ipairs { {}, { version = "1.0" }, { framing = "length", length = 100 } } do
        open[i] = streams.open(gw, server, options)
      end
      gw.process:signal(signal)
      wait_refused(gw.port)
      for _, stream in ipairs(open) do echo(stream) end
      assert.equal("broken", (select(2, open[1]:rest())))
      assert.equal("reset", (select(2, open[2]:rest())))
      assert.equal("broken", (select(2, open[3]:rest())))
      assert.same({ code = 0 }, ended(gw))
      assert.equal(3, #gw:find_log "msg=request .*end=shutdown")
    end)

    it("waits without end where drainTimeout is 0; a second one stops at once", function()
      local gw = start { workers = 2, config = { drainTimeout = 0 } }
      local first, second = streams.open(gw, server), streams.open(gw, server)
      gw.process:signal(signal)
      gw:wait_log 'msg="draining'
      echo(first)
      first:finish()
      assert.same({ "", "clean" }, { first:rest() })
      echo(second)
      assert.is_true(gw.process:is_running())
      gw.process:signal(signal)
      assert.same({ code = 0 }, ended(gw))
      assert.not_equal("clean", (select(2, second:rest())))
    end)

    it("ends as soon as the last stream has ended", function()
      local gw = start { workers = 2, config = { drainTimeout = 0 } }
      local stream = streams.open(gw, server)
      gw.process:signal(signal)
      gw:wait_log 'msg="draining'
      stream:finish()
      assert.same({ "", "clean" }, { stream:rest() })
      stream.conn:close()
      assert.same({ code = 0 }, ended(gw))
    end)
  end)
end

describe("draining", function()
  before_each(set_up)
  after_each(tear_down)

  it("is told by /health", function()
    local gw = start { config = { drainTimeout = 0 } }
    local monitor = http.connect(gw.admin_port)
    local function health()
      local answer = monitor:request { path = "/health" }
      return answer.status, (answer:body())
    end
    assert.equal(200, (health()))
    streams.open(gw, server)
    gw.process:signal "TERM"
    sys.wait_until(function() return health() == 503 end, site.PATIENCE, "503")
    assert.matches('"status":"draining"', select(2, health()))
    assert.equal(503, http.fetch(gw.admin_port, "/health").status)
    streams.close_all()
    assert.same({ code = 0 }, ended(gw))
  end)

  it("does not wait for who sits on the management listener", function()
    local gw = start { config = { drainTimeout = 0 } }
    local visitor = http.connect(gw.admin_port)
    visitor:send "GET /hea"
    gw.process:signal "TERM"
    assert.same({ code = 0 }, ended(gw))
  end)

  it("is over at drainTimeout, whatever is open", function()
    local gw = start { workers = 2, config = { drainTimeout = 0.2 } }
    local head, body = http.connect(gw.port), http.connect(gw.port)
    local deaf = streams.open(gw, server, { rcvbuf = 4096 })
    head:send "GET /x HTT"
    body:send "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
    server:request()
    for _ = 1, 64 do deaf:send(("data: %s\n\n"):format(("x"):rep(4096))) end
    gw.process:signal "TERM"
    assert.same({ code = 0 }, ended(gw))
  end)

  it("takes no reload, and drops one that is under way", function()
    local gw = start {
      config = { drainTimeout = 0 },
      files = { ["plugins/who.lua"] = WHO:gsub("return plugin", [[
        function plugin.new() gateway.log.info "made" end
        return plugin
      ]]) },
    }
    local stream, pid, mark = streams.open(gw, server), gw:workers()[1], gw:mark()
    site.kill(pid, STOP)
    gw.process:signal "HUP"
    gw:wait_log("proc=master .*made", site.PATIENCE, mark)
    gw.process:signal "TERM"
    gw:wait_log 'msg="draining'
    gw.process:signal "HUP"
    site.kill(pid, CONT)
    wait_refused(gw.port)
    echo(stream)
    streams.close_all()
    assert.same({ code = 0 }, ended(gw))
  end)

  it("begins also while the workers are being made", function()
    for _ = 1, 5 do
      local gw = gateway.prepare {
        services = { api = server.port }, workers = 4,
        rules = { { id = "api", path = "/*", serviceName = "api" } },
      }
      gw:launch()
      gw:wait_log "msg=listening"
      gw.process:signal "TERM"
      assert.same({ code = 0 }, gw.process:wait(site.PATIENCE))
    end
  end)
end)

describe("QUIT", function()
  before_each(set_up)
  after_each(tear_down)

  it("stops at once", function()
    local gw = start { workers = 2, config = { drainTimeout = 0 } }
    local stream, pids = streams.open(gw, server), gw:workers()
    gw.process:signal "QUIT"
    assert.same({ code = 0 }, ended(gw))
    assert.not_equal("clean", (select(2, stream:rest())))
    for _, pid in ipairs(pids) do assert.is_false(site.is_alive(pid)) end
  end)
end)

describe("USR1", function()
  before_each(set_up)
  after_each(tear_down)

  local function read(path)
    local file = io.open(path)
    local text = file and file:read "*a" or ""
    if file then file:close() end
    return text
  end

  it("reopens the log in all processes", function()
    local dir = os.tmpname()
    os.remove(dir)
    os.execute("mkdir " .. dir)
    local path = dir .. "/log"
    local gw = gateway.prepare {
      services = { api = server.port },
      rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "who" } } },
      files = { ["plugins/who.lua"] = WHO }, workers = 2, config = { log = { file = path } },
    }
    gw:launch()
    finally(function()
      gw.process:kill()
      os.execute("rm -rf " .. dir)
    end)
    sys.wait_until(function() return read(path):find "msg=ready" end, site.PATIENCE, "ready")
    gw.port = tonumber(read(path):match "addr=%S-:(%d+)")
    assert(os.rename(path, path .. ".1"))
    gw.process:signal "USR1"
    sys.wait_until(function()
      http.fetch(gw.port, "/who")
      local text = read(path)
      return text:find "proc=worker%-1" and text:find "proc=worker%-2"
    end, site.PATIENCE, "lines of both workers")
    local old = read(path .. ".1")
    gw.process:signal "HUP"
    sys.wait_until(function() return read(path):find "msg=reloaded" end, site.PATIENCE, "reloaded")
    for _ = 1, 10 do http.fetch(gw.port, "/who") end
    gw.process:signal "TERM"
    assert.same({ code = 0 }, gw.process:wait(site.PATIENCE))
    assert.matches('msg="draining', read(path))
    assert.equal(old, read(path .. ".1"))
  end)
end)

describe("a worker", function()
  before_each(set_up)
  after_each(tear_down)

  -- Worker processes by their number.
  local function numbered(gw)
    local of = {}
    sys.wait_until(function()
      of = {}
      for _, pid in ipairs(gw:workers()) do of[pid] = true end
      return #gw:workers() == 2
    end, site.PATIENCE, "two workers")
    return of
  end

  it("that is killed is replaced, and the others go on", function()
    local gw = start { workers = 2 }
    local open = {}
    for i = 1, 20 do open[i] = streams.open(gw, server) end
    local before = numbered(gw)
    local victim = next(before)
    site.kill(victim, KILL)
    assert.matches("signal=Killed", gw:wait_log "worker died")
    sys.wait_until(function()
      return #gw:workers() == 2 and not numbered(gw)[victim]
    end, site.PATIENCE, "a new worker")
    gw:wait_metric("generations", 2)
    local left = 0
    for _, stream in ipairs(open) do
      stream.client:read(0)
      if not stream.conn.ended then
        echo(stream)
        left = left + 1
      end
    end
    assert.is_true(left >= 4 and left <= 16, left .. " streams are left")
    gw:wait_metric("streams", left)
    for _ = 1, 20 do echo(streams.open(gw, server)) end
    streams.close_all()
    gw:stop { faults = true }
  end)

  it("is replaced by one with the version that is served, though the files are broken by then", function()
    local gw = start { workers = 1 }
    gw:write("plugins/who.lua", (WHO:gsub("tostring%(gateway.worker%(%)%)", '"second"')))
    gw:renew()
    local mark = gw:mark()
    gw:put("plugins/who.lua", "broken")
    gw:wait_reload(mark)
    for _ = 1, 2 do
      local pid = gw:wait_workers(1)[1]
      site.kill(pid, KILL)
      sys.wait_until(function()
        local now = gw:workers()[1]
        return now and now ~= pid
      end, site.PATIENCE, "a new worker")
      assert.equal("second", gw:get "/who")
    end
    assert.equal(1, #gw:find_log("msg=configuration", mark))
    gw:stop { faults = true }
  end)

  it("that dies at once again and again is not replaced faster than it should be", function()
    local gw = start { workers = 1 }
    local pid, deaths, began = gw:wait_workers(1)[1], 0, nil
    while deaths < 3 do
      site.kill(pid, KILL)
      local died = sys.now()
      deaths = deaths + 1
      local old = pid
      sys.wait_until(function()
        pid = gw:workers()[1]
        return pid and pid ~= old
      end, site.PATIENCE, "a new worker")
      if began then assert.is_true(sys.now() - died > 0.3, "replaced at once") end
      began = died
    end
    gw:wait_metric("generations", 1)
    assert.equal("1", gw:get "/who")
    gw:stop { faults = true }
  end)

  it("that is told to end by somebody else drains and is replaced", function()
    local gw = start { workers = 1 }
    local stream, pid = streams.open(gw, server), gw:workers()[1]
    site.kill(pid, TERM)
    echo(stream)
    stream:finish()
    assert.same({ "", "clean" }, { stream:rest() })
    stream.conn:close()
    gw:wait_log "worker ended"
    assert.equal("1", gw:get "/who")
    assert.not_equal(pid, gw:workers()[1])
  end)

  it("that hangs does not keep the others from accepting", function()
    local gw = start { workers = 2 }
    local pids = gw:workers()
    site.kill(pids[1], STOP)
    finally(function() site.kill(pids[1], CONT) end)
    for _ = 1, 40 do echo(streams.open(gw, server)) end
  end)

  it("ends when the master is killed", function()
    local gw = start { workers = 3 }
    local stream, pids = streams.open(gw, server), gw:wait_workers(3)
    gw.process:signal "KILL"
    assert.same({ signal = KILL }, ended(gw))
    sys.wait_until(function()
      for _, pid in ipairs(pids) do
        if site.is_alive(pid) then return false end
      end
      return true
    end, site.PATIENCE, "the workers' end")
    assert.not_equal("clean", (select(2, stream:rest())))
    assert.is_false(http.is_listening(gw.port))
    pcall(gw.stop, gw)
  end)
end)

describe("what can't start", function()
  before_each(set_up)
  after_each(tear_down)

  local function run(config)
    local gw = gateway.prepare {
      services = { api = server.port }, config = config,
      rules = { { id = "api", path = "/*", serviceName = "api" } },
    }
    local code, _, text = gateway.run { "-c", gw.conf }
    return code, text
  end

  it("ends with 3 and says why: its port is taken", function()
    local code, text = run { frontend = { http = { port = server.port } } }
    assert.equal(3, code)
    assert.matches("can't listen on 127.0.0.1:" .. server.port .. " %(traffic%): Address already", text)
  end)

  it("ends with 3 and says why: the management port is taken", function()
    local code, text = run { management = { enabled = true, port = server.port } }
    assert.equal(3, code)
    assert.matches("can't listen on 127.0.0.1:" .. server.port .. " %(management%): Address already", text)
  end)

  it("ends with 3 and says why: its address is not this machine's", function()
    local code, text = run { frontend = { http = { host = "192.0.2.1" } } }
    assert.equal(3, code)
    assert.matches("can't listen on 192.0.2.1:0", text)
  end)

  it("ends with 3 and says why: its log can't be written", function()
    local code, text = run { log = { file = "/proc/nowhere/log" } }
    assert.equal(3, code)
    assert.matches("can't write to /proc/nowhere/log: No such file", text)
  end)

  it("ends with 3 and says why: no worker can load it", function()
    local gw = gateway.prepare {
      services = { api = server.port },
      rules = { { id = "api", path = "/*", serviceName = "api", plugins = { "picky" } } },
      files = { ["plugins/picky.lua"] = [[
        local gateway = require "gateway"
        return { name = "picky", new = function() if gateway.worker() > 0 then error "not here" end end }
      ]] },
      workers = 2,
    }
    local code, _, text = gateway.run { "-c", gw.conf }
    assert.equal(3, code)
    assert.matches("not here", text)
    assert.matches("can't load", text)
  end)
end)

describe("descriptors", function()
  before_each(set_up)
  after_each(tear_down)

  it("are not lost by reloads, good or bad, nor by listeners that move", function()
    local gw = start { workers = 2 }
    local pids = gw:workers()
    pids[3] = gw.process.pid
    local function renew(i)
      gw:renew { config = { frontend = { http = { port = i % 2 == 0 and 0 or http.free_port() } } } }
      gw:change { config = { frontend = { http = { port = server.port } } } }
      gw:reload()
      gw:change { config = { frontend = { http = { port = gw.port } } }, rules = "?" }
      gw:reload()
      gw:renew { rules = { { id = "api", path = "/*", serviceName = "api" } } }
    end
    renew(1)
    local before = {}
    for i, pid in ipairs(pids) do before[i] = site.descriptors(pid) end
    for i = 2, 6 do renew(i) end
    for i, pid in ipairs(pids) do
      sys.wait_until(function() return site.descriptors(pid) <= before[i] end, site.PATIENCE,
        ("%d descriptors of process %d"):format(before[i], i))
    end
  end)
end)

describe("the management listener", function()
  local gw

  setup(function()
    set_up()
    gw = start { workers = 2 }
  end)

  teardown(tear_down)

  it("tells that all is well", function()
    local answer = http.fetch(gw.admin_port, "/health")
    assert.equal(200, answer.status)
    assert.equal('{"status":"ok","generation":1,"streams":0}\n', answer.text)
  end)

  it("tells numbers in the Prometheus text format, of all workers together", function()
    for _ = 1, 20 do streams.open(gw, server) end
    local answer = http.fetch(gw.admin_port, "/metrics")
    assert.equal("text/plain; version=0.0.4", answer:get "Content-Type")
    local seen = {}
    for line in answer.text:gmatch "[^\n]+" do
      local name = line:match "^# HELP (gatewayd_[a-z0-9_]+) %u.*%.$"
        or line:match "^# TYPE (gatewayd_[a-z0-9_]+) gauge$" or line:match "^# TYPE (gatewayd_%S+) counter$"
        or line:match "^(gatewayd_[a-z0-9_]+) %d+$"
        or line:match '^(gatewayd_[a-z0-9_]+){%a+="[a-z_]+"} %d+$'
        or line:match '^(gatewayd_instance_[a-z_]+){service="api",instance="api%-1"} [%d.e-]+$'
      assert.is_truthy(name, line)
      seen[name] = (seen[name] or 0) + 1
    end
    for name, lines in pairs(seen) do -- help, type, and a line for each label
      local labels = name:find "^gatewayd_%a+_total$" and answer.text:find(name .. "{", 1, true)
      assert.is_true(labels and lines > 3 or lines == 3, name)
    end
    local numbers = gw:metrics()
    assert.equal(20, numbers.streams)
    assert.equal(2, numbers.generations)
    assert.is_true(numbers.requests_total >= 20)
    streams.close_all()
    gw:wait_metric("streams", 0)
    gw:wait_metric("connections", 0)
  end)

  it("answers HEAD and keeps its connections", function()
    local conn = http.connect(gw.admin_port)
    assert.equal(200, conn:request({ method = "HEAD", path = "/health" }).status)
    local answer = conn:request { path = "/health" }
    assert.same({ 200, "clean" }, { answer.status, (select(2, answer:body())) })
    conn:close()
  end)

  it("knows nothing else", function()
    assert.equal(404, http.fetch(gw.admin_port, "/x").status)
    local answer = http.fetch(gw.admin_port, { method = "POST", path = "/health" })
    assert.same({ 405, "GET, HEAD" }, { answer.status, answer:get "Allow" })
  end)
end)

describe("streams are spread over the workers", function()
  local upstream

  before_each(function()
    set_up()
    upstream = origin.sse("sse-1")
  end)

  after_each(function()
    upstream:stop()
    tear_down()
  end)

  local function apart(counts)
    return math.abs((counts["1"] or 0) - (counts["2"] or 0))
  end

  -- Opens streams, the requests of `at_once` of them before any answer is read.
  local function open(gw, count, at_once, into)
    into = into or { conns = {} }
    for _ = 1, count, at_once do
      local fresh = {}
      for i = 1, at_once do
        fresh[i] = http.connect(gw.port)
        fresh[i]:send(http.format { path = "/events", headers = { Accept = "text/event-stream" } })
      end
      for _, conn in ipairs(fresh) do
        local worker = conn:response(nil, site.PATIENCE):get "X-Worker"
        into[worker] = (into[worker] or 0) + 1
        into.conns[#into.conns + 1] = conn
      end
    end
    return into
  end

  for _, at_once in ipairs { 1, 20, 200 } do
    it("evenly, when they come " .. at_once .. " at a time", function()
      local gw = start { services = { api = upstream.port }, workers = 2 }
      local counts = open(gw, 200, at_once)
      assert.is_true(apart(counts) <= 9, ("%s and %s"):format(counts["1"], counts["2"]))
      for _, conn in ipairs(counts.conns) do conn:close() end
    end)
  end

  it("again when one of them has lost its own", function()
    local gw = start { services = { api = upstream.port }, workers = 2 }
    local counts = open(gw, 60, 1)
    local lost = gw:get "/who"
    local before = gw:metrics().streams
    site.kill(gw:worker(lost), KILL)
    gw:wait_log "worker died"
    gw:wait_metric("generations", 2)
    gw:wait_metric("streams", before - counts[lost])
    counts[lost] = 0
    open(gw, 60, 1, counts)
    assert.is_true(apart(counts) <= 9, ("%s and %s"):format(counts["1"], counts["2"]))
    for _, conn in ipairs(counts.conns) do conn:close() end
    gw:stop { faults = true }
  end)
end)
