/* Owns the exchanges: the table of steps is the way of a request, in order. Callbacks of the
 * streams only store what came and wake; gw_exchange_run, from the ready list, does the rest.
 * Invariant: an exchange borrows its streams until their on_close, and gives everything back in
 * `release`. */
#include "gateway/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include "base/slab.h"
#include "gateway/access_log.h"
#include "gateway/adoption.h"
#include "gateway/bounds.h"
#include "gateway/client.h"
#include "gateway/deadline.h"
#include "gateway/first_event.h"
#include "gateway/forward.h"
#include "gateway/kept.h"
#include "gateway/outcome.h"
#include "gateway/own_answer.h"
#include "gateway/relay.h"
#include "gateway/reply.h"
#include "gateway/retry.h"
#include "gateway/tunnel.h"

typedef enum gw_step step_fn(struct gw_exchange *x);

static step_fn step_route, step_access, step_balance, step_connect, step_send, step_head,
    step_retry, step_relay, step_close;

static const struct {
    const char *name;
    step_fn *run;
    unsigned next; /* legal next steps, as bits */
} steps[] = {
    [GW_STEP_ROUTE] = {"route", step_route, 1 << GW_STEP_ACCESS | 1 << GW_STEP_HEAD},
    [GW_STEP_ACCESS] = {"access", step_access, 1 << GW_STEP_BALANCE | 1 << GW_STEP_HEAD},
    [GW_STEP_BALANCE] = {"balance", step_balance,
                         1 << GW_STEP_CONNECT | 1 << GW_STEP_BALANCE | 1 << GW_STEP_RETRY |
                             1 << GW_STEP_HEAD},
    [GW_STEP_CONNECT] = {"connect", step_connect,
                         1 << GW_STEP_SEND | 1 << GW_STEP_BALANCE | 1 << GW_STEP_RETRY |
                             1 << GW_STEP_HEAD},
    [GW_STEP_SEND] = {"send", step_send, 1 << GW_STEP_HEAD | 1 << GW_STEP_CONNECT},
    [GW_STEP_HEAD] = {"head", step_head,
                      1 << GW_STEP_RELAY | 1 << GW_STEP_CONNECT | 1 << GW_STEP_RETRY |
                          1 << GW_STEP_HEAD},
    [GW_STEP_RETRY] = {"retry", step_retry, 1 << GW_STEP_BALANCE | 1 << GW_STEP_HEAD},
    [GW_STEP_RELAY] = {"relay", step_relay, 0},
    [GW_STEP_CLOSE] = {"close", step_close, 0},
};

static struct gw_slab exchanges;

const char *gw_step_name(enum gw_step step)
{
    return step < GW_STEP_LIMIT ? steps[step].name : "wait";
}

static const struct gw_hooks *hooks(const struct gw_exchange *x)
{
    return x->generation->hooks;
}

static void set_step(struct gw_exchange *x, enum gw_step next)
{
    GW_DEBUG_CHECK(next == GW_STEP_CLOSE || (steps[x->step].next & 1u << next));
    struct gw_log_line line;
    char id[GW_ID_TEXT];
    gw_log_begin(&line, GW_LOG_DEBUG, "step");
    if (line.live) {
        gw_log_cstr(&line, "x", gw_exchange_id(x, id));
        gw_log_cstr(&line, "step", steps[next].name);
        gw_log_int(&line, "after_ms", (int64_t)(gw_exchange_age(x) - x->step_ms));
        gw_log_end(&line);
    }
    x->step = (uint8_t)next;
    x->step_ms = gw_exchange_age(x);
}

static void blame(struct gw_exchange *x, enum gw_err why, bool upstream)
{
    if (x->why != GW_OK)
        return;
    x->why = (uint8_t)why;
    x->why_upstream = upstream;
}

static void drop_origin(struct gw_exchange *x)
{
    struct gw_stream *origin = x->origin;
    x->origin = NULL;
    if (origin)
        gw_stream_reset(origin, GW_ERR_CANCELLED);
}

