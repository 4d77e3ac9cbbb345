-- A Lua route: a file that returns a list of rules. They have the keys of rules in YAML, and functions
-- where YAML has data. Change something while a stream is open, save, and watch the stream.

local json = require("gateway.json")

local via, passed = json.path("gateway.rule"), json.path("gateway.at")

-- Gets each whole event and may change it. nil passes the event on; false drops it.
-- json.set changes one field inside the text; the rest, line breaks too, stays as the backend wrote it.
local function stamp(ctx, event)
  if event.type ~= "status" then return nil end
  local data = json.set(event.data or "", via, ctx.route.id)
  if not data then return nil end        -- no JSON object
  event.data = json.set(data, passed, os.date("!%H:%M:%S"))
  return nil
end

return {
  -- Only the status events, stamped:
  --   curl -N -H "Accept: text/event-stream" http://localhost:8080/status-events
  {
    id = "status-events",
    path = "/status-events",
    methods = { "SSE" },
    serviceName = "sse-service",
    access = function(ctx)
      ctx.req.path = "/events"           -- what the backend calls it
    end,
    on_event = function(ctx, event)
      if event.type ~= "status" then return false end
      return stamp(ctx, event)
    end,
  },

  -- The demo page listens to /events like everybody; `match` takes the requests of pages, which browsers
  -- mark, out of the rule sse-events of the YAML file. curl goes on getting the plain stream.
  {
    id = "events-in-pages",
    path = "/events",
    methods = { "SSE" },
    match = function(ctx)
      return ctx.req.headers["Sec-Fetch-Mode"] ~= nil
    end,
    serviceName = "sse-service",
    on_event = stamp,
  },
}
