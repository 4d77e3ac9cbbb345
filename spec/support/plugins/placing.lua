--- placing: a policy that notes that it was asked, and leaves the choice to round_robin.
return {
  name = "placing",
  balance = function(ctx) ctx.shared.placed = (ctx.shared.placed or 0) + 1 end,
}
