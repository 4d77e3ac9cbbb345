/* Owns the chunk pool and the chains made of it; every byte on its way through the gateway lies
 * here. Small chunks come from a slab, large ones are mapped and a few are kept for reuse.
 * Invariant: the chunks from head to its tail are never empty and their bytes add up to its len;
 * one more chunk may hang behind that tail: reserved and not committed. So is a head without a
 * tail. Under ASan every chunk is a malloc of its own, so that leaks and late accesses are
 * reported. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/check.h"
#include "base/poison.h"
#include "base/slab.h"

enum {
    CACHE_MIN = 8,   /* large chunks kept for reuse in any case */
    CACHE_MAX = 64,  /* … and while as much memory is in use */
    COPY_MAX = 1024, /* a chunk with less is copied, not linked, when there is room for it */
    CHUNK_HEAD = offsetof(struct gw_chunk, data),
    SMALL_ROOM = GW_CHUNK_SMALL - CHUNK_HEAD - GW_CHUNK_HEADROOM - GW_CHUNK_TAILROOM,
    LARGE_ROOM = GW_CHUNK_LARGE - CHUNK_HEAD - GW_CHUNK_HEADROOM - GW_CHUNK_TAILROOM
};

static struct {
    struct gw_slab small;
    struct gw_chunk *cache; /* large chunks, linked by next */
    size_t cached;
    uint64_t own;
    uint64_t *memory; /* bytes in chunks that are in use */
} pool = {.memory = &pool.own};

/* Others may read it, where it lies in shared memory. */
static void count(uint64_t n)
{
    __atomic_store_n(pool.memory, *pool.memory + n, __ATOMIC_RELAXED);
}

static size_t chunk_size(const struct gw_chunk *chunk)
{
    return CHUNK_HEAD + (size_t)chunk->cap;
}

static size_t chunk_len(const struct gw_chunk *chunk)
{
    return chunk->end - chunk->start;
}

/* Bytes that fit behind the last one when the tailroom is spared. */
static size_t chunk_room(const struct gw_chunk *chunk)
{
    uint32_t limit = chunk->cap - GW_CHUNK_TAILROOM;
    return chunk->end < limit ? limit - chunk->end : 0;
}

static void *map_chunk(size_t size)
{
    if (GW_ASAN) {
        void *mem = malloc(size);
        GW_CHECK(mem != NULL);
        return mem;
    }
    void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_CHECK(mem != MAP_FAILED);
    return mem;
}

static void unmap_chunk(struct gw_chunk *chunk, size_t size)
{
    if (GW_ASAN)
        free(chunk);
    else
        munmap(chunk, size);
}

static struct gw_chunk *chunk_alloc(size_t size)
{
    if (size == GW_CHUNK_SMALL) {
        if (pool.small.size == 0)
            gw_slab_init(&pool.small, GW_CHUNK_SMALL);
        return gw_slab_alloc_raw(&pool.small);
    }
    if (size == GW_CHUNK_LARGE && pool.cache) {
        struct gw_chunk *chunk = pool.cache;
        pool.cache = chunk->next;
        pool.cached--;
        return chunk;
    }
    return map_chunk(size);
}

/* A chunk with room for n bytes between headroom and tailroom. One that is larger than the pooled
 * sizes gets half as much again, so that one that is linearised as it grows is rarely moved. */
static struct gw_chunk *chunk_new(size_t n)
{
    size_t size = n <= SMALL_ROOM ? GW_CHUNK_SMALL : GW_CHUNK_LARGE;
    if (n > LARGE_ROOM) {
        GW_CHECK(n < UINT32_MAX / 2);
        size = (n + n / 2 + GW_CHUNK_LARGE) & ~(size_t)4095;
    }
    struct gw_chunk *chunk = chunk_alloc(size);
    chunk->next = chunk->tail = NULL;
    chunk->len = 0;
    chunk->start = chunk->end = GW_CHUNK_HEADROOM;
    chunk->cap = (uint32_t)(size - CHUNK_HEAD);
    count(size);
    return chunk;
}

/* What a storm has needed is not kept for ever. */
static bool cache_is_full(void)
{
    return pool.cached >= CACHE_MIN &&
           (pool.cached >= CACHE_MAX || pool.cached * GW_CHUNK_LARGE >= *pool.memory);
}

static void chunk_free(struct gw_chunk *chunk)
{
    size_t size = chunk_size(chunk);
    count((uint64_t)0 - size);
    if (size == GW_CHUNK_SMALL) {
        gw_slab_free(&pool.small, chunk);
    } else if (size == GW_CHUNK_LARGE && !cache_is_full() && !GW_ASAN) {
        chunk->next = pool.cache;
        pool.cache = chunk;
        pool.cached++;
    } else {
        unmap_chunk(chunk, size);
    }
}

