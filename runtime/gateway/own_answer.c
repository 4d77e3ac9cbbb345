/* Owns nothing. The step ROUTE asks whether a request is the gateway's own to answer, the step SEND
 * has the hops counted. Invariant: nothing of a request is in such an answer, and none of it
 * reaches a backend. */
#include "gateway/own_answer.h"

#include "gateway/reply.h"
#include "http/fields.h"

static const struct gw_slice allowed = {"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", 44};

/* 1*DIGIT; what is more than nine digits is as good as any other large number. */
static bool parse_hops(struct gw_slice text, unsigned *hops)
{
    *hops = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        *hops = *hops >= 99999999 ? 999999999 : *hops * 10 + (unsigned)(text.ptr[i] - '0');
    }
    return text.len > 0;
}

static void say_what_is_served(struct gw_exchange *x)
{
    struct gw_reply *reply = gw_reply_new(x, 200);

    gw_fields_set(&reply->head, GW_SLICE("allow"), allowed);
    reply->head.length = 0;
    reply->head.has_body = false;
}

static bool answer_options(struct gw_exchange *x)
{
    const struct gw_head *request = x->way->request;
    struct gw_slice limit = gw_fields_get(request, GW_SLICE("max-forwards"));
    unsigned hops = 1;

    if (limit.ptr && !parse_hops(limit, &hops))
        gw_reply_error(x, GW_ERR_BAD_REQUEST);
    else if (hops == 0 || gw_slice_eq(request->path, GW_SLICE("*")))
        say_what_is_served(x);
    else
        return false;
    return true;
}

bool gw_own_answer(struct gw_exchange *x)
{
    struct gw_slice method = x->way->request->method;

    if (gw_slice_eq(method, GW_SLICE("OPTIONS")))
        return answer_options(x);
    if (!gw_slice_eq(method, GW_SLICE("TRACE")))
        return false;
    gw_reply_problem(x, 405, GW_SLICE("TRACE is not served"));
    gw_fields_set(&x->way->reply->head, GW_SLICE("allow"), allowed);
    return true;
}

void gw_own_count_hop(struct gw_head *head)
{
    unsigned hops;

    if (!gw_slice_eq(head->method, GW_SLICE("OPTIONS")) ||
        !parse_hops(gw_fields_get(head, GW_SLICE("max-forwards")), &hops) || hops == 0)
        return;
    gw_fields_set(head, GW_SLICE("max-forwards"), gw_arena_printf(head->arena, "%u", hops - 1));
}
