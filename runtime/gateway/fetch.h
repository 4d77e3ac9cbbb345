/* A request of the gateway's own: an origin stream without a client. It takes its connection from
 * the pool that exchanges use, and is as bounded as they are: one time for all of it, a number of
 * requests at once for each address, and bytes that are read ahead or collected. */
#ifndef GW_GATEWAY_FETCH_H
#define GW_GATEWAY_FETCH_H

#include "gateway/exchange.h"
#include "net/resolve.h"

enum { GW_FETCH_ADDRS = 4 }; /* of a host, that are tried one after the other */

struct gw_fetch;

struct gw_fetch_wish {
    struct gw_slice payload; /* copied */
    bool has_payload;
    bool streamed;       /* the body is taken in pieces; else it is kept until all of it is here */
    uint64_t timeout_ms; /* 0 = none. From the start to the end of the answer; streamed: to its
                            head, and then for each piece that is waited for */
    size_t max_bytes;    /* of a body that is kept; 0 = no limit */
};

struct gw_fetch {
    uint32_t magic;
    bool streamed : 1;
    bool has_payload : 1;
    bool retried : 1;  /* the connection that it had first was stale */
    bool has_slot : 1; /* counts among those of its host */
    bool ended : 1;    /* the body is complete */
    bool late : 1;     /* its time is over, but the process was busy */
    bool over : 1;     /* nothing more comes; why tells how it ended */
    enum gw_err why;
    enum gw_err stuck; /* why it can't go on, before that is told from the ready list */
    struct gw_gateway *gateway;
    struct gw_list node;  /* in the gateway's list */
    struct gw_list queue; /* in the host's list, while it waits for a slot */
    struct gw_task_node task;
    struct gw_timer timer;
    struct gw_lookup lookup;
    struct gw_pool_host *host;
    struct gw_stream *stream; /* borrowed */
    struct gw_arena arena;
    struct gw_head request;
    struct gw_head *response; /* NULL before it is here */
    struct gw_slice payload;
    size_t payload_sent;
    const char *name; /* of the host, without brackets */
    uint16_t port;
    uint8_t addr_count, addr_at;
    struct gw_addr addrs[GW_FETCH_ADDRS];
    struct gw_buf body;
    size_t uncredited;
    uint64_t timeout_ms;
    size_t max_bytes;
    void (*changed)(struct gw_fetch *fetch);
    void *owner;
    struct gw_grave grave;
};

/* One that is not under way; its owner puts fields into fetch->request, and calls the two below.
 * changed is called from the loop, never from inside a call of the owner's, when the head, bytes of
 * a streamed body or the end has come; the owner may free the fetch in it. */
struct gw_fetch *gw_fetch_new(struct gw_gateway *gateway, void (*changed)(struct gw_fetch *fetch),
                              void *owner);
/* What is asked, and of whom: an absolute http:// URL. NULL, or what is wrong with it. */
const char *gw_fetch_target(struct gw_fetch *fetch, struct gw_slice method, struct gw_slice url);
/* Asks at this address, whatever the host of the URL is. */
void gw_fetch_pin(struct gw_fetch *fetch, const struct gw_addr *addr);
void gw_fetch_start(struct gw_fetch *fetch, const struct gw_fetch_wish *wish);
/* Moves what is here of the body to out; the peer may send that much more. */
void gw_fetch_take(struct gw_fetch *fetch, struct gw_buf *out);
/* Cancels it where it is under way; changed is not called any more. */
void gw_fetch_free(struct gw_fetch *fetch);
/* How many have a connection. */
unsigned gw_fetch_connected(const struct gw_gateway *gateway);
/* Ends all that are under way, for a reason. */
void gw_fetch_abort_all(struct gw_gateway *gateway, enum gw_err why);

#endif
