/* Connections that speak HTTP/1 and the one stream each of them carries, for servers (worker) and
 * clients (pool). Bytes become heads and bodies in http1_parse.c and the other way round in
 * http1_write.c; what happens in which order is here. Invariant: ops of a stream only note what is
 * to be done and wake the codec; every event is called from the loop, and after each one the stream
 * may be gone and the connection closed, so both are looked at again. */
#include "http/http1.h"

#include "base/slab.h"
#include "http/http1_impl.h"

enum { INFORMED_MAX = 16 }; /* 1xx in front of one answer */

static struct gw_slab codecs;

static void on_task(struct gw_task_node *task);

void gw_h1_wake(struct gw_http1 *h)
{
    gw_loop_wake(gw_h1_loop(h), &h->task, on_task);
}

void gw_h1_arm(struct gw_http1 *h, uint64_t after_ms)
{
    if (h->server && !h->dead)
        gw_conn_deadline(gw_h1_conn(h), after_ms);
}

/* The end of a stream, and of a connection. */

struct gw_h1_stream *gw_h1_detach(struct gw_http1 *h)
{
    struct gw_h1_stream *s = h->stream;

    h->stream = NULL;
    h->failed = GW_OK;
    h->blocked = false;
    s->base.written = gw_h1_conn(h)->wrote;
    return s;
}

static void close_stream(struct gw_http1 *h, enum gw_err why)
{
    struct gw_h1_stream *s = gw_h1_detach(h);

    s->base.events->on_close(&s->base, why);
    gw_h1_stream_bury(s);
}

static void free_codec(struct gw_grave *grave)
{
    struct gw_http1 *h = GW_CONTAINER(grave, struct gw_http1, codec.grave);

    if (h->own_lent) { /* to a stream that was buried after it */
        gw_loop_bury(gw_h1_loop(h), grave, free_codec);
        return;
    }
    h->magic = 0;
    gw_h1_parse_end(h);
    gw_slab_free(&codecs, h);
}

/* The connection is being closed: only on_gone is left to be called. */
static void part(struct gw_http1 *h)
{
    h->dead = true;
    h->codec.conn = NULL;
    gw_h1_wake(h);
}

static void hang_up(struct gw_http1 *h)
{
    if (!h->dead) {
        gw_conn_close(gw_h1_conn(h));
        part(h);
    }
}

/* What is in out still goes to the peer, and its bytes do not kill it on the way. */
static void linger(struct gw_http1 *h)
{
    if (!h->dead) {
        gw_conn_linger(gw_h1_conn(h), gw_h1_limits(h)->linger_ms);
        part(h);
    }
}

static void go(struct gw_http1 *h)
{
    if (!h->dead || h->gone)
        return;
    h->gone = true;
    gw_loop_unwake(gw_h1_loop(h), &h->task);
    h->codec.host->events->on_gone(&h->codec);
    gw_loop_bury(gw_h1_loop(h), &h->codec.grave, free_codec);
}

/* True while FIN would look like the good end of a body that is not out yet. */
static bool ends_by_closing(const struct gw_http1 *h, const struct gw_h1_stream *s)
{
    return s->base.head_sent && s->tx == GW_H1_TX_CLOSE &&
           (!s->base.sent || !gw_buf_empty(&gw_h1_conn(h)->out));
}

void gw_h1_break_off(struct gw_http1 *h, const struct gw_h1_stream *s, enum gw_err why)
{
    bool hopeless = why == GW_ERR_CLIENT_GONE || why == GW_ERR_WRITE_TIMEOUT || why == GW_ERR_IO ||
                    why == GW_ERR_RESET || why == GW_ERR_PEER_TIMEOUT || why == GW_ERR_SHUTDOWN;

    gw_h1_conn(h)->reset = ends_by_closing(h, s);
    if (!h->server || !s->base.head_sent || hopeless)
        hang_up(h);
    else
        linger(h); /* what was received of the answer is still worth something */
}

/* Refusals: answers of the codec's own, to requests that never became a stream or that broke in the
 * middle. */

static void refuse(struct gw_http1 *h, enum gw_err why, bool head_request)
{
    struct gw_arena arena;
    struct gw_head head;
    struct gw_buf body;

    gw_arena_init(&arena);
    gw_head_init(&head, &arena);
    gw_buf_init(&body);
    head.status = (unsigned)gw_err_status(why);
    if (head.status) {
        if (h->codec.host->events->on_refused)
            h->codec.host->events->on_refused(&h->codec, why, &head, &body);
        gw_h1_write_refusal(h, &head, &body, head_request);
    }
    gw_buf_clear(&body);
    gw_arena_clear(&arena);
    if (head.status)
        linger(h);
    else
        hang_up(h);
}

