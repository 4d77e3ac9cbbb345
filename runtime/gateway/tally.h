/* Counts of what may be had a bounded number of times, over all workers: connections and streams of
 * a client, streams of a rule or a session. In shared memory. */
#ifndef GW_GATEWAY_TALLY_H
#define GW_GATEWAY_TALLY_H

#include <stdint.h>
#include "base/err.h"
#include "base/shm.h"
#include "gateway/stats.h"

enum {
    GW_TALLY_WAYS = 16,       /* places where one key may lie next to each other */
    GW_TALLY_PLACES = 1 << 16 /* keys that are counted at the same time, less one */
};

struct gw_tally {
    struct gw_shm_lock lock;
    struct gw_stats *stats;        /* tells how many workers there are */
    uint64_t told[GW_ERR_LIMIT];   /* requests that were refused, by the reason */
    uint64_t key[GW_TALLY_PLACES]; /* whom a place counts, or counted last; 0: nobody yet */
    uint32_t part[GW_MAX_WORKERS + 1][GW_TALLY_PLACES];
};

/* One unit that is wanted of what has a key. */
struct gw_tally_wish {
    uint64_t key;    /* not 0 */
    uint32_t limit;  /* over all workers; 0: it is only counted */
    enum gw_err why; /* what is said when there is none left */
    uint16_t place;  /* set: where it was counted, for gw_tally_give */
};

/* The same of what there is but one of, which is counted among the statistics. */
struct gw_tally_total {
    enum gw_stat mine;  /* to which the unit is added */
    enum gw_stat other; /* that counts as well; the same where there is none */
    uint32_t limit;     /* 0: none */
    enum gw_err why;
};

/* In shared memory; before the fork. NULL when that is used up. */
struct gw_tally *gw_tally_new(struct gw_shm *shm, struct gw_stats *stats);
/* Takes one of everything, or nothing: then says why. Where there is no place for another key,
 * GW_ERR_UNCOUNTED. What has a limit never exceeds it. */
enum gw_err gw_tally_take(struct gw_tally *tally, unsigned worker,
                          const struct gw_tally_total *total, struct gw_tally_wish *wishes,
                          unsigned count);
/* Gives back what the same worker has taken of a key. The total is given back by gw_stat_add. */
void gw_tally_give(struct gw_tally *tally, unsigned worker, unsigned place);
/* How many are taken at a place, over all workers. */
uint32_t gw_tally_sum(const struct gw_tally *tally, unsigned place);
/* How many keys have something taken. */
unsigned gw_tally_keys(const struct gw_tally *tally);
/* Gives back all that a worker has taken that died. */
void gw_tally_forget(struct gw_tally *tally, unsigned worker);
/* A request was refused for that reason. tally may be NULL. */
void gw_tally_tell(struct gw_tally *tally, enum gw_err why);
/* What was refused, as metrics: by a bound of the gateway's, and for what the request was. */
void gw_tally_write(const struct gw_tally *tally, struct gw_buf *out);

#endif
