/* One request and its answer: what is borrowed for it, and where on its way it is. */
#ifndef GW_GATEWAY_EXCHANGE_H
#define GW_GATEWAY_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/map.h"
#include "gateway/hooks.h"
#include "gateway/instance.h"
#include "gateway/pool.h"
#include "gateway/request_id.h"
#include "gateway/stats.h"
#include "http/fields.h"
#include "sse/scan.h"

enum {
    GW_UNREACHED_MAX = 4, /* instances in a row that are given up before the exchange is */
    GW_TRIED_LIMIT = 12   /* of those that are not asked again the ones that are remembered */
};

struct gw_bounds;
struct gw_retry;

/* What all exchanges of one process share. */
struct gw_gateway {
    struct gw_loop *loop;
    struct gw_pool pool;
    struct gw_generation *current;
    struct gw_list exchanges;
    struct gw_list fetches; /* requests of the gateway's own, under way */
    struct gw_resolver *resolver;
    struct gw_codec_host host; /* of client connections */
    struct gw_list codecs;     /* these, and those of the management listener */
    unsigned connections;      /* of the former */
    unsigned visits;           /* of the latter */
    unsigned turned_away;      /* of the former, those beyond a bound, that are to be told so */
    struct gw_map guests;      /* by codec: where it is counted for its client */
    unsigned worker;           /* from 1 */
    bool draining;
    struct gw_http_limits
        limits; /* of client connections; kept here, as they outlive generations */
    struct gw_stats *stats;
    struct gw_stats_slot *count;  /* this worker's slot */
    struct gw_facts *facts;       /* of instances; shared by all workers */
    struct gw_dict *dict;         /* where workers leave each other addresses of names; or NULL */
    struct gw_task_node adoption; /* moves open streams to the current generation, some per turn */
    struct gw_list *adoption_at;  /* the exchange that is looked at next */
    struct gw_timer retirement;   /* ends those that a new version lets go, some at a time */
    unsigned retire_ticks;        /* of it, until all have ended */
};

enum gw_step {
    GW_STEP_ROUTE,
    GW_STEP_ACCESS,
    GW_STEP_BALANCE,
    GW_STEP_CONNECT,
    GW_STEP_SEND,
    GW_STEP_HEAD,
    GW_STEP_RETRY,
    GW_STEP_RELAY,
    GW_STEP_CLOSE,
    GW_STEP_LIMIT,
    GW_STEP_WAIT = GW_STEP_LIMIT /* not a step: nothing can be done until somebody wakes us */
};

enum gw_body_mode { GW_BODY_PLAIN, GW_BODY_SSE_BYTES, GW_BODY_SSE_EVENTS, GW_BODY_TUNNEL };

static inline bool gw_body_is_stream(uint8_t mode)
{
    return mode == GW_BODY_SSE_BYTES || mode == GW_BODY_SSE_EVENTS;
}

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
    uint8_t mode;   /* enum gw_body_mode */
    uint8_t wanted; /* mode to take up at the next boundary */
    struct gw_sse_scan scan;
    bool started : 1;   /* a byte of the body was seen */
    bool commented : 1; /* a keepalive went out before the first byte */
    bool keepalive_due : 1;
    bool retiring : 1;      /* ends well at the next boundary */
    bool aged : 1;          /* retiring, for its age */
    bool spoken : 1;        /* byte mode, where it matters: an event has begun */
    bool room_awaited : 1;  /* a script waits until it may insert more */
    uint32_t scanned;       /* event mode: bytes of `body` that belong to the unfinished event */
    uint32_t pending_event; /* event mode: length of the event a hook is thinking about, or 0 */
    /* Low halves of loop times, for gw_loop_time: */
    union {
        uint32_t keepalive_ms; /* of the last keepalive (or of the head) */
        uint32_t idle_ms; /* no time, but a tunnel's limit: how long it may be idle; 0 = none */
    };
    uint32_t upstream_ms; /* of the last bytes from the backend */
    uint32_t client_ms;   /* of the last bytes to the client */
    union {
        uint64_t events;
        uint64_t bytes_in; /* a tunnel's, from the client */
    };
    struct gw_buf inserts; /* whole events of a script's, for between two of the backend's */
};

