/* A whole gateway without Lua, between clients and backends that this file plays: the input is a
 * schedule of who sends what, how much of it goes, who stalls, ends or resets, what hooks do, and
 * when time passes. Invariant: support/judge.h about the bytes; and when everybody has fallen
 * silent all exchanges end by themselves within their deadlines, and nothing is left of them. */
#include "gateway/bounds.h"
#include "gateway/exchange.h"
#include "gateway/reply.h"
#include "gateway/retry.h"
#include "gateway/tally.h"
#include "gateway/tunnel.h"
#include "support/judge.h"

enum {
    CLIENTS = 3,
    GENERATIONS = 2,
    INPUT_MAX = 2048,
    OPS_MAX = 160,
    BYTES_MAX = 1 << 19,
    BIG = 90000,
    PORT = 1001,
    LONG_MS = 1000000, /* longer than streams and tunnels can last by their own deadlines */
    PASS_MS = 20000
};

static struct gw_loop loop;
static struct gw_gateway gateway;
static struct gw_facts *facts;

/* The side of a client, or of a backend: what it has still to send. */
struct side {
    struct world_socket *socket;
    struct fuzz_text queue;
    size_t at;
};

static struct side clients[CLIENTS], backends[WORLD_SOCKETS];
static size_t queued;
static struct judge judge;

/* Hooks. */

static struct hook_mode {
    unsigned flags;
    bool holds;   /* hooks wait until they are woken */
    bool retries; /* the rule has `retry`, and `firstEvent` */
    bool replies; /* response hooks give another answer; streams end with their generation */
} mode;

/* Of the whole run, from its last byte. */
enum {
    HAS_BOUNDS = 8,
    HAS_CLOCKS = 16, /* streams have a first event to wait for, and an age */
    HAS_TRUST = 32,  /* clients are proxies that are believed */
    HAS_HEADER = 64, /* … and begin with a header of the PROXY protocol */
    HAS_LITTLE = 128 /* room for requests, ahead and in all */
};
static unsigned rules;

static const struct gw_hooks hooks;

static void unused(struct gw_generation *g)
{
    while (g->instance_count)
        gw_instance_unref(g->instances[--g->instance_count]);
}

static struct gw_instance *instances[2];
static struct gw_instance *references[GENERATIONS][2];
static struct gw_generation generations[GENERATIONS];

static bool held(struct gw_exchange *x)
{
    x->script.task = mode.holds ? x : NULL;
    return mode.holds;
}

static void set_retry(struct gw_exchange *x)
{
    static const char names[] = "GET\0HEAD\0PUT";
    char bytes[sizeof(struct gw_retry_rule) + sizeof names];
    struct gw_retry_rule rule = {.attempts = 3,
                                 .causes = GW_RETRY_CONNECT | GW_RETRY_RESET | GW_RETRY_TIMEOUT,
                                 .max_body = 4096,
                                 .base_ms = 50,
                                 .max_ms = 1000,
                                 .jitter = 0.5f,
                                 .ratio = 1,
                                 .min_requests = 100,
                                 .hold_ms = 2000,
                                 .methods = sizeof names};
    gw_statuses_add(&rule.statuses, 500, 503);
    memcpy(bytes, &rule, sizeof rule);
    memcpy(bytes + offsetof(struct gw_retry_rule, text), names, sizeof names);
    gw_retry_set(x, gw_slice_of(bytes, sizeof bytes));
}

static enum gw_hook_result hook_route(struct gw_exchange *x)
{
    static const struct gw_bounds bounds = {.total = 3, .limit = {2, 2, 1, 1}, .session = 7};
    const struct gw_settings *settings = &x->generation->settings;
    x->hook_flags = (uint8_t)mode.flags;
    x->timeout_ms = rules & HAS_CLOCKS ? LONG_MS : 60000;
    gw_exchange_set_rule(x, GW_SLICE("fuzz"));
    if (mode.retries)
        set_retry(x);
    if (rules & HAS_BOUNDS)
        gw_bounds_set(x, &bounds);
    if (x->way->request->upgrade)
        gw_tunnel_permit(x, gw_slice_str(settings->upgrades), (double)settings->tunnel_idle_ms);
    return GW_HOOK_NEXT;
}

