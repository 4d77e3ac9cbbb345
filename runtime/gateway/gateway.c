/* Owns what the exchanges of one process share: client connections, the pool, the current
 * generation. Called by the worker. Invariant: a generation lives until its last exchange is gone.
 */
#include <time.h>
#include "gateway/admin.h"
#include "gateway/exchange.h"
#include "gateway/relay.h"
#include "gateway/reply.h"

enum { ADOPT_US = 500 }; /* of a turn */

/* Addresses that mark codecs: of the management listener, beyond maxConnections, and those that
 * have not asked for anything yet. */
static int admin_door, full_house, newcomer;

static struct gw_gateway *gateway_of(const struct gw_codec *codec)
{
    return GW_CONTAINER(codec->host, struct gw_gateway, host);
}

static void greet(struct gw_gateway *gateway, struct gw_codec *codec)
{
    codec->listener = &newcomer;
    gw_stat_add(gateway->count, GW_STAT_NEWCOMERS, 1);
}

static void know(struct gw_gateway *gateway, struct gw_codec *codec)
{
    if (codec->listener != &newcomer)
        return;
    codec->listener = NULL;
    gw_stat_add(gateway->count, GW_STAT_NEWCOMERS, -1);
}

static bool on_stream(struct gw_codec *codec, struct gw_stream *stream)
{
    struct gw_gateway *gateway = gateway_of(codec);
    if (codec->listener == &admin_door) {
        gw_admin_serve(gateway, stream);
        return true;
    }
    if (codec->listener == &full_house)
        return false;
    know(gateway, codec);
    gw_exchange_new(gateway, stream);
    return true;
}

static void on_refused(struct gw_codec *codec, enum gw_err why, struct gw_head *head,
                       struct gw_buf *body)
{
    struct gw_gateway *gateway = gateway_of(codec);
    char peer[GW_ADDR_TEXT];
    struct gw_log_line line;
    unsigned status = (unsigned)gw_err_status(why);
    gw_problem_write(head, body, NULL, status ? status : 400, gw_slice_str(gw_err_text(why)),
                     GW_SLICE(""));
    if (head->status == 503)
        gw_fields_set(head, GW_SLICE("retry-after"), GW_SLICE("1"));
    gw_stat_add(gateway->count, (enum gw_stat)(GW_STAT_STATUS_1XX + head->status / 100 - 1), 1);
    gw_log_begin(&line, GW_LOG_INFO, "request refused");
    gw_log_cstr(&line, "client", gw_addr_text(&codec->conn->peer, peer));
    gw_log_int(&line, "status", head->status);
    gw_log_cstr(&line, "why", gw_err_slug(why));
    gw_log_end(&line);
}

static void on_gone(struct gw_codec *codec)
{
    struct gw_gateway *gateway = gateway_of(codec);
    gw_list_remove(&codec->node);
    if (codec->listener == &admin_door) {
        gateway->visits--;
        return;
    }
    know(gateway, codec);
    gateway->connections--;
    gw_stat_add(gateway->count, GW_STAT_CONNECTIONS, -1);
}

static const struct gw_codec_events client_events = {
    .on_stream = on_stream,
    .on_refused = on_refused,
    .on_gone = on_gone,
};

void gw_gateway_accept(struct gw_gateway *gateway, int fd, const struct gw_addr *peer,
                       enum gw_door door)
{
    struct gw_codec *codec = gw_http1_serve(&gateway->host, fd, peer, &gw_tcp);
    gw_list_push(&gateway->codecs, &codec->node);
    if (door == GW_DOOR_ADMIN) {
        codec->listener = &admin_door;
        gateway->visits++;
        return;
    }
    gateway->connections++;
    gw_stat_add(gateway->count, GW_STAT_CONNECTIONS, 1);
    gw_stat_add(gateway->count, GW_STAT_ACCEPTED, 1);
    unsigned limit = gateway->current->settings.max_connections;
    if (limit && gw_stats_sum(gateway->stats, GW_STAT_CONNECTIONS) > limit)
        codec->listener = &full_house;
    else
        greet(gateway, codec);
}

