/* Owns the names of one loop: what is known of them, who waits for them, and c-ares with its
 * descriptors. Called by gateway/fetch.c and gateway/names.c. Invariant: done is called from the
 * ready list alone, so that c-ares, which may answer from inside a question, is never entered from
 * its own callbacks. */
#include "net/resolve.h"

#include <ares.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/check.h"
#include "base/log.h"
#include "base/map.h"

enum {
    DEADLINE_MS = 5000,
    TRY_MS = 1000, /* of the first question to a server; each round takes twice as long */
    TRIES = 3,
    DATAGRAM_MAX = 1232, /* of an answer by UDP, that no network cuts; longer ones come by TCP */
    REST_MS = 250,       /* for the other family, when one has brought addresses */
    TTL_MIN_MS = 1000,   /* also of errors, so that a storm asks once */
    FAMILIES = 2
};

static const int families[FAMILIES] = {AF_INET, AF_INET6};

struct query;

struct name {
    struct gw_list node;     /* in the resolver's list, the least recently asked first */
    struct gw_list waiting;  /* lookups */
    struct gw_list answered; /* in the resolver's list, when there is an answer to hand out */
    struct gw_resolver *resolver;
    struct query *query[FAMILIES]; /* on their way */
    struct gw_timer deadline;
    uint64_t until_ms; /* the answer is good before */
    enum gw_err err;
    int lost_family;
    bool cut;
    unsigned count;
    uint32_t ttl_s;
    struct gw_addr addrs[GW_NAME_ADDRS];
    size_t len;
    char text[];
};

/* c-ares can't be told to forget a question: it outlives the name that gave up on it. */
struct query {
    struct gw_resolver *resolver;
    struct name *name; /* NULL: nobody wants the answer any more */
    int family;        /* index */
};

struct watcher {
    struct gw_list node;
    struct ev_io io;
    struct gw_resolver *resolver;
};

struct gw_resolver {
    struct gw_loop *loop;
    ares_channel channel; /* NULL before first use */
    char *servers;
    const char *file;
    struct timespec file_time; /* its last change, when it was read */
    uint64_t deadline_ms, min_ttl_ms, max_ttl_ms;
    struct gw_map names;
    struct gw_list ages;     /* of names */
    struct gw_list answered; /* of names */
    struct gw_list watchers;
    struct gw_task_node task; /* hands answers out */
    struct gw_timer timer;    /* c-ares' own */
    unsigned queries;         /* with c-ares, the forgotten ones included */
    unsigned wanted;          /* of them, those whose answer somebody wants */
};

static void arm(struct gw_resolver *r)
{
    struct timeval left;
    if (!ares_timeout(r->channel, NULL, &left)) {
        gw_timer_stop(r->loop, &r->timer);
        return;
    }
    gw_timer_start(r->loop, &r->timer,
                   (uint64_t)left.tv_sec * 1000 + (uint64_t)left.tv_usec / 1000);
}

static void on_timer(struct gw_timer *timer)
{
    struct gw_resolver *r = GW_CONTAINER(timer, struct gw_resolver, timer);
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm(r);
}

static void on_io(struct ev_loop *ev, struct ev_io *io, int events)
{
    struct gw_resolver *r = ((struct watcher *)io->data)->resolver;
    int fd = io->fd; /* the watcher may be gone behind the call */
    (void)ev;
    ares_process_fd(r->channel, events & EV_READ ? fd : ARES_SOCKET_BAD,
                    events & EV_WRITE ? fd : ARES_SOCKET_BAD);
    arm(r);
    gw_loop_run_ready(r->loop);
}

static struct watcher *watcher_of(struct gw_resolver *r, int fd)
{
    for (struct gw_list *at = r->watchers.next; at != &r->watchers; at = at->next) {
        struct watcher *w = GW_CONTAINER(at, struct watcher, node);
        if (w->io.fd == fd)
            return w;
    }
    return NULL;
}

