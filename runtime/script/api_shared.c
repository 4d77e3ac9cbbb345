/* Owns the private dictionary of a VM that has no workers beside it (in -t, in the master): Lua's
 * way to what all workers share. Called by the modules gateway.session and gateway.shared.
 * Invariant: a key of any length is bounded before it gets into shared memory, and no Lua error is
 * raised inside. */
#include "script/api.h"

#include <stdio.h>
#include <time.h>
#include "base/map.h"
#include "base/shared.h"

enum { HASHED_KEY = 40, PRIVATE_BYTES = 1 << 20 };

static const char private_name[] = "gateway.private";

static struct gw_dict *dict_of(lua_State *L)
{
    return gw_api_vm(L)->env->dict;
}

/* A long key is replaced by its hash and length: what is asked for is equality, not the text. */
static struct gw_slice bounded_key(struct gw_slice key, char out[HASHED_KEY])
{
    if (key.len <= GW_DICT_KEY_MAX)
        return key;
    int n = snprintf(out, HASHED_KEY, "#%016llx.%zu", (unsigned long long)gw_hash(key), key.len);
    return gw_slice_of(out, (size_t)n);
}

static uint64_t seconds_ms(lua_State *L, int index)
{
    double s = luaL_optnumber(L, index, 0);
    return s > 0 ? (uint64_t)(s * 1000) : 0;
}

static uint64_t now_ms(lua_State *L)
{
    struct gw_loop *loop = gw_api_vm(L)->env->loop;
    return loop ? loop->now_ms : 0;
}

static int session_get(lua_State *L)
{
    char value[GW_DICT_VALUE_MAX], hashed[HASHED_KEY];
    if (!dict_of(L))
        return 0;
    struct gw_slice key = bounded_key(gw_lua_slice(L, 2), hashed);
    int n = gw_dict_get(dict_of(L), gw_lua_slice(L, 1), key, value, sizeof value, now_ms(L),
                        seconds_ms(L, 3));
    if (n < 0)
        return 0;
    lua_pushlstring(L, value, (size_t)n);
    return 1;
}

/* Of two workers that meet a session at the same time, the first one's choice holds for both. */
static int session_add(lua_State *L)
{
    char stored[GW_DICT_VALUE_MAX], hashed[HASHED_KEY];
    uint64_t max = (uint64_t)luaL_optnumber(L, 5, 0);
    if (!dict_of(L))
        return 0;
    struct gw_slice key = bounded_key(gw_lua_slice(L, 2), hashed);
    int n = gw_dict_add(dict_of(L), gw_lua_slice(L, 1), key, gw_lua_slice(L, 3), stored,
                        sizeof stored, now_ms(L), seconds_ms(L, 4), max);
    if (n < 0)
        lua_pushvalue(L, 3);
    else
        lua_pushlstring(L, stored, (size_t)n);
    return 1;
}

static int session_set(lua_State *L)
{
    char hashed[HASHED_KEY];
    uint64_t max = (uint64_t)luaL_optnumber(L, 5, 0);
    if (!dict_of(L))
        return 0;
    struct gw_slice key = bounded_key(gw_lua_slice(L, 2), hashed);
    lua_pushboolean(L, gw_dict_set(dict_of(L), gw_lua_slice(L, 1), key, gw_lua_slice(L, 3),
                                   now_ms(L), seconds_ms(L, 4), max));
    return 1;
}

static int session_delete(lua_State *L)
{
    char hashed[HASHED_KEY];
    if (!dict_of(L))
        return 0;
    struct gw_slice key = bounded_key(gw_lua_slice(L, 2), hashed);
    lua_pushboolean(L, gw_dict_delete(dict_of(L), gw_lua_slice(L, 1), key, now_ms(L)));
    return 1;
}

static int free_private(lua_State *L)
{
    gw_shm_fini(lua_touserdata(L, 1));
    return 0;
}

/* Where nobody shares anything a plugin finds an empty dictionary all the same. */
static struct gw_dict *private_dict(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, private_name);
    struct gw_shm *shm = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (shm)
        return (struct gw_dict *)(void *)shm->base;
    shm = lua_newuserdata(L, sizeof *shm);
    if (!gw_shm_init(shm, PRIVATE_BYTES + 4096) || !gw_dict_new(shm, PRIVATE_BYTES)) {
        gw_shm_fini(shm);
        luaL_error(L, "no memory for gateway.shared");
    }
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, free_private);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, private_name);
    return (struct gw_dict *)(void *)shm->base;
}

