/* Owns the threads beside a loop, one for each job. Called by the worker (loading a version) and by
 * script/ (closing a Lua VM). Invariant: a job belongs to its thread from gw_aside_run on until the
 * thread is joined, and to the loop before and after. */
#include "net/aside.h"

#include <signal.h>
#include <sys/resource.h>

enum { STACK_MAX = 128 << 20 }; /* only address space, until it is needed */

/* At the loop's own priority: with a lower one it would be kept from its core while it holds a lock
 * of the process (for its memory map, above all) that the loop waits for. */
static void *run(void *data)
{
    struct gw_aside_job *job = data;
    job->work(job);
    ev_async_send(job->aside->loop->ev, &job->ended);
    return NULL;
}

static void end(struct gw_aside_job *job)
{
    pthread_join(job->thread, NULL);
    ev_async_stop(job->aside->loop->ev, &job->ended);
    gw_list_remove(&job->node);
    job->done(job);
}

static void on_ended(struct ev_loop *ev, struct ev_async *async, int revents)
{
    (void)ev, (void)revents;
    end(GW_CONTAINER(async, struct gw_aside_job, ended));
}

/* As much stack as the loop's thread has: Lua runs on both, which may need a lot. */
static void set_stack(pthread_attr_t *attr)
{
    struct rlimit stack;
    if (getrlimit(RLIMIT_STACK, &stack) == 0 && stack.rlim_cur < STACK_MAX)
        pthread_attr_setstacksize(attr, stack.rlim_cur);
    else
        pthread_attr_setstacksize(attr, STACK_MAX);
}

/* Signals are for the loop's thread. */
static bool start_thread(struct gw_aside_job *job)
{
    pthread_attr_t attr;
    sigset_t all, usual;
    pthread_attr_init(&attr);
    set_stack(&attr);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &usual);
    bool started = pthread_create(&job->thread, &attr, run, job) == 0;
    pthread_sigmask(SIG_SETMASK, &usual, NULL);
    pthread_attr_destroy(&attr);
    return started;
}

void gw_aside_init(struct gw_aside *aside, struct gw_loop *loop)
{
    aside->loop = loop;
    gw_list_init(&aside->jobs);
}

void gw_aside_run(struct gw_aside *aside, struct gw_aside_job *job,
                  void (*work)(struct gw_aside_job *), void (*done)(struct gw_aside_job *))
{
    *job = (struct gw_aside_job){.aside = aside, .work = work, .done = done};
    if (aside) {
        gw_list_push(&aside->jobs, &job->node);
        ev_async_init(&job->ended, on_ended);
        ev_async_start(aside->loop->ev, &job->ended);
        if (start_thread(job))
            return;
        ev_async_stop(aside->loop->ev, &job->ended);
        gw_list_remove(&job->node);
    }
    work(job);
    done(job);
}

void gw_aside_fini(struct gw_aside *aside)
{
    while (!gw_list_empty(&aside->jobs))
        end(GW_CONTAINER(aside->jobs.next, struct gw_aside_job, node));
}