static enum gw_hook_result hook_wait(struct gw_exchange *x)
{
    return held(x) ? GW_HOOK_WAIT : GW_HOOK_NEXT;
}

static enum gw_hook_result hook_response(struct gw_exchange *x)
{
    if (held(x))
        return GW_HOOK_WAIT;
    if (!mode.replies)
        return GW_HOOK_NEXT;
    gw_reply_problem(x, 418, GW_SLICE("hooked"));
    return GW_HOOK_REPLY;
}

static enum gw_hook_result hook_balance(struct gw_exchange *x)
{
    if (held(x))
        return GW_HOOK_WAIT;
    unsigned i = x->instance && gw_exchange_tried(x, instances[0]->index);
    gw_exchange_use(x, instances[i]);
    return GW_HOOK_NEXT;
}

static enum gw_event_verdict hook_event(struct gw_exchange *x, struct gw_slice raw,
                                        struct gw_buf *out)
{
    FUZZ_CHECK(raw.len > 0, "an empty event");
    if (held(x))
        return GW_EVENT_PENDING;
    if (raw.len % 2)
        return GW_EVENT_PASS;
    gw_buf_add(out, raw);
    return GW_EVENT_CHANGED;
}

static bool hook_close(struct gw_exchange *x, const char *reason)
{
    FUZZ_CHECK(*reason, "no reason");
    return !held(x);
}

static void hook_nothing(struct gw_exchange *x)
{
    (void)x;
}

static void hook_cancel(struct gw_exchange *x)
{
    x->script.task = NULL;
}

static bool hook_waiting(const struct gw_exchange *x)
{
    return x->script.task != NULL;
}

static enum gw_adoption hook_adopt(struct gw_exchange *x, struct gw_generation *to)
{
    FUZZ_CHECK(!x->script.task && to == gateway.current, "adopted while a hook waits");
    if (mode.replies)
        return GW_ADOPT_RETIRE;
    x->hook_flags = (uint8_t)mode.flags;
    return mode.retries ? GW_ADOPT_STAYS : GW_ADOPTED;
}

static bool hook_unwanted(struct gw_exchange *x, struct gw_generation *to)
{
    (void)x, (void)to;
    return mode.replies;
}

static bool hook_tied(const struct gw_exchange *x)
{
    (void)x;
    return mode.holds;
}

static void hook_serve(struct gw_generation *g)
{
    (void)g;
}

static const struct gw_hooks hooks = {.route = hook_route,
                                      .access = hook_wait,
                                      .balance = hook_balance,
                                      .response = hook_response,
                                      .event = hook_event,
                                      .close = hook_close,
                                      .settle = hook_nothing,
                                      .adopt = hook_adopt,
                                      .unwanted = hook_unwanted,
                                      .tied = hook_tied,
                                      .room = hook_nothing,
                                      .serve = hook_serve,
                                      .waiting = hook_waiting,
                                      .cancel = hook_cancel,
                                      .release = hook_cancel};

static void wake_all(void)
{
    for (struct gw_list *at = gateway.exchanges.next; at != &gateway.exchanges; at = at->next)
        gw_exchange_wake(GW_CONTAINER(at, struct gw_exchange, node));
}

/* The two sides. */

#define EVENTS  "Content-Type: text/event-stream\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n"

#define FORWARDED_FOR "X-Forwarded-For: "
#define UPGRADE       "Connection: upgrade\r\nUpgrade: "

enum { REQUESTS = 24, RESPONSES = 26 };

