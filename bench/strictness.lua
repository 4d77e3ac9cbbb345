--- strictness: the cases of HTTP/1 played against nginx, HAProxy and gatewayd, requests in front of a
-- backend that records, answers by a backend that plays them. Writes docs/http-peers.md. Run by
-- `make strictness`, which is no part of the tests: other versions of the peers answer in other ways.
package.path = "./?.lua;" .. package.path

local backend = require("spec.support.backend")
local contenders = require("bench.contenders")
local decisions = require("spec.support.decisions")
local gateway = require("spec.support.gateway")
local http = require("spec.support.http")
local sys = require("spec.support.sys")

local cases = dofile "spec/runtime/data/http1_cases.lua"
local reasons = dofile "spec/runtime/data/http1_reasons.lua"

local PAGE = "docs/http-peers.md"
local PEERS = { "gatewayd", "nginx", "haproxy" }
local QUIET = 0.5 -- seconds without a byte after which nothing more is expected
local OUR_OWN = "paths in normalised form" -- the peers have nothing like forwardPath
local BOUNDS = { [413] = true, [414] = true, [431] = true } -- ours are set low for the cases: no comparison

-- Is the last chunk there, with its trailers?
local function has_last_chunk(body)
  local at = 1
  while true do
    local size, behind = body:match("^(%x+)[^\r\n]*\r\n()", at)
    if not size then return false end
    if tonumber(size, 16) == 0 then return body:find("\r\n\r\n", behind - 2, true) ~= nil end
    at = behind + tonumber(size, 16) + 2
  end
end

