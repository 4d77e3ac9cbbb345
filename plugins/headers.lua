--- headers: sets, adds and removes header fields of requests and responses.
--     - headers:
--         request: {set: {X-Tenant: acme}, remove: [X-Debug]}
--         response: {add: {Link: "</style.css>; rel=preload"}}
-- First what `remove` names goes, then `set` replaces, then `add` puts a field beside those of its name.

local values = { type = "map", of = { type = "array", of = "string", single = true } }

local changes = { type = "map", fields = {
  set = values,
  add = values,
  remove = { type = "array", of = "string" },
} }

---@type gateway.Plugin
local plugin = {
  name = "headers",
  schema = { request = changes, response = changes },
}

-- These say how a message is framed and where it goes; the gateway writes them itself.
local RESERVED = { ["connection"] = true, ["content-length"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true,
  ["upgrade"] = true }

local function check_name(where, name)
  if not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    error(("%s: %q is not a header name"):format(where, name), 0)
  end
  if RESERVED[name:lower()] then error(("%s: %s is the gateway's own"):format(where, name), 0) end
end

-- A map as a list in the order of names, so that heads come out the same every time.
local function listed(where, map)
  local list = {}
  for name, items in pairs(map) do
    check_name(where, name)
    for _, item in ipairs(items) do
      if item:find("[\r\n%z]") then error(("%s.%s: a header is one line"):format(where, name), 0) end
    end
    list[#list + 1] = { name = name, values = items }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- A request has exactly one Host.
local function check_host(where, conf)
  if where ~= "request" then return end
  for _, name in ipairs(conf.remove) do
    if name:lower() == "host" then error("request.remove: a request needs its Host", 0) end
  end
  for name in pairs(conf.add) do
    if name:lower() == "host" then error("request.add: a request has one Host; set it", 0) end
  end
  for name, items in pairs(conf.set) do
    if name:lower() == "host" and #items ~= 1 then error("request.set: a request has one Host", 0) end
  end
end

local function compiled(where, conf)
  for _, name in ipairs(conf.remove) do check_name(where .. ".remove", name) end
  check_host(where, conf)
  return {
    set = listed(where .. ".set", conf.set),
    add = listed(where .. ".add", conf.add),
    remove = conf.remove,
  }
end

function plugin.new(conf)
  return { request = compiled("request", conf.request), response = compiled("response", conf.response) }
end

local function apply(message, conf)
  local headers = message.headers
  for _, name in ipairs(conf.remove) do headers[name] = nil end
  for _, field in ipairs(conf.set) do headers[field.name] = field.values end
  for _, field in ipairs(conf.add) do
    for _, value in ipairs(field.values) do message:add(field.name, value) end
  end
end

---@param ctx gateway.Context
function plugin.access(ctx, conf)
  apply(ctx.req, conf.request)
end

---@param ctx gateway.Context
function plugin.on_response(ctx, conf)
  apply(ctx.res, conf.response)
end

return plugin