static const char *const requests[REQUESTS] = {
    "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "POST /c HTTP/1.1\r\nHost: x\r\n" CHUNKED "\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n",
    "HEAD /d HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /e HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
    "GET /f HTTP/1.0\r\n\r\n",
    "POST /g HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "GET /h HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "PUT /i HTTP/1.1\r\nHost: x\r\n" CHUNKED "\r\n1\r\nz\r\n0\r\nT: v\r\n\r\n",
    "PUT /j HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nq",
    "POST /k HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n@",
    "PUT /l HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab",
    "OPTIONS * HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n",
    "GET http://x/m HTTP/1.1\r\nHost: x\r\nConnection: x-a\r\nX-A: 1\r\n\r\n",
    "POST /n HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n" CHUNKED "\r\n0\r\n\r\n",
    "GET /o HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "GET /p HTTP/1.1\r\nHost: x\r\n" UPGRADE "chat, WebSocket\r\n\r\n",
    "GET /q HTTP/1.1\r\nHost: x\r\n" UPGRADE "h2c\r\n\r\nGET /r HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /s HTTP/1.1\r\nHost: x\r\n" UPGRADE "chat\r\nContent-Length: 2\r\n\r\nhi",
    "GET /t HTTP/1.0\r\nConnection: keep-alive, upgrade\r\nUpgrade: chat\r\n\r\n",
    "GET /u HTTP/1.1\r\nHost: x\r\n" FORWARDED_FOR "1.2.3.4, 192.0.2.9\r\n\r\n",
    "GET /v HTTP/1.1\r\nHost: x\r\nForwarded: for=\"[::1]:7\";proto=https, for=1.2.3.4\r\n\r\n",
    "GET /w HTTP/1.1\r\nHost: x\r\n" UPGRADE "chat\r\n\r\nthrough the tunnel",
    "@",
};

static const char *const responses[RESPONSES] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\n" CHUNKED "\r\n3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED "\r\n",
    "9\r\ndata: x\n\n\r\n",
    "0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\nabc",
    "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 200 OK\r\n" EVENTS "\r\n",
    "id: 1\rdata: y\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n@",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" CHUNKED "\r\n0\r\n\r\n",
    "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n" EVENTS "Content-Length: 9\r\n\r\ndata: z\n\n",
    "HTTP/1.1 101 Go\r\n" UPGRADE "chat\r\n\r\n",
    "HTTP/1.1 101 Go\r\n" UPGRADE "chat\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 101 Go\r\n" UPGRADE "h2c\r\n\r\nPRI",
    "HTTP/1.1 101 Go\r\nUpgrade: chat\r\n\r\n",
    "HTTP/1.1 426 No\r\n" UPGRADE "chat\r\nContent-Length: 0\r\n\r\n",
    "@",
};

/* '@' stands for a big body. */
static void put_text(struct side *side, const char *text)
{
    size_t len = strlen(text);
    bool big = len && text[len - 1] == '@';
    queued += big ? BIG : len;
    if (!side || queued > BYTES_MAX)
        return;
    fuzz_put(&side->queue, text, len - big);
    for (int i = 0; big && i < BIG; i += 10)
        fuzz_put(&side->queue, "0123456789", 10);
}

/* The last is named by headers of the PROXY protocol. */
static const char *const peers[] = {"192.0.2.1", "192.0.2.2", "198.51.100.7"};
static const char proxy_header[] = "PROXY TCP4 198.51.100.7 192.0.2.9 1000 80\r\n";

static struct side *client_of(unsigned n)
{
    struct side *side = &clients[n % CLIENTS];
    struct gw_addr peer;
    if (side->socket && !side->socket->closed && !side->socket->peer_fin && !side->socket->peer_rst)
        return side;
    int fd = gateway.draining ? -1 : world_accept();
    if (fd < 0)
        return NULL;
    side->socket = world_of(fd);
    side->at = side->queue.len;
    if (rules & HAS_HEADER) {
        side->socket->lead = sizeof proxy_header - 1;
        fuzz_put(&side->queue, proxy_header, side->socket->lead);
    }
    FUZZ_CHECK(gw_addr_parse(&peer, peers[n / CLIENTS % 2], 4000), "address");
    gw_gateway_accept(&gateway, fd, &peer, rules & HAS_HEADER ? GW_DOOR_PROXIED : GW_DOOR_TRAFFIC);
    return side;
}

/* The n-th of those that are open, counted from the youngest. */
static struct side *backend_of(unsigned n)
{
    unsigned count = 0;
    for (unsigned i = 0; i < WORLD_SOCKETS; i++)
        count += world[i].used && world[i].dialled && !world[i].closed;
    if (!count)
        return NULL;
    for (unsigned i = WORLD_SOCKETS, left = n % count; i-- > 0;) {
        if (!world[i].used || !world[i].dialled || world[i].closed || left-- > 0)
            continue;
        backends[i].socket = &world[i];
        return &backends[i];
    }
    return NULL;
}

