/* A dictionary in shared memory: all workers see the same entries. Sharded, each shard behind a
 * robust lock; entries have a ttl; bounded in bytes, the least recently used entry goes first.
 * Groups are name spaces with a bound of their own on the number of entries. */
#ifndef GW_BASE_DICT_H
#define GW_BASE_DICT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/shm.h"
#include "base/slice.h"

struct gw_dict;

enum {
    GW_DICT_KEY_MAX = 512,              /* longer keys are hashed by the caller or refused */
    GW_DICT_VALUE_MAX = (16 << 10) + 8, /* 16 KiB, and a mark of what it is */
    GW_DICT_OLD_MAX = 32,               /* what a change sees of the old value */
    GW_DICT_GROUP_MAX = 128
};

/* Lays a dictionary of about `bytes` bytes into the mapping; NULL when it does not fit. Memory is
 * touched only as it fills. */
struct gw_dict *gw_dict_new(struct gw_shm *shm, size_t bytes);

/* Copies the value to out (at most cap bytes) and returns its length; -1 when there is none or it
 * has run out. slide_ms > 0 renews a ttl, from now. now_ms: CLOCK_MONOTONIC, the same in all
 * processes. */
int gw_dict_get(struct gw_dict *dict, struct gw_slice group, struct gw_slice key, char *out,
                size_t cap, uint64_t now_ms, uint64_t slide_ms);
/* Stores a copy. ttl_ms 0: until it is pushed out. max_entries 0: no bound of its own for the
 * group; else the group's least recently used entries go when there would be more. False when
 * group, key or value is too long or the dictionary can't hold it; the old value stays then,
 * unless it was itself pushed out. */
bool gw_dict_set(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                 struct gw_slice value, uint64_t now_ms, uint64_t ttl_ms, uint64_t max_entries);
/* Stores a copy only where there is none, and gives what is stored then: of two who add at the same
 * time, both get the first one's value. Length and limits as for get and set; -1 when it can't be
 * stored. */
int gw_dict_add(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                struct gw_slice value, char *out, size_t cap, uint64_t now_ms, uint64_t ttl_ms,
                uint64_t max_entries);

/* How gw_dict_change makes a value from the old one. Nobody is in between; so it calls nothing. */
struct gw_dict_change {
    /* old_len: the whole length, -1 where there is none; old: its first GW_DICT_OLD_MAX bytes.
     * Gives the new value, which stays the caller's; ptr NULL leaves everything as it is. */
    struct gw_slice (*run)(struct gw_dict_change *change, const char *old, int old_len);
    uint64_t ttl_ms;      /* of a new entry; one that is changed keeps its own */
    uint64_t slide_ms;    /* renews it nevertheless, when > 0 */
    uint64_t max_entries; /* as for gw_dict_set */
};
/* False when group or key is too long or the new value can't be stored; the old one may be lost
 * then. A change within eight bytes of a short value is whole or not at all, even if the process
 * is killed meanwhile. */
bool gw_dict_change(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                    struct gw_dict_change *change, uint64_t now_ms);
/* Milliseconds that the entry has left, 0 when it has no end, -1 when there is none. */
int64_t gw_dict_ttl(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                    uint64_t now_ms);
/* True when there was one that had not run out. */
bool gw_dict_delete(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                    uint64_t now_ms);
/* Entries in the whole dictionary, or of one group when group.len > 0. Those that have run out and
 * were not looked at since are counted as well. */
uint64_t gw_dict_count(struct gw_dict *dict, struct gw_slice group);

struct gw_dict_stats {
    uint64_t entries, bytes, max_bytes;
    uint64_t evicted; /* entries that went before their time, for want of room or by max_entries */
    uint64_t repairs; /* times a process died inside and its shard was put in order */
};
void gw_dict_stats(struct gw_dict *dict, struct gw_dict_stats *out);
/* Walks everything and returns whether it is consistent. For specs, with nobody else at work. */
bool gw_dict_check(struct gw_dict *dict);

#endif