static struct watcher *watcher_new(struct gw_resolver *r, int fd)
{
    struct watcher *w = calloc(1, sizeof *w);
    GW_CHECK(w != NULL);
    w->resolver = r;
    ev_io_init(&w->io, on_io, fd, 0);
    w->io.data = w;
    gw_list_push(&r->watchers, &w->node);
    return w;
}

/* c-ares says what it waits for on a descriptor; nothing, before it closes that. */
static void on_socket(void *data, ares_socket_t fd, int readable, int writable)
{
    struct gw_resolver *r = data;
    struct watcher *w = watcher_of(r, fd);
    int events = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0);
    if (w)
        ev_io_stop(r->loop->ev, &w->io);
    if (!events && w) {
        gw_list_remove(&w->node);
        free(w);
    }
    if (!events)
        return;
    if (!w)
        w = watcher_new(r, fd);
    ev_io_set(&w->io, fd, events);
    ev_io_start(r->loop->ev, &w->io);
}

/* Whoever runs for weeks sees the host move to another network. Notes the time of the file. */
static bool file_has_changed(struct gw_resolver *r)
{
    struct stat now;
    if (stat(r->file, &now) != 0)
        return false;
    bool same =
        now.st_mtim.tv_sec == r->file_time.tv_sec && now.st_mtim.tv_nsec == r->file_time.tv_nsec;
    r->file_time = now.st_mtim;
    return !same;
}

static void close_channel(struct gw_resolver *r)
{
    if (r->channel)
        ares_destroy(r->channel); /* answers what it still has, to nobody */
    r->channel = NULL;
}

static bool open_channel(struct gw_resolver *r)
{
    struct ares_options options = {.flags = ARES_FLAG_EDNS,
                                   .ednspsz = DATAGRAM_MAX,
                                   .timeout = TRY_MS,
                                   .tries = TRIES,
                                   .sock_state_cb = on_socket,
                                   .sock_state_cb_data = r,
                                   .resolvconf_path = (char *)(uintptr_t)r->file};
    if (!r->wanted && file_has_changed(r))
        close_channel(r);
    if (r->channel)
        return true;
    int status =
        ares_init_options(&r->channel, &options,
                          ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                              ARES_OPT_SOCK_STATE_CB | ARES_OPT_RESOLVCONF);
    if (status == ARES_SUCCESS && r->servers)
        status = ares_set_servers_ports_csv(r->channel, r->servers);
    if (status == ARES_SUCCESS)
        return true;
    gw_log(GW_LOG_ERROR, "resolver: %s", ares_strerror(status));
    close_channel(r);
    return false;
}

static void hand_out(struct gw_task_node *task);

/* There is an answer: whoever waits hears it from the ready list. */
static void announce(struct name *name)
{
    struct gw_resolver *r = name->resolver;
    gw_list_remove(&name->answered);
    gw_list_push(&r->answered, &name->answered);
    gw_loop_wake(r->loop, &r->task, hand_out);
}

static bool is_asked(const struct name *name)
{
    return name->query[0] || name->query[1];
}

static void forget_queries(struct name *name)
{
    for (int i = 0; i < FAMILIES; i++) {
        if (!name->query[i])
            continue;
        name->query[i]->name = NULL;
        name->query[i] = NULL;
        name->resolver->wanted--;
    }
}

static void conclude(struct name *name)
{
    struct gw_resolver *r = name->resolver;
    uint64_t ttl_ms = name->count ? name->ttl_s * 1000ull : 0;
    if (ttl_ms > r->max_ttl_ms)
        ttl_ms = r->max_ttl_ms;
    if (ttl_ms < r->min_ttl_ms)
        ttl_ms = r->min_ttl_ms;
    if (name->count)
        name->err = GW_OK;
    name->until_ms = r->loop->now_ms + ttl_ms;
    gw_timer_stop(r->loop, &name->deadline);
    announce(name);
}

