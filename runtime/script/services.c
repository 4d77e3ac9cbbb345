/* Owns nothing: services belong to their generation. Called when that is made, and freed.
 * Invariant: the schema has checked everything before. */
#include "script/services.h"

#include <stdio.h>
#include <stdlib.h>
#include "base/check.h"
#include "gateway/exchange.h"
#include "gateway/service.h"

/* A key of a Lua table, and where its number belongs. */
struct number {
    const char *key;
    size_t at;
};

#define NUMBER(type, member)                                                                       \
    {                                                                                              \
#member, offsetof(struct type, member)                                                     \
    }

static const struct number of_service[] = {
    NUMBER(gw_service, slow_start_ms), NUMBER(gw_service, max_streams), {0}};

static const struct number of_check[] = {NUMBER(gw_check_rules, interval_ms),
                                         NUMBER(gw_check_rules, timeout_ms),
                                         NUMBER(gw_check_rules, jitter_percent),
                                         NUMBER(gw_check_rules, rise),
                                         NUMBER(gw_check_rules, fall),
                                         NUMBER(gw_check_rules, port),
                                         {0}};

static const struct number of_passive[] = {
    NUMBER(gw_passive_rules, failures),          NUMBER(gw_passive_rules, error_permille),
    NUMBER(gw_passive_rules, min_requests),      NUMBER(gw_passive_rules, window_ms),
    NUMBER(gw_passive_rules, base_eject_ms),     NUMBER(gw_passive_rules, max_eject_ms),
    NUMBER(gw_passive_rules, max_eject_percent), {0}};

static const struct number of_breaker[] = {NUMBER(gw_breaker_rules, failures),
                                           NUMBER(gw_breaker_rules, successes),
                                           NUMBER(gw_breaker_rules, timeout_ms),
                                           NUMBER(gw_breaker_rules, probes),
                                           {0}};

static void read_numbers(lua_State *L, const struct number *numbers, void *out)
{
    for (; numbers->key; numbers++) {
        lua_getfield(L, -1, numbers->key);
        *(uint32_t *)(void *)((char *)out + numbers->at) = (uint32_t)lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
}

static void read_text(lua_State *L, const char *key, char *out, size_t cap)
{
    lua_getfield(L, -1, key);
    const char *text = lua_tostring(L, -1);
    snprintf(out, cap, "%s", text ? text : "");
    lua_pop(L, 1);
}

/* A flat list: from, to, from, to. */
static void read_statuses(lua_State *L, struct gw_statuses *set)
{
    lua_getfield(L, -1, "statuses");
    for (int i = 1; i < (int)lua_objlen(L, -1); i += 2) {
        lua_rawgeti(L, -1, i);
        lua_rawgeti(L, -2, i + 1);
        gw_statuses_add(set, (unsigned)lua_tointeger(L, -2), (unsigned)lua_tointeger(L, -1));
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

static void read_check(lua_State *L, struct gw_check_rules *check)
{
    read_numbers(L, of_check, check);
    read_statuses(L, &check->expected);
    lua_getfield(L, -1, "tcp");
    check->tcp = lua_toboolean(L, -1);
    lua_pop(L, 1);
    read_text(L, "method", check->method, sizeof check->method);
    read_text(L, "host", check->host, sizeof check->host);
    read_text(L, "path", check->path, sizeof check->path);
    read_text(L, "body", check->body, sizeof check->body);
}

/* Leaves the table of that name on the top; false, and nothing there, when there is none. */
static bool enter(lua_State *L, const char *key)
{
    lua_getfield(L, -1, key);
    if (lua_istable(L, -1))
        return true;
    lua_pop(L, 1);
    return false;
}

static bool has_rules(const struct gw_service *service)
{
    return service->check.interval_ms || service->passive_on || service->breaker.failures ||
           service->max_streams;
}

static struct gw_service *read_service(lua_State *L, struct gw_gateway *gateway)
{
    struct gw_service *service = gw_service_new();
    read_text(L, "name", service->name, sizeof service->name);
    read_numbers(L, of_service, service);
    if (enter(L, "check")) {
        read_check(L, &service->check);
        lua_pop(L, 1);
    }
    if (enter(L, "passive")) {
        service->passive_on = true;
        read_numbers(L, of_passive, &service->passive);
        read_statuses(L, &service->passive.bad);
        lua_pop(L, 1);
    }
    if (enter(L, "breaker")) {
        read_numbers(L, of_breaker, &service->breaker);
        read_statuses(L, &service->breaker.bad);
        lua_pop(L, 1);
    }
    if (has_rules(service)) /* else nothing is to be known of it */
        gw_service_note(service, gateway->facts, gateway->worker, gateway->loop->now_ms);
    return service;
}

bool gw_services_read(struct gw_generation *generation, lua_State *L)
{
    unsigned n = lua_istable(L, -1) ? (unsigned)lua_objlen(L, -1) : 0;
    generation->services = calloc(n + 1, sizeof *generation->services);
    GW_CHECK(generation->services != NULL);
    for (unsigned i = 0; i < n; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        generation->services[generation->service_count++] = read_service(L, generation->gateway);
        lua_pop(L, 1);
    }
    return true;
}

void gw_services_join(const struct gw_generation *generation, unsigned index,
                      struct gw_instance *instance)
{
    if (index >= 1 && index <= generation->service_count)
        gw_service_join(generation->services[index - 1], instance);
}

void gw_services_free(struct gw_generation *generation)
{
    for (unsigned i = 0; i < generation->service_count; i++)
        gw_service_unref(generation->services[i]);
    free(generation->services);
}
