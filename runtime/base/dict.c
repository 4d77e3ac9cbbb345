/* Owns the shared dictionaries: sessions, and what gateway.shared keeps; all workers use them, the
 * master makes them. A group lives in one shard, so that its bound and its order of use are exact;
 * memory comes in equal cells from one pool, so that any shard can have most of it. When the pool
 * is empty the shard with the most cells gives up its least recently used entry.
 *
 * Invariant: a record (entry or group) is complete before its kind is published, and unpublished
 * before anything of it is taken apart. So whatever a process that dies leaves behind, the shard
 * is rebuilt from the published records and the pool from the free cells; only the order of use is
 * lost. Locks are taken shard first, then pool; a second shard's lock is only tried. */
#include "base/dict.h"

#include <stddef.h>
#include <string.h>
#include "base/check.h"
#include "base/map.h"

enum {
    SHARDS = 8,
    CELL = 128,
    NIL = 0,             /* cell 0 is never used */
    CELLS_MIN = 152,     /* the largest entry and its group */
    EVICTIONS_MAX = 256, /* tries to make room for one record, when others take it away */
    EXPIRED_MAX = 2      /* entries that have run out, dropped on the way in each set */
};

static const uint64_t never = UINT64_MAX;

/* BODY: part of a record, or of one that is being made or taken apart. KEPT: BODY while a shard is
 * rebuilt, for cells that belong to a published record. */
enum kind { FREE, BODY, ENTRY, GROUP, KEPT };

struct link {
    uint32_t prev, next; /* as the head of a list: newest, oldest */
};

enum order { IN_SHARD, IN_GROUP };

struct cell {
    uint32_t next; /* the record's next cell, or the next free one */
    uint32_t kind;
    uint32_t shard;      /* valid unless FREE */
    uint32_t chain_next; /* from here on: only in the first cell of a record */
    uint64_t hash;
    uint64_t expires; /* of an entry, ms */
    uint16_t key_len, value_len;
    uint32_t group;       /* of an entry: its group's cell; of a group: how many entries */
    struct link links[2]; /* of an entry: by enum order; of a group: [IN_GROUP] is the list */
    char bytes[];         /* key and value; a group's name */
};

enum {
    BYTES_FIRST = CELL - offsetof(struct cell, bytes),
    BYTES_MORE = CELL - offsetof(struct cell, chain_next)
};

struct shard {
    struct gw_shm_lock lock;
    uint32_t *chains;    /* hash table: first record of each chain */
    struct link entries; /* all of them in order of use */
    uint32_t count;
    uint32_t held; /* cells; others read it to find the largest shard */
} __attribute__((aligned(64)));

struct gw_dict {
    char *cells;
    uint32_t cell_count, chain_count; /* chain_count: per shard, a power of two */
    struct gw_shm_lock lock;          /* of the pool, which is the next three */
    uint32_t free;                    /* list of cells that were used before */
    uint32_t free_count;
    uint32_t fresh; /* cells from here on were never used: FREE, all zero */
    uint64_t evicted, repairs;
    struct shard shards[SHARDS];
};

/* What one call is about. */
struct place {
    struct gw_dict *dict;
    struct shard *shard;
    struct gw_slice group, key;
    uint64_t group_hash, hash;
};

static struct cell *at(struct gw_dict *dict, uint32_t index)
{
    return (struct cell *)(void *)(dict->cells + (size_t)index * CELL);
}

static enum kind kind_of(struct cell *cell)
{
    return (enum kind)__atomic_load_n(&cell->kind, __ATOMIC_ACQUIRE);
}

/* The compiler moves nothing across it: that is all it takes for a process that dies. The release
 * is for a rebuild of another shard, which reads kinds meanwhile. */
static void set_kind(struct cell *cell, enum kind kind)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&cell->kind, (uint32_t)kind, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static uint32_t shard_number(const struct gw_dict *dict, const struct shard *shard)
{
    return (uint32_t)(shard - dict->shards);
}

