--- cors: lets pages of other origins read what a route answers.
--     - cors: {origins: ["https://app.example.com"], credentials: true}
-- Preflights are answered here. Where the backend has set Access-Control-Allow-Origin, its word
-- counts. See https://fetch.spec.whatwg.org/#http-cors-protocol

---@type gateway.Plugin
local plugin = {
  name = "cors",
  preflight = true,
  schema = {
    origins = { type = "array", of = "string", single = true, min = 1, default = { "*" },
      doc = "Origins such as `https://app.example.com`, `https://*.example.com`, or `*`." },
    methods = { type = "array", of = "string", doc = "Methods that are allowed.",
      default = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE" } },
    headers = { type = "array", of = "string", doc = "Request headers that are allowed; empty = all." },
    exposed = { type = "array", of = "string", doc = "Response headers that pages may read." },
    credentials = { type = "boolean", default = false, doc = "Whether cookies may be sent." },
    maxAge = { type = "duration", default = "10m", doc = "How long browsers keep a preflight's answer." },
  },
}

function plugin.new(conf)
  local origins = { exact = {}, ends = {} }
  for _, origin in ipairs(conf.origins) do
    local scheme, tail = origin:match("^(%a[%w+.-]*://)%*(%..+)$")
    if origin == "*" then
      origins.any = true
    elseif scheme then
      table.insert(origins.ends, { scheme = scheme:lower(), tail = tail:lower() })
    elseif origin:find("^%a[%w+.-]*://[^/*]+$") or origin == "null" then
      origins.exact[origin:lower()] = true
    else
      error(("origins: %q is no origin (scheme://host[:port], without a path)"):format(origin), 0)
    end
  end
  if origins.any and conf.credentials then
    error("credentials: true needs named origins; browsers refuse it with *", 0)
  end
  return {
    origins = origins, credentials = conf.credentials,
    methods = table.concat(conf.methods, ", "), headers = table.concat(conf.headers, ", "),
    exposed = table.concat(conf.exposed, ", "), max_age = ("%d"):format(conf.maxAge),
  }
end

-- What Access-Control-Allow-Origin says for this origin; nil when it is not allowed.
local function allowed_origin(origins, origin)
  if origins.any then return "*" end
  if not origin then return nil end
  local lower = origin:lower()
  if origins.exact[lower] then return origin end
  for _, rule in ipairs(origins.ends) do
    local host = lower:sub(1, #rule.scheme) == rule.scheme and lower:sub(#rule.scheme + 1)
    if host and #host > #rule.tail and host:sub(-#rule.tail) == rule.tail then return origin end
  end
end

local function preflight_headers(conf, origin, asked)
  local out = { ["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers" }
  local allowed = allowed_origin(conf.origins, origin)
  if not allowed then return out end
  out["Access-Control-Allow-Origin"] = allowed
  out["Access-Control-Allow-Methods"] = conf.methods
  out["Access-Control-Allow-Headers"] = conf.headers ~= "" and conf.headers or asked
  out["Access-Control-Allow-Credentials"] = conf.credentials and "true" or nil
  out["Access-Control-Max-Age"] = conf.max_age
  return out
end

---@param ctx gateway.Context
function plugin.access(ctx, conf)
  local req = ctx.req
  local headers = req.headers
  if req.method ~= "OPTIONS" or not headers.origin then return end
  if not headers["access-control-request-method"] then return end
  local asked = headers["access-control-request-headers"]
  return ctx:reply(204, nil, preflight_headers(conf, headers.origin, asked))
end

-- Caches must not give one origin's answer to another.
local function vary_by_origin(res)
  local vary = (res.headers.vary or ""):lower()
  if vary ~= "*" and not (", " .. vary .. ","):find("[, ]origin[, ]") then res:add("Vary", "Origin") end
end

---@param ctx gateway.Context
function plugin.on_response(ctx, conf)
  local res = ctx.res
  local headers = res.headers
  if headers["access-control-allow-origin"] then return end
  if not conf.origins.any then vary_by_origin(res) end
  local origin = ctx.req.headers.origin
  local allowed = origin and allowed_origin(conf.origins, origin)
  if not allowed then return end
  headers["Access-Control-Allow-Origin"] = allowed
  if conf.credentials then headers["Access-Control-Allow-Credentials"] = "true" end
  if conf.exposed ~= "" and not headers["access-control-expose-headers"] then
    headers["Access-Control-Expose-Headers"] = conf.exposed
  end
end

return plugin
