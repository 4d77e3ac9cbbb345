/* A set of statuses, from 100 to 599. */
#ifndef GW_GATEWAY_STATUSES_H
#define GW_GATEWAY_STATUSES_H

#include <stdbool.h>
#include <stdint.h>

enum { GW_STATUS_MIN = 100, GW_STATUS_MAX = 599 };

struct gw_statuses {
    uint64_t bits[8];
};

/* Adds all from one to another, both included; what is no status is left out. */
void gw_statuses_add(struct gw_statuses *set, unsigned from, unsigned to);

static inline bool gw_statuses_have(const struct gw_statuses *set, unsigned status)
{
    unsigned at = status - GW_STATUS_MIN;
    return at <= GW_STATUS_MAX - GW_STATUS_MIN && (set->bits[at / 64] >> at % 64 & 1);
}

#endif
