/* Configuration files as text. Invariant: any text gives a tree or an error that says where,
 * and each value of the tree has a mark. */
#include <lauxlib.h>
#include <lualib.h>
#include "config/yaml.h"
#include "support/fuzz.h"

enum { INPUT_MAX = 8192, DEPTH = 200 };

static void check_error(lua_State *L)
{
    FUZZ_CHECK(lua_istable(L, 2), "an error that is no table");
    lua_getfield(L, 2, "message");
    lua_getfield(L, 2, "line");
    lua_getfield(L, 2, "col");
    FUZZ_CHECK(lua_isstring(L, -3), "no message");
    FUZZ_CHECK(lua_isnumber(L, -2) && lua_tonumber(L, -2) >= 1, "no line");
}

/* tree and mark are the two on top; they are popped. */
static void check_marks(lua_State *L, unsigned depth)
{
    FUZZ_CHECK(lua_istable(L, -1), "a value without a mark");
    FUZZ_CHECK(depth < DEPTH && lua_checkstack(L, 8), "deeper than allowed");
    lua_getfield(L, -1, "kind");
    bool scalar = strcmp(lua_tostring(L, -1), "scalar") == 0;
    lua_pop(L, 1);
    FUZZ_CHECK(scalar != (bool)lua_istable(L, -2), "another kind");
    if (!scalar) {
        lua_getfield(L, -1, "at");
        for (lua_pushnil(L); lua_next(L, -4);) {
            lua_pushvalue(L, -2);
            lua_gettable(L, -4);
            check_marks(L, depth + 1);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lua_State *L;
    if (size > INPUT_MAX)
        return 0;
    if (!L)
        L = luaL_newstate();
    lua_settop(L, 0);
    lua_pushcfunction(L, gw_yaml_parse);
    lua_pushlstring(L, (const char *)data, size);
    FUZZ_CHECK(lua_pcall(L, 1, LUA_MULTRET, 0) == 0, "it raised: %s", lua_tostring(L, -1));
    if (lua_isnil(L, 1) && lua_gettop(L) == 2 && !lua_isnil(L, 2)) {
        check_error(L);
    } else {
        FUZZ_CHECK(lua_gettop(L) == 2, "%d results", lua_gettop(L));
        check_marks(L, 0);
    }
    lua_settop(L, 0);
    lua_gc(L, LUA_GCSTEP, 100);
    return 0;
}
