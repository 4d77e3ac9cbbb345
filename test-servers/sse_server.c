/* sse_server: an origin of event streams and plain answers for tests, demos and load.
 * Run by specs, `make run` and the benchmarks; README.md lists what a request may ask for.
 * Invariant: a connection
 * is freed in conn_run or by its own timer, as the last act of a callback; all else marks it. */
#include "common_events.h"
#include "common_pace.h"

#include <errno.h>
#include <ev.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUT_HIGH  (64 * 1024)  /* a stream makes no more while this much waits to be sent */
#define OUT_BATCH (16 * 1024)  /* an unpaced stream sends in pieces of about this */
#define TURN_MAX  (256 * 1024) /* bytes of one unpaced stream before others have their turn */
#define IN_HIGH   (64 * 1024)  /* pipelined bytes kept while an answer is under way */
#define LINGER_S  1.0

enum conn_state { CONN_HEAD, CONN_BODY, CONN_DELAY, CONN_STREAM, CONN_CLOSING, CONN_LINGER };
enum framing { FRAMING_CHUNKED, FRAMING_LENGTH, FRAMING_CLOSE };

struct conn {
    ev_io io;
    ev_timer timer; /* CONN_DELAY: before the head; CONN_STREAM: a pause; CONN_LINGER: patience */
    int fd;
    enum conn_state state;
    bool keep_alive, delayed, broken, refused, reset, eof, no_body;
    struct ts_buf in, out;
    struct ts_request req;
    struct ts_body body;
    struct stream *stream;
};

struct stream {
    struct ts_paced paced; /* first: on_turn casts */
    struct conn *conn;
    enum framing framing;
    struct ts_source source;
    uint64_t owed; /* events that are due; TS_NONE = as many as fit */
    bool paused;
};

static struct {
    struct ev_loop *loop;
    const char *name, *page, *service;
    int listen_fd;
    ev_io accept_io;
    ev_timer accept_retry;
    uint64_t connections, open_connections, requests;
    uint64_t streams, open_streams, ended, aborted, died, events;
} server = {.name = "sse", .service = "all"};

static void stream_free(struct stream *s);
static void conn_run(struct conn *c);

static void conn_close(struct conn *c)
{
    if (c->stream) {
        server.aborted += c->state == CONN_STREAM;
        stream_free(c->stream);
    }
    ev_io_stop(server.loop, &c->io);
    ev_timer_stop(server.loop, &c->timer);
    if (c->reset)
        ts_close_reset(c->fd);
    else
        close(c->fd);
    ts_buf_fini(&c->in);
    ts_buf_fini(&c->out);
    ts_request_fini(&c->req);
    ts_body_fini(&c->body);
    free(c);
    server.open_connections--;
}

static void conn_flush(struct conn *c)
{
    if (c->out.len > 0 && !c->broken && !ts_send(c->fd, &c->out))
        c->broken = true;
}

static void conn_timer(struct conn *c, double seconds)
{
    ev_timer_stop(server.loop, &c->timer);
    ev_timer_set(&c->timer, seconds, 0);
    ev_timer_start(server.loop, &c->timer);
}

static bool stream_wants_turn(const struct stream *s)
{
    const struct ts_source *src = &s->source;

    return !s->paused && !src->ended && !src->dead && (src->pend.len > src->pend_off || s->owed);
}

static void conn_watch(struct conn *c)
{
    int want = 0;

    if (!c->eof && (c->in.len < IN_HIGH || c->state <= CONN_BODY))
        want |= EV_READ;
    if (c->out.len > 0 || (c->state == CONN_STREAM && stream_wants_turn(c->stream)))
        want |= EV_WRITE;
    if (want == (c->io.events & (EV_READ | EV_WRITE)))
        return;
    ev_io_stop(server.loop, &c->io);
    ev_io_set(&c->io, c->fd, want);
    ev_io_start(server.loop, &c->io);
}

/* The answer is complete: the connection serves the next request, or ends. */
static void conn_finish(struct conn *c)
{
    c->state = c->keep_alive ? CONN_HEAD : CONN_CLOSING;
    c->delayed = false;
    ts_request_fini(&c->req);
    ts_body_fini(&c->body);
}

/* Streams. */

static void stream_pause(struct stream *s, uint64_t ms)
{
    if (ms == 0)
        return;
    s->paused = true;
    conn_timer(s->conn, (double)ms / 1000);
}