/* The answer is the gateway's own error, or, when a head is out already, a break. */
static enum gw_step refuse(struct gw_exchange *x, enum gw_err why, bool upstream)
{
    blame(x, why, upstream);
    if (x->head_sent || !x->client)
        return GW_STEP_CLOSE;
    gw_reply_error(x, why);
    return GW_STEP_HEAD;
}

/* There is nobody left to ask: an answer that did not go on may do after all, else it is ours. */
static enum gw_step give_up(struct gw_exchange *x, enum gw_err why)
{
    if (!x->client || x->head_sent || !gw_retry_restore(x))
        return refuse(x, why, true);
    x->way->outcome = (uint16_t)x->way->response->status;
    drop_origin(x);
    return GW_STEP_HEAD;
}

static enum gw_step after_hook(struct gw_exchange *x, enum gw_hook_result result, enum gw_step next)
{
    switch (result) {
    case GW_HOOK_NEXT:
        return next;
    case GW_HOOK_WAIT:
        return GW_STEP_WAIT;
    case GW_HOOK_REPLY:
        x->head_seen = true; /* the hooks around the one that replied have seen it */
        return GW_STEP_HEAD;
    case GW_HOOK_FAIL:
        break;
    }
    return refuse(x, GW_ERR_HOOK, false);
}

static enum gw_step step_route(struct gw_exchange *x)
{
    if (gw_own_answer(x))
        return GW_STEP_HEAD;
    return after_hook(x, hooks(x)->route(x), GW_STEP_ACCESS);
}

static enum gw_step step_access(struct gw_exchange *x)
{
    if (!(x->hook_flags & GW_HAS_ACCESS))
        return GW_STEP_BALANCE;
    return after_hook(x, hooks(x)->access(x), GW_STEP_BALANCE);
}

bool gw_exchange_tried(const struct gw_exchange *x, unsigned index)
{
    for (unsigned i = 0; x->way && i < x->way->tried_count; i++) {
        if (x->way->tried[i] == index)
            return true;
    }
    return false;
}

static enum gw_step balance(struct gw_exchange *x, struct gw_instance *before)
{
    enum gw_hook_result result = hooks(x)->balance(x);
    if (result != GW_HOOK_NEXT)
        return after_hook(x, result, GW_STEP_CONNECT);
    if (gw_exchange_tried(x, x->instance->index))
        return gw_retry_anew(x) ? GW_STEP_RETRY : give_up(x, (enum gw_err)x->origin_why);
    enum gw_err full = x->accepts_events ? gw_bounds_take(x) : GW_OK;
    if (full != GW_OK)
        return refuse(x, full, false);
    if (!gw_outcome_begin(x)) {
        gw_exchange_use(x, before); /* somebody else took the last place of the one behind it */
        return GW_STEP_BALANCE;
    }
    gw_retry_begin(x);
    return GW_STEP_CONNECT;
}

/* Until another one is chosen for good, the last one that was tried stays the exchange's. */
static enum gw_step step_balance(struct gw_exchange *x)
{
    struct gw_instance *before = x->instance;
    if (before)
        gw_instance_ref(before);
    enum gw_step next = balance(x, before);
    if (before)
        gw_instance_unref(before);
    return next;
}

static const struct gw_stream_events origin_events;

static enum gw_err borrow(struct gw_exchange *x)
{
    const struct gw_settings *s = &x->generation->settings;
    struct gw_pool_wish wish = {
        .fresh = x->retried_stale || x->way->upgrade.len,
        .dial_ms = x->accepts_events ? s->sse_dial_ms : s->dial_ms,
        .tcp_keepalive_s = x->accepts_events ? s->sse_tcp_keepalive_s : s->tcp_keepalive_s,
    };
    enum gw_err err = GW_OK;
    x->origin_closed = false;
    x->origin_why = GW_OK;
    x->origin =
        gw_pool_borrow(&x->gateway->pool, x->instance->host, &wish, &origin_events, x, &err);
    return x->origin ? GW_OK : err;
}

