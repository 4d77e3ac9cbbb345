--- gateway.retry: what a rule says about requests that are asked again: its keys, their check, and the form
-- in which the runtime takes them. Called by gateway.settings, gateway.rules and gateway.pipeline. Whether a
-- request goes again is decided in runtime/gateway/retry.c.

local retry = {}

local CAUSES = { connect = 1, reset = 2, timeout = 4 }

-- No SSE here: that is a GET.
local METHODS = { "GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "PUT", "DELETE", "POST",
  "PATCH", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK" }
-- Those that have a body when they are of any use.
local WITH_BODY = { POST = true, PUT = true, PATCH = true }

local backoff = { "backoff", type = "map", doc = "The time before the next attempt.", fields = {
  { "base", type = "duration", default = "25ms",
    doc = "Before the second one; doubled for each that follows." },
  { "max", type = "duration", default = "1s",
    doc = "The longest; a backend whose Retry-After is longer has the last word." },
  { "jitter", type = "number", min = 0, max = 1, default = 0.5,
    doc = "Share of the time that is left to chance." },
} }

local budget = { "budget", type = "map",
  doc = "Bounds what is asked again, for each service, over all workers.", fields = {
    { "ratio", type = "number", min = 0, max = 10, default = 0.2,
      doc = "Most retries for each request of the last ten seconds." },
    { "minRequests", type = "integer", min = 0, max = 1000000, default = 10,
      doc = "With fewer requests than this in ten seconds `ratio` does not count." },
  } }

--- `retry` of a rule.
retry.spec = { "retry", type = "map", optional = true,
  doc = "Asks again before a byte of an answer has gone to the client: see retries.md.", fields = {
    { "attempts", type = "integer", min = 1, max = 10, default = 3,
      doc = "How often in all, the first one included." },
    { "on", type = "array", default = { "connect", "reset" }, kind = "list of causes",
      of = { type = "enum", values = { "connect", "reset", "timeout" } },
      doc = "`connect`: no instance was reached; `reset`: the connection ended before a whole response head, "
        .. "or what came is no answer; `timeout`: no head within responseHeaderTimeout." },
    { "statuses", type = "array", default = {}, of = { type = "integer", min = 400, max = 599 },
      kind = "list of statuses",
      doc = "Answers that are not passed on while there are attempts left, as 503." },
    { "methods", type = "array", default = { "GET", "HEAD", "OPTIONS" }, kind = "list of methods",
      of = { type = "enum", values = METHODS },
      doc = "Requests that may go again when a backend may have seen them; others go to one backend only." },
    { "maxBody", type = "size", max = 2 ^ 30, default = "64KiB",
      doc = "Bytes of a request body that are kept; a longer one goes to one backend only. 0 = none." },
    backoff,
    budget,
  } }

local function parse_event_type(text)
  if text:find("[%z\r\n]") then return nil, "the type of an event is one line, without NUL" end
  return text
end

--- `firstEvent` of a rule.
retry.first_event_spec = { "firstEvent", type = "map", optional = true,
  doc = "Holds the head of an event stream back until its first event: see retries.md.", fields = {
    { "hold", type = "duration", max = 3600, default = "3s",
      doc = "For how long at most; then the head goes out, and keepalives begin. 0 = not at all." },
    { "errors", type = "array", default = {}, kind = "list of event types",
      of = { type = "string", min = 1, parse = parse_event_type },
      doc = "Types of a first event that stand for a 503, as `overloaded`." },
  } }

---@param check gateway.RuleCheck
---@param i integer
---@param rule table
function retry.check(check, i, rule)
  local conf = rule.retry
  if not conf then return end
  if conf.backoff.base > conf.backoff.max then
    check.fail(i, "retry.backoff.base", ("is longer than max, %gs"):format(conf.backoff.max))
  end
  for _, method in ipairs(conf.methods) do
    if conf.maxBody == 0 and WITH_BODY[method] then
      check.fail(i, "retry.methods",
        ("a %s can't go again without its body, and maxBody is 0"):format(method))
    end
  end
end

local NO_RETRY = { attempts = 0, on = {}, statuses = {}, methods = {}, maxBody = 0,
  backoff = { base = 0, max = 0, jitter = 0 }, budget = { ratio = 0, minRequests = 0 } }

-- Each with its end, so that an empty list is empty.
local function terminated(names)
  local out = {}
  for i, name in ipairs(names) do out[i] = name .. "\0" end
  return table.concat(out)
end

--- What `core.pack_retry` takes; nil when the rule says nothing about it.
---@param rule table as configured
---@return table?
function retry.plan(rule)
  local hold, errors = 0, {}
  if rule.firstEvent then hold, errors = rule.firstEvent.hold, rule.firstEvent.errors end
  if not rule.retry and hold == 0 then return nil end
  local conf, causes = rule.retry or NO_RETRY, 0
  for name, bit in pairs(CAUSES) do
    for _, given in ipairs(conf.on) do
      if given == name then causes = causes + bit break end
    end
  end
  return { attempts = conf.attempts, causes = causes, statuses = conf.statuses,
    methods = terminated(conf.methods), max_body = conf.maxBody, errors = terminated(errors),
    base_ms = conf.backoff.base * 1000, max_ms = conf.backoff.max * 1000, jitter = conf.backoff.jitter,
    ratio = conf.budget.ratio, min_requests = conf.budget.minRequests,
    hold_ms = hold > 0 and math.max(hold * 1000, 1) or 0 }
end

return retry
