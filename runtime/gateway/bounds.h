/* What clients may hold: connections and event streams, in total, for each client, rule and
 * session; and what is buffered for them. Where nothing is bounded, nothing is counted. */
#ifndef GW_GATEWAY_BOUNDS_H
#define GW_GATEWAY_BOUNDS_H

#include "gateway/exchange.h"

enum { GW_RETRY_SPREAD_S = 10 };

/* Of the streams of one exchange's rule; 0: none. */
struct gw_bounds {
    uint32_t total; /* frontend.sse.maxStreams */
    uint32_t limit[GW_BOUND_KEYS];
    uint64_t session; /* a hash of its key; 0: it has none */
};

/* A hash of what is one client: an IPv4 address, a prefix of an IPv6 one. 0: it has no address, as
 * a peer on a unix socket. */
uint64_t gw_bounds_client(const struct gw_addr *addr, unsigned prefix6);

/* A client's connection, whose peer is known by now. GW_OK: it counts until gw_bounds_leave. */
enum gw_err gw_bounds_admit(struct gw_gateway *gateway, struct gw_codec *codec) GW_MUST_CHECK;
void gw_bounds_leave(struct gw_gateway *gateway, struct gw_codec *codec);

/* What its rule says about streams: before an instance is asked, and of an open stream when it
 * comes under another version. That one has its places whatever the new bounds are. */
void gw_bounds_set(struct gw_exchange *x, const struct gw_bounds *bounds);
/* It may become a stream, or is one: takes its places, once. Else why not; nothing is taken. */
enum gw_err gw_bounds_take(struct gw_exchange *x) GW_MUST_CHECK;
/* It is an open stream now, and counted as one. */
void gw_bounds_open(struct gw_exchange *x);
/* It is no stream, or one no longer: gives its places back, if it has any. */
void gw_bounds_give(struct gw_exchange *x);

/* The bytes buffered in this process are at their bound, or were and have not become a tenth less
 * since: no new work is taken. */
bool gw_bounds_short(struct gw_gateway *gateway);
/* Retry-After: that many seconds, and up to nine more, so that not all clients come back at once.
 */
void gw_bounds_retry_after(struct gw_head *head, unsigned seconds);

#endif
