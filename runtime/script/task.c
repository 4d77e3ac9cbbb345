/* Owns the pooled Lua threads of a VM. Called by hooks.c. Invariant: a task that waits has exactly
 * one thing that will wake it, and gw_task_discard cancels it. */
#include "script/task.h"

#include <stdlib.h>
#include "base/check.h"
#include "gateway/exchange.h"
#include "script/api.h"

enum { IDLE_MAX = 256 }; /* threads kept for the next hooks; a storm may need many more */

static void wake(struct gw_timer *timer)
{
    struct gw_task *task = GW_CONTAINER(timer, struct gw_task, timer);
    task->state = GW_TASK_RUNNABLE;
    gw_exchange_wake(task->x);
}

/* The thread's own global key finds its task from inside C functions called by Lua. */
static void bind_thread(struct gw_task *task)
{
    lua_State *L = task->vm->L;
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

static struct gw_task *task_new(struct gw_vm *vm)
{
    struct gw_task *task = calloc(1, sizeof *task);
    GW_CHECK(task != NULL);
    gw_list_init(&task->node);
    gw_timer_init(&task->timer, wake);
    task->vm = vm;
    task->co = lua_newthread(vm->L);
    task->ref = luaL_ref(vm->L, LUA_REGISTRYINDEX);
    task->event_ref = LUA_NOREF;
    bind_thread(task);
    vm->tasks++;
    return task;
}

struct gw_task *gw_task_take(struct gw_vm *vm, struct gw_exchange *x)
{
    GW_DEBUG_CHECK(lua_gettop(vm->L) == 0); /* what is left there would never go */
    gw_vm_touch(vm);
    struct gw_list *node = gw_list_take(&vm->idle_tasks);
    struct gw_task *task = node ? GW_CONTAINER(node, struct gw_task, node) : task_new(vm);
    vm->idle_count -= node != NULL;
    task->state = GW_TASK_RUNNING;
    task->x = x;
    return task;
}

int gw_task_resume(struct gw_task *task, int nargs)
{
    task->state = GW_TASK_RUNNING;
    int status = lua_resume(task->co, nargs);
    if (status == LUA_YIELD && task->state == GW_TASK_RUNNING)
        task->state = GW_TASK_RUNNABLE; /* a bare coroutine.yield: go on in the next turn */
    return status;
}

void gw_task_give(struct gw_task *task)
{
    struct gw_vm *vm = task->vm;
    lua_settop(task->co, 0);
    task->state = GW_TASK_IDLE;
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
    if (vm->env->loop)
        gw_timer_stop(vm->env->loop, &task->timer);
    gw_list_remove(&task->node);
    unbind_thread(task);
    luaL_unref(vm->L, LUA_REGISTRYINDEX, task->ref);
    luaL_unref(vm->L, LUA_REGISTRYINDEX, task->event_ref);
    gw_event_batch_free(task);
    vm->tasks--;
    free(task);
}

void gw_task_drop_idle(struct gw_vm *vm)
{
    while (!gw_list_empty(&vm->idle_tasks))
        gw_task_discard(GW_CONTAINER(vm->idle_tasks.next, struct gw_task, node));
    vm->idle_count = 0;
}

struct gw_task *gw_task_current(lua_State *L)
{
    lua_pushthread(L);
    lua_gettable(L, LUA_REGISTRYINDEX);
    struct gw_task *task = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return task;
}

struct gw_task *gw_task_may_wait(lua_State *L, const char *what)
{
    struct gw_task *task = gw_task_current(L);
    if (!task)
        luaL_error(L, "%s: no hook runs here that could wait", what);
    /* Looked at before anything is armed: the error of a yield that fails may be caught. */
    if (!lua_isyieldable(L))
        luaL_error(L, "%s: a hook can't wait inside of a callback from C (table.sort, string.gsub)",
                   what);
    return task;
}

int gw_task_sleep(lua_State *L)
{
    struct gw_task *task = gw_task_may_wait(L, "sleep");
    double seconds = luaL_checknumber(L, 1);
    if (!(seconds >= 0 && seconds < 1e9))
        return luaL_error(L, "sleep: not a time: %f", seconds);
    task->state = GW_TASK_WAITING;
    task->wait = GW_WAIT_TIMER;
    gw_timer_start(task->vm->env->loop, &task->timer, (uint64_t)(seconds * 1000));
    return lua_yield(L, 0);
}
