/* Owns the event object that hooks see: one per task, used again for every event. Called by plugins
 * through its metatable. Invariant: it is blind (not live) whenever no hook runs, and text that was
 * set lives until the event is written: that of Lua is anchored in the object's environment. */
#include "script/api.h"

#include <stdlib.h>
#include "script/json.h"
#include "script/task.h"
#include "sse/json_field.h"

static const char event_type[] = "gateway.event";

enum member {
    E_NONE,
    E_TYPE,
    E_DATA,
    E_JSON,
    E_ID,
    E_RETRY,
    E_COMMENT,
    E_RAW,
    E_JSON_GET,
    E_JSON_SET,
    E_ENCODED,
    E_LIMIT
};

static const struct gw_slice member_names[E_LIMIT] = {
    [E_TYPE] = GW_SLICE("type"),         [E_DATA] = GW_SLICE("data"),
    [E_JSON] = GW_SLICE("json"),         [E_ID] = GW_SLICE("id"),
    [E_RETRY] = GW_SLICE("retry"),       [E_COMMENT] = GW_SLICE("comment"),
    [E_RAW] = GW_SLICE("raw"),           [E_JSON_GET] = GW_SLICE("json_get"),
    [E_JSON_SET] = GW_SLICE("json_set"), [E_ENCODED] = GW_SLICE("_encoded"),
};

struct gw_event_ref *gw_event_ref_at(lua_State *L, int index)
{
    if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index))
        return NULL;
    luaL_getmetatable(L, event_type);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    struct gw_event_ref *ref = lua_touserdata(L, index);
    return same && ref->live ? ref : NULL;
}

/* The event at index 1, with its fields. Metamethods get nothing else: nobody has the metatable. */
static struct gw_event_ref *check_event(lua_State *L)
{
    struct gw_event_ref *ref = lua_touserdata(L, 1);
    if (!ref->live)
        luaL_error(L, "this event is over: copy what you need of it while the hook runs");
    gw_event_parse(&ref->event);
    return ref;
}

/* Pushes a new object. */
static struct gw_event_ref *ref_push(lua_State *L)
{
    struct gw_event_ref *ref = lua_newuserdata(L, sizeof *ref);
    ref->live = false;
    ref->json = LUA_NOREF;
    gw_buf_init(&ref->text);
    luaL_getmetatable(L, event_type);
    lua_setmetatable(L, -2);
    lua_newtable(L);
    lua_setfenv(L, -2);
    return ref;
}

void gw_event_ref_begin(struct gw_task *task, struct gw_slice raw)
{
    if (!task->event) {
        task->event = ref_push(task->vm->L);
        task->event_ref = luaL_ref(task->vm->L, LUA_REGISTRYINDEX);
    }
    gw_event_init(&task->event->event, raw);
    task->event->live = true;
    lua_rawgeti(task->co, LUA_REGISTRYINDEX, task->event_ref);
}

/* L NULL: the VM is dead, and its registry with it. */
static void forget_json(lua_State *L, struct gw_event_ref *ref)
{
    if (ref->json == LUA_NOREF)
        return;
    if (L)
        luaL_unref(L, LUA_REGISTRYINDEX, ref->json);
    ref->json = LUA_NOREF;
}

static void ref_end(lua_State *L, struct gw_event_ref *ref)
{
    ref->live = false;
    forget_json(L, ref);
    gw_buf_clear(&ref->text);
}

/* Objects for many events, made as they are needed and used again. */
struct gw_event_batch {
    unsigned count, made;
    int objects; /* in the registry: the list that keeps them */
    int list;    /* and the one for the hook, which may do to it what it likes */
    struct gw_event_ref *refs[GW_TURN_EVENTS];
};

static struct gw_event_batch *batch_new(lua_State *L)
{
    struct gw_event_batch *batch = calloc(1, sizeof *batch);
    GW_CHECK(batch != NULL);
    lua_newtable(L);
    batch->objects = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_newtable(L);
    batch->list = luaL_ref(L, LUA_REGISTRYINDEX);
    return batch;
}

