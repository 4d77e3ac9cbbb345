/* What becomes of open event streams when another version takes over: they are carried over between
 * two events, stay, or end. */
#ifndef GW_GATEWAY_ADOPTION_H
#define GW_GATEWAY_ADOPTION_H

#include "gateway/exchange.h"

void gw_adoption_init(struct gw_gateway *gateway);
void gw_adoption_fini(struct gw_gateway *gateway);
/* There is a new current generation: looks at all streams, some per turn. */
void gw_adoption_begin(struct gw_gateway *gateway);
/* Looks at one, whose generation is not the current one, if it can be now. */
void gw_adoption_try(struct gw_exchange *x);

#endif
