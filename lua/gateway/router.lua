--- gateway.router: which rule answers a request.
-- Rules of YAML and of Lua routes become one structure: a hash of exact paths, and a tree for the
-- others. The most specific path wins whatever the order of rules: an exact one first, then segment
-- by segment a literal before `{name}` before `*`. Among rules of one path a narrower one goes
-- first: host, headers, match, methods. Methods do not look further: where a path is spoken for, a
-- wrong method is a 405.

local find, sub, byte = string.find, string.sub, string.byte

local SLASH = byte("/")

local router = {}

---@class gateway.Rule a compiled rule; made by gateway.pipeline, the fields below by router.prepare
---@field id string
---@field conf table                       as configured
---@field match (fun(ctx: gateway.Context): boolean)?
---@field preflight boolean?               a plugin of the route answers CORS preflights
---@field hosts table<string, true>?       exact names
---@field host_ends string[]?              ".example.com" of "*.example.com"
---@field wants {name: string, any: boolean, values: table<string, true>}[]?  request headers
---@field methods table<string, true>?     nil = any
---@field sse boolean?                     SSE without GET: only GETs that accept event streams
---@field names string[]                   of the `{name}` parts, in order
---@field places integer[]                 which segment each of them is
---@field rank integer                     how narrow, among rules of one path

-- What an escape stands for in a normalised path: itself in capitals where decoding would change
-- the path's shape.
local DECODED = {}
for code = 0, 255 do
  local char, escape = string.char(code), ("%%%02X"):format(code)
  local kept = code < 32 or code == 127 or char == "/" or char == "%"
  local hex = ("%02x"):format(code)
  for _, high in ipairs({ hex:sub(1, 1), hex:sub(1, 1):upper() }) do
    for _, low in ipairs({ hex:sub(2), hex:sub(2):upper() }) do
      DECODED[high .. low] = kept and escape or char
    end
  end
end

-- RFC 3986, 5.2.4, except that a path that climbs above the root is refused. Empty segments count here.
local function remove_dots(path)
  local parts, n, slash = {}, 0, false
  for part in path:gmatch("/([^/]*)") do
    slash = part == "." or part == ".."
    if part == ".." then
      if n == 0 then return nil end
      n = n - 1
    elseif part ~= "." then
      n = n + 1
      parts[n] = part
    end
  end
  return "/" .. table.concat(parts, "/", 1, n) .. (slash and n > 0 and "/" or "")
end

-- A backend may take %2F or a backslash for a slash: then dots beside it must not climb either.
local function hides_climb(path)
  local plain = path:gsub("%%2F", "/"):gsub("\\", "/") .. "/"
  return find(plain, "/../", 1, true) ~= nil
end

local function normalise_slowly(path)
  if find(path, "%%%X") or find(path, "%%%x%X") or find(path, "%%%x?$") or find(path, "%00", 1, true) then
    return nil
  end
  path = path:gsub("%%(%x%x)", DECODED)
  if find(path, "/.", 1, true) then path = remove_dots(path) end
  if not path or hides_climb(path) then return nil end
  return (path:gsub("//+", "/")), true
end

--- The one form of a path that rules are matched against: escapes decoded (except %2F, %25 and
--- controls), dot segments removed, `//` merged. The backend still gets the path as it came.
---@param path string
---@return string? path nil when it is broken or climbs above the root
---@return boolean? odd a backend may read the path in another way: see router.loosely
function router.normalise(path)
  if not find(path, "%", 1, true) and not find(path, "/.", 1, true) and not find(path, "\\", 1, true)
    and not find(path, "//", 1, true) and not find(path, ";", 1, true) then
    return path
  end
  return normalise_slowly(path)
end

local DECODINGS = 3 -- escapes of escapes of escapes; more is nobody's name for anything

local function char_of(hex)
  return string.char(tonumber(hex, 16))
end

-- ASCII in two bytes of UTF-8, which RFC 3629 forbids and old decoders take.
local function from_overlong(lead, rest)
  return string.char((byte(lead) - 192) * 64 + byte(rest) - 128)
end