void gw_event_batch_begin(struct gw_task *task, const struct gw_slice *raws, unsigned n)
{
    lua_State *L = task->co;
    if (!task->batch)
        task->batch = batch_new(task->vm->L);
    struct gw_event_batch *batch = task->batch;
    lua_rawgeti(L, LUA_REGISTRYINDEX, batch->list);
    lua_rawgeti(L, LUA_REGISTRYINDEX, batch->objects);
    for (; batch->made < n; batch->made++) {
        batch->refs[batch->made] = ref_push(L);
        lua_rawseti(L, -2, (int)batch->made + 1);
    }
    for (unsigned i = 0; i < n; i++) {
        gw_event_init(&batch->refs[i]->event, raws[i]);
        batch->refs[i]->live = true;
        lua_rawgeti(L, -1, (int)i + 1);
        lua_rawseti(L, -3, (int)i + 1);
    }
    lua_pop(L, 1);
    for (unsigned i = (unsigned)lua_objlen(L, -1); i > n; i--) {
        lua_pushnil(L);
        lua_rawseti(L, -2, (int)i);
    }
    batch->count = n;
}

unsigned gw_event_batch_count(const struct gw_task *task)
{
    return task->batch ? task->batch->count : 0;
}

bool gw_event_batch_write(const struct gw_task *task, struct gw_buf *out)
{
    const struct gw_event_batch *batch = task->batch;
    unsigned changed = 0;
    for (unsigned i = 0; i < batch->count; i++)
        changed |= batch->refs[i]->event.changed;
    for (unsigned i = 0; changed && i < batch->count; i++)
        gw_event_write(&batch->refs[i]->event, out);
    return changed;
}

void gw_event_batch_free(struct gw_task *task)
{
    if (!task->batch)
        return;
    if (!task->vm->dead) {
        luaL_unref(task->vm->L, LUA_REGISTRYINDEX, task->batch->objects);
        luaL_unref(task->vm->L, LUA_REGISTRYINDEX, task->batch->list);
    }
    free(task->batch);
    task->batch = NULL;
}

void gw_event_ref_end(struct gw_task *task)
{
    lua_State *L = task->vm->dead ? NULL : task->vm->L;
    struct gw_event_batch *batch = task->batch;
    if (task->event)
        ref_end(L, task->event);
    for (; batch && batch->count; batch->count--)
        ref_end(L, batch->refs[batch->count - 1]);
}

typedef size_t length_fn(struct gw_event *event);
typedef void copy_fn(struct gw_event *event, char *out);

/* Text that stands in several lines is put together first. */
static void push_joined(lua_State *L, struct gw_event *event, length_fn *length, copy_fn *copy)
{
    char small[1024];
    size_t n = length(event);
    char *text = n <= sizeof small ? small : malloc(n);
    GW_CHECK(text != NULL);
    copy(event, text);
    lua_pushlstring(L, text, n);
    if (text != small)
        free(text);
}

void gw_event_push_data(lua_State *L, struct gw_event *event)
{
    if (!(event->has & GW_EVENT_DATA))
        lua_pushnil(L);
    else if (event->data_lines > 1)
        push_joined(L, event, gw_event_data_len, gw_event_data_copy);
    else
        lua_pushlstring(L, event->data.ptr ? event->data.ptr : "", event->data.len);
}

void gw_event_push_comment(lua_State *L, struct gw_event *event)
{
    if (event->has & GW_EVENT_COMMENT)
        push_joined(L, event, gw_event_comment_len, gw_event_comment_copy);
    else
        lua_pushnil(L);
}

/* The data in one piece; several lines of it are put together in `joined`, which is empty. */
static struct gw_slice whole_data(struct gw_event *event, struct gw_buf *joined)
{
    size_t room, n = gw_event_data_len(event);
    if (event->data_lines <= 1)
        return event->data;
    gw_event_data_copy(event, gw_buf_reserve(joined, n, &room));
    gw_buf_commit(joined, n);
    return gw_buf_linear(joined, n);
}

/* Pushes the value of a JSON text, nil where it is none. */
static void push_decoded(lua_State *L, struct gw_slice text)
{
    struct gw_vm *vm = gw_api_vm(L);
    if (gw_lua_json_push(vm, L, text))
        return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->json_decode);
    lua_pushlstring(L, text.ptr ? text.ptr : "", text.len);
    if (lua_pcall(L, 1, 1, 0) == 0)
        return;
    lua_pop(L, 1);
    lua_pushnil(L);
}

/* Decoded once per event. */
static int push_json(lua_State *L, struct gw_event_ref *ref)
{
    struct gw_buf *joined = gw_vm_scratch(gw_api_vm(L), GW_SCRATCH_JOINED);
    if (ref->json != LUA_NOREF) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, ref->json);
        return 1;
    }
    if (!(ref->event.has & GW_EVENT_DATA))
        return 0;
    push_decoded(L, whole_data(&ref->event, joined));
    gw_buf_clear(joined);
    if (lua_istable(L, -1)) {
        lua_pushvalue(L, -1);
        ref->json = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    return 1;
}

