/* From the effective configuration, a Lua table, to the plain struct of the gateway floor. */
#ifndef GW_CONFIG_SETTINGS_H
#define GW_CONFIG_SETTINGS_H

#include <lua.h>
#include "gateway/settings.h"

/* Reads the table on the stack's top, where every default is filled in; it stays there. False, with
 * the key logged, when a value is not of the type that the schema promises. */
bool gw_settings_read(lua_State *L, struct gw_settings *out);

#endif
