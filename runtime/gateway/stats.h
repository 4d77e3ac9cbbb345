/* Counters in shared memory, one slot per worker: written by it alone, read by all. */
#ifndef GW_GATEWAY_STATS_H
#define GW_GATEWAY_STATS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/shm.h"

enum { GW_MAX_WORKERS = 256 };

enum gw_stat {
    GW_STAT_CONNECTIONS, /* open client connections (gauge) */
    GW_STAT_NEWCOMERS,   /* of them, those that have not asked for anything yet (gauge) */
    GW_STAT_STREAMS,     /* open event streams (gauge) */
    GW_STAT_TUNNELS,     /* open tunnels (gauge) */
    GW_STAT_EXCHANGES,   /* exchanges in flight (gauge) */
    GW_STAT_POOL_IDLE,   /* idle backend connections (gauge) */
    GW_STAT_CALLS,       /* requests of plugins in flight (gauge) */
    GW_STAT_LOST_NAMES,  /* host names whose last question brought no addresses (gauge) */
    GW_STAT_ADMITTED,    /* connections within the bounds, with a known peer (gauge) */
    GW_STAT_STREAMS_DUE, /* requests that have a place for the stream they may become (gauge) */
    GW_STAT_BUFFERED,    /* bytes of memory in buffers (gauge) */
    GW_STAT_SHEDDING,    /* workers that take no requests for want of memory (gauge) */
    GW_STAT_GENERATIONS, /* live generations (gauge) */
    GW_STAT_ACCEPTED,    /* client connections since the start */
    GW_STAT_REQUESTS,
    GW_STAT_STREAMS_OPENED,
    GW_STAT_EVENTS, /* events seen by hooks */
    GW_STAT_EVENTS_DROPPED,
    GW_STAT_KEEPALIVES,
    GW_STAT_BYTES_IN,  /* from backends */
    GW_STAT_BYTES_OUT, /* to clients */
    GW_STAT_STATUS_1XX,
    GW_STAT_STATUS_2XX,
    GW_STAT_STATUS_3XX,
    GW_STAT_STATUS_4XX,
    GW_STAT_STATUS_5XX,
    GW_STAT_HOOK_ERRORS,
    GW_STAT_UPSTREAM_ERRORS,
    GW_STAT_BROKEN_STREAMS, /* ended other than well */
    GW_STAT_RELOADS,
    GW_STAT_RELOADS_FAILED,
    GW_STAT_RETRIES,
    GW_STAT_RETRIES_DENIED,
    GW_STAT_HELD, /* heads of event streams */
    GW_STAT_HELD_MS,
    GW_STAT_PIPELINE_PAUSES, /* times that a client was not read, for it had asked too far ahead */
    GW_STAT_SPENT,           /* connections that had as many requests as they may */
    GW_STAT_ACCEPT_PAUSES,   /* out of descriptors or memory */
    GW_STAT_PROXY_REFUSED,   /* connections, for their peer or their header */
    GW_STAT_TUNNELS_OPENED,
    GW_STAT_TUNNEL_IN,    /* bytes through tunnels, from clients */
    GW_STAT_TUNNEL_OUT,   /* ... and to clients */
    GW_STAT_TIMEOUT_HEAD, /* closes by deadlines: gateway/timeouts.h */
    GW_STAT_TIMEOUT_BODY,
    GW_STAT_TIMEOUT_IDLE,
    GW_STAT_TIMEOUT_DIAL,
    GW_STAT_TIMEOUT_RESPONSE,
    GW_STAT_TIMEOUT_FIRST_EVENT,
    GW_STAT_TIMEOUT_SILENCE,
    GW_STAT_TIMEOUT_WRITE,
    GW_STAT_TIMEOUT_TOTAL,
    GW_STAT_TIMEOUT_MAX_AGE,
    GW_STAT_TIMEOUT_TUNNEL,
    GW_STAT_TIMEOUT_PEER,
    GW_STAT_LIMIT
};

struct gw_stats_slot {
    _Alignas(64) uint64_t value[GW_STAT_LIMIT];
    uint64_t alive; /* 1 while the worker accepts */
};

struct gw_stats {
    unsigned workers;                              /* the highest number of one that has accepted */
    struct gw_stats_slot slot[GW_MAX_WORKERS + 1]; /* slot 0 is the master's */
};

struct gw_stats *gw_stats_new(struct gw_shm *shm);

static inline void gw_stat_add(struct gw_stats_slot *slot, enum gw_stat stat, int64_t n)
{
    __atomic_store_n(&slot->value[stat], slot->value[stat] + (uint64_t)n, __ATOMIC_RELAXED);
}
static inline void gw_stat_set(struct gw_stats_slot *slot, enum gw_stat stat, uint64_t n)
{
    __atomic_store_n(&slot->value[stat], n, __ATOMIC_RELAXED);
}
/* The sum over all workers. */
uint64_t gw_stats_sum(const struct gw_stats *stats, enum gw_stat stat);
/* What may stay with a worker: exchanges, and connections that may soon have one. */
uint64_t gw_stats_load(const struct gw_stats_slot *slot);
/* The worker of this number accepts from now on. */
void gw_stats_enlist(struct gw_stats *stats, unsigned worker);
/* The least load among the workers that accept. */
uint64_t gw_stats_least_load(const struct gw_stats *stats);
/* Zeroes the gauges of a worker that died. */
void gw_stats_forget(struct gw_stats_slot *slot);
/* The Prometheus text format. */
void gw_stats_write(const struct gw_stats *stats, struct gw_buf *out);

#endif
