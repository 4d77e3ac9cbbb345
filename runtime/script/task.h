/* A Lua thread from a pool: what every hook runs on, so that it can wait. A hook that does not wait
 * gives its thread back at once. A task of its own is no hook: it was started from Lua, runs from
 * the loop's ready list, and belongs to its VM or to an exchange.
 *
 * To wait, a C function of the API calls gw_task_may_wait, arms what will wake it, calls
 * gw_task_wait and returns lua_yield(L, 0). The waker pushes on task->co what the call returns in
 * Lua (or nothing) and calls gw_task_wake. */
#ifndef GW_SCRIPT_TASK_H
#define GW_SCRIPT_TASK_H

#include <lua.h>
#include "net/loop.h"
#include "script/vm.h"

struct gw_event_batch;
struct gw_event_ref;
struct gw_exchange;
struct gw_hold;
struct gw_task;

typedef void gw_task_cancel(struct gw_task *task);

enum gw_task_state { GW_TASK_IDLE, GW_TASK_RUNNING, GW_TASK_WAITING, GW_TASK_RUNNABLE };

/* What Lua holds of a task of its own; task is NULL when that has ended. */
struct gw_task_handle {
    struct gw_task *task;
};

struct gw_task {
    struct gw_list node; /* in the VM's idle list; of one of its own: in its owner's */
    enum gw_task_state state;
    bool own;     /* no exchange's hook */
    bool unasked; /* it, or the task that started it, was started while its VM was loaded */
    bool movable; /* its plugin starts it anew when the exchange moves to another version */
    struct gw_vm *vm;
    lua_State *co;
    int ref;                       /* of co, in the registry */
    int32_t running;               /* which hook it was at when it stopped: vm->running */
    int slot;                      /* ctx._slot while one of an exchange's own runs */
    struct gw_exchange *x;         /* whose hook it runs, or to which it belongs; may be NULL */
    gw_task_cancel *cancel;        /* while it waits */
    void *waits_for;               /* the waiter's own, while it waits */
    struct gw_list queue;          /* the waiter's own: a place in a list of those that wait */
    struct gw_timer timer;         /* gateway.sleep, and the delay of a task of its own */
    struct gw_hold *holds;         /* what others wait for it to leave, see hold.h */
    struct gw_task_node ready;     /* a task of its own runs from here */
    struct gw_task_handle *handle; /* of one of its own, if Lua still has it */
    struct gw_event_ref *event;    /* the event that its hooks see; made on first use */
    int event_ref;
    struct gw_event_batch *batch; /* the same for a hook that sees many */
};

/* One with an empty stack, from the pool. */
struct gw_task *gw_task_take(struct gw_vm *vm, struct gw_exchange *x);
/* Runs or goes on; the function and its arguments (or the values that the wait gives) are on
 * task->co. 0: finished, its results are on task->co; LUA_YIELD: it waits, and its stack is empty;
 * GW_LUA_STOPPED: its VM is dead; else an error, whose value is on the top of task->co. */
int gw_task_resume(struct gw_task *task, int nargs);
/* Back to the pool after it finished. */
void gw_task_give(struct gw_task *task);
/* Not to be used again: it failed, or its owner is over while it waits, which is cancelled. */
void gw_task_discard(struct gw_task *task);
/* Frees the idle ones. */
void gw_task_drop_idle(struct gw_vm *vm);
/* Cancels all tasks of their own in an owner's list. */
void gw_task_drop_list(struct gw_list *tasks);

/* The task whose hook runs on L; NULL at the top level of a file, and in a plugin's own coroutine.
 */
struct gw_task *gw_task_current(lua_State *L);
/* The same, where a function is about to wait; a Lua error, which names it, where none can. */
struct gw_task *gw_task_may_wait(lua_State *L, const char *what);
/* The running task waits: the C function that calls this returns lua_yield(L, 0) next. cancel is
 * called once by gw_task_discard when the task is dropped while it waits, and not after a wake;
 * it may not free what the waker still looks at. */
void gw_task_wait(struct gw_task *task, gw_task_cancel *cancel);
/* What it waited for is there. Whatever the waker has pushed on task->co, which is empty while it
 * waits, is what the wait returns in Lua. Nothing runs inside of this call: the task is scheduled.
 */
void gw_task_wake(struct gw_task *task);

/* A task of its own in the owner's list, for an exchange or (x NULL) beside any; the caller moves
 * the function and its arguments to task->co and calls gw_task_start. L: whoever asks for it. */
struct gw_task *gw_task_new_own(lua_State *L, struct gw_vm *vm, struct gw_list *owner,
                                struct gw_exchange *x);
/* Runs it here and now, or goes on with it: as gw_task_resume, and it needs no other call where it
 * waits. */
int gw_task_run_own(struct gw_task *task, int nargs);
/* Runs it after that time, or, in a VM that does not serve yet, that time after gw_task_serve. */
void gw_task_start(struct gw_task *task, uint64_t after_ms);
/* The VM serves from now on: what was started while it was loaded begins, after that pause. */
void gw_task_serve(struct gw_vm *vm, uint64_t pause_ms);

/* Lua: core.sleep(seconds); yields. */
int gw_task_sleep(lua_State *L);
/* A time in milliseconds from a number of seconds at index; a Lua error, which names it. */
uint64_t gw_task_check_ms(lua_State *L, int index, const char *what);

#endif
