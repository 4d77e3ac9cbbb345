/* Owns nothing: works on the buffers of an exchange. Called by the steps SEND, HEAD and RELAY, and
 * by adoption. Invariant: bytes leave `body` in the order they came, and a comment of the gateway's
 * own, or an event of a script's, goes in only where the scanner stands between two events. */
#include "gateway/relay.h"

#include "gateway/bounds.h"
#include "gateway/clocks.h"
#include "gateway/forward.h"
#include "gateway/retry.h"
#include "sse/event.h"

static const char keepalive_comment[] = ":keepalive\n\n";
static const char bom[] = "\xef\xbb\xbf";

static void credit_upload(struct gw_exchange *x)
{
    size_t n = x->upload_uncredited;
    x->upload_uncredited = 0;
    if (n && x->client)
        gw_stream_consumed(x->client, n);
}

enum gw_err gw_relay_hold_upload(struct gw_exchange *x)
{
    size_t max = x->generation->settings.max_buffered_body;
    if (x->upload_begun)
        return GW_ERR_CLOSED;
    if (max && (gw_buf_len(&x->upload) > max || gw_exchange_request(x)->length > (int64_t)max))
        return GW_ERR_BODY_TOO_LARGE;
    if (x->upload_end)
        return GW_OK;
    if (gw_buf_len(&x->upload) >= GW_SEND_MARK && gw_bounds_short(x->gateway))
        return GW_ERR_BODY_TOO_LARGE;
    credit_upload(x);
    return gw_forward_continue(x) == GW_OK ? GW_AGAIN : GW_ERR_CLIENT_GONE;
}

void gw_relay_upload(struct gw_exchange *x)
{
    if (!x->origin || !x->origin->head_sent || x->upload_sent)
        return;
    if (gw_buf_empty(&x->upload) && !x->upload_end)
        return;
    if (gw_stream_pending(x->origin) >= GW_SEND_MARK)
        return;
    x->upload_begun = true;
    x->upload_sent = x->upload_end;
    if (x->way)
        x->way->sent_ms = gw_exchange_age(x);
    if (x->way && x->way->retry)
        gw_retry_keep(x);
    /* A backend that stops reading may still answer: its answer or its end decides, not this. */
    if (gw_stream_send(x->origin, &x->upload, x->upload_end) != GW_OK)
        gw_buf_clear(&x->upload);
    credit_upload(x);
}

bool gw_relay_is_stream(struct gw_exchange *x)
{
    const struct gw_head *head = gw_exchange_response(x);
    if (!head || head->status != 200 || !head->has_body || !x->generation->settings.sse_enabled)
        return false;
    if (!gw_slice_ieq(gw_fields_media_type(head), GW_SLICE("text/event-stream")))
        return false;
    struct gw_slice coding = gw_fields_get(head, GW_SLICE("content-encoding"));
    return coding.len == 0 || gw_slice_ieq(coding, GW_SLICE("identity"));
}

/* Bytes that the client has not taken at which its backend is paused. */
static size_t send_mark(const struct gw_exchange *x)
{
    size_t mark = x->generation->settings.sse_max_buffered;
    return x->relay.mode == GW_BODY_PLAIN || !mark ? GW_SEND_MARK : mark;
}

static enum gw_body_mode stream_mode(const struct gw_exchange *x)
{
    return x->hook_flags & GW_HAS_EVENT ? GW_BODY_SSE_EVENTS : GW_BODY_SSE_BYTES;
}

void gw_relay_start(struct gw_exchange *x)
{
    struct gw_relay *r = &x->relay;
    uint32_t now = (uint32_t)x->gateway->loop->now_ms;
    gw_sse_scan_init(&r->scan);
    r->mode = r->wanted = gw_relay_is_stream(x) ? stream_mode(x) : GW_BODY_PLAIN;
    r->keepalive_ms = r->upstream_ms = r->client_ms = now;
    if (r->mode != GW_BODY_PLAIN) {
        gw_stat_add(x->gateway->count, GW_STAT_STREAMS, 1);
        gw_bounds_open(x);
        if (x->instance)
            gw_instance_add(x->instance, GW_LOAD_STREAMS, 1);
        gw_stat_add(x->gateway->count, GW_STAT_STREAMS_OPENED, 1);
    }
}

void gw_relay_remode(struct gw_exchange *x)
{
    if (gw_body_is_stream(x->relay.mode))
        x->relay.wanted = stream_mode(x);
}

