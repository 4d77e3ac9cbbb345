--- Cookies as they stand in heads.
local cookie = require("gateway.cookie")

describe("cookie.date", function()
  -- `date -u -d TEXT +%s` says the same.
  local dates = {
    ["Thu, 01 Jan 1970 00:00:00 GMT"] = 0,
    ["Sun, 06 Nov 1994 08:49:37 GMT"] = 784111777,
    ["Sunday, 06-Nov-94 08:49:37 GMT"] = 784111777,
    ["Sun Nov  6 08:49:37 1994"] = 784111777,
    ["Tue, 29 Feb 2000 12:00:00 GMT"] = 951825600,
    ["Thu, 31-Dec-2099 23:59:59 GMT"] = 4102444799,
    ["Fri, 1 Mar 2024 0:00:01 GMT"] = 1709251201,
    ["Mon, 18-Jan-38 00:00:00 GMT"] = 2147385600,
  }
  for text, seconds in pairs(dates) do
    it("reads " .. text, function() assert.equal(seconds, cookie.date(text)) end)
  end

  it("reads nothing else", function()
    for _, text in ipairs({ "", "0", "tomorrow", "Thu, 01 Foo 1970 00:00:00 GMT", "01 Jan 1970" }) do
      assert.is_nil(cookie.date(text), text)
    end
  end)
end)

describe("cookie.find_set", function()
  local function found(...)
    return cookie.find_set({ ... }, "S", 1000)
  end

  it("gives the value that a request will carry", function()
    for line, want in pairs({
      ["S=1"] = "1", ["S=1; Path=/; HttpOnly"] = "1", [" S = a=b ;x"] = "a=b", ["S=1;Max-Age=5"] = "1",
      ['S="q"; Secure'] = '"q"', ["S=1; Expires=Thu, 01 Jan 1970 01:00:00 GMT"] = "1",
      ["S=1; expires=nonsense"] = "1", ["S=a b"] = "a",
      -- Max-Age goes first.
      ["S=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60"] = "1",
    }) do
      assert.equal(want, found(line), line)
    end
  end)

  it("gives none for a cookie that is deleted", function()
    for _, line in ipairs({
      "S=", "S=; Path=/", "S=1; Max-Age=0", "S=1; max-age = -1", "S=1; MAX-AGE=0; Path=/",
      "S=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "S=x; Path=/; expires=Thu, 01-Jan-1970 00:00:10 GMT",
      "S=x; Expires=Thu, 31-Dec-2099 23:59:59 GMT; Max-Age=0",
    }) do
      assert.equal("", found(line), line)
    end
  end)

  it("gives nothing where nothing is said of it", function()
    for _, line in ipairs({ "", "T=1", "SS=1", "s=1", "S", "a; S=1", "T=S=1" }) do
      assert.is_nil(found(line), line)
    end
    assert.is_nil(found())
  end)

  -- The worker does nothing else meanwhile. Reading each byte once takes less than a millisecond; looking for
  -- the end of the name from each blank took five seconds.
  it("reads lines of any form in no time", function()
    local began, blanks = os.clock(), (" "):rep(30000)
    assert.is_nil(found("a" .. blanks .. "b", blanks:sub(1, 3000) .. "b", "a" .. blanks .. "; S=1"))
    assert.is_true(os.clock() - began < 1)
  end)

  it("takes the last word", function()
    assert.equal("2", found("S=1", "T=3", "S=2"))
    assert.equal("", found("S=1", "S=; Max-Age=0"))
    assert.equal("1", found("S=; Max-Age=0", "S=1", "T=2"))
  end)
end)

describe("cookie.format", function()
  it("has the attributes in their order", function()
    assert.equal("S=1; Path=/; HttpOnly; SameSite=Lax", cookie.format("S", "1", { path = "/" }, false))
    assert.equal("S=1; Path=/a; Domain=example.com; Max-Age=60; HttpOnly; SameSite=Lax; Secure",
      cookie.format("S", "1", { path = "/a", domain = "example.com", max_age = 60 }, true))
    assert.matches("Max%-Age=1;", cookie.format("S", "1", { path = "/", max_age = 0.2 }, false))
  end)
end)
