/* What plugins keep in a shared dictionary: texts, numbers and truths, and counters with a sliding
 * window. Groups and keys, and who bounds them, are the dictionary's. Times are CLOCK_MONOTONIC. */
#ifndef GW_BASE_SHARED_H
#define GW_BASE_SHARED_H

#include "base/dict.h"

enum { GW_SHARED_TEXT_MAX = 16 << 10 };

enum gw_value_kind { GW_VALUE_NONE, GW_VALUE_TEXT, GW_VALUE_NUMBER, GW_VALUE_TRUTH };

struct gw_value {
    enum gw_value_kind kind;
    struct gw_slice text;
    double number;
    bool truth;
};

/* Where an entry is to be found, and what bounds it. */
struct gw_shared_place {
    struct gw_dict *dict;
    struct gw_slice group, key;
    uint64_t now_ms;
    uint64_t ttl_ms;      /* of what is stored; 0: no end */
    uint64_t max_entries; /* of the group; 0: no bound of its own */
};

enum gw_shared_result {
    GW_SHARED_OK,
    GW_SHARED_EXISTS, /* add: there is one already */
    GW_SHARED_LARGE,  /* more than GW_SHARED_TEXT_MAX */
    GW_SHARED_FULL,   /* no room could be made */
    GW_SHARED_KIND    /* incr: there is a value that is no number */
};

/* The value, or one of kind NONE. A text is copied into room, of GW_DICT_VALUE_MAX bytes. */
struct gw_value gw_shared_get(const struct gw_shared_place *place, char *room);
/* Stores a copy; only_absent: where there is none. OK, EXISTS, LARGE or FULL. */
enum gw_shared_result gw_shared_set(const struct gw_shared_place *place,
                                    const struct gw_value *value, bool only_absent);
/* *number becomes the stored number plus *number, or init plus *number where there is none; that
 * one's ttl begins then. OK, KIND or FULL. */
enum gw_shared_result gw_shared_incr(const struct gw_shared_place *place, double init,
                                     double *number);

/* Adds n to what happened in the last window_ms, and gives the sum, an estimate that assumes that
 * what happened in the window before was spread evenly over it. False: FULL. */
bool gw_counter_add(const struct gw_shared_place *place, uint64_t window_ms, double n,
                    double *count);
/* The same without adding anything. */
double gw_counter_get(const struct gw_shared_place *place, uint64_t window_ms);

#endif
