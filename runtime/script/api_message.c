/* Owns the objects behind ctx.req and ctx.res: tables {handle} whose members are read from and
 * written to the exchange's heads. Called by the Lua library and by plugins. Invariant: nothing
 * that could break a head's syntax, and no framing field, gets into one. */
#include "script/api.h"

#include <stdlib.h>
#include "gateway/relay.h"
#include "http/target.h"
#include "script/task.h"

static const char request_type[] = "gateway.request", response_type[] = "gateway.response",
                  fields_type[] = "gateway.fields";

enum member {
    M_METHOD = 1,
    M_PATH,
    M_QUERY,
    M_QUERYSTRING,
    M_TARGET,
    M_SCHEME,
    M_HOST,
    M_VERSION,
    M_STATUS,
    M_STREAM,
    M_HEADERS,
    M_BODY
};

static const struct {
    const char *name;
    enum member member;
} members[] = {
    {"method", M_METHOD},   {"path", M_PATH},
    {"query", M_QUERY},     {"querystring", M_QUERYSTRING},
    {"target", M_TARGET},   {"scheme", M_SCHEME},
    {"host", M_HOST},       {"version", M_VERSION},
    {"status", M_STATUS},   {"stream", M_STREAM},
    {"headers", M_HEADERS}, {"body", M_BODY},
};

enum { FIELDS_MAX = 1000 };
enum { UPVALUE_VM = 1, UPVALUE_MEMBERS, UPVALUE_METHODS, UPVALUE_RESPONSE };

/* The exchange behind the object at index: {handle, is_response}. */
static struct gw_exchange *exchange_at(lua_State *L, int index)
{
    luaL_checktype(L, index, LUA_TTABLE);
    lua_rawgeti(L, index, 1);
    struct gw_exchange *x = gw_handle_check(L, -1);
    lua_pop(L, 1);
    return x;
}

/* A reply that waits to be sent is the response; before it, what the backend sent. */
static struct gw_head *response_of(struct gw_exchange *x)
{
    const struct gw_way *way = x->way;
    return way && way->reply && way->reply->set ? &way->reply->head : gw_exchange_response(x);
}

static struct gw_head *head_at(lua_State *L, int index)
{
    struct gw_exchange *x = exchange_at(L, index);
    lua_rawgeti(L, index, 2);
    bool response = lua_toboolean(L, -1);
    lua_pop(L, 1);
    struct gw_head *head = response ? response_of(x) : gw_exchange_request(x);
    if (!head)
        luaL_error(L, "there is no %s yet", response ? "response" : "request");
    return head;
}

static struct gw_slice check_text(lua_State *L, int index, const char *what)
{
    if (!lua_isstring(L, index))
        luaL_error(L, "%s: expected text, got %s", what, luaL_typename(L, index));
    return gw_lua_slice(L, index);
}

/* The value of a field, as it may stand in a head. */
static struct gw_slice check_value(lua_State *L, int index, const char *name)
{
    struct gw_slice text = gw_slice_trim(check_text(L, index, name));
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '\r' || text.ptr[i] == '\n' || text.ptr[i] == '\0')
            luaL_error(L, "%s: a line break or NUL can't be sent in a head", name);
    }
    if (!gw_field_value_ok(text))
        luaL_error(L, "%s: a control byte can't be sent in a head", name);
    return text;
}

static struct gw_slice check_name(lua_State *L, int index)
{
    struct gw_slice name = {0};
    if (lua_type(L, index) == LUA_TSTRING)
        name = gw_lua_slice(L, index);
    if (!gw_field_name_ok(name))
        luaL_error(L, "\"%s\" is not a header name", name.ptr ? name.ptr : luaL_typename(L, index));
    if (gw_field_is_framing(name))
        luaL_error(L, "header %s belongs to the gateway's framing", name.ptr);
    return name;
}

