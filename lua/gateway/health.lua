--- gateway.health: what a service says of the health of its instances: the keys of a configuration, and the
-- same as numbers for the runtime, which checks, counts and decides.

local health = {}

--- Texts with a form of their own ------------------------------------------------------------------

-- "204" or "200-399" to its ends.
local function status_range(text)
  local from, to = text:match("^(%d%d%d)%-(%d%d%d)$")
  from, to = tonumber(from or text:match("^%d%d%d$")), tonumber(to or text:match("^%d%d%d$"))
  if from and to and from >= 100 and from <= to and to <= 599 then return from, to end
end

local function parse_status(text)
  if status_range(text) then return text end
  return nil, ('"%s" is neither a status (204) nor a range of them (200-399)'):format(text)
end

local function parse_path(text)
  if text:sub(1, 1) ~= "/" then return nil, 'a path begins with "/"' end
  if text:find("[%c%s#\128-\255]") then return nil, ('"%s" can\'t be asked for as it is'):format(text) end
  return text
end

local function parse_host(text)
  if text:find("^[%w_.:%[%]-]+$") then return text end
  return nil, ('"%s" is not a host'):format(text)
end

--- Keys ------------------------------------------------------------------------------------------------

local function duration(name, default, doc, min)
  return { name, type = "duration", default = default, min = min, doc = doc }
end

local function count(name, default, doc, min, max)
  return { name, type = "integer", default = default, min = min or 1, max = max or 1000000, doc = doc }
end

local function statuses(name, default, doc)
  return { name, type = "array", single = true, min = 1, default = default, kind = "status, range or list",
    of = { type = "string", parse = parse_status }, doc = doc }
end

local FAILED = { 500, 502, 503, 504 }

local check = { "health", type = "map", optional = true,
  doc = "Checks that the gateway makes by itself, once for all workers.", fields = {
    { "type", type = "enum", values = { "http", "tcp" }, default = "http",
      doc = "`http`: a request; `tcp`: a connection is enough." },
    { "path", type = "string", default = "/", max = 1023, parse = parse_path, kind = "path",
      doc = "What is asked for." },
    { "method", type = "enum", values = { "GET", "HEAD", "OPTIONS" }, default = "GET",
      doc = "Method of the request." },
    { "host", type = "string", min = 1, max = 255, parse = parse_host, kind = "host",
      doc = "Its Host field. Default: the instance's address." },
    statuses("expectedStatus", { "200-399" }, "Statuses that are a success."),
    { "expectedBody", type = "string", min = 1, max = 255,
      doc = "Text that the body must hold, which is at most 64 KiB then." },
    { "port", type = "integer", min = 1, max = 65535, doc = "Port to ask. Default: the instance's." },
    duration("interval", 5, "Time from the end of a check to the next one.", 0.01),
    { "jitter", type = "number", min = 0, max = 1, default = 0.1,
      doc = "Share of the interval by which it is longer or shorter at random." },
    duration("timeout", 2, "Time for a whole check.", 0.01),
    count("rise", 2, "Successes in a row that bring an instance back.", 1, 1000),
    count("fall", 3, "Failures in a row that take an instance out; the very first check decides alone.", 1,
      1000),
  } }

local passive = { "passiveHealth", type = "map", optional = true,
  doc = "Instances are judged by how requests fare, and ejected for some time.", fields = {
    count("consecutiveFailures", 5, "Failures in a row that eject; 0 = they do not.", 0),
    { "errorRate", type = "number", min = 0, max = 1, default = 0.5,
      doc = "Share of failures in `window` that ejects; 0 = it does not." },
    count("minRequests", 20, "Requests in `window` below which `errorRate` says nothing.", 1, 60000),
    duration("window", 30, "Time over which `errorRate` is taken.", 0.1),
    duration("baseEjection", 30, "How long the first ejection takes; each further one twice as long.", 0.01),
    duration("maxEjection", 300, "How long one takes at most.", 0.01),
    { "maxEjectionPercent", type = "integer", min = 1, max = 100, default = 50,
      doc = "Most of the service's instances that are ejected at a time; of several, at least one." },
    statuses("statuses", FAILED, "Statuses that are a failure, besides connections that fail or break and "
      .. "response heads that do not come in time."),
  } }

