--- gateway.http as plugins see it, over the answers that specs give.
local t = require("gateway.testing")
local gateway = require("gateway")

describe("gateway.http", function()
  before_each(t.reset)

  -- Runs fn as an access hook, and gives what it returned.
  local function run(fn)
    local got
    local p = t.plugin({ name = "caller", access = function(ctx) got = { fn(ctx) } end })
    p:access(t.context())
    return unpack(got, 1, 4)
  end

  local function get(url, options)
    return run(function() return gateway.http.get(url, options) end)
  end

  it("gives status, headers of any case, and body", function()
    t.http({ ["http://a/b"] = { status = 404, headers = { ["X-A"] = "1", ["Set-Cookie"] = { "a", "b" } },
      body = "no" } })
    local response = get("http://a/b?c=d")
    assert.same({ 404, "no", "1", "1" },
      { response.status, response.body, response.headers["x-a"], response.headers["X-a"] })
    assert.equal("a, b", response.headers["Set-Cookie"])
    assert.same({ "a", "b" }, response:values("set-cookie"))
    assert.is_nil(response.headers.other)
  end)

  it("decodes JSON", function()
    t.http({ ["*"] = { json = { a = { 1 } } } })
    local response = get("http://a/")
    assert.same({ a = { 1 } }, response:json())
    assert.equal("application/json", response.headers["content-type"])
    t.http({ ["*"] = { body = "{" } })
    local value, err = get("http://a/"):json()
    assert.is_nil(value)
    assert.is_string(err)
  end)

  it("asks as it is told", function()
    t.http({ ["POST http://a/"] = function(call) return { body = call.method .. call.body } end,
      ["PUT http://a/"] = {} })
    assert.equal('POST{"a":1}', run(function()
      return gateway.http.request({ url = "http://a/", body = { a = 1 } }).body
    end))
    run(function()
      gateway.http.request({ url = "http://a/", method = "PUT", body = { a = 1 },
        headers = { ["content-type"] = "x/y" } })
    end)
    local calls = t.calls()
    assert.same({ "application/json", "x/y" },
      { calls[1].headers["Content-Type"], calls[2].headers["Content-Type"] })
  end)

  it("tells what went wrong", function()
    t.http({ ["http://down/"] = { error = "connection refused" }, ["http://slow/"] = { delay = 5 } })
    assert.same({ n = 2, nil, "connection refused" }, { n = 2, get("http://down/") })
    local before = gateway.now()
    assert.same({ n = 2, nil, "timeout" }, { n = 2, get("http://slow/", { timeout = 1 }) })
    assert.equal(1, gateway.now() - before)
    assert.equal(200, get("http://slow/").status)
    assert.same({ n = 2, nil, "answer too large" },
      { n = 2, run(function()
        t.http({ ["*"] = { body = "abc" } })
        return gateway.http.get("http://a/", { max_bytes = 2 })
      end) })
  end)

  it("gives the events of a stream", function()
    t.http({ ["*"] = { events = { { type = "a", data = "1" }, { comment = "x" },
      { id = "7", json = { b = 2 } } } } })
    local seen, err = run(function()
      local response = assert(gateway.http.get("http://a/", { stream = true }))
      local list = {}
      for ev in response:events() do list[#list + 1] = ev end
      return list, response.error
    end)
    assert.same({ "a", "1", "message", "7", 2 },
      { seen[1].type, seen[1].data, seen[2].type, seen[2].id, seen[2].json.b })
    assert.equal("event: a\ndata: 1\n\n", seen[1].raw)
    assert.equal(2, #seen)
    assert.is_nil(err)
  end)

  it("gives the pieces of a stream, and why it broke off", function()
    t.http({ ["*"] = { pieces = { "ab", "cd" }, error = "truncated" } })
    local response = get("http://a/", { stream = true })
    assert.is_nil(response.body)
    assert.same({ "ab", "cd", [4] = "truncated" }, { response:read(), (response:read()), response:read() })
    assert.equal("truncated", response.error)
    response:close()
    assert.same({ n = 2, nil, "closed" }, { n = 2, response:read() })
  end)

  it("raises on misuse, and where nobody has named an answer", function()
    t.http({ ["http://a/"] = {} })
    for text, options in pairs({
      ["no option"] = { url = "http://a/", timeut = 1 }, ["url is missing"] = {},
      ["timeout: expected a number, got string"] = { url = "http://a/", timeout = "1" },
      ["body: expected text or a table"] = { url = "http://a/", body = 1 },
      ["https:// is not there yet"] = { url = "https://a/" }, ["expected http://HOST"] = { url = "a" },
      ["line break"] = { url = "http://a/", headers = { a = "b\r\nc" } },
      ["framing"] = { url = "http://a/", headers = { ["Transfer-Encoding"] = "chunked" } },
      ["no answer for GET http://b/"] = { url = "http://b/" },
    }) do
      local ok, err = pcall(run, function() return gateway.http.request(options) end)
      assert.is_false(ok)
      assert.is_truthy(err:find(text, 1, true), err)
    end
    assert.has_error(function() get("http://a/"):read() end)
    assert.has_error(function() gateway.http.get("http://a/") end)
  end)
end)
