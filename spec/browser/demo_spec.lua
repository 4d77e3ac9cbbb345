--- The demo as `make run` starts it, on ports of its own, with its page in a real browser.
local demo = require("spec.support.demo")
local sys = require("spec.support.sys")
local webdriver = require("spec.support.webdriver")

describe("the demo page #once", function()
  local browser, site, gw
  local brisk = "/?events=/events%3Frate%3D25" -- 25 events a second: nobody wants to wait for them

  setup(function()
    browser = webdriver.start()
  end)
  teardown(function()
    if browser then browser:stop() end
  end)

  before_each(function()
    site = demo.start()
    gw = site.gateway
  end)
  after_each(function()
    browser:reset()
    site:stop()
  end)

  local function open(path)
    browser:open(("http://localhost:%d%s"):format(gw.port, path or "/"))
  end

  -- The demo's own account of one of its streams; see "demo.html" in test-servers/README.md.
  local function box(name)
    return browser:run(([[
      const { state, opens, errors, received, counts, lastId, server, status, events } = demo.%s;
      return { state, opens, errors, received, counts, lastId, server, status, events };
    ]]):format(name))
  end

  -- Stops the processes of the gateway while something else happens.
  local function hold_gateway(action)
    local STOP, CONT = 19, 18
    sys.check(sys.C.spec_kill(-gw.process.pid, STOP), "kill")
    local ok, why = pcall(action)
    sys.check(sys.C.spec_kill(-gw.process.pid, CONT), "kill")
    assert(ok, why)
  end

  -- Follows a user, and tells which server answers.
  local function server_of(user)
    browser:run([[
      document.getElementById("notifications-user").value = arguments[0];
      demo.notifications.server = null;
      document.getElementById("notifications-form").requestSubmit();
    ]], user)
    return browser:wait("demo.notifications.server")
  end

  local function assert_one_connection(name)
    local now = box(name)
    assert.equal("open", now.state)
    assert.equal(1, now.opens)
    assert.equal(0, now.errors)
    return now
  end

  -- One after the other, none missing, none twice.
  local function assert_consecutive(numbers)
    assert.is_true(#numbers > 1)
    for i = 2, #numbers do assert.equal(numbers[i - 1] + 1, numbers[i]) end
  end

  -- The backend numbers the events of a connection.
  local function assert_nothing_missing()
    local numbers = {}
    for _, event in ipairs(box("events").events) do numbers[#numbers + 1] = event.json.n end
    assert_consecutive(numbers)
  end

  it("opens its streams without being told anything, and says from whom they come", function()
    open()
    browser:wait("demo.events.counts.message && demo.events.counts.tick && demo.events.counts.status")
    browser:wait("demo.notifications.counts.notification")
    assert.equal("/events", browser:text("events-url"))
    assert.equal("open", browser:text("events-state"))
    assert.equal("sse-1", browser:text("events-server"))
    assert.equal("/notifications/alice", browser:text("notifications-url"))
    assert.equal("open", browser:text("notifications-state"))
    assert.matches("^event%-[12]$", browser:text("notifications-server"))
  end)

  it("shows default messages, custom types and the last id", function()
    open(brisk)
    browser:wait("demo.events.counts.message > 1 && demo.events.counts.tick > 1")
    browser:click("events-toggle")
    local events = box("events")
    assert.equal("closed", browser:text("events-state"))
    assert.equal(events.lastId, browser:text("events-last-id"))
    assert.equal(tostring(events.received), browser:text("events-count"))
    local tick = browser:run("return document.querySelector('#events-log [data-type=tick]').innerText")
    assert.matches("tick%s+#%d+%s", tick)
    browser:wait("document.querySelector('#events-log [data-type=message]')")
  end)

  it("parses a status whose JSON came in several lines of data", function()
    open(brisk)
    browser:wait("demo.events.counts.status")
    local events = box("events")
    assert.equal("sse-1", events.status.server)
    for _, event in ipairs(events.events) do
      if event.type == "status" then
        assert.matches("\n", event.data)
        assert.is_table(event.json)
      end
    end
    assert.matches('"server": "sse%-1"', browser:text("events-status"))
  end)

  it("reconnects with the last id when the backend was started anew", function()
    open(brisk)
    browser:wait("demo.events.counts.tick")
    -- The gateway is held meanwhile: it tells the browser of the end when the new backend is there.
    hold_gateway(function() site.sse:restart_on_same_port() end)
    browser:wait("demo.events.opens > 1 && demo.events.counts.connected > 1")
    local seen, told, ticks = nil, nil, {}
    browser:wait("demo.events.counts.tick > 3")
    for i, event in ipairs(box("events").events) do
      if event.type == "connected" and i > 1 then told = event.json.lastEventId end
      if event.type == "tick" then ticks[#ticks + 1] = tonumber(event.id) end
      if not told then seen = event.id end
    end
    assert.is_number(tonumber(seen))
    assert.equal(seen, told)
    assert_consecutive(ticks)
    assert.equal(2, box("events").opens)
    assert.equal("open", browser:text("events-state"))
  end)

  it("stays with one backend for all windows of a user; another user may get the other", function()
    open("/?user=alice")
    local first = browser:wait("demo.notifications.server")
    local servers = { [first] = true }
    for _, user in ipairs({ "bob", "carol", "dave" }) do servers[server_of(user)] = true end
    assert.same({ ["event-1"] = true, ["event-2"] = true }, servers)

    browser:new_window()
    for _ = 1, 3 do
      open("/?user=alice")
      assert.equal(first, browser:wait("demo.notifications.server"))
    end
    assert.equal(first, server_of("alice"))
  end)

  it("gets what an edited Lua route makes of the stream, on the connection it has", function()
    open(brisk)
    assert.equal("events-in-pages", browser:wait("demo.events.status && demo.events.status.gateway.rule"))
    local text = demo.read("conf/routes/status.lua")
    gw:write("conf/routes/status.lua", demo.replaced(text, "ctx.route.id", '"edited"'))
    browser:wait("demo.events.status.gateway.rule === 'edited'")
    assert_one_connection("events")
    assert_nothing_missing()
  end)

  it("gets what an edited plugin makes of the stream, on the connection it has", function()
    open()
    browser:wait("demo.notifications.counts.notification")
    local text = demo.read("plugins/event_filter.lua")
    local line = "local value = value_of(event, conf.path)\n"
    local edit = '  if value == "notification" then event.id = "edited-" .. event.id end\n'
    gw:write("plugins/event_filter.lua", demo.replaced(text, line, line .. edit))
    browser:wait("demo.notifications.lastId.startsWith('edited-')")
    assert_one_connection("notifications")
    assert.matches("^edited%-%d+$", browser:text("notifications-last-id"))
  end)

  it("goes on when the edit is broken, under the version before", function()
    open(brisk)
    browser:wait("demo.events.counts.tick")
    local mark = gw:mark()
    gw:write("conf/routes/status.lua", "return {{\n")
    assert.matches("reload failed", gw:wait_reload(mark))
    local received = box("events").received
    browser:wait("demo.events.received > " .. received + 10)
    assert_one_connection("events")
  end)

  it("keeps its streams through reloads", function()
    open(brisk)
    browser:wait("demo.events.counts.tick")
    for _ = 1, 3 do
      assert.is_number((gw:reload()))
      browser:wait("demo.events.received > " .. box("events").received + 5)
    end
    assert.equal(1, assert_one_connection("events").counts.connected)
    assert_one_connection("notifications")
    assert_nothing_missing()
  end)

  it("leaves nothing open when its window is closed", function()
    browser:new_window()
    open()
    browser:wait("demo.events.server && demo.notifications.server")
    assert.equal(1, site.sse:stats().open_streams)
    browser:reset()
    for _, server in ipairs(site:backends()) do server:wait_stat("open_streams", 0, 15) end
  end)
end)
