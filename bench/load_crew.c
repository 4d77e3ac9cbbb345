/* One process of the load generator's clients: dials, reads, and gives the bytes to the mode.
 * Started by load.c. Invariant: a client is in epoll exactly while its descriptor is open and it is
 * not slow. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, READ_SIZE = 64 * 1024, SLOW_READ = 4096, SLOW_US = 100000, TURN_MS = 20 };

static char block[READ_SIZE];

static void watch_client(struct crew *crew, struct client *c, int op, unsigned events)
{
    struct epoll_event ev = {.events = events, .data.ptr = c};

    if (epoll_ctl(crew->epoll, op, c->fd, &ev) < 0) {
        perror("epoll_ctl");
        exit(1);
    }
}

static int open_socket(const struct client *c)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, small = 4096;

    if (fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
    if (c->slow)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    return fd;
}

void client_dial(struct crew *crew, struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET};

    to.sin_port = htons((unsigned short)crew->options->port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + (unsigned)crew->host);
    c->fd = open_socket(c);
    c->connecting = true;
    c->since_us = crew->now_us;
    if (connect(c->fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        perror("connect");
        exit(1);
    }
    watch_client(crew, c, EPOLL_CTL_ADD, EPOLLOUT);
}

void client_close(struct crew *crew, struct client *c)
{
    (void)crew;
    close(c->fd);
    c->fd = -1;
    message_reset(&c->message);
    events_fini(&c->events);
}

void client_send(struct crew *crew, struct client *c, const char *text, size_t n)
{
    if (send(c->fd, text, n, MSG_NOSIGNAL) != (ssize_t)n)
        client_broken(crew, c);
}

void client_broken(struct crew *crew, struct client *c)
{
    if (crew->share->tally.broken++ == 0)
        fprintf(stderr, "load: a client broke off (status %u, %s)\n", c->message.status,
                c->open ? "open" : "not open yet");
    client_close(crew, c);
}

void client_ready(struct crew *crew, struct client *c)
{
    if (c->open)
        return;
    c->open = true;
    crew->in_flight--;
    atomic_fetch_add(&crew->share->ready, 1);
}

void crew_unit(struct crew *crew, uint64_t since_us)
{
    struct tally *tally = &crew->share->tally;

    if (!tally->measuring)
        return;
    tally->units++;
    hist_add(&tally->latency, crew->came_us > since_us ? crew->came_us - since_us : 0);
}

static void on_connected(struct crew *crew, struct client *c)
{
    int error = 0;
    socklen_t size = sizeof error;

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    c->connecting = false;
    if (error) {
        fprintf(stderr, "load: connect: %s\n", strerror(error));
        client_broken(crew, c);
        return;
    }
    if (c->slow)
        epoll_ctl(crew->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    else
        watch_client(crew, c, EPOLL_CTL_MOD, EPOLLIN);
    crew->mode->on_open(crew, c);
}

static int64_t clock_us(clockid_t clock)
{
    struct timespec at;

    clock_gettime(clock, &at);
    return at.tv_sec * INT64_C(1000000) + at.tv_nsec / 1000;
}

/* When the last of the bytes came, as the kernel has noted it: how long they then waited for this
 * process, which shares its core, is no fault of a contender. */
static uint64_t arrival(struct msghdr *msg, uint64_t now)
{
    struct timespec at;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            memcpy(&at, CMSG_DATA(c), sizeof at);
            int64_t waited =
                clock_us(CLOCK_REALTIME) - at.tv_sec * INT64_C(1000000) - at.tv_nsec / 1000;
            return waited > 0 && (uint64_t)waited < now ? now - (uint64_t)waited : now;
        }
    return now;
}

static void read_client(struct crew *crew, struct client *c, size_t size)
{
    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec into = {block, size};
    struct msghdr msg = {.msg_iov = &into,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    ssize_t n = recvmsg(c->fd, &msg, 0);

    crew->now_us = now_us();
    crew->came_us = n > 0 ? arrival(&msg, crew->now_us) : crew->now_us;
    if (n > 0)
        crew->mode->on_bytes(crew, c, block, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        crew->mode->on_end(crew, c);
}

static void read_slow(struct crew *crew)
{
    for (unsigned i = 0; i < crew->options->slow && i < crew->count; i++) {
        struct client *c = &crew->clients[i];
        if (c->slow && c->fd >= 0 && !c->connecting)
            read_client(crew, c, SLOW_READ);
    }
}

static void dial_more(struct crew *crew)
{
    while (crew->dialled < crew->count && crew->in_flight < crew->options->in_flight) {
        crew->in_flight++;
        client_dial(crew, &crew->clients[crew->dialled++]);
    }
}

/* Follows the conductor; returns false when all is over. */
static bool follow_phase(struct crew *crew)
{
    int phase = atomic_load_explicit(&crew->shared->phase, memory_order_relaxed);

    crew->share->tally.measuring = phase == PHASE_MEASURING;
    return phase != PHASE_OVER;
}

/* How long nothing is due. Whole milliseconds would make requests late by up to one. */
static struct timespec patience(const struct crew *crew)
{
    double us = TURN_MS * 1000;

    if (crew->due_us > 0 && crew->idle_count > 0)
        us = crew->due_us - (double)now_us();
    if (us > TURN_MS * 1000)
        us = TURN_MS * 1000;
    return (struct timespec){.tv_nsec = us > 0 ? (long)(us * 1000) : 0};
}

static void turn(struct crew *crew)
{
    struct epoll_event events[BATCH];
    struct timespec wait = patience(crew);
    int n = epoll_pwait2(crew->epoll, events, BATCH, &wait, NULL);

    crew->now_us = now_us();
    for (int i = 0; i < n && follow_phase(crew); i++) {
        struct client *c = events[i].data.ptr;
        if (c->fd >= 0 && c->connecting)
            on_connected(crew, c);
        else if (c->fd >= 0)
            read_client(crew, c, sizeof block);
    }
}

static void set_up(struct crew *crew)
{
    crew->epoll = epoll_create1(EPOLL_CLOEXEC);
    crew->clients = calloc(crew->count, sizeof *crew->clients);
    crew->idle = calloc(crew->count, sizeof *crew->idle);
    if (crew->epoll < 0 || !crew->clients || !crew->idle)
        abort();
    for (unsigned i = 0; i < crew->count; i++) {
        crew->clients[i].fd = -1;
        crew->clients[i].slow = i < crew->options->slow;
        crew->clients[i].events.silent = crew->clients[i].slow;
    }
}

static void note_extremes(struct crew *crew)
{
    struct tally *tally = &crew->share->tally;

    tally->stream_min = UINT64_MAX;
    for (unsigned i = 0; i < crew->count; i++) {
        const struct client *c = &crew->clients[i];
        if (!c->slow && c->events.window < tally->stream_min)
            tally->stream_min = c->events.window;
        if (!c->slow && c->events.window > tally->stream_max)
            tally->stream_max = c->events.window;
    }
}

_Noreturn void crew_run(struct crew *crew)
{
    uint64_t slow_due = 0;

    set_up(crew);
    prctl(PR_SET_TIMERSLACK, 1);
    while (follow_phase(crew)) {
        dial_more(crew);
        turn(crew);
        if (crew->mode->on_turn)
            crew->mode->on_turn(crew);
        if (crew->options->slow && crew->now_us >= slow_due) {
            slow_due = crew->now_us + SLOW_US;
            read_slow(crew);
        }
    }
    note_extremes(crew);
    _exit(0);
}
