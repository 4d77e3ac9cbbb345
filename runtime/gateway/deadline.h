/* When an exchange has waited long enough, and for what. gw_exchange_arm is here, too. */
#ifndef GW_GATEWAY_DEADLINE_H
#define GW_GATEWAY_DEADLINE_H

#include "gateway/exchange.h"

void gw_deadline_init(struct gw_exchange *x);
/* Since when the backend has been the one to act, in ms of the loop: it has the whole request, or
 * does not take it. 0: it waits for the client's. */
uint64_t gw_deadline_asked_since(const struct gw_exchange *x);

#endif
