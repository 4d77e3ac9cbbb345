/* Owns no memory: standings lie among the facts. Called by the master's checks, by exchanges that
 * report how they fared, and by script/ for policies. Invariant: each change is one atomic store,
 * made known by `publish`; only what must be counted first is decided under the lock. */
#include "gateway/standing.h"

#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "gateway/service.h"

enum { SLOW_STEPS = GW_TENTHS - 1, WHY_MAX = 96, WINDOW_PARTS = 2 };

#define LOAD(at)         __atomic_load_n(at, __ATOMIC_SEQ_CST)
#define STORE(at, value) __atomic_store_n(at, value, __ATOMIC_SEQ_CST)
#define ADD(at, n)       __atomic_add_fetch(at, n, __ATOMIC_SEQ_CST)
#define SWAP(at, value)  __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST)
#define REPLACE(at, old, value)                                                                    \
    __atomic_compare_exchange_n(at, old, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

/* Without a place of its own nothing is known of it, and it counts in full. */
static bool is_watched(const struct gw_instance *instance)
{
    return instance->of && instance->of->fact && instance->fact;
}

static bool is_down(const struct gw_instance *instance)
{
    return instance->of->check.interval_ms &&
           LOAD(&gw_instance_standing(instance)->checked) == GW_CHECK_DOWN;
}

static bool is_ejected(const struct gw_instance *instance)
{
    return instance->of->passive_on && LOAD(&gw_instance_standing(instance)->ejected_ms);
}

static bool is_full(const struct gw_instance *instance)
{
    return instance->of->max_streams && LOAD(&gw_instance_standing(instance)->full);
}

/* Steps of the slow start that are behind it; SLOW_STEPS: all, or there is none. */
static unsigned slow_steps(const struct gw_instance *instance, uint64_t now_ms)
{
    uint64_t slow_ms = instance->of->slow_start_ms;
    uint64_t since = LOAD(&gw_instance_standing(instance)->returned_ms);
    if (!since || now_ms >= since + slow_ms)
        return SLOW_STEPS;
    return now_ms > since ? (unsigned)((now_ms - since) * SLOW_STEPS / slow_ms) : 0;
}

static unsigned missing(const struct gw_instance *instance, uint64_t now_ms)
{
    if (is_down(instance) || is_ejected(instance) || is_full(instance))
        return GW_TENTHS;
    return SLOW_STEPS - slow_steps(instance, now_ms);
}

static void log_change(const struct gw_instance *instance, const char *from, const char *to,
                       const char *why)
{
    char addr[GW_ADDR_TEXT];
    struct gw_log_line line;
    bool well = strcmp(to, "up") == 0 || strcmp(to, "slow_start") == 0;
    gw_log_begin(&line, well ? GW_LOG_INFO : GW_LOG_WARN, "instance changed");
    gw_log_cstr(&line, "service", instance->service);
    gw_log_cstr(&line, "instance", instance->id);
    gw_log_cstr(&line, "addr", gw_addr_text(&instance->addr, addr));
    gw_log_cstr(&line, "from", from);
    gw_log_cstr(&line, "to", to);
    gw_log_cstr(&line, "why", why);
    gw_log_end(&line);
}

/* Others may store something meanwhile: the last one to publish sees what all have stored. */
static void publish(const struct gw_instance *instance, uint64_t now_ms)
{
    uint32_t *at = &gw_instance_standing(instance)->missing, wanted;
    do {
        wanted = missing(instance, now_ms);
        uint32_t before = SWAP(at, wanted);
        if (before == wanted)
            return;
        ADD(&gw_service_roll(instance->of)->changes, 1);
        if (before < GW_TENTHS && !wanted)
            log_change(instance, "slow_start", "up", "the slow start is over");
    } while (missing(instance, now_ms) != wanted);
}

static uint64_t next_due(const struct gw_instance *instance, uint64_t now_ms)
{
    const struct gw_standing *standing = gw_instance_standing(instance);
    if (is_ejected(instance))
        return LOAD(&standing->ejected_ms);
    unsigned steps = slow_steps(instance, now_ms);
    if (steps == SLOW_STEPS)
        return 0;
    uint64_t slow_ms = instance->of->slow_start_ms;
    return LOAD(&standing->returned_ms) + ((steps + 1) * slow_ms + SLOW_STEPS - 1) / SLOW_STEPS;
}

/* It is back, for this reason; another one may still keep it out. What is in service again begins
 * small, where that is wanted. */
static void come_back(const struct gw_instance *instance, const char *from, const char *why,
                      uint64_t now_ms)
{
    STORE(&gw_instance_standing(instance)->returned_ms, now_ms);
    publish(instance, now_ms);
    log_change(instance, from, gw_standing_state(instance), why);
}

/* One more failure ejects it again, one success makes it like any other. */
static void end_ejection(const struct gw_instance *instance, uint64_t now_ms)
{
    struct gw_standing *standing = gw_instance_standing(instance);
    uint64_t until = LOAD(&standing->ejected_ms);
    if (!until || now_ms < until || !REPLACE(&standing->ejected_ms, &until, 0))
        return;
    uint32_t limit = instance->of->passive.failures;
    STORE(&standing->failures, limit ? limit - 1 : 0);
    come_back(instance, "ejected", "its time is over", now_ms);
}

static bool is_taken(const struct gw_instance *instance)
{
    uint32_t most = LOAD(&gw_service_roll(instance->of)->max_streams);
    return most && gw_facts_sum(instance->facts, instance->fact, GW_LOAD_PLACES) >= most;
}

/* Under the lock. */
static void note_places(const struct gw_instance *instance)
{
    STORE(&gw_instance_standing(instance)->full, is_taken(instance));
}

static void recount_places(const struct gw_instance *instance)
{
    if (!instance->of->max_streams)
        return;
    gw_facts_lock(instance->facts);
    note_places(instance);
    gw_facts_unlock(instance->facts);
}

/* What time will bring next to those that this process knows of: another one may have been told
 * other addresses of a name. */
static void foresee(struct gw_service *service, uint64_t now_ms)
{
    struct gw_list *all = &service->instances;
    service->changes = LOAD(&gw_service_roll(service)->changes);
    service->due_ms = 0;
    for (struct gw_list *at = all->next; at != all; at = at->next) {
        const struct gw_instance *instance = gw_service_instance(at);
        uint64_t due_ms = is_watched(instance) ? next_due(instance, now_ms) : 0;
        if (due_ms && (!service->due_ms || due_ms < service->due_ms))
            service->due_ms = due_ms;
    }
}

void gw_standing_review(struct gw_service *service, uint64_t now_ms)
{
    if (!service->fact)
        return;
    struct gw_list *all = &service->instances;
    for (struct gw_list *at = all->next; at != all; at = at->next) {
        const struct gw_instance *instance = gw_service_instance(at);
        if (!is_watched(instance))
            continue;
        end_ejection(instance, now_ms);
        recount_places(instance);
        publish(instance, now_ms);
    }
    foresee(service, now_ms);
}

uint32_t gw_standing_changes(struct gw_service *service, uint64_t now_ms)
{
    const struct gw_roll *roll = gw_service_roll(service);
    if (LOAD(&roll->changes) != service->changes && service->due_ms != GW_DUE_NOW)
        foresee(service, now_ms);
    if (service->due_ms && now_ms >= service->due_ms)
        gw_standing_review(service, now_ms);
    return LOAD(&roll->changes);
}

unsigned gw_standing_tenths(const struct gw_instance *instance)
{
    if (instance->barred)
        return 0;
    return is_watched(instance) ? GW_TENTHS - LOAD(&gw_instance_standing(instance)->missing)
                                : GW_TENTHS;
}

const char *gw_standing_state(const struct gw_instance *instance)
{
    if (instance->barred)
        return "unhealthy";
    if (!is_watched(instance))
        return "up";
    if (is_down(instance))
        return "down";
    if (is_ejected(instance))
        return "ejected";
    if (is_full(instance))
        return "full";
    return LOAD(&gw_instance_standing(instance)->missing) ? "slow_start" : "up";
}

/* Active checks. */

/* The first one decides alone; from then on it takes `rise` or `fall` of them in a row. */
static uint32_t checks_needed(const struct gw_check_rules *rules, uint32_t checked)
{
    return checked == GW_CHECK_NONE ? 1 : checked == GW_CHECK_UP ? rules->fall : rules->rise;
}

void gw_standing_check(struct gw_instance *instance, bool good, const char *why, uint64_t now_ms)
{
    struct gw_standing *standing = gw_instance_standing(instance);
    const char *state = gw_standing_state(instance);
    uint32_t before = LOAD(&standing->checked), now = good ? GW_CHECK_UP : GW_CHECK_DOWN;
    STORE(&standing->checked_ms, now_ms);
    if (!good)
        ADD(&standing->failed_checks_total, 1);
    if (now == before)
        STORE(&standing->contrary, 0);
    else if (ADD(&standing->contrary, 1) >= checks_needed(&instance->of->check, before)) {
        STORE(&standing->contrary, 0);
        STORE(&standing->checked, now);
        if (!good)
            log_change(instance, before == GW_CHECK_UP ? state : "unknown", "down", why);
        else if (before == GW_CHECK_DOWN)
            come_back(instance, "down", "checks succeed", now_ms);
        else
            log_change(instance, "unknown", state, "the first check succeeded");
        publish(instance, now_ms);
    }
}

/* What requests say. */

/* Requests of one half of the window; two of them, in turn, are the whole. */
union tally {
    struct {
        uint32_t half; /* which one, since the beginning of time; its low bits */
        uint16_t requests, failures;
    };
    uint64_t both;
};

static union tally tally_of(const struct gw_standing *standing, uint32_t half)
{
    union tally tally = {.both = LOAD(&standing->tally[half % WINDOW_PARTS])};
    return tally.half == half ? tally : (union tally){{.half = half}};
}

/* Both numbers are halved before one overflows: what counts is what they are to each other. */
static union tally counted(union tally tally, bool failed)
{
    if (tally.requests == UINT16_MAX) {
        tally.requests /= 2;
        tally.failures /= 2;
    }
    tally.requests++;
    tally.failures += failed;
    return tally;
}

static void count(const struct gw_instance *instance, bool failed, uint64_t now_ms,
                  unsigned *requests, unsigned *failures)
{
    struct gw_standing *standing = gw_instance_standing(instance);
    uint32_t half_ms = instance->of->passive.window_ms / WINDOW_PARTS;
    uint32_t half = (uint32_t)(now_ms / (half_ms ? half_ms : 1));
    uint64_t *at = &standing->tally[half % WINDOW_PARTS], old = LOAD(at);
    union tally fresh, earlier = tally_of(standing, half - 1);
    do {
        fresh.both = old;
        fresh = counted(fresh.half == half ? fresh : (union tally){{.half = half}}, failed);
    } while (!REPLACE(at, &old, fresh.both));
    *requests = fresh.requests + earlier.requests;
    *failures = fresh.failures + earlier.failures;
}

/* At least one of several may go, however few the percentage makes. */
static bool may_eject(const struct gw_service *service)
{
    unsigned ejected = 0, all = 0;
    for (const struct gw_list *at = service->instances.next; at != &service->instances;
         at = at->next) {
        const struct gw_instance *instance = gw_service_instance(at);
        all += !instance->barred;
        ejected += !instance->barred && LOAD(&gw_instance_standing(instance)->ejected_ms);
    }
    unsigned most = all * service->passive.max_eject_percent / 100;
    return all > 1 && ejected < (most ? most : 1);
}

static uint64_t ejection_time(const struct gw_passive_rules *rules, uint32_t before)
{
    uint64_t time_ms = rules->base_eject_ms;
    while (before-- && time_ms < rules->max_eject_ms)
        time_ms *= 2;
    return time_ms < rules->max_eject_ms ? time_ms : rules->max_eject_ms;
}

enum ejection { EJECTED, EJECTED_BEFORE, SPARED };

static enum ejection try_eject(const struct gw_instance *instance, uint64_t now_ms)
{
    struct gw_standing *standing = gw_instance_standing(instance);
    enum ejection result = EJECTED_BEFORE;
    gw_facts_lock(instance->facts);
    if (!LOAD(&standing->ejected_ms))
        result = may_eject(instance->of) ? EJECTED : SPARED;
    if (result == EJECTED) {
        uint64_t time_ms = ejection_time(&instance->of->passive, standing->ejections);
        STORE(&standing->eject_ms, time_ms);
        ADD(&standing->ejections, 1);
        ADD(&standing->ejected_total, 1);
        STORE(&standing->ejected_ms, now_ms + time_ms);
    }
    gw_facts_unlock(instance->facts);
    return result;
}

/* It stays, and is looked at again when it has failed that often once more: which is said as often
 * as it would have been ejected. */
static void log_spared(const struct gw_instance *instance, const char *why, uint64_t now_ms)
{
    struct gw_log_line line;
    uint64_t before = SWAP(&gw_instance_standing(instance)->spared_ms, now_ms);
    if (before && now_ms < before + instance->of->passive.base_eject_ms) {
        STORE(&gw_instance_standing(instance)->spared_ms, before);
        return;
    }
    gw_log_begin(&line, GW_LOG_WARN, "instance not ejected");
    gw_log_cstr(&line, "service", instance->service);
    gw_log_cstr(&line, "instance", instance->id);
    gw_log_cstr(&line, "limit", "passiveHealth.maxEjectionPercent");
    gw_log_cstr(&line, "why", why);
    gw_log_end(&line);
}

static void eject(const struct gw_instance *instance, const char *why, uint64_t now_ms)
{
    struct gw_standing *standing = gw_instance_standing(instance);
    const char *from = gw_standing_state(instance);
    enum ejection result = try_eject(instance, now_ms);
    if (result == EJECTED_BEFORE)
        return;
    STORE(&standing->failures, 0);
    for (int i = 0; i < WINDOW_PARTS; i++)
        STORE(&standing->tally[i], 0);
    if (result == SPARED) {
        log_spared(instance, why, now_ms);
        return;
    }
    publish(instance, now_ms);
    ADD(&gw_service_roll(instance->of)->changes, 1); /* also where it was out before */
    log_change(instance, from, "ejected", why);
}

static void note_success(struct gw_standing *standing, uint64_t now_ms)
{
    if (LOAD(&standing->failures))
        STORE(&standing->failures, 0);
    /* It has been well for as long as it was away: forgiven. */
    if (LOAD(&standing->ejections) && !LOAD(&standing->ejected_ms) &&
        now_ms >= LOAD(&standing->returned_ms) + LOAD(&standing->eject_ms))
        STORE(&standing->ejections, 0);
}

static void judge_failure(const struct gw_instance *instance, unsigned requests, unsigned failures,
                          const char *why, uint64_t now_ms)
{
    const struct gw_passive_rules *rules = &instance->of->passive;
    uint32_t in_a_row = ADD(&gw_instance_standing(instance)->failures, 1);
    char text[WHY_MAX];
    if (rules->failures && in_a_row >= rules->failures) {
        snprintf(text, sizeof text, "%u failures in a row, now %.32s", in_a_row, why);
        eject(instance, text, now_ms);
    } else if (rules->error_permille && requests >= rules->min_requests &&
               failures * 1000ull >= (uint64_t)rules->error_permille * requests) {
        snprintf(text, sizeof text, "%u of %u requests failed, now %.32s", failures, requests, why);
        eject(instance, text, now_ms);
    }
}

void gw_standing_answer(struct gw_instance *instance, unsigned status, const char *why,
                        uint64_t now_ms)
{
    bool passive = is_watched(instance) && instance->of->passive_on;
    bool bad =
        status == GW_NO_ANSWER || (passive && gw_statuses_have(&instance->of->passive.bad, status));
    unsigned requests, failures;
    char text[24];
    if (bad && instance->fact)
        ADD(&gw_instance_standing(instance)->failed_total, 1);
    if (!passive)
        return;
    count(instance, bad, now_ms, &requests, &failures);
    if (!bad) {
        note_success(gw_instance_standing(instance), now_ms);
        return;
    }
    snprintf(text, sizeof text, "status %u", status);
    judge_failure(instance, requests, failures, why ? why : text, now_ms);
}

/* Places for streams. */

bool gw_standing_take_place(struct gw_instance *instance, uint64_t now_ms)
{
    gw_facts_lock(instance->facts);
    bool free = !is_taken(instance);
    if (free)
        gw_instance_add(instance, GW_LOAD_PLACES, 1);
    note_places(instance);
    gw_facts_unlock(instance->facts);
    publish(instance, now_ms);
    return free;
}

void gw_standing_give_place(struct gw_instance *instance, uint64_t now_ms)
{
    gw_facts_lock(instance->facts);
    gw_instance_add(instance, GW_LOAD_PLACES, -1);
    note_places(instance);
    gw_facts_unlock(instance->facts);
    publish(instance, now_ms);
}