/* Nothing of the request was sent, so another instance may take it whatever its method. */
static enum gw_step step_connect(struct gw_exchange *x)
{
    if (!x->origin && !x->origin_closed) {
        enum gw_err err = borrow(x);
        if (err != GW_OK)
            return refuse(x, GW_ERR_OVERLOADED, false);
    }
    if (x->origin)
        return x->origin->opened ? GW_STEP_SEND : GW_STEP_WAIT;
    gw_outcome_failed(x, (enum gw_err)x->origin_why);
    x->origin_closed = false;
    if (gw_retry_elsewhere(x))
        return GW_STEP_BALANCE;
    return gw_retry_anew(x) ? GW_STEP_RETRY : give_up(x, (enum gw_err)x->origin_why);
}

static enum gw_step step_send(struct gw_exchange *x)
{
    struct gw_arena arena;
    struct gw_head head;
    gw_arena_init(&arena);
    gw_head_init(&head, &arena);
    gw_forward_request(x, &head);
    x->way->sent_ms = gw_exchange_age(x);
    x->way->asked = true;
    enum gw_err err = x->origin ? gw_stream_send_head(x->origin, &head) : GW_OK;
    gw_arena_clear(&arena);
    (void)err; /* a failed write is the stream's on_close, which STEP_HEAD deals with */
    if (gw_forward_continue(x) != GW_OK)
        return refuse(x, GW_ERR_CLIENT_GONE, false);
    return GW_STEP_HEAD;
}

static bool may_try_fresh(const struct gw_exchange *x)
{
    return !x->retried_stale && !x->way->request->has_body &&
           gw_pool_is_stale(x->origin_reused, (enum gw_err)x->origin_why) &&
           gw_method_is_safe(x->way->request->method);
}

static enum gw_step origin_without_answer(struct gw_exchange *x)
{
    if (may_try_fresh(x)) {
        x->retried_stale = true;
        x->origin_closed = false;
        x->upload_sent = false;
        return GW_STEP_CONNECT;
    }
    enum gw_err why = x->origin_why == GW_OK ? GW_ERR_BAD_RESPONSE : (enum gw_err)x->origin_why;
    if (!gw_pool_is_stale(x->origin_reused, why)) /* else it tells nothing of the instance */
        gw_outcome_failed(x, why);
    return gw_retry_after(x, why) ? GW_STEP_RETRY : give_up(x, why);
}

/* The response is here. GW_STEP_RELAY: it is for the client. */
static enum gw_step judge_answer(struct gw_exchange *x)
{
    if (!x->way->retry || x->way->retry->over)
        return GW_STEP_RELAY;
    if (gw_retry_instead(x))
        return GW_STEP_RETRY;
    enum gw_err why = gw_first_event(x);
    if (why == GW_OK) {
        gw_retry_end(x->way->retry);
        return GW_STEP_RELAY;
    }
    if (why == GW_AGAIN) {
        gw_exchange_arm(x);
        return GW_STEP_WAIT;
    }
    gw_outcome_failed(x, why);
    drop_origin(x);
    gw_first_event_drop(x);
    return gw_retry_after(x, why) ? GW_STEP_RETRY : give_up(x, why);
}

/* Puts a reply of our own in the place of what the backend sends or would have sent. */
static void take_reply(struct gw_exchange *x)
{
    drop_origin(x);
    gw_retry_end(x->way->retry);
    x->origin_closed = false;
    gw_buf_clear(&x->body);
    x->uncredited = 0;
    struct gw_reply *reply = x->way->reply;
    x->way->response = &reply->head;
    reply->set = false;
    gw_buf_move(&x->body, &reply->body);
    x->body_end = true;
}

static void settle(struct gw_exchange *x)
{
    gw_kept_drop_way(x);
    gw_arena_clear(&x->client->arena);
    if (x->origin)
        gw_arena_clear(&x->origin->arena);
    if (x->origin)
        gw_stream_warm(x->origin, x->client, x, sizeof *x);
    hooks(x)->settle(x);
}

