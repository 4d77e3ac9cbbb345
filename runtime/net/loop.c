/* The event loop: libev behind four ideas, the turn, the ready list, the graveyard and the wheel.
 * Every floor above uses it; nothing else in the program starts a libev loop or watcher but net/.
 * Invariant: between two sleeps, in this order: I/O callbacks, each with what it made ready behind
 * it, timers, the rest of the ready list, the graves.
 *
 * The wheel is an array of slots, one tick wide. A timer lies in the slot of the first tick that is
 * not before its due time; one further away than a rotation is looked at once per rotation and
 * stays. libev gets one timer, for the next slot that has anything in it: an idle process does not
 * tick. */
#include "net/loop.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/check.h"

enum {
    SLOT_MASK = GW_WHEEL_SLOTS - 1,
    WORDS = GW_WHEEL_SLOTS / 64,
    WOKEN_MIN = 64,   /* places of a list */
    WOKEN_KEPT = 1024 /* those that are kept when nothing waits */
};

_Static_assert((GW_WHEEL_SLOTS & SLOT_MASK) == 0 && GW_WHEEL_SLOTS % 64 == 0, "slots fill words");

static uint64_t clock_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t gw_loop_update(struct gw_loop *loop)
{
    loop->now_ms = clock_ms();
    return loop->now_ms;
}

/* The wheel. */

static size_t slot_of(uint64_t due_ms)
{
    return (due_ms + GW_WHEEL_TICK_MS - 1) / GW_WHEEL_TICK_MS & SLOT_MASK;
}

static void slot_push(struct gw_loop *loop, struct gw_timer *timer)
{
    size_t slot = slot_of(timer->due_ms);
    gw_list_push(&loop->wheel[slot], &timer->node);
    loop->occupied[slot / 64] |= UINT64_C(1) << slot % 64;
}

