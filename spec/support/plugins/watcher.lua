--- watcher: says in headers which worker it was, and whether the policy `placing` was asked.
local gateway = require "gateway"

return {
  name = "watcher",
  on_response = function(ctx)
    ctx.res.headers["X-Worker"] = gateway.worker()
    ctx.res.headers["X-Placed"] = ctx.shared.placed
  end,
}
