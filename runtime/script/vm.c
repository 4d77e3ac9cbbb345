/* Owns the Lua states. Called by master and worker (load), and by hooks.c (entries). Invariant: a
 * VM has one program for its whole life; a new version is a new VM. */
#include "script/vm.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/check.h"
#include "base/log.h"
#include "script/api.h"
#include "script/task.h"

enum {
    QUIET_MS = 1000,
    COLLECT_MAX_KIB = 2048, /* what is collected at once */
    STEP_KIB = 256,         /* a step of a collection that is not */
    STEP_MS = 10,           /* from one to the next */
    CYCLES = 2, /* what became garbage during the first one is found by the second one */
    PAGE = 4096,
    FREE_BLOCK = 60 * 1024, /* two fit into what LuaJIT maps at a time */
    FREE_BLOCKS_MAX = 64    /* of them are dropped at a time */
};

static const char *const entry_names[GW_ENTRY_LIMIT] = {
    [GW_ENTRY_OPEN] = "open",         [GW_ENTRY_ROUTE] = "route",
    [GW_ENTRY_ACCESS] = "access",     [GW_ENTRY_BALANCE] = "balance",
    [GW_ENTRY_RESPONSE] = "response", [GW_ENTRY_EVENT] = "event",
    [GW_ENTRY_CLOSE] = "close",       [GW_ENTRY_SAVE] = "save",
    [GW_ENTRY_ADOPT] = "adopt",       [GW_ENTRY_EVENT_FAILED] = "event_failed",
};

static bool require(lua_State *L, const char *module)
{
    lua_getglobal(L, "require");
    lua_pushstring(L, module);
    if (lua_pcall(L, 1, 1, 0) == 0)
        return true;
    const char *why = lua_tostring(L, -1);
    gw_log(GW_LOG_ERROR, "lua library: %s", why ? why : "?");
    lua_pop(L, 1);
    return false;
}

static bool load_json(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    if (!require(L, "gateway.json"))
        return false;
    lua_getfield(L, -1, "decode");
    vm->json_decode = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_getfield(L, -1, "encode");
    vm->json_encode = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_getfield(L, -1, "array");
    lua_call(L, 0, 1);
    lua_getmetatable(L, -1);
    vm->json_array = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
    lua_pop(L, 1);
    return true;
}

/* The whole pages of a block go back to the system. False: they were not there. */
static bool drop_pages(char *block)
{
    char *from = block + (-(uintptr_t)(block + sizeof(void *)) & (PAGE - 1)) + sizeof(void *);
    size_t size = (size_t)(block + FREE_BLOCK - from) & ~(size_t)(PAGE - 1);
    unsigned char there[FREE_BLOCK / PAGE];
    return mincore(from, size, there) == 0 && there[0] & 1 &&
           madvise(from, size, MADV_DONTNEED) == 0;
}

/* LuaJIT keeps what it has mapped. So all that is free is taken, in large blocks, until one comes
 * that was just mapped or that was dropped before; afterwards LuaJIT gets them back, empty. */
static void drop_free_pages(lua_State *L)
{
    void *heap, **blocks = NULL, **block;
    lua_Alloc alloc = lua_getallocf(L, &heap);
    unsigned count = 0;
    do {
        block = alloc(heap, NULL, 0, FREE_BLOCK);
        GW_CHECK(block != NULL);
        *block = blocks;
        blocks = block;
    } while (drop_pages((char *)block) && ++count < FREE_BLOCKS_MAX);
    while ((block = blocks)) {
        blocks = *block;
        alloc(heap, block, FREE_BLOCK, 0);
    }
}

/* Lua collects while it runs. What a burst of new streams leaves behind would stay as long as these
 * are silent. Where there is much, to collect it at once would take the loop too long. */
