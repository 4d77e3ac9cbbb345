/* Chunked bodies behind a good head, of a request and of an answer. Invariant: the server's side,
 * the client's side and the strict reader take the same body for complete, whatever the cuts; and
 * what comes behind it is no part of it. */
#include "http/http1.h"
#include "net/transport.h"
#include "support/reader.h"
#include "support/world.h"

enum { INPUT_MAX = 4096 };

static struct fuzz_text body;
static bool complete;

static void on_open(struct gw_stream *stream)
{
    (void)stream;
}

static void on_head(struct gw_stream *stream, struct gw_head *head)
{
    (void)stream;
    FUZZ_CHECK(head->has_body && head->length == GW_LENGTH_UNKNOWN, "no chunks?");
    body.len = 0;
    complete = false;
}

static void on_body(struct gw_stream *stream, struct gw_buf *bytes, bool end)
{
    size_t n = gw_buf_len(bytes);
    FUZZ_CHECK(!complete, "more behind the end");
    fuzz_put_slice(&body, gw_buf_linear(bytes, n));
    gw_buf_clear(bytes);
    gw_stream_consumed(stream, n);
    complete = end;
}

static void on_close(struct gw_stream *stream, enum gw_err why)
{
    (void)stream;
    FUZZ_CHECK(why != GW_OK || complete, "closed well, and not complete");
}

static const struct gw_stream_events stream_events = {.on_open = on_open,
                                                      .on_head = on_head,
                                                      .on_body = on_body,
                                                      .on_drained = on_open,
                                                      .on_close = on_close};

/* Only the first request counts, which is never answered. */
static enum gw_err on_stream(struct gw_codec *codec, struct gw_stream *stream)
{
    (void)codec;
    stream->events = &stream_events;
    return GW_OK;
}

static void on_gone(struct gw_codec *codec)
{
    (void)codec;
}

static const struct gw_codec_events codec_events = {
    .on_stream = on_stream, .on_idle = on_gone, .on_gone = on_gone};
static const struct gw_http_limits limits = {.max_header_bytes = 4 * INPUT_MAX,
                                             .max_headers = 1000};

static struct world_socket *serve(const struct gw_codec_host *host)
{
    int fd = world_accept();
    struct world_socket *s = world_of(fd);
    (void)gw_http1_serve(host, fd, NULL, &gw_tcp);
    fuzz_put_slice(&s->to,
                   GW_SLICE("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
    return s;
}

static struct world_socket *ask(const struct gw_codec_host *host)
{
    struct gw_addr addr;
    struct gw_head head;
    struct gw_arena arena;
    enum gw_err err;
    FUZZ_CHECK(gw_addr_parse(&addr, "127.0.0.1", 80), "address");
    struct gw_codec *codec = gw_http1_dial(host, &addr, 0, 0, &gw_tcp, &err);
    struct gw_stream *stream = codec->ops->open(codec, &stream_events, NULL);
    gw_arena_init(&arena);
    gw_head_init(&head, &arena);
    head.method = GW_SLICE("GET");
    head.path = GW_SLICE("/");
    head.authority = GW_SLICE("x");
    FUZZ_CHECK(gw_stream_send_head(stream, &head) == GW_OK, "head");
    FUZZ_CHECK(gw_stream_send(stream, &(struct gw_buf){0}, true) == GW_OK, "end");
    gw_arena_clear(&arena);
    world_turn(host->loop, 2);
    fuzz_put_slice(&world[0].to, GW_SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
    return &world[0];
}

static void run(struct gw_slice input, bool server, unsigned pieces)
{
    static struct gw_loop loop;
    uint64_t seed = fuzz_seed((const uint8_t *)input.ptr, input.len);
    world_reset();
    FUZZ_CHECK(gw_loop_init(&loop), "no loop");
    struct gw_codec_host host = {.loop = &loop, .limits = &limits, .events = &codec_events};
    struct world_socket *s = server ? serve(&host) : ask(&host);
    body.len = 0;
    complete = false;
    world_turn(&loop, 2);
    for (size_t at = 0; at < input.len && !s->closed && !complete;) {
        size_t n = pieces ? 1 + fuzz_next(&seed) % pieces : input.len;
        n = n < input.len - at ? n : input.len - at;
        fuzz_put(&s->to, input.ptr + at, n);
        at += n;
        world_turn(&loop, 2);
    }
    s->peer_rst = true;
    world_turn(&loop, 4);
    world_check_empty(&loop);
    gw_loop_fini(&loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned cuts[] = {0, 1, 6};
    struct gw_slice input = gw_slice_of((const char *)data, size);
    struct fuzz_text first = {0}, expected = {0};
    const char *why;
    size_t used;
    bool first_complete = false;
    if (size == 0 || size > INPUT_MAX)
        return 0;
    enum reader_result result = reader_chunked(input, &expected, &used, &why);
    for (unsigned i = 0; i < 2 * sizeof cuts / sizeof *cuts; i++) {
        run(input, i % 2, cuts[i / 2]);
        if (i == 0) {
            fuzz_put_slice(&first, fuzz_slice(&body));
            first_complete = complete;
        }
        FUZZ_CHECK(complete == first_complete, "complete or not, in way %u", i);
        FUZZ_CHECK(gw_slice_eq(fuzz_slice(&body), fuzz_slice(&first)), "the body, in way %u", i);
        if (!complete)
            continue;
        FUZZ_CHECK(result == READER_OK, "complete, but not for the reader: %s", why);
        FUZZ_CHECK(gw_slice_eq(fuzz_slice(&body), fuzz_slice(&expected)), "another body");
    }
    fuzz_free(&first);
    fuzz_free(&expected);
    return 0;
}
