/* Owns the calls that plugins make: what Lua holds of a fetch, and who waits for it. Called by
 * lua/gateway/http.lua. Invariant: a callback of a fetch touches no Lua state but wakes the task,
 * which takes what is there when it runs; a call is in the list of its exchange or of its VM as
 * long as it holds anything. */
#include "script/api.h"

#include "gateway/fetch.h"
#include "http/target.h"
#include "script/company.h"
#include "script/task.h"

static const char call_type[] = "gateway.call";

enum want { WANT_ANSWER, WANT_HEAD, WANT_PIECE, WANT_EVENT };

/* A full userdata. */
struct call {
    struct gw_fetch *fetch; /* NULL: closed, or all of it has been taken */
    struct gw_list node;
    struct gw_task *task; /* waits for `want` */
    enum want want;
    enum gw_err why; /* without a fetch: how it ended */
    size_t max_event_bytes;
    struct gw_buf in; /* events: what has been taken of the body and is not read yet */
    struct gw_sse_scan scan;
    uint32_t scanned; /* bytes of `in` that belong to the event at its front */
    bool begun;       /* a BOM can't come any more */
    bool whole;       /* the event at the front is */
};

static const char *err_text(enum gw_err err)
{
    switch (err) {
    case GW_ERR_TOTAL_TIMEOUT:
    case GW_ERR_DIAL_TIMEOUT:
        return "timeout";
    case GW_ERR_REFUSED:
        return "connection refused";
    case GW_ERR_UNKNOWN_NAME:
        return "unknown host";
    case GW_ERR_RESOLVE:
        return "no name server answered";
    case GW_ERR_TRUNCATED:
        return "truncated";
    case GW_ERR_BODY_TOO_LARGE:
    case GW_ERR_HEAD_TOO_LARGE:
        return "answer too large";
    case GW_ERR_EVENT_TOO_LARGE:
        return "event too large";
    case GW_ERR_OVERLOADED:
        return "overloaded";
    case GW_ERR_SHUTDOWN:
        return "shutdown";
    case GW_ERR_CLOSED:
    case GW_ERR_CANCELLED:
        return "closed";
    case GW_EOF:
    case GW_ERR_RESET:
    case GW_ERR_PEER_TIMEOUT:
    case GW_ERR_IO:
        return "connection closed";
    default:
        return "bad response";
    }
}

static struct call *check_call(lua_State *L)
{
    return luaL_checkudata(L, 1, call_type);
}

static bool is_over(const struct call *call)
{
    return !call->fetch || call->fetch->over;
}

static enum gw_err end_of(const struct call *call)
{
    return call->fetch ? call->fetch->why : call->why;
}

/* All of it has been taken, or it is not wanted any more: nothing is held behind this. */
static void drop_call(struct call *call, enum gw_err why)
{
    gw_list_remove(&call->node);
    gw_fetch_free(call->fetch);
    gw_buf_clear(&call->in);
    call->fetch = NULL;
    call->why = why;
    call->whole = false;
}

static void wake(struct call *call)
{
    struct gw_task *task = call->task;
    call->task = NULL;
    if (task)
        gw_task_wake(task);
}

/* Events: takes over what the body has, as far as there is no whole event yet. */
static void take_body(struct call *call)
{
    static const char bom[] = "\xef\xbb\xbf";
    char first[sizeof bom - 1];
    if (call->fetch)
        gw_fetch_take(call->fetch, &call->in);
    size_t n = gw_buf_copy_out(&call->in, 0, first, sizeof first);
    if (call->begun || n == 0)
        return;
    bool mark = memcmp(first, bom, n) == 0;
    if (mark && n < sizeof first)
        return;
    call->begun = true;
    if (!mark)
        return;
    gw_buf_consume(&call->in, n);
    gw_sse_scan_run(&call->scan, bom, n); /* a second one would be text */
}

/* Is the block at the front of `in` whole? What the LF of a CR LF begins is not. */
static bool scan_block(struct call *call)
{
    char first;
    if (call->scanned == 0 && gw_buf_copy_out(&call->in, 0, &first, 1) &&
        gw_sse_scan_skip_lf(&call->scan, &first, 1))
        gw_buf_consume(&call->in, 1);
    return gw_sse_scan_buf(&call->scan, &call->in, &call->scanned);
}

static void skip_block(struct call *call)
{
    gw_buf_consume(&call->in, call->scanned);
    call->scanned = 0;
    call->whole = false;
}

/* Looks for the next event; comments alone are none. */
static bool find_event(struct call *call)
{
    while (!call->whole) {
        if (!call->begun || gw_buf_len(&call->in) == call->scanned)
            take_body(call);
        if (!call->begun || !scan_block(call))
            break;
        call->whole = gw_event_has_fields(gw_buf_linear(&call->in, call->scanned));
        if (!call->whole)
            skip_block(call);
    }
    if (call->max_event_bytes && call->scanned > call->max_event_bytes)
        drop_call(call, GW_ERR_EVENT_TOO_LARGE);
    return call->whole;
}

