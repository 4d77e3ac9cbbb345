/* Peers that may leave while nobody reads what they send. */
#ifndef GW_NET_DEPARTURE_H
#define GW_NET_DEPARTURE_H

#include "net/loop.h"

/* A connection that is looked after; embedded in what conn.c keeps of it. */
struct gw_departure {
    struct gw_list node;
    int fd;
    bool half; /* only a break counts: behind an end of sending there is more to come, and to go */
    bool broken; /* with a reset */
    /* The peer has broken off, or, unless `half`, ended its sending; it is not watched any more.
     * From the loop. */
    void (*left)(struct gw_departure *departure);
};

/* Looks at the descriptor now and then (twice a second) until gw_departure_ignore, which may be
 * called at any time, also when it is not watched. */
void gw_departure_watch(struct gw_loop *loop, struct gw_departure *departure);
void gw_departure_ignore(struct gw_departure *departure);

#endif
