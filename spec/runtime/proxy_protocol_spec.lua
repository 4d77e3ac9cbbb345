local ffi = require "ffi"
local http1 = require "support.http1"
local net = require "support.net"
local rt = require "support.runtime"

local C = rt.load("net/proxy_protocol.h", "net/addr.h")
local cases = require "runtime.data.proxy_protocol_cases"

local BEHIND = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

local function text(addr)
  if addr.family == 0 then return "" end
  return ffi.string(C.gw_addr_text(addr, ffi.new("char[?]", C.GW_ADDR_TEXT)))
end

-- Feeds the pieces one after the other. What was read of them, and the client or the error.
local function feed(pieces)
  local header, used = ffi.new "struct gw_proxy_header", ffi.new "size_t[1]"
  local taken, err = 0, C.GW_AGAIN
  for _, piece in ipairs(pieces) do
    err = C.gw_proxy_header_feed(header, piece, #piece, used)
    taken = taken + tonumber(used[0])
    if err ~= C.GW_AGAIN then break end
    assert.equal(#piece, tonumber(used[0]))
  end
  if err == C.GW_OK then return taken, text(header.client) end
  return taken, nil, rt.cstring(C.gw_err_slug(err))
end

local function check(case, pieces)
  local taken, client, err = feed(pieces)
  assert.equal(case.err, err)
  assert.equal(case.client, client)
  if not case.err then assert.equal(#case.bytes, taken) end
end

describe("a header of the PROXY protocol", function()
  for _, case in ipairs(cases) do
    it("is read whole, split at every byte, and byte by byte: " .. case.name, function()
      local bytes = case.bytes .. BEHIND
      check(case, { bytes })
      for at = 1, #case.bytes do check(case, { bytes:sub(1, at), bytes:sub(at + 1) }) end
      local pieces = {}
      for at = 1, #bytes do pieces[at] = bytes:sub(at, at) end
      check(case, pieces)
    end)

    if not case.err then
      it("is not complete before its last byte: " .. case.name, function()
        local _, client, err = feed { case.bytes:sub(1, -2) }
        assert.same({ nil, "again" }, { client, err })
      end)
    end
  end
end)

describe("a connection that begins with it", function()
  local loop, side

  before_each(function()
    loop = net.loop()
  end)
  after_each(function()
    http1.clean(loop)
  end)

  local function serve(options)
    options = options or {}
    options.transport = C.gw_proxy_protocol
    options.on_end = function(s) s:reply { body = "ok" } end
    side = http1.server(loop, options)
    return side
  end

  local V1 = "PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\n"

  it("gets the client for its peer, and is HTTP behind it, in one piece", function()
    serve()
    side:feed(loop, V1 .. BEHIND, 4)
    assert.equal("203.0.113.7:40000", text(side.codec.conn.peer))
    assert.matches("^HTTP/1.1 200.*ok$", (side:received(loop)))
    assert.equal("open, head GET /, end, close ok", side:story())
  end)

  it("may come byte by byte", function()
    serve()
    for at = 1, #V1 do side:feed(loop, V1:sub(at, at), 1) end
    side:feed(loop, BEHIND, 4)
    assert.equal("203.0.113.7:40000", text(side.codec.conn.peer))
    assert.equal("open, head GET /, end, close ok", side:story())
  end)

  for _, case in ipairs(cases) do
    if case.err then
      it("is closed without an answer: " .. case.name, function()
        serve()
        side:feed(loop, case.bytes, 4)
        assert.equal("unopened " .. case.err .. ", gone", side:story())
        local bytes, ended = side:received(loop)
        assert.equal("", bytes)
        assert.truthy(ended)
      end)
    end
  end

  it("is closed when the header does not come, in part or at all", function()
    for _, part in ipairs { "", "PROXY TC" } do
      serve { head_ms = 20, idle_ms = 100000 }
      side:feed(loop, part)
      net.turn_until(loop, function() return side.gone end)
      assert.equal("unopened head_timeout, gone", side:story())
    end
  end)

  it("has the time of an idle connection behind the header", function()
    serve { head_ms = 100000, idle_ms = 20 }
    side:feed(loop, V1)
    net.turn_until(loop, function() return side.gone end)
    assert.equal("open, gone", side:story())
  end)

  it("may be left before it is complete", function()
    for _, part in ipairs { "", "PROXY TC" } do
      serve()
      side:feed(loop, part)
      net.close(side.fd)
      net.turn_until(loop, function() return side.gone end)
      assert.equal("unopened reset, gone", side:story())
    end
  end)

  it("is closed by a drain while nothing of it is there to read", function()
    for _, part in ipairs { "", "PROXY TC" } do
      serve()
      side:feed(loop, part)
      side:drain()
      assert.equal("gone", side:story())
    end
  end)

  it("is served its request by a drain that finds both under way", function()
    serve()
    net.send(side.fd, V1 .. BEHIND)
    side:drain()
    http1.turn(loop, 4)
    assert.matches("^HTTP/1.1 200.*[Cc]onnection: close", (side:received(loop)))
    assert.equal("open, head GET /, end, close ok, gone", side:story())
  end)

  it("is closed behind the header, when a drain has begun and no request is there", function()
    serve()
    net.send(side.fd, V1)
    side:drain()
    http1.turn(loop, 4)
    assert.equal("open, gone", side:story())
  end)

  it("is closed by its owner before it is complete", function()
    serve()
    side:feed(loop, "PROXY TC")
    side:close()
    assert.equal("gone", side:story())
  end)
end)
