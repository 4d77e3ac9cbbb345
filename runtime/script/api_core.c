/* Owns the module gateway.core: logging, time, files, replies. Called by the Lua library, never by
 * plugins directly. Invariant: no function keeps a pointer to an exchange; they go through handles.
 */
#include "script/api.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/log.h"
#include "gateway/reply.h"
#include "script/json.h"
#include "script/task.h"
#include "script/watchdog.h"

static const char handle_type[] = "gateway.handle";
static int reply_mark; /* its address is core.REPLY */

struct gw_handle *gw_handle_push(lua_State *L, struct gw_exchange *x)
{
    struct gw_handle *handle = lua_newuserdata(L, sizeof *handle);
    *handle = (struct gw_handle){.x = x};
    luaL_getmetatable(L, handle_type);
    lua_setmetatable(L, -2);
    return handle;
}

struct gw_exchange *gw_handle_check(lua_State *L, int index)
{
    struct gw_handle *handle = luaL_checkudata(L, index, handle_type);
    if (!handle->x)
        gw_api_raise(L, "the exchange is over");
    return handle->x;
}

int gw_api_raise(lua_State *L, const char *format, ...)
{
    va_list args;
    lua_Debug ar;
    int level = 1;
    while (lua_getstack(L, level, &ar) && lua_getinfo(L, "Sl", &ar) &&
           (ar.currentline < 0 || strstr(ar.source, "/lua/gateway/")))
        level++;
    luaL_where(L, level);
    va_start(args, format);
    lua_pushvfstring(L, format, args);
    va_end(args);
    lua_concat(L, 2);
    return lua_error(L);
}

static int core_log(lua_State *L)
{
    static const char *const names[] = {"debug", "info", "warn", "error", NULL};
    int level = luaL_checkoption(L, 1, "info", names);
    struct gw_slice text = gw_lua_slice(L, 2);
    struct gw_log_line line;
    gw_log_begin(&line, (enum gw_log_level)level, "lua");
    gw_log_str(&line, "text", text);
    gw_log_end(&line);
    return 0;
}

static void error_field(struct gw_log_line *line, lua_State *co, const char *key)
{
    lua_pushstring(co, key);
    lua_rawget(co, -2); /* no protected call: a metamethod that raises would end the process */
    if (lua_isstring(co, -1))
        gw_log_cstr(line, key, lua_tostring(co, -1));
    lua_pop(co, 1);
}

void gw_api_log_exchange(struct gw_log_line *line, const struct gw_exchange *x)
{
    char id[GW_ID_TEXT];
    if (!x)
        return;
    gw_log_cstr(line, "x", gw_exchange_id(x, id));
    gw_log_cstr(line, "step", gw_step_name(x->step));
    if (x->rule[0])
        gw_log_cstr(line, "rule", x->rule);
}

