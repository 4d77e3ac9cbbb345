/* The memory of one Lua VM: an allocator that can be dropped as a whole, whatever state the program
 * is in that used it. Its callers know the size of what they give back, so nothing carries a
 * header.
 */
#ifndef GW_BASE_HEAP_H
#define GW_BASE_HEAP_H

#include "base/list.h"
#include "base/region.h"
#include "base/slab.h"

enum { GW_HEAP_CLASSES = 56 };

struct gw_heap {
    size_t used; /* bytes as they were asked for */
    struct gw_region small, medium;
    struct gw_slab classes[GW_HEAP_CLASSES]; /* by size, rising */
    struct gw_list large;                    /* mappings of their own */
};

/* max_bytes: addresses are reserved for so much, of small and of medium pieces; 0: for very much.
 */
void gw_heap_init(struct gw_heap *heap, size_t max_bytes);
/* All that was allocated is gone. */
void gw_heap_fini(struct gw_heap *heap);
/* As lua_Alloc: size 0 frees; a new piece is aligned to 8 and not zeroed. NULL when there is no
 * memory for it, and then `ptr` is as it was. */
void *gw_heap_realloc(struct gw_heap *heap, void *ptr, size_t old_size, size_t size);
/* Gives back what is kept for the next pieces. */
void gw_heap_trim(struct gw_heap *heap);

#endif