/* Puts the next piece into the connection's output, framed; returns its length. */
static size_t stream_put_piece(struct stream *s)
{
    struct ts_buf *out = &s->conn->out;
    size_t n, announced;
    const char *bytes = ts_source_take(&s->source, &n, &announced);
    bool chunk = s->framing == FRAMING_CHUNKED && announced > 0;

    if (chunk)
        ts_buf_printf(out, "%zx\r\n", announced);
    ts_buf_append(out, bytes, n);
    if (chunk && n == announced)
        ts_buf_puts(out, "\r\n");
    return n;
}

static bool stream_fill(struct stream *s)
{
    bool due = s->owed > 0;
    uint64_t before = s->source.sent;
    bool filled = ts_source_fill(&s->source, &due);

    if (s->source.sent == before)
        return filled;
    server.events++;
    if (s->owed != TS_NONE)
        s->owed--;
    return filled;
}

/* The stream ends well, or dies as it was told to; it is freed. */
static void stream_end(struct stream *s)
{
    struct conn *c = s->conn;

    if (s->source.dead) {
        server.died++;
        c->reset = s->source.opt.reset;
        c->keep_alive = false;
    } else {
        server.ended++;
        if (s->framing == FRAMING_CHUNKED)
            ts_buf_puts(&c->out, "0\r\n\r\n");
    }
    stream_free(s);
    c->stream = NULL;
    conn_finish(c);
}

/* Makes and sends what is due, within a turn's bound. Paced streams send each event at once,
 * unpaced ones in batches. May end and free the stream, never the connection. */
static void stream_pump(struct stream *s)
{
    struct conn *c = s->conn;
    struct ts_source *src = &s->source;
    bool batch = s->owed == TS_NONE && !src->opt.splitall && src->splits_len == 0;
    size_t turn = 0;

    while (!s->paused && !src->dead && !c->broken && c->out.len < OUT_HIGH && turn < TURN_MAX) {
        if (!stream_fill(s))
            break;
        turn += stream_put_piece(s) + 1;
        if (!batch || c->out.len >= OUT_BATCH)
            conn_flush(c);
        if (ts_source_at_split(src))
            stream_pause(s, src->opt.pause);
    }
    if (src->dead || (src->ended && !s->paused))
        stream_end(s);
    conn_flush(c);
}

static void on_turn(struct ts_paced *member)
{
    struct stream *s = (struct stream *)member;
    struct conn *c = s->conn;

    s->owed++;
    if (s->paused || c->out.len > 0)
        return;
    stream_pump(s);
    conn_run(c);
}

static struct stream *stream_new(struct conn *c)
{
    struct stream *s = calloc(1, sizeof *s);

    if (!s)
        abort();
    s->conn = c;
    server.open_streams++;
    server.streams++;
    return s;
}

static void stream_free(struct stream *s)
{
    ts_pace_leave(&s->paced);
    ts_source_fini(&s->source);
    free(s);
    server.open_streams--;
}

/* Answers. */

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Status";
}

static enum framing framing_of(const struct conn *c, enum framing framing)
{
    const char *wish = ts_request_param(&c->req, "framing");

    if (wish && strcmp(wish, "chunked") == 0)
        framing = FRAMING_CHUNKED;
    else if (wish && strcmp(wish, "length") == 0)
        framing = FRAMING_LENGTH;
    else if (wish && strcmp(wish, "close") == 0)
        framing = FRAMING_CLOSE;
    if (framing == FRAMING_CHUNKED && c->req.minor == 0)
        framing = FRAMING_CLOSE;
    return framing;
}

static void put_framing(struct conn *c, int status, enum framing framing, uint64_t length)
{
    struct ts_buf *out = &c->out;

    if (framing == FRAMING_CLOSE)
        c->keep_alive = false;
    if (status >= 200 && status != 204) {
        if (framing == FRAMING_CHUNKED)
            ts_buf_puts(out, "Transfer-Encoding: chunked\r\n");
        else if (framing == FRAMING_LENGTH)
            ts_buf_printf(out, "Content-Length: %lu\r\n", length);
    }
    if (!c->keep_alive)
        ts_buf_puts(out, "Connection: close\r\n");
    else if (c->req.minor == 0)
        ts_buf_puts(out, "Connection: keep-alive\r\n");
    ts_buf_puts(out, "\r\n");
}

