/* Owns nothing. The part of gateway.core that tells how instances and services stand, for
 * lua/gateway/service.lua. Invariant: a VM that does not serve yet finds everything well. */
#include "gateway/outcome.h"
#include "script/api.h"

enum { RETRY_FULL_S = 1, RETRY_DOWN_S = 5, MS_PER_S = 1000, COMPLAIN_MS = 1000 };

static struct gw_service *service_at(lua_State *L, int at, uint64_t *now_ms)
{
    const struct gw_generation *generation = gw_api_vm(L)->generation;
    unsigned index = (unsigned)luaL_checkinteger(L, at) - 1;
    if (!generation || index >= generation->service_count)
        return NULL;
    *now_ms = generation->gateway->loop->now_ms;
    return generation->services[index];
}

/* standing(service): a number that is another one whenever what its instances may get has changed.
 */
static int core_standing(lua_State *L)
{
    uint64_t now_ms = 0;
    struct gw_service *service = service_at(L, 1, &now_ms);
    lua_pushinteger(L, service ? (lua_Integer)gw_standing_changes(service, now_ms) : -1);
    return 1;
}

/* share(instance): how many tenths of its weight count; 0: it is not to be asked. */
static int core_share(lua_State *L)
{
    const struct gw_instance *instance = gw_api_instance(gw_api_vm(L), luaL_checkinteger(L, 1));
    lua_pushinteger(L, instance ? gw_standing_tenths(instance) : GW_TENTHS);
    return 1;
}

/* admit(handle, service): nil, or in how many seconds the circuit may be asked again. */
static int core_admit(lua_State *L)
{
    struct gw_exchange *x = gw_handle_check(L, 1);
    uint64_t now_ms = 0, wait_ms = 0;
    struct gw_service *service = service_at(L, 2, &now_ms);
    if (!service || gw_outcome_admit(x, service, &wait_ms))
        return 0;
    lua_pushinteger(L, (lua_Integer)((wait_ms + MS_PER_S - 1) / MS_PER_S));
    return 1;
}

/* refuses(service): whether its circuit would let no request through now. */
static int core_refuses(lua_State *L)
{
    uint64_t now_ms = 0;
    const struct gw_service *service = service_at(L, 1, &now_ms);
    lua_pushboolean(L, service && gw_breaker_refuses(service, now_ms));
    return 1;
}

static bool is_any_full(const struct gw_service *service)
{
    const struct gw_list *all = &service->instances;
    for (const struct gw_list *at = all->next; at != all; at = at->next) {
        const struct gw_instance *instance = gw_service_instance(at);
        if (strcmp(gw_standing_state(instance), "full") == 0)
            return true;
    }
    return false;
}

static void complain(struct gw_service *service, bool full, uint64_t now_ms)
{
    struct gw_log_line line;
    if (service->complained_ms && now_ms < service->complained_ms + COMPLAIN_MS)
        return;
    service->complained_ms = now_ms;
    gw_log_begin(&line, GW_LOG_WARN, "no instance to ask");
    gw_log_cstr(&line, "service", service->name);
    gw_log_cstr(&line, "why", full ? "all are full" : "none is healthy");
    gw_log_end(&line);
}

/* absence(service): whether it is for want of places that there is nobody to ask, and in how many
 * seconds there may be somebody. The log hears of it once a second. */
static int core_absence(lua_State *L)
{
    uint64_t now_ms = 0;
    struct gw_service *service = service_at(L, 1, &now_ms);
    bool full = service && is_any_full(service);
    if (service)
        complain(service, full, now_ms);
    lua_pushboolean(L, full);
    lua_pushinteger(L, full ? RETRY_FULL_S : RETRY_DOWN_S);
    return 2;
}

static const luaL_Reg functions[] = {
    {"standing", core_standing}, {"share", core_share},     {"admit", core_admit},
    {"absence", core_absence},   {"refuses", core_refuses}, {NULL, NULL},
};

void gw_api_service(struct gw_vm *vm)
{
    lua_pushlightuserdata(vm->L, vm);
    luaL_setfuncs(vm->L, functions, 1);
}
