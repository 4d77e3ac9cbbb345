/* One field of a JSON text: path, a zero byte, a value, a zero byte, the text. Invariant: what is
 * found is a piece of the text; what was put in is found again at its place, what was taken out is
 * not; and an edit leaves JSON behind. */
#include "base/buf.h"
#include "sse/json_field.h"
#include "support/fuzz.h"

static bool cut(struct gw_slice *rest, struct gw_slice *part)
{
    const char *zero = memchr(rest->ptr, 0, rest->len);
    if (!zero)
        return false;
    *part = gw_slice_of(rest->ptr, (size_t)(zero - rest->ptr));
    *rest = gw_slice_of(zero + 1, rest->len - part->len - 1);
    return true;
}

static bool is_json(struct gw_slice text)
{
    return gw_json_find(text, gw_slice_of("", 0)).type != GW_JSON_INVALID;
}

static void look(struct gw_slice text, struct gw_slice path)
{
    struct gw_json_field field = gw_json_find(text, path);
    if (field.type == GW_JSON_INVALID || field.type == GW_JSON_ABSENT) {
        FUZZ_CHECK(field.value.len == 0, "a value of nothing");
        return;
    }
    FUZZ_CHECK(field.value.ptr >= text.ptr &&
                   field.value.ptr + field.value.len <= text.ptr + text.len,
               "outside of the text");
    FUZZ_CHECK(gw_json_find(field.value, gw_slice_of("", 0)).type == field.type, "another type");
    if (field.type != GW_JSON_STRING)
        return;
    char *plain = malloc(field.value.len);
    size_t n = gw_json_unquote(field.value, plain);
    struct gw_buf quoted;
    gw_buf_init(&quoted);
    gw_json_quote(gw_slice_of(plain, n), &quoted);
    size_t len = gw_buf_len(&quoted);
    struct gw_slice again = gw_buf_linear(&quoted, len);
    char *twice = malloc(len);
    FUZZ_CHECK(gw_json_unquote(again, twice) == n && memcmp(plain, twice, n) == 0, "quoted");
    free(twice);
    gw_buf_clear(&quoted);
    free(plain);
}

static void put(struct gw_slice text, struct gw_slice path, struct gw_slice value)
{
    struct gw_buf out;
    gw_buf_init(&out);
    enum gw_err err = gw_json_edit(text, path, value, &out);
    size_t len = gw_buf_len(&out);
    if (err != GW_OK) {
        FUZZ_CHECK(len == 0, "an error, and an edit");
        return;
    }
    struct gw_slice now = gw_buf_linear(&out, len);
    FUZZ_CHECK(is_json(text) && is_json(value), "was no JSON");
    struct gw_json_field field = gw_json_find(now, path);
    FUZZ_CHECK(field.type != GW_JSON_INVALID || !is_json(now), "invalid now");
    FUZZ_CHECK(gw_slice_eq(gw_slice_trim(field.value), gw_slice_trim(value)) ||
                   field.value.len <= value.len,
               "another value");
    FUZZ_CHECK(field.type != GW_JSON_ABSENT, "absent now");
    gw_buf_clear(&out);
}

static void take(struct gw_slice text, struct gw_slice path)
{
    struct gw_buf out;
    struct gw_slice rest = path;
    gw_buf_init(&out);
    if (gw_json_edit(text, path, (struct gw_slice){0}, &out) == GW_OK) {
        struct gw_slice now = gw_buf_linear(&out, gw_buf_len(&out));
        FUZZ_CHECK(is_json(now), "no JSON is left: %.*s", (int)now.len, now.ptr);
        /* Of an array the next one takes its place. */
        const char *dot = memrchr(path.ptr, '.', path.len);
        if (dot)
            rest = gw_slice_of(dot + 1, (size_t)(path.ptr + path.len - dot - 1));
        bool number = rest.len && rest.ptr[0] >= '0' && rest.ptr[0] <= '9';
        FUZZ_CHECK(number || gw_json_find(now, path).type == GW_JSON_ABSENT, "it is still there");
    }
    gw_buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_slice rest = gw_slice_of((const char *)data, size), path, value;
    if (size > 8192 || !cut(&rest, &path) || !cut(&rest, &value))
        return 0;
    char *exact = fuzz_exact(rest.ptr, rest.len);
    struct gw_slice text = gw_slice_of(exact, rest.len);
    look(text, path);
    look(text, gw_slice_of("", 0));
    put(text, path, value);
    if (path.len)
        take(text, path);
    free(exact);
    FUZZ_CHECK(gw_buf_memory() == 0, "buffers are left");
    return 0;
}
