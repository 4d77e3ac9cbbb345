/* Requests that are asked again before a byte of an answer has gone to the client: whether, when,
 * and what must be kept for it. Who is asked is for the balance step to say. */
#ifndef GW_GATEWAY_RETRY_H
#define GW_GATEWAY_RETRY_H

#include "gateway/budget.h"
#include "gateway/exchange.h"
#include "gateway/statuses.h"

/* What may have happened to an attempt for the request to be asked again. */
enum gw_retry_cause {
    GW_RETRY_CONNECT = 1, /* no instance was reached */
    GW_RETRY_RESET = 2,   /* the connection ended, or what came was no answer */
    GW_RETRY_TIMEOUT = 4  /* nothing came in time */
};

/* `retry` and `firstEvent` of a rule, as one run of bytes without pointers. */
struct gw_retry_rule {
    struct gw_statuses statuses; /* of answers not to pass on */
    uint32_t attempts;           /* in all; 0: there is no `retry` */
    uint32_t causes;             /* enum gw_retry_cause */
    uint32_t max_body;           /* bytes of a request body that are kept */
    uint32_t base_ms, max_ms;
    float jitter, ratio;
    uint32_t min_requests;
    uint32_t hold_ms;         /* 0: there is no `firstEvent` */
    uint16_t methods, errors; /* bytes of text that are theirs: names, each terminated */
    char text[];
};

/* One exchange's, while it is on its way to the answer. */
struct gw_retry {
    const struct gw_retry_rule *rule;
    struct gw_buf sent;     /* what has gone of the request body, for the next attempt */
    struct gw_head *answer; /* of an earlier attempt, should no later one get any */
    struct gw_buf answer_body;
    struct gw_instance *answerer; /* a reference: whose answer it is */
    struct gw_buf comments;       /* what a held stream began with, in front of its first event */
    struct gw_sse_scan scan;      /* of a held stream */
    uint32_t scanned;             /* bytes of the response body that it has seen */
    uint32_t held_from_ms;        /* since start_ms */
    uint64_t due_ms;              /* when the next attempt begins, or the hold is over */
    unsigned attempt;             /* from 1 */
    bool unrepeatable : 1;        /* more of the body has gone than was kept */
    bool rested : 1;              /* the wait before an attempt is behind us */
    bool holding : 1;
    bool over : 1; /* what is the response now goes on */
};

/* What the log says of it. */
struct gw_trace {
    unsigned attempts;  /* instances that were asked, one that was asked again counted twice */
    uint32_t held_ms;   /* time that heads of event streams were held back */
    const char *failed; /* those that were given up, in order; NULL: none */
};

static inline bool gw_retry_has_name(const char *names, size_t size, struct gw_slice name)
{
    for (size_t at = 0; at < size; at += strlen(names + at) + 1) {
        if (gw_slice_eq(gw_slice_str(names + at), name))
            return true;
    }
    return false;
}

/* The exchange's rule has this struct gw_retry_rule; it is copied. */
void gw_retry_set(struct gw_exchange *x, struct gw_slice rule);
/* x->instance was chosen to be asked. */
void gw_retry_begin(struct gw_exchange *x);
/* x->instance could not be reached. True: another one may be asked at once. */
bool gw_retry_elsewhere(struct gw_exchange *x) GW_MUST_CHECK;
/* All instances were tried. True: all of them may be tried once more, when gw_retry_rested. */
bool gw_retry_anew(struct gw_exchange *x) GW_MUST_CHECK;
/* The attempt has failed for this reason. True: there will be another one, when gw_retry_rested. */
bool gw_retry_after(struct gw_exchange *x, enum gw_err why) GW_MUST_CHECK;
/* The same for the answer that is here; false: it goes on. */
bool gw_retry_instead(struct gw_exchange *x) GW_MUST_CHECK;
/* The time before the next attempt is over. */
bool gw_retry_rested(struct gw_exchange *x) GW_MUST_CHECK;
/* Makes x ready for it: keeps the answer if all of it is here and its stream is over, and lays out
 * again what had gone of the request's body. */
void gw_retry_leave(struct gw_exchange *x);
/* There will be none. True: an answer of an earlier one is the response now. */
bool gw_retry_restore(struct gw_exchange *x) GW_MUST_CHECK;
/* What lies in x->upload is about to go; x->way->retry is there. */
void gw_retry_keep(struct gw_exchange *x);
/* There will be no other attempt, whatever becomes of this one. */
void gw_retry_end(struct gw_retry *retry);

/* For the log: what is known of a way or of an open stream; the text to keep of it, in bytes. */
struct gw_trace gw_retry_trace(const struct gw_exchange *x);
size_t gw_retry_trace_size(const struct gw_way *way);
void gw_retry_trace_pack(const struct gw_way *way, char *out);

#endif
