--- webdriver: a headless Chromium for specs of pages, spoken to through chromedriver (W3C WebDriver).
-- Each browser has a profile of its own in a temporary folder; `stop` takes both away.
local cjson = require("cjson")
local http = require("spec.support.http")
local process = require("spec.support.process")

local webdriver = {}

local PATIENCE = 30 -- seconds; starting a browser on a busy machine takes its time

-- Nothing but the pages of a spec is fetched, and nothing is asked of the user or of the graphics card.
-- Over a pipe to chromedriver the browser ends with it, however that ends.
local FLAGS = {
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
  "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
  "--disable-crash-reporter", "--remote-debugging-pipe", "--window-size=1200,800",
}

---@class spec.Browser
---@field process spec.Process chromedriver
---@field port integer where it listens
---@field dir string holds the profile
local Browser = {}
Browser.__index = Browser

-- One command; its body is JSON already, or a table. Raises with the browser's own words when it is refused.
function Browser:_command(method, path, body)
  if type(body) == "table" then body = cjson.encode(body) end
  local response = http.fetch(self.port, { method = method, path = self.root .. path, body = body }, PATIENCE)
  local value = cjson.decode(response.text).value
  if response.status ~= 200 then
    error(("%s %s: %s"):format(method, path, value and value.message or response.text), 3)
  end
  return value
end

local function capabilities(dir)
  local args = { "--user-data-dir=" .. dir .. "/profile" }
  for _, flag in ipairs(FLAGS) do args[#args + 1] = flag end
  local options = { binary = "/usr/bin/chromium", args = args }
  local wanted = { browserName = "chrome", ["goog:chromeOptions"] = options }
  return { capabilities = { alwaysMatch = wanted } }
end

-- Left to itself, chromedriver takes a port that is free for IPv6, and ends if that is taken for IPv4.
local function start_driver(env)
  for _ = 1, 20 do
    local driver = process.spawn({ "chromedriver", "--port=0" }, { env = env, stderr = "null" })
    local line, why
    repeat
      line, why = driver:read_line("stdout", PATIENCE)
    until not line or line:find("started successfully")
    if line then return driver, tonumber(line:match("port (%d+)")) end
    driver:kill()
    local said = driver:text()
    if not said:find("port not available") then error(("chromedriver: %s\n%s"):format(why, said), 3) end
  end
  error("chromedriver found no port", 3)
end

local function start_session(self)
  local env = { HOME = self.dir, TMPDIR = self.dir, XDG_CONFIG_HOME = self.dir, XDG_CACHE_HOME = self.dir }
  self.process, self.port = start_driver(env)
  self.root = "/session/" .. self:_command("POST", "/session", capabilities(self.dir)).sessionId
end

--- Starts a browser with one empty window. Raises when there is none to start.
---@return spec.Browser
function webdriver.start()
  local pipe = assert(io.popen("mktemp -d"))
  local self = setmetatable({ dir = pipe:read("*l"), root = "" }, Browser)
  pipe:close()
  local ok, why = pcall(start_session, self)
  if ok then return self end
  self:stop()
  error(why, 2)
end

--- Ends the browser and removes its profile.
function Browser:stop()
  if self.process then
    pcall(self._command, self, "DELETE", "")
    self.process:kill()
  end
  os.execute("rm -rf '" .. self.dir .. "'")
end

--- Loads a page in the current window and waits until it is there.
---@param url string
function Browser:open(url)
  self:_command("POST", "/url", { url = url })
end

--- Runs JavaScript in the page; `return` gives a value back, null comes as nil.
---@param script string
---@param ... any its `arguments`
---@return any value
function Browser:run(script, ...)
  local args = { ... }
  for i = 1, #args do args[i] = cjson.encode(args[i]) end -- cjson would write a list of none as {}
  local body = ('{"script":%s,"args":[%s]}'):format(cjson.encode(script), table.concat(args, ","))
  local value = self:_command("POST", "/execute/sync", body)
  return value ~= cjson.null and value or nil
end

--- Waits until an expression of JavaScript is true. Raises at the deadline, with the page's text.
---@param expression string
---@param timeout? number seconds
---@return any value of the expression
function Browser:wait(expression, timeout)
  local value
  local ok = pcall(process.wait_until, function()
    value = self:run("return " .. expression)
    return value
  end, timeout or PATIENCE)
  if ok then return value end
  local page = self:run("return document.body.innerText")
  error(("%s did not become true; the page says:\n%s"):format(expression, page), 2)
end

--- The text of an element, as a person reads it.
---@param id string
---@return string
function Browser:text(id)
  return self:run("return document.getElementById(arguments[0]).innerText", id)
end

--- Clicks an element.
---@param id string
function Browser:click(id)
  self:run("document.getElementById(arguments[0]).click()", id)
end

--- The window that commands go to.
---@return string handle
function Browser:window()
  return self:_command("GET", "/window")
end

--- Opens another window of the same user and goes there.
---@return string handle
function Browser:new_window()
  local handle = self:_command("POST", "/window/new", { type = "window" }).handle
  self:go_to(handle)
  return handle
end

---@param handle string
function Browser:go_to(handle)
  self:_command("POST", "/window", { handle = handle })
end

--- Closes all windows but one, which is then empty; no stream of an earlier page goes on.
function Browser:reset()
  local handles = self:_command("GET", "/window/handles")
  for i = 2, #handles do
    self:go_to(handles[i])
    self:_command("DELETE", "/window")
  end
  self:go_to(handles[1])
  self:open("about:blank")
end

return webdriver
