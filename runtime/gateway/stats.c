/* Owns no memory: the slots lie in the shared mapping. Called by everybody who counts, and by the
 * management listener. Invariant: a slot has one writer, so plain stores are enough. */
#include "gateway/stats.h"

#include <string.h>

/* Rows of one name that differ in their label follow each other. */
#define TIMEOUT(which)                                                                             \
    {                                                                                              \
        "timeouts_total", "counter", "Closes by a deadline.", "{timeout=\"" which "\"}"            \
    }

static const struct {
    const char *name, *type, *help, *label;
} table[GW_STAT_LIMIT] = {
    [GW_STAT_CONNECTIONS] = {"connections", "gauge", "Open client connections."},
    [GW_STAT_NEWCOMERS] = {"newcomers", "gauge", "Client connections without a request so far."},
    [GW_STAT_STREAMS] = {"streams", "gauge", "Open event streams."},
    [GW_STAT_TUNNELS] = {"tunnels", "gauge", "Open tunnels (Upgrade)."},
    [GW_STAT_EXCHANGES] = {"exchanges", "gauge", "Requests in flight, streams included."},
    [GW_STAT_POOL_IDLE] = {"pool_idle", "gauge", "Idle connections to backends."},
    [GW_STAT_CALLS] = {"calls", "gauge", "Requests of plugins in flight."},
    [GW_STAT_LOST_NAMES] = {"lost_names", "gauge", "Host names that were not resolved last time."},
    [GW_STAT_ADMITTED] = {"admitted_connections", "gauge", "Client connections within bounds."},
    [GW_STAT_STREAMS_DUE] = {"streams_due", "gauge", "Requests with a place for a stream."},
    [GW_STAT_BUFFERED] = {"buffered_bytes", "gauge", "Memory in buffers."},
    [GW_STAT_SHEDDING] = {"shedding", "gauge", "Workers at the bound of their buffers."},
    [GW_STAT_GENERATIONS] = {"generations", "gauge", "Configurations that are still in use."},
    [GW_STAT_ACCEPTED] = {"accepted_total", "counter", "Client connections accepted."},
    [GW_STAT_REQUESTS] = {"requests_total", "counter", "Requests begun."},
    [GW_STAT_STREAMS_OPENED] = {"streams_opened_total", "counter", "Event streams opened."},
    [GW_STAT_EVENTS] = {"events_total", "counter", "Events that hooks looked at."},
    [GW_STAT_EVENTS_DROPPED] = {"events_dropped_total", "counter", "Events dropped or replaced."},
    [GW_STAT_KEEPALIVES] = {"keepalives_total", "counter", "Keepalive comments sent."},
    [GW_STAT_BYTES_IN] = {"upstream_bytes_total", "counter", "Body bytes received from backends."},
    [GW_STAT_BYTES_OUT] = {"client_bytes_total", "counter", "Body bytes sent to clients."},
    [GW_STAT_STATUS_1XX] = {"responses_1xx_total", "counter", "Responses with status 1xx."},
    [GW_STAT_STATUS_2XX] = {"responses_2xx_total", "counter", "Responses with status 2xx."},
    [GW_STAT_STATUS_3XX] = {"responses_3xx_total", "counter", "Responses with status 3xx."},
    [GW_STAT_STATUS_4XX] = {"responses_4xx_total", "counter", "Responses with status 4xx."},
    [GW_STAT_STATUS_5XX] = {"responses_5xx_total", "counter", "Responses with status 5xx."},
    [GW_STAT_HOOK_ERRORS] = {"hook_errors_total", "counter", "Errors raised by hooks."},
    [GW_STAT_UPSTREAM_ERRORS] = {"upstream_errors_total", "counter", "Exchanges a backend spoilt."},
    [GW_STAT_BROKEN_STREAMS] = {"broken_streams_total", "counter", "Event streams broken off."},
    [GW_STAT_RELOADS] = {"reloads_total", "counter", "Configurations taken up."},
    [GW_STAT_RELOADS_FAILED] = {"reloads_failed_total", "counter", "Configurations refused."},
    [GW_STAT_RETRIES] = {"retries_total", "counter", "Attempts after a first one that failed."},
    [GW_STAT_RETRIES_DENIED] = {"retries_denied_total", "counter", "Retries beyond the budget."},
    [GW_STAT_HELD] = {"held_total", "counter", "Heads of streams held for their first event."},
    [GW_STAT_HELD_MS] = {"held_ms_total", "counter", "Time that they were held, in ms."},
    [GW_STAT_PIPELINE_PAUSES] = {"pipeline_pauses_total", "counter",
                                 "Times that requests ahead of their turn filled their bound."},
    [GW_STAT_SPENT] = {"spent_connections_total", "counter",
                       "Connections closed after their last allowed request."},
    [GW_STAT_ACCEPT_PAUSES] = {"accept_pauses_total", "counter",
                               "Times that accepting paused for want of descriptors or memory."},
    [GW_STAT_PROXY_REFUSED] = {"proxy_protocol_refused_total", "counter",
                               "Connections closed for their peer or PROXY protocol header."},
    [GW_STAT_TUNNELS_OPENED] = {"tunnels_opened_total", "counter", "Tunnels opened."},
    [GW_STAT_TUNNEL_IN] = {"tunnel_client_bytes_total", "counter",
                           "Bytes that clients sent through tunnels."},
    [GW_STAT_TUNNEL_OUT] = {"tunnel_backend_bytes_total", "counter",
                            "Bytes that backends sent through tunnels."},
    [GW_STAT_TIMEOUT_HEAD] = TIMEOUT("head"),
    [GW_STAT_TIMEOUT_BODY] = TIMEOUT("body"),
    [GW_STAT_TIMEOUT_IDLE] = TIMEOUT("idle"),
    [GW_STAT_TIMEOUT_DIAL] = TIMEOUT("dial"),
    [GW_STAT_TIMEOUT_RESPONSE] = TIMEOUT("response"),
    [GW_STAT_TIMEOUT_FIRST_EVENT] = TIMEOUT("first_event"),
    [GW_STAT_TIMEOUT_SILENCE] = TIMEOUT("silence"),
    [GW_STAT_TIMEOUT_WRITE] = TIMEOUT("write"),
    [GW_STAT_TIMEOUT_TOTAL] = TIMEOUT("timeout"),
    [GW_STAT_TIMEOUT_MAX_AGE] = TIMEOUT("max_age"),
    [GW_STAT_TIMEOUT_TUNNEL] = TIMEOUT("tunnel_idle"),
    [GW_STAT_TIMEOUT_PEER] = TIMEOUT("peer"),
};

