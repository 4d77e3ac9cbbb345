/* What stands between a connection and its streams: http1 now, http2 later. */
#ifndef GW_HTTP_CODEC_H
#define GW_HTTP_CODEC_H

#include <stdbool.h>
#include <stdint.h>
#include "http/stream.h"
#include "net/conn.h"

struct gw_codec;

struct gw_http_limits {
    size_t max_header_bytes; /* a whole head, start line included */
    unsigned max_headers;
    size_t max_target_bytes;    /* requests: method, version and spaces left out; 0 = no limit */
    uint64_t max_body_bytes;    /* requests; 0 = no limit */
    uint64_t head_ms;           /* a whole head, from its first byte; 0 = no limit */
    uint64_t idle_ms;           /* between requests of a connection; 0 = no limit */
    uint64_t body_ms;           /* no progress in a request's body (server side); 0 = no limit */
    uint64_t write_ms;          /* the same of an answer that nobody looks after any more */
    unsigned user_ms;           /* client side: TCP_USER_TIMEOUT of what is dialled; 0 = none */
    uint64_t linger_ms;         /* how long a refused connection is drained */
    size_t max_pipelined_bytes; /* read ahead while an answer is under way; 0: some 100 KiB */
    unsigned max_requests;      /* of one connection; 0 = no limit */
};

/* What the owner of connections hears from a codec. */
struct gw_codec_events {
    /* Server side: the transport's handshake is done, and who the peer is is known. Not called
     * where there is none. May be NULL. */
    void (*on_open)(struct gw_codec *codec);
    /* Server side: the handshake has failed, or took longer than head_ms; on_gone follows. May be
     * NULL. */
    void (*on_unopened)(struct gw_codec *codec, enum gw_err why);
    /* Server side: the head of a request has begun to be handled. The callee sets stream->events
     * and stream->owner; on_head follows at once. Else why not: the codec refuses it and closes. */
    enum gw_err (*on_stream)(struct gw_codec *codec, struct gw_stream *stream);
    /* Server side: a request that can't be served (parse error, limits, time): the callee may
     * answer with its own error document: fields and body are filled by it; status is
     * gw_err_status(why). The codec sends it and closes in stages. NULL: an empty body is sent. */
    void (*on_refused)(struct gw_codec *codec, enum gw_err why, struct gw_head *head,
                       struct gw_buf *body);
    /* Server side: idle for too long between requests; on_gone follows. May be NULL. */
    void (*on_expired)(struct gw_codec *codec);
    /* Client side: no stream is open, the last exchange was complete, and the connection may be
     * used again. */
    void (*on_idle)(struct gw_codec *codec);
    /* The connection is closed (or closes in stages by itself); codec->conn is NULL and the codec
     * is freed after this turn. Called from the loop, or from inside close and drain. */
    void (*on_gone)(struct gw_codec *codec);
};

/* Who makes connections and owns them; outlives them. A callee finds itself by GW_CONTAINER. */
struct gw_codec_host {
    struct gw_loop *loop;
    const struct gw_http_limits *limits;
    const struct gw_codec_events *events;
    /* What is counted there, server side; NULL: it is not. */
    uint64_t *pauses; /* times that a peer was not read, for it was too far ahead */
    uint64_t *spent;  /* connections that had as many requests as they may */
};

struct gw_codec_ops {
    const char *name;
    /* Client side: one more stream on this connection; NULL when it can't take one. */
    struct gw_stream *(*open)(struct gw_codec *codec, const struct gw_stream_events *events,
                              void *owner);
    /* No new streams after those that are open (server: Connection: close); closes an idle
     * connection at once. */
    void (*drain)(struct gw_codec *codec);
    /* Closes everything at once; open streams get on_close(why). on_gone follows. */
    void (*close)(struct gw_codec *codec, enum gw_err why);
    unsigned (*streams)(const struct gw_codec *codec);
    const struct gw_stream_ops *stream; /* of each of its streams */
};

struct gw_codec {
    const struct gw_codec_ops *ops;
    const struct gw_codec_host *host;
    union {
        void *listener;         /* server side: which listener it came by; opaque here */
        uint64_t idle_since_ms; /* client side: its owner's */
    };
    struct gw_conn *conn;
    union {
        struct gw_list node;   /* in its owner's list */
        struct gw_grave grave; /* once it is gone */
    };
};

static inline enum gw_err GW_MUST_CHECK gw_stream_send_head(struct gw_stream *s,
                                                            const struct gw_head *head)
{
    return s->codec->ops->stream->send_head(s, head);
}
static inline enum gw_err GW_MUST_CHECK gw_stream_send(struct gw_stream *s, struct gw_buf *body,
                                                       bool end)
{
    return s->codec->ops->stream->send(s, body, end);
}
static inline void gw_stream_consumed(struct gw_stream *s, size_t n)
{
    s->codec->ops->stream->consumed(s, n);
}
static inline void gw_stream_reset(struct gw_stream *s, enum gw_err why)
{
    s->codec->ops->stream->reset(s, why);
}
static inline size_t gw_stream_pending(const struct gw_stream *s)
{
    return s->codec->ops->stream->pending(s);
}

/* For addresses and write stamps, while the stream is open; not to be used otherwise. */
static inline const struct gw_conn *gw_stream_conn(const struct gw_stream *stream)
{
    return stream->codec->conn;
}

/* From now on what comes on the one stream goes to the other, by way of what `owner` holds; see
 * gw_conn_warm. */
static inline void gw_stream_warm(const struct gw_stream *from, const struct gw_stream *to,
                                  const void *owner, size_t owner_size)
{
    struct gw_conn *conn = from->codec->conn;

    gw_conn_warm(conn, 0, owner, owner_size);
    gw_conn_warm(conn, 1, to->codec->conn, sizeof(*to->codec->conn));
    gw_conn_warm(conn, 2, to->codec, to->codec->conn->events->owner_size);
}

#endif
