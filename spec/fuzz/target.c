/* Request targets, authorities, queries and percent-encoding: the method, a space, then the target.
 * Invariant: what is taken is a piece of the input and fits into a request line; a split authority
 * put together again is the same. */
#include "http/target.h"
#include "support/fuzz.h"

static bool is_visible(struct gw_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= 0x20 || s.ptr[i] > 0x7e)
            return false;
    return true;
}

static void check_authority(struct gw_slice authority)
{
    struct gw_slice host;
    if (!gw_authority_ok(authority))
        return;
    FUZZ_CHECK(authority.len > 0 && is_visible(authority), "not visible");
    FUZZ_CHECK(!memchr(authority.ptr, '@', authority.len) &&
                   !memchr(authority.ptr, '/', authority.len),
               "more than a host and a port");
    unsigned port = gw_authority_split(authority, &host);
    FUZZ_CHECK(host.len > 0 && port <= 65535, "host %zu, port %u", host.len, port);
    FUZZ_CHECK(host.ptr >= authority.ptr && host.ptr + host.len <= authority.ptr + authority.len,
               "outside");
}

static void check_decoding(struct gw_slice text)
{
    struct gw_arena arena;
    gw_arena_init(&arena);
    struct gw_slice plain = gw_percent_decode(&arena, text, false);
    FUZZ_CHECK(plain.len <= text.len, "longer");
    if (text.len && !memchr(text.ptr, '%', text.len))
        FUZZ_CHECK(gw_slice_eq(plain, text), "changed");
    struct gw_slice value = gw_query_get(&arena, text, GW_SLICE("a"));
    FUZZ_CHECK(value.len <= text.len, "longer");
    gw_arena_clear(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4096)
        return 0;
    char *exact = fuzz_exact(data, size);
    struct gw_slice text = gw_slice_of(exact, size), authority = {0}, path = {0};
    const char *space = memchr(exact, ' ', size);
    struct gw_slice method = gw_slice_of(exact, space ? (size_t)(space - exact) : 0);
    struct gw_slice target =
        space ? gw_slice_of(space + 1, size - method.len - 1) : gw_slice_of(exact, size);
    if (gw_target_split(method, target, &authority, &path) == GW_OK) {
        FUZZ_CHECK(is_visible(path) && !memchr(path.ptr, '#', path.len), "path");
        FUZZ_CHECK(path.ptr[0] == '/' || path.ptr[0] == '?' || path.ptr[0] == '*', "path");
        if (authority.ptr)
            check_authority(authority);
    }
    check_authority(text);
    check_decoding(text);
    free(exact);
    return 0;
}
