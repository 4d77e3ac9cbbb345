/* Owns the names of a generation and which of its instances they are. Called by script/ when a
 * generation is made, by the worker and gateway.c when it comes into use, and by the resolver.
 * Invariant: an instance keeps its place for a while after its name has lost it, so that whoever
 * has just chosen it reaches it, and no other one by mistake. */
#include "gateway/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"
#include "base/dict.h"
#include "gateway/exchange.h"
#include "gateway/service.h"
#include "net/resolve.h"

enum {
    REST_MS = 60000,
    RESTING_MAX = 256, /* should a server tell of others each time */
    ASKED_MAX = 100,   /* names at a time: no server likes a thousand questions at once */
    LIST_TEXT = GW_NAME_ADDRS * 40
};

struct name {
    struct gw_names *names;
    struct gw_lookup lookup;
    struct gw_list turn;   /* in the queue of those that would be asked for */
    struct gw_timer timer; /* until it is asked for again */
    const char *service, *id, *host;
    uint16_t port;
    bool barred;                           /* by the configuration, and so are its instances */
    unsigned number;                       /* from 1, as the program counts */
    struct gw_instance *at[GW_NAME_ADDRS]; /* borrowed of the generation; sorted by address */
    unsigned count;
    enum gw_err err;            /* of the last answer */
    uint64_t gone_ms;           /* since then servers say that there is no address; 0: they don't */
    bool known;                 /* there was an answer, here or under an older generation */
    bool awaited, cut, partial; /* of the last answer: too long; without one of the families */
};

struct gw_names {
    struct gw_generation *generation;
    struct gw_resolver *resolver; /* NULL before it has begun, and when it has stopped */
    bool begun;
    unsigned fixed;           /* instances in front, which have their addresses for good */
    unsigned asked;           /* names */
    struct gw_list queue;     /* of names, while there are as many as may be */
    unsigned awaited;         /* names */
    struct gw_timer patience; /* after which they are awaited no more */
    void (*ready)(void *data);
    void *data;
    unsigned count;
    struct name **name;
};

static const struct gw_settings *settings_of(const struct name *name)
{
    return &name->names->generation->settings;
}

static struct gw_loop *loop_of(const struct name *name)
{
    return name->names->generation->gateway->loop;
}

/* Now, for where 0 means never. */
static uint64_t stamp(const struct name *name)
{
    uint64_t now_ms = loop_of(name)->now_ms;
    return now_ms ? now_ms : 1;
}

/* The place of the one that has rested longest, for long enough or of too many; or a new one. */
static unsigned free_place(struct gw_names *names)
{
    struct gw_generation *g = names->generation;
    unsigned oldest = 0, resting = 0;
    for (unsigned i = names->fixed; i < g->instance_count; i++) {
        if (!g->instances[i]->gone_ms)
            continue;
        if (!resting++ || g->instances[i]->gone_ms < g->instances[oldest]->gone_ms)
            oldest = i;
    }
    if (resting > RESTING_MAX ||
        (resting && g->gateway->loop->now_ms - g->instances[oldest]->gone_ms >= REST_MS)) {
        gw_instance_unref(g->instances[oldest]);
        return oldest;
    }
    g->instances = realloc(g->instances, (g->instance_count + 1) * sizeof *g->instances);
    GW_CHECK(g->instances != NULL);
    return g->instance_count++;
}

/* It counts among the instances of its service while its name has it. */
static void join(const struct gw_generation *g, struct gw_instance *instance)
{
    for (unsigned i = 0; i < g->service_count && !instance->of; i++) {
        if (strcmp(g->services[i]->name, instance->service) == 0)
            gw_service_join(g->services[i], instance);
    }
}

static void rest(const struct name *name, struct gw_instance *instance)
{
    instance->gone_ms = stamp(name);
    gw_list_remove(&instance->sibling);
}

