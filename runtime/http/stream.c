/* Owns nothing. What is the same for the streams of every codec. Called by whoever has lost
 * interest in a stream. Invariant: a detached stream still gets its credit, so that its codec can
 * finish it. */
#include "http/stream.h"

#include "http/codec.h"

static void drop_head(struct gw_stream *stream, struct gw_head *head)
{
    (void)stream;
    (void)head;
}

static void drop_body(struct gw_stream *stream, struct gw_buf *body, bool end)
{
    size_t n = gw_buf_len(body);
    (void)end;
    gw_buf_clear(body);
    if (n)
        gw_stream_consumed(stream, n);
}

static void ignore(struct gw_stream *stream)
{
    (void)stream;
}

static void ignore_close(struct gw_stream *stream, enum gw_err why)
{
    (void)stream;
    (void)why;
}

static const struct gw_stream_events nobody = {
    .on_open = ignore,
    .on_head = drop_head,
    .on_body = drop_body,
    .on_drained = ignore,
    .on_close = ignore_close,
};

void gw_stream_detach(struct gw_stream *s)
{
    s->events = &nobody;
    s->owner = NULL;
}
