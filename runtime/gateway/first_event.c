/* Owns nothing: works on the response body of an exchange and on what its struct gw_retry keeps.
 * Called by STEP_HEAD. Invariant: what is held reaches the client as the bytes it came in, and is
 * no more than sse.maxEventBytes. */
#include "gateway/first_event.h"

#include "gateway/clocks.h"
#include "gateway/outcome.h"
#include "gateway/relay.h"
#include "gateway/retry.h"
#include "sse/event.h"

enum { HELD_MAX = 1024 * 1024 }; /* where events have no bound */

enum kind { NO_EVENT, AN_EVENT, AN_ERROR };

static const char bom[] = "\xef\xbb\xbf";

/* A browser hears of an event only when it has data; errors are meant by their type alone. */
static enum kind kind_of(const struct gw_retry *retry, struct gw_slice block)
{
    const struct gw_retry_rule *rule = retry->rule;
    struct gw_event event;
    if (gw_buf_empty(&retry->comments) && block.len > 3 && memcmp(block.ptr, bom, 3) == 0)
        block = gw_slice_of(block.ptr + 3, block.len - 3);
    gw_event_init(&event, block);
    gw_event_parse(&event);
    if (event.has & GW_EVENT_TYPE &&
        gw_retry_has_name(rule->text + rule->methods, rule->errors, event.type))
        return AN_ERROR;
    return event.has & GW_EVENT_DATA ? AN_EVENT : NO_EVENT;
}

static bool is_full(const struct gw_exchange *x)
{
    size_t max = x->generation->settings.max_event_bytes;
    return gw_buf_len(&x->way->retry->comments) + gw_buf_len(&x->body) > (max ? max : HELD_MAX);
}

static enum gw_err look(struct gw_exchange *x, struct gw_retry *retry)
{
    while (gw_sse_scan_buf(&retry->scan, &x->body, &retry->scanned)) {
        enum kind kind = kind_of(retry, gw_buf_linear(&x->body, retry->scanned));
        if (kind != NO_EVENT)
            return kind == AN_EVENT ? GW_OK : GW_ERR_FIRST_EVENT;
        gw_buf_move_n(&retry->comments, &x->body, retry->scanned);
        retry->scanned = 0;
    }
    if (is_full(x))
        return GW_OK;
    if (x->body_end)
        return GW_ERR_NO_EVENT;
    if (x->origin_closed)
        return x->origin_why == GW_OK ? GW_ERR_NO_EVENT : (enum gw_err)x->origin_why;
    return x->gateway->loop->now_ms >= retry->due_ms ? GW_OK : GW_AGAIN;
}

static void begin(struct gw_exchange *x, struct gw_retry *retry)
{
    retry->holding = true;
    retry->scanned = 0;
    retry->held_from_ms = gw_exchange_age(x);
    retry->due_ms = x->gateway->loop->now_ms + retry->rule->hold_ms;
    x->relay.upstream_ms = (uint32_t)x->gateway->loop->now_ms;
    gw_sse_scan_init(&retry->scan);
    gw_stat_add(x->gateway->count, GW_STAT_HELD, 1);
}

void gw_first_event_end(struct gw_exchange *x)
{
    struct gw_retry *retry = x->way ? x->way->retry : NULL;
    if (!retry || !retry->holding)
        return;
    uint32_t held_ms = gw_exchange_age(x) - retry->held_from_ms;
    retry->holding = false;
    x->way->held_ms += held_ms;
    gw_stat_add(x->gateway->count, GW_STAT_HELD_MS, held_ms);
}

bool gw_first_event_awaited(struct gw_exchange *x)
{
    const struct gw_retry *retry = x->way->retry;
    return retry && !retry->over && retry->rule->hold_ms && gw_relay_is_stream(x);
}

enum gw_err gw_first_event(struct gw_exchange *x)
{
    struct gw_retry *retry = x->way->retry;
    if (!gw_first_event_awaited(x))
        return GW_OK;
    if (!retry->holding)
        begin(x, retry);
    enum gw_err err = look(x, retry);
    if (err == GW_AGAIN) {
        gw_relay_credit(x);
        return err;
    }
    gw_first_event_end(x);
    if (err != GW_OK)
        return err;
    if (x->gateway->loop->now_ms >= retry->due_ms) /* with no event yet: the wait goes on */
        gw_clocks_spend(x, gw_exchange_age(x) - retry->held_from_ms);
    gw_outcome_answered(x, x->way->response->status);
    gw_buf_move(&retry->comments, &x->body);
    gw_buf_move(&x->body, &retry->comments);
    return GW_OK;
}

uint64_t gw_first_event_due(const struct gw_exchange *x)
{
    const struct gw_retry *retry = x->way ? x->way->retry : NULL;
    return retry && retry->holding ? retry->due_ms : 0;
}

void gw_first_event_drop(struct gw_exchange *x)
{
    struct gw_retry *retry = x->way->retry;
    gw_first_event_end(x);
    gw_buf_clear(&retry->comments);
    gw_buf_clear(&x->body);
    x->way->response = NULL;
    x->body_end = false;
    x->uncredited = 0;
}
