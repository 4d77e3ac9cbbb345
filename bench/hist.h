/* A histogram of durations with a relative error below 1.6 %, to be added up over processes. */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>

#define HIST_STEPS   64 /* buckets between two powers of two */
#define HIST_BUCKETS (HIST_STEPS * 36)

/* All zero is an empty one. */
struct hist {
    uint64_t count, max;
    uint64_t bucket[HIST_BUCKETS];
};

/* Values past about 36 minutes (in µs) are counted in the last bucket. */
void hist_add(struct hist *h, uint64_t value);
void hist_merge(struct hist *into, const struct hist *from);
/* The value that a share of 0 < q <= 1 does not exceed; 0 when nothing was added. */
uint64_t hist_quantile(const struct hist *h, double q);

#endif
