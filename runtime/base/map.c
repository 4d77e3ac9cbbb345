/* Owns the hash function and the chained hash maps made with it: names to things, in one process.
 * Invariant: cap is 0 or a power of two, and count never exceeds it. */
#include "base/map.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include "base/check.h"

enum { CAP_MIN = 8 };

struct gw_map_entry {
    struct gw_map_entry *next;
    uint64_t hash;
    void *value;
    size_t len;
    char key[];
};

static uint64_t seed[2];

void gw_hash_seed(void)
{
    ssize_t got;
    do
        got = getrandom(seed, sizeof seed, 0);
    while (got < 0 && errno == EINTR);
    GW_CHECK(got == sizeof seed);
}

static uint64_t rotl(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[2] += v[3];
    v[1] = rotl(v[1], 13) ^ v[0], v[3] = rotl(v[3], 16) ^ v[2];
    v[0] = rotl(v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = rotl(v[1], 17) ^ v[2], v[3] = rotl(v[3], 21) ^ v[0];
    v[2] = rotl(v[2], 32);
}

static uint64_t load_le64(const char *ptr, size_t n)
{
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++)
        word |= (uint64_t)(unsigned char)ptr[i] << (8 * i);
    return word;
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

/* SipHash-1-3: fast on short keys, and collisions can't be made without the key. */
static uint64_t sip_hash(struct gw_slice bytes, uint64_t k0, uint64_t k1)
{
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
                     k1 ^ 0x7465646279746573};
    size_t i = 0;
    for (; i + 8 <= bytes.len; i += 8)
        sip_word(v, load_le64(bytes.ptr + i, 8));
    sip_word(v, load_le64(bytes.ptr + i, bytes.len - i) | (uint64_t)bytes.len << 56);
    v[2] ^= 0xff;
    for (int round = 0; round < 3; round++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t gw_hash(struct gw_slice bytes)
{
    return sip_hash(bytes, seed[0], seed[1]);
}

uint64_t gw_hash_stable(struct gw_slice bytes, uint64_t salt)
{
    return sip_hash(bytes, salt, 0);
}

void gw_map_init(struct gw_map *map)
{
    *map = (struct gw_map){0};
}

void gw_map_fini(struct gw_map *map)
{
    for (size_t i = 0; i < map->cap; i++) {
        while (map->slots[i]) {
            struct gw_map_entry *entry = map->slots[i];
            map->slots[i] = entry->next;
            free(entry);
        }
    }
    free(map->slots);
    gw_map_init(map);
}

/* The link that points to the key's entry, or the one at the end of its chain; cap > 0. */
static struct gw_map_entry **find(const struct gw_map *map, uint64_t hash, struct gw_slice key)
{
    struct gw_map_entry **link = &map->slots[hash & (map->cap - 1)];
    while (*link &&
           ((*link)->hash != hash || !gw_slice_eq(gw_slice_of((*link)->key, (*link)->len), key)))
        link = &(*link)->next;
    return link;
}

void *gw_map_get(const struct gw_map *map, struct gw_slice key)
{
    if (map->count == 0)
        return NULL;
    struct gw_map_entry *entry = *find(map, gw_hash(key), key);
    return entry ? entry->value : NULL;
}

static void grow(struct gw_map *map)
{
    size_t cap = map->cap ? map->cap * 2 : CAP_MIN;
    struct gw_map_entry **slots = calloc(cap, sizeof(*slots));
    GW_CHECK(slots != NULL);
    for (size_t i = 0; i < map->cap; i++) {
        while (map->slots[i]) {
            struct gw_map_entry *entry = map->slots[i];
            map->slots[i] = entry->next;
            entry->next = slots[entry->hash & (cap - 1)];
            slots[entry->hash & (cap - 1)] = entry;
        }
    }
    free(map->slots);
    map->slots = slots;
    map->cap = cap;
}

void *gw_map_put(struct gw_map *map, struct gw_slice key, void *value)
{
    uint64_t hash = gw_hash(key);
    if (map->count == map->cap)
        grow(map);
    struct gw_map_entry **link = find(map, hash, key);
    if (*link) {
        void *before = (*link)->value;
        (*link)->value = value;
        return before;
    }
    struct gw_map_entry *entry = malloc(sizeof(*entry) + key.len);
    GW_CHECK(entry != NULL);
    *entry = (struct gw_map_entry){.hash = hash, .value = value, .len = key.len};
    if (key.len)
        memcpy(entry->key, key.ptr, key.len);
    *link = entry;
    map->count++;
    return NULL;
}

void *gw_map_remove(struct gw_map *map, struct gw_slice key)
{
    if (map->count == 0)
        return NULL;
    struct gw_map_entry **link = find(map, gw_hash(key), key);
    struct gw_map_entry *entry = *link;
    if (!entry)
        return NULL;
    void *value = entry->value;
    *link = entry->next;
    free(entry);
    map->count--;
    return value;
}

void gw_map_each(const struct gw_map *map,
                 void (*each)(struct gw_slice key, void *value, void *data), void *data)
{
    for (size_t i = 0; i < map->cap; i++)
        for (struct gw_map_entry *entry = map->slots[i]; entry; entry = entry->next)
            each(gw_slice_of(entry->key, entry->len), entry->value, data);
}
