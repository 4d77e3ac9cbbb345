--- The rock: its rockspec is in order, and what it installs from this tree runs from where it is.
local process = require "spec.support.process"

local ROCKSPEC = "gatewayd-scm-1.rockspec"

local function output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return (text:gsub("%s+$", ""))
end

-- Runs to the end; the status and all that was printed, for messages.
local function run(argv, options)
  local child = process.spawn(argv, options)
  local status = assert(child:wait(300), "did not end: " .. table.concat(argv, " "))
  return status.code, child:text "stdout" .. child:text "stderr"
end

describe("the rock #once", function()
  local tree = output_of "mktemp -d"
  local env = { HOME = tree, GATEWAYD_LUA = false }

  local function luarocks(...)
    return run({ "luarocks", "--lua-version=5.1", ... }, { env = env })
  end

  teardown(function() os.execute("rm -rf '" .. tree .. "'") end)

  it("has a rockspec without faults", function()
    local code, said = luarocks("lint", ROCKSPEC)
    assert.message(said).equal(0, code)
  end)

  it("installs without the network, and runs", function()
    local headers = output_of "pkg-config --variable=includedir luajit"
    local code, said = luarocks("make", "--tree=" .. tree, "--deps-mode=none",
      "LUA_INCDIR=" .. headers, ROCKSPEC)
    assert.message(said).equal(0, code)

    local gatewayd = tree .. "/bin/gatewayd"
    code, said = run({ gatewayd, "--version" }, { env = env, cwd = tree })
    assert.message(said).equal(0, code)
    assert.matches("^gatewayd %d+%.%d+%.%d+", said)

    local share = output_of("dirname $(find '" .. tree .. "' -path '*/share/gatewayd/conf')")
    for _, conf in ipairs { "minimal.yaml", "gateway-sse.yaml" } do
      code, said = run({ gatewayd, "-t", "-c", share .. "/conf/" .. conf }, { env = env, cwd = tree })
      assert.message(said).equal(0, code)
    end

    code, said = run({ "luajit", "-e", "require 'gateway.schema'" }, {
      cwd = tree,
      env = { LUA_PATH = tree .. "/share/lua/5.1/?.lua;" .. tree .. "/share/lua/5.1/?/init.lua" },
    })
    assert.message(said).equal(0, code)
  end)
end)
