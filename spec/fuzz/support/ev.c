/* A libev in memory, as much of it as net/ uses: readiness comes from the sockets of world.c.
 * Called by net/loop.c and net/conn.c instead of the library. Invariant: the order of a turn is
 * libev's: prepare, the checks of high priority, timer and I/O, the checks of low priority. */
#include <ev.h>
#include "support/world.h"

enum { WATCHERS = 4 };

struct ev_loop {
    struct ev_prepare *prepare[WATCHERS];
    struct ev_check *check[WATCHERS];
    struct ev_timer *timer;
    uint64_t due_ms;
};

struct ev_loop *ev_loop_new(unsigned flags)
{
    (void)flags;
    return calloc(1, sizeof(struct ev_loop));
}

void ev_loop_destroy(struct ev_loop *loop)
{
    free(loop);
}

void ev_prepare_start(struct ev_loop *loop, ev_prepare *w)
{
    for (int i = 0; i < WATCHERS; i++) {
        if (!loop->prepare[i]) {
            loop->prepare[i] = w;
            w->active = 1;
            return;
        }
    }
}

void ev_check_start(struct ev_loop *loop, ev_check *w)
{
    for (int i = 0; i < WATCHERS; i++) {
        if (!loop->check[i]) {
            loop->check[i] = w;
            w->active = 1;
            return;
        }
    }
}

void ev_timer_start(struct ev_loop *loop, ev_timer *w)
{
    FUZZ_CHECK(!loop->timer, "one timer is enough");
    loop->timer = w;
    loop->due_ms = world_ms + (uint64_t)(w->at * 1000 + 0.5);
    w->active = 1;
}

void ev_timer_stop(struct ev_loop *loop, ev_timer *w)
{
    if (loop->timer == w)
        loop->timer = NULL;
    w->active = 0;
}

void ev_idle_start(struct ev_loop *loop, ev_idle *w)
{
    (void)loop;
    w->active = 1;
}

void ev_idle_stop(struct ev_loop *loop, ev_idle *w)
{
    (void)loop;
    w->active = 0;
}

void ev_io_start(struct ev_loop *loop, ev_io *w)
{
    (void)loop;
    FUZZ_CHECK(!w->active, "watched twice");
    world_of(w->fd)->io = w;
    w->active = 1;
}

void ev_io_stop(struct ev_loop *loop, ev_io *w)
{
    (void)loop;
    struct world_socket *s = world_of(w->fd);
    s->fed = 0;
    s->io = NULL;
    w->active = 0;
}

void ev_feed_event(struct ev_loop *loop, void *w, int revents)
{
    (void)loop;
    struct world_socket *s = world_of(((ev_io *)w)->fd);
    s->io = w;
    s->fed = revents;
}

static int readiness(const struct world_socket *s)
{
    int ready = 0;
    bool dead = s->peer_rst || s->error;
    if (s->up && (s->to_at < s->to.len || s->peer_fin || dead))
        ready |= EV_READ;
    if (dead || (s->up && s->room > 0))
        ready |= EV_WRITE;
    return ready;
}

static void turn_sockets(struct ev_loop *loop)
{
    for (int i = 0; i < WORLD_SOCKETS; i++) {
        struct world_socket *s = &world[i];
        if (!s->used || s->closed || !s->io)
            continue;
        int revents = s->fed | (s->io->active ? readiness(s) & s->io->events : 0);
        s->fed = 0;
        struct ev_io *io = s->io;
        if (!io->active)
            s->io = NULL; /* it was only fed */
        if (revents)
            io->cb(loop, io, revents);
    }
}

static void turn_checks(struct ev_loop *loop, bool high)
{
    for (int i = 0; i < WATCHERS; i++)
        if (loop->check[i] && (loop->check[i]->priority > 0) == high)
            loop->check[i]->cb(loop, loop->check[i], EV_CHECK);
}

int ev_run(struct ev_loop *loop, int flags)
{
    FUZZ_CHECK(flags == EVRUN_NOWAIT, "nothing waits here");
    for (int i = 0; i < WATCHERS; i++)
        if (loop->prepare[i])
            loop->prepare[i]->cb(loop, loop->prepare[i], EV_PREPARE);
    turn_checks(loop, true);
    if (loop->timer && world_ms >= loop->due_ms) {
        struct ev_timer *timer = loop->timer;
        ev_timer_stop(loop, timer);
        timer->cb(loop, timer, EV_TIMER);
    }
    turn_sockets(loop);
    turn_checks(loop, false);
    return 0;
}

void ev_break(struct ev_loop *loop, int how)
{
    (void)loop, (void)how;
}

/* Threads beside the loop have no part here. */

void ev_async_start(struct ev_loop *loop, ev_async *w)
{
    (void)loop, (void)w;
    abort();
}

void ev_async_stop(struct ev_loop *loop, ev_async *w)
{
    (void)loop, (void)w;
    abort();
}

void ev_async_send(struct ev_loop *loop, ev_async *w)
{
    (void)loop, (void)w;
    abort();
}
