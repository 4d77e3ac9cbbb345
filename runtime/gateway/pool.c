/* Owns the connections to backends: idle ones by address, and the lent ones so that they can be
 * closed. Called by STEP_CONNECT. Invariant: a connection is in exactly one list, and only a codec
 * that reported itself idle is lent again. */
#include "gateway/pool.h"

#include <stdlib.h>

enum { SWEEP_MS = 1000 };

/* Codecs keep a pointer to their limits, which must outlive every generation. */
static struct gw_http_limits origin_limits;

static struct gw_pool_host *host_of(const struct gw_codec *codec)
{
    return GW_CONTAINER(codec->host, struct gw_pool_host, codecs);
}

static struct gw_pool_host *find(const struct gw_pool *pool, const struct gw_addr *addr)
{
    char text[GW_ADDR_TEXT];
    return gw_map_get(&pool->hosts, gw_slice_str(gw_addr_text(addr, text)));
}

static bool is_unused(const struct gw_pool_host *host)
{
    return !host->users && !host->busy && !host->idle_count;
}

static void free_grave(struct gw_grave *grave)
{
    free(GW_CONTAINER(grave, struct gw_pool_host, grave));
}

/* Addresses come and go by DNS, and plugins ask for what clients tell them. */
static void prune(struct gw_task_node *task)
{
    struct gw_pool *pool = GW_CONTAINER(task, struct gw_pool, prune);
    for (struct gw_list *at; (at = gw_list_take(&pool->unused));) {
        struct gw_pool_host *host = GW_CONTAINER(at, struct gw_pool_host, unused);
        char text[GW_ADDR_TEXT];
        if (!is_unused(host))
            continue;
        gw_map_remove(&pool->hosts, gw_slice_str(gw_addr_text(&host->addr, text)));
        gw_loop_bury(pool->loop, &host->grave, free_grave);
    }
}

/* Later: who closes connections may be in the middle of all hosts. */
static void prune_later(struct gw_pool_host *host)
{
    if (!is_unused(host) || !gw_list_empty(&host->unused))
        return;
    gw_list_push(&host->pool->unused, &host->unused);
    gw_loop_wake(host->pool->loop, &host->pool->prune, prune);
}

static void forget_idle(struct gw_codec *codec)
{
    struct gw_pool_host *host = host_of(codec);
    gw_list_remove(&codec->node);
    codec->idle_since_ms = 0;
    host->idle_count--;
    host->pool->idle_count--;
    gw_stat_add(host->pool->count, GW_STAT_POOL_IDLE, -1);
}

static void on_idle(struct gw_codec *codec)
{
    struct gw_pool_host *host = host_of(codec);
    struct gw_pool *pool = host->pool;
    const struct gw_settings *s = pool->settings;
    if (!s->keep_alive || (s->max_idle && pool->idle_count >= s->max_idle) ||
        (s->max_idle_per_host && host->idle_count >= s->max_idle_per_host)) {
        codec->ops->close(codec, GW_ERR_CLOSED);
        return;
    }
    gw_list_remove(&codec->node);
    gw_list_push(&host->idle, &codec->node);
    codec->idle_since_ms = pool->loop->now_ms ? pool->loop->now_ms : 1;
    host->busy--;
    host->idle_count++;
    pool->idle_count++;
    gw_stat_add(pool->count, GW_STAT_POOL_IDLE, 1);
    if (s->idle_conn_ms && !gw_timer_active(&pool->sweep))
        gw_timer_start(pool->loop, &pool->sweep, SWEEP_MS);
}

static void on_gone(struct gw_codec *codec)
{
    struct gw_pool_host *host = host_of(codec);
    if (codec->idle_since_ms) {
        forget_idle(codec);
    } else {
        gw_list_remove(&codec->node);
        host->busy--;
    }
    prune_later(host);
}

static const struct gw_codec_events codec_events = {.on_idle = on_idle, .on_gone = on_gone};

static void sweep_host(struct gw_slice key, void *value, void *data)
{
    (void)key;
    struct gw_pool_host *host = value;
    uint64_t before = *(uint64_t *)data;
    while (!gw_list_empty(&host->idle)) {
        struct gw_codec *codec = GW_CONTAINER(host->idle.next, struct gw_codec, node);
        if (codec->idle_since_ms > before)
            return;
        codec->ops->close(codec, GW_ERR_IDLE_TIMEOUT);
    }
}

