/* Owns the Lua side of an exchange: its context, its handle, and the task a hook of it waits on.
 * Called by the steps through struct gw_hooks. Invariant: a hook runs by lua_resume on a pooled
 * thread, and only inside a step; whatever wakes it only marks it runnable. */
#include "script/hooks.h"

#include <stdlib.h>
#include "gateway/relay.h"
#include "gateway/reply.h"
#include "script/api.h"
#include "script/company.h"
#include "script/task.h"

enum { CLOSE_TURNS = 100 };

static struct gw_vm *vm_of(const struct gw_exchange *x)
{
    return x->generation->script;
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

/* Makes ctx and handle for a generation; the new context's reference is returned, 0 on an error. */
static int open_context(struct gw_exchange *x, struct gw_vm *vm, struct gw_handle **handle)
{
    lua_State *L = vm->L;
    int ref = 0;
    *handle = push_kept_handle(L, x, vm->entry[GW_ENTRY_OPEN]);
    if (lua_pcall(L, 1, 1, 0) == 0) {
        ref = luaL_ref(L, LUA_REGISTRYINDEX);
    } else {
        gw_api_log_error(L, L, x);
        (*handle)->x = NULL;
    }
    lua_settop(L, 0);
    return ref;
}

/* The function to call. While events follow each other it is the hook itself, where there is only
 * one. */
static int entry_of(struct gw_exchange *x, enum gw_entry entry)
{
    struct gw_vm *vm = vm_of(x);
    bool again = x->script.in_events;
    x->script.in_events = entry == GW_ENTRY_EVENT;
    if (again && x->script.in_events && x->script.event_hook)
        return vm->event_hooks[x->script.event_hook];
    return vm->entry[entry];
}

/* The task that goes on, or a fresh one with `entry` and the context on it. NULL: it still waits.
 */
static struct gw_task *prepare(struct gw_exchange *x, enum gw_entry entry, int *nargs)
{
    struct gw_vm *vm = vm_of(x);
    struct gw_task *task = x->script.task;
    if (task) {
        if (task->state == GW_TASK_WAITING)
            gw_api_offer_body(task);
        if (task->state == GW_TASK_WAITING)
            return NULL;
        *nargs = lua_gettop(task->co);
        return task;
    }
    task = gw_task_take(vm, x);
    lua_rawgeti(task->co, LUA_REGISTRYINDEX, entry_of(x, entry));
    lua_rawgeti(task->co, LUA_REGISTRYINDEX, x->script.ctx_ref);
    *nargs = 1;
    return task;
}

enum run { RUN_DONE, RUN_WAITS, RUN_FAILED };

/* Runs the task a stretch. RUN_DONE: its results are on task->co and the caller gives it back.
 * RUN_FAILED: the error is on the VM's stack, and the caller discards the task. */
static enum run run(struct gw_exchange *x, struct gw_task *task, int nargs)
{
    int status = gw_task_resume(task, nargs);
    if (status == 0) {
        x->script.task = NULL;
        return RUN_DONE;
    }
    if (status == LUA_YIELD) {
        x->script.task = task;
        if (task->state == GW_TASK_RUNNABLE)
            gw_exchange_wake(x);
        return RUN_WAITS;
    }
    x->script.task = NULL;
    /* Its own stack may be what is full. */
    lua_xmove(task->co, task->vm->L, 1);
    return RUN_FAILED;
}

static void log_failure(struct gw_exchange *x, struct gw_task *task)
{
    gw_api_log_error(task->vm->L, task->co, x);
    lua_pop(task->vm->L, 1);
    gw_task_discard(task);
}

/* Takes flags, timeout and event hook from three places of the stack. */
static void take_rule(struct gw_exchange *x, lua_State *co, int first)
{
    double seconds = lua_tonumber(co, first + 1);
    x->hook_flags = (unsigned)lua_tointeger(co, first);
    x->timeout_ms = seconds > 0 ? (uint64_t)(seconds * 1000) : 0;
    x->script.event_hook = (unsigned)lua_tointeger(co, first + 2) & INT32_MAX;
}

typedef enum gw_hook_result finish_fn(struct gw_exchange *x, lua_State *co);

static enum gw_hook_result run_hook(struct gw_exchange *x, enum gw_entry entry, finish_fn *finish)
{
    int nargs;
    struct gw_task *task = prepare(x, entry, &nargs);
    if (!task)
        return GW_HOOK_WAIT;
    switch (run(x, task, nargs)) {
    case RUN_WAITS:
        return GW_HOOK_WAIT;
    case RUN_FAILED:
        log_failure(x, task);
        return GW_HOOK_FAIL;
    case RUN_DONE:
        break;
    }
    enum gw_hook_result result = x->reply && x->reply->set ? GW_HOOK_REPLY : finish(x, task->co);
    gw_task_give(task);
    return result;
}

static enum gw_hook_result finish_plain(struct gw_exchange *x, lua_State *co)
{
    (void)x;
    (void)co;
    return GW_HOOK_NEXT;
}

static enum gw_hook_result finish_route(struct gw_exchange *x, lua_State *co)
{
    take_rule(x, co, 1);
    return GW_HOOK_NEXT;
}

static enum gw_hook_result finish_balance(struct gw_exchange *x, lua_State *co)
{
    if (lua_isnil(co, 1) && x->tried_count)
        return GW_HOOK_NEXT; /* none is left that was not tried: the step sees the old one again */
    lua_Integer index = lua_tointeger(co, 1);
    if (index >= 1 && (unsigned)index <= x->generation->instance_count) {
        gw_exchange_use(x, x->generation->instances[index - 1]);
        return GW_HOOK_NEXT;
    }
    gw_log(GW_LOG_ERROR, "balance: the program named no instance");
    return GW_HOOK_FAIL;
}

static enum gw_hook_result hook_route(struct gw_exchange *x)
{
    if (!x->script.handle) {
        struct gw_handle *handle;
        x->script.ctx_ref = open_context(x, vm_of(x), &handle);
        if (!x->script.ctx_ref)
            return GW_HOOK_FAIL;
        x->script.handle = handle;
        /* Plugins of every route close what gets no rule, too, and see the error of a route hook.
         */
        x->hook_flags = GW_HAS_CLOSE | GW_HAS_RESPONSE;
    }
    return run_hook(x, GW_ENTRY_ROUTE, finish_route);
}

static enum gw_hook_result hook_access(struct gw_exchange *x)
{
    return run_hook(x, GW_ENTRY_ACCESS, finish_plain);
}

static enum gw_hook_result hook_balance(struct gw_exchange *x)
{
    return run_hook(x, GW_ENTRY_BALANCE, finish_balance);
}

static enum gw_hook_result hook_response(struct gw_exchange *x)
{
    return run_hook(x, GW_ENTRY_RESPONSE, finish_plain);
}

/* What a hook gave in the place of the event: event objects and whole serialised events. */
static void emit_list(lua_State *co, struct gw_buf *out)
{
    for (int i = 1; i <= (int)lua_objlen(co, 1); i++) {
        lua_rawgeti(co, 1, i);
        struct gw_event_ref *ref = gw_event_ref_at(co, -1);
        if (ref)
            gw_event_write(&ref->event, out);
        else if (lua_type(co, -1) == LUA_TSTRING)
            gw_buf_add(out, gw_lua_slice(co, -1));
        lua_pop(co, 1);
    }
}

/* The hooks let the event pass, as they left it. */
static enum gw_event_verdict pass(struct gw_event_ref *ref, struct gw_buf *out)
{
    if (!ref->event.changed)
        return GW_EVENT_PASS;
    gw_event_write(&ref->event, out);
    return GW_EVENT_CHANGED;
}

static enum gw_event_verdict read_verdict(struct gw_task *task, struct gw_buf *out)
{
    lua_State *co = task->co;
    switch (lua_type(co, 1)) {
    case LUA_TNONE:
    case LUA_TNIL:
        return pass(task->event, out);
    case LUA_TTABLE:
        emit_list(co, out);
        return lua_toboolean(co, 2) ? GW_EVENT_END : GW_EVENT_DROP;
    default:
        return GW_EVENT_DROP;
    }
}

/* Lets the program say who raised the error on the VM's stack, and whether the exchange goes on
 * without it. */
static enum gw_event_verdict event_failed(struct gw_exchange *x, struct gw_task *task,
                                          struct gw_buf *out)
{
    struct gw_vm *vm = task->vm;
    lua_State *L = vm->L;
    enum gw_event_verdict verdict = GW_EVENT_FAIL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->entry[GW_ENTRY_EVENT_FAILED]);
    lua_insert(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, x->script.ctx_ref);
    lua_insert(L, 2);
    luaL_traceback(L, task->co, NULL, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->event_ref);
    if (lua_pcall(L, 4, 1, 0) == 0 && lua_isnil(L, 1))
        verdict = pass(task->event, out);
    gw_event_ref_end(task);
    if (verdict == GW_EVENT_FAIL) {
        log_failure(x, task);
        return verdict;
    }
    lua_pop(L, 1);
    gw_task_discard(task);
    return verdict;
}