/* A stream needs its places, also where nobody could tell before that it would be one. */
static enum gw_err bound(struct gw_exchange *x)
{
    return x->way->bounds && gw_relay_is_stream(x) ? gw_bounds_take(x) : GW_OK;
}

static enum gw_step send_response_head(struct gw_exchange *x)
{
    enum gw_err err = gw_tunnel_check(x);
    if (err != GW_OK)
        return refuse(x, err, err != GW_ERR_HOOK);
    err = bound(x);
    if (err != GW_OK)
        return refuse(x, err, false);
    bool tunnel = x->way->response->status == 101;
    if (tunnel)
        gw_bounds_give(x); /* it would have been a stream */
    if (tunnel || gw_relay_is_stream(x))
        gw_kept_pack(x);
    gw_forward_response(x);
    struct gw_head *head = x->way->response;
    if (!head->has_body && !tunnel)
        gw_buf_clear(&x->body);
    x->status = (uint16_t)head->status;
    x->head_ms = gw_exchange_age(x);
    x->head_sent = true;
    if (gw_stream_send_head(x->client, head) != GW_OK)
        return refuse(x, GW_ERR_CLIENT_GONE, false);
    if (tunnel)
        gw_tunnel_start(x);
    else
        gw_relay_start(x);
    gw_outcome_settle(x);
    if (x->relay.mode != GW_BODY_PLAIN) {
        settle(x);
    } else {
        gw_outcome_leave(x);
        gw_bounds_give(x);
    }
    return GW_STEP_RELAY;
}

static enum gw_step step_head(struct gw_exchange *x)
{
    gw_relay_upload(x);
    if (x->way->reply && x->way->reply->set)
        take_reply(x);
    if (!x->way->response && x->origin_closed)
        return origin_without_answer(x);
    if (!x->way->response) {
        gw_exchange_arm(x);
        return GW_STEP_WAIT;
    }
    enum gw_step next = judge_answer(x);
    if (next != GW_STEP_RELAY)
        return next;
    enum gw_err full = bound(x);
    if (full != GW_OK)
        return refuse(x, full, false);
    if (!x->head_seen && (x->hook_flags & GW_HAS_RESPONSE)) {
        enum gw_hook_result result = hooks(x)->response(x);
        if (result == GW_HOOK_WAIT)
            return GW_STEP_WAIT;
        x->head_seen = result != GW_HOOK_FAIL; /* the hooks around see the error as an answer */
        if (result != GW_HOOK_NEXT)
            return after_hook(x, result, GW_STEP_HEAD);
    }
    return send_response_head(x);
}

/* Meanwhile the answer that is not to go on is read: whole, it is better than none. Where one idle
 * connection was stale, others may be. */
static enum gw_step step_retry(struct gw_exchange *x)
{
    if (x->way->reply && x->way->reply->set)
        return GW_STEP_HEAD;
    gw_outcome_leave(x);
    if (!gw_retry_rested(x)) {
        gw_exchange_arm(x);
        return GW_STEP_WAIT;
    }
    gw_retry_leave(x);
    drop_origin(x);
    x->retried_stale |=
        x->origin_closed && gw_pool_is_stale(x->origin_reused, (enum gw_err)x->origin_why);
    x->origin_closed = false;
    return GW_STEP_BALANCE;
}

static enum gw_step step_relay(struct gw_exchange *x)
{
    bool tunnel = x->relay.mode == GW_BODY_TUNNEL;
    if (!tunnel)
        gw_relay_upload(x);
    if (x->generation != x->gateway->current)
        gw_adoption_try(x);
    enum gw_err err = tunnel ? gw_tunnel_run(x) : gw_relay_run(x);
    if (err == GW_AGAIN) {
        if (x->generation != x->gateway->current)
            gw_adoption_try(x); /* a hook that was busy when the version came may be done */
        gw_exchange_arm(x);
        return GW_STEP_WAIT;
    }
    if (err != GW_OK)
        blame(x, err, x->why_upstream);
    else if (x->relay.aged && !x->body_end)
        blame(x, GW_ERR_MAX_AGE, false);
    return GW_STEP_CLOSE;
}

