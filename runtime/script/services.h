/* The services of a generation, as the loaded program lists them. */
#ifndef GW_SCRIPT_SERVICES_H
#define GW_SCRIPT_SERVICES_H

#include <lua.h>
#include <stdbool.h>
#include "gateway/hooks.h"
#include "gateway/instance.h"

/* Reads the list on the stack's top, which gateway.health has put into numbers. */
bool gw_services_read(struct gw_generation *generation, lua_State *L);
/* The instance is one of the service of that index, from 1. */
void gw_services_join(const struct gw_generation *generation, unsigned index,
                      struct gw_instance *instance);
void gw_services_free(struct gw_generation *generation);

#endif
