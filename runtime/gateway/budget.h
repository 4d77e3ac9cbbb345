/* How many requests a service may get more than once: counts of the last ten seconds, shared by all
 * workers. */
#ifndef GW_GATEWAY_BUDGET_H
#define GW_GATEWAY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>
#include "base/slice.h"

enum { GW_BUDGET_SECONDS = 10, GW_BUDGETS_MAX = 256 };

/* One service's. In shared memory. */
struct gw_budget {
    uint64_t name; /* a hash of it; 0: free */
    uint64_t second[GW_BUDGET_SECONDS];
};

struct gw_budgets {
    struct gw_budget of[GW_BUDGETS_MAX];
};

/* The budget of the service of this name. The services beyond those that fit share one. */
struct gw_budget *gw_budget_find(struct gw_budgets *budgets, struct gw_slice service);
/* A request went to the service for the first time. */
void gw_budget_request(struct gw_budget *budget, uint64_t now_ms);
/* One shall go again: takes that from the budget. False: there have been `min_requests` and more in
 * the last ten seconds, and those that went again would be more than `ratio` of them. */
bool gw_budget_take(struct gw_budget *budget, uint64_t now_ms, double ratio, uint32_t min_requests)
    __attribute__((warn_unused_result));

#endif
