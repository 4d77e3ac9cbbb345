--- The tally: what workers count together, exactly, in a table of bounded size; the part of one that died.
local ffi = require "ffi"
local forks = require "spec.support.forks"
local rt = require "support.runtime"

local C = rt.load("base/shm.h", "base/buf.h", "base/map.h", "gateway/tally.h")
local ADMITTED = C.GW_STAT_ADMITTED
local FULL, CLIENT = tonumber(C.GW_ERR_MAX_CONNECTIONS), tonumber(C.GW_ERR_CLIENT_CONNECTIONS)
local UNCOUNTED = tonumber(C.GW_ERR_UNCOUNTED)
local WAYS, PLACES = tonumber(C.GW_TALLY_WAYS), tonumber(C.GW_TALLY_PLACES)

describe("the tally", function()
  local shm, stats, tally

  before_each(function()
    shm = ffi.new "struct gw_shm"
    assert(C.gw_shm_init(shm, 80 * 1024 * 1024))
    stats = C.gw_stats_new(shm)
    for worker = 1, 3 do C.gw_stats_enlist(stats, worker) end
    tally = C.gw_tally_new(shm, stats)
    assert(tally ~= nil)
  end)

  after_each(function()
    forks.kill_all()
    C.gw_shm_fini(shm)
  end)

  -- Wishes: { key, limit }; returns the error, and the places.
  local function take(worker, total, ...)
    local wishes, n = ffi.new "struct gw_tally_wish[8]", select("#", ...)
    for i = 1, n do
      local wish = select(i, ...)
      wishes[i - 1].key, wishes[i - 1].limit, wishes[i - 1].why = wish[1], wish[2], CLIENT
    end
    local bound = ffi.new("struct gw_tally_total", { ADMITTED, ADMITTED, total, FULL })
    local err, places = tonumber(C.gw_tally_take(tally, worker, bound, wishes, n)), {}
    for i = 1, n do places[i] = wishes[i - 1].place end
    return err, places
  end

  local function keys() return C.gw_tally_keys(tally) end
  local function total() return tonumber(C.gw_stats_sum(stats, ADMITTED)) end

  it("gives as many as the limit says, over all workers, and again what was given back", function()
    local _, first = take(1, 0, { 7, 2 })
    assert.equal(0, (take(2, 0, { 7, 2 })))
    assert.equal(CLIENT, (take(3, 0, { 7, 2 })))
    assert.equal(0, (take(3, 0, { 8, 2 })))
    assert.equal(2, keys())
    C.gw_tally_give(tally, 1, first[1])
    assert.equal(0, (take(3, 0, { 7, 2 })))
    assert.equal(CLIENT, (take(1, 0, { 7, 2 })))
  end)

  it("takes nothing where one of several is used up, or the total is", function()
    take(1, 0, { 5, 1 })
    assert.equal(CLIENT, (take(2, 0, { 6, 9 }, { 5, 1 })))
    assert.equal(1, keys())
    assert.equal(1, total())
    assert.equal(FULL, (take(2, 1, { 6, 9 })))
    assert.equal(1, keys())
    assert.equal(0, (take(2, 2, { 6, 9 })))
    assert.equal(2, total())
  end)

  it("counts without a limit what is there already", function()
    for _ = 1, 3 do assert.equal(0, (take(1, 0, { 5, 0 }))) end
    assert.equal(CLIENT, (take(2, 0, { 5, 3 })))
  end)

  it("loses the part of a worker that died, and nothing else", function()
    local _, places = take(1, 0, { 5, 3 })
    take(2, 0, { 5, 3 })
    take(2, 0, { 5, 3 })
    assert.equal(3, C.gw_tally_sum(tally, places[1]))
    C.gw_tally_forget(tally, 2)
    assert.equal(1, C.gw_tally_sum(tally, places[1]))
  end)

  it("counts ten thousand clients, each for itself, and forgets them", function()
    local places = {}
    for i = 1, 10000 do
      local key = C.gw_hash_stable({ tostring(i), #tostring(i) }, 0)
      local err, at = take(i % 3 + 1, 0, { key, 1 })
      assert.equal(0, err)
      places[i] = { i % 3 + 1, at[1] }
      assert.equal(CLIENT, (take(1, 0, { key, 1 })))
    end
    assert.equal(10000, keys())
    for _, at in ipairs(places) do C.gw_tally_give(tally, at[1], at[2]) end
    assert.equal(0, keys())
  end)

  it("refuses what it has no place to count for, and has one again when another is done", function()
    -- Keys that may lie in one set only: the low half chooses the first one, the high half the second.
    local sets = PLACES / WAYS
    local function key(i) return ffi.cast("uint64_t", 1 + i * sets) * 2 ^ 32 + 1 + i * sets end
    local first
    for i = 1, WAYS do
      local err, at = take(1, 0, { key(i), 1 })
      assert.equal(0, err)
      first = first or at[1]
    end
    assert.equal(UNCOUNTED, (take(1, 0, { key(99), 1 })))
    assert.equal(0, (take(1, 0, { key(99), 0 })))
    C.gw_tally_give(tally, 1, first)
    assert.equal(0, (take(2, 0, { key(99), 1 })))
    assert.equal(CLIENT, (take(2, 0, { key(99), 1 })))
  end)

  it("holds among processes that take and give back as fast as they can, one of them killed", function()
    local LIMIT = 3
    local high = ffi.cast("uint32_t *", C.gw_shm_alloc(shm, 64))
    local function worker(number, rounds)
      return forks.child(function()
        for _ = 1, rounds do
          local err, at = take(number, 0, { 77, LIMIT })
          if err == 0 then
            local sum = C.gw_tally_sum(tally, at[1])
            if sum > LIMIT then high[number] = sum end
            C.gw_tally_give(tally, number, at[1])
          end
        end
      end)
    end
    local one, two = worker(1, 20000), worker(2, 20000)
    worker(3, 1e9)
    assert.equal(0, forks.wait(one))
    assert.equal(0, forks.wait(two))
    forks.kill_all()
    C.gw_tally_forget(tally, 3)
    assert.equal(0, keys())
    assert.same({ 0, 0, 0 }, { high[1], high[2], high[3] })
    for _ = 1, LIMIT do assert.equal(0, (take(1, 0, { 77, LIMIT }))) end
    assert.equal(CLIENT, (take(2, 0, { 77, LIMIT })))
  end)

  it("tells what was refused, by bound and by reason", function()
    C.gw_tally_tell(tally, C.GW_ERR_SESSION_STREAMS)
    C.gw_tally_tell(tally, C.GW_ERR_HEAD_TOO_LARGE)
    C.gw_tally_tell(tally, C.GW_ERR_HEAD_TOO_LARGE)
    C.gw_tally_tell(nil, C.GW_ERR_HEAD_TOO_LARGE)
    local out = ffi.new "struct gw_buf"
    C.gw_tally_write(tally, out)
    local text = C.gw_buf_linear(out, out.head.len)
    local page = ffi.string(text.ptr, text.len)
    C.gw_buf_clear(out)
    assert.truthy(page:find('gatewayd_limited_total{bound="max_streams_per_session"} 1\n', 1, true))
    assert.truthy(page:find('gatewayd_limited_total{bound="max_streams"} 0\n', 1, true))
    assert.truthy(page:find('gatewayd_refused_total{reason="head_too_large"} 2\n', 1, true))
  end)
end)
