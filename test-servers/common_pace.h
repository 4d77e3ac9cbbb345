/* Turns at a steady rate for many at once: all members of one rate share one libev timer. */
#ifndef TEST_SERVERS_COMMON_PACE_H
#define TEST_SERVERS_COMMON_PACE_H

#include <ev.h>
#include <stddef.h>

struct ts_pace;

/* Embedded in whatever wants turns; all zero is a member of nothing. */
struct ts_paced {
    struct ts_pace *pace;
    struct ts_paced *next, **link;
    unsigned slot;
};

/* A turn. The member may leave, and may be freed, within; no other member may. */
typedef void ts_pace_fn(struct ts_paced *member);

/* The pace of that many turns a second (above 0), made when it is asked for first. */
struct ts_pace *ts_pace_get(struct ev_loop *loop, double rate, ts_pace_fn *turn);
void ts_pace_join(struct ts_pace *pace, struct ts_paced *member);
/* Nothing when it is not a member. */
void ts_pace_leave(struct ts_paced *member);

#endif
