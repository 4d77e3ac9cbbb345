/* Owns the Lua side of an exchange: its context, its handle, and the task a hook of it waits on.
 * Called by the steps through struct gw_hooks. Invariant: a hook runs by lua_resume on a pooled
 * thread, and only inside a step; whatever wakes it only marks it runnable. */
#include "script/hooks.h"

#include <stdlib.h>
#include "gateway/relay.h"
#include "gateway/reply.h"
#include "gateway/retry.h"
#include "gateway/tunnel.h"
#include "script/api.h"
#include "script/company.h"
#include "script/context.h"
#include "script/task.h"
#include "script/watchdog.h"

enum { CLOSE_MAX = 127 }; /* as many as struct gw_script_part can count */

static struct gw_vm *vm_of(const struct gw_exchange *x)
{
    return x->generation->script;
}

/* The function to call. While events follow each other it is the hook itself, where there is only
 * one. */
static int entry_of(struct gw_exchange *x, enum gw_entry entry, struct gw_task *task)
{
    struct gw_vm *vm = vm_of(x);
    bool again = x->script.in_events;
    x->script.in_events = entry == GW_ENTRY_EVENT;
    if (!again || !x->script.in_events || !x->script.event_hook)
        return vm->entry[entry];
    task->running = vm->event_numbers[x->script.event_hook];
    return vm->event_hooks[x->script.event_hook];
}

/* Its VM has died, and the next one is not there yet. */
static bool is_stranded(struct gw_exchange *x)
{
    x->script.stranded = vm_of(x)->dead;
    if (x->script.stranded)
        gw_generation_revive(x->generation);
    return x->script.stranded;
}

/* The task that goes on, or a fresh one with `entry` and the context on it. NULL: it still waits,
 * or (see waits) it can't go on. */
static struct gw_task *prepare(struct gw_exchange *x, enum gw_entry entry, int *nargs)
{
    struct gw_vm *vm = vm_of(x);
    struct gw_task *task = x->script.task;
    if (is_stranded(x))
        return NULL;
    if (!x->script.handle && !gw_context_revive(x)) {
        x->hook_flags = 0; /* nor can any other hook */
        return NULL;
    }
    if (task) {
        if (task->state == GW_TASK_WAITING)
            gw_api_offer_body(task);
        if (task->state == GW_TASK_WAITING)
            return NULL;
        *nargs = lua_gettop(task->co);
        return task;
    }
    task = gw_task_take(vm, x);
    lua_rawgeti(task->co, LUA_REGISTRYINDEX, entry_of(x, entry, task));
    lua_rawgeti(task->co, LUA_REGISTRYINDEX, x->script.ctx_ref);
    *nargs = 1;
    return task;
}

/* Why there is no task: true = it waits, false = a new VM can't take the exchange up. */
static bool waits(const struct gw_exchange *x)
{
    return x->script.task || x->script.stranded;
}

enum run { RUN_DONE, RUN_WAITS, RUN_FAILED, RUN_STOPPED };

/* Runs the task a stretch. RUN_DONE: its results are on task->co and the caller gives it back.
 * RUN_FAILED: the error is on the VM's stack, and the caller discards the task. RUN_STOPPED:
 * nothing is left of it. */
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
    if (status == GW_LUA_STOPPED) {
        x->script.task = task; /* to be forgotten with all the others */
        gw_generation_died(x->generation, x);
        return RUN_STOPPED;
    }
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

typedef enum gw_hook_result finish_fn(struct gw_exchange *x, lua_State *co);

static enum gw_hook_result run_hook(struct gw_exchange *x, enum gw_entry entry, finish_fn *finish)
{
    int nargs;
    struct gw_task *task = prepare(x, entry, &nargs);
    if (!task)
        return waits(x) ? GW_HOOK_WAIT : GW_HOOK_FAIL;
    switch (run(x, task, nargs)) {
    case RUN_WAITS:
        return GW_HOOK_WAIT;
    case RUN_FAILED:
        log_failure(x, task);
        return GW_HOOK_FAIL;
    case RUN_STOPPED:
        if (entry == GW_ENTRY_RESPONSE) /* which would be stopped again, and again */
            x->hook_flags &= ~(unsigned)GW_HAS_RESPONSE;
        return GW_HOOK_FAIL;
    case RUN_DONE:
        break;
    }
    const struct gw_reply *reply = x->way ? x->way->reply : NULL;
    enum gw_hook_result result = reply && reply->set ? GW_HOOK_REPLY : finish(x, task->co);
    gw_task_give(task);
    return result;
}