static void release(struct side *side, size_t n)
{
    if (!side || side->socket->peer_fin || side->socket->peer_rst || side->socket->closed)
        return;
    size_t left = side->queue.len - side->at;
    n = n && n < left ? n : left;
    if (!n)
        return;
    fuzz_put(&side->socket->to, side->queue.ptr + side->at, n);
    side->at += n;
}

enum { END_FIN, END_RST, END_SILENCE, ENDS };

static void end(struct side *side, unsigned how)
{
    if (!side || side->socket->closed)
        return;
    if (how == END_FIN)
        side->socket->peer_fin = true;
    else
        side->socket->peer_rst = true;
    side->socket->silent |= how == END_SILENCE;
}

/* 0: it reads no more; else that many bytes more. */
static void read_more(struct side *side, unsigned n)
{
    if (side)
        side->socket->room = n ? side->socket->room + n * 256u : 0;
}

/* The schedule. */

struct script {
    const uint8_t *at, *end;
};

static unsigned take(struct script *s)
{
    return s->at < s->end ? *s->at++ : 0;
}

static void take_literal(struct script *s, struct side *side)
{
    size_t n = take(s);
    if (n > (size_t)(s->end - s->at))
        n = (size_t)(s->end - s->at);
    queued += n;
    if (side && n && queued < BYTES_MAX)
        fuzz_put(&side->queue, s->at, n);
    s->at += n;
}

static void answer_dials(bool up)
{
    for (unsigned i = 0; i < WORLD_SOCKETS; i++)
        if (world[i].used && world[i].dialled && !world[i].closed && !world[i].up)
            world_answer_dial(&world[i], up);
}

static void set_mode(unsigned bits)
{
    static const unsigned flags[] = {GW_HAS_ACCESS, GW_HAS_RESPONSE, GW_HAS_EVENT, GW_HAS_CLOSE,
                                     GW_HAS_COMMENTS};
    mode = (struct hook_mode){.holds = bits & 32, .retries = bits & 64, .replies = bits & 128};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
        mode.flags |= bits >> i & 1 ? flags[i] : 0;
    judge.retries |= mode.retries;
    judge.events |= bits & 4;
    judge.early |= mode.replies;
}

static void pass_time(unsigned n)
{
    static const uint64_t times_ms[] = {10,   20,   50,   100,  300,   900,   1000,  1500,
                                        2000, 3000, 5000, 8000, 11000, 16000, 31000, 61000};
    world_pass(&loop, times_ms[n]);
}

static void make_generation(unsigned i);

/* The gateway itself is told something. */
static void tell(unsigned n)
{
    if (n == 0) {
        gw_gateway_drain(&gateway);
        return;
    }
    for (unsigned i = 0; i < GENERATIONS; i++) {
        if (generations[i].refs)
            continue;
        make_generation(i);
        gw_gateway_swap(&gateway, &generations[i]);
        return;
    }
}

static void run_op(struct script *s)
{
    unsigned byte = take(s), n = byte >> 4;
    switch (byte & 15) {
    case 0:
        world_turn(&loop, n + 1);
        break;
    case 1:
        take_literal(s, client_of(n));
        break;
    case 2:
        put_text(client_of(n), requests[take(s) % REQUESTS]);
        break;
    case 3:
        release(client_of(n), take(s));
        break;
    case 4:
        take_literal(s, backend_of(n));
        break;
    case 5:
        put_text(backend_of(n), responses[take(s) % RESPONSES]);
        break;
    case 6:
        release(backend_of(n), take(s));
        break;
    case 7:
        end(clients[n % CLIENTS].socket ? &clients[n % CLIENTS] : NULL, n / CLIENTS % ENDS);
        break;
    case 8:
        end(backend_of(n / ENDS), n % ENDS);
        break;
    case 9:
        read_more(clients[n % CLIENTS].socket ? &clients[n % CLIENTS] : NULL, take(s));
        break;
    case 10:
        read_more(backend_of(n), take(s));
        break;
    case 11:
        pass_time(n);
        break;
    case 12:
        world_dial = n % 4;
        if (n & 8)
            answer_dials(n & 4);
        else if (n & 4)
            tell(n & 3);
        break;
    case 13:
        set_mode(take(s));
        break;
    case 14:
        mode.holds = n & 1;
        wake_all();
        break;
    default: /* a client and a backend that just do their part */
        put_text(client_of(n), requests[take(s) % REQUESTS]);
        release(client_of(n), 0);
        world_turn(&loop, 3);
        put_text(backend_of(0), responses[take(s) % RESPONSES]);
        release(backend_of(0), 0);
    }
    world_turn(&loop, 2);
}

