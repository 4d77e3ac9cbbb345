/* Names to addresses, without ever blocking: /etc/hosts and DNS (by c-ares), with a cache. One per
 * loop. Who asks for a name that is being asked for already shares the query. */
#ifndef GW_NET_RESOLVE_H
#define GW_NET_RESOLVE_H

#include <stdbool.h>
#include "base/check.h"
#include "base/err.h"
#include "base/list.h"
#include "base/slice.h"
#include "net/addr.h"
#include "net/loop.h"

struct gw_resolver;

enum {
    GW_NAME_MAX = 253,   /* bytes of a name (RFC 1035, section 2.3.4) */
    GW_NAME_ADDRS = 64,  /* addresses that are kept of one, the lowest if there are more */
    GW_NAMES_MAX = 1024, /* names in the cache, and queries on their way */
    GW_NAME_TTL_MAX_S = 300
};

struct gw_resolver_options {
    const char *servers;  /* "10.0.0.1:53,[::1]:5353"; NULL or "": those of the file */
    const char *file;     /* NULL: /etc/resolv.conf; lives as long as the resolver */
    uint64_t deadline_ms; /* for one name, whatever the servers do; 0: 5 s */
    /* How long an answer is good at least, errors too, and at most; 0: 1 s, GW_NAME_TTL_MAX_S. */
    uint64_t min_ttl_ms, max_ttl_ms;
};

/* Somebody who waits for a name; embedded in its owner. */
struct gw_lookup {
    struct gw_list node;
    /* Called once, from the loop's ready list. addrs, IPv4 before IPv6 and else in the server's
     * order, have port 0 and live until the return. GW_ERR_UNKNOWN_NAME: it has no address;
     * GW_ERR_RESOLVE: the servers did not say in time, or nothing of use. */
    void (*done)(struct gw_lookup *lookup, enum gw_err err, const struct gw_addr *addrs,
                 unsigned count);
    /* More about the answer, for done: */
    uint64_t good_ms; /* how long it need not be asked for again */
    int lost_family;  /* AF_INET, AF_INET6: of these there may be others, which nobody told; 0 */
    bool cut;         /* there are more than GW_NAME_ADDRS */
};

/* options may be NULL; they are read in this call. The file is read on first use, and again when it
 * has changed. */
struct gw_resolver *gw_resolver_new(struct gw_loop *loop,
                                    const struct gw_resolver_options *options);
/* Who still waits hears nothing more. */
void gw_resolver_free(struct gw_resolver *resolver);
void gw_lookup_init(struct gw_lookup *lookup,
                    void (*done)(struct gw_lookup *lookup, enum gw_err err,
                                 const struct gw_addr *addrs, unsigned count));
/* Asks; done comes later, never from inside this call. Else an error, and done does not come:
 * GW_ERR_UNKNOWN_NAME for what can't be a name, GW_ERR_OVERLOADED at the bound. */
enum gw_err gw_resolver_ask(struct gw_resolver *resolver, struct gw_slice host,
                            struct gw_lookup *lookup) GW_MUST_CHECK;
/* done will not be called. Harmless when nothing is asked. */
void gw_lookup_cancel(struct gw_lookup *lookup);

#endif
