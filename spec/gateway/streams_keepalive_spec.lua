--- Comments that keep a quiet stream alive: when they come, and where in a stream they never stand.
local backend = require "spec.support.backend"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local streams = require "spec.support.streams"
local sys = require "spec.support.sys"

local COMMENT = ":keepalive\n\n"
local INTERVAL = 0.05

-- Takes its time over each event.
local THINK = [[
local gateway = require("gateway")
return { name = "think", on_event = function() gateway.sleep(0.2) end }
]]

describe("keepalive comments", function()
  local server, gw

  local function start(mode, more)
    local sse = { keepaliveTimeout = INTERVAL, keepaliveMode = mode }
    return streams.gateway(server, {
      rules = { { id = "think", path = "/think/*", serviceName = "api", plugins = { "think" } } },
      files = { ["plugins/think.lua"] = THINK },
      config = { frontend = { sse = sse }, backend = more },
    })
  end

  setup(function()
    server = backend.listen()
    gw = start()
  end)

  after_each(streams.close_all)

  teardown(function()
    server:close()
    gateway.stop_all()
  end)

  local function open(options)
    return streams.open(gw, server, options)
  end

  -- Every stream that is open already could have had a comment when this returns: one that was opened
  -- later has had two.
  local function let_one_come()
    open():expect(COMMENT:rep(2))
  end

  describe("stand in an open stream", function()
    for _, path in ipairs { "/bytes/x", "/events/x" } do
      it("again and again while nothing comes, also before the first event: " .. path, function()
        local stream = open { path = path }
        stream:expect(COMMENT:rep(3))
        stream:send "data: x\n\n"
        stream:expect("data: x\n\n" .. COMMENT:rep(2))
        stream:finish()
        assert.same({ "", "clean" }, { stream:rest() })
      end)
    end

    it("of an HTTP/1.0 client", function()
      local stream = open { version = "1.0" }
      stream:expect(COMMENT)
      stream:finish()
      assert.same({ "", "clean" }, { stream:rest() })
    end)

    it("that answers a POST", function()
      open({ method = "POST", body = "{}" }):expect(COMMENT)
    end)

    for what, options in pairs {
      ["a parameter"] = { type = "text/event-stream; charset=utf-8" },
      ["a length"] = { framing = "length", length = 100 },
      ["the identity coding"] = { lines = "Content-Encoding: identity\r\n" },
    } do
      it("with " .. what, function()
        open(options):expect(COMMENT)
      end)
    end

    it("are no activity of the backend", function()
      local impatient = start(nil, { sse = { responseTimeout = "150ms" } })
      local stream = streams.open(impatient, server)
      local text, how = stream:rest()
      assert.equal("broken", how)
      assert.matches("^" .. COMMENT, text)
      assert.equal("upstream_silence_timeout", stream:logged_end(impatient))
    end)
  end)

  -- Everything but the comments, and whether there were any.
  local function without(text)
    local rest, count = text:gsub(COMMENT, "")
    return rest, count > 0
  end

  local function meaning(text)
    local parser = http.parser()
    parser:feed(text)
    local list = {}
    for i, item in ipairs(parser.items) do
      list[i] = item.comment and ":" .. item.comment
        or table.concat({ item.type, item.last_id, item.data, item.retry or "-" }, "\0")
    end
    return list
  end

  local function meaning_without(text)
    local list = {}
    for _, item in ipairs(meaning(text)) do
      if item ~= ":keepalive" then list[#list + 1] = item end
    end
    return list
  end

  -- A stream that pauses at every byte in turn, for long enough that a comment is due.
  local function paused_everywhere(path, text)
    local paused = {}
    for i = 0, #text do
      paused[i] = open { path = path }
      paused[i]:send(text:sub(1, i))
    end
    let_one_come()
    for i = 0, #text do
      paused[i].before = paused[i]:available()
      paused[i]:send(text:sub(i + 1))
      paused[i]:finish()
    end
    for i = 0, #text do
      local rest, how = paused[i]:rest()
      paused[i].text, paused[i].how = paused[i].before .. rest, how
    end
    return paused
  end

  local function ends_a_block(text)
    return text == "" or text:find "\n\n$" or text:find "\r\r$" or text:find "\n\r\n$" or text:find "\n\r$"
  end

  local BOM = "\239\187\191"
  local TEXTS = {
    LF = "event: a\nid: 1\ndata: one\n\ndata: two\n\n",
    CR = "event: a\rid: 1\rdata: one\r\rdata: two\r\r",
    CRLF = "event: a\r\nid: 1\r\ndata: one\r\n\r\ndata: two\r\n\r\n",
    ["a BOM"] = BOM .. "data: one\n\ndata: two\n\n",
    ["a BOM and a field that begins like one"] = BOM .. BOM .. "data: one\ndata: two\n\n",
    comments = ": before\n\ndata: one\n: in it\ndata\n\n:c\r\n:d\r\n\r\n",
    ["fields that are unknown"] = "foo\nbar: x\ndata: one\n\nid: 7\n\n",
  }

  for what, text in pairs(TEXTS) do
    it("never stand inside an event, wherever the backend pauses: " .. what, function()
      for i, stream in pairs(paused_everywhere("/bytes/x", text)) do
        local at = ("%s, paused at %d: %q"):format(what, i, stream.text)
        local rest = without(stream.text)
        assert.message(at).equal("clean", stream.how)
        assert.message(at).same(meaning(text), meaning_without(stream.text))
        assert.message(at).equal(i < 3 and text:gsub("^" .. BOM, "") or text, rest)
        if ends_a_block(text:sub(1, i)) then
          assert.message(at).is_true(select(2, without(stream.before)))
        end
      end
    end)

    it("stand between the events that a plugin looks at: " .. what, function()
      for i, stream in pairs(paused_everywhere("/events/x", text)) do
        local at = ("%s, paused at %d: %q"):format(what, i, stream.text)
        local rest = without(stream.text)
        assert.message(at).equal("clean", stream.how)
        assert.message(at).same(meaning(text), meaning_without(stream.text))
        assert.message(at).equal(i < 3 and text:gsub("^" .. BOM, "") or text, rest)
        assert.message(at).is_true(select(2, without(stream.before)))
      end
    end)
  end

  it("that were due inside of an event follow it at once", function()
    local stream = open()
    stream:send "data: x\ndata: "
    let_one_come()
    stream:send "y\n\nid: 7\n"
    stream:expect("data: x\ndata: y\n\n" .. COMMENT .. "id: 7\n")
  end)

  it("come while a plugin thinks about an event", function()
    local stream = open { path = "/think/x" }
    stream:send "data: x\n\n"
    stream:finish()
    local text, how = stream:rest()
    assert.equal("clean", how)
    assert.matches("^" .. COMMENT .. COMMENT .. ".*data: x\n\n$", text)
    assert.equal("data: x\n\n", (without(text)))
  end)

  describe("are not put", function()
    for what, options in pairs {
      ["into JSON"] = { type = "application/json" },
      ["into plain text"] = { type = "text/plain" },
      ["into a type that begins like the right one"] = { type = "text/event-streams" },
      ["into a stream that is compressed"] = { lines = "Content-Encoding: gzip\r\n" },
      ["into an error"] = { status = "503 Service Unavailable" },
      ["into a part"] = { status = "206 Partial Content" },
    } do
      it(what, function()
        local opened = {}
        for _, path in ipairs { "/bytes/x", "/events/x" } do
          local stream = open {
            path = path, type = options.type, lines = options.lines, status = options.status,
          }
          stream:send "\31\139data: x\n\n"
          opened[#opened + 1] = stream
        end
        let_one_come()
        for _, stream in ipairs(opened) do
          stream:send "tail"
          stream:finish()
          assert.same({ "\31\139data: x\n\ntail", "clean" }, { stream:rest() })
        end
      end)
    end

    it("in front of the response head", function()
      local stream = streams.request(gw, server)
      let_one_come()
      assert.is_nil(stream.conn:read_some(0))
      stream:answer():expect(COMMENT)
    end)

    it("behind the end", function()
      local conn = http.connect(gw.port)
      local stream = open { conn = conn }
      stream:send "data: x\n\n"
      stream:finish()
      assert.same({ "data: x\n\n", "clean" }, { stream:rest() })
      let_one_come()
      assert.is_nil(conn:read_some(0))
    end)

    it("anywhere when the interval is 0", function()
      local silent = streams.gateway(server)
      local stream = streams.open(silent, server)
      let_one_come()
      assert.equal("", stream:available())
    end)
  end)

  -- Sends events, with `pause` seconds behind each, and notes how long after the event in front of it
  -- each comment came, until `enough` of them and the number of events says so.
  local function gaps_of(stream, pause, enough)
    local gaps, sent_at, got = {}, { [0] = sys.now() }, 0
    while not enough(#gaps, #sent_at) do
      sent_at[#sent_at + 1] = sys.now()
      stream:send "data: x\n\n"
      local deadline = sys.now() + pause(#sent_at)
      repeat
        local item = stream.client:item(math.max(deadline - sys.now(), 0))
        if item and item.comment then gaps[#gaps + 1] = sys.now() - sent_at[got] end
        if item and item.data then got = got + 1 end
      until not item or sys.now() > deadline
      assert(#sent_at < 2000, "no comments come")
    end
    return gaps
  end

  it("come in intervals whatever the traffic", function()
    local gaps = gaps_of(open(), function() return 0.01 end, function(comments) return comments == 3 end)
    table.sort(gaps)
    assert.is_true(gaps[1] < INTERVAL, gaps[1])
  end)

  it("come only when it is quiet, in idle mode", function()
    local idle = start "idle"
    local function pause(event) return event % 20 == 0 and 4 * INTERVAL or 0.01 end
    local gaps = gaps_of(streams.open(idle, server), pause, function(comments, events)
      return comments >= 3 and events % 20 == 0
    end)
    for _, gap in ipairs(gaps) do
      assert.is_true(gap >= INTERVAL - 0.005, gap)
    end
  end)
end)
