/* How the times of answers are spread: a histogram that forgets, in shared memory. */
#ifndef GW_GATEWAY_LATENCY_H
#define GW_GATEWAY_LATENCY_H

#include <stdint.h>

/* Four buckets for each power of two, from a quarter of a millisecond to four minutes. */
enum { GW_LATENCY_BUCKETS = 76, GW_LATENCY_WINDOW_MS = 15000 };

/* Two windows that take turns. Zeroed at first. */
struct gw_latency {
    uint32_t window[2]; /* the number of the one that each row counts */
    uint32_t count[2][GW_LATENCY_BUCKETS];
};

/* Counts one answer. */
void gw_latency_add(struct gw_latency *latency, uint64_t took_us, uint64_t now_ms);
/* The time that so many percent of the answers of the last window's length took at most, to an
 * eighth; 0: there were none. */
double gw_latency_percentile_us(const struct gw_latency *latency, double percent, uint64_t now_ms);

#endif
