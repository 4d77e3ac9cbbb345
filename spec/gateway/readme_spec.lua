--- README.md followed to the letter: its commands, and its plugin in five minutes, on the demo.
local demo = require("spec.support.demo")
local gateway = require("spec.support.gateway")
local guide = require("spec.support.guide")
local http = require("spec.support.http")
local process = require("spec.support.process")

local README = demo.read("README.md")

-- The commands that begin with a word, wherever a page or an example shows them.
local function commands(word)
  local found, seen = {}, {}
  local function add(line)
    line = line:gsub("%s%s+.*$", "") -- what it does stands behind it
    if line:find("^" .. word .. " ") and not seen[line] then
      found[#found + 1], seen[line] = line, true
    end
  end
  for _, line in ipairs(guide.commands(README)) do add(line) end
  for _, span in ipairs(guide.code(README)) do add(span) end
  for _, path in ipairs({ "conf/gateway-sse.yaml", "conf/routes/status.lua", "conf/sticky-sessions.yaml" }) do
    for line in demo.read(path):gmatch("[^\n]+") do
      local comment = line:match("^%s*#%s+(.*)$") or line:match("^%s*%-%-%s+(.*)$")
      if comment then add((comment:gsub('"%s+http', '" http'))) end
    end
  end
  return found
end

-- The blocks of the README that belong to a plugin: the file, and the rule that names it.
local function first_plugin()
  local plugin, rule
  for _, block in ipairs(guide.blocks(README)) do
    if block.lang == "lua" and block.text:find("return plugin", 1, true) then plugin = block.text end
    if block.lang == "yaml" then rule = block.text end
  end
  return plugin, rule
end

describe("README.md", function()
  local site, gw

  before_each(function()
    site = demo.start()
    gw = site.gateway
  end)
  after_each(function() site:stop() end)

  -- Runs a curl line in a shell, with the port of our demo.
  local function shell(line)
    assert.matches("localhost:8080/", line, nil, true)
    return process.spawn({ "sh", "-c", "exec " .. line:gsub("localhost:8080", "localhost:" .. gw.port) })
  end

  local streams = {}
  for _, line in ipairs(commands("curl")) do
    if line:find("curl -N ", 1, true) then streams[#streams + 1] = line end
  end

  it("has commands to try", function()
    assert.is_true(#streams >= 3)
    assert.is_true(#commands("build/gatewayd") >= 3)
  end)

  for _, line in ipairs(streams) do
    it("shows a stream with: " .. line, function()
      local curl = shell(line)
      curl:wait_line("^data: ", 15)
      curl:wait_line("^$", 15)
      assert.is_true(curl:is_running())
      curl:kill()
    end)
  end

  for _, line in ipairs(commands("build/gatewayd")) do
    local args = {}
    for arg in line:gmatch("%S+") do args[#args + 1] = arg:gsub("^FILE$", "conf/gateway-sse.yaml") end
    table.remove(args, 1)
    if args[1] ~= "-c" then
      it("has a command that does well: " .. line, function()
        local code, _, err = gateway.run(args)
        assert.equal(0, code, err)
      end)
    end
  end

  it("gets a reader a plugin while the stream is open, and keeps it when it is misspelt", function()
    local plugin, rule = first_plugin()
    local stream = http.stream(gw.port, "/events?rate=50")
    assert.equal("connected", stream:event(15).type)
    local mark = gw:mark()

    gw:write("plugins/greeter.lua", plugin)
    local id = rule:match("%- (id: [%w-]+)")
    local yaml = demo.read(gw.conf)
    yaml = demo.replaced(yaml, "- " .. id, "- " .. id .. "\n" .. rule:match("\n( +plugins:.*)\n"))
    gw:write("conf/gateway.yaml", yaml)
    assert.matches("msg=reloaded", gw:wait_reload(mark))
    local event
    repeat event = assert(stream:event(15)) until event.id == "moin-1"
    assert.equal("moin-2", stream:event(15).id)

    local hello
    for _, line in ipairs(commands("curl")) do
      if line:find("?hello", 1, true) then hello = line end
    end
    shell(hello):wait_line("^moin$", 15)

    mark = gw:mark()
    gw:write("conf/gateway.yaml", demo.replaced(yaml, "{word:", "{wrod:"))
    assert.matches("reload failed", gw:wait_reload(mark))
    assert.matches('did you mean .-word', gw:find_log("wrod", mark)[1])
    local last = stream:event(15).id
    assert.equal(tonumber(last:match("^moin%-(%d+)$")) + 1, tonumber(stream:event(15).id:match("%d+$")))
    stream.conn:close()
  end)
end)
