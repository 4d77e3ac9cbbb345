/* Owns the memory of a Lua VM: size classes in slabs over two regions, and mappings for what is
 * larger. Called by the VM's allocator. Invariant: the class of a piece follows from its size
 * alone.
 */
#include "base/heap.h"

#include <string.h>
#include <sys/mman.h>

enum {
    STEP = 16, /* sizes of the first classes; beyond them a doubling has four */
    FINE_MAX = 512,
    FINE_CLASSES = FINE_MAX / STEP,
    SMALL_MAX = 2048,
    MEDIUM_MAX = 32768,
    SMALL_BLOCK = 32 << 10,
    MEDIUM_BLOCK = 512 << 10
};
static const size_t RESERVED = (size_t)8 << 30;

static const size_t PAGE = 4096;

struct large {
    struct gw_list node;
    size_t mapped; /* bytes, with this */
};

static unsigned class_of(size_t size)
{
    if (size <= FINE_MAX)
        return (unsigned)((size - 1) / STEP);
    unsigned log = 63 - (unsigned)__builtin_clzl(size - 1); /* 9: up to 1 KiB */
    return FINE_CLASSES + (log - 9) * 4 + (unsigned)((size - 1) >> (log - 2) & 3);
}

static size_t size_of(unsigned class)
{
    if (class < FINE_CLASSES)
        return (class + 1) * (size_t)STEP;
    unsigned log = 9 + (class - FINE_CLASSES) / 4, quarter = (class - FINE_CLASSES) % 4 + 1;
    return ((size_t)1 << log) + ((size_t)quarter << (log - 2));
}

void gw_heap_init(struct gw_heap *heap, size_t max_bytes)
{
    heap->used = 0;
    gw_list_init(&heap->large);
    gw_region_init(&heap->small, SMALL_BLOCK, max_bytes ? max_bytes : RESERVED);
    gw_region_init(&heap->medium, MEDIUM_BLOCK, max_bytes ? max_bytes : RESERVED);
    for (unsigned i = 0; i < GW_HEAP_CLASSES; i++) {
        size_t size = size_of(i);
        gw_slab_init_in(&heap->classes[i], size, size <= SMALL_MAX ? &heap->small : &heap->medium);
    }
}

static size_t to_map(size_t size)
{
    return (size + sizeof(struct large) + PAGE - 1) & ~(PAGE - 1);
}

static void *large_keep(struct gw_heap *heap, struct large *large, size_t mapped)
{
    large->mapped = mapped;
    gw_list_push(&heap->large, &large->node);
    return large + 1;
}

static void *large_new(struct gw_heap *heap, size_t size)
{
    size_t bytes = to_map(size);
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return map == MAP_FAILED ? NULL : large_keep(heap, map, bytes);
}

static void large_free(struct large *large)
{
    gw_list_remove(&large->node);
    munmap(large, large->mapped);
}

/* The system moves pages, not bytes. */
static void *large_resize(struct gw_heap *heap, struct large *large, size_t size)
{
    size_t bytes = to_map(size);
    gw_list_remove(&large->node);
    void *moved = mremap(large, large->mapped, bytes, MREMAP_MAYMOVE);
    if (moved != MAP_FAILED)
        return large_keep(heap, moved, bytes);
    gw_list_push(&heap->large, &large->node);
    return NULL;
}

static struct large *large_of(void *ptr)
{
    return (struct large *)ptr - 1;
}

void gw_heap_fini(struct gw_heap *heap)
{
    gw_region_fini(&heap->small);
    gw_region_fini(&heap->medium);
    while (!gw_list_empty(&heap->large))
        large_free(GW_CONTAINER(heap->large.next, struct large, node));
}

static void *take(struct gw_heap *heap, size_t size)
{
    if (size > MEDIUM_MAX)
        return large_new(heap, size);
    return gw_slab_alloc_raw(&heap->classes[class_of(size)]);
}

static void give(struct gw_heap *heap, void *ptr, size_t size)
{
    if (size > MEDIUM_MAX)
        large_free(large_of(ptr));
    else
        gw_slab_free(&heap->classes[class_of(size)], ptr);
}

static void *move(struct gw_heap *heap, void *ptr, size_t old, size_t size)
{
    if (old > MEDIUM_MAX && size > MEDIUM_MAX)
        return large_resize(heap, large_of(ptr), size);
    if (old <= MEDIUM_MAX && size <= MEDIUM_MAX && class_of(old) == class_of(size))
        return ptr;
    void *moved = take(heap, size);
    if (!moved)
        return NULL;
    memcpy(moved, ptr, old < size ? old : size);
    give(heap, ptr, old);
    return moved;
}

void *gw_heap_realloc(struct gw_heap *heap, void *ptr, size_t old_size, size_t size)
{
    void *now = NULL;
    if (!ptr)
        old_size = 0;
    if (size == 0) {
        if (old_size)
            give(heap, ptr, old_size);
    } else {
        now = old_size ? move(heap, ptr, old_size, size) : take(heap, size);
        if (!now)
            return NULL;
    }
    heap->used += size - old_size;
    return now;
}

void gw_heap_trim(struct gw_heap *heap)
{
    for (unsigned i = 0; i < GW_HEAP_CLASSES; i++)
        gw_slab_trim(&heap->classes[i]);
}