static enum gw_event_verdict hook_event(struct gw_exchange *x, struct gw_slice raw,
                                        struct gw_buf *out)
{
    int nargs;
    struct gw_task *task = prepare(x, GW_ENTRY_EVENT, &nargs);
    if (!task)
        return GW_EVENT_PENDING;
    if (nargs) {
        gw_event_ref_begin(task, raw);
        nargs = 2;
    }
    enum run how = run(x, task, nargs);
    if (!gw_buf_empty(&x->relay.inserts))
        gw_relay_take_inserts(x, out); /* before its own event */
    switch (how) {
    case RUN_WAITS:
        return GW_EVENT_PENDING;
    case RUN_FAILED:
        return event_failed(x, task, out);
    case RUN_DONE:
        break;
    }
    enum gw_event_verdict verdict = read_verdict(task, out);
    gw_event_ref_end(task);
    gw_task_give(task);
    return verdict;
}

static void hook_cancel(struct gw_exchange *x)
{
    struct gw_task *task = x->script.task;
    x->script.task = NULL;
    if (!task)
        return;
    if (task->event)
        gw_event_ref_end(task);
    gw_task_discard(task);
}

/* Nothing is there to come back to: what would wait raises (gw_task_may_wait), and a bare
 * coroutine.yield goes on here. */