bool gw_relay_between_events(const struct gw_exchange *x)
{
    return x->relay.pending_event == 0;
}

uint64_t gw_relay_keepalive_due(const struct gw_exchange *x)
{
    const struct gw_relay *r = &x->relay;
    const struct gw_settings *s = &x->generation->settings;
    if (!gw_body_is_stream(r->mode) || r->keepalive_due || !s->sse_keepalive_ms)
        return 0;
    const struct gw_loop *loop = x->gateway->loop;
    uint64_t since = gw_loop_time(loop, r->keepalive_ms), client = gw_loop_time(loop, r->client_ms);
    if (s->sse_keepalive_mode == GW_KEEPALIVE_IDLE && client > since)
        since = client;
    return since + s->sse_keepalive_ms;
}

/* Tells the backend that what it sent has gone on. Its silence counts from here: before, it may
 * have had something to say and not been heard. */
void gw_relay_credit(struct gw_exchange *x)
{
    size_t n = x->uncredited;
    x->uncredited = 0;
    if (n == 0)
        return;
    x->relay.upstream_ms = (uint32_t)x->gateway->loop->now_ms;
    if (x->origin)
        gw_stream_consumed(x->origin, n);
}

static enum gw_err send_out(struct gw_exchange *x, struct gw_buf *out, bool end)
{
    if (gw_buf_empty(out) && !end)
        return GW_OK;
    x->bytes_out += gw_buf_len(out);
    gw_stat_add(x->gateway->count, GW_STAT_BYTES_OUT, (int64_t)gw_buf_len(out));
    x->relay.client_ms = (uint32_t)x->gateway->loop->now_ms;
    x->response_sent = end;
    enum gw_err err = gw_stream_send(x->client, out, end);
    if (err == GW_OK)
        return GW_OK;
    gw_buf_clear(out);
    x->why_upstream = false;
    return err == GW_ERR_PEER_TIMEOUT ? err : GW_ERR_CLIENT_GONE;
}

static void put_keepalive(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    gw_buf_append(out, keepalive_comment, sizeof(keepalive_comment) - 1);
    r->keepalive_due = false;
    r->keepalive_ms = (uint32_t)x->gateway->loop->now_ms;
    r->commented |= !r->started;
    gw_stat_add(x->gateway->count, GW_STAT_KEEPALIVES, 1);
}

const char *gw_relay_refuses(const struct gw_exchange *x)
{
    if (x->step == GW_STEP_CLOSE || x->failed || x->response_sent || !x->client)
        return "the stream has ended";
    if (!x->head_sent)
        return "the response has not begun";
    if (!gw_body_is_stream(x->relay.mode))
        return "the response is no event stream, or has a Content-Encoding";
    return NULL;
}

bool gw_relay_has_room(const struct gw_exchange *x)
{
    return gw_stream_pending(x->client) + gw_buf_len(&x->relay.inserts) < send_mark(x);
}

void gw_relay_insert(struct gw_exchange *x, struct gw_slice events)
{
    gw_buf_add(&x->relay.inserts, events);
    gw_exchange_wake(x);
}

void gw_relay_take_inserts(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    if (gw_buf_empty(&r->inserts))
        return;
    r->commented |= !r->started;
    gw_buf_move(out, &r->inserts);
}

/* Something of ours is to go in between two events of the backend's. */
static bool has_more(const struct gw_relay *r)
{
    return r->keepalive_due || !gw_buf_empty(&r->inserts);
}

/* The stream stands between two events. */
static void put_between(struct gw_exchange *x, struct gw_buf *out)
{
    gw_relay_take_inserts(x, out);
    if (x->relay.keepalive_due)
        put_keepalive(x, out);
}

static void offer_room(struct gw_exchange *x)
{
    if (!x->relay.room_awaited || !gw_relay_has_room(x))
        return;
    x->relay.room_awaited = false;
    x->generation->hooks->room(x);
}

/* A BOM counts only as the very first bytes of a stream: behind a comment of ours it would become
 * part of a field name, so it is left out there. False: too few bytes to tell. */
static bool begin_stream(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    char first[3];
    size_t n = gw_buf_copy_out(&x->body, 0, first, sizeof first);
    if (n == 0)
        return false;
    bool mark = memcmp(first, bom, n) == 0;
    if (mark && n < sizeof first && !x->body_end && !x->origin_closed)
        return false;
    r->started = true;
    if (!mark || n < sizeof first)
        return true;
    if (!r->commented)
        gw_buf_append(out, bom, sizeof first);
    gw_buf_consume(&x->body, sizeof first);
    gw_sse_scan_run(&r->scan, bom, sizeof first); /* a second one would be text */
    return true;
}

