/* Memory that is freed all at once: the heads of one exchange. Never per-event memory. */
#ifndef GW_BASE_ARENA_H
#define GW_BASE_ARENA_H

#include <stddef.h>
#include "base/slice.h"

struct gw_arena_block;
struct gw_arena {
    struct gw_arena_block *blocks;
};

void gw_arena_init(struct gw_arena *arena);
/* Frees everything; the arena is as after init. */
void gw_arena_clear(struct gw_arena *arena);
/* Takes over everything that src holds; src is empty afterwards. */
void gw_arena_absorb(struct gw_arena *arena, struct gw_arena *src);
/* Not zeroed, aligned to 8. Never NULL. The caller has checked the size against a limit. */
void *gw_arena_alloc(struct gw_arena *arena, size_t size);
/* A copy that is NUL-terminated behind its length. */
struct gw_slice gw_arena_copy(struct gw_arena *arena, struct gw_slice text);
struct gw_slice gw_arena_printf(struct gw_arena *arena, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Grows an array that was the last allocation in place where it can, else copies it; old may be
 * NULL. The old copy stays readable until the arena is cleared. */
void *gw_arena_grow(struct gw_arena *arena, void *old, size_t old_size, size_t new_size);

#endif