/* The stream, where there is one, ends with an error, and the connection with it. */
static void fail(struct gw_http1 *h, enum gw_err why)
{
    struct gw_h1_stream *s = h->stream;

    if (h->dead)
        return;
    if (s)
        close_stream(h, why);
    if (h->dead)
        return;
    if (!h->server)
        hang_up(h);
    else if (!s || !s->base.head_sent)
        refuse(h, why, s && s->head_request);
    else
        gw_h1_break_off(h, s, why);
}

/* Where the codec stands. */

static void enter_idle(struct gw_http1 *h)
{
    h->rx = GW_H1_IDLE;
    gw_h1_arm(h, h->server ? gw_h1_limits(h)->idle_ms : 0);
}

static void deliver(struct gw_http1 *h, struct gw_buf *body, bool end)
{
    struct gw_h1_stream *s = h->stream;

    s->base.unconsumed += (uint32_t)gw_buf_len(body);
    s->base.received = end;
    h->blocked = !end && s->base.unconsumed >= GW_STREAM_WINDOW;
    s->base.events->on_body(&s->base, body, end);
}

static void deliver_end(struct gw_http1 *h)
{
    struct gw_buf none;

    gw_buf_init(&none);
    deliver(h, &none, true);
}

/* A head is there and has been handed on; goes on with what follows it. */
static void after_head(struct gw_http1 *h)
{
    if (h->rx == GW_H1_DONE) {
        if (!h->stream->base.sent) /* else it watches over the answer */
            gw_h1_arm(h, 0);
        deliver_end(h);
    } else if (h->rx == GW_H1_BODY && h->server) {
        gw_h1_arm(h, h->stream->await_continue ? 0 : gw_h1_limits(h)->body_ms);
    }
}

/* The last request that a connection may have is answered with Connection: close. */
static void count_request(struct gw_http1 *h)
{
    unsigned max = gw_h1_limits(h)->max_requests;

    h->requests += h->requests < UINT16_MAX;
    if (!max || h->requests < max)
        return;
    if (h->keep && h->codec.host->spent)
        ++*h->codec.host->spent;
    h->keep = false;
}

/* A request: it gets a stream when its head is worth one. */
static void read_request(struct gw_http1 *h)
{
    struct gw_h1_stream *s = gw_h1_stream_new(h);
    struct gw_head *head;
    enum gw_err err = gw_h1_read_head(h, s, &head);

    s->head_request = gw_slice_eq(head->method, GW_SLICE("HEAD"));
    s->await_continue = head->expect_continue;
    s->upgrade = head->upgrade && head->minor > 0 && !head->has_body;
    s->base.opened = s->base.head_received = true;
    count_request(h);
    if (!err)
        err = h->codec.host->events->on_stream(&h->codec, &s->base);
    if (err || h->dead) {
        gw_h1_stream_bury(s);
        if (!h->dead)
            refuse(h, err, s->head_request);
        return;
    }
    h->stream = s;
    s->base.events->on_head(&s->base, head);
    if (h->stream == s)
        after_head(h);
}

void gw_h1_start_tunnel(struct gw_http1 *h)
{
    struct gw_h1_stream *s = h->stream;

    s->base.tunnel = true;
    s->base.sent = s->base.received = false;
    s->tx = GW_H1_TX_CLOSE;
    h->rx = GW_H1_TUNNEL;
    h->keep = h->blocked = false;
    gw_conn_half(gw_h1_conn(h));
    gw_h1_arm(h, 0);
}

void gw_h1_end_tunnel(struct gw_http1 *h)
{
    if (!h->stream->base.sent || !h->stream->base.received)
        return;
    h->rx = GW_H1_DONE;
    gw_h1_arm(h, gw_h1_limits(h)->write_ms);
}

/* Never more than the window: what had come before the tunnel opened may be. */
static bool read_tunnel(struct gw_http1 *h)
{
    struct gw_buf *in = &gw_h1_conn(h)->in, bytes;
    size_t room = GW_STREAM_WINDOW - h->stream->base.unconsumed, len = gw_buf_len(in);

    gw_buf_init(&bytes);
    gw_buf_move_n(&bytes, in, len < room ? len : room);
    deliver(h, &bytes, false);
    gw_buf_clear(&bytes);
    return true;
}

