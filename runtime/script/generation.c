/* Owns generations: a VM with its program, and the instances it names. Called by the worker when it
 * loads, and by hooks.c when a VM dies. Invariant: freed with the last exchange that uses it, VM
 * and all; a VM that is made anew belongs to the same generation. */
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "gateway/names.h"
#include "script/api.h"
#include "script/hooks.h"
#include "script/services.h"
#include "script/task.h"
#include "script/watchdog.h"

enum {
    PAUSE_MIN_MS = 100,
    PAUSE_MAX_MS = 60000,
    COMPILED_MAX = 16 /* deaths after which its VMs do without the JIT */
};

static void free_generation(struct gw_generation *generation)
{
    gw_names_free(generation);
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

/* A row of the program's instances or names, on the stack's top with its texts. */
struct row {
    const char *service, *id, *address, *health;
    unsigned port, of; /* of: the number of its service */
};

static struct row push_row(lua_State *L, int list, unsigned i)
{
    static const char *const keys[] = {"service", "id", "address", "health", "port", "_of"};
    lua_rawgeti(L, list, (int)i);
    for (int k = 0; k < 6; k++)
        lua_getfield(L, -1 - k, keys[k]);
    struct row row = {.service = lua_tostring(L, -6),
                      .id = lua_tostring(L, -5),
                      .address = lua_tostring(L, -4),
                      .health = lua_tostring(L, -3),
                      .port = (unsigned)lua_tointeger(L, -2),
                      .of = (unsigned)lua_tointeger(L, -1)};
    return row;
}

static bool is_barred(const struct row *row)
{
    return row->health && strcmp(row->health, "unhealthy") == 0;
}

static struct gw_instance *make_instance(struct gw_generation *generation, const struct row *row)
{
    struct gw_addr addr;
    if (!gw_addr_parse(&addr, row->address, row->port)) {
        gw_log(GW_LOG_ERROR, "instance %s: not an address: %s", row->id, row->address);
        return NULL;
    }
    struct gw_instance *instance =
        gw_instance_new(generation->gateway, row->service, row->id, &addr);
    instance->barred = is_barred(row);
    gw_services_join(generation, row->of, instance);
    return instance;
}

static bool read_instances(struct gw_generation *generation, lua_State *L)
{
    int list = lua_gettop(L);
    unsigned n = (unsigned)lua_objlen(L, list);
    generation->instances = calloc(n + 1, sizeof *generation->instances);
    GW_CHECK(generation->instances != NULL);
    for (unsigned i = 1; i <= n; i++) {
        struct row row = push_row(L, list, i);
        struct gw_instance *instance = make_instance(generation, &row);
        lua_settop(L, list);
        if (!instance)
            return false;
        instance->index = i;
        generation->instances[generation->instance_count++] = instance;
    }
    return true;
}

static void read_names(struct gw_generation *generation, lua_State *L)
{
    int list = lua_gettop(L);
    for (unsigned i = 1; i <= (unsigned)lua_objlen(L, list); i++) {
        struct row row = push_row(L, list, i);
        gw_names_add(generation, row.service, row.id, row.address, row.port, is_barred(&row));
        lua_settop(L, list);
    }
}

static void push_instance(lua_State *L, const struct gw_instance *instance)
{
    char host[GW_ADDR_TEXT];
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, (lua_Integer)instance->index);
    lua_setfield(L, -2, "index");
    lua_pushstring(L, instance->id);
    lua_setfield(L, -2, "id");
    lua_pushstring(L, gw_addr_host(&instance->addr, host));
    lua_setfield(L, -2, "address");
}

void gw_generation_resolved(struct gw_generation *generation, unsigned name,
                            struct gw_instance *const *instances, unsigned count)
{
    struct gw_vm *vm = generation->script;
    lua_State *L = vm->L;
    if (vm->dead) /* the next one is told of all */
        return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->entry[GW_ENTRY_RESOLVED]);
    lua_pushinteger(L, (lua_Integer)name);
    lua_createtable(L, (int)count, 0);
    for (unsigned i = 0; i < count; i++) {
        push_instance(L, instances[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    int status = gw_watch_pcall(vm, L, 2, 0, 0);
    if (status == GW_LUA_STOPPED) {
        gw_generation_died(generation, NULL);
        return;
    }
    if (status != 0)
        gw_log(GW_LOG_ERROR, "resolved: %s", lua_tostring(L, -1));
    lua_settop(L, 0);
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
    gw_vm_push(vm, "names");
    if (good)
        read_names(generation, vm->L);
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

void gw_generation_pause(struct gw_generation *generation)
{
    uint64_t next_ms = generation->pause_ms ? 2 * generation->pause_ms : PAUSE_MIN_MS;
    generation->pause_ms = next_ms < PAUSE_MAX_MS ? next_ms : PAUSE_MAX_MS;
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
        if (!revival->vm && x->step == GW_STEP_CLOSE)
            x->hook_flags = 0;
        if (!revival->vm)
            gw_exchange_fail(x, GW_ERR_HOOK, false);
        gw_exchange_wake(x);
    }
}

/* What LuaJIT has compiled lies outside of a VM's heap, and stays when the VM has died in a state
 * in which LuaJIT can't be asked to free it: half a MiB at most, but each time. */
static void tame(const struct gw_generation *generation, struct gw_vm *vm)
{
    if (generation->deaths < COMPILED_MAX)
        return;
    luaJIT_setmode(vm->L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
    luaJIT_setmode(vm->L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    if (generation->deaths == COMPILED_MAX)
        gw_log(GW_LOG_WARN, "generation %llu: %u VMs died; it goes on without the JIT",
               (unsigned long long)generation->number, generation->deaths);
}

static void end_revival(struct gw_aside_job *job)
{
    struct revival *revival = GW_CONTAINER(job, struct revival, job);
    struct gw_generation *generation = revival->generation;
    struct gw_vm *dead = generation->script;
    if (revival->vm) {
        revival->vm->env = dead->env;
        take_vm(generation, revival->vm);
        tame(generation, revival->vm);
        gw_names_tell(generation);
        if (dead->serves)
            gw_task_serve(revival->vm, generation->pause_ms);
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
    if (vm->running)
        gw_log_cstr(&line, "hook", vm->names[vm->running]);
    gw_log_end(&line);
}

void gw_generation_died(struct gw_generation *generation, struct gw_exchange *x)
{
    struct gw_vm *vm = generation->script;
    struct gw_list *all = &generation->gateway->exchanges;
    generation->deaths++;
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