static bool is_ready(struct call *call)
{
    switch (call->want) {
    case WANT_HEAD:
        return is_over(call) || call->fetch->response;
    case WANT_PIECE:
        return is_over(call) || call->fetch->uncredited || !gw_buf_empty(&call->in);
    case WANT_EVENT:
        return find_event(call) || is_over(call);
    case WANT_ANSWER:
        break;
    }
    return is_over(call);
}

static void on_changed(struct gw_fetch *fetch)
{
    struct call *call = fetch->owner;
    if (call->task && is_ready(call))
        wake(call);
}

/* The task is dropped. An answer that is not here yet is nobody else's; a stream may be. */
static void cancel_wait(struct gw_task *task)
{
    struct call *call = task->waits_for;
    call->task = NULL;
    if (call->want == WANT_ANSWER || call->want == WANT_HEAD)
        drop_call(call, GW_ERR_CANCELLED);
}

/* Lua: call:wait(what): yields until that is here, or will never be. */
static int call_wait(lua_State *L)
{
    static const char *const names[] = {"answer", "head", "piece", "event", NULL};
    struct call *call = check_call(L);
    if (call->task)
        return gw_api_raise(L, "gateway.http: another task waits for this response already");
    call->want = (enum want)luaL_checkoption(L, 2, NULL, names);
    if (is_ready(call))
        return 0;
    struct gw_task *task = gw_task_may_wait(L, "gateway.http");
    call->task = task;
    task->waits_for = call;
    gw_task_wait(task, cancel_wait);
    return lua_yield(L, 0);
}

static int push_error(lua_State *L, enum gw_err why)
{
    lua_pushnil(L);
    if (why == GW_OK)
        return 1;
    lua_pushstring(L, err_text(why));
    return 2;
}

/* {name, value, name, value, …} */
static void push_fields(lua_State *L, const struct gw_head *head)
{
    lua_createtable(L, head->count * 2, 0);
    for (int i = 0; i < head->count; i++) {
        gw_lua_push(L, head->fields[i].name);
        lua_rawseti(L, -2, 2 * i + 1);
        gw_lua_push(L, head->fields[i].value);
        lua_rawseti(L, -2, 2 * i + 2);
    }
}

static void push_all(lua_State *L, struct gw_buf *buf)
{
    gw_lua_push(L, gw_buf_linear(buf, gw_buf_len(buf)));
    if (lua_isnil(L, -1))
        lua_pushliteral(L, "");
}

/* Lua: call:answer() -> status, fields, body (nil where it is streamed); or nil, error. */
static int call_answer(lua_State *L)
{
    struct call *call = check_call(L);
    struct gw_fetch *f = call->fetch;
    enum gw_err why = end_of(call);
    if (!f || !f->response || (!f->streamed && why != GW_OK)) {
        drop_call(call, why);
        return push_error(L, why);
    }
    lua_pushinteger(L, (lua_Integer)f->response->status);
    push_fields(L, f->response);
    if (f->streamed)
        return 2;
    push_all(L, &f->body);
    drop_call(call, GW_OK);
    return 3;
}

/* Lua: call:read() -> the bytes that are here; nil at the end; nil, error. */
static int call_read(lua_State *L)
{
    struct call *call = check_call(L);
    if (call->fetch)
        gw_fetch_take(call->fetch, &call->in);
    if (gw_buf_empty(&call->in)) {
        drop_call(call, end_of(call));
        return push_error(L, call->why);
    }
    push_all(L, &call->in);
    gw_buf_clear(&call->in);
    call->scanned = 0;
    call->whole = false;
    gw_sse_scan_init(&call->scan);
    return 1;
}

/* Pushes raw, type, id, data, retry, comment; nil for what is not there. */
static int push_event(lua_State *L, struct gw_event *event)
{
    gw_event_parse(event);
    gw_lua_push(L, event->raw);
    gw_lua_push(L, event->has & GW_EVENT_TYPE ? event->type : (struct gw_slice){0});
    gw_lua_push(L, event->has & GW_EVENT_ID ? event->id : (struct gw_slice){0});
    gw_event_push_data(L, event);
    if (event->has & GW_EVENT_RETRY)
        lua_pushnumber(L, (lua_Number)event->retry_ms);
    else
        lua_pushnil(L);
    gw_event_push_comment(L, event);
    return 6;
}

/* Lua: call:event() -> the event that is here, in parts; nil at the end; nil, error. */
static int call_event(lua_State *L)
{
    struct call *call = check_call(L);
    struct gw_event event;
    if (!find_event(call)) {
        drop_call(call, end_of(call));
        return push_error(L, call->why);
    }
    gw_event_init(&event, gw_buf_linear(&call->in, call->scanned));
    int count = push_event(L, &event);
    skip_block(call);
    return count;
}

/* Lua: call:close() */
static int call_close(lua_State *L)
{
    struct call *call = check_call(L);
    if (!call->fetch && gw_list_empty(&call->node))
        return 0;
    drop_call(call, GW_ERR_CLOSED);
    wake(call);
    return 0;
}