/* One that rests: addresses that come and go take no more places than there are of them. */
static struct gw_instance *awaken(struct gw_names *names, const struct gw_addr *addr,
                                  const char *service, const char *id)
{
    const struct gw_generation *g = names->generation;
    for (unsigned i = names->fixed; i < g->instance_count; i++) {
        struct gw_instance *old = g->instances[i];
        if (!old->gone_ms || !gw_addr_eq(&old->addr, addr) || strcmp(old->id, id) != 0 ||
            strcmp(old->service, service) != 0)
            continue;
        old->gone_ms = 0;
        if (old->of)
            gw_service_rejoin(old);
        return old;
    }
    return NULL;
}

static struct gw_instance *make(const struct name *name, const struct gw_addr *addr)
{
    struct gw_names *names = name->names;
    struct gw_generation *g = names->generation;
    char id[GW_INSTANCE_ID_MAX], host[GW_ADDR_TEXT];
    snprintf(id, sizeof id, "%s@%s", name->id, gw_addr_host(addr, host));
    struct gw_instance *instance = awaken(names, addr, name->service, id);
    if (instance)
        return instance;
    unsigned place = free_place(names);
    instance = gw_instance_new(g->gateway, name->service, id, addr);
    instance->index = place + 1;
    instance->barred = name->barred;
    join(g, instance);
    g->instances[place] = instance;
    return instance;
}

static void tell(const struct name *name)
{
    struct gw_generation *g = name->names->generation;
    g->hooks->resolved(g, name->number, name->at, name->count);
}

static bool has(const struct gw_addr *addrs, unsigned count, const struct gw_addr *addr)
{
    for (unsigned i = 0; i < count; i++) {
        if (gw_addr_eq(&addrs[i], addr))
            return true;
    }
    return false;
}

static struct gw_instance *instance_at(const struct name *name, const struct gw_addr *addr)
{
    for (unsigned i = 0; i < name->count; i++) {
        if (gw_addr_eq(&name->at[i]->addr, addr))
            return name->at[i];
    }
    return NULL;
}

/* These are its addresses now, sorted. False: as before. */
static bool become(struct name *name, const struct gw_addr *addrs, unsigned count)
{
    struct gw_instance *at[GW_NAME_ADDRS];
    bool changed = count != name->count;
    for (unsigned i = 0; i < count; i++) {
        at[i] = instance_at(name, &addrs[i]);
        changed |= !at[i];
        if (!at[i])
            at[i] = make(name, &addrs[i]);
    }
    for (unsigned i = 0; i < name->count; i++) {
        if (!has(addrs, count, &name->at[i]->addr))
            rest(name, name->at[i]);
    }
    memcpy(name->at, at, count * sizeof *at);
    name->count = count;
    if (changed)
        tell(name);
    return changed;
}

/* A line comes when something about a name changes, and not each time it is asked for. */
static void begin_line(struct gw_log_line *line, const struct name *name, enum gw_log_level level,
                       const char *text)
{
    gw_log_begin(line, level, text);
    gw_log_cstr(line, "name", name->host);
    gw_log_cstr(line, "service", name->service);
}

static void log_addresses(const struct name *name)
{
    struct gw_log_line line;
    char text[LIST_TEXT] = "", host[GW_ADDR_TEXT];
    size_t len = 0;
    for (unsigned i = 0; i < name->count && len < sizeof text; i++) {
        gw_addr_host(&name->at[i]->addr, host);
        len += (size_t)snprintf(text + len, sizeof text - len, i ? " %s" : "%s", host);
    }
    begin_line(&line, name, GW_LOG_INFO, "name resolved");
    gw_log_int(&line, "count", name->count);
    gw_log_cstr(&line, "addresses", text);
    gw_log_end(&line);
}

static void log_trouble(const struct name *name, const char *text, enum gw_err err)
{
    struct gw_log_line line;
    begin_line(&line, name, GW_LOG_WARN, text);
    if (err != GW_OK)
        gw_log_cstr(&line, "why", gw_err_slug(err));
    gw_log_int(&line, "kept", name->count);
    gw_log_end(&line);
}

