/* Owns ranges of addresses. Called by slabs that must be able to vanish as a whole: those of a Lua
 * VM. Invariant: a block that came back holds no memory, so it is zeroed when it is taken again. */
#include "base/region.h"

#include <stdbool.h>
#include <sys/mman.h>
#include "base/check.h"

enum { READY_BLOCKS = 16 }; /* that are made accessible at a time */

/* Addresses that nobody can use yet, which cost nothing, whatever the system thinks of
 * overcommitment; those before the first aligned one just stay unused. NULL: there are not so many.
 */
static char *reserve(size_t bytes, size_t align)
{
    char *map =
        mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)map & (align - 1);
    if (before)
        munmap(map, before);
    munmap(map + before + bytes, align - before);
    return map + before;
}

void gw_region_init(struct gw_region *region, size_t block_size, size_t max_bytes)
{
    size_t blocks = (max_bytes + block_size - 1) / block_size;
    GW_CHECK((block_size & (block_size - 1)) == 0 && block_size >= 4096 && blocks < UINT32_MAX);
    *region = (struct gw_region){.block_size = block_size};
    while (blocks && !(region->base = reserve(blocks * block_size, block_size)))
        blocks /= 2; /* the process may be allowed no more */
    region->cap = (uint32_t)blocks;
    region->next = mmap(NULL, (blocks + 1) * sizeof *region->next, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_CHECK(region->next != MAP_FAILED);
}

void gw_region_fini(struct gw_region *region)
{
    if (region->cap)
        munmap(region->base, region->cap * region->block_size);
    munmap(region->next, (region->cap + (size_t)1) * sizeof *region->next);
    *region = (struct gw_region){0};
}

static char *block_at(const struct gw_region *region, uint32_t index)
{
    return region->base + (size_t)index * region->block_size;
}

static bool make_ready(struct gw_region *region)
{
    uint32_t left = region->cap - region->ready;
    uint32_t count = left < READY_BLOCKS ? left : READY_BLOCKS;
    if (count == 0 || mprotect(block_at(region, region->ready), count * region->block_size,
                               PROT_READ | PROT_WRITE) != 0)
        return false;
    region->ready += count;
    return true;
}

void *gw_region_take(struct gw_region *region)
{
    uint32_t index = region->free;
    if (index) {
        region->free = region->next[index - 1];
        return block_at(region, index - 1);
    }
    if (region->fresh == region->ready && !make_ready(region))
        return NULL;
    return block_at(region, region->fresh++);
}

void gw_region_give(struct gw_region *region, void *block)
{
    size_t index = (size_t)((char *)block - region->base) / region->block_size;
    GW_DEBUG_CHECK(index < region->fresh);
    madvise(block, region->block_size, MADV_DONTNEED);
    region->next[index] = region->free;
    region->free = (uint32_t)index + 1;
}
