/* A transport for specs: tcp behind limits that a test scripts, so that short reads, short writes
 * and errors happen when the test says so and not when a kernel's buffer is full. */
#ifndef GW_NET_FAULT_H
#define GW_NET_FAULT_H

#include <stdbool.h>
#include <stdint.h>
#include "net/transport.h"

/* One direction. All zero: nothing is disturbed. */
struct gw_fault_side {
    uint64_t max;    /* bytes per call; 0 = no limit */
    bool again;      /* every other call, the first included, comes to nothing */
    enum gw_err err; /* when not GW_OK: what the call says once err_after bytes have passed */
    uint64_t err_after;
    uint64_t bytes, calls; /* what happened, for the test to look at */
};

/* The test's, and alive as long as its connection, which gets the address of ops as its transport.
 */
struct gw_fault_plan {
    struct gw_transport_ops ops;
    struct gw_fault_side read, write;
    uint64_t closes;
};

/* Disturbs nothing yet. */
void gw_fault_init(struct gw_fault_plan *plan);

#endif