static enum gw_hook_result finish_plain(struct gw_exchange *x, lua_State *co)
{
    (void)x;
    (void)co;
    return GW_HOOK_NEXT;
}

/* Where the rule says nothing, what holds for all of them does. */
static void permit_tunnel(struct gw_exchange *x, lua_State *co)
{
    const struct gw_settings *s = &x->generation->settings;
    bool own = lua_type(co, 5) == LUA_TSTRING, own_idle = lua_type(co, 6) == LUA_TNUMBER;
    double idle_ms = own_idle ? lua_tonumber(co, 6) * 1000 : (double)s->tunnel_idle_ms;
    gw_tunnel_permit(x, own ? gw_lua_slice(co, 5) : gw_slice_str(s->upgrades), idle_ms);
}

static enum gw_hook_result finish_route(struct gw_exchange *x, lua_State *co)
{
    gw_context_take_rule(x, co, 1);
    if (lua_type(co, 4) == LUA_TSTRING)
        gw_retry_set(x, gw_lua_slice(co, 4));
    if (x->way->request->upgrade)
        permit_tunnel(x, co);
    return GW_HOOK_NEXT;
}

/* At this place, of this service and id: where there are host names, the place may have been given
 * away while a hook waited. */
static struct gw_instance *find_instance(const struct gw_exchange *x, lua_State *co)
{
    struct gw_instance *instance = gw_api_instance(vm_of(x), lua_tointeger(co, 1));
    if (!instance || !x->generation->names)
        return instance;
    bool same = gw_slice_eq(gw_slice_str(instance->service), gw_lua_slice(co, 2)) &&
                gw_slice_eq(gw_slice_str(instance->id), gw_lua_slice(co, 3));
    return same ? instance : NULL;
}

static enum gw_hook_result finish_balance(struct gw_exchange *x, lua_State *co)
{
    if (lua_isnil(co, 1) && x->way->tried_count)
        return GW_HOOK_NEXT; /* none is left that was not tried: the step sees the old one again */
    struct gw_instance *instance = find_instance(x, co);
    if (instance) {
        gw_exchange_use(x, instance);
        return GW_HOOK_NEXT;
    }
    gw_log(GW_LOG_ERROR, "balance: the program named no instance, or one that is gone");
    return GW_HOOK_FAIL;
}

