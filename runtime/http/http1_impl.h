/* What the files of http1 share and nobody else sees. http1.c owns connections,
 * http1_stream.c streams, http1_parse.c turns bytes into heads and bodies, http1_rules.c decides
 * what a head means, and http1_write.c makes bytes of heads and bodies. */
#ifndef GW_HTTP_HTTP1_IMPL_H
#define GW_HTTP_HTTP1_IMPL_H

#include <llhttp.h>
#include "http/codec.h"

enum {
    GW_H1_DRAIN_MAX = 64 * 1024
}; /* bytes of an unwanted body that are read to keep a connection */

/* Where the codec is in what the peer sends. */
enum gw_h1_rx {
    GW_H1_IDLE, /* between messages: no byte of the next one */
    GW_H1_HEAD, /* a part of a head */
    GW_H1_BODY,
    GW_H1_DONE,  /* complete; what follows waits in conn->in until the answer is out */
    GW_H1_DRAIN, /* server: answered early, the rest of the body is thrown away */
    GW_H1_TUNNEL /* bytes, until the peer ends its sending */
};

/* How the end of what is sent is told. */
enum gw_h1_tx { GW_H1_TX_NONE, GW_H1_TX_LENGTH, GW_H1_TX_CHUNKED, GW_H1_TX_CLOSE };

/* Lines that have to end in CRLF, looked at byte by byte before the lexer sees them. */
enum gw_h1_line { GW_H1_LINE_START, GW_H1_LINE_TEXT, GW_H1_LINE_EMPTY_CR, GW_H1_LINE_CR };

struct gw_h1_lex;

struct gw_h1_scan {
    uint32_t seen;       /* bytes looked at */
    uint32_t start;      /* bytes of empty lines in front of a request */
    uint32_t first_line; /* its bytes, once it is complete */
    uint32_t lines;      /* complete ones */
    uint32_t line;       /* enum gw_h1_line: where the last byte left it */
};

/* What reading a message needs. Without holes, as states are compared whole. */
struct gw_h1_parse {
    llhttp_t parser;
    struct gw_h1_scan scan; /* of a head, or of the framing between pieces of a chunked body */
    uint32_t trailers;
    uint64_t body_bytes;
    struct gw_h1_lex *lex; /* during a call of the lexer only */
    uint32_t extensions;   /* of a request's chunks so far, in bytes beyond what sizes need */
    uint32_t trailer_len;
    char trailer[24]; /* the beginning of a trailer's name */
};

struct gw_h1_stream {
    struct gw_stream base;   /* first: a gw_stream is cast back to it */
    uint8_t tx;              /* enum gw_h1_tx */
    uint8_t informed;        /* client: 1xx that came */
    bool head_request : 1;   /* the method is HEAD: the answer has no body */
    bool drop_body : 1;      /* server: what is sent as a body is dropped */
    bool await_continue : 1; /* server: the client may wait for a 100 before it sends the body */
    bool upgrade : 1;        /* the request asks for a tunnel: 101 may answer it */
    uint64_t tx_left;        /* GW_H1_TX_LENGTH: bytes still to be sent */
};

struct gw_http1 {
    struct gw_codec codec; /* first: a gw_codec is cast back to it */
    struct gw_h1_stream *stream;
    struct gw_h1_parse *parse; /* of a message that has not come to its end; NULL between chunks */
    uint16_t drained;          /* GW_H1_DRAIN: bytes thrown away; stays at its largest value */
    uint16_t requests;         /* server: that have come; the same */
    struct gw_task_node task;
    uint16_t magic;
    uint8_t rx;         /* enum gw_h1_rx */
    uint8_t failed;     /* enum gw_err: met inside an op, reported from the loop */
    uint8_t peer_minor; /* of the last head that came */
    uint8_t rest;       /* between chunks: in which state the lexer rests */
    bool server : 1;
    bool up : 1;             /* bytes may flow */
    bool keep : 1;           /* the connection may live on after this exchange */
    bool draining : 1;       /* no new stream */
    bool blocked : 1;        /* the window is full: the rest of the body waits */
    bool flush_due : 1;      /* a head waits in conn->out for what follows it */
    bool used : 1;           /* an exchange has been carried */
    bool dead : 1;           /* the connection is closed, on_gone is due */
    bool gone : 1;           /* on_gone was called */
    bool deaf : 1;           /* client: writing failed; an answer may still be read */
    bool own_lent : 1;       /* `own` is a stream, or was one in this turn */
    struct gw_h1_stream own; /* the stream, unless the one before it is still there */
};

enum { GW_H1_MAGIC = 0x6831 };

static inline struct gw_http1 *gw_h1_of(const struct gw_codec *codec)
{
    GW_CHECK_MAGIC((const struct gw_http1 *)codec, GW_H1_MAGIC);
    return (struct gw_http1 *)(uintptr_t)codec;
}

