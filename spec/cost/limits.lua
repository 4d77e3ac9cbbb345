--- limits: what a piece of work may cost the worker, in counts that do not depend on the machine. The specs
-- beside this file fail when a figure grows, and also when it has become much smaller: then write down the
-- new one, so that it stays. To see all figures of today:
--     COSTS=show make test-only TEST=spec/cost
-- A figure that had to grow needs a reason in the commit that raises it.

return {
  -- System calls, by name (spec/cost/calls_spec.lua). An event comes alone unless something else is said.
  calls = {
    event_bytes = { epoll_wait = 1, recvfrom = 1, sendto = 1 },
    event_hook = { epoll_wait = 1, recvfrom = 1, sendto = 1 },
    -- 64 streams with one event each, which are all there at once (and the one epoll_wait that is interrupted
    -- to bring that about).
    batch_bytes = { epoll_wait = 2, recvfrom = 64, sendto = 64 },
    batch_hook = { epoll_wait = 2, recvfrom = 64, sendto = 64 },
    -- 40 events that are there at once, in one stream (the same).
    burst_bytes = { epoll_wait = 2, recvfrom = 1, sendto = 1 },
    burst_hook = { epoll_wait = 2, recvfrom = 1, sendmsg = 1 },
    -- Accept, dial, both heads, one event, and the client leaves.
    stream = {
      accept4 = 2, close = 2, connect = 2, epoll_ctl = 2, epoll_wait = 5, recvfrom = 4, sendto = 3,
      setsockopt = 5, socket = 1,
    },
    -- On connections that are open already, on both sides.
    request = { epoll_wait = 2, recvfrom = 3, sendto = 2 },
    -- The same, where a hook asks another service and replies with what that says.
    call = { epoll_wait = 2, recvfrom = 3, sendto = 2 },
  },

  -- Instructions in user space of x86-64 (spec/cost/work_spec.lua), gcc -O2: what is usual, and a band around
  -- it; the C library has variants for processors, and what LuaJIT compiles is not always the same. A figure
  -- without a band is the most that is allowed. `lua` is LuaJIT and what it compiles, `c` all the rest.
  instructions = {
    event_bytes = { c = { 3850, 0.04 }, lua = { 0 } },
    event_look = { c = { 5300, 0.04 }, lua = { 780, 0.15 } },
    event_drop = { c = { 7250, 0.06 }, lua = { 2010, 0.15 } }, -- one that is dropped and one that passes
    event_field = { c = { 9530, 0.05 }, lua = { 1870, 0.25 } },
    event_json = { c = { 12300, 0.06 }, lua = { 7000, 0.15 } },
    burst_bytes = { c = { 34290, 0.04 }, lua = { 0 } }, -- 40 events that are there at once
    burst_look = { c = { 99000, 0.05 }, lua = { 31200, 0.15 } },
    burst_many = { c = { 72500, 0.05 }, lua = { 21100, 0.15 } }, -- a hook that takes many at a time
    stream = { c = { 45500, 0.06 }, lua = { 20000 } }, -- by itself less than after the others
    request = { c = { 27000, 0.05 }, lua = { 20000 } },
  },

  -- Calls of malloc, realloc, mmap and the like, by caller.
  allocations = {
    event_bytes = {}, event_look = {}, event_drop = {}, event_field = {},
    event_json = {},
    burst_bytes = {}, burst_look = {}, burst_many = {},
    stream = { ["gw_kept_pack -> malloc"] = 1 }, -- what is kept of its heads
    request = {},
  },

  -- Bytes of garbage in Lua for each event, on its way past no plugin but the one that counts, or past these
  -- as well.
  garbage = { none = { 1 }, look = { 1 }, drop = { 1 }, field = { 1 }, json = { 600 } },

  -- Bytes of PSS for each of 2,000 idle streams (spec/cost/memory_spec.lua), both sides, opened 20 at a time
  -- or all at once, when Lua has collected what that has left behind.
  memory = { calm = { 1150 }, storm = { 1250 } },

  -- Bytes of the structs that an idle stream holds, for the part of the memory that can be told by name.
  structs = {
    { "gw_exchange", 1 }, { "gw_http1", 2 }, { "gw_conn", 2 },
    sum = { 800, 0.01 },
  },
}
