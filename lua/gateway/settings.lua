--- Every key of a configuration file: type, default, bounds and one line of explanation.
-- The check, `--print-conf`, the reference in docs/configuration.md and Lua routes all read this one table.
-- Called by gateway.config. Names and defaults are promises to users: add keys, do not rename them.

local address = require("gateway.address")
local health = require("gateway.health")
local network = require("gateway.network")
local policies = require("gateway.policies")
local retry = require("gateway.retry")

local settings = {}

--- Policies that are part of the gateway; plugins with a `balance` hook add theirs.
settings.policies = policies.names

settings.SESSION_COOKIE = "GATEWAY_SESSION"

-- What llhttp knows, without CONNECT: the gateway opens no tunnels by that method.
local methods = { "SSE" }
for method in ([[GET HEAD POST PUT PATCH DELETE OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH
  UNLOCK BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE
  MKCALENDAR LINK UNLINK SOURCE]]):gmatch("%S+") do
  methods[#methods + 1] = method
end

--- Texts with a form of their own ------------------------------------------------------------------

local function check_parameter(segment, seen)
  local name = segment:match("^{(.*)}$")
  if not name then return ("%q: {name} stands for a whole segment"):format(segment) end
  if not name:find("^[%a_][%w_]*$") then
    return ('"%s": a name is letters, digits and _, and does not begin with a digit'):format(segment)
  end
  if seen[name] then return ('"%s" appears twice'):format(segment) end
  seen[name] = true
end

--- Checks a path pattern: exact, `{name}` for one whole segment, `*` as the last segment.
---@param path string
---@return string? path
---@return string? why
local function parse_path(path)
  if path:sub(1, 1) ~= "/" then return nil, 'a path begins with "/"' end
  local bad = path:match("[%c%s?#\\]") or path:match("[\128-\255]")
  if bad then
    return nil, ("a path pattern cannot hold %q (write it as %%%02X if it belongs to the path)")
      :format(bad, bad:byte())
  end
  local seen = {}
  for segment, next_at in path:gmatch("/([^/]*)()") do
    if segment:find("*", 1, true) and (segment ~= "*" or next_at <= #path) then
      return nil, '"*" can only be the whole last segment, as in /files/*'
    end
    local why = segment:find("[{}]") and check_parameter(segment, seen)
    if why then return nil, why end
  end
  return path
end

local function parse_host(host)
  local name = host:lower()
  local inner = name:match("^%[(.*)%]$")
  if inner and address.family(inner) == 6 then return name end
  if name:find("^[^:]*:%d+$") then return nil, "a host name here has no port" end
  if address.family(name) == 6 then return nil, "an IPv6 address stands in brackets here" end
  local rest = name:gsub("^%*%.", "")
  if rest:find("*", 1, true) then return nil, '"*" can only be the whole first label, as in *.example.com' end
  local named = rest:find("^[%w_][%w_.-]*$") and not rest:find("..", 1, true)
  if named then return name end
  return nil, ('"%s" is not a host name'):format(host)
end

local function parse_network(text)
  if text == "unix:" then return text end
  local good, why = network.cidr(text)
  return good and text, why
end

local token = "^[%w!#$%%&'*+.^_`|~-]+$"

local function parse_header_name(name)
  if name:find(token) then return name end
  return nil, ('"%s" is not a header name'):format(name)
end

local function parse_header_value(value)
  if value:find("[%z\1-\8\10-\31\127]") then return nil, "a header value has no control characters" end
  return (value:gsub("^[ \t]+", ""):gsub("[ \t]+$", ""))
end

-- Protocols of other layers, or HTTP itself: what went through would be seen by no rule and no plugin.
local NO_UPGRADE = { h2 = true, h2c = true, http = true, tls = true }

local function parse_upgrade(text)
  local lower = text:lower()
  if not lower:find("^[%w!#$%%&'*+.^_`|~-]+$") and not lower:find("^[%w._-]+/[%w._-]+$") then
    return nil, ('"%s" is not the name of a protocol'):format(text)
  end
  if NO_UPGRADE[lower:match("^[^/]*")] then
    return nil, ("%s cannot be tunnelled: requests in it would pass by the rules and plugins"):format(text)
  end
  return lower
end

-- Header names compare without case, so they are kept in lower case.
local function parse_headers(headers, check)
  local out = {}
  for name, values in pairs(headers) do
    local lower = name:lower()
    if not name:find(token) then
      check:fail("not a header name", name)
    elseif out[lower] then
      check:fail(("the header %s appears twice"):format(lower), name)
    end
    out[lower] = values
  end
  return out
end

local function parse_pattern(pattern)
  if pattern:find("%z") then return nil, "holds a NUL" end
  return pattern
end

local function parse_cookie_name(name)
  if name:find(token) then return name end
  return nil, ('"%s" is not a cookie name'):format(name)
end

local function parse_cookie_path(path)
  if path:find("^/[^%c;]*$") then return path end
  return nil, ('"%s" is not the path of a cookie: it begins with "/" and holds no ";"'):format(path)
end

local function parse_cookie_domain(domain)
  if domain:find("^%.?[%w_][%w_.-]*$") then return domain end
  return nil, ('"%s" is not a domain'):format(domain)
end

local LEAST_SECRET = 16 -- bytes

-- Empty ones are left out: an old secret that the environment does not have any more, say.
local function parse_secrets(secrets, check)
  local out = {}
  for i, secret in ipairs(secrets) do
    if secret ~= "" and #secret < LEAST_SECRET then
      check:fail(("a secret has at least %d bytes, this one has %d"):format(LEAST_SECRET, #secret), i)
    elseif secret ~= "" then
      out[#out + 1] = secret
    end
  end
  return out
end

--- Plugin entries ------------------------------------------------------------------------------------

local on_error = { fail = true, skip = true }

-- The key that names the plugin; `onError` stands beside it.
local function plugin_key(value, check)
  local name
  for key in pairs(value) do
    if key ~= "onError" then
      if name then
        local a, b = tostring(name), tostring(key)
        if b < a then a, b = b, a end
        check:fail(('one plugin per entry, found "%s" and "%s" (begin each with "- ")'):format(a, b))
        return nil
      end
      name = key
    end
  end
  if type(name) ~= "string" then
    check:fail("names no plugin (write `- name` or `- name: {settings}`)")
    return nil
  end
  return name
end

local function plugin_conf(value, name, check, mark)
  local conf = value[name]
  local at = mark and mark.at[name]
  if conf == nil or type(conf) == "userdata" then return {} end
  if type(conf) == "table" and (at and at.kind == "map" or not at and #conf == 0) then return conf end
  check:fail("a plugin's settings are a map", name)
  return {}
end

--- `- name`, `- name: {settings}`, either with `onError: skip` beside it; always gives an entry.
---@param value any
---@param check gateway.Check
---@param mark table?
---@return {name: string?, conf: table, onError: "fail"|"skip"}
local function parse_plugin(value, check, mark)
  local entry = { conf = {}, onError = "fail" }
  if type(value) == "table" and (mark and mark.kind == "map" or not mark and #value == 0) then
    entry.name = plugin_key(value, check)
    if entry.name then entry.conf = plugin_conf(value, entry.name, check, mark) end
    local wanted = value.onError
    if on_error[wanted] then
      entry.onError = wanted
    elseif wanted ~= nil and type(wanted) ~= "userdata" then
      check:fail(("expected fail or skip, got %s"):format(tostring(wanted)), "onError")
    end
  elseif type(value) == "string" then
    entry.name = value
  else
    check:fail("expected a plugin's name, or its name with settings")
  end
  if entry.name and not entry.name:find("^[%w_][%w_-]*$") then
    check:fail(('"%s" cannot be the name of a plugin (letters, digits, _ and -)'):format(entry.name))
    entry.name = nil
  end
  return entry
end

-- Back to how it is written in a file; the loader has noted what the plugin declares.
local function show_plugin(entry)
  return { { entry.name, entry.conf, entry.spec }, { "onError", entry.onError } }
end

--- Pieces that appear more than once -------------------------------------------------------------------

local function duration(name, default, doc)
  return { name, type = "duration", default = default, doc = doc }
end

local function size(name, default, doc)
  return { name, type = "size", default = default, doc = doc }
end

local function count(name, default, doc)
  return { name, type = "integer", min = 0, max = 1000000000, default = default, doc = doc }
end

local function flag(name, default, doc)
  return { name, type = "boolean", default = default, doc = doc }
end

local LISTENERS_MAX = 16 -- as in runtime/gateway/settings.h

-- Keys of the one listener do not go with a list of them.
local function is_listed(of)
  if type(of.listeners) ~= "table" or #of.listeners == 0 then return end
  return "stands in each entry of listeners, where there is such a list"
end

local function listen_address(default)
  return { "host", type = "string", default = default, parse = address.parse_listen, kind = "address",
    needless = is_listed,
    doc = "Address to listen on; `0.0.0.0` is every IPv4 address, `::` every IPv6 address, "
      .. "`unix:/run/gateway.sock` the path of a socket." }
end

local function listen_port(default)
  return { "port", type = "integer", min = 0, max = 65535, default = default, required = default == nil,
    needless = function(of)
      return is_listed(of) or address.unix_path(of.host) and "a unix socket has no port"
    end,
    doc = "Port to listen on; 0 takes any free one and logs it. A unix socket has none." }
end

local function parse_mode(text)
  if text:find("^0?[0-7][0-7][0-7]$") then return text end
  return nil, ('"%s" is no mode of a file: three octal digits, in quotes, as in "0660"'):format(text)
end

local function listen_mode()
  return { "mode", type = "string", parse = parse_mode, kind = "octal digits",
    needless = function(of)
      return is_listed(of) or not address.unix_path(of.host) and "only the file of a unix socket has a mode"
    end,
    doc = 'Rights of the file of a unix socket, such as `"0660"`. Default: what the umask leaves.' }
end

local function proxy_protocol()
  local key = flag("proxyProtocol", false, "Whether connections begin with a header of the PROXY protocol "
    .. "(1 or 2), which says who the client is. Only `trustedProxies` may connect.")
  key.needless = is_listed
  return key
end

local listener = { type = "map", fields = {
  listen_address("0.0.0.0"),
  listen_port(),
  listen_mode(),
  proxy_protocol(),
} }

local function plugins(doc)
  return { "plugins", type = "array", default = {}, doc = doc, kind = "list of plugin entries",
    of = { type = "any", parse = parse_plugin, show = show_plugin } }
end

local function upgrades(default, doc)
  return { "upgrades", type = "array", default = default, optional = default == nil, max = 16, doc = doc,
    kind = "list of protocols", of = { type = "string", min = 1, max = 30, parse = parse_upgrade } }
end

local function hook(name, doc)
  return { name, type = "function", lua = true, doc = doc }
end

local frontend = { "frontend", type = "map", doc = "The side of the clients.", fields = {
  { "http", type = "map", doc = "The listener, and what holds for every request.", fields = {
    listen_address("0.0.0.0"),
    listen_port(8080),
    listen_mode(),
    proxy_protocol(),
    { "listeners", type = "array", default = {}, max = LISTENERS_MAX, of = listener,
      doc = "Several listeners, in the place of `host`, `port`, `mode` and `proxyProtocol` beside it." },
    duration("readTimeout", 30, "Time for a whole request head, from its first byte on; 408 past it."),
    duration("writeTimeout", 30, "Time without progress writing an ordinary response."),
    { "bodyTimeout", type = "duration",
      doc = "Time without progress in a request's body; 408 past it. Default: that of `readTimeout`." },
    duration("tcpUserTimeout", "60s", "Time for a client to acknowledge what was sent; 0 = the system's."),
    duration("idleTimeout", 75, "Time that a keep-alive connection may lie idle between requests."),
    size("maxHeaderBytes", "32KiB", "Largest request head; 431 past it."),
    count("maxHeaders", 100, "Most header fields in a request; 431 past it."),
    size("maxTargetBytes", "8KiB", "Longest request target (path and query); 414 past it. 0 = no limit."),
    size("maxBodyBytes", 0, "Largest request body; 413 past it. 0 = no limit."),
    size("maxBufferedBody", "1MiB",
      "Largest request body that plugins can read whole; `ctx.req.body` is nil past it."),
    count("maxConnections", 0, "Most client connections at a time; 503 past it. 0 = no limit."),
    count("maxConnectionsPerClient", 0,
      "Most connections of one client's address; 429 past it. `trustedProxies` and peers on unix sockets do "
        .. "not count. 0 = no limit."),
    { "clientPrefix6", type = "integer", min = 1, max = 128, default = 64,
      doc = "Bits of an IPv6 address that tell clients apart where they are bounded." },
    { "maxPipelinedBytes", type = "size", min = 1024, default = "64KiB",
      doc = "Bytes of further requests that are read while an answer is under way; then they wait with the "
        .. "client." },
    { "maxRequestsPerConnection", type = "integer", min = 0, max = 65535, default = 0,
      doc = "Requests after which a connection is closed. 0 = no limit." },
    { "trustedProxies", type = "array", default = {}, max = 64, kind = "list of networks",
      of = { type = "string", parse = parse_network },
      doc = "Proxies in front of the gateway, as `10.0.0.0/8`, an address, or `unix:` for all that come by a "
        .. "unix socket: what these say of their client is believed; see edge.md. What others say is "
        .. "removed." },
    { "clientAddressHeader", type = "enum", values = { "X-Forwarded-For", "Forwarded" },
      default = "X-Forwarded-For",
      doc = "The header by which trusted proxies name the client. The other one, and what belongs to it, is "
        .. "not believed." },
    upgrades({ "websocket" }, "Protocols that `Upgrade` may ask for; a backend that agrees (101) gets a "
      .. "tunnel. Empty = none."),
    duration("tunnelIdleTimeout", "5m", "Time without a byte either way in a tunnel. 0 = no limit."),
  } },
  { "sse", type = "map", doc = "Event streams to clients.", fields = {
    flag("enabled", true, "Whether event streams are recognised; false passes them on like any response."),
    duration("writeTimeout", 60, "A client that takes nothing for this long is closed."),
    duration("keepaliveTimeout", 30, "Interval of `:keepalive` comments on an open stream; 0 = none."),
    duration("maxAge", 0, "Age at which a stream ends well, at the end of an event; 0 = no limit."),
    { "maxAgeJitter", type = "number", min = 0, max = 1, default = 0.1,
      doc = "Streams end earlier by up to this part of `maxAge`, so that not all come again at once." },
    { "keepaliveMode", type = "enum", values = { "interval", "idle" }, default = "interval",
      doc = "`interval`: always; `idle`: only after that long without traffic." },
    size("maxEventBytes", "1MiB", "Largest event where events are handled whole; the stream ends past it."),
    { "maxBufferedBytes", type = "size", min = 4096, default = "64KiB",
      doc = "Bytes that a stream's client has not taken at which its backend is not read any more." },
    count("maxStreams", 0, "Most event streams at a time; 503 past it. 0 = no limit."),
    count("maxStreamsPerClient", 0, "Most event streams of one client's address; 429 past it. 0 = no limit."),
  } },
} }

local backend = { "backend", type = "map", doc = "The side of the services.", fields = {
  { "http", type = "map", doc = "Connections to services.", fields = {
    count("maxIdleConns", 100, "Idle connections kept for reuse, over all instances."),
    count("maxIdleConnsPerHost", 10, "Idle connections kept for reuse, for each instance."),
    duration("idleConnTimeout", 90, "How long an idle connection is kept."),
    flag("keepAlive", true, "Whether connections are reused at all."),
    duration("keepAliveTimeout", 30, "Interval of TCP keepalive probes; 0 = none."),
    duration("dialTimeout", 10, "Time to connect."),
    duration("tcpUserTimeout", "60s", "Time for an instance to acknowledge what was sent; 0 = the system's."),
    duration("responseHeaderTimeout", 10, "Time from the sent request to the response head; 504 past it."),
    duration("writeTimeout", 30,
      "An instance that takes nothing of a request or a tunnel for this long is given up: 504, or a break."),
  } },
  { "sse", type = "map", doc = "Event streams from services.", fields = {
    duration("dialTimeout", 10, "Time to connect, for a request that asks for events."),
    duration("responseTimeout", 0, "Silence allowed on an open stream; 0 = no limit."),
    duration("firstEventTimeout", 0, "Time from a stream's head to its first event; 0 = no limit."),
    duration("keepaliveTimeout", 30, "Interval of TCP keepalive probes; 0 = none."),
  } },
  { "calls", type = "map", doc = "What plugins ask for by `gateway.http`.", fields = {
    duration("timeout", 30, "Time for a call whose `timeout` does not say otherwise; 0 = no limit."),
    size("maxBodyBytes", "1MiB", "Largest answer that is given whole; 0 = no limit."),
    count("maxPerHost", 100,
      "Calls to one address at a time; more wait their turn. Streamed ones do not count. 0 = no limit."),
  } },
} }

local instance = { type = "map", fields = {
  { "id", type = "string", min = 1, max = 255,
    doc = "Name of the instance, unique in its service. Default: `address:port`." },
  { "address", type = "string", min = 1, required = true, parse = address.parse, kind = "address",
    doc = "IPv4 or IPv6 address, `localhost`, the path of a socket (`unix:/run/api.sock`), or a host name: "
      .. "each of its addresses is an instance." },
  { "port", type = "integer", min = 1, max = 65535, required = true,
    needless = function(of) return address.unix_path(of.address) and "a unix socket has no port" end,
    doc = "Port of the instance; a unix socket has none." },
  { "health", type = "enum", values = { "healthy", "unhealthy" }, default = "healthy",
    doc = "`unhealthy` instances get no traffic, whatever checks say." },
  { "weight", type = "integer", min = 1, max = 1000, default = 1,
    doc = "Share of the traffic, for policies that weigh." },
} }

local service = { type = "map", fields = {
  { "name", type = "string", min = 1, max = 255, required = true,
    doc = "What `serviceName` of a rule refers to." },
  { "instances", type = "array", min = 1, required = true, of = instance, doc = "Where it runs." },
  unpack(health.fields),
} }

local registry = { "registry", type = "map", doc = "The services and where they run.", fields = {
  { "type", type = "enum", values = { "static" }, default = "static", doc = "Where services come from." },
  { "static", type = "map", doc = "Instances that are written down here.", fields = {
    { "services", type = "array", default = {}, of = service, doc = "The services." },
  } },
  { "dns", type = "map", doc = "How host names among the addresses of instances are asked for.", fields = {
    { "servers", type = "array", default = {}, max = 8, kind = "list of addresses",
      of = { type = "string", parse = address.parse_server },
      doc = "Name servers, `10.0.0.53` or `10.0.0.53:5353`, IPv6 as `[::1]:53`. Empty = those of "
        .. "`GATEWAYD_DNS` in the environment, else of /etc/resolv.conf. /etc/hosts goes first." },
    { "timeout", type = "duration", min = 0.1, default = "5s",
      doc = "Time for an answer, repeated questions included. A start or reload waits no longer for names." },
    { "minTtl", type = "duration", min = 0.1, default = "5s",
      doc = "A name is not asked for again before, however short the TTL, and then after a failure." },
    { "maxTtl", type = "duration", min = 0.1, default = "5m",
      doc = "A name is asked for again after that, however long the TTL." },
    { "hold", type = "duration", default = "30s",
      doc = "How long addresses are kept when servers come to say that there are none; 0 = always. Where no "
        .. "server answers they are always kept." },
    { "family", type = "enum", values = { "any", "ipv4", "ipv6" }, default = "any",
      doc = "Which addresses of a name are instances." },
  } },
} }

local fallback = { "fallback", type = "string", min = 1, lua = "function",
  doc = "Policy that places new sessions where `loadBalance` is `sticky_session`. Default: `round_robin`." }

local sticky = { "stickySession", type = "map", optional = true,
  doc = "One backend per session: cookie, header or address, whichever the request has.", fields = {
    flag("enabled", true, "Whether sessions stick."),
    duration("ttl", 3600, "How long a session lives after its last request. 0 = no limit."),
    fallback,
  } }

local affinity = { "sessionAffinity", type = "map", optional = true,
  doc = "One backend per session, with one named source.", fields = {
    flag("enabled", true, "Whether sessions stick."),
    duration("ttl", 3600, "How long a session lives after its last request; Max-Age of the cookie."),
    { "source", type = "enum", values = { "cookie", "header", "query", "path", "ip" }, default = "cookie",
      doc = "What names the session." },
    { "cookieName", type = "string", min = 1, default = settings.SESSION_COOKIE, parse = parse_cookie_name,
      doc = "Cookie of `source: cookie`; set by the gateway when it is missing." },
    { "cookiePath", type = "string", default = "/", parse = parse_cookie_path,
      doc = "Path of the cookie that the gateway sets." },
    { "cookieDomain", type = "string", parse = parse_cookie_domain,
      doc = "Domain of it; without one it is for the host that was asked alone." },
    flag("learn", false, "With `source: cookie`: the backend's own cookie names the session, and the gateway "
      .. "sets none. Headers are always learnt."),
    flag("stateless", false, "With `source: cookie`: the cookie itself names the instance, signed, and no "
      .. "table of sessions is kept: gateways with the same `secrets` agree."),
    { "secrets", type = "array", default = {}, of = { type = "string", secret = true },
      kind = "list of texts", parse = parse_secrets,
      doc = "For `stateless`, 16 bytes or more each: the first signs, all are accepted. Empty ones do not "
        .. "count." },
    { "headerName", type = "string", min = 1, default = "X-Session-Id", parse = parse_header_name,
      doc = "Header of `source: header`; one in a response teaches the session too." },
    { "queryParam", type = "string", min = 1, default = "session", doc = "Parameter of `source: query`." },
    { "pathParam", type = "string", min = 1, doc = "`{name}` in the path, for `source: path`." },
    { "maxEntries", type = "integer", min = 1, default = 100000,
      doc = "Most sessions remembered; the longest unused one goes first." },
    fallback,
  } }

local ip_hash, consistent_hash, response_time, canary = unpack(policies.sections)

--- One rule of the router, in YAML or (with the keys marked `lua`) in a Lua route.
settings.rule = { type = "map", fields = {
  { "id", type = "string", min = 1, doc = "Name of the rule in logs and for hooks. Default: its path." },
  { "path", type = "string", parse = parse_path, kind = "path",
    doc = "Path pattern: exact, `{name}` for one segment, `*` as the last segment. Required." },
  { "host", type = "array", single = true, default = {}, kind = "host name or list",
    of = { type = "string", parse = parse_host },
    doc = "Host names that the rule is for; `*.example.com` allowed." },
  { "headers", type = "map", default = {}, parse = parse_headers, kind = "map of text or list",
    of = { type = "array", single = true, min = 1, of = { type = "string", parse = parse_header_value } },
    doc = "Headers that a request must have, each with one of the values; `\"*\"` is any value." },
  { "methods", type = "array", default = {}, of = { type = "enum", values = methods },
    kind = "list of methods",
    doc = "HTTP methods and `SSE` (a GET that accepts event streams). Empty = any." },
  { "serviceName", type = "string", min = 1, lua = "function",
    doc = "The service that gets the requests. Required, except beside `canary`." },
  { "loadBalance", type = "string", min = 1, lua = "function",
    doc = "Policy: " .. policies.listed() .. " or a plugin with a `balance` hook. Default: the one that "
      .. "settings below are for, else `sticky_session` where a session section is enabled, else "
      .. "`round_robin`." },
  duration("timeout", 0, "The whole exchange. 0 = none; it cuts event streams only when above 0."),
  { "forwardPath", type = "enum", values = { "received", "normalised" }, default = "received",
    doc = "The path that the backend gets: as the client sent it, or without dot segments, doubled slashes "
      .. "and escapes that nobody needs." },
  { "ambiguousPath", type = "enum", values = { "refuse", "allow" }, default = "refuse",
    doc = "Paths that another rule would be for (or, by dot segments, none) if a backend read `%2F`, `\\`, "
      .. "`;` or escapes of escapes generously: 400, or taken by this rule." },
  { "onReload", type = "enum", values = { "adopt", "pin", "drain" }, default = "adopt",
    doc = "Open streams of older versions: `adopt` = this version takes them over, `pin` = they stay under "
      .. "theirs, `drain` = they end well, within ten seconds, and clients come again." },
  count("maxStreams", 0, "Most event streams of this rule at a time; 503 past it. 0 = no limit."),
  count("maxStreamsPerClient", 0,
    "Most event streams of one client's address at this rule; 429 past it. 0 = no limit."),
  count("maxStreamsPerSession", 0,
    "Most event streams of one session at this rule; 429 past it. Needs a session section. 0 = no limit."),
  { "maxAge", type = "duration",
    doc = "Age at which a stream of this rule ends well. Default: that of `frontend.sse`; 0 = no limit." },
  { "firstEventTimeout", type = "duration",
    doc = "Time from a stream's head to its first event. Default: that of `backend.sse`; 0 = no limit." },
  { "responseTimeout", type = "duration",
    doc = "Silence allowed on an open stream. Default: that of `backend.sse`; 0 = no limit." },
  upgrades(nil, "Protocols that `Upgrade` may ask for here. Default: those of `frontend.http.upgrades`; "
    .. "empty = none."),
  { "tunnelIdleTimeout", type = "duration",
    doc = "Time without a byte either way in a tunnel. Default: that of `frontend.http`; 0 = no limit." },
  retry.spec,
  retry.first_event_spec,
  sticky,
  affinity,
  ip_hash,
  consistent_hash,
  response_time,
  canary,
  plugins("Plugins of this rule, outermost first, inside those of `gateway.plugins`."),
  hook("match", "`match(ctx)`: a last condition; true takes the request."),
  hook("access", "`access(ctx)`: as the hook of a plugin."),
  hook("on_response", "`on_response(ctx)`: as the hook of a plugin."),
  hook("on_event", "`on_event(ctx, event)`: as the hook of a plugin."),
  hook("on_close", "`on_close(ctx, reason)`: as the hook of a plugin."),
} }

local router = { "router", type = "map", doc = "Which request goes where.", fields = {
  { "rules", type = "array", default = {}, of = settings.rule,
    doc = "The rules; their order does not matter." },
  { "lua", type = "array", default = {}, of = { type = "string", min = 1, parse = parse_pattern },
    kind = "list of file patterns",
    doc = "Lua routes, relative to this file, `*` allowed in file names; reloaded when they change." },
} }

--- Everything below `gateway:`.
settings.gateway = { type = "map", fields = {
  frontend,
  backend,
  registry,
  router,
  { "pluginPath", type = "array", default = { "../plugins" }, of = { type = "string", min = 1 },
    kind = "list of folders",
    doc = "Where plugins and policies are looked up, relative to this file; the first found wins." },
  plugins("Plugins of every route, outermost first."),
  { "lua", type = "map", doc = "Bounds of plugins and Lua routes.", fields = {
    duration("maxRunTime", "50ms",
      "CPU time that hooks may take at a stretch, waiting excluded; past it they are stopped. 0 = no limit."),
    size("maxMemory", "256MiB",
      "Memory of all Lua of a worker and version; who needs more gets an error. 0 = no limit."),
    { "open", type = "array", default = {}, of = { type = "enum", values = { "io", "os", "debug", "ffi" } },
      kind = "list of libraries",
      doc = "Libraries that plugins get whole: files, processes, blocking reads, the interpreter itself." },
  } },
  { "limits", type = "map", doc = "Bounds of a whole process.", fields = {
    size("maxBufferedBytes", "256MiB",
      "Memory of all buffers of a worker; at it new requests get 503, until a tenth is free again. "
        .. "0 = no limit."),
  } },
  { "workers", type = "integer", min = 1, max = 256, words = { "auto" }, default = "auto",
    doc = "Processes that carry traffic; `auto` = one per core." },
  duration("drainTimeout", 25, "How long TERM waits for what is open before it breaks it off; 0 = no limit."),
  { "shared", type = "map", doc = "What plugins share, in `gateway.shared` and `gateway.counter`.", fields = {
    { "maxBytes", type = "size", min = 65536, max = 2 ^ 36, default = "16MiB",
      doc = "Memory for it; taken as it fills, and when it is full the least recently used goes. "
        .. "A change counts from the next start on." },
  } },
  { "log", type = "map", doc = "The log.", fields = {
    { "level", type = "enum", values = { "debug", "info", "warn", "error" }, default = "info",
      doc = "The least level that is written." },
    { "format", type = "enum", values = { "text", "json" }, default = "text", doc = "`text` is logfmt." },
    flag("access", true, "Whether each exchange gets a line when it ends."),
    { "file", type = "string", default = "",
      doc = "A file to log to instead of standard error; USR1 reopens it." },
  } },
  { "management", type = "map", doc = "Metrics, health, administration; a listener of their own.", fields = {
    flag("enabled", true, "Whether there is such a listener."),
    listen_address("127.0.0.1"),
    listen_port(9001),
    listen_mode(),
  } },
} }

return settings
