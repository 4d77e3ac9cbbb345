--- The keyed hash and the comparison of gateway.core, in a VM of the runtime.
local ffi = require "ffi"
local rt = require "support.runtime"
local vms = require "spec.support.vm"

local C = rt.load("script/vm.h")

-- RFC 4231, section 4: key, data, HMAC-SHA-256.
local VECTORS = {
  { ("\11"):rep(20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
  { "Jefe", "what do ya want for nothing?",
    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
  { ("\170"):rep(20), ("\221"):rep(50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe" },
  { "\1\2\3\4\5\6\7\8\9\10\11\12\13\14\15\16\17\18\19\20\21\22\23\24\25", ("\205"):rep(50),
    "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b" },
  { ("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First",
    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" },
  { ("\170"):rep(131), "This is a test using a larger than block-size key and a larger than block-size data. "
    .. "The key needs to be hashed before being used by the HMAC algorithm.",
    "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2" },
}

describe("gateway.core in the runtime", function()
  local library, env

  setup(function()
    library = C.gw_library_new "lua"
    env = ffi.new("struct gw_script_env", { library = library })
  end)
  teardown(function() C.gw_library_free(library) end)

  local function result(text)
    local got
    vms.with(env, function(vm)
      got = vms.run(vm, 'local core = require("gateway.core")  return tostring(' .. text .. ")")
    end)
    return got
  end

  for i, vector in ipairs(VECTORS) do
    it("has the HMAC-SHA256 of RFC 4231, vector " .. i, function()
      assert.equal(vector[3], result(("core.hmac_sha256(%q, %q)"):format(vector[1], vector[2])))
    end)
  end

  it("hashes nothing, with no key", function()
    assert.equal("b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad",
      result 'core.hmac_sha256("", "")')
  end)

  it("has a new key each time", function()
    assert.equal("true", result [[(function()
      local first, other = core.hmac_sha256("a", "x"), core.hmac_sha256("b", "x")
      local none = core.hmac_sha256("", "")
      return first ~= other and none:find("^b613679a") ~= nil
        and first == core.hmac_sha256("a", "x") and other == core.hmac_sha256("b", "x")
    end)()]])
  end)

  it("compares whole texts", function()
    for text, same in pairs {
      ['"", ""'] = "true", ['"a", "a"'] = "true", ['"a\\0b", "a\\0b"'] = "true",
      ['"a\\0b", "a\\0c"'] = "false", ['"a", "b"'] = "false", ['"a", "ab"'] = "false",
      ['"", "a"'] = "false",
    } do
      assert.message(text).equal(same, result("core.equal(" .. text .. ")"))
    end
  end)

  it("has random names, each another one", function()
    local one, other = result "core.random(16)", result "core.random(16)"
    assert.matches("^%x+$", one)
    assert.same({ 32, 64 }, { #one, #result "core.random(32)" })
    assert.not_equal(one, other)
    assert.has_error(function() result "core.random(33)" end)
  end)
end)
