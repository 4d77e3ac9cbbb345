--- The keys of bounds that need others, and where what they say reaches the runtime.
require("gateway.testing")
local parse = require("spec.support.yaml")
local bounds = require("gateway.bounds")
local config = require("gateway.config")
local session = require("gateway.session")

local function errors_of(keys)
  local text = "registry: {static: {services: [{name: s, instances: [{address: \"::1\", port: 1}]}]}}\n"
    .. "router: {rules: [{path: /a, serviceName: s, " .. keys .. "}]}\n"
  local _, errors = config.load(text, "x.yaml", { yaml = parse })
  return (table.concat(errors, "\n"):gsub("x%.yaml:%d+:%d+: gateway%.router%.rules%[1%]%.", ""))
end

describe("bounds of a rule", function()
  it("by session need sessions that have a key", function()
    assert.equal("", errors_of "maxStreamsPerSession: 1, stickySession: {ttl: 5}")
    assert.equal("", errors_of "maxStreamsPerSession: 1, sessionAffinity: {source: ip}")
    assert.equal("", errors_of "maxStreamsPerSession: 1, loadBalance: sticky_session")
    assert.equal("", errors_of "maxStreamsPerSession: 0")
    local none = "maxStreamsPerSession: needs sessions: stickySession or sessionAffinity"
    assert.equal(none, errors_of "maxStreamsPerSession: 1")
    assert.equal(none, errors_of "maxStreamsPerSession: 1, stickySession: {enabled: false}")
    assert.equal("maxStreamsPerSession: can't be had with stateless sessions, which have no key",
      errors_of("maxStreamsPerSession: 1, sessionAffinity: {stateless: true, secrets: [0123456789abcdef]}"))
  end)

  it("are nothing where none is set, and then nothing is told", function()
    local none = bounds.compile({ maxStreams = 0 }, nil, { maxStreams = 0, maxStreamsPerClient = 0 })
    assert.is_nil(none)
    assert.is_nil(bounds.compile({}, nil, nil))
    bounds.set(none, {})
  end)

  it("are told with the session's key, and without one for a stream that is open", function()
    local sessions = session.compile { stickySession = { enabled = true, ttl = 60 } }
    local of = bounds.compile({ maxStreams = 3, maxStreamsPerClient = 4, maxStreamsPerSession = 5 }, sessions,
      { maxStreams = 1, maxStreamsPerClient = 2 })
    local handle = {}
    bounds.set(of, handle, { req = { headers = { ["X-Session-Id"] = "me" } } })
    assert.same({ 1, 2, 3, 4, 5, "header:X-Session-Id=me" }, handle.bounds)
    bounds.set(of, handle)
    assert.same({ 1, 2, 3, 4, 5 }, handle.bounds)
  end)
end)
