/* Whose request it is: the peer, or whom a peer speaks for that is believed (a trusted proxy); and
 * what backends are told of it. */
#ifndef GW_GATEWAY_CLIENT_H
#define GW_GATEWAY_CLIENT_H

#include "base/log.h"
#include "gateway/exchange.h"

/* Called with the head of a request, before anybody asks whose it is. */
void gw_client_arrive(struct gw_exchange *x);
/* Keeps the peer's address when its connection goes. */
void gw_client_gone(struct gw_exchange *x, struct gw_arena *arena);
/* Gives back what gw_client_arrive took. */
void gw_client_leave(struct gw_exchange *x);
/* Writes into a head for a backend who the client is. */
void gw_client_tell(const struct gw_exchange *x, struct gw_head *out);
/* `client`, and `peer` where that is somebody else. */
void gw_client_log(const struct gw_exchange *x, struct gw_log_line *line);

#endif
