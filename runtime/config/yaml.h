/* YAML text to Lua tables that remember where everything stood. */
#ifndef GW_CONFIG_YAML_H
#define GW_CONFIG_YAML_H

#include <lua.h>

/* Lua: (text [, filename]) -> tree, marks | nil, {line=, col=, message=}.
 *
 * Reads one YAML 1.2 document (core schema; aliases and `<<` merges allowed). Keys are strings,
 * null is the light userdata NULL, an empty text is null. Nesting, the number of nodes (those
 * reached through aliases counted each time) and the length of the text are bounded. Tables
 * reached through an alias are shared: treat tree and marks as read-only.
 *
 * A mark is {line=, col=, kind="map"|"list"|"scalar"}, both counted from 1 in characters; a list
 * adds at[index] = mark, a map at[key] = mark, key_at[key] = {line=, col=} and keys = {in order};
 * a scalar adds plain=true (not quoted) and, if it is not a string, text= as it was written.
 * The outermost mark also has file=. */
int gw_yaml_parse(lua_State *L);

/* Lua: a table with `parse` (the function above), for package.loadlib. */
int luaopen_gateway_yaml(lua_State *L);

#endif
