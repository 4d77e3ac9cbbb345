/* The hooks of the gateway, decided in Lua; and the making of generations. */
#ifndef GW_SCRIPT_HOOKS_H
#define GW_SCRIPT_HOOKS_H

#include "gateway/exchange.h"
#include "script/vm.h"

/* Fills settings from the Lua table on the top of the stack; config/ has it. False: logged. */
typedef bool gw_read_settings(lua_State *L, struct gw_settings *out);

/* A generation over a loaded VM, which it owns from now on; one reference. Instances are looked up
 * in the gateway's pool. NULL (and the VM is freed) when the program's data is not as it should be.
 */
struct gw_generation *gw_generation_new(struct gw_vm *vm, struct gw_gateway *gateway,
                                        uint64_t number, gw_read_settings *read_settings);
/* A reference of a stream that is elsewhere and may come back; let_go gives it up, and return makes
 * it one like any other, since the stream has come back. */
struct gw_generation *gw_generation_keep(struct gw_generation *generation);
void gw_generation_let_go(struct gw_generation *generation);
struct gw_generation *gw_generation_return(struct gw_generation *generation);
/* Its VM is dead (script/watchdog.h), which is logged and counted: all its exchanges forget what
 * they had in there, and another VM is made aside of the loop. Until that is there the hooks wait.
 * x: what it worked for, or NULL. */
void gw_generation_died(struct gw_generation *generation, struct gw_exchange *x);
/* Has another VM made, unless one is on its way, for an exchange that is about to wait for it. */
void gw_generation_revive(struct gw_generation *generation);
/* What its plugins start while they are loaded begins later in its next VM: each time twice as
 * late. Hooks do not wait for that. */
void gw_generation_pause(struct gw_generation *generation);
/* Tells the program which instances a host name has: struct gw_hooks. */
void gw_generation_resolved(struct gw_generation *generation, unsigned name,
                            struct gw_instance *const *instances, unsigned count);
/* Forgets all that x has in the dead VM of a generation. */
void gw_hooks_forget(struct gw_exchange *x, const struct gw_generation *generation);
/* The hooks that a generation of Lua has. */
extern const struct gw_hooks gw_lua_hooks;

#endif
