/* Owns what the exchanges of one process share: client connections, the pool, the current
 * generation. Called by the worker. Invariant: a generation lives until its last exchange is gone.
 */
#include <stdlib.h>
#include <unistd.h>
#include "gateway/admin.h"
#include "gateway/adoption.h"
#include "gateway/bounds.h"
#include "gateway/exchange.h"
#include "gateway/fetch.h"
#include "gateway/names.h"
#include "gateway/relay.h"
#include "gateway/reply.h"
#include "gateway/timeouts.h"
#include "net/proxy_protocol.h"

/* Addresses that mark codecs: of the management listener, those that have not asked for anything
 * yet, those that have, and by the reason those beyond a bound. */
static int admin_door, newcomer, guest;
static char turned_away[GW_ERR_LIMIT];

enum {
    TURNED_AWAY_MAX = 256, /* connections that wait for their first request to be refused */
    TURNED_AWAY_MS = 5000
};

/* Why it is beyond a bound; GW_OK: it is not. */
static enum gw_err refusal(const struct gw_codec *codec)
{
    uintptr_t at = (uintptr_t)codec->listener - (uintptr_t)turned_away;
    return at < GW_ERR_LIMIT ? (enum gw_err)at : GW_OK;
}

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
    codec->listener = &guest;
    gw_stat_add(gateway->count, GW_STAT_NEWCOMERS, -1);
}

static enum gw_err on_stream(struct gw_codec *codec, struct gw_stream *stream)
{
    struct gw_gateway *gateway = gateway_of(codec);
    if (codec->listener == &admin_door) {
        gw_admin_serve(gateway, stream);
        return GW_OK;
    }
    enum gw_err err = refusal(codec);
    if (err == GW_OK && gw_bounds_short(gateway))
        err = GW_ERR_BUFFERED;
    if (err != GW_OK)
        return err;
    know(gateway, codec);
    gw_exchange_new(gateway, stream);
    return GW_OK;
}

/* What happened to a connection, where no exchange tells it. status: 0 where there is no answer. */
static void log_connection(enum gw_log_level level, const char *what, const struct gw_addr *peer,
                           unsigned status, const char *why)
{
    char text[GW_ADDR_TEXT];
    struct gw_log_line line;
    gw_log_begin(&line, level, what);
    if (!line.live)
        return;
    gw_log_cstr(&line, "client", gw_addr_text(peer, text));
    if (status)
        gw_log_int(&line, "status", status);
    gw_log_cstr(&line, "why", why);
    gw_log_end(&line);
}

static void on_refused(struct gw_codec *codec, enum gw_err why, struct gw_head *head,
                       struct gw_buf *body)
{
    struct gw_gateway *gateway = gateway_of(codec);
    gw_tally_tell(gateway->facts->tally, why);
    unsigned status = (unsigned)gw_err_status(why);
    gw_problem_write(head, body, NULL, status ? status : 400, gw_slice_str(gw_err_text(why)),
                     GW_SLICE(""));
    if (head->status == 503 || head->status == 429)
        gw_bounds_retry_after(head, 1);
    gw_stat_add(gateway->count, (enum gw_stat)(GW_STAT_STATUS_1XX + head->status / 100 - 1), 1);
    gw_timeout_count(gateway->count, why);
    log_connection(GW_LOG_INFO, "request refused", &codec->conn->peer, head->status,
                   gw_err_slug(why));
}

static void on_expired(struct gw_codec *codec)
{
    gw_timeout_count(gateway_of(codec)->count, GW_ERR_IDLE_TIMEOUT);
    log_connection(GW_LOG_DEBUG, "connection closed", &codec->conn->peer, 0,
                   gw_err_slug(GW_ERR_IDLE_TIMEOUT));
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
    if (codec->listener == &guest)
        gw_bounds_leave(gateway, codec);
    gateway->turned_away -= refusal(codec) != GW_OK;
    gateway->connections--;
    gw_stat_add(gateway->count, GW_STAT_CONNECTIONS, -1);
}

/* Its first request, which has to come soon, is answered by why not. Nobody may hold descriptors
 * that way, so there are only so many of them. */
static void turn_away(struct gw_gateway *gateway, struct gw_codec *codec, enum gw_err why)
{
    codec->listener = &turned_away[why];
    if (gateway->turned_away++ >= TURNED_AWAY_MAX) {
        gw_tally_tell(gateway->facts->tally, why);
        codec->ops->close(codec, why);
        return;
    }
    gw_conn_deadline(codec->conn, TURNED_AWAY_MS);
}

