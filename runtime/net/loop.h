/* The event loop of one process: libev, the ready list, the graveyard, and coarse timers.
 * Callbacks of libev only move bytes and wake things; what was woken runs from the ready list, as
 * soon as the callback of the connection is over, or else at the end of the turn; what was buried
 * is freed at the end of the turn. */
#ifndef GW_NET_LOOP_H
#define GW_NET_LOOP_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/list.h"

enum {
    GW_WHEEL_SLOTS = 1024, /* a power of two */
    GW_WHEEL_TICK_MS = 10
};

struct gw_loop;

/* Something that runs when it was woken; embedded in its owner. Zeroed at first. */
struct gw_task_node {
    uint32_t place; /* in a list of those that were, from 1; 0: in none */
};

typedef void gw_task_run(struct gw_task_node *);

/* What waits to be run, in order. An array, so that what does not wait takes four bytes. */
struct gw_woken {
    struct {
        struct gw_task_node *task; /* NULL: taken off */
        gw_task_run *run;
    } * items;
    uint32_t count, cap;
};

/* A deadline, embedded in its owner. Fires once, never early, at most two ticks late plus the time
 * the loop is busy. Tens of thousands cost nothing while they wait: arm and cancel are O(1). */
struct gw_timer {
    struct gw_list node;
    uint64_t due_ms; /* loop time; a timer for now is put off to the next tick */
    void (*fire)(struct gw_timer *);
};

/* Something dead, freed when no callback can still touch it; embedded in its owner. */
struct gw_grave {
    struct gw_grave *next;
    void (*free)(struct gw_grave *);
};

struct gw_loop {
    struct ev_loop *ev;
    uint64_t now_ms;       /* CLOCK_MONOTONIC, taken once per turn: equal in all processes */
    struct gw_woken ready; /* by callbacks */
    struct gw_woken later; /* from the ready list: for the end of the turn */
    struct gw_grave *graves, **last_grave;
    bool turning;      /* between the begin and the end of a turn: now_ms is fresh */
    bool running;      /* the ready list is being run */
    uint64_t armed_ms; /* the time for which tick is set */
    struct ev_prepare prepare;
    struct ev_check begin; /* before all I/O callbacks: takes the time */
    struct ev_check check; /* after all I/O callbacks: timers, ready list, graveyard */
    struct ev_idle idle;   /* keeps the loop from sleeping while something is ready */
    struct ev_timer tick;  /* ends the sleep when the next occupied slot is due */
    struct gw_list wheel[GW_WHEEL_SLOTS];
    uint64_t occupied[GW_WHEEL_SLOTS / 64]; /* which slots have timers, to sleep till the next */
    uint64_t wheel_ms;                      /* the time up to which the wheel has turned */
    size_t timers;
    struct gw_list unread;       /* connections that nobody reads: net/departure.c */
    struct gw_timer unread_look; /* at them */
};

/* False when libev can't make an epoll loop. */
bool gw_loop_init(struct gw_loop *loop);
/* Frees what is buried, forgets what is ready or armed, and destroys the libev loop. */
void gw_loop_fini(struct gw_loop *loop);
/* Runs until gw_loop_stop. */
void gw_loop_run(struct gw_loop *loop);
/* One turn; wait false = do not sleep. For specs. */
void gw_loop_turn(struct gw_loop *loop, bool wait);
void gw_loop_stop(struct gw_loop *loop);
/* The time of this turn, in ms; gw_loop_update takes it afresh (after long work). */
uint64_t gw_loop_update(struct gw_loop *loop);
/* A loop time of which only the low half was kept; it is less than 49 days ago. */
static inline uint64_t gw_loop_time(const struct gw_loop *loop, uint32_t low_ms)
{
    return loop->now_ms - (uint32_t)(loop->now_ms - low_ms);
}

/* Schedules run(task) for this turn; called from the ready list itself, for the end of the turn, or
 * from there for the next one, so that all get their share. Waking twice is waking once. */
void gw_loop_wake(struct gw_loop *loop, struct gw_task_node *task, gw_task_run *run);
/* Runs what callbacks have woken. For the end of a callback: bytes go on while they are warm, and
 * do not wait for those that came on other connections in the same turn. */
void gw_loop_run_ready(struct gw_loop *loop);
/* Not to be run any more. */
void gw_loop_unwake(struct gw_loop *loop, struct gw_task_node *task);

void gw_timer_init(struct gw_timer *timer, void (*fire)(struct gw_timer *));
/* Arms or re-arms: after_ms from the time of this turn. Any timer may be started or stopped while
 * one fires, the firing one too. */
void gw_timer_start(struct gw_loop *loop, struct gw_timer *timer, uint64_t after_ms);
void gw_timer_stop(struct gw_loop *loop, struct gw_timer *timer);
bool gw_timer_active(const struct gw_timer *timer);

/* Calls free(grave) at the end of this turn, when no callback of it can still be running; in the
 * order of burying. free may bury again, for after all others. */
void gw_loop_bury(struct gw_loop *loop, struct gw_grave *grave, void (*free)(struct gw_grave *));

#endif
