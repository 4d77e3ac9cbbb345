--- message_cases: what ctx.req and ctx.res do, as data. Every case is run on the runtime's own objects, in a
-- plugin inside the real binary, and on those of gateway.testing: a plugin must not be able to tell.
-- Copied into a plugins' folder as well, so it needs nothing but what plugins have.

---@class spec.MessageCase
---@field [1] string what it says
---@field on "req"|"res"
---@field run fun(message: gateway.Request|gateway.Response, ctx: gateway.Context): ...
---@field gives? table the values, as a list, with `n` where some are nil; default: none
---@field raises? string pattern of the error that `run` must raise

local list = {
  --- The request of all cases.
  request = {
    method = "POST", path = "/a%20b;v=1//c?x=1&y=a+b%21&x=2&z&=e&%zz=%q&%41=%42&&", host = "example.com:81",
    body = "hello",
    headers = { ["X-A"] = { "1", "2" }, ["X-Empty"] = "", Cookie = "c=1; d=2", Accept = "text/event-stream" },
  },
  --- The response of all cases.
  response = {
    status = 201,
    headers = {
      ["Content-Type"] = "application/json", ["Set-Cookie"] = { "a=1; Path=/", "b=2, 3" }, ["X-B"] = "b",
    },
  },
}

local function values(...)
  return { n = select("#", ...), ... }
end