/* Offset behind the last event that ends in body, scanning all of it. */
static size_t scan_body(struct gw_exchange *x)
{
    size_t base = 0, last = 0;
    for (struct gw_chunk *c = x->body.head; c; c = c->next) {
        size_t len = c->end - c->start;
        size_t at = gw_sse_scan_last(&x->relay.scan, c->data + c->start, len);
        if (at)
            last = base + at;
        base += len;
    }
    return last;
}

/* Finds the end of the event that begins at the front of body, going on behind `scanned`. */
static bool scan_event(struct gw_exchange *x)
{
    return gw_sse_scan_buf(&x->relay.scan, &x->body, &x->relay.scanned);
}

/* Byte mode gives way to event mode at the end of the event that is under way. */
static void bytes_to_events(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    if (!gw_sse_scan_at_boundary(&r->scan)) {
        r->scanned = 0;
        bool ended = scan_event(x);
        gw_buf_move_n(out, &x->body, r->scanned);
        r->scanned = 0;
        if (!ended)
            return;
    }
    r->mode = GW_BODY_SSE_EVENTS;
}

static void events_to_bytes(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    gw_buf_move_n(out, &x->body, r->scanned);
    r->scanned = 0;
    r->mode = GW_BODY_SSE_BYTES;
}

static enum gw_err relay_plain(struct gw_exchange *x, struct gw_buf *out)
{
    gw_buf_move(out, &x->body);
    return GW_AGAIN;
}

/* Whether an event begins in body; byte by byte, as comments are all that has come so far. */
static bool begins_event(const struct gw_exchange *x)
{
    struct gw_sse_scan scan = x->relay.scan;
    for (struct gw_chunk *c = x->body.head; c; c = c->next) {
        for (size_t at = c->start; at < c->end && !gw_sse_scan_in_event(&scan); at++)
            gw_sse_scan_run(&scan, c->data + at, 1);
    }
    return gw_sse_scan_in_event(&scan);
}

static enum gw_err relay_bytes(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    if (r->started || begin_stream(x, out)) {
        if (!r->spoken) /* where nobody waits for it now, nobody may later, in another version */
            r->spoken = !gw_clock_ms(x, GW_CLOCK_FIRST_EVENT) || begins_event(x);
        size_t last = scan_body(x);
        bool more = has_more(r) || r->retiring;
        if (more && last && !gw_sse_scan_at_boundary(&r->scan)) {
            gw_buf_move_n(out, &x->body, last);
            put_between(x, out);
            if (r->retiring)
                return GW_EOF;
        }
        gw_buf_move(out, &x->body);
    }
    return GW_AGAIN;
}

/* The verdict on the event of n bytes at the front of body is carried out. */
static enum gw_err settle(struct gw_exchange *x, enum gw_event_verdict verdict, size_t n,
                          struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    r->pending_event = verdict == GW_EVENT_PENDING ? n : 0;
    if (verdict == GW_EVENT_PENDING)
        return GW_AGAIN;
    r->scanned = 0;
    if (verdict == GW_EVENT_FAIL)
        return GW_ERR_HOOK;
    if (verdict == GW_EVENT_PASS) {
        gw_buf_move_n(out, &x->body, n);
        return GW_OK;
    }
    if (verdict != GW_EVENT_CHANGED)
        gw_stat_add(x->gateway->count, GW_STAT_EVENTS_DROPPED, 1);
    gw_buf_consume(&x->body, n);
    return verdict == GW_EVENT_END ? GW_EOF : GW_OK;
}

/* Whether a hook wants to see this block, which has no fields: blank lines, or comments. */
static bool is_asked_for(const struct gw_exchange *x, struct gw_slice raw)
{
    return x->hook_flags & GW_HAS_COMMENTS && memchr(raw.ptr, ':', raw.len);
}

static void count_events(struct gw_exchange *x, int count)
{
    x->relay.events += (uint64_t)(int64_t)count;
    gw_stat_add(x->gateway->count, GW_STAT_EVENTS, count);
}

/* Whoever thought about what is pending is gone, and it may have been several events: the length of
 * the first of them. The others come anew, and are counted then. */
