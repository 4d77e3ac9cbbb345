--- What the pages for readers say and nobody would notice when it stops being true: examples load, commands,
-- files and links are there. What the commands of README.md do is in spec/gateway/readme_spec.lua.
local testing = require("gateway.testing")
local core = require("gateway.core")
core.yaml = require("spec.support.yaml")

local demo = require("spec.support.demo")
local guide = require("spec.support.guide")
local loader = require("gateway.loader")
local source = require("gateway.source")

local PAGES = {
  "README.md", "docs/configuration.md", "docs/operating.md", "docs/plugins.md", "docs/retries.md",
  "docs/routing.md",  "runtime/README.md", "test-servers/README.md",
}

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function list_lines(command)
  local lines = {}
  local pipe = assert(io.popen(command))
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close()
  return lines
end

-- The files that a page lets its reader make, by path.
local function made_by(page)
  local files = {}
  for _, block in ipairs(guide.blocks(page)) do
    local path = (block.mark or ""):match("^file: (.+)$") or block.text:match("^%-%-%- (%w+): ")
    if path then files[path:find("/") and path or ("plugins/%s.lua"):format(path)] = block.text end
  end
  return files
end

local SMALL = [[
registry: {static: {services: [{name: api, instances: [{address: "127.0.0.1", port: 3010}]}]}}
router: {rules: [{path: /*, serviceName: api}]}
]]

-- A piece of configuration within a whole file: it may be a list of plugins, or a rule.
local function whole(text)
  if text:find("registry:", 1, true) then return text end
  if text:find("^plugins:") then return SMALL .. text end
  assert(text:find("^%s+%- id: "), "neither a file, plugins nor a rule")
  return (demo.replaced(SMALL, "router: {rules: [{path: /*, serviceName: api}]}\n",
    "router:\n  rules:\n" .. text:gsub("serviceName: [%w-]+", "serviceName: api")))
end

-- Loads a configuration with the files of a page and the plugins that come with the gateway.
local function load(text, files)
  local all = { ["conf/page.yaml"] = whole(text) }
  for _, path in ipairs(list_lines("ls plugins/*.lua")) do all[path] = demo.read(path) end
  for path, made in pairs(files) do all[path] = made end
  return loader.load({ file = "conf/page.yaml", source = source.memory(all) })
end

for _, path in ipairs(PAGES) do
  local page = demo.read(path)
  local folder = path:match("^(.*/)") or ""

  describe(path, function()
    before_each(testing.reset)

    for _, block in ipairs(guide.blocks(page)) do
      if block.lang == "yaml" and not block.mark then
        it("has YAML that loads, from line " .. block.line, function()
          local program, errors = load(block.text, made_by(page))
          assert.equal("", table.concat(errors, "\n"))
          assert.is_table(program)
        end)
      elseif block.lang == "lua" then
        it("has Lua that compiles, from line " .. block.line, function()
          assert(loadstring(block.text, "=" .. path))
        end)
      end
    end

    it("links to what is there", function()
      for _, link in ipairs(guide.links(page)) do
        local target = link.path == "" and path or folder .. link.path
        assert.is_true(exists(target), target)
        if link.anchor then
          assert.is_true(guide.anchors(demo.read(target))[link.anchor], target .. "#" .. link.anchor)
        end
      end
    end)

    it("names files that are there, or that it tells how to make", function()
      local made = made_by(page)
      for _, span in ipairs(guide.code(page)) do
        local top = span:match("^([%w-]+)/[%w_./-]+%.%l+$")
        if top and exists(top) and top ~= "build" and not exists(span) then
          local told = span:find("greeter", 1, true) or made[span]
          assert.is_truthy(told, span)
        end
      end
    end)

    it("names targets of make that there are", function()
      local makefile = "\n" .. demo.read("Makefile")
      local help = table.concat(list_lines("make --no-print-directory help"), "\n")
      local spans = guide.code(page)
      for _, line in ipairs(guide.commands(page)) do spans[#spans + 1] = line end
      for _, span in ipairs(spans) do
        local target = span:match("^make ([%l-]+)")
        if target then
          assert.is_truthy(makefile:find("\n" .. target .. ":", 1, true), span)
          assert.is_truthy(target == "help" or help:find("make " .. target, 1, true), span)
        end
      end
    end)
  end)
end

describe("the plugin of README.md", function()
  local page = demo.read("README.md")

  it("does what its test says", function()
    local test
    for _, block in ipairs(guide.blocks(page)) do
      if block.lang == "lua" and block.text:find("gateway.testing", 1, true) then test = block.text end
    end
    local dir = list_lines("mktemp -d")[1]
    local file = assert(io.open(dir .. "/greeter.lua", "w"))
    file:write(made_by(page)["plugins/greeter.lua"])
    file:close()
    local ok, why = pcall(assert(loadstring(demo.replaced(test, "plugins/", dir .. "/"))))
    os.execute("rm -rf '" .. dir .. "'")
    assert.is_true(ok, why)
  end)
end)
