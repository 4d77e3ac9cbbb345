/* Makes bytes of heads and bodies for http1.c. Everything is serialised afresh: no byte of a head
 * that came in is copied as it was. Invariant: one message has exactly one way to tell its end, and
 * it is chosen here and nowhere else. */
#include "http/http1_impl.h"

#include "http/fields.h"

/* Writes behind the last byte of a buffer without a call per piece. */
struct sink {
    struct gw_buf *buf;
    char *at;
    size_t left, used;
};

static void sink_open(struct sink *sink, struct gw_buf *buf)
{
    sink->buf = buf;
    sink->used = 0;
    sink->at = gw_buf_reserve(buf, 512, &sink->left);
}

static void sink_close(struct sink *sink)
{
    gw_buf_commit(sink->buf, sink->used);
}

static void put(struct sink *sink, struct gw_slice text)
{
    while (text.len) {
        if (sink->left == 0) {
            sink_close(sink);
            sink_open(sink, sink->buf);
        }
        size_t n = text.len < sink->left ? text.len : sink->left;
        memcpy(sink->at, text.ptr, n);
        sink->at += n;
        sink->used += n;
        sink->left -= n;
        text.ptr += n;
        text.len -= n;
    }
}

static void put_str(struct sink *sink, const char *text)
{
    put(sink, gw_slice_str(text));
}

static void put_number(struct sink *sink, uint64_t value)
{
    char text[20], *at = text + sizeof(text);

    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    put(sink, gw_slice_of(at, (size_t)(text + sizeof(text) - at)));
}

/* In the spelling that HTTP/1 is used to: a few old clients compare names as they are written. */
static void put_name(struct sink *sink, struct gw_slice name)
{
    char text[64];
    bool first = true;

    while (name.len) {
        size_t n = name.len < sizeof(text) ? name.len : sizeof(text);
        for (size_t i = 0; i < n; i++) {
            char c = name.ptr[i];
            text[i] = first && c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
            first = c == '-';
        }
        put(sink, gw_slice_of(text, n));
        name = gw_slice_of(name.ptr + n, name.len - n);
    }
}

static void put_field(struct sink *sink, struct gw_slice name, struct gw_slice value)
{
    put_name(sink, name);
    put(sink, GW_SLICE(": "));
    put(sink, value);
    put(sink, GW_SLICE("\r\n"));
}

/* Host goes first and comes from the authority; the codec's own fields are never taken over. */
static void put_fields(struct sink *sink, const struct gw_head *head, bool request)
{
    for (unsigned i = 0; i < head->count; i++) {
        const struct gw_field *field = &head->fields[i];
        GW_DEBUG_CHECK(gw_field_name_ok(field->name) && gw_field_value_ok(field->value));
        if (gw_field_is_framing(field->name))
            continue;
        if (request && gw_slice_eq(field->name, GW_SLICE("host")))
            continue;
        put_field(sink, field->name, field->value);
    }
}

static void put_status_line(struct sink *sink, const struct gw_head *head)
{
    put(sink, GW_SLICE("HTTP/1.1 "));
    put_number(sink, head->status % 1000);
    put(sink, GW_SLICE(" "));
    put_str(sink, gw_status_reason(head->status));
    put(sink, GW_SLICE("\r\n"));
}

static void put_request_line(struct sink *sink, const struct gw_head *head)
{
    struct gw_slice host = head->authority;

    if (host.len == 0)
        host = gw_fields_get(head, GW_SLICE("host"));
    put(sink, head->method);
    put(sink, GW_SLICE(" "));
    put(sink, head->path);
    put(sink, GW_SLICE(" HTTP/1.1\r\nHost: "));
    put(sink, host);
    put(sink, GW_SLICE("\r\n"));
}

static void put_framing(struct sink *sink, const struct gw_h1_stream *s, bool with_length)
{
    if (s->tx == GW_H1_TX_CHUNKED)
        put_str(sink, "Transfer-Encoding: chunked\r\n");
    if (s->tx == GW_H1_TX_CHUNKED || !with_length)
        return;
    put(sink, GW_SLICE("Content-Length: "));
    put_number(sink, s->tx_left);
    put(sink, GW_SLICE("\r\n"));
}

/* Both afresh, and only in a request that may be answered by 101, and in that answer. */
static void put_upgrade(struct sink *sink, const struct gw_head *head)
{
    put_str(sink, "Connection: upgrade\r\n");
    put_field(sink, GW_SLICE("upgrade"), head->upgrade_to);
}

/* Informational answers have neither framing nor say in the connection's life. */
static void write_informational(struct gw_buf *out, const struct gw_head *head)
{
    struct sink sink;

    sink_open(&sink, out);
    put_status_line(&sink, head);
    put_fields(&sink, head, false);
    if (head->status == 101)
        put_upgrade(&sink, head);
    put(&sink, GW_SLICE("\r\n"));
    sink_close(&sink);
}

/* Content-Length where it is known, nothing where there is no body, else chunked. Returns false
 * when the length has to be told in another way. */
static bool frame_length(struct gw_h1_stream *s, const struct gw_head *head)
{
    s->tx = GW_H1_TX_LENGTH;
    s->tx_left = head->length > 0 ? (uint64_t)head->length : 0;
    if (head->length >= 0 || !head->has_body)
        return true;
    s->tx = GW_H1_TX_CHUNKED;
    return false;
}

/* How the answer ends (RFC 9112, 6.3). Returns whether Content-Length is written: for HEAD and 304
 * as given, since it is that of another answer. */