void gw_buf_count_at(uint64_t *where)
{
    uint64_t memory = *pool.memory;
    pool.memory = where ? where : &pool.own;
    *pool.memory = memory;
}

size_t gw_buf_memory(void)
{
    return *pool.memory;
}

void gw_buf_trim(void)
{
    while (pool.cache) {
        struct gw_chunk *chunk = pool.cache;
        pool.cache = chunk->next;
        unmap_chunk(chunk, GW_CHUNK_LARGE);
    }
    pool.cached = 0;
    if (pool.small.size)
        gw_slab_trim(&pool.small);
}

static struct gw_chunk *tail_of(const struct gw_buf *buf)
{
    return buf->head ? buf->head->tail : NULL;
}

/* Where the reserved chunk hangs, or would. */
static struct gw_chunk **reserved(struct gw_buf *buf)
{
    struct gw_chunk *tail = tail_of(buf);
    return tail ? &tail->next : &buf->head;
}

static void drop_reserved(struct gw_buf *buf)
{
    struct gw_chunk **spare = reserved(buf);
    if (*spare) {
        chunk_free(*spare);
        *spare = NULL;
    }
}

/* The chunk is linked already: it counts from now on. */
static void count_tail(struct gw_buf *buf, struct gw_chunk *chunk)
{
    buf->head->tail = chunk;
    buf->head->len += chunk_len(chunk);
}

static void link_tail(struct gw_buf *buf, struct gw_chunk *chunk)
{
    drop_reserved(buf);
    *reserved(buf) = chunk;
    chunk->next = NULL;
    chunk->len = 0;
    count_tail(buf, chunk);
}

static void link_head(struct gw_buf *buf, struct gw_chunk *chunk)
{
    if (!tail_of(buf)) {
        link_tail(buf, chunk);
        return;
    }
    chunk->next = buf->head;
    chunk->tail = buf->head->tail;
    chunk->len = buf->head->len + chunk_len(chunk);
    buf->head = chunk;
}

/* Takes the first chunk out; the buffer is not empty. */
static struct gw_chunk *unlink_head(struct gw_buf *buf)
{
    struct gw_chunk *chunk = buf->head, *next = chunk->next;
    if (chunk == chunk->tail) {
        drop_reserved(buf);
        next = NULL;
    } else {
        next->tail = chunk->tail;
        next->len = chunk->len - chunk_len(chunk);
    }
    buf->head = next;
    chunk->next = NULL;
    return chunk;
}

void gw_buf_init(struct gw_buf *buf)
{
    *buf = (struct gw_buf){0};
}

void gw_buf_clear(struct gw_buf *buf)
{
    while (buf->head) {
        struct gw_chunk *next = buf->head->next;
        chunk_free(buf->head);
        buf->head = next;
    }
}

char *gw_buf_reserve(struct gw_buf *buf, size_t min, size_t *avail)
{
    if (min == 0)
        min = 1;
    struct gw_chunk *chunk = tail_of(buf);
    if (!chunk || chunk_room(chunk) < min) {
        struct gw_chunk **spare = reserved(buf);
        if (*spare && chunk_room(*spare) < min)
            drop_reserved(buf);
        if (!*spare)
            *spare = chunk_new(min);
        chunk = *spare;
    } else {
        drop_reserved(buf);
    }
    *avail = chunk_room(chunk);
    return chunk->data + chunk->end;
}

void gw_buf_commit(struct gw_buf *buf, size_t n)
{
    struct gw_chunk **spare = reserved(buf);
    if (n == 0) {
        drop_reserved(buf);
        return;
    }
    if (*spare)
        count_tail(buf, *spare);
    struct gw_chunk *tail = tail_of(buf);
    GW_CHECK(tail && n <= chunk_room(tail));
    tail->end += (uint32_t)n;
    buf->head->len += n;
}

/* A buffer that has grown past one small chunk goes on in large ones. */
static size_t append_class(const struct gw_buf *buf, size_t n)
{
    if (n <= SMALL_ROOM && gw_buf_len(buf) < SMALL_ROOM)
        return n;
    return LARGE_ROOM;
}

/* The last chunk has the space. */
static void extend_tail(struct gw_buf *buf, const void *bytes, size_t n)
{
    struct gw_chunk *tail = buf->head->tail;
    memcpy(tail->data + tail->end, bytes, n);
    tail->end += (uint32_t)n;
    buf->head->len += n;
}

