/* Owns no memory: the budgets lie in the shared mapping, next to the facts. Called by retry.c.
 * Invariant: a second and what was counted in it are one word, so that no worker sees the one
 * without the other and none that dies leaves a half. */
#include "gateway/budget.h"

#include "base/map.h"

enum { COUNT_BITS = 22, SECOND_BITS = 20 };

static const uint64_t COUNT_MAX = (1u << COUNT_BITS) - 1;

struct second {
    uint64_t at; /* low bits of it */
    uint64_t requests, retries;
};

static struct second unpack(uint64_t word)
{
    return (struct second){word >> 2 * COUNT_BITS, word >> COUNT_BITS & COUNT_MAX,
                           word & COUNT_MAX};
}

static uint64_t pack(struct second s)
{
    return s.at << 2 * COUNT_BITS | s.requests << COUNT_BITS | s.retries;
}

static uint64_t low_bits(uint64_t second)
{
    return second & ((1u << SECOND_BITS) - 1);
}

struct gw_budget *gw_budget_find(struct gw_budgets *budgets, struct gw_slice service)
{
    uint64_t name = gw_hash(service) | 1; /* that of another service it is never */
    for (unsigned i = 0; i < GW_BUDGETS_MAX - 1; i++) {
        struct gw_budget *budget = &budgets->of[(name + i) % (GW_BUDGETS_MAX - 1)];
        uint64_t found = __atomic_load_n(&budget->name, __ATOMIC_RELAXED);
        if (!found)
            __atomic_compare_exchange_n(&budget->name, &found, name, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED);
        if (!found || found == name)
            return budget;
    }
    return &budgets->of[GW_BUDGETS_MAX - 1];
}

static void count(struct gw_budget *budget, uint64_t now_ms, unsigned requests, unsigned retries)
{
    uint64_t second = now_ms / 1000;
    uint64_t *at = &budget->second[second % GW_BUDGET_SECONDS];
    uint64_t old = __atomic_load_n(at, __ATOMIC_RELAXED), fresh;
    do {
        struct second s = unpack(old);
        if (s.at != low_bits(second))
            s = (struct second){.at = low_bits(second)};
        s.requests += s.requests < COUNT_MAX ? requests : 0;
        s.retries += s.retries < COUNT_MAX ? retries : 0;
        fresh = pack(s);
    } while (
        !__atomic_compare_exchange_n(at, &old, fresh, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

void gw_budget_request(struct gw_budget *budget, uint64_t now_ms)
{
    count(budget, now_ms, 1, 0);
}

static struct second sum(const struct gw_budget *budget, uint64_t now_ms)
{
    struct second all = {0};
    for (unsigned i = 0; i < GW_BUDGET_SECONDS; i++) {
        struct second s = unpack(__atomic_load_n(&budget->second[i], __ATOMIC_RELAXED));
        if (low_bits(now_ms / 1000 - s.at) >= GW_BUDGET_SECONDS)
            continue;
        all.requests += s.requests;
        all.retries += s.retries;
    }
    return all;
}

/* Workers that look at the same time may each take the last one. */
bool gw_budget_take(struct gw_budget *budget, uint64_t now_ms, double ratio, uint32_t min_requests)
{
    struct second all = sum(budget, now_ms);
    if (all.requests >= min_requests && (double)(all.retries + 1) > ratio * (double)all.requests)
        return false;
    count(budget, now_ms, 0, 1);
    return true;
}
