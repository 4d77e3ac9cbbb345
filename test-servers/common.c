/* common: bytes, sockets and process set-up for the test servers (sse_server, script_server), which
 * link it and nothing of the gateway. Invariant: no function here blocks on the network. */
#include "common.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char *buf_reserve(struct ts_buf *buf, size_t n)
{
    if (buf->len + n > buf->cap) {
        size_t cap = buf->cap ? buf->cap : 256;
        while (cap < buf->len + n)
            cap *= 2;
        buf->data = realloc(buf->data, cap);
        if (!buf->data)
            abort();
        buf->cap = cap;
    }
    return buf->data + buf->len;
}

void ts_buf_append(struct ts_buf *buf, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    memcpy(buf_reserve(buf, n), bytes, n);
    buf->len += n;
}

void ts_buf_fill(struct ts_buf *buf, char byte, size_t n)
{
    if (n == 0)
        return;
    memset(buf_reserve(buf, n), byte, n);
    buf->len += n;
}

void ts_buf_puts(struct ts_buf *buf, const char *text)
{
    ts_buf_append(buf, text, strlen(text));
}

void ts_buf_printf(struct ts_buf *buf, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if ((size_t)n < sizeof text) {
        ts_buf_append(buf, text, (size_t)n);
        return;
    }
    va_start(args, format);
    vsnprintf(buf_reserve(buf, (size_t)n + 1), (size_t)n + 1, format, args);
    va_end(args);
    buf->len += (size_t)n;
}

void ts_buf_json(struct ts_buf *buf, const char *bytes, size_t n)
{
    ts_buf_puts(buf, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '"' || c == '\\')
            ts_buf_printf(buf, "\\%c", c);
        else if (c < 0x20)
            ts_buf_printf(buf, "\\u%04x", c);
        else
            ts_buf_append(buf, &bytes[i], 1);
    }
    ts_buf_puts(buf, "\"");
}

void ts_buf_consume(struct ts_buf *buf, size_t n)
{
    buf->len -= n;
    if (buf->len > 0)
        memmove(buf->data, buf->data + n, buf->len);
    else if (buf->cap > 16 * 1024)
        ts_buf_fini(buf); /* an idle connection keeps no large buffer */
}

void ts_buf_fini(struct ts_buf *buf)
{
    free(buf->data);
    *buf = (struct ts_buf){0};
}

bool ts_buf_read_file(struct ts_buf *buf, const char *path)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    char block[8192];
    size_t n;

    if (!file)
        return false;
    while ((n = fread(block, 1, sizeof block, file)) > 0)
        ts_buf_append(buf, block, n);
    bool ok = !ferror(file);
    if (file != stdin)
        fclose(file);
    return ok;
}

/* Writes the port the kernel chose back into *port. */
static int socket_listen(int fd, const struct sockaddr_in *addr, int *port)
{
    struct sockaddr_in bound;
    socklen_t len = sizeof bound;
    int one = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)addr, sizeof *addr) < 0 || listen(fd, 65535) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &len) < 0)
        return -1;
    *port = ntohs(bound.sin_port);
    return 0;
}

int ts_listen(const char *host, int *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    int fd;

    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &addr.sin_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && socket_listen(fd, &addr, port) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int ts_accept(int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int one = 1;

    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

void ts_close_reset(int fd)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

bool ts_send(int fd, struct ts_buf *buf)
{
    size_t sent = 0;

    while (sent < buf->len) {
        ssize_t n = send(fd, buf->data + sent, buf->len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            return false;
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    ts_buf_consume(buf, sent);
    return true;
}

uint64_t ts_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void end_at_once(int signum)
{
    (void)signum;
    _exit(0);
}

void ts_process_setup(void)
{
    struct rlimit files;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, end_at_once);
    signal(SIGINT, end_at_once);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

bool ts_parse_u64(const char *text, uint64_t *out)
{
    uint64_t value = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (!isdigit((unsigned char)*text) || value > (UINT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *out = value;
    return true;
}
