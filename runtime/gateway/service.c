/* Owns services, by reference count. Called by script/ when a generation is made. Invariant: a
 * service is there for as long as one of its instances is. */
#include "gateway/service.h"

#include <stdio.h>
#include <stdlib.h>
#include "base/check.h"

struct gw_service *gw_service_new(void)
{
    struct gw_service *service = calloc(1, sizeof *service);
    GW_CHECK(service != NULL);
    service->refs = 1;
    gw_list_init(&service->instances);
    return service;
}

void gw_service_unref(struct gw_service *service)
{
    if (!service || --service->refs)
        return;
    if (service->facts)
        gw_facts_add(service->facts, service->worker, service->fact, GW_LOAD_USERS, -1);
    free(service);
}

/* No instance's key begins like this one. */
void gw_service_note(struct gw_service *service, struct gw_facts *facts, unsigned worker,
                     uint64_t now_ms)
{
    char key[GW_FACT_KEY_MAX];
    snprintf(key, sizeof key, "\t%.*s", GW_FACT_KEY_MAX - 2, service->name);
    service->facts = facts;
    service->worker = worker;
    service->fact = gw_facts_find(facts, worker, gw_slice_str(key), now_ms);
    __atomic_store_n(&gw_service_roll(service)->max_streams, service->max_streams,
                     __ATOMIC_SEQ_CST);
}

void gw_service_join(struct gw_service *service, struct gw_instance *instance)
{
    instance->of = gw_service_ref(service);
    gw_service_rejoin(instance);
}

/* What became of it while nobody here looked is found out before anybody is chosen. */
void gw_service_rejoin(struct gw_instance *instance)
{
    gw_list_push(&instance->of->instances, &instance->sibling);
    instance->of->due_ms = GW_DUE_NOW;
}
