/* The Lua context of an exchange (ctx): made before it is routed, parked while its stream is idle,
 * carried over to another version, made anew when its VM has died. */
#ifndef GW_SCRIPT_CONTEXT_H
#define GW_SCRIPT_CONTEXT_H

#include "gateway/exchange.h"
#include "script/vm.h"

/* lua_pcall of what is on the stack of a generation's VM, on behalf of x. When it dies of that
 * (GW_LUA_STOPPED) nothing of it may be touched. */
int gw_context_call(struct gw_exchange *x, struct gw_generation *generation, int nargs,
                    int nresults);

/* Makes one before there is a rule. False: the error is logged. */
bool gw_context_open(struct gw_exchange *x);
/* Makes one in the VM that took the place of a dead one, under the rule it has, if any. */
bool gw_context_revive(struct gw_exchange *x);
/* Takes flags, timeout and event hook from three places of the stack. */
void gw_context_take_rule(struct gw_exchange *x, lua_State *co, int first);
/* The exchange is over. */
void gw_context_drop(struct gw_exchange *x);
/* See struct gw_hooks. */
void gw_context_settle(struct gw_exchange *x);
enum gw_adoption gw_context_adopt(struct gw_exchange *x, struct gw_generation *to);
bool gw_context_unwanted(struct gw_exchange *x, struct gw_generation *to);

/* A stream that was carried over keeps its context in the old version until an event has gone well.
 * True: one has not, and it is back there now. */
bool gw_context_roll_back(struct gw_exchange *x);
/* One has: the old version is not needed any more. */
void gw_context_prove(struct gw_exchange *x);
/* The time in which streams may fall back from this VM is over (struct gw_vm, probation). */
void gw_context_end_probation(struct gw_timer *timer);
/* The VM of a generation has died: forgets what x has in there, if anything. A stream that was
 * carried over into it goes back to where it came from. */
void gw_context_forget(struct gw_exchange *x, const struct gw_generation *generation);

#endif
