/* Owns the pooled Lua threads of a VM, and the tasks that run beside hooks. Called by hooks.c, and
 * by all of the API that waits. Invariant: a task that waits has exactly one thing that will wake
 * it, and gw_task_discard cancels it; nothing is resumed but from a step or the ready list. */
#include "script/task.h"

#include <stdlib.h>
#include "base/check.h"
#include "gateway/exchange.h"
#include "script/api.h"
#include "script/hold.h"
#include "script/hooks.h"
#include "script/watchdog.h"

enum { IDLE_MAX = 256 }; /* threads kept for the next hooks; a storm may need many more */

static void run_own(struct gw_task_node *node);

static void schedule(struct gw_task *task)
{
    if (!task->own)
        gw_exchange_wake(task->x);
    else if (task->vm->env->loop)
        gw_loop_wake(task->vm->env->loop, &task->ready, run_own);
}

void gw_task_wait(struct gw_task *task, gw_task_cancel *cancel)
{
    GW_DEBUG_CHECK(task->state == GW_TASK_RUNNING);
    task->state = GW_TASK_WAITING;
    task->cancel = cancel;
}

void gw_task_wake(struct gw_task *task)
{
    GW_DEBUG_CHECK(task->state == GW_TASK_WAITING);
    task->state = GW_TASK_RUNNABLE;
    task->cancel = NULL;
    task->waits_for = NULL;
    schedule(task);
}

static void on_timer(struct gw_timer *timer)
{
    gw_task_wake(GW_CONTAINER(timer, struct gw_task, timer));
}

static void cancel_timer(struct gw_task *task)
{
    if (task->vm->env->loop)
        gw_timer_stop(task->vm->env->loop, &task->timer);
}

/* The thread's own global key finds its task from inside C functions called by Lua. */
static void bind_thread(lua_State *L, struct gw_task *task)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->ref);
    lua_pushlightuserdata(L, task);
    lua_settable(L, LUA_REGISTRYINDEX);
}

static void unbind_thread(struct gw_task *task)
{
    lua_State *L = task->vm->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->ref);
    lua_pushnil(L);
    lua_settable(L, LUA_REGISTRYINDEX);
}

/* Lua may have no memory for it, which is an error to whoever asks; then what there is of it is
 * used for the next one. */
static struct gw_task *task_new(lua_State *L, struct gw_vm *vm)
{
    struct gw_task *task = vm->half ? vm->half : calloc(1, sizeof *task);
    GW_CHECK(task != NULL);
    vm->half = task;
    gw_list_init(&task->node);
    gw_list_init(&task->queue);
    gw_timer_init(&task->timer, on_timer);
    task->vm = vm;
    task->co = lua_newthread(L);
    task->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    task->event_ref = LUA_NOREF;
    bind_thread(L, task);
    vm->half = NULL;
    vm->tasks++;
    return task;
}

static struct gw_task *take(lua_State *L, struct gw_vm *vm, struct gw_exchange *x)
{
    gw_vm_touch(vm);
    struct gw_list *node = gw_list_take(&vm->idle_tasks);
    struct gw_task *task = node ? GW_CONTAINER(node, struct gw_task, node) : task_new(L, vm);
    vm->idle_count -= node != NULL;
    task->state = GW_TASK_RUNNING;
    task->running = 0;
    task->x = x;
    return task;
}

struct gw_task *gw_task_take(struct gw_vm *vm, struct gw_exchange *x)
{
    GW_DEBUG_CHECK(lua_gettop(vm->L) == 0); /* what is left there would never go */
    return take(vm->L, vm, x);
}

int gw_task_resume(struct gw_task *task, int nargs)
{
    task->state = GW_TASK_RUNNING;
    task->vm->running = task->running;
    int status = gw_watch_resume(task->vm, task->co, nargs);
    if (status != LUA_YIELD)
        return status;
    task->running = task->vm->running;
    lua_settop(task->co, 0);
    if (task->state == GW_TASK_RUNNING)
        task->state = GW_TASK_RUNNABLE; /* a bare coroutine.yield: go on in the next turn */
    return status;
}

/* Before it is an idle one again, or freed. */
static void clear(struct gw_task *task)
{
    if (task->handle)
        task->handle->task = NULL;
    task->handle = NULL;
    gw_list_remove(&task->node);
    if (task->vm->env->loop)
        gw_loop_unwake(task->vm->env->loop, &task->ready);
    task->x = NULL;
    task->own = task->movable = task->unasked = false;
}

void gw_task_give(struct gw_task *task)
{
    struct gw_vm *vm = task->vm;
    lua_settop(task->co, 0);
    task->state = GW_TASK_IDLE;
    if (task->holds)
        gw_hold_release(task);
    if (task->own)
        clear(task);
    task->x = NULL;
    if (vm->idle_count == IDLE_MAX) {
        gw_task_discard(task);
        return;
    }
    vm->idle_count++;
    gw_list_push_front(&vm->idle_tasks, &task->node);
}

void gw_task_discard(struct gw_task *task)
{
    struct gw_vm *vm = task->vm;
    gw_task_cancel *cancel = task->cancel;
    task->cancel = NULL;
    if (cancel)
        cancel(task);
    gw_hold_release(task);
    clear(task);
    if (!vm->dead) {
        unbind_thread(task);
        luaL_unref(vm->L, LUA_REGISTRYINDEX, task->ref);
        luaL_unref(vm->L, LUA_REGISTRYINDEX, task->event_ref);
    }
    gw_event_batch_free(task);
    gw_watch_digest(vm);
    vm->tasks--;
    free(task);
}

