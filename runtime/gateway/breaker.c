/* Owns no memory: breakers lie among the facts. Called by exchanges, before an instance is chosen
 * and when it is known how that went. Invariant: the circuit changes under the lock only; the place
 * of the service counts its probes as requests, so that those of a dead worker do not stay. */
#include "gateway/breaker.h"

#include "base/log.h"
#include "gateway/service.h"

enum { PROBE_WAIT_MS = 1000 };

#define LOAD(at)         __atomic_load_n(at, __ATOMIC_RELAXED)
#define STORE(at, value) __atomic_store_n(at, value, __ATOMIC_RELAXED)

static const char *const names[] = {"closed", "open", "half_open"};

const char *gw_breaker_state(const struct gw_service *service)
{
    return names[LOAD(&gw_service_breaker(service)->circuit)];
}

static void log_change(const struct gw_service *service, enum gw_circuit from, enum gw_circuit to,
                       const char *why)
{
    struct gw_log_line line;
    gw_log_begin(&line, to == GW_CIRCUIT_OPEN ? GW_LOG_WARN : GW_LOG_INFO, "circuit changed");
    gw_log_cstr(&line, "service", service->name);
    gw_log_cstr(&line, "from", names[from]);
    gw_log_cstr(&line, "to", names[to]);
    gw_log_cstr(&line, "why", why);
    gw_log_end(&line);
}

/* Under the lock. */
static void set_circuit(const struct gw_service *service, enum gw_circuit to, uint64_t now_ms)
{
    struct gw_breaker *breaker = gw_service_breaker(service);
    STORE(&breaker->failures, 0);
    STORE(&breaker->successes, 0);
    if (to == GW_CIRCUIT_OPEN) {
        STORE(&breaker->until_ms, now_ms + service->breaker.timeout_ms);
        __atomic_add_fetch(&breaker->opened_total, 1, __ATOMIC_RELAXED);
    }
    STORE(&breaker->circuit, (uint32_t)to);
}

/* From one circuit to another, by whoever comes first. */
static void change(const struct gw_service *service, enum gw_circuit from, enum gw_circuit to,
                   const char *why, uint64_t now_ms)
{
    gw_facts_lock(service->facts);
    bool first = LOAD(&gw_service_breaker(service)->circuit) == from;
    if (first)
        set_circuit(service, to, now_ms);
    gw_facts_unlock(service->facts);
    if (first)
        log_change(service, from, to, why);
}

static bool take_probe(const struct gw_service *service)
{
    gw_facts_lock(service->facts);
    bool free =
        gw_facts_sum(service->facts, service->fact, GW_LOAD_REQUESTS) < service->breaker.probes;
    if (free)
        gw_facts_add(service->facts, service->worker, service->fact, GW_LOAD_REQUESTS, 1);
    gw_facts_unlock(service->facts);
    return free;
}

bool gw_breaker_enter(struct gw_service *service, uint64_t now_ms, bool *probe, uint64_t *wait_ms)
{
    struct gw_breaker *breaker = gw_service_breaker(service);
    *probe = false;
    if (!service->fact || LOAD(&breaker->circuit) == GW_CIRCUIT_CLOSED)
        return true;
    uint64_t until = LOAD(&breaker->until_ms);
    bool waits = LOAD(&breaker->circuit) == GW_CIRCUIT_OPEN;
    if (waits && now_ms >= until) {
        change(service, GW_CIRCUIT_OPEN, GW_CIRCUIT_HALF_OPEN, "its time is over", now_ms);
        waits = false;
    }
    *probe = !waits && take_probe(service);
    if (!*probe)
        __atomic_add_fetch(&breaker->refused_total, 1, __ATOMIC_RELAXED);
    *wait_ms = waits ? until - now_ms : PROBE_WAIT_MS;
    return *probe;
}

bool gw_breaker_refuses(const struct gw_service *service, uint64_t now_ms)
{
    const struct gw_breaker *breaker = gw_service_breaker(service);
    uint32_t circuit = LOAD(&breaker->circuit);
    if (!service->fact || circuit == GW_CIRCUIT_CLOSED)
        return false;
    if (circuit == GW_CIRCUIT_OPEN && now_ms < LOAD(&breaker->until_ms))
        return true;
    return gw_facts_sum(service->facts, service->fact, GW_LOAD_REQUESTS) >= service->breaker.probes;
}

static void leave_closed(const struct gw_service *service, enum gw_verdict verdict, uint64_t now_ms)
{
    struct gw_breaker *breaker = gw_service_breaker(service);
    if (LOAD(&breaker->circuit) != GW_CIRCUIT_CLOSED)
        return; /* it began before the circuit opened */
    if (verdict == GW_VERDICT_GOOD) {
        if (LOAD(&breaker->failures))
            STORE(&breaker->failures, 0);
    } else if (__atomic_add_fetch(&breaker->failures, 1, __ATOMIC_RELAXED) >=
               service->breaker.failures) {
        change(service, GW_CIRCUIT_CLOSED, GW_CIRCUIT_OPEN, "failures in a row", now_ms);
    }
}

static void leave_half_open(const struct gw_service *service, enum gw_verdict verdict,
                            uint64_t now_ms)
{
    uint32_t *successes = &gw_service_breaker(service)->successes;
    if (verdict == GW_VERDICT_BAD)
        change(service, GW_CIRCUIT_HALF_OPEN, GW_CIRCUIT_OPEN, "a probe failed", now_ms);
    else if (__atomic_add_fetch(successes, 1, __ATOMIC_RELAXED) >= service->breaker.successes)
        change(service, GW_CIRCUIT_HALF_OPEN, GW_CIRCUIT_CLOSED, "probes succeeded", now_ms);
}

void gw_breaker_leave(struct gw_service *service, bool probe, enum gw_verdict verdict,
                      uint64_t now_ms)
{
    if (probe) {
        gw_facts_lock(service->facts);
        gw_facts_add(service->facts, service->worker, service->fact, GW_LOAD_REQUESTS, -1);
        gw_facts_unlock(service->facts);
    }
    if (verdict == GW_VERDICT_NONE || !service->fact)
        return;
    if (probe)
        leave_half_open(service, verdict, now_ms);
    else
        leave_closed(service, verdict, now_ms);
}