/* A script's mistake must not fill memory. */
static void check_room(lua_State *L, const struct gw_head *head, int more)
{
    if (head->count + more > FIELDS_MAX)
        luaL_error(L, "a head has at most %d fields", FIELDS_MAX);
}

/* The i-th of the values at index, or the only one. */
static void push_value(lua_State *L, int index, int i)
{
    if (lua_istable(L, index))
        lua_rawgeti(L, index, i);
    else
        lua_pushvalue(L, index);
}

/* Everything is checked before anything is changed: whoever survives the error has the old value.
 */
void gw_api_set_field(lua_State *L, int name_at, int value, struct gw_head *head)
{
    struct gw_slice name = check_name(L, name_at);
    int count = lua_istable(L, value) ? (int)lua_objlen(L, value) : !lua_isnil(L, value);
    check_room(L, head, count);
    for (int i = 1; i <= count; i++) {
        push_value(L, value, i);
        check_value(L, -1, name.ptr);
        lua_pop(L, 1);
    }
    gw_fields_remove(head, name);
    for (int i = 1; i <= count; i++) {
        push_value(L, value, i);
        gw_fields_add(head, name, check_value(L, -1, name.ptr));
        lua_pop(L, 1);
    }
}

/* Is this the Host of the request object at index 1? It is the authority, and no field of the head.
 */
static bool is_host(lua_State *L, const struct gw_head *head, int name)
{
    return head == gw_exchange_request(exchange_at(L, 1)) && lua_type(L, name) == LUA_TSTRING &&
           gw_slice_ieq(gw_lua_slice(L, name), GW_SLICE("host"));
}

static int set_host(lua_State *L, struct gw_head *head, int index)
{
    if (lua_istable(L, index) && lua_objlen(L, index) == 1) {
        lua_rawgeti(L, index, 1);
        lua_replace(L, index);
    }
    struct gw_slice host = check_text(L, index, "host");
    if (!gw_authority_ok(host))
        return luaL_error(L, "host: \"%s\" is not a host", host.ptr);
    head->authority = gw_arena_copy(head->arena, host);
    return 0;
}

void gw_api_set_fields(lua_State *L, int index, struct gw_head *head)
{
    luaL_checktype(L, index, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, index)) {
        int value = lua_gettop(L);
        gw_api_set_field(L, value - 1, value, head);
        lua_pop(L, 1);
    }
}

/* Several of a name are put together in Lua's memory: an arena would keep them as long as the
 * exchange lasts. */
static void push_joined(lua_State *L, const struct gw_head *head, struct gw_slice name)
{
    luaL_Buffer text;
    bool first = true;
    luaL_buffinit(L, &text);
    for (unsigned i = 0; i < head->count; i++) {
        if (!gw_slice_ieq(head->fields[i].name, name))
            continue;
        if (!first)
            luaL_addlstring(&text, ", ", 2);
        luaL_addlstring(&text, head->fields[i].value.ptr, head->fields[i].value.len);
        first = false;
    }
    luaL_pushresult(&text);
}

static int fields_index(lua_State *L)
{
    struct gw_head *head = head_at(L, 1);
    if (lua_type(L, 2) != LUA_TSTRING)
        return 0;
    struct gw_slice name = gw_lua_slice(L, 2);
    if (is_host(L, head, 2)) {
        gw_lua_push(L, head->authority);
        return 1;
    }
    if (!gw_fields_has(head, name))
        return 0;
    push_joined(L, head, name);
    return 1;
}

static int fields_newindex(lua_State *L)
{
    struct gw_head *head = head_at(L, 1);
    if (is_host(L, head, 2))
        return set_host(L, head, 3);
    gw_api_set_field(L, 2, 3, head);
    return 0;
}

static int message_values(lua_State *L)
{
    struct gw_head *head = head_at(L, 1);
    struct gw_slice name = gw_lua_slice(L, 2);
    lua_newtable(L);
    if (is_host(L, head, 2) && head->authority.len) {
        gw_lua_push(L, head->authority);
        lua_rawseti(L, -2, 1);
        return 1;
    }
    for (unsigned i = 0, n = 0; i < head->count; i++) {
        if (!gw_slice_ieq(head->fields[i].name, name))
            continue;
        gw_lua_push(L, head->fields[i].value);
        lua_rawseti(L, -2, (int)++n);
    }
    return 1;
}