void gw_task_drop_idle(struct gw_vm *vm)
{
    gw_task_drop_list(&vm->idle_tasks);
    vm->idle_count = 0;
}

void gw_task_drop_list(struct gw_list *tasks)
{
    while (!gw_list_empty(tasks))
        gw_task_discard(GW_CONTAINER(tasks->next, struct gw_task, node));
}

/* A version that this exchange could not move to while the task ran may be waiting. */
static void leave(struct gw_exchange *x)
{
    if (x && x->generation != x->gateway->current)
        gw_exchange_wake(x);
}

static void fail(struct gw_task *task)
{
    lua_State *L = task->vm->L;
    lua_xmove(task->co, L, 1); /* its own stack may be what is full */
    gw_api_log_task_error(L, task);
    lua_pop(L, 1);
    gw_task_discard(task);
}

/* ctx tells by `_slot` which plugin its exchange works for. A hook may be waiting, or count on the
 * slot from one event to the next: so whoever runs beside it puts back what he found. */
static int swap_slot(struct gw_task *task, int slot)
{
    lua_State *L = task->vm->L;
    if (!task->x)
        return 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->x->script.ctx_ref);
    lua_getfield(L, -1, "_slot");
    int before = (int)lua_tointeger(L, -1);
    lua_pushinteger(L, slot);
    lua_setfield(L, -3, "_slot");
    lua_pop(L, 2);
    return before;
}

int gw_task_run_own(struct gw_task *task, int nargs)
{
    int status = gw_task_resume(task, nargs);
    if (status == LUA_YIELD && task->state == GW_TASK_RUNNABLE)
        schedule(task);
    return status;
}

static void run_own(struct gw_task_node *node)
{
    struct gw_task *task = GW_CONTAINER(node, struct gw_task, ready);
    struct gw_exchange *x = task->x;
    int begins = lua_status(task->co) != LUA_YIELD;
    gw_vm_touch(task->vm);
    int slot = swap_slot(task, task->slot);
    int status = gw_task_run_own(task, lua_gettop(task->co) - begins);
    if (status == GW_LUA_STOPPED) {
        if (task->unasked) /* the next VM starts it again, and nothing else would slow that down */
            gw_generation_pause(task->vm->generation);
        gw_generation_died(task->vm->generation, x);
        return;
    }
    task->slot = swap_slot(task, slot);
    if (status == LUA_YIELD)
        return;
    if (status == 0)
        gw_task_give(task);
    else
        fail(task);
    leave(x);
}

struct gw_task *gw_task_new_own(lua_State *L, struct gw_vm *vm, struct gw_list *owner,
                                struct gw_exchange *x)
{
    const struct gw_task *parent = gw_task_current(L);
    struct gw_task *task = take(L, vm, x);
    task->own = true;
    task->unasked = parent ? parent->unasked : !vm->serves;
    gw_list_push(owner, &task->node);
    return task;
}

static void arm(struct gw_task *task, uint64_t after_ms)
{
    if (after_ms) {
        gw_timer_start(task->vm->env->loop, &task->timer, after_ms);
        return;
    }
    gw_task_wake(task);
}

void gw_task_start(struct gw_task *task, uint64_t after_ms)
{
    gw_task_wait(task, cancel_timer);
    if (task->vm->serves)
        arm(task, after_ms);
    else
        task->timer.due_ms = after_ms; /* there is no loop yet, or no time to count from */
}

void gw_task_serve(struct gw_vm *vm, uint64_t pause_ms)
{
    vm->serves = true;
    for (struct gw_list *at = vm->own_tasks.next; at != &vm->own_tasks; at = at->next) {
        struct gw_task *task = GW_CONTAINER(at, struct gw_task, node);
        arm(task, task->timer.due_ms + pause_ms);
    }
}

struct gw_task *gw_task_current(lua_State *L)
{
    lua_pushthread(L);
    lua_gettable(L, LUA_REGISTRYINDEX);
    struct gw_task *task = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return task;
}

static const char *why_not(lua_State *L, struct gw_task *task)
{
    /* Looked at before anything is armed: the error of a yield that fails may be caught. */
    if (task && !lua_isyieldable(L))
        return "a hook can't wait inside of a callback from C (table.sort, string.gsub)";
    if (task)
        return NULL;
    bool is_main = lua_pushthread(L);
    lua_pop(L, 1);
    return is_main
               ? "no hook runs here that could wait"
               : "a coroutine of the plugin's own can't wait; gateway.spawn starts one that can";
}

struct gw_task *gw_task_may_wait(lua_State *L, const char *what)
{
    struct gw_task *task = gw_task_current(L);
    const char *why = why_not(L, task);
    if (why)
        gw_api_raise(L, "%s: %s", what, why);
    return task;
}

uint64_t gw_task_check_ms(lua_State *L, int index, const char *what)
{
    double seconds = luaL_checknumber(L, index);
    if (!(seconds >= 0 && seconds < 1e9))
        gw_api_raise(L, "%s: not a time: %f", what, seconds);
    return (uint64_t)(seconds * 1000);
}

int gw_task_sleep(lua_State *L)
{
    struct gw_task *task = gw_task_may_wait(L, "sleep");
    uint64_t after_ms = gw_task_check_ms(L, 1, "sleep");
    gw_task_wait(task, cancel_timer);
    gw_timer_start(task->vm->env->loop, &task->timer, after_ms);
    return lua_yield(L, 0);
}
