--- Random damage to configurations: what is wrong gets errors with a place each, and nothing ever raises.
-- GATEWAYD_SEED plays other damage, GATEWAYD_ROUNDS more of it.
local parse = require("spec.support.yaml")
local config = require("gateway.config")

local SEED = tonumber(os.getenv("GATEWAYD_SEED")) or 7
local ROUNDS = tonumber(os.getenv("GATEWAYD_ROUNDS")) or 3000

local ODD = { "", "0", "-1", "nan", "true", "null", "~", "[]", "{}", "[[]]", "{a: {b: c}}", '""', "'",
  '"', "&a", "*a", "<<: *a", "!!int x", "${HOME}", "${NO:-x}", "${", "100ms", "5 s", "64KiB",
  "9999999999999999", "/a/{b}/*", "/%zz", "::/129", "unix:/", "\0", "\255\254", "\195\164", "a\tb", "- ",
  "? ", ": ", "|", ">", "#", "\n", "  ", "---\n", "...\n", ("x"):rep(3000), ("["):rep(80), "name: s",
  "instances: [{}]", 'listeners: [{host: "unix:/a", port: 1}]' }

local function texts()
  local list = {}
  local pipe = assert(io.popen("ls conf/*.yaml"))
  for name in pipe:lines() do
    local file = assert(io.open(name))
    list[#list + 1] = file:read("*a"):gsub("#[^\n]*", "")
    file:close()
  end
  pipe:close()
  return list
end

local function pick(list) return list[math.random(#list)] end

-- Words and what stands between them.
local function pieces_of(text)
  local pieces = {}
  for space, word in text:gmatch("([%s%[%]{},:]*)([^%s%[%]{},:]*)") do
    pieces[#pieces + 1], pieces[#pieces + 2] = space, word
  end
  return pieces
end

local function damaged(list)
  local pieces, other = pieces_of(pick(list)), pieces_of(pick(list))
  for _ = 1, math.random(4) do
    local at, how = math.random(#pieces), math.random(5)
    if how == 1 then
      pieces[at] = pick(ODD)
    elseif how == 2 then
      table.remove(pieces, at)
    elseif how == 3 then
      table.insert(pieces, at, pick(ODD))
    elseif how == 4 then
      pieces[at] = pick(other)
    else
      table.insert(pieces, at, pick(pieces))
    end
  end
  return table.concat(pieces)
end

describe("a damaged configuration", function()
  it("has errors that say where, or is good, and prints as what is good again", function()
    math.randomseed(SEED)
    local list, good, bad = texts(), 0, 0
    for _ = 1, ROUNDS do
      local text = damaged(list)
      local ok, tree, errors = xpcall(config.load, debug.traceback, text, "x.yaml",
        { yaml = parse, env = function() end })
      assert.message(text .. "\n" .. tostring(tree)).is_true(ok)
      if tree then
        good = good + 1
        local again, why = config.load(config.print(tree), "x.yaml", { yaml = parse, env = function() end })
        assert.message(text .. "\n" .. table.concat(why, "\n")).is_table(again)
      else
        bad = bad + 1
        assert.is_true(#errors > 0, text)
        for _, line in ipairs(errors) do assert.matches("^x%.yaml:%d+:%d+: %S", line) end
      end
    end
    assert.is_true(good > ROUNDS / 100 and bad > ROUNDS / 100, ("%d good, %d bad"):format(good, bad))
  end)
end)
