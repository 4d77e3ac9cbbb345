--- text: the words of docs/benchmarks.md that stand around the tables. Used by report.lua.
local text = {}

text.head = [[
# Benchmarks

What an event costs in gatewayd, nginx, HAProxy and in a relay that parses nothing. Written by `make bench`
(twenty minutes) or `make bench-quick` (three minutes); `make bench-deps` installs the other
proxies from Debian. Figures of one machine on one day: run it on yours. The tools are in `bench/`, none of
them needs root.

]]

text.method = [[
The throughput of two workers on two cores is not measured, as origin and load generator need one of them.
What stands for it is the cost of an event, which may grow by a ninth where two workers are to carry 1.8 times
what one does.

## How it is measured

- **One origin, one load generator, one contender at a time**, all started afresh for each run. The
  contender has core 1 for itself; the origin (`build/sse_server`) and the load generator
  (`build/bench/load`) share core 0. Where a scenario has several workers, all share all cores.
- **Every event is checked**: the sequence of ids in each stream, the length and content of the data, and
  that nothing else stands in the stream. A lost, doubled, reordered or changed event or a broken stream
  fails the run; it is listed under the table and its figures are left out. The specs of the load generator
  show that it sees each of these faults.
- **CPU time** is the contender's own, user and system, all its processes and threads, from the CPU clocks
  of the processes, divided by the units of the same window. What the kernel does for loopback packets is
  mostly charged to whoever sends them, so the delivery to the contender is the origin's, and the delivery
  to the client the contender's: the same for all.
- **The floor** is `bench/relay.c`: accept, dial, one `recv` and one `send` for each readiness, in both
  directions.
- **Latency** goes from the time of sending, which the origin writes into each event, to the arrival at the
  client's socket, as the kernel notes it: that the client then waits for the core that it shares with the
  origin is not in it. `no proxy` tells what is left of that.
  At a rate, a request counts from when it was due. The origin sends at its pace whether the contender keeps
  up or not; what does not come in time is listed under the table. It sends in bunches: a sixty-fourth of
  the streams at a time at ten events a second, a twentieth at 25. A quantile with less than nine units
  beyond it is left out.
- **Memory** is the proportional set size over all processes. Per idle stream it is the difference to the
  start; what a proxy sets aside at its start for connections to come stands in a column of its own.
- **Runs alternate**: each round takes the contenders in turn and begins with another one. Tables show the
  median, with the least and the most in brackets; ratios are taken within a round. With quick runs of a
  second or two, read a difference below a tenth as none.
- **What does not depend on the machine** is held by the tests: system calls, instructions, allocations and
  garbage per event, memory per idle stream. The figures are in `spec/cost/limits.lua`.

]]

text.configurations = [[
## Configurations

Ports are free ones of the run. Buffers of 16 KiB in nginx only where streams are fast; HAProxy's are 16 KiB
by default, gatewayd's are not configured. Filters: `plugins/event_filter.lua`, `plugins/event_rewrite.lua`,
`bench/plugins/`, and `bench/nginx_filter.lua`. gatewayd adds `X-Request-Id` and `X-Forwarded-…` to what it
sends to the origin, as it always does; the others were not told to. Requests have three short lines, where a
browser sends more.

]]

return text
