/* The events of one stream of sse_server's plain mode, checked one by one. */
#ifndef BENCH_EVENTS_H
#define BENCH_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "hist.h"

/* What every stream of a run has to look like. */
struct events_rules {
    uint64_t first, step; /* of the ids: 1, 3, 5, … when every second event is filtered out */
    uint64_t size;        /* of the data in bytes; 0 = any */
    const char *want;     /* a text that stands in the data of each event, or NULL */
};

/* What came in, summed over streams. Faults count from the first byte on, the rest in the window.
 */
struct tally {
    bool measuring;
    uint64_t units, bytes; /* units: events, requests or openings */
    uint64_t lost, doubled, disordered, malformed, broken;
    uint64_t stream_min, stream_max; /* events of the stream that had fewest and most */
    struct hist latency;             /* µs */
};

/* All zero is a stream of which nothing has come. */
struct events {
    uint64_t next;   /* id; 0 = the first */
    uint64_t window; /* events in the window */
    char *carry;     /* the beginning of an incomplete event */
    size_t carry_len;
    bool silent; /* checked, but neither counted nor timed */
};

/* Takes bytes of the stream, without framing, that were read at now_us (CLOCK_MONOTONIC). `bytes`
 * has carry_len bytes of room in front of it, which are overwritten. */
void events_feed(struct events *e, const struct events_rules *rules, struct tally *tally,
                 char *bytes, size_t n, uint64_t now_us);
void events_fini(struct events *e);

#endif
