/* Owns instances, by reference count: a stream may outlive the configuration that named its
 * backend. Called by script/ when a generation is made, and by exchanges. Invariant: facts only, no
 * policy. */
#include "gateway/instance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"
#include "gateway/pool.h"

struct gw_instance *gw_instance_new(const char *service, const char *id)
{
    size_t service_size = strlen(service) + 1, id_size = strlen(id) + 1;
    struct gw_instance *instance = calloc(1, sizeof *instance + service_size + id_size);
    GW_CHECK(instance != NULL);
    char *text = (char *)(instance + 1);
    instance->refs = 1;
    instance->service = memcpy(text, service, service_size);
    instance->id = memcpy(text + service_size, id, id_size);
    return instance;
}

void gw_instance_unref(struct gw_instance *instance)
{
    if (--instance->refs)
        return;
    if (instance->facts)
        gw_instance_add(instance, GW_LOAD_USERS, -1);
    gw_pool_let_go(instance->host);
    free(instance);
}

void gw_instance_note(struct gw_instance *instance, struct gw_facts *facts, unsigned worker,
                      uint64_t now_ms)
{
    char key[GW_FACT_KEY_MAX], addr[GW_ADDR_TEXT];
    /* What is cut off when it is too long must not make one of two. */
    snprintf(key, sizeof key, "%s %s %s", gw_addr_text(&instance->addr, addr), instance->service,
             instance->id);
    instance->facts = facts;
    instance->worker = worker;
    instance->fact = gw_facts_find(facts, worker, gw_slice_str(key), now_ms);
}
