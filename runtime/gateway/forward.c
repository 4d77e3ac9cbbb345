/* Owns nothing. Called by the steps SEND and HEAD. Invariant: the client's own head is not changed,
 * so that a retry starts from what came; heads are written afresh, never copied as bytes. */
#include "gateway/forward.h"

#include "gateway/client.h"
#include "gateway/own_answer.h"
#include "gateway/relay.h"

void gw_forward_id(struct gw_exchange *x)
{
    struct gw_slice given = gw_fields_get(x->way->request, GW_SLICE("x-request-id"));
    struct gw_arena *arena = x->way->request->arena;
    char text[GW_ID_TEXT];
    if (!gw_id_is_sane(given)) {
        gw_id_new(text);
        given = gw_slice_str(text);
    }
    x->way->id = gw_arena_copy(arena, given).ptr;
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
    out->upgrade = x->way->upgrade.len > 0;
    out->upgrade_to = x->way->upgrade;
    gw_own_count_hop(out);
    gw_client_tell(x, out);
    gw_fields_append(out, GW_SLICE("via"),
                     in->minor ? GW_SLICE("1.1 gatewayd") : GW_SLICE("1.0 gatewayd"));
    gw_fields_set(out, GW_SLICE("x-request-id"), gw_slice_str(x->way->id));
}

void gw_forward_response(struct gw_exchange *x)
{
    struct gw_head *head = x->way->response;
    char id[GW_ID_TEXT];
    gw_fields_default(head, GW_SLICE("x-request-id"), gw_slice_str(gw_exchange_id(x, id)));
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
