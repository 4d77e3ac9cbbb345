--- sse_reference: what a browser makes of an event stream, step by step as the HTML standard says it
--- (9.2.5 "Parsing an event stream", 9.2.6 "Interpreting an event stream"). Made to be compared with,
--- and so to be simple: it takes a whole stream as text.
local reference = {}

---@class spec.Dispatch
---@field type string
---@field data string
---@field lastEventId string

---@class spec.Interpretation
---@field events spec.Dispatch[] what would be dispatched, in order
---@field retry integer?         reconnection time, if the stream set it
---@field lastEventId string     what a reconnection would send

local BOM = "\239\187\191"

-- The lines that have an end; what comes behind the last end is no line.
local function lines_of(text)
  local lines = {}
  text = text:gsub("\r\n", "\n"):gsub("\r", "\n")
  for line in text:gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return lines
end

local function split_field(line)
  local colon = line:find(":", 1, true)
  if not colon then return line, "" end
  local value = line:sub(colon + 1)
  if value:sub(1, 1) == " " then value = value:sub(2) end
  return line:sub(1, colon - 1), value
end

local fields = {}

function fields.event(state, value) state.type_buffer = value end

function fields.data(state, value) state.data_buffer = state.data_buffer .. value .. "\n" end

function fields.id(state, value)
  if not value:find("\0", 1, true) then state.id_buffer = value end
end

function fields.retry(state, value)
  if value:find("^[0-9]+$") then state.retry = tonumber(value) end
end

local function dispatch(state)
  state.lastEventId = state.id_buffer
  if state.data_buffer ~= "" then
    state.events[#state.events + 1] = {
      type = state.type_buffer ~= "" and state.type_buffer or "message",
      data = state.data_buffer:sub(1, -2),
      lastEventId = state.lastEventId,
    }
  end
  state.data_buffer, state.type_buffer = "", ""
end

--- Interprets a whole stream, from its first byte to its end.
---@param stream string
---@return spec.Interpretation
function reference.interpret(stream)
  local state = { events = {}, data_buffer = "", type_buffer = "", id_buffer = "", lastEventId = "" }
  if stream:sub(1, 3) == BOM then stream = stream:sub(4) end
  for _, line in ipairs(lines_of(stream)) do
    if line == "" then
      dispatch(state)
    elseif line:sub(1, 1) ~= ":" then
      local name, value = split_field(line)
      if fields[name] then fields[name](state, value) end
    end
  end
  return { events = state.events, retry = state.retry, lastEventId = state.lastEventId }
end

-- Pieces of streams that have something to go wrong in them.
local NAMES = {
  "data", "data", "data", "event", "id", "retry", "", "Data", "data ", "foo", "dat",
  "\239\187\191data", "id\0",
}
local VALUES = {
  "", " ", "  two", "x", "hello: world", "ping", "12", "007", "-1", "1e3",
  "a\0b", "\0", "grüße", ":", "99999999",
}
local ENDS = { "\n", "\n", "\r\n", "\r\n", "\r" }

local function random_line(random)
  local kind = random(1, 20)
  if kind <= 5 then return "" end
  if kind == 6 then return ":" .. VALUES[random(1, #VALUES)] end
  if kind == 7 then return NAMES[random(1, #NAMES)] end
  if kind == 8 then return "data:" .. ("long"):rep(random(1, 60)) end
  return NAMES[random(1, #NAMES)] .. ":" .. (random(0, 1) == 1 and " " or "") .. VALUES[random(1, #VALUES)]
end

--- A stream made of lines, many of them odd; all line ends mixed, or one kind only; now and then with a
--- BOM, and with an end in the middle of something.
---@param random fun(low: integer, high: integer): integer
---@param lines integer
---@return string
function reference.random_stream(random, lines)
  local one_end = random(1, 3) == 1 and ENDS[random(1, #ENDS)]
  local out = { random(1, 6) == 1 and BOM or "" }
  for _ = 1, lines do
    out[#out + 1] = random_line(random)
    out[#out + 1] = one_end or ENDS[random(1, #ENDS)]
  end
  local stream = table.concat(out)
  return random(1, 3) == 1 and stream:sub(1, random(0, #stream)) or stream
end

--- Streams written down for what is special about each, by name.
---@return table<string, string>
function reference.corpus()
  return {
    ["nothing"] = "",
    ["a BOM only"] = BOM,
    ["half a BOM"] = BOM:sub(1, 2),
    ["a BOM and an event"] = BOM .. "data: x\n\n",
    ["a BOM and blank lines"] = BOM .. "\n\r\n\r" .. "data: x\n\n",
    ["two BOMs"] = BOM .. BOM .. "data: x\n\n",
    ["a BOM in the second event"] = "data: x\n\n" .. BOM .. "data: y\n\ndata: z\n\n",
    ["half a BOM as a name"] = "\239\187\n\239\187:x\ndata: y\n\n",
    ["blank lines only"] = "\n\r\r\n\n\n\r\n\r\r",
    ["the standard's first example"] = "data: This is the first message.\n\n"
      .. "data: This is the second message, it\ndata: has two lines.\n\ndata: This is the third message.\n\n",
    ["the standard's comment and ids"] = ": test stream\n\ndata: first event\nid: 1\n\n"
      .. "data:second event\nid\n\ndata:  third event\n\n",
    ["the standard's empty data"] = "data\n\ndata\ndata\n\ndata:",
    ["the standard's one space"] = "data:test\n\ndata: test\n\n",
    ["CR only"] = "event: a\rdata: 1\r\rdata: 2\r\r",
    ["CRLF only"] = "event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n",
    ["CR, then LF, then CRLF"] = "data: 1\r\n\ndata: 2\n\r\n\r\ndata: 3\r\r\n\ndata: 4\n\r",
    ["comments between and inside"] = ":hb\n:\n\ndata: 1\n:in\ndata: 2\n\n:after\r\n\r\n: x\r\rdata: 3\n\n",
    ["a comment without a blank line"] = ":hb\r\n:hb\r:hb\ndata: x\n\n",
    ["an id with a NUL"] = "id: a\ndata: 1\n\nid: b\0c\ndata: 2\n\nid:\ndata: 3\n\n",
    ["an id without data"] = "id: 7\n\ndata: x\n\n",
    ["a type without data"] = "event: lost\n\ndata: x\n\n",
    ["a type twice"] = "event: a\nevent: b\ndata: x\n\nevent: a\nevent:\ndata: y\n\n",
    ["retry, good and bad"] = "retry: 10\nretry: x\n"
      .. "retry: -1\nretry: 1.5\nretry:\nretry\ndata: x\n\nretry: 20\n\n",
    ["names that are nearly right"] = "Data: x\ndata : x\n data: x\n"
      .. "datas: x\ndat: x\nID: 1\nfoo\n\ndata: y\n\n",
    ["NULs in data and type"] = "event: a\0b\ndata: \0\n\n",
    ["colons in values"] = "data:: \ndata: a:b\ndata::: c\n\n",
    ["no end to the last event"] = "data: 1\n\ndata: 2\n",
    ["no end to the last line"] = "data: 1\n\ndata: 2",
    ["a huge line"] = "data: " .. ("x"):rep(40000) .. "\n\ndata: y\n\n",
    ["many short events"] = ("data: x\n\n"):rep(200),
  }
end

return reference
