/* Owns nothing. Called by the pipeline when a rule is compiled, and for requests of rules with
 * bounds. Invariant: what a rule says of retries crosses as one string of bytes without pointers,
 * which `route` returns for each exchange of the rule. */
#include "gateway/retry.h"

#include <math.h>
#include <stddef.h>
#include "gateway/bounds.h"
#include "gateway/clocks.h"
#include "script/api.h"

static double number(lua_State *L, const char *key)
{
    lua_getfield(L, 1, key);
    double value = luaL_checknumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static uint32_t whole(lua_State *L, const char *key)
{
    double value = number(L, key);
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static void read_statuses(lua_State *L, struct gw_retry_rule *rule)
{
    lua_getfield(L, 1, "statuses");
    for (int i = 1; i <= (int)lua_objlen(L, -1); i++) {
        lua_rawgeti(L, -1, i);
        unsigned status = (unsigned)luaL_checkinteger(L, -1);
        luaL_argcheck(L, status >= 400 && status <= GW_STATUS_MAX, 1, "a status from 400 to 599");
        gw_statuses_add(&rule->statuses, status, status);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void read_rule(lua_State *L, struct gw_retry_rule *rule)
{
    *rule = (struct gw_retry_rule){.attempts = whole(L, "attempts"),
                                   .causes = whole(L, "causes"),
                                   .max_body = whole(L, "max_body"),
                                   .base_ms = whole(L, "base_ms"),
                                   .max_ms = whole(L, "max_ms"),
                                   .jitter = (float)number(L, "jitter"),
                                   .ratio = (float)number(L, "ratio"),
                                   .min_requests = whole(L, "min_requests"),
                                   .hold_ms = whole(L, "hold_ms")};
    read_statuses(L, rule);
}

/* Pushes the names that the table has under this key; returns how many bytes they are. */
static uint16_t push_names(lua_State *L, const char *key)
{
    lua_getfield(L, 1, key);
    size_t size = gw_lua_slice(L, -1).len;
    luaL_argcheck(L, size <= UINT16_MAX, 1, "too many names");
    return (uint16_t)size;
}

/* pack_retry(rule): as gateway.retry makes it. */
static int pack_retry(lua_State *L)
{
    struct gw_retry_rule rule;
    luaL_checktype(L, 1, LUA_TTABLE);
    read_rule(L, &rule);
    rule.methods = push_names(L, "methods");
    rule.errors = push_names(L, "errors");
    lua_pushlstring(L, (const char *)&rule, offsetof(struct gw_retry_rule, text));
    lua_insert(L, -3);
    lua_concat(L, 3);
    return 1;
}

/* asked(handle): the service and the id of the instance whose answer there is. */
static int asked(lua_State *L)
{
    const struct gw_instance *instance = gw_handle_check(L, 1)->instance;
    if (!instance)
        return 0;
    lua_pushstring(L, instance->service);
    lua_pushstring(L, instance->id);
    return 2;
}

/* Whole, and not below nothing. */
static uint32_t limit_at(lua_State *L, int index)
{
    double value = luaL_checknumber(L, index);
    return value < UINT32_MAX ? (uint32_t)fmax(value, 0) : UINT32_MAX;
}

/* set_bounds(handle, total, client, rule, rule_client, session, key): how many event streams there
 * may be, and the key of the request's session, if it has one. */
static int set_bounds(lua_State *L)
{
    struct gw_bounds bounds = {.total = limit_at(L, 2)};
    for (int i = 0; i < GW_BOUND_KEYS; i++)
        bounds.limit[i] = limit_at(L, 3 + i);
    if (lua_type(L, 3 + GW_BOUND_KEYS) == LUA_TSTRING)
        bounds.session = gw_hash(gw_lua_slice(L, 3 + GW_BOUND_KEYS)) | 1;
    gw_bounds_set(gw_handle_check(L, 1), &bounds);
    return 0;
}

/* In seconds; below 0, or nothing: unset. What is above 0 stays above it. */
static uint32_t clock_at(lua_State *L, int index)
{
    double ms = luaL_optnumber(L, index, -1) * 1000;
    if (ms < 0)
        return GW_CLOCK_UNSET;
    return (uint32_t)fmin(ceil(ms), (double)GW_CLOCK_UNSET - 1);
}

/* set_clocks(handle, max_age_s, first_event_s, silence_s): the rule's own, where it has them. */
static int set_clocks(lua_State *L)
{
    struct gw_clocks clocks;
    for (int i = 0; i < GW_CLOCKS; i++)
        clocks.ms[i] = clock_at(L, 2 + i);
    gw_clocks_set(gw_handle_check(L, 1), &clocks);
    return 0;
}

static const luaL_Reg functions[] = {
    {"pack_retry", pack_retry}, {"asked", asked}, {"set_bounds", set_bounds},
    {"set_clocks", set_clocks}, {NULL, NULL},
};

void gw_api_retry(struct gw_vm *vm)
{
    lua_pushlightuserdata(vm->L, vm);
    luaL_setfuncs(vm->L, functions, 1);
}
