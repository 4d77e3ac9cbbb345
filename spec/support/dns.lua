--- dns: a name server inside the spec (RFC 1035, UDP and, when it is told so, TCP): the spec takes each
-- question and answers it, or does not.
--
--     local server = dns.listen()
--     local question = server:question()          -- {name = "a.test", type = "A"}
--     server:answer(question, { ttl = 60, "192.0.2.1" })
local backend = require("spec.support.backend")
local bit = require("bit")
local ffi = require("ffi")
local sys = require("spec.support.sys")

local C = sys.C
if not pcall(function() return C.spec_recvfrom end) then
  ffi.cdef([[
    long spec_recvfrom(int, void *, size_t, int, struct spec_sockaddr_in *, unsigned *)
      __asm__("recvfrom");
    long spec_sendto(int, const void *, size_t, int, const struct spec_sockaddr_in *, unsigned)
      __asm__("sendto");
  ]])
end

local dns = {}

---@class spec.Dns
---@field servers string what a resolver is told
---@field asked table<string, integer> how often, by "type name"
local Dns = {}
Dns.__index = Dns

local TYPES = { [1] = "A", [5] = "CNAME", [28] = "AAAA" }
local NUMBERS = { A = 1, CNAME = 5, AAAA = 28 }

local function port_of(addr)
  return bit.bor(bit.lshift(bit.band(addr.port, 255), 8), bit.rshift(addr.port, 8))
end

local function bind(port)
  local fd = sys.check(C.spec_socket(2, 2 + 0x800 + 0x80000, 0), "socket")
  local addr = ffi.new("struct spec_sockaddr_in", { family = 2, addr = 0x0100007f })
  addr.port = bit.bor(bit.lshift(bit.band(port, 255), 8), bit.rshift(port, 8))
  if C.spec_bind(fd, addr, ffi.sizeof(addr)) ~= 0 then
    C.spec_close(fd)
    return nil
  end
  sys.check(C.spec_getsockname(fd, addr, ffi.new("unsigned[1]", 16)), "getsockname")
  return fd, port_of(addr)
end

-- A port that is free for both.
local function bind_both()
  for _ = 1, 100 do
    local tcp = backend.listen()
    local fd, port = bind(tcp.port)
    if fd then return fd, port, tcp end
    tcp:close()
  end
  error("no port is free", 2)
end

---@param options? {tcp?: boolean} tcp: answers that are too long for UDP are cut there, and whole by TCP
---@return spec.Dns
function dns.listen(options)
  local fd, port, tcp
  if options and options.tcp then fd, port, tcp = bind_both() else fd, port = bind(0) end
  local self = { fd = assert(fd), tcp = tcp, servers = "127.0.0.1:" .. port, asked = {}, conns = {} }
  return setmetatable(self, Dns)
end

function Dns:close()
  if self.fd then C.spec_close(self.fd) end
  if self.tcp then self.tcp:close() end
  self.fd = nil
end

local packet = ffi.new("uint8_t[2048]")

