/* Stops Lua that does not come back or eats too much memory. Each thread that runs Lua has a
 * watchdog of its own, which counts the CPU time of that thread.
 *
 * First an error is raised in the program, at its next instruction; after a grace again and again.
 * What does not notice (compiled code, a pattern that backtracks without end, one huge allocation)
 * is jumped out of: the call returns GW_LUA_STOPPED, and its VM is dead: nothing of it may be
 * touched but its memory, and gw_vm_free. */
#ifndef GW_SCRIPT_WATCHDOG_H
#define GW_SCRIPT_WATCHDOG_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct gw_vm;

/* What the calls below return beside the results of lua_resume and lua_pcall. */
enum { GW_LUA_STOPPED = -1 };

/* For the calling thread, which must call stop before it ends. False: it has one already. Without
 * one (or where the system has no timer for it, which is logged) only memory is watched. */
bool gw_watchdog_start(void);
void gw_watchdog_stop(void);
/* To be called for a new VM, before any function of C is put into it. */
void gw_watchdog_attach(lua_State *L);

/* lua_resume and lua_pcall under the limits of the VM. */
int gw_watch_resume(struct gw_vm *vm, lua_State *co, int nargs);
int gw_watch_pcall(struct gw_vm *vm, lua_State *L, int nargs, int nresults, int handler);
/* A program that took too much memory has been got rid of: collects what it has left. Between the
 * error and this nobody else is stopped for it. */
void gw_watch_digest(struct gw_vm *vm);
/* In such a call: its time counts anew, for what comes now is another piece of work. */
void gw_watch_restart(void);
/* The allocator of VMs (lua_Alloc); `vm` is the struct gw_vm. */
void *gw_watch_alloc(void *vm, void *ptr, size_t old_size, size_t size);

#endif
