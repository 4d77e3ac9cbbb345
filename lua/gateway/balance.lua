--- gateway.balance: who chooses an instance: the balance hooks of a rule's plugins, then its policy.
-- Policies lie in gateway.balancer, one file each, or are plugins; a session goes before any of them.

local core = require("gateway.core")
local hook = require("gateway.hook")
local policies = require("gateway.policies")
local round_robin = require("gateway.balancer.round_robin")
local sticky_session = require("gateway.balancer.sticky_session")

local REPLY = core.REPLY

local balance = {}

local function one_of(instance, instances)
  for i = 1, #instances do
    if instances[i] == instance then return true end
  end
  return false
end

local function checked_instance(ctx, entry, instances, chosen)
  if ctx._replied then return REPLY end
  if chosen == nil or one_of(chosen, instances) then return chosen end
  local text = ("returned %s, which is none of the instances it got"):format(hook.describe(chosen))
  return hook.misuse(ctx, entry, "balance", text)
end

-- A policy that is no part of the gateway: a plugin's balance hook, or a function of a Lua route.
local function foreign_policy(entry, fn)
  local place = hook.guard(entry, "balance", fn)
  return function(ctx, instances)
    return checked_instance(ctx, entry, instances, place(ctx, instances))
      or round_robin.balance(ctx, nil, instances)
  end
end

-- A policy of the gateway's, by its name, with its settings.
local function own_policy(rule, name)
  local policy = require("gateway.balancer." .. name)
  local conf = policy.new and policy.new(rule.conf[policies.names[name]])
  return function(ctx, instances) return policy.balance(ctx, conf, instances) end
end

local function base_policy(rule, policy_entry)
  local named = policies.placing(rule.conf)
  if type(named) == "function" then
    local entry = { name = "route " .. rule.id, slot = #rule.entries + 1 }
    return foreign_policy(entry, function(ctx, _, instances) return named(ctx, instances) end)
  elseif policy_entry then
    local entry = { name = policy_entry.name, conf = policy_entry.conf, slot = #rule.entries + 1 }
    return foreign_policy(entry, policy_entry.plugin.balance)
  end
  if not policies.names[named] then named = "round_robin" end
  return own_policy(rule, named)
end

--- The policy of a rule.
---@param rule gateway.Rule
---@param policy_entry gateway.Entry? the plugin that `loadBalance` names
---@return fun(ctx: gateway.Context, instances: gateway.Instance[]): any
function balance.policy(rule, policy_entry)
  local place = base_policy(rule, policy_entry)
  if not rule.session then return place end
  local conf = sticky_session.new(rule.session, place)
  return function(ctx, instances) return sticky_session.balance(ctx, conf, instances) end
end

--- Asks the balance hooks, then the rule's policy.
---@param ctx gateway.Context
---@param rule gateway.Rule
---@param instances gateway.Instance[] at least one
---@return any instance, integer slot or REPLY, or nil for none; and whose verdict it is
function balance.choose(ctx, rule, instances)
  local list = rule.balance
  for i = 1, #list do
    local chosen = checked_instance(ctx, list.entries[i], instances, list[i](ctx, instances))
    if chosen then return chosen, list.entries[i].slot end
  end
  return rule.policy(ctx, instances), #rule.entries + 1
end

return balance
