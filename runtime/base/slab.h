/* Objects of one size, in blocks that go back to the system when they are empty.
 * For things that live as long as a stream: malloc would keep the peak of a storm for ever. */
#ifndef GW_BASE_SLAB_H
#define GW_BASE_SLAB_H

#include <stddef.h>
#include "base/list.h"

struct gw_region;

struct gw_slab {
    size_t size;            /* bytes per object, rounded up */
    size_t block_size;      /* bytes per block, a power of two */
    struct gw_list partial; /* blocks with room */
    struct gw_list full;
    size_t objects, blocks;   /* handed out; mapped, the empty ones included */
    size_t spare, spare_max;  /* empty blocks kept back, and how many may be */
    struct gw_region *region; /* where its blocks come from; NULL: from the system */
};

/* size: bytes of one object, at most 16 KiB. The slab must not move afterwards. */
void gw_slab_init(struct gw_slab *slab, size_t size);
/* The same with blocks of a region, so that it needs no fini before the region's; up to 64 KiB of
 * empty ones are kept back. Whoever looks for misuse of memory (ASan) sees only the region. */
void gw_slab_init_in(struct gw_slab *slab, size_t size, struct gw_region *region);
/* All objects must have been freed. */
void gw_slab_fini(struct gw_slab *slab);
/* Zeroed memory, aligned to 8; aborts when the system has none. */
void *gw_slab_alloc(struct gw_slab *slab);
/* The same, not zeroed. NULL only when its region is full. */
void *gw_slab_alloc_raw(struct gw_slab *slab);
/* obj comes from the same slab; NULL is harmless. */
void gw_slab_free(struct gw_slab *slab, void *obj);
/* Gives the empty blocks that were kept back to the system. */
void gw_slab_trim(struct gw_slab *slab);

#endif
