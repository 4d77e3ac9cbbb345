/* What proxies say of whom they speak for: X-Forwarded-For, and Forwarded (RFC 7239). */
#ifndef GW_HTTP_FORWARDED_H
#define GW_HTTP_FORWARDED_H

#include "base/slice.h"
#include "net/addr.h"

/* One element of Forwarded: views of its values, without quotes; ptr NULL: there is none. What is
 * escaped in them stays so, and is neither an address nor a host. */
struct gw_forwarded {
    struct gw_slice node; /* `for` */
    struct gw_slice proto;
    struct gw_slice host;
};

/* Takes the last element, trimmed and perhaps empty, off a list that is not empty. Read from its
 * end, for what stands in front was there first and may be anything. quotes: commas in quoted
 * strings divide nothing. */
struct gw_slice gw_forwarded_last(struct gw_slice *list, bool quotes);
/* RFC 7239, section 4. False when it is no such element, or says one thing twice. */
bool gw_forwarded_read(struct gw_slice element, struct gw_forwarded *out);
/* An address as X-Forwarded-For has it: with or without a port, IPv6 with or without brackets; the
 * port is 0 where there is none. strict: a node of RFC 7239, section 6, where brackets and the
 * address go together. False for all else: names, zones, `unknown`, `_hidden`. */
bool gw_forwarded_node(struct gw_slice text, bool strict, struct gw_addr *addr);

#endif
