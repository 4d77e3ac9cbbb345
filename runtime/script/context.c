/* Owns the contexts of exchanges, each referred to from its VM's registry, and those that streams
 * may fall back to. Called by hooks.c, and by generation.c when a VM dies. Invariant: an exchange
 * has one context that is in use; its handle is the only one that leads to the exchange. */
#include "script/context.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"
#include "gateway/clocks.h"
#include "gateway/relay.h"
#include "script/api.h"
#include "script/company.h"
#include "script/hooks.h"
#include "script/watchdog.h"

enum { MAX_EVENT_HOOK = (1 << 22) - 1, PROBATION_MS = 30000 };

/* Where a stream came from, as it was there. */
struct gw_fallback {
    struct gw_generation *generation; /* a reference */
    struct gw_script_part script;
    unsigned hook_flags;
    uint32_t timeout_ms;
    struct gw_clocks clocks;
    uint64_t since_ms;
};

static struct gw_vm *vm_of(const struct gw_exchange *x)
{
    return x->generation->script;
}

int gw_context_call(struct gw_exchange *x, struct gw_generation *generation, int nargs,
                    int nresults)
{
    struct gw_vm *vm = generation->script;
    vm->running = 0;
    int status = gw_watch_pcall(vm, vm->L, nargs, nresults, 0);
    if (status == GW_LUA_STOPPED)
        gw_generation_died(generation, x);
    return status;
}

/* Pushes a new handle, the function and the handle again, as its first argument: below the call it
 * can't be collected, whatever becomes of that. */
static struct gw_handle *push_kept_handle(lua_State *L, struct gw_exchange *x, int function)
{
    struct gw_handle *handle = gw_handle_push(L, x);
    lua_rawgeti(L, LUA_REGISTRYINDEX, function);
    lua_pushvalue(L, -2);
    return handle;
}

bool gw_context_open(struct gw_exchange *x)
{
    struct gw_vm *vm = vm_of(x);
    lua_State *L = vm->L;
    struct gw_handle *handle = push_kept_handle(L, x, vm->entry[GW_ENTRY_OPEN]);
    int status = gw_context_call(x, x->generation, 1, 1);
    if (status == GW_LUA_STOPPED)
        return false;
    if (status == 0) {
        x->script.ctx_ref = luaL_ref(L, LUA_REGISTRYINDEX);
        x->script.handle = handle;
    } else {
        gw_api_log_error(L, L, x);
        handle->x = NULL;
    }
    lua_settop(L, 0);
    return status == 0;
}

/* What a fallback refers to in its VM. */
static void unref(struct gw_generation *generation, int ref)
{
    struct gw_vm *vm = generation->script;
    if (ref && !vm->dead)
        luaL_unref(vm->L, LUA_REGISTRYINDEX, ref);
}

static void free_fallback(struct gw_fallback *fallback)
{
    unref(fallback->generation, fallback->script.ctx_ref);
    gw_generation_let_go(fallback->generation);
    free(fallback);
}

static struct gw_fallback *take_fallback(struct gw_exchange *x)
{
    struct gw_handle *handle = x->script.handle;
    struct gw_fallback *fallback = handle ? handle->fallback : NULL;
    if (handle)
        handle->fallback = NULL;
    x->script.unproven = false;
    return fallback;
}

void gw_context_prove(struct gw_exchange *x)
{
    struct gw_fallback *fallback = take_fallback(x);
    if (fallback)
        free_fallback(fallback);
}

static void forget_script(struct gw_exchange *x)
{
    struct gw_handle *handle = x->script.handle;
    if (handle) {
        gw_company_end(handle);
        handle->x = NULL;
    }
    x->script.handle = NULL;
    x->script.ctx_ref = 0;
    x->script.in_events = false;
}

void gw_context_drop(struct gw_exchange *x)
{
    int ref = x->script.ctx_ref;
    gw_context_prove(x);
    forget_script(x);
    unref(x->generation, ref);
}

void gw_context_take_rule(struct gw_exchange *x, lua_State *co, int first)
{
    double seconds = lua_tonumber(co, first + 1);
    x->hook_flags = (unsigned)lua_tointeger(co, first);
    x->timeout_ms = (uint32_t)fmin(fmax(seconds * 1000, 0), UINT32_MAX);
    x->script.event_hook = (unsigned)lua_tointeger(co, first + 2) & MAX_EVENT_HOOK;
}

/* What x has in its VM as one text, on the top of that VM's stack, unless it is empty (""). False:
 * why not is there; or the VM has died. */