static void hook_close(struct gw_exchange *x, const char *reason)
{
    int nargs;
    hook_cancel(x);
    struct gw_task *task = prepare(x, GW_ENTRY_CLOSE, &nargs);
    lua_pushstring(task->co, reason);
    enum run how = run(x, task, nargs + 1);
    for (int turns = 0; how == RUN_WAITS && turns < CLOSE_TURNS; turns++)
        how = run(x, task, 0);
    switch (how) {
    case RUN_DONE:
        gw_task_give(task);
        break;
    case RUN_WAITS:
        gw_log(GW_LOG_WARN, "x=%s: an on_close hook yields and yields; it is cancelled", x->id);
        break;
    case RUN_FAILED:
        log_failure(x, task);
        break;
    }
}

static void drop_context(struct gw_exchange *x)
{
    struct gw_handle *handle = x->script.handle;
    if (handle) {
        gw_company_end(handle);
        handle->x = NULL;
    }
    if (x->script.ctx_ref)
        luaL_unref(vm_of(x)->L, LUA_REGISTRYINDEX, x->script.ctx_ref);
    x->script.handle = NULL;
    x->script.ctx_ref = 0;
    x->script.in_events = false;
}

static void hook_release(struct gw_exchange *x)
{
    hook_cancel(x);
    drop_context(x);
}

static bool hook_waiting(const struct gw_exchange *x)
{
    return x->script.task != NULL;
}

static bool hook_tied(const struct gw_exchange *x)
{
    return x->script.handle && gw_company_tied(x->script.handle);
}

static void hook_room(struct gw_exchange *x)
{
    if (x->script.handle)
        gw_company_room(x->script.handle);
}