/* For gateway.event.encode: what would be sent now. */
static int push_encoded(lua_State *L, const struct gw_event *event)
{
    struct gw_buf *out = gw_vm_scratch(gw_api_vm(L), GW_SCRATCH_ENCODED);
    gw_event_write(event, out);
    struct gw_slice text = gw_buf_linear(out, gw_buf_len(out));
    lua_pushlstring(L, text.ptr ? text.ptr : "", text.len);
    gw_buf_clear(out);
    return 1;
}

static enum member member_of(lua_State *L)
{
    struct gw_slice name;
    name.ptr = lua_tolstring(L, 2, &name.len);
    if (!name.ptr)
        return E_NONE;
    for (enum member m = E_NONE + 1; m < E_LIMIT; m++)
        if (gw_slice_eq(member_names[m], name))
            return m;
    return E_NONE;
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
    struct gw_event *event = &ref->event;
    switch (member_of(L)) {
    case E_TYPE:
        return push_type(L, event);
    case E_ID:
        if (!(event->has & GW_EVENT_ID))
            return 0;
        lua_pushlstring(L, event->id.ptr ? event->id.ptr : "", event->id.len);
        return 1;
    case E_DATA:
        gw_event_push_data(L, event);
        return 1;
    case E_RETRY:
        if (!(event->has & GW_EVENT_RETRY))
            return 0;
        lua_pushnumber(L, (lua_Number)event->retry_ms);
        return 1;
    case E_COMMENT:
        gw_event_push_comment(L, event);
        return 1;
    case E_RAW:
        gw_lua_push(L, event->raw);
        return 1;
    case E_JSON:
        return push_json(L, ref);
    case E_ENCODED:
        return push_encoded(L, event);
    case E_JSON_GET:
        lua_pushvalue(L, lua_upvalueindex(2));
        return 1;
    case E_JSON_SET:
        lua_pushvalue(L, lua_upvalueindex(3));
        return 1;
    default:
        return 0;
    }
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

/* Appends the value at index 3 as JSON. False: why there is none is on the top of the stack. */
static bool encode_value(lua_State *L, struct gw_buf *out)
{
    struct gw_vm *vm = gw_api_vm(L);
    if (gw_lua_json_write(vm, L, 3, out))
        return true;
    gw_buf_clear(out);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->json_encode);
    lua_pushvalue(L, 3);
    lua_call(L, 1, 2);
    if (!lua_isstring(L, -2))
        return false;
    gw_buf_add(out, gw_lua_slice(L, -2));
    lua_pop(L, 2);
    return true;
}

/* The data is what is in text, which is taken over. one_line: there is no line break in it. */
static void take_data(lua_State *L, struct gw_event_ref *ref, struct gw_buf *text, bool one_line)
{
    struct gw_slice data = gw_buf_linear(text, gw_buf_len(text));
    if (one_line)
        gw_event_set_data_line(&ref->event, data);
    else
        (void)gw_event_set_data(&ref->event, data);
    gw_buf_clear(&ref->text);
    ref->text = *text;
    gw_buf_init(text);
    forget_json(L, ref);
}

static int set_json(lua_State *L, struct gw_event_ref *ref)
{
    struct gw_buf *text = gw_vm_scratch(gw_api_vm(L), GW_SCRATCH_VALUE);
    if (!encode_value(L, text))
        return luaL_error(L, "event.json: %s", lua_tostring(L, -1));
    take_data(L, ref, text, true);
    return 0;
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
    switch (m) {
    case E_JSON:
        if (!lua_isnil(L, 3))
            return set_json(L, ref);
        /* fall through */
    case E_DATA:
        set_text(L, &ref->event, E_DATA);
        forget_json(L, ref);
        return 0;
    case E_TYPE:
    case E_ID:
    case E_COMMENT:
        return set_text(L, &ref->event, m);
    case E_RETRY:
        return set_retry(L, &ref->event);
    default:
        return luaL_error(L, "event.%s can't be set", lua_tostring(L, 2));
    }
}

/* The same for a method, which may be called with anything. Its second upvalue is the metatable. */
static struct gw_event_ref *check_self(lua_State *L)
{
    bool same = lua_getmetatable(L, 1) && lua_rawequal(L, -1, lua_upvalueindex(2));
    if (!same)
        luaL_checkudata(L, 1, event_type); /* raises */
    lua_pop(L, 1);
    return check_event(L);
}