static void lose(struct name *name, int family)
{
    name->err = GW_ERR_RESOLVE;
    name->lost_family = family;
}

static void on_deadline(struct gw_timer *timer)
{
    struct name *name = GW_CONTAINER(timer, struct name, deadline);
    for (int i = 0; i < FAMILIES; i++) {
        if (name->query[i])
            lose(name, families[i]);
    }
    forget_queries(name);
    conclude(name);
}

static void lower_ttl(struct name *name, int ttl_s)
{
    uint32_t ttl = ttl_s > 0 ? (uint32_t)ttl_s : 0;
    if (ttl < name->ttl_s)
        name->ttl_s = ttl;
}

/* False: it has it already, or there are better ones. Which of too many are kept is not up to the
 * order they come in, which servers like to shuffle. */
static bool make_place(struct name *name, const struct gw_addr *addr)
{
    unsigned last = 0;
    for (unsigned i = 0; i < name->count; i++) {
        if (gw_addr_eq(&name->addrs[i], addr))
            return false;
    }
    if (name->count < GW_NAME_ADDRS)
        return true;
    name->cut = true;
    for (unsigned i = 1; i < name->count; i++) {
        if (gw_addr_compare(&name->addrs[i], &name->addrs[last]) > 0)
            last = i;
    }
    if (gw_addr_compare(addr, &name->addrs[last]) >= 0)
        return false;
    name->count--;
    memmove(&name->addrs[last], &name->addrs[last + 1], (name->count - last) * sizeof *addr);
    return true;
}

/* IPv4 goes in front: where a host has both, a network without IPv6 must not cost a timeout. */
static void insert(struct name *name, const struct gw_addr *addr)
{
    unsigned at = name->count++;
    for (; addr->family == AF_INET && at && name->addrs[at - 1].family == AF_INET6; at--)
        name->addrs[at] = name->addrs[at - 1];
    name->addrs[at] = *addr;
}

static void add_address(struct name *name, int family, const struct ares_addrinfo_node *node)
{
    struct gw_addr addr;
    gw_addr_set(&addr, node->ai_addr, node->ai_addrlen);
    if (!gw_addr_reachable(&addr)) {
        lose(name, family);
        return;
    }
    lower_ttl(name, node->ai_ttl);
    if (make_place(name, &addr))
        insert(name, &addr);
}

static void add_answer(struct name *name, int family, int status, const struct ares_addrinfo *info)
{
    if (status == ARES_SUCCESS && info) {
        for (const struct ares_addrinfo_node *n = info->nodes; n; n = n->ai_next)
            add_address(name, family, n);
        for (const struct ares_addrinfo_cname *c = info->cnames; c; c = c->next)
            lower_ttl(name, c->ttl);
    } else if (status != ARES_ENOTFOUND && status != ARES_ENODATA) {
        lose(name, family);
    }
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct query *query = arg;
    struct name *name = query->name;
    (void)timeouts;
    query->resolver->queries--;
    if (name) {
        query->resolver->wanted--;
        name->query[query->family] = NULL;
        add_answer(name, families[query->family], status, info);
        if (!is_asked(name))
            conclude(name);
        else if (name->count)
            gw_timer_start(name->resolver->loop, &name->deadline, REST_MS);
    }
    free(query);
    if (info)
        ares_freeaddrinfo(info);
}

static void ask_family(struct name *name, int index)
{
    struct ares_addrinfo_hints hints = {.ai_family = families[index], .ai_flags = ARES_AI_NOSORT};
    struct query *query = malloc(sizeof *query);
    GW_CHECK(query != NULL);
    *query = (struct query){.resolver = name->resolver, .name = name, .family = index};
    name->query[index] = query;
    name->resolver->queries++;
    name->resolver->wanted++;
    ares_getaddrinfo(name->resolver->channel, name->text, NULL, &hints, on_answer, query);
}

