/* Owns nothing: each exchange has one timer, for whichever of its deadlines comes first. Called by
 * the steps whenever something has changed. Invariant: a deadline is computed from the exchange as
 * it is, never kept; so a timer that fires early only looks again. */
#include "gateway/deadline.h"

#include "gateway/clocks.h"
#include "gateway/first_event.h"
#include "gateway/relay.h"
#include "gateway/retry.h"
#include "gateway/tunnel.h"

/* Since when the backend has been the one to act: it has the whole request, or does not take it.
 * 0: it waits for the client's. */
uint64_t gw_deadline_asked_since(const struct gw_exchange *x)
{
    if (!x->origin || (!x->upload_sent && !gw_stream_pending(x->origin)))
        return 0;
    uint64_t written = gw_stream_conn(x->origin)->write_ms, sent = x->start_ms + x->way->sent_ms;
    return written > sent ? written : sent;
}

enum { GRACE_MS = 10000 };

struct deadline {
    uint64_t at;     /* 0 = none */
    enum gw_err why; /* GW_OK: a keepalive, not an end */
    bool upstream;
};

static void sooner(struct deadline *best, uint64_t from, uint64_t after, enum gw_err why,
                   bool upstream)
{
    if (after && (!best->at || from + after < best->at))
        *best = (struct deadline){from + after, why, upstream};
}

/* Steps that end well by themselves, unless the backend is to say something in the meantime. */
static void while_tried(const struct gw_exchange *x, struct deadline *best)
{
    uint64_t hold = x->step == GW_STEP_HEAD ? gw_first_event_due(x) : 0;
    if (x->step == GW_STEP_RETRY)
        sooner(best, x->way->retry->due_ms - 1, 1, GW_OK, false);
    if (!hold)
        return;
    sooner(best, hold - 1, 1, GW_OK, false);
    sooner(best, gw_loop_time(x->gateway->loop, x->relay.upstream_ms),
           gw_clock_ms(x, GW_CLOCK_SILENCE), GW_ERR_SILENCE_TIMEOUT, true);
    sooner(best, x->start_ms + x->way->retry->held_from_ms, gw_clock_ms(x, GW_CLOCK_FIRST_EVENT),
           GW_ERR_FIRST_EVENT_TIMEOUT, true);
}

/* The backend takes nothing of the request, and no more has it an answer, or a plain one that goes
 * on. An open stream has its own ways to end. */
static void towards_backend(const struct gw_exchange *x, struct deadline *best)
{
    bool plain = x->step == GW_STEP_RELAY && x->relay.mode == GW_BODY_PLAIN;
    if (!x->origin || !gw_stream_pending(x->origin) ||
        (!plain && (x->step != GW_STEP_HEAD || x->way->response)))
        return;
    uint64_t took = gw_stream_conn(x->origin)->write_ms;
    uint64_t said = plain ? gw_loop_time(x->gateway->loop, x->relay.upstream_ms) : 0;
    sooner(best, took > said ? took : said, x->generation->settings.origin_write_ms,
           GW_ERR_WRITE_TIMEOUT, true);
}

/* It has all of the request that there is. */
static uint64_t answer_awaited_since(const struct gw_exchange *x)
{
    bool awaited = x->step == GW_STEP_HEAD && !x->way->response;
    return awaited && x->origin && !gw_stream_pending(x->origin) ? gw_deadline_asked_since(x) : 0;
}

/* Either side may take nothing, or both may say nothing. */
static void in_tunnel(const struct gw_exchange *x, struct deadline *best)
{
    if (x->origin && gw_stream_pending(x->origin))
        sooner(best, gw_stream_conn(x->origin)->write_ms, x->generation->settings.origin_write_ms,
               GW_ERR_WRITE_TIMEOUT, true);
    sooner(best, gw_tunnel_active_ms(x), x->relay.idle_ms, GW_ERR_TUNNEL_IDLE, false);
}

/* Bytes of an open stream may come, and would be heard. */
static bool is_listened_to(const struct gw_exchange *x)
{
    return x->origin && !x->relay.pending_event && !x->uncredited;
}

static bool has_spoken(const struct gw_exchange *x)
{
    return x->relay.spoken || x->relay.events || gw_sse_scan_in_event(&x->relay.scan);
}

/* A part of the jitter that is the stream's own, from 0 to 1. */
static double lot_of(const struct gw_exchange *x)
{
    uint64_t mixed = ((uintptr_t)x ^ x->start_ms << 32) * UINT64_C(0x9e3779b97f4a7c15);
    return (double)(mixed >> 40) / (double)(UINT64_C(1) << 24);
}