/* The head of an answer; the query's status=, ctype= and set= go before what the caller wants. */
static void put_head(struct conn *c, int status, const char *ctype, enum framing framing,
                     uint64_t length)
{
    const char *wish = ts_request_param(&c->req, "status");
    uint64_t number;

    if (wish && ts_parse_u64(wish, &number) && number >= 200 && number <= 999 && status == 200)
        status = (int)number;
    if (ts_request_param(&c->req, "ctype"))
        ctype = ts_request_param(&c->req, "ctype");
    c->no_body =
        status == 204 || status == 304 || (c->req.method && strcmp(c->req.method, "HEAD") == 0);
    ts_buf_printf(&c->out, "HTTP/1.1 %d %s\r\nX-Server: %s\r\n", status, reason_of(status),
                  server.name);
    if (*ctype)
        ts_buf_printf(&c->out, "Content-Type: %s\r\n", ctype);
    for (size_t i = 0; i < c->req.params_len; i++)
        if (strcmp(c->req.params[i].name, "set") == 0)
            ts_buf_printf(&c->out, "%s\r\n", c->req.params[i].value);
    put_framing(c, status, framing, length);
}

/* A whole answer; takes the body. */
static void reply(struct conn *c, int status, const char *ctype, struct ts_buf *body)
{
    enum framing framing = framing_of(c, FRAMING_LENGTH);

    put_head(c, status, ctype, framing, body->len);
    if (!c->no_body) {
        if (framing == FRAMING_CHUNKED && body->len > 0)
            ts_buf_printf(&c->out, "%zx\r\n", body->len);
        ts_buf_append(&c->out, body->data, body->len);
        if (framing == FRAMING_CHUNKED)
            ts_buf_puts(&c->out, body->len > 0 ? "\r\n0\r\n\r\n" : "0\r\n\r\n");
    }
    ts_buf_fini(body);
    conn_finish(c);
}

static void reply_error(struct conn *c, int status, const char *why, const char *what)
{
    struct ts_buf body = {0};
    struct ts_buf text = {0};

    ts_buf_printf(&text, "%s%s", why, what);
    ts_buf_puts(&body, "{\"error\":");
    ts_buf_json(&body, text.data, text.len);
    ts_buf_puts(&body, ",\"server\":");
    ts_buf_json(&body, server.name, strlen(server.name));
    ts_buf_puts(&body, "}\n");
    ts_buf_fini(&text);
    reply(c, status, "application/json", &body);
}

static void stream_go(struct stream *s)
{
    if (s->source.opt.rate > 0)
        ts_pace_join(ts_pace_get(server.loop, s->source.opt.rate, on_turn), &s->paced);
    else
        s->owed = TS_NONE;
    stream_pump(s);
}

/* Sends the head and begins. A stream without a known length is not framed by one. */
static void stream_start(struct stream *s, const char *ctype)
{
    struct conn *c = s->conn;
    const struct ts_options *opt = &s->source.opt;
    uint64_t length = 0;

    if (s->framing == FRAMING_LENGTH)
        length = opt->length != TS_NONE ? opt->length : ts_source_length(&s->source);
    put_head(c, 200, ctype, s->framing, length);
    if (c->no_body) {
        stream_free(s);
        conn_finish(c);
        return;
    }
    ts_request_fini(&c->req); /* a head is large, and streams are many and long */
    c->stream = s;
    c->state = CONN_STREAM;
    conn_flush(c);
    if (opt->firstdelay > 0)
        stream_pause(s, opt->firstdelay);
    else
        stream_go(s);
}

/* An error status without a media type is an ordinary answer, as real backends give it. */
static bool is_plain_error(const struct ts_request *req)
{
    const char *status = ts_request_param(req, "status");

    return status && strcmp(status, "200") != 0 && !ts_request_param(req, "ctype");
}

static bool length_is_known(const struct ts_options *opt)
{
    return opt->count != TS_NONE || opt->until != TS_NONE || opt->length != TS_NONE;
}

