local ffi = require "ffi"
local dns = require "spec.support.dns"
local net = require "support.net"
local rt = require "support.runtime"

local C = rt.load("net/resolve.h", "net/addr.h")

-- One callback for the process, as busted loads this file afresh each time it runs.
local registry = debug.getregistry()
local shared = registry["gatewayd.spec.resolve"]

local function address(object)
  return tonumber(ffi.cast("uintptr_t", ffi.cast("void *", object)))
end

local function on_done(lookup, err, addrs, count)
  local wait = shared.waits[address(lookup)]
  wait.calls = wait.calls + 1
  wait.why = rt.cstring(C.gw_err_slug(err))
  local text = ffi.new "char[64]"
  for i = 0, count - 1 do wait[i + 1] = rt.cstring(C.gw_addr_host(addrs + i, text)) end
  if wait.on_done then wait.on_done(wait) end
end

if not shared then
  shared = {}
  registry["gatewayd.spec.resolve"] = shared
  local ctype = "void (*)(struct gw_lookup *, enum gw_err, const struct gw_addr *, unsigned)"
  shared.done = ffi.cast(ctype, function(...)
    local ok, err = xpcall(shared.on_done, debug.traceback, ...)
    if not ok then shared.failure = err end
  end)
end
shared.on_done = on_done

