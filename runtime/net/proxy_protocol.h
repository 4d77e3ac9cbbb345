/* The PROXY protocol: a proxy tells in front of the first byte who its client is. By HAProxy's
 * proxy-protocol.txt, versions 1 (a line of text) and 2 (binary). */
#ifndef GW_NET_PROXY_PROTOCOL_H
#define GW_NET_PROXY_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>
#include "base/check.h"
#include "net/addr.h"
#include "net/transport.h"

enum {
    GW_PROXY_HEADER_MAX = 4096, /* all of it; what is longer is refused */
    GW_PROXY_KEPT = 232         /* a header of version 2 with two paths, or the longest line */
};

/* A header that is being read. All zero at first. */
struct gw_proxy_header {
    uint16_t len;              /* bytes so far */
    uint16_t total;            /* version 2: bytes in all, once that is known */
    char bytes[GW_PROXY_KEPT]; /* the first of them; what comes behind is skipped */
    struct gw_addr client;     /* when it is complete: family 0 where the peer stays who it is */
};

/* Takes bytes as they come, whole or cut anywhere. GW_OK: complete, *used is what belonged to it;
 * GW_AGAIN: all of them do, and more is needed; GW_ERR_NO_PROXY_HEADER, GW_ERR_BAD_PROXY_HEADER. */
enum gw_err gw_proxy_header_feed(struct gw_proxy_header *header, const char *bytes, size_t len,
                                 size_t *used) GW_MUST_CHECK;

/* For accepted connections: reads the header and not one byte more, makes the client that it names
 * conn->peer, and is tcp from then on. */
extern const struct gw_transport_ops gw_proxy_protocol;

#endif