void gw_buf_append(struct gw_buf *buf, const void *bytes, size_t n)
{
    struct gw_chunk *tail = tail_of(buf);
    const char *from = bytes;
    drop_reserved(buf);
    if (tail && chunk_room(tail) >= n) {
        extend_tail(buf, from, n);
        return;
    }
    while (n > 0) {
        struct gw_chunk *chunk = tail_of(buf);
        if (!chunk || chunk_room(chunk) == 0)
            chunk = *reserved(buf) = chunk_new(append_class(buf, n));
        size_t fits = chunk_room(chunk) < n ? chunk_room(chunk) : n;
        memcpy(chunk->data + chunk->end, from, fits);
        gw_buf_commit(buf, fits);
        from += fits;
        n -= fits;
    }
}

void gw_buf_printf(struct gw_buf *buf, const char *fmt, ...)
{
    va_list args, again;
    size_t avail;
    va_start(args, fmt);
    va_copy(again, args);
    char *out = gw_buf_reserve(buf, 128, &avail);
    /* The closing NUL may lie in the tailroom. */
    int len = vsnprintf(out, avail + 1, fmt, args);
    GW_CHECK(len >= 0);
    if ((size_t)len > avail) {
        out = gw_buf_reserve(buf, (size_t)len, &avail);
        vsnprintf(out, avail + 1, fmt, again);
    }
    gw_buf_commit(buf, (size_t)len);
    va_end(args);
    va_end(again);
}

void gw_buf_prepend(struct gw_buf *buf, const void *bytes, size_t n)
{
    if (!tail_of(buf)) {
        gw_buf_append(buf, bytes, n);
        return;
    }
    if (n == 0)
        return;
    if (buf->head->start >= n) {
        buf->head->start -= (uint32_t)n;
        buf->head->len += n;
        memcpy(buf->head->data + buf->head->start, bytes, n);
        return;
    }
    /* What comes next is likely to go in front as well, so the bytes lie at the end. */
    struct gw_chunk *chunk = chunk_new(n);
    chunk->end = chunk->cap - GW_CHUNK_TAILROOM;
    chunk->start = chunk->end - (uint32_t)n;
    memcpy(chunk->data + chunk->start, bytes, n);
    link_head(buf, chunk);
}

void gw_buf_append_tail(struct gw_buf *buf, const void *bytes, size_t n)
{
    struct gw_chunk *chunk = tail_of(buf);
    if (n == 0 || !chunk || chunk->cap - chunk->end < n) {
        gw_buf_append(buf, bytes, n);
        return;
    }
    drop_reserved(buf);
    extend_tail(buf, bytes, n);
}

void gw_buf_consume(struct gw_buf *buf, size_t n)
{
    GW_CHECK(n <= gw_buf_len(buf));
    while (n > 0) {
        size_t len = chunk_len(buf->head);
        if (n < len) {
            buf->head->start += (uint32_t)n;
            buf->head->len -= n;
            return;
        }
        chunk_free(unlink_head(buf));
        n -= len;
    }
}

struct gw_slice gw_buf_peek(const struct gw_buf *buf)
{
    if (!tail_of(buf))
        return gw_slice_of("", 0);
    return gw_slice_of(buf->head->data + buf->head->start, chunk_len(buf->head));
}

void gw_buf_narrow(struct gw_buf *buf, struct gw_slice kept)
{
    struct gw_chunk *chunk = buf->head;
    if (kept.len == 0) {
        gw_buf_clear(buf);
        return;
    }
    GW_CHECK(chunk->tail == chunk && kept.ptr >= chunk->data);
    chunk->start = (uint32_t)(kept.ptr - chunk->data);
    chunk->end = chunk->start + (uint32_t)kept.len;
    chunk->len = kept.len;
}

/* Moves the first n bytes of src behind those in chunk, which has the space. */
static void pull(struct gw_chunk *chunk, struct gw_buf *src, size_t n)
{
    gw_buf_copy_out(src, 0, chunk->data + chunk->end, n);
    chunk->end += (uint32_t)n;
    gw_buf_consume(src, n);
}

struct gw_slice gw_buf_linear(struct gw_buf *buf, size_t n)
{
    GW_CHECK(n <= gw_buf_len(buf));
    struct gw_slice first = gw_buf_peek(buf);
    if (first.len >= n)
        return gw_slice_of(first.ptr, n);
    struct gw_chunk *chunk;
    if (buf->head->cap - buf->head->start >= n) {
        chunk = unlink_head(buf);
        pull(chunk, buf, n - chunk_len(chunk));
    } else {
        chunk = chunk_new(n);
        pull(chunk, buf, n);
    }
    link_head(buf, chunk);
    return gw_slice_of(chunk->data + chunk->start, n);
}

static void copy_rest(struct gw_chunk *dst, const struct gw_chunk *src)
{
    size_t n = chunk_len(src);
    memcpy(dst->data + dst->end, src->data + src->start, n);
    dst->end += (uint32_t)n;
}

