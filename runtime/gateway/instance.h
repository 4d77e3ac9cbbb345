/* One address of a service. No policy here: policies are Lua's. */
#ifndef GW_GATEWAY_INSTANCE_H
#define GW_GATEWAY_INSTANCE_H

#include "base/list.h"
#include "gateway/facts.h"
#include "net/addr.h"

struct gw_gateway;
struct gw_pool_host;
struct gw_service;

struct gw_instance {
    unsigned refs; /* generations and exchanges */
    const char *service, *id;
    struct gw_service *of;  /* a reference; NULL: one without rules of its own */
    struct gw_list sibling; /* in the list of that service */
    bool barred;            /* by the configuration: health: unhealthy */
    struct gw_addr addr;
    struct gw_pool_host *host; /* its connections; shared by all generations */
    unsigned index;            /* from 1, as Lua counts */
    unsigned worker;           /* that counts for it */
    unsigned fact;             /* its place among the facts */
    struct gw_facts *facts;
    uint64_t gone_ms; /* its name has lost this address then; 0: it has not */
};

/* With one reference and without an index. What is known of it is found by its service, id and
 * address; the gateway's worker counts there from now on. */
struct gw_instance *gw_instance_new(struct gw_gateway *gateway, const char *service, const char *id,
                                    const struct gw_addr *addr);
static inline void gw_instance_ref(struct gw_instance *instance)
{
    instance->refs++;
}
void gw_instance_unref(struct gw_instance *instance);
/* Counts n more of this worker's on it. */
static inline void gw_instance_add(const struct gw_instance *instance, enum gw_load load, int n)
{
    gw_facts_add(instance->facts, instance->worker, instance->fact, load, n);
}

#endif