local breaker = { "circuitBreaker", type = "map", optional = true,
  doc = "Refuses requests at once when the service as a whole fails.", fields = {
    count("failureThreshold", 5, "Requests in a row that fail, with all their tries, and open the circuit."),
    count("successThreshold", 2, "Requests that succeed in a half-open circuit, and close it."),
    duration("timeout", 30, "How long the circuit is open.", 0.01),
    count("halfOpenRequests", 1, "Requests at a time that a half-open circuit lets through."),
    statuses("statuses", FAILED, "Statuses that are a failure, besides no answer."),
  } }

--- What stands beside `name` and `instances` of a service.
health.fields = {
  check,
  passive,
  { "slowStart", type = "duration", default = 0,
    doc = "Time in which the weight of an instance that is back grows from a tenth to all; 0 = at once." },
  breaker,
  { "maxStreams", type = "integer", min = 0, max = 1000000, default = 0,
    doc = "Most event streams of one instance at a time. 0 = no limit." },
}

--- Checks across keys.
---@param service table
---@param path gateway.Path
---@param report gateway.Report
function health.check(service, path, report)
  local function fail(section, key, text)
    report({ path[1], path[2], path[3], path[4], section, key }, text)
  end
  local checks, judged = service.health, service.passiveHealth
  if checks and checks.expectedBody and (checks.type == "tcp" or checks.method == "HEAD") then
    local what = checks.type == "tcp" and "type: tcp asks for nothing" or "an answer to HEAD has no body"
    fail("health", "expectedBody", what)
  end
  if judged and judged.baseEjection and judged.maxEjection and judged.maxEjection < judged.baseEjection then
    fail("passiveHealth", "maxEjection", ("less than baseEjection (%s)"):format(judged.baseEjection))
  end
end

--- For the runtime ----------------------------------------------------------------------------------------

local LONGEST_MS = 2 ^ 31 - 1

local function ms(seconds)
  if seconds == 0 then return 0 end
  return math.min(LONGEST_MS, math.max(1, math.floor(seconds * 1000 + 0.5)))
end

local function ranges(list)
  local flat = {}
  for _, text in ipairs(list) do
    flat[#flat + 1], flat[#flat + 2] = status_range(text)
  end
  return flat
end

local function check_rules(given)
  return {
    interval_ms = ms(given.interval), timeout_ms = ms(given.timeout), rise = given.rise, fall = given.fall,
    jitter_percent = math.floor(given.jitter * 100 + 0.5), port = given.port, tcp = given.type == "tcp",
    statuses = ranges(given.expectedStatus), method = given.method, host = given.host, path = given.path,
    body = given.expectedBody,
  }
end

local function passive_rules(given)
  return {
    failures = given.consecutiveFailures, error_permille = math.floor(given.errorRate * 1000 + 0.5),
    min_requests = given.minRequests, window_ms = ms(given.window), base_eject_ms = ms(given.baseEjection),
    max_eject_ms = ms(given.maxEjection), max_eject_percent = given.maxEjectionPercent,
    statuses = ranges(given.statuses),
  }
end

local function breaker_rules(given)
  return {
    failures = given.failureThreshold, successes = given.successThreshold, timeout_ms = ms(given.timeout),
    probes = given.halfOpenRequests, statuses = ranges(given.statuses),
  }
end

--- The same as numbers; `watched` tells whether what instances may get can change at all.
---@param service table as checked
---@return table
function health.rules(service)
  return {
    name = service.name,
    slow_start_ms = ms(service.slowStart),
    max_streams = service.maxStreams,
    check = service.health and check_rules(service.health),
    passive = service.passiveHealth and passive_rules(service.passiveHealth),
    breaker = service.circuitBreaker and breaker_rules(service.circuitBreaker),
    watched = service.health ~= nil or service.passiveHealth ~= nil or service.maxStreams > 0,
  }
end

return health
