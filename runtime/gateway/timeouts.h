/* Which errors are deadlines that have passed, and how many of each did. */
#ifndef GW_GATEWAY_TIMEOUTS_H
#define GW_GATEWAY_TIMEOUTS_H

#include "base/err.h"
#include "gateway/stats.h"

/* Counts what a connection or an exchange was closed for, where that is a deadline. */
void gw_timeout_count(struct gw_stats_slot *slot, enum gw_err why);

#endif