local function parse(text)
  local labels, at = {}, 13
  while text:byte(at) ~= 0 do
    local len = text:byte(at)
    labels[#labels + 1] = text:sub(at + 1, at + len)
    at = at + len + 1
  end
  return table.concat(labels, "."), text:byte(at + 1) * 256 + text:byte(at + 2), text:sub(13, at + 4)
end

---@class spec.Question
---@field name string in lower case
---@field type string A, AAAA or a number

-- What has come by UDP.
function Dns:_datagram()
  local from, size = ffi.new("struct spec_sockaddr_in"), ffi.new("unsigned[1]", 16)
  local n = tonumber(C.spec_recvfrom(self.fd, packet, 2048, 0, from, size))
  if n >= 0 then return ffi.string(packet, n), { from = from } end
end

-- What has come by TCP, where a length goes before each.
function Dns:_message()
  local conn = self.tcp and self.tcp:try_accept(0)
  if conn then self.conns[#self.conns + 1] = conn end
  for _, each in ipairs(self.conns) do
    each.have = (each.have or "") .. (each:read_some(0) or "")
    local high, low = each.have:byte(1, 2)
    local last = low and 2 + high * 256 + low
    if last and #each.have >= last then
      local text = each.have:sub(3, last)
      each.have = each.have:sub(last + 1)
      return text, { conn = each }
    end
  end
end

--- The next question that has come; nil when there is none.
---@return spec.Question?
function Dns:try_question()
  local text, question = self:_datagram()
  if not text then text, question = self:_message() end
  if not text then return nil end
  local name, kind
  name, kind, question.section = parse(text)
  question.id, question.name, question.type = text:sub(1, 2), name:lower(), TYPES[kind] or tostring(kind)
  local key = question.type .. " " .. question.name
  self.asked[key] = (self.asked[key] or 0) + 1
  return question
end

--- Waits for one.
---@param timeout? number seconds
---@return spec.Question
function Dns:question(timeout)
  local deadline = sys.now() + (timeout or sys.patience)
  repeat
    local question = self:try_question()
    if question then return question end
  until not next(sys.poll({ [self.fd] = sys.POLLIN }, deadline))
  error("nobody asked the name server", 2)
end

local function uint16(n)
  return string.char(math.floor(n / 256), n % 256)
end

local function encode_name(name)
  return name:gsub("[^.]+%.?", function(label)
    label = label:gsub("%.", "")
    return string.char(#label) .. label
  end) .. "\0"
end

local function bytes_of(kind, value)
  if kind == "CNAME" then return encode_name(value) end
  local out = ffi.new("uint8_t[16]")
  assert(C.spec_inet_pton(kind == "A" and 2 or 10, value, out) == 1, value)
  return ffi.string(out, kind == "A" and 4 or 16)
end

local function record(owner, kind, ttl, value)
  local data = bytes_of(kind, value)
  return owner .. uint16(NUMBERS[kind]) .. "\0\1" .. uint16(math.floor(ttl / 65536)) .. uint16(ttl % 65536)
    .. uint16(#data) .. data
end

local DATAGRAM_MAX = 1232
local CUT = "\131\128\0\1\0\0\0\0\0\0" -- flags that say so, and no records

function Dns:send(question, bytes)
  if question.conn then
    question.conn:send(uint16(#bytes) .. bytes)
    return
  end
  if self.tcp and #bytes > DATAGRAM_MAX then bytes = question.id .. CUT .. question.section end
  C.spec_sendto(self.fd, bytes, #bytes, 0, question.from, ffi.sizeof(question.from))
end

--- Answers: a list of addresses, with ttl (60), rcode (0), cname (through which they are reached), and for a
-- liar id, question (the name that it claims to have been asked for), owner (whose addresses they are).
---@param question spec.Question
---@param answer? table
function Dns:answer(question, answer)
  answer = answer or {}
  local ttl, records, owner = answer.ttl or 60, {}, answer.owner and encode_name(answer.owner) or "\192\12"
  if answer.cname then
    records[1] = record(owner, "CNAME", ttl, answer.cname)
    owner = encode_name(answer.cname)
  end
  for _, address in ipairs(answer) do records[#records + 1] = record(owner, question.type, ttl, address) end
  local section = question.section
  if answer.question then section = encode_name(answer.question) .. section:sub(-4) end
  self:send(question, (answer.id or question.id) .. "\129" .. string.char(128 + (answer.rcode or 0))
    .. "\0\1" .. uint16(#records) .. "\0\0\0\0" .. section .. table.concat(records))
end

--- What a zone says to a question: an answer's records, told apart by their form, or false for "no such
-- name"; where it says nothing, nothing is answered. An entry may be `silent` about one type, lie as
-- an answer does, or be garbage (`junk`).
---@param question spec.Question
---@param entry table|false|nil
function Dns:say(question, entry)
  if entry == nil then return end
  if not entry then return self:answer(question, { rcode = 3 }) end
  local answer = { ttl = entry.ttl, rcode = entry.rcode, cname = entry.cname, id = entry.id,
    question = entry.question, owner = entry.owner }
  for _, address in ipairs(entry) do
    if (address:find(":", 1, true) ~= nil) == (question.type == "AAAA") then
      answer[#answer + 1] = address
    end
  end
  if entry.junk then return self:send(question, question.id .. entry.junk) end
  if entry.silent ~= question.type then self:answer(question, answer) end
end

--- Answers all questions that are there from a table of answers by name.
---@param zone table<string, table|false>
function Dns:serve(zone)
  for question in function() return self:try_question() end do self:say(question, zone[question.name]) end
end

return dns