static bool frame_response(struct gw_h1_stream *s, const struct gw_head *head)
{
    bool known = frame_length(s, head);

    s->drop_body = s->head_request || head->status == 204 || head->status == 304;
    if (s->drop_body) {
        s->tx = GW_H1_TX_LENGTH;
        return head->status != 204 && head->status != 304 ? head->length >= 0
                                                          : head->status == 304 && head->length > 0;
    }
    if (!known && gw_h1_of(s->base.codec)->peer_minor == 0)
        s->tx = GW_H1_TX_CLOSE;
    return known;
}

static void write_response(struct gw_h1_stream *s, struct gw_buf *out, const struct gw_head *head)
{
    struct gw_http1 *h = gw_h1_of(s->base.codec);
    bool with_length = frame_response(s, head);
    struct sink sink;

    if (s->tx == GW_H1_TX_CLOSE || h->draining)
        h->keep = false;
    sink_open(&sink, out);
    put_status_line(&sink, head);
    put_fields(&sink, head, false);
    if (!gw_fields_has(head, GW_SLICE("date")))
        put_field(&sink, GW_SLICE("date"), gw_http_date());
    put_framing(&sink, s, with_length);
    if (!h->keep)
        put_str(&sink, "Connection: close\r\n");
    else if (h->peer_minor == 0)
        put_str(&sink, "Connection: keep-alive\r\n");
    put_str(&sink, "\r\n");
    sink_close(&sink);
}

/* RFC 9110, 8.6: methods that usually have a body say so when it is empty. */
static bool tells_empty(struct gw_slice method)
{
    return gw_slice_eq(method, GW_SLICE("POST")) || gw_slice_eq(method, GW_SLICE("PUT")) ||
           gw_slice_eq(method, GW_SLICE("PATCH"));
}

static void write_request(struct gw_h1_stream *s, struct gw_buf *out, const struct gw_head *head)
{
    bool with_length = frame_length(s, head) && (s->tx_left || tells_empty(head->method));
    struct sink sink;

    s->head_request = gw_slice_eq(head->method, GW_SLICE("HEAD"));
    sink_open(&sink, out);
    put_request_line(&sink, head);
    put_fields(&sink, head, true);
    put_framing(&sink, s, with_length);
    s->upgrade = head->upgrade && !head->has_body;
    if (s->upgrade)
        put_upgrade(&sink, head);
    else if (gw_h1_of(s->base.codec)->draining)
        put_str(&sink, "Connection: close\r\n");
    put_str(&sink, "\r\n");
    sink_close(&sink);
}

void gw_h1_write_head(struct gw_h1_stream *s, struct gw_buf *out, const struct gw_head *head)
{
    if (!gw_h1_of(s->base.codec)->server)
        write_request(s, out, head);
    else if (!gw_head_informational(head))
        write_response(s, out, head);
    else if (gw_h1_of(s->base.codec)->peer_minor > 0) /* HTTP/1.0 knows no 1xx (RFC 9110, 15.2) */
        write_informational(out, head);
}

void gw_h1_write_refusal(struct gw_http1 *h, struct gw_head *head, struct gw_buf *body,
                         bool head_request)
{
    struct gw_h1_stream s = {.base.codec = &h->codec, .head_request = head_request};

    head->length = (int64_t)gw_buf_len(body);
    h->keep = false;
    write_response(&s, &h->codec.conn->out, head);
    if (!head_request)
        gw_buf_move(&h->codec.conn->out, body);
}

static enum gw_err write_sized(struct gw_h1_stream *s, struct gw_buf *out, struct gw_buf *body,
                               bool end)
{
    if (gw_buf_len(body) > s->tx_left) {
        gw_buf_clear(body);
        return GW_ERR_BAD_RESPONSE;
    }
    s->tx_left -= gw_buf_len(body);
    gw_buf_move(out, body);
    return end && s->tx_left ? GW_ERR_TRUNCATED : GW_OK;
}

/* A size line, at the end of the text; returns where it begins. By hand, as each event has one. */
static char *size_line(char text[static GW_CHUNK_HEADROOM], size_t size)
{
    char *at = text + GW_CHUNK_HEADROOM;

    *--at = '\n';
    *--at = '\r';
    do {
        *--at = "0123456789abcdef"[size & 15];
        size >>= 4;
    } while (size);
    return at;
}

/* The size line goes into headroom and the line end into tailroom: one chunk stays one piece. */
static void write_chunk(struct gw_buf *out, struct gw_buf *body, bool end)
{
    if (!gw_buf_empty(body)) {
        char text[GW_CHUNK_HEADROOM];
        const char *line = size_line(text, gw_buf_len(body));
        gw_buf_prepend(body, line, (size_t)(text + GW_CHUNK_HEADROOM - line));
        gw_buf_append_tail(body, "\r\n", 2);
    }
    if (end)
        gw_buf_append_tail(body, "0\r\n\r\n", 5);
    gw_buf_move(out, body);
}

enum gw_err gw_h1_write_body(struct gw_h1_stream *s, struct gw_buf *out, struct gw_buf *body,
                             bool end)
{
    if (s->drop_body) {
        gw_buf_clear(body);
        return GW_OK;
    }
    if (s->tx == GW_H1_TX_LENGTH)
        return write_sized(s, out, body, end);
    if (s->tx == GW_H1_TX_CHUNKED)
        write_chunk(out, body, end);
    else
        gw_buf_move(out, body);
    return GW_OK;
}
