/* Owns the sockets and the clock of the world in memory. The linker puts the __wrap functions in
 * the place of the C library's wherever the gateway's code calls them. Invariant: numbers below
 * WORLD_FD are real descriptors and go to the real functions. */
#include "support/world.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include "base/buf.h"
#include "net/conn.h"
#include "net/resolve.h"

enum { START_MS = 1000000, ROOM = 1 << 20, STEP_MS = 5000 };

struct world_socket world[WORLD_SOCKETS];
uint64_t world_ms = START_MS;
enum world_dial world_dial;
static uint64_t random_state;

int __wrap_socket(int family, int type, int protocol);
int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t len);
ssize_t __wrap_recv(int fd, void *buf, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t n, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
int __wrap_shutdown(int fd, int how);
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
time_t __wrap_time(time_t *out);
long __wrap_random(void);
uint64_t __wrap_gw_random(void);
struct gw_resolver *__wrap_gw_resolver_new(struct gw_loop *loop,
                                           const struct gw_resolver_options *options);
void __wrap_gw_resolver_free(struct gw_resolver *resolver);

void world_reset(void)
{
    for (int i = 0; i < WORLD_SOCKETS; i++) {
        struct fuzz_text to = world[i].to, from = world[i].from;
        to.len = from.len = 0;
        world[i] = (struct world_socket){.to = to, .from = from};
    }
    world_ms = START_MS;
    world_dial = WORLD_DIAL_OK;
    random_state = 1;
}

struct world_socket *world_of(int fd)
{
    FUZZ_CHECK(fd >= WORLD_FD && fd < WORLD_FD + WORLD_SOCKETS, "not a socket: %d", fd);
    struct world_socket *s = &world[fd - WORLD_FD];
    FUZZ_CHECK(s->used && !s->closed, "socket %d is closed", fd);
    return s;
}

static int new_socket(void)
{
    for (int i = 0; i < WORLD_SOCKETS; i++) {
        if (world[i].used)
            continue;
        world[i].used = true;
        world[i].room = ROOM;
        return WORLD_FD + i;
    }
    return -1;
}

int world_accept(void)
{
    int fd = new_socket();
    if (fd >= 0)
        world_of(fd)->up = true;
    return fd;
}

void world_answer_dial(struct world_socket *s, bool up)
{
    s->up = up;
    s->error = up ? 0 : ECONNREFUSED;
}

unsigned world_open(void)
{
    unsigned n = 0;
    for (int i = 0; i < WORLD_SOCKETS; i++)
        n += world[i].used && !world[i].closed;
    return n;
}

void world_tell_open(void)
{
    for (int i = 0; i < WORLD_SOCKETS; i++) {
        const struct world_socket *s = &world[i];
        if (!s->used || s->closed)
            continue;
        fprintf(stderr, "%s %d: %zu bytes for it, %zu read, room %zu%s%s%s, watched %d\n",
                s->dialled ? "backend" : "client", i, s->to.len, s->to_at, s->room,
                s->fin ? ", has ended" : "", s->peer_fin ? ", peer has ended" : "",
                s->peer_rst ? ", peer has reset" : "", s->io ? s->io->events & 3 : 0);
        fprintf(stderr, "%.600s\n<--\n%.600s\n", s->to.len ? s->to.ptr : "",
                s->from.len ? s->from.ptr : "");
    }
}

/* Sockets. */

int __wrap_socket(int family, int type, int protocol)
{
    (void)family, (void)type, (void)protocol;
    int fd = new_socket();
    if (fd < 0)
        errno = EMFILE;
    else
        world_of(fd)->dialled = true;
    return fd;
}

int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
    struct world_socket *s = world_of(fd);
    (void)len;
    if (s->port) {
        errno = EALREADY;
        return -1;
    }
    s->port = sa->sa_family == AF_INET ? ntohs(((const struct sockaddr_in *)sa)->sin_port) : 1;
    s->up = world_dial == WORLD_DIAL_OK;
    if (s->up)
        return 0;
    errno = world_dial == WORLD_DIAL_REFUSED ? ECONNREFUSED : EINPROGRESS;
    return -1;
}

ssize_t __wrap_recv(int fd, void *buf, size_t n, int flags)
{
    struct world_socket *s = world_of(fd);
    size_t left = s->to.len - s->to_at;
    if (s->peer_rst || (left == 0 && !s->peer_fin)) {
        errno = s->peer_rst ? s->silent ? ETIMEDOUT : ECONNRESET : EAGAIN;
        return -1;
    }
    n = n < left ? n : left;
    if (n)
        memcpy(buf, s->to.ptr + s->to_at, n);
    if (!(flags & MSG_PEEK))
        s->to_at += n;
    return (ssize_t)n;
}

