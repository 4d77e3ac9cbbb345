/* Bytes on their way: a chain of pooled chunks. Chunks keep headroom and tailroom, so that a
 * codec can put its framing around a body without copying it. Buffers hold chunks only while
 * there are bytes in them. */
#ifndef GW_BASE_BUF_H
#define GW_BASE_BUF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "base/slice.h"

enum {
    GW_CHUNK_SMALL = 2048,  /* bytes of a small chunk, its header included */
    GW_CHUNK_LARGE = 20480, /* holds one read */
    GW_READ_SIZE = 16384,   /* bytes asked of one recv */
    GW_CHUNK_HEADROOM = 32,
    GW_CHUNK_TAILROOM = 16
};

struct gw_chunk {
    struct gw_chunk *next;
    struct gw_chunk *tail;    /* in the first chunk of a buffer: the last one with bytes in it */
    size_t len;               /* in the first chunk of a buffer: all bytes of the buffer */
    uint32_t start, end, cap; /* offsets into data: [start, end) is filled, cap is its size */
    char data[];
};

/* Small on purpose: an idle stream has six. */
struct gw_buf {
    struct gw_chunk *head;
};

static inline size_t gw_buf_len(const struct gw_buf *buf)
{
    return buf->head ? buf->head->len : 0;
}
static inline bool gw_buf_empty(const struct gw_buf *buf)
{
    return gw_buf_len(buf) == 0;
}

void gw_buf_init(struct gw_buf *buf);
/* Drops all bytes and returns the chunks to the pool. */
void gw_buf_clear(struct gw_buf *buf);
/* Room for at least `min` contiguous bytes behind the last one; *avail is how many fit (tailroom of
 * GW_CHUNK_TAILROOM not counted). The room is part of the buffer only after gw_buf_commit. A chunk
 * that is reserved and gets nothing committed is given back by gw_buf_commit(buf, 0). */
char *gw_buf_reserve(struct gw_buf *buf, size_t min, size_t *avail);
void gw_buf_commit(struct gw_buf *buf, size_t n);
void gw_buf_append(struct gw_buf *buf, const void *bytes, size_t n);
static inline void gw_buf_add(struct gw_buf *buf, struct gw_slice s)
{
    gw_buf_append(buf, s.ptr, s.len);
}
void gw_buf_printf(struct gw_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* In front of the first byte; takes the headroom where it is large enough. */
void gw_buf_prepend(struct gw_buf *buf, const void *bytes, size_t n);
/* Like append, and may use the tailroom of the last chunk: for framing (at most GW_CHUNK_TAILROOM
 * bytes stay contiguous with the body before them). */
void gw_buf_append_tail(struct gw_buf *buf, const void *bytes, size_t n);
/* Drops the first n bytes; n is at most all. */
void gw_buf_consume(struct gw_buf *buf, size_t n);
/* The first contiguous piece; empty when the buffer is. */
struct gw_slice gw_buf_peek(const struct gw_buf *buf);
/* Drops all but `kept`, which lies in the one piece that the buffer is. */
void gw_buf_narrow(struct gw_buf *buf, struct gw_slice kept);
/* The first n bytes (at most all) as one piece, copying them together where they are not. The slice
 * lives until the buffer is changed. */
struct gw_slice gw_buf_linear(struct gw_buf *buf, size_t n);
/* Moves all bytes to the end of dst; src is empty afterwards. Small rests are copied into the
 * last chunk of dst, so that many small moves do not hold many chunks. */
void gw_buf_move(struct gw_buf *dst, struct gw_buf *src);
/* Moves the first n bytes, at most all. */
void gw_buf_move_n(struct gw_buf *dst, struct gw_buf *src, size_t n);
/* Copies up to n bytes to out without taking them; returns how many. */
size_t gw_buf_copy_out(const struct gw_buf *buf, size_t from, char *out, size_t n);
/* Fills iov with the pieces from the front; returns their number. */
int gw_buf_iov(const struct gw_buf *buf, struct iovec *iov, int max);
/* A buffer that holds few bytes in large chunks moves them into small ones: called when bytes are
 * going to stay for a while. */
void gw_buf_compact(struct gw_buf *buf);
/* Bytes of chunk memory in use in this process, for bounds and accounting. */
size_t gw_buf_memory(void);
/* Counts them there from now on, for other processes to see; NULL: here again. */
void gw_buf_count_at(uint64_t *where);
/* Gives every cached chunk back to the system. */
void gw_buf_trim(void);

#endif
