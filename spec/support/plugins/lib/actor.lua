--- actor: a plugin whose hooks do what the request orders by headers: `X-Access: raise`, `X-Event: reply`.
-- Events are acted on when their type is `now`. `return require("lib.actor")("actor")`.
local gateway = require "gateway"

local acts = {}

acts["reply"] = function(ctx) return ctx:reply(418, "short and stout") end

acts["reply json"] = function(ctx)
  return ctx:reply(401, { error = "no", list = gateway.json.array() }, { ["WWW-Authenticate"] = "x" })
end

acts["reply 204"] = function(ctx) return ctx:reply(204, nil, { ["X-Empty"] = "yes" }) end
acts["reply 304"] = function(ctx) return ctx:reply(304, "not to be sent") end
acts["reply nothing"] = function(ctx) return ctx:reply(200) end
acts["reply typed"] = function(ctx) return ctx:reply(200, "<p>", { ["content-type"] = "text/html" }) end
acts["reply cookies"] = function(ctx) return ctx:reply(200, "x", { ["Set-Cookie"] = { "a=1", "b=2, 3" } }) end
acts["reply large"] = function(ctx) return ctx:reply(200, ("x"):rep(1000000)) end
acts["reply 42"] = function(ctx) return ctx:reply(42, "x") end
acts["reply badly"] = function(ctx) return ctx:reply(200, "x", { ["X-A"] = "a\r\nX-Evil: 1" }) end

acts["forget return"] = function(ctx) ctx:reply(403, "forgotten") end

acts["reply twice"] = function(ctx)
  ctx:reply(500, "first", { ["X-First"] = "1" })
  return ctx:reply(403, "second")
end

acts["survive"] = function(ctx)
  local ok = pcall(ctx.reply, ctx, 200, "x", { ["X-A"] = "a\r\nX-Evil: 1" })
  ctx.req.headers["X-Survived"] = tostring(not ok)
end

acts["raise"] = function() error "oops" end
acts["raise a table"] = function() error { code = 7 } end
acts["raise nothing"] = function() error() end
acts["return nonsense"] = function() return 403 end

acts["raise deep"] = function()
  local function deep(n)
    if n == 0 then error "deep down" end
    return (deep(n - 1))
  end
  deep(3)
end

acts["overflow"] = function()
  local function f() return 1 + f() end
  return f()
end

acts["inject"] = function(ctx) ctx.req.headers["X-A"] = "a\r\nX-Evil: 1" end
acts["set on ctx"] = function(ctx) ctx.foo = 1 end
acts["set host header"] = function(ctx) ctx.req.headers.Host = "by.header:8" end

acts["rewrite"] = function(ctx)
  local req = ctx.req
  req.path, req.querystring, req.method, req.host = "/new%2Fpath", "n=1", "PUT", "other.example"
  req.headers["X-Several"] = { "1", "2" }
  req.headers["X-Gone"] = nil
  req:add("X-Kept", "more")
end

acts["change"] = function(ctx)
  local res = ctx.res
  res.status = 202
  res.headers["X-Backend"] = nil
  res.headers["X-Several"] = { "1", "2" }
  res:add("Set-Cookie", "c=3")
end

acts["touch late"] = function(ctx)
  for i = 1, 200 do
    ctx.req.headers["X-Late-" .. i] = "v"
    ctx.res.headers["X-Late-" .. i] = "v"
  end
end

acts["show"] = function(ctx)
  local req, route = ctx.req, ctx.route or {}
  return ctx:reply(200, {
    id = ctx.id, client = ctx.client, params = ctx.params, state = ctx.state, worker = gateway.worker(),
    route = { id = route.id, path = route.path, serviceName = route.serviceName, timeout = route.timeout },
    method = req.method, host = req.host, version = req.version, has_response = ctx.res ~= nil,
  })
end

acts["yield"] = function(ctx)
  for _ = 1, 3 do coroutine.yield() end
  if ctx.res then ctx.shared.yielded = ctx.res.status end
end

local kept

acts["keep"] = function(ctx)
  kept = { ctx = ctx, req = ctx.req, res = ctx.res, headers = ctx.req.headers }
end

-- What other exchanges' objects say when they are over.
acts["use kept"] = function(ctx)
  local said = {}
  for i, use in ipairs {
    function() return kept.req.path end, function() return kept.req.body end,
    function() kept.req.host = "a" end, function() return kept.headers.host end,
    function() kept.headers["X-A"] = "1" end, function() return kept.req:values "host" end,
    function() kept.ctx:reply(200) end,
  } do
    local ok, err = pcall(use)
    said[i] = ok and "nothing" or err:gsub("^[^ ]*:%d+: ", "")
  end
  return ctx:reply(200, said)
end

acts["log"] = function(ctx)
  ctx:log("warn", 'a line\nand "more"')
  print("printed", 7)
end

local function act(ctx, hook)
  local order = ctx.req.headers["X-" .. hook]
  if order then return acts[order](ctx) end
end

---@param name string
---@param routes? boolean it has a route hook as well
return function(name, routes)
  local plugin = { name = name, schema = { note = { type = "string" } } }

  if routes then
    function plugin.route(ctx) return act(ctx, "Route") end
    return plugin
  end

  function plugin.access(ctx) return act(ctx, "Access") end
  function plugin.balance(ctx) return act(ctx, "Balance") end
  function plugin.on_response(ctx) return act(ctx, "Response") end

  function plugin.on_event(ctx, _, event)
    if event.type == "now" then return act(ctx, "Event") end
  end

  function plugin.on_close(ctx, _, reason)
    local status = tostring(ctx.res and ctx.res.status)
    ctx:log("info", ("closes %s client=%s status=%s"):format(reason, tostring(ctx.client.address), status))
    return act(ctx, "Close")
  end

  return plugin
end
