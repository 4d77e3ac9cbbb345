/* Owns nothing. Called when the rules of services and routes are read. Invariant: what is no status
 * is in no set. */
#include "gateway/statuses.h"

void gw_statuses_add(struct gw_statuses *set, unsigned from, unsigned to)
{
    if (from < GW_STATUS_MIN)
        from = GW_STATUS_MIN;
    for (unsigned status = from; status <= to && status <= GW_STATUS_MAX; status++) {
        unsigned at = status - GW_STATUS_MIN;
        set->bits[at / 64] |= 1ull << at % 64;
    }
}
