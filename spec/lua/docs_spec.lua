--- The examples of the guides: files load, specs pass.
-- In the guides, `<!-- file: PATH -->` stands before the text of a file, `<!-- spec -->` before a spec.
local testing = require("gateway.testing")
local core = require("gateway.core")
core.yaml = require("spec.support.yaml")

-- The guides' configurations take secrets from the environment.
local ffi = require("ffi")
pcall(ffi.cdef, "int setenv(const char *name, const char *value, int overwrite);")
ffi.C.setenv("SESSION_SECRET", "a secret of the guides", 1)

local loader = require("gateway.loader")
local source = require("gateway.source")

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

-- The marked blocks of a guide: files by path, specs in order.
local function examples(path)
  local files, specs, text = {}, {}, read(path)
  for mark, block in text:gmatch("<!%-%- ([^\n]-) %-%->\n```%a+\n(.-)\n```") do
    local name = mark:match("^file: (.+)$")
    if name then files[name] = block .. "\n" else specs[#specs + 1] = block end
  end
  return files, specs
end

local shipped = { "event_filter", "event_rewrite", "cors", "headers" }

local function with_shipped(files)
  for _, name in ipairs(shipped) do
    local path = "plugins/" .. name .. ".lua"
    files[path] = files[path] or read(path)
  end
  return files
end

-- A spec of a guide names plugins as the reader would; here they lie in a folder of their own.
local function run_spec(text, dir, where)
  local chunk = assert(loadstring((text:gsub('"plugins/', '"' .. dir .. "/")), "=" .. where))
  setfenv(chunk, getfenv(1))
  chunk()
end

for guide, count in pairs({ ["docs/plugins.md"] = 16, ["docs/routing.md"] = 1, ["docs/balancing.md"] = 1,
  ["docs/instances.md"] = 0, ["docs/health.md"] = 0, ["docs/edge.md"] = 0 }) do
  describe(guide, function()
    local files, specs = examples(guide)
    with_shipped(files)
    local dir = os.tmpname()
    os.remove(dir)
    assert(require("lfs").mkdir(dir))
    for path, text in pairs(files) do
      local name = path:match("^plugins/(.*)$")
      if name then
        local file = assert(io.open(dir .. "/" .. name, "w"))
        file:write(text)
        file:close()
      end
    end

    teardown(function() os.execute("rm -rf " .. dir) end)
    before_each(testing.reset)

    it("has specs", function() assert.equal(count, #specs) end)

    for path in pairs(files) do
      local plugin_name = path:match("^plugins/(.*)%.lua$")
      if path:find("%.yaml$") then
        it("has a configuration that loads: " .. path, function()
          local program, errors = loader.load({ file = path, source = source.memory(files) })
          assert.same({}, errors)
          assert.is_table(program)
        end)
      elseif plugin_name then
        it("has a plugin that loads: " .. path, function()
          local yaml = "plugins: [nothing]\n"
          local _, errors = loader.load({ file = "conf/x.yaml", source = source.memory(setmetatable({
            ["conf/x.yaml"] = yaml:gsub("nothing", plugin_name) }, { __index = files })) })
          for _, text in ipairs(errors) do assert.matches("%.%w+: missing$", text) end
        end)
      end
    end

    for i, text in ipairs(specs) do
      describe("spec " .. i, function() run_spec(text, dir, guide .. "#" .. i) end)
    end
  end)
end

describe("docs/routing.md", function()
  local program

  setup(function()
    local files = with_shipped(examples("docs/routing.md"))
    files["conf/x.yaml"] = "plugins: [maintenance: {on: true}]\n" .. files["conf/tenants.yaml"]
    program = assert(loader.load({ file = "conf/tenants.yaml", source = source.memory(files) }))
    program.closed = assert(loader.load({ file = "conf/x.yaml", source = source.memory(files) }))
  end)

  local function routed(built, options)
    local handle = testing.context(options)._x
    local ctx = built.open(handle)
    built.route(ctx)
    return ctx, handle
  end

  it("routes tenants", function()
    local ctx = routed(program, { path = "/tenants/acme/events" })
    assert.equal("tenant-events", ctx.route.id)
    assert.equal(1, program.balance(ctx))
    ctx = routed(program, { path = "/x", headers = { ["X-Beta"] = "1" } })
    assert.equal(3, program.balance(ctx))
    assert.equal("/*", routed(program, { path = "/x" }).route.id)
  end)

  it("closes for maintenance", function()
    local ctx, handle = routed(program.closed, { path = "/x" })
    program.closed.access(ctx)
    assert.equal(503, handle.reply.status)
    assert.equal("/*", routed(program.closed, { path = "/health" }).route.id)
  end)
end)

describe("docs/balancing.md", function()
  local page = read("docs/balancing.md")
  local files = with_shipped(examples("docs/balancing.md"))

  -- The instances that requests with these headers meet, in order.
  local function met(path, options, count)
    local program = assert(loader.load({ file = path, source = source.memory(files) }))
    local ids = {}
    for i = 1, count do
      local ctx = program.open(testing.context(options(i))._x)
      program.route(ctx)
      ids[i] = program.instances[program.balance(ctx)].id
    end
    return ids
  end

  it("names every policy in its table, and no other", function()
    local listed = {}
    for name in page:match("\n|%-%-%-|.-\n\n"):gmatch("\n| `([%w_]+)` |") do listed[name] = true end
    for name in pairs(require("gateway.policies").names) do assert.is_true(listed[name], name) end
    for name in pairs(listed) do assert.is_truthy(require("gateway.policies").names[name], name) end
  end)

  it("says what its examples do", function()
    local function streams() return { path = "/events", headers = { Accept = "text/event-stream" } } end
    assert.equal("big small big big small big", table.concat(met("conf/least.yaml", streams, 6), " "))
    local function from_one_network(i)
      return { path = "/x", client = "198.51.100." .. i, peer = "10.0.0.7" }
    end
    local homes = met("conf/ip.yaml", from_one_network, 50)
    for i = 2, 50 do assert.equal(homes[1], homes[i]) end
    local function room(i) return { path = "/rooms/" .. i % 25 .. "/events" } end
    homes = met("conf/hash.yaml", room, 50)
    for i = 1, 25 do assert.equal(homes[i], homes[i + 25]) end
    local function user(i) return { path = "/api/x", headers = { Cookie = "user=" .. i } } end
    local new = 0
    for _, id in ipairs(met("conf/canary.yaml", user, 1000)) do
      new = new + (id == "127.0.0.1:3012" and 1 or 0)
    end
    assert.is_true(new > 30 and new < 75)
    local function region(i) return { path = "/x", headers = { ["X-Region"] = i == 1 and "us" or "eu" } } end
    assert.same({ "us-1", "eu-1", "eu-1" }, met("conf/regions.yaml", region, 3))
  end)
end)