--- What the most generous of backends may make of a path: escapes decoded as often as there are any,
--- overlong UTF-8 as what it stands for, `\` and %2F as slashes, `;…` left out, `//` merged before dot
--- segments are removed.
---@param path string one that router.normalise takes
---@return string? path nil when that reading climbs above the root or has no end
---@return boolean? climbs it has dot segments
function router.loosely(path)
  for _ = 1, DECODINGS do path = path:gsub("%%(%x%x)", char_of) end
  path = path:gsub("([\192\193])([\128-\191])", from_overlong)
  if find(path, "%%%x%x") or find(path, "%z") then return nil end
  path = path:gsub("\\", "/"):gsub(";[^/]*", ""):gsub("//+", "/")
  if not find(path, "/.", 1, true) then return path end
  local short = remove_dots(path)
  return short, short ~= path
end

local function escape(char)
  return ("%%%02X"):format(byte(char))
end

-- What an escape is sent as: to decode other characters could change what they mean (RFC 3986, 2.2).
local function sent_as(hex)
  local char = char_of(hex)
  return find(char, "[%w%-._~]") and char or "%" .. hex:upper()
end

--- The one form of a path as it can be sent: as router.normalise makes it, but only what is unreserved is
--- decoded.
---@param path string
---@return string? path nil where router.normalise gives none
function router.sendable(path)
  if not router.normalise(path) then return nil end
  path = path:gsub("%%(%x%x)", sent_as)
  if find(path, "/.", 1, true) then path = remove_dots(path) end
  return (path:gsub("//+", "/"):gsub("[^%w%-._~!$&'()*+,;=:@/%%]", escape))
end

local function decode_segment(text)
  if not find(text, "%", 1, true) then return text end
  return (text:gsub("%%(%x%x)", char_of))
end

--- Does an Accept header name text/event-stream with a weight above 0? Wildcards do not count: curl
--- and fetch send `*/*` for everything.
---@param accept string?
---@return boolean
function router.accepts_events(accept)
  if not accept then return false end
  if accept == "text/event-stream" then return true end
  for range in accept:gmatch("[^,]+") do
    local media_type, rest = range:match("^%s*([^;%s]*)%s*(.*)$")
    if media_type:lower() == "text/event-stream" then
      local weight = (rest .. ";"):lower():match(";%s*q%s*=%s*([%d.]+)%s*;")
      return weight == nil or (tonumber(weight) or 1) > 0
    end
  end
  return false
end

local function host_of(ctx)
  local host = ctx.req.host or ""
  local name = host:match("^(%[.*%])") or host:match("^[^:]*")
  return (name:lower():gsub("%.$", ""))
end

local function host_matches(rule, host)
  if rule.hosts[host] then return true end
  for i = 1, #rule.host_ends do
    local tail = rule.host_ends[i]
    if #host > #tail and sub(host, -#tail) == tail then return true end
  end
  return false
end

local function headers_match(wants, headers)
  for i = 1, #wants do
    local want = wants[i]
    local value = headers[want.name]
    if value == nil or not (want.any or want.values[value]) then return false end
  end
  return true
end

-- Why a rule does not take this method: nil, 405, or 406 where only the Accept header is missing.
local function refusal(rule, ctx, method)
  local methods = rule.methods
  if not methods or methods[method] then return nil end
  if rule.sse and (method == "GET" or method == "HEAD") then
    return not router.accepts_events(ctx.req.headers.accept) and 406 or nil
  end
  if method == "OPTIONS" and rule.preflight then
    local headers = ctx.req.headers
    local asked = headers.origin and headers["access-control-request-method"]
    if asked and (methods[asked] or (rule.sse and asked == "GET")) then return nil end
  end
  return 405
end

local function prepare_methods(rule, list)
  if not list or #list == 0 then return end
  rule.methods = {}
  for _, name in ipairs(list) do
    if name ~= "SSE" then rule.methods[name] = true end
    if name == "GET" then rule.methods.HEAD = true end
    if name == "SSE" then rule.sse = true end
  end
  if rule.methods.GET then rule.sse = nil end
end

local function prepare_host(rule, list)
  if not list or #list == 0 then return end
  rule.hosts, rule.host_ends = {}, {}
  for _, name in ipairs(list) do
    local tail = name:match("^%*(%..+)$")
    if tail then table.insert(rule.host_ends, tail:lower()) else rule.hosts[name:lower()] = true end
  end