static int message_add(lua_State *L)
{
    struct gw_head *head = head_at(L, 1);
    if (is_host(L, head, 2))
        return set_host(L, head, 3);
    struct gw_slice name = check_name(L, 2);
    check_room(L, head, 1);
    gw_fields_add(head, name, check_value(L, 3, name.ptr));
    return 0;
}

static int next_field(lua_State *L)
{
    struct gw_head *head = head_at(L, lua_upvalueindex(1));
    int i = (int)lua_tointeger(L, lua_upvalueindex(2));
    if (i >= head->count)
        return 0;
    lua_pushinteger(L, i + 1);
    lua_replace(L, lua_upvalueindex(2));
    gw_lua_push(L, head->fields[i].name);
    gw_lua_push(L, head->fields[i].value);
    return 2;
}

static int message_each(lua_State *L)
{
    head_at(L, 1);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_field, 2);
    return 1;
}

/* The header object is made once per message and kept in it. */
static int push_headers(lua_State *L)
{
    lua_rawgeti(L, 1, 3);
    if (!lua_isnil(L, -1))
        return 1;
    lua_createtable(L, 2, 0);
    lua_rawgeti(L, 1, 1);
    lua_rawseti(L, -2, 1);
    lua_rawgeti(L, 1, 2);
    lua_rawseti(L, -2, 2);
    luaL_getmetatable(L, fields_type);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawseti(L, 1, 3);
    return 1;
}

/* Takes the next name=value of a query string; false at the end. */
static bool next_pair(struct gw_slice *rest, struct gw_slice *name, struct gw_slice *value)
{
    while (rest->len) {
        const char *amp = memchr(rest->ptr, '&', rest->len);
        size_t n = amp ? (size_t)(amp - rest->ptr) : rest->len;
        struct gw_slice pair = gw_slice_of(rest->ptr, n);
        *rest = gw_slice_of(rest->ptr + n + !!amp, rest->len - n - !!amp);
        if (!n)
            continue;
        const char *eq = memchr(pair.ptr, '=', pair.len);
        size_t at = eq ? (size_t)(eq - pair.ptr) : pair.len;
        *name = gw_slice_of(pair.ptr, at);
        *value = gw_slice_of(pair.ptr + at + !!eq, pair.len - at - !!eq);
        return true;
    }
    return false;
}

/* The decoded parameters as a fresh table; the first one of a name counts. */
static int push_query(lua_State *L, const struct gw_head *head)
{
    struct gw_slice rest = gw_head_query(head), name, value;
    struct gw_arena arena;
    gw_arena_init(&arena);
    lua_newtable(L);
    while (next_pair(&rest, &name, &value)) {
        gw_lua_push(L, gw_percent_decode(&arena, name, true));
        lua_pushvalue(L, -1);
        lua_rawget(L, -3);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            gw_lua_push(L, gw_percent_decode(&arena, value, true));
            lua_rawset(L, -3);
        } else {
            lua_pop(L, 2);
        }
    }
    gw_arena_clear(&arena);
    return 1;
}

static int push_body(lua_State *L, struct gw_exchange *x)
{
    if (gw_relay_hold_upload(x) == GW_OK)
        gw_lua_push(L, gw_buf_linear(&x->upload, gw_buf_len(&x->upload)));
    else
        lua_pushnil(L);
    if (lua_isnil(L, -1) && x->upload_end && !x->upload_begun && gw_buf_empty(&x->upload))
        lua_pushliteral(L, "");
    return 1;
}

/* Whoever brings the body wakes the exchange, and knows nothing of those who wait for it. */
static void cancel_body(struct gw_task *task)
{
    (void)task;
}