/* Also while a file is loaded, where there is no loop to ask. */
static uint64_t clock_ms(lua_State *L)
{
    struct gw_loop *loop = gw_api_vm(L)->env->loop;
    struct timespec ts;
    if (loop)
        return loop->now_ms;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Of group and key at 1 and 2; room outlives the place. */
static struct gw_shared_place place_of(lua_State *L, char room[HASHED_KEY])
{
    struct gw_dict *dict = gw_api_vm(L)->env->shared;
    return (struct gw_shared_place){.dict = dict ? dict : private_dict(L),
                                    .group = gw_lua_slice(L, 1),
                                    .key = bounded_key(gw_lua_slice(L, 2), room),
                                    .now_ms = clock_ms(L)};
}

/* What is above nothing stays above nothing: 0 has a meaning of its own. */
static uint64_t lasting_ms(lua_State *L, int index)
{
    double ms = luaL_optnumber(L, index, 0) * 1000;
    if (!(ms > 0))
        return 0;
    return ms < 1 ? 1 : ms < 1e15 ? (uint64_t)ms : (uint64_t)1e15;
}

/* shared_get(group, key) -> value or nil */
static int shared_get(lua_State *L)
{
    char room[GW_DICT_VALUE_MAX], hashed[HASHED_KEY];
    struct gw_shared_place place = place_of(L, hashed);
    struct gw_value value = gw_shared_get(&place, room);
    if (value.kind == GW_VALUE_TEXT)
        lua_pushlstring(L, value.text.ptr, value.text.len);
    else if (value.kind == GW_VALUE_NUMBER)
        lua_pushnumber(L, value.number);
    else if (value.kind == GW_VALUE_TRUTH)
        lua_pushboolean(L, value.truth);
    else
        lua_pushnil(L);
    return 1;
}

static struct gw_value value_at(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TNUMBER)
        return (struct gw_value){.kind = GW_VALUE_NUMBER, .number = lua_tonumber(L, index)};
    if (lua_type(L, index) == LUA_TBOOLEAN)
        return (struct gw_value){.kind = GW_VALUE_TRUTH, .truth = lua_toboolean(L, index)};
    return (struct gw_value){.kind = GW_VALUE_TEXT, .text = gw_lua_slice(L, index)};
}

static int push_result(lua_State *L, enum gw_shared_result result)
{
    static const char *const names[] = {[GW_SHARED_OK] = "ok",
                                        [GW_SHARED_EXISTS] = "exists",
                                        [GW_SHARED_LARGE] = "large",
                                        [GW_SHARED_FULL] = "full",
                                        [GW_SHARED_KIND] = "kind"};
    lua_pushstring(L, names[result]);
    return 1;
}

/* shared_set(group, key, value, ttl, max_entries, only_absent) -> "ok" or what went wrong */
static int shared_set(lua_State *L)
{
    char hashed[HASHED_KEY];
    struct gw_value value = value_at(L, 3);
    struct gw_shared_place place = place_of(L, hashed);
    place.ttl_ms = lasting_ms(L, 4);
    place.max_entries = (uint64_t)luaL_optnumber(L, 5, 0);
    return push_result(L, gw_shared_set(&place, &value, lua_toboolean(L, 6)));
}

/* shared_incr(group, key, by, init, ttl, max_entries) -> the result, number */
static int shared_incr(lua_State *L)
{
    char hashed[HASHED_KEY];
    double number = luaL_checknumber(L, 3), init = luaL_checknumber(L, 4);
    struct gw_shared_place place = place_of(L, hashed);
    place.ttl_ms = lasting_ms(L, 5);
    place.max_entries = (uint64_t)luaL_optnumber(L, 6, 0);
    push_result(L, gw_shared_incr(&place, init, &number));
    lua_pushnumber(L, number);
    return 2;
}

/* shared_delete(group, key) -> whether there was one */
static int shared_delete(lua_State *L)
{
    char hashed[HASHED_KEY];
    struct gw_shared_place place = place_of(L, hashed);
    lua_pushboolean(L, gw_dict_delete(place.dict, place.group, place.key, place.now_ms));
    return 1;
}

/* shared_ttl(group, key) -> seconds, 0 = no end; or nil */
static int shared_ttl(lua_State *L)
{
    char hashed[HASHED_KEY];
    struct gw_shared_place place = place_of(L, hashed);
    int64_t left_ms = gw_dict_ttl(place.dict, place.group, place.key, place.now_ms);
    if (left_ms < 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, (double)left_ms / 1000);
    return 1;
}

/* counter_add(group, key, n, window) -> count. Where there is no room for it, this is the first. */
static int counter_add(lua_State *L)
{
    char hashed[HASHED_KEY];
    double n = luaL_checknumber(L, 3), count;
    uint64_t window_ms = lasting_ms(L, 4);
    struct gw_shared_place place = place_of(L, hashed);
    luaL_argcheck(L, window_ms > 0, 4, "a window has a length");
    lua_pushnumber(L, gw_counter_add(&place, window_ms, n, &count) ? count : n);
    return 1;
}

/* counter_get(group, key, window) -> count */
static int counter_get(lua_State *L)
{
    char hashed[HASHED_KEY];
    uint64_t window_ms = lasting_ms(L, 3);
    struct gw_shared_place place = place_of(L, hashed);
    luaL_argcheck(L, window_ms > 0, 3, "a window has a length");
    lua_pushnumber(L, gw_counter_get(&place, window_ms));
    return 1;
}

static const luaL_Reg functions[] = {
    {"session_get", session_get}, {"session_add", session_add},
    {"session_set", session_set}, {"session_delete", session_delete},
    {"shared_get", shared_get},   {"shared_set", shared_set},
    {"shared_incr", shared_incr}, {"shared_delete", shared_delete},
    {"shared_ttl", shared_ttl},   {"counter_add", counter_add},
    {"counter_get", counter_get}, {NULL, NULL},
};

void gw_api_shared(struct gw_vm *vm)
{
    lua_pushlightuserdata(vm->L, vm);
    luaL_setfuncs(vm->L, functions, 1);
}
