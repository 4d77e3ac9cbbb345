/* What is known about the instances of services, measured where it happens and shared by all
 * workers. Facts only: who is chosen, and whom to leave alone, is for policies to say. */
#ifndef GW_GATEWAY_FACTS_H
#define GW_GATEWAY_FACTS_H

#include <stdint.h>
#include "base/shm.h"
#include "base/slice.h"
#include "gateway/budget.h"
#include "gateway/latency.h"
#include "gateway/breaker.h"
#include "gateway/standing.h"
#include "gateway/stats.h"
#include "gateway/tally.h"

enum { GW_FACTS_MAX = 2048, GW_FACT_KEY_MAX = 192 };

/* What each worker counts for itself: one that dies takes its part along. */
enum gw_load {
    GW_LOAD_USERS,    /* objects that refer to the fact; it is not reused before they are gone */
    GW_LOAD_REQUESTS, /* exchanges in flight, streams included */
    GW_LOAD_STREAMS,  /* open event streams */
    GW_LOAD_PLACES,   /* taken of the streams that an instance may have */
    GW_LOAD_LIMIT
};

/* One instance under one name and address, or one service, the same in all versions that have it.
 * In shared memory. */
struct gw_fact {
    char key[GW_FACT_KEY_MAX]; /* terminated; "": free */
    uint32_t hash;
    uint64_t used_ms; /* when it was looked up last */
    uint64_t answer;  /* moving average of the time to the response head, and when it was made */
    struct gw_standing standing; /* of an instance */
    struct gw_roll roll;         /* of a service */
    struct gw_breaker breaker;   /* of a service */
};

struct gw_facts {
    struct gw_shm_lock lock; /* for giving places away, and for what is counted to be decided */
    unsigned count;          /* places that were ever given away; place 0 is for all without one */
    struct gw_stats *stats;  /* tells how many workers there are */
    struct gw_tally *tally;  /* of what clients may have; NULL: nothing is bounded */
    struct gw_budgets budgets; /* of services, for what is asked again */
    struct gw_fact fact[GW_FACTS_MAX];
    struct gw_latency latency[GW_FACTS_MAX]; /* of each fact; apart, for names are searched */
    uint32_t load[GW_MAX_WORKERS + 1][GW_FACTS_MAX][GW_LOAD_LIMIT];
};

/* All of them, in shared memory; before the fork. NULL when that is used up. */
struct gw_facts *gw_facts_new(struct gw_shm *shm, struct gw_stats *stats);
/* The place of what is called so, given away to it where it has none; the worker is counted among
 * its users until it takes that back by gw_facts_add. When all places are in use: 0. */
unsigned gw_facts_find(struct gw_facts *facts, unsigned worker, struct gw_slice key,
                       uint64_t now_ms);
/* For what is decided by a sum over all workers. Who dies inside leaves nothing half done. */
void gw_facts_lock(struct gw_facts *facts);
void gw_facts_unlock(struct gw_facts *facts);
/* The worker's own part of what is counted; nobody else writes it. */
static inline void gw_facts_add(struct gw_facts *facts, unsigned worker, unsigned place,
                                enum gw_load load, int n)
{
    uint32_t *at = &facts->load[worker][place][load];
    __atomic_store_n(at, *at + (uint32_t)n, __ATOMIC_RELAXED);
}
/* Over all workers. */
uint32_t gw_facts_sum(const struct gw_facts *facts, unsigned place, enum gw_load load);
/* Zeroes the part of a worker that died. */
void gw_facts_forget(struct gw_facts *facts, unsigned worker);
/* An answer's head came that long after its request: counts with a time constant of ten seconds. */
void gw_facts_answered(struct gw_facts *facts, unsigned place, uint64_t took_us, uint64_t now_ms);
/* The average in microseconds; 0: nothing is known. */
double gw_facts_answer_us(const struct gw_facts *facts, unsigned place);
/* How long ago the last answer was; 0 where there was none. */
uint32_t gw_facts_answer_age_ms(const struct gw_facts *facts, unsigned place, uint64_t now_ms);

#endif
