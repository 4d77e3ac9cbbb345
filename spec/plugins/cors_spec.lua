local t = require("gateway.testing")

local function cors(conf)
  return t.plugin("plugins/cors.lua", conf)
end

-- The CORS headers of a response.
local function headers_after(conf, origin, response)
  local ctx = t.context({ headers = { Origin = origin }, response = response })
  cors(conf):response(ctx)
  local out = {}
  for name, value in ctx.res:each() do
    if name ~= "content-type" then out[name] = value end
  end
  return out
end

local function preflight(conf, origin, asked)
  return cors(conf):access(t.context({ method = "OPTIONS", headers = {
    Origin = origin or "https://a.com", ["Access-Control-Request-Method"] = "POST",
    ["Access-Control-Request-Headers"] = asked } }))
end

describe("cors", function()
  it("lets everybody read by default", function()
    assert.same({ ["access-control-allow-origin"] = "*" }, headers_after({}, "https://a.com"))
    assert.same({}, headers_after({}, nil))
  end)

  it("names an origin that is allowed, and varies by it", function()
    local conf = { origins = { "https://a.com", "http://*.b.org" }, credentials = true,
      exposed = { "X-A", "X-B" } }
    for origin,
      allowed in pairs({ ["https://a.com"] = true, ["HTTPS://A.com"] = true, ["http://x.b.org"] = true,
      ["http://x.y.b.org"] = true, ["http://b.org"] = false, ["https://x.b.org"] = false,
      ["http://a.com"] = false,
      ["https://a.com.evil"] = false, ["http://evilb.org"] = false, ["null"] = false }) do
      local got = headers_after(conf, origin)
      assert.same(allowed and { ["access-control-allow-origin"] = origin, vary = "Origin",
        ["access-control-allow-credentials"] = "true", ["access-control-expose-headers"] = "X-A, X-B" }
        or { vary = "Origin" }, got, origin)
    end
  end)

  it("sets nothing that the backend has set", function()
    local theirs = { ["access-control-allow-origin"] = "https://a.com" }
    assert.same(theirs, headers_after({}, "https://b.com", { headers = theirs }))
    local got = headers_after({ origins = { "https://a.com" } }, "https://a.com",
      { headers = { Vary = "Accept, ORIGIN", ["Access-Control-Expose-Headers"] = "X" } })
    assert.equal("Accept, ORIGIN", got.vary)
    assert.equal("X", got["access-control-expose-headers"])
  end)

  it("adds to Vary", function()
    local ctx = t.context({ headers = { Origin = "https://a.com" },
      response = { headers = { Vary = "Accept" } } })
    cors({ origins = "https://a.com" }):response(ctx)
    assert.same({ "Accept", "Origin" }, ctx.res:values("Vary"))
  end)

  it("answers preflights", function()
    local reply = preflight({ maxAge = "1h" }, nil, "X-One, X-Two")
    assert.equal(204, reply.status)
    assert.is_nil(reply.body)
    assert.equal("*", reply.headers["Access-Control-Allow-Origin"])
    assert.equal("GET, HEAD, POST, PUT, PATCH, DELETE", reply.headers["Access-Control-Allow-Methods"])
    assert.equal("X-One, X-Two", reply.headers["Access-Control-Allow-Headers"])
    assert.equal("3600", reply.headers["Access-Control-Max-Age"])
    assert.matches("Origin", reply.headers.Vary)
    reply = preflight({ origins = "https://a.com", methods = { "GET" }, headers = { "X-Only" },
      credentials = true })
    assert.equal("https://a.com", reply.headers["Access-Control-Allow-Origin"])
    assert.equal("GET", reply.headers["Access-Control-Allow-Methods"])
    assert.equal("X-Only", reply.headers["Access-Control-Allow-Headers"])
    assert.equal("true", reply.headers["Access-Control-Allow-Credentials"])
  end)

  it("answers a preflight of a stranger without leave", function()
    local reply = preflight({ origins = "https://a.com" }, "https://b.com")
    assert.equal(204, reply.status)
    assert.is_nil(reply.headers["Access-Control-Allow-Origin"])
    assert.is_nil(reply.headers["Access-Control-Allow-Methods"])
  end)

  it("leaves other requests to the backend", function()
    local plugin = cors({})
    assert.is_nil(plugin:access(t.context({ headers = { Origin = "https://a.com" } })))
    assert.is_nil(plugin:access(t.context({ method = "OPTIONS" })))
    assert.is_nil(plugin:access(t.context({ method = "OPTIONS", headers = { Origin = "https://a.com" } })))
  end)

  it("goes around replies of the plugins inside", function()
    local chain = t.chain({ { "plugins/cors.lua" },
      { { name = "auth", access = function(ctx) return ctx:reply(401) end } } })
    local reply = chain:access(t.context({ headers = { Origin = "https://a.com" } }))
    assert.equal(401, reply.status)
    assert.equal("*", reply.headers["Access-Control-Allow-Origin"])
  end)

  it("refuses settings that browsers would refuse", function()
    assert.error_matches(function() cors({ credentials = true }) end, "credentials: true needs named origins")
    assert.error_matches(function() cors({ origins = { "a.com" } }) end, 'origins: "a.com" is no origin')
    assert.error_matches(function() cors({ origins = { "https://a.com/" } }) end, "is no origin")
  end)
end)