static void release_exchange(struct gw_grave *grave)
{
    gw_slab_free(&exchanges, GW_CONTAINER(grave, struct gw_exchange, grave));
}

/* A client that was answered in full may still be sending: its codec deals with the rest. In a
 * tunnel the whole is both ways. */
static void leave_client(struct gw_exchange *x)
{
    if (!x->client)
        return;
    if (x->response_sent && (x->relay.mode != GW_BODY_TUNNEL || x->why == GW_OK))
        gw_stream_detach(x->client);
    else
        gw_stream_reset(x->client, (enum gw_err)x->why);
    x->client = NULL;
}

static enum gw_step step_close(struct gw_exchange *x)
{
    struct gw_gateway *gateway = x->gateway;
    if (x->kept) /* else the response's head is the backend's stream's */
        drop_origin(x);
    if ((x->hook_flags & GW_HAS_CLOSE) && !hooks(x)->close(x, gw_exchange_reason(x)))
        return GW_STEP_WAIT;
    x->over = true;
    gw_access_log(x);
    hooks(x)->release(x);
    if (x->relay.mode != GW_BODY_PLAIN)
        gw_stat_add(gateway->count,
                    x->relay.mode == GW_BODY_TUNNEL ? GW_STAT_TUNNELS : GW_STAT_STREAMS, -1);
    gw_bounds_give(x);
    gw_stat_add(gateway->count, GW_STAT_EXCHANGES, -1);
    gw_outcome_cancel(x);
    drop_origin(x);
    leave_client(x);
    gw_timer_stop(gateway->loop, &x->timer);
    gw_loop_unwake(gateway->loop, &x->task);
    gw_buf_clear(&x->upload);
    gw_buf_clear(&x->body);
    gw_buf_clear(&x->relay.inserts);
    gw_kept_drop_way(x);
    free(x->kept);
    gw_client_leave(x);
    if (gateway->adoption_at == &x->node)
        gateway->adoption_at = x->node.next;
    gw_list_remove(&x->node);
    gw_exchange_use(x, NULL);
    gw_generation_unref(x->generation);
    gw_loop_bury(gateway->loop, &x->grave, release_exchange);
    return GW_STEP_WAIT;
}

/* A backend that has said nothing in time is not the only one. */
static bool outlive(struct gw_exchange *x)
{
    if (x->step != GW_STEP_HEAD || !x->client || x->why == GW_ERR_TOTAL_TIMEOUT ||
        !gw_retry_after(x, (enum gw_err)x->why))
        return false;
    drop_origin(x);
    gw_first_event_drop(x);
    x->why = GW_OK;
    x->why_upstream = false;
    x->step = GW_STEP_RETRY;
    return true;
}

/* It is connected to, or asked, and says nothing, or its stream has no event: a client that does
 * not send its request is not its fault. */
static bool is_backends_turn(const struct gw_exchange *x)
{
    if (!x->origin || x->head_sent)
        return false;
    return x->way->response ? gw_first_event_due(x) != 0
                            : !x->origin->opened || gw_deadline_asked_since(x);
}

/* What came up outside a step: the client is gone, a deadline has passed, the gateway stops. */
static void interrupt(struct gw_exchange *x)
{
    if (!x->failed || x->step == GW_STEP_CLOSE)
        return;
    x->failed = false;
    if (x->why_upstream && is_backends_turn(x))
        gw_outcome_failed(x, (enum gw_err)x->why);
    if (x->why_upstream && outlive(x))
        return;
    gw_first_event_end(x);
    enum gw_step next =
        x->why_upstream ? give_up(x, (enum gw_err)x->why) : refuse(x, (enum gw_err)x->why, false);
    x->head_seen |= x->step == GW_STEP_HEAD && hooks(x)->waiting(x);
    hooks(x)->cancel(x);
    x->step = (uint8_t)next;
}

