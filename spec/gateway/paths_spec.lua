--- Nobody gets around a rule by the way a path is written: what reaches a backend behind /* is read in all
-- the ways in which backends read paths, and none of them may lead where the rule for /admin/* is. And what
-- forwardPath sends.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"

local GUARD = [[
return { name = "guard", access = function(ctx) return ctx:reply(403, "no") end }
]]
local REWRITE = [[
return {
  name = "rewrite",
  access = function(ctx)
    local to = ctx.req.headers["x-to"]
    ctx.req.headers["X-Found"] = ctx.req.path .. "?" .. (ctx.req.querystring)
    if to then ctx.req.path = to end
  end,
}
]]
local ROUTED = [[
return {
  name = "routed",
  route = function(ctx)
    if ctx.req.headers["x-route"] then
      ctx.req.path = ctx.req.headers["x-route"]
    end
  end,
}
]]

local server, gw

-- The status for the client, and the request that a backend got, if one did.
local function ask(target, headers)
  local lines = { "GET " .. target .. " HTTP/1.1", "Host: a", "Connection: close" }
  for name, value in pairs(headers or {}) do lines[#lines + 1] = name .. ": " .. value end
  local client = http.connect(gw.port)
  client:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
  local up
  process.wait_until(function()
    up = server:try_accept(0)
    return up or client.ended or client:_fill(0)
  end, 5, "an answer for " .. target)
  local received = up and backend.read_request(up)
  if received then received:ok("ok", nil, "Connection: close\r\n") end
  local status = client:response().status
  client:close()
  return status, received
end

local function decode(path)
  return (path:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function without_dots(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." then parts[#parts] = nil elseif part ~= "." then parts[#parts + 1] = part end
  end
  return "/" .. table.concat(parts, "/")
end

local function overlong(path)
  return (path:gsub("([\192\193])([\128-\191])", function(a, b)
    return string.char((a:byte() - 192) * 64 + b:byte() - 128)
  end))
end

local function slashes(path) return (path:gsub("\\", "/")) end
local function parameters(path) return (path:gsub(";[^/]*", "")) end

-- How servers come from a path to what they serve.
local READERS = {
  raw = {}, dots = { without_dots }, usual = { decode, without_dots },
  dots_then_decoded = { without_dots, decode }, dots_twice = { without_dots, decode, without_dots },
  servlets = { parameters, decode, without_dots }, servlets_late = { decode, parameters, without_dots },
  servlets_raw = { without_dots, parameters, decode, without_dots },
  windows = { decode, slashes, without_dots }, twice = { decode, decode, without_dots },
  thrice = { decode, decode, decode, without_dots }, old = { decode, overlong, slashes, without_dots },
  all = { decode, decode, decode, overlong, slashes, parameters, without_dots },
}

local function assert_not_admin(target)
  local path = target:match("^[^?]*")
  for name, steps in pairs(READERS) do
    local read = path
    for _, step in ipairs(steps) do read = step(read) end
    assert.is_nil(read:find("^/admin/"), ("%s: reader %s is led to %s"):format(target, name, read))
  end
end

-- All spellings: what may stand before, in and behind `admin`.
local function spellings()
  local before = {
    "/", "//", "/./", "/a/../", "/a/%2e%2e/", "/a/.%2E/", "/;/", "/;a=b/", "/.;/", "/a/..;/", "/a/..;x/",
    "/%2F", "/%2f/", "/\\", "/%5c", "/a/..%2f", "/a/..%5c", "/a/..\\", "/a//../", "/a/%252e%252e/",
    "/a/..%252f", "/%c0%af", "/a/%c0%ae%c0%ae/", "/a/..%c1%9c", "/a/%2e%2e;/", "/a/..%3b/", "/a/b/../..//",
    "/%2e/", "/a%2F..%2F",
  }
  local names = { "admin", "%61dmin", "a%64min", "%61%64%6D%69%6e", "%2561dmin", "%252561dmin", "%c1%a1dmin" }
  local behind = {
    "/x", "//x", "/./x", "/a/../x", "/%2e/x", ";/x", ";a=b/x", "%3b/x", "%2Fx", "%2fx", "\\x", "%5Cx",
    "%252Fx", "%255cx", "%c0%afx", "/..;/admin/x", "/%2e%2e/admin/x", "/x;y", "/x%2F..", "%25252fx",
  }
  local list, seen = {}, {}
  local function add(path)
    if not seen[path] then
      seen[path] = true
      list[#list + 1] = path
    end
  end
  for _, front in ipairs(before) do
    for _, name in ipairs(names) do add(front .. name .. "/x") end
    for _, tail in ipairs(behind) do add(front .. "admin" .. tail) end
  end
  for _, name in ipairs(names) do
    for _, tail in ipairs(behind) do add("/" .. name .. tail) end
  end
  return list
end

setup(function()
  server = backend.listen()
  gw = gateway.start {
    services = { api = server.port },
    files = {
      ["plugins/guard.lua"] = GUARD, ["plugins/rewrite.lua"] = REWRITE, ["plugins/routed.lua"] = ROUTED,
    },
    rules = {
      { path = "/*", serviceName = "api" },
      { path = "/admin/*", serviceName = "api", plugins = { "guard" } },
      { path = "/normal/{name}", serviceName = "api", forwardPath = "normalised", plugins = { "rewrite" } },
      { path = "/normal/{name}/*", serviceName = "api", forwardPath = "normalised", plugins = { "rewrite" } },
      {
        path = "/both/{name}", serviceName = "api", forwardPath = "normalised", ambiguousPath = "allow",
        plugins = { "rewrite" },
      },
    },
    config = {
      pluginPath = { "../plugins" }, plugins = { "routed" }, backend = { http = { keepAlive = false } },
    },
  }
end)

teardown(function()
  server:close()
  gateway.stop_all()
end)

describe("a rule that refuses", function()
  it("is met, or the path is refused, in every spelling", function()
    local list, counts = spellings(), {}
    for i, path in ipairs(list) do
      local target = i % 4 == 0 and path .. "?/../../a" or path
      local status, received = ask(target)
      counts[status] = (counts[status] or 0) + 1
      if received then assert_not_admin(received.target) end
      assert.is_true(status == 403 or status == 400 or received ~= nil, target .. ": " .. status)
    end
    assert.is_true(#list > 700, #list)
    assert.is_true(counts[403] > 50 and counts[400] > 500, "a mix of answers")
    assert.is_nil(counts[200], "none of these is meant for the rule beside it")
  end)

  it("does not stand in the way of other paths", function()
    for _, path in ipairs { "/administration/x", "/a/admin/x", "/a;admin/x", "/a%2Fadmin%2Fx", "/x?/admin/",
      "/admin%20/x", "/a..b/admin", "/.../admin/x", "/a%3Fadmin" } do
      local status, received = ask(path)
      assert.same({ 200, path }, { status, received and received.target }, path)
    end
  end)

  it("is met by a path that a route hook wrote", function()
    assert.equal(403, (ask("/a", { ["X-Route"] = "/a/%2e%2e/admin/x" })))
    assert.equal(400, (ask("/a", { ["X-Route"] = "/admin;/x" })))
  end)
end)

describe("forwardPath: normalised", function()
  -- Each: target, headers, what the hook found, what the backend got.
  local cases = {
    { "/normal/a", nil, "/normal/a?", "/normal/a" },
    { "/norm%61l//./b/../%7ea", nil, "/normal/~a?", "/normal/~a" },
    { "/normal/a%20b?q=%61//../x&&", nil, "/normal/a%20b?q=%61//../x&&", "/normal/a%20b?q=%61//../x&&" },
    { "/normal/%61?", nil, "/normal/a?", "/normal/a?" },
    { "/x/../normal/a%3Bb%2b?%zz", nil, "/normal/a%3Bb%2B?%zz", "/normal/a%3Bb%2B?%zz" },
    { "/normal/%61?q", { ["X-To"] = "/to/%61/../b" }, "/normal/a?q", "/to/%61/../b?q" },
    { "/normal/%C3%A4/%e2%82%ac/", nil, "/normal/%C3%A4/%E2%82%AC/?", "/normal/%C3%A4/%E2%82%AC/" },
    { "/x", { ["X-Route"] = "/normal/%61/./b" }, "/normal/a/b?", "/normal/a/b" },
    { "/x?q=1", { ["X-Route"] = "/normal//%62" }, "/normal/b?q=1", "/normal/b?q=1" },
    { "/both/%67roup%2Fname?q", nil, "/both/group%2Fname?q", "/both/group%2Fname?q" },
    { "/both/%67;a=%62\\c", nil, "/both/g;a=b%5Cc?", "/both/g;a=b%5Cc" },
  }

  for _, case in ipairs(cases) do
    it(("sends %s as %s%s"):format(case[1], case[4], case[2] and ", with a hook" or ""), function()
      local status, received = ask(case[1], case[2])
      assert.equal(200, status)
      assert.equal(case[3], received:get "X-Found")
      assert.equal(case[4], received.target)
    end)
  end

  it("refuses what it would refuse otherwise", function()
    assert.equal(400, (ask "/normal/group%2Fname"))
    assert.equal(400, (ask "/both/%2e%2e/%2e%2e/x"))
    assert.equal(400, (ask "/both/..%2f..%2fx"))
    assert.equal(403, (ask "/both/../admin/x"))
  end)

  it("is the same again when it is normalised again", function()
    for _, case in ipairs(cases) do
      local _, received = ask(case[4])
      local again = received:get "X-Found"
      if again then assert.equal(case[4], received.target) end
    end
  end)
end)
