--- The rules of the house that a machine can check (runtime/README.md says why they are there).

local FLOOR = { base = 0, net = 1, http = 2, sse = 2, gateway = 3, script = 4, config = 4 }
local MAX_FUNCTION, MAX_FILE = 80, 900

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close()
  return lines
end

local function read(path)
  local file = io.open(path)
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

-- What is or would be committed; outside a checkout, whatever is there.
local function tracked_files()
  local found = lines_of "git -c safe.directory='*' ls-files -co --exclude-standard 2>/dev/null"
  if #found > 0 then return found end
  return lines_of [[find . \( -name .git -o -name 'build*' \) -prune -o -type f -printf '%P\n']]
end

describe("the house #once", function()
  local texts = {} -- by path
  local paths = tracked_files()

  setup(function()
    for _, path in ipairs(paths) do texts[path] = read(path) end
  end)

  -- Files whose path matches; and all complaints about them at once.
  local function check(pattern, complain)
    local complaints = {}
    local seen = 0
    for _, path in ipairs(paths) do
      if texts[path] and path:find(pattern) then
        seen = seen + 1
        complain(path, texts[path], function(...)
          complaints[#complaints + 1] = path .. ": " .. string.format(...)
        end)
      end
    end
    assert.message("no file like " .. pattern).is_true(seen > 0)
    assert.equal("", table.concat(complaints, "\n"))
  end

  local function includes(text)
    return ("\n" .. text):gmatch '\n%s*#%s*include%s+"([^"]+)"'
  end

  it("has known floors only", function()
    check("^runtime/[^/]+/", function(path, _, complain)
      local folder = path:match "^runtime/([^/]+)/"
      if not FLOOR[folder] then complain("runtime/%s is on no floor", folder) end
    end)
  end)

  it("includes from a file's own folder or from lower floors", function()
    check("^runtime/[^/]+/.*%.[ch]$", function(path, text, complain)
      local own = path:match "^runtime/([^/]+)/"
      for include in includes(text) do
        local other = include:match "^([^/]+)/" or "runtime itself"
        if other ~= own and (FLOOR[other] or math.huge) >= (FLOOR[own] or -1) then
          complain("includes %s", include)
        end
      end
    end)
  end)

  it("includes a file's own header first", function()
    check("^runtime/.*%.c$", function(path, text, complain)
      local header = path:gsub("^runtime/", ""):gsub("%.c$", ".h")
      if texts["runtime/" .. header] and ("\n" .. text):match '\n#include%s+["<]([^">]+)' ~= header then
        complain("does not include %s first", header)
      end
    end)
  end)

  it("says at the top of each C file what it is", function()
    check("%.c$", function(_, text, complain)
      if text:sub(1, 2) ~= "/*" then complain "does not open with a comment" end
    end)
  end)

  it("has no struct typedefs", function()
    check("%.[ch]$", function(_, text, complain)
      if text:find "typedef%s+struct" then complain "has a struct typedef" end
    end)
  end)

  it("keeps files short", function()
    local function count(_, text, complain)
      local _, n = text:gsub("\n", "")
      if n > MAX_FILE then complain("%d lines", n) end
    end
    check("%.[ch]$", count)
    check("%.lua$", count)
  end)

  it("keeps C functions short", function()
    if #lines_of "command -v ctags" == 0 then return pending "no ctags" end
    check("%.[ch]$", function(path, _, complain)
      local command = "ctags --languages=C --langmap=C:.c.h --kinds-C=f --fields=+ne -x"
        .. " --_xformat='%%n %%{end} %%N' '%s' 2>/dev/null"
      for _, tag in ipairs(lines_of(command:format(path))) do
        local first, last, name = tag:match "^(%d+) (%d+) (.*)"
        if first and last - first + 1 > MAX_FUNCTION then
          complain("%s has %d lines", name, last - first + 1)
        end
      end
    end)
  end)

  -- Our Lua is indented: a function's `end` is the next one as far to the left as its head.
  it("keeps Lua functions short", function()
    check("%.lua$", function(path, text, complain)
      if path:find "^spec/" then return end
      local open = {} -- heads by indentation
      local n = 0
      for line in text:gmatch "([^\n]*)\n" do
        n = n + 1
        local indent, rest = line:match "^(%s*)(.*)"
        local one_line = rest:find "%f[%w]end%f[%W][%s,)]*$"
        if rest:find "^end%f[%W]" and open[indent] then
          local length = n - open[indent] + 1
          if length > MAX_FUNCTION then complain("function at line %d has %d lines", open[indent], length) end
          open[indent] = nil
        elseif not one_line
          and (rest:find "^l?o?c?a?l?%s*function%f[%W]" or rest:find "^[%w_.%[%]\" ]-=%s*function%f[%W]") then
          open[indent] = n
        end
      end
    end)
  end)

  it("names no place or host that only its makers know", function()
    -- Written in two parts, as this file is checked as well.
    local private = {
      "/wo" .. "rk/", "/tmp/" .. "team", "%f[%w/]/ro" .. "ot%f[^%w_]", "deb%.deb" .. "ian%.org",
      "registry%.np" .. "mjs", "pypi%." .. "org", "proxy%.gol" .. "ang", "crates%." .. "io",
      "luarocks%." .. "org",
    }
    check("", function(_, text, complain)
      for _, pattern in ipairs(private) do
        local found = text:match(pattern)
        if found then complain("has %s", found) end
      end
    end)
  end)
end)