void gw_exchange_run(struct gw_exchange *x)
{
    GW_CHECK_MAGIC(x, GW_EXCHANGE_MAGIC);
    while (!x->over) {
        interrupt(x);
        enum gw_step next = steps[x->step].run(x);
        if (next == GW_STEP_WAIT)
            return;
        set_step(x, next);
        gw_exchange_arm(x);
    }
}

static void run_task(struct gw_task_node *task)
{
    gw_exchange_run(GW_CONTAINER(task, struct gw_exchange, task));
}

void gw_exchange_wake(struct gw_exchange *x)
{
    if (!x->over)
        gw_loop_wake(x->gateway->loop, &x->task, run_task);
}

void gw_exchange_fail(struct gw_exchange *x, enum gw_err why, bool upstream)
{
    if (x->step == GW_STEP_CLOSE)
        return;
    blame(x, why, upstream);
    x->failed = true;
    gw_exchange_wake(x);
}

const char *gw_exchange_reason(const struct gw_exchange *x)
{
    static char text[64];
    const char *slug = gw_err_slug((enum gw_err)x->why);
    if (!x->why_upstream || x->why == GW_OK)
        return slug;
    snprintf(text, sizeof text, "upstream_%s", slug);
    return text;
}

/* The stream is freed behind this call, but the head is needed until the log is written. */
static void keep_head(struct gw_exchange *x, struct gw_stream *stream, struct gw_head *head)
{
    struct gw_arena *arena = &gw_exchange_way(x)->arena;
    gw_arena_absorb(arena, &stream->arena);
    if (head && head->arena == &stream->arena)
        head->arena = arena;
}

static bool accepts_events(const struct gw_head *head)
{
    struct gw_slice accept = gw_fields_get(head, GW_SLICE("accept"));
    return memmem(accept.ptr ? accept.ptr : "", accept.len, "text/event-stream", 17) != NULL;
}

static void client_on_head(struct gw_stream *stream, struct gw_head *head)
{
    struct gw_exchange *x = stream->owner;
    x->way->request = head;
    gw_client_arrive(x);
    x->accepts_events = accepts_events(head);
    x->head_only = gw_slice_eq(head->method, GW_SLICE("HEAD"));
    gw_forward_id(x);
    gw_exchange_wake(x);
}

static void client_on_body(struct gw_stream *stream, struct gw_buf *body, bool end)
{
    struct gw_exchange *x = stream->owner;
    x->upload_uncredited += (uint32_t)gw_buf_len(body);
    gw_buf_move(&x->upload, body);
    x->upload_end |= end;
    gw_exchange_wake(x);
}

static void on_drained(struct gw_stream *stream)
{
    gw_exchange_wake(stream->owner);
}

static void client_on_close(struct gw_stream *stream, enum gw_err why)
{
    struct gw_exchange *x = stream->owner;
    gw_client_gone(x, &stream->arena);
    keep_head(x, stream, gw_exchange_way(x)->request);
    x->client = NULL;
    if (why == GW_OK) {
        gw_exchange_wake(x);
        return;
    }
    bool left = why == GW_EOF || why == GW_ERR_RESET || why == GW_ERR_IO;
    gw_exchange_fail(x, left ? GW_ERR_CLIENT_GONE : why, false);
}

static void origin_on_open(struct gw_stream *stream)
{
    gw_exchange_wake(stream->owner);
}

/* 100 is ours to give; other interim answers go on to clients that know them. */
static void pass_interim(struct gw_exchange *x, struct gw_head *head)
{
    if (!x->client || x->head_sent || head->status == 100 || x->way->request->minor == 0)
        return;
    if (gw_stream_send_head(x->client, head) != GW_OK)
        gw_exchange_fail(x, GW_ERR_CLIENT_GONE, false);
}

