/* Idle connections to backends, by address. Reloads do not touch it. */
#ifndef GW_GATEWAY_POOL_H
#define GW_GATEWAY_POOL_H

#include <stdbool.h>
#include "base/list.h"
#include "base/map.h"
#include "gateway/settings.h"
#include "gateway/stats.h"
#include "http/http1.h"

struct gw_pool_host {
    struct gw_codec_host codecs;
    struct gw_pool *pool;
    struct gw_addr addr;
    unsigned users; /* who may borrow here: instances and fetches */
    union {
        struct gw_list unused; /* in the pool's list, perhaps */
        struct gw_grave grave;
    };
    struct gw_list idle; /* codecs, the most recently used last */
    unsigned idle_count;
    unsigned busy;          /* connections with a stream on them */
    unsigned calls;         /* of them, those that are counted for plugins: see fetch.c */
    struct gw_list callers; /* fetches that wait for one of these to end */
};

struct gw_pool {
    struct gw_loop *loop;
    const struct gw_settings *settings; /* the current generation's */
    struct gw_map hosts;
    struct gw_list unused; /* hosts that nobody borrows from and that have no connections */
    struct gw_task_node prune;
    struct gw_list busy; /* codecs that are lent */
    unsigned idle_count;
    struct gw_stats_slot *count;
    struct gw_timer sweep; /* closes connections that were idle for too long */
};

/* What one borrowing asks for. */
struct gw_pool_wish {
    bool fresh; /* not one that was used before: the last one was stale */
    uint64_t dial_ms;
    unsigned tcp_keepalive_s;
};

void gw_pool_init(struct gw_pool *pool, struct gw_loop *loop, struct gw_stats_slot *count);
/* Closes every connection, lent ones too. All hosts have been given back. */
void gw_pool_fini(struct gw_pool *pool);
/* The settings of a new generation; closes what its limits no longer allow. */
void gw_pool_settings(struct gw_pool *pool, const struct gw_settings *settings);
/* The host entry of an address, made on first use; given back by gw_pool_let_go. It stays while it
 * has connections. */
struct gw_pool_host *gw_pool_host(struct gw_pool *pool, const struct gw_addr *addr);
/* host may be NULL. */
void gw_pool_let_go(struct gw_pool_host *host);
/* A stream on an idle connection, or on one that is being dialled (stream->opened is false then).
 * The connection comes back by itself when the exchange on it was complete. NULL with *err set
 * when no descriptor is left. */
struct gw_stream *gw_pool_borrow(struct gw_pool *pool, struct gw_pool_host *host,
                                 const struct gw_pool_wish *wish,
                                 const struct gw_stream_events *events, void *owner,
                                 enum gw_err *err);

/* Without an answer a stream ended in this way: a connection that had been used before may have
 * been closed by the backend just as it was taken. */
static inline bool gw_pool_is_stale(bool reused, enum gw_err why)
{
    return reused && (why == GW_EOF || why == GW_ERR_RESET);
}

#endif
