/* The plain transport: recv and send on the connection's descriptor. Called by conn.c and by
 * transports that put something in between. Invariant: one recv per read; write goes on until all
 * is out or the kernel takes no more, and a buffer that is one piece goes out by one send. */
#include "net/transport.h"

#include <errno.h>
#include <sys/socket.h>
#include "base/buf.h"
#include "net/conn.h"

enum { PIECES = 16 }; /* in one sendmsg */

enum gw_err gw_transport_err(int code)
{
    switch (code) {
    case EAGAIN:
    case EINTR:
        return GW_AGAIN;
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return GW_ERR_RESET;
    case ETIMEDOUT: /* TCP_USER_TIMEOUT, or keepalive gave up */
        return GW_ERR_PEER_TIMEOUT;
    default:
        return GW_ERR_IO;
    }
}

static enum gw_err tcp_read(struct gw_conn *conn, struct gw_buf *in, size_t max)
{
    size_t room;
    /* Behind bytes that were left over a quarter of that is room enough: asking for all of it would
     * take a new chunk when the last one is a fifth full. */
    char *at = gw_buf_reserve(in, (max + 3) / 4, &room);
    ssize_t got = recv(conn->io.fd, at, room < max ? room : max, 0);
    int code = errno;

    gw_buf_commit(in, got > 0 ? (size_t)got : 0);
    if (got > 0)
        return GW_OK;
    return got == 0 ? GW_EOF : gw_transport_err(code);
}

static ssize_t send_pieces(int fd, const struct gw_buf *out, size_t *asked)
{
    struct iovec iov[PIECES];
    struct msghdr msg = {.msg_iov = iov};
    int n = gw_buf_iov(out, iov, PIECES);

    msg.msg_iovlen = (size_t)n;
    *asked = 0;
    for (int i = 0; i < n; i++)
        *asked += iov[i].iov_len;
    return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static ssize_t send_front(int fd, const struct gw_buf *out, size_t *asked)
{
    struct gw_slice first = gw_buf_peek(out);

    if (first.len != gw_buf_len(out))
        return send_pieces(fd, out, asked);
    *asked = first.len;
    return send(fd, first.ptr, first.len, MSG_NOSIGNAL);
}

static enum gw_err tcp_write(struct gw_conn *conn, struct gw_buf *out)
{
    while (!gw_buf_empty(out)) {
        size_t asked;
        ssize_t went = send_front(conn->io.fd, out, &asked);
        if (went < 0 && errno == EINTR)
            continue;
        if (went < 0)
            return gw_transport_err(errno);
        gw_buf_consume(out, (size_t)went);
        if ((size_t)went < asked)
            return GW_AGAIN;
    }
    return GW_OK;
}

const struct gw_transport_ops gw_tcp = {.name = "tcp", .read = tcp_read, .write = tcp_write};