/* RFC 9110, 15.2: any number of 1xx, bounded here; 101 is none of them, see read_response. */
static void read_informational(struct gw_http1 *h, struct gw_head *head)
{
    struct gw_h1_stream *s = h->stream;

    h->rx = GW_H1_IDLE;
    if (head->status == 101 || ++s->informed > INFORMED_MAX)
        fail(h, GW_ERR_BAD_RESPONSE);
    else
        s->base.events->on_head(&s->base, head);
}

/* RFC 9110, 7.8: it says what it switches to, and that this is about the connection. */
static bool asked(const struct gw_h1_stream *s, const struct gw_head *head)
{
    return s->upgrade && head->upgrade && head->minor > 0;
}

static void read_response(struct gw_http1 *h)
{
    struct gw_h1_stream *s = h->stream;
    struct gw_head *head;
    enum gw_err err = gw_h1_read_head(h, s, &head);

    if (err) {
        fail(h, err);
    } else if (gw_head_informational(head) && !(head->status == 101 && asked(s, head))) {
        read_informational(h, head);
    } else {
        s->base.head_received = true;
        if (head->status == 101)
            gw_h1_start_tunnel(h);
        s->base.events->on_head(&s->base, head);
        if (h->stream == s)
            after_head(h);
    }
}

/* Returns whether there is more to do with the bytes that are there. */
static bool read_head(struct gw_http1 *h)
{
    enum gw_err err;

    /* Before a byte of the request has gone nothing can be its answer. Behind an earlier exchange
     * it is something that was left over, and the request may go elsewhere. */
    if (!h->server && (!h->stream || !gw_h1_conn(h)->wrote)) {
        fail(h, h->stream && h->used ? GW_ERR_RESET : GW_ERR_BAD_RESPONSE);
        return false;
    }
    if (h->server && h->rx == GW_H1_IDLE)
        gw_h1_arm(h, gw_h1_limits(h)->head_ms);
    h->rx = GW_H1_HEAD;
    err = gw_h1_scan_head(h);
    if (err == GW_AGAIN)
        gw_buf_compact(&gw_h1_conn(h)->in);
    else if (err)
        fail(h, err);
    else if (h->server)
        read_request(h);
    else
        read_response(h);
    return err == GW_OK;
}

static bool read_body(struct gw_http1 *h)
{
    struct gw_h1_stream *s = h->stream;
    struct gw_buf body;
    enum gw_err err;

    gw_buf_init(&body);
    err = gw_h1_read_body(h, &body);
    bool end = !err && h->rx == GW_H1_DONE;
    if (h->server)
        gw_h1_arm(h, end ? 0 : gw_h1_limits(h)->body_ms);
    if (!gw_buf_empty(&body) || end)
        deliver(h, &body, end);
    gw_buf_clear(&body);
    if (err && h->stream == s)
        fail(h, err);
    return true;
}

/* The answer is out and the request is in: the next one may come. */
static void settle(struct gw_http1 *h)
{
    if (h->keep && !h->draining)
        enter_idle(h);
    else
        linger(h);
}

/* The rest of the request is not wanted any more: it is dropped within a bound. */
void gw_h1_start_drain(struct gw_http1 *h)
{
    h->rx = GW_H1_DRAIN;
    h->blocked = false;
    h->drained = 0;
    gw_h1_arm(h, gw_h1_limits(h)->linger_ms);
}

/* Gives up on the rest, and on the connection. An answer that is not out yet still goes out. */
static void stop_drain(struct gw_http1 *h)
{
    h->keep = false;
    h->rx = GW_H1_DONE;
    if (h->stream)
        gw_h1_arm(h, gw_h1_limits(h)->write_ms);
    else
        linger(h);
}

/* The rest of a request that has been answered. */
static bool drain_body(struct gw_http1 *h)
{
    struct gw_buf body;
    enum gw_err err;

    gw_buf_init(&body);
    size_t drained = h->drained + gw_buf_peek(&gw_h1_conn(h)->in).len;
    h->drained = (uint16_t)(drained < UINT16_MAX ? drained : UINT16_MAX);
    err = gw_h1_read_body(h, &body);
    gw_buf_clear(&body);
    if (err || drained > GW_H1_DRAIN_MAX)
        stop_drain(h);
    else if (h->rx == GW_H1_DONE && !h->stream)
        settle(h);
    return true;
}

