/* Owns the checks under way. Called by the master. Invariant: each instance that is to be checked
 * has one check, which either waits for its time or is under way, never both; who has one is told
 * by the place of the instance among the facts, so that reloads disturb no check. */
#include "gateway/health.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"
#include "gateway/fetch.h"
#include "gateway/names.h"
#include "gateway/service.h"

enum { REVIEW_MS = 1000, SPREAD_MS = 1000, MAX_BODY = 64 * 1024, URL_MAX = 1400 };

struct gw_check {
    struct gw_list node;
    struct gw_health *health;
    struct gw_instance *instance; /* a reference */
    struct gw_timer timer;        /* until it begins */
    struct gw_fetch *fetch;       /* of an http check under way */
    struct gw_stream *stream;     /* of a tcp check under way; borrowed */
    bool wanted;                  /* by the generation that is being taken up */
};

static const struct gw_check_rules *rules_of(const struct gw_check *check)
{
    return &check->instance->of->check;
}

static struct gw_loop *loop_of(const struct gw_check *check)
{
    return check->health->gateway.loop;
}

/* Between 1 - share and 1 + share of it. */
static uint64_t jittered(uint64_t time_ms, uint32_t percent)
{
    uint64_t span = time_ms * percent / 100;
    return time_ms - span + (span ? (uint64_t)random() % (2 * span + 1) : 0);
}

static void stop(struct gw_check *check)
{
    struct gw_stream *stream = check->stream;
    gw_timer_stop(loop_of(check), &check->timer);
    gw_fetch_free(check->fetch);
    check->fetch = NULL;
    check->stream = NULL;
    if (stream)
        gw_stream_reset(stream, GW_ERR_CANCELLED);
}

static void begin(struct gw_timer *timer);

static void wait_for_next(struct gw_check *check)
{
    const struct gw_check_rules *rules = rules_of(check);
    check->timer.fire = begin;
    gw_timer_start(loop_of(check), &check->timer,
                   jittered(rules->interval_ms, rules->jitter_percent));
}

static void end(struct gw_check *check, bool good, const char *why)
{
    stop(check);
    gw_standing_check(check->instance, good, why, loop_of(check)->now_ms);
    wait_for_next(check);
}

static void fail(struct gw_check *check, enum gw_err why)
{
    char text[64];
    snprintf(text, sizeof text, "check: %s", gw_err_slug(why == GW_OK ? GW_EOF : why));
    end(check, false, text);
}

/* tcp: being connected is enough. */

static void on_open(struct gw_stream *stream)
{
    end(stream->owner, true, "");
}

static void on_close(struct gw_stream *stream, enum gw_err why)
{
    struct gw_check *check = stream->owner;
    check->stream = NULL;
    fail(check, why);
}

/* Nothing was asked. */
static void on_head(struct gw_stream *stream, struct gw_head *head)
{
    (void)stream;
    (void)head;
}

static void on_body(struct gw_stream *stream, struct gw_buf *body, bool at_end)
{
    (void)at_end;
    gw_stream_consumed(stream, gw_buf_len(body));
    gw_buf_clear(body);
}

static const struct gw_stream_events tcp_events = {
    .on_open = on_open, .on_head = on_head, .on_body = on_body, .on_close = on_close};

static void on_opened_before(struct gw_timer *timer)
{
    end(GW_CONTAINER(timer, struct gw_check, timer), true, "");
}

static void begin_tcp(struct gw_check *check, const struct gw_addr *addr)
{
    struct gw_pool *pool = &check->health->gateway.pool;
    struct gw_pool_host *host = gw_pool_host(pool, addr);
    struct gw_pool_wish wish = {.fresh = true, .dial_ms = rules_of(check)->timeout_ms};
    enum gw_err err = GW_OK;
    check->stream = gw_pool_borrow(pool, host, &wish, &tcp_events, check, &err);
    gw_pool_let_go(host); /* the connection keeps it */
    if (!check->stream) {
        wait_for_next(check); /* no descriptor is left: that says nothing of the instance */
        return;
    }
    if (!check->stream->opened)
        return; /* an event will tell */
    check->timer.fire = on_opened_before;
    gw_timer_start(loop_of(check), &check->timer, 0);
}

/* http */

