/* Owns nothing: the form that values have in the dictionary of plugins, and what is done to them in
 * one step. Called by the Lua API. Invariant: the first byte of a value says what it is; numbers
 * and counters change by one store of eight bytes, except where a window begins. */
#include "base/shared.h"

#include <string.h>
#include "base/list.h"

enum { MARK_TEXT = 's', MARK_NUMBER = 'n', MARK_TRUTH = 'b' };
enum { NUMBER_LEN = 1 + sizeof(double) };

/* To what `bytes` hold; a text views them. */
static struct gw_value value_of(const char *bytes, int len)
{
    struct gw_value value = {.kind = GW_VALUE_NONE};
    if (len < 1)
        return value;
    if (bytes[0] == MARK_TEXT) {
        value.kind = GW_VALUE_TEXT;
        value.text = gw_slice_of(bytes + 1, (size_t)len - 1);
    } else if (bytes[0] == MARK_NUMBER && len == NUMBER_LEN) {
        value.kind = GW_VALUE_NUMBER;
        memcpy(&value.number, bytes + 1, sizeof value.number);
    } else if (bytes[0] == MARK_TRUTH && len == 2) {
        value.kind = GW_VALUE_TRUTH;
        value.truth = bytes[1] != 0;
    }
    return value;
}

static struct gw_slice number_bytes(double number, char *room)
{
    room[0] = MARK_NUMBER;
    memcpy(room + 1, &number, sizeof number);
    return gw_slice_of(room, NUMBER_LEN);
}

static struct gw_slice value_bytes(const struct gw_value *value, char *room)
{
    if (value->kind == GW_VALUE_NUMBER)
        return number_bytes(value->number, room);
    if (value->kind == GW_VALUE_TRUTH) {
        room[0] = MARK_TRUTH;
        room[1] = (char)value->truth;
        return gw_slice_of(room, 2);
    }
    room[0] = MARK_TEXT;
    memcpy(room + 1, value->text.ptr, value->text.len);
    return gw_slice_of(room, value->text.len + 1);
}

struct gw_value gw_shared_get(const struct gw_shared_place *place, char *room)
{
    int len = gw_dict_get(place->dict, place->group, place->key, room, GW_DICT_VALUE_MAX,
                          place->now_ms, 0);
    return value_of(room, len);
}

struct addition {
    struct gw_dict_change change;
    struct gw_slice bytes;
    bool exists;
};

static struct gw_slice add_run(struct gw_dict_change *change, const char *old, int old_len)
{
    struct addition *self = GW_CONTAINER(change, struct addition, change);
    (void)old;
    self->exists = old_len >= 0;
    return self->exists ? (struct gw_slice){0} : self->bytes;
}

static bool change(const struct gw_shared_place *place, struct gw_dict_change *how)
{
    how->ttl_ms = place->ttl_ms;
    how->max_entries = place->max_entries;
    return gw_dict_change(place->dict, place->group, place->key, how, place->now_ms);
}

enum gw_shared_result gw_shared_set(const struct gw_shared_place *place,
                                    const struct gw_value *value, bool only_absent)
{
    char room[GW_DICT_VALUE_MAX];
    if (value->kind == GW_VALUE_TEXT && value->text.len > GW_SHARED_TEXT_MAX)
        return GW_SHARED_LARGE;
    struct gw_slice bytes = value_bytes(value, room);
    if (!only_absent)
        return gw_dict_set(place->dict, place->group, place->key, bytes, place->now_ms,
                           place->ttl_ms, place->max_entries)
                   ? GW_SHARED_OK
                   : GW_SHARED_FULL;
    struct addition addition = {.change = {.run = add_run}, .bytes = bytes};
    if (!change(place, &addition.change))
        return GW_SHARED_FULL;
    return addition.exists ? GW_SHARED_EXISTS : GW_SHARED_OK;
}

struct sum {
    struct gw_dict_change change;
    double init, number; /* number: what is added, then what came of it */
    bool wrong;
    char room[NUMBER_LEN];
};

static struct gw_slice sum_run(struct gw_dict_change *how, const char *old, int old_len)
{
    struct sum *self = GW_CONTAINER(how, struct sum, change);
    struct gw_value value = value_of(old, old_len);
    self->wrong = old_len >= 0 && value.kind != GW_VALUE_NUMBER;
    if (self->wrong)
        return (struct gw_slice){0};
    self->number += old_len >= 0 ? value.number : self->init;
    return number_bytes(self->number, self->room);
}

enum gw_shared_result gw_shared_incr(const struct gw_shared_place *place, double init,
                                     double *number)
{
    struct sum sum = {.change = {.run = sum_run}, .init = init, .number = *number};
    if (!change(place, &sum.change))
        return GW_SHARED_FULL;
    *number = sum.number;
    return sum.wrong ? GW_SHARED_KIND : GW_SHARED_OK;
}

/* Windows stand side by side on the clock; which one is `current`, and what the one before had. */
struct window {
    double number, current, previous;
};

_Static_assert(sizeof(struct window) <= GW_DICT_OLD_MAX, "a counter is seen whole");

static void roll(struct window *window, uint64_t now_ms, uint64_t window_ms)
{
    double number = (double)(now_ms / window_ms);
    if (number <= window->number) /* also where another worker's clock is a little ahead */
        return;
    window->previous = number == window->number + 1 ? window->current : 0;
    window->current = 0;
    window->number = number;
}

static double estimate(const struct window *window, uint64_t now_ms, uint64_t window_ms)
{
    double passed = (double)now_ms / (double)window_ms - window->number;
    return window->current + window->previous * (passed > 0 ? 1 - passed : 1);
}

struct count {
    struct gw_dict_change change;
    uint64_t now_ms, window_ms;
    double n, count;
    struct window window;
};

static struct gw_slice count_run(struct gw_dict_change *how, const char *old, int old_len)
{
    struct count *self = GW_CONTAINER(how, struct count, change);
    struct window *window = &self->window;
    if (old_len == sizeof *window)
        memcpy(window, old, sizeof *window);
    roll(window, self->now_ms, self->window_ms);
    window->current += self->n;
    self->count = estimate(window, self->now_ms, self->window_ms);
    return gw_slice_of((const char *)window, sizeof *window);
}

bool gw_counter_add(const struct gw_shared_place *place, uint64_t window_ms, double n,
                    double *count)
{
    struct gw_shared_place lasting = *place;
    struct count counting = {.change = {.run = count_run, .slide_ms = 2 * window_ms},
                             .now_ms = place->now_ms,
                             .window_ms = window_ms,
                             .n = n};
    lasting.ttl_ms = 2 * window_ms;
    bool done = change(&lasting, &counting.change);
    *count = counting.count;
    return done;
}

double gw_counter_get(const struct gw_shared_place *place, uint64_t window_ms)
{
    struct window window;
    char room[sizeof window];
    int len =
        gw_dict_get(place->dict, place->group, place->key, room, sizeof room, place->now_ms, 0);
    if (len != sizeof window)
        return 0;
    memcpy(&window, room, sizeof window);
    roll(&window, place->now_ms, window_ms);
    return estimate(&window, place->now_ms, window_ms);
}