/* What streams are counted for. */
enum gw_bound_key {
    GW_BOUND_CLIENT,
    GW_BOUND_RULE,
    GW_BOUND_RULE_CLIENT,
    GW_BOUND_SESSION,
    GW_BOUND_KEYS
};

/* Where a stream is counted, in the tally; 0: it is not. */
struct gw_places {
    uint16_t of[GW_BOUND_KEYS];
};

/* What limits how long an event stream goes on. */
enum gw_clock { GW_CLOCK_AGE, GW_CLOCK_FIRST_EVENT, GW_CLOCK_SILENCE, GW_CLOCKS };

#define GW_CLOCK_UNSET UINT32_MAX

/* A rule's own, in ms; GW_CLOCK_UNSET: what holds for all rules, 0: no limit. */
struct gw_clocks {
    uint32_t ms[GW_CLOCKS];
};

/* What an exchange needs on its way to the answer. A stream that is open has none, until somebody
 * asks for its heads: gw_exchange_way. */
struct gw_way {
    struct gw_head *request, *response; /* NULL before they are there, or are unpacked */
    struct gw_arena arena;              /* heads of streams that have closed, or were unpacked */
    const char *id; /* the request's: ours, or the client's where it is sane; packed when kept */
    struct gw_reply *reply;
    struct gw_retry *retry; /* NULL: its rule says nothing about it */
    const char *failed;     /* ids of the instances that were asked in vain, or NULL */
    uint32_t sent_ms;       /* when the request went, since start_ms */
    uint32_t held_ms;       /* time that heads of event streams were held back */
    uint8_t attempts;       /* times that an instance was asked */
    uint8_t unreached;      /* of them, the last ones that reached none */
    bool asked;             /* a backend may have seen something of the request */
    uint8_t tried_count;
    unsigned tried[GW_TRIED_LIMIT]; /* instances that are not to be asked again */
    struct gw_service *admitted;    /* whose breaker wants to hear how it went; a reference */
    bool probe;                     /* it finds out for the breaker whether the service is back */
    uint16_t outcome;               /* of the last try: a status, GW_NO_ANSWER, or 0: not known */
    struct gw_places places;        /* that it has, with `bounded`, before it is an open stream */
    struct gw_bounds *bounds;       /* of its rule's streams; NULL: there are none */
    struct gw_slice upgrade; /* protocols that a tunnel may have; empty: none was asked for */
    uint32_t tunnel_idle_ms; /* of such a tunnel */
    struct gw_clocks clocks; /* of its rule, with `timed`, before it is an open stream */
};

/* What is kept of the way to an open stream, in one block. */
struct gw_kept {
    uint32_t response; /* where in text its packed head begins */
    uint8_t request; /* the same; in front of it are, with `timed`, struct gw_clocks, with `bounded`
                        struct gw_places, and the id */
    char text[];
};

