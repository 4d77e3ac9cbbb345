/* Requests on a client's connection: the whole input, cut in several ways, pipelined as it comes.
 * Invariant: what is understood does not depend on the cuts; each request that is accepted is one
 * that the strict reader finds in the same place, with the same body; the answers are well formed
 * and in order. */
#include "http/fields.h"
#include "http/http1.h"
#include "net/transport.h"
#include "support/reader.h"
#include "support/world.h"

enum { INPUT_MAX = 8192 };

/* What became of one connection. */
static struct story {
    struct fuzz_text said;          /* everything that was heard of it */
    struct fuzz_text bodies;        /* of the present request */
    struct fuzz_text out;           /* what the client got */
    unsigned accepted;              /* complete requests */
    bool head_only[INPUT_MAX / 16]; /* which of them were HEAD */
    size_t at;                      /* where in the input the next one begins */
    struct gw_slice input;
    bool check;
} * story;

static struct gw_head *head_of;

static void note(const char *what, int64_t n)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%s %lld\n", what, (long long)n);
    fuzz_put(&story->said, text, (size_t)len);
}

static void on_head(struct gw_stream *stream, struct gw_head *head)
{
    (void)stream;
    head_of = head;
    story->bodies.len = 0;
    fuzz_put_slice(&story->said, head->method);
    fuzz_put_slice(&story->said, head->path);
    fuzz_put_slice(&story->said, head->authority);
    note("length", head->length);
    for (unsigned i = 0; i < head->count; i++) {
        FUZZ_CHECK(gw_field_name_ok(head->fields[i].name), "a name");
        FUZZ_CHECK(gw_field_value_ok(head->fields[i].value), "a value");
        fuzz_put_slice(&story->said, head->fields[i].name);
        fuzz_put_slice(&story->said, head->fields[i].value);
    }
}

/* The strict reader must have found the same. */
static void compare(void)
{
    struct reader_message m;
    struct gw_slice rest = gw_slice_of(story->input.ptr + story->at, story->input.len - story->at);
    enum reader_result result = reader_request(rest, &m);
    FUZZ_CHECK(result == READER_OK, "accepted, but the reader says %d (%s)", result,
               m.why ? m.why : "");
    FUZZ_CHECK(gw_slice_eq(m.method, head_of->method), "method");
    FUZZ_CHECK(gw_slice_eq(fuzz_slice(&m.body), fuzz_slice(&story->bodies)), "body");
    FUZZ_CHECK(m.target.ptr[0] != '/' || gw_slice_eq(m.target, head_of->path), "target");
    story->at += m.size;
    fuzz_free(&m.body);
}

static void answer(struct gw_stream *stream)
{
    struct gw_arena arena;
    struct gw_head head;
    struct gw_buf body;
    gw_arena_init(&arena);
    gw_head_init(&head, &arena);
    gw_buf_init(&body);
    head.status = 200;
    head.has_body = true;
    head.length = 2;
    gw_buf_append(&body, "ok", 2);
    enum gw_err err = gw_stream_send_head(stream, &head);
    if (err == GW_OK)
        err = gw_stream_send(stream, &body, true);
    gw_buf_clear(&body);
    gw_arena_clear(&arena);
    note("answered", err);
}

static void on_body(struct gw_stream *stream, struct gw_buf *body, bool end)
{
    size_t n = gw_buf_len(body);
    fuzz_put_slice(&story->bodies, gw_buf_linear(body, n));
    gw_buf_clear(body);
    gw_stream_consumed(stream, n);
    if (!end)
        return;
    fuzz_put_slice(&story->said, fuzz_slice(&story->bodies));
    note("end", (int64_t)story->bodies.len);
    compare();
    story->head_only[story->accepted++] = gw_slice_eq(head_of->method, GW_SLICE("HEAD"));
    answer(stream);
}

static void on_drained(struct gw_stream *stream)
{
    (void)stream;
}

static void on_close(struct gw_stream *stream, enum gw_err why)
{
    (void)stream;
    note("close", why);
}

static const struct gw_stream_events stream_events = {
    .on_head = on_head, .on_body = on_body, .on_drained = on_drained, .on_close = on_close};