static void count_up(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static void list_push(struct gw_dict *dict, struct link *list, enum order order, uint32_t index)
{
    struct link *own = &at(dict, index)->links[order];
    *own = (struct link){.prev = list->prev, .next = NIL};
    if (list->prev)
        at(dict, list->prev)->links[order].next = index;
    else
        list->next = index;
    list->prev = index;
}

static void list_remove(struct gw_dict *dict, struct link *list, enum order order, uint32_t index)
{
    struct link own = at(dict, index)->links[order];
    if (own.prev)
        at(dict, own.prev)->links[order].next = own.next;
    else
        list->next = own.next;
    if (own.next)
        at(dict, own.next)->links[order].prev = own.prev;
    else
        list->prev = own.prev;
}

static void list_touch(struct gw_dict *dict, struct link *list, enum order order, uint32_t index)
{
    list_remove(dict, list, order, index);
    list_push(dict, list, order, index);
}

/* Puts the free cells in order again from what their kinds say; the pool is locked. */
static void pool_rebuild(struct gw_dict *dict)
{
    while (dict->fresh < dict->cell_count && kind_of(at(dict, dict->fresh)) != FREE)
        dict->fresh++;
    dict->free = NIL;
    dict->free_count = 0;
    for (uint32_t i = 1; i < dict->fresh; i++) {
        if (kind_of(at(dict, i)) == FREE) {
            at(dict, i)->next = dict->free;
            dict->free = i;
            dict->free_count++;
        }
    }
}

static void pool_lock(struct gw_dict *dict)
{
    if (gw_shm_lock_take(&dict->lock))
        pool_rebuild(dict);
}

/* One cell for the shard; the pool is locked and not empty. Marked before it leaves the pool. */
static uint32_t pool_pop(struct gw_dict *dict, struct shard *shard)
{
    uint32_t index = dict->free ? dict->free : dict->fresh;
    struct cell *cell = at(dict, index);
    uint32_t next = cell->next;
    cell->shard = shard_number(dict, shard);
    set_kind(cell, BODY);
    if (index == dict->fresh) {
        dict->fresh++;
    } else {
        dict->free = next;
        dict->free_count--;
    }
    return index;
}

static void pool_push(struct gw_dict *dict, uint32_t index)
{
    at(dict, index)->next = dict->free;
    set_kind(at(dict, index), FREE);
    dict->free = index;
    dict->free_count++;
}

/* A chain of n cells for a record of the shard, or NIL when there are not so many. */
static uint32_t cells_take(struct gw_dict *dict, struct shard *shard, uint32_t n)
{
    uint32_t chain = NIL;
    pool_lock(dict);
    if (dict->free_count + (dict->cell_count - dict->fresh) >= n) {
        for (uint32_t i = 0; i < n; i++) {
            uint32_t index = pool_pop(dict, shard);
            at(dict, index)->next = chain;
            chain = index;
        }
        shard->held += n;
    }
    gw_shm_lock_give(&dict->lock);
    return chain;
}

static void cells_give(struct gw_dict *dict, struct shard *shard, uint32_t chain)
{
    pool_lock(dict);
    while (chain) {
        uint32_t next = at(dict, chain)->next;
        pool_push(dict, chain);
        shard->held--;
        chain = next;
    }
    gw_shm_lock_give(&dict->lock);
}

static uint32_t cells_for(size_t bytes)
{
    if (bytes <= BYTES_FIRST)
        return 1;
    return 1 + (uint32_t)((bytes - BYTES_FIRST + BYTES_MORE - 1) / BYTES_MORE);
}

/* Runs through a record's bytes piece by piece. */
struct cursor {
    struct gw_dict *dict;
    uint32_t index;
    size_t from; /* offset in the cell */
};

static struct cursor cursor_at(struct gw_dict *dict, uint32_t index)
{
    return (struct cursor){dict, index, offsetof(struct cell, bytes)};
}

/* At most want bytes that lie together; *n says how many. */
static char *cursor_take(struct cursor *cursor, size_t want, size_t *n)
{
    if (cursor->from == CELL) {
        cursor->index = at(cursor->dict, cursor->index)->next;
        cursor->from = offsetof(struct cell, chain_next);
    }
    char *piece = (char *)at(cursor->dict, cursor->index) + cursor->from;
    *n = want < CELL - cursor->from ? want : CELL - cursor->from;
    cursor->from += *n;
    return piece;
}

static void write_bytes(struct cursor *cursor, struct gw_slice bytes)
{
    for (size_t n; bytes.len > 0; bytes.ptr += n, bytes.len -= n) {
        char *piece = cursor_take(cursor, bytes.len, &n);
        memcpy(piece, bytes.ptr, n);
    }
}

/* out NULL: skips them. */
static void read_bytes(struct cursor *cursor, char *out, size_t len)
{
    for (size_t n; len > 0; len -= n) {
        char *piece = cursor_take(cursor, len, &n);
        if (out) {
            memcpy(out, piece, n);
            out += n;
        }
    }
}

/* Whether the record's key (or name) is this one. */
static bool key_equals(struct gw_dict *dict, uint32_t index, struct gw_slice key)
{
    struct cursor cursor = cursor_at(dict, index);
    if (at(dict, index)->key_len != key.len)
        return false;
    for (size_t n; key.len > 0; key.ptr += n, key.len -= n) {
        char *piece = cursor_take(&cursor, key.len, &n);
        if (memcmp(piece, key.ptr, n) != 0)
            return false;
    }
    return true;
}

static uint32_t *chain_of(struct gw_dict *dict, struct shard *shard, uint64_t hash)
{
    return &shard->chains[hash & (dict->chain_count - 1)];
}

static void chain_insert(struct gw_dict *dict, struct shard *shard, uint32_t index)
{
    uint32_t *chain = chain_of(dict, shard, at(dict, index)->hash);
    at(dict, index)->chain_next = *chain;
    *chain = index;
}

static void chain_remove(struct gw_dict *dict, struct shard *shard, uint32_t index)
{
    uint32_t *link = chain_of(dict, shard, at(dict, index)->hash);
    while (*link && *link != index)
        link = &at(dict, *link)->chain_next;
    if (*link)
        *link = at(dict, index)->chain_next;
}

static uint32_t find_group(struct place *place)
{
    struct gw_dict *dict = place->dict;
    uint32_t i = *chain_of(dict, place->shard, place->group_hash);
    for (; i; i = at(dict, i)->chain_next)
        if (at(dict, i)->kind == GROUP && at(dict, i)->hash == place->group_hash &&
            key_equals(dict, i, place->group))
            return i;
    return NIL;
}

static uint32_t find_entry(struct place *place, uint32_t group)
{
    struct gw_dict *dict = place->dict;
    uint32_t i = *chain_of(dict, place->shard, place->hash);
    for (; i; i = at(dict, i)->chain_next)
        if (at(dict, i)->kind == ENTRY && at(dict, i)->hash == place->hash &&
            at(dict, i)->group == group && key_equals(dict, i, place->key))
            return i;
    return NIL;
}

/* Group or entry: out of the shard's table and back to the pool. */
static void record_free(struct gw_dict *dict, struct shard *shard, uint32_t index)
{
    set_kind(at(dict, index), BODY);
    chain_remove(dict, shard, index);
    cells_give(dict, shard, index);
}

static void group_leave(struct gw_dict *dict, struct shard *shard, uint32_t group)
{
    if (--at(dict, group)->group == 0)
        record_free(dict, shard, group);
}

static void entry_drop(struct gw_dict *dict, struct shard *shard, uint32_t index)
{
    uint32_t group = at(dict, index)->group;
    set_kind(at(dict, index), BODY);
    list_remove(dict, &shard->entries, IN_SHARD, index);
    list_remove(dict, &at(dict, group)->links[IN_GROUP], IN_GROUP, index);
    shard->count--;
    record_free(dict, shard, index);
    group_leave(dict, shard, group);
}

static void entry_insert(struct gw_dict *dict, struct shard *shard, uint32_t index)
{
    chain_insert(dict, shard, index);
    list_push(dict, &shard->entries, IN_SHARD, index);
    list_push(dict, &at(dict, at(dict, index)->group)->links[IN_GROUP], IN_GROUP, index);
    shard->count++;
}

static void entry_touch(struct gw_dict *dict, struct shard *shard, uint32_t index)
{
    struct cell *group = at(dict, at(dict, index)->group);
    list_touch(dict, &shard->entries, IN_SHARD, index);
    list_touch(dict, &group->links[IN_GROUP], IN_GROUP, index);
}

/* First step of a rebuild: the cells of published records are KEPT, and what is still BODY then
 * was on its way in or out when the process died. */
static void mark_kept(struct gw_dict *dict, uint32_t number, uint32_t limit)
{
    for (uint32_t i = 1; i < limit; i++)
        if (kind_of(at(dict, i)) == KEPT && at(dict, i)->shard == number)
            set_kind(at(dict, i), BODY);
    for (uint32_t i = 1; i < limit; i++) {
        enum kind kind = kind_of(at(dict, i));
        if ((kind != ENTRY && kind != GROUP) || at(dict, i)->shard != number)
            continue;
        uint32_t n = cells_for((size_t)at(dict, i)->key_len + at(dict, i)->value_len);
        for (uint32_t c = i; n > 1; n--) {
            c = at(dict, c)->next;
            set_kind(at(dict, c), KEPT);
        }
    }
}

/* Second step: everything else goes back to the pool. */
static void sweep(struct gw_dict *dict, struct shard *shard, uint32_t limit)
{
    shard->held = 0;
    for (uint32_t i = 1; i < limit; i++) {
        enum kind kind = kind_of(at(dict, i));
        if (kind == FREE || at(dict, i)->shard != shard_number(dict, shard))
            continue;
        shard->held++;
        if (kind == KEPT) {
            set_kind(at(dict, i), BODY);
        } else if (kind == BODY) {
            at(dict, i)->next = NIL;
            cells_give(dict, shard, i);
        }
    }
}

/* Third step: groups, and then the entries in them, are linked as if they were new. */
static void relink(struct gw_dict *dict, struct shard *shard, enum kind kind, uint32_t limit)
{
    uint32_t number = shard_number(dict, shard);
    for (uint32_t i = 1; i < limit; i++) {
        struct cell *cell = at(dict, i);
        if (kind_of(cell) != kind || cell->shard != number)
            continue;
        if (kind == GROUP) {
            cell->links[IN_GROUP] = (struct link){NIL, NIL};
            cell->group = 0;
            chain_insert(dict, shard, i);
        } else {
            at(dict, cell->group)->group++;
            entry_insert(dict, shard, i);
        }
    }
}

static void drop_empty_groups(struct gw_dict *dict, struct shard *shard, uint32_t limit)
{
    for (uint32_t i = 1; i < limit; i++)
        if (kind_of(at(dict, i)) == GROUP && at(dict, i)->shard == shard_number(dict, shard) &&
            at(dict, i)->group == 0)
            record_free(dict, shard, i);
}

/* The shard's lock is held, and its former owner died with it. May itself be killed and repeated.
 */
static void shard_rebuild(struct gw_dict *dict, struct shard *shard)
{
    count_up(&dict->repairs);
    pool_lock(dict);
    uint32_t limit = dict->fresh;
    gw_shm_lock_give(&dict->lock);
    memset(shard->chains, 0, dict->chain_count * sizeof(*shard->chains));
    shard->entries = (struct link){NIL, NIL};
    shard->count = 0;
    mark_kept(dict, shard_number(dict, shard), limit);
    sweep(dict, shard, limit);
    relink(dict, shard, GROUP, limit);
    relink(dict, shard, ENTRY, limit);
    drop_empty_groups(dict, shard, limit);
}

static void shard_lock(struct gw_dict *dict, struct shard *shard)
{
    if (gw_shm_lock_take(&shard->lock))
        shard_rebuild(dict, shard);
}

static bool evict_oldest(struct gw_dict *dict, struct shard *shard)
{
    if (!shard->entries.next)
        return false;
    entry_drop(dict, shard, shard->entries.next);
    count_up(&dict->evicted);
    return true;
}

/* Takes from another shard; false when it is in use or empty. */
static bool evict_elsewhere(struct gw_dict *dict, struct shard *other)
{
    bool broken;
    if (!gw_shm_lock_try(&other->lock, &broken))
        return false;
    if (broken)
        shard_rebuild(dict, other);
    bool done = evict_oldest(dict, other);
    gw_shm_lock_give(&other->lock);
    return done;
}

static struct shard *largest_shard(struct gw_dict *dict)
{
    struct shard *largest = dict->shards;
    for (struct shard *s = dict->shards; s < dict->shards + SHARDS; s++)
        if (__atomic_load_n(&s->held, __ATOMIC_RELAXED) >
            __atomic_load_n(&largest->held, __ATOMIC_RELAXED))
            largest = s;
    return largest;
}

/* Makes some room; shard is the one whose lock is held. */
static bool evict_one(struct gw_dict *dict, struct shard *shard)
{
    struct shard *largest = largest_shard(dict);
    if (largest != shard && evict_elsewhere(dict, largest))
        return true;
    if (evict_oldest(dict, shard))
        return true;
    for (struct shard *s = dict->shards; s < dict->shards + SHARDS; s++)
        if (s != shard && evict_elsewhere(dict, s))
            return true;
    return false;
}

static uint32_t record_take(struct gw_dict *dict, struct shard *shard, size_t bytes)
{
    uint32_t n = cells_for(bytes);
    for (int i = 0; i < EVICTIONS_MAX; i++) {
        uint32_t record = cells_take(dict, shard, n);
        if (record || !evict_one(dict, shard))
            return record;
    }
    return NIL;
}

/* The group with one more in it, made when there is none; NIL when there is no room for it. */
static uint32_t group_enter(struct place *place)
{
    struct gw_dict *dict = place->dict;
    uint32_t index = find_group(place);
    if (!index) {
        index = record_take(dict, place->shard, place->group.len);
        if (!index)
            return NIL;
        struct cell *cell = at(dict, index);
        struct cursor cursor = cursor_at(dict, index);
        cell->hash = place->group_hash;
        cell->key_len = (uint16_t)place->group.len;
        cell->value_len = 0;
        cell->group = 0;
        cell->links[IN_GROUP] = (struct link){NIL, NIL};
        write_bytes(&cursor, place->group);
        set_kind(cell, GROUP);
        chain_insert(dict, place->shard, index);
    }
    at(dict, index)->group++;
    return index;
}

/* Makes place for the entry that has entered its group: what it replaces goes, what has run out,
 * and what is too much. */
static void group_tidy(struct place *place, uint32_t group, uint64_t now_ms, uint64_t max_entries)
{
    struct gw_dict *dict = place->dict;
    struct cell *cell = at(dict, group);
    uint32_t old = find_entry(place, group);
    if (old)
        entry_drop(dict, place->shard, old);
    for (int i = 0; i < EXPIRED_MAX; i++) {
        uint32_t oldest = cell->links[IN_GROUP].next;
        if (oldest && at(dict, oldest)->expires <= now_ms)
            entry_drop(dict, place->shard, oldest);
    }
    while (max_entries && cell->group > max_entries) {
        entry_drop(dict, place->shard, cell->links[IN_GROUP].next);
        count_up(&dict->evicted);
    }
}

static uint64_t expiry(uint64_t now_ms, uint64_t ttl_ms)
{
    return ttl_ms == 0 || ttl_ms >= never - now_ms ? never : now_ms + ttl_ms;
}

static struct place place_of(struct gw_dict *dict, struct gw_slice group, struct gw_slice key)
{
    uint64_t group_hash = gw_hash(group);
    return (struct place){
        .dict = dict,
        .shard = &dict->shards[(group_hash >> 32) % SHARDS],
        .group = group,
        .key = key,
        .group_hash = group_hash,
        .hash = gw_hash(key) ^ (group_hash << 1 | group_hash >> 63),
    };
}

static bool set_locked(struct place *place, struct gw_slice value, uint64_t now_ms, uint64_t ttl_ms,
                       uint64_t max_entries)
{
    struct gw_dict *dict = place->dict;
    uint32_t index = record_take(dict, place->shard, place->key.len + value.len);
    if (!index)
        return false;
    uint32_t group = group_enter(place);
    if (!group) {
        cells_give(dict, place->shard, index);
        return false;
    }
    struct cell *cell = at(dict, index);
    struct cursor cursor = cursor_at(dict, index);
    cell->hash = place->hash;
    cell->expires = expiry(now_ms, ttl_ms);
    cell->key_len = (uint16_t)place->key.len;
    cell->value_len = (uint16_t)value.len;
    cell->group = group;
    write_bytes(&cursor, place->key);
    write_bytes(&cursor, value);
    group_tidy(place, group, now_ms, max_entries);
    set_kind(cell, ENTRY);
    entry_insert(dict, place->shard, index);
    return true;
}

bool gw_dict_set(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                 struct gw_slice value, uint64_t now_ms, uint64_t ttl_ms, uint64_t max_entries)
{
    if (group.len > GW_DICT_GROUP_MAX || key.len > GW_DICT_KEY_MAX || value.len > GW_DICT_VALUE_MAX)
        return false;
    struct place place = place_of(dict, group, key);
    shard_lock(dict, place.shard);
    bool done = set_locked(&place, value, now_ms, ttl_ms, max_entries);
    gw_shm_lock_give(&place.shard->lock);
    return done;
}

/* The entry, locked; NIL when there is none or it has run out (and is dropped then). */
static uint32_t find_live(struct place *place, uint64_t now_ms)
{
    uint32_t group = find_group(place);
    uint32_t index = group ? find_entry(place, group) : NIL;
    if (index && at(place->dict, index)->expires <= now_ms) {
        entry_drop(place->dict, place->shard, index);
        return NIL;
    }
    return index;
}

/* Copies a live entry's value out, renews its ttl and its place among the recently used. */
static int read_live(struct place *place, uint32_t index, char *out, size_t cap, uint64_t now_ms,
                     uint64_t slide_ms)
{
    struct cell *cell = at(place->dict, index);
    struct cursor cursor = cursor_at(place->dict, index);
    size_t len = cell->value_len;
    read_bytes(&cursor, NULL, cell->key_len);
    read_bytes(&cursor, out, len < cap ? len : cap);
    if (slide_ms && cell->expires != never)
        cell->expires = expiry(now_ms, slide_ms);
    entry_touch(place->dict, place->shard, index);
    return (int)len;
}

int gw_dict_get(struct gw_dict *dict, struct gw_slice group, struct gw_slice key, char *out,
                size_t cap, uint64_t now_ms, uint64_t slide_ms)
{
    struct place place = place_of(dict, group, key);
    shard_lock(dict, place.shard);
    uint32_t index = find_live(&place, now_ms);
    int len = index ? read_live(&place, index, out, cap, now_ms, slide_ms) : -1;
    gw_shm_lock_give(&place.shard->lock);
    return len;
}

int gw_dict_add(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                struct gw_slice value, char *out, size_t cap, uint64_t now_ms, uint64_t ttl_ms,
                uint64_t max_entries)
{
    if (group.len > GW_DICT_GROUP_MAX || key.len > GW_DICT_KEY_MAX || value.len > GW_DICT_VALUE_MAX)
        return -1;
    struct place place = place_of(dict, group, key);
    shard_lock(dict, place.shard);
    uint32_t index = find_live(&place, now_ms);
    if (!index && set_locked(&place, value, now_ms, ttl_ms, max_entries))
        index = find_live(&place, now_ms);
    int len = index ? read_live(&place, index, out, cap, now_ms, ttl_ms) : -1;
    gw_shm_lock_give(&place.shard->lock);
    return len;
}

/* Eight bytes of a value in one store, where they lie together: a process that is killed has
 * written all of them or none. False when the values differ in more. */
static bool patch(struct gw_dict *dict, uint32_t index, const char *old, struct gw_slice fresh)
{
    size_t from = 0, last = fresh.len, n;
    while (from < fresh.len && old[from] == fresh.ptr[from])
        from++;
    while (last > from && old[last - 1] == fresh.ptr[last - 1])
        last--;
    if (from == fresh.len)
        return true;
    if (fresh.len < sizeof(uint64_t))
        return false;
    if (from > fresh.len - sizeof(uint64_t))
        from = fresh.len - sizeof(uint64_t);
    if (last - from > sizeof(uint64_t))
        return false;
    struct cursor cursor = cursor_at(dict, index);
    read_bytes(&cursor, NULL, at(dict, index)->key_len + from);
    char *piece = cursor_take(&cursor, sizeof(uint64_t), &n);
    if (n < sizeof(uint64_t))
        return false;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    memcpy(piece, fresh.ptr + from, sizeof(uint64_t));
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return true;
}

static uint64_t left_ms(const struct cell *cell, uint64_t now_ms)
{
    return cell->expires == never ? 0 : cell->expires - now_ms;
}

static bool change_locked(struct place *place, struct gw_dict_change *change, uint64_t now_ms)
{
    char old[GW_DICT_OLD_MAX];
    struct gw_dict *dict = place->dict;
    uint32_t index = find_live(place, now_ms);
    int old_len = index ? read_live(place, index, old, sizeof old, now_ms, change->slide_ms) : -1;
    struct gw_slice fresh = change->run(change, old, old_len);
    if (!fresh.ptr)
        return true;
    if (fresh.len > GW_DICT_VALUE_MAX)
        return false;
    if (index && (size_t)old_len == fresh.len && fresh.len <= sizeof old &&
        patch(dict, index, old, fresh))
        return true;
    uint64_t ttl_ms = index ? left_ms(at(dict, index), now_ms) : change->ttl_ms;
    return set_locked(place, fresh, now_ms, ttl_ms, change->max_entries);
}

bool gw_dict_change(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                    struct gw_dict_change *change, uint64_t now_ms)
{
    if (group.len > GW_DICT_GROUP_MAX || key.len > GW_DICT_KEY_MAX)
        return false;
    struct place place = place_of(dict, group, key);
    shard_lock(dict, place.shard);
    bool done = change_locked(&place, change, now_ms);
    gw_shm_lock_give(&place.shard->lock);
    return done;
}

int64_t gw_dict_ttl(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                    uint64_t now_ms)
{
    struct place place = place_of(dict, group, key);
    shard_lock(dict, place.shard);
    uint32_t index = find_live(&place, now_ms);
    int64_t left = index ? (int64_t)left_ms(at(dict, index), now_ms) : -1;
    gw_shm_lock_give(&place.shard->lock);
    return left;
}

bool gw_dict_delete(struct gw_dict *dict, struct gw_slice group, struct gw_slice key,
                    uint64_t now_ms)
{
    struct place place = place_of(dict, group, key);
    shard_lock(dict, place.shard);
    uint32_t index = find_live(&place, now_ms);
    if (index)
        entry_drop(dict, place.shard, index);
    gw_shm_lock_give(&place.shard->lock);
    return index != NIL;
}

static uint64_t count_group(struct gw_dict *dict, struct gw_slice group)
{
    struct place place = place_of(dict, group, GW_SLICE(""));
    shard_lock(dict, place.shard);
    uint32_t index = find_group(&place);
    uint64_t count = index ? at(dict, index)->group : 0;
    gw_shm_lock_give(&place.shard->lock);
    return count;
}

uint64_t gw_dict_count(struct gw_dict *dict, struct gw_slice group)
{
    if (group.len > 0)
        return count_group(dict, group);
    uint64_t count = 0;
    for (struct shard *s = dict->shards; s < dict->shards + SHARDS; s++)
        count += __atomic_load_n(&s->count, __ATOMIC_RELAXED);
    return count;
}

void gw_dict_stats(struct gw_dict *dict, struct gw_dict_stats *out)
{
    uint64_t held = 0;
    for (struct shard *s = dict->shards; s < dict->shards + SHARDS; s++)
        held += __atomic_load_n(&s->held, __ATOMIC_RELAXED);
    *out = (struct gw_dict_stats){
        .entries = gw_dict_count(dict, GW_SLICE("")),
        .bytes = held * CELL,
        .max_bytes = (uint64_t)(dict->cell_count - 1) * CELL,
        .evicted = __atomic_load_n(&dict->evicted, __ATOMIC_RELAXED),
        .repairs = __atomic_load_n(&dict->repairs, __ATOMIC_RELAXED),
    };
}

/* Entries in the hash table, and the cells of all records in it. */
static bool check_chains(struct gw_dict *dict, struct shard *shard)
{
    uint32_t entries = 0, held = 0;
    for (uint32_t b = 0; b < dict->chain_count; b++) {
        for (uint32_t i = shard->chains[b]; i; i = at(dict, i)->chain_next) {
            struct cell *cell = at(dict, i);
            bool entry = cell->kind == ENTRY;
            if ((!entry && cell->kind != GROUP) || cell->shard != shard_number(dict, shard) ||
                (cell->hash & (dict->chain_count - 1)) != b || held > dict->cell_count)
                return false;
            entries += entry;
            held += cells_for((size_t)cell->key_len + cell->value_len);
        }
    }
    return entries == shard->count && held == shard->held;
}

/* Whether the list runs to its end both ways; *n is its length. */
static bool check_list(struct gw_dict *dict, struct link *list, enum order order, uint32_t *n)
{
    uint32_t before = NIL;
    *n = 0;
    for (uint32_t i = list->next; i; i = at(dict, i)->links[order].next) {
        if (at(dict, i)->kind != ENTRY || at(dict, i)->links[order].prev != before ||
            ++*n > dict->cell_count)
            return false;
        before = i;
    }
    return list->prev == before;
}

static bool check_groups(struct gw_dict *dict, struct shard *shard)
{
    uint32_t total = 0, n;
    for (uint32_t i = 1; i < dict->fresh; i++) {
        struct cell *cell = at(dict, i);
        if (cell->kind != GROUP || cell->shard != shard_number(dict, shard))
            continue;
        if (!check_list(dict, &cell->links[IN_GROUP], IN_GROUP, &n) || n != cell->group || n == 0)
            return false;
        total += n;
    }
    return total == shard->count;
}

bool gw_dict_check(struct gw_dict *dict)
{
    uint32_t held = 0, n;
    bool good = true;
    for (struct shard *s = dict->shards; s < dict->shards + SHARDS; s++) {
        shard_lock(dict, s);
        good = good && check_chains(dict, s) && check_groups(dict, s) &&
               check_list(dict, &s->entries, IN_SHARD, &n) && n == s->count;
        held += s->held;
        gw_shm_lock_give(&s->lock);
    }
    pool_lock(dict);
    uint32_t free_cells = 0;
    for (uint32_t i = dict->free; i && free_cells <= dict->cell_count; i = at(dict, i)->next)
        free_cells++;
    good = good && free_cells == dict->free_count && held + free_cells == dict->fresh - 1;
    gw_shm_lock_give(&dict->lock);
    return good;
}

struct gw_dict *gw_dict_new(struct gw_shm *shm, size_t bytes)
{
    /* A chain for every second cell in each shard, since one shard may have nearly all of them. */
    size_t per_cell = CELL + SHARDS * sizeof(uint32_t) / 2;
    size_t cells = bytes > sizeof(struct gw_dict) ? (bytes - sizeof(struct gw_dict)) / per_cell : 0;
    size_t chains = 1;
    if (cells < CELLS_MIN || cells > UINT32_MAX / 2)
        return NULL;
    while (chains * 2 <= cells / 2)
        chains *= 2;
    size_t chain_bytes = chains * sizeof(uint32_t);
    char *mem = gw_shm_alloc(shm, sizeof(struct gw_dict) + cells * CELL + SHARDS * chain_bytes);
    if (!mem)
        return NULL;
    struct gw_dict *dict = (struct gw_dict *)(void *)mem;
    dict->cells = mem + sizeof(struct gw_dict);
    dict->cell_count = (uint32_t)cells;
    dict->chain_count = (uint32_t)chains;
    dict->fresh = 1;
    gw_shm_lock_init(&dict->lock);
    for (size_t i = 0; i < SHARDS; i++) {
        char *chain = dict->cells + cells * CELL + i * chain_bytes;
        gw_shm_lock_init(&dict->shards[i].lock);
        dict->shards[i].chains = (uint32_t *)(void *)chain;
    }
    return dict;
}
