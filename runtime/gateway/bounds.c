/* Owns which connection counts for which client: an entry of a map for each, where clients are
 * bounded. Called when connections come and go, by the steps of exchanges, and by script/ for what
 * rules say. Invariant: what was taken is given back once: by gw_bounds_leave for a connection, by
 * gw_bounds_give for an exchange, which has it behind `bounded`. */
#include "gateway/bounds.h"

#include <string.h>
#include "base/random.h"
#include "gateway/kept.h"

/* What a key is of, so that the same address stands for several things. */
enum { OF_CONNECTIONS = 1, OF_STREAMS };

/* Hashed as it is: without holes. */
struct whom {
    uint64_t kind;
    uint64_t client;
    uint64_t rule; /* a hash of its id; 0: all rules */
    uint64_t session;
};

static uint64_t key_of(const struct whom *whom)
{
    uint64_t key = gw_hash(gw_slice_of((const char *)whom, sizeof *whom));
    return key ? key : 1;
}

uint64_t gw_bounds_client(const struct gw_addr *addr, unsigned prefix6)
{
    if (!gw_addr_is_ip(addr))
        return 0;
    unsigned bits = addr->family == AF_INET ? 32 : prefix6;
    struct gw_addr client = {.family = addr->family, .scope = addr->scope};
    memcpy(client.ip, addr->ip, bits / 8);
    if (bits % 8)
        client.ip[bits / 8] = addr->ip[bits / 8] & (unsigned char)(0xff00 >> bits % 8);
    uint64_t hash = gw_hash(gw_slice_of((const char *)&client, sizeof client));
    return hash ? hash : 1;
}

static struct gw_slice name_of(struct gw_codec *const *codec)
{
    return gw_slice_of((const char *)codec, sizeof *codec);
}

/* Connections of trusted proxies are those of many clients. */
static bool wish_for_client(const struct gw_gateway *gateway, const struct gw_codec *codec,
                            struct gw_tally_wish *wish)
{
    const struct gw_settings *s = &gateway->current->settings;
    const struct gw_addr *peer = &codec->conn->peer;
    if (!s->max_client_connections || gw_networks_have(&s->trusted, peer))
        return false;
    struct whom whom = {.kind = OF_CONNECTIONS,
                        .client = gw_bounds_client(peer, s->client_prefix6)};
    if (!whom.client)
        return false;
    *wish = (struct gw_tally_wish){
        .key = key_of(&whom), .limit = s->max_client_connections, .why = GW_ERR_CLIENT_CONNECTIONS};
    return true;
}

enum gw_err gw_bounds_admit(struct gw_gateway *gateway, struct gw_codec *codec)
{
    struct gw_tally *tally = gateway->facts->tally;
    struct gw_tally_wish wish = {0};
    const struct gw_tally_total total = {.mine = GW_STAT_ADMITTED,
                                         .other = GW_STAT_ADMITTED,
                                         .limit = gateway->current->settings.max_connections,
                                         .why = GW_ERR_MAX_CONNECTIONS};
    unsigned wishes = wish_for_client(gateway, codec, &wish);
    if (!tally || (!total.limit && !wishes)) {
        gw_stat_add(gateway->count, GW_STAT_ADMITTED, 1);
        return GW_OK;
    }
    enum gw_err err = gw_tally_take(tally, gateway->worker, &total, &wish, wishes);
    if (err == GW_OK && wish.place)
        gw_map_put(&gateway->guests, name_of(&codec), (void *)(uintptr_t)wish.place);
    return err;
}

void gw_bounds_leave(struct gw_gateway *gateway, struct gw_codec *codec)
{
    gw_stat_add(gateway->count, GW_STAT_ADMITTED, -1);
    if (!gateway->guests.count)
        return;
    uintptr_t place = (uintptr_t)gw_map_remove(&gateway->guests, name_of(&codec));
    gw_tally_give(gateway->facts->tally, gateway->worker, (unsigned)place);
}

static const enum gw_err whys[GW_BOUND_KEYS] = {
    [GW_BOUND_CLIENT] = GW_ERR_CLIENT_STREAMS,
    [GW_BOUND_RULE] = GW_ERR_RULE_STREAMS,
    [GW_BOUND_RULE_CLIENT] = GW_ERR_RULE_CLIENT_STREAMS,
    [GW_BOUND_SESSION] = GW_ERR_SESSION_STREAMS,
};

/* False: there is nothing to count by. */
static bool name_whom(const struct gw_exchange *x, enum gw_bound_key at, uint64_t session,
                      struct whom *whom)
{
    *whom = (struct whom){.kind = OF_STREAMS};
    if (at != GW_BOUND_CLIENT)
        whom->rule = gw_hash(gw_slice_str(x->rule));
    if (at == GW_BOUND_SESSION)
        whom->session = session;
    if (at == GW_BOUND_RULE)
        return true;
    if (at == GW_BOUND_SESSION)
        return session != 0;
    whom->client = gw_bounds_client(gw_exchange_client(x), x->generation->settings.client_prefix6);
    return whom->client != 0;
}

