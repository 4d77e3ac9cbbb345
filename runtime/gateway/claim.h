/* What a request says of whose it is, where its peer is a trusted proxy. */
#ifndef GW_GATEWAY_CLAIM_H
#define GW_GATEWAY_CLAIM_H

#include "http/head.h"
#include "net/network.h"

enum { GW_CLAIM_HOPS_MAX = 64 }; /* elements of a list of proxies that are looked at */

/* What a proxy that is believed says. */
struct gw_claim {
    struct gw_addr client;       /* the peer, where nothing better is known */
    struct gw_slice proto, host; /* of Forwarded, as they came; ptr NULL: there is none */
};

/* Reads Forwarded, or else X-Forwarded-For, from the end on: the first address that is not trusted
 * is the client. What can't be read ends the search, and the last address that was counts. The peer
 * is trusted; slices are views of the head. */
void gw_claim_read(struct gw_claim *claim, const struct gw_networks *trusted, bool forwarded,
                   const struct gw_addr *peer, const struct gw_head *head);
/* Takes out of a request what its peer is not to say: all of it, or, where claim is not NULL, what
 * is of the header that does not count (forwarded: X-Forwarded-…) or is not well-formed. */
void gw_claim_sift(const struct gw_claim *claim, bool forwarded, struct gw_head *head);
/* "http" or "https" (also for ws and wss); ptr NULL for all else. */
struct gw_slice gw_claim_scheme(struct gw_slice proto);

#endif