static void slot_vacate(struct gw_loop *loop, size_t slot)
{
    loop->occupied[slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

void gw_timer_init(struct gw_timer *timer, void (*fire)(struct gw_timer *))
{
    gw_list_init(&timer->node);
    timer->due_ms = 0;
    timer->fire = fire;
}

bool gw_timer_active(const struct gw_timer *timer)
{
    return !gw_list_empty(&timer->node);
}

void gw_timer_start(struct gw_loop *loop, struct gw_timer *timer, uint64_t after_ms)
{
    /* The wheel has passed its own tick already: what is due now waits for the next one. */
    uint64_t soonest = loop->wheel_ms + GW_WHEEL_TICK_MS;

    gw_timer_stop(loop, timer);
    if (!loop->turning)
        gw_loop_update(loop);
    timer->due_ms = loop->now_ms + after_ms;
    if (timer->due_ms < soonest)
        timer->due_ms = soonest;
    slot_push(loop, timer);
    loop->timers++;
}

void gw_timer_stop(struct gw_loop *loop, struct gw_timer *timer)
{
    size_t slot = slot_of(timer->due_ms);

    if (!gw_timer_active(timer))
        return;
    gw_list_remove(&timer->node);
    loop->timers--;
    if (gw_list_empty(&loop->wheel[slot]))
        slot_vacate(loop, slot);
}

/* Fires what is due in one slot. The slot is emptied first, because a callback may put timers into
 * it, and may stop those that still wait in the list of its own. */
static void slot_fire(struct gw_loop *loop, size_t slot, uint64_t now_ms)
{
    struct gw_list waiting;
    struct gw_list *node;

    gw_list_init(&waiting);
    gw_list_splice(&waiting, &loop->wheel[slot]);
    slot_vacate(loop, slot);
    while ((node = gw_list_take(&waiting))) {
        struct gw_timer *timer = GW_CONTAINER(node, struct gw_timer, node);
        if (timer->due_ms > now_ms) {
            slot_push(loop, timer);
            continue;
        }
        loop->timers--;
        timer->fire(timer);
    }
}

/* How many slots lie between `slot` and the next occupied one, counted from 0 at `slot` itself;
 * GW_WHEEL_SLOTS when all are empty. */
static size_t slot_distance(const struct gw_loop *loop, size_t slot)
{
    size_t first = slot / 64;

    for (size_t i = 0; i <= WORDS; i++) {
        size_t at = (first + i) % WORDS;
        uint64_t word = loop->occupied[at];
        if (i == 0)
            word &= ~UINT64_C(0) << slot % 64;
        if (word)
            return (at * 64 + (size_t)__builtin_ctzll(word) - slot) & SLOT_MASK;
    }
    return GW_WHEEL_SLOTS;
}

/* Turns the wheel up to now. It is set to its new place first, so that timers started meanwhile lie
 * ahead of it and none fires twice in one turn. */
static void wheel_turn(struct gw_loop *loop)
{
    uint64_t now_ms = loop->now_ms;
    uint64_t from = loop->wheel_ms / GW_WHEEL_TICK_MS, to = now_ms / GW_WHEEL_TICK_MS;
    size_t left = to - from > GW_WHEEL_SLOTS ? GW_WHEEL_SLOTS : to - from;
    size_t slot = (to - left + 1) & SLOT_MASK;

    loop->wheel_ms = to * GW_WHEEL_TICK_MS;
    while (left > 0) {
        size_t empty = slot_distance(loop, slot);
        if (empty >= left)
            return;
        slot = (slot + empty) & SLOT_MASK;
        slot_fire(loop, slot, now_ms);
        slot = (slot + 1) & SLOT_MASK;
        left -= empty + 1;
    }
}

/* Sets libev's timer to the next occupied slot. */
static void wheel_arm(struct gw_loop *loop)
{
    size_t slot = (loop->wheel_ms / GW_WHEEL_TICK_MS + 1) & SLOT_MASK;
    uint64_t due, wait;

    if (loop->timers == 0) {
        ev_timer_stop(loop->ev, &loop->tick);
        return;
    }
    due = loop->wheel_ms + (slot_distance(loop, slot) + 1) * GW_WHEEL_TICK_MS;
    if (ev_is_active(&loop->tick) && loop->armed_ms == due)
        return;
    wait = due > loop->now_ms ? due - loop->now_ms : 0;
    ev_timer_stop(loop->ev, &loop->tick);
    ev_timer_set(&loop->tick, (double)wait / 1000, 0);
    ev_timer_start(loop->ev, &loop->tick);
    loop->armed_ms = due;
}

/* The ready list and the graveyard. */

static void woken_grow(struct gw_woken *woken)
{
    woken->cap = woken->cap ? 2 * woken->cap : WOKEN_MIN;
    woken->items = realloc(woken->items, woken->cap * sizeof(*woken->items));
    GW_CHECK(woken->items != NULL);
}

static void woken_push(struct gw_woken *woken, struct gw_task_node *task, gw_task_run *run)
{
    if (woken->count == woken->cap)
        woken_grow(woken);
    woken->items[woken->count].task = task;
    woken->items[woken->count].run = run;
    task->place = ++woken->count;
}

/* Takes it off, if it is in this list and not in the other one. */
static void woken_remove(struct gw_woken *woken, struct gw_task_node *task)
{
    if (task->place && task->place <= woken->count && woken->items[task->place - 1].task == task) {
        woken->items[task->place - 1].task = NULL;
        task->place = 0;
    }
}

static void woken_move(struct gw_woken *dst, struct gw_woken *src)
{
    for (uint32_t i = 0; i < src->count; i++)
        if (src->items[i].task)
            woken_push(dst, src->items[i].task, src->items[i].run);
    src->count = 0;
}

static void woken_free(struct gw_woken *woken)
{
    for (uint32_t i = 0; i < woken->count; i++)
        if (woken->items[i].task)
            woken->items[i].task->place = 0;
    free(woken->items);
    *woken = (struct gw_woken){0};
}

/* After a storm. */
static void woken_shrink(struct gw_woken *woken)
{
    if (woken->cap > WOKEN_KEPT && woken->count == 0)
        woken_free(woken);
}

void gw_loop_wake(struct gw_loop *loop, struct gw_task_node *task, gw_task_run *run)
{
    if (!task->place)
        woken_push(loop->running ? &loop->later : &loop->ready, task, run);
}

void gw_loop_unwake(struct gw_loop *loop, struct gw_task_node *task)
{
    woken_remove(&loop->ready, task);
    woken_remove(&loop->later, task);
}

void gw_loop_run_ready(struct gw_loop *loop)
{
    struct gw_woken *ready = &loop->ready;

    if (ready->count == 0)
        return;
    loop->running = true;
    for (uint32_t i = 0; i < ready->count; i++) {
        struct gw_task_node *task = ready->items[i].task;
        if (task) {
            ready->items[i].task = NULL;
            task->place = 0;
            ready->items[i].run(task);
        }
    }
    ready->count = 0;
    loop->running = false;
}

void gw_loop_bury(struct gw_loop *loop, struct gw_grave *grave, void (*free)(struct gw_grave *))
{
    grave->free = free;
    grave->next = NULL;
    *loop->last_grave = grave;
    loop->last_grave = &grave->next;
}

static void empty_graves(struct gw_loop *loop)
{
    while (loop->graves) {
        struct gw_grave *grave = loop->graves;
        loop->graves = grave->next;
        if (!loop->graves)
            loop->last_grave = &loop->graves;
        grave->free(grave);
    }
}

/* The turn. */

static void on_begin(struct ev_loop *ev, struct ev_check *w, int revents)
{
    struct gw_loop *loop = w->data;
    (void)ev, (void)revents;
    loop->turning = true;
    gw_loop_update(loop);
}

static void on_end(struct ev_loop *ev, struct ev_check *w, int revents)
{
    struct gw_loop *loop = w->data;
    (void)ev, (void)revents;
    wheel_turn(loop);
    if (loop->later.count)
        woken_move(&loop->ready, &loop->later);
    gw_loop_run_ready(loop);
    woken_shrink(&loop->ready);
    woken_shrink(&loop->later);
    empty_graves(loop);
    loop->turning = false;
}

/* Before the sleep, also before the first one: what was done outside of a turn counts too. */
static void on_prepare(struct ev_loop *ev, struct ev_prepare *w, int revents)
{
    struct gw_loop *loop = w->data;
    (void)revents;
    empty_graves(loop);
    wheel_arm(loop);
    if (loop->ready.count + loop->later.count == 0)
        ev_idle_stop(ev, &loop->idle);
    else
        ev_idle_start(ev, &loop->idle);
}

static void on_idle(struct ev_loop *ev, struct ev_idle *w, int revents)
{
    (void)ev, (void)w, (void)revents;
}

static void on_tick(struct ev_loop *ev, struct ev_timer *w, int revents)
{
    (void)ev, (void)w, (void)revents;
}

static void start_watchers(struct gw_loop *loop)
{
    ev_check_init(&loop->begin, on_begin);
    ev_set_priority(&loop->begin, EV_MAXPRI);
    ev_check_init(&loop->check, on_end);
    ev_set_priority(&loop->check, EV_MINPRI);
    ev_prepare_init(&loop->prepare, on_prepare);
    ev_set_priority(&loop->prepare, EV_MINPRI);
    ev_idle_init(&loop->idle, on_idle);
    ev_timer_init(&loop->tick, on_tick, 0, 0);
    loop->begin.data = loop->check.data = loop->prepare.data = loop;
    ev_check_start(loop->ev, &loop->begin);
    ev_check_start(loop->ev, &loop->check);
    ev_prepare_start(loop->ev, &loop->prepare);
}

bool gw_loop_init(struct gw_loop *loop)
{
    memset(loop, 0, sizeof(*loop));
    /* NOENV: LIBEV_FLAGS in the environment must not change how a gateway runs. */
    loop->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!loop->ev)
        return false;
    loop->last_grave = &loop->graves;
    for (size_t i = 0; i < GW_WHEEL_SLOTS; i++)
        gw_list_init(&loop->wheel[i]);
    gw_list_init(&loop->unread);
    gw_timer_init(&loop->unread_look, NULL);
    gw_loop_update(loop);
    loop->wheel_ms = loop->now_ms / GW_WHEEL_TICK_MS * GW_WHEEL_TICK_MS;
    start_watchers(loop);
    return true;
}

void gw_loop_fini(struct gw_loop *loop)
{
    empty_graves(loop);
    woken_free(&loop->ready);
    woken_free(&loop->later);
    for (size_t i = 0; i < GW_WHEEL_SLOTS; i++)
        while (gw_list_take(&loop->wheel[i]))
            ;
    loop->timers = 0;
    memset(loop->occupied, 0, sizeof(loop->occupied));
    ev_loop_destroy(loop->ev);
    loop->ev = NULL;
}

void gw_loop_run(struct gw_loop *loop)
{
    ev_run(loop->ev, 0);
}

void gw_loop_turn(struct gw_loop *loop, bool wait)
{
    ev_run(loop->ev, wait ? EVRUN_ONCE : EVRUN_NOWAIT);
}

void gw_loop_stop(struct gw_loop *loop)
{
    ev_break(loop->ev, EVBREAK_ALL);
}
