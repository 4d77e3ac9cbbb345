/* Owns blocks of equal objects for connections, streams, exchanges, chunks: whatever comes and
 * goes with clients. A block is aligned to its size, so that an object finds its block by a mask.
 * Invariant: a block is in `full` when it has no room and in `partial` otherwise, empty ones last.
 * Under ASan every object is a malloc of its own, so that leaks and late accesses are reported. */
#include "base/slab.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include "base/check.h"
#include "base/poison.h"
#include "base/region.h"

enum { ALIGN = 8, BLOCK_MIN = 16384, PER_BLOCK = 15, REGION_SPARE = 65536 };

struct free_object {
    struct free_object *next;
};

struct block {
    struct gw_list node;
    struct gw_slab *slab;
    struct free_object *free;
    uint32_t used, fresh, cap; /* handed out; never handed out yet from here on; in all */
};

static const size_t head_size = (sizeof(struct block) + ALIGN - 1) & ~(size_t)(ALIGN - 1);

static void init(struct gw_slab *slab, size_t size, size_t block_size)
{
    *slab = (struct gw_slab){.size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1)};
    gw_list_init(&slab->partial);
    gw_list_init(&slab->full);
    slab->block_size = block_size;
    slab->spare_max = 1;
    while (slab->block_size < head_size + slab->size * PER_BLOCK)
        slab->block_size *= 2;
}

void gw_slab_init(struct gw_slab *slab, size_t size)
{
    GW_CHECK(size > 0 && size <= 16384);
    init(slab, size, BLOCK_MIN);
}

void gw_slab_init_in(struct gw_slab *slab, size_t size, struct gw_region *region)
{
    GW_CHECK(size > 0 && size * PER_BLOCK <= region->block_size - head_size);
    init(slab, size, region->block_size);
    slab->region = region;
    if (slab->block_size < REGION_SPARE)
        slab->spare_max = REGION_SPARE / slab->block_size;
}

/* Each object for itself, in the allocator's care. */
static bool is_malloced(const struct gw_slab *slab)
{
    return GW_ASAN && !slab->region;
}

/* Maps twice the size and cuts off what is not aligned. */
static void *map_aligned(size_t size)
{
    char *map = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_CHECK(map != MAP_FAILED);
    size_t before = -(uintptr_t)map & (size - 1);
    if (before)
        munmap(map, before);
    munmap(map + before + size, size - before);
    return map + before;
}

static struct block *block_new(struct gw_slab *slab)
{
    struct block *block =
        slab->region ? gw_region_take(slab->region) : map_aligned(slab->block_size);
    if (!block)
        return NULL;
    block->slab = slab;
    block->cap = (uint32_t)((slab->block_size - head_size) / slab->size);
    gw_list_push_front(&slab->partial, &block->node);
    slab->blocks++;
    return block;
}

static void block_free(struct gw_slab *slab, struct block *block)
{
    gw_list_remove(&block->node);
    if (slab->region)
        gw_region_give(slab->region, block);
    else
        munmap(block, slab->block_size);
    slab->blocks--;
}

static void *block_take(struct gw_slab *slab, struct block *block)
{
    void *obj = block->free;
    if (obj)
        block->free = block->free->next;
    else
        obj = (char *)block + head_size + slab->size * block->fresh++;
    if (block->used++ == 0 && slab->spare > 0)
        slab->spare--;
    if (block->used == block->cap) {
        gw_list_remove(&block->node);
        gw_list_push(&slab->full, &block->node);
    }
    return obj;
}

void *gw_slab_alloc(struct gw_slab *slab)
{
    return memset(gw_slab_alloc_raw(slab), 0, slab->size);
}

void *gw_slab_alloc_raw(struct gw_slab *slab)
{
    slab->objects++;
    if (is_malloced(slab)) {
        void *obj = malloc(slab->size);
        GW_CHECK(obj != NULL);
        return obj;
    }
    if (gw_list_empty(&slab->partial)) {
        struct block *block = block_new(slab);
        if (!block) {
            slab->objects--;
            return NULL;
        }
        slab->spare++;
        return block_take(slab, block);
    }
    return block_take(slab, GW_CONTAINER(slab->partial.next, struct block, node));
}

/* Empty blocks wait at the end of the list: the others fill up first and they can go. */
static void block_emptied(struct gw_slab *slab, struct block *block)
{
    if (slab->spare >= slab->spare_max) {
        block_free(slab, block);
        return;
    }
    slab->spare++;
    gw_list_remove(&block->node);
    gw_list_push(&slab->partial, &block->node);
}

void gw_slab_free(struct gw_slab *slab, void *obj)
{
    if (obj == NULL)
        return;
    GW_CHECK(slab->objects > 0);
    slab->objects--;
    if (is_malloced(slab)) {
        free(obj);
        return;
    }
    struct block *block = (struct block *)((uintptr_t)obj & ~(uintptr_t)(slab->block_size - 1));
    GW_CHECK(block->slab == slab && block->used > 0);
    struct free_object *item = obj;
    item->next = block->free;
    block->free = item;
    if (block->used-- == block->cap) {
        gw_list_remove(&block->node);
        gw_list_push_front(&slab->partial, &block->node);
    }
    if (block->used == 0)
        block_emptied(slab, block);
}

void gw_slab_trim(struct gw_slab *slab)
{
    while (slab->spare > 0) {
        block_free(slab, GW_CONTAINER(slab->partial.prev, struct block, node));
        slab->spare--;
    }
}

void gw_slab_fini(struct gw_slab *slab)
{
    GW_CHECK(slab->objects == 0);
    gw_slab_trim(slab);
}
