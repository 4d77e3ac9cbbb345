/* Owns the requests that plugins make. Called by script/. Invariant: callbacks of streams and
 * timers store what came; another try runs from the ready list; `changed` is never called from
 * inside of a call of the owner's. Whatever a fetch holds (stream, slot, timer, lookup) is given
 * back in `release`, and nowhere else all of it. */
#include "gateway/fetch.h"

#include <stdlib.h>
#include "http/target.h"

enum { FETCH_MAGIC = 0x66746368, HTTP_PORT = 80, GRACE_MS = 50 };

static void run(struct gw_task_node *task);

static void take_slot_for(struct gw_fetch *f)
{
    f->has_slot = true;
    gw_loop_wake(f->gateway->loop, &f->task, run);
}

/* The next in the queue gets it: who comes later can't come in between. */
static void give_slot(struct gw_fetch *f)
{
    gw_list_remove(&f->queue);
    if (!f->has_slot)
        return;
    f->has_slot = false;
    struct gw_list *next = gw_list_take(&f->host->callers);
    if (next)
        take_slot_for(GW_CONTAINER(next, struct gw_fetch, queue));
    else
        f->host->calls--;
}

/* Streamed ones last for as long as what they stream, and are not counted: each belongs to somebody
 * who is. False: it waits in the queue. */
static bool take_slot(struct gw_fetch *f)
{
    unsigned max = f->gateway->pool.settings->calls_per_host;
    if (f->streamed || f->has_slot)
        return true;
    if (max && f->host->calls >= max) {
        gw_list_push(&f->host->callers, &f->queue);
        return false;
    }
    f->host->calls++;
    f->has_slot = true;
    return true;
}

static void leave_host(struct gw_fetch *f)
{
    give_slot(f);
    gw_pool_let_go(f->host);
    f->host = NULL;
}

static void release(struct gw_fetch *f)
{
    struct gw_stream *stream = f->stream;
    f->stream = NULL;
    if (stream) {
        gw_arena_absorb(&f->arena, &stream->arena); /* the head is still looked at */
        gw_stream_reset(stream, GW_ERR_CANCELLED);
    }
    leave_host(f);
    gw_lookup_cancel(&f->lookup);
    gw_timer_stop(f->gateway->loop, &f->timer);
    gw_loop_unwake(f->gateway->loop, &f->task);
}

static void finish(struct gw_fetch *f, enum gw_err why)
{
    if (f->over)
        return;
    f->over = true;
    f->why = why;
    gw_stat_add(f->gateway->count, GW_STAT_CALLS, -1);
    gw_list_remove(&f->node);
    release(f);
    f->changed(f);
}

static void arm(struct gw_fetch *f)
{
    if (f->timeout_ms && !f->over)
        gw_timer_start(f->gateway->loop, &f->timer, f->timeout_ms);
}

static void on_timer(struct gw_timer *timer)
{
    struct gw_fetch *f = GW_CONTAINER(timer, struct gw_fetch, timer);
    uint64_t late_ms = f->gateway->loop->now_ms - timer->due_ms;
    if (f->streamed && f->response && f->uncredited) {
        arm(f); /* it is the reader who takes his time */
    } else if (late_ms > GRACE_MS && !f->late) {
        f->late = true; /* what has come since must be looked at first */
        gw_timer_start(f->gateway->loop, timer, GRACE_MS);
    } else {
        finish(f, GW_ERR_TOTAL_TIMEOUT);
    }
}

static bool may_ask_again(const struct gw_fetch *f, const struct gw_stream *stream, enum gw_err why)
{
    return !f->response && !f->retried && gw_pool_is_stale(stream->reused, why) &&
           gw_method_is_idempotent(f->request.method);
}

/* Sends what the peer takes of the payload, and the end. */
static void send_payload(struct gw_fetch *f)
{
    while (f->stream && !f->stream->sent && gw_stream_pending(f->stream) < GW_SEND_MARK) {
        struct gw_buf piece;
        size_t left = f->payload.len - f->payload_sent;
        size_t n = left < GW_SEND_MARK ? left : GW_SEND_MARK;
        gw_buf_init(&piece);
        if (n)
            gw_buf_append(&piece, f->payload.ptr + f->payload_sent, n);
        f->payload_sent += n;
        if (gw_stream_send(f->stream, &piece, n == left) != GW_OK) {
            gw_buf_clear(&piece); /* on_close tells why; an answer may still come before */
            return;
        }
    }
}

/* Not before the connection is up: what has waited for that is written without an on_drained. */
static void send_request(struct gw_fetch *f)
{
    f->payload_sent = 0;
    enum gw_err err = gw_stream_send_head(f->stream, &f->request);
    (void)err; /* a failed write is the stream's on_close */
    send_payload(f);
}