static void serve_source(struct conn *c, enum ts_kind kind, const char *user, const char *ctype)
{
    struct stream *s = stream_new(c);
    const char *wrong = ts_source_init(&s->source, kind, server.name, user, &c->req);

    s->framing = framing_of(c, kind == TS_BYTES ? FRAMING_LENGTH : FRAMING_CHUNKED);
    if (!wrong && s->framing == FRAMING_LENGTH && !length_is_known(&s->source.opt))
        wrong = "framing (length needs count, until or length)";
    if (!wrong && !ts_source_is_spent(&s->source)) {
        stream_start(s, ctype);
        return;
    }
    stream_free(s);
    if (wrong)
        reply_error(c, 400, "bad value for ", wrong);
    else
        reply_error(c, 204, "", ""); /* tells an EventSource not to come back */
}

static void serve_stream(struct conn *c, enum ts_kind kind, const char *user)
{
    if (is_plain_error(&c->req))
        reply_error(c, 200, "status ", ts_request_param(&c->req, "status"));
    else
        serve_source(c, kind, user, "text/event-stream");
}

static void serve_events(struct conn *c)
{
    serve_stream(c, TS_TURNS, NULL);
}

static void serve_notifications(struct conn *c)
{
    const char *user = c->req.path + strlen("/notifications/");

    if (*user)
        serve_stream(c, TS_NOTIFICATIONS, user);
    else
        reply_error(c, 404, "no user in ", c->req.path);
}

static void serve_bytes(struct conn *c)
{
    serve_source(c, TS_BYTES, NULL, "application/octet-stream");
}

static void serve_health(struct conn *c)
{
    struct ts_buf body = {0};

    ts_buf_puts(&body, "{\"status\":\"ok\",\"server\":");
    ts_buf_json(&body, server.name, strlen(server.name));
    ts_buf_puts(&body, "}\n");
    reply(c, 200, "application/json", &body);
}

static void serve_json(struct conn *c)
{
    struct ts_buf body = {0};

    ts_buf_puts(&body, "{\"message\":\"hello\",\"server\":");
    ts_buf_json(&body, server.name, strlen(server.name));
    ts_buf_printf(&body, ",\"request\":%lu}\n", server.requests);
    reply(c, 200, "application/json", &body);
}

static void serve_page(struct conn *c)
{
    struct ts_buf body = {0};

    if (ts_buf_read_file(&body, server.page)) {
        reply(c, 200, "text/html; charset=utf-8", &body);
        return;
    }
    ts_buf_fini(&body);
    reply_error(c, 404, "cannot read the page: ", strerror(errno));
}

static void serve_stats(struct conn *c)
{
    struct ts_buf body = {0};

    ts_buf_puts(&body, "{\"server\":");
    ts_buf_json(&body, server.name, strlen(server.name));
    ts_buf_printf(&body, ",\"connections\":%lu,\"open_connections\":%lu,\"requests\":%lu",
                  server.connections, server.open_connections, server.requests);
    ts_buf_printf(&body, ",\"streams\":%lu,\"open_streams\":%lu,\"ended\":%lu", server.streams,
                  server.open_streams, server.ended);
    ts_buf_printf(&body, ",\"aborted\":%lu,\"died\":%lu,\"events\":%lu}\n", server.aborted,
                  server.died, server.events);
    reply(c, 200, "application/json", &body);
}

static void put_echo_fields(struct ts_buf *body, const struct ts_request *req)
{
    for (size_t i = 0; i < req->fields_len; i++) {
        const struct ts_pair *field = &req->fields[i];
        ts_buf_puts(body, i > 0 ? ",[" : "[");
        ts_buf_json(body, field->name, strlen(field->name));
        ts_buf_puts(body, ",");
        ts_buf_json(body, field->value, strlen(field->value));
        ts_buf_puts(body, "]");
    }
}

static void serve_echo(struct conn *c)
{
    const struct ts_request *req = &c->req;
    struct ts_buf body = {0};

    ts_buf_puts(&body, "{\"server\":");
    ts_buf_json(&body, server.name, strlen(server.name));
    ts_buf_puts(&body, ",\"method\":");
    ts_buf_json(&body, req->method, strlen(req->method));
    ts_buf_puts(&body, ",\"target\":");
    ts_buf_json(&body, req->target, strlen(req->target));
    ts_buf_printf(&body, ",\"version\":\"%s\",\"headers\":[", req->version);
    put_echo_fields(&body, req);
    ts_buf_printf(&body, "],\"body_length\":%lu,\"body_fnv1a\":\"%016lx\"", c->body.total,
                  c->body.fnv1a);
    if (c->body.total < TS_BODY_KEPT) {
        ts_buf_puts(&body, ",\"body\":");
        ts_buf_json(&body, c->body.kept.data, c->body.kept.len);
    }
    ts_buf_puts(&body, "}\n");
    reply(c, 200, "application/json", &body);
}