/* event:json_get(path) */
static int event_json_get(lua_State *L)
{
    struct gw_event_ref *ref = check_self(L);
    struct gw_slice path = gw_lua_slice(L, 2);
    struct gw_buf *joined = gw_vm_scratch(gw_api_vm(L), GW_SCRATCH_JOINED);
    lua_pushnil(L);
    if (!(ref->event.has & GW_EVENT_DATA))
        return 1;
    struct gw_json_field field = gw_json_find(whole_data(&ref->event, joined), path);
    if (field.type > GW_JSON_ABSENT)
        push_decoded(L, field.value);
    gw_buf_clear(joined);
    return 1;
}

static int refuse(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

/* What stands in the way of a value at this path: the last thing on the way that is there. */
static int refuse_edit(lua_State *L, struct gw_slice data, struct gw_slice path)
{
    const char *end = path.ptr + path.len, *dot = path.ptr;
    struct gw_slice way = gw_slice_of(path.ptr, 0);
    enum gw_json_type type = gw_json_find(data, way).type;
    if (type == GW_JSON_INVALID || path.len == 0)
        return refuse(L, type == GW_JSON_INVALID ? "not JSON" : "no path");
    while (type >= GW_JSON_ARRAY && (dot = memchr(dot, '.', (size_t)(end - dot)))) {
        struct gw_slice next = gw_slice_of(path.ptr, (size_t)(dot++ - path.ptr));
        type = gw_json_find(data, next).type;
        if (type != GW_JSON_ABSENT)
            way = next;
    }
    lua_pushnil(L);
    lua_pushlstring(L, way.ptr, way.len);
    lua_pushfstring(L, "%s is not an object", way.len ? lua_tostring(L, -1) : "the data");
    lua_remove(L, -2);
    return 2;
}

/* Edits the data into a text of its own; text that did not change leaves the event as it came. */
static enum gw_err edit_data(lua_State *L, struct gw_event_ref *ref, struct gw_slice data,
                             struct gw_slice value)
{
    struct gw_buf text;
    gw_buf_init(&text);
    enum gw_err err = gw_json_edit(data, gw_lua_slice(L, 2), value, &text);
    if (err == GW_OK && !gw_slice_eq(gw_buf_linear(&text, gw_buf_len(&text)), data))
        take_data(L, ref, &text, ref->event.data_lines <= 1);
    gw_buf_clear(&text);
    return err;
}

/* event:json_set(path, value) */
static int event_json_set(lua_State *L)
{
    struct gw_event_ref *ref = check_self(L);
    struct gw_slice path = gw_lua_slice(L, 2), value = {NULL, 0};
    struct gw_buf *joined = gw_vm_scratch(gw_api_vm(L), GW_SCRATCH_JOINED);
    struct gw_buf *encoded = gw_vm_scratch(gw_api_vm(L), GW_SCRATCH_VALUE);
    lua_settop(L, 3);
    if (!(ref->event.has & GW_EVENT_DATA))
        return refuse(L, "no data");
    if (!lua_isnil(L, 3)) {
        if (!encode_value(L, encoded))
            return refuse(L, lua_tostring(L, -1));
        value = gw_buf_linear(encoded, gw_buf_len(encoded));
    }
    struct gw_slice data = whole_data(&ref->event, joined);
    bool good = edit_data(L, ref, data, value) == GW_OK;
    int results = 1;
    if (good)
        lua_pushboolean(L, true);
    else
        results = refuse_edit(L, data, path);
    gw_buf_clear(joined);
    gw_buf_clear(encoded);
    return results;
}

/* core.is_event(value): whether it is an event object that a hook may look at. */
static int is_event(lua_State *L)
{
    lua_pushboolean(L, gw_event_ref_at(L, 1) != NULL);
    return 1;
}

static void push_method(struct gw_vm *vm, lua_CFunction function)
{
    lua_pushlightuserdata(vm->L, vm);
    luaL_getmetatable(vm->L, event_type);
    lua_pushcclosure(vm->L, function, 2);
}

void gw_api_event(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    lua_pushcfunction(L, is_event);
    lua_setfield(L, -2, "is_event");
    luaL_Reg meta[] = {{"__index", event_index}, {"__newindex", event_newindex}, {NULL, NULL}};
    luaL_newmetatable(L, event_type);
    lua_pushlightuserdata(L, vm);
    push_method(vm, event_json_get);
    push_method(vm, event_json_set);
    luaL_setfuncs(L, meta, 3);
    lua_pushliteral(L, "private");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
