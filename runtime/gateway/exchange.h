/* One request and its answer: what is borrowed for it, and where on its way it is. */
#ifndef GW_GATEWAY_EXCHANGE_H
#define GW_GATEWAY_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>
#include "gateway/hooks.h"
#include "gateway/instance.h"
#include "gateway/pool.h"
#include "gateway/stats.h"
#include "http/fields.h"
#include "sse/scan.h"

/* What all exchanges of one process share. */
struct gw_gateway {
    struct gw_loop *loop;
    struct gw_pool pool;
    struct gw_generation *current;
    struct gw_list exchanges;
    struct gw_list codecs; /* client connections, and those of the management listener */
    unsigned connections;  /* of the former */
    unsigned visits;       /* of the latter */
    unsigned worker;       /* from 1 */
    bool draining;
    struct gw_http_limits
        limits; /* of client connections; kept here, as they outlive generations */
    struct gw_stats *stats;
    struct gw_stats_slot *count;  /* this worker's slot */
    struct gw_task_node adoption; /* moves open streams to the current generation, some per turn */
    struct gw_list *adoption_at;  /* the exchange that is looked at next */
};

enum gw_step {
    GW_STEP_ROUTE,
    GW_STEP_ACCESS,
    GW_STEP_BALANCE,
    GW_STEP_CONNECT,
    GW_STEP_SEND,
    GW_STEP_HEAD,
    GW_STEP_RELAY,
    GW_STEP_CLOSE,
    GW_STEP_LIMIT,
    GW_STEP_WAIT = GW_STEP_LIMIT /* not a step: nothing can be done until somebody wakes us */
};

enum gw_body_mode { GW_BODY_PLAIN, GW_BODY_SSE_BYTES, GW_BODY_SSE_EVENTS };

/* An answer of the gateway's own. */
struct gw_reply {
    struct gw_reply *older; /* one whose head is the response until this one takes its place */
    struct gw_arena arena;
    struct gw_head head;
    struct gw_buf body;
    bool set;
};

/* An event stream under way: where in it we are, and when the next comment is due. */
struct gw_relay {
    enum gw_body_mode mode;
    enum gw_body_mode wanted; /* mode to take up at the next boundary */
    struct gw_sse_scan scan;
    size_t scanned;       /* event mode: bytes of `body` that belong to the unfinished event */
    size_t pending_event; /* event mode: length of the event a hook is thinking about, or 0 */
    bool started;         /* a byte of the body was seen */
    bool commented;       /* a keepalive went out before the first byte */
    bool keepalive_due;
    uint64_t keepalive_ms; /* loop time of the last keepalive (or of the head) */
    uint64_t upstream_ms;  /* loop time of the last bytes from the backend */
    uint64_t client_ms;    /* loop time of the last bytes to the client */
    uint64_t events;
};

struct gw_exchange {
    uint32_t magic;
    enum gw_step step;
    struct gw_gateway *gateway;
    struct gw_generation *generation;
    struct gw_stream *client, *origin; /* borrowed; NULL when gone */
    struct gw_instance *instance;      /* a reference; set by gw_exchange_use */
    struct gw_addr peer;               /* of the client, also when that is gone */
    struct gw_list node;
    struct gw_task_node task;
    struct gw_timer timer;
    struct gw_grave grave;
    struct gw_head *request;  /* in the client stream's arena */
    struct gw_head *response; /* in the origin stream's arena, or the reply's */
    struct gw_arena request_arena, response_arena; /* taken over from streams that have closed */
    struct gw_buf upload;                          /* request body on its way */
    struct gw_buf body;                            /* response body on its way */
    size_t uncredited;        /* bytes of body the origin has not been credited for */
    size_t upload_uncredited; /* bytes of upload the client has not been credited for */
    bool upload_begun;        /* some of the request body has gone to the backend */
    bool upload_end;          /* the request body is complete */
    bool upload_sent;         /* … and all of it was handed to the origin */
    bool body_end;            /* the response body is complete */
    bool head_sent;           /* the final head went to the client */
    bool head_seen;           /* the hooks have seen the response */
    bool response_sent;       /* … and the whole body too */
    bool failed;              /* `why` came up outside a step and has not been dealt with */
    bool origin_closed;       /* the backend's stream is over; origin_why tells how */
    bool origin_reused;       /* it was on a connection that had been used before */
    enum gw_err origin_why;
    uint64_t pinned;     /* number of a generation that this stream could not move to */
    bool accepts_events; /* the request asked for text/event-stream */
    bool head_only;      /* it was a HEAD, whatever hooks made of it */
    bool retried_stale;
    bool over;         /* being released: callbacks do nothing */
    enum gw_err why;   /* how it ended; GW_OK */
    bool why_upstream; /* … and it was the backend's side */
    unsigned hook_flags;
    uint64_t timeout_ms;
    uint64_t start_ms, step_ms, sent_ms, head_ms;
    unsigned status; /* sent to the client, for the log */
    uint64_t bytes_out;
    unsigned tried[4], tried_count; /* instances that could not be reached */
    struct gw_reply *reply;
    struct gw_script_part script;
    struct gw_relay relay;
    char rule[48]; /* id of the rule, for the log */
    char id[65];   /* request id: ours, or the client's where it is sane */
};

enum {
    GW_EXCHANGE_MAGIC = 0x67777865,
    GW_SEND_MARK = 64 * 1024, /* bytes a client has not taken at which its stream is paused */
    GW_TURN_EVENTS = 64,
    GW_TURN_BYTES = 64 * 1024
};

/* By which listener a connection came in. */
enum gw_door { GW_DOOR_TRAFFIC, GW_DOOR_ADMIN };

void gw_gateway_init(struct gw_gateway *gateway, struct gw_loop *loop, struct gw_stats *stats,
                     unsigned worker);
void gw_gateway_fini(struct gw_gateway *gateway);
/* Makes a generation the current one (a reference is taken) and begins to move open streams. */
void gw_gateway_swap(struct gw_gateway *gateway, struct gw_generation *generation);
/* Takes an accepted client connection. */
void gw_gateway_accept(struct gw_gateway *gateway, int fd, const struct gw_addr *peer,
                       enum gw_door door);
/* Carries one open event stream over to the current generation, if it can be now. */
void gw_gateway_adopt(struct gw_exchange *x);
/* Ends every exchange that is still open, for a reason. */
void gw_gateway_abort(struct gw_gateway *gateway, enum gw_err why);
/* No new requests on open connections; idle ones are closed. Management goes on. */
void gw_gateway_drain(struct gw_gateway *gateway);

/* An exchange for a request that has just begun; its events come from the stream. */
struct gw_exchange *gw_exchange_new(struct gw_gateway *gateway, struct gw_stream *client);
/* Runs steps until one has to wait. The only place that calls them. */
void gw_exchange_run(struct gw_exchange *x);
void gw_exchange_wake(struct gw_exchange *x);
/* Ends it for a reason: goes to the close step. upstream: the backend's side was to blame. */
void gw_exchange_fail(struct gw_exchange *x, enum gw_err why, bool upstream);
/* Goes to this instance (or to none); the exchange holds a reference. */
void gw_exchange_use(struct gw_exchange *x, struct gw_instance *instance);
/* Computes the next deadline afresh. */
void gw_exchange_arm(struct gw_exchange *x);
/* "ok", "client_gone", "upstream_reset", … */
const char *gw_exchange_reason(const struct gw_exchange *x);
const char *gw_step_name(enum gw_step step);

#endif
