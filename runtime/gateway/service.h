/* A service of one version: what its instances have in common. What is 0 is not wanted. */
#ifndef GW_GATEWAY_SERVICE_H
#define GW_GATEWAY_SERVICE_H

#include "base/list.h"
#include "gateway/facts.h"
#include "gateway/instance.h"
#include "gateway/statuses.h"

struct gw_check_rules {
    uint32_t interval_ms; /* 0: no checks */
    uint32_t timeout_ms;
    uint32_t jitter_percent; /* of the interval, more or less */
    uint32_t rise, fall;
    uint32_t port; /* 0: the instance's own */
    bool tcp;      /* a connection is enough */
    struct gw_statuses expected;
    char method[16];
    char host[256]; /* of the Host field; "": the instance's address */
    char path[1024];
    char body[256]; /* text that the answer's body must hold; "": any */
};

struct gw_passive_rules {
    uint32_t failures; /* in a row */
    uint32_t error_permille, min_requests, window_ms;
    uint32_t base_eject_ms, max_eject_ms, max_eject_percent;
    struct gw_statuses bad;
};

struct gw_breaker_rules {
    uint32_t failures; /* in a row that open it; 0: no breaker */
    uint32_t successes;
    uint32_t timeout_ms;
    uint32_t probes; /* at a time, while it is half open */
    struct gw_statuses bad;
};

struct gw_service {
    unsigned refs; /* the generation and the instances */
    char name[256];
    unsigned worker; /* that counts for it */
    unsigned fact;   /* its place among the facts; 0: there was none, and it goes without rules */
    struct gw_facts *facts;
    struct gw_list instances;
    struct gw_check_rules check;
    struct gw_passive_rules passive;
    struct gw_breaker_rules breaker;
    uint32_t slow_start_ms;
    uint32_t max_streams; /* of an instance */
    bool passive_on;
    uint64_t complained_ms; /* when it was said last that it has nobody to ask */
    uint32_t changes;       /* the roll's, as due_ms was made from */
    uint64_t due_ms;        /* when time changes what an instance may get; 0: it does not */
};

enum { GW_DUE_NOW = 1 };

/* Zeroed, with one reference. */
struct gw_service *gw_service_new(void);
static inline struct gw_service *gw_service_ref(struct gw_service *service)
{
    service->refs++;
    return service;
}
/* NULL is fine. */
void gw_service_unref(struct gw_service *service);
/* Finds what is known of it by its name, and counts there from now on. */
void gw_service_note(struct gw_service *service, struct gw_facts *facts, unsigned worker,
                     uint64_t now_ms);
/* The instance is one of this service, and takes a reference. */
void gw_service_join(struct gw_service *service, struct gw_instance *instance);
/* One that has joined, and was taken from the list, is in it again. */
void gw_service_rejoin(struct gw_instance *instance);

/* The instance that is this node of its service's list. */
static inline struct gw_instance *gw_service_instance(const struct gw_list *node)
{
    return GW_CONTAINER(node, struct gw_instance, sibling);
}

static inline struct gw_standing *gw_instance_standing(const struct gw_instance *instance)
{
    return &instance->facts->fact[instance->fact].standing;
}
static inline struct gw_roll *gw_service_roll(const struct gw_service *service)
{
    return &service->facts->fact[service->fact].roll;
}
static inline struct gw_breaker *gw_service_breaker(const struct gw_service *service)
{
    return &service->facts->fact[service->fact].breaker;
}

#endif