static bool save(struct gw_exchange *x, struct gw_slice *saved)
{
    lua_State *L = vm_of(x)->L;
    *saved = GW_SLICE("");
    if (!x->script.handle && !x->script.ctx_ref)
        return true;
    if (x->script.handle) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, vm_of(x)->entry[GW_ENTRY_SAVE]);
        lua_rawgeti(L, LUA_REGISTRYINDEX, x->script.ctx_ref);
        if (gw_context_call(x, x->generation, 1, 2) != 0 || !lua_isstring(L, -2))
            return false;
        lua_pop(L, 1);
    } else {
        lua_rawgeti(L, LUA_REGISTRYINDEX, x->script.ctx_ref);
    }
    *saved = gw_lua_slice(L, -1);
    return true;
}

/* A context takes more than all the rest of an idle stream. */
void gw_context_settle(struct gw_exchange *x)
{
    struct gw_slice saved;
    struct gw_handle *handle = x->script.handle;
    if (x->hook_flags & (GW_HAS_EVENT | GW_HAS_CLOSE) || !handle || gw_company_busy(handle))
        return;
    bool good = save(x, &saved);
    struct gw_vm *vm = vm_of(x);
    if (vm->dead)
        return;
    if (good) {
        gw_context_drop(x);
        if (saved.len)
            x->script.ctx_ref = luaL_ref(vm->L, LUA_REGISTRYINDEX);
    }
    lua_settop(vm->L, 0);
}

static void log_move(const struct gw_exchange *x, const struct gw_generation *to, const char *what,
                     const char *why)
{
    struct gw_log_line line;
    char id[GW_ID_TEXT];
    gw_log_begin(&line, GW_LOG_WARN, what);
    gw_log_cstr(&line, "x", gw_exchange_id(x, id));
    gw_log_cstr(&line, "rule", x->rule);
    gw_log_int(&line, "generation", (int64_t)to->number);
    if (why)
        gw_log_cstr(&line, "why", why);
    gw_log_end(&line);
}

static const char stays[] = "stream stays under its old version";

/* Calls adopt in the VM of `to`. With GW_ADOPTED handle, ctx, flags, timeout, event hook are on its
 * stack afterwards. */
static enum gw_adoption call_adopt(struct gw_exchange *x, struct gw_generation *to,
                                   struct gw_slice saved, struct gw_handle **handle)
{
    struct gw_vm *vm = to->script;
    lua_State *L = vm->L;
    *handle = push_kept_handle(L, x, vm->entry[GW_ENTRY_ADOPT]);
    lua_pushlstring(L, saved.ptr, saved.len);
    lua_pushstring(L, x->rule);
    lua_pushstring(L, x->instance ? x->instance->service : NULL);
    lua_pushstring(L, x->instance ? x->instance->id : NULL);
    lua_pushboolean(L, to == x->generation);
    vm->running = 0;
    int status = gw_watch_pcall(vm, L, 6, 4, 0);
    if (status == 0 && lua_istable(L, 2))
        return GW_ADOPTED;
    gw_company_end(*handle); /* upgrade may have started tasks */
    (*handle)->x = NULL;
    if (status == GW_LUA_STOPPED) {
        gw_generation_died(to, x);
        return GW_ADOPT_STAYS;
    }
    const char *policy = status == 0 ? lua_tostring(L, 4) : NULL;
    if (!policy)
        log_move(x, to, stays, lua_tostring(L, status == 0 ? 3 : -1));
    bool drain = policy && *policy == 'd';
    lua_settop(L, 0);
    return drain ? GW_ADOPT_RETIRE : GW_ADOPT_STAYS;
}

/* Puts x under the context that call_adopt has left on the stack. */
static void take_up(struct gw_exchange *x, struct gw_vm *vm, struct gw_handle *handle)
{
    lua_State *L = vm->L;
    gw_context_take_rule(x, L, 3);
    lua_settop(L, 2);
    x->script.ctx_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    x->script.handle = handle;
    lua_settop(L, 0);
}

bool gw_context_revive(struct gw_exchange *x)
{
    struct gw_handle *handle;
    struct gw_slice saved = GW_SLICE("");
    lua_State *L = vm_of(x)->L;
    if (!x->rule[0])
        return gw_context_open(x);
    if (x->script.ctx_ref) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, x->script.ctx_ref);
        saved = gw_lua_slice(L, -1); /* which the registry keeps */
        lua_pop(L, 1);
    }
    if (call_adopt(x, x->generation, saved, &handle) != GW_ADOPTED)
        return false;
    unref(x->generation, x->script.ctx_ref);
    take_up(x, vm_of(x), handle);
    return true;
}

/* The context in use becomes what x may fall back to; an older one that has proved itself is
 * better. What stays behind is not in use any more. */
