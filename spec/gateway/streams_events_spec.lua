--- Event streams that plugins look into and change: what hooks get, what their verdicts do to the bytes,
-- and in which order hooks run.
local backend = require "spec.support.backend"
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local streams = require "spec.support.streams"

-- Does with an event what its type says.
local VERDICTS = [[
local event_of = require("gateway").event
local verdicts = {}

function verdicts.pass() end
function verdicts.same(_, event) return event end
function verdicts.drop() return false end
function verdicts.change(_, event) event.data = event.data:upper() return event end
function verdicts.quietly(_, event) event.data = event.data:upper() end
function verdicts.rename(_, event) event.type, event.id, event.retry = "renamed", "9", 50 end
function verdicts.strip(_, event) event.type, event.id, event.retry, event.comment = nil, nil, nil, nil end
function verdicts.empty(_, event) event.type, event.data = nil, nil end
function verdicts.lines(_, event) event.data = "a\nb\r\nc\rd\n" end
function verdicts.json(_, event) event.json = { n = event.json.n + 1 } end
function verdicts.plain() return { data = "made", type = "new", id = "5", retry = 10 } end
function verdicts.none() return {} end
function verdicts.list(_, event) return { { data = "before" }, event, { data = "x\ny", id = "6" } } end
function verdicts.twice(_, event) return { event, event } end
function verdicts.changed(_, event) event.data = "changed" return { { data = "before" }, event } end
function verdicts.close(ctx, event) return ctx:close(event) end
function verdicts.stop(ctx) return ctx:close() end
function verdicts.last(ctx) return ctx:close({ type = "bye", data = "last" }) end
function verdicts.both(ctx, event) return ctx:close({ event, { data = "last" } }) end
function verdicts.raise() error("this one is bad") end
function verdicts.number() return 42 end
function verdicts.wrong() return { event = "x", data = "y" } end
function verdicts.inject(_, event) event.id = "1\ndata: injected" end

local plugin = { name = "verdicts", schema = { strict = { type = "boolean", default = true } } }

function plugin.on_event(ctx, _, event)
  local verdict = verdicts[event.type]
  if verdict then return verdict(ctx, event) end
end

return plugin
]]

-- Answers each event with what it has seen of it.
local WITNESS = [[
local plugin = { name = "witness" }

function plugin.on_event(ctx, _, event)
  ctx.state.count = (ctx.state.count or 0) + 1
  return { type = "seen", json = {
    type = event.type, id = event.id, data = event.data, retry = event.retry, comment = event.comment,
    raw = event.raw, json = event.json, count = ctx.state.count, path = ctx.req.path,
  } }
end

return plugin
]]

-- Leaves its mark wherever it comes by.
local MARK = [[
local plugin = { name = "mark", schema = { as = { type = "string", required = true } } }

local function mark(head, name, as)
  local before = head.headers[name]
  head.headers[name] = before and before .. as or as
end

function plugin.access(ctx, conf) mark(ctx.req, "X-Mark", conf.as) end
function plugin.on_response(ctx, conf) mark(ctx.res, "X-Mark", conf.as) end

function plugin.on_event(_, conf, event)
  if event.data == "stop at " .. conf.as then return false end
  if event.data == "spread at " .. conf.as then return { { data = "1" }, { data = "2" } } end
  event.data = event.data .. conf.as
end

return plugin
]]

-- Thinks for as many milliseconds as the event says.
local THINK = [[
local gateway = require("gateway")
local plugin = { name = "think" }

function plugin.on_event(ctx, _, event)
  local before = event.raw
  gateway.sleep(tonumber(event.id) / 1000)
  if event.raw ~= before then error("the event has changed meanwhile") end
  if event.type == "drop" then return false end
  if event.type == "close" then return ctx:close(event) end
  event.data = event.data .. "!"
end

return plugin
]]

