/* Owns nothing. Called once by STEP_CLOSE. Invariant: one line for each request that had a head. */
#include "gateway/access_log.h"

#include "gateway/client.h"
#include "gateway/retry.h"
#include "gateway/timeouts.h"

/* A stream that ended at its age, and whole, ended well. */
static bool is_bad(const struct gw_exchange *x)
{
    return x->why != GW_OK && x->why != GW_ERR_CLIENT_GONE &&
           !(x->why == GW_ERR_MAX_AGE && x->response_sent);
}

static void count(const struct gw_exchange *x)
{
    struct gw_stats_slot *slot = x->gateway->count;
    if (x->status >= 100 && x->status < 600)
        gw_stat_add(slot, (enum gw_stat)(GW_STAT_STATUS_1XX + x->status / 100 - 1), 1);
    if (x->why != GW_OK && x->why_upstream)
        gw_stat_add(slot, GW_STAT_UPSTREAM_ERRORS, 1);
    if (x->why != GW_ERR_BODY_TIMEOUT || x->head_sent) /* else the codec refuses it, and counts */
        gw_timeout_count(slot, (enum gw_err)x->why);
    if (x->why == GW_ERR_EVENT_TOO_LARGE)
        gw_tally_tell(x->gateway->facts->tally, (enum gw_err)x->why);
    if (gw_body_is_stream(x->relay.mode) && is_bad(x))
        gw_stat_add(slot, GW_STAT_BROKEN_STREAMS, 1);
}

static void log_attempts(struct gw_log_line *line, struct gw_trace trace)
{
    if (trace.attempts > 1)
        gw_log_int(line, "attempts", trace.attempts);
    if (trace.failed)
        gw_log_cstr(line, "failed", trace.failed);
    if (trace.held_ms)
        gw_log_int(line, "held_ms", trace.held_ms);
}

void gw_access_log(struct gw_exchange *x)
{
    count(x);
    struct gw_log_line line;
    char id[GW_ID_TEXT];
    bool bad = is_bad(x);
    if (!bad && !x->generation->settings.log_access)
        return;
    gw_log_begin(&line, bad ? GW_LOG_WARN : GW_LOG_INFO, "request");
    if (!line.live)
        return;
    gw_log_cstr(&line, "x", gw_exchange_id(x, id));
    gw_client_log(x, &line);
    const struct gw_head *request = gw_exchange_request(x);
    if (request) {
        gw_log_str(&line, "method", request->method);
        gw_log_str(&line, "path", request->path);
    }
    gw_log_int(&line, "status", x->status);
    if (x->rule[0])
        gw_log_cstr(&line, "rule", x->rule);
    if (x->instance)
        gw_log_cstr(&line, "instance", x->instance->id);
    log_attempts(&line, gw_retry_trace(x));
    gw_log_cstr(&line, "end", gw_exchange_reason(x));
    gw_log_int(&line, "bytes", (int64_t)x->bytes_out);
    if (x->relay.mode == GW_BODY_TUNNEL)
        gw_log_int(&line, "bytes_in", (int64_t)x->relay.bytes_in);
    else if (x->relay.events)
        gw_log_int(&line, "events", (int64_t)x->relay.events);
    uint64_t now = x->gateway->loop->now_ms;
    if (x->head_sent)
        gw_log_int(&line, "head_ms", x->head_ms);
    gw_log_int(&line, "ms", (int64_t)(now - x->start_ms));
    gw_log_end(&line);
}