static void log_error(lua_State *L, lua_State *failed, struct gw_exchange *x,
                      struct gw_stats_slot *count, const char *text)
{
    struct gw_log_line line;
    gw_stat_add(count, GW_STAT_HOOK_ERRORS, 1);
    gw_log_begin(&line, GW_LOG_ERROR, text);
    gw_api_log_exchange(&line, x);
    if (lua_istable(L, -1)) {
        error_field(&line, L, "plugin");
        error_field(&line, L, "hook");
        error_field(&line, L, "event");
        error_field(&line, L, "message");
        error_field(&line, L, "traceback");
    } else {
        const char *msg = lua_tostring(L, -1);
        luaL_traceback(L, failed, msg ? msg : "an error that is no text", 0);
        gw_log_cstr(&line, "message", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    gw_log_end(&line);
}

void gw_api_log_error(lua_State *L, lua_State *failed, struct gw_exchange *x)
{
    log_error(L, failed, x, x->gateway->count, "hook failed");
}

void gw_api_log_task_error(lua_State *L, struct gw_task *task)
{
    log_error(L, task->co, task->x, task->vm->generation->gateway->count, "task failed");
}

/* An error that was survived: `onError: skip`, or one of several on_close hooks. */
static int core_hook_error(lua_State *L)
{
    struct gw_exchange *x = gw_handle_check(L, 1);
    lua_settop(L, 2);
    gw_api_log_error(L, L, x);
    gw_watch_restart(); /* for those that come behind it */
    return 0;
}

/* Loading goes on with something else, which gets time of its own. */
static int core_progress(lua_State *L)
{
    struct gw_vm *vm = gw_api_vm(L);
    snprintf(vm->work, sizeof vm->work, "%s", luaL_checkstring(L, 1));
    gw_watch_restart();
    return 0;
}

static int core_now(lua_State *L)
{
    struct gw_loop *loop = gw_api_vm(L)->env->loop;
    struct timespec ts;
    if (loop) {
        lua_pushnumber(L, (lua_Number)loop->now_ms / 1000.0);
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &ts);
    lua_pushnumber(L, (lua_Number)ts.tv_sec + (lua_Number)ts.tv_nsec / 1e9);
    return 1;
}

static int core_time(lua_State *L)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    lua_pushnumber(L, (lua_Number)ts.tv_sec + (lua_Number)ts.tv_nsec / 1e9);
    return 1;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int core_list(lua_State *L)
{
    struct dirent **names;
    int n = scandir(luaL_checkstring(L, 1), &names, visible, alphasort);
    if (n < 0) {
        lua_pushnil(L);
        lua_pushstring(L, strerror(errno));
        return 2;
    }
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushstring(L, names[i]->d_name);
        lua_rawseti(L, -2, i + 1);
        free(names[i]);
    }
    free(names);
    return 1;
}

unsigned gw_api_check_status(lua_State *L, int index, const char *text)
{
    lua_Number status = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : 0;
    if (!(status >= 200 && status <= 599) || status != (unsigned)status)
        luaL_error(L, "%s", text);
    return (unsigned)status;
}

static int push_reply(lua_State *L)
{
    lua_pushlightuserdata(L, &reply_mark);
    return 1;
}

/* Where a reply may be given at all: before a head went out. */
static struct gw_exchange *replying(lua_State *L)
{
    struct gw_exchange *x = gw_handle_check(L, 1);
    if (x->head_sent || x->step == GW_STEP_CLOSE)
        luaL_error(L, "ctx:reply: the response has begun already");
    return x;
}

/* A hook's reply is looked at when the hook is done; a task's has to be told of. */
static void wake_for_reply(lua_State *L, struct gw_exchange *x)
{
    struct gw_task *task = gw_task_current(L);
    if (!task || task->own || task->x != x)
        gw_exchange_wake(x);
}

static int core_reply(lua_State *L)
{
    struct gw_exchange *x = replying(L);
    unsigned status = gw_api_check_status(L, 2, "ctx:reply: expected a status from 200 to 599");
    struct gw_slice body = lua_isnoneornil(L, 3) ? GW_SLICE("") : gw_lua_slice(L, 3);
    struct gw_reply *reply = gw_reply_new(x, status);
    reply->set = false; /* nothing is answered while a header may still be refused */
    if (!lua_isnoneornil(L, 4))
        gw_api_set_fields(L, 4, &reply->head);
    reply->set = true;
    wake_for_reply(L, x);
    bool bare = status == 204 || status == 304;
    reply->head.has_body = !bare;
    reply->head.length = bare ? 0 : (int64_t)body.len;
    if (bare)
        return push_reply(L);
    gw_buf_add(&reply->body, body);
    if (body.len)
        gw_fields_default(&reply->head, GW_SLICE("content-type"),
                          GW_SLICE("text/plain; charset=utf-8"));
    return push_reply(L);
}

static int core_fail(lua_State *L)
{
    struct gw_exchange *x = replying(L);
    unsigned status = gw_api_check_status(L, 2, "fail: expected a status from 200 to 599");
    gw_reply_problem(x, status, gw_lua_slice(L, 3));
    if (!lua_isnoneornil(L, 4))
        gw_api_set_fields(L, 4, &x->way->reply->head);
    return push_reply(L);
}

/* Address and port of the client, and of the peer. */
static int core_client(lua_State *L)
{
    struct gw_exchange *x = gw_handle_check(L, 1);
    char host[GW_ADDR_TEXT];
    const struct gw_addr *of[] = {gw_exchange_client(x), x->peer};
    for (int i = 0; i < 2; i++) {
        lua_pushstring(L, gw_addr_host(of[i], host));
        lua_pushinteger(L, (lua_Integer)of[i]->port);
    }
    return 4;
}

static int core_id(lua_State *L)
{
    char id[GW_ID_TEXT];
    lua_pushstring(L, gw_exchange_id(gw_handle_check(L, 1), id));
    return 1;
}

static int core_set_rule(lua_State *L)
{
    gw_exchange_set_rule(gw_handle_check(L, 1), gw_lua_slice(L, 2));
    return 0;
}

static int core_tried(lua_State *L)
{
    const struct gw_exchange *x = gw_handle_check(L, 1);
    lua_pushboolean(L, gw_exchange_tried(x, (unsigned)luaL_checkinteger(L, 2)));
    return 1;
}

/* name_hook("plugin hook") */
static int core_name_hook(lua_State *L)
{
    lua_pushinteger(L, gw_vm_name_hook(gw_api_vm(L), luaL_checkstring(L, 1)));
    return 1;
}

static const luaL_Reg functions[] = {
    {"log", core_log},
    {"progress", core_progress},
    {"now", core_now},
    {"time", core_time},
    {"list", core_list},
    {"reply", core_reply},
    {"fail", core_fail},
    {"client", core_client},
    {"id", core_id},
    {"set_rule", core_set_rule},
    {"sleep", gw_task_sleep},
    {"tried", core_tried},
    {"name_hook", core_name_hook},
    {"hook_error", core_hook_error},
    {NULL, NULL},
};

void gw_api_core(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    luaL_newmetatable(L, handle_type);
    lua_pushliteral(L, "private");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
    lua_pushlightuserdata(L, &reply_mark);
    lua_setfield(L, -2, "REPLY");
    lua_pushlightuserdata(L, &vm->running);
    lua_setfield(L, -2, "running");
    lua_pushinteger(L, (lua_Integer)vm->env->worker);
    lua_setfield(L, -2, "worker");
    lua_pushliteral(L, GW_VERSION);
    lua_setfield(L, -2, "version");
    if (vm->env->yaml) {
        lua_pushcfunction(L, vm->env->yaml);
        lua_setfield(L, -2, "yaml");
    }
}

void gw_api_open(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    lua_newtable(L);
    gw_api_core(vm);
    gw_api_balance(vm);
    gw_api_message(vm);
    gw_api_event(vm);
    gw_api_json(vm);
    gw_api_shared(vm);
    gw_api_crypto(vm);
    gw_api_http(vm);
    gw_api_task(vm);
    gw_api_retry(vm);
    gw_api_service(vm);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaded");
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "gateway.core");
    lua_pop(L, 3);
}
