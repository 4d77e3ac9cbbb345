/* What a gateway adds to heads on their way through (RFC 9110, section 7.6). */
#ifndef GW_GATEWAY_FORWARD_H
#define GW_GATEWAY_FORWARD_H

#include "gateway/exchange.h"

/* Fills `out` (initialised over an arena of the caller's) with the request as the backend gets it.
 */
void gw_forward_request(const struct gw_exchange *x, struct gw_head *out);
/* Prepares the response head for the client, in place. */
void gw_forward_response(struct gw_exchange *x);
/* Tells a client that waits for it (Expect: 100-continue) to send its body; at most once. */
enum gw_err gw_forward_continue(struct gw_exchange *x) GW_MUST_CHECK;
/* Takes the client's request id where it is sane, or draws one. */
void gw_forward_id(struct gw_exchange *x);

#endif
