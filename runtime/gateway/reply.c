/* Owns the replies of exchanges. Called by steps that refuse, and by hooks through script/.
 * Invariant: a reply is a response like any other: STEP_HEAD and STEP_RELAY send it. */
#include "gateway/reply.h"

#include <stdlib.h>
#include "gateway/bounds.h"

void gw_reply_free(struct gw_reply *reply)
{
    while (reply) {
        struct gw_reply *older = reply->older;
        gw_buf_clear(&reply->body);
        gw_arena_clear(&reply->arena);
        free(reply);
        reply = older;
    }
}

struct gw_reply *gw_reply_new(struct gw_exchange *x, unsigned status)
{
    struct gw_way *way = gw_exchange_way(x);
    struct gw_reply *reply = calloc(1, sizeof *reply), *last = way->reply;
    GW_CHECK(reply != NULL);
    reply->older = last;
    if (last && way->response != &last->head) {
        reply->older = last->older;
        last->older = NULL;
        gw_reply_free(last);
    }
    gw_arena_init(&reply->arena);
    gw_buf_init(&reply->body);
    gw_head_init(&reply->head, &reply->arena);
    reply->head.status = status;
    reply->set = true;
    way->reply = reply;
    return reply;
}

static bool wants_plain_text(const struct gw_head *request)
{
    if (!request)
        return false;
    struct gw_slice accept = gw_fields_get(request, GW_SLICE("accept")), type;
    while (gw_list_next(&accept, &type)) {
        const char *semicolon = memchr(type.ptr, ';', type.len);
        if (semicolon)
            type = gw_slice_trim(gw_slice_of(type.ptr, (size_t)(semicolon - type.ptr)));
        if (gw_slice_ieq(type, GW_SLICE("text/plain")))
            return true;
        if (gw_slice_ieq(type, GW_SLICE("application/json")))
            return false;
    }
    return false;
}

void gw_json_text(struct gw_buf *out, struct gw_slice text)
{
    gw_buf_append(out, "\"", 1);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c == '"' || c == '\\')
            gw_buf_printf(out, "\\%c", c);
        else if (c < 0x20)
            gw_buf_printf(out, "\\u%04x", c);
        else
            gw_buf_append(out, &text.ptr[i], 1);
    }
    gw_buf_append(out, "\"", 1);
}

void gw_problem_write(struct gw_head *head, struct gw_buf *body, const struct gw_head *request,
                      unsigned status, struct gw_slice text, struct gw_slice id)
{
    head->status = status;
    if (wants_plain_text(request)) {
        gw_fields_set(head, GW_SLICE("content-type"), GW_SLICE("text/plain; charset=utf-8"));
        gw_buf_add(body, text);
        gw_buf_printf(body, "\nrequest id: %.*s\n", (int)id.len, id.ptr ? id.ptr : "");
    } else {
        gw_fields_set(head, GW_SLICE("content-type"), GW_SLICE("application/json"));
        gw_buf_add(body, GW_SLICE("{\"error\":"));
        gw_json_text(body, text);
        gw_buf_add(body, GW_SLICE(",\"request_id\":"));
        gw_json_text(body, id);
        gw_buf_add(body, GW_SLICE("}\n"));
    }
    head->length = (int64_t)gw_buf_len(body);
    head->has_body = true;
}

void gw_reply_problem(struct gw_exchange *x, unsigned status, struct gw_slice text)
{
    struct gw_reply *reply = gw_reply_new(x, status);
    char id[GW_ID_TEXT];
    gw_problem_write(&reply->head, &reply->body, x->way->request, status, text,
                     gw_slice_str(gw_exchange_id(x, id)));
}

void gw_reply_error(struct gw_exchange *x, enum gw_err err)
{
    int status = gw_err_status(err);
    gw_reply_problem(x, status ? (unsigned)status : 500, gw_slice_str(gw_err_text(err)));
    if (status == 503 || status == 429)
        gw_bounds_retry_after(&x->way->reply->head, 1);
}