/* RFC 6761, section 6.3: it is this host, whatever a server or a file says. */
static bool is_localhost(struct gw_slice name)
{
    static const char suffix[] = ".localhost";
    size_t len = sizeof suffix - 1;
    return gw_slice_eq(name, GW_SLICE("localhost")) ||
           (name.len > len && memcmp(name.ptr + name.len - len, suffix, len) == 0);
}

static void answer_localhost(struct name *name)
{
    name->count = 2;
    name->ttl_s = GW_NAME_TTL_MAX_S;
    gw_addr_literal(&name->addrs[0], "127.0.0.1", 0);
    gw_addr_literal(&name->addrs[1], "::1", 0);
    conclude(name);
}

static enum gw_err ask_servers(struct name *name)
{
    struct gw_resolver *r = name->resolver;
    if (!open_channel(r))
        return GW_ERR_RESOLVE;
    if (r->queries + FAMILIES > GW_NAMES_MAX)
        return GW_ERR_OVERLOADED;
    name->count = 0;
    name->ttl_s = UINT32_MAX;
    name->err = GW_ERR_UNKNOWN_NAME;
    name->lost_family = 0;
    name->cut = false;
    gw_timer_start(r->loop, &name->deadline, r->deadline_ms);
    /* An answer may come from inside: neither must look like the last one too early. */
    struct query first = {0};
    name->query[1] = &first;
    ask_family(name, 0);
    name->query[1] = NULL;
    ask_family(name, 1);
    arm(r);
    return GW_OK;
}

static void drop_name(struct name *name)
{
    struct gw_resolver *r = name->resolver;
    forget_queries(name);
    gw_timer_stop(r->loop, &name->deadline);
    gw_list_remove(&name->node);
    gw_list_remove(&name->answered);
    gw_map_remove(&r->names, gw_slice_of(name->text, name->len));
    free(name);
}

/* The least recently asked one that nobody waits for. False: there is none. */
static bool make_room(struct gw_resolver *r)
{
    for (struct gw_list *at = r->ages.next; at != &r->ages; at = at->next) {
        struct name *name = GW_CONTAINER(at, struct name, node);
        if (!gw_list_empty(&name->waiting))
            continue;
        drop_name(name);
        return true;
    }
    return false;
}

static struct name *name_new(struct gw_resolver *r, struct gw_slice host)
{
    if (r->names.count >= GW_NAMES_MAX && !make_room(r))
        return NULL;
    struct name *name = calloc(1, sizeof *name + host.len + 1);
    GW_CHECK(name != NULL);
    memcpy(name->text, host.ptr, host.len);
    name->len = host.len;
    name->resolver = r;
    gw_list_init(&name->node);
    gw_list_init(&name->waiting);
    gw_list_init(&name->answered);
    gw_timer_init(&name->deadline, on_deadline);
    gw_map_put(&r->names, host, name);
    return name;
}

/* In lower case, and nothing in it that a zone can't have: c-ares would take escapes for text. */
static bool normalise(struct gw_slice host, char out[GW_NAME_MAX])
{
    if (host.len == 0 || host.len > GW_NAME_MAX)
        return false;
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c + 'a' - 'A');
        bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("-_.", c);
        if (!good || !c)
            return false;
        out[i] = c;
    }
    return true;
}

enum gw_err gw_resolver_ask(struct gw_resolver *r, struct gw_slice host, struct gw_lookup *lookup)
{
    char text[GW_NAME_MAX];
    if (!normalise(host, text))
        return GW_ERR_UNKNOWN_NAME;
    struct gw_slice key = gw_slice_of(text, host.len);
    struct name *name = gw_map_get(&r->names, key);
    if (!name && !(name = name_new(r, key)))
        return GW_ERR_OVERLOADED;
    gw_list_remove(&name->node);
    gw_list_push(&r->ages, &name->node);
    if (!is_asked(name) && name->until_ms > r->loop->now_ms) {
        announce(name);
    } else if (is_localhost(key)) {
        answer_localhost(name);
    } else if (!is_asked(name)) {
        enum gw_err err = ask_servers(name);
        if (err != GW_OK)
            return err;
    }
    gw_list_push(&name->waiting, &lookup->node);
    return GW_OK;
}