/* What workers leave each other: one that is replaced while DNS is gone would know nothing. */
static const struct gw_slice group = {"\0names", 6}; /* no service is called so */

static void leave(const struct name *name)
{
    struct gw_dict *dict = name->names->generation->gateway->dict;
    struct gw_slice host = gw_slice_str(name->host);
    struct gw_addr addrs[GW_NAME_ADDRS];
    for (unsigned i = 0; i < name->count; i++)
        addrs[i] = name->at[i]->addr;
    if (dict && name->count)
        gw_dict_set(dict, group, host, gw_slice_of((char *)addrs, name->count * sizeof *addrs),
                    stamp(name), 0, 0);
    else if (dict)
        gw_dict_delete(dict, group, host, stamp(name));
}

/* How many were left. */
static unsigned find_left(const struct name *name, struct gw_addr addrs[GW_NAME_ADDRS])
{
    struct gw_dict *dict = name->names->generation->gateway->dict;
    size_t size = GW_NAME_ADDRS * sizeof *addrs;
    int len = dict ? gw_dict_get(dict, group, gw_slice_str(name->host), (char *)addrs, size,
                                 stamp(name), 0)
                   : 0;
    return len > 0 && (size_t)len <= size ? (unsigned)((size_t)len / sizeof *addrs) : 0;
}

static int by_address(const void *a, const void *b)
{
    return gw_addr_compare(a, b);
}

static bool is_wanted(const struct name *name, int family)
{
    int wanted = settings_of(name)->dns_family;
    return !wanted || family == wanted;
}

/* Those that are wanted, with its port. */
static unsigned choose(const struct name *name, const struct gw_addr *addrs, unsigned count,
                       struct gw_addr out[GW_NAME_ADDRS])
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!is_wanted(name, addrs[i].family))
            continue;
        out[n] = addrs[i];
        out[n++].port = name->port;
    }
    return n;
}

/* Those of an answer that are wanted, and the old ones of a family that it does not tell of. */
static unsigned collect(const struct name *name, const struct gw_addr *addrs, unsigned count,
                        struct gw_addr out[GW_NAME_ADDRS])
{
    unsigned n = choose(name, addrs, count, out);
    for (unsigned i = 0; n && i < name->count && n < GW_NAME_ADDRS; i++) {
        const struct gw_addr *addr = &name->at[i]->addr;
        if (addr->family == name->lookup.lost_family && !has(out, n, addr))
            out[n++] = *addr;
    }
    qsort(out, n, sizeof *out, by_address);
    return n;
}

/* Servers that had addresses a while ago, and have none now, may well be wrong: a registry that is
 * started anew says so. When they go on, they are right. */
static void lose(struct name *name)
{
    uint64_t hold_ms = settings_of(name)->dns_hold_ms;
    if (!name->gone_ms)
        name->gone_ms = stamp(name);
    if (!name->count || !hold_ms || stamp(name) < name->gone_ms + hold_ms)
        return;
    become(name, NULL, 0);
    leave(name);
    log_trouble(name, "name has lost its addresses", GW_ERR_UNKNOWN_NAME);
}

static void take(struct name *name, const struct gw_addr *addrs, unsigned count, bool was_known)
{
    const struct gw_lookup *lookup = &name->lookup;
    bool partial = lookup->lost_family && is_wanted(name, lookup->lost_family);
    bool changed = become(name, addrs, count);
    leave(name);
    if (changed || !was_known)
        log_addresses(name);
    if (lookup->cut && !name->cut)
        log_trouble(name, "name has too many addresses: the lowest are used", GW_OK);
    if (partial && !name->partial)
        log_trouble(name, "name resolved for one family only", GW_ERR_RESOLVE);
    name->gone_ms = 0;
    name->cut = lookup->cut;
    name->partial = partial;
}

