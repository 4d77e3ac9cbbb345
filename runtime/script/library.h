/* The gateway's own Lua library as bytecode. It belongs to the running program: read and parsed
 * once, at the start, it is the same for all VMs, and in all workers, until the end. */
#ifndef GW_SCRIPT_LIBRARY_H
#define GW_SCRIPT_LIBRARY_H

#include <lua.h>

struct gw_library;

/* Reads dir/gateway and all below it. NULL, with the reason logged, when there is a fault. */
struct gw_library *gw_library_new(const char *dir);
void gw_library_free(struct gw_library *library);
/* Lets `require` in a Lua state find modules here, and not on disk. Outlives the state. */
void gw_library_use(const struct gw_library *library, lua_State *L);

#endif