static void on_quiet(struct gw_timer *timer)
{
    struct gw_vm *vm = GW_CONTAINER(timer, struct gw_vm, quiet);
    if (vm->uses != vm->uses_seen) {
        vm->uses_seen = vm->uses;
        vm->cycles = 0;
        gw_timer_start(vm->env->loop, timer, QUIET_MS);
    } else if (lua_gc(vm->L, LUA_GCCOUNT, 0) <= COLLECT_MAX_KIB) {
        lua_gc(vm->L, LUA_GCCOLLECT, 0);
        drop_free_pages(vm->L);
    } else if (!lua_gc(vm->L, LUA_GCSTEP, STEP_KIB) || ++vm->cycles < CYCLES) {
        gw_timer_start(vm->env->loop, timer, STEP_MS);
    } else {
        drop_free_pages(vm->L);
    }
}

void gw_vm_touch(struct gw_vm *vm)
{
    vm->uses++;
    if (!gw_timer_active(&vm->quiet) && vm->env->loop)
        gw_timer_start(vm->env->loop, &vm->quiet, QUIET_MS);
}

struct gw_vm *gw_vm_new(const struct gw_script_env *env)
{
    struct gw_vm *vm = calloc(1, sizeof *vm);
    GW_CHECK(vm != NULL);
    vm->env = env;
    vm->program = vm->source = LUA_NOREF;
    gw_list_init(&vm->idle_tasks);
    gw_timer_init(&vm->quiet, on_quiet);
    vm->L = luaL_newstate();
    GW_CHECK(vm->L != NULL);
    luaL_openlibs(vm->L);
    gw_library_use(env->library, vm->L);
    gw_api_open(vm);
    if (load_json(vm))
        return vm;
    gw_vm_free(vm);
    return NULL;
}

/* Some milliseconds where many streams have used it. */
static void close_state(struct gw_aside_job *job)
{
    lua_close(GW_CONTAINER(job, struct gw_vm, closing)->L);
}

static void free_closed(struct gw_aside_job *job)
{
    struct gw_vm *vm = GW_CONTAINER(job, struct gw_vm, closing);
    free(vm->event_hooks);
    free(vm);
}

void gw_vm_free(struct gw_vm *vm)
{
    gw_task_drop_idle(vm);
    GW_DEBUG_CHECK(vm->tasks == 0);
    if (vm->env->loop)
        gw_timer_stop(vm->env->loop, &vm->quiet);
    gw_aside_run(vm->env->aside, &vm->closing, close_state, free_closed);
}

static void report_errors(lua_State *L, int errors, gw_vm_report *report, void *data)
{
    for (int i = 1; i <= (int)lua_objlen(L, errors); i++) {
        lua_rawgeti(L, errors, i);
        report(lua_tostring(L, -1), data);
        lua_pop(L, 1);
    }
}

/* Pushes the options of gateway.loader.load. */
static bool push_options(struct gw_vm *vm, const char *file, const char *pack, size_t pack_len)
{
    lua_State *L = vm->L;
    if (!require(L, "gateway.source"))
        return false;
    lua_getfield(L, -1, pack ? "unpack" : "disk");
    if (pack)
        lua_pushlstring(L, pack, pack_len);
    if (lua_pcall(L, pack ? 1 : 0, 1, 0) != 0) {
        gw_log(GW_LOG_ERROR, "lua library: %s", lua_tostring(L, -1));
        lua_pop(L, 2);
        return false;
    }
    lua_pushvalue(L, -1);
    vm->source = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_createtable(L, 0, 2);
    lua_insert(L, -2);
    lua_setfield(L, -2, "source");
    lua_pushstring(L, file);
    lua_setfield(L, -2, "file");
    lua_remove(L, -2);
    return true;
}

