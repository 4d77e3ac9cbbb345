/* Owns generations: a VM with its program, and the instances it names. Called by the worker when it
 * loads, and by hooks.c when a VM dies. Invariant: freed with the last exchange that uses it, VM
 * and all; a VM that is made anew belongs to the same generation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "script/api.h"
#include "script/hooks.h"
#include "script/services.h"
#include "script/task.h"

static void free_generation(struct gw_generation *generation)
{
    for (unsigned i = 0; i < generation->instance_count; i++)
        gw_instance_unref(generation->instances[i]);
    free(generation->instances);
    gw_services_free(generation);
    if (generation->script)
        gw_vm_free(generation->script);
    free(generation);
}

static void count(struct gw_generation *generation, bool counted)
{
    if (generation->counted != counted)
        gw_stat_add(generation->gateway->count, GW_STAT_GENERATIONS, counted ? 1 : -1);
    generation->counted = counted;
}

static void unused(struct gw_generation *generation)
{
    count(generation, false);
    if (generation->refs == 0)
        free_generation(generation);
}

struct gw_generation *gw_generation_keep(struct gw_generation *generation)
{
    generation->kept++;
    return gw_generation_ref(generation);
}

void gw_generation_let_go(struct gw_generation *generation)
{
    generation->kept--;
    gw_generation_unref(generation);
}

struct gw_generation *gw_generation_return(struct gw_generation *generation)
{
    generation->kept--;
    count(generation, true);
    return generation;
}

static void copy_text(lua_State *L, const char *key, char *out, size_t cap)
{
    lua_getfield(L, -1, key);
    const char *text = lua_tostring(L, -1);
    snprintf(out, cap, "%s", text ? text : "");
    lua_pop(L, 1);
}

/* The instance described by the table on the stack's top. */
static struct gw_instance *read_instance(lua_State *L, struct gw_generation *generation,
                                         unsigned index)
{
    struct gw_gateway *gateway = generation->gateway;
    struct gw_instance *instance = gw_instance_new();
    char host[GW_ADDR_TEXT], health[16];
    instance->index = index;
    copy_text(L, "id", instance->id, sizeof instance->id);
    copy_text(L, "service", instance->service, sizeof instance->service);
    copy_text(L, "address", host, sizeof host);
    copy_text(L, "health", health, sizeof health);
    instance->barred = strcmp(health, "unhealthy") == 0;
    lua_getfield(L, -1, "port");
    unsigned port = (unsigned)lua_tointeger(L, -1);
    lua_getfield(L, -2, "_of");
    unsigned of = (unsigned)lua_tointeger(L, -1);
    lua_pop(L, 2);
    if (gw_addr_parse(&instance->addr, host, port)) {
        instance->host = gw_pool_host(&gateway->pool, &instance->addr);
        gw_instance_note(instance, gateway->facts, gateway->worker, gateway->loop->now_ms);
        gw_services_join(generation, of, instance);
        return instance;
    }
    gw_log(GW_LOG_ERROR, "instance %s: not an address: %s", instance->id, host);
    gw_instance_unref(instance);
    return NULL;
}

static bool read_instances(struct gw_generation *generation, lua_State *L)
{
    unsigned n = (unsigned)lua_objlen(L, -1);
    generation->instances = calloc(n + 1, sizeof *generation->instances);
    GW_CHECK(generation->instances != NULL);
    for (unsigned i = 0; i < n; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        struct gw_instance *instance = read_instance(L, generation, i + 1);
        lua_pop(L, 1);
        if (!instance)
            return false;
        generation->instances[generation->instance_count++] = instance;
    }
    return true;
}

/* Its settings have been read. */
static void take_vm(struct gw_generation *generation, struct gw_vm *vm)
{
    generation->script = vm;
    vm->generation = generation;
    vm->run_ns = (int64_t)generation->settings.lua_run_ms * 1000000;
    vm->max_memory = generation->settings.lua_max_memory;
}

struct gw_generation *gw_generation_new(struct gw_vm *vm, struct gw_gateway *gateway,
                                        uint64_t number, gw_read_settings *read_settings)
{
    struct gw_generation *generation = calloc(1, sizeof *generation);
    GW_CHECK(generation != NULL);
    generation->gateway = gateway;
    count(generation, true);
    generation->refs = 1;
    generation->number = number;
    generation->hooks = &gw_lua_hooks;
    generation->script = vm;
    generation->unused = unused;
    gw_vm_push(vm, "settings");
    bool good = read_settings(vm->L, &generation->settings);
    take_vm(generation, vm);
    gw_vm_push(vm, "services");
    good = good && gw_services_read(generation, vm->L);
    gw_vm_push(vm, "instances");
    good = good && read_instances(generation, vm->L);
    lua_settop(vm->L, 0);
    if (good)
        return generation;
    gw_generation_unref(generation);
    return NULL;
}

