/* What an open event stream keeps of its way: heads, id and rule, in one block. gw_exchange_way,
 * gw_exchange_request, gw_exchange_response and gw_exchange_id are here, too. */
#ifndef GW_GATEWAY_KEPT_H
#define GW_GATEWAY_KEPT_H

#include "gateway/exchange.h"

/* Makes the block of an exchange whose answer is there, which frees it when it ends. */
void gw_kept_pack(struct gw_exchange *x);
/* The places of an open stream that is bounded; set: of any open stream, which is bounded then. */
void gw_kept_places(const struct gw_exchange *x, struct gw_places *places);
void gw_kept_set_places(struct gw_exchange *x, const struct gw_places *places);
/* The limits of a stream whose rule has its own; set: of any open stream, whose rule has them then.
 */
void gw_kept_clocks(const struct gw_exchange *x, struct gw_clocks *clocks);
void gw_kept_set_clocks(struct gw_exchange *x, const struct gw_clocks *clocks);
/* Frees what the way has needed. */
void gw_kept_drop_way(struct gw_exchange *x);

#endif