static void be_ready(struct gw_names *names)
{
    void (*ready)(void *data) = names->ready;
    gw_timer_stop(names->generation->gateway->loop, &names->patience);
    names->ready = NULL;
    if (ready)
        ready(names->data);
}

static void out_of_patience(struct gw_timer *timer)
{
    be_ready(GW_CONTAINER(timer, struct gw_names, patience));
}

static void stop_waiting(struct name *name)
{
    if (name->awaited && --name->names->awaited == 0)
        be_ready(name->names);
    name->awaited = false;
}

static void set_err(struct name *name, enum gw_err err)
{
    int lost = (err != GW_OK) - (name->err != GW_OK);
    gw_stat_add(name->names->generation->gateway->count, GW_STAT_LOST_NAMES, lost);
    name->err = err;
}

static void answered(struct name *name, enum gw_err err, const struct gw_addr *addrs,
                     unsigned count)
{
    struct gw_addr wanted[GW_NAME_ADDRS];
    enum gw_err before = name->err;
    bool was_known = name->known && before == GW_OK;
    unsigned n = err == GW_OK ? collect(name, addrs, count, wanted) : 0;
    if (err == GW_OK && !n)
        err = GW_ERR_UNKNOWN_NAME;
    name->known = true;
    set_err(name, err);
    if (err != GW_OK && err != before)
        log_trouble(name, "name not resolved", err);
    if (err == GW_OK)
        take(name, wanted, n, was_known);
    else if (err == GW_ERR_UNKNOWN_NAME)
        lose(name);
    gw_timer_start(loop_of(name), &name->timer, name->lookup.good_ms);
    stop_waiting(name);
}

static void ask(struct name *name)
{
    struct gw_names *names = name->names;
    if (names->asked == ASKED_MAX) {
        gw_list_push(&names->queue, &name->turn);
        return;
    }
    enum gw_err err = gw_resolver_ask(names->resolver, gw_slice_str(name->host), &name->lookup);
    if (err == GW_OK) {
        names->asked++;
        return;
    }
    name->lookup.good_ms = settings_of(name)->dns_min_ttl_ms;
    answered(name, err, NULL, 0);
}

static void on_done(struct gw_lookup *lookup, enum gw_err err, const struct gw_addr *addrs,
                    unsigned count)
{
    struct name *name = GW_CONTAINER(lookup, struct name, lookup);
    struct gw_names *names = name->names;
    names->asked--;
    answered(name, err, addrs, count);
    struct gw_list *next = gw_list_take(&names->queue);
    if (next)
        ask(GW_CONTAINER(next, struct name, turn));
}

static void on_timer(struct gw_timer *timer)
{
    ask(GW_CONTAINER(timer, struct name, timer));
}

static char *put(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *here = memcpy(*at, text, size);
    *at += size;
    return here;
}

static struct name *name_new(const char *service, const char *id, const char *host)
{
    struct name *name =
        calloc(1, sizeof *name + strlen(service) + 1 + strlen(id) + 1 + strlen(host) + 1);
    GW_CHECK(name != NULL);
    char *text = (char *)(name + 1);
    name->service = put(&text, service);
    name->id = put(&text, id);
    name->host = put(&text, host);
    gw_list_init(&name->turn);
    gw_lookup_init(&name->lookup, on_done);
    gw_timer_init(&name->timer, on_timer);
    return name;
}

void gw_names_add(struct gw_generation *generation, const char *service, const char *id,
                  const char *host, unsigned port, bool barred)
{
    struct gw_names *names = generation->names;
    if (!names) {
        names = calloc(1, sizeof *names);
        GW_CHECK(names != NULL);
        names->generation = generation;
        names->fixed = generation->instance_count;
        gw_list_init(&names->queue);
        gw_timer_init(&names->patience, out_of_patience);
        generation->names = names;
    }
    struct name *name = name_new(service, id, host);
    names->name = realloc(names->name, (names->count + 1) * sizeof *names->name);
    GW_CHECK(names->name != NULL);
    names->name[names->count++] = name;
    name->names = names;
    name->port = (uint16_t)port;
    name->barred = barred;
    name->number = names->count;
}

