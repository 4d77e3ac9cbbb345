/* Owns no memory: the places lie in the shared mapping. Called when connections and streams begin
 * and end. Invariant: each worker changes its own part only, and a place gets another key under the
 * lock and only while nothing of it is taken; so each store leaves everything in order, whoever
 * dies behind it. */
#include "gateway/tally.h"

#include <string.h>
#include "base/log.h"

enum { SETS = GW_TALLY_PLACES / GW_TALLY_WAYS };

struct gw_tally *gw_tally_new(struct gw_shm *shm, struct gw_stats *stats)
{
    struct gw_tally *tally = gw_shm_alloc(shm, sizeof *tally);
    if (!tally)
        return NULL;
    gw_shm_lock_init(&tally->lock);
    tally->stats = stats;
    return tally;
}

static unsigned workers_of(const struct gw_tally *tally)
{
    return __atomic_load_n(&tally->stats->workers, __ATOMIC_RELAXED);
}

uint32_t gw_tally_sum(const struct gw_tally *tally, unsigned place)
{
    uint32_t sum = 0;
    for (unsigned i = 0, n = workers_of(tally); i <= n; i++)
        sum += __atomic_load_n(&tally->part[i][place], __ATOMIC_RELAXED);
    return sum;
}

static void add(struct gw_tally *tally, unsigned worker, unsigned place, int n)
{
    uint32_t *at = &tally->part[worker][place];
    __atomic_store_n(at, *at + (uint32_t)n, __ATOMIC_RELAXED);
}

/* Looks for the key in one of the two sets where it may lie; notes the first place that is free. */
static unsigned find_in(const struct gw_tally *tally, uint64_t key, unsigned set, unsigned *spare)
{
    unsigned first = set * GW_TALLY_WAYS;
    for (unsigned i = first; i < first + GW_TALLY_WAYS; i++) {
        if (i && tally->key[i] == key)
            return i;
        if (i && !*spare && (!tally->key[i] || gw_tally_sum(tally, i) == 0))
            *spare = i;
    }
    return 0;
}

/* Two sets to choose from, so that one is rarely full before all are. 0: there is no place. */
static unsigned find(struct gw_tally *tally, uint64_t key)
{
    unsigned spare = 0, found = find_in(tally, key, (unsigned)(key % SETS), &spare);
    if (!found)
        found = find_in(tally, key, (unsigned)((key >> 32) % SETS), &spare);
    if (found || !spare)
        return found;
    __atomic_store_n(&tally->key[spare], key, __ATOMIC_RELAXED);
    return spare;
}

static enum gw_err take_one(struct gw_tally *tally, unsigned worker, struct gw_tally_wish *wish)
{
    unsigned place = find(tally, wish->key);
    wish->place = 0;
    if (!place)
        return wish->limit ? GW_ERR_UNCOUNTED : GW_OK;
    if (wish->limit && gw_tally_sum(tally, place) >= wish->limit)
        return wish->why;
    add(tally, worker, place, 1);
    wish->place = (uint16_t)place;
    return GW_OK;
}

static bool is_used_up(const struct gw_tally *tally, const struct gw_tally_total *total)
{
    uint64_t sum = 0;
    for (unsigned i = 0, n = workers_of(tally); i <= n && total->limit; i++) {
        const uint64_t *value = tally->stats->slot[i].value;
        sum += __atomic_load_n(&value[total->mine], __ATOMIC_RELAXED);
        if (total->other != total->mine)
            sum += __atomic_load_n(&value[total->other], __ATOMIC_RELAXED);
    }
    return total->limit && sum >= total->limit;
}

static enum gw_err take_all(struct gw_tally *tally, unsigned worker,
                            const struct gw_tally_total *total, struct gw_tally_wish *wishes,
                            unsigned count)
{
    enum gw_err err = is_used_up(tally, total) ? total->why : GW_OK;
    unsigned n = 0;
    while (err == GW_OK && n < count)
        err = take_one(tally, worker, &wishes[n++]);
    if (err == GW_OK) {
        gw_stat_add(&tally->stats->slot[worker], total->mine, 1);
        return GW_OK;
    }
    for (unsigned i = 0; i < n; i++)
        gw_tally_give(tally, worker, wishes[i].place);
    return err;
}

enum gw_err gw_tally_take(struct gw_tally *tally, unsigned worker,
                          const struct gw_tally_total *total, struct gw_tally_wish *wishes,
                          unsigned count)
{
    if (gw_shm_lock_take(&tally->lock))
        gw_log(GW_LOG_WARN, "a process died while it held the tally"); /* nothing to mend */
    enum gw_err err = take_all(tally, worker, total, wishes, count);
    gw_shm_lock_give(&tally->lock);
    return err;
}

/* Without the lock: others may see it a moment later, which refuses one too many at most. */
void gw_tally_give(struct gw_tally *tally, unsigned worker, unsigned place)
{
    if (place)
        add(tally, worker, place, -1);
}

unsigned gw_tally_keys(const struct gw_tally *tally)
{
    unsigned keys = 0;
    for (unsigned i = 1; i < GW_TALLY_PLACES; i++)
        keys += tally->key[i] && gw_tally_sum(tally, i) > 0;
    return keys;
}

void gw_tally_forget(struct gw_tally *tally, unsigned worker)
{
    memset(tally->part[worker], 0, sizeof tally->part[worker]);
}

void gw_tally_tell(struct gw_tally *tally, enum gw_err why)
{
    if (tally)
        __atomic_add_fetch(&tally->told[why], 1, __ATOMIC_RELAXED);
}

static void write_told(const struct gw_tally *tally, struct gw_buf *out, const char *label,
                       enum gw_err why)
{
    gw_buf_printf(out, "{%s=\"%s\"} %llu\n", label, gw_err_slug(why),
                  (unsigned long long)__atomic_load_n(&tally->told[why], __ATOMIC_RELAXED));
}

static bool is_bound(int why)
{
    return why >= GW_ERR_MAX_CONNECTIONS && why <= GW_ERR_UNCOUNTED;
}

void gw_tally_write(const struct gw_tally *tally, struct gw_buf *out)
{
    gw_buf_printf(out,
                  "# HELP gatewayd_bound_keys Clients, rules and sessions that are counted.\n"
                  "# TYPE gatewayd_bound_keys gauge\ngatewayd_bound_keys %u\n",
                  gw_tally_keys(tally));
    gw_buf_printf(out, "# HELP gatewayd_limited_total Requests refused at a bound.\n"
                       "# TYPE gatewayd_limited_total counter\n");
    for (int i = GW_ERR_MAX_CONNECTIONS; i <= GW_ERR_UNCOUNTED; i++) {
        gw_buf_printf(out, "gatewayd_limited_total");
        write_told(tally, out, "bound", (enum gw_err)i);
    }
    gw_buf_printf(out, "# HELP gatewayd_refused_total Requests refused for what they are.\n"
                       "# TYPE gatewayd_refused_total counter\n");
    for (int i = GW_AGAIN; i < GW_ERR_LIMIT; i++) {
        int status = gw_err_status((enum gw_err)i);
        if (is_bound(i) || (status / 100 != 4 && !tally->told[i]))
            continue;
        gw_buf_printf(out, "gatewayd_refused_total");
        write_told(tally, out, "reason", (enum gw_err)i);
    }
}