static void keep_event_hooks(struct gw_vm *vm, int program)
{
    lua_State *L = vm->L;
    lua_getfield(L, program, "event_hooks");
    int count = (int)lua_objlen(L, -1);
    vm->event_hooks = calloc((size_t)count + 1, sizeof *vm->event_hooks);
    GW_CHECK(vm->event_hooks != NULL);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        vm->event_hooks[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_pop(L, 1);
}

static void keep_program(struct gw_vm *vm, int program)
{
    lua_State *L = vm->L;
    for (int i = 0; i < GW_ENTRY_LIMIT; i++) {
        lua_getfield(L, program, entry_names[i]);
        vm->entry[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    keep_event_hooks(vm, program);
    lua_pushvalue(L, program);
    vm->program = luaL_ref(L, LUA_REGISTRYINDEX);
}

static int traceback(lua_State *L)
{
    const char *msg = lua_tostring(L, 1);
    luaL_traceback(L, L, msg ? msg : "error", 1);
    return 1;
}

bool gw_vm_load(struct gw_vm *vm, const char *file, const char *pack, size_t pack_len,
                gw_vm_report *report, void *data)
{
    lua_State *L = vm->L;
    int top = lua_gettop(L);
    lua_pushcfunction(L, traceback);
    if (!require(L, "gateway.loader")) {
        report("the Lua library could not be loaded", data);
        lua_settop(L, top);
        return false;
    }
    lua_getfield(L, -1, "load");
    if (!push_options(vm, file, pack, pack_len) || lua_pcall(L, 1, 3, top + 1) != 0) {
        report(lua_isstring(L, -1) ? lua_tostring(L, -1) : "the loader failed", data);
        lua_settop(L, top);
        return false;
    }
    int errors = lua_gettop(L) - 1, program = errors - 1;
    bool good = lua_istable(L, program);
    if (good)
        keep_program(vm, program);
    else
        report_errors(L, errors, report, data);
    lua_setfield(L, LUA_REGISTRYINDEX, "gateway.watch");
    lua_settop(L, top);
    return good;
}

const char *gw_vm_pack(struct gw_vm *vm, size_t *len)
{
    lua_State *L = vm->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->source);
    lua_getfield(L, -1, "pack");
    lua_insert(L, -2);
    if (lua_pcall(L, 1, 1, 0) != 0) {
        gw_log(GW_LOG_ERROR, "lua library: %s", lua_tostring(L, -1));
        lua_pop(L, 1);
        return NULL;
    }
    const char *pack = lua_tolstring(L, -1, len);
    lua_setfield(L, LUA_REGISTRYINDEX, "gateway.pack");
    return pack;
}

static void watch_list(lua_State *L, const char *member, bool is_dir,
                       void (*each)(const char *path, bool is_dir, void *data), void *data)
{
    lua_getfield(L, -1, member);
    for (int i = 1; lua_istable(L, -1) && i <= (int)lua_objlen(L, -1); i++) {
        lua_rawgeti(L, -1, i);
        if (lua_isstring(L, -1))
            each(lua_tostring(L, -1), is_dir, data);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

void gw_vm_watch(struct gw_vm *vm, void (*each)(const char *path, bool is_dir, void *data),
                 void *data)
{
    lua_State *L = vm->L;
    lua_getfield(L, LUA_REGISTRYINDEX, "gateway.watch");
    if (lua_istable(L, -1)) {
        watch_list(L, "files", false, each, data);
        watch_list(L, "dirs", true, each, data);
    }
    lua_pop(L, 1);
}

void gw_vm_push(struct gw_vm *vm, const char *member)
{
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->program);
    lua_getfield(vm->L, -1, member);
    lua_remove(vm->L, -2);
}

const char *gw_vm_print_conf(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    if (!require(L, "gateway.config"))
        return NULL;
    lua_getfield(L, -1, "print");
    gw_vm_push(vm, "settings");
    if (lua_pcall(L, 1, 1, 0) == 0)
        return lua_tostring(L, -1);
    gw_log(GW_LOG_ERROR, "lua library: %s", lua_tostring(L, -1));
    return NULL;
}
