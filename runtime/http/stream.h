/* One exchange on a connection, whichever codec speaks on it. The codec owns the stream; an
 * exchange borrows it until on_close. On the server side a stream brings a request and takes a
 * response; on the client side it takes a request and brings a response. */
#ifndef GW_HTTP_STREAM_H
#define GW_HTTP_STREAM_H

#include <stdbool.h>
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "http/head.h"
#include "net/loop.h"

struct gw_stream;
struct gw_codec;

/* A tunnel (RFC 9110, 7.8) opens only on a 101 that was asked for. Client side: send_head with
 * head->upgrade asks, and on_head brings the 101 as the final head, with `tunnel` set; a 101 that
 * nobody asked for, or without an Upgrade field, is GW_ERR_BAD_RESPONSE, and which protocol it
 * names is the callee's to check. Server side: send_head with status 101 and head->upgrade opens
 * it, where the request asked. Then on_body brings bytes, with end at the peer's FIN; `send` with
 * end sends ours; on_close(GW_OK) follows when both have ended. What had come behind the request is
 * given first. */

/* Events come from the loop only, never from inside one of the ops below, so a step may send and
 * reset without looking over its shoulder. A callee may use every op inside an event. */
struct gw_stream_events {
    /* Client side: the connection that was dialled for this stream is up; not called for a stream
     * on a connection that was up already. */
    void (*on_open)(struct gw_stream *stream);
    /* The head of the message is here; it lives in the stream's arena until on_close. Client side:
     * once for each 1xx, then once for the final one. */
    void (*on_head)(struct gw_stream *stream, struct gw_head *head);
    /* Bytes of the body: the callee takes them all out of `body` (gw_buf_move) and tells by
     * gw_stream_consumed when they have gone on their way. end: the message is complete (also
     * with an empty body). */
    void (*on_body)(struct gw_stream *stream, struct gw_buf *body, bool end);
    /* What had been sent and stuck has all been written. */
    void (*on_drained)(struct gw_stream *stream);
    /* The stream is over and is freed after this turn of the loop: GW_OK when both messages were
     * complete and written out, else why not. The last call. GW_OK also when the answer was
     * complete before the request: server side the codec drops the rest of the body (`received` is
     * false then), client side the connection is not used again (`sent` is false). Server side:
     * GW_ERR_CLIENT_GONE when the client left (a half-close counts as leaving). When the request
     * itself went wrong (GW_ERR_BAD_REQUEST, _BODY_TOO_LARGE, _BODY_TIMEOUT), the codec answers it
     * after this call if no head was sent, else breaks the response off. Client side: GW_EOF or
     * GW_ERR_RESET before the first byte of a response (see `reused` and `written` for whether to
     * try again), GW_ERR_TRUNCATED, GW_ERR_BAD_RESPONSE, dial errors. */
    void (*on_close)(struct gw_stream *stream, enum gw_err why);
};

struct gw_stream_ops {
    /* Sends a head. Server side: any number of 1xx, then one final; client side: one. GW_OK also
     * when bytes stay in the buffer. The head's fields may be in any order; framing is the codec's,
     * fields that gw_field_is_framing names are skipped. The bytes go out with the first `send`, or
     * at the next turn of the loop when none follows. */
    enum gw_err (*send_head)(struct gw_stream *stream, const struct gw_head *head);
    /* Sends bytes of the body (all are taken out of `body`); end: that was the last. Every message
     * is ended by one call with end, also one without a body. What is sent as the body of an answer
     * that has none (HEAD, 204, 304) is dropped. More or fewer bytes than head->length: GW_ERR_…,
     * and the stream fails. After an error here or in send_head on_close follows, unless the stream
     * is reset first. */
    enum gw_err (*send)(struct gw_stream *stream, struct gw_buf *body, bool end);
    /* n bytes of on_body have gone on: the peer may send that many more. */
    void (*consumed)(struct gw_stream *stream, size_t n);
    /* Ends the stream at once; the peer can tell that it is broken. on_close is not called. */
    void (*reset)(struct gw_stream *stream, enum gw_err why);
    /* Bytes sent that the kernel has not taken yet. */
    size_t (*pending)(const struct gw_stream *stream);
};

struct gw_stream {
    uint32_t unconsumed; /* bytes given by on_body and not yet reported as consumed */
    uint16_t magic;
    bool opened : 1;        /* the connection is up */
    bool head_received : 1; /* the (final) head came */
    bool received : 1;      /* the peer's message is complete */
    bool head_sent : 1;     /* the (final) head went out */
    bool sent : 1;          /* our message is complete */
    bool reused : 1;        /* client side: the connection has carried an exchange before */
    bool written : 1;       /* a byte of ours has gone to the kernel; set when on_close is called */
    bool tunnel : 1; /* 101 came, or went: from here on each side's body is bytes to its FIN */
    union {
        struct {
            const struct gw_stream_events *events;
            void *owner; /* the exchange */
        };
        struct gw_grave grave; /* its codec's, once it is over */
    };
    struct gw_codec *codec;
    struct gw_arena arena; /* heads that came in */
};

enum {
    GW_STREAM_MAGIC = 0x7374,
    GW_STREAM_WINDOW = 64 * 1024 /* unconsumed bytes at which a codec stops reading from the peer */
};

/* Nobody listens to the stream any more; its codec brings it to an end: what still comes is dropped
 * within its bounds, what is to be written is written. */
void gw_stream_detach(struct gw_stream *s);

#endif
