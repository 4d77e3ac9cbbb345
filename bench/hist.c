/* Histograms of latencies for the load generator: exact below 128, then 64 buckets for each power
 * of two. Invariant: count is the sum of the buckets. */
#include "hist.h"

static unsigned bucket_of(uint64_t value)
{
    if (value < 2 * HIST_STEPS)
        return (unsigned)value;
    unsigned shift = 57u - (unsigned)__builtin_clzll(value); /* leaves 64 to 127 */
    unsigned index = shift * HIST_STEPS + (unsigned)(value >> shift);
    return index < HIST_BUCKETS ? index : HIST_BUCKETS - 1;
}

/* The largest value of a bucket. */
static uint64_t bucket_end(unsigned index)
{
    if (index < 2 * HIST_STEPS)
        return index;
    unsigned shift = index / HIST_STEPS - 1;
    return ((uint64_t)(index % HIST_STEPS + HIST_STEPS + 1) << shift) - 1;
}

void hist_add(struct hist *h, uint64_t value)
{
    h->bucket[bucket_of(value)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

void hist_merge(struct hist *into, const struct hist *from)
{
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
    into->count += from->count;
    if (from->max > into->max)
        into->max = from->max;
}

uint64_t hist_quantile(const struct hist *h, double q)
{
    uint64_t wanted = (uint64_t)(q * (double)h->count), seen = 0;

    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (h->bucket[i] && seen >= wanted)
            return bucket_end(i) < h->max ? bucket_end(i) : h->max;
    }
    return h->max;
}
