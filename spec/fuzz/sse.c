/* Event streams: the scanner with vectors against the byte machine, whole and cut, and each block
 * parsed, written and changed. Invariant: blocks and rest are the bytes that came in; an event that
 * was changed is read again as what it was made. */
#include "sse/event.h"
#include "sse/scan.h"
#include "support/fuzz.h"

typedef size_t next_fn(struct gw_sse_scan *scan, const char *bytes, size_t len, bool *ended);

/* Where blocks end, as offsets; a late LF belongs to the block before it. */
struct cuts {
    size_t *at, count;
    size_t total;
};

static void scan_piece(struct gw_sse_scan *scan, next_fn *next, struct gw_slice piece, bool *fresh,
                       struct cuts *out)
{
    while (piece.len) {
        bool ended = false;
        size_t n = *fresh ? gw_sse_scan_skip_lf(scan, piece.ptr, piece.len) : 0;
        if (n && out->count)
            out->at[out->count - 1] += n;
        if (!n) {
            n = next(scan, piece.ptr, piece.len, &ended);
            FUZZ_CHECK(n > 0 && n <= piece.len, "%zu of %zu", n, piece.len);
            FUZZ_CHECK(ended || n == piece.len, "stopped in the middle");
            *fresh = ended;
        }
        out->total += n;
        if (ended)
            out->at[out->count++] = out->total;
        piece = gw_slice_of(piece.ptr + n, piece.len - n);
    }
}

static struct cuts scan_all(struct gw_slice text, next_fn *next, unsigned pieces, bool *boundary)
{
    struct gw_sse_scan scan;
    struct cuts cuts = {.at = calloc(text.len + 1, sizeof(size_t))};
    uint64_t seed = fuzz_seed((const uint8_t *)text.ptr, text.len);
    bool fresh = true;
    gw_sse_scan_init(&scan);
    for (size_t at = 0; at < text.len;) {
        size_t n = pieces ? 1 + fuzz_next(&seed) % pieces : text.len;
        n = n < text.len - at ? n : text.len - at;
        char *exact = fuzz_exact(text.ptr + at, n);
        scan_piece(&scan, next, gw_slice_of(exact, n), &fresh, &cuts);
        free(exact);
        at += n;
    }
    FUZZ_CHECK(cuts.total == text.len, "bytes are missing");
    *boundary = gw_sse_scan_at_boundary(&scan);
    return cuts;
}

static void same_cuts(const struct cuts *a, const struct cuts *b, const char *how)
{
    FUZZ_CHECK(a->count == b->count, "%s: %zu and %zu blocks", how, a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        FUZZ_CHECK(a->at[i] == b->at[i], "%s: block %zu", how, i);
}

/* Byte mode looks at the same bytes. */
static bool run_bytes(struct gw_slice text, unsigned pieces)
{
    struct gw_sse_scan run, last;
    uint64_t seed = fuzz_seed((const uint8_t *)text.ptr, text.len);
    gw_sse_scan_init(&run);
    gw_sse_scan_init(&last);
    for (size_t at = 0; at < text.len;) {
        size_t n = pieces ? 1 + fuzz_next(&seed) % pieces : text.len;
        n = n < text.len - at ? n : text.len - at;
        gw_sse_scan_run(&run, text.ptr + at, n);
        FUZZ_CHECK(gw_sse_scan_last(&last, text.ptr + at, n) <= n, "a boundary beyond");
        FUZZ_CHECK(run.state == last.state, "run and last differ");
        at += n;
    }
    return gw_sse_scan_at_boundary(&run);
}

static void copy_data(struct gw_event *event, struct fuzz_text *out)
{
    size_t len = gw_event_data_len(event);
    char *text = fuzz_exact("", 0);
    text = realloc(text, len ? len : 1);
    gw_event_data_copy(event, text);
    fuzz_put(out, text, len);
    free(text);
}

/* Changes its id, and reads what was written. */
static void change(struct gw_slice raw)
{
    struct gw_event event, again;
    struct gw_buf out;
    struct fuzz_text before = {0}, after = {0};
    gw_buf_init(&out);
    gw_event_init(&event, raw);
    gw_event_parse(&event);
    copy_data(&event, &before);
    FUZZ_CHECK(gw_event_set_id(&event, GW_SLICE("7")) == GW_OK, "id");
    gw_event_write(&event, &out);
    size_t len = gw_buf_len(&out);
    char *text = fuzz_exact(gw_buf_linear(&out, len).ptr, len);
    gw_event_init(&again, gw_slice_of(text, len));
    gw_event_parse(&again);
    copy_data(&again, &after);
    FUZZ_CHECK(gw_slice_eq(again.id, GW_SLICE("7")), "id is lost");
    FUZZ_CHECK(gw_slice_eq(again.type, event.type), "type is lost");
    FUZZ_CHECK(gw_slice_eq(fuzz_slice(&before), fuzz_slice(&after)), "data is lost");
    FUZZ_CHECK((again.has & GW_EVENT_DATA) == (event.has & GW_EVENT_DATA), "data or not");
    FUZZ_CHECK(again.retry_ms == event.retry_ms, "retry is lost");
    free(text);
    fuzz_free(&before);
    fuzz_free(&after);
    gw_buf_clear(&out);
}

static void pass(struct gw_slice raw)
{
    struct gw_event event;
    struct gw_buf out;
    gw_buf_init(&out);
    gw_event_init(&event, raw);
    gw_event_parse(&event);
    size_t comment = gw_event_comment_len(&event);
    FUZZ_CHECK(comment <= raw.len, "a comment of %zu bytes", comment);
    gw_event_write(&event, &out);
    FUZZ_CHECK(gw_slice_eq(gw_buf_linear(&out, gw_buf_len(&out)), raw), "other bytes");
    gw_buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned pieces[] = {1, 5, 40};
    struct gw_slice text = gw_slice_of((const char *)data, size);
    bool whole_end, end;
    if (size > 16384)
        return 0;
    struct cuts whole = scan_all(text, gw_sse_scan_next, 0, &whole_end);
    struct cuts bytewise = scan_all(text, gw_sse_scan_next_bytewise, 0, &end);
    same_cuts(&whole, &bytewise, "bytewise");
    free(bytewise.at);
    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct cuts cut = scan_all(text, gw_sse_scan_next, pieces[i], &end);
        same_cuts(&whole, &cut, "cut");
        FUZZ_CHECK(end == whole_end, "the boundary by cut");
        FUZZ_CHECK(run_bytes(text, pieces[i]) == run_bytes(text, 0), "byte mode by cut");
        free(cut.at);
    }
    for (size_t i = 0, from = 0; i < whole.count; from = whole.at[i++]) {
        char *exact = fuzz_exact(text.ptr + from, whole.at[i] - from);
        pass(gw_slice_of(exact, whole.at[i] - from));
        change(gw_slice_of(exact, whole.at[i] - from));
        free(exact);
    }
    free(whole.at);
    return 0;
}
