/* What lives beside the hooks of an exchange: the tasks of its own, the requests that it makes, and
 * whoever waits to send it more. Belongs to the exchange's handle; most never have one. */
#ifndef GW_SCRIPT_COMPANY_H
#define GW_SCRIPT_COMPANY_H

#include <stdbool.h>
#include "script/api.h"

struct gw_company {
    struct gw_list tasks;   /* by node; they end with the exchange */
    struct gw_list calls;   /* that hold something: see api_http.c */
    struct gw_list senders; /* by queue; tasks of anybody's */
};

/* The handle's, made on first use. */
struct gw_company *gw_company_of(struct gw_handle *handle);
/* Some task of its own is alive. */
bool gw_company_busy(const struct gw_handle *handle);
/* One of them would not be started anew by another version. */
bool gw_company_tied(const struct gw_handle *handle);
/* Waits in its queue until there is room; the caller yields next. */
void gw_company_wait(struct gw_handle *handle, struct gw_task *sender);
/* Wakes all of the queue: they try again. */
void gw_company_room(struct gw_handle *handle);
/* Cancels the tasks, closes the calls, wakes the queue, and frees it; the handle is dead or about
 * to be. */
void gw_company_end(struct gw_handle *handle);

#endif