/* Does one thing with the bytes that came. Returns whether to go on. */
static bool advance(struct gw_http1 *h)
{
    if (h->dead || gw_buf_empty(&gw_h1_conn(h)->in))
        return false;
    switch ((enum gw_h1_rx)h->rx) {
    case GW_H1_IDLE:
    case GW_H1_HEAD:
        return read_head(h);
    case GW_H1_BODY:
        return !h->blocked && read_body(h);
    case GW_H1_DRAIN:
        return drain_body(h);
    case GW_H1_TUNNEL:
        return !h->blocked && read_tunnel(h);
    case GW_H1_DONE:
        break;
    }
    return false;
}

static void finish_response(struct gw_http1 *h)
{
    close_stream(h, GW_OK);
    h->used = true;
    if (!h->dead && (h->rx == GW_H1_DONE || !h->keep))
        settle(h);
}

/* The answer is here. The connection lives on only when nothing about it is in doubt. */
static void finish_request(struct gw_http1 *h)
{
    struct gw_conn *conn = gw_h1_conn(h);
    bool again = h->stream->base.sent && h->keep && !h->stream->upgrade && !h->draining &&
                 !h->deaf && !conn->saw_eof && gw_buf_empty(&conn->out) && gw_buf_empty(&conn->in);

    close_stream(h, GW_OK);
    h->used = true;
    if (h->dead)
        return;
    if (!again || h->draining) {
        hang_up(h);
        return;
    }
    enter_idle(h);
    h->codec.host->events->on_idle(&h->codec);
}

static bool tunnel_is_over(const struct gw_http1 *h)
{
    const struct gw_stream *s = &h->stream->base;

    return s->sent && s->received && gw_buf_empty(&gw_h1_conn(h)->out);
}

/* Ends the exchange when both messages are complete and ours is with the kernel. */
static bool finish(struct gw_http1 *h)
{
    struct gw_h1_stream *s = h->dead ? NULL : h->stream;

    if (!s || (s->base.tunnel && !tunnel_is_over(h)))
        return false;
    if (h->server && s->base.sent && gw_buf_empty(&gw_h1_conn(h)->out))
        finish_response(h);
    else if (!h->server && s->base.received)
        finish_request(h);
    else
        return false;
    return true;
}

/* Once all that came before has been taken. The other side may go on. */
static void end_tunnel_side(struct gw_http1 *h)
{
    struct gw_h1_stream *s = h->stream;

    if (s->base.received || !gw_buf_empty(&gw_h1_conn(h)->in))
        return;
    deliver_end(h);
    if (h->stream == s)
        gw_h1_end_tunnel(h);
    finish(h);
}

/* A client that has ended its sending has left (as nginx sees it, too), unless it has a tunnel. A
 * backend may end its answer that way. */
static void meet_eof(struct gw_http1 *h)
{
    struct gw_h1_stream *s = h->stream;

    if (s && s->base.tunnel) {
        end_tunnel_side(h);
    } else if (h->server || !s) {
        gw_h1_conn(h)->reset = s && ends_by_closing(h, s); /* it may have left by half only */
        if (s)
            close_stream(h, GW_ERR_CLIENT_GONE);
        hang_up(h);
    } else if (h->rx == GW_H1_BODY) {
        enum gw_err err = gw_h1_finish_body(h);
        if (err)
            fail(h, err);
        else
            deliver_end(h);
        finish(h);
    } else {
        bool nothing = h->rx == GW_H1_IDLE && !s->informed && gw_buf_empty(&gw_h1_conn(h)->in);
        fail(h, nothing ? GW_EOF : GW_ERR_TRUNCATED);
    }
}

static size_t pipelined_max(const struct gw_http1 *h)
{
    const struct gw_http_limits *limits = gw_h1_limits(h);

    return limits->max_pipelined_bytes ? limits->max_pipelined_bytes
                                       : limits->max_header_bytes + GW_STREAM_WINDOW;
}

/* Reads unless bytes that nobody wants yet would pile up. */
static void update_reading(struct gw_http1 *h)
{
    struct gw_conn *conn = gw_h1_conn(h);
    bool on = !h->blocked;

    if (h->rx == GW_H1_DONE) {
        on = gw_buf_len(&conn->in) < pipelined_max(h);
        if (!on && conn->reading && h->codec.host->pauses)
            ++*h->codec.host->pauses;
        gw_buf_compact(&conn->in);
    }
    if (on != conn->reading)
        gw_conn_read(conn, on);
}