/* Asked at each event, and mostly the answer is no. */
static bool has_clocks(const struct gw_exchange *x)
{
    const struct gw_settings *s = &x->generation->settings;
    return x->timed || (s->sse_silence_ms | s->first_event_ms | s->max_age_ms);
}

/* Past its age it has until the end of its event: as long again, but no more than the grace. */
static void of_stream(const struct gw_exchange *x, struct deadline *best)
{
    if (!has_clocks(x))
        return;
    uint64_t opened = x->start_ms + x->head_ms;
    if (is_listened_to(x)) {
        uint64_t silence_ms = gw_clock_ms(x, GW_CLOCK_SILENCE);
        if (silence_ms)
            sooner(best, gw_loop_time(x->gateway->loop, x->relay.upstream_ms), silence_ms,
                   GW_ERR_SILENCE_TIMEOUT, true);
        if (!has_spoken(x))
            sooner(best, opened, gw_clock_ms(x, GW_CLOCK_FIRST_EVENT), GW_ERR_FIRST_EVENT_TIMEOUT,
                   true);
    }
    uint64_t max_ms = gw_clock_ms(x, GW_CLOCK_AGE);
    if (!max_ms || x->response_sent)
        return;
    double jitter = x->generation->settings.max_age_jitter;
    uint64_t age = (uint64_t)((double)max_ms * (1 - jitter * lot_of(x))) + 1;
    if (x->relay.aged)
        age += max_ms < GRACE_MS ? max_ms : GRACE_MS;
    sooner(best, opened, age, GW_ERR_MAX_AGE, false);
}

static void before_relay(const struct gw_exchange *x, struct deadline *best)
{
    uint64_t asked = answer_awaited_since(x);
    if (asked)
        sooner(best, asked, x->generation->settings.response_head_ms, GW_ERR_RESPONSE_TIMEOUT,
               true);
    if (x->way && x->way->retry)
        while_tried(x, best);
}

static struct deadline next_deadline(const struct gw_exchange *x)
{
    const struct gw_settings *s = &x->generation->settings;
    struct deadline best = {0};
    bool stream = gw_body_is_stream(x->relay.mode);
    if (x->why == GW_OK)
        sooner(&best, x->start_ms, x->timeout_ms, GW_ERR_TOTAL_TIMEOUT, true);
    if (!stream)
        towards_backend(x, &best);
    if (x->step != GW_STEP_RELAY) {
        before_relay(x, &best);
        return best;
    }
    if (stream)
        of_stream(x, &best);
    if (x->client && gw_stream_pending(x->client))
        sooner(&best, gw_stream_conn(x->client)->write_ms, stream ? s->sse_write_ms : s->write_ms,
               GW_ERR_WRITE_TIMEOUT, false);
    if (x->relay.mode == GW_BODY_TUNNEL)
        in_tunnel(x, &best);
    uint64_t keepalive = gw_relay_keepalive_due(x);
    if (keepalive)
        sooner(&best, keepalive, 1, GW_OK, false);
    return best;
}

void gw_exchange_arm(struct gw_exchange *x)
{
    struct gw_loop *loop = x->gateway->loop;
    struct deadline next = next_deadline(x);
    if (x->over || !next.at) {
        gw_timer_stop(loop, &x->timer);
        return;
    }
    /* A deadline that moved away is found out when the timer fires: re-arming on every event would
     * cost more than firing early once. */
    if (gw_timer_active(&x->timer) && x->timer.due_ms <= next.at)
        return;
    gw_timer_start(loop, &x->timer, next.at > loop->now_ms ? next.at - loop->now_ms : 0);
}

static void on_timer(struct gw_timer *timer)
{
    struct gw_exchange *x = GW_CONTAINER(timer, struct gw_exchange, timer);
    struct deadline next = next_deadline(x);
    if (next.at && next.at <= x->gateway->loop->now_ms) {
        if (next.why == GW_ERR_MAX_AGE && !x->relay.aged) {
            x->relay.aged = true;
            gw_relay_retire(x);
            gw_exchange_arm(x);
            return;
        }
        if (next.why != GW_OK) {
            gw_exchange_fail(x, next.why, next.upstream);
            return;
        }
        x->relay.keepalive_due = x->step == GW_STEP_RELAY;
        gw_exchange_wake(x);
    }
    gw_exchange_arm(x);
}

void gw_deadline_init(struct gw_exchange *x)
{
    gw_timer_init(&x->timer, on_timer);
}
