/* Holds many event streams open and counts what comes. Own small program, used by the bench runner.
 * usage: load PORT STREAMS SECONDS PATH
 * Prints one line: streams= events= bytes= seconds= broken= */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 65536, BATCH = 512 };

struct totals {
    unsigned long long events, bytes;
    unsigned open, broken;
};

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int dial(int port, const char *path)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    char request[512];
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *)&to, sizeof to) < 0) {
        perror("connect");
        exit(1);
    }
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n", path);
    if (write(fd, request, (size_t)n) != n)
        perror("write");
    return fd;
}

/* An event of the origin in its plain mode begins with "id:"; the id is enough to count. */
static unsigned long long count_events(const char *bytes, size_t n)
{
    unsigned long long count = 0;
    const char *at = bytes, *end = bytes + n;
    while ((at = memmem(at, (size_t)(end - at), "\nid: ", 5))) {
        count++;
        at += 5;
    }
    return count;
}

static void turn(int ep, struct totals *t, int wait_ms)
{
    static char bytes[READ_SIZE];
    struct epoll_event events[BATCH];
    int n = epoll_wait(ep, events, BATCH, wait_ms);
    for (int i = 0; i < n; i++) {
        ssize_t got = read(events[i].data.fd, bytes, sizeof bytes);
        if (got <= 0) {
            t->broken++;
            close(events[i].data.fd);
            continue;
        }
        t->bytes += (unsigned long long)got;
        t->events += count_events(bytes, (size_t)got);
    }
}

static int open_streams(const char *path, int port, unsigned wanted, struct totals *t)
{
    int ep = epoll_create1(0);
    for (t->open = 0; t->open < wanted; t->open++) {
        int fd = dial(port, path);
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
        if (t->open % 64 == 0)
            turn(ep, t, 0);
    }
    return ep;
}

int main(int argc, char **argv)
{
    struct totals t = {0};
    struct rlimit files;
    if (argc != 5) {
        fputs("usage: load PORT STREAMS SECONDS PATH\n", stderr);
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int ep = open_streams(argv[4], atoi(argv[1]), (unsigned)atoi(argv[2]), &t);
    puts("open");
    fflush(stdout);
    double start = now(), end = start + atof(argv[3]);
    t.events = t.bytes = 0;
    while (now() < end)
        turn(ep, &t, 100);
    printf("streams=%u events=%llu bytes=%llu seconds=%.2f broken=%u\n", t.open, t.events, t.bytes,
           now() - start, t.broken);
    return 0;
}
