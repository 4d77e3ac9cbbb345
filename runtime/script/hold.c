/* Owns holds, which Lua keeps by key in weak tables (lua/gateway/init.lua). Called from Lua, and by
 * task.c at the end of a task. Invariant: where somebody waits, somebody holds, and a holder that
 * ends without a word is followed by the first that waits: nobody waits for ever. */
#include "script/hold.h"

#include "script/api.h"
#include "script/task.h"

static const char hold_type[] = "gateway.hold";

struct gw_hold {
    struct gw_task *holder; /* NULL: free */
    struct gw_hold *next;   /* of its holder's */
    struct gw_list waiters; /* tasks, by queue */
};

static int hold_new(lua_State *L)
{
    struct gw_hold *hold = lua_newuserdata(L, sizeof *hold);
    *hold = (struct gw_hold){NULL};
    gw_list_init(&hold->waiters);
    luaL_getmetatable(L, hold_type);
    lua_setmetatable(L, -2);
    return 1;
}

static void take(struct gw_hold *hold, struct gw_task *task)
{
    hold->holder = task;
    hold->next = task->holds;
    task->holds = hold;
}

static void let_go(struct gw_hold *hold)
{
    struct gw_hold **at = &hold->holder->holds;
    while (*at != hold)
        at = &(*at)->next;
    *at = hold->next;
    hold->holder = NULL;
}

static struct gw_task *next_waiter(struct gw_hold *hold)
{
    struct gw_list *at = gw_list_take(&hold->waiters);
    return at ? GW_CONTAINER(at, struct gw_task, queue) : NULL;
}

/* From one that has nothing to tell to the first that waits. */
static void hand_on(struct gw_hold *hold)
{
    let_go(hold);
    struct gw_task *task = next_waiter(hold);
    if (!task)
        return;
    take(hold, task);
    lua_pushboolean(task->co, true);
    gw_task_wake(task);
}

void gw_hold_release(struct gw_task *task)
{
    while (task->holds)
        hand_on(task->holds);
}

static void leave_queue(struct gw_task *task)
{
    gw_list_remove(&task->queue);
}

/* enter(hold, what): true when the caller holds it now; else, after waiting, what `leave` told. */
static int hold_enter(lua_State *L)
{
    struct gw_hold *hold = luaL_checkudata(L, 1, hold_type);
    const char *what = luaL_checkstring(L, 2);
    struct gw_task *task = gw_task_may_wait(L, what);
    if (!hold->holder) {
        take(hold, task);
        lua_pushboolean(L, true);
        return 1;
    }
    if (hold->holder == task)
        return gw_api_raise(L, "%s: called for a key inside of the call for that key", what);
    gw_list_push(&hold->waiters, &task->queue);
    gw_task_wait(task, leave_queue);
    return lua_yield(L, 0);
}

static void tell(lua_State *L, struct gw_task *task, int first)
{
    int n = lua_gettop(L) - first + 1;
    if (!lua_checkstack(task->co, n + 1))
        return;
    lua_pushboolean(task->co, false);
    for (int i = first; i <= first + n - 1; i++)
        lua_pushvalue(L, i);
    lua_xmove(L, task->co, n);
}

/* leave(hold): to the next one. leave(hold, ...): to nobody, and all who wait get `false, ...`. */
static int hold_leave(lua_State *L)
{
    struct gw_hold *hold = luaL_checkudata(L, 1, hold_type);
    if (!hold->holder)
        return 0;
    if (lua_gettop(L) == 1) {
        hand_on(hold);
        return 0;
    }
    let_go(hold);
    luaL_checkstack(L, lua_gettop(L), "too many results");
    for (struct gw_task *task; (task = next_waiter(hold));) {
        tell(L, task, 2);
        gw_task_wake(task);
    }
    return 0;
}

static int hold_gc(lua_State *L)
{
    struct gw_hold *hold = lua_touserdata(L, 1);
    if (hold->holder)
        let_go(hold);
    return 0;
}

static const luaL_Reg functions[] = {
    {"hold", hold_new},
    {"enter", hold_enter},
    {"leave", hold_leave},
    {NULL, NULL},
};

void gw_hold_open(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    luaL_newmetatable(L, hold_type);
    lua_pushcfunction(L, hold_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "private");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
}
