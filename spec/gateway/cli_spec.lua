--- The command line: what it checks, prints and refuses, and the exit codes.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

local ROUTE = [[
registry: {static: {services: [{name: api, instances: [{id: a, address: 127.0.0.1, port: 1}]}]}}
router:
  rules:
    - {id: api, path: /api, serviceName: api%s}
]]

-- Runs with a configuration of that text; code, stdout, stderr, and the file's name.
local function run_with(flags, text, files, env)
  local gw = gateway.prepare { yaml = text, files = files }
  local args = {}
  for flag in flags:gmatch "%S+" do args[#args + 1] = flag end
  args[#args + 1], args[#args + 2] = "-c", gw.conf
  local code, out, err = gateway.run(args, { env = env })
  return code, out, err, gw.conf
end

local function check(...)
  return run_with("-t", ...)
end

-- The check fails with a line that has all of these, as plain text.
local function assert_refused(parts, text, files)
  local code, _, err = check(text, files)
  assert.equal(1, code, err)
  for line in err:gmatch "[^\n]+" do
    local all = true
    for _, part in ipairs(parts) do all = all and line:find(part, 1, true) end
    if all then return err end
  end
  error(("no line with %s in:\n%s"):format(table.concat(parts, " … "), err))
end

describe("gatewayd", function()
  after_each(gateway.stop_all)

  describe("without a configuration", function()
    it("tells its version", function()
      local code, out = gateway.run { "--version" }
      assert.equal(0, code)
      assert.matches("^gatewayd %d+%.%d+%.%d+", out)
    end)

    it("helps", function()
      local code, out = gateway.run { "--help" }
      assert.equal(0, code)
      for _, word in ipairs { "-c", "-t", "--print-conf", "--version" } do
        assert.is_true(out:find(word, 1, true) ~= nil, word)
      end
    end)

    for _, args in ipairs { {}, { "--nonsense" }, { "-c" }, { "-t" }, { "x.yaml" } } do
      it("is used wrongly with: " .. table.concat(args, " "), function()
        local code, _, err = gateway.run(args)
        assert.equal(2, code)
        assert.matches("usage", err)
      end)
    end
  end)

  describe("-t", function()
    it("finds nothing wrong with the configurations that come with it", function()
      local list = assert(io.popen "ls conf/*.yaml")
      local count = 0
      for file in list:lines() do
        local code, _, err = gateway.run { "-t", "-c", file }
        assert.message(err).equal(0, code)
        count = count + 1
      end
      list:close()
      assert.is_true(count >= 2)
    end)

    it("needs no free port", function()
      local taken = backend.listen()
      local code, _, err = check(ROUTE:format "" .. ("frontend: {http: {host: 127.0.0.1, port: %d}}\n")
        :format(taken.port))
      assert.message(err).equal(0, code)
    end)

    it("names file, line, column, key and the nearest name", function()
      local code, _, err, conf = check(ROUTE:format ", loadBalance: round_robbin")
      assert.equal(1, code)
      local line = conf:gsub("%p", "%%%0") .. ":4:%d+: gateway.router.rules%[1%].loadBalance: .*round_robbin"
      assert.matches(line, err)
      assert.matches('did you mean "round_robin"', err, 1, true)
    end)

    it("reports all faults of a file, in order", function()
      local code, _, err = check(ROUTE:format ", pathh: 1, timeout: soon" .. "workerz: 3\n")
      assert.equal(1, code)
      local pathh, timeout, workerz = err:find "pathh", err:find "timeout", err:find "workerz"
      assert.is_true(pathh and timeout and workerz and pathh < timeout and timeout < workerz, err)
      assert.matches('"path"', err, 1, true)
      assert.matches('"workers"', err, 1, true)
    end)

    it("says where YAML is not YAML", function()
      local code, _, err, conf = check "router:\n  rules: [\n"
      assert.equal(1, code)
      assert.matches(conf:gsub("%p", "%%%0") .. ":%d+:%d+: ", err)
    end)

    it("says that there is no such file", function()
      local code, _, err = gateway.run { "-t", "-c", "/nonexistent/x.yaml" }
      assert.equal(1, code)
      assert.matches("/nonexistent/x.yaml", err, 1, true)
    end)

    it("knows which plugins there are", function()
      assert_refused({ "gateway.yaml:4:", "evnt_filter" }, ROUTE:format ", plugins: [evnt_filter]")
    end)

    it("checks a plugin's settings", function()
      local text = ROUTE:format ", plugins: [{paint: {colour: green}}]"
      assert_refused({ "gateway.yaml:4:", "colour", "green" }, text, {
        ["plugins/paint.lua"] = [[return {
          name = "paint",
          schema = { colour = { type = "enum", values = { "red" } } },
          access = function() end,
        }]],
      })
    end)

    it("compiles plugins", function()
      assert_refused({ "plugins/bad.lua:2:" }, ROUTE:format ", plugins: [bad]", {
        ["plugins/bad.lua"] = "return {\n  name = = 'bad'\n}\n",
      })
    end)

    it("runs what a plugin does at its start", function()
      assert_refused({ "plugins/bad.lua", "oh no" }, ROUTE:format ", plugins: [bad]", {
        ["plugins/bad.lua"] = [[return {
          name = "bad",
          new = function() error("oh no") end,
          access = function() end,
        }]],
      })
    end)

    it("does not take just anything for a plugin", function()
      local files = { ["plugins/bad.lua"] = "return 7" }
      assert_refused({ "plugins/bad.lua" }, ROUTE:format ", plugins: [bad]", files)
    end)

    local routes = "router: {lua: [routes/*.lua]}\n" .. (ROUTE:gsub("router:.*", ""))
    it("takes Lua routes", function()
      local code, _, err = check(routes, {
        ["conf/routes/a.lua"] = "return { { path = '/x', serviceName = function() return 'api' end } }",
      })
      assert.message(err).equal(0, code)
    end)

    local nonsense = {
      ["do not compile"] = "return {{",
      ["raise"] = "error 'oh no'",
      ["return nothing"] = "",
      ["return no list"] = "return 7",
      ["have unknown keys"] = "return { { path = '/x', serviceName = 'api', pathh = 1 } }",
      ["name no service"] = "return { { path = '/x', serviceName = 'apy' } }",
      ["have a path of nonsense"] = "return { { path = 'x', serviceName = 'api' } }",
    }
    for what, text in pairs(nonsense) do
      it("refuses Lua routes that " .. what, function()
        assert_refused({ "routes/a.lua" }, routes, { ["conf/routes/a.lua"] = text })
      end)
    end

    it("replaces from the environment", function()
      local text = ROUTE:format ""
        .. "frontend: {http: {port: \"${SPEC_PORT}\", host: \"${SPEC_HOST:-127.0.0.1}\"}}\n"
      local code, out, err = run_with("--print-conf", text, nil, { SPEC_PORT = "4711" })
      assert.message(err).equal(0, code)
      assert.matches("port: 4711", out)
      assert.equal(1, (check(text)))
    end)
  end)

  describe("--print-conf", function()
    it("fills in the defaults", function()
      local code, out, err = run_with("--print-conf", ROUTE:format "")
      assert.message(err).equal(0, code)
      for _, line in ipairs {
        "readTimeout: 30s?", "keepaliveTimeout: 30s?", "maxIdleConnsPerHost: 10", "loadBalance: round_robin",
        "keepaliveMode: interval", "responseHeaderTimeout: 10s?", "serviceName: api",
      } do
        assert.matches(line, out)
      end
    end)

    it("prints a configuration that means the same", function()
      local _, once = run_with("--print-conf", ROUTE:format ", plugins: [], timeout: 1500ms")
      local code, twice, err = run_with("--print-conf", once)
      assert.message(err).equal(0, code)
      assert.equal(once, twice)
    end)

    it("says what is wrong instead", function()
      local code, out, err = run_with("--print-conf", "workerz: 3\n")
      assert.same({ 1, "" }, { code, out })
      assert.matches("workerz", err)
    end)
  end)

  describe("started", function()
    local function options(port)
      return {
        services = { api = http.free_port() },
        rules = { { id = "api", path = "/api", serviceName = "api" } },
        config = { frontend = { http = { port = port } } },
      }
    end

    it("with a wrong configuration ends with 1", function()
      local code, _, err = run_with("", "workerz: 3\n")
      assert.equal(1, code)
      assert.matches("workerz", err)
    end)

    it("on a port that is taken ends with 3 and names it", function()
      local taken = backend.listen()
      local gw = gateway.prepare(options(taken.port))
      local code, _, err = gateway.run { "-c", gw.conf }
      assert.equal(3, code)
      assert.matches("127.0.0.1:" .. taken.port, err, 1, true)
      assert.matches("in use", err)
    end)

    it("looks for files from the configuration's folder, wherever it is started", function()
      local given = options(0)
      given.files = {
        ["conf/routes/a.lua"] = [[
          return { { path = "/lua", access = function(ctx) return ctx:reply(200, "lua") end } }
        ]],
      }
      given.config.router = { lua = { "routes/*.lua" } }
      local gw = gateway.start(given)
      assert.equal("lua", http.fetch(gw.port, "/lua").text)
    end)

    for _, workers in ipairs { 1, 2 } do
      for _, signal in ipairs { "TERM", "INT", "QUIT" } do
        it(("with %d worker(s) ends well by %s"):format(workers, signal), function()
          local given = options(0)
          given.workers = workers
          local gw = gateway.start(given)
          gw.process:signal(signal)
          assert.same({ code = 0 }, gw.process:wait(15))
          gw:stop()
        end)
      end
    end

    it("has both listeners on free ports when it is told 0", function()
      local given = options(0)
      given.config.management = { enabled = true, host = "127.0.0.1", port = 0 }
      local gw = gateway.start(given)
      assert.equal(404, http.fetch(gw.port, "/nowhere").status)
      assert.is_true(http.is_listening(gw.admin_port))
    end)
  end)
end)