void gw_api_offer_body(struct gw_task *task)
{
    if (task->cancel != cancel_body || gw_relay_hold_upload(task->x) == GW_AGAIN)
        return;
    push_body(task->co, task->x);
    gw_task_wake(task);
}

/* The body whole; the hook waits until it has come. */
static int read_body(lua_State *L, struct gw_exchange *x)
{
    if (gw_relay_hold_upload(x) != GW_AGAIN)
        return push_body(L, x);
    struct gw_task *task = gw_task_may_wait(L, "ctx.req.body");
    if (task->own || task->x != x)
        return gw_api_raise(L, "ctx.req.body: only a hook can wait for it; read it there first");
    gw_task_wait(task, cancel_body);
    return lua_yield(L, 0);
}

static int set_body(lua_State *L, struct gw_exchange *x)
{
    struct gw_slice text = check_text(L, 3, "body");
    if (gw_relay_hold_upload(x) != GW_OK)
        return luaL_error(L, "ctx.req.body: read it whole before it is replaced");
    gw_buf_clear(&x->upload);
    gw_buf_add(&x->upload, text);
    struct gw_head *request = gw_exchange_request(x);
    request->length = (int64_t)text.len;
    request->has_body = true;
    return 0;
}

static enum member member_of(lua_State *L, int key)
{
    lua_pushvalue(L, key);
    lua_rawget(L, lua_upvalueindex(UPVALUE_MEMBERS));
    enum member m = (enum member)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return m;
}

static int push_slice(lua_State *L, struct gw_slice s)
{
    gw_lua_push(L, s);
    return 1;
}

static int push_method_named(lua_State *L)
{
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(UPVALUE_METHODS));
    return 1;
}

static int request_index(lua_State *L)
{
    enum member m = member_of(L, 2);
    if (m == M_HEADERS)
        return push_headers(L);
    if (!m)
        return push_method_named(L);
    struct gw_head *head = head_at(L, 1);
    switch (m) {
    case M_METHOD:
        return push_slice(L, head->method);
    case M_PATH:
        return push_slice(L, gw_head_path(head));
    case M_QUERY:
        return push_query(L, head);
    case M_QUERYSTRING: {
        struct gw_slice query = gw_head_query(head);
        return push_slice(L, query.ptr ? query : GW_SLICE(""));
    }
    case M_TARGET:
        return push_slice(L, head->path);
    case M_SCHEME:
        return push_slice(L, head->scheme);
    case M_HOST:
        return push_slice(L, head->authority);
    case M_BODY:
        return read_body(L, exchange_at(L, 1));
    case M_VERSION:
        lua_pushfstring(L, "1.%d", (int)head->minor);
        return 1;
    default:
        return 0;
    }
}

/* What is at index 3, as the path, the query or both. */
static struct gw_slice check_target(lua_State *L, enum member m)
{
    const char *what = lua_tostring(L, 2);
    struct gw_slice text = check_text(L, 3, what);
    if (m != M_QUERYSTRING && (text.len == 0 || text.ptr[0] != '/'))
        luaL_error(L, "%s: begins with /", what);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c <= ' ' || c >= 0x7f || c == '#' || (c == '?' && m == M_PATH))
            luaL_error(L, "%s: byte %d has to be percent-encoded", what, (int)c);
    }
    return text;
}

static void set_target(struct gw_head *head, struct gw_slice path, struct gw_slice query)
{
    const char *sep = query.ptr ? "?" : ""; /* a query may be empty */
    head->path = gw_arena_printf(head->arena, "%.*s%s%.*s", (int)path.len, path.ptr, sep,
                                 (int)query.len, query.ptr ? query.ptr : "");
}

static int set_request_path(lua_State *L, struct gw_head *head, enum member m)
{
    struct gw_slice text = check_target(L, m);
    if (m == M_QUERYSTRING)
        set_target(head, gw_head_path(head), text.len ? text : gw_slice_of(NULL, 0));
    else if (m == M_PATH)
        set_target(head, text, gw_head_query(head));
    else
        head->path = gw_arena_copy(head->arena, text);
    return 0;
}