static void on_open(struct gw_stream *stream)
{
    send_request(stream->owner);
}

static void on_drained(struct gw_stream *stream)
{
    send_payload(stream->owner);
}

static void on_head(struct gw_stream *stream, struct gw_head *head)
{
    struct gw_fetch *f = stream->owner;
    if (gw_head_informational(head))
        return;
    f->response = head;
    if (f->max_bytes && !f->streamed && head->has_body && head->length > (int64_t)f->max_bytes) {
        finish(f, GW_ERR_BODY_TOO_LARGE);
        return;
    }
    if (f->streamed)
        arm(f);
    f->changed(f);
}

static void on_body(struct gw_stream *stream, struct gw_buf *body, bool end)
{
    struct gw_fetch *f = stream->owner;
    size_t n = gw_buf_len(body);
    gw_stat_add(f->gateway->count, GW_STAT_BYTES_IN, (int64_t)n);
    gw_buf_move(&f->body, body);
    f->ended |= end;
    if (!f->streamed) {
        gw_stream_consumed(stream, n);
        if (f->max_bytes && gw_buf_len(&f->body) > f->max_bytes)
            finish(f, GW_ERR_BODY_TOO_LARGE);
        return;
    }
    f->uncredited += n;
    arm(f);
    if (!end) /* else on_close follows */
        f->changed(f);
}

static void ask_elsewhere(struct gw_fetch *f)
{
    leave_host(f);
    f->addr_at++;
    gw_loop_wake(f->gateway->loop, &f->task, run);
}

static void on_close(struct gw_stream *stream, enum gw_err why)
{
    struct gw_fetch *f = stream->owner;
    gw_arena_absorb(&f->arena, &stream->arena);
    if (f->response)
        f->response->arena = &f->arena;
    f->stream = NULL;
    if (!stream->opened && f->addr_at + 1 < f->addr_count) {
        ask_elsewhere(f);
    } else if (may_ask_again(f, stream, why)) {
        f->retried = true;
        gw_loop_wake(f->gateway->loop, &f->task, run);
    } else {
        finish(f, f->ended ? GW_OK : why == GW_OK ? GW_ERR_TRUNCATED : why);
    }
}

static const struct gw_stream_events stream_events = {
    .on_open = on_open,
    .on_head = on_head,
    .on_body = on_body,
    .on_drained = on_drained,
    .on_close = on_close,
};

/* It can't go on: its owner may be in the middle of starting it, and hears that later. */
static void stick(struct gw_fetch *f, enum gw_err why)
{
    f->stuck = why;
    gw_loop_wake(f->gateway->loop, &f->task, run);
}

static void ask(struct gw_fetch *f)
{
    const struct gw_settings *s = f->gateway->pool.settings;
    struct gw_pool_wish wish = {
        .fresh = f->retried, .dial_ms = s->dial_ms, .tcp_keepalive_s = s->tcp_keepalive_s};
    enum gw_err err = GW_OK;
    if (!f->host)
        f->host = gw_pool_host(&f->gateway->pool, &f->addrs[f->addr_at]);
    if (!take_slot(f))
        return;
    f->stream = gw_pool_borrow(&f->gateway->pool, f->host, &wish, &stream_events, f, &err);
    if (!f->stream)
        stick(f, GW_ERR_OVERLOADED);
    else if (f->stream->opened)
        send_request(f);
}

static void on_resolved(struct gw_lookup *lookup, enum gw_err err, const struct gw_addr *addrs,
                        unsigned count)
{
    struct gw_fetch *f = GW_CONTAINER(lookup, struct gw_fetch, lookup);
    if (err != GW_OK) {
        finish(f, err);
        return;
    }
    for (unsigned i = 0; i < count && i < GW_FETCH_ADDRS; i++) {
        f->addrs[i] = addrs[i];
        f->addrs[i].port = f->port;
        f->addr_count++;
    }
    ask(f);
}

static void resolve(struct gw_fetch *f)
{
    enum gw_err err = gw_resolver_ask(f->gateway->resolver, gw_slice_str(f->name), &f->lookup);
    if (err != GW_OK)
        stick(f, err);
}

static void run(struct gw_task_node *task)
{
    struct gw_fetch *f = GW_CONTAINER(task, struct gw_fetch, task);
    GW_CHECK_MAGIC(f, FETCH_MAGIC);
    if (f->stuck)
        finish(f, f->stuck);
    else
        ask(f);
}

