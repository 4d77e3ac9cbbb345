--- Memory of the worker for each idle stream: by what the system accounts it with, and by the structs.
local cjson = require "cjson"
local cost = require "spec.support.cost"
local gateway = require "spec.support.gateway"
local limits = require "spec.cost.limits"
local origin = require "spec.support.origin"
local process = require "spec.support.process"

local BUILD = os.getenv "GATEWAYD_BUILD" or "build"
local STREAMS, NEVER = 2000, "/events?plain=1&rate=0.0001"
local SETTLED = "2.5" -- what the opening has left behind in Lua is collected within two seconds

local ENOUGH = 2 * STREAMS + 100

-- How many a process may have at most.
local function descriptors()
  local pipe = assert(io.popen "ulimit -Hn")
  local text = pipe:read "*l"
  pipe:close()
  return tonumber(text) or math.huge
end

describe("the memory of an idle stream #once", function()
  local server, gw

  before_each(function() server = origin.sse() end)

  after_each(function()
    gateway.stop_all()
    server:stop()
  end)

  -- Opens streams, so many at a time, holds them for a moment and tells the worker's memory.
  local function open(streams, in_flight)
    local child = process.spawn {
      BUILD .. "/bench/load", "streams", "--port", tostring(gw.port), "--path", NEVER,
      "--clients", tostring(streams), "--in-flight", tostring(in_flight), "--settle", SETTLED,
      "--seconds", "0.1", "--watch", tostring(cost.worker(gw)),
    }
    local status = assert(child:wait(60), "load does not end")
    local text = child:text()
    assert.message(child:text "stderr" .. text).equal(0, status.code)
    return cjson.decode(text:match "{.*}")
  end

  -- Bytes for each stream in a new gateway, and what was seen.
  local function measure(in_flight)
    gw = gateway.start {
      services = { api = server.port }, rules = { { path = "/*", serviceName = "api" } },
      config = { log = { access = false } },
    }
    open(20, 20) -- what the first streams need once for all
    local result = open(STREAMS, in_flight)
    gw:stop()
    return (result.pss_kib - result.pss_before_kib) * 1024 / STREAMS,
      ("%d KiB before, %d KiB with %d streams"):format(result.pss_before_kib, result.pss_kib, STREAMS)
  end

  local function check(name, in_flight)
    if descriptors() < ENOUGH then return pending(ENOUGH .. " descriptors are needed: ulimit -Hn") end
    local bytes, details = measure(in_flight)
    -- Where Lua's heap stood when it began only adds: the least of some is what a stream takes.
    for _ = 1, 2 do
      if bytes > limits.memory[name][1] then
        local again, said = measure(in_flight)
        if again < bytes then bytes, details = again, said end
      end
    end
    assert.equal("", cost.figure("bytes of PSS, " .. name, bytes, limits.memory[name], details))
  end

  it("is that little where they come by and by", function()
    check("calm", 20)
  end)

  it("is that little where they come all at once", function()
    check("storm", STREAMS)
  end)
end)

-- Sizes of structs by name, as the debug information of the program tells them.
local SIZES = [[readelf --debug-dump=info %s/gatewayd 2>/dev/null | awk '
  /DW_TAG_/ { struct = /DW_TAG_structure_type/; name = "" }
  struct && /DW_AT_name/ { name = $NF }
  struct && name != "" && /DW_AT_byte_size/ { print name, $NF }']]

local function struct_sizes()
  local sizes = {}
  local pipe = assert(io.popen(SIZES:format(BUILD)))
  for line in pipe:lines() do
    local name, size = line:match "^(%S+) (%d+)$"
    if name then sizes[name] = tonumber(size) end
  end
  pipe:close()
  return sizes
end

describe("the structs of an idle stream #once", function()
  it("have that many bytes", function()
    local sizes = struct_sizes()
    if not next(sizes) then return pending "the program has no debug information" end
    local sum, lines = 0, {}
    for i, item in ipairs(limits.structs) do
      local name, count = unpack(item)
      local bytes = count * assert(sizes[name], "there is no struct " .. name)
      lines[i] = ("%10d  %d × struct %s"):format(bytes, count, name)
      sum = sum + bytes
    end
    assert.equal("", cost.figure("bytes of structs", sum, limits.structs.sum, table.concat(lines, "\n")))
  end)
end)