static uint32_t first_pending(struct gw_exchange *x)
{
    struct gw_slice rest = gw_buf_linear(&x->body, x->relay.pending_event);
    struct gw_sse_scan scan;
    bool ended;
    gw_sse_scan_init(&scan);
    size_t first = gw_sse_scan_next(&scan, rest.ptr, rest.len, &ended);
    for (size_t len = first; len < rest.len;) {
        rest = gw_slice_of(rest.ptr + len, rest.len - len);
        len = gw_sse_scan_next(&scan, rest.ptr, rest.len, &ended);
        count_events(x, -1);
    }
    return (uint32_t)first;
}

/* One event: GW_OK = done, go on; GW_AGAIN = its end is not here, or a hook thinks; GW_EOF = the
 * hooks want the stream to end. */
static enum gw_err relay_event(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    if (r->pending_event == 0) {
        char first;
        if (r->scanned == 0 && gw_buf_copy_out(&x->body, 0, &first, 1) &&
            gw_sse_scan_skip_lf(&r->scan, &first, 1))
            gw_buf_move_n(out, &x->body, 1);
        bool ended = scan_event(x);
        if (r->scanned > x->generation->settings.max_event_bytes &&
            x->generation->settings.max_event_bytes)
            return GW_ERR_EVENT_TOO_LARGE;
        if (!ended)
            return GW_AGAIN;
        struct gw_slice block = gw_buf_linear(&x->body, r->scanned);
        if (gw_event_has_fields(block)) {
            count_events(x, 1);
        } else if (!is_asked_for(x, block)) {
            return settle(x, GW_EVENT_PASS, r->scanned, out);
        }
    }
    if (r->pending_event && !x->generation->hooks->waiting(x))
        r->pending_event = first_pending(x);
    struct gw_slice raw = gw_buf_linear(&x->body, r->pending_event ? r->pending_event : r->scanned);
    return settle(x, x->generation->hooks->event(x, raw, out), raw.len, out);
}

/* The whole events at the front of the first chunk, as many as a turn has left; the first one that
 * is not for a batch (a comment, one too large, one without an end) ends it. */
static unsigned cut_batch(struct gw_exchange *x, struct gw_slice raws[GW_TURN_EVENTS], unsigned max)
{
    struct gw_relay *r = &x->relay;
    struct gw_slice rest = gw_buf_peek(&x->body);
    size_t max_bytes = x->generation->settings.max_event_bytes;
    unsigned n = 0;
    while (n < max && rest.len) {
        struct gw_sse_scan before = r->scan;
        bool ended;
        size_t len = gw_sse_scan_next(&r->scan, rest.ptr, rest.len, &ended);
        struct gw_slice raw = gw_slice_of(rest.ptr, len);
        if (!ended || (max_bytes && len > max_bytes) || !gw_event_has_fields(raw)) {
            r->scan = before;
            break;
        }
        raws[n++] = raw;
        rest = gw_slice_of(rest.ptr + len, rest.len - len);
    }
    return n;
}

/* As relay_event, for the events that are there: *n becomes how many of a turn's there were. False:
 * what is at the front is not for a batch. (An LF may belong to the event before.) */
static bool relay_batch(struct gw_exchange *x, struct gw_buf *out, unsigned *n, enum gw_err *err)
{
    struct gw_relay *r = &x->relay;
    struct gw_slice raws[GW_TURN_EVENTS];
    if (r->pending_event || r->scanned || *gw_buf_peek(&x->body).ptr == '\n')
        return false;
    unsigned count = cut_batch(x, raws, GW_TURN_EVENTS - *n);
    if (count == 0)
        return false;
    *n += count - 1;
    count_events(x, (int)count);
    size_t len = (size_t)(raws[count - 1].ptr + raws[count - 1].len - raws[0].ptr);
    *err = settle(x, x->generation->hooks->events(x, raws, count, out), len, out);
    return true;
}

/* A new version came while a hook was busy with an event: the next one is the new version's. */
static bool is_outdated(const struct gw_exchange *x)
{
    const struct gw_generation *current = x->gateway->current;
    return x->generation != current && x->pinned != (uint32_t)current->number &&
           !x->generation->hooks->tied(x);
}

static enum gw_err relay_events(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    size_t before = gw_buf_len(&x->body);
    if (!r->started && !begin_stream(x, out))
        return GW_AGAIN;
    for (unsigned n = 0; !gw_buf_empty(&x->body); n++) {
        /* Hooks may make much out of little: what came out counts, too. */
        if ((n && is_outdated(x)) || n == GW_TURN_EVENTS ||
            before - gw_buf_len(&x->body) >= GW_TURN_BYTES || gw_buf_len(out) >= GW_TURN_BYTES) {
            gw_exchange_wake(x);
            return GW_AGAIN;
        }
        enum gw_err err;
        if (!(x->hook_flags & GW_HAS_BATCH) || !relay_batch(x, out, &n, &err))
            err = relay_event(x, out);
        if (err != GW_OK)
            return err;
    }
    return GW_AGAIN;
}

