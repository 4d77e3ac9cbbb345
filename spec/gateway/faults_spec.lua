--- Faults of plugins, backends and clients that come at a bad moment: each has once done harm.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

describe("a fault", function()
  local server

  before_each(function()
    server = backend.listen()
  end)

  after_each(function()
    server:close()
    gateway.stop_all()
  end)

  -- A gateway with the plugin `p` on every route: /down has no backend, the rest has this one.
  local function start(plugin, config)
    return gateway.start {
      services = { api = server.port, down = http.free_port() },
      rules = {
        { id = "api", path = "/*", serviceName = "api", plugins = plugin and { "p" } },
        { id = "down", path = "/down", serviceName = "down", plugins = plugin and { "p" } },
      },
      files = plugin and { ["plugins/p.lua"] = ("local plugin = { name = 'p' }\n%s\nreturn plugin\n"):format(plugin) },
      config = config,
    }
  end

  local function send(gw, request)
    local client = http.connect(gw.port)
    client:send(http.format(request))
    return client
  end

  describe("of a plugin:", function()
    it("a reply that is refused leaves the answer that was there", function()
      local gw = start [[
        function plugin.on_response(ctx)
          for _ = 1, 3 do
            ctx.state.ok, ctx.state.why = pcall(ctx.reply, ctx, 200, "x", { ["not a name"] = "y" })
          end
          ctx.res.headers["X-Why"] = tostring(ctx.state.why)
        end
      ]]
      local response = http.fetch(gw.port, "/down")
      assert.equal(502, response.status)
      assert.match("not a header name", response:get "X-Why")
      assert.same({ '{"error":"the connection was refused"', "clean" },
        { response.text:match "^[^,]*", response.how })
    end)

    it("to wait where it can't raises, and nothing comes after the hook", function()
      local gw = start [[
        function plugin.access(ctx)
          local list, why = { 3, 1, 2 }, nil
          table.sort(list, function(a, b)
            why = select(2, pcall(gateway.sleep, 0.01))
            why = why .. select(2, pcall(function() return ctx.req.body end))
            return a < b
          end)
          return ctx:reply(200, why)
        end
      ]]
      for _ = 1, 3 do
        local client = send(gw, { method = "POST", path = "/", headers = { ["Content-Length"] = "5" } })
        local response = client:response()
        assert.match("can't wait inside of a callback.*ctx.req.body: a hook can't wait", (response:body()))
      end
      -- Longer than the sleeps would have been.
      local waited = start [[
        function plugin.access(ctx)
          gateway.sleep(0.1)
          return ctx:reply(200, "slept")
        end
      ]]
      assert.equal("slept", http.fetch(waited.port, "/").text)
      assert.equal(0, #gw:find_log "worker died")
    end)

    it("while it is loaded can't wait", function()
      local gw = gateway.prepare {
        rules = { { path = "/*", serviceName = "api", plugins = { "p" } } },
        services = { api = server.port },
        files = { ["plugins/p.lua"] = "gateway.sleep(1)\nreturn { name = 'p' }\n" },
      }
      local code, _, err = gateway.run { "-t", "-c", gw.conf }
      assert.equal(1, code)
      assert.match("no hook runs here", err)
    end)
  end)
end)
