/* The management listener: health and metrics. */
#ifndef GW_GATEWAY_ADMIN_H
#define GW_GATEWAY_ADMIN_H

#include "gateway/exchange.h"

/* Answers one request of the management listener at once; no exchange is made for it. */
void gw_admin_serve(struct gw_gateway *gateway, struct gw_stream *stream);

#endif