ssize_t __wrap_send(int fd, const void *buf, size_t n, int flags)
{
    struct world_socket *s = world_of(fd);
    (void)flags;
    FUZZ_CHECK(!s->fin, "bytes behind the end of a sending");
    if (s->peer_rst || s->room == 0) {
        errno = s->peer_rst ? s->silent ? ETIMEDOUT : EPIPE : EAGAIN;
        return -1;
    }
    n = n < s->room ? n : s->room;
    fuzz_put(&s->from, buf, n);
    s->room -= n;
    return (ssize_t)n;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    ssize_t all = 0;
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        ssize_t went = __wrap_send(fd, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len, flags);
        if (went < 0)
            return all ? all : -1;
        all += went;
        if ((size_t)went < msg->msg_iov[i].iov_len)
            break;
    }
    return all;
}

int __wrap_shutdown(int fd, int how)
{
    (void)how;
    world_of(fd)->fin = true;
    return 0;
}

int __wrap_close(int fd)
{
    if (fd < WORLD_FD)
        return __real_close(fd);
    struct world_socket *s = world_of(fd);
    FUZZ_CHECK(s->io == NULL, "closed while it is watched");
    s->closed = true;
    s->rst = s->abort || (!s->fin && s->to_at < s->to.len);
    s->fin |= !s->rst;
    return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    (void)len;
    if (level == SOL_SOCKET && name == SO_LINGER)
        world_of(fd)->abort = ((const struct linger *)value)->l_onoff;
    return 0;
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    if (level != SOL_SOCKET || name != SO_ERROR || *len != sizeof(int)) {
        errno = ENOPROTOOPT;
        return -1;
    }
    memcpy(value, &world_of(fd)->error, sizeof(int));
    return 0;
}

/* SIOCOUTQ: what was sent has arrived. */
int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    int *out = va_arg(args, int *);
    va_end(args);
    (void)world_of(fd);
    *out = 0;
    return 0;
}

/* Who has left is seen behind what was sent before, as POLLRDHUP is. */
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    int count = 0;
    FUZZ_CHECK(ms == 0, "nothing waits here");
    for (nfds_t i = 0; i < n; i++) {
        const struct world_socket *s = world_of(fds[i].fd);
        fds[i].revents = (short)(s->peer_fin || s->peer_rst ? fds[i].events & POLLRDHUP : 0);
        fds[i].revents |= (short)(s->peer_rst || s->error ? POLLERR : 0);
        count += fds[i].revents != 0;
    }
    return count;
}

/* Time, chance, and names. */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    (void)clock;
    ts->tv_sec = (time_t)(world_ms / 1000);
    ts->tv_nsec = (long)(world_ms % 1000 * 1000000);
    return 0;
}

time_t __wrap_time(time_t *out)
{
    if (out)
        *out = START_MS / 1000;
    return START_MS / 1000;
}

long __wrap_random(void)
{
    return (long)fuzz_next(&random_state);
}

uint64_t __wrap_gw_random(void)
{
    return (uint64_t)fuzz_next(&random_state) << 32 | fuzz_next(&random_state);
}

struct gw_resolver *__wrap_gw_resolver_new(struct gw_loop *loop,
                                           const struct gw_resolver_options *options)
{
    (void)loop, (void)options;
    return NULL;
}

void __wrap_gw_resolver_free(struct gw_resolver *resolver)
{
    (void)resolver;
}

/* Turning. */

void world_turn(struct gw_loop *loop, unsigned turns)
{
    while (turns--)
        gw_loop_turn(loop, false);
}

void world_pass(struct gw_loop *loop, uint64_t ms)
{
    while (ms) {
        uint64_t step = ms < STEP_MS ? ms : STEP_MS;
        world_ms += step;
        ms -= step;
        world_turn(loop, 3);
    }
}

void world_check_empty(const struct gw_loop *loop)
{
    FUZZ_CHECK(gw_conn_count() == 0, "%zu connections are left", gw_conn_count());
    FUZZ_CHECK(world_open() == 0, "%u sockets are left", world_open());
    FUZZ_CHECK(loop->timers == 0, "%zu timers are left", loop->timers);
    FUZZ_CHECK(gw_buf_memory() == 0, "%zu bytes of buffers are left", gw_buf_memory());
    FUZZ_CHECK(loop->ready.count + loop->later.count == 0, "something waits to be run");
}
