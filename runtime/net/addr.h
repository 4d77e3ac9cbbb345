/* Socket addresses from text and back. No names of hosts: those are for net/resolve.h. */
#ifndef GW_NET_ADDR_H
#define GW_NET_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "base/slice.h"

enum {
    GW_ADDR_TEXT = 128,
    GW_ADDR_PATHS_MAX = 65536 /* of unix sockets, that one process ever hears of */
};

/* Small on purpose: each connection holds one. */
struct gw_addr {
    uint16_t family; /* AF_INET, AF_INET6, AF_UNIX; 0: unknown */
    uint16_t port;   /* in the order of the host; AF_UNIX: 0 */
    uint32_t scope;  /* AF_INET6: the interface of a link-local address; AF_UNIX: which path */
    unsigned char ip[16];
};

/* What the kernel wants instead. */
union gw_sockaddr {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

/* host: an IPv4 or IPv6 literal, with or without brackets. False when it is none. */
bool gw_addr_literal(struct gw_addr *addr, const char *host, unsigned port);
/* host: an IPv4 or IPv6 literal (with or without brackets), or "localhost" (127.0.0.1), or "" and
 * "*" for every IPv4 address, or "unix:/path", whatever the port. False when it is none of them, or
 * the path is too long, or one too many. */
bool gw_addr_parse(struct gw_addr *addr, const char *host, unsigned port);
/* Takes what the kernel says; an IPv4 address in IPv6 clothes (::ffff:a.b.c.d, RFC 4291, section
 * 2.5.5.2) becomes an IPv4 one. A unix socket becomes "unix:" without its path. Other families
 * leave the address unknown. */
void gw_addr_set(struct gw_addr *addr, const struct sockaddr *sa, socklen_t len);
/* The way back; returns the length. The address is known. */
socklen_t gw_addr_get(const struct gw_addr *addr, union gw_sockaddr *sa);
/* "127.0.0.1", "::1" or "unix:/path" ("-" when unknown), without the port; always terminated.
 * Returns out. */
const char *gw_addr_host(const struct gw_addr *addr, char out[GW_ADDR_TEXT]);
/* "127.0.0.1:80", "[::1]:80" or "unix:/path". Returns out. */
const char *gw_addr_text(const struct gw_addr *addr, char out[GW_ADDR_TEXT]);
/* Forgets the paths of unix sockets, at the end of a process: no address has one any more. */
void gw_addr_fini(void);
static inline bool gw_addr_is_ip(const struct gw_addr *addr)
{
    return addr->family == AF_INET || addr->family == AF_INET6;
}
bool gw_addr_eq(const struct gw_addr *a, const struct gw_addr *b);
/* By family, IPv4 first, then by host and port: below, at or above 0. */
int gw_addr_compare(const struct gw_addr *a, const struct gw_addr *b);
/* Whether there can be a host at it: not 0.0.0.0/8 or ::, not multicast or reserved, not a
 * link-local IPv6 address without its interface. */
bool gw_addr_reachable(const struct gw_addr *addr);
/* Makes an IPv4 address of one in IPv6 clothes that was read from text, as gw_addr_set does for the
 * kernel's. The address is an IP address. */
void gw_addr_undress(struct gw_addr *addr);

#endif
