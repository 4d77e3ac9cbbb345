/* Owns nothing but the wire format: a struct, and descriptors as ancillary data. Called by master
 * and worker. Invariant: one message is one packet, so none is ever seen in part. */
#include "control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

bool gw_control_pair(int pair[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0;
}

union ancillary {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(GW_CONTROL_FDS * sizeof(int))];
};

bool gw_control_send(int fd, const struct gw_message *message)
{
    union ancillary space = {0};
    struct iovec iov = {(void *)message, sizeof *message};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t size = message->fd_count * sizeof(int);
    if (message->fd_count) {
        msg.msg_control = space.bytes;
        msg.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(header), message->fds, size);
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL) == sizeof *message;
}

int gw_control_receive(int fd, struct gw_message *message)
{
    union ancillary space;
    struct iovec iov = {message, sizeof *message};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = space.bytes,
                         .msg_controllen = sizeof space.bytes};
    ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n != sizeof *message)
        return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
    uint32_t sent = message->fd_count;
    message->fd_count = 0;
    if (header && header->cmsg_type == SCM_RIGHTS) {
        size_t size = header->cmsg_len - CMSG_LEN(0);
        memcpy(message->fds, CMSG_DATA(header), size);
        message->fd_count = (uint32_t)(size / sizeof(int));
    }
    /* Out of descriptors, the kernel hands over as many as fit. */
    while (message->fd_count && message->fd_count < sent)
        close(message->fds[--message->fd_count]);
    return 1;
}
