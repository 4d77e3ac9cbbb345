/* Owns the walk over open streams after a swap, and the pace at which those end that shall not go
 * on (`onReload: drain`). Called by gateway.c, and by the relay step of a stream that could not be
 * moved at once. Invariant: a stream changes its generation between two events only. */
#include "gateway/adoption.h"

#include <stdlib.h>
#include <time.h>
#include "gateway/relay.h"

enum {
    ADOPT_US = 500, /* of a turn */
    RETIRE_MS = 100,
    RETIRE_TICKS = 100 /* so that not all clients come again at once */
};

/* A tunnel goes on when one side has ended its sending. */
static bool is_open(const struct gw_exchange *x)
{
    return x->relay.mode == GW_BODY_TUNNEL ? x->client != NULL : !x->response_sent;
}

/* An open stream of an older version, which has not been refused yet. */
static bool is_candidate(const struct gw_exchange *x)
{
    const struct gw_generation *current = x->gateway->current;
    return x->generation != current && x->pinned != (uint32_t)current->number &&
           x->step == GW_STEP_RELAY && x->relay.mode != GW_BODY_PLAIN && is_open(x);
}

static bool is_free(const struct gw_exchange *x)
{
    return gw_relay_between_events(x) && !x->generation->hooks->waiting(x);
}

static void change(struct gw_exchange *x, struct gw_generation *to)
{
    struct gw_generation *old = x->generation;
    x->generation = gw_generation_ref(to);
    x->retires = false; /* an older one may not have wanted it */
    gw_generation_unref(old);
    gw_relay_remode(x);
    if (x->relay.wanted != x->relay.mode)
        gw_exchange_wake(x); /* part of an event may wait that need not wait any more */
    gw_exchange_arm(x);
}

static void retire_later(struct gw_exchange *x)
{
    struct gw_gateway *gateway = x->gateway;
    x->retires = true;
    if (!gw_timer_active(&gateway->retirement)) {
        gateway->retire_ticks = RETIRE_TICKS;
        gw_timer_start(gateway->loop, &gateway->retirement, RETIRE_MS);
    }
}

/* It can't move as long as its tasks run, which may be for ever; but it may have to end. */
static void ask_for_tied(struct gw_exchange *x)
{
    struct gw_generation *current = x->gateway->current;
    if (!x->asked && current->hooks->unwanted(x, current)) {
        x->pinned = (uint32_t)current->number;
        retire_later(x);
    }
    x->asked = true;
}

void gw_adoption_try(struct gw_exchange *x)
{
    struct gw_generation *current = x->gateway->current;
    if (!is_candidate(x))
        return;
    if (x->generation->hooks->tied(x)) {
        ask_for_tied(x);
        return;
    }
    if (!is_free(x))
        return;
    enum gw_adoption adoption = x->generation->hooks->adopt(x, current);
    if (adoption == GW_ADOPTED) {
        change(x, current);
        return;
    }
    x->pinned = (uint32_t)current->number;
    if (adoption == GW_ADOPT_RETIRE)
        retire_later(x);
}

/* Some of those that are to end, all in the last tick. */
static void retire_some(struct gw_timer *timer)
{
    struct gw_gateway *gateway = GW_CONTAINER(timer, struct gw_gateway, retirement);
    struct gw_list *all = &gateway->exchanges;
    for (struct gw_list *at = all->next; at != all; at = at->next) {
        struct gw_exchange *x = GW_CONTAINER(at, struct gw_exchange, node);
        if (x->retires && (unsigned long)random() % gateway->retire_ticks == 0) {
            x->retires = false;
            gw_relay_retire(x);
        }
    }
    if (--gateway->retire_ticks)
        gw_timer_start(gateway->loop, timer, RETIRE_MS);
}

static int64_t clock_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Some streams per turn, so that a reload is no pause for the others. By time: what one takes is up
 * to its state, and to plugins that upgrade it. */
static void adopt_some(struct gw_task_node *task)
{
    struct gw_gateway *gateway = GW_CONTAINER(task, struct gw_gateway, adoption);
    int64_t enough = clock_us() + ADOPT_US;
    while (gateway->adoption_at != &gateway->exchanges) {
        struct gw_list *at = gateway->adoption_at;
        gateway->adoption_at = at->next;
        struct gw_exchange *x = GW_CONTAINER(at, struct gw_exchange, node);
        x->asked = false;
        gw_adoption_try(x);
        if (clock_us() >= enough) {
            gw_loop_wake(gateway->loop, task, adopt_some);
            return;
        }
    }
    gateway->adoption_at = NULL;
}

void gw_adoption_begin(struct gw_gateway *gateway)
{
    gateway->adoption_at = gateway->exchanges.next;
    gw_loop_wake(gateway->loop, &gateway->adoption, adopt_some);
}

void gw_adoption_init(struct gw_gateway *gateway)
{
    gw_timer_init(&gateway->retirement, retire_some);
}

void gw_adoption_fini(struct gw_gateway *gateway)
{
    gw_loop_unwake(gateway->loop, &gateway->adoption);
    gw_timer_stop(gateway->loop, &gateway->retirement);
}
