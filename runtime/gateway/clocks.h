/* How long an event stream may be silent, may wait for its first event, and may stay open: what its
 * rule says, or what holds for all of them. */
#ifndef GW_GATEWAY_CLOCKS_H
#define GW_GATEWAY_CLOCKS_H

#include "gateway/exchange.h"

/* The rule's own limit, where `timed`. */
uint64_t gw_clock_own(const struct gw_exchange *x, enum gw_clock clock, uint64_t otherwise_ms);
/* The limit in ms; 0: there is none. */
static inline uint64_t gw_clock_ms(const struct gw_exchange *x, enum gw_clock clock)
{
    const struct gw_settings *s = &x->generation->settings;
    uint64_t of_all = clock == GW_CLOCK_AGE           ? s->max_age_ms
                      : clock == GW_CLOCK_FIRST_EVENT ? s->first_event_ms
                                                      : s->sse_silence_ms;
    return x->timed ? gw_clock_own(x, clock, of_all) : of_all;
}

/* What its rule says of all three. */
struct gw_clocks gw_clocks_get(const struct gw_exchange *x);
/* What its rule says, when it is chosen, and of an open stream when another version takes over. */
void gw_clocks_set(struct gw_exchange *x, const struct gw_clocks *clocks);
/* A part of the wait for the first event has passed before the stream was the client's. */
void gw_clocks_spend(struct gw_exchange *x, uint64_t spent_ms);

#endif
