/* Owns ranges of addresses. Called by slabs that must be able to vanish as a whole: those of a Lua
 * VM. Invariant: a block that came back holds no memory, so it is zeroed when it is taken again. */
#include "base/region.h"

#include <stdlib.h>
#include <sys/mman.h>
#include "base/check.h"

/* Addresses cost nothing: those before the first aligned one just stay unused. */
static char *reserve(size_t bytes, size_t align)
{
    char *map = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    GW_CHECK(map != MAP_FAILED);
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
    *region = (struct gw_region){.block_size = block_size, .cap = (uint32_t)blocks};
    region->base = reserve(blocks * block_size, block_size);
    region->next = (uint32_t *)reserve(blocks * sizeof *region->next, 4096);
}

void gw_region_fini(struct gw_region *region)
{
    munmap(region->base, region->cap * region->block_size);
    munmap(region->next, region->cap * sizeof *region->next);
    *region = (struct gw_region){0};
}

void *gw_region_take(struct gw_region *region)
{
    uint32_t index = region->free;
    if (index) {
        region->free = region->next[index - 1];
        return region->base + (size_t)(index - 1) * region->block_size;
    }
    if (region->fresh == region->cap)
        return NULL;
    return region->base + (size_t)region->fresh++ * region->block_size;
}

void gw_region_give(struct gw_region *region, void *block)
{
    size_t index = (size_t)((char *)block - region->base) / region->block_size;
    GW_DEBUG_CHECK(index < region->fresh);
    madvise(block, region->block_size, MADV_DONTNEED);
    region->next[index] = region->free;
    region->free = (uint32_t)index + 1;
}
