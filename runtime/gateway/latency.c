/* Owns no memory: histograms lie in the shared mapping, among the facts. Called by facts.c, which
 * counts, and by script/, for policies to read. Invariant: a row's window is set before it is
 * emptied, so two that do it at once lose counts at most. */
#include "gateway/latency.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { UNIT_US = 250, UNITS_MAX = (1 << 20) - 1 };

static uint32_t window_of(uint64_t now_ms)
{
    return (uint32_t)(now_ms / GW_LATENCY_WINDOW_MS) + 1; /* 0 is a row that counts nothing */
}

static unsigned bucket_of(uint64_t took_us)
{
    uint64_t units = took_us / UNIT_US;
    unsigned n = units > UNITS_MAX ? UNITS_MAX : (unsigned)units;
    if (n < 4)
        return n;
    unsigned exponent = 31 - (unsigned)__builtin_clz(n);
    return 4 * (exponent - 1) + ((n >> (exponent - 2)) & 3);
}

/* Its middle. */
static double time_of(unsigned bucket)
{
    if (bucket < 4)
        return (bucket + 0.5) * UNIT_US;
    return ldexp(4 + (bucket & 3) + 0.5, (int)bucket / 4 - 1) * UNIT_US;
}

void gw_latency_add(struct gw_latency *latency, uint64_t took_us, uint64_t now_ms)
{
    uint32_t window = window_of(now_ms), *at = &latency->window[window & 1];
    uint32_t old = __atomic_load_n(at, __ATOMIC_RELAXED);
    uint32_t *row = latency->count[window & 1];
    if (old != window &&
        __atomic_compare_exchange_n(at, &old, window, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        memset(row, 0, sizeof latency->count[0]);
    __atomic_fetch_add(&row[bucket_of(took_us)], 1, __ATOMIC_RELAXED);
}

/* How much a row counts: the older one fades while the newer one fills. */
static double share_of(const struct gw_latency *latency, unsigned row, uint64_t now_ms)
{
    uint32_t window = __atomic_load_n(&latency->window[row], __ATOMIC_RELAXED);
    if (window == window_of(now_ms))
        return 1;
    if (window + 1 != window_of(now_ms))
        return 0;
    return 1 - (double)(now_ms % GW_LATENCY_WINDOW_MS) / GW_LATENCY_WINDOW_MS;
}

double gw_latency_percentile_us(const struct gw_latency *latency, double percent, uint64_t now_ms)
{
    double share[2] = {share_of(latency, 0, now_ms), share_of(latency, 1, now_ms)};
    double count[GW_LATENCY_BUCKETS], total = 0, seen = 0;
    for (unsigned i = 0; i < GW_LATENCY_BUCKETS; i++) {
        count[i] = 0;
        for (unsigned row = 0; row < 2; row++)
            count[i] += share[row] * __atomic_load_n(&latency->count[row][i], __ATOMIC_RELAXED);
        total += count[i];
    }
    for (unsigned i = 0; i < GW_LATENCY_BUCKETS; i++) {
        seen += count[i];
        if (count[i] > 0 && seen >= total * percent / 100 * (1 - 1e-9))
            return time_of(i);
    }
    return 0;
}