static bool has_text(struct gw_buf *body, const char *text)
{
    struct gw_slice all = gw_buf_linear(body, gw_buf_len(body));
    return all.len && memmem(all.ptr, all.len, text, strlen(text));
}

static void judge(struct gw_check *check, unsigned status, bool text_found)
{
    char why[64];
    bool good = gw_statuses_have(&rules_of(check)->expected, status);
    snprintf(why, sizeof why,
             good ? "check: status %u without the expected text" : "check: status %u", status);
    end(check, good && text_found, why);
}

/* The head is enough, unless there is something to look for in the body. */
static void on_change(struct gw_fetch *fetch)
{
    struct gw_check *check = fetch->owner;
    const char *text = rules_of(check)->body;
    if (fetch->response && !text[0])
        judge(check, fetch->response->status, true);
    else if (fetch->over && (fetch->why != GW_OK || !fetch->response))
        fail(check, fetch->why);
    else if (fetch->over)
        judge(check, fetch->response->status, has_text(&fetch->body, text));
}

static const char *host_of(const struct gw_addr *addr, char text[GW_ADDR_TEXT])
{
    bool is_ip = gw_addr_is_ip(addr);
    return is_ip ? gw_addr_text(addr, text) : "localhost";
}

static void begin_http(struct gw_check *check, const struct gw_addr *addr)
{
    const struct gw_check_rules *rules = rules_of(check);
    char host[GW_ADDR_TEXT], url[URL_MAX];
    snprintf(url, sizeof url, "http://%s%s", rules->host[0] ? rules->host : host_of(addr, host),
             rules->path);
    check->fetch = gw_fetch_new(&check->health->gateway, on_change, check);
    const char *wrong =
        gw_fetch_target(check->fetch, gw_slice_str(rules->method), gw_slice_str(url));
    if (wrong) {
        end(check, false, wrong);
        return;
    }
    gw_fetch_pin(check->fetch, addr);
    gw_fetch_start(check->fetch, &(struct gw_fetch_wish){.streamed = !rules->body[0],
                                                         .timeout_ms = rules->timeout_ms,
                                                         .max_bytes = MAX_BODY});
}

static void begin(struct gw_timer *timer)
{
    struct gw_check *check = GW_CONTAINER(timer, struct gw_check, timer);
    struct gw_addr addr = check->instance->addr;
    if (rules_of(check)->port)
        addr.port = (uint16_t)rules_of(check)->port;
    if (rules_of(check)->tcp)
        begin_tcp(check, &addr);
    else
        begin_http(check, &addr);
}

/* Which instances. */

static struct gw_check *check_at(struct gw_list *node)
{
    return GW_CONTAINER(node, struct gw_check, node);
}

static void forget(struct gw_check *check)
{
    stop(check);
    gw_list_remove(&check->node);
    check->health->by_place[check->instance->fact] = NULL;
    gw_instance_unref(check->instance);
    free(check);
}

/* Not all at once; and one that was checked in an earlier version, when that is due. */
static void schedule_first(struct gw_check *check)
{
    uint64_t interval = rules_of(check)->interval_ms, now = loop_of(check)->now_ms;
    uint64_t last = gw_instance_standing(check->instance)->checked_ms;
    uint64_t wait = (uint64_t)random() % (interval < SPREAD_MS ? interval : SPREAD_MS);
    if (last)
        wait = last + interval > now ? last + interval - now : 0;
    check->timer.fire = begin;
    gw_timer_start(loop_of(check), &check->timer, wait);
}

static bool is_checked(const struct gw_instance *instance)
{
    return instance->of && !instance->gone_ms && instance->of->check.interval_ms &&
           instance->fact && !instance->barred;
}