/* It counts from now on; beyond the bound it is only told so. */
static void admit(struct gw_codec *codec)
{
    struct gw_gateway *gateway = gateway_of(codec);
    if (codec->listener == &admin_door)
        return;
    enum gw_err err = gw_bounds_admit(gateway, codec);
    if (err == GW_OK)
        greet(gateway, codec);
    else
        turn_away(gateway, codec, err);
}

static void refuse_unopened(struct gw_gateway *gateway, const struct gw_addr *peer, const char *why)
{
    gw_stat_add(gateway->count, GW_STAT_PROXY_REFUSED, 1);
    log_connection(GW_LOG_INFO, "connection refused", peer, 0, why);
}

/* One that leaves before it has said who it stands for is a check of the proxy's: that is usual. */
static void on_unopened(struct gw_codec *codec, enum gw_err why)
{
    if (why != GW_ERR_RESET)
        refuse_unopened(gateway_of(codec), &codec->conn->peer, gw_err_slug(why));
}

static const struct gw_codec_events client_events = {
    .on_open = admit,
    .on_unopened = on_unopened,
    .on_stream = on_stream,
    .on_refused = on_refused,
    .on_expired = on_expired,
    .on_gone = on_gone,
};

void gw_gateway_accept(struct gw_gateway *gateway, int fd, const struct gw_addr *peer,
                       enum gw_door door)
{
    bool proxied = door == GW_DOOR_PROXIED;
    if (proxied && !gw_networks_have(&gateway->current->settings.trusted, peer)) {
        refuse_unopened(gateway, peer, "untrusted_proxy");
        close(fd);
        return;
    }
    struct gw_codec *codec =
        gw_http1_serve(&gateway->host, fd, peer, proxied ? &gw_proxy_protocol : &gw_tcp);
    gw_list_push(&gateway->codecs, &codec->node);
    if (door == GW_DOOR_ADMIN) {
        codec->listener = &admin_door;
        gateway->visits++;
        return;
    }
    gateway->connections++;
    gw_stat_add(gateway->count, GW_STAT_CONNECTIONS, 1);
    gw_stat_add(gateway->count, GW_STAT_ACCEPTED, 1);
    if (codec->conn->state == GW_CONN_OPEN)
        admit(codec);
}

void gw_gateway_swap(struct gw_gateway *gateway, struct gw_generation *generation)
{
    struct gw_generation *old = gateway->current;
    gw_names_start(generation, NULL, NULL);
    gateway->current = gw_generation_ref(generation);
    gateway->limits = generation->settings.client;
    gw_pool_settings(&gateway->pool, &generation->settings);
    generation->hooks->serve(generation);
    if (!old)
        return;
    gw_names_stop(old);
    gw_adoption_begin(gateway);
    gw_generation_unref(old);
}

void gw_gateway_init(struct gw_gateway *gateway, struct gw_loop *loop, struct gw_facts *facts,
                     unsigned worker)
{
    *gateway =
        (struct gw_gateway){.loop = loop, .stats = facts->stats, .facts = facts, .worker = worker};
    gateway->count = &gateway->stats->slot[worker];
    gateway->host = (struct gw_codec_host){
        .loop = loop,
        .limits = &gateway->limits,
        .events = &client_events,
        .pauses = &gateway->count->value[GW_STAT_PIPELINE_PAUSES],
        .spent = &gateway->count->value[GW_STAT_SPENT],
    };
    gw_map_init(&gateway->guests);
    if (worker)
        gw_buf_count_at(&gateway->count->value[GW_STAT_BUFFERED]);
    gw_pool_init(&gateway->pool, loop, gateway->count);
    gw_list_init(&gateway->exchanges);
    gw_list_init(&gateway->fetches);
    gateway->resolver =
        gw_resolver_new(loop, &(struct gw_resolver_options){.servers = getenv("GATEWAYD_DNS")});
    gw_list_init(&gateway->codecs);
    gw_adoption_init(gateway);
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
    gw_fetch_abort_all(gateway, GW_ERR_SHUTDOWN);
    gw_adoption_fini(gateway);
    if (gateway->current)
        gw_generation_unref(gateway->current); /* instances borrow from the pool */
    gw_pool_fini(&gateway->pool);
    gw_resolver_free(gateway->resolver);
    gw_map_fini(&gateway->guests);
    gw_buf_count_at(NULL);
}
