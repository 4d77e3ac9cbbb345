/* JSON between text and Lua values, for what events are made of. What is unusual or wrong is left
 * to gateway.json, which stands on cjson and knows the words for it: a "no" from here is no error.
 */
#ifndef GW_SCRIPT_JSON_H
#define GW_SCRIPT_JSON_H

#include <lua.h>
#include <stdbool.h>
#include "base/buf.h"
#include "base/slice.h"

struct gw_vm;

/* Pushes the value of a JSON text as gateway.json.decode gives it. False, and nothing pushed:
 * gateway.json has to look at it. */
bool gw_lua_json_push(struct gw_vm *vm, lua_State *L, struct gw_slice text);
/* Appends the value at index as JSON, as gateway.json.encode writes it. False: gateway.json has to
 * look at it, and out has to be cleared. */
bool gw_lua_json_write(struct gw_vm *vm, lua_State *L, int index, struct gw_buf *out);
/* Adds json_decode(text) and json_encode(value) to the table on the stack's top: both return
 * nothing where they leave it to gateway.json. */
void gw_api_json(struct gw_vm *vm);

#endif