/* Links the chunk to the end, or copies what is in it when that is little and there is room. */
static void give_chunk(struct gw_buf *dst, struct gw_chunk *chunk)
{
    struct gw_chunk *tail = tail_of(dst);
    size_t n = chunk_len(chunk);
    if (n > COPY_MAX || !tail || chunk_room(tail) < n) {
        link_tail(dst, chunk);
        return;
    }
    copy_rest(tail, chunk);
    dst->head->len += n;
    chunk_free(chunk);
}

void gw_buf_move(struct gw_buf *dst, struct gw_buf *src)
{
    GW_CHECK(dst != src);
    while (tail_of(src))
        give_chunk(dst, unlink_head(src));
    drop_reserved(src);
}

/* Cuts the first chunk of buf at n bytes, so that they can be moved; copies the smaller part. */
static struct gw_chunk *cut_head(struct gw_buf *buf, size_t n)
{
    size_t rest = chunk_len(buf->head) - n;
    struct gw_chunk *head = unlink_head(buf);
    struct gw_chunk *copy = chunk_new(n < rest ? n : rest);
    if (n < rest) {
        memcpy(copy->data + copy->end, head->data + head->start, n);
        copy->end += (uint32_t)n;
        head->start += (uint32_t)n;
        link_head(buf, head);
        return copy;
    }
    memcpy(copy->data + copy->end, head->data + head->start + n, rest);
    copy->end += (uint32_t)rest;
    head->end -= (uint32_t)rest;
    link_head(buf, copy);
    return head;
}

void gw_buf_move_n(struct gw_buf *dst, struct gw_buf *src, size_t n)
{
    GW_CHECK(dst != src && n <= gw_buf_len(src));
    while (n > 0) {
        struct gw_chunk *tail = tail_of(dst);
        size_t len = chunk_len(src->head);
        if (len <= n) {
            give_chunk(dst, unlink_head(src));
            n -= len;
        } else if (n <= COPY_MAX && tail && chunk_room(tail) >= n) {
            gw_buf_append(dst, src->head->data + src->head->start, n);
            gw_buf_consume(src, n);
            return;
        } else {
            give_chunk(dst, cut_head(src, n));
            return;
        }
    }
}

size_t gw_buf_copy_out(const struct gw_buf *buf, size_t from, char *out, size_t n)
{
    size_t done = 0;
    if (from >= gw_buf_len(buf))
        return 0;
    for (const struct gw_chunk *c = buf->head; done < n; c = c->next) {
        size_t len = chunk_len(c);
        if (from < len) {
            size_t part = len - from < n - done ? len - from : n - done;
            memcpy(out + done, c->data + c->start + from, part);
            done += part;
            from = 0;
        } else {
            from -= len;
        }
        if (c == buf->head->tail)
            break;
    }
    return done;
}

int gw_buf_iov(const struct gw_buf *buf, struct iovec *iov, int max)
{
    int count = 0;
    struct gw_chunk *c = tail_of(buf) ? buf->head : NULL;
    while (c && count < max) {
        iov[count++] = (struct iovec){c->data + c->start, chunk_len(c)};
        c = c == buf->head->tail ? NULL : c->next;
    }
    return count;
}

/* Bytes of chunks that hold n bytes sparingly: large ones only where small ones would be many. */
static size_t sparing_size(size_t n)
{
    size_t size = n / LARGE_ROOM * GW_CHUNK_LARGE;
    size_t rest = n % LARGE_ROOM;
    size_t small = (rest + SMALL_ROOM - 1) / SMALL_ROOM * GW_CHUNK_SMALL;
    return size + (small < GW_CHUNK_LARGE ? small : GW_CHUNK_LARGE);
}

static size_t held_size(const struct gw_buf *buf)
{
    size_t size = 0;
    for (const struct gw_chunk *c = buf->head; c; c = c->next)
        size += chunk_size(c);
    return size;
}

void gw_buf_compact(struct gw_buf *buf)
{
    struct gw_buf lean;
    gw_buf_init(&lean);
    drop_reserved(buf);
    if (held_size(buf) < 2 * sparing_size(gw_buf_len(buf)))
        return;
    while (tail_of(buf)) {
        size_t n = gw_buf_len(buf) < LARGE_ROOM ? gw_buf_len(buf) : LARGE_ROOM;
        if (sparing_size(n) < GW_CHUNK_LARGE && n > SMALL_ROOM)
            n = SMALL_ROOM;
        struct gw_chunk *chunk = chunk_new(n);
        pull(chunk, buf, n);
        link_tail(&lean, chunk);
    }
    *buf = lean;
}
