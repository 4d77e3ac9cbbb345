/* Owns instances, by reference count: a stream may outlive the configuration that named its
 * backend. Called by script/ when a generation is made, and by exchanges. Invariant: facts only, no
 * policy. */
#include "gateway/instance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"
#include "gateway/exchange.h"
#include "gateway/service.h"

/* What is cut off where it is too long must not make one of two: the address goes first. */
static unsigned find_fact(const struct gw_instance *instance, uint64_t now_ms)
{
    char key[GW_FACT_KEY_MAX], addr[GW_ADDR_TEXT];
    snprintf(key, sizeof key, "%s %s %s", gw_addr_text(&instance->addr, addr), instance->service,
             instance->id);
    return gw_facts_find(instance->facts, instance->worker, gw_slice_str(key), now_ms);
}

struct gw_instance *gw_instance_new(struct gw_gateway *gateway, const char *service, const char *id,
                                    const struct gw_addr *addr)
{
    size_t service_size = strlen(service) + 1, id_size = strlen(id) + 1;
    struct gw_instance *instance = malloc(sizeof *instance + service_size + id_size);
    GW_CHECK(instance != NULL);
    char *text = (char *)(instance + 1);
    *instance = (struct gw_instance){.refs = 1,
                                     .service = memcpy(text, service, service_size),
                                     .id = memcpy(text + service_size, id, id_size),
                                     .addr = *addr,
                                     .host = gw_pool_host(&gateway->pool, addr),
                                     .worker = gateway->worker,
                                     .facts = gateway->facts};
    instance->fact = find_fact(instance, gateway->loop->now_ms);
    gw_list_init(&instance->sibling);
    return instance;
}

void gw_instance_unref(struct gw_instance *instance)
{
    if (--instance->refs)
        return;
    gw_instance_add(instance, GW_LOAD_USERS, -1);
    gw_pool_let_go(instance->host);
    gw_list_remove(&instance->sibling);
    gw_service_unref(instance->of);
    free(instance);
}