static int set_method(lua_State *L, struct gw_head *head)
{
    struct gw_slice method = check_text(L, 3, "method");
    if (!gw_field_name_ok(method))
        return luaL_error(L, "method: \"%s\" is not a method", method.ptr);
    head->method = gw_arena_copy(head->arena, method);
    return 0;
}

static int request_newindex(lua_State *L)
{
    struct gw_head *head = head_at(L, 1);
    enum member m = member_of(L, 2);
    switch (m) {
    case M_PATH:
    case M_TARGET:
    case M_QUERYSTRING:
        return set_request_path(L, head, m);
    case M_BODY:
        return set_body(L, exchange_at(L, 1));
    case M_METHOD:
        return set_method(L, head);
    case M_HOST:
        return set_host(L, head, 3);
    default:
        return luaL_error(L, "ctx.req.%s can't be set", lua_tostring(L, 2));
    }
}

static int response_index(lua_State *L)
{
    enum member m = member_of(L, 2);
    if (m == M_HEADERS)
        return push_headers(L);
    if (m == M_STATUS) {
        lua_pushinteger(L, head_at(L, 1)->status);
        return 1;
    }
    if (m == M_STREAM) {
        lua_pushboolean(L, gw_relay_is_stream(exchange_at(L, 1)));
        return 1;
    }
    return push_method_named(L);
}

static int response_newindex(lua_State *L)
{
    struct gw_head *head = head_at(L, 1);
    if (member_of(L, 2) != M_STATUS)
        return luaL_error(L, "ctx.res.%s can't be set", lua_tostring(L, 2));
    unsigned status = gw_api_check_status(L, 3, "status: 200 to 599");
    bool bare = status == 204 || status == 304;
    if (bare && head->has_body)
        return luaL_error(L, "status: a response with a body can't be a %d", (int)status);
    head->status = status;
    return 0;
}

static int push_message(lua_State *L, const char *type, bool response)
{
    struct gw_exchange *x = gw_handle_check(L, 1);
    if (response && !response_of(x))
        return 0;
    lua_createtable(L, 3, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    lua_pushboolean(L, response);
    lua_rawseti(L, -2, 2);
    luaL_getmetatable(L, type);
    lua_setmetatable(L, -2);
    return 1;
}

static int core_request(lua_State *L)
{
    return push_message(L, request_type, false);
}

static int core_response(lua_State *L)
{
    return push_message(L, response_type, true);
}

static const luaL_Reg methods[] = {
    {"values", message_values}, {"add", message_add}, {"each", message_each}, {NULL, NULL}};
static const luaL_Reg functions[] = {
    {"request", core_request}, {"response", core_response}, {NULL, NULL}};

static void push_members(lua_State *L)
{
    lua_newtable(L);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        lua_pushinteger(L, members[i].member);
        lua_setfield(L, -2, members[i].name);
    }
}

/* A metatable whose functions have the VM, the member codes and the methods as upvalues. */
static void new_type(struct gw_vm *vm, const char *type, lua_CFunction index,
                     lua_CFunction newindex)
{
    lua_State *L = vm->L;
    luaL_Reg meta[] = {{"__index", index}, {"__newindex", newindex}, {NULL, NULL}};
    luaL_newmetatable(L, type);
    lua_pushlightuserdata(L, vm);
    push_members(L);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    luaL_setfuncs(L, meta, 3);
    lua_pushliteral(L, "private");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void gw_api_message(struct gw_vm *vm)
{
    new_type(vm, request_type, request_index, request_newindex);
    new_type(vm, response_type, response_index, response_newindex);
    new_type(vm, fields_type, fields_index, fields_newindex);
    lua_pushlightuserdata(vm->L, vm);
    luaL_setfuncs(vm->L, functions, 1);
}
