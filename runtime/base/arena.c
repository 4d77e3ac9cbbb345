/* Owns the blocks that heads are parsed into; used by codecs and exchanges. The first blocks come
 * from slabs, since every stream has some and malloc would keep the peak; large ones from malloc.
 * Invariant: allocations come from the newest block, and what was handed out never moves. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "base/check.h"
#include "base/poison.h"
#include "base/slab.h"

enum { BLOCK_FIRST = 2048, BLOCK_NEXT = 8192 };

struct gw_arena_block {
    struct gw_arena_block *next;
    size_t size, used; /* of the whole block, this head included */
};

static struct gw_slab slabs[2]; /* BLOCK_FIRST and BLOCK_NEXT bytes */

static struct gw_slab *slab_for(size_t size)
{
    struct gw_slab *slab = &slabs[size == BLOCK_NEXT];
    if (slab->size == 0)
        gw_slab_init(slab, size);
    return slab;
}

static bool is_slab_size(size_t size)
{
    return size == BLOCK_FIRST || size == BLOCK_NEXT;
}

static struct gw_arena_block *block_new(struct gw_arena *arena, size_t need)
{
    size_t size = need + sizeof(struct gw_arena_block);
    if (size <= BLOCK_NEXT)
        size = !arena->blocks && size <= BLOCK_FIRST ? BLOCK_FIRST : BLOCK_NEXT;
    struct gw_arena_block *block =
        is_slab_size(size) ? gw_slab_alloc_raw(slab_for(size)) : malloc(size);
    GW_CHECK(block != NULL);
    *block = (struct gw_arena_block){.next = arena->blocks, .size = size, .used = sizeof(*block)};
    GW_POISON(block + 1, size - sizeof(*block));
    arena->blocks = block;
    return block;
}

static void block_free(struct gw_arena_block *block)
{
    GW_UNPOISON(block, block->size);
    if (is_slab_size(block->size))
        gw_slab_free(slab_for(block->size), block);
    else
        free(block);
}

static size_t round_up(size_t size)
{
    GW_CHECK(size <= SIZE_MAX / 2);
    return (size + 7) & ~(size_t)7;
}

void gw_arena_init(struct gw_arena *arena)
{
    *arena = (struct gw_arena){0};
}

void gw_arena_clear(struct gw_arena *arena)
{
    while (arena->blocks) {
        struct gw_arena_block *block = arena->blocks;
        arena->blocks = block->next;
        block_free(block);
    }
}

void gw_arena_absorb(struct gw_arena *arena, struct gw_arena *src)
{
    struct gw_arena_block **end = &arena->blocks;

    while (*end)
        end = &(*end)->next;
    *end = src->blocks;
    src->blocks = NULL;
}

void *gw_arena_alloc(struct gw_arena *arena, size_t size)
{
    size = size ? round_up(size) : 8;
    struct gw_arena_block *block = arena->blocks;
    if (!block || block->size - block->used < size)
        block = block_new(arena, size);
    void *mem = (char *)block + block->used;
    GW_UNPOISON(mem, size);
    block->used += size;
    return mem;
}

struct gw_slice gw_arena_copy(struct gw_arena *arena, struct gw_slice text)
{
    char *copy = gw_arena_alloc(arena, text.len + 1);
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return gw_slice_of(copy, text.len);
}

struct gw_slice gw_arena_printf(struct gw_arena *arena, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    GW_CHECK(len >= 0);
    char *text = gw_arena_alloc(arena, (size_t)len + 1);
    vsnprintf(text, (size_t)len + 1, fmt, again);
    va_end(again);
    return gw_slice_of(text, (size_t)len);
}

/* True when old was the last allocation and its block has room for it to grow to new_size. */
static bool grow_in_place(struct gw_arena *arena, char *old, size_t old_size, size_t new_size)
{
    struct gw_arena_block *block = arena->blocks;
    if (!block || (char *)block + block->used != old + old_size)
        return false;
    size_t more = new_size - old_size;
    if (block->size - block->used < more)
        return false;
    GW_UNPOISON(old + old_size, more);
    block->used += more;
    return true;
}

void *gw_arena_grow(struct gw_arena *arena, void *old, size_t old_size, size_t new_size)
{
    if (old && round_up(new_size) <= round_up(old_size ? old_size : 1))
        return old;
    if (old && grow_in_place(arena, old, round_up(old_size ? old_size : 1), round_up(new_size)))
        return old;
    void *mem = gw_arena_alloc(arena, new_size);
    if (old && old_size)
        memcpy(mem, old, old_size);
    return mem;
}