/* The loop's clock counts milliseconds; what is less is not nothing, which would mean unknown. */
static void note_answer(struct gw_exchange *x)
{
    uint64_t took_ms = gw_exchange_age(x) - x->way->sent_ms;
    gw_facts_answered(x->gateway->facts, x->instance->fact, took_ms ? took_ms * 1000 : 500,
                      x->gateway->loop->now_ms);
}

static void origin_on_head(struct gw_stream *stream, struct gw_head *head)
{
    struct gw_exchange *x = stream->owner;
    if (gw_head_informational(head) && !stream->tunnel) {
        pass_interim(x, head);
        return;
    }
    if (stream->tunnel && !gw_tunnel_matches(x, head)) {
        drop_origin(x);
        x->origin_closed = true;
        x->origin_why = GW_ERR_BAD_RESPONSE;
        gw_exchange_wake(x);
        return;
    }
    x->way->response = head;
    note_answer(x);
    if (!gw_first_event_awaited(x))
        gw_outcome_answered(x, head->status);
    gw_exchange_wake(x);
}

static void origin_on_body(struct gw_stream *stream, struct gw_buf *body, bool end)
{
    struct gw_exchange *x = stream->owner;
    __builtin_prefetch(x->client);
    x->uncredited += (uint32_t)gw_buf_len(body);
    x->relay.upstream_ms = (uint32_t)x->gateway->loop->now_ms;
    gw_stat_add(x->gateway->count, GW_STAT_BYTES_IN, (int64_t)gw_buf_len(body));
    gw_buf_move(&x->body, body);
    x->body_end |= end;
    gw_exchange_wake(x);
}

static void origin_on_close(struct gw_stream *stream, enum gw_err why)
{
    struct gw_exchange *x = stream->owner;
    keep_head(x, stream, gw_exchange_way(x)->response);
    x->origin = NULL;
    x->origin_closed = true;
    x->origin_reused = stream->reused;
    x->origin_why = (uint8_t)why;
    gw_exchange_wake(x);
}

static const struct gw_stream_events client_events = {
    .on_head = client_on_head,
    .on_body = client_on_body,
    .on_drained = on_drained,
    .on_close = client_on_close,
};

static const struct gw_stream_events origin_events = {
    .on_open = origin_on_open,
    .on_head = origin_on_head,
    .on_body = origin_on_body,
    .on_drained = on_drained,
    .on_close = origin_on_close,
};

static void count_on_instance(const struct gw_exchange *x, int n)
{
    if (!x->instance)
        return;
    gw_instance_add(x->instance, GW_LOAD_REQUESTS, n);
    if (x->relay.mode != GW_BODY_PLAIN)
        gw_instance_add(x->instance, GW_LOAD_STREAMS, n);
}

void gw_exchange_use(struct gw_exchange *x, struct gw_instance *instance)
{
    if (instance)
        gw_instance_ref(instance);
    gw_outcome_leave(x);
    count_on_instance(x, -1);
    if (x->instance)
        gw_instance_unref(x->instance);
    x->instance = instance;
    count_on_instance(x, 1);
}

struct gw_exchange *gw_exchange_new(struct gw_gateway *gateway, struct gw_stream *client)
{
    if (!exchanges.size)
        gw_slab_init(&exchanges, sizeof(struct gw_exchange));
    struct gw_exchange *x = gw_slab_alloc(&exchanges);
    x->magic = GW_EXCHANGE_MAGIC;
    x->gateway = gateway;
    x->generation = gw_generation_ref(gateway->current);
    x->client = client;
    x->peer = &gw_stream_conn(client)->peer;
    x->rule = "";
    x->start_ms = gateway->loop->now_ms;
    gw_exchange_way(x)->id = "";
    gw_buf_init(&x->upload);
    gw_buf_init(&x->body);
    gw_deadline_init(x);
    gw_list_push(&gateway->exchanges, &x->node);
    client->events = &client_events;
    client->owner = x;
    gw_stat_add(gateway->count, GW_STAT_EXCHANGES, 1);
    gw_stat_add(gateway->count, GW_STAT_REQUESTS, 1);
    return x;
}