static enum gw_err on_stream(struct gw_codec *codec, struct gw_stream *stream)
{
    (void)codec;
    stream->events = &stream_events;
    return GW_OK;
}

static void on_refused(struct gw_codec *codec, enum gw_err why, struct gw_head *head,
                       struct gw_buf *body)
{
    (void)codec, (void)head, (void)body;
    note("refused", why);
}

static void on_gone(struct gw_codec *codec)
{
    (void)codec;
    note("gone", 0);
}

static const struct gw_codec_events codec_events = {
    .on_stream = on_stream, .on_refused = on_refused, .on_gone = on_gone};
static const struct gw_http_limits limits = {.max_header_bytes = 2048,
                                             .max_headers = 16,
                                             .max_body_bytes = 4096,
                                             .head_ms = 10000,
                                             .idle_ms = 20000,
                                             .body_ms = 10000,
                                             .write_ms = 10000,
                                             .linger_ms = 1000};

/* The answers: one for each request, and no byte beyond them but of one refusal. */
static void check_answers(void)
{
    struct gw_slice rest = fuzz_slice(&story->out);
    unsigned good = 0, others = 0;
    while (rest.len) {
        struct reader_message m;
        enum reader_result result = reader_response(rest, story->head_only[good], true, &m);
        FUZZ_CHECK(result == READER_OK, "an answer is not well formed: %.*s", (int)rest.len,
                   rest.ptr);
        good += m.status == 200;
        others += m.status >= 400;
        rest = gw_slice_of(rest.ptr + m.size, rest.len - m.size);
        fuzz_free(&m.body);
    }
    FUZZ_CHECK(good == story->accepted, "%u requests, %u answers", story->accepted, good);
    FUZZ_CHECK(others <= 1, "%u refusals", others);
}

/* pieces 0: all at once; else of 1 to so many bytes. */
static void run(struct story *to, struct gw_slice input, unsigned pieces)
{
    static struct gw_loop loop;
    uint64_t seed = fuzz_seed((const uint8_t *)input.ptr, input.len);
    story = to;
    *story = (struct story){.input = input};
    world_reset();
    FUZZ_CHECK(gw_loop_init(&loop), "no loop");
    struct gw_codec_host host = {.loop = &loop, .limits = &limits, .events = &codec_events};
    int fd = world_accept();
    struct world_socket *s = world_of(fd);
    (void)gw_http1_serve(&host, fd, NULL, &gw_tcp);
    for (size_t at = 0; at < input.len;) {
        size_t n = pieces ? 1 + fuzz_next(&seed) % pieces : input.len;
        n = n < input.len - at ? n : input.len - at;
        fuzz_put(&s->to, input.ptr + at, n);
        at += n;
        world_turn(&loop, 2);
        if (s->closed)
            break;
    }
    world_turn(&loop, 8);
    s->peer_fin = true;
    world_turn(&loop, 4);
    world_pass(&loop, 60000);
    fuzz_put(&story->out, s->from.ptr, s->from.len);
    world_check_empty(&loop);
    gw_loop_fini(&loop);
    check_answers();
}

static void free_story(struct story *s)
{
    fuzz_free(&s->said);
    fuzz_free(&s->bodies);
    fuzz_free(&s->out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct story whole, cut;
    struct gw_slice input = gw_slice_of((const char *)data, size);
    static const unsigned cuts[] = {1, 7};
    if (size == 0 || size > INPUT_MAX)
        return 0;
    run(&whole, input, 0);
    for (unsigned i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        run(&cut, input, cuts[i]);
        FUZZ_CHECK(gw_slice_eq(fuzz_slice(&whole.said), fuzz_slice(&cut.said)),
                   "cut in pieces of %u:\n%s\nwhole:\n%s", cuts[i], cut.said.ptr, whole.said.ptr);
        FUZZ_CHECK(gw_slice_eq(fuzz_slice(&whole.out), fuzz_slice(&cut.out)),
                   "answers by cut:\n%s\nwhole:\n%s", cut.out.ptr, whole.out.ptr);
        free_story(&cut);
    }
    free_story(&whole);
    return 0;
}
