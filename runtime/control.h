/* What master and workers tell each other, over one socket pair per worker. */
#ifndef GW_CONTROL_H
#define GW_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

enum gw_order {
    /* master to worker */
    GW_ORDER_LOAD,   /* make this generation ready; descriptors: pack, those for traffic, admin or
                      * none. The pack alone: serve what is open with it, and end */
    GW_ORDER_SWAP,   /* serve with it */
    GW_ORDER_DROP,   /* forget it: somebody could not load it */
    GW_ORDER_DRAIN,  /* finish what is open and end */
    GW_ORDER_REOPEN, /* logs */
    /* worker to master */
    GW_ORDER_LOADED,
    GW_ORDER_FAILED,
    GW_ORDER_SERVING
};

enum { GW_CONTROL_FDS = 18 }; /* a pack, GW_LISTENERS_MAX, one for management */

struct gw_message {
    uint32_t order;
    uint32_t fd_count;
    uint64_t generation;
    uint32_t traffic;        /* how many descriptors are for traffic */
    uint32_t proxied;        /* which of them begin with the PROXY protocol: bit 0 is the first */
    int fds[GW_CONTROL_FDS]; /* the receiver's own numbers; it closes them */
};

/* Closes a descriptor, where there is one (not -1), and forgets it. */
static inline void gw_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A connected pair of non-blocking, close-on-exec sockets that keep messages apart. */
bool gw_control_pair(int pair[2]);
bool gw_control_send(int fd, const struct gw_message *message);
/* 1: got one; 0: none is waiting; -1: the other side is gone. There are no descriptors at all in
 * the message where this process has not room for all of them. */
int gw_control_receive(int fd, struct gw_message *message);

#endif
