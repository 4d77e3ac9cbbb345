--- The objects that plugins get: those of the runtime and those of gateway.testing are the same to a plugin.
-- One table of cases for each kind, played twice: in a plugin inside the real binary, and on the stand-ins.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"
local testing = require "gateway.testing"

local cases = require "spec.support.cases"
local event_cases = require "spec.support.event_cases"
local message_cases = require "spec.support.message_cases"

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local PLAYER = [[
local cases = require "cases"
local messages = require "message_cases"
local events = require "event_cases"

local plugin = { name = "player" }

local function play(ctx, on)
  local case = messages[tonumber(ctx.req.headers["X-Case"])]
  if case and case.on == on then return ctx:reply(200, cases.play(case, ctx[on], ctx)) end
end

function plugin.access(ctx) return play(ctx, "req") end
function plugin.on_response(ctx) return play(ctx, "res") end

function plugin.on_event(ctx, _, event)
  ctx.state.n = (ctx.state.n or 0) + 1
  local got = cases.play(events[ctx.state.n], event)
  return { event, { type = "result", json = { got } } }
end

return plugin
]]

local function assert_fits(case, got)
  local ok, expected = cases.fits(case, got)
  if not ok then error(("gave   %s\nnot    %s"):format(got, expected), 0) end
end

describe("what a plugin gets", function()
  describe("from the runtime:", function()
    local server, gw

    setup(function()
      server = backend.listen()
      local files = { ["plugins/player.lua"] = PLAYER }
      for _, name in ipairs { "cases", "message_cases", "event_cases" } do
        files[("plugins/%s.lua"):format(name)] = read(("spec/support/%s.lua"):format(name))
      end
      gw = gateway.start {
        services = { api = server.port },
        rules = { { id = "play", path = "/*", serviceName = "api", plugins = { "player" } } },
        files = files,
        config = {
          frontend = { sse = { keepaliveTimeout = 0 } }, backend = { http = { keepAlive = false } },
          log = { access = false },
        },
      }
    end)

    teardown(function()
      server:close()
      gateway.stop_all()
    end)

    describe("a message", function()
      local client

      setup(function()
        client = http.connect(gw.port)
      end)

      local function request_of(number)
        local given = message_cases.request
        local headers = { { "Host", given.host }, { "X-Case", number } }
        for name, value in pairs(given.headers) do
          for _, item in ipairs(type(value) == "table" and value or { value }) do
            headers[#headers + 1] = { name, item }
          end
        end
        return { method = given.method, path = given.path, headers = headers, body = given.body }
      end

      local function response_text()
        local given = message_cases.response
        local lines = { ("HTTP/1.1 %d Well\r\nContent-Length: 0\r\n"):format(given.status) }
        for name, value in pairs(given.headers) do
          for _, item in ipairs(type(value) == "table" and value or { value }) do
            lines[#lines + 1] = ("%s: %s\r\n"):format(name, item)
          end
        end
        return table.concat(lines) .. "\r\n"
      end

      for number, case in ipairs(message_cases) do
        it(("(%s) %s"):format(case.on, case[1]), function()
          client:send(http.format(request_of(number)))
          if case.on == "res" then
            local received = server:request()
            received:body()
            received:reply(response_text())
          end
          local got = client:response()
          assert.equal(200, got.status)
          assert_fits(case, (got:body()))
        end)
      end
    end)

    describe("an event", function()
      local results, wires = {}, {}

      setup(function()
        local texts = {}
        for i, case in ipairs(event_cases) do texts[i] = case.text end
        local client = http.connect(gw.port)
        client:send(http.format { path = "/events" })
        server:request():reply("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
          .. "Transfer-Encoding: chunked\r\n\r\n" .. streams.chunk(table.concat(texts)) .. "0\r\n\r\n")
        local text, how = client:response():body()
        assert.equal("clean", how)
        for wire, result in text:gmatch "(.-)event: result\ndata: (.-)\n\n" do
          wires[#wires + 1], results[#results + 1] = wire, require("cjson").decode(result)[1]
        end
      end)

      for number, case in ipairs(event_cases) do
        it(case[1], function()
          assert_fits(case, results[number])
          assert.equal(case.wire, wires[number])
        end)
      end
    end)
  end)

  describe("from gateway.testing:", function()
    for _, case in ipairs(message_cases) do
      it(("a message (%s) %s"):format(case.on, case[1]), function()
        local options = { response = message_cases.response }
        for name, value in pairs(message_cases.request) do options[name] = value end
        local ctx = testing.context(options)
        assert_fits(case, cases.play(case, ctx[case.on], ctx))
      end)
    end

    for _, case in ipairs(event_cases) do
      it("an event " .. case[1], function()
        local got
        local chain = testing.plugin { name = "player", on_event = function(_, _, event)
          got = cases.play(case, event)
        end }
        local wire = chain:stream(testing.context(), case.text)
        assert_fits(case, got)
        assert.equal(case.wire, wire)
      end)
    end
  end)
end)