static const struct route {
    const char *path; /* a slash at the end stands for any rest */
    const char *service;
    void (*serve)(struct conn *c);
} routes[] = {
    {"/events", "events", serve_events}, {"/notifications/", "notifications", serve_notifications},
    {"/health", "", serve_health},       {"/json", "", serve_json},
    {"/bytes", "", serve_bytes},         {"/echo", "", serve_echo},
    {"/echo/", "", serve_echo},          {"/stats", "", serve_stats},
};

static const struct route *route_of(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const struct route *r = &routes[i];
        size_t n = strlen(r->path);
        bool offered = !*r->service || strcmp(server.service, "all") == 0 ||
                       strcmp(server.service, r->service) == 0;
        bool fits =
            r->path[n - 1] == '/' ? strncmp(path, r->path, n) == 0 : strcmp(path, r->path) == 0;
        if (offered && fits)
            return r;
    }
    return NULL;
}

static void conn_answer(struct conn *c)
{
    const char *delay = ts_request_param(&c->req, "delay");
    uint64_t ms = 0;

    if (delay && !c->delayed && ts_parse_u64(delay, &ms) && ms > 0) {
        c->delayed = true;
        c->state = CONN_DELAY;
        conn_timer(c, (double)ms / 1000);
        return;
    }
    const struct route *r = route_of(c->req.path);
    if (r)
        r->serve(c);
    else if (strcmp(c->req.path, "/") == 0)
        serve_page(c);
    else
        reply_error(c, 404, "nothing at ", c->req.path);
}

/* Connections. */

static void conn_refuse(struct conn *c, int status)
{
    ts_request_fini(&c->req);
    c->keep_alive = false;
    c->refused = true;
    reply_error(c, status, "request refused", "");
}

/* Both return false when more bytes are needed. */
static bool conn_take_head(struct conn *c)
{
    ssize_t n = ts_request_parse(&c->req, c->in.data, c->in.len);

    if (n < 0)
        conn_refuse(c, (int)-n);
    if (n <= 0)
        return n < 0;
    ts_buf_consume(&c->in, (size_t)n);
    ts_body_init(&c->body, &c->req);
    c->keep_alive = c->req.keep_alive;
    if (c->req.expect_continue && c->body.state != TS_BODY_DONE)
        ts_buf_puts(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
    c->state = CONN_BODY;
    return true;
}

static bool conn_take_body(struct conn *c)
{
    ssize_t n = ts_body_feed(&c->body, c->in.data, c->in.len);

    if (n < 0) {
        conn_refuse(c, 400);
        return true;
    }
    ts_buf_consume(&c->in, (size_t)n);
    if (c->body.state != TS_BODY_DONE)
        return false;
    server.requests++;
    conn_answer(c);
    return true;
}

/* The answer is out: closes, after a refusal in stages so that a reset can't destroy it.
 * True when the connection is gone. */
static bool conn_depart(struct conn *c)
{
    if (c->state == CONN_CLOSING && c->refused && !c->eof) {
        shutdown(c->fd, SHUT_WR);
        c->state = CONN_LINGER;
        conn_timer(c, LINGER_S);
        return false;
    }
    if (c->state == CONN_LINGER && !c->eof)
        return false;
    conn_close(c);
    return true;
}

/* Goes on with whatever the connection can do now. Every callback ends here. */
static void conn_run(struct conn *c)
{
    bool more = true;

    while (more && !c->broken) {
        if (c->state == CONN_HEAD)
            more = conn_take_head(c);
        else if (c->state == CONN_BODY)
            more = conn_take_body(c);
        else
            more = false;
    }
    conn_flush(c);
    if (c->broken) {
        conn_close(c);
        return;
    }
    if (c->state >= CONN_CLOSING && c->out.len == 0 && conn_depart(c))
        return;
    conn_watch(c);
}

static void on_conn_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct conn *c = w->data;

    (void)loop;
    (void)revents;
    if (c->state == CONN_LINGER) {
        conn_close(c);
        return;
    }
    if (c->state == CONN_DELAY) {
        conn_answer(c);
    } else if (c->state == CONN_STREAM) {
        c->stream->paused = false;
        if (c->stream->source.prefaced)
            stream_pump(c->stream);
        else
            stream_go(c->stream);
    }
    conn_run(c);
}

