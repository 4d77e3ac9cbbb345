/* One address of a service. No policy here: policies are Lua's. */
#ifndef GW_GATEWAY_INSTANCE_H
#define GW_GATEWAY_INSTANCE_H

#include "base/list.h"
#include "gateway/facts.h"
#include "net/addr.h"

struct gw_pool_host;
struct gw_service;

struct gw_instance {
    unsigned refs; /* generations and exchanges */
    char id[64];
    char service[64];
    struct gw_service *of;  /* a reference; NULL: one without rules of its own */
    struct gw_list sibling; /* in the list of that service */
    bool barred;            /* by the configuration: health: unhealthy */
    struct gw_addr addr;
    struct gw_pool_host *host; /* its idle connections; shared by all generations */
    unsigned index;            /* from 1, as Lua counts */
    unsigned worker;           /* that counts for it */
    unsigned fact;             /* its place among the facts */
    struct gw_facts *facts;    /* NULL before gw_instance_note */
};

/* Zeroed, with one reference. */
struct gw_instance *gw_instance_new(void);
static inline void gw_instance_ref(struct gw_instance *instance)
{
    instance->refs++;
}
void gw_instance_unref(struct gw_instance *instance);
/* Finds what is known of it, by its service, id and address, and counts there from now on. */
void gw_instance_note(struct gw_instance *instance, struct gw_facts *facts, unsigned worker,
                      uint64_t now_ms);
/* Counts n more of this worker's on it. */
static inline void gw_instance_add(const struct gw_instance *instance, enum gw_load load, int n)
{
    gw_facts_add(instance->facts, instance->worker, instance->fact, load, n);
}

#endif
