-- Rules with functions where YAML has data. Each function gets `ctx`; see the plugin guide in docs.

local gateway = require("gateway")

-- Tenants with backends of their own. A service that a function names must exist when it is named.
local own_service = { acme = "acme" }

return {
  {
    id = "tenant-events",
    path = "/tenants/{tenant}/events",
    methods = { "GET", "SSE" },

    serviceName = function(ctx)
      return own_service[ctx.params.tenant] or "everyone"
    end,

    -- One of the healthy `instances`: here all streams of a tenant share one, as long as none comes or goes.
    loadBalance = function(ctx, instances)
      local sum = 0
      for _, byte in ipairs({ ctx.params.tenant:byte(1, -1) }) do sum = sum + byte end
      return instances[sum % #instances + 1]
    end,

    access = function(ctx)
      if #ctx.params.tenant > 32 then return ctx:reply(400, { error = "that is no tenant" }) end
      ctx.req.path = "/events"
    end,

    on_close = function(ctx, reason)
      gateway.log.info("stream of %s ended: %s", ctx.params.tenant, reason)
    end,
  },

  -- No backend at all: `access` answers.
  {
    id = "whoami",
    path = "/whoami",
    methods = { "GET" },
    access = function(ctx)
      return ctx:reply(200, { address = ctx.client.address, agent = ctx.req.headers["User-Agent"] })
    end,
  },
}
