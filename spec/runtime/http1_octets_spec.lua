-- Every octet at every place around the two fields that say how long a body is: it makes another name of it,
-- means nothing, or the request is refused. What tools that look for request smuggling try, without gaps.
local http1 = require "support.http1"
local net = require "support.net"

local POST = "POST / HTTP/1.1\r\nHost: x\r\n"
local BODY = "3\r\nabc\r\n0\r\n\r\n" -- 13 bytes, and three in one chunk

local loop

before_each(function()
  loop = net.loop()
end)

after_each(function()
  http1.clean(loop)
end)

-- What was understood: the body, the names of other fields, and the last status.
local function ask(bytes)
  local side = http1.server(loop, { on_end = function(s) s:reply { body = "ok" } end })
  side:feed(loop, bytes, 1)
  local text = side:received(loop)
  local s, status = side.streams[1], nil
  for found in text:gmatch "HTTP/1%.1 (%d+)" do status = tonumber(found) end
  local got = { status = status, gone = side.gone, body = s and s.ended and s.got, n = #side.streams }
  got.fields = s and s.ended and s.head.fields or {}
  http1.forget()
  return got
end

local function is_token(char)
  return char:find "^[%w!#$%%&'*+%-.^_`|~]$" ~= nil
end

local function assert_refused(got, where)
  assert.equal(400, got.status, where)
  assert.is_true(got.gone, where)
  assert.falsy(got.body, where)
end

local function each_octet(run)
  for code = 0, 255 do run(string.char(code), ("octet 0x%02x"):format(code)) end
end

-- The field with an octet at each of the places where readers disagree.
local PLACES = {
  { "in front of the name", function(name, value, c) return c .. name .. ": " .. value end, name = true },
  { "behind the name", function(name, value, c) return name .. c .. ": " .. value end, name = true },
  { "in front of the value", function(name, value, c) return name .. ":" .. c .. value end },
  { "behind the value", function(name, value, c) return name .. ": " .. value .. c end },
}

for _, place in ipairs(PLACES) do
  local where, write = place[1], place[2]

  describe("an octet " .. where, function()
    it("of a coding", function()
      each_octet(function(c, what)
        local got = ask(POST .. write("Transfer-Encoding", "chunked", c) .. "\r\n\r\n" .. BODY)
        if place.name and is_token(c) then
          -- Another field; so there is no body, and the rest is no request.
          assert.equal(1, #got.fields, what)
          assert.equal("", got.body, what)
        elseif not place.name and (c == " " or c == "\t") then
          assert.same({ 200, "abc" }, { got.status, got.body }, what)
        else
          assert_refused(got, what)
        end
      end)
    end)

    it("of a coding beside a length", function()
      each_octet(function(c, what)
        local field = write("Transfer-Encoding", "chunked", c)
        local got = ask(POST .. "Content-Length: 13\r\n" .. field .. "\r\n\r\n" .. BODY)
        if place.name and is_token(c) then
          assert.same({ 200, BODY, 1 }, { got.status, got.body, #got.fields }, what)
        else
          assert_refused(got, what)
        end
      end)
    end)

    it("of a length beside a coding", function()
      each_octet(function(c, what)
        local field = write("Content-Length", "13", c)
        local got = ask(POST .. "Transfer-Encoding: chunked\r\n" .. field .. "\r\n\r\n" .. BODY)
        if place.name and is_token(c) then
          assert.same({ 200, "abc", 1 }, { got.status, got.body, #got.fields }, what)
        else
          assert_refused(got, what)
        end
      end)
    end)
  end)
end

describe("an octet", function()
  it("behind a chunk's size", function()
    each_octet(function(c, what)
      local got = ask(POST .. "Transfer-Encoding: chunked\r\n\r\n3" .. c .. "\r\nabc\r\n0\r\n\r\n")
      if c:find "%x" then
        assert.falsy(got.body, what)
      else
        assert_refused(got, what)
      end
    end)
  end)

  it("behind a chunk", function()
    each_octet(function(c, what)
      assert_refused(ask(POST .. "Transfer-Encoding: chunked\r\n\r\n3\r\nabc" .. c .. "\r\n0\r\n\r\n"), what)
    end)
  end)

  it("of an extension", function()
    each_octet(function(c, what)
      local got = ask(POST .. "Transfer-Encoding: chunked\r\n\r\n3;a" .. c .. "\r\nabc\r\n0\r\n\r\n")
      if got.status ~= 200 then return assert_refused(got, what) end
      assert.is_true(is_token(c) or c == "=" or c == ";", what)
      assert.same({ "abc", 1 }, { got.body, got.n }, what)
    end)
  end)
end)
