/* Owns what Lua does beside hooks: tasks of their own, and events that it sends into a stream.
 * Called by the Lua library (gateway.spawn, gateway.timer, ctx:spawn, ctx:timer, ctx:send).
 * Invariant: a handle of a task knows nothing of it once it has ended. */
#include "script/api.h"

#include "gateway/relay.h"
#include "script/company.h"
#include "script/hold.h"
#include "script/task.h"

static const char handle_type[] = "gateway.task";

static void push_handle(lua_State *L, struct gw_task *task)
{
    struct gw_task_handle *handle = lua_newuserdata(L, sizeof *handle);
    handle->task = task;
    task->handle = handle;
    luaL_getmetatable(L, handle_type);
    lua_setmetatable(L, -2);
}

/* The function at index `fn` and all behind it, in a task of its own; its handle is pushed. */
static int start(lua_State *L, struct gw_task *task, int fn, uint64_t after_ms)
{
    int n = lua_gettop(L) - fn + 1;
    if (!lua_checkstack(task->co, n)) {
        gw_task_discard(task);
        return gw_api_raise(L, "too many arguments"); /* to who calls: nothing runs on task->co */
    }
    lua_xmove(L, task->co, n);
    gw_task_start(task, after_ms);
    push_handle(L, task);
    return 1;
}

/* spawn(seconds, fn, ...): beside any exchange. */
static int task_spawn(lua_State *L)
{
    struct gw_vm *vm = gw_api_vm(L);
    uint64_t after_ms = gw_task_check_ms(L, 1, "gateway.timer");
    luaL_checktype(L, 2, LUA_TFUNCTION);
    return start(L, gw_task_new_own(L, vm, &vm->own_tasks, NULL), 2, after_ms);
}

/* spawn_for(exchange, slot, movable, seconds, fn, ...): ends with the exchange. */
static int task_spawn_for(lua_State *L)
{
    struct gw_vm *vm = gw_api_vm(L);
    struct gw_exchange *x = gw_handle_check(L, 1);
    uint64_t after_ms = gw_task_check_ms(L, 4, "ctx:timer");
    luaL_checktype(L, 5, LUA_TFUNCTION);
    if (x->step == GW_STEP_CLOSE)
        return gw_api_raise(L, "the exchange is over");
    struct gw_company *company = gw_company_of(lua_touserdata(L, 1));
    struct gw_task *task = gw_task_new_own(L, vm, &company->tasks, x);
    task->slot = (int)lua_tointeger(L, 2);
    task->movable = lua_toboolean(L, 3);
    return start(L, task, 5, after_ms);
}

/* One that runs can't be stopped from inside of itself, where return does it. */
static int task_cancel(lua_State *L)
{
    struct gw_task_handle *handle = luaL_checkudata(L, 1, handle_type);
    struct gw_task *task = handle->task;
    if (!task || task->state == GW_TASK_RUNNING)
        return 0;
    if (task->x)
        gw_exchange_wake(task->x); /* another version may have waited for this end */
    gw_task_discard(task);
    return 0;
}

static int task_gc(lua_State *L)
{
    struct gw_task_handle *handle = lua_touserdata(L, 1);
    if (handle->task)
        handle->task->handle = NULL;
    return 0;
}

/* send(exchange, text): true; or, after waiting for room, nothing: to be called again. */
static int task_send(lua_State *L)
{
    struct gw_exchange *x = gw_handle_check(L, 1);
    struct gw_slice text = gw_lua_slice(L, 2);
    const char *why = gw_relay_refuses(x);
    if (why)
        return gw_api_raise(L, "ctx:send: %s", why);
    if (gw_relay_has_room(x)) {
        gw_relay_insert(x, text);
        lua_pushboolean(L, true);
        return 1;
    }
    struct gw_task *task = gw_task_may_wait(L, "ctx:send");
    gw_company_wait(lua_touserdata(L, 1), task);
    x->relay.room_awaited = true;
    return lua_yield(L, 0);
}

static const luaL_Reg functions[] = {
    {"spawn", task_spawn},
    {"spawn_for", task_spawn_for},
    {"send", task_send},
    {NULL, NULL},
};

void gw_api_task(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    luaL_newmetatable(L, handle_type);
    lua_pushcfunction(L, task_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "private");
    lua_setfield(L, -2, "__metatable");
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, task_cancel);
    lua_setfield(L, -2, "cancel");
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
    gw_hold_open(vm);
}
