/* The circuit breaker of a service: while it is open no instance is asked. In shared memory, one
 * for all workers. */
#ifndef GW_GATEWAY_BREAKER_H
#define GW_GATEWAY_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

struct gw_service;

enum gw_circuit { GW_CIRCUIT_CLOSED, GW_CIRCUIT_OPEN, GW_CIRCUIT_HALF_OPEN };

struct gw_breaker {
    uint32_t circuit;   /* enum gw_circuit */
    uint32_t failures;  /* in a row, while it is closed */
    uint32_t successes; /* while it is half open */
    uint64_t until_ms;  /* while it is open: until when */
    uint64_t opened_total, refused_total;
};

enum gw_verdict { GW_VERDICT_NONE, GW_VERDICT_GOOD, GW_VERDICT_BAD };

/* Whether a request may go to the service. Then gw_breaker_leave must follow, with *probe as it was
 * set: one of the few that find out whether the service is back. Else *wait_ms says when to ask
 * again. */
bool gw_breaker_enter(struct gw_service *service, uint64_t now_ms, bool *probe, uint64_t *wait_ms);
void gw_breaker_leave(struct gw_service *service, bool probe, enum gw_verdict verdict,
                      uint64_t now_ms);
/* Whether a request would be refused now; looks only. */
bool gw_breaker_refuses(const struct gw_service *service, uint64_t now_ms);
/* "closed", "open" or "half_open". */
const char *gw_breaker_state(const struct gw_service *service);

#endif
