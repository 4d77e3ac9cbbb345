local rt = require "support.runtime"
local C = rt.load("base/err.h")

local function slug(err) return rt.cstring(C.gw_err_slug(err)) end
local function status(err) return C.gw_err_status(err) end

describe("gw_err", function()
  local last = tonumber(C.GW_ERR_LIMIT) - 1

  it("has a text and a slug of its own for every value", function()
    local seen = {}
    for err = 0, last do
      assert.is_true(#rt.cstring(C.gw_err_text(err)) > 1)
      assert.matches("^[a-z_]+$", slug(err))
      assert.not_equal("unknown", slug(err))
      assert.is_nil(seen[slug(err)], slug(err))
      seen[slug(err)] = true
    end
  end)

  it("answers for values it does not know", function()
    for _, err in ipairs { last + 1, -1, 100000 } do
      assert.equal("unknown", slug(err))
      assert.equal("unknown error", rt.cstring(C.gw_err_text(err)))
      assert.equal(500, status(err))
    end
  end)

  it("has the words that plugins and logs rely on", function()
    local words = {
      ok = C.GW_OK, eof = C.GW_EOF, io_error = C.GW_ERR_IO, reset = C.GW_ERR_RESET,
      refused = C.GW_ERR_REFUSED, dial_timeout = C.GW_ERR_DIAL_TIMEOUT,
      head_timeout = C.GW_ERR_HEAD_TIMEOUT, idle_timeout = C.GW_ERR_IDLE_TIMEOUT,
      response_timeout = C.GW_ERR_RESPONSE_TIMEOUT, silence_timeout = C.GW_ERR_SILENCE_TIMEOUT,
      write_timeout = C.GW_ERR_WRITE_TIMEOUT, body_timeout = C.GW_ERR_BODY_TIMEOUT,
      timeout = C.GW_ERR_TOTAL_TIMEOUT, event_too_large = C.GW_ERR_EVENT_TOO_LARGE,
      client_gone = C.GW_ERR_CLIENT_GONE, hook_error = C.GW_ERR_HOOK,
      shutdown = C.GW_ERR_SHUTDOWN, closed = C.GW_ERR_CLOSED, cancelled = C.GW_ERR_CANCELLED,
      tunnel_idle_timeout = C.GW_ERR_TUNNEL_IDLE,
      truncated = C.GW_ERR_TRUNCATED, no_instance = C.GW_ERR_NO_INSTANCE,
    }
    for word, err in pairs(words) do assert.equal(word, slug(err)) end
  end)

  it("tells the status that a client gets", function()
    local statuses = {
      [400] = { C.GW_ERR_BAD_REQUEST },
      [408] = { C.GW_ERR_HEAD_TIMEOUT, C.GW_ERR_BODY_TIMEOUT },
      [413] = { C.GW_ERR_BODY_TOO_LARGE },
      [414] = { C.GW_ERR_TARGET_TOO_LONG },
      [431] = { C.GW_ERR_HEAD_TOO_LARGE },
      [500] = { C.GW_ERR_HOOK },
      [501] = { C.GW_ERR_NOT_IMPLEMENTED },
      [502] = { C.GW_ERR_BAD_RESPONSE, C.GW_ERR_TRUNCATED, C.GW_ERR_RESET, C.GW_ERR_REFUSED,
                C.GW_ERR_IO, C.GW_EOF },
      [503] = { C.GW_ERR_NO_INSTANCE, C.GW_ERR_OVERLOADED, C.GW_ERR_SHUTDOWN },
      [504] = { C.GW_ERR_DIAL_TIMEOUT, C.GW_ERR_RESPONSE_TIMEOUT, C.GW_ERR_TOTAL_TIMEOUT,
                C.GW_ERR_SILENCE_TIMEOUT },
      [505] = { C.GW_ERR_BAD_VERSION },
      [0] = { C.GW_OK, C.GW_AGAIN, C.GW_ERR_CLIENT_GONE, C.GW_ERR_IDLE_TIMEOUT },
    }
    for expected, errs in pairs(statuses) do
      for _, err in ipairs(errs) do assert.equal(expected, status(err), slug(err)) end
    end
  end)
end)
