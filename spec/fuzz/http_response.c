/* Answers of a backend, behind one byte that says what was asked: 'H' for HEAD, anything else for
 * GET. The connection ends behind the input. Invariant: what is understood does not depend on the
 * cuts; an answer that is taken for complete is one that the strict reader takes for complete, with
 * the same body; and no byte behind it is ever given to another stream. */
#include "http/fields.h"
#include "http/http1.h"
#include "net/transport.h"
#include "support/reader.h"
#include "support/world.h"

enum { INPUT_MAX = 8192, NOT_CLOSED = -1 };

static struct story {
    struct fuzz_text said; /* everything that was heard */
    struct fuzz_text body;
    unsigned heads;
    unsigned status;
    int why; /* of on_close */
    bool end, idle, gone;
} * story;

static void note(const char *what, int64_t n)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%s %lld\n", what, (long long)n);
    fuzz_put(&story->said, text, (size_t)len);
}

static void on_open(struct gw_stream *stream)
{
    (void)stream;
}

static void on_head(struct gw_stream *stream, struct gw_head *head)
{
    (void)stream;
    FUZZ_CHECK(story->status < 200, "a head behind the final one");
    story->heads++;
    story->status = head->status;
    note("status", head->status);
    note("length", head->length);
    note("body", head->has_body);
    for (unsigned i = 0; i < head->count; i++) {
        FUZZ_CHECK(gw_field_name_ok(head->fields[i].name), "a name");
        FUZZ_CHECK(gw_field_value_ok(head->fields[i].value), "a value");
        fuzz_put_slice(&story->said, head->fields[i].name);
        fuzz_put_slice(&story->said, head->fields[i].value);
    }
}

static void on_body(struct gw_stream *stream, struct gw_buf *body, bool end)
{
    size_t n = gw_buf_len(body);
    FUZZ_CHECK(story->status >= 200 && !story->end, "a body where there is none");
    fuzz_put_slice(&story->body, gw_buf_linear(body, n));
    gw_buf_clear(body);
    gw_stream_consumed(stream, n);
    story->end = end;
}

static void on_drained(struct gw_stream *stream)
{
    (void)stream;
}

static void on_close(struct gw_stream *stream, enum gw_err why)
{
    (void)stream;
    FUZZ_CHECK(story->why == NOT_CLOSED, "closed twice");
    story->why = why;
}

static const struct gw_stream_events stream_events = {.on_open = on_open,
                                                      .on_head = on_head,
                                                      .on_body = on_body,
                                                      .on_drained = on_drained,
                                                      .on_close = on_close};

static void on_idle(struct gw_codec *codec)
{
    (void)codec;
    FUZZ_CHECK(story->end && story->why == GW_OK, "idle before it is complete");
    story->idle = true;
}

static void on_gone(struct gw_codec *codec)
{
    (void)codec;
    story->gone = true;
}

static const struct gw_codec_events codec_events = {.on_idle = on_idle, .on_gone = on_gone};
static const struct gw_http_limits limits = {.max_header_bytes = 2048, .max_headers = 16};

static void ask(struct gw_stream *stream, bool head_only)
{
    struct gw_arena arena;
    struct gw_head head;
    struct gw_buf none;
    gw_arena_init(&arena);
    gw_head_init(&head, &arena);
    gw_buf_init(&none);
    head.method = head_only ? GW_SLICE("HEAD") : GW_SLICE("GET");
    head.path = GW_SLICE("/");
    head.authority = GW_SLICE("x");
    FUZZ_CHECK(gw_stream_send_head(stream, &head) == GW_OK, "head");
    FUZZ_CHECK(gw_stream_send(stream, &none, true) == GW_OK, "end");
    gw_arena_clear(&arena);
}

static void feed(struct gw_loop *loop, struct world_socket *s, struct gw_slice input,
                 unsigned pieces)
{
    uint64_t seed = fuzz_seed((const uint8_t *)input.ptr, input.len);
    for (size_t at = 0; at < input.len && !s->closed;) {
        size_t n = pieces ? 1 + fuzz_next(&seed) % pieces : input.len;
        n = n < input.len - at ? n : input.len - at;
        fuzz_put(&s->to, input.ptr + at, n);
        at += n;
        world_turn(loop, 2);
    }
    world_turn(loop, 4);
    s->peer_fin = true;
    world_turn(loop, 4);
}

static void run(struct story *to, struct gw_slice input, bool head_only, unsigned pieces)
{
    static struct gw_loop loop;
    struct gw_addr addr;
    enum gw_err err;
    story = to;
    *story = (struct story){.why = NOT_CLOSED};
    world_reset();
    FUZZ_CHECK(gw_loop_init(&loop) && gw_addr_parse(&addr, "127.0.0.1", 80), "begin");
    struct gw_codec_host host = {.loop = &loop, .limits = &limits, .events = &codec_events};
    struct gw_codec *codec = gw_http1_dial(&host, &addr, 1000, 0, &gw_tcp, &err);
    FUZZ_CHECK(codec, "dial");
    struct gw_stream *stream = codec->ops->open(codec, &stream_events, NULL);
    FUZZ_CHECK(stream, "open");
    world_turn(&loop, 2);
    ask(stream, head_only);
    world_turn(&loop, 2);
    feed(&loop, &world[0], input, pieces);
    FUZZ_CHECK(story->why != NOT_CLOSED, "the connection ended, and the stream did not");
    FUZZ_CHECK(story->gone, "the connection stays");
    world_pass(&loop, 5000);
    world_check_empty(&loop);
    gw_loop_fini(&loop);
    note("close", story->why);
    note("end", story->end);
    fuzz_put_slice(&story->said, fuzz_slice(&story->body));
}

/* What was taken for complete. */
static void compare(struct gw_slice rest, bool head_only)
{
    for (unsigned i = 1; i <= story->heads; i++) {
        struct reader_message m;
        enum reader_result result = reader_response(rest, head_only, true, &m);
        FUZZ_CHECK(result == READER_OK, "complete, but the reader says %d (%s)", result,
                   m.why ? m.why : "");
        FUZZ_CHECK((m.status >= 200) == (i == story->heads), "the final head");
        if (m.status >= 200)
            FUZZ_CHECK(gw_slice_eq(fuzz_slice(&m.body), fuzz_slice(&story->body)), "body");
        rest = gw_slice_of(rest.ptr + m.size, rest.len - m.size);
        fuzz_free(&m.body);
    }
    FUZZ_CHECK(!story->idle || rest.len == 0 || story->gone, "bytes are left over");
}

static void free_story(struct story *s)
{
    fuzz_free(&s->said);
    fuzz_free(&s->body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct story whole, cut;
    static const unsigned cuts[] = {1, 7};
    if (size < 2 || size > INPUT_MAX)
        return 0;
    bool head_only = data[0] == 'H';
    struct gw_slice input = gw_slice_of((const char *)data + 1, size - 1);
    run(&whole, input, head_only, 0);
    FUZZ_CHECK((whole.why == GW_OK) == whole.end, "an end and a break: %d %d", whole.why,
               whole.end);
    if (whole.end)
        compare(input, head_only);
    for (unsigned i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        run(&cut, input, head_only, cuts[i]);
        FUZZ_CHECK(gw_slice_eq(fuzz_slice(&whole.said), fuzz_slice(&cut.said)),
                   "cut in pieces of %u:\n%s\nwhole:\n%s", cuts[i], cut.said.ptr, whole.said.ptr);
        free_story(&cut);
    }
    free_story(&whole);
    return 0;
}
