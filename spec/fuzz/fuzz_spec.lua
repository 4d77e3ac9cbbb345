--- The fuzz targets over what is in the tree: their corpora, and each input that broke something once. In
-- every build, without a fuzzer; see README.md.
local build = os.getenv "GATEWAYD_BUILD" or "build"

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close()
  return lines
end

local function inputs_of(kind, target)
  return lines_of(("ls -d spec/fuzz/%s/%s/* 2>/dev/null"):format(kind, target))
end

-- What it says, and whether it ended well.
local function run(target, paths)
  local inputs = table.concat(paths, " ")
  local command = ("FUZZ_VERBOSE=1 %s/fuzz/%s %s 2>&1; echo $?"):format(build, target, inputs)
  local lines = lines_of(command)
  local code = table.remove(lines)
  return lines, code == "0"
end

-- The input it stopped at, and what it said of it.
local function complaint(lines)
  local from = 1
  for i, line in ipairs(lines) do
    if line:find("^spec/fuzz/%w+/") then from = i end
  end
  return table.concat(lines, "\n", from, math.min(#lines, from + 30))
end

describe("the fuzz targets", function()
  local targets = lines_of [[ls spec/fuzz/*.c | sed 's,.*/\(.*\)\.c$,\1,']]

  it("are there", function()
    assert.is_true(#targets >= 12)
  end)

  for _, target in ipairs(targets) do
    it("find nothing in what they know: " .. target, function()
      local paths = inputs_of("corpus", target)
      local seeds = #paths
      assert.message("it has no corpus").is_true(seeds > 0)
      for _, path in ipairs(inputs_of("regressions", target)) do paths[#paths + 1] = path end
      local lines, ok = run(target, paths)
      assert.message(ok or complaint(lines)).is_true(ok)
      assert.equal(#paths .. " inputs", lines[#lines])
    end)
  end

  it("fail where a target fails", function()
    local lines, ok = run("json_field", { "spec/fuzz/no-such-file" })
    assert.is_false(ok)
    assert.matches("no%-such%-file", complaint(lines))
  end)
end)
