/* Owns nothing: a rule's limits lie in the way of an exchange, and in front of what is kept of an
 * open stream. Called by script/ when rules say something, and by deadline.c. Invariant: where no
 * rule says anything, nothing is kept, and `timed` is false. */
#include "gateway/clocks.h"

#include "gateway/kept.h"

struct gw_clocks gw_clocks_get(const struct gw_exchange *x)
{
    struct gw_clocks clocks = {{GW_CLOCK_UNSET, GW_CLOCK_UNSET, GW_CLOCK_UNSET}};
    if (x->timed && x->kept)
        gw_kept_clocks(x, &clocks);
    else if (x->timed && x->way)
        clocks = x->way->clocks;
    return clocks;
}

uint64_t gw_clock_own(const struct gw_exchange *x, enum gw_clock clock, uint64_t otherwise_ms)
{
    uint32_t ms = gw_clocks_get(x).ms[clock];
    return ms == GW_CLOCK_UNSET ? otherwise_ms : ms;
}

void gw_clocks_set(struct gw_exchange *x, const struct gw_clocks *clocks)
{
    bool says = false;
    for (unsigned i = 0; i < GW_CLOCKS; i++)
        says |= clocks->ms[i] != GW_CLOCK_UNSET;
    if (!says && !x->timed)
        return;
    if (x->kept) {
        gw_kept_set_clocks(x, clocks);
        return;
    }
    gw_exchange_way(x)->clocks = *clocks;
    x->timed = true;
}

void gw_clocks_spend(struct gw_exchange *x, uint64_t spent_ms)
{
    uint64_t ms = gw_clock_ms(x, GW_CLOCK_FIRST_EVENT);
    if (!ms)
        return;
    struct gw_clocks clocks = gw_clocks_get(x);
    uint64_t left = ms > spent_ms ? ms - spent_ms : 1;
    clocks.ms[GW_CLOCK_FIRST_EVENT] =
        left < GW_CLOCK_UNSET ? (uint32_t)left : (uint32_t)GW_CLOCK_UNSET - 1;
    gw_clocks_set(x, &clocks);
}
