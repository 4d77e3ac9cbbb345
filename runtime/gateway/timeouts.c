/* Owns nothing: a table from errors to counters. Called where the log names a deadline. Invariant:
 * each deadline has one counter, and each close is counted once. */
#include "gateway/timeouts.h"

static const enum gw_stat stat_of[GW_ERR_LIMIT] = {
    [GW_ERR_HEAD_TIMEOUT] = GW_STAT_TIMEOUT_HEAD,
    [GW_ERR_BODY_TIMEOUT] = GW_STAT_TIMEOUT_BODY,
    [GW_ERR_IDLE_TIMEOUT] = GW_STAT_TIMEOUT_IDLE,
    [GW_ERR_DIAL_TIMEOUT] = GW_STAT_TIMEOUT_DIAL,
    [GW_ERR_RESPONSE_TIMEOUT] = GW_STAT_TIMEOUT_RESPONSE,
    [GW_ERR_FIRST_EVENT_TIMEOUT] = GW_STAT_TIMEOUT_FIRST_EVENT,
    [GW_ERR_SILENCE_TIMEOUT] = GW_STAT_TIMEOUT_SILENCE,
    [GW_ERR_WRITE_TIMEOUT] = GW_STAT_TIMEOUT_WRITE,
    [GW_ERR_TOTAL_TIMEOUT] = GW_STAT_TIMEOUT_TOTAL,
    [GW_ERR_MAX_AGE] = GW_STAT_TIMEOUT_MAX_AGE,
    [GW_ERR_TUNNEL_IDLE] = GW_STAT_TIMEOUT_TUNNEL,
    [GW_ERR_PEER_TIMEOUT] = GW_STAT_TIMEOUT_PEER,
};

void gw_timeout_count(struct gw_stats_slot *slot, enum gw_err why)
{
    if (stat_of[why])
        gw_stat_add(slot, stat_of[why], 1);
}
