/* `firstEvent`: an event stream's head is held back until its first event has come, so that a
 * backend that has nothing to say can still be answered for by another one, or by a real status. */
#ifndef GW_GATEWAY_FIRST_EVENT_H
#define GW_GATEWAY_FIRST_EVENT_H

#include "gateway/exchange.h"

/* The response is a stream whose head is not to go on before an event, and has not yet. */
bool gw_first_event_awaited(struct gw_exchange *x);
/* Looks at what there is of the response. GW_OK: it goes on, and all its bytes are in x->body;
 * GW_AGAIN: wait; else why it is none. */
enum gw_err gw_first_event(struct gw_exchange *x) GW_MUST_CHECK;
/* When it goes on at the latest; 0: nothing is held. */
uint64_t gw_first_event_due(const struct gw_exchange *x);
/* Nothing is held any more, whatever becomes of the response. */
void gw_first_event_end(struct gw_exchange *x);
/* It goes nowhere. */
void gw_first_event_drop(struct gw_exchange *x);

#endif
