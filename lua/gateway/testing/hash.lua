--- gateway.testing.hash: the runtime's hash in Lua (SipHash-1-3), so that specs place keys where gatewayd
-- would. Called by gateway.testing.core; holds no state.
-- Without literals of 64 bits: the library is compiled in a VM that has no ffi, which can't hold any.

local bit = require("bit")
local ffi = require("ffi")

local bxor, bor, lshift, rshift, rol = bit.bxor, bit.bor, bit.lshift, bit.rshift, bit.rol
local u64 = ffi.typeof("uint64_t")

local function word(high, low)
  return bor(lshift(u64(high), 32), u64(low))
end

-- "somepseudorandomlygeneratedbytes"
local A, B = word(0x736f6d65, 0x70736575), word(0x646f7261, 0x6e646f6d)
local C, D = word(0x6c796765, 0x6e657261), word(0x74656462, 0x79746573)

local function round(a, b, c, d)
  a, c = a + b, c + d
  b, d = bxor(rol(b, 13), a), bxor(rol(d, 16), c)
  a = rol(a, 32)
  c, a = c + b, a + d
  b, d = bxor(rol(b, 17), c), bxor(rol(d, 21), a)
  return a, b, rol(c, 32), d
end

-- Up to eight bytes from `at` on, the first one lowest.
local function word_at(text, at)
  local out = u64(0)
  for i = math.min(at + 7, #text), at, -1 do out = bor(lshift(out, 8), u64(text:byte(i))) end
  return out
end

---@param text string
---@param salt integer
---@return integer below 2^53
return function(text, salt)
  local a, b, c, d = bxor(u64(salt), A), B, bxor(u64(salt), C), D
  for at = 1, #text + 1, 8 do
    local next_word = word_at(text, at)
    if at + 7 > #text then next_word = bor(next_word, lshift(u64(#text), 56)) end
    a, b, c, d = round(a, b, c, bxor(d, next_word))
    a = bxor(a, next_word)
  end
  c = bxor(c, u64(0xff))
  for _ = 1, 3 do a, b, c, d = round(a, b, c, d) end
  return tonumber(rshift(bxor(bxor(a, b), bxor(c, d)), 11))
end
