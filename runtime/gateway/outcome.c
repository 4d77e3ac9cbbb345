/* Owns nothing. Called by the steps of exchanges, and by script/ before an instance is chosen.
 * Invariant: whatever was taken for an exchange (a probe, a place) is given back once: the probe by
 * gw_outcome_settle, the place by gw_outcome_leave. */
#include "gateway/outcome.h"

static uint64_t now_ms(const struct gw_exchange *x)
{
    return x->gateway->loop->now_ms;
}

bool gw_outcome_admit(struct gw_exchange *x, struct gw_service *service, uint64_t *wait_ms)
{
    struct gw_way *way = gw_exchange_way(x);
    bool probe;
    if (way->admitted && way->admitted != service)
        gw_outcome_settle(x); /* another try may go to another service */
    if (!service->breaker.failures || way->admitted)
        return true;
    if (!gw_breaker_enter(service, now_ms(x), &probe, wait_ms))
        return false;
    way->admitted = gw_service_ref(service);
    way->probe = probe;
    return true;
}

bool gw_outcome_begin(struct gw_exchange *x)
{
    const struct gw_service *service = x->instance->of;
    if (x->way->admitted && x->way->admitted != service)
        gw_outcome_settle(x);
    x->way->outcome = 0;
    if (!service || !service->max_streams || !service->fact || !x->instance->fact || x->placed)
        return true;
    x->placed = gw_standing_take_place(x->instance, now_ms(x));
    return x->placed;
}

void gw_outcome_failed(struct gw_exchange *x, enum gw_err why)
{
    if (!x->instance)
        return;
    x->way->outcome = GW_NO_ANSWER;
    gw_standing_answer(x->instance, GW_NO_ANSWER, gw_err_slug(why), now_ms(x));
    gw_outcome_leave(x);
}

void gw_outcome_answered(struct gw_exchange *x, unsigned status)
{
    x->way->outcome = (uint16_t)status;
    gw_standing_answer(x->instance, status, NULL, now_ms(x));
}

static enum gw_verdict verdict(const struct gw_way *way)
{
    if (!way->outcome)
        return GW_VERDICT_NONE;
    bool bad =
        way->outcome == GW_NO_ANSWER || gw_statuses_have(&way->admitted->breaker.bad, way->outcome);
    return bad ? GW_VERDICT_BAD : GW_VERDICT_GOOD;
}

void gw_outcome_settle(struct gw_exchange *x)
{
    struct gw_way *way = x->way;
    if (!way || !way->admitted)
        return;
    gw_breaker_leave(way->admitted, way->probe, verdict(way), now_ms(x));
    gw_service_unref(way->admitted);
    way->admitted = NULL;
}

void gw_outcome_cancel(struct gw_exchange *x)
{
    if (x->way)
        x->way->outcome = 0;
    gw_outcome_settle(x);
}

void gw_outcome_leave(struct gw_exchange *x)
{
    if (x->placed)
        gw_standing_give_place(x->instance, now_ms(x));
    x->placed = false;
}
