/* A hash map from byte strings to pointers, owned by one place and small. Keys are copied. */
#ifndef GW_BASE_MAP_H
#define GW_BASE_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include "base/slice.h"

struct gw_map_entry;
struct gw_map {
    struct gw_map_entry **slots;
    size_t count, cap;
};

void gw_map_init(struct gw_map *map);
/* Frees the keys; the values are the caller's. */
void gw_map_fini(struct gw_map *map);
void *gw_map_get(const struct gw_map *map, struct gw_slice key);
/* Returns the value that was there before, or NULL. */
void *gw_map_put(struct gw_map *map, struct gw_slice key, void *value);
void *gw_map_remove(struct gw_map *map, struct gw_slice key);
/* Calls each(key, value, data) for every entry; the map must not be changed meanwhile. */
void gw_map_each(const struct gw_map *map,
                 void (*each)(struct gw_slice key, void *value, void *data), void *data);
/* A seeded hash of bytes: peers choose keys, so the seed is drawn once per process tree. */
uint64_t gw_hash(struct gw_slice bytes);
/* Draws the seed; called once, before any fork. */
void gw_hash_seed(void);
/* A hash that is the same in all processes and on all machines; another one for each salt. */
uint64_t gw_hash_stable(struct gw_slice bytes, uint64_t salt);

#endif