struct gw_fetch *gw_fetch_new(struct gw_gateway *gateway, void (*changed)(struct gw_fetch *fetch),
                              void *owner)
{
    struct gw_fetch *f = calloc(1, sizeof *f);
    GW_CHECK(f != NULL);
    f->magic = FETCH_MAGIC;
    f->gateway = gateway;
    f->changed = changed;
    f->owner = owner;
    f->over = true;
    gw_list_init(&f->node);
    gw_list_init(&f->queue);
    gw_timer_init(&f->timer, on_timer);
    gw_lookup_init(&f->lookup, on_resolved);
    gw_arena_init(&f->arena);
    gw_head_init(&f->request, &f->arena);
    gw_buf_init(&f->body);
    return f;
}

static const char *split_url(struct gw_slice method, struct gw_slice url,
                             struct gw_slice *authority, struct gw_slice *path)
{
    static const struct gw_slice plain = {"http://", 7}, secret = {"https://", 8};
    if (url.len > secret.len && gw_slice_ieq(gw_slice_of(url.ptr, secret.len), secret))
        return "https:// is not there yet";
    if (url.len <= plain.len || !gw_slice_ieq(gw_slice_of(url.ptr, plain.len), plain))
        return "expected http://HOST/PATH";
    if (gw_target_split(method, url, authority, path) != GW_OK)
        return "not a URL that can be asked for (no spaces, fragments or user names)";
    return NULL;
}

const char *gw_fetch_target(struct gw_fetch *f, struct gw_slice method, struct gw_slice url)
{
    struct gw_slice authority, path, host;
    if (!gw_field_name_ok(method) || gw_slice_eq(method, GW_SLICE("CONNECT")))
        return "no such method";
    const char *wrong = split_url(method, url, &authority, &path);
    if (wrong)
        return wrong;
    unsigned port = gw_authority_split(authority, &host);
    f->port = (uint16_t)(port ? port : HTTP_PORT);
    f->name = gw_arena_copy(&f->arena, host).ptr;
    f->request.method = gw_arena_copy(&f->arena, method);
    f->request.scheme = GW_SLICE("http");
    f->request.authority = gw_arena_copy(&f->arena, authority);
    f->request.path = path.ptr[0] == '?'
                          ? gw_arena_printf(&f->arena, "/%.*s", (int)path.len, path.ptr)
                          : gw_arena_copy(&f->arena, path);
    return NULL;
}

void gw_fetch_pin(struct gw_fetch *f, const struct gw_addr *addr)
{
    f->addrs[0] = *addr;
    f->addr_count = 1;
}

void gw_fetch_start(struct gw_fetch *f, const struct gw_fetch_wish *wish)
{
    f->over = false;
    f->streamed = wish->streamed;
    f->timeout_ms = wish->timeout_ms;
    f->max_bytes = wish->max_bytes;
    f->payload = gw_arena_copy(&f->arena, wish->payload);
    f->request.has_body = wish->has_payload;
    f->request.length = (int64_t)wish->payload.len;
    gw_fields_default(&f->request, GW_SLICE("user-agent"), GW_SLICE("gatewayd/" GW_VERSION));
    gw_list_push(&f->gateway->fetches, &f->node);
    gw_stat_add(f->gateway->count, GW_STAT_CALLS, 1);
    arm(f);
    if (!f->addr_count)
        f->addr_count = gw_addr_literal(&f->addrs[0], f->name, f->port);
    if (f->addr_count)
        ask(f);
    else
        resolve(f);
}

void gw_fetch_take(struct gw_fetch *f, struct gw_buf *out)
{
    size_t n = f->uncredited;
    gw_buf_move(out, &f->body);
    f->uncredited = 0;
    if (n && f->stream)
        gw_stream_consumed(f->stream, n);
    if (n)
        arm(f);
}

static void free_fetch(struct gw_grave *grave)
{
    free(GW_CONTAINER(grave, struct gw_fetch, grave));
}

static void ignore(struct gw_fetch *fetch)
{
    (void)fetch;
}

void gw_fetch_free(struct gw_fetch *f)
{
    if (!f)
        return;
    GW_CHECK_MAGIC(f, FETCH_MAGIC);
    f->magic = 0;
    f->changed = ignore;
    finish(f, GW_ERR_CANCELLED);
    gw_buf_clear(&f->body);
    gw_arena_clear(&f->arena);
    gw_loop_bury(f->gateway->loop, &f->grave, free_fetch);
}

unsigned gw_fetch_connected(const struct gw_gateway *gateway)
{
    unsigned n = 0;
    const struct gw_list *end = &gateway->fetches;
    for (const struct gw_list *at = end->next; at != end; at = at->next)
        n += GW_CONTAINER(at, struct gw_fetch, node)->stream != NULL;
    return n;
}

void gw_fetch_abort_all(struct gw_gateway *gateway, enum gw_err why)
{
    while (!gw_list_empty(&gateway->fetches))
        finish(GW_CONTAINER(gateway->fetches.next, struct gw_fetch, node), why);
}