struct gw_exchange {
    uint16_t magic;
    uint16_t status; /* sent to the client, for the log */
    struct gw_task_node task;
    uint8_t step;       /* enum gw_step */
    uint8_t why;        /* enum gw_err: how it ended */
    uint8_t origin_why; /* enum gw_err: how the backend's stream ended */
    uint8_t hook_flags;
    bool why_upstream : 1;  /* it ended for the backend's fault */
    bool failed : 1;        /* `why` came up outside a step and has not been dealt with */
    bool over : 1;          /* being released: callbacks do nothing */
    bool upload_begun : 1;  /* some of the request body has gone to the backend */
    bool upload_end : 1;    /* the request body is complete */
    bool upload_sent : 1;   /* … and all of it was handed to the origin */
    bool body_end : 1;      /* the response body is complete */
    bool head_seen : 1;     /* the hooks have seen the response */
    bool head_sent : 1;     /* the final head went to the client */
    bool response_sent : 1; /* … and the whole body too */
    bool origin_closed : 1; /* the backend's stream is over; origin_why tells how */
    bool origin_reused : 1; /* it was on a connection that had been used before */
    bool retried_stale : 1;
    bool accepts_events : 1; /* the request asked for text/event-stream */
    bool retires : 1;        /* it ends soon, for a new version does not want it */
    bool asked : 1;          /* whether the current version wants it, while it can't move there */
    bool head_only : 1;      /* it was a HEAD, whatever hooks made of it */
    bool traced : 1;         /* behind `rule`, what is kept of its attempts: gw_retry_trace */
    bool placed : 1;         /* it has one of its instance's places for streams */
    bool proxied : 1;        /* the peer is a trusted proxy and has named its client: client.h */
    bool bounded : 1;        /* it counts as a stream, or one that may become one: gw_bounds_take */
    bool timed : 1;          /* its rule has limits of its own for streams: clocks.h */
    struct gw_gateway *gateway;
    struct gw_generation *generation;
    struct gw_stream *client, *origin; /* borrowed; NULL when gone */
    struct gw_instance *instance;      /* a reference; set by gw_exchange_use */
    const struct gw_addr *peer;        /* also when it is gone; `proxied`: behind it the client's */
    union {
        struct gw_list node;
        struct gw_grave grave; /* once it is over */
    };
    struct gw_timer timer;
    struct gw_way *way;         /* may be NULL */
    struct gw_kept *kept;       /* of an open stream */
    struct gw_buf upload;       /* request body on its way */
    struct gw_buf body;         /* response body on its way */
    uint32_t uncredited;        /* bytes of body the origin has not been credited for */
    uint32_t upload_uncredited; /* bytes of upload the client has not been credited for */
    uint32_t head_ms;           /* when the head came, since start_ms */
    uint32_t step_ms;           /* when the step began, since start_ms */
    uint32_t timeout_ms;        /* of all of it; 0: none */
    uint32_t pinned; /* number of a generation that this stream could not move to; its low half */
    uint64_t start_ms;
    uint64_t bytes_out;
    struct gw_script_part script;
    struct gw_relay relay;
    const char *rule; /* its id, for the log; "" before there is one */
};

enum {
    GW_EXCHANGE_MAGIC = 0x7865,
    GW_SEND_MARK = 64 * 1024, /* bytes a client has not taken at which its stream is paused */
    GW_TURN_EVENTS = 64,
    GW_TURN_BYTES = 64 * 1024
};

/* By which listener a connection came in. PROXIED: traffic behind the header of the PROXY protocol.
 */
enum gw_door { GW_DOOR_TRAFFIC, GW_DOOR_ADMIN, GW_DOOR_PROXIED };

void gw_gateway_init(struct gw_gateway *gateway, struct gw_loop *loop, struct gw_facts *facts,
                     unsigned worker);
void gw_gateway_fini(struct gw_gateway *gateway);
/* Makes a generation the current one (a reference is taken) and begins to move open streams. */
void gw_gateway_swap(struct gw_gateway *gateway, struct gw_generation *generation);
/* Takes an accepted client connection. */
void gw_gateway_accept(struct gw_gateway *gateway, int fd, const struct gw_addr *peer,
                       enum gw_door door);
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
/* Whether the instance of this index was asked in vain. */
bool gw_exchange_tried(const struct gw_exchange *x, unsigned index);
/* What the way to the answer needs; made afresh for an open stream. */
struct gw_way *gw_exchange_way(struct gw_exchange *x);
/* The heads; those of an open stream are unpacked when somebody asks. NULL before there is one. */
struct gw_head *gw_exchange_request(struct gw_exchange *x);
struct gw_head *gw_exchange_response(struct gw_exchange *x);
/* Its request id; "" before there is one. It may be written to `text`. */
const char *gw_exchange_id(const struct gw_exchange *x, char text[GW_ID_TEXT]);
/* Whose request it is, behind proxies that are trusted: for logs, limits, policies and sessions.
 * Its port is 0 where nobody has said it. Known from the request's head on; valid as long as the
 * exchange. */
static inline const struct gw_addr *gw_exchange_client(const struct gw_exchange *x)
{
    return &x->peer[x->proxied];
}
/* Since its start, in ms. */
static inline uint32_t gw_exchange_age(const struct gw_exchange *x)
{
    return (uint32_t)(x->gateway->loop->now_ms - x->start_ms);
}
/* Notes the id of the rule, for the log. */
void gw_exchange_set_rule(struct gw_exchange *x, struct gw_slice id);
/* Computes the next deadline afresh. */
void gw_exchange_arm(struct gw_exchange *x);
/* "ok", "client_gone", "upstream_reset", … */
const char *gw_exchange_reason(const struct gw_exchange *x);
const char *gw_step_name(enum gw_step step);

#endif
