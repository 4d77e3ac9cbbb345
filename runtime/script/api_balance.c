/* Owns the functions of gateway.core that policies stand on: facts of instances, hashes, chance.
 * Called by the Lua library, never by plugins directly. Invariant: they tell what is; what follows
 * from it is Lua's to say. */
#include "base/map.h"
#include "base/random.h"
#include "script/api.h"

enum fact { IN_FLIGHT, OPEN_STREAMS, RESPONSE_TIME, ANSWER_AGE };
static const char *const fact_names[] = {"in_flight", "open_streams", "response_time", "answer_age",
                                         NULL};

static uint64_t now_ms(const struct gw_vm *vm)
{
    return vm->env->loop ? vm->env->loop->now_ms : 0;
}

static double fact_of(const struct gw_vm *vm, const struct gw_instance *instance, enum fact fact)
{
    if (!instance)
        return 0;
    switch (fact) {
    case IN_FLIGHT:
        return gw_facts_sum(instance->facts, instance->fact, GW_LOAD_REQUESTS);
    case OPEN_STREAMS:
        return gw_facts_sum(instance->facts, instance->fact, GW_LOAD_STREAMS);
    case RESPONSE_TIME:
        return gw_facts_answer_us(instance->facts, instance->fact) / 1e6;
    case ANSWER_AGE:
        return gw_facts_answer_age_ms(instance->facts, instance->fact, now_ms(vm)) / 1e3;
    }
    return 0;
}

/* fact(index, name): of an instance of this version; 0 before it serves. */
static int core_fact(lua_State *L)
{
    const struct gw_vm *vm = gw_api_vm(L);
    const struct gw_instance *instance = gw_api_instance(vm, luaL_checkinteger(L, 1));
    enum fact fact = (enum fact)luaL_checkoption(L, 2, NULL, fact_names);
    lua_pushnumber(L, fact_of(vm, instance, fact));
    return 1;
}

/* facts(instances, name, out): the same of each instance in a list, written to out, returned. */
static int core_facts(lua_State *L)
{
    const struct gw_vm *vm = gw_api_vm(L);
    enum fact fact = (enum fact)luaL_checkoption(L, 2, NULL, fact_names);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    lua_pushliteral(L, "index");
    for (int i = 1, n = (int)lua_objlen(L, 1); i <= n; i++) {
        lua_rawgeti(L, 1, i);
        luaL_checktype(L, 5, LUA_TTABLE);
        lua_pushvalue(L, 4);
        lua_rawget(L, 5);
        lua_pushnumber(L, fact_of(vm, gw_api_instance(vm, lua_tointeger(L, 6)), fact));
        lua_rawseti(L, 3, i);
        lua_settop(L, 4);
    }
    lua_settop(L, 3);
    return 1;
}

/* percentile(index, percent): of the times to the response head, in seconds; 0 = unknown. */
static int core_percentile(lua_State *L)
{
    const struct gw_vm *vm = gw_api_vm(L);
    const struct gw_instance *instance = gw_api_instance(vm, luaL_checkinteger(L, 1));
    double percent = luaL_checknumber(L, 2), us = 0;
    if (instance)
        us = gw_latency_percentile_us(&instance->facts->latency[instance->fact], percent,
                                      now_ms(vm));
    lua_pushnumber(L, us / 1e6);
    return 1;
}

/* hash(text, salt): a whole number below 2^53, the same everywhere. */
static int core_hash(lua_State *L)
{
    uint64_t salt = (uint64_t)luaL_optnumber(L, 2, 0);
    lua_pushnumber(L, (lua_Number)(gw_hash_stable(gw_lua_slice(L, 1), salt) >> 11));
    return 1;
}

/* chance(): from 0 to below 1. */
static int core_chance(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)(gw_random() >> 11) / 9007199254740992.0);
    return 1;
}

static const luaL_Reg functions[] = {
    {"fact", core_fact}, {"facts", core_facts},   {"percentile", core_percentile},
    {"hash", core_hash}, {"chance", core_chance}, {NULL, NULL},
};

void gw_api_balance(struct gw_vm *vm)
{
    lua_pushlightuserdata(vm->L, vm);
    luaL_setfuncs(vm->L, functions, 1);
}