/* In event mode the client stands between two events whatever part of one waits here. */
static bool may_comment(const struct gw_exchange *x)
{
    const struct gw_relay *r = &x->relay;
    return r->mode == GW_BODY_SSE_EVENTS || gw_sse_scan_at_boundary(&r->scan);
}

static bool is_retired(const struct gw_exchange *x)
{
    return x->relay.retiring && x->relay.pending_event == 0 && may_comment(x);
}

static enum gw_err relay_some(struct gw_exchange *x, struct gw_buf *out)
{
    struct gw_relay *r = &x->relay;
    if (is_retired(x))
        return GW_EOF;
    if (r->wanted != r->mode && r->pending_event == 0) {
        if (r->mode == GW_BODY_SSE_BYTES)
            bytes_to_events(x, out);
        else
            events_to_bytes(x, out);
    }
    switch ((enum gw_body_mode)r->mode) {
    case GW_BODY_SSE_BYTES:
        return relay_bytes(x, out);
    case GW_BODY_SSE_EVENTS:
        return relay_events(x, out);
    case GW_BODY_PLAIN:
    case GW_BODY_TUNNEL: /* not here: gw_tunnel_run */
        break;
    }
    return relay_plain(x, out);
}

/* All that will come has come, and nothing of it is left but an event that never ended. */
static bool exhausted(struct gw_exchange *x)
{
    struct gw_relay *r = &x->relay;
    if (!x->body_end || r->pending_event)
        return false;
    if (r->mode == GW_BODY_SSE_EVENTS && r->scanned == gw_buf_len(&x->body))
        gw_buf_clear(&x->body);
    return gw_buf_empty(&x->body);
}

/* The answer has broken off, and what there was of it is with the kernel. A head still waits for
 * what follows it when nothing has come: it is flushed here, for nobody would wake us. */
static bool broke_off(struct gw_exchange *x, struct gw_buf *out)
{
    if (!x->origin_closed || x->body_end)
        return false;
    if (gw_stream_pending(x->client) && gw_stream_send(x->client, out, false) != GW_OK)
        return false; /* the client's on_close comes */
    return gw_stream_pending(x->client) == 0;
}

/* What is left when some bytes have been moved: the end, a break, or to wait. */
static enum gw_err conclude(struct gw_exchange *x, struct gw_buf *out, size_t mark, enum gw_err err)
{
    if (err == GW_EOF || (err == GW_AGAIN && exhausted(x))) {
        if (may_comment(x))
            gw_relay_take_inserts(x, out);
        return send_out(x, out, true);
    }
    if (err == GW_AGAIN && has_more(&x->relay) && may_comment(x))
        put_between(x, out);
    enum gw_err sent = send_out(x, out, false);
    if (sent != GW_OK)
        return sent;
    if (err != GW_AGAIN) {
        x->why_upstream = err == GW_ERR_EVENT_TOO_LARGE;
        return err;
    }
    offer_room(x);
    bool stuck = x->relay.pending_event ||
                 (x->relay.mode == GW_BODY_SSE_EVENTS && gw_buf_len(&x->body) > x->relay.scanned);
    if (!stuck && broke_off(x, out)) {
        x->why_upstream = true;
        return (enum gw_err)x->origin_why;
    }
    if (!stuck && gw_stream_pending(x->client) < mark)
        gw_relay_credit(x);
    return GW_AGAIN;
}

void gw_relay_retire(struct gw_exchange *x)
{
    x->relay.retiring = true;
    gw_exchange_wake(x);
}

enum gw_err gw_relay_run(struct gw_exchange *x)
{
    if (x->response_sent)
        return GW_OK;
    if (!x->client)
        return GW_ERR_CLIENT_GONE;
    size_t mark = send_mark(x);
    if (gw_stream_pending(x->client) >= mark)
        return GW_AGAIN;
    struct gw_buf out;
    gw_buf_init(&out);
    enum gw_err err = relay_some(x, &out);
    err = conclude(x, &out, mark, err == GW_AGAIN && is_retired(x) ? GW_EOF : err);
    gw_buf_clear(&out);
    return err;
}