-- A request as the backend reads it, as far as it comes.
local function record(conn)
  local head = conn:read_until("\r\n\r\n", QUIET, true)
  if not head then return conn.buffer, false end
  local length = tonumber(head:lower():match("\r\ncontent%-length: *(%d+)"))
  local chunked = head:lower():find("\r\ntransfer%-encoding: *chunked")
  local body = ""
  while (chunked and not has_last_chunk(body)) or (length and #body < length) do
    local more = conn:read_some(QUIET)
    if not more then return head .. body, false end
    body = body .. more
  end
  return head .. body, true
end

local function serve(conn)
  local bytes, whole = record(conn)
  if whole then conn:send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok") end
  conn:close()
  return bytes ~= "" and { bytes = bytes, whole = whole } or nil
end

local function last_status(text)
  local last
  for status in text:gmatch("HTTP/1%.%d (%d%d%d)") do
    if tonumber(status) >= 200 then last = tonumber(status) end
  end
  return last
end

-- What a peer makes of a request: "forwarded", "refused", "own" or "silent", and in words.
local function play_request(port, origin, case)
  local conn = http.connect(port)
  conn:send(case[2])
  local text, seen, until_s = "", {}, sys.now() + QUIET
  local wanted = { [conn.fd] = sys.POLLIN, [origin.fd] = sys.POLLIN }
  while not conn.ended and next(sys.poll(wanted, until_s)) do
    local up = origin:try_accept(0)
    if up then
      seen[#seen + 1] = serve(up)
      until_s = sys.now() + QUIET
    end
    local more = conn:read_some(0)
    if more then
      text = text .. more
      until_s = sys.now() + QUIET / 10
    end
  end
  conn:close()
  local status, first = last_status(text), seen[1]
  local whole = first and first.whole
  if status == 200 and whole then
    return "forwarded", #seen > 1 and "forwarded as " .. #seen or "forwarded"
  end
  if whole then return "forwarded", ("forwarded, client got %s"):format(status or "nothing") end
  if first then return "refused", ("%s, backend got a part"):format(status or "closed") end
  if not status then return "silent", text == "" and "no answer" or "an answer without a status line" end
  if status < 400 then return "own", status .. " of its own" end
  return "refused", tostring(status)
end

-- All that comes until the peer closes, falls silent, or has sent more than any case holds.
local function read_answer(conn)
  local parts, size, deadline = {}, 0, sys.now() + 2 * QUIET
  repeat
    local more = conn:read_some(QUIET)
    parts[#parts + 1] = more
    size = size + #(more or "")
  until not more or size > 65536 or sys.now() > deadline
  return table.concat(parts)
end

-- Does this body end as its head promises?
local function is_whole(head, body, case, status, ended)
  local length = head:match("\r\ncontent%-length: *(%d+)")
  if case.method == "HEAD" or status == 204 or status == 304 then return body == "" end
  if head:find("\r\ntransfer%-encoding: *chunked") then return has_last_chunk(body) end
  if length then return #body == tonumber(length) end
  return ended == "eof"
end

-- What a client gets of an answer: "passed", "refused", "broken" or "silent", and in words.
local function play_answer(port, origin, case)
  local conn = http.connect(port)
  conn:send((case.method or "GET") .. " / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
  local up = origin:try_accept(5)
  if not up then return "silent", "not asked" end
  record(up)
  up:send(case[2])
  if case.eof then up:close() end
  local text = read_answer(conn)
  local ended = conn.ended
  if up.fd then up:close() end
  conn:close()
  local interim = text:find("^HTTP/1%.1 1") and "an interim answer and no other"
  while text:find("^HTTP/1%.1 1") and not text:find("^HTTP/1%.1 101") do
    local _, stop = text:find("\r\n\r\n", 1, true)
    text = text:sub((stop or #text) + 1)
  end
  local head, body = text:match("^(.-\r\n)\r\n(.*)$")
  local status = tonumber(text:match("^HTTP/1%.%d (%d%d%d)"))
  if not head or not status then
    return "silent", interim or text == "" and "no answer" or "no head"
  end
  if status == 502 or status == 500 or status == 504 then return "refused", tostring(status) end
  if status == 101 then return "passed", "101 passed on" end
  if is_whole(head:lower(), body, case, status, ended) then return "passed", status .. " passed on" end
  return "broken", ("%d, %s"):format(status, ended and "broken end" or "no end")
end

local GUARD = [[
return { name = "guard", access = function(ctx) return ctx:reply(403, "no") end }
]]

local function start(name, origin)
  if name ~= "gatewayd" then
    return contenders.start(name, { origins = { origin.port }, workers = 1, cores = "0-1", guard = true })
  end
  return gateway.start({
    services = { s = { origin.port } }, files = { ["plugins/guard.lua"] = GUARD },
    config = { pluginPath = { "../plugins" } },
    rules = {
      { path = "/*", serviceName = "s" },
      { path = "/admin/*", serviceName = "s", plugins = { "guard" } },
      { path = "/exact", serviceName = "s", plugins = { "guard" } },
    },
  })
end

local function comparable(case)
  return not BOUNDS[case[3]] and not case.coarse and case.category ~= OUR_OWN
end

-- For each case { class, words } of this peer.
local function play(name)
  local origin = backend.listen()
  local peer = start(name, origin)
  local results = {}
  for kind, run in pairs({ requests = play_request, responses = play_answer }) do
    results[kind] = {}
    for i, case in ipairs(cases[kind]) do
      if comparable(case) then
        results[kind][i] = { run(peer.port, origin, case) }
        for _ = 1, 20 do origin:try_accept(0) end -- what is still under way belongs to no other case
      end
    end
  end
  peer:stop()
  origin:close()
  return results
end

local function add_counts(out, kind, classes, results)
  out[#out + 1] = "| category | peer | " .. table.concat(classes, " | ") .. " |"
  out[#out + 1] = "|---|---|" .. ("---:|"):rep(#classes)
  for _, category in ipairs(decisions.categories(cases[kind])) do
    for _, name in ipairs(category ~= OUR_OWN and PEERS or {}) do
      local counts = {}
      for c, class in ipairs(classes) do
        counts[c] = 0
        for i, case in ipairs(cases[kind]) do
          local result = results[name][kind][i]
          if case.category == category and result and result[1] == class then counts[c] = counts[c] + 1 end
        end
      end
      out[#out + 1] = ("| %s | %s | %s |"):format(category, name, table.concat(counts, " | "))
    end
  end
end

local function reason(kind, case)
  return reasons[kind][case[1]] or reasons.categories[case.category]
end

local function add_differences(out, kind, results)
  out[#out + 1] = "\n| case | gatewayd | nginx | HAProxy | why |\n|---|---|---|---|---|"
  for i, case in ipairs(cases[kind]) do
    local ours, nginx, haproxy = results.gatewayd[kind][i], results.nginx[kind][i], results.haproxy[kind][i]
    if ours and (ours[1] ~= nginx[1] or ours[1] ~= haproxy[1]) then
      out[#out + 1] = ("| %s | %s | %s | %s | %s |"):format(case[1], ours[2], nginx[2], haproxy[2],
        reason(kind, case))
    end
  end
end

local INTRO = [[
# The same cases against nginx and HAProxy

Made by `make strictness` from the cases of [http.md](http.md): nginx %s and HAProxy %s from Debian, with the
plain configurations of a reverse proxy in `bench/contenders.lua`, and gatewayd with its defaults and one
rule for `/*`. Each has a rule more that answers 403 for `/admin/` and `/exact`, written as their manuals
write it: `location /admin/`, `path_beg /admin/`, `path: /admin/*`. A backend behind each records what
reaches it, or plays the answer. Cases of bounds and of `forwardPath` are left out: they depend on settings.
Nothing here says that a peer is unsafe in itself: whether a message that goes on does harm depends on who
reads it next, and both can be configured to refuse more. The gateway refuses what two readers may read in
two ways; the last column says why, or where the peers are stricter.
]]

local REQUESTS = "Forwarded: the backend got a whole request, not always with the field in question. "
  .. "Refused: it got\nnone, or a beginning without an end.\n"
local ANSWERS = "Passed: the client got a whole answer. Refused: an error of the peer's own. "
  .. "Broken: an end that shows.\n"

local function write_page(results)
  local versions = contenders.versions()
  local out = { INTRO:format(versions.nginx, versions.haproxy), "## Requests\n" }
  out[#out + 1] = REQUESTS
  add_counts(out, "requests", { "forwarded", "refused", "own", "silent" }, results)
  out[#out + 1] = "\n### Where they differ"
  add_differences(out, "requests", results)
  out[#out + 1] = "\n## Answers of backends\n"
  out[#out + 1] = ANSWERS
  add_counts(out, "responses", { "passed", "refused", "broken", "silent" }, results)
  out[#out + 1] = "\n### Where they differ"
  add_differences(out, "responses", results)
  local file = assert(io.open(PAGE, "w"))
  file:write(table.concat(out, "\n"), "\n")
  file:close()
end

local results = {}
for _, name in ipairs(PEERS) do
  io.stderr:write(name, "\n")
  results[name] = play(name)
end
write_page(results)