/* Where nobody has closed it: at the latest its exchange has, or its VM before that is closed. */
static int call_gc(lua_State *L)
{
    struct call *call = lua_touserdata(L, 1);
    if (!gw_list_empty(&call->node))
        drop_call(call, GW_ERR_CLOSED);
    return 0;
}

void gw_calls_close(struct gw_list *calls)
{
    while (!gw_list_empty(calls)) {
        struct call *call = GW_CONTAINER(calls->next, struct call, node);
        drop_call(call, GW_ERR_CLOSED);
        wake(call);
    }
}

static struct gw_list *owner_of(const struct gw_task *task)
{
    struct gw_handle *handle = task->x ? task->x->script.handle : NULL;
    return handle ? &gw_company_of(handle)->calls : &task->vm->calls;
}

static struct call *push_call(lua_State *L, struct gw_task *task)
{
    struct call *call = lua_newuserdata(L, sizeof *call);
    *call = (struct call){0};
    gw_list_init(&call->node);
    gw_buf_init(&call->in);
    gw_sse_scan_init(&call->scan);
    luaL_getmetatable(L, call_type);
    lua_setmetatable(L, -2);
    call->fetch = gw_fetch_new(task->vm->generation->gateway, on_changed, call);
    gw_list_push(owner_of(task), &call->node); /* an error behind this leaves it to its owner */
    return call;
}

/* The name for whom a server listens at that address. */
static void set_host(lua_State *L, struct gw_head *head)
{
    struct gw_slice host = gw_fields_get(head, GW_SLICE("host"));
    if (!host.ptr)
        return;
    if (!gw_authority_ok(host))
        luaL_error(L, "host: \"%s\" is not a host", host.ptr);
    head->authority = host;
    gw_fields_remove(head, GW_SLICE("host"));
}

static int set_fields(lua_State *L)
{
    struct gw_head *head = lua_touserdata(L, 2);
    gw_api_set_fields(L, 1, head);
    set_host(L, head);
    return 0;
}

/* What is wrong with them is told where the plugin asks, not in the library. */
static void take_fields(lua_State *L, int index, struct gw_head *head)
{
    lua_pushcfunction(L, set_fields);
    lua_pushvalue(L, index);
    lua_pushlightuserdata(L, head);
    if (lua_pcall(L, 2, 0, 0) != 0)
        gw_api_raise(L, "gateway.http: %s", lua_tostring(L, -1));
}

static uint64_t check_timeout(lua_State *L, int index, uint64_t otherwise)
{
    return lua_isnoneornil(L, index) ? otherwise : gw_task_check_ms(L, index, "timeout");
}

static size_t check_size(lua_State *L, int index, size_t otherwise)
{
    if (lua_isnoneornil(L, index))
        return otherwise;
    lua_Number size = luaL_checknumber(L, index);
    if (!(size >= 0 && size < 1e15))
        gw_api_raise(L, "gateway.http: max_bytes: not a size: %f", size);
    return (size_t)size;
}

/* Lua: core.fetch(method, url, headers, body, timeout, max_bytes, streamed) -> call, which is under
 * way. Raises on misuse. */
static int core_fetch(lua_State *L)
{
    struct gw_task *task = gw_task_may_wait(L, "gateway.http");
    const struct gw_generation *generation = task->vm->generation;
    if (!generation || !generation->gateway->pool.settings)
        return gw_api_raise(L, "gateway.http: nothing is served yet");
    struct gw_slice method = gw_lua_slice(L, 1), url = gw_lua_slice(L, 2);
    const struct gw_settings *s = generation->gateway->pool.settings;
    struct gw_fetch_wish wish = {
        .has_payload = !lua_isnoneornil(L, 4),
        .payload = lua_isnoneornil(L, 4) ? GW_SLICE("") : gw_lua_slice(L, 4),
        .timeout_ms = check_timeout(L, 5, s->call_ms),
        .max_bytes = check_size(L, 6, s->max_call_bytes),
        .streamed = lua_toboolean(L, 7),
    };
    struct call *call = push_call(L, task);
    const char *wrong = gw_fetch_target(call->fetch, method, url);
    if (wrong)
        return gw_api_raise(L, "gateway.http: %s %s: %s", method.ptr, url.ptr, wrong);
    if (!lua_isnoneornil(L, 3))
        take_fields(L, 3, &call->fetch->request);
    call->max_event_bytes = s->max_event_bytes;
    gw_fetch_start(call->fetch, &wish);
    return 1;
}

static const luaL_Reg methods[] = {
    {"wait", call_wait},   {"answer", call_answer}, {"read", call_read},
    {"event", call_event}, {"close", call_close},   {NULL, NULL},
};

void gw_api_http(struct gw_vm *vm)
{
    lua_State *L = vm->L;
    luaL_newmetatable(L, call_type);
    lua_createtable(L, 0, 5);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, call_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "private");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    lua_pushcfunction(L, core_fetch);
    lua_setfield(L, -2, "fetch");
}
