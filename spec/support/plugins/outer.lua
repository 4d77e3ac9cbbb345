--- outer: says in a header which status it saw on its way out.
return {
  name = "outer",
  on_response = function(ctx) ctx.res:add("X-Outer", ctx.res.status) end,
}
