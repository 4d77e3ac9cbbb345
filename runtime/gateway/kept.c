/* Owns what an exchange needs on its way to the answer, and the block that is kept of it when the
 * answer is an event stream. Called by the steps, and by hooks and logs that ask for heads.
 * Invariant: a stream may stay for hours, so what is known of it is put into as many bytes as it
 * takes, and all the rest is made afresh when somebody asks. */
#include "gateway/kept.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include "base/slab.h"
#include "gateway/forward.h"
#include "gateway/reply.h"
#include "gateway/retry.h"

static struct gw_slab ways;

/* They go first, where there are any, and then the places. */
static size_t clocks_size(const struct gw_exchange *x)
{
    return x->timed ? sizeof(struct gw_clocks) : 0;
}

static size_t front_size(const struct gw_exchange *x)
{
    return clocks_size(x) + (x->bounded ? sizeof(struct gw_places) : 0);
}

/* What gw_forward_response adds to the response it can add again. */
void gw_kept_pack(struct gw_exchange *x)
{
    const struct gw_way *way = x->way;
    size_t id = front_size(x), request = id + gw_id_packed_size(way->id);
    size_t response = request + gw_head_packed_size(way->request);
    size_t rule = response + gw_head_packed_size(way->response), rule_size = strlen(x->rule) + 1;
    size_t trace = rule + rule_size, trace_size = gw_retry_trace_size(way);
    struct gw_kept *kept = malloc(offsetof(struct gw_kept, text) + trace + trace_size);
    GW_CHECK(kept != NULL);
    kept->request = (uint8_t)request;
    kept->response = (uint32_t)response;
    memcpy(kept->text, &way->clocks, clocks_size(x));
    memcpy(kept->text + clocks_size(x), &way->places, id - clocks_size(x));
    gw_id_pack(way->id, kept->text + id);
    gw_head_pack(way->request, kept->text + request);
    gw_head_pack(way->response, kept->text + response);
    x->rule = memcpy(kept->text + rule, x->rule, rule_size);
    x->traced = trace_size != 0;
    if (x->traced)
        gw_retry_trace_pack(way, kept->text + trace);
    x->kept = kept;
}

void gw_kept_places(const struct gw_exchange *x, struct gw_places *places)
{
    memcpy(places, x->kept->text + clocks_size(x), sizeof *places);
}

/* A version that bounds what was not bounded before: everything behind `at` moves up. */
static void make_room(struct gw_exchange *x, size_t at, size_t more)
{
    size_t size = malloc_usable_size(x->kept), from = offsetof(struct gw_kept, text);
    size_t rule = (size_t)((uintptr_t)x->rule - (uintptr_t)x->kept); /* large, if it is elsewhere */
    struct gw_kept *kept = malloc(size + more);
    GW_CHECK(kept != NULL && x->kept->request + more <= UINT8_MAX);
    memcpy(kept->text, x->kept->text, at);
    memcpy(kept->text + at + more, x->kept->text + at, size - from - at);
    kept->request = (uint8_t)(x->kept->request + more);
    kept->response = x->kept->response + (uint32_t)more;
    if (rule < size)
        x->rule = (char *)kept + rule + more;
    free(x->kept);
    x->kept = kept;
}

void gw_kept_set_places(struct gw_exchange *x, const struct gw_places *places)
{
    if (!x->bounded)
        make_room(x, clocks_size(x), sizeof *places);
    x->bounded = true;
    memcpy(x->kept->text + clocks_size(x), places, sizeof *places);
}

void gw_kept_clocks(const struct gw_exchange *x, struct gw_clocks *clocks)
{
    memcpy(clocks, x->kept->text, sizeof *clocks);
}

void gw_kept_set_clocks(struct gw_exchange *x, const struct gw_clocks *clocks)
{
    if (!x->timed)
        make_room(x, 0, sizeof *clocks);
    x->timed = true;
    memcpy(x->kept->text, clocks, sizeof *clocks);
}

const char *gw_exchange_id(const struct gw_exchange *x, char text[GW_ID_TEXT])
{
    return x->kept ? gw_id_unpack(x->kept->text + front_size(x), text) : x->way->id;
}

struct gw_way *gw_exchange_way(struct gw_exchange *x)
{
    if (!ways.size)
        gw_slab_init(&ways, sizeof(struct gw_way));
    if (!x->way) {
        x->way = gw_slab_alloc(&ways);
        gw_arena_init(&x->way->arena);
    }
    return x->way;
}

void gw_kept_drop_way(struct gw_exchange *x)
{
    if (!x->way)
        return;
    gw_reply_free(x->way->reply);
    gw_retry_end(x->way->retry);
    gw_arena_clear(&x->way->arena);
    gw_slab_free(&ways, x->way);
    x->way = NULL;
}

static struct gw_head *unpack(struct gw_arena *arena, const char *packed)
{
    struct gw_head *head = gw_arena_alloc(arena, sizeof *head);
    gw_head_init(head, arena);
    gw_head_unpack(head, packed);
    return head;
}

static struct gw_way *unsettle(struct gw_exchange *x)
{
    struct gw_way *way = gw_exchange_way(x);
    if (x->kept && !way->request) {
        way->request = unpack(&way->arena, x->kept->text + x->kept->request);
        way->response = unpack(&way->arena, x->kept->text + x->kept->response);
        gw_forward_response(x);
    }
    return way;
}

struct gw_head *gw_exchange_request(struct gw_exchange *x)
{
    return unsettle(x)->request;
}

struct gw_head *gw_exchange_response(struct gw_exchange *x)
{
    return unsettle(x)->response;
}

void gw_exchange_set_rule(struct gw_exchange *x, struct gw_slice id)
{
    if (gw_slice_eq(gw_slice_str(x->rule), id))
        return;
    x->rule = gw_arena_copy(&gw_exchange_way(x)->arena, id).ptr;
    x->traced = false;
}