/* A callee may ask again, which may drop this name: nothing of it is used once it is called. */
static void deliver(struct name *name)
{
    struct gw_addr addrs[GW_NAME_ADDRS];
    unsigned count = name->count;
    enum gw_err err = name->err;
    uint64_t now_ms = name->resolver->loop->now_ms;
    uint64_t good_ms = name->until_ms > now_ms ? name->until_ms - now_ms : 0;
    int lost_family = name->lost_family;
    bool cut = name->cut;
    struct gw_list waiting;
    memcpy(addrs, name->addrs, count * sizeof *addrs);
    gw_list_init(&waiting);
    gw_list_splice(&waiting, &name->waiting);
    for (struct gw_list *at; (at = gw_list_take(&waiting));) {
        struct gw_lookup *lookup = GW_CONTAINER(at, struct gw_lookup, node);
        lookup->good_ms = good_ms;
        lookup->lost_family = lost_family;
        lookup->cut = cut;
        lookup->done(lookup, err, addrs, count);
    }
}

static void hand_out(struct gw_task_node *task)
{
    struct gw_resolver *r = GW_CONTAINER(task, struct gw_resolver, task);
    struct gw_list answered;
    gw_list_init(&answered);
    gw_list_splice(&answered, &r->answered);
    for (struct gw_list *at; (at = gw_list_take(&answered));) {
        struct name *name = GW_CONTAINER(at, struct name, answered);
        if (!is_asked(name)) /* else it is being asked anew, which announces it again */
            deliver(name);
    }
}

void gw_lookup_init(struct gw_lookup *lookup,
                    void (*done)(struct gw_lookup *lookup, enum gw_err err,
                                 const struct gw_addr *addrs, unsigned count))
{
    gw_list_init(&lookup->node);
    lookup->done = done;
}

void gw_lookup_cancel(struct gw_lookup *lookup)
{
    gw_list_remove(&lookup->node);
}

static uint64_t or_else(uint64_t given, uint64_t otherwise)
{
    return given ? given : otherwise;
}

struct gw_resolver *gw_resolver_new(struct gw_loop *loop, const struct gw_resolver_options *options)
{
    static const struct gw_resolver_options none;
    struct gw_resolver *r = calloc(1, sizeof *r);
    GW_CHECK(r != NULL);
    if (!options)
        options = &none;
    r->loop = loop;
    r->deadline_ms = or_else(options->deadline_ms, DEADLINE_MS);
    r->min_ttl_ms = or_else(options->min_ttl_ms, TTL_MIN_MS);
    r->max_ttl_ms = or_else(options->max_ttl_ms, GW_NAME_TTL_MAX_S * 1000ull);
    if (options->servers && options->servers[0]) {
        r->servers = strdup(options->servers);
        GW_CHECK(r->servers != NULL);
    }
    r->file = options->file ? options->file : "/etc/resolv.conf";
    gw_map_init(&r->names);
    gw_list_init(&r->ages);
    gw_list_init(&r->answered);
    gw_list_init(&r->watchers);
    gw_timer_init(&r->timer, on_timer);
    return r;
}

void gw_resolver_free(struct gw_resolver *r)
{
    while (!gw_list_empty(&r->ages)) {
        struct name *name = GW_CONTAINER(r->ages.next, struct name, node);
        while (gw_list_take(&name->waiting))
            ;
        drop_name(name);
    }
    close_channel(r);
    gw_timer_stop(r->loop, &r->timer);
    gw_loop_unwake(r->loop, &r->task);
    gw_map_fini(&r->names);
    free(r->servers);
    free(r);
}