/* A client that leaves takes its stream with it; an answer on its way is still sent. */
static void conn_eof(struct conn *c)
{
    c->eof = true;
    if (c->state == CONN_HEAD && c->out.len > 0)
        c->state = CONN_CLOSING;
    if (c->state < CONN_CLOSING)
        c->broken = true;
}

static void conn_read(struct conn *c)
{
    static char block[64 * 1024];
    ssize_t n = recv(c->fd, block, sizeof block, 0);

    if (n > 0 && c->state < CONN_CLOSING)
        ts_buf_append(&c->in, block, (size_t)n);
    else if (n == 0)
        conn_eof(c);
    else if (n < 0 && errno != EAGAIN && errno != EINTR)
        c->broken = true;
}

static void on_conn(struct ev_loop *loop, ev_io *w, int revents)
{
    struct conn *c = w->data;

    (void)loop;
    if (revents & EV_READ)
        conn_read(c);
    if (revents & EV_WRITE) {
        conn_flush(c);
        if (c->state == CONN_STREAM && !c->broken)
            stream_pump(c->stream);
    }
    conn_run(c);
}

static void conn_new(int fd)
{
    struct conn *c = calloc(1, sizeof *c);

    if (!c)
        abort();
    c->fd = fd;
    ev_io_init(&c->io, on_conn, fd, EV_READ);
    ev_init(&c->timer, on_conn_timer);
    c->io.data = c->timer.data = c;
    ev_io_start(server.loop, &c->io);
    server.connections++;
    server.open_connections++;
}

static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)revents;
    for (int i = 0; i < 64; i++) {
        int fd = ts_accept(server.listen_fd);
        if (fd >= 0) {
            conn_new(fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE) {
            ev_io_stop(loop, w); /* out of descriptors: let some close first */
            ev_timer_again(loop, &server.accept_retry);
        }
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

static void on_accept_retry(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)revents;
    ev_timer_stop(loop, w);
    ev_io_start(loop, &server.accept_io);
}

static const char usage[] = "usage: sse_server [--port N] [--host A] [--name NAME] [--page FILE]\n"
                            "                  [--service all|events|notifications]\n";

static const char *default_page(void)
{
    static char path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);

    path[n > 0 ? n : 0] = '\0';
    char *folder = dirname(path);
    memmove(path, folder, strlen(folder) + 1);
    strcat(path, "/../test-servers/demo.html");
    return path;
}

static bool is_service(const char *name)
{
    return strcmp(name, "all") == 0 || strcmp(name, "events") == 0 ||
           strcmp(name, "notifications") == 0;
}

static void parse_arguments(int argc, char **argv, const char **host, int *port)
{
    static const struct option longs[] = {
        {"port", required_argument, NULL, 'p'},    {"host", required_argument, NULL, 'h'},
        {"name", required_argument, NULL, 'n'},    {"page", required_argument, NULL, 'f'},
        {"service", required_argument, NULL, 's'}, {0},
    };
    uint64_t number = 0;
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 'h')
            *host = optarg;
        else if (c == 'n')
            server.name = optarg;
        else if (c == 'f')
            server.page = optarg;
        else if (c == 's')
            server.service = optarg;
        else if (c != 'p' || !ts_parse_u64(optarg, &number) || number > 65535)
            break;
        if (c == 'p')
            *port = (int)number;
    }
    if (c != -1 || optind < argc || !is_service(server.service)) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    const char *host = "127.0.0.1";
    int port = 3010;

    server.page = default_page();
    parse_arguments(argc, argv, &host, &port);
    ts_process_setup();
    server.loop = ev_default_loop(EVBACKEND_EPOLL);
    server.listen_fd = ts_listen(host, &port);
    if (server.listen_fd < 0 || !server.loop) {
        fprintf(stderr, "sse_server: cannot listen on %s:%d: %s\n", host, port, strerror(errno));
        return 3;
    }
    ev_io_init(&server.accept_io, on_accept, server.listen_fd, EV_READ);
    ev_io_start(server.loop, &server.accept_io);
    ev_timer_init(&server.accept_retry, on_accept_retry, 0, 0.1);
    printf("listening on %s:%d\n", host, port);
    ev_run(server.loop, 0);
    return 0;
}
