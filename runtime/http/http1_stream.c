/* What the user of a stream can do with it. Called by exchanges from steps and events alike.
 * Invariant: an op changes what is noted about the stream and puts bytes into the connection; it
 * calls no event, but wakes the codec, which does what is to be done from the loop. */
#include "base/slab.h"
#include "http/http1_impl.h"

static struct gw_slab streams;

static struct gw_http1 *codec_of(const struct gw_h1_stream *s)
{
    return gw_h1_of(s->base.codec);
}

static void free_stream(struct gw_grave *grave)
{
    struct gw_h1_stream *s = GW_CONTAINER(grave, struct gw_h1_stream, base.grave);
    struct gw_http1 *h = GW_CONTAINER(s->base.codec, struct gw_http1, codec); /* or was there */

    s->base.magic = 0;
    gw_arena_clear(&s->base.arena);
    if (s == &h->own)
        h->own_lent = false;
    else
        gw_slab_free(&streams, s);
}

void gw_h1_stream_bury(struct gw_h1_stream *s)
{
    gw_loop_bury(gw_h1_loop(codec_of(s)), &s->base.grave, free_stream);
}

static struct gw_h1_stream *stream_of(const struct gw_stream *stream)
{
    GW_CHECK_MAGIC(stream, GW_STREAM_MAGIC);
    return (struct gw_h1_stream *)(uintptr_t)stream;
}

/* False for a stream that is over: it is still there until the end of the turn. */
static bool is_open(const struct gw_h1_stream *s)
{
    const struct gw_http1 *h = codec_of(s);

    return h->stream == s && !h->dead;
}

static enum gw_err fail_later(struct gw_http1 *h, enum gw_err err)
{
    h->failed = (uint8_t)err;
    gw_h1_wake(h);
    return err;
}

/* An answer while the request's body is not there yet: the connection can't go on when the rest is
 * too much to be read for nothing, or when the client has not been told to send it and may leave it
 * out (RFC 9110, 10.1.1). */
static void answer_early(struct gw_http1 *h, struct gw_h1_stream *s, bool final)
{
    if (h->rx != GW_H1_BODY)
        return;
    bool unsure = s->await_continue && h->parse->body_bytes == 0;
    if (final && (unsure || h->parse->parser.content_length > GW_H1_DRAIN_MAX))
        h->keep = false;
    if (!final && s->await_continue)
        gw_h1_arm(h, gw_h1_limits(h)->body_ms);
    s->await_continue = false;
}

static enum gw_err stream_send_head(struct gw_stream *stream, const struct gw_head *head)
{
    struct gw_h1_stream *s = stream_of(stream);
    struct gw_http1 *h = codec_of(s);
    bool opens = head->status == 101;
    bool final = !h->server || !gw_head_informational(head) || opens;

    if (!is_open(s) || stream->head_sent)
        return GW_ERR_CLOSED;
    if (h->failed)
        return h->failed;
    if (opens && !(h->server && s->upgrade && head->upgrade))
        return fail_later(h, GW_ERR_NOT_IMPLEMENTED);
    if (h->server)
        answer_early(h, s, final);
    if (gw_buf_empty(&gw_h1_conn(h)->out)) /* its bytes wait from now on, not from the last ones */
        gw_h1_conn(h)->write_ms = gw_h1_loop(h)->now_ms;
    gw_h1_write_head(s, &gw_h1_conn(h)->out, head);
    stream->head_sent = final;
    if (opens)
        gw_h1_start_tunnel(h);
    h->flush_due = true;
    gw_h1_wake(h);
    return GW_OK;
}

/* From here on nobody may look after the stream any more: it is the codec's to get it done. */
static void answered(struct gw_http1 *h)
{
    if (h->rx == GW_H1_BODY)
        gw_h1_start_drain(h);
    else
        gw_h1_arm(h, gw_h1_limits(h)->write_ms);
}

static enum gw_err stream_send(struct gw_stream *stream, struct gw_buf *body, bool end)
{
    struct gw_h1_stream *s = stream_of(stream);
    struct gw_http1 *h = codec_of(s);
    enum gw_err err = GW_ERR_CLOSED;

    if (is_open(s) && stream->head_sent && !stream->sent)
        err = (enum gw_err)h->failed;
    if (err || h->deaf) {
        gw_buf_clear(body);
        stream->sent = stream->sent || (!err && end);
        return err;
    }
    err = gw_h1_write_body(s, &gw_h1_conn(h)->out, body, end);
    if (err)
        return fail_later(h, err);
    stream->sent = end;
    if (end && stream->tunnel)
        gw_h1_conn(h)->shut = true; /* FIN, behind what is still to be written */
    gw_h1_flush(h);
    if (end && stream->tunnel)
        gw_h1_end_tunnel(h);
    else if (end && h->server)
        answered(h);
    if (end || h->failed)
        gw_h1_wake(h);
    return h->failed;
}

static void stream_consumed(struct gw_stream *stream, size_t n)
{
    struct gw_h1_stream *s = stream_of(stream);
    struct gw_http1 *h = codec_of(s);

    GW_DEBUG_CHECK(n <= stream->unconsumed);
    stream->unconsumed -= (uint32_t)n;
    if (!is_open(s) || !h->blocked || stream->unconsumed >= GW_STREAM_WINDOW / 2)
        return;
    h->blocked = false;
    if (h->server)
        gw_h1_arm(h, gw_h1_limits(h)->body_ms);
    gw_h1_wake(h);
}

static void stream_reset(struct gw_stream *stream, enum gw_err why)
{
    struct gw_h1_stream *s = stream_of(stream);
    struct gw_http1 *h = codec_of(s);

    if (!is_open(s))
        return;
    gw_h1_detach(h);
    gw_h1_break_off(h, s, why);
    gw_h1_stream_bury(s);
}

static size_t stream_pending(const struct gw_stream *stream)
{
    const struct gw_h1_stream *s = stream_of(stream);

    return is_open(s) ? gw_buf_len(&gw_h1_conn(codec_of(s))->out) : 0;
}

const struct gw_stream_ops gw_h1_stream_ops = {
    .send_head = stream_send_head,
    .send = stream_send,
    .consumed = stream_consumed,
    .reset = stream_reset,
    .pending = stream_pending,
};

struct gw_h1_stream *gw_h1_stream_new(struct gw_http1 *h)
{
    struct gw_h1_stream *s;

    if (streams.size == 0)
        gw_slab_init(&streams, sizeof(struct gw_h1_stream));
    if (h->own_lent) {
        s = gw_slab_alloc(&streams);
    } else {
        s = &h->own;
        memset(s, 0, sizeof(*s));
        h->own_lent = true;
    }
    s->base.magic = GW_STREAM_MAGIC;
    s->base.codec = &h->codec;
    s->base.reused = h->used;
    gw_h1_conn(h)->wrote = false;
    gw_conn_warm(gw_h1_conn(h), 0, NULL, 0);
    gw_arena_init(&s->base.arena);
    return s;
}