static void hook_serve(struct gw_generation *generation)
{
    gw_task_serve(generation->script);
}

static void log_pinned(const struct gw_exchange *x, const struct gw_generation *to, const char *why)
{
    struct gw_log_line line;
    gw_log_begin(&line, GW_LOG_WARN, "stream stays under its old version");
    gw_log_cstr(&line, "x", x->id);
    gw_log_cstr(&line, "rule", x->rule);
    gw_log_int(&line, "generation", (int64_t)to->number);
    gw_log_cstr(&line, "why", why ? why : "?");
    gw_log_end(&line);
}

/* Calls save; on the top of the stack is then the text, or why there is none. */
static bool save_context(struct gw_exchange *x)
{
    lua_State *L = vm_of(x)->L;
    if (!x->script.handle) {
        if (x->script.ctx_ref)
            lua_rawgeti(L, LUA_REGISTRYINDEX, x->script.ctx_ref);
        else
            lua_pushliteral(L, "");
        return true;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm_of(x)->entry[GW_ENTRY_SAVE]);
    lua_rawgeti(L, LUA_REGISTRYINDEX, x->script.ctx_ref);
    bool good = lua_pcall(L, 1, 2, 0) == 0 && lua_isstring(L, -2);
    if (good)
        lua_pop(L, 1);
    return good;
}

/* A context takes more than all the rest of an idle stream. */
static void hook_settle(struct gw_exchange *x)
{
    lua_State *L = vm_of(x)->L;
    struct gw_handle *handle = x->script.handle;
    if (x->hook_flags & (GW_HAS_EVENT | GW_HAS_CLOSE) || !handle || gw_company_busy(handle))
        return;
    if (save_context(x)) {
        drop_context(x);
        if (lua_objlen(L, -1))
            x->script.ctx_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_settop(L, 0);
}

/* Calls adopt in the new VM: handle, ctx, flags, timeout, event hook are on its stack afterwards.
 */
static bool adopt_context(struct gw_exchange *x, struct gw_generation *to, struct gw_slice saved,
                          struct gw_handle **handle)
{
    struct gw_vm *vm = to->script;
    lua_State *L = vm->L;
    *handle = push_kept_handle(L, x, vm->entry[GW_ENTRY_ADOPT]);
    lua_pushlstring(L, saved.ptr, saved.len);
    lua_pushstring(L, x->rule);
    lua_pushstring(L, x->instance ? x->instance->service : NULL);
    lua_pushstring(L, x->instance ? x->instance->id : NULL);
    if (lua_pcall(L, 5, 4, 0) == 0 && lua_istable(L, 2))
        return true;
    gw_company_end(*handle);
    (*handle)->x = NULL;
    log_pinned(x, to, lua_tostring(L, lua_gettop(L) > 2 ? 3 : 2));
    lua_settop(L, 0);
    return false;
}

static bool hook_adopt(struct gw_exchange *x, struct gw_generation *to)
{
    struct gw_handle *handle;
    lua_State *from = vm_of(x)->L, *L = ((struct gw_vm *)to->script)->L;
    if (!save_context(x)) {
        log_pinned(x, to, lua_tostring(from, -1));
        lua_settop(from, 0);
        return false;
    }
    struct gw_slice saved = gw_lua_slice(from, -1);
    bool good = adopt_context(x, to, saved, &handle);
    lua_pop(from, 1);
    if (!good)
        return false;
    drop_context(x);
    take_rule(x, L, 3);
    lua_settop(L, 2);
    x->script.ctx_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    x->script.handle = handle;
    lua_settop(L, 0);
    return true;
}

const struct gw_hooks gw_lua_hooks = {
    .route = hook_route,
    .access = hook_access,
    .balance = hook_balance,
    .response = hook_response,
    .event = hook_event,
    .close = hook_close,
    .settle = hook_settle,
    .adopt = hook_adopt,
    .tied = hook_tied,
    .room = hook_room,
    .serve = hook_serve,
    .waiting = hook_waiting,
    .cancel = hook_cancel,
    .release = hook_release,
};
