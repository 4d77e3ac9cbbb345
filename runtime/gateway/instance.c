/* Owns instances, by reference count: a stream may outlive the configuration that named its
 * backend. Called by script/ when a generation is made, and by exchanges. Invariant: facts only, no
 * policy. */
#include "gateway/instance.h"

#include <stdio.h>
#include <stdlib.h>
#include "base/check.h"
#include "gateway/service.h"

struct gw_instance *gw_instance_new(void)
{
    struct gw_instance *instance = calloc(1, sizeof *instance);
    GW_CHECK(instance != NULL);
    instance->refs = 1;
    gw_list_init(&instance->sibling);
    return instance;
}

void gw_instance_unref(struct gw_instance *instance)
{
    if (--instance->refs)
        return;
    if (instance->facts)
        gw_instance_add(instance, GW_LOAD_USERS, -1);
    gw_list_remove(&instance->sibling);
    gw_service_unref(instance->of);
    free(instance);
}

void gw_instance_note(struct gw_instance *instance, struct gw_facts *facts, unsigned worker,
                      uint64_t now_ms)
{
    char key[GW_FACT_KEY_MAX], addr[GW_ADDR_TEXT];
    snprintf(key, sizeof key, "%s %s %s", instance->service, instance->id,
             gw_addr_text(&instance->addr, addr));
    instance->facts = facts;
    instance->worker = worker;
    instance->fact = gw_facts_find(facts, worker, gw_slice_str(key), now_ms);
}