struct gw_stats *gw_stats_new(struct gw_shm *shm)
{
    return gw_shm_alloc(shm, sizeof(struct gw_stats));
}

uint64_t gw_stats_sum(const struct gw_stats *stats, enum gw_stat stat)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= GW_MAX_WORKERS; i++)
        sum += __atomic_load_n(&stats->slot[i].value[stat], __ATOMIC_RELAXED);
    return sum;
}

uint64_t gw_stats_load(const struct gw_stats_slot *slot)
{
    return __atomic_load_n(&slot->value[GW_STAT_EXCHANGES], __ATOMIC_RELAXED) +
           __atomic_load_n(&slot->value[GW_STAT_NEWCOMERS], __ATOMIC_RELAXED);
}

void gw_stats_enlist(struct gw_stats *stats, unsigned worker)
{
    unsigned highest = __atomic_load_n(&stats->workers, __ATOMIC_RELAXED);
    while (highest < worker && !__atomic_compare_exchange_n(&stats->workers, &highest, worker, true,
                                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    __atomic_store_n(&stats->slot[worker].alive, 1, __ATOMIC_RELAXED);
}

/* Asked at every accept: only as far as there are workers. */
uint64_t gw_stats_least_load(const struct gw_stats *stats)
{
    unsigned workers = __atomic_load_n(&stats->workers, __ATOMIC_RELAXED);
    uint64_t least = UINT64_MAX;
    for (unsigned i = 1; i <= workers; i++) {
        const struct gw_stats_slot *slot = &stats->slot[i];
        if (!__atomic_load_n(&slot->alive, __ATOMIC_RELAXED))
            continue;
        uint64_t n = gw_stats_load(slot);
        if (n < least)
            least = n;
    }
    return least;
}

void gw_stats_forget(struct gw_stats_slot *slot)
{
    for (int i = GW_STAT_CONNECTIONS; i <= GW_STAT_GENERATIONS; i++)
        gw_stat_set(slot, (enum gw_stat)i, 0);
    __atomic_store_n(&slot->alive, 0, __ATOMIC_RELAXED);
}

void gw_stats_write(const struct gw_stats *stats, struct gw_buf *out)
{
    for (int i = 0; i < GW_STAT_LIMIT; i++) {
        if (i == 0 || strcmp(table[i].name, table[i - 1].name) != 0)
            gw_buf_printf(out, "# HELP gatewayd_%s %s\n# TYPE gatewayd_%s %s\n", table[i].name,
                          table[i].help, table[i].name, table[i].type);
        gw_buf_printf(out, "gatewayd_%s%s %llu\n", table[i].name,
                      table[i].label ? table[i].label : "",
                      (unsigned long long)gw_stats_sum(stats, (enum gw_stat)i));
    }
}