/* Of what has a bound and is not held yet; which tells what each is. */
static unsigned wish_for_streams(const struct gw_exchange *x, const struct gw_bounds *bounds,
                                 const struct gw_places *held, bool open,
                                 struct gw_tally_wish *wishes, uint8_t *which)
{
    unsigned n = 0;
    for (unsigned i = 0; i < GW_BOUND_KEYS; i++) {
        struct whom whom;
        if (!bounds->limit[i] || held->of[i] ||
            !name_whom(x, (enum gw_bound_key)i, bounds->session, &whom))
            continue;
        which[n] = (uint8_t)i;
        wishes[n++] = (struct gw_tally_wish){
            .key = key_of(&whom), .limit = open ? 0 : bounds->limit[i], .why = whys[i]};
    }
    return n;
}

static enum gw_err take(struct gw_exchange *x, const struct gw_bounds *bounds, bool open,
                        struct gw_places *held)
{
    struct gw_tally_wish wishes[GW_BOUND_KEYS];
    uint8_t which[GW_BOUND_KEYS];
    const struct gw_tally_total total = {.mine = GW_STAT_STREAMS_DUE,
                                         .other = GW_STAT_STREAMS,
                                         .limit = open ? 0 : bounds->total,
                                         .why = GW_ERR_MAX_STREAMS};
    unsigned n = wish_for_streams(x, bounds, held, open, wishes, which);
    enum gw_err err =
        gw_tally_take(x->gateway->facts->tally, x->gateway->worker, &total, wishes, n);
    for (unsigned i = 0; err == GW_OK && i < n; i++)
        held->of[which[i]] = wishes[i].place;
    if (err == GW_OK && open)
        gw_stat_add(x->gateway->count, GW_STAT_STREAMS_DUE, -1); /* it is counted already */
    return err;
}

enum gw_err gw_bounds_take(struct gw_exchange *x)
{
    const struct gw_bounds *bounds = x->way ? x->way->bounds : NULL;
    if (!bounds || x->bounded)
        return GW_OK;
    enum gw_err err = take(x, bounds, false, &x->way->places);
    x->bounded = err == GW_OK;
    if (err != GW_OK)
        gw_tally_tell(x->gateway->facts->tally, err);
    return err;
}

void gw_bounds_set(struct gw_exchange *x, const struct gw_bounds *bounds)
{
    if (!x->gateway->facts->tally || x->relay.mode == GW_BODY_TUNNEL)
        return;
    if (x->kept) {
        struct gw_places held = {0};
        if (x->bounded)
            gw_kept_places(x, &held);
        if (take(x, bounds, true, &held) == GW_OK)
            gw_kept_set_places(x, &held);
        return;
    }
    struct gw_way *way = gw_exchange_way(x);
    if (!way->bounds)
        way->bounds = gw_arena_alloc(&way->arena, sizeof *bounds);
    *way->bounds = *bounds;
}

void gw_bounds_open(struct gw_exchange *x)
{
    if (x->bounded)
        gw_stat_add(x->gateway->count, GW_STAT_STREAMS_DUE, -1);
}

void gw_bounds_give(struct gw_exchange *x)
{
    struct gw_places held;
    if (!x->bounded)
        return;
    if (x->kept)
        gw_kept_places(x, &held);
    else
        held = x->way->places;
    for (unsigned i = 0; i < GW_BOUND_KEYS; i++)
        gw_tally_give(x->gateway->facts->tally, x->gateway->worker, held.of[i]);
    if (x->relay.mode == GW_BODY_PLAIN)
        gw_stat_add(x->gateway->count, GW_STAT_STREAMS_DUE, -1);
    if (x->way)
        x->way->places = (struct gw_places){0};
    x->bounded = false;
}

bool gw_bounds_short(struct gw_gateway *gateway)
{
    size_t limit = gateway->current->settings.max_buffered_bytes, used = gw_buf_memory();
    bool before = gateway->count->value[GW_STAT_SHEDDING];
    bool now = limit && used >= (before ? limit - limit / 10 : limit);
    if (now != before) {
        gw_stat_set(gateway->count, GW_STAT_SHEDDING, now);
        gw_log(GW_LOG_WARN, now ? "buffers are at their bound: new requests are refused"
                                : "buffers are below their bound: requests are taken again");
    }
    return now;
}

void gw_bounds_retry_after(struct gw_head *head, unsigned seconds)
{
    seconds += (unsigned)(gw_random() % GW_RETRY_SPREAD_S);
    gw_fields_set(head, GW_SLICE("retry-after"), gw_arena_printf(head->arena, "%u", seconds));
}