static const struct name *same_name(const struct gw_names *names, const struct name *name)
{
    for (unsigned i = 0; names && i < names->count; i++) {
        const struct name *other = names->name[i];
        if (other->port == name->port && strcmp(other->host, name->host) == 0)
            return other;
    }
    return NULL;
}

static void begin_with(struct name *name, const struct gw_addr *addrs, unsigned count)
{
    struct gw_addr wanted[GW_NAME_ADDRS];
    become(name, wanted, choose(name, addrs, count, wanted));
}

/* What is known of it is better than nothing where the servers are gone by now. What the generation
 * in use knows is as good as an answer; what workers have left may be old. */
static void inherit(struct name *name)
{
    const struct gw_generation *current = name->names->generation->gateway->current;
    const struct name *from = same_name(current ? current->names : NULL, name);
    struct gw_addr addrs[GW_NAME_ADDRS] = {{0}};
    unsigned n = 0;
    for (unsigned i = 0; from && i < from->count; i++)
        addrs[n++] = from->at[i]->addr;
    begin_with(name, addrs, n ? n : find_left(name, addrs));
    name->awaited = !n || !name->count;
    if (!from)
        return;
    name->known = from->known;
    set_err(name, from->err);
    name->gone_ms = from->gone_ms;
    name->cut = from->cut;
    name->partial = from->partial;
}

static void open_resolver(struct gw_names *names)
{
    const struct gw_settings *s = &names->generation->settings;
    const char *servers = s->dns_servers[0] ? s->dns_servers : getenv("GATEWAYD_DNS");
    struct gw_resolver_options options = {.servers = servers,
                                          .deadline_ms = s->dns_timeout_ms,
                                          .min_ttl_ms = s->dns_min_ttl_ms,
                                          .max_ttl_ms = s->dns_max_ttl_ms};
    names->resolver = gw_resolver_new(names->generation->gateway->loop, &options);
}

void gw_names_start(struct gw_generation *generation, void (*ready)(void *data), void *data)
{
    struct gw_names *names = generation->names;
    if (names && !names->begun) {
        names->begun = true;
        open_resolver(names);
        names->awaited = 1; /* this call, so that nobody ends it from inside */
        for (unsigned i = 0; i < names->count; i++) {
            struct name *name = names->name[i];
            inherit(name);
            names->awaited += name->awaited;
            ask(name);
        }
        names->awaited--;
    }
    if (!ready)
        return;
    if (!names || !names->awaited) {
        ready(data);
        return;
    }
    names->ready = ready;
    names->data = data;
    gw_timer_start(generation->gateway->loop, &names->patience,
                   generation->settings.dns_timeout_ms);
}

void gw_names_stop(struct gw_generation *generation)
{
    struct gw_names *names = generation->names;
    if (!names || !names->resolver)
        return;
    for (unsigned i = 0; i < names->count; i++) {
        gw_lookup_cancel(&names->name[i]->lookup);
        gw_list_remove(&names->name[i]->turn);
        gw_timer_stop(generation->gateway->loop, &names->name[i]->timer);
        set_err(names->name[i], GW_OK); /* nobody waits for it any more */
    }
    gw_timer_stop(generation->gateway->loop, &names->patience);
    gw_resolver_free(names->resolver);
    names->resolver = NULL;
    names->asked = 0;
}

void gw_names_tell(struct gw_generation *generation)
{
    struct gw_names *names = generation->names;
    for (unsigned i = 0; names && i < names->count; i++)
        tell(names->name[i]);
}

void gw_names_free(struct gw_generation *generation)
{
    struct gw_names *names = generation->names;
    if (!names)
        return;
    gw_names_stop(generation);
    for (unsigned i = 0; i < names->count; i++)
        free(names->name[i]);
    free(names->name);
    free(names);
    generation->names = NULL;
}
