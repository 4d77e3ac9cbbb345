--- For nginx's body_filter_by_lua: the JSON of each event is decoded, changed and encoded, as json_edit does
-- it in gatewayd. nginx hands over chunks, so what is incomplete waits in ngx.ctx for the rest; line endings
-- may be LF, CR or CRLF, data may stand on several lines, and an incomplete last event is dropped.
local cjson = require("cjson.safe")

local find, sub, gsub, byte, concat = string.find, string.sub, string.gsub, string.byte, table.concat
local CR = 13

local filter = {}

local function changed(data)
  local value = cjson.decode(data)
  if type(value) ~= "table" then return nil end
  value.via = "bench1"
  return cjson.encode(value)
end

-- The lines of an event without its data, and the data; without lines of data it is nil.
local function split(event)
  local other, data, at = {}, nil, 1
  while true do
    local stop = find(event, "\n", at, true)
    if not stop or stop == at then break end
    if find(event, "^data:", at) then
      local text = sub(event, byte(event, at + 5) == 32 and at + 6 or at + 5, stop - 1)
      data = data and data .. "\n" .. text or text
    else
      other[#other + 1] = sub(event, at, stop)
    end
    at = stop + 1
  end
  return other, data
end

local function rewritten(event)
  local other, data = split(event)
  local text = data and changed(data)
  if not text then return event end
  other[#other + 1] = "data: "
  other[#other + 1] = text
  other[#other + 1] = "\n\n"
  return concat(other)
end

-- LF for all line endings. A CR at the end may be half of a CRLF: it waits.
local function normalized(chunk, last)
  if not find(chunk, "\r", 1, true) then return chunk, "" end
  local tail = ""
  if not last and byte(chunk, -1) == CR then chunk, tail = sub(chunk, 1, -2), "\r" end
  return gsub(gsub(chunk, "\r\n", "\n"), "\r", "\n"), tail
end

--- Called for each chunk of a response.
function filter.run()
  local ctx, arg = ngx.ctx, ngx.arg
  local chunk, last = arg[1], arg[2]
  if ctx.rest then chunk = ctx.rest .. chunk end
  local text, tail = normalized(chunk, last)
  local out, at = {}, 1
  while true do
    local stop = find(text, "\n\n", at, true)
    if not stop then break end
    out[#out + 1] = rewritten(sub(text, at, stop + 1))
    at = stop + 2
  end
  local rest = sub(text, at) .. tail
  ctx.rest = rest ~= "" and rest or nil
  arg[1] = concat(out)
end

return filter