static bool may_adopt(const struct gw_exchange *x)
{
    const struct gw_generation *current = x->gateway->current;
    return x->generation != current && x->pinned != (uint32_t)current->number && !x->over &&
           x->step == GW_STEP_RELAY && x->relay.mode != GW_BODY_PLAIN && !x->response_sent &&
           gw_relay_between_events(x) && !x->generation->hooks->waiting(x);
}

void gw_gateway_adopt(struct gw_exchange *x)
{
    struct gw_generation *current = x->gateway->current, *old = x->generation;
    if (!may_adopt(x))
        return;
    if (!old->hooks->adopt(x, current)) {
        x->pinned = (uint32_t)current->number;
        return;
    }
    x->generation = gw_generation_ref(current);
    gw_generation_unref(old);
    gw_relay_remode(x);
    if (x->relay.wanted != x->relay.mode)
        gw_exchange_wake(x); /* part of an event may wait that need not wait any more */
    gw_exchange_arm(x);
}

static int64_t clock_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Some streams per turn, so that a reload is no pause for the others. By time: what one takes is up
 * to its state, and to plugins that upgrade it. */
static void adopt_some(struct gw_task_node *task)
{
    struct gw_gateway *gateway = GW_CONTAINER(task, struct gw_gateway, adoption);
    int64_t enough = clock_us() + ADOPT_US;
    while (gateway->adoption_at != &gateway->exchanges) {
        struct gw_list *at = gateway->adoption_at;
        gateway->adoption_at = at->next;
        gw_gateway_adopt(GW_CONTAINER(at, struct gw_exchange, node));
        if (clock_us() >= enough) {
            gw_loop_wake(gateway->loop, task, adopt_some);
            return;
        }
    }
    gateway->adoption_at = NULL;
}

void gw_gateway_swap(struct gw_gateway *gateway, struct gw_generation *generation)
{
    struct gw_generation *old = gateway->current;
    gateway->current = gw_generation_ref(generation);
    gateway->limits = generation->settings.client;
    gw_pool_settings(&gateway->pool, &generation->settings);
    if (!old)
        return;
    gateway->adoption_at = gateway->exchanges.next;
    gw_loop_wake(gateway->loop, &gateway->adoption, adopt_some);
    gw_generation_unref(old);
}

void gw_gateway_init(struct gw_gateway *gateway, struct gw_loop *loop, struct gw_stats *stats,
                     unsigned worker)
{
    *gateway = (struct gw_gateway){.loop = loop, .stats = stats, .worker = worker};
    gateway->count = &stats->slot[worker];
    gateway->host = (struct gw_codec_host){loop, &gateway->limits, &client_events};
    gw_pool_init(&gateway->pool, loop, gateway->count);
    gw_list_init(&gateway->exchanges);
    gw_list_init(&gateway->codecs);
}

void gw_gateway_drain(struct gw_gateway *gateway)
{
    gateway->draining = true;
    for (struct gw_list *at = gateway->codecs.next, *next; at != &gateway->codecs; at = next) {
        next = at->next;
        struct gw_codec *codec = GW_CONTAINER(at, struct gw_codec, node);
        if (codec->listener != &admin_door)
            codec->ops->drain(codec);
    }
}

void gw_gateway_abort(struct gw_gateway *gateway, enum gw_err why)
{
    for (struct gw_list *at = gateway->exchanges.next; at != &gateway->exchanges; at = at->next)
        gw_exchange_fail(GW_CONTAINER(at, struct gw_exchange, node), why, false);
}

void gw_gateway_fini(struct gw_gateway *gateway)
{
    while (!gw_list_empty(&gateway->codecs)) {
        struct gw_codec *codec = GW_CONTAINER(gateway->codecs.next, struct gw_codec, node);
        codec->ops->close(codec, GW_ERR_SHUTDOWN);
    }
    while (!gw_list_empty(&gateway->exchanges))
        gw_exchange_run(GW_CONTAINER(gateway->exchanges.next, struct gw_exchange, node));
    gw_pool_fini(&gateway->pool);
    gw_loop_unwake(gateway->loop, &gateway->adoption);
    if (gateway->current)
        gw_generation_unref(gateway->current);
}
