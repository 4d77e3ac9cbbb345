--- trace: a plugin that leaves its name wherever it passes. `return require("lib.trace")("a")`.

local function mark(ctx, hook, name)
  local trace = ctx.shared.trace or {}
  ctx.shared.trace = trace
  trace[#trace + 1] = hook .. " " .. name
  ctx.state.count = (ctx.state.count or 0) + 1
end

---@param name string
---@param routes? boolean it has a route hook as well
return function(name, routes)
  local plugin = { name = name, schema = { tag = { type = "string", default = name } } }

  if routes then
    function plugin.route(ctx, conf) mark(ctx, "route", conf.tag) end
  end

  function plugin.access(ctx, conf) mark(ctx, "access", conf.tag) end

  function plugin.balance(ctx, conf)
    mark(ctx, "balance", conf.tag)
    ctx.req.headers["X-Trace"] = table.concat(ctx.shared.trace, ", ")
  end

  function plugin.on_response(ctx, conf)
    mark(ctx, "response", conf.tag)
    ctx.res:add("X-Up", conf.tag .. ctx.state.count)
  end

  function plugin.on_event(ctx, conf, event)
    mark(ctx, "event", conf.tag)
    event.data = event.data .. " " .. conf.tag
  end

  function plugin.on_close(ctx, conf, reason)
    mark(ctx, "close", conf.tag)
    ctx:log("info", ("closes %s %s %d"):format(conf.tag, reason, ctx.state.count))
  end

  return plugin
end
