/* What the test servers share: bytes and sockets. Nothing here knows libev; both servers drive it
 * from their own loops. */
#ifndef TEST_SERVERS_COMMON_H
#define TEST_SERVERS_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A growable run of bytes. All zero is a valid empty buffer; memory failure aborts. */
struct ts_buf {
    char *data;
    size_t len, cap;
};

void ts_buf_append(struct ts_buf *buf, const void *bytes, size_t n);
void ts_buf_fill(struct ts_buf *buf, char byte, size_t n);
void ts_buf_puts(struct ts_buf *buf, const char *text);
void ts_buf_printf(struct ts_buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3), nonnull(1, 2)));
/* Appends a JSON string with its quotes. Bytes from 0x80 up pass as they are. */
void ts_buf_json(struct ts_buf *buf, const char *bytes, size_t n);
/* Drops the first n bytes. */
void ts_buf_consume(struct ts_buf *buf, size_t n);
void ts_buf_fini(struct ts_buf *buf);
/* Appends a whole file. False with errno set when it can't be read. */
bool ts_buf_read_file(struct ts_buf *buf, const char *path);

/* A listening, non-blocking socket; port 0 takes a free one and writes it back. -1 with errno. */
int ts_listen(const char *host, int *port);
/* Accepts one connection, non-blocking and without Nagle's delay. -1 with errno. */
int ts_accept(int listen_fd);
/* Closes so that the peer sees a reset instead of an end. */
void ts_close_reset(int fd);
/* Sends from the front of buf and drops what went. False when the connection is gone;
 * what the socket did not take stays in buf. */
bool ts_send(int fd, struct ts_buf *buf);
/* CLOCK_MONOTONIC in microseconds. */
uint64_t ts_now_us(void);
/* No SIGPIPE, a line-buffered stdout, as many descriptors as allowed; TERM and INT end at once. */
void ts_process_setup(void);
/* Strict decimal number; false on anything else. */
bool ts_parse_u64(const char *text, uint64_t *out);

#endif