/* The peer is not known to the owner before the transport's handshake is done. */
static void give_up_handshake(struct gw_http1 *h, enum gw_err why)
{
    if (h->codec.host->events->on_unopened)
        h->codec.host->events->on_unopened(&h->codec, why);
    hang_up(h);
}

/* However a client's connection broke, it has left; but one that is not there was not seen to. */
static enum gw_err client_err(enum gw_err err)
{
    return err == GW_ERR_PEER_TIMEOUT ? err : GW_ERR_CLIENT_GONE;
}

/* Ops report their failures here, where events may be called. */
void gw_h1_flush(struct gw_http1 *h)
{
    h->flush_due = false;
    if (h->failed || h->deaf || !h->up)
        return;
    enum gw_err err = gw_conn_flush(gw_h1_conn(h));
    if (err && h->server)
        h->failed = (uint8_t)client_err(err);
    else if (err && h->stream && h->stream->base.tunnel)
        h->failed = (uint8_t)err;
    else if (err)
        h->deaf = true; /* an answer may have come before: it is still read */
}

/* Goes on with the bytes that are there as far as they lead. */
static void pump(struct gw_http1 *h)
{
    bool more = true;

    while (more && !h->dead) {
        if (h->flush_due)
            gw_h1_flush(h);
        if (h->failed)
            fail(h, h->failed);
        more = advance(h);
        more = finish(h) || more;
    }
}

/* Does all that can be done now. Called at the end of every event of the connection, and when the
 * codec was woken. */
static void run(struct gw_http1 *h)
{
    pump(h);
    if (!h->dead && gw_h1_conn(h)->saw_eof && (h->server || !h->blocked))
        meet_eof(h);
    if (h->dead)
        go(h);
    else
        update_reading(h);
}

/* An answer that nobody looks after any more, to a client that takes nothing. */
static void check_writing(struct gw_http1 *h)
{
    uint64_t max = gw_h1_limits(h)->write_ms,
             still = gw_h1_loop(h)->now_ms - gw_h1_conn(h)->write_ms;

    if (max && still >= max)
        fail(h, GW_ERR_WRITE_TIMEOUT);
    else
        gw_h1_arm(h, max ? max - still : 0);
}

static void on_task(struct gw_task_node *task)
{
    run(GW_CONTAINER(task, struct gw_http1, task));
}

static void expire(struct gw_http1 *h)
{
    if (h->server && h->codec.host->events->on_expired)
        h->codec.host->events->on_expired(&h->codec);
    hang_up(h);
}

static void on_deadline(struct gw_conn *conn)
{
    struct gw_http1 *h = conn->owner;

    if (!h->up)
        give_up_handshake(h, GW_ERR_HEAD_TIMEOUT);
    else if (h->rx == GW_H1_DONE)
        check_writing(h);
    else if (h->rx == GW_H1_HEAD)
        fail(h, GW_ERR_HEAD_TIMEOUT);
    else if (h->rx == GW_H1_BODY && !h->blocked)
        fail(h, GW_ERR_BODY_TIMEOUT);
    else if (h->rx == GW_H1_DRAIN)
        stop_drain(h);
    else if (h->rx == GW_H1_IDLE)
        expire(h);
    run(h);
}

/* The connection's events. */

/* The handshake is done. Who drains waits for no request that has not come yet. */
static void begin_serving(struct gw_http1 *h)
{
    enter_idle(h);
    if (h->codec.host->events->on_open)
        h->codec.host->events->on_open(&h->codec);
    if (!h->dead && h->draining && !gw_conn_readable(gw_h1_conn(h)))
        hang_up(h);
}

static void on_open(struct gw_conn *conn)
{
    struct gw_http1 *h = conn->owner;

    h->up = true;
    gw_conn_read(conn, true);
    if (h->server)
        begin_serving(h);
    if (h->stream) {
        h->stream->base.opened = true;
        if (h->stream->base.events->on_open)
            h->stream->base.events->on_open(&h->stream->base);
    }
    run(h);
}

static void on_progress(struct gw_conn *conn)
{
    run(conn->owner);
}

static void on_drained(struct gw_conn *conn)
{
    struct gw_http1 *h = conn->owner;

    if (h->stream && h->stream->base.events->on_drained)
        h->stream->base.events->on_drained(&h->stream->base);
    run(h);
}

/* A backend that answers before it has read the request resets the connection, and it is writing
 * that fails; what it said before is still with the kernel. An end of file behind an error means
 * nothing.
 */
