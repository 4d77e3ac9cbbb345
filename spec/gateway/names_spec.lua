--- Instances that are host names: all their addresses, as they come and go.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local name_server = require "spec.support.name_server"
local process = require "spec.support.process"
local site = require "spec.support.site"
local streams = require "spec.support.streams"

describe("a host name among the instances", function()
  local names, servers, gw, port

  before_each(function()
    names, servers, port = nil, {}, nil
  end)

  after_each(function()
    streams.close_all()
    for _, server in pairs(servers) do server:close() end
    gateway.stop_all()
    if names then names:stop() end
  end)

  -- Backends on one port of several addresses.
  local function listen(...)
    for _, host in ipairs { ... } do
      servers[host] = backend.listen(port, host)
      port = servers[host].port
    end
  end

  local function options(given)
    given = given or {}
    local registry = { dns = { servers = { names.servers }, minTtl = "100ms", timeout = "2s" } }
    for key, value in pairs(given.dns or {}) do registry.dns[key] = value end
    return {
      services = { api = given.instances or { { id = "api", address = "api.test", port = port } } },
      rules = given.rules or { { id = "api", path = "/*", serviceName = "api" } },
      workers = given.workers, files = given.files,
      config = { registry = registry, lua = given.lua },
    }
  end

  local function start(given)
    gw = site.start(options(given))
  end

  -- Who is asked, by address; a free request each.
  local function who(count, headers)
    local seen, list = {}, {}
    for _ = 1, count do
      local client = http.connect(gw.port)
      client:send(http.format { path = "/", headers = headers })
      local by
      process.wait_until(function()
        for host, server in pairs(servers) do
          local conn = server:try_accept(0)
          if conn then
            by = host
            backend.read_request(conn):ok(host)
          end
        end
        return by
      end, site.PATIENCE)
      assert.equal(by, (client:response():body()))
      if not seen[by] then list[#list + 1] = by end
      seen[by] = (seen[by] or 0) + 1
    end
    table.sort(list)
    return table.concat(list, " "), seen
  end

  local function wait_status(code)
    local answer
    process.wait_until(function()
      answer = http.fetch(gw.port, "/")
      return answer.status == code
    end, site.PATIENCE)
    return answer
  end

  -- A line of the log, which says that it stands for these now.
  local function wait_resolved(addresses, mark)
    local quoted = addresses:find " " and ('"%s"'):format(addresses) or addresses
    local line = 'msg="name resolved" name=api.test service=api count=%d+ addresses='
    return gw:wait_log(line .. quoted:gsub("%p", "%%%0") .. "$", nil, mark)
  end

  it("is all of its addresses, IPv4 and IPv6, each an instance of its own", function()
    names = name_server.start { ["api.test"] = { "127.0.0.2", "::1", "127.0.0.1" } }
    listen("127.0.0.1", "127.0.0.2", "::1")
    start()
    wait_resolved "127.0.0.1 127.0.0.2 ::1"
    local all, count = who(6)
    assert.equal("127.0.0.1 127.0.0.2 ::1", all)
    assert.same({ ["127.0.0.1"] = 2, ["127.0.0.2"] = 2, ["::1"] = 2 }, count)
    gw:wait_log "instance=api@127.0.0.2 "
    gw:wait_log "instance=api@::1 "
  end)

  it("follows CNAMEs, and may have IPv6 addresses only", function()
    names = name_server.start { ["api.test"] = { cname = "other.test", "::1" } }
    listen "::1"
    start()
    wait_resolved "::1"
    assert.equal("::1", who(2))
  end)

  it("is of the family that is wanted", function()
    names = name_server.start { ["api.test"] = { "127.0.0.1", "::1" } }
    listen("127.0.0.1", "::1")
    start { dns = { family = "ipv4" } }
    wait_resolved "127.0.0.1"
    assert.equal("127.0.0.1", who(3))
  end)

  it("stands beside instances with an address, and beside other names", function()
    names = name_server.start { ["api.test"] = { "127.0.0.2" }, ["more.test"] = { "127.0.0.3" } }
    listen("127.0.0.1", "127.0.0.2", "127.0.0.3")
    start { instances = {
      { id = "a", address = "more.test", port = port }, { id = "b", port = port },
      { id = "c", address = "api.test", port = port, weight = 2 },
    } }
    local all, count = who(8)
    assert.equal("127.0.0.1 127.0.0.2 127.0.0.3", all)
    assert.equal(4, count["127.0.0.2"])
    for _, id in ipairs { "a@127.0.0.3", "b", "c@127.0.0.2" } do gw:wait_log("instance=" .. id .. " ") end
  end)

  it("has each of its addresses checked, those too that it gets later", function()
    names = name_server.start { ["api.test"] = { "127.0.0.1", "127.0.0.2", ttl = 0 } }
    listen("127.0.0.1", "127.0.0.2", "127.0.0.3")
    servers["127.0.0.2"]:close()
    servers["127.0.0.2"] = nil
    local given = options()
    given.config.registry.static = { services = { {
      name = "api", instances = { { id = "api", address = "api.test", port = port } },
      health = { type = "tcp", interval = "50ms", fall = 1, rise = 1 },
    } } }
    gw = site.start(given)
    gw:wait_log "instance=api@127.0.0.2 .*to=down"
    local mark = gw:mark()
    names:set { ["api.test"] = { "127.0.0.3", "127.0.0.4", ttl = 0 } }
    gw:wait_log("instance=api@127.0.0.4 .*to=down", nil, mark)
    servers["127.0.0.4"] = backend.listen(port, "127.0.0.4")
    gw:wait_log("instance=api@127.0.0.4 .*from=down", nil, mark)
  end)

  for _, workers in ipairs { 1, 2 } do
    it("changes while streams are open, which go on, in workers: " .. workers, function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      listen("127.0.0.1", "127.0.0.2")
      start { workers = workers }
      local open = {}
      for i = 1, 4 * workers do open[i] = streams.open(gw, servers["127.0.0.1"]) end
      local mark = gw:mark()
      names:set { ["api.test"] = { "127.0.0.2", ttl = 0 } }
      for number = 1, workers do
        local line = 'worker%-' .. number .. ' .*msg="name resolved" .* addresses=127.0.0.2$'
        gw:wait_log(line, nil, mark)
      end
      assert.equal("127.0.0.2", who(3 * workers))
      for i, stream in ipairs(open) do
        stream:send("data: " .. i .. "\n\n")
        stream:expect("data: " .. i .. "\n\n")
      end
      assert.equal(4 * workers, gw:metrics().streams)
    end)
  end

  it("is the same whatever the order of an answer: nothing is logged, and turns go on", function()
    names = name_server.start { ["api.test"] = { "127.0.0.1", "127.0.0.2", ttl = 0 } }
    listen("127.0.0.1", "127.0.0.2")
    start()
    local mark = gw:mark()
    for turn = 1, 4 do
      local one, other = "127.0.0.1", "127.0.0.2"
      if turn % 2 == 1 then one, other = other, one end
      names:set { ["api.test"] = { one, other, one, ttl = 0 } }
      names:wait_asked "A api.test"
      assert.equal("127.0.0.1 127.0.0.2", who(2))
    end
    assert.same({}, gw:find_log("name", mark))
  end)

  it("keeps its sessions: they move when their address is gone, and stay otherwise", function()
    names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 0 } }
    listen("127.0.0.1", "127.0.0.2", "127.0.0.3")
    start { rules = { { id = "api", path = "/*", serviceName = "api", loadBalance = "sticky_session" } } }
    local session = { ["X-Session-Id"] = "s" }
    assert.equal("127.0.0.1", who(2, session))
    names:set { ["api.test"] = { "127.0.0.3", "127.0.0.2", "127.0.0.1", ttl = 0 } }
    wait_resolved "127.0.0.1 127.0.0.2 127.0.0.3"
    assert.equal("127.0.0.1", who(4, session))
    names:set { ["api.test"] = { "127.0.0.2", ttl = 0 } }
    wait_resolved "127.0.0.2"
    assert.equal("127.0.0.2", who(2, session))
    local mark = gw:mark()
    names:set { ["api.test"] = { "127.0.0.1", "127.0.0.2", "127.0.0.3", ttl = 0 } }
    wait_resolved("127.0.0.1 127.0.0.2 127.0.0.3", mark)
    assert.equal("127.0.0.2", who(4, session))
  end)

  it("gives policies a new list when it changes, and else the same", function()
    names = name_server.start { ["api.test"] = { "127.0.0.1", "127.0.0.2", ttl = 0 } }
    listen("127.0.0.1", "127.0.0.2")
    start {
      rules = { { id = "api", path = "/*", serviceName = "api", loadBalance = "watching" } },
      files = { ["plugins/watching.lua"] = [[
        local lists, seen = {}, 0
        return { name = "watching", balance = function(ctx, _, instances)
          if not lists[instances] then seen = seen + 1 end
          lists[instances] = true
          local first = instances[1]
          ctx:log("info", ("lists %d first %s port %d"):format(seen, first.address, first.port))
          return first
        end }]] },
    }
    assert.equal("127.0.0.1", who(3))
    gw:wait_log(("lists 1 first 127.0.0.1 port %d"):format(port))
    names:set { ["api.test"] = { "127.0.0.2", ttl = 0 } }
    wait_resolved "127.0.0.2"
    assert.equal("127.0.0.2", who(3))
    gw:wait_log "lists 2 first 127.0.0.2"
    assert.same({}, gw:find_log "lists 3")
  end)

  describe("where DNS", function()
    -- How often the log speaks of trouble behind the mark.
    local function troubles(mark)
      return gw:find_log('msg="name not resolved"', mark)
    end

    it("is gone: what was known is kept, which is logged once", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      listen "127.0.0.1"
      start { dns = { timeout = "100ms" } }
      wait_resolved "127.0.0.1"
      local mark = gw:mark()
      names:set {}
      gw:wait_log 'level=warn .*msg="name not resolved" name=api.test service=api why=resolve_failed kept=1$'
      for _ = 1, 3 do names:wait_asked "A api.test" end
      assert.equal("127.0.0.1", who(3))
      assert.equal(1, #troubles(mark))
      gw:renew()
      gw:wait_metric("lost_names", 1)
      mark = gw:mark()
      names:set { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      wait_resolved("127.0.0.1", mark)
      assert.equal("127.0.0.1", who(1))
      assert.equal(0, gw:metrics().lost_names)
    end)

    it("fails: SERVFAIL keeps what was known", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      listen "127.0.0.1"
      start { dns = { hold = "1ms" } }
      names:set { ["api.test"] = { rcode = 2 } }
      gw:wait_log "why=resolve_failed kept=1"
      names:wait_asked "A api.test"
      assert.equal("127.0.0.1", who(3))
    end)

    it("answers for one family alone: the addresses of the other one are kept", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", "::1", ttl = 0 } }
      listen("127.0.0.1", "::1")
      start { dns = { timeout = "500ms" } }
      wait_resolved "127.0.0.1 ::1"
      names:set { ["api.test"] = { "127.0.0.1", ttl = 0, silent = "AAAA" } }
      gw:wait_log 'level=warn .*msg="name resolved for one family only" .* why=resolve_failed kept=2$'
      for _ = 1, 2 do names:wait_asked "A api.test" end
      assert.equal("127.0.0.1 ::1", who(4))
      assert.equal(1, #gw:find_log "one family only")
      names:set { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      wait_resolved "127.0.0.1"
    end)

    it("is silent at the start: the version serves, with 503 until there is an answer", function()
      names = name_server.start {}
      listen "127.0.0.1"
      start { dns = { timeout = "300ms" } }
      assert.matches("why=resolve_failed kept=0", gw:wait_log 'msg="name not resolved"')
      local answer = wait_status(503)
      assert.is_truthy(answer:get "Retry-After")
      assert.matches("no healthy instance of api", answer.text)
      names:set { ["api.test"] = { "127.0.0.1" } }
      wait_resolved "127.0.0.1"
      assert.equal("127.0.0.1", who(2))
    end)

    it("is slow: nothing waits for it but the start", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      listen "127.0.0.1"
      start { dns = { timeout = "60s" } }
      names:set {}
      names:wait_asked "A api.test"
      local before = names:asked()
      assert.equal("127.0.0.1", who(5))
      assert.is_true(names:asked() <= before + 6) -- the one question of each family, repeated
      gw:stop()
    end)

    it("says that there is no such name: what was known is kept for a while, then dropped", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      listen "127.0.0.1"
      start { dns = { hold = "60s" } }
      local mark = gw:mark()
      names:set { ["api.test"] = false }
      gw:wait_log 'level=warn .*msg="name not resolved" .* why=unknown_name kept=1$'
      for _ = 1, 3 do names:wait_asked "A api.test" end
      assert.equal("127.0.0.1", who(2))
      assert.equal(1, #troubles(mark))
      gw:renew { config = { registry = { dns = { hold = "1ms" } } } }
      gw:wait_log 'msg="name has lost its addresses" name=api.test service=api why=unknown_name kept=0'
      wait_status(503)
      names:set { ["api.test"] = { "127.0.0.1" } }
      wait_resolved("127.0.0.1", mark)
      assert.equal("127.0.0.1", who(2))
    end)

    it("has a name without addresses: that is the same", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 0 } }
      listen "127.0.0.1"
      start { dns = { hold = "1ms" } }
      names:set { ["api.test"] = { ttl = 0 } }
      gw:wait_log "name has lost its addresses"
      wait_status(503)
    end)

    local lies = {
      ["garbage"] = { junk = ("\255"):rep(300) },
      ["an answer to another question"] = { "127.0.0.9", id = "\0\0" },
      ["an answer to the question for another name"] = { "127.0.0.9", question = "evil.test" },
      ["an answer with addresses of another name, which is none"] = { "127.0.0.9", owner = "evil.test" },
      ["addresses that no host has"] = { "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1" },
    }
    for what, lie in pairs(lies) do
      it("lies: " .. what, function()
        names = name_server.start { ["api.test"] = { "127.0.0.1", ttl = 0 } }
        listen "127.0.0.1"
        start { dns = { timeout = "200ms" } }
        names:set { ["api.test"] = lie }
        local why = lie.owner and "unknown_name" or "resolve_failed"
        gw:wait_log('msg="name not resolved" name=api.test service=api why=' .. why .. " kept=1")
        assert.equal("127.0.0.1", who(3))
        local mark = gw:mark()
        names:set { ["api.test"] = { "127.0.0.1" } }
        wait_resolved("127.0.0.1", mark)
      end)
    end

    it("tells of others all the time: a hook that chose one of the first gets that one or none", function()
      local function addresses(block)
        local list = { ttl = 0 }
        for i = 1, 64 do list[i] = ("127.0.%d.%d"):format(block, i) end
        return list
      end
      names = name_server.start { ["api.test"] = addresses(1) }
      listen("127.0.0.1", "127.0.1.1")
      start {
        rules = {
          { id = "late", path = "/late", serviceName = "api", plugins = { { late = { port = port } } } },
        },
        files = { ["plugins/late.lua"] = [[return { name = "late", schema = { port = { type = "integer" } },
          balance = function(_, conf, instances)
            gateway.http.request { url = ("http://127.0.0.1:%d/"):format(conf.port) }
            return instances[1]
          end }]] },
      }
      gw:wait_log "count=64"
      local client = http.connect(gw.port)
      client:send(http.format { path = "/late" })
      local call = servers["127.0.0.1"]:request()
      for block = 2, 8 do
        names:set { ["api.test"] = addresses(block) }
        gw:wait_log(("addresses=\"127%%.0%%.%d%%.1 "):format(block))
      end
      call:ok()
      assert.equal(500, client:response().status)
      gw:wait_log "one that is gone"
    end)

    it("tells of too many addresses: the lowest are used, which is logged once", function()
      local many = { ttl = 0 }
      for i = 1, 70 do many[i] = "127.0.0." .. i end
      names = name_server.start { ["api.test"] = many }
      listen "127.0.0.1"
      start()
      gw:wait_log 'msg="name resolved" .* count=64 addresses="127.0.0.1 127.0.0.2 .* 127.0.0.64"$'
      table.insert(many, 1, table.remove(many))
      names:set { ["api.test"] = many }
      for _ = 1, 2 do names:wait_asked "A api.test" end
      assert.equal(1, #gw:find_log "too many addresses")
      assert.equal(1, #gw:find_log 'msg="name resolved"')
    end)
  end)

  it("is one of hundreds, all of which have been asked for when the gateway serves", function()
    local zone, many = {}, {}
    for i = 1, 700 do
      local name = ("n%d.test"):format(i)
      zone[name] = { "127.0.0.1" }
      many[i] = { id = "i" .. i, address = name, port = 1 }
    end
    names = name_server.start(zone)
    start { instances = many, dns = { timeout = "60s", minTtl = "5s" } }
    -- On a busy machine answers get lost, and a few names with them.
    local asked, known = {}, 0
    for _, line in ipairs(gw:find_log 'msg="name .*resolved"') do
      local name = line:match " name=(%S+)"
      if not asked[name] and line:find('msg="name resolved"', 1, true) then known = known + 1 end
      asked[name] = true
    end
    for i = 1, 700 do assert.is_true(asked[("n%d.test"):format(i)]) end
    assert.is_true(known >= 650)
    assert.equal(0, gw:metrics().lost_names)
  end)

  it("is known to a worker that takes the place of one that died, also while DNS is gone", function()
    names = name_server.start { ["api.test"] = { "127.0.0.1", "127.0.0.2", ttl = 0 } }
    listen("127.0.0.1", "127.0.0.2", "127.0.0.3")
    start { dns = { timeout = "200ms" } }
    assert.equal("127.0.0.1 127.0.0.2", who(2))
    names:set { ["api.test"] = { "127.0.0.2", "127.0.0.3", ttl = 0 } }
    wait_resolved "127.0.0.2 127.0.0.3"
    names:set {}
    local mark = gw:mark()
    site.kill(gw:worker(1), 9)
    gw:wait_log("why=resolve_failed kept=2", nil, mark)
    assert.equal("127.0.0.2 127.0.0.3", who(4))
    names:set { ["api.test"] = { "127.0.0.1", ttl = 0 } }
    wait_resolved "127.0.0.1"
    assert.equal("127.0.0.1", who(2))
    gw:stop { faults = true }
  end)

  describe("under another version", function()
    it("is known from the start, also while DNS is gone; streams and sessions go on", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", "127.0.0.2", ttl = 0 } }
      listen("127.0.0.1", "127.0.0.2")
      start {
        dns = { timeout = "60s" }, files = { ["plugins/look.lua"] = streams.LOOK },
        rules = {
          { id = "api", path = "/*", serviceName = "api", plugins = { "look" },
            sessionAffinity = { source = "header" } },
        },
      }
      local session = { ["X-Session-Id"] = "s" }
      local home = who(1, session)
      local stream = streams.open(gw, servers[home], { headers = session })
      names:set {}
      gw:renew()
      assert.equal(home, who(3, session))
      stream:send "data: 1\n\n"
      stream:expect "data: 1\n\n"
      gw:renew()
      assert.equal(home, who(3, session))
      stream:send "data: 2\n\n"
      stream:expect "data: 2\n\n"
    end)

    it("that brings it there is an answer before the swap", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1" }, ["new.test"] = { "127.0.0.2" } }
      listen("127.0.0.1", "127.0.0.2")
      start()
      assert.equal("127.0.0.1", who(1))
      for _ = 1, 3 do
        gw:renew { services = { api = { { id = "new", address = "new.test", port = port } } } }
        assert.equal("127.0.0.2", who(1))
        gw:renew { services = { api = { { id = "api", address = "api.test", port = port } } } }
        assert.equal("127.0.0.1", who(1))
      end
    end)

    it("is asked for no more where that does not have it", function()
      names = name_server.start {
        ["api.test"] = { "127.0.0.1", ttl = 0 }, ["other.test"] = { "127.0.0.1", ttl = 0 },
      }
      listen "127.0.0.1"
      start()
      local stream = streams.open(gw, servers["127.0.0.1"])
      gw:renew { services = { api = { { id = "other", address = "other.test", port = port } } } }
      names:wait_asked "A other.test"
      local before = names:asked "A api.test"
      for _ = 1, 4 do names:wait_asked "A other.test" end
      assert.equal(before, names:asked "A api.test")
      assert.equal("127.0.0.1", who(1))
      stream:send "data: 1\n\n"
      stream:expect "data: 1\n\n"
    end)

    it("is known to a VM that takes the place of one that was stopped", function()
      names = name_server.start { ["api.test"] = { "127.0.0.1", "127.0.0.2", ttl = 0 } }
      listen("127.0.0.1", "127.0.0.2", "127.0.0.3")
      start {
        lua = { maxRunTime = "30ms" },
        rules = {
          { id = "api", path = "/*", serviceName = "api", sessionAffinity = { source = "header" } },
          { id = "stuck", path = "/stuck", serviceName = "api", plugins = { "stuck" } },
        },
        files = { ["plugins/stuck.lua"] = [[return { name = "stuck", access = function()
          ("a"):rep(1e5):find((".-"):rep(20) .. "b")
        end }]] },
      }
      local session = { ["X-Session-Id"] = "s" }
      local home = who(1, session)
      assert.equal(500, http.fetch(gw.port, "/stuck").status)
      gw:wait_log "its VM is replaced"
      assert.equal("127.0.0.1 127.0.0.2", who(4))
      assert.equal(home, who(3, session))
      names:set { ["api.test"] = { "127.0.0.3", ttl = 0 } }
      wait_resolved "127.0.0.3"
      assert.equal("127.0.0.3", who(2))
      gw:stop { faults = true }
    end)

    -- A version that waits for an answer.
    local function begin_late()
      names = name_server.start { ["api.test"] = { "127.0.0.1" } }
      listen "127.0.0.1"
      start { dns = { timeout = "600s" } }
      gw:change { services = { api = { { id = "late", address = "late.test", port = port } } } }
      gw.process:signal "HUP"
      names:wait_asked "A late.test"
      assert.equal("127.0.0.1", who(2))
    end

    it("ends with the process while it waits for an answer, and keeps nobody from stopping", function()
      begin_late()
      gw:stop()
    end)

    it("is taken up when the answer has come, and until then the old one serves", function()
      begin_late()
      names:set { ["late.test"] = { "127.0.0.1" } }
      gw:wait_log "reloaded generation=2"
      assert.equal("127.0.0.1", who(2))
      gw:wait_log "instance=late@127.0.0.1 "
    end)
  end)
end)
