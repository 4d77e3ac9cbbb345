--- streams: event streams through gatewayd with both ends in the spec: what the backend sends, byte by
-- byte, and what the client gets of it.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"

local streams = {}

--- A plugin that looks at all of every event and changes nothing.
streams.LOOK = [[
local plugin = { name = "look" }

function plugin.on_event(_, _, event)
  local seen = { event.type, event.id, event.data, event.retry, event.comment, event.raw, event.json }
  return nil, #seen
end

return plugin
]]

--- A gateway with one worker, a route in byte mode (`/bytes/…`), one in event mode whose plugin changes
-- nothing (`/events/…`), and no keepalives, all of them to the one backend.
---@param backend spec.Backend
---@param options? spec.GatewayOptions further rules, files and keys
---@return spec.Gateway
function streams.gateway(backend, options)
  options = options or {}
  local rules = {
    { id = "bytes", path = "/bytes/*", serviceName = "api" },
    { id = "events", path = "/events/*", serviceName = "api", plugins = { "look" } },
  }
  for _, rule in ipairs(options.rules or {}) do rules[#rules + 1] = rule end
  local files = { ["plugins/look.lua"] = streams.LOOK }
  for path, text in pairs(options.files or {}) do files[path] = text end
  local config = options.config or {}
  config.backend = config.backend or {}
  config.backend.http = config.backend.http or { keepAlive = false }
  config.frontend = config.frontend or {}
  config.frontend.sse = config.frontend.sse or { keepaliveTimeout = 0 }
  return gateway.start {
    services = { api = backend.port }, rules = rules, files = files, config = config, under = options.under,
  }
end

--- One chunk, or the last one.
---@param bytes string
---@return string
function streams.chunk(bytes)
  return ("%x\r\n%s\r\n"):format(#bytes, bytes)
end

local FRAMING = {
  chunked = "Transfer-Encoding: chunked\r\n",
  length = "Content-Length: %d\r\n",
  close = "",
}

---@class spec.Stream an event stream through the gateway
---@field client spec.Response
---@field origin spec.Received
---@field framing "chunked"|"length"|"close" at the backend
---@field ahead string what was read of the body and not taken yet
local Stream = {}
Stream.__index = Stream

---@class spec.StreamOptions
---@field path? string default: /bytes/x
---@field method? string
---@field version? string of the client's HTTP
---@field headers? table<string, string> of the request
---@field body? string of the request
---@field framing? "chunked"|"length"|"close" how the backend frames its answer; default: chunked
---@field length? integer the Content-Length of the backend's answer
---@field type? string the Content-Type
---@field status? string
---@field lines? string further header lines of the answer
---@field rcvbuf? integer of the client
---@field conn? spec.Conn of the client, when it has one already

local function response_head(options)
  local framing = FRAMING[options.framing or "chunked"]:format(options.length or 0)
  return ("HTTP/1.1 %s\r\nContent-Type: %s\r\n%s%s\r\n"):format(options.status or "200 OK",
    options.type or "text/event-stream", framing, options.lines or "")
end

local opened = {} ---@type spec.Stream[]

--- Closes both ends of all streams, for `after_each`: a gateway waits for its open streams when it stops.
function streams.close_all()
  for _, stream in ipairs(opened) do
    stream.conn:close()
    if stream.origin then stream.origin.conn:close() end
  end
  opened = {}
end

--- Sends the request and takes it at the backend; nothing is answered yet.
---@param gw spec.Gateway
---@param backend spec.Backend
---@param options? spec.StreamOptions
---@return spec.Stream
function streams.request(gw, backend, options)
  options = options or {}
  local headers = { Accept = "text/event-stream" }
  for name, value in pairs(options.headers or {}) do headers[name] = value end
  local self = setmetatable({ options = options, framing = options.framing or "chunked", ahead = "" }, Stream)
  self.conn = options.conn or http.connect(gw.port, { rcvbuf = options.rcvbuf })
  opened[#opened + 1] = self
  self.conn:send(http.format {
    method = options.method, path = options.path or "/bytes/x", version = options.version,
    headers = headers, body = options.body,
  })
  self.origin = backend:request()
  return self
end

--- Answers with the head; the client gets it.
function Stream:answer()
  self.origin:reply(response_head(self.options))
  self.client = self.conn:response { head = self.options.method == "HEAD" }
  return self
end

--- A stream whose response head has reached the client.
---@param gw spec.Gateway
---@param backend spec.Backend
---@param options? spec.StreamOptions
---@return spec.Stream
function streams.open(gw, backend, options)
  return streams.request(gw, backend, options):answer()
end

--- The backend sends some bytes of the stream, one chunk where it sends chunks.
---@param bytes string
function Stream:send(bytes)
  if bytes == "" then return end
  self.origin:reply(self.framing == "chunked" and streams.chunk(bytes) or bytes)
end

--- The backend sends each byte on its own.
---@param bytes string
function Stream:send_bytewise(bytes)
  for byte in bytes:gmatch "." do self:send(byte) end
end

--- The backend ends the stream well.
function Stream:finish()
  if self.framing == "chunked" then self.origin:reply "0\r\n\r\n" end
  self.origin.conn:close()
end

--- The client gets these bytes next, at least. Raises when it gets others, or not as many.
---@param bytes string
---@param timeout? number seconds
function Stream:expect(bytes, timeout)
  while #self.ahead < #bytes do
    local piece, how = self.client:read(timeout)
    if not piece then error(("%s after %q of %q"):format(how, self.ahead, bytes), 2) end
    self.ahead = self.ahead .. piece
  end
  local got = self.ahead:sub(1, #bytes)
  if got ~= bytes then error(("got %q where %q was expected"):format(got, bytes), 2) end
  self.ahead = self.ahead:sub(#bytes + 1)
end

--- What the client has got so far and nobody has taken.
---@return string
function Stream:available()
  local pieces = { self.ahead }
  self.ahead = ""
  repeat
    local piece = self.client:read(0)
    pieces[#pieces + 1] = piece
  until not piece
  return table.concat(pieces)
end

--- All the rest that the client gets.
---@param timeout? number seconds
---@return string bytes
---@return "clean"|"broken"|"reset"|"malformed"|"timeout" how it ended
function Stream:rest(timeout)
  local ahead = self.ahead
  self.ahead = ""
  local bytes, how = self.client:body(timeout)
  return ahead .. bytes, how
end

--- How the gateway's log says that it ended: "ok", "client_gone", "upstream_truncated", …
---@param gw spec.Gateway
---@return string
function Stream:logged_end(gw)
  local line = gw:wait_log("msg=request x=" .. self.origin:get "X-Request-Id")
  return line:match "end=(%S+)"
end

--- Whoever has sent something to the gateway before this call has been heard when it returns: a request
-- has gone all the way through the same worker, in several turns of its loop.
---@param gw spec.Gateway
---@param backend spec.Backend
function streams.settle(gw, backend)
  local conn = http.connect(gw.port)
  conn:send(http.format { path = "/bytes/settle" })
  backend:request():ok "settled"
  conn:response():body()
  conn:close()
end

--- Streams in all the ways that the standard allows lines to end and blocks to look like.
streams.TEXTS = {
  ["ends lines in LF"] = "event: tick\nid: 1\ndata: one\n\ndata: two\n\n",
  ["ends lines in CR"] = "event: tick\rid: 1\rdata: one\r\rdata: two\r\r",
  ["ends lines in CRLF"] = "event: tick\r\nid: 1\r\ndata: one\r\n\r\ndata: two\r\n\r\n",
  ["mixes line ends"] = "data: one\r\n\n\rid:1\ndata\r\r\ndata: x\n\r\ndata: y\r\n\r",
  ["begins with a BOM"] = "\239\187\191data: one\n\ndata: \239\187\191two\n\n",
  ["begins with a BOM and a comment"] = "\239\187\191: hello\n\ndata: one\r\n\r\n",
  ["has comments"] = ": hello\n\n:\ndata: one\n:inside\n\n:end\n\n",
  ["has unknown fields"] = "foo: bar\ndata:one\nx-y\n:\n\nfoo\n\nDATA: no\n\n",
  ["has data of several lines"] = "data: {\ndata:  \"a\": 1,\ndata\ndata:}\n\ndata\n\ndata:\n\n",
  ["has retry, id and nothing else"] = "retry: 1000\n\nid: 7\n\nid\n\nretry: soon\n\n",
  ["has many blank lines"] = "\n\n\r\r\r\n\r\n\ndata: one\n\n\n\n\n",
  ["has bytes of all kinds"] = "data: \0\1\127\128\255 \226\130\172\n\nid: a\0b\ndata: x\n\n",
  ["looks like HTTP"] = "data: 0\r\n\r\ndata: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
}

return streams