static struct gw_fallback *leave(struct gw_exchange *x, const struct gw_clocks *clocks)
{
    uint64_t now_ms = x->gateway->loop->now_ms;
    struct gw_fallback *older = take_fallback(x);
    if (older && now_ms - older->since_ms < PROBATION_MS) {
        gw_context_drop(x);
        return older;
    }
    if (older)
        free_fallback(older);
    struct gw_fallback *fallback = malloc(sizeof *fallback);
    GW_CHECK(fallback != NULL);
    *fallback = (struct gw_fallback){.generation = gw_generation_keep(x->generation),
                                     .script = x->script,
                                     .hook_flags = x->hook_flags,
                                     .timeout_ms = x->timeout_ms,
                                     .clocks = *clocks,
                                     .since_ms = now_ms};
    forget_script(x);
    return fallback;
}

static void keep_fallback(struct gw_exchange *x, struct gw_vm *vm, struct gw_fallback *fallback)
{
    struct gw_handle *handle = x->script.handle;
    if (!(x->hook_flags & GW_HAS_EVENT)) {
        free_fallback(fallback);
        return;
    }
    handle->fallback = fallback;
    x->script.unproven = true;
    if (!gw_timer_active(&vm->probation))
        gw_timer_start(vm->env->loop, &vm->probation, PROBATION_MS);
}

enum gw_adoption gw_context_adopt(struct gw_exchange *x, struct gw_generation *to)
{
    struct gw_slice saved;
    struct gw_handle *handle;
    struct gw_vm *from = vm_of(x), *vm = to->script;
    if (vm->dead)
        return GW_ADOPT_STAYS;
    enum gw_adoption adoption = GW_ADOPT_STAYS;
    struct gw_clocks clocks = gw_clocks_get(x);
    if (save(x, &saved))
        adoption = call_adopt(x, to, saved, &handle);
    else
        log_move(x, to, stays, from->dead ? "its VM has died" : lua_tostring(from->L, -1));
    if (!from->dead)
        lua_settop(from->L, 0);
    if (adoption != GW_ADOPTED)
        return adoption;
    struct gw_fallback *fallback = leave(x, &clocks);
    take_up(x, vm, handle);
    keep_fallback(x, vm, fallback);
    return GW_ADOPTED;
}

bool gw_context_unwanted(struct gw_exchange *x, struct gw_generation *to)
{
    struct gw_vm *vm = to->script;
    lua_State *L = vm->L;
    if (vm->dead)
        return false;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->entry[GW_ENTRY_ON_RELOAD]);
    lua_pushstring(L, x->rule);
    int status = gw_context_call(x, to, 1, 1);
    if (status == GW_LUA_STOPPED)
        return false;
    const char *policy = status == 0 ? lua_tostring(L, -1) : NULL;
    bool unwanted = policy && strcmp(policy, "drain") == 0;
    lua_settop(L, 0);
    return unwanted;
}

bool gw_context_roll_back(struct gw_exchange *x)
{
    if (!x->script.unproven)
        return false;
    struct gw_fallback *fallback = take_fallback(x);
    struct gw_generation *from = x->generation;
    struct gw_handle *handle = fallback->script.handle;
    log_move(x, from, "stream rolled back to its old version", NULL);
    gw_context_drop(x);
    x->generation = gw_generation_return(fallback->generation);
    x->script = fallback->script;
    x->hook_flags = fallback->hook_flags;
    x->timeout_ms = fallback->timeout_ms;
    gw_clocks_set(x, &fallback->clocks);
    x->pinned = (uint32_t)x->gateway->current->number;
    if (handle)
        handle->x = x;
    free(fallback);
    gw_generation_unref(from);
    gw_relay_remode(x);
    gw_exchange_arm(x);
    gw_exchange_wake(x);
    return true;
}

void gw_context_end_probation(struct gw_timer *timer)
{
    struct gw_vm *vm = GW_CONTAINER(timer, struct gw_vm, probation);
    struct gw_list *all = &vm->generation->gateway->exchanges;
    for (struct gw_list *at = all->next; at != all; at = at->next) {
        struct gw_exchange *x = GW_CONTAINER(at, struct gw_exchange, node);
        if (x->generation == vm->generation && x->script.unproven)
            gw_context_prove(x);
    }
}

void gw_context_forget(struct gw_exchange *x, const struct gw_generation *generation)
{
    struct gw_handle *handle = x->script.handle;
    if (x->script.unproven && handle->fallback->generation == generation)
        gw_context_prove(x);
    if (x->generation == generation && !gw_context_roll_back(x))
        forget_script(x);
}