/* Beginning and end. */

static const struct gw_http_limits client_limits = {.max_header_bytes = 2048,
                                                    .max_headers = 32,
                                                    .head_ms = 10000,
                                                    .idle_ms = 15000,
                                                    .body_ms = 10000,
                                                    .write_ms = 8000,
                                                    .linger_ms = 1000};

static void choose_bounds(struct gw_settings *s)
{
    if (rules & HAS_BOUNDS) {
        s->max_connections = 3;
        s->max_client_connections = 2;
        s->client_prefix6 = 64;
        s->max_buffered_bytes = 256 * 1024;
        s->sse_max_buffered = 16 * 1024;
    }
    if (rules & HAS_LITTLE) {
        s->client.max_requests = 3;
        s->client.max_pipelined_bytes = 100;
        s->client.max_target_bytes = 64;
        s->client.max_body_bytes = 50000;
    }
}

static void choose_rest(struct gw_settings *s)
{
    if (rules & HAS_CLOCKS) {
        s->first_event_ms = rules & HAS_LITTLE ? 0 : 7000; /* then it is silence that ends them */
        s->max_age_ms = rules & HAS_LITTLE ? 0 : 15000;
        s->sse_keepalive_mode = GW_KEEPALIVE_IDLE;
    }
    if (rules & (HAS_TRUST | HAS_HEADER))
        s->trusted.count = gw_network_parse(&s->trusted.of[0], "192.0.2.0/24");
    s->forwarded = (rules & HAS_TRUST) && (rules & HAS_HEADER);
    judge.early |= (rules & HAS_CLOCKS) != 0;
    judge.trusts |= s->trusted.count > 0;
}

static void fill_settings(struct gw_settings *s)
{
    *s = (struct gw_settings){.client = client_limits,
                              .max_buffered_body = 4096,
                              .write_ms = 8000,
                              .upgrades = "websocket,chat",
                              .tunnel_idle_ms = 25000,
                              .sse_enabled = true,
                              .sse_write_ms = 12000,
                              .sse_keepalive_ms = 5000,
                              .max_event_bytes = 8192,
                              .max_idle = 4,
                              .max_idle_per_host = 2,
                              .idle_conn_ms = 20000,
                              .keep_alive = true,
                              .dial_ms = 3000,
                              .sse_dial_ms = 3000,
                              .response_head_ms = 9000,
                              .sse_silence_ms = 30000};
    s->origin = (struct gw_http_limits){.max_header_bytes = 2048, .max_headers = 32};
    choose_bounds(s);
    choose_rest(s);
}

static void make_generation(unsigned i)
{
    static uint64_t number;
    generations[i] = (struct gw_generation){.number = ++number,
                                            .hooks = &hooks,
                                            .instances = references[i],
                                            .instance_count = 2,
                                            .gateway = &gateway,
                                            .unused = unused};
    fill_settings(&generations[i].settings);
    for (unsigned j = 0; j < 2; j++) {
        references[i][j] = instances[j];
        gw_instance_ref(instances[j]);
    }
}

/* In the place of what workers share. */
static void make_shared(void)
{
    facts = calloc(1, sizeof *facts);
    facts->stats = calloc(1, sizeof *facts->stats);
    facts->tally = calloc(1, sizeof *facts->tally);
    FUZZ_CHECK(facts && facts->stats && facts->tally, "memory");
    gw_shm_lock_init(&facts->lock);
    gw_shm_lock_init(&facts->tally->lock);
    facts->tally->stats = facts->stats;
    gw_log_setup(GW_LOG_ERROR, GW_LOG_TEXT, "/dev/null");
}

