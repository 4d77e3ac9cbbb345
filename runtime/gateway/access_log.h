/* The line that an exchange leaves behind. */
#ifndef GW_GATEWAY_ACCESS_LOG_H
#define GW_GATEWAY_ACCESS_LOG_H

#include "gateway/exchange.h"

/* Writes it, where the configuration wants it, and counts the exchange. */
void gw_access_log(struct gw_exchange *x);

#endif