static void read_last(struct gw_http1 *h)
{
    struct gw_conn *conn = gw_h1_conn(h);
    enum gw_err err = GW_OK;

    h->deaf = true;
    while (err == GW_OK && gw_buf_len(&conn->in) < GW_STREAM_WINDOW)
        err = conn->transport->read(conn, &conn->in, GW_READ_SIZE);
    pump(h);
}

static void on_error(struct gw_conn *conn, enum gw_err err)
{
    struct gw_http1 *h = conn->owner;

    if (!h->server && h->up && h->stream && h->stream->base.head_sent)
        read_last(h);
    if (!h->dead && h->stream)
        close_stream(h, h->server ? client_err(err) : err);
    if (h->server && !h->up)
        give_up_handshake(h, err);
    hang_up(h);
    run(h);
}

static const struct gw_conn_events conn_events = {
    .on_open = on_open,
    .on_bytes = on_progress,
    .on_eof = on_progress,
    .on_drained = on_drained,
    .on_error = on_error,
    .on_deadline = on_deadline,
    .owner_size = sizeof(struct gw_http1),
};

/* Ops of the codec. */

static struct gw_stream *codec_open(struct gw_codec *codec, const struct gw_stream_events *events,
                                    void *owner)
{
    struct gw_http1 *h = gw_h1_of(codec);

    if (h->server || h->dead || h->stream || h->draining)
        return NULL;
    if (h->up && gw_conn_readable(gw_h1_conn(h)))
        return NULL; /* closed, or bytes that nobody asked for: the loop will find out */
    h->stream = gw_h1_stream_new(h);
    h->stream->base.opened = h->up;
    h->stream->base.events = events;
    h->stream->base.owner = owner;
    return &h->stream->base;
}

static void codec_drain(struct gw_codec *codec)
{
    struct gw_http1 *h = gw_h1_of(codec);
    bool idle = !h->dead && !h->stream && h->rx == GW_H1_IDLE;

    h->draining = true;
    if (idle && !(h->server && gw_conn_readable(gw_h1_conn(h)))) /* else one more has been asked */
        hang_up(h);
    go(h);
}

static void codec_close(struct gw_codec *codec, enum gw_err why)
{
    struct gw_http1 *h = gw_h1_of(codec);
    struct gw_h1_stream *s = h->stream;

    if (s)
        close_stream(h, why);
    if (s && !h->dead)
        gw_h1_conn(h)->reset = ends_by_closing(h, s);
    hang_up(h);
    go(h);
}

static unsigned codec_streams(const struct gw_codec *codec)
{
    return gw_h1_of(codec)->stream ? 1 : 0;
}

static const struct gw_codec_ops codec_ops = {
    .name = "http/1.1",
    .open = codec_open,
    .drain = codec_drain,
    .close = codec_close,
    .streams = codec_streams,
    .stream = &gw_h1_stream_ops,
};

static struct gw_http1 *codec_new(const struct gw_codec_host *host)
{
    struct gw_http1 *h;

    if (codecs.size == 0)
        gw_slab_init(&codecs, sizeof(struct gw_http1));
    h = gw_slab_alloc(&codecs);
    h->magic = GW_H1_MAGIC;
    h->codec.ops = &codec_ops;
    h->codec.host = host;
    gw_list_init(&h->codec.node);
    return h;
}

struct gw_codec *gw_http1_serve(const struct gw_codec_host *host, int fd,
                                const struct gw_addr *peer,
                                const struct gw_transport_ops *transport)
{
    struct gw_http1 *h = codec_new(host);

    h->server = true;
    h->codec.conn = gw_conn_accepted(host->loop, fd, peer, transport, &conn_events, h);
    h->up = gw_h1_conn(h)->state == GW_CONN_OPEN;
    enter_idle(h);
    if (!h->up)
        gw_h1_arm(h, gw_h1_limits(h)->head_ms);
    gw_conn_read(gw_h1_conn(h), true);
    return &h->codec;
}

struct gw_codec *gw_http1_dial(const struct gw_codec_host *host, const struct gw_addr *to,
                               uint64_t dial_ms, unsigned keepalive_s,
                               const struct gw_transport_ops *transport, enum gw_err *err)
{
    struct gw_http1 *h = codec_new(host);

    h->codec.conn = gw_conn_dial(host->loop, to, dial_ms, keepalive_s, host->limits->user_ms,
                                 transport, &conn_events, h, err);
    if (!h->codec.conn) {
        gw_slab_free(&codecs, h);
        return NULL;
    }
    enter_idle(h);
    return &h->codec;
}