/* Another VM on its way into a generation whose own has died. */
struct revival {
    struct gw_aside_job job;
    struct gw_script_env env;         /* without the loop, which is not this thread's */
    struct gw_generation *generation; /* a reference */
    struct gw_pack pack;
    struct gw_vm *vm;
};

static void load_again(struct gw_aside_job *job)
{
    struct revival *revival = GW_CONTAINER(job, struct revival, job);
    revival->vm = gw_vm_start(&revival->env, &revival->pack);
}

/* Where there is none, they fail now; the next one who asks tries again. */
static void end_waiting(struct revival *revival)
{
    struct gw_list *all = &revival->generation->gateway->exchanges;
    for (struct gw_list *at = all->next; at != all; at = at->next) {
        struct gw_exchange *x = GW_CONTAINER(at, struct gw_exchange, node);
        if (x->generation != revival->generation || !x->script.stranded)
            continue;
        x->script.stranded = false;
        if (revival->vm)
            gw_exchange_wake(x);
        else
            gw_exchange_fail(x, GW_ERR_HOOK, false);
    }
}

static void end_revival(struct gw_aside_job *job)
{
    struct revival *revival = GW_CONTAINER(job, struct revival, job);
    struct gw_generation *generation = revival->generation;
    struct gw_vm *dead = generation->script;
    if (revival->vm) {
        revival->vm->env = dead->env;
        take_vm(generation, revival->vm);
        if (dead->serves)
            gw_task_serve(revival->vm);
        gw_vm_free(dead);
    } else {
        gw_log(GW_LOG_ERROR, "a VM that was stopped can't be replaced");
        dead->reviving = false;
    }
    end_waiting(revival);
    gw_generation_unref(generation);
    free(revival);
}

/* The dead one keeps its own, for another try. */
static struct gw_pack copy_pack(const struct gw_pack *pack)
{
    struct gw_pack copy = *pack;
    copy.bytes = mmap(NULL, pack->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_CHECK(copy.bytes != MAP_FAILED);
    memcpy(copy.bytes, pack->bytes, pack->len);
    return copy;
}

void gw_generation_revive(struct gw_generation *generation)
{
    struct gw_vm *dead = generation->script;
    struct gw_aside *aside = dead->env->aside;
    if (dead->reviving || !aside) /* without: the process ends */
        return;
    struct revival *revival = calloc(1, sizeof *revival);
    GW_CHECK(revival != NULL);
    dead->reviving = true;
    revival->env = *dead->env;
    revival->env.loop = NULL;
    revival->env.aside = NULL;
    revival->generation = gw_generation_ref(generation);
    revival->pack = copy_pack(&dead->pack);
    gw_aside_run(aside, &revival->job, load_again, end_revival);
}

static void log_death(const struct gw_generation *generation, const struct gw_exchange *x)
{
    const struct gw_vm *vm = generation->script;
    struct gw_log_line line;
    gw_stat_add(generation->gateway->count, GW_STAT_HOOK_ERRORS, 1);
    gw_log_begin(&line, GW_LOG_ERROR, "hook stopped by force; its VM is replaced");
    gw_api_log_exchange(&line, x);
    gw_log_cstr(&line, "limit", vm->too_large ? "lua.maxMemory" : "lua.maxRunTime");
    gw_log_end(&line);
}

void gw_generation_died(struct gw_generation *generation, struct gw_exchange *x)
{
    struct gw_vm *vm = generation->script;
    struct gw_list *all = &generation->gateway->exchanges;
    log_death(generation, x);
    gw_generation_ref(generation); /* the last that uses it may be among those that forget it */
    for (struct gw_list *at = all->next; at != all; at = at->next)
        gw_hooks_forget(GW_CONTAINER(at, struct gw_exchange, node), generation);
    gw_task_drop_list(&vm->own_tasks);
    gw_calls_close(&vm->calls);
    gw_task_drop_idle(vm);
    gw_vm_bury(vm);
    if (generation->refs > 1)
        gw_generation_revive(generation);
    gw_generation_unref(generation);
}
