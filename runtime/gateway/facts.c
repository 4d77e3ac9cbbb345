/* Owns no memory: the places lie in the shared mapping. Called by exchanges, which measure, and by
 * script/, for policies to read. Invariant: a place changes its name only under the lock, and only
 * when no worker uses it. */
#include "gateway/facts.h"

#include <math.h>
#include <string.h>
#include "base/log.h"
#include "base/map.h"

static const double TIME_CONSTANT_MS = 10000;

struct gw_facts *gw_facts_new(struct gw_shm *shm, struct gw_stats *stats)
{
    struct gw_facts *facts = gw_shm_alloc(shm, sizeof *facts);
    if (!facts)
        return NULL;
    gw_shm_lock_init(&facts->lock);
    facts->stats = stats;
    facts->count = 1;
    return facts;
}

uint32_t gw_facts_sum(const struct gw_facts *facts, unsigned place, enum gw_load load)
{
    unsigned workers = __atomic_load_n(&facts->stats->workers, __ATOMIC_RELAXED);
    uint32_t sum = 0;
    for (unsigned i = 0; i <= workers; i++)
        sum += __atomic_load_n(&facts->load[i][place][load], __ATOMIC_RELAXED);
    return sum;
}

static bool is_called(const struct gw_fact *fact, struct gw_slice key, uint32_t hash)
{
    return fact->hash == hash && gw_slice_eq(gw_slice_str(fact->key), key);
}

/* The one that nobody has used for longest, when there is no other. */
static unsigned reclaim(const struct gw_facts *facts)
{
    unsigned best = 0;
    for (unsigned i = 1; i < facts->count; i++) {
        if (gw_facts_sum(facts, i, GW_LOAD_USERS) == 0 &&
            (!best || facts->fact[i].used_ms < facts->fact[best].used_ms))
            best = i;
    }
    return best;
}

/* Once: there may be thousands. */
static void complain(void)
{
    static bool complained;
    if (!complained)
        gw_log(
            GW_LOG_WARN,
            "more than %d instances and services: nothing is measured of those beyond, nor checked",
            GW_FACTS_MAX - 1);
    complained = true;
}

static unsigned give_place(struct gw_facts *facts, struct gw_slice key, uint32_t hash)
{
    unsigned place = facts->count < GW_FACTS_MAX ? facts->count++ : reclaim(facts);
    if (!place) {
        complain();
        return 0;
    }
    struct gw_fact *fact = &facts->fact[place];
    memset(fact, 0, sizeof *fact);
    memset(&facts->latency[place], 0, sizeof facts->latency[place]);
    memcpy(fact->key, key.ptr, key.len);
    fact->hash = hash;
    return place;
}

static unsigned find(struct gw_facts *facts, struct gw_slice key, uint32_t hash)
{
    for (unsigned i = 1; i < facts->count; i++)
        if (is_called(&facts->fact[i], key, hash))
            return i;
    return give_place(facts, key, hash);
}

void gw_facts_lock(struct gw_facts *facts)
{
    if (gw_shm_lock_take(&facts->lock))
        gw_log(GW_LOG_WARN, "a process died while it held the facts"); /* nothing to mend */
}

void gw_facts_unlock(struct gw_facts *facts)
{
    gw_shm_lock_give(&facts->lock);
}

unsigned gw_facts_find(struct gw_facts *facts, unsigned worker, struct gw_slice key,
                       uint64_t now_ms)
{
    if (key.len >= GW_FACT_KEY_MAX)
        key.len = GW_FACT_KEY_MAX - 1;
    gw_facts_lock(facts);
    unsigned place = find(facts, key, (uint32_t)gw_hash(key));
    facts->fact[place].used_ms = now_ms;
    gw_facts_add(facts, worker, place, GW_LOAD_USERS, 1);
    gw_facts_unlock(facts);
    return place;
}

void gw_facts_forget(struct gw_facts *facts, unsigned worker)
{
    memset(facts->load[worker], 0, sizeof facts->load[worker]);
    if (facts->tally)
        gw_tally_forget(facts->tally, worker);
}

/* A float next to the low half of a time: whole microseconds would hide what many answers in one
 * millisecond change. */
union answer {
    struct {
        float average_us;
        uint32_t at_ms;
    };
    uint64_t both;
};

void gw_facts_answered(struct gw_facts *facts, unsigned place, uint64_t took_us, uint64_t now_ms)
{
    uint64_t *at = &facts->fact[place].answer;
    gw_latency_add(&facts->latency[place], took_us, now_ms);
    union answer old = {.both = __atomic_load_n(at, __ATOMIC_RELAXED)}, fresh;
    do {
        double apart_ms = fmax((uint32_t)now_ms - old.at_ms, 1);
        double share = old.both ? 1 - exp(-apart_ms / TIME_CONSTANT_MS) : 1;
        double average = old.average_us + ((double)took_us - old.average_us) * share;
        fresh = (union answer){{.average_us = (float)average, .at_ms = (uint32_t)now_ms}};
    } while (!__atomic_compare_exchange_n(at, &old.both, fresh.both, false, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
}

static union answer answer_of(const struct gw_facts *facts, unsigned place)
{
    return (union answer){.both = __atomic_load_n(&facts->fact[place].answer, __ATOMIC_RELAXED)};
}

double gw_facts_answer_us(const struct gw_facts *facts, unsigned place)
{
    return answer_of(facts, place).average_us;
}

uint32_t gw_facts_answer_age_ms(const struct gw_facts *facts, unsigned place, uint64_t now_ms)
{
    union answer answer = answer_of(facts, place);
    return answer.both ? (uint32_t)now_ms - answer.at_ms : 0;
}
