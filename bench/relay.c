/* The floor of the benchmarks: a TCP relay on libev that parses nothing. It accepts, dials an
 * origin and copies both ways, one recv and one send for each readiness. Run by bench/run.lua.
 * Invariant: bytes are in `left` only while the other side takes none, and then nothing is read
 * here. */
#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK = 16 * 1024, ACCEPTS = 64, MAX_ORIGINS = 8 };

/* One direction's end: what is read from fd goes to the peer. */
struct side {
    ev_io io;
    struct side *peer;
    char *left; /* what the peer's socket did not take */
    size_t left_len;
};

struct pair {
    struct side client, origin; /* client first: pair_of */
};

static struct ev_loop *loop;
static ev_io accept_io;
static unsigned short origins[MAX_ORIGINS];
static unsigned origins_count, next_origin;

static int set_up_socket(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void side_stop(struct side *s)
{
    ev_io_stop(loop, &s->io);
    close(s->io.fd);
    free(s->left);
}

static void pair_close(struct side *s)
{
    struct pair *pair = s->io.data;

    side_stop(&pair->client);
    side_stop(&pair->origin);
    free(pair);
}

static void side_watch(struct side *s, int events)
{
    ev_io_stop(loop, &s->io);
    ev_io_modify(&s->io, events);
    ev_io_start(loop, &s->io);
}

/* Reading pauses on one side while the other does not take what there is. */
static void hold(struct side *from, const char *bytes, size_t n)
{
    from->left = malloc(n);
    if (!from->left)
        abort();
    memcpy(from->left, bytes, n);
    from->left_len = n;
    side_watch(from, from->io.events & EV_WRITE);
    side_watch(from->peer, from->peer->io.events | EV_WRITE);
}

static bool is_temporary(void)
{
    return errno == EAGAIN || errno == EINTR || errno == ENOTCONN;
}

static void copy(struct side *from)
{
    static char block[BLOCK];
    ssize_t n = recv(from->io.fd, block, sizeof block, 0);

    if (n <= 0) {
        if (n == 0 || !is_temporary())
            pair_close(from);
        return;
    }
    ssize_t sent = send(from->peer->io.fd, block, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && !is_temporary())
        pair_close(from);
    else if (sent < n)
        hold(from, block + (sent > 0 ? sent : 0), (size_t)(n - (sent > 0 ? sent : 0)));
}

/* `to` takes bytes again: what its peer holds goes out. */
static void drain(struct side *to)
{
    struct side *from = to->peer;
    ssize_t sent = from->left ? send(to->io.fd, from->left, from->left_len, MSG_NOSIGNAL) : 0;

    if (sent < 0) {
        if (!is_temporary())
            pair_close(to);
        return;
    }
    from->left_len -= (size_t)sent;
    if (from->left_len > 0) {
        memmove(from->left, from->left + sent, from->left_len);
        return;
    }
    free(from->left);
    from->left = NULL;
    side_watch(to, to->io.events & ~EV_WRITE);
    side_watch(from, from->io.events | EV_READ);
}

static void on_side(struct ev_loop *l, ev_io *w, int revents)
{
    struct side *s = (struct side *)w;

    (void)l;
    if (revents & EV_WRITE)
        drain(s);
    else if (revents & EV_READ)
        copy(s);
}

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    to.sin_port = htons(origins[next_origin++ % origins_count]);
    if (fd >= 0 && connect(fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static void side_init(struct side *s, struct side *peer, struct pair *pair, int fd)
{
    s->peer = peer;
    s->io.data = pair;
    ev_io_init(&s->io, on_side, set_up_socket(fd), EV_READ);
    ev_io_start(loop, &s->io);
}

static void relay(int client)
{
    int origin = dial();
    struct pair *pair = calloc(1, sizeof *pair);

    if (!pair)
        abort();
    if (origin < 0) {
        close(client);
        free(pair);
        return;
    }
    side_init(&pair->client, &pair->origin, pair, client);
    side_init(&pair->origin, &pair->client, pair, origin);
}

static void on_accept(struct ev_loop *l, ev_io *w, int revents)
{
    (void)l;
    (void)revents;
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        relay(fd);
    }
}

static int listen_on(unsigned short port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (void *)&at, sizeof at) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (void *)&at, &size) < 0) {
        perror("relay");
        exit(3);
    }
    printf("listening on 0.0.0.0:%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

static void raise_descriptors(void)
{
    struct rlimit files;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

/* WORKERS processes, this one among them. */
static void spread(int workers)
{
    for (int i = 1; i < workers; i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            return;
        }
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc - 3 > MAX_ORIGINS) {
        fputs("usage: relay PORT WORKERS ORIGIN_PORT...   (PORT 0: any)\n", stderr);
        return 2;
    }
    for (int i = 3; i < argc; i++)
        origins[origins_count++] = (unsigned short)atoi(argv[i]);
    raise_descriptors();
    int fd = listen_on((unsigned short)atoi(argv[1]));
    spread(atoi(argv[2]));
    loop = ev_default_loop(EVBACKEND_EPOLL);
    ev_io_init(&accept_io, on_accept, fd, EV_READ);
    ev_io_start(loop, &accept_io);
    ev_run(loop, 0);
    return 0;
}