end

local function prepare_headers(rule, map)
  if not map or next(map) == nil then return end
  rule.wants = {}
  for name, values in pairs(map) do
    local want = { name = name, any = false, values = {} }
    for _, value in ipairs(values) do
      if value == "*" then want.any = true else want.values[value] = true end
    end
    table.insert(rule.wants, want)
  end
end

local function prepare_names(rule, pattern)
  rule.names, rule.places = {}, {}
  local place = 0
  for segment in pattern:gmatch("/([^/]*)") do
    place = place + 1
    local name = segment:match("^{(.*)}$")
    if name then
      table.insert(rule.names, name)
      table.insert(rule.places, place)
    end
  end
end

-- Host before headers before match before methods; within one kind, the narrower.
local function rank(rule)
  local host = rule.hosts and (#rule.host_ends == 0 and 2 or 1) or 0
  local headers = math.min(rule.wants and #rule.wants or 0, 99)
  local methods = rule.sse and 2 or rule.methods and 1 or 0
  return ((host * 100 + headers) * 2 + (rule.match and 1 or 0)) * 3 + methods
end

--- Fills in what matching needs from `rule.conf`, `rule.match` and `rule.preflight`.
---@param rule gateway.Rule
function router.prepare(rule)
  local conf = rule.conf
  prepare_methods(rule, conf.methods)
  prepare_host(rule, conf.host)
  prepare_headers(rule, conf.headers)
  prepare_names(rule, conf.path or "")
  rule.rank = rank(rule)
end

local function new_node()
  return { literal = {} }
end

-- Rules keep their order where they are equally narrow.
local function add_rule(leaf, rule)
  local at = #leaf + 1
  while at > 1 and leaf[at - 1].rank < rule.rank do at = at - 1 end
  table.insert(leaf, at, rule)
  return leaf
end

local function add_to_tree(node, path, rule)
  for segment in path:gmatch("/([^/]*)") do
    if segment == "*" then
      node.star = add_rule(node.star or {}, rule)
      return
    elseif segment:find("^{.*}$") then
      node.param = node.param or new_node()
      node = node.param
    else
      node.literal[segment] = node.literal[segment] or new_node()
      node = node.literal[segment]
    end
  end
  node.leaf = add_rule(node.leaf or {}, rule)
end

---@class gateway.Router
---@field _exact table<string, gateway.Rule[]>
---@field _tree table
---@field _pathless gateway.Rule[]  Lua rules that have only a match function
local Router = {}
Router.__index = Router

--- Compiles rules that were prepared.
---@param rules gateway.Rule[]
---@return gateway.Router
function router.new(rules)
  local self = setmetatable({ _exact = {}, _tree = new_node(), _pathless = {} }, Router)
  for _, rule in ipairs(rules) do
    local pattern = rule.conf.path
    local path = pattern and (router.normalise(pattern) or pattern)
    if not path then
      add_rule(self._pathless, rule)
    elseif path:find("/{", 1, true) or path:find("/%*$") then
      add_to_tree(self._tree, path, rule)
    else
      self._exact[path] = add_rule(self._exact[path] or {}, rule)
    end
  end
  return self
end

local ORDER = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS" }

local function allow_header(methods)
  local out = {}
  for _, name in ipairs(ORDER) do
    if methods[name] then out[#out + 1] = name end
    methods[name] = nil
  end
  local others = {}
  for name in pairs(methods) do others[#others + 1] = name end
  table.sort(others)
  return table.concat(out, ", ") .. (out[1] and others[1] and ", " or "") .. table.concat(others, ", ")
end

-- The rules of a path that took everything but the method: 405 or 406, and what they allow.
local function refused(rules, status)
  local allowed = {}
  for _, rule in ipairs(rules) do
    for name in pairs(rule.methods) do allowed[name] = true end
    if rule.sse then allowed.GET, allowed.HEAD = true, true end
  end
  return nil, status, allow_header(allowed)
end

local function narrowed(rule, ctx)
  if rule.hosts and not host_matches(rule, host_of(ctx)) then return false end
  if rule.wants and not headers_match(rule.wants, ctx.req.headers) then return false end
  return true
end

--- Fills in ctx.params by the places of the rule's `{name}` parts.
---@param rule gateway.Rule
---@param ctx gateway.Context
---@param path string
function router.read_params(rule, ctx, path)
  local params, place, pos = {}, 1, 2
  for i = 1, #rule.names do
    while place < rule.places[i] do
      place, pos = place + 1, (find(path, "/", pos, true) or #path) + 1
    end
    local stop = find(path, "/", pos, true)
    params[rule.names[i]] = decode_segment(sub(path, pos, stop and stop - 1 or -1))
  end
  rawset(ctx, "params", params)
end

-- Chooses among the rules of one path. Returns a rule; or nil, status, Allow; or nothing when none
-- is meant.
local function pick(leaf, ctx, path)
  local method, blocked, status = ctx.req.method, nil, 405
  for i = 1, #leaf do
    local rule = leaf[i]
    if narrowed(rule, ctx) then
      local why = refusal(rule, ctx, method)
      if rule.names[1] then router.read_params(rule, ctx, path) end
      if not rule.match or rule.match(ctx) then
        if not why then return rule end
        blocked = blocked or {}
        blocked[#blocked + 1] = rule
        if why == 406 then status = 406 end
      end
    end
  end
  if blocked then return refused(blocked, status) end
end

local walk

-- Goes on below `node` after a segment that ends at `stop` (nil: it was the last).
local function descend(node, ctx, path, stop)
  if stop then return walk(node, ctx, path, stop + 1) end
  if node.leaf then return pick(node.leaf, ctx, path) end
end

-- `pos` is where a segment begins.
function walk(node, ctx, path, pos)
  local stop = find(path, "/", pos, true)
  local segment = sub(path, pos, stop and stop - 1 or -1)
  local child = node.literal[segment]
  if child then
    local rule, status, allow = descend(child, ctx, path, stop)
    if rule or status then return rule, status, allow end
  end
  if node.param and segment ~= "" then
    local rule, status, allow = descend(node.param, ctx, path, stop)
    if rule or status then return rule, status, allow end
  end
  if node.star then return pick(node.star, ctx, path) end
end

function Router:_find(ctx, path)
  local leaf = self._exact[path]
  local rule, status, allow
  if leaf then
    rule, status, allow = pick(leaf, ctx, path)
    if rule or status then return rule, status, allow end
  end
  if byte(path) == SLASH then
    rule, status, allow = walk(self._tree, ctx, path, 2)
    if rule or status then return rule, status, allow end
  end
  rule, status, allow = pick(self._pathless, ctx, path)
  if rule or status then return rule, status, allow end
  return nil, 404
end

-- A backend may cut a path at an escaped `?` or `#`. Data that holds one is common, so that counts only
-- where a rule is for just what is left.
function Router:_is_cut_off(ctx, loose, rule)
  local left = loose:match("^([^?#]+)[?#]")
  local other = left and self:_find(ctx, left)
  return other and other ~= rule and other.conf.path and not find(other.conf.path, "[*}]$")
end

-- Would a backend that reads the path generously serve what another rule is for, or by dot segments what none
-- is for? What only has more slashes then (`group%2Fproject` for a {name}) is nobody else's.
function Router:_is_walked_around(ctx, path, rule)
  local loose, climbs = router.loosely(ctx.req.path)
  if not loose then return true end
  if rule.conf.ambiguousPath == "allow" then return false end
  local params, around = rawget(ctx, "params"), false
  if loose ~= path then
    local other, status = self:_find(ctx, loose)
    around = status == 404 and climbs or status ~= 404 and other ~= rule
  end
  around = around or self:_is_cut_off(ctx, loose, rule)
  rawset(ctx, "params", params)
  return around
end

--- Finds the rule for a request and fills in ctx.params.
---@param ctx gateway.Context
---@return gateway.Rule? rule
---@return integer? status 400, 404, 405 or 406 when there is no rule
---@return string? allow value of Allow with 405 and 406
function Router:match(ctx)
  local path, odd = router.normalise(ctx.req.path)
  if not path then return nil, 400 end
  local rule, status, allow = self:_find(ctx, path)
  if odd and rule and self:_is_walked_around(ctx, path, rule) then return nil, 400 end
  return rule, status, allow
end

return router