static void begin(void)
{
    struct gw_addr addr;
    world_reset();
    if (!facts)
        make_shared();
    facts->count = 1;
    memset(&facts->budgets, 0, sizeof facts->budgets);
    memset(facts->fact, 0, 8 * sizeof *facts->fact);
    memset(facts->load[1], 0, sizeof facts->load[1][0] * 8);
    memset(&facts->stats->slot[1], 0, sizeof facts->stats->slot[1]);
    gw_stats_enlist(facts->stats, 1);
    FUZZ_CHECK(gw_loop_init(&loop), "no loop");
    gw_gateway_init(&gateway, &loop, facts, 1);
    memset(generations, 0, sizeof generations);
    for (unsigned i = 0; i < 2; i++) {
        FUZZ_CHECK(gw_addr_parse(&addr, "127.0.0.1", PORT + i), "address");
        instances[i] = gw_instance_new(&gateway, "fuzz", i ? "b" : "a", &addr);
        instances[i]->index = i + 1;
    }
    make_generation(0);
    for (unsigned i = 0; i < 2; i++)
        gw_instance_unref(instances[i]); /* the generation has its own */
    gw_gateway_swap(&gateway, &generations[0]);
}

/* Nobody says or takes anything any more, hooks come back, and what is dialled is refused. */
static void fall_silent(void)
{
    static const enum gw_stat gauges[] = {
        GW_STAT_CONNECTIONS, GW_STAT_NEWCOMERS, GW_STAT_STREAMS,  GW_STAT_TUNNELS,
        GW_STAT_EXCHANGES,   GW_STAT_POOL_IDLE, GW_STAT_ADMITTED, GW_STAT_STREAMS_DUE};
    mode.holds = false;
    wake_all();
    world_dial = WORLD_DIAL_REFUSED;
    answer_dials(false);
    world_turn(&loop, 4);
    /* One request behind the other takes its time. */
    for (unsigned i = 0; i < 200 && world_open(); i++) {
        world_pass(&loop, PASS_MS);
        FUZZ_CHECK(i < LONG_MS / PASS_MS / 2 || !gateway.count->value[GW_STAT_STREAMS],
                   "a stream that nobody feeds");
        FUZZ_CHECK(i < LONG_MS / PASS_MS / 2 || !gateway.count->value[GW_STAT_TUNNELS],
                   "a tunnel that nobody uses");
    }
    world_tell_open();
    FUZZ_CHECK(gw_list_empty(&gateway.exchanges), "an exchange does not end: step %s",
               gw_step_name(GW_CONTAINER(gateway.exchanges.next, struct gw_exchange, node)->step));
    FUZZ_CHECK(world_open() == 0, "%u sockets stay open", world_open());
    for (unsigned i = 0; i < sizeof gauges / sizeof *gauges; i++)
        FUZZ_CHECK(facts->stats->slot[1].value[gauges[i]] == 0, "gauge %u", gauges[i]);
    FUZZ_CHECK(gw_tally_keys(facts->tally) == 0, "somebody is counted still");
    for (unsigned i = 0; i < GENERATIONS; i++)
        FUZZ_CHECK(generations[i].refs == (gateway.current == &generations[i]), "generation %u", i);
    FUZZ_CHECK(gw_facts_sum(facts, instances[0]->fact, GW_LOAD_REQUESTS) == 0, "requests");
    FUZZ_CHECK(gw_facts_sum(facts, instances[0]->fact, GW_LOAD_STREAMS) == 0, "streams");
}

static void forget(struct side *side)
{
    side->queue.len = side->at = 0;
    side->socket = NULL;
}

static void finish(bool in_peace)
{
    if (in_peace)
        fall_silent();
    else
        gw_gateway_abort(&gateway, GW_ERR_SHUTDOWN);
    mode.holds = false;
    gw_gateway_fini(&gateway);
    world_pass(&loop, 10000);
    world_check_empty(&loop);
    gw_loop_fini(&loop);
    for (unsigned i = 0; i < WORLD_SOCKETS; i++)
        forget(&backends[i]);
    for (unsigned i = 0; i < CLIENTS; i++)
        forget(&clients[i]);
    queued = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {data, data + size};
    if (size < 2 || size > INPUT_MAX)
        return 0;
    judge = (struct judge){.peer_count = sizeof peers / sizeof *peers, .peers = peers};
    rules = data[size - 1];
    begin();
    set_mode(take(&script));
    for (unsigned ops = 0; script.at < script.end && ops < OPS_MAX; ops++)
        run_op(&script);
    finish(data[size - 1] & 7);
    judge_all(&judge);
    return 0;
}
