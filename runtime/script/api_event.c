/* Owns the event object that hooks see: one per task, used again for every event. Called by plugins
 * through its metatable. Invariant: it is blind (event NULL) whenever no hook runs, and text that
 * Lua set stays anchored in its environment until the event is written. */
#include "script/api.h"

#include <stdlib.h>

static const char event_type[] = "gateway.event";

enum member { E_TYPE = 1, E_ID, E_DATA, E_RETRY, E_COMMENT, E_RAW, E_JSON, E_ENCODED };

static const struct {
    const char *name;
    enum member member;
} members[] = {
    {"type", E_TYPE},       {"id", E_ID},   {"data", E_DATA}, {"retry", E_RETRY},
    {"comment", E_COMMENT}, {"raw", E_RAW}, {"json", E_JSON}, {"_encoded", E_ENCODED},
};

struct gw_event_ref *gw_event_ref_at(lua_State *L, int index)
{
    void *object = lua_touserdata(L, index);
    if (!object || lua_islightuserdata(L, index) || !lua_getmetatable(L, index))
        return NULL;
    luaL_getmetatable(L, event_type);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same ? object : NULL;
}

static struct gw_event_ref *check_event(lua_State *L)
{
    struct gw_event_ref *ref = luaL_checkudata(L, 1, event_type);
    if (!ref->event)
        luaL_error(L, "this event is over: copy what you need of it while the hook runs");
    return ref;
}

struct gw_event_ref *gw_event_ref_push(struct gw_vm *vm, lua_State *co, struct gw_event_ref **cache,
                                       int *cache_ref)
{
    if (!*cache) {
        *cache = lua_newuserdata(vm->L, sizeof **cache);
        (*cache)->event = NULL;
        (*cache)->json = LUA_NOREF;
        luaL_getmetatable(vm->L, event_type);
        lua_setmetatable(vm->L, -2);
        lua_newtable(vm->L);
        lua_setfenv(vm->L, -2);
        *cache_ref = luaL_ref(vm->L, LUA_REGISTRYINDEX);
    }
    lua_rawgeti(co, LUA_REGISTRYINDEX, *cache_ref);
    return *cache;
}

static void forget_json(lua_State *L, struct gw_event_ref *ref)
{
    luaL_unref(L, LUA_REGISTRYINDEX, ref->json);
    ref->json = LUA_NOREF;
}

void gw_event_ref_end(struct gw_vm *vm, struct gw_event_ref *ref)
{
    ref->event = NULL;
    if (ref->json != LUA_NOREF)
        forget_json(vm->L, ref);
}

typedef size_t length_fn(struct gw_event *event);
typedef void copy_fn(struct gw_event *event, char *out);

/* Text that stands in several lines is put together first. */
static int push_joined(lua_State *L, struct gw_event *event, length_fn *length, copy_fn *copy)
{
    char small[1024];
    size_t n = length(event);
    char *text = n <= sizeof small ? small : malloc(n);
    GW_CHECK(text != NULL);
    copy(event, text);
    lua_pushlstring(L, text, n);
    if (text != small)
        free(text);
    return 1;
}

static int push_data(lua_State *L, struct gw_event *event)
{
    if (!(event->has & GW_EVENT_DATA))
        return 0;
    return push_joined(L, event, gw_event_data_len, gw_event_data_copy);
}

/* Decoded once per event; nil when the data is no JSON. */
static int push_json(lua_State *L, struct gw_event_ref *ref)
{
    if (ref->json == LUA_NOREF) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, gw_api_vm(L)->json_decode);
        if (!push_data(L, ref->event))
            return 0;
        if (lua_pcall(L, 1, 1, 0) != 0)
            return 0;
        if (lua_isnil(L, -1))
            return 1;
        ref->json = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref->json);
    return 1;
}

/* For gateway.event.encode: what would be sent now. */
static int push_encoded(lua_State *L, const struct gw_event *event)
{
    struct gw_buf out;
    gw_buf_init(&out);
    gw_event_write(event, &out);
    struct gw_slice text = gw_buf_linear(&out, gw_buf_len(&out));
    lua_pushlstring(L, text.ptr ? text.ptr : "", text.len);
    gw_buf_clear(&out);
    return 1;
}

static enum member member_of(lua_State *L)
{
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(2));
    enum member m = (enum member)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return m;
}

static int push_type(lua_State *L, const struct gw_event *event)
{
    if ((event->has & GW_EVENT_TYPE) && event->type.len)
        gw_lua_push(L, event->type);
    else
        lua_pushliteral(L, "message");
    return 1;
}

