-- The cases of spec/runtime/data/http1_cases.lua over the real binary: what a backend gets of each request,
-- and what a client gets of each answer, byte for byte. Of a refused request a backend gets nothing.
local backend = require("spec.support.backend")
local gateway = require("spec.support.gateway")
local http = require("spec.support.http")
local cases = dofile "spec/runtime/data/http1_cases.lua"

local OWN = {
  ["x-forwarded-for"] = true, ["x-forwarded-proto"] = true, ["x-forwarded-host"] = true, via = true,
  ["x-request-id"] = true, host = true, ["content-length"] = true, ["transfer-encoding"] = true,
  connection = true,
}

local GUARD = [[
return { name = "guard", access = function(ctx) return ctx:reply(403, "no") end }
]]
local RULES = {
  { path = "/*", serviceName = "s" },
  { path = "/admin/*", serviceName = "s", plugins = { "guard" } },
  { path = "/exact", serviceName = "s", plugins = { "guard" } },
  { path = "/normal/*", serviceName = "s", forwardPath = "normalised" },
  { path = "/both/*", serviceName = "s", forwardPath = "normalised", ambiguousPath = "allow" },
}

local origin, gate

local function start(keep_alive)
  origin = backend.listen()
  gate = gateway.start({
    services = { s = { origin.port } }, rules = RULES, files = { ["plugins/guard.lua"] = GUARD },
    config = {
      pluginPath = { "../plugins" },
      frontend = {
        http = { maxHeaderBytes = 1024, maxHeaders = 8, maxTargetBytes = 600, maxBodyBytes = 65536 },
      },
      backend = { http = { keepAlive = keep_alive } },
    },
  })
end

local function stop()
  gate:stop()
  origin:close()
end

local function last_status(text)
  local last
  for status in text:gmatch("HTTP/1%.1 (%d%d%d) ") do last = tonumber(status) end
  return last
end

describe("requests", function()
  setup(function() start(false) end)
  teardown(stop)

  -- An answer of the gateway's own; a good one leaves the connection open.
  local function check_own(conn, status)
    local head = assert(conn:read_until("\r\n\r\n", 5, true))
    assert.equal(status, last_status(head))
    assert.is_nil(head:find("a=b", 1, true), "nothing is reflected")
    assert.is_nil(origin:try_accept(0), "a backend was asked")
  end

  local function check_refused(conn, case)
    local text, how = conn:read_all(5)
    assert.equal(case[3], last_status(text))
    assert.equal("eof", how)
    local asked = origin:try_accept(0)
    if not case.coarse then assert.is_nil(asked, "a backend was asked") end
    -- A long body is on its way before it is found bad: then it has no end.
    if asked then assert.is_nil((asked:read_all(5)):find("0\r\n\r\n", 1, true)) end
  end

  -- Each field of the gateway's once, and of the others just those that were understood.
  local function check_fields(request, case)
    local seen, rest = {}, {}
    for _, field in ipairs(request.headers) do
      local name = field[1]:lower()
      if OWN[name] then
        assert.is_nil(seen[name], name .. " twice")
        seen[name] = field[2]
      else
        rest[#rest + 1] = { name, field[2] }
      end
    end
    local expected = case[3]
    if not expected.upgrade and (case.forwards or expected.fields) then
      assert.same(case.forwards or expected.fields, rest)
    end
    if expected.count then assert.equal(expected.count, #rest) end
    if expected.authority then assert.equal(expected.authority, seen.host) end
    assert.is_false(seen["content-length"] ~= nil and seen["transfer-encoding"] ~= nil, "two lengths")
  end

  local function check_forwarded(conn, case)
    local request = origin:request(5)
    local method, target = case[2]:match("^[\r\n]*(%u+) (%S+)")
    assert.equal(method, request.method)
    assert.equal(case.sends or case[3].path or target, request.target)
    assert.equal("1.1", request.version)
    local body = request:body(5)
    if case[3].body then assert.equal(case[3].body, body) end
    check_fields(request, case)
    request:ok("ok", nil, "Connection: close\r\n")
    local head = assert(conn:read_until(method == "HEAD" and "\r\n\r\n$" or "ok$", 5))
    assert.equal(200, last_status(head))
    assert.equal("", (request.conn:read_all(5)), "bytes behind the request")
  end

  for _, case in ipairs(cases.requests) do
    it(case[1], function()
      local conn = http.connect(gate.port)
      conn:send(case[2])
      if case.own then
        check_own(conn, case.own)
      elseif type(case[3]) == "number" then
        check_refused(conn, case)
      else
        check_forwarded(conn, case)
      end
      conn:close()
    end)
  end
end)

describe("answers", function()
  setup(function() start(true) end)
  teardown(stop)

  local function check_good(response, case)
    local body, how = response:body(5)
    if case[3].status then assert.equal(case[3].status, response.status) end
    if case[3].body then assert.equal(case[3].body, body) end
    assert.equal("clean", how)
  end

  -- An answer of ours where nothing had gone out, and a broken end where it had.
  local function check_bad(response, case)
    local body, how = response:body(5)
    if response.status == 502 then
      assert.is_nil(case.got)
      assert.equal(case.method ~= "HEAD", body:find('"error"', 1, true) ~= nil)
      assert.is_nil(response:get("Set-Cookie"))
    else
      assert.equal(200, response.status)
      assert.equal(case.got or "", body)
      assert.is_nil(({ clean = true, timeout = true })[how], how)
    end
  end

  -- What was left behind an answer is nobody's: the next request goes another way.
  local function ask_again(conn)
    conn:send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    local request = origin:request(5)
    request:ok("next", nil, "Connection: close\r\n")
    local response = conn:response({}, 5)
    assert.same({ 200, "next" }, { response.status, (response:body(5)) })
    request.conn:close()
  end

  for _, case in ipairs(cases.responses) do
    it(case[1], function()
      local conn = http.connect(gate.port)
      conn:send((case.method or "GET") .. " / HTTP/1.1\r\nHost: x\r\n\r\n")
      local request = origin:request(5)
      request.conn:send(case[2])
      if case.eof then request.conn:close() end
      local response = conn:response({ head = case.method == "HEAD", skip_informational = true }, 5)
      if type(case[3]) == "table" then check_good(response, case) else check_bad(response, case) end
      if case.left then ask_again(conn) end
      if request.conn.fd then request.conn:close() end
      conn:close()
    end)
  end
end)