static enum gw_hook_result hook_route(struct gw_exchange *x)
{
    if (!x->script.handle && !is_stranded(x)) {
        if (!gw_context_open(x))
            return GW_HOOK_FAIL;
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

/* What a hook gave in the place of the event: event objects and whole serialised events. False: it
 * is more than the VM itself might hold; one event may stand in a list any number of times. */
static bool emit_list(struct gw_task *task, struct gw_buf *out)
{
    lua_State *co = task->co;
    size_t limit = task->vm->max_memory;
    struct gw_buf list;
    gw_buf_init(&list);
    for (int i = 1; i <= (int)lua_objlen(co, 1); i++) {
        if (limit && gw_buf_len(&list) > limit) {
            gw_buf_clear(&list);
            return false;
        }
        lua_rawgeti(co, 1, i);
        struct gw_event_ref *ref = gw_event_ref_at(co, -1);
        if (ref)
            gw_event_write(&ref->event, &list);
        else if (lua_type(co, -1) == LUA_TSTRING)
            gw_buf_add(&list, gw_lua_slice(co, -1));
        lua_pop(co, 1);
    }
    gw_buf_move(out, &list);
    return true;
}

/* The hooks let the event pass, as they left it. */
static enum gw_event_verdict pass(struct gw_task *task, struct gw_buf *out)
{
    if (task->batch && gw_event_batch_count(task))
        return gw_event_batch_write(task, out) ? GW_EVENT_CHANGED : GW_EVENT_PASS;
    if (!task->event->event.changed)
        return GW_EVENT_PASS;
    gw_event_write(&task->event->event, out);
    return GW_EVENT_CHANGED;
}

/* One of those that are missing is counted by who gets the verdict. */
static enum gw_event_verdict drop(struct gw_task *task, unsigned left)
{
    unsigned count = gw_event_batch_count(task);
    if (count > left + 1)
        gw_stat_add(task->x->gateway->count, GW_STAT_EVENTS_DROPPED, count - left - 1);
    return count && left >= count ? GW_EVENT_CHANGED : GW_EVENT_DROP;
}

static enum gw_event_verdict too_many(struct gw_task *task)
{
    lua_State *L = task->vm->L;
    lua_pushliteral(L, "on_event: the events that it returned take more than lua.maxMemory");
    gw_api_log_error(L, task->co, task->x);
    lua_pop(L, 1);
    return GW_EVENT_FAIL;
}

static enum gw_event_verdict read_verdict(struct gw_task *task, struct gw_buf *out)
{
    lua_State *co = task->co;
    switch (lua_type(co, 1)) {
    case LUA_TNONE:
    case LUA_TNIL:
        return pass(task, out);
    case LUA_TTABLE:
        if (!emit_list(task, out))
            return too_many(task);
        return lua_toboolean(co, 2) ? GW_EVENT_END : drop(task, (unsigned)lua_objlen(co, 1));
    default:
        return drop(task, 0);
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
    x->script.task = task; /* to be forgotten with all the others, should the VM die of this */
    int status = gw_context_call(x, x->generation, 4, 1);
    if (status == GW_LUA_STOPPED)
        return GW_EVENT_FAIL;
    x->script.task = NULL;
    if (status == 0 && lua_isnil(L, 1))
        verdict = pass(task, out);
    gw_event_ref_end(task);
    if (verdict == GW_EVENT_FAIL) {
        log_failure(x, task);
        return verdict;
    }
    lua_pop(L, 1);
    gw_task_discard(task);
    return verdict;
}

/* Runs event hooks on what lies on the task, and reads what they want. */
static inline enum gw_event_verdict run_events(struct gw_exchange *x, struct gw_task *task,
                                               int nargs, struct gw_buf *out)
{
    enum run how = run(x, task, nargs);
    if (!gw_buf_empty(&x->relay.inserts))
        gw_relay_take_inserts(x, out); /* before its own event */
    switch (how) {
    case RUN_WAITS:
        return GW_EVENT_PENDING;
    case RUN_FAILED:
        return event_failed(x, task, out);
    case RUN_STOPPED:
        return GW_EVENT_FAIL;
    case RUN_DONE:
        break;
    }
    enum gw_event_verdict verdict = read_verdict(task, out);
    gw_event_ref_end(task);
    gw_task_give(task);
    return verdict;
}

/* The first event under another version decides whether the stream stays with it. */
static enum gw_event_verdict judge(struct gw_exchange *x, enum gw_event_verdict verdict)
{
    if (verdict == GW_EVENT_PENDING)
        return verdict;
    if (verdict != GW_EVENT_FAIL)
        gw_context_prove(x);
    else if (!x->script.unproven || gw_context_roll_back(x))
        return GW_EVENT_PENDING; /* the old version is asked about it */
    return verdict;
}

static enum gw_event_verdict hook_event(struct gw_exchange *x, struct gw_slice raw,
                                        struct gw_buf *out)
{
    int nargs;
    bool unproven = x->script.unproven;
    bool comment = x->hook_flags & GW_HAS_COMMENTS && !gw_event_has_fields(raw);
    struct gw_task *task = prepare(x, comment ? GW_ENTRY_COMMENT : GW_ENTRY_EVENT, &nargs);
    if (!task)
        return waits(x) ? GW_EVENT_PENDING : GW_EVENT_FAIL;
    if (nargs && !x->script.task) {
        gw_event_ref_begin(task, raw);
        nargs = 2;
    }
    enum gw_event_verdict verdict = run_events(x, task, nargs, out);
    return unproven ? judge(x, verdict) : verdict;
}

static enum gw_event_verdict hook_events(struct gw_exchange *x, const struct gw_slice *raws,
                                         unsigned n, struct gw_buf *out)
{
    int nargs;
    bool unproven = x->script.unproven;
    struct gw_task *task = prepare(x, GW_ENTRY_EVENTS, &nargs);
    if (!task)
        return waits(x) ? GW_EVENT_PENDING : GW_EVENT_FAIL;
    gw_event_batch_begin(task, raws, n);
    enum gw_event_verdict verdict = run_events(x, task, 2, out);
    return unproven ? judge(x, verdict) : verdict;
}

static void hook_cancel(struct gw_exchange *x)
{
    struct gw_task *task = x->script.task;
    x->script.task = NULL;
    x->script.stranded = false;
    if (!task)
        return;
    gw_event_ref_end(task);
    gw_task_discard(task);
}

enum closing { CLOSE_MORE, CLOSE_DONE, CLOSE_STOPPED };

/* The next of them. */
static enum closing run_close(struct gw_exchange *x, const char *reason)
{
    struct gw_vm *vm = vm_of(x);
    struct gw_task *task = gw_task_new_own(vm->L, vm, &vm->own_tasks, NULL);
    lua_rawgeti(task->co, LUA_REGISTRYINDEX, vm->entry[GW_ENTRY_CLOSE]);
    lua_rawgeti(task->co, LUA_REGISTRYINDEX, x->script.ctx_ref);
    lua_pushstring(task->co, reason);
    lua_pushinteger(task->co, ++x->script.closed);
    int status = gw_task_run_own(task, 3);
    if (status == LUA_YIELD)
        return CLOSE_MORE;
    if (status == GW_LUA_STOPPED) {
        gw_generation_died(x->generation, x);
        return CLOSE_STOPPED;
    }
    if (status == 0) {
        bool more = lua_toboolean(task->co, 1);
        gw_task_give(task);
        return more ? CLOSE_MORE : CLOSE_DONE;
    }
    lua_xmove(task->co, vm->L, 1);
    log_failure(x, task);
    return CLOSE_MORE;
}

/* Its VM is there, or will be, which waits tells. */
static bool may_close(struct gw_exchange *x)
{
    char id[GW_ID_TEXT];
    if (!is_stranded(x) && (x->script.handle || gw_context_revive(x)))
        return true;
    if (x->script.stranded && vm_of(x)->reviving && vm_of(x)->env->aside)
        return true;
    gw_log(GW_LOG_WARN, "x=%s: on_close is not called: there is no VM for it",
           gw_exchange_id(x, id));
    return false;
}

/* They are tasks of the VM's own, for they may outlive the exchange: what waits there goes on
 * without it. Those behind one that takes its VM along run in the next VM. */
static bool hook_close(struct gw_exchange *x, const char *reason)
{
    enum closing next = CLOSE_MORE;
    hook_cancel(x);
    while (next != CLOSE_DONE && x->script.closed < CLOSE_MAX && may_close(x)) {
        if (x->script.stranded)
            return false;
        next = run_close(x, reason);
    }
    return true;
}

static void hook_release(struct gw_exchange *x)
{
    hook_cancel(x);
    gw_context_drop(x);
}

void gw_hooks_forget(struct gw_exchange *x, const struct gw_generation *generation)
{
    bool waited = x->script.task != NULL && x->generation == generation;
    if (waited)
        hook_cancel(x);
    gw_context_forget(x, generation);
    if (waited)
        gw_exchange_wake(x); /* to ask its hook anew */
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
    gw_task_serve(generation->script, 0);
}

const struct gw_hooks gw_lua_hooks = {
    .route = hook_route,
    .access = hook_access,
    .balance = hook_balance,
    .response = hook_response,
    .event = hook_event,
    .events = hook_events,
    .close = hook_close,
    .settle = gw_context_settle,
    .adopt = gw_context_adopt,
    .unwanted = gw_context_unwanted,
    .tied = hook_tied,
    .room = hook_room,
    .serve = hook_serve,
    .resolved = gw_generation_resolved,
    .waiting = waits,
    .cancel = hook_cancel,
    .release = hook_release,
};