static int event_index(lua_State *L)
{
    struct gw_event_ref *ref = check_event(L);
    struct gw_event *event = ref->event;
    gw_event_parse(event);
    switch (member_of(L)) {
    case E_TYPE:
        return push_type(L, event);
    case E_ID:
        if (!(event->has & GW_EVENT_ID))
            return 0;
        lua_pushlstring(L, event->id.ptr ? event->id.ptr : "", event->id.len);
        return 1;
    case E_DATA:
        return push_data(L, event);
    case E_RETRY:
        if (!(event->has & GW_EVENT_RETRY))
            return 0;
        lua_pushnumber(L, (lua_Number)event->retry_ms);
        return 1;
    case E_COMMENT:
        if (!(event->has & GW_EVENT_COMMENT))
            return 0;
        return push_joined(L, event, gw_event_comment_len, gw_event_comment_copy);
    case E_RAW:
        gw_lua_push(L, event->raw);
        return 1;
    case E_JSON:
        return push_json(L, ref);
    case E_ENCODED:
        return push_encoded(L, event);
    }
    return 0;
}

/* The text that is to be set, at index 3; nil removes. */
static struct gw_slice check_text(lua_State *L, enum member m)
{
    if (lua_isnil(L, 3))
        return (struct gw_slice){NULL, 0};
    if (!lua_isstring(L, 3))
        luaL_error(L, "event.%s: expected text, got %s%s", lua_tostring(L, 2), luaL_typename(L, 3),
                   m == E_DATA && lua_istable(L, 3) ? " (assign it to event.json)" : "");
    return gw_lua_slice(L, 3);
}

/* The event has a view of the text at index 3: it must live until the event is written. */
static void anchor(lua_State *L, enum member m)
{
    lua_getfenv(L, 1);
    lua_pushvalue(L, 3);
    lua_rawseti(L, -2, (int)m);
    lua_pop(L, 1);
}

static void encode_json(lua_State *L)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, gw_api_vm(L)->json_encode);
    lua_pushvalue(L, 3);
    lua_call(L, 1, 2);
    if (!lua_isstring(L, -2))
        luaL_error(L, "event.json: %s", lua_tostring(L, -1));
    lua_pop(L, 1);
    lua_replace(L, 3);
}

static int set_retry(lua_State *L, struct gw_event *event)
{
    lua_Number ms = lua_isnil(L, 3) ? 0 : lua_isnumber(L, 3) ? lua_tonumber(L, 3) : -1;
    if (!(ms >= 0 && ms < 9007199254740992.0) || ms != (lua_Number)(uint64_t)ms)
        return luaL_error(L, "event.retry: expected milliseconds, a whole number from 0");
    gw_event_set_retry(event, !lua_isnil(L, 3), (uint64_t)ms);
    return 0;
}

static int set_text(lua_State *L, struct gw_event *event, enum member m)
{
    static enum gw_err (*const setters[])(struct gw_event *, struct gw_slice) = {
        [E_TYPE] = gw_event_set_type,
        [E_ID] = gw_event_set_id,
        [E_DATA] = gw_event_set_data,
        [E_COMMENT] = gw_event_set_comment,
    };
    if (setters[m](event, check_text(L, m)) != GW_OK)
        return luaL_error(L, "event.%s: a line break or NUL can't be sent in it",
                          lua_tostring(L, 2));
    anchor(L, m);
    return 0;
}

static int event_newindex(lua_State *L)
{
    struct gw_event_ref *ref = check_event(L);
    enum member m = member_of(L);
    gw_event_parse(ref->event);
    switch (m) {
    case E_JSON:
        if (!lua_isnil(L, 3))
            encode_json(L);
        /* fall through */
    case E_DATA:
        set_text(L, ref->event, E_DATA);
        if (ref->json != LUA_NOREF)
            forget_json(L, ref);
        return 0;
    case E_TYPE:
    case E_ID:
    case E_COMMENT:
        return set_text(L, ref->event, m);
    case E_RETRY:
        return set_retry(L, ref->event);
    default:
        return luaL_error(L, "event.%s can't be set", lua_tostring(L, 2));
    }
}

void gw_api_event(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    luaL_Reg meta[] = {{"__index", event_index}, {"__newindex", event_newindex}, {NULL, NULL}};
    luaL_newmetatable(L, event_type);
    lua_pushlightuserdata(L, vm);
    lua_newtable(L);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        lua_pushinteger(L, members[i].member);
        lua_setfield(L, -2, members[i].name);
    }
    luaL_setfuncs(L, meta, 2);
    lua_pushliteral(L, "private");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