local function add(on, what, fields)
  fields[1], fields.on = what, on
  list[#list + 1] = fields
end

local function reads(on, what, name, value)
  add(on, what, { run = function(message) return message[name] end, gives = values(value) })
end

local function header(on, what, name, value)
  add(on, what, { run = function(message) return message.headers[name] end, gives = values(value) })
end

-- A header that is set; its values then.
local function sets_header(what, name, value, ...)
  local gives = values(...)
  for _, on in ipairs { "req", "res" } do
    add(on, what, {
      run = function(message)
        message.headers[name] = value
        return unpack(message:values(name))
      end,
      gives = gives,
    })
  end
end

local function refuses_header(what, name, value, pattern)
  for _, on in ipairs { "req", "res" } do
    add(on, what .. " (set)", { run = function(m) m.headers[name] = value end, raises = pattern })
    if type(value) ~= "table" then
      add(on, what .. " (add)", { run = function(m) m:add(name, value) end, raises = pattern })
    end
    -- Whoever survives the error has the message as it was.
    add(on, what .. ", and changes nothing", {
      run = function(m)
        local before = table.concat(m:values(name), "|")
        pcall(function() m.headers[name] = value end)
        pcall(m.add, m, name, value)
        return table.concat(m:values(name), "|") == before
      end,
      gives = { true },
    })
  end
end

-- A member that is set; what some members are then.
local function sets(on, what, name, value, members)
  add(on, what, {
    run = function(message)
      message[name] = value
      local out = {}
      for i, member in ipairs(members) do out[i] = message[member[1]] end
      return unpack(out)
    end,
    gives = (function()
      local out = {}
      for i, member in ipairs(members) do out[i] = member[2] end
      return out
    end)(),
  })
end

local function refuses(on, what, name, value, pattern)
  add(on, what, { run = function(message) message[name] = value end, raises = pattern })
  if name == "query" then return end -- a new table each time
  add(on, what .. ", and changes nothing", {
    run = function(message)
      local before = tostring(message[name])
      pcall(function() message[name] = value end)
      return tostring(message[name]) == before
    end,
    gives = { true },
  })
end

reads("req", "has its method", "method", "POST")
reads("req", "has its path as it came", "path", "/a%20b;v=1//c")
reads("req", "has its query as it came", "querystring", "x=1&y=a+b%21&x=2&z&=e&%zz=%q&%41=%42&&")
reads("req", "has both", "target", list.request.path)
reads("req", "has its host", "host", "example.com:81")
reads("req", "has its scheme", "scheme", "http")
reads("req", "has its version", "version", "1.1")
reads("req", "has its body", "body", "hello")
reads("req", "has no other member", "uri", nil)
reads("req", "has no status", "status", nil)
add("req", "has its query decoded; the first of a name counts", {
  run = function(req)
    local q = req.query
    return q.x, q.y, q.z, q[""], q["%zz"], q.A, q.none
  end,
  gives = values("1", "a b!", "", "e", "%q", "B", nil),
})
add("req", "has a query table of one's own", {
  run = function(req)
    req.query.x = "9"
    return req.query.x, req.target == list.request.path
  end,
  gives = { "1", true },
})
reads("res", "has its status", "status", 201)
reads("res", "says that it is no stream", "stream", false)
reads("res", "has no other member", "method", nil)

header("req", "has a header whatever the case", "aCCept", "text/event-stream")
header("req", "joins several of a name", "x-a", "1, 2")
header("req", "has a header that is empty", "X-Empty", "")
header("req", "does not have what is not there", "X-B", nil)
header("req", "has Host among its headers", "Host", "example.com:81")
header("req", "has no header of a name that is none", "a b", nil)
header("res", "has a header whatever the case", "content-TYPE", "application/json")
header("res", "joins several of a name", "set-cookie", "a=1; Path=/, b=2, 3")

add("req", "lists the values of a header", {
  run = function(req) return #req:values "X-A", req:values("x-a")[2], #req:values "none" end,
  gives = { 2, "2", 0 },
})
add("res", "lists the values of a header", {
  run = function(res) return #res:values "Set-Cookie", res:values("SET-COOKIE")[2] end,
  gives = { 2, "b=2, 3" },
})
add("res", "gives all headers, in lower case", {
  run = function(res)
    local seen = {}
    for name, value in res:each() do
      if name == "set-cookie" or name == "x-b" then seen[#seen + 1] = name .. "=" .. value end
    end
    table.sort(seen)
    return unpack(seen)
  end,
  gives = { "set-cookie=a=1; Path=/", "set-cookie=b=2, 3", "x-b=b" },
})

sets_header("sets a header", "X-New", "v", "v")
sets_header("replaces all of a name", "x-A", "3", "3")
sets_header("sets several", "X-New", { "v", "w" }, "v", "w")
sets_header("sets a number", "X-New", 1.5, "1.5")
sets_header("sets numbers", "X-New", { 1, 2 }, "1", "2")
sets_header("sets an empty one", "X-New", "", "")
sets_header("removes a header", "X-A", nil)
sets_header("removes one with an empty list", "x-b", {})
sets_header("removes one that is not there", "X-None", nil)
sets_header("takes off blanks at the ends", "X-New", " \tv w\t ", "v w")
sets_header("keeps UTF-8 and tabs inside", "X-New", "é\tb", "é\tb")
for _, on in ipairs { "req", "res" } do
  add(on, "adds one beside those of its name", {
    run = function(m)
      m:add("X-C", "1")
      m:add("x-c", 2)
      return table.concat(m:values "X-C", "|"), m.headers["X-C"]
    end,
    gives = { "1|2", "1, 2" },
  })
  add(on, "has one headers object", {
    run = function(m)
      local headers = m.headers
      headers["X-New"] = "1"
      return rawequal(headers, m.headers), m.headers["X-New"]
    end,
    gives = { true, "1" },
  })
  add(on, "takes hundreds of headers and lets them go", {
    run = function(m)
      for i = 1, 500 do m.headers["X-" .. i] = "v" .. i end
      local all = m.headers["X-1"] .. m.headers["X-500"]
      for i = 1, 500 do m.headers["X-" .. i] = nil end
      return all, m.headers["X-1"]
    end,
    gives = values("v1v500", nil),
  })
  add(on, "does not grow for ever", {
    run = function(m)
      for _ = 1, 100000 do m:add("X-More", "1") end
    end,
    raises = "^a head has at most 1000 fields",
  })
  add(on, "does not grow for ever by one name", {
    run = function(m)
      local all = {}
      for i = 1, 2000 do all[i] = "1" end
      m.headers["X-More"] = all
    end,
    raises = "^a head has at most 1000 fields",
  })
end

refuses_header("refuses LF in a value", "X-A", "a\nb", "X%-A: .*line break or NUL")
refuses_header("refuses CR in a value", "X-A", "a\rb", "X%-A: .*line break or NUL")
refuses_header("refuses a whole field in a value", "X-A", "a\r\nSet-Cookie: x=y", "X%-A: .*line break or NUL")
refuses_header("refuses a field in one of several", "X-A", { "a", "a\nb" }, "X%-A: .*line break or NUL")
refuses_header("refuses NUL in a value", "X-A", "a\0b", "X%-A: .*line break or NUL")
refuses_header("refuses control bytes in a value", "X-A", "a\1b", "X%-A: .*control byte")
refuses_header("refuses DEL in a value", "X-A", "a\127b", "X%-A: .*control byte")
refuses_header("refuses a boolean", "X-A", true, "X%-A: expected text, got boolean")
refuses_header("refuses a table in a list", "X-A", { {} }, "X%-A: expected text, got table")
refuses_header("refuses a name with a blank", "a b", "x", '"a b" is not a header name')
refuses_header("refuses a name with a colon", "a:", "x", '"a:" is not a header name')
refuses_header("refuses a name with a line break", "a\nb", "x", "is not a header name")
refuses_header("refuses a name with NUL", "a\0b", "x", "is not a header name")
refuses_header("refuses an empty name", "", "x", '"" is not a header name')
for _, name in ipairs { "Content-Length", "transfer-encoding", "Connection", "Upgrade", "TE" } do
  refuses_header("leaves " .. name .. " to the gateway", name, "1",
    "header " .. name:gsub("%-", "%%-") .. " belongs to the gateway's framing")
end

sets("req", "sets the method", "method", "PUT", { { "method", "PUT" } })
sets("req", "sets the path, and keeps the query", "path", "/x%2F", {
  { "path", "/x%2F" }, { "target", "/x%2F?x=1&y=a+b%21&x=2&z&=e&%zz=%q&%41=%42&&" },
})
sets("req", "sets the query", "querystring", "q=1?/", {
  { "path", "/a%20b;v=1//c" }, { "querystring", "q=1?/" }, { "target", "/a%20b;v=1//c?q=1?/" },
})
sets("req", "removes the query", "querystring", "", { { "querystring", "" }, { "target", "/a%20b;v=1//c" } })
sets("req", "sets both", "target", "/t?u=1?2", {
  { "path", "/t" }, { "querystring", "u=1?2" }, { "target", "/t?u=1?2" },
})
sets("req", "sets the host", "host", "other.example", { { "host", "other.example" } })
sets("req", "sets the body", "body", "bye", { { "body", "bye" } })
add("req", "sets the host by its header", {
  run = function(req)
    req.headers.host = "other.example:82"
    return req.host, req.headers.Host, #req:values "host"
  end,
  gives = { "other.example:82", "other.example:82", 1 },
})
add("req", "has the new host among its headers", {
  run = function(req)
    req.host = "other.example"
    return req.headers.Host
  end,
  gives = { "other.example" },
})
add("req", "decodes the query that was set", {
  run = function(req)
    req.querystring = "n=%31"
    return req.query.n, req.query.x
  end,
  gives = values("1", nil),
})

refuses("req", "refuses a method that is none", "method", "GE T", "^method: ")
refuses("req", "refuses an empty method", "method", "", "^method: ")
refuses("req", "refuses a path without a slash", "path", "x", "^path: .*begins with /")
refuses("req", "refuses an empty path", "path", "", "^path: .*begins with /")
refuses("req", "refuses a blank in a path", "path", "/a b", "^path: .*percent%-encode")
refuses("req", "refuses a line break in a path", "path", "/a\r\nX: y", "^path: .*percent%-encode")
refuses("req", "refuses NUL in a path", "path", "/a\0", "^path: .*percent%-encode")
refuses("req", "refuses a query in a path", "path", "/a?b", "^path: .*percent%-encode")
refuses("req", "refuses a fragment in a path", "path", "/a#b", "^path: .*percent%-encode")
refuses("req", "refuses raw UTF-8 in a path", "path", "/é", "^path: .*percent%-encode")
refuses("req", "refuses a blank in a query", "querystring", "a b", "^querystring: .*percent%-encode")
refuses("req", "refuses a line break in a target", "target", "/a\nb", "^target: .*percent%-encode")
refuses("req", "refuses a target without a slash", "target", "*", "^target: .*begins with /")
refuses("req", "refuses a table as a path", "path", {}, "^path: expected text, got table")
refuses("req", "refuses a host that is none", "host", "a b", "^host: ")
refuses("req", "refuses a host with a path", "host", "a/b", "^host: ")
refuses("req", "refuses an empty host", "host", "", "^host: ")
refuses("req", "refuses a table as a body", "body", {}, "^body: expected text, got table")
refuses("req", "has its scheme as it is", "scheme", "https", "scheme can't be set")
refuses("req", "has its query table as it is", "query", {}, "query can't be set")
refuses("req", "has its headers object as it is", "headers", {}, "headers can't be set")
refuses("req", "has no other member to set", "uri", "/", "uri can't be set")
add("req", "sets the host by a list of one", {
  run = function(req)
    req.headers.host = { "other.example" }
    return req.host
  end,
  gives = { "other.example" },
})
add("req", "refuses two hosts", {
  run = function(req) req.headers.host = { "a.example", "b.example" } end,
  raises = "^host: expected text, got table",
})
add("req", "refuses a host that is none by its header", {
  run = function(req) req.headers.Host = "a b" end, raises = "^host: ",
})
add("req", "refuses to be without a host", {
  run = function(req) req.headers.Host = nil end, raises = "^host: expected text, got nil",
})

sets("res", "sets the status", "status", 404, { { "status", 404 } })
refuses("res", "refuses a status below 200", "status", 199, "^status: .*200 to 599")
refuses("res", "refuses a status above 599", "status", 600, "^status: .*200 to 599")
refuses("res", "refuses half a status", "status", 200.5, "^status: .*200 to 599")
refuses("res", "refuses a text as a status", "status", "ok", "^status: .*200 to 599")
refuses("res", "has its nature as it is", "stream", true, "stream can't be set")
refuses("res", "has no other member to set", "body", "x", "body can't be set")

return list