describe("the resolver", function()
  local loop, server, resolver

  local function new(options)
    options = options or {}
    local given = ffi.new "struct gw_resolver_options"
    given.servers, given.deadline_ms = options.servers or server.servers, options.deadline_ms or 0
    given.file = options.file
    given.min_ttl_ms, given.max_ttl_ms = options.min_ttl_ms or 0, options.max_ttl_ms or 0
    return C.gw_resolver_new(loop, given)
  end

  before_each(function()
    shared.waits, shared.failure = {}, nil
    loop, server = net.loop(), dns.listen()
    resolver = new()
  end)

  after_each(function()
    if resolver then C.gw_resolver_free(resolver) end
    server:close()
    net.fini(loop)
    net.forget()
  end)

  local function again(options)
    C.gw_resolver_free(resolver)
    resolver = new(options)
  end

  local function ask(name, on_done_too)
    local lookup = ffi.new "struct gw_lookup"
    C.gw_lookup_init(lookup, shared.done)
    local wait = { lookup = lookup, calls = 0, on_done = on_done_too }
    shared.waits[address(lookup)] = wait
    local err = C.gw_resolver_ask(resolver, rt.slice(name), lookup)
    if err ~= C.GW_OK then return nil, rt.cstring(C.gw_err_slug(err)) end
    assert.equal(0, wait.calls, "never from inside")
    return wait
  end

  -- Turns, and answers what is asked, until all of these have an answer.
  local function settle(zone, ...)
    local waits = { ... }
    local tick = net.timer(loop, function() end)
    net.turn_until(loop, function()
      server:serve(zone)
      C.gw_timer_start(loop, tick.timer, 1)
      for _, wait in ipairs(waits) do
        if wait.calls == 0 then return false end
      end
      return true
    end)
    C.gw_timer_stop(loop, tick.timer)
    if shared.failure then error(shared.failure, 0) end
    for _, wait in ipairs(waits) do assert.equal(1, wait.calls) end
    return ...
  end

  local function resolve(zone, name)
    return settle(zone, assert(ask(name)))
  end

  local function list(wait)
    return table.concat(wait, " ")
  end

  it("knows all addresses of a name, IPv4 first", function()
    local zone = { ["a.test"] = { "2001:db8::1", "192.0.2.2", "192.0.2.1", "2001:db8::2" } }
    local wait = resolve(zone, "a.test")
    assert.equal("ok", wait.why)
    assert.equal("192.0.2.2 192.0.2.1 2001:db8::1 2001:db8::2", list(wait))
  end)

  it("is content with one family", function()
    assert.equal("192.0.2.1", list(resolve({ ["v4.test"] = { "192.0.2.1" } }, "v4.test")))
    assert.equal("2001:db8::1", list(resolve({ ["v6.test"] = { "2001:db8::1" } }, "v6.test")))
  end)

  it("follows a CNAME", function()
    local wait = resolve({ ["a.test"] = { cname = "b.test", "192.0.2.7" } }, "a.test")
    assert.equal("192.0.2.7", list(wait))
  end)

  it("knows localhost itself, whatever anybody says", function()
    for _, name in ipairs { "localhost", "LocalHost", "app.localhost" } do
      assert.equal("127.0.0.1 ::1", list(resolve({}, name)))
    end
    assert.same({}, server.asked)
  end)

  -- The names in there are the machine's: one that has an IPv4 address is looked for.
  local function name_of_hosts()
    for line in io.lines "/etc/hosts" do
      local ip, name = line:match "^%s*(%d+%.%d+%.%d+%.%d+)%s+([%w.-]+)"
      if ip and name ~= "localhost" and not name:find "%.localhost$" then return name, ip end
    end
  end

  it("reads /etc/hosts", function()
    local name, ip = name_of_hosts()
    if not name then return pending "a name in /etc/hosts" end
    local wait = resolve({ [name:lower()] = false }, name)
    assert.equal("ok", wait.why)
    assert.equal(ip, wait[1])
    assert.is_nil(server.asked["A " .. name:lower()])
  end)

  it("asks once for all who ask at the same time", function()
    local waits = {}
    for i = 1, 100 do waits[i] = assert(ask(i % 2 == 0 and "many.test" or "MANY.test")) end
    settle({ ["many.test"] = { "192.0.2.1" } }, unpack(waits))
    for _, wait in ipairs(waits) do assert.equal("192.0.2.1", list(wait)) end
    assert.same({ ["A many.test"] = 1, ["AAAA many.test"] = 1 }, server.asked)
  end)

  it("keeps an answer as long as its TTL, and no longer", function()
    local zone = { ["short.test"] = { "192.0.2.1", ttl = 1 } }
    resolve(zone, "short.test")
    zone["short.test"] = { "192.0.2.2", ttl = 1 }
    assert.equal("192.0.2.1", list(resolve(zone, "short.test")))
    assert.equal(1, server.asked["A short.test"])
    local late = false
    local timer = net.timer(loop, function() late = true end)
    C.gw_timer_start(loop, timer.timer, 1050)
    net.turn_until(loop, function() return late end)
    assert.equal("192.0.2.2", list(resolve(zone, "short.test")))
    assert.equal(2, server.asked["A short.test"])
  end)

  it("tells a name that is not there from servers that do not answer well", function()
    local wait = resolve({ ["none.test"] = false }, "none.test")
    assert.equal("unknown_name", wait.why)
    assert.equal(0, #wait)
    assert.equal("unknown_name", resolve({ ["empty.test"] = {} }, "empty.test").why)
    assert.equal("resolve_failed", resolve({ ["sick.test"] = { rcode = 2 } }, "sick.test").why)
  end)

  it("does not ask again and again for what is not there", function()
    for _ = 1, 5 do assert.equal("unknown_name", resolve({ ["none.test"] = false }, "none.test").why) end
    assert.equal(1, server.asked["A none.test"])
  end)

  -- The file can name no port, so here it is the domain to search that changes.
  it("reads resolv.conf, and again when that has changed", function()
    local file = os.tmpname()
    local function write(domain)
      local out = assert(io.open(file, "w"))
      out:write("nameserver 127.0.0.1\nsearch " .. domain .. "\n")
      out:close()
    end
    write "one.test"
    again { file = file }
    assert.equal("192.0.2.1", list(resolve({ ["a.one.test"] = { "192.0.2.1" } }, "a")))
    write "second.test"
    assert.equal("192.0.2.2", list(resolve({ ["b.second.test"] = { "192.0.2.2" } }, "b")))
    os.remove(file)
    assert.equal("192.0.2.3", list(resolve({ ["c.second.test"] = { "192.0.2.3" } }, "c")))
  end)

  it("gives up on a server that is silent", function()
    again { deadline_ms = 100 }
    assert.equal("resolve_failed", resolve({}, "silent.test").why)
  end)

  it("gives up when nobody is there", function()
    local servers = server.servers
    server:close()
    server = dns.listen()
    again { servers = servers, deadline_ms = 200 }
    assert.equal("resolve_failed", resolve({}, "dead.test").why)
  end)

  it("takes no answer that is not to its question, nor garbage", function()
    again { deadline_ms = 150 }
    local wait = assert(ask "lie.test")
    local answered = false
    settle({}, (function()
      net.turn(loop)
      for _ = 1, 2 do
        local question = server:question()
        server:answer(question, { id = "\0\0", question.type == "A" and "192.0.2.66" or "2001:db8::66" })
        server:send(question, question.id)
        server:send(question, ("\255"):rep(400))
        answered = true
      end
      return wait
    end)())
    assert.is_true(answered)
    assert.equal("resolve_failed", wait.why)
    assert.equal("", list(wait))
  end)

  it("does not wait for IPv6 where only IPv4 is answered", function()
    again { deadline_ms = 60000 }
    local wait = resolve({ ["half.test"] = { "192.0.2.1", silent = "AAAA" } }, "half.test")
    assert.equal("192.0.2.1", list(wait))
  end)

  it("tells which family nobody has told of", function()
    again { deadline_ms = 100 }
    local function lost(zone)
      return resolve({ ["half.test"] = zone }, "half.test").lookup.lost_family
    end
    assert.equal(10, lost { "192.0.2.1", silent = "AAAA" })
    again { deadline_ms = 100 }
    assert.equal(2, lost { "2001:db8::1", silent = "A" })
    again()
    assert.equal(0, lost { "192.0.2.1" })
  end)

  it("takes no address that no host can have for one", function()
    local zone = { ["lie.test"] = { "0.0.0.0", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1" } }
    assert.equal("resolve_failed", resolve(zone, "lie.test").why)
    zone["half.test"] = { "0.0.0.0", "192.0.2.1", "2001:db8::1", "192.0.2.1" }
    local wait = resolve(zone, "half.test")
    assert.equal("192.0.2.1 2001:db8::1", list(wait))
    assert.equal(2, wait.lookup.lost_family)
  end)

  it("keeps the same ones of too many, whatever their order", function()
    local many, lowest = {}, {}
    for i = 1, 70 do many[i] = "192.0.2." .. i end
    for i = 1, C.GW_NAME_ADDRS do lowest[i] = "192.0.2." .. i end
    for turn = 1, 3 do
      local shuffled = {}
      for i = 1, 70 do shuffled[i] = many[(i * 9 ^ turn) % 70 + 1] end
      local name = turn .. ".test"
      local wait = resolve({ [name] = turn == 3 and many or shuffled }, name)
      local got = {}
      for i = 1, #wait do got[i] = wait[i] end
      assert.is_true(wait.lookup.cut)
      table.sort(got, function(a, b) return tonumber(a:match "%d+$") < tonumber(b:match "%d+$") end)
      assert.same(lowest, got)
    end
  end)

  it("asks by TCP where an answer is too long for UDP", function()
    local zone = { ["long.test"] = {} }
    for i = 1, 250 do zone["long.test"][i] = "192.0.2." .. i end
    server:close()
    server = dns.listen { tcp = true }
    again()
    local wait = resolve(zone, "long.test")
    assert.equal("ok", wait.why)
    assert.equal(C.GW_NAME_ADDRS, #wait)
    assert.is_true(wait.lookup.cut)
    assert.equal(2, server.asked["A long.test"])
    assert.equal(1, server.asked["AAAA long.test"])
  end)

  it("says how long an answer is good, within bounds", function()
    local function good(ttl, answer)
      again { min_ttl_ms = 5000, max_ttl_ms = 60000 }
      local zone = answer or { "192.0.2.1", ttl = ttl }
      return tonumber(resolve({ ["a.test"] = zone }, "a.test").lookup.good_ms)
    end
    assert.same({ 5000, 30000, 60000 }, { good(0), good(30), good(86400) })
    assert.equal(5000, good(0, { rcode = 3 }))
  end)

  it("refuses what can't be a name", function()
    for _, name in ipairs { "", "a b", "a\0b", "a/b", "[::1]", "é.test", ("x"):rep(254), "a\\.b" } do
      local wait, why = ask(name)
      assert.is_nil(wait)
      assert.equal("unknown_name", why)
    end
  end)

  it("forgets who does not want to know any more", function()
    local one, two = assert(ask "a.test"), assert(ask "a.test")
    C.gw_lookup_cancel(one.lookup)
    C.gw_lookup_cancel(one.lookup)
    settle({ ["a.test"] = { "192.0.2.1" } }, two)
    assert.equal(0, one.calls)
  end)

  it("can be asked and cancelled from inside an answer", function()
    local third
    local other
    local first = assert(ask("a.test", function()
      C.gw_lookup_cancel(other.lookup)
      third = assert(ask "a.test")
    end))
    other = assert(ask "a.test")
    settle({ ["a.test"] = { "192.0.2.1" } }, first)
    settle({}, third)
    assert.equal(0, other.calls)
    assert.equal("192.0.2.1", list(third))
    assert.equal(1, server.asked["A a.test"])
  end)

  it("is bounded", function()
    local waits = {}
    for i = 1, C.GW_NAMES_MAX / 2 do waits[i] = assert(ask("n" .. i .. ".test")) end
    local none, why = ask "more.test"
    assert.is_nil(none)
    assert.equal("overloaded", why)
    for _, wait in ipairs(waits) do C.gw_lookup_cancel(wait.lookup) end
  end)

  it("drops the names that nobody asked for the longest", function()
    local zone = setmetatable({}, { __index = function() return { "192.0.2.1" } end })
    for i = 1, C.GW_NAMES_MAX + 10 do resolve(zone, "n" .. i .. ".test") end
    resolve(zone, "n" .. C.GW_NAMES_MAX .. ".test")
    assert.equal(1, server.asked["A n" .. C.GW_NAMES_MAX .. ".test"])
    resolve(zone, "n1.test")
    assert.equal(2, server.asked["A n1.test"])
  end)

  it("can be freed while it asks", function()
    local wait = assert(ask "a.test")
    net.turn(loop)
    C.gw_resolver_free(resolver)
    resolver = nil
    assert.equal(0, wait.calls)
  end)
end)
