/* The host names among the instances of a generation: each address of a name is an instance, for as
 * long as the name has it. */
#ifndef GW_GATEWAY_NAMES_H
#define GW_GATEWAY_NAMES_H

#include "gateway/hooks.h"

enum { GW_INSTANCE_ID_MAX = 384 }; /* bytes of an id with an address behind it, and a NUL */

/* Adds a name to those of a generation that has not been started; the texts are copied. Its number
 * is how many there are then. Its instances get the id with "@" and the address; barred: none of
 * them is to be asked. */
void gw_names_add(struct gw_generation *generation, const char *service, const char *id,
                  const char *host, unsigned port, bool barred);
/* Begins with what the generation in use knows of the same names, and asks. ready (may be NULL) is
 * called once, perhaps from inside: when there is an answer, or the time for it has passed, for
 * each name of which nothing is known. Nothing happens where it has begun already, or there are
 * none. */
void gw_names_start(struct gw_generation *generation, void (*ready)(void *data), void *data);
/* No more questions: the generation is not in use any more. It keeps the instances that it has. */
void gw_names_stop(struct gw_generation *generation);
/* Tells the program of all instances that names have: it is a new one. */
void gw_names_tell(struct gw_generation *generation);
void gw_names_free(struct gw_generation *generation);

#endif
