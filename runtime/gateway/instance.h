/* One address of a service. No policy here: policies are Lua's. */
#ifndef GW_GATEWAY_INSTANCE_H
#define GW_GATEWAY_INSTANCE_H

#include "net/addr.h"

struct gw_pool_host;

struct gw_instance {
    unsigned refs; /* generations and exchanges */
    char id[64];
    char service[64];
    struct gw_addr addr;
    struct gw_pool_host *host; /* its idle connections; shared by all generations */
    unsigned index;            /* from 1, as Lua counts */
};

/* Zeroed, with one reference. */
struct gw_instance *gw_instance_new(void);
static inline void gw_instance_ref(struct gw_instance *instance)
{
    instance->refs++;
}
void gw_instance_unref(struct gw_instance *instance);

#endif
