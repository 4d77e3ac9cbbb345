/* The listening sockets of one version of the configuration, as the master holds them. */
#ifndef GW_DOORS_H
#define GW_DOORS_H

#include <sys/types.h>
#include "gateway/settings.h"

/* Of a unix socket, dev and ino say which file it made. */
struct gw_bound {
    int fd; /* -1: none */
    unsigned mode;
    bool proxy_protocol;
    struct gw_addr addr;
    dev_t dev;
    ino_t ino;
};

struct gw_doors {
    unsigned count; /* for traffic */
    struct gw_bound traffic[GW_LISTENERS_MAX];
    struct gw_bound admin;
};

void gw_doors_init(struct gw_doors *doors);
/* Binds all that the settings want; where `old` has a socket for the same address it is taken over
 * (the descriptor is duplicated). False, with what is wrong logged, when one can't be bound: then
 * nothing is left of the others. */
bool gw_doors_bind(struct gw_doors *doors, const struct gw_settings *s, const struct gw_doors *old);
/* Sockets that were taken over become as the new version wants them: the rights of their files, and
 * TCP_USER_TIMEOUT of what is accepted. */
void gw_doors_take_over(const struct gw_doors *doors, unsigned user_ms);
/* Closes the descriptors; files stay. */
void gw_doors_close(struct gw_doors *doors);
/* Closes them, and removes the files that are ours and that `staying` (or NULL) does not have. */
void gw_doors_leave(struct gw_doors *doors, const struct gw_doors *staying);

#endif
