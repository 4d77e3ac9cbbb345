/* Listening sockets: the master binds them, each worker watches them.
 * Invariant: the watcher runs only while the listener is on, not paused by its owner, and not
 * waiting for the system to have descriptors again. */
#include "net/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"

enum {
    ACCEPT_BURST = 16, /* per readiness: those already served must get their turn */
    RETRY_MS = 100,
    WARN_EVERY_MS = 10000,
    UNSENT_MAX = 128 * 1024
};

/* Accepted sockets inherit the last two. An event is to leave when it is written. And the kernel
 * would queue megabytes for a client that is slow: too much memory for thousands of them, and room
 * in so long a queue comes so rarely that a slow client looks like one that takes nothing. */
static void set_options(int fd)
{
    int on = 1, unsent = UNSENT_MAX;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
}

void gw_listener_user_timeout(int fd, unsigned ms)
{
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

/* The address with the port that the kernel chose. */
static bool read_name(int fd, struct gw_addr *addr)
{
    union gw_sockaddr sa;
    socklen_t len = sizeof(sa);

    if (getsockname(fd, &sa.any, &len) != 0)
        return false;
    gw_addr_set(addr, &sa.any, len);
    return true;
}

int gw_listener_bind(struct gw_addr *addr, int backlog)
{
    union gw_sockaddr sa;
    socklen_t len = gw_addr_get(addr, &sa);
    int code;
    int fd = socket(addr->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (addr->family != AF_UNIX)
        set_options(fd);
    if (bind(fd, &sa.any, len) == 0 && listen(fd, backlog) == 0 &&
        (addr->family == AF_UNIX || read_name(fd, addr)))
        return fd;
    code = errno;
    close(fd);
    errno = code;
    return -1;
}

static bool accepting(const struct gw_listener *listener)
{
    return listener->on && !listener->paused && !gw_timer_active(&listener->retry);
}

static void update_watcher(struct gw_listener *listener)
{
    if (accepting(listener))
        ev_io_start(listener->loop->ev, &listener->io);
    else
        ev_io_stop(listener->loop->ev, &listener->io);
}

/* The system is out of something. The connection stays in the queue and the socket stays readable:
 * only a pause keeps this from spinning. */
static void starve(struct gw_listener *listener, int code)
{
    uint64_t now_ms = listener->loop->now_ms;

    if (listener->warned_ms == 0 || now_ms - listener->warned_ms >= WARN_EVERY_MS) {
        gw_log(GW_LOG_WARN, "accepting pauses: %s", strerror(code));
        listener->warned_ms = now_ms;
    }
    gw_timer_start(listener->loop, &listener->retry, RETRY_MS);
    update_watcher(listener);
    if (listener->events->on_starved)
        listener->events->on_starved(listener);
}

/* False when there is no more to accept now. A connection that broke in the queue is not the
 * listener's fault; out of descriptors or memory, and whatever else there may be, needs a pause. */
static bool accept_failed(struct gw_listener *listener, int code)
{
    if (code == EAGAIN)
        return false;
    if (code == ECONNABORTED || code == EINTR || code == EPROTO)
        return true;
    starve(listener, code);
    return false;
}

static bool accept_one(struct gw_listener *listener)
{
    struct sockaddr_storage sa;
    struct gw_addr peer;
    socklen_t len = sizeof(sa);
    int fd = accept4(listener->fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return accept_failed(listener, errno);
    gw_addr_set(&peer, (struct sockaddr *)&sa, len);
    listener->events->on_accept(listener, fd, &peer);
    return true;
}

static void on_acceptable(struct ev_loop *ev, struct ev_io *w, int revents)
{
    struct gw_listener *listener = w->data;
    (void)ev, (void)revents;

    for (int i = 0; i < ACCEPT_BURST && accepting(listener); i++)
        if (!accept_one(listener))
            return;
}

static void on_retry(struct gw_timer *timer)
{
    update_watcher(GW_CONTAINER(timer, struct gw_listener, retry));
}

void gw_listener_start(struct gw_listener *listener, struct gw_loop *loop, int fd,
                       const struct gw_listener_events *events, void *owner)
{
    memset(listener, 0, sizeof(*listener));
    listener->fd = fd;
    listener->loop = loop;
    listener->events = events;
    listener->owner = owner;
    listener->on = true;
    (void)read_name(fd, &listener->addr); /* unknown where that fails */
    gw_timer_init(&listener->retry, on_retry);
    ev_io_init(&listener->io, on_acceptable, fd, EV_READ);
    listener->io.data = listener;
    update_watcher(listener);
}

void gw_listener_stop(struct gw_listener *listener)
{
    if (!listener->on)
        return;
    listener->on = false;
    gw_timer_stop(listener->loop, &listener->retry);
    update_watcher(listener);
}

void gw_listener_pause(struct gw_listener *listener, bool paused)
{
    listener->paused = paused;
    if (listener->on)
        update_watcher(listener);
}