static inline struct gw_loop *gw_h1_loop(const struct gw_http1 *h)
{
    return h->codec.host->loop;
}

static inline const struct gw_http_limits *gw_h1_limits(const struct gw_http1 *h)
{
    return h->codec.host->limits;
}

static inline struct gw_conn *gw_h1_conn(const struct gw_http1 *h)
{
    return h->codec.conn;
}

/* http1.c */

/* Has the codec look, from the loop, at what there is to do. */
void gw_h1_wake(struct gw_http1 *h);
/* The one deadline of the codec, whose meaning follows h->rx; 0 = none. A client has none:
 * exchanges look after theirs. */
void gw_h1_arm(struct gw_http1 *h, uint64_t after_ms);
/* Writes what is in conn->out; failures are noted. */
void gw_h1_flush(struct gw_http1 *h);
/* Parts with the stream, without an event; the caller buries it. */
struct gw_h1_stream *gw_h1_detach(struct gw_http1 *h);
/* Ends the connection so that the peer can tell that its message is broken: FIN where a length or a
 * last chunk is missing, RST where FIN would be the end of the body. */
void gw_h1_break_off(struct gw_http1 *h, const struct gw_h1_stream *s, enum gw_err why);
/* The rest of the request is not wanted any more: it is dropped within a bound. */
void gw_h1_start_drain(struct gw_http1 *h);
/* The 101 is there: both sides' bytes are what they are, until each has ended its own. */
void gw_h1_start_tunnel(struct gw_http1 *h);
/* One side of a tunnel has ended. With both it is the codec's to write out what is left. */
void gw_h1_end_tunnel(struct gw_http1 *h);

/* http1_stream.c */

extern const struct gw_stream_ops gw_h1_stream_ops;

struct gw_h1_stream *gw_h1_stream_new(struct gw_http1 *h);
/* Frees it at the end of the turn. */
void gw_h1_stream_bury(struct gw_h1_stream *s);

/* http1_parse.c */

/* Frees what reading a message has needed. */
void gw_h1_parse_end(struct gw_http1 *h);

/* Looks at what is new in conn->in. GW_OK: a whole head is there; GW_AGAIN: not yet. */
enum gw_err gw_h1_scan_head(struct gw_http1 *h) GW_MUST_CHECK;
/* Takes the head that was found out of conn->in into the stream's arena; *head is set also when it
 * is refused, as far as it was understood. On GW_OK h->rx is GW_H1_BODY or GW_H1_DONE. */
enum gw_err gw_h1_read_head(struct gw_http1 *h, struct gw_h1_stream *s,
                            struct gw_head **head) GW_MUST_CHECK;
/* Takes one piece out of conn->in (not empty); what of it is body is left in *body, without having
 * been copied where there is nothing behind it. h->rx is GW_H1_DONE after the last one. Bytes in
 * front of an error are good and in *body. */
enum gw_err gw_h1_read_body(struct gw_http1 *h, struct gw_buf *body) GW_MUST_CHECK;
/* The peer ended its sending in mid-body: GW_OK when that is how this body ends. */
enum gw_err gw_h1_finish_body(struct gw_http1 *h) GW_MUST_CHECK;

/* http1_rules.c */

/* Checks and takes apart the first line (text, with the line end). A higher minor version is
 * rewritten to 1 in place, for the lexer. */
enum gw_err gw_h1_start_line(const struct gw_http1 *h, struct gw_head *head, char *text,
                             size_t len) GW_MUST_CHECK;
/* Decides what the fields mean: framing, persistence, Host; takes those out that are not fields. */
enum gw_err gw_h1_apply_fields(struct gw_http1 *h, const struct gw_h1_stream *s,
                               struct gw_head *head) GW_MUST_CHECK;
bool gw_h1_trailer_ok(struct gw_slice name);
/* Underscores make it the name of a field that the gateway decides by: gw_field_passes_for. name:
 * lower case. */
bool gw_h1_disguised(struct gw_slice name);

/* http1_write.c */

/* Appends the head to out and sets the stream's framing; h->keep falls when it can't go on. */
void gw_h1_write_head(struct gw_h1_stream *s, struct gw_buf *out, const struct gw_head *head);
/* Frames body and moves it to out; body is empty afterwards, also after an error. */
enum gw_err gw_h1_write_body(struct gw_h1_stream *s, struct gw_buf *out, struct gw_buf *body,
                             bool end) GW_MUST_CHECK;
/* Appends a whole answer that ends the connection; body is empty afterwards. */
void gw_h1_write_refusal(struct gw_http1 *h, struct gw_head *head, struct gw_buf *body,
                         bool head_request);

#endif
