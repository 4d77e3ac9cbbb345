/* What an exchange has to do with the rules of its service: whether it may go there at all, the
 * place that it takes of an instance, and how each try went. */
#ifndef GW_GATEWAY_OUTCOME_H
#define GW_GATEWAY_OUTCOME_H

#include "gateway/exchange.h"
#include "gateway/service.h"

/* Asks the breaker of a service, once for an exchange. False: it is refused for *wait_ms. */
bool gw_outcome_admit(struct gw_exchange *x, struct gw_service *service, uint64_t *wait_ms);
/* An instance was chosen: takes one of its places for streams. False: there is none left, and
 * another one has to be chosen. */
bool gw_outcome_begin(struct gw_exchange *x);
/* It gave no answer, for this reason; its place is free. */
void gw_outcome_failed(struct gw_exchange *x, enum gw_err why);
/* Its answer has begun. */
void gw_outcome_answered(struct gw_exchange *x, unsigned status);
/* Which try was the last one is known: tells the breaker. Twice is once. */
void gw_outcome_settle(struct gw_exchange *x);
/* The exchange ends without an answer, which is nobody's fault: the same, and it counts for
 * nothing. */
void gw_outcome_cancel(struct gw_exchange *x);
/* It is no stream, or one no longer: gives the place back, if it has one. */
void gw_outcome_leave(struct gw_exchange *x);

#endif
