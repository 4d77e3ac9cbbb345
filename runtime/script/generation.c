/* Owns generations: a VM with its program, and the instances it names. Called by the worker when it
 * loads. Invariant: freed with the last exchange that uses it, VM and all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "script/hooks.h"

static void free_generation(struct gw_generation *generation)
{
    for (unsigned i = 0; i < generation->instance_count; i++)
        gw_instance_unref(generation->instances[i]);
    free(generation->instances);
    gw_vm_free(generation->script);
    gw_stat_add(generation->count, GW_STAT_GENERATIONS, -1);
    free(generation);
}

static void copy_text(lua_State *L, const char *key, char *out, size_t cap)
{
    lua_getfield(L, -1, key);
    const char *text = lua_tostring(L, -1);
    snprintf(out, cap, "%s", text ? text : "");
    lua_pop(L, 1);
}

/* The instance described by the table on the stack's top. */
static struct gw_instance *read_instance(lua_State *L, struct gw_pool *pool, unsigned index)
{
    struct gw_instance *instance = gw_instance_new();
    char host[GW_ADDR_TEXT];
    instance->index = index;
    copy_text(L, "id", instance->id, sizeof instance->id);
    copy_text(L, "service", instance->service, sizeof instance->service);
    copy_text(L, "address", host, sizeof host);
    lua_getfield(L, -1, "port");
    unsigned port = (unsigned)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (gw_addr_parse(&instance->addr, host, port)) {
        instance->host = gw_pool_host(pool, &instance->addr);
        return instance;
    }
    gw_log(GW_LOG_ERROR, "instance %s: not an address: %s", instance->id, host);
    gw_instance_unref(instance);
    return NULL;
}

static bool read_instances(struct gw_generation *generation, lua_State *L, struct gw_pool *pool)
{
    unsigned n = (unsigned)lua_objlen(L, -1);
    generation->instances = calloc(n + 1, sizeof *generation->instances);
    GW_CHECK(generation->instances != NULL);
    for (unsigned i = 0; i < n; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        struct gw_instance *instance = read_instance(L, pool, i + 1);
        lua_pop(L, 1);
        if (!instance)
            return false;
        generation->instances[generation->instance_count++] = instance;
    }
    return true;
}

struct gw_generation *gw_generation_new(struct gw_vm *vm, struct gw_gateway *gateway,
                                        uint64_t number, gw_read_settings *read_settings)
{
    struct gw_generation *generation = calloc(1, sizeof *generation);
    GW_CHECK(generation != NULL);
    generation->count = gateway->count;
    gw_stat_add(generation->count, GW_STAT_GENERATIONS, 1);
    vm->count = gateway->count;
    vm->gateway = gateway;
    generation->refs = 1;
    generation->number = number;
    generation->hooks = &gw_lua_hooks;
    generation->script = vm;
    generation->free = free_generation;
    gw_vm_push(vm, "settings");
    bool good = read_settings(vm->L, &generation->settings);
    gw_vm_push(vm, "instances");
    good = good && read_instances(generation, vm->L, &gateway->pool);
    lua_settop(vm->L, 0);
    if (good)
        return generation;
    gw_generation_unref(generation);
    return NULL;
}
