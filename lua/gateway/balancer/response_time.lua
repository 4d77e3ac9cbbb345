--- response_time: of two instances drawn at random the one that will probably answer first: by the time it
-- took of late, times what it has in flight and this request, over its weight.
-- One that nobody knows is tried by one request at a time. What is known fades when nobody is sent there, so
-- that one that was slow is tried again; and as only two are looked at, not everybody runs to the fastest.

local draw = require("gateway.draw")

local response_time = { name = "response_time" }

local FADES_AFTER, FADING = 10, 10 -- seconds of silence, and then to a third in each so many

---@param settings {percentile: number}
---@return {percentile: number?}
function response_time.new(settings)
  return { percentile = settings.percentile > 0 and settings.percentile or nil }
end

local function average(instance)
  local silence = math.max(0, instance.answer_age - FADES_AFTER)
  return instance.response_time * math.exp(-silence / FADING)
end

local function time_of(conf, instance)
  return conf.percentile and instance:response_percentile(conf.percentile) or average(instance)
end

local function cost(conf, instance)
  local time, busy = time_of(conf, instance), instance.in_flight
  if time == 0 and busy > 0 then return math.huge, busy end
  return time * (busy + 1) / instance.weight, busy
end

---@param _ gateway.Context
---@param conf {percentile: number?}
---@param instances gateway.Instance[]
---@return gateway.Instance
function response_time.balance(_, conf, instances)
  local one, other = draw.pair(instances)
  if not other then return one end
  local cost_one, busy_one = cost(conf, one)
  local cost_other, busy_other = cost(conf, other)
  if cost_other < cost_one or cost_other == cost_one and busy_other < busy_one then return other end
  return one
end

return response_time
