--- by_tenant: a policy that goes by a header: the instance of that name, or whatever else it says.
return {
  name = "by_tenant",
  balance = function(ctx, _, instances)
    local tenant = ctx.req.headers["X-Tenant"]
    if tenant == "raise" then error "no tenant" end
    if tenant == "nonsense" then return { id = "api-1" } end
    if tenant == "reply" then return ctx:reply(403, "no such tenant") end
    for _, instance in ipairs(instances) do
      if instance.id == tenant then return instance end
    end
  end,
}
