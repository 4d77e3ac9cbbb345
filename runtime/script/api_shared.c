/* Owns nothing: Lua's way to the dictionary that all workers share. Called by the session module.
 * Invariant: a key of any length is bounded before it gets into shared memory. */
#include "script/api.h"

#include <stdio.h>
#include <sys/random.h>
#include "base/map.h"

enum { HASHED_KEY = 40 };

static struct gw_dict *dict_of(lua_State *L)
{
    return gw_api_vm(L)->env->dict;
}

/* A long key is replaced by its hash and length: sessions need equality, not the text. */
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
    lua_pushboolean(L, gw_dict_delete(dict_of(L), gw_lua_slice(L, 1), key));
    return 1;
}

/* n random bytes as hexadecimal text, fit to be a session's name. */
static int random_hex(lua_State *L)
{
    unsigned char bytes[32];
    char text[2 * sizeof bytes + 1];
    int n = (int)luaL_optinteger(L, 1, 16);
    luaL_argcheck(L, n > 0 && n <= (int)sizeof bytes, 1, "from 1 to 32 bytes");
    if (getrandom(bytes, (size_t)n, 0) != n)
        return luaL_error(L, "no random bytes to be had");
    for (int i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    lua_pushlstring(L, text, 2 * (size_t)n);
    return 1;
}

static const luaL_Reg functions[] = {
    {"session_get", session_get},       {"session_add", session_add}, {"session_set", session_set},
    {"session_delete", session_delete}, {"random", random_hex},       {NULL, NULL},
};

void gw_api_shared(struct gw_vm *vm)
{
    lua_pushlightuserdata(vm->L, vm);
    luaL_setfuncs(vm->L, functions, 1);
}
