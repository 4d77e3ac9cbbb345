/* The only way from the gateway to whoever decides. script/ implements it with Lua; specs can fake
 * it. A hook call may have to wait: it returns GW_HOOK_WAIT, wakes the exchange when there is news,
 * and the step calls the same function again to get the outcome. */
#ifndef GW_GATEWAY_HOOKS_H
#define GW_GATEWAY_HOOKS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/slice.h"
#include "gateway/settings.h"

struct gw_buf;
struct gw_exchange;
struct gw_gateway;
struct gw_generation;
struct gw_instance;
struct gw_names;
struct gw_service;

enum gw_hook_result {
    GW_HOOK_NEXT,  /* go on */
    GW_HOOK_WAIT,  /* not decided yet */
    GW_HOOK_REPLY, /* x->reply holds the answer to give instead */
    GW_HOOK_FAIL   /* an error was raised and logged: 500, or the end of the stream */
};

enum gw_event_verdict {
    GW_EVENT_PASS,    /* forward as it came */
    GW_EVENT_CHANGED, /* forward nothing: the event is in `out` as it is now */
    GW_EVENT_DROP,    /* forward nothing (what was emitted instead is in `out`) */
    GW_EVENT_END,     /* as DROP, and then end the stream well */
    GW_EVENT_PENDING, /* the hook waits: ask again when woken; the event's bytes must stay */
    GW_EVENT_FAIL
};

/* What becomes of an open stream under another version. */
enum gw_adoption {
    GW_ADOPTED,
    GW_ADOPT_STAYS, /* under its old one; why is logged */
    GW_ADOPT_RETIRE /* nowhere: it is to end well, and its client comes again */
};

/* Which hooks a rule has: a step without hooks does not call at all. */
enum gw_hook_flag {
    GW_HAS_ACCESS = 1,
    GW_HAS_RESPONSE = 2,
    GW_HAS_EVENT = 4,
    GW_HAS_CLOSE = 8,
    GW_HAS_COMMENTS = 16, /* events are asked for that are comments and nothing else */
    GW_HAS_BATCH = 32     /* the only event hook takes many events at a time */
};

struct gw_hooks {
    /* Chooses a rule: sets x->hook_flags, x->timeout_ms, and what it says of retries. */
    enum gw_hook_result (*route)(struct gw_exchange *x);
    enum gw_hook_result (*access)(struct gw_exchange *x);
    /* Chooses an instance, also for another attempt: tells it by gw_exchange_use. */
    enum gw_hook_result (*balance)(struct gw_exchange *x);
    enum gw_hook_result (*response)(struct gw_exchange *x);
    /* One whole event, or with GW_HAS_COMMENTS one that is only comments, as it came; what hooks
     * make of it is appended to out. */
    enum gw_event_verdict (*event)(struct gw_exchange *x, struct gw_slice raw, struct gw_buf *out);
    /* With GW_HAS_BATCH: the n > 0 events whose bytes these are, which lie together. Where it
     * waits, event is called for the outcome. */
    enum gw_event_verdict (*events)(struct gw_exchange *x, const struct gw_slice *raws, unsigned n,
                                    struct gw_buf *out);
    /* Once, at the end; does not wait for the outcome. False: it could not be told yet, and wakes
     * the exchange when it can. */
    bool (*close)(struct gw_exchange *x, const char *reason);
    /* An event stream is open now, maybe for hours: what only its beginning needed may go. */
    void (*settle)(struct gw_exchange *x);
    /* Carries an open stream over to another generation, between two events; x->hook_flags and
     * x->timeout_ms are the new ones then, and the caller sets x->generation. */
    enum gw_adoption (*adopt)(struct gw_exchange *x, struct gw_generation *to);
    /* Under that generation an open stream like this one is to end, and not to be carried over. */
    bool (*unwanted)(struct gw_exchange *x, struct gw_generation *to);
    /* Tasks beside its hooks keep the exchange with the generation it has. */
    bool (*tied)(const struct gw_exchange *x);
    /* There is room again for what is inserted into its stream. */
    void (*room)(struct gw_exchange *x);
    /* The generation is the current one from now on. */
    void (*serve)(struct gw_generation *generation);
    /* These are the instances of a host name from now on; names count from 1. */
    void (*resolved)(struct gw_generation *generation, unsigned name,
                     struct gw_instance *const *instances, unsigned count);
    /* A hook of this exchange is suspended. */
    bool (*waiting)(const struct gw_exchange *x);
    /* Drops a suspended hook, without its outcome; the exchange goes on in another way. */
    void (*cancel)(struct gw_exchange *x);
    /* The exchange is over: cancels what waits and gives the task and the context back. */
    void (*release)(struct gw_exchange *x);
};

/* What script/ keeps about one exchange; opaque here, embedded to save an allocation. */
struct gw_script_part {
    void *task;   /* the suspended task, if any */
    void *handle; /* what Lua holds of the exchange, made stale at the end; NULL: no context */
    int ctx_ref;  /* the context, or without one the text it was saved as; 0: an empty one */
    unsigned event_hook : 22; /* index of the rule's lone event hook; 0: there is none */
    unsigned closed : 7;      /* how many of its close hooks have run */
    bool unproven : 1;        /* no event has passed since it changed versions */
    bool stranded : 1;        /* it waits for another VM, for its own has died */
    bool in_events : 1;       /* the last hook that ran was an event hook */
};

/* One configuration with its rules, instances and script; lives as long as an exchange uses it. */
struct gw_generation {
    unsigned refs;
    unsigned kept; /* of these, those of streams that are elsewhere and may fall back to it */
    bool counted;  /* in GW_STAT_GENERATIONS: while there are others */
    uint64_t number;
    unsigned deaths;   /* of its VMs */
    uint64_t pause_ms; /* before tasks of its own begin in the next one */
    struct gw_settings settings;
    const struct gw_hooks *hooks;
    void *script;
    struct gw_instance **instances; /* a reference each; index as Lua knows it, less one */
    unsigned instance_count;        /* with those that a name has lost: see gone_ms */
    struct gw_names *names;         /* NULL: there are none */
    struct gw_service **services;   /* the same of services */
    unsigned service_count;
    struct gw_gateway *gateway;
    /* Nobody uses it but those that keep it, if any are left. */
    void (*unused)(struct gw_generation *generation);
};

static inline struct gw_generation *gw_generation_ref(struct gw_generation *generation)
{
    generation->refs++;
    return generation;
}

/* The last unref frees it. */
static inline void gw_generation_unref(struct gw_generation *generation)
{
    if (--generation->refs == generation->kept)
        generation->unused(generation);
}

#endif
