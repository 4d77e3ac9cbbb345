/* A listening socket: made in the master, watched in each worker. */
#ifndef GW_NET_LISTENER_H
#define GW_NET_LISTENER_H

#include <stdbool.h>
#include "net/addr.h"
#include "net/loop.h"

struct gw_listener;

struct gw_listener_events {
    /* One more connection; the descriptor is the callee's. */
    void (*on_accept)(struct gw_listener *listener, int fd, const struct gw_addr *peer);
    /* Accepting pauses, because the system is out of descriptors or memory. May be NULL. */
    void (*on_starved)(struct gw_listener *listener);
};

struct gw_listener {
    int fd;
    struct gw_addr addr;
    struct gw_loop *loop;
    const struct gw_listener_events *events;
    void *owner;
    struct ev_io io;
    struct gw_timer retry; /* after EMFILE: accepting pauses without spinning */
    uint64_t warned_ms;    /* when that was last logged */
    bool on;
    bool paused;
};

/* Binds and listens (non-blocking, close-on-exec, SO_REUSEADDR). Returns the descriptor, or -1 with
 * errno set. *addr is updated with the port when it was 0. A unix socket is made with the rights
 * that the process's umask leaves. */
int gw_listener_bind(struct gw_addr *addr, int backlog);
/* TCP_USER_TIMEOUT of what is accepted from now on, which inherits it (Linux); 0 = the system's. */
void gw_listener_user_timeout(int fd, unsigned ms);
/* Starts to watch fd (which stays open when the listener is stopped: it may be shared). The struct
 * is embedded in its owner and needs no init before; on_accept may pause or stop it. */
void gw_listener_start(struct gw_listener *listener, struct gw_loop *loop, int fd,
                       const struct gw_listener_events *events, void *owner);
void gw_listener_stop(struct gw_listener *listener);
/* Pauses or goes on accepting (no more on_accept comes, also not in this readiness); connections
 * wait in the kernel's queue meanwhile. */
void gw_listener_pause(struct gw_listener *listener, bool paused);

#endif
