---@meta gateway
-- What plugins and Lua routes can use, for editors with the Lua language server: add this folder and
-- lua/ to `workspace.library`. Nothing here is run.

---A plugin file returns one of these.
---@class gateway.Plugin
---@field name string             the file's name without .lua
---@field schema? table<string, gateway.Spec>  settings; see docs/plugins.md
---@field new? fun(conf: table, route: table?): any  once per route; what it returns is the hooks' conf
---@field upgrade? fun(state: any, conf: any, ctx: gateway.Context): any  what older ctx.state becomes
---@field preflight? boolean      `access` answers CORS preflights, so the route takes them
---@field jit? boolean            let LuaJIT compile this file; it is then stopped by force only, see Bounds
---@field comments? boolean       on_event sees events that are only comments, too
---@field version? string
---@field description? string
---@field route? gateway.RouteHook      before a rule is chosen
---@field access? gateway.ReplyHook     a rule is chosen, the backend not asked yet
---@field balance? gateway.BalanceHook  an instance is needed
---@field on_response? gateway.ReplyHook  the response head is here
---@field on_event? gateway.EventHook   each whole event
---@field on_events? gateway.EventsHook  in the place of on_event: the whole events that are there, up to 64
---@field on_close? fun(ctx: gateway.Context, conf: any, reason: string)  the end, once

---@alias gateway.RouteHook fun(ctx: gateway.Context, conf: any): string|table|gateway.Reply|nil
---@alias gateway.ReplyHook fun(ctx: gateway.Context, conf: any): gateway.Reply?
---@alias gateway.Choice gateway.Instance|gateway.Reply|nil
---@alias gateway.BalanceHook fun(ctx: gateway.Context, conf: any, list: gateway.Instance[]): gateway.Choice
---@alias gateway.EventHook fun(ctx: gateway.Context, conf: any, event: gateway.Event): gateway.Verdict

---@alias gateway.EventsHook fun(ctx: gateway.Context, conf: any, events: gateway.Event[]): gateway.Verdict

---nil: pass on; false: drop; an event or a list: send these instead; ctx:close(event): send and end.
---@alias gateway.Verdict nil|false|gateway.Close|gateway.AnyEvent|gateway.AnyEvent[]
---@alias gateway.AnyEvent gateway.Event|gateway.EventFields

---@alias gateway.Reply lightuserdata what ctx:reply returns

---A plain table that stands for a new event.
---@class gateway.EventFields
---@field type? string
---@field id? string
---@field data? string
---@field json? any      encoded into data
---@field retry? integer milliseconds
---@field comment? string

---What hooks get as `ctx`: one exchange.
---@class gateway.Context
---@field req gateway.Request
---@field res gateway.Response        from the response head on; after ctx:reply, the reply's head
---@field id string                   the request's id, as in X-Request-Id and the log
---@field client {address: string, port: integer, peer: {address: string, port: integer}}
---@field params table<string, string> what the `{name}` parts of the path matched, decoded
---@field route table                 the rule as configured: id, path, serviceName, …
---@field state any                   this plugin's own for this exchange; an empty table at first
---@field shared table                all plugins' for this exchange
local Context = {}

---Answers the request; the backend is not asked, or its answer is replaced.
---@param status integer 200 to 599
---@param body? string|table a table is sent as JSON
---@param headers? table<string, string|string[]>
---@return gateway.Reply
function Context:reply(status, body, headers) end

---Only from on_event: send this event, if any, and end the stream well.
---@param event? gateway.Event|gateway.EventFields
---@return gateway.Close
function Context:close(event) end

---Sends an event to the client, at once or right behind the one that is on its way; never into one, and
---past all hooks. Waits while the client is far behind. Raises before the response head and after the end,
---and where the response is no event stream or has a Content-Encoding.
---@param event gateway.Event|gateway.EventFields
function Context:send(event) end

---Runs fn(...) as a task of this exchange. It begins when the hook waits or is done, may wait, and is
---cancelled when the exchange ends.
---@param fn function
---@return gateway.Task
function Context:spawn(fn, ...) end

---The same after that many seconds, once.
---@param seconds number
---@param fn function
---@return gateway.Task
function Context:timer(seconds, fn, ...) end

---Names the session of this exchange: requests that carry this name, where the rule's session section looks
---for it, go to the instance that this one goes to, as of now. Before an instance is chosen (in `access`) it
---is also what that is chosen by. Raises where the rule has no session section, or a stateless one.
---@param name string
function Context:stick(name) end

---A log line with the request's id.
---@param level "debug"|"info"|"warn"|"error"
---@param text string
function Context:log(level, text) end

---Header fields by name, whatever the case: `h["X-A"]` is its text (several joined by ", ") or nil;
---`h["X-A"] = "v"`, `= {"v", "w"}` and `= nil` set and remove.
---@class gateway.Headers
---@field [string] string|string[]|nil

---@class gateway.Message
---@field headers gateway.Headers
local Message = {}

---All values of a header, in order.
---@param name string
---@return string[]
function Message:values(name) end

---Adds a header beside those of its name.
---@param name string
---@param value string
function Message:add(name, value) end

---All headers but Host, with names in lower case.
---@return fun(): string?, string? name, value
function Message:each() end

---@class gateway.Request: gateway.Message
---@field method string
---@field path string                 as it came, without the query; settable
---@field query table<string, string> decoded; the first of a name counts
---@field querystring string          as it came, "" if none; settable
---@field body string?                 whole: the hook waits for it; nil past maxBufferedBody, or once sent
---@field target string               path and query; settable
---@field host string                 settable
---@field scheme string
---@field version string

---@class gateway.Response: gateway.Message
---@field status integer              settable
---@field stream boolean              an event stream

---@class gateway.Instance
---@field index integer
---@field id string
---@field service string
---@field address string             of IP, or unix:/path
---@field port? integer              none of a unix socket
---@field host? string               the host name whose address it is
---@field weight integer
---@field health "healthy"|"unhealthy"
---@field in_flight integer           requests in flight in all workers, open streams included
---@field open_streams integer        of these, the event streams
---@field response_time number        moving average of the time to the response head, in seconds; 0 = unknown
---@field answer_age number           seconds since the last answer
local Instance = {}

---The time to the response head that so many percent of the answers of the last 15 seconds kept.
---@param percent number
---@return number seconds 0 = unknown
function Instance:response_percentile(percent) end
