/* Owns the Lua states. Called by master and worker (load), and by hooks.c (entries). Invariant: a
 * VM has one program for its whole life; a new version is a new VM. */
#include "script/vm.h"

#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/check.h"
#include "base/log.h"
#include "script/api.h"
#include "script/context.h"
#include "script/task.h"
#include "script/watchdog.h"

enum {
    QUIET_MS = 1000,
    COLLECT_MAX_KIB = 2048, /* what is collected at once */
    STEP_KIB = 256,         /* a step of a collection that is not */
    STEP_MS = 10,           /* from one to the next */
    NAMES_MAX = 10000,
    CYCLES = 2 /* what became garbage during the first one is found by the second one */
};
/* For each file, and each `new`, while a version is loaded: its own limits stand in it. */
static const int64_t LOAD_NS = 2000000000;
static const size_t LOAD_BYTES = (size_t)512 << 20;

static const char *const entry_names[GW_ENTRY_LIMIT] = {
    [GW_ENTRY_OPEN] = "open",           [GW_ENTRY_ROUTE] = "route",
    [GW_ENTRY_ACCESS] = "access",       [GW_ENTRY_BALANCE] = "balance",
    [GW_ENTRY_RESPONSE] = "response",   [GW_ENTRY_EVENT] = "event",
    [GW_ENTRY_EVENTS] = "events",       [GW_ENTRY_COMMENT] = "comment",
    [GW_ENTRY_CLOSE] = "close",         [GW_ENTRY_SAVE] = "save",
    [GW_ENTRY_ADOPT] = "adopt",         [GW_ENTRY_EVENT_FAILED] = "event_failed",
    [GW_ENTRY_ON_RELOAD] = "on_reload", [GW_ENTRY_RESOLVED] = "resolved",
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

/* Lua collects while it runs. What a burst of new streams leaves behind would stay as long as these
 * are silent. Where there is much, to collect it at once would take the loop too long. */
static void on_quiet(struct gw_timer *timer)
{
    struct gw_vm *vm = GW_CONTAINER(timer, struct gw_vm, quiet);
    if (vm->uses != vm->uses_seen) {
        vm->uses_seen = vm->uses;
        vm->cycles = 0;
        gw_timer_start(vm->env->loop, timer, QUIET_MS);
        return;
    }
    if (lua_gc(vm->L, LUA_GCCOUNT, 0) <= COLLECT_MAX_KIB) {
        lua_gc(vm->L, LUA_GCCOLLECT, 0);
    } else if (!lua_gc(vm->L, LUA_GCSTEP, STEP_KIB) || ++vm->cycles < CYCLES) {
        gw_timer_start(vm->env->loop, timer, STEP_MS);
        return;
    }
    gw_heap_trim(&vm->heap);
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
    gw_list_init(&vm->own_tasks);
    gw_list_init(&vm->calls);
    gw_timer_init(&vm->quiet, on_quiet);
    gw_timer_init(&vm->probation, gw_context_end_probation);
    vm->run_ns = LOAD_NS;
    vm->max_memory = LOAD_BYTES;
    gw_heap_init(&vm->heap, 0);
    vm->L = lua_newstate(gw_watch_alloc, vm);
    GW_CHECK(vm->L != NULL);
    gw_watchdog_attach(vm->L);
    luaL_openlibs(vm->L);
    gw_library_use(env->library, vm->L);
    gw_api_open(vm);
    if (load_json(vm))
        return vm;
    gw_vm_free(vm);
    return NULL;
}

int gw_vm_name_hook(struct gw_vm *vm, const char *name)
{
    for (int i = 1; i <= vm->name_count; i++)
        if (strcmp(vm->names[i], name) == 0)
            return i;
    if (vm->name_count == NAMES_MAX)
        return 0;
    vm->names = realloc(vm->names, ((size_t)vm->name_count + 2) * sizeof *vm->names);
    GW_CHECK(vm->names != NULL);
    vm->names[++vm->name_count] = strdup(name);
    GW_CHECK(vm->names[vm->name_count] != NULL);
    return vm->name_count;
}

struct gw_buf *gw_vm_scratch(struct gw_vm *vm, enum gw_scratch which)
{
    gw_buf_clear(&vm->scratch[which]);
    return &vm->scratch[which];
}

/* Some milliseconds where many streams have used it. */
static void close_state(struct gw_aside_job *job)
{
    struct gw_vm *vm = GW_CONTAINER(job, struct gw_vm, closing);
    if (vm->dead)
        return;
    lua_close(vm->L);
    gw_heap_fini(&vm->heap);
}

static void free_closed(struct gw_aside_job *job)
{
    struct gw_vm *vm = GW_CONTAINER(job, struct gw_vm, closing);
    if (vm->pack.bytes)
        munmap(vm->pack.bytes, vm->pack.len);
    gw_api_crypto_end(vm);
    free(vm->event_hooks);
    free(vm->event_numbers);
    for (int i = 1; i <= vm->name_count; i++)
        free(vm->names[i]);
    free(vm->names);
    free(vm);
}

static void stop_timers(struct gw_vm *vm)
{
    if (!vm->env->loop)
        return;
    gw_timer_stop(vm->env->loop, &vm->quiet);
    gw_timer_stop(vm->env->loop, &vm->probation);
}

void gw_vm_bury(struct gw_vm *vm)
{
    GW_CHECK(vm->dead);
    if (!vm->L)
        return;
    stop_timers(vm);
    /* Compiled code lies outside of the heap. */
    if (vm->compiled)
        luaJIT_setmode(vm->L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
    gw_heap_fini(&vm->heap);
    vm->L = NULL;
}

void gw_vm_free(struct gw_vm *vm)
{
    gw_task_drop_list(&vm->own_tasks);
    gw_calls_close(&vm->calls);
    gw_task_drop_idle(vm);
    GW_DEBUG_CHECK(vm->tasks == 0);
    free(vm->half);
    for (int i = 0; i < GW_SCRATCH_LIMIT; i++)
        gw_buf_clear(&vm->scratch[i]);
    if (vm->dead)
        gw_vm_bury(vm);
    stop_timers(vm);
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
static bool push_options(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    const struct gw_pack *pack = &vm->pack;
    if (!require(L, "gateway.source"))
        return false;
    lua_getfield(L, -1, pack->bytes ? "unpack" : "disk");
    if (pack->bytes)
        lua_pushlstring(L, pack->bytes, pack->len);
    if (lua_pcall(L, pack->bytes ? 1 : 0, 1, 0) != 0) {
        gw_log(GW_LOG_ERROR, "lua library: %s", lua_tostring(L, -1));
        lua_pop(L, 2);
        return false;
    }
    lua_pushvalue(L, -1);
    vm->source = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_createtable(L, 0, 2);
    lua_insert(L, -2);
    lua_setfield(L, -2, "source");
    lua_pushstring(L, pack->file);
    lua_setfield(L, -2, "file");
    lua_remove(L, -2);
    return true;
}

static void keep_event_hooks(struct gw_vm *vm, int program)
{
    lua_State *L = vm->L;
    lua_getfield(L, program, "event_numbers");
    lua_getfield(L, program, "event_hooks");
    int count = (int)lua_objlen(L, -1);
    vm->event_hooks = calloc((size_t)count + 1, sizeof *vm->event_hooks);
    vm->event_numbers = calloc((size_t)count + 1, sizeof *vm->event_numbers);
    GW_CHECK(vm->event_hooks != NULL && vm->event_numbers != NULL);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        vm->event_hooks[i] = luaL_ref(L, LUA_REGISTRYINDEX);
        lua_rawgeti(L, -2, i);
        vm->event_numbers[i] = (int32_t)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
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

/* Calls the loader with the options on the stack: program, errors and what to watch are there
 * afterwards. */
static bool call_loader(struct gw_vm *vm, int handler, gw_vm_report *report, void *data)
{
    char text[256];
    lua_State *L = vm->L;
    bool started = gw_watchdog_start();
    int status = gw_watch_pcall(vm, L, 1, 3, handler);
    if (started)
        gw_watchdog_stop();
    if (status == GW_LUA_STOPPED) {
        snprintf(text, sizeof text, "%s: stopped by force while it was loaded: too much %s",
                 vm->work, vm->too_large ? "memory" : "time");
        report(text, data);
    } else if (status != 0) {
        report(lua_isstring(L, -1) ? lua_tostring(L, -1) : "the loader failed", data);
    }
    return status == 0;
}

static bool take_program(struct gw_vm *vm, gw_vm_report *report, void *data)
{
    lua_State *L = vm->L;
    int errors = lua_gettop(L) - 1, program = errors - 1;
    bool good = lua_istable(L, program);
    if (good)
        keep_program(vm, program);
    else
        report_errors(L, errors, report, data);
    lua_setfield(L, LUA_REGISTRYINDEX, "gateway.watch");
    return good;
}

bool gw_vm_load(struct gw_vm *vm, const struct gw_pack *pack, gw_vm_report *report, void *data)
{
    lua_State *L = vm->L;
    vm->pack = *pack;
    lua_pushcfunction(L, traceback);
    bool good = require(L, "gateway.loader");
    if (good) {
        lua_getfield(L, -1, "load");
        good = push_options(vm);
    }
    if (good)
        good = call_loader(vm, 1, report, data) && take_program(vm, report, data);
    else
        report("the Lua library could not be loaded", data);
    if (!vm->dead)
        lua_settop(L, 0);
    return good;
}

static void log_error(const char *line, void *data)
{
    (void)data;
    gw_log(GW_LOG_ERROR, "%s", line);
}

struct gw_vm *gw_vm_start(const struct gw_script_env *env, const struct gw_pack *pack)
{
    struct gw_vm *vm = gw_vm_new(env);
    if (!vm) {
        munmap(pack->bytes, pack->len);
        return NULL;
    }
    if (gw_vm_load(vm, pack, log_error, NULL))
        return vm;
    gw_vm_free(vm);
    return NULL;
}

const char *gw_vm_pack(struct gw_vm *vm, size_t *len)
{
    lua_State *L = vm->L;
    if (vm->dead)
        return NULL;
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
    if (vm->dead)
        return;
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
