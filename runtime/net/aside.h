/* Work done aside of the loop: on a thread of its own, while the loop goes on. For what takes long
 * and touches nothing that the loop, or another thread, uses meanwhile. */
#ifndef GW_NET_ASIDE_H
#define GW_NET_ASIDE_H

#include <pthread.h>
#include "net/loop.h"

/* What is being done aside of one loop. */
struct gw_aside {
    struct gw_loop *loop;
    struct gw_list jobs;
};

/* One piece of it; embedded in its owner. */
struct gw_aside_job {
    struct gw_list node;
    struct gw_aside *aside;
    struct ev_async ended;
    pthread_t thread;
    void (*work)(struct gw_aside_job *);
    void (*done)(struct gw_aside_job *);
};

void gw_aside_init(struct gw_aside *aside, struct gw_loop *loop);
/* Calls work(job) on a thread, and then done(job), which may free the job, in the loop. aside NULL,
 * or no thread to be had: both are called at once. */
void gw_aside_run(struct gw_aside *aside, struct gw_aside_job *job,
                  void (*work)(struct gw_aside_job *), void (*done)(struct gw_aside_job *));
/* Waits for all that is under way; for the end, when the loop does not turn any more. */
void gw_aside_fini(struct gw_aside *aside);

#endif
