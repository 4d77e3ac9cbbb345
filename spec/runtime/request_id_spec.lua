local ffi = require "ffi"
local rt = require "support.runtime"
local C = rt.load("gateway/request_id.h")

local DRAWN = "0123456789abcdef00ff10a0c0ffee42"

-- Packs it into as many bytes as were announced, and unpacks it.
local function there_and_back(id)
  local size = tonumber(C.gw_id_packed_size(id))
  local packed = ffi.new("char[?]", size + 1)
  packed[size] = 77
  C.gw_id_pack(id, packed)
  assert.equal(77, packed[size])
  local text = ffi.new "char[65]"
  return rt.cstring(C.gw_id_unpack(packed, text)), size
end

describe("a request id", function()
  it("is drawn as 32 hexadecimal digits, another one each time", function()
    local seen = {}
    for _ = 1, 1000 do
      local text = ffi.new "char[65]"
      C.gw_id_new(text)
      local id = rt.cstring(text)
      assert.is_truthy(id:find "^%x+$")
      assert.equal(32, #id)
      assert.is_nil(seen[id])
      seen[id] = true
      assert.equal(id, (there_and_back(id)))
    end
  end)

  it("takes 16 bytes and a mark when it is packed", function()
    local id, size = there_and_back(DRAWN)
    assert.equal(DRAWN, id)
    assert.equal(17, size)
    assert.equal(("f"):rep(32), (there_and_back(("f"):rep(32))))
    assert.equal(("0"):rep(32), (there_and_back(("0"):rep(32))))
  end)

  it("is kept as the text it is where it is another one", function()
    local others = { "a", DRAWN:upper(), DRAWN .. "0", DRAWN:sub(2), DRAWN:sub(2) .. "g", ("z"):rep(64) }
    for _, id in ipairs(others) do
      local same, size = there_and_back(id)
      assert.equal(id, same)
      assert.equal(#id + 1, size)
    end
  end)
end)
