--- gateway.request_key: what in a request names its session, its user, its room. Called by gateway.session
-- and by policies that go by a key; gateway.policies checks how they are written.

local client = require("gateway.client")
local core = require("gateway.core")

local find, sub, byte = string.find, string.sub, string.byte

local request_key = {}

--- The value of a cookie in a Cookie header.
---@param header string?
---@param name string
---@return string?
function request_key.cookie(header, name)
  local at = 1
  while header do
    local first, last = find(header, name, at, true)
    if not first then return nil end
    local before = first > 1 and byte(header, first - 1) or 59
    if byte(header, last + 1) == 61 and (before == 59 or before == 32 or before == 44) then
      local stop = find(header, "[;, ]", last + 2)
      local value = sub(header, last + 2, stop and stop - 1 or -1)
      return value ~= "" and value or nil
    end
    at = last + 1
  end
end

local readers = {
  cookie = function(ctx, name) return request_key.cookie(ctx.req.headers.cookie, name) end,
  header = function(ctx, name) return ctx.req.headers[name] end,
  query = function(ctx, name) return ctx.req.query[name] end,
  path = function(ctx, name) return ctx.params[name] end,
  ip = function(ctx) return (core.client(ctx._x)) end,
}

---@class gateway.KeySource
---@field kind "header"|"cookie"|"query"|"path"|"ip"
---@field name string? of the header, the cookie, …

--- What the request has there.
---@param source gateway.KeySource
---@param ctx gateway.Context
---@return string? value nil for nothing, and for an empty text
function request_key.value(source, ctx)
  local value = readers[source.kind](ctx, source.name)
  return value ~= "" and value or nil
end

--- A function that reads `header:NAME`, `cookie:NAME`, `query:NAME`, `path:NAME` or `ip` (the client's).
---@param text string checked
---@return fun(ctx: gateway.Context): string?
function request_key.reader(text)
  local kind, name = text:match("^(%a+):?(.*)$")
  if kind == "ip" then return function(ctx) return client.network(ctx, 32, 128) end end
  local source = { kind = kind, name = name }
  return function(ctx) return request_key.value(source, ctx) end
end

return request_key
