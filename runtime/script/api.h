/* What Lua can call: the module gateway.core and the objects it gives. Private to script/. */
#ifndef GW_SCRIPT_API_H
#define GW_SCRIPT_API_H

#include "gateway/exchange.h"
#include "script/vm.h"
#include "sse/event.h"

struct gw_company;
struct gw_fallback;
struct gw_task;

/* What Lua holds of an exchange: a full userdata. x is NULL when the exchange is over. */
struct gw_handle {
    struct gw_exchange *x;
    struct gw_company *company;   /* NULL until there is any */
    struct gw_fallback *fallback; /* context.c; NULL: none */
};

/* The event object of a task. */
struct gw_event_ref {
    bool live;          /* a hook may look at it */
    int json;           /* reference to the decoded data, or LUA_NOREF */
    struct gw_buf text; /* data that was made here from JSON; event has a view of it */
    struct gw_event event;
};

/* Registers gateway.core in package.loaded, with everything below. */
void gw_api_open(struct gw_vm *vm);
/* Each adds its functions to the table on the stack's top, with the VM as upvalue. */
void gw_api_core(struct gw_vm *vm);
void gw_api_balance(struct gw_vm *vm);
void gw_api_message(struct gw_vm *vm);
void gw_api_event(struct gw_vm *vm);
void gw_api_shared(struct gw_vm *vm);
void gw_api_crypto(struct gw_vm *vm);
void gw_api_http(struct gw_vm *vm);
void gw_api_task(struct gw_vm *vm);
void gw_api_retry(struct gw_vm *vm);

/* Frees what keyed hashes have needed. */
void gw_api_crypto_end(struct gw_vm *vm);
void gw_api_service(struct gw_vm *vm);

/* The VM that a C function of the API belongs to (its first upvalue). */
static inline struct gw_vm *gw_api_vm(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* The instance of this version that Lua calls by this number; NULL before the version serves. */
static inline struct gw_instance *gw_api_instance(const struct gw_vm *vm, lua_Integer index)
{
    const struct gw_generation *generation = vm->generation;
    if (!generation || index < 1 || index > (lua_Integer)generation->instance_count)
        return NULL;
    return generation->instances[index - 1];
}

/* Pushes a new handle on L. */
struct gw_handle *gw_handle_push(lua_State *L, struct gw_exchange *x);
/* The exchange of the handle at that index; a Lua error when it is over or no handle. */
struct gw_exchange *gw_handle_check(lua_State *L, int index);

/* Adds whom a line is about: id, step and rule. x may be NULL. */
void gw_api_log_exchange(struct gw_log_line *line, const struct gw_exchange *x);
/* Logs and counts the error on the top of L: the pipeline's table of plugin, hook, message,
 * traceback, event; or a plain error of the gateway's own Lua. It stays there. failed: the thread
 * that raised it. */
void gw_api_log_error(lua_State *L, lua_State *failed, struct gw_exchange *x);
/* The same for a task of its own, which may have no exchange. */
void gw_api_log_task_error(lua_State *L, struct gw_task *task);

/* Sets fields of head from the Lua table at index: name = text or list of texts. Lua error on names
 * or values that may not stand in a head. */
void gw_api_set_fields(lua_State *L, int index, struct gw_head *head);
/* The same for the name and the value (text, number, list of them, nil = remove) at these indices.
 */
void gw_api_set_field(lua_State *L, int name, int value, struct gw_head *head);
/* The final status at index; else a Lua error with that text. */
unsigned gw_api_check_status(lua_State *L, int index, const char *text);

/* Wakes a hook that waits for the request body, when that has come or never will. */
void gw_api_offer_body(struct gw_task *task);

/* Closes the calls in the list of an exchange or a VM. */
void gw_calls_close(struct gw_list *calls);

/* Pushes the task's event object on its thread, to stand for the event of these bytes. */
void gw_event_ref_begin(struct gw_task *task, struct gw_slice raw);
/* The object at index, if it is an event object of C that a hook may look at. */
struct gw_event_ref *gw_event_ref_at(lua_State *L, int index);
/* Pushes a list of event objects on the task's thread, to stand for n events, at most
 * GW_TURN_EVENTS. */
void gw_event_batch_begin(struct gw_task *task, const struct gw_slice *raws, unsigned n);
/* How many events the task's hook sees as a list; 0: one, or none. */
unsigned gw_event_batch_count(const struct gw_task *task);
/* Appends these events as the hook left them to out; false, and nothing is written, where it has
 * not changed any. */
bool gw_event_batch_write(const struct gw_task *task, struct gw_buf *out);
void gw_event_batch_free(struct gw_task *task);
/* Push the data or the comments of an event that has been parsed, in one piece; nil for none. */
void gw_event_push_data(lua_State *L, struct gw_event *event);
void gw_event_push_comment(lua_State *L, struct gw_event *event);
/* No hook may look at the task's event, or events, any more. */
void gw_event_ref_end(struct gw_task *task);

/* Raises an error that names the line of the plugin or route that called into the gateway's Lua. */
int gw_api_raise(lua_State *L, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline struct gw_slice gw_lua_slice(lua_State *L, int index)
{
    size_t len;
    const char *text = luaL_checklstring(L, index, &len);
    return gw_slice_of(text, len);
}

static inline void gw_lua_push(lua_State *L, struct gw_slice s)
{
    if (s.ptr)
        lua_pushlstring(L, s.ptr, s.len);
    else
        lua_pushnil(L);
}

#endif
