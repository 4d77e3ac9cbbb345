/* Services and their instances as the management listener tells of them. */
#ifndef GW_GATEWAY_LISTING_H
#define GW_GATEWAY_LISTING_H

#include "base/buf.h"
#include "gateway/hooks.h"

/* Appends their figures in the Prometheus text format. */
void gw_listing_metrics(const struct gw_generation *generation, struct gw_buf *out);
/* Appends one object of JSON with all of them. */
void gw_listing_json(const struct gw_generation *generation, struct gw_buf *out);

#endif
