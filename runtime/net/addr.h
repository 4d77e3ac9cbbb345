/* Socket addresses from text and back. No names: those are for net/resolve.h. */
#ifndef GW_NET_ADDR_H
#define GW_NET_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include "base/slice.h"

enum { GW_ADDR_TEXT = 64 };

/* Small on purpose: each connection holds one. */
struct gw_addr {
    uint16_t family; /* AF_INET, AF_INET6; 0: unknown */
    uint16_t port;   /* in the order of the host */
    uint32_t scope;  /* AF_INET6: the interface of a link-local address */
    unsigned char ip[16];
};

/* What the kernel wants instead. */
union gw_sockaddr {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* host: an IPv4 or IPv6 literal, with or without brackets. False when it is none. */
bool gw_addr_literal(struct gw_addr *addr, const char *host, unsigned port);
/* host: an IPv4 or IPv6 literal (with or without brackets), or "localhost" (127.0.0.1), or "" and
 * "*" for every IPv4 address. False when it is none of them. */
bool gw_addr_parse(struct gw_addr *addr, const char *host, unsigned port);
/* Takes what the kernel says; an IPv4 address in IPv6 clothes (::ffff:a.b.c.d, RFC 4291, section
 * 2.5.5.2) becomes an IPv4 one. Families other than these two leave the address unknown. */
void gw_addr_set(struct gw_addr *addr, const struct sockaddr *sa, socklen_t len);
/* The way back; returns the length. The address is known. */
socklen_t gw_addr_get(const struct gw_addr *addr, union gw_sockaddr *sa);
/* "127.0.0.1" or "::1" ("-" when unknown), without the port; always terminated. Returns out. */
const char *gw_addr_host(const struct gw_addr *addr, char out[GW_ADDR_TEXT]);
/* "127.0.0.1:80" or "[::1]:80". Returns out. */
const char *gw_addr_text(const struct gw_addr *addr, char out[GW_ADDR_TEXT]);
bool gw_addr_eq(const struct gw_addr *a, const struct gw_addr *b);

#endif
