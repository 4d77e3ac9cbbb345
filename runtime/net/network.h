/* Networks of addresses, such as "10.0.0.0/8", and lists of them. */
#ifndef GW_NET_NETWORK_H
#define GW_NET_NETWORK_H

#include "net/addr.h"

enum { GW_NETWORKS_MAX = 64 };

struct gw_network {
    uint16_t family; /* AF_UNIX: every peer that comes by a unix socket */
    uint16_t bits;
    unsigned char ip[16];
};

struct gw_networks {
    unsigned count;
    struct gw_network of[GW_NETWORKS_MAX];
};

/* "10.0.0.0/8", "2001:db8::/32", an address alone (a network of one), or "unix:". Bits behind the
 * prefix do not count. False when it is none of them. */
bool gw_network_parse(struct gw_network *network, const char *text);
/* Whether the address lies in one of them. */
bool gw_networks_have(const struct gw_networks *networks, const struct gw_addr *addr);

#endif