describe("events", function()
  local server, gw

  setup(function()
    server = backend.listen()
    gw = streams.gateway(server, {
      rules = {
        { id = "verdicts", path = "/verdicts/*", serviceName = "api", plugins = { "verdicts" } },
        {
          id = "skipping", path = "/skipping/*", serviceName = "api",
          plugins = { { verdicts = { strict = false }, onError = "skip" } },
        },
        { id = "witness", path = "/witness/*", serviceName = "api", plugins = { "witness" } },
        {
          id = "marks", path = "/marks/*", serviceName = "api",
          plugins = { { mark = { as = "a" } }, { mark = { as = "b" } }, { mark = { as = "c" } } },
        },
        { id = "think", path = "/think/*", serviceName = "api", plugins = { "think" } },
        {
          id = "around", path = "/around/*", serviceName = "api",
          plugins = { { mark = { as = "a" } }, "verdicts", { mark = { as = "c" } } },
        },
      },
      files = {
        ["plugins/verdicts.lua"] = VERDICTS, ["plugins/witness.lua"] = WITNESS, ["plugins/mark.lua"] = MARK,
        ["plugins/think.lua"] = THINK,
      },
      config = { frontend = { sse = { keepaliveTimeout = 0, maxEventBytes = "1MiB" } } },
    })
  end)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  after_each(streams.close_all)

  local function open(path, options)
    options = options or {}
    options.path = path
    return streams.open(gw, server, options)
  end

  -- All that the client gets when the backend sends this and ends well.
  local function through(path, text, bytewise)
    local stream = open(path)
    if bytewise then stream:send_bytewise(text) else stream:send(text) end
    stream:finish()
    return stream:rest()
  end

  local BEFORE, AFTER = ":c\r\nid:1\r\ndata:first\r\n\r\n", "data:  last\r\rfoo\n\n"

  describe("by what on_event returns", function()
    local cases = {
      {
        "nothing: pass as they came", "event:pass\rid: 3\rfoo: bar\rdata:x\r\r",
        "event:pass\rid: 3\rfoo: bar\rdata:x\r\r",
      },
      { "themselves: pass as they came", "event:same\r\ndata:x\r\n\r\n", "event:same\r\ndata:x\r\n\r\n" },
      { "false: are dropped", "event: drop\ndata: x\n\n", "" },
      { "themselves, changed", "event: change\ndata: x\n\n", "event: change\ndata: X\n\n" },
      {
        "nothing, but changed", "event: quietly\ndata: x\ndata: y\n\n",
        "event: quietly\ndata: X\ndata: Y\n\n",
      },
      {
        "nothing, with fields set", "event: rename\ndata: x\n\n",
        "event: renamed\nid: 9\nretry: 50\ndata: x\n\n",
      },
      { "nothing, with fields removed", ":c\nevent: strip\nid: 1\nretry: 3\ndata: x\n\n", "data: x\n\n" },
      {
        "nothing, changed, and keep what they do not know", "foo: bar\nevent:rename\n:c\ndata:x\n\n",
        ":c\nevent: renamed\nid: 9\nretry: 50\ndata: x\nfoo: bar\n\n",
      },
      { "nothing, with nothing left", "event: empty\ndata: x\n\n", "" },
      {
        "nothing, with data of several lines", "event: lines\ndata: x\n\n",
        "event: lines\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n",
      },
      {
        "nothing, with other JSON", 'event: json\ndata: {"n":\ndata: 1}\n\n',
        'event: json\ndata: {"n":2}\n\n',
      },
      {
        "a plain table: are another event", "event: plain\ndata: x\n\n",
        "event: new\nid: 5\nretry: 10\ndata: made\n\n",
      },
      { "an empty list: are dropped", "event: none\ndata: x\n\n", "" },
      {
        "a list: are several", "event:list\r\ndata:x\r\n\r\n",
        "data: before\n\nevent:list\r\ndata:x\r\n\r\nid: 6\ndata: x\ndata: y\n\n",
      },
      {
        "a list with themselves twice", "event:twice\ndata:x\n\n",
        "event:twice\ndata:x\n\nevent:twice\ndata:x\n\n",
      },
      {
        "a list with themselves, changed", "event: changed\ndata: x\n\n",
        "data: before\n\nevent: changed\ndata: changed\n\n",
      },
    }

    for _, case in ipairs(cases) do
      local what, from, to = unpack(case)
      it(what, function()
        local text = BEFORE .. from .. AFTER .. from .. from .. AFTER
        local expected = BEFORE .. to .. AFTER .. to .. to .. AFTER
        assert.same({ expected, "clean" }, { through("/verdicts/x", text) })
      end)

      it(what .. " (byte by byte)", function()
        -- The LF of a CRLF would come when its event is over: it stays, and is a blank line of its own.
        local got, how = through("/verdicts/x", BEFORE .. from:gsub("\r\n", "\n") .. AFTER, true)
        local wanted = BEFORE .. to:gsub("\r\n", "\n") .. AFTER
        assert.same({ wanted, "clean" }, { got, how })
      end)
    end

    local endings = {
      { "ctx:close(event): are the last ones", "event:close\rdata:x\r\r", "event:close\rdata:x\r\r" },
      { "ctx:close(): end the stream", "event: stop\ndata: x\n\n", "" },
      {
        "ctx:close() with a table: are replaced by the last one", "event: last\n\n",
        "event: bye\ndata: last\n\n",
      },
      { "ctx:close() with a list", "event:both\n\n", "event:both\n\ndata: last\n\n" },
    }

    for _, case in ipairs(endings) do
      local what, from, to = unpack(case)
      it(what, function()
        for _, version in ipairs { "1.1", "1.0" } do
          local stream = open("/verdicts/x", { version = version })
          stream:send(BEFORE .. from .. AFTER .. AFTER)
          assert.same({ BEFORE .. to, "clean" }, { stream:rest() })
          local how = stream.origin.conn:wait_end()
          assert.is_true(how == "eof" or how == "reset", how)
          assert.equal("ok", stream:logged_end(gw))
        end
      end)
    end

    it("ctx:close(event), and the client's connection goes on", function()
      local stream = open "/verdicts/x"
      stream:send "event: last\n\n"
      stream:rest()
      local next_one = open("/verdicts/x", { conn = stream.conn })
      next_one:send(AFTER)
      next_one:finish()
      assert.same({ AFTER, "clean" }, { next_one:rest() })
    end)

    for what, from in pairs {
      ["a mistake"] = "event: raise\nid: e7\ndata: x\n\n",
      ["what is no verdict"] = "event: number\nid: e7\n\n", ["what is no event"] = "event: wrong\nid: e7\n\n",
      ["a line break where none can be"] = "event: inject\nid: e7\n\n",
    } do
      it(what .. ": end their stream, and no other", function()
        local other = open "/verdicts/x"
        for _, version in ipairs { "1.1", "1.0" } do
          local stream = open("/verdicts/x", { version = version })
          stream:send(BEFORE .. from .. AFTER)
          stream:expect(BEFORE)
          local rest, how = stream:rest()
          assert.equal("", rest)
          assert.equal(version == "1.0" and "reset" or "broken", how)
          assert.equal("hook_error", stream:logged_end(gw))
          local line = gw:wait_log('msg="hook failed" x=' .. stream.origin:get "X-Request-Id")
          assert.matches("plugin=verdicts", line)
          assert.matches("hook=on_event", line)
          assert.matches("rule=verdicts", line)
          assert.matches("event=e7", line)
        end
        other:send(AFTER)
        other:expect(AFTER)
      end)

      it(what .. ": pass, where errors are skipped", function()
        local stream = open "/skipping/x"
        stream:send(BEFORE .. from .. AFTER)
        stream:finish()
        assert.same({ BEFORE .. from .. AFTER, "clean" }, { stream:rest() })
        local line = gw:wait_log("hook failed.* x=" .. stream.origin:get "X-Request-Id")
        assert.matches("plugin=verdicts", line)
      end)
    end
  end)

  describe("are shown to hooks", function()
    local function seen(text, options)
      local stream = open("/witness/x", options)
      stream:send(text)
      local event = assert(stream.client:event())
      assert.equal("seen", event.type)
      return cjson.decode(event.data), stream
    end

    it("with all their fields", function()
      local raw = "event: tick\nid: 7\nretry: 1500\ndata: x\n: c1\ndata:  y\ndata\n:c2\n\n"
      local event = seen(raw)
      assert.same({ "tick", "7", 1500, "x\n y\n", "c1\nc2", raw },
        { event.type, event.id, event.retry, event.data, event.comment, event.raw })
    end)

    it("as a browser would see them", function()
      assert.equal("message", seen("data: x\n\n").type)
      assert.equal("message", seen("event:\ndata: x\n\n").type)
      assert.equal("b", seen("event: a\nevent: b\ndata: x\n\n").type)
      assert.same({ "", "2" }, { seen("id\ndata: x\n\n").id, seen("id: 1\nid: 2\n\n").id })
      assert.is_nil(seen("id: a\0b\ndata: x\n\n").id)
      assert.is_nil(seen("retry: 1s\ndata: x\n\n").retry)
      assert.is_nil(seen("event: x\n\n").data)
      assert.equal("", seen("data\n\n").data)
      assert.equal("\239\187\191x", seen("data: \239\187\191x\n\n").data)
    end)

    it("without the BOM in front", function()
      local event = seen "\239\187\191data: x\n\n"
      assert.same({ "x", "data: x\n\n" }, { event.data, event.raw })
    end)

    it("with their JSON decoded", function()
      assert.same({ a = { 1, 2 } }, seen('data: {"a":\ndata: [1,2]}\n\n').json)
      assert.is_nil(seen("data: {no json\n\n").json)
    end)

    it("one by one, with the state of their own stream", function()
      local first, stream = seen "data: x\n\n"
      local other = seen "data: x\n\n"
      stream:send "data: y\n\ndata: z\n\n"
      local second, third = stream.client:event(), stream.client:event()
      assert.same({ 1, 1, 2, 3 },
        { first.count, other.count, cjson.decode(second.data).count, cjson.decode(third.data).count })
      assert.equal("/witness/x", first.path)
    end)

    it("and not when there is nothing in them", function()
      local text = ": hello\n\n\n\r\n:\r\n\r\n"
      assert.same({ text, "clean" }, { through("/witness/x", text) })
    end)

    it("and not when they never ended", function()
      assert.same({ "", "clean" }, { through("/witness/x", "data: x\nda") })
    end)

    it("and not in other answers", function()
      local stream = open("/witness/x", { type = "text/plain" })
      stream:send "data: x\n\n"
      stream:finish()
      assert.same({ "data: x\n\n", "clean" }, { stream:rest() })
      stream = open("/witness/x", { lines = "Content-Encoding: gzip\r\n" })
      stream:send "data: x\n\n"
      stream:finish()
      assert.same({ "data: x\n\n", "clean" }, { stream:rest() })
    end)
  end)

  describe("of a route with several plugins", function()
    it("go up the list, as responses do; requests go down", function()
      local stream = open "/marks/x"
      assert.equal("abc", stream.origin:get "X-Mark")
      assert.equal("cba", stream.client:get "X-Mark")
      stream:send "data: x\n\n"
      stream:expect "data: xcba\n\n"
    end)

    it("do not come past the one that drops them", function()
      local got = through("/marks/x", "data: stop at c\n\ndata: x\n\ndata: stop at \n\n")
      assert.equal("data: xcba\n\ndata: stop at cba\n\n", got)
    end)

    it("go on upwards, each of them, when one becomes several", function()
      assert.equal("data: 1ba\n\ndata: 2ba\n\n", (through("/marks/x", "data: spread at c\n\n")))
    end)

    it("go on upwards from the one that made or closed", function()
      for from, to in pairs {
        ["event: plain\ndata: x\n\n"] = "event: new\nid: 5\nretry: 10\ndata: madea\n\n",
        ["event: last\ndata: x\n\ndata: y\n\n"] = "event: bye\ndata: lasta\n\n",
        ["event: pass\ndata: x\n\n"] = "event: pass\ndata: xca\n\n",
        ["event: list\ndata: x\n\n"] =
          "data: beforea\n\nevent: list\ndata: xca\n\nid: 6\ndata: x\ndata: ya\n\n",
      } do
        assert.equal(to, (through("/around/x", from)))
      end
    end)
  end)

  describe("that a hook thinks about", function()
    local QUICK, LONG, ENDLESS = "id: 1\ndata: %d\n\n", "id: 50\ndata: long\n\n", "id: 60000\ndata: x\n\n"

    it("keep their order, whatever else comes meanwhile", function()
      local stream, expected = open "/think/x", {}
      for i = 1, 50 do
        stream:send(QUICK:format(i))
        expected[i] = ("id: 1\ndata: %d!\n\n"):format(i)
      end
      stream:finish()
      assert.same({ table.concat(expected), "clean" }, { stream:rest() })
    end)

    it("do not hold up other streams", function()
      local slow, quick = open "/think/x", open "/verdicts/x"
      slow:send(ENDLESS)
      streams.settle(gw, server)
      quick:send(BEFORE)
      quick:expect(BEFORE)
      assert.equal("", slow:available())
    end)

    it("are waited for at the end, at a break, and before a close", function()
      local stream = open "/think/x"
      stream:send("event: drop\n" .. LONG .. LONG .. "data: incompl")
      stream:finish()
      assert.same({ "id: 50\ndata: long!\n\n", "clean" }, { stream:rest() })
      stream = open "/think/x"
      stream:send(LONG .. QUICK:format(2) .. "data: incompl")
      stream.origin.conn:close()
      assert.same({ "id: 50\ndata: long!\n\nid: 1\ndata: 2!\n\n", "broken" }, { stream:rest() })
      stream = open "/think/x"
      stream:send("event: close\n" .. LONG .. QUICK:format(2))
      assert.same({ "event: close\n" .. LONG, "clean" }, { stream:rest() })
    end)

    it("pause their backend", function()
      local stream = open "/think/x"
      stream:send(ENDLESS)
      local batch = streams.chunk(QUICK:format(1):rep(5000))
      local sent, why
      for _ = 1, 1000 do
        sent, why = stream.origin.conn:send(batch, 0.1)
        if not sent then break end
      end
      assert.equal("timeout", why)
    end)

    it("are forgotten when the client leaves, and their backend is let go", function()
      local stream = open "/think/x"
      stream:send(ENDLESS)
      streams.settle(gw, server)
      stream.conn:close()
      local how = stream.origin.conn:wait_end()
      assert.is_true(how == "eof" or how == "reset", how)
      assert.equal("client_gone", stream:logged_end(gw))
    end)
  end)

  describe("that are large", function()
    local function event_of(name, size)
      return "event: " .. name .. "\ndata: " .. ("x"):rep(size) .. "\n\n"
    end

    it("pass as they came", function()
      local text = event_of("pass", 1000000) .. event_of("same", 1000000) .. event_of("pass", 10)
      assert.same({ text, "clean" }, { through("/verdicts/x", text) })
    end)

    it("can be seen and changed", function()
      local got, how = through("/verdicts/x", event_of("change", 1000000))
      assert.equal("clean", how)
      assert.is_true(got == "event: change\ndata: " .. ("X"):rep(1000000) .. "\n\n")
    end)

    it("may have very many lines", function()
      local text = "event: quietly\n" .. ("data: ab\n"):rep(100000) .. "\n"
      local got, how = through("/verdicts/x", text)
      assert.equal("clean", how)
      assert.is_true(got == "event: quietly\n" .. ("data: AB\n"):rep(100000) .. "\n")
    end)
  end)

  it("by the thousand keep their order", function()
    local kinds, from, to = { "pass", "change", "drop", "list" }, {}, {}
    for i = 1, 4000 do
      local kind = kinds[i % 4 + 1]
      from[i] = ("event: %s\nid: %d\ndata: x\n\n"):format(kind, i)
      to[i] = kind == "drop" and "" or from[i]
      if kind == "change" then to[i] = from[i]:gsub("data: x", "data: X") end
      if kind == "list" then to[i] = "data: before\n\n" .. from[i] .. "id: 6\ndata: x\ndata: y\n\n" end
    end
    local got, how = through("/verdicts/x", table.concat(from))
    assert.equal("clean", how)
    assert.is_true(got == table.concat(to))
  end)
end)