static bool is_same_way(const struct gw_check_rules *a, const struct gw_check_rules *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* Asked in another way, or at another time, it begins anew. */
static void take_over(struct gw_check *check, struct gw_instance *instance)
{
    struct gw_instance *old = check->instance;
    bool same = is_same_way(&old->of->check, &instance->of->check);
    check->wanted = true;
    check->instance = instance;
    gw_instance_ref(instance);
    gw_instance_unref(old);
    if (same)
        return;
    stop(check);
    schedule_first(check);
}

static void want(struct gw_health *health, struct gw_instance *instance)
{
    struct gw_check *check = health->by_place[instance->fact];
    if (check) {
        take_over(check, instance);
        return;
    }
    check = calloc(1, sizeof *check);
    GW_CHECK(check != NULL);
    check->health = health;
    check->instance = instance;
    check->wanted = true;
    gw_instance_ref(instance);
    gw_timer_init(&check->timer, begin);
    gw_list_push(&health->checks, &check->node);
    health->by_place[instance->fact] = check;
    schedule_first(check);
}

static void drop_unwanted(struct gw_health *health)
{
    for (struct gw_list *at = health->checks.next, *next; at != &health->checks; at = next) {
        next = at->next;
        if (!check_at(at)->wanted)
            forget(check_at(at));
        else
            check_at(at)->wanted = false;
    }
}

void gw_health_review(struct gw_health *health)
{
    const struct gw_generation *generation = health->gateway.current;
    for (unsigned i = 0; generation && i < generation->service_count; i++)
        gw_standing_review(generation->services[i], health->gateway.loop->now_ms);
}

static void on_review(struct gw_timer *timer)
{
    struct gw_health *health = GW_CONTAINER(timer, struct gw_health, review);
    gw_health_review(health);
    gw_timer_start(health->gateway.loop, timer, REVIEW_MS);
}

static void look_through(struct gw_health *health, const struct gw_generation *generation)
{
    for (unsigned i = 0; i < generation->instance_count; i++) {
        if (is_checked(generation->instances[i]))
            want(health, generation->instances[i]);
    }
    drop_unwanted(health);
}

static void on_resolved(struct gw_generation *generation, unsigned name,
                        struct gw_instance *const *instances, unsigned count)
{
    (void)name, (void)instances, (void)count;
    struct gw_health *health = GW_CONTAINER(generation->gateway, struct gw_health, gateway);
    if (health->gateway.current == generation) /* else it is looked through soon */
        look_through(health, generation);
}

/* It has instances to check, or to look after: what time brings them, and what a worker that dies
 * leaves taken. Else the master need not know where names lead. */
static bool has_work(const struct gw_generation *generation)
{
    for (unsigned i = 0; i < generation->service_count; i++) {
        const struct gw_service *service = generation->services[i];
        if (service->check.interval_ms || service->passive_on || service->max_streams)
            return true;
    }
    return false;
}

/* There is nobody else to tell anything. */
static const struct gw_hooks hooks = {.resolved = on_resolved};

void gw_health_serve(struct gw_health *health, struct gw_generation *generation)
{
    struct gw_gateway *gateway = &health->gateway;
    struct gw_generation *old = gateway->current;
    generation->hooks = &hooks;
    if (has_work(generation))
        gw_names_start(generation, NULL, NULL);
    if (old)
        gw_names_stop(old);
    gateway->current = generation;
    health->settings = generation->settings;
    health->settings.keep_alive =
        false; /* a check that finds an old connection alive says little */
    health->settings.calls_per_host = 0;
    gw_pool_settings(&gateway->pool, &health->settings);
    look_through(health, generation);
    if (old)
        gw_generation_unref(old);
    on_review(&health->review);
}

void gw_health_init(struct gw_health *health, struct gw_loop *loop, struct gw_facts *facts)
{
    struct gw_gateway *gateway = &health->gateway;
    gw_gateway_init(gateway, loop, facts, 0);
    gateway->count = gateway->pool.count = &health->uncounted; /* figures are about clients */
    gw_list_init(&health->checks);
    gw_timer_init(&health->review, on_review);
    srandom((unsigned)loop->now_ms);
}

void gw_health_abandon(struct gw_health *health)
{
    struct gw_list *all = &health->checks;
    for (struct gw_list *at = all->next; at != all; at = at->next)
        stop(check_at(at));
    gw_timer_stop(health->gateway.loop, &health->review);
    if (health->gateway.current)
        gw_names_stop(health->gateway.current);
}

void gw_health_fini(struct gw_health *health)
{
    while (!gw_list_empty(&health->checks))
        forget(check_at(health->checks.next));
    gw_timer_stop(health->gateway.loop, &health->review);
    gw_gateway_fini(&health->gateway);
}