static void sweep(struct gw_timer *timer)
{
    struct gw_pool *pool = GW_CONTAINER(timer, struct gw_pool, sweep);
    uint64_t limit = pool->settings->idle_conn_ms, now = pool->loop->now_ms;
    uint64_t before = now > limit ? now - limit : 0;
    if (limit)
        gw_map_each(&pool->hosts, sweep_host, &before);
    if (limit && pool->idle_count)
        gw_timer_start(pool->loop, &pool->sweep, SWEEP_MS);
}

void gw_pool_init(struct gw_pool *pool, struct gw_loop *loop, struct gw_stats_slot *count)
{
    *pool = (struct gw_pool){.loop = loop, .count = count};
    gw_map_init(&pool->hosts);
    gw_list_init(&pool->busy);
    gw_list_init(&pool->unused);
    gw_timer_init(&pool->sweep, sweep);
}

static void free_host(struct gw_slice key, void *value, void *data)
{
    uint64_t for_ever = UINT64_MAX;
    struct gw_pool_host *host = value;
    (void)data;
    GW_DEBUG_CHECK(!host->users);
    sweep_host(key, host, &for_ever);
    gw_list_remove(&host->unused);
    free(host);
}

void gw_pool_fini(struct gw_pool *pool)
{
    gw_timer_stop(pool->loop, &pool->sweep);
    while (!gw_list_empty(&pool->busy)) {
        struct gw_codec *codec = GW_CONTAINER(pool->busy.next, struct gw_codec, node);
        codec->ops->close(codec, GW_ERR_SHUTDOWN);
    }
    gw_map_each(&pool->hosts, free_host, NULL);
    gw_loop_unwake(pool->loop, &pool->prune);
    gw_map_fini(&pool->hosts);
}

void gw_pool_settings(struct gw_pool *pool, const struct gw_settings *settings)
{
    pool->settings = settings;
    origin_limits = settings->origin;
    uint64_t all = UINT64_MAX;
    if (!settings->keep_alive)
        gw_map_each(&pool->hosts, sweep_host, &all);
    if (settings->idle_conn_ms && pool->idle_count && !gw_timer_active(&pool->sweep))
        gw_timer_start(pool->loop, &pool->sweep, SWEEP_MS);
}

static struct gw_pool_host *host_new(struct gw_pool *pool, const struct gw_addr *addr)
{
    char text[GW_ADDR_TEXT];
    struct gw_pool_host *host = calloc(1, sizeof *host);
    GW_CHECK(host != NULL);
    host->codecs = (struct gw_codec_host){
        .loop = pool->loop, .limits = &origin_limits, .events = &codec_events};
    host->pool = pool;
    host->addr = *addr;
    gw_list_init(&host->unused);
    gw_list_init(&host->idle);
    gw_list_init(&host->callers);
    gw_map_put(&pool->hosts, gw_slice_str(gw_addr_text(addr, text)), host);
    return host;
}

struct gw_pool_host *gw_pool_host(struct gw_pool *pool, const struct gw_addr *addr)
{
    struct gw_pool_host *host = find(pool, addr);
    if (!host)
        host = host_new(pool, addr);
    host->users++;
    return host;
}

void gw_pool_let_go(struct gw_pool_host *host)
{
    if (!host)
        return;
    host->users--;
    prune_later(host);
}

/* The most recently used one: the others may time out in peace. */
static struct gw_codec *take_idle(struct gw_pool_host *host)
{
    if (gw_list_empty(&host->idle))
        return NULL;
    struct gw_codec *codec = GW_CONTAINER(host->idle.prev, struct gw_codec, node);
    forget_idle(codec);
    return codec;
}

static struct gw_codec *dial(struct gw_pool_host *host, const struct gw_pool_wish *wish,
                             enum gw_err *err)
{
    return gw_http1_dial(&host->codecs, &host->addr, wish->dial_ms, wish->tcp_keepalive_s, &gw_tcp,
                         err);
}

struct gw_stream *gw_pool_borrow(struct gw_pool *pool, struct gw_pool_host *host,
                                 const struct gw_pool_wish *wish,
                                 const struct gw_stream_events *events, void *owner,
                                 enum gw_err *err)
{
    for (;;) {
        struct gw_codec *codec = wish->fresh ? NULL : take_idle(host);
        bool used = codec != NULL;
        if (!codec && !(codec = dial(host, wish, err)))
            return NULL;
        gw_list_push(&pool->busy, &codec->node);
        host->busy++;
        struct gw_stream *stream = codec->ops->open(codec, events, owner);
        if (stream) {
            if (!pool->settings->keep_alive)
                codec->ops->drain(codec);
            return stream;
        }
        codec->ops->close(codec, GW_ERR_CLOSED);
        *err = GW_ERR_IO;
        if (!used)
            return NULL;
    }
}
