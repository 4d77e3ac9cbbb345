--- gateway.bounds: how many event streams a rule may have at a time, and by whom they are counted, which the
-- runtime does (runtime/gateway/bounds.c). Called by gateway.pipeline.

local core = require("gateway.core")
local session = require("gateway.session")

local bounds = {}

---@class gateway.Bounds
---@field total integer        of the whole gateway; 0 = none, here and below
---@field client integer       of each client
---@field rule integer
---@field rule_client integer
---@field rule_session integer
---@field session gateway.Session?

--- The bounds of a rule; nil when it has none.
---@param conf table the rule as configured
---@param sessions gateway.Session?
---@param sse table? `frontend.sse`
---@return gateway.Bounds?
function bounds.compile(conf, sessions, sse)
  local self = { total = sse and sse.maxStreams or 0, client = sse and sse.maxStreamsPerClient or 0,
    rule = conf.maxStreams or 0, rule_client = conf.maxStreamsPerClient or 0,
    rule_session = conf.maxStreamsPerSession or 0, session = sessions }
  local any = self.total + self.client + self.rule + self.rule_client + self.rule_session
  return any > 0 and self or nil
end

--- Tells the runtime, before an instance is asked, and when a version takes over an open stream. What that is
--- not counted for yet it counts for from then on, but for its session, which nobody looks up again.
---@param self gateway.Bounds?
---@param handle any
---@param ctx gateway.Context? nil: the stream is open
function bounds.set(self, handle, ctx)
  if not self then return end
  local key = ctx and self.rule_session > 0 and session.key(self.session, ctx)
  core.set_bounds(handle, self.total, self.client, self.rule, self.rule_client, self.rule_session, key or nil)
end

return bounds
