local http1 = require "support.http1"
local net = require "support.net"
local rt = require "support.runtime"
local cases = dofile "spec/runtime/data/http1_cases.lua"

local POST = "POST / HTTP/1.1\r\nHost: x\r\n"

local loop

before_each(function()
  loop = net.loop()
end)

after_each(function()
  http1.clean(loop)
end)

local function server(options)
  return http1.server(loop, options)
end

local function client(options)
  return http1.client(loop, options)
end

local function send(side, bytes, turns)
  return side:feed(loop, bytes, turns)
end

local function got(side)
  return side:received(loop)
end

local function count(text, what)
  local _, n = text:gsub(what, "")
  return n
end

local function reply_ok(s)
  s:reply { body = "ok" }
end

-- The ways in which the bytes of a case come: a list of lists of pieces.
local function ways_of(case, prefix)
  local bytes = case[2]
  local ways = { { bytes } }
  for at = 1, case.coarse and 0 or #bytes - 1 do
    local edge = at < 100 or at > #bytes - 100 or at % 16 == 0 -- the rest of a long one is all alike
    if edge then ways[#ways + 1] = { bytes:sub(1, at), bytes:sub(at + 1) } end
  end
  local single = {}
  for at = 1, #bytes do single[at] = bytes:sub(at, at) end
  ways[#ways + 1] = single
  if prefix then ways[#ways + 1] = { prefix .. bytes } end
  return ways
end

local function check_head(expected, s, where)
  for key, value in pairs(expected) do
    if key == "body" then
      assert.equal(value, s.got, where)
    elseif key == "count" then
      assert.equal(value, #s.head.fields, where)
    elseif key == "heads" then
      assert.equal(value, #s.heads, where)
    elseif key ~= "close" then
      assert.same(value, s.head[key], where)
    end
  end
  assert.is_true(s.ended, where)
end

describe("requests", function()
  local LIMITS = { max_header_bytes = 1024, max_headers = 8, max_target_bytes = 600,
    max_body_bytes = 65536, on_end = reply_ok }
  local GOOD = "POST /good HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"

  -- The n-th message on this connection is the case.
  local function check(case, side, where, n)
    local bytes, ended = got(side)
    local s = side.streams[n]
    if type(case[3]) == "number" then
      local last
      for status in bytes:gmatch "HTTP/1%.1 (%d+)" do last = tonumber(status) end
      assert.equal(case[3], last, where)
      assert.equal(n, count(bytes, "HTTP/1%.1"), where)
      assert.truthy(bytes:find("Connection: close", 1, true), where)
      assert.equal("eof", ended, where)
      assert.is_true(side.gone, where)
      assert.falsy(s and s.ended, where)
    else
      check_head(case[3], s, where)
      assert.equal("ok", s.why, where)
      assert.equal(n, count(bytes, "HTTP/1%.1 200"), where)
      assert.equal(case[3].close or s.head.minor == 0, ended == "eof", where)
    end
  end

  for _, case in ipairs(cases.requests) do
    it(case[1] .. ": " .. (type(case[3]) == "number" and case[3] or "understood"), function()
      local ways = ways_of(case, GOOD)
      for i, pieces in ipairs(ways) do
        local side = server(LIMITS)
        for _, piece in ipairs(pieces) do send(side, piece, 1) end
        check(case, side, case[1] .. ", way " .. i, i == #ways and 2 or 1)
        http1.forget()
      end
    end)
  end
end)

describe("responses", function()
  local LIMITS = { max_header_bytes = 1024, max_headers = 8 }

  local function ask(method)
    local side = client(LIMITS)
    local s = side:open()
    s:send_head { method = method, path = "/", authority = "x", body = false }
    s:send("", true)
    side:accept()
    http1.turn_until(loop, function() return got(side):find "\r\n\r\n$" end)
    return side, s
  end

  local function check(case, s, where)
    if type(case[3]) == "string" then
      assert.equal(case[3], s.why, where)
      assert.falsy(s.ended, where)
      assert.equal(case.got or "", s.got, where)
    else
      assert.equal("ok", s.why, where)
      check_head(case[3], s, where)
    end
  end

  for _, case in ipairs(cases.responses) do
    it(case[1] .. ": " .. (type(case[3]) == "string" and case[3] or "understood"), function()
      for i, pieces in ipairs(ways_of(case)) do
        local side, s = ask(case.method or "GET")
        for _, piece in ipairs(pieces) do
          if s.why then break end
          send(side, piece, 1)
        end
        if case.eof then
          net.close(side.fd)
        end
        http1.turn_until(loop, function() return s.why end)
        check(case, s, case[1] .. ", way " .. i)
        assert.equal(case.eof or type(case[3]) == "string" or side.log[#side.log] ~= "idle",
          side.gone or false, case[1] .. ", way " .. i)
        if not case.eof then net.reset(side.fd) end
        side.fd = nil
        http1.forget()
      end
    end)
  end
end)

describe("both sides", function()
  it("carry random messages through random cuts", function()
    local random = rt.random(4)
    for round = 1, 60 do
      local side = server { on_end = function(s) s:reply { body = s.got } end }
      local sent, bodies = {}, {}
      for i = 1, random(1, 4) do
        local body, pieces = {}, {}
        for j = 1, random(0, 4) do
          body[j] = string.char(random(97, 122)):rep(random(1, 3000))
          pieces[j] = ("%x%s\r\n%s\r\n"):format(#body[j], random(0, 1) == 1 and ";a=b" or "", body[j])
        end
        bodies[i] = table.concat(body)
        if random(0, 1) == 1 then
          sent[i] = POST .. "Content-Length: " .. #bodies[i] .. "\r\n\r\n" .. bodies[i]
        else
          sent[i] = POST .. "Transfer-Encoding: chunked\r\n\r\n" .. table.concat(pieces) ..
            "0\r\nA: b\r\n\r\n"
        end
      end
      local bytes, at = table.concat(sent), 1
      while at <= #bytes do
        local step = random(0, 3) == 0 and random(1, 5000) or random(1, 60)
        send(side, bytes:sub(at, at + step - 1), 1)
        got(side)
        at = at + step
      end
      http1.turn_until(loop, function()
        got(side)
        return #side.streams == #bodies and side.streams[#bodies].why
      end)
      for i, body in ipairs(bodies) do
        assert.equal(body, side.streams[i].got, "round " .. round)
        assert.equal("ok", side.streams[i].why)
      end
      http1.forget()
    end
  end)
end)

-- Random damage: what comes of it must not depend on how the bytes came.
describe("damaged messages", function()
  local ODD = { "\r", "\n", "\r\n", " ", "\t", ":", ",", ";", "\0", "\127", "\195", "0", "1", "a", "A", "/",
    "\r\n ", "chunked",
    "\r\nContent-Length: 1", "\r\nTransfer-Encoding: chunked", "\r\nHost: y",
    "0\r\n\r\n", "HTTP/1.1", "\r\n\r\n" }

  local function damaged(bytes, random)
    for _ = 1, random(1, 3) do
      local at, kind, odd = random(0, #bytes), random(1, 4), ODD[random(1, #ODD)]
      local from = at + 1
      if kind == 1 then odd = "" end
      if kind < 3 then from = at + 1 + random(1, 3) end
      if kind == 4 then odd = bytes:sub(at, at + random(1, 20)) end
      bytes = bytes:sub(1, at) .. odd .. bytes:sub(from)
    end
    return bytes
  end

  -- Whole, byte by byte, and in random pieces.
  local function cuts(bytes, random)
    local single, some, at = {}, {}, 1
    for i = 1, #bytes do single[i] = bytes:sub(i, i) end
    while at <= #bytes do
      local n = random(1, 40)
      some[#some + 1] = bytes:sub(at, at + n - 1)
      at = at + n
    end
    return { { bytes }, single, some }
  end

  local function outcome(side, refused)
    local parts = {}
    for _, s in ipairs(side.streams) do
      local head = s.head or {}
      local fields = {}
      for i, field in ipairs(head.fields or {}) do fields[i] = field[1] .. "=" .. field[2] end
      parts[#parts + 1] = table.concat({ tostring(head.method), tostring(head.path), tostring(head.authority),
        tostring(head.status), #s.heads, tostring(s.ended), s.got, table.concat(fields, ";") }, "|")
    end
    return table.concat(parts, "\n") .. "\n" .. tostring(refused)
  end

  local function serve(pieces)
    local side = server { max_header_bytes = 1024, max_headers = 8, max_target_bytes = 600,
      max_body_bytes = 65536, on_end = reply_ok }
    for _, piece in ipairs(pieces) do send(side, piece, 1) end
    local bytes = got(side)
    local result = outcome(side, bytes:find "HTTP/1%.1 [45]")
    assert.is_true(not bytes:find "HTTP/1%.1 [45]" or side.gone)
    http1.forget()
    return result
  end

  local listener, port

  local function fetch(pieces)
    local side = client { max_header_bytes = 1024, max_headers = 8, port = port }
    local s = side:open()
    s:send_head { method = "GET", path = "/", authority = "x", body = false }
    s:send("", true)
    side.fd = net.accept(listener)
    http1.turn_until(loop, function() return got(side):find "\r\n\r\n$" end)
    for _, piece in ipairs(pieces) do
      if s.why then break end
      send(side, piece, 1)
    end
    net.close(side.fd)
    side.fd = nil
    http1.turn_until(loop, function() return s.why end)
    local result = outcome(side, s.why)
    http1.forget()
    return result
  end

  local function compare(list, run, rounds, seed)
    local random = rt.random(seed)
    for _ = 1, rounds do
      local case = list[random(1, #list)]
      local bytes = damaged(case[2], random)
      local first
      for _, pieces in ipairs(cuts(bytes, random)) do
        local result = run(pieces)
        first = first or result
        assert.equal(first, result, ("%q"):format(bytes))
      end
    end
  end

  it("are the same requests, or none, in whatever pieces they come", function()
    compare(cases.requests, serve, 400, 11)
  end)

  it("are the same responses, or none, in whatever pieces they come", function()
    listener, port = net.bound(4)
    compare(cases.responses, fetch, 200, 12)
    net.close(listener)
  end)
end)
