/* A Lua thread from a pool: what every hook runs on, so that it can wait. A hook that does not wait
 * gives its thread back at once. */
#ifndef GW_SCRIPT_TASK_H
#define GW_SCRIPT_TASK_H

#include <lua.h>
#include "net/loop.h"
#include "script/vm.h"

struct gw_exchange;
struct gw_event_batch;
struct gw_event_ref;

/* What a waiting task waits for. */
enum gw_task_wait { GW_WAIT_TIMER, GW_WAIT_BODY };

enum gw_task_state { GW_TASK_IDLE, GW_TASK_RUNNING, GW_TASK_WAITING, GW_TASK_RUNNABLE };

struct gw_task {
    struct gw_list node; /* in the VM's idle list */
    enum gw_task_state state;
    enum gw_task_wait wait; /* while it waits */
    struct gw_vm *vm;
    lua_State *co;
    int ref;                    /* of co, in the registry */
    struct gw_exchange *x;      /* whose hook it runs */
    struct gw_timer timer;      /* gateway.sleep */
    struct gw_event_ref *event; /* the event that its hooks see; made on first use */
    int event_ref;
    struct gw_event_batch *batch; /* the same for a hook that sees many */
};

/* One with an empty stack, from the pool. */
struct gw_task *gw_task_take(struct gw_vm *vm, struct gw_exchange *x);
/* Runs or goes on; the function and its arguments (or the values that the wait gives) are on
 * task->co. 0: finished, its results are on task->co; LUA_YIELD: it waits; else an error, whose
 * value is on the top of task->co. */
int gw_task_resume(struct gw_task *task, int nargs);
/* Back to the pool after it finished. */
void gw_task_give(struct gw_task *task);
/* Not to be used again: it failed, or its exchange is over while it waits. */
void gw_task_discard(struct gw_task *task);
/* Frees the idle ones. */
void gw_task_drop_idle(struct gw_vm *vm);
/* The task whose hook runs on L; NULL at the top level of a file. */
struct gw_task *gw_task_current(lua_State *L);
/* The same, where a function is about to wait; a Lua error, which names it, where none can. */
struct gw_task *gw_task_may_wait(lua_State *L, const char *what);
/* Lua: core.sleep(seconds); yields. */
int gw_task_sleep(lua_State *L);

#endif
