/* A range of addresses of its own, handed out in equal blocks. What lies in it can be given up as a
 * whole, whoever still points there. */
#ifndef GW_BASE_REGION_H
#define GW_BASE_REGION_H

#include <stddef.h>
#include <stdint.h>

struct gw_region {
    char *base;
    size_t block_size; /* a power of two; blocks are aligned to it */
    uint32_t cap;      /* blocks in all */
    uint32_t ready;    /* accessible up to here */
    uint32_t fresh;    /* never handed out from here on */
    uint32_t free;     /* the latest one that came back, plus 1; 0: none */
    uint32_t *next;    /* of each one that came back, the one before it */
};

/* Reserves addresses for max_bytes, rounded up, or as many as the process may have; memory is taken
 * as it is written to. block_size: a power of two of at least 4 KiB. */
void gw_region_init(struct gw_region *region, size_t block_size, size_t max_bytes);
/* Everything in it is gone. */
void gw_region_fini(struct gw_region *region);
/* Zeroed; NULL when all are handed out, or the system has no memory for more. */
void *gw_region_take(struct gw_region *region);
/* The block's memory goes back to the system, the addresses stay. */
void gw_region_give(struct gw_region *region, void *block);

#endif
