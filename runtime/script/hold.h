/* A thing that one task at a time holds while others wait for it: what gateway.once and
 * gateway.lock are made of. */
#ifndef GW_SCRIPT_HOLD_H
#define GW_SCRIPT_HOLD_H

#include "script/vm.h"

struct gw_task;

/* The task is over, in whatever way: what it holds goes to those who wait. */
void gw_hold_release(struct gw_task *task);
/* Adds hold, enter, leave to the table on the stack's top, with the VM as upvalue. */
void gw_hold_open(struct gw_vm *vm);

#endif
