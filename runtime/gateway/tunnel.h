/* A connection that has become something else than HTTP (Upgrade, 101): bytes both ways. */
#ifndef GW_GATEWAY_TUNNEL_H
#define GW_GATEWAY_TUNNEL_H

#include "gateway/exchange.h"

/* The request asks to upgrade: notes which of these protocols ("websocket,other") it named. None of
 * them, or a request that can't be answered by a tunnel (HTTP/1.0, a body): it goes on as a plain
 * one (RFC 9110, 7.8: a server may ignore Upgrade). idle_ms 0 = no limit. */
void gw_tunnel_permit(struct gw_exchange *x, struct gw_slice allowed, double idle_ms);
/* Whether a 101 names a protocol that was asked for; only that one is told to the client. */
bool gw_tunnel_matches(const struct gw_exchange *x, struct gw_head *head);
/* Whether the response, as hooks left it, and the backend agree about a tunnel. */
enum gw_err gw_tunnel_check(const struct gw_exchange *x) GW_MUST_CHECK;
/* The 101 has been sent. */
void gw_tunnel_start(struct gw_exchange *x);
/* Moves what can be moved. GW_OK: both sides have ended and have got all; GW_AGAIN: wait. */
enum gw_err gw_tunnel_run(struct gw_exchange *x) GW_MUST_CHECK;
/* Loop time at which bytes last went either way. */
uint64_t gw_tunnel_active_ms(const struct gw_exchange *x);

#endif
