--- A plugin that does not come back, or eats memory without end, while it is loaded: its version is refused,
-- and the one that is served goes on.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local site = require "spec.support.site"
local streams = require "spec.support.streams"

local AT_LOAD = {
  loop = { "while true do end return { name = 'bad' }", "bad%.lua:1: stopped" },
  new = { "return { name = 'bad', new = function() while true do end end }", "bad%.lua:1: stopped" },
  pattern = { "('a'):rep(1e5):find(('.-'):rep(20) .. 'b')", "bad%.lua: stopped by force" },
  memory = { "local t = {} while true do t[#t + 1] = {} end", "bad%.lua:.*stopped" },
  wraps = { "local function f() return coroutine.wrap(f)() end f()", "bad%.lua" },
}

describe("a plugin that does not come back while it is loaded", function()
  local server

  setup(function() server = backend.listen() end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  for name, case in pairs(AT_LOAD) do
    it("is refused with its name: " .. name, function()
      local running = site.start {
        services = { api = server.port }, files = { ["plugins/bad.lua"] = "return { name = 'bad' }" },
        rules = { { id = "bad", path = "/bad", serviceName = "api", plugins = { "bad" } } },
      }
      running:write("plugins/bad.lua", case[1])
      local code, _, err = gateway.run { "-t", "-c", running.conf }
      assert.equal(1, code)
      assert.matches(case[2], err)
      local mark = running:mark()
      assert.is_nil((running:reload()))
      running:wait_log(case[2], nil, mark)
      local stream = streams.open(running, server, { path = "/bad" })
      stream:send("data: x\n\n")
      stream:expect("data: x\n\n")
      streams.close_all()
      running:stop()
    end)
  end
end)
