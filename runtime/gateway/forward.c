/* Owns nothing. Called by the steps SEND and HEAD. Invariant: the client's own head is not changed,
 * so that a retry starts from what came; heads are written afresh, never copied as bytes. */
#include "gateway/forward.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include "gateway/relay.h"

enum { ID_LEN = 32 };

static bool id_is_sane(struct gw_slice id)
{
    if (id.len == 0 || id.len > GW_ID_MAX)
        return false;
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && !strchr("-_.:+/=", c))
            return false;
    }
    return true;
}

/* splitmix64: ids must not repeat; they need not be secret. */
static uint64_t next_random(void)
{
    static uint64_t state;
    if (!state && getrandom(&state, sizeof state, 0) != sizeof state)
        abort();
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 128 bits in hexadecimal digits. */
static const char *new_id(char *text)
{
    uint64_t half = 0;
    for (unsigned i = 0; i < ID_LEN; i++, half >>= 4) {
        if (i % 16 == 0)
            half = next_random();
        text[i] = "0123456789abcdef"[half & 15];
    }
    text[ID_LEN] = '\0';
    return text;
}

void gw_forward_id(struct gw_exchange *x)
{
    struct gw_slice given = gw_fields_get(x->way->request, GW_SLICE("x-request-id"));
    struct gw_arena *arena = x->way->request->arena;
    if (id_is_sane(given))
        x->id = gw_arena_copy(arena, given).ptr;
    else
        x->id = new_id(gw_arena_alloc(arena, ID_LEN + 1));
}

void gw_forward_request(const struct gw_exchange *x, struct gw_head *out)
{
    const struct gw_head *in = x->way->request;
    struct gw_arena *arena = out->arena;
    *out = *in;
    out->arena = arena;
    out->cap = in->count + 8;
    out->fields = gw_arena_alloc(arena, out->cap * sizeof *out->fields);
    if (in->count)
        memcpy(out->fields, in->fields, in->count * sizeof *out->fields);
    out->expect_continue = false;
    char host[GW_ADDR_TEXT];
    gw_addr_host(x->peer, host);
    gw_fields_append(out, GW_SLICE("x-forwarded-for"), gw_slice_str(host));
    gw_fields_set(out, GW_SLICE("x-forwarded-proto"), in->scheme);
    if (in->authority.len)
        gw_fields_set(out, GW_SLICE("x-forwarded-host"), in->authority);
    gw_fields_append(out, GW_SLICE("via"),
                     in->minor ? GW_SLICE("1.1 gatewayd") : GW_SLICE("1.0 gatewayd"));
    gw_fields_set(out, GW_SLICE("x-request-id"), gw_slice_str(x->id));
}

void gw_forward_response(struct gw_exchange *x)
{
    struct gw_head *head = x->way->response;
    gw_fields_default(head, GW_SLICE("x-request-id"), gw_slice_str(x->id));
    if (x->head_only)
        head->has_body = false;
    else if (!head->has_body && head->status != 304)
        head->length = 0; /* hooks may have made it another answer, or asked in another way */
    if (head->status != 200 ||
        !gw_slice_ieq(gw_fields_media_type(head), GW_SLICE("text/event-stream")))
        return;
    gw_fields_default(head, GW_SLICE("cache-control"), GW_SLICE("no-cache"));
    gw_fields_default(head, GW_SLICE("x-accel-buffering"), GW_SLICE("no"));
    head->length = GW_LENGTH_UNKNOWN;
}

enum gw_err gw_forward_continue(struct gw_exchange *x)
{
    struct gw_head head, *request = gw_exchange_request(x);
    if (!request->expect_continue || !gw_buf_empty(&x->upload) || x->upload_end || !x->client)
        return GW_OK;
    request->expect_continue = false;
    gw_head_init(&head, &x->client->arena);
    head.status = 100;
    return gw_stream_send_head(x->client, &head);
}
