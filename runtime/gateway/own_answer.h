/* Requests that the gateway answers itself, whatever the rules say. */
#ifndef GW_GATEWAY_OWN_ANSWER_H
#define GW_GATEWAY_OWN_ANSWER_H

#include "gateway/exchange.h"

/* True: a reply is set, and no rule is asked. TRACE gets 405; OPTIONS for the whole server, or with
 * Max-Forwards: 0, an empty 200 (RFC 9110, 7.6.2, 9.3.7 and 9.3.8). */
bool gw_own_answer(struct gw_exchange *x);
/* Max-Forwards of a request that goes on: one less. head: the copy for the backend. */
void gw_own_count_hop(struct gw_head *head);

#endif
