/* Owns nothing. Called when a generation is made, and by the master for listeners and logs.
 * Invariant: the schema has checked everything before; what is missing here is a mistake of the
 * gateway's own. */
#include "config/settings.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Pushes the value at a dotted path below the table at index 1 of `at`; nil when it is not there.
 */
static void push_path(lua_State *L, int at, const char *path)
{
    char part[64];
    lua_pushvalue(L, at);
    while (*path) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        path += n + (path[n] == '.');
        if (!lua_istable(L, -1)) {
            lua_pop(L, 1);
            lua_pushnil(L);
            return;
        }
        lua_getfield(L, -1, part);
        lua_remove(L, -2);
    }
}

struct reader {
    lua_State *L;
    int at;
    bool good;
};

static void wrong(struct reader *r, const char *path)
{
    gw_log(GW_LOG_ERROR, "settings: %s is a %s", path, luaL_typename(r->L, -1));
    r->good = false;
}

static double number(struct reader *r, const char *path)
{
    push_path(r->L, r->at, path);
    if (lua_type(r->L, -1) != LUA_TNUMBER)
        wrong(r, path);
    double value = lua_tonumber(r->L, -1);
    lua_pop(r->L, 1);
    return value;
}

/* Seconds to milliseconds; what is above nothing stays above nothing. */
static uint64_t duration(struct reader *r, const char *path)
{
    double seconds = number(r, path);
    if (seconds > 0 && seconds < 0.001)
        return 1;
    return (uint64_t)(seconds * 1000 + 0.5);
}

static uint64_t duration_or(struct reader *r, const char *path, uint64_t otherwise_ms)
{
    push_path(r->L, r->at, path);
    bool given = !lua_isnil(r->L, -1);
    lua_pop(r->L, 1);
    return given ? duration(r, path) : otherwise_ms;
}

static unsigned user_timeout(struct reader *r, const char *path)
{
    uint64_t ms = duration(r, path);
    return ms < INT32_MAX ? (unsigned)ms : INT32_MAX;
}

static bool boolean(struct reader *r, const char *path)
{
    push_path(r->L, r->at, path);
    if (lua_type(r->L, -1) != LUA_TBOOLEAN)
        wrong(r, path);
    bool value = lua_toboolean(r->L, -1);
    lua_pop(r->L, 1);
    return value;
}

static void text(struct reader *r, const char *path, char *out, size_t cap)
{
    push_path(r->L, r->at, path);
    const char *value = lua_tostring(r->L, -1);
    if (!value && !lua_isnil(r->L, -1))
        wrong(r, path);
    snprintf(out, cap, "%s", value ? value : "");
    lua_pop(r->L, 1);
}

/* A list of texts, with commas. */
static void texts(struct reader *r, const char *path, char *out, size_t cap)
{
    size_t len = 0;
    out[0] = '\0';
    push_path(r->L, r->at, path);
    for (int i = 1; lua_istable(r->L, -1) && i <= (int)lua_objlen(r->L, -1); i++) {
        lua_rawgeti(r->L, -1, i);
        const char *value = lua_tostring(r->L, -1);
        if (len < cap)
            len += (size_t)snprintf(out + len, cap - len, "%s%s", i > 1 ? "," : "", value);
        lua_pop(r->L, 1);
    }
    lua_pop(r->L, 1);
}

static void networks(struct reader *r, const char *path, struct gw_networks *out)
{
    push_path(r->L, r->at, path);
    int n = lua_istable(r->L, -1) ? (int)lua_objlen(r->L, -1) : 0;
    for (int i = 1; i <= n && out->count < GW_NETWORKS_MAX; i++) {
        lua_rawgeti(r->L, -1, i);
        const char *text = lua_tostring(r->L, -1);
        if (text && gw_network_parse(&out->of[out->count], text))
            out->count++;
        else
            wrong(r, path);
        lua_pop(r->L, 1);
    }
    lua_pop(r->L, 1);
}

/* The table on top of the stack, which is taken off. */
static void read_listen(struct reader *r, struct gw_listen *out)
{
    struct reader one = {.L = r->L, .at = lua_gettop(r->L), .good = true};
    char mode[8];
    text(&one, "host", out->host, sizeof out->host);
    out->port = strncmp(out->host, "unix:", 5) ? (unsigned)number(&one, "port") : 0;
    text(&one, "mode", mode, sizeof mode);
    out->mode = mode[0] ? (unsigned)strtoul(mode, NULL, 8) : GW_MODE_UNSET;
    push_path(r->L, one.at, "proxyProtocol");
    out->proxy_protocol = lua_toboolean(r->L, -1); /* management has none */
    lua_pop(r->L, 2);
    r->good = r->good && one.good;
}

/* The list, or the one that host and port say. */
static void read_listeners(struct reader *r, struct gw_settings *s)
{
    push_path(r->L, r->at, "frontend.http.listeners");
    int n = lua_istable(r->L, -1) ? (int)lua_objlen(r->L, -1) : 0;
    for (int i = 1; i <= n && i <= GW_LISTENERS_MAX; i++) {
        lua_rawgeti(r->L, -1, i);
        read_listen(r, &s->listener[s->listener_count++]);
    }
    lua_pop(r->L, 1);
    if (n == 0) {
        push_path(r->L, r->at, "frontend.http");
        read_listen(r, &s->listener[s->listener_count++]);
    }
}

static void read_frontend(struct reader *r, struct gw_settings *s)
{
    read_listeners(r, s);
    s->client.max_header_bytes = (size_t)number(r, "frontend.http.maxHeaderBytes");
    s->client.max_headers = (unsigned)number(r, "frontend.http.maxHeaders");
    s->client.max_target_bytes = (size_t)number(r, "frontend.http.maxTargetBytes");
    s->client.max_body_bytes = (uint64_t)number(r, "frontend.http.maxBodyBytes");
    s->max_buffered_body = (size_t)number(r, "frontend.http.maxBufferedBody");
    s->client.head_ms = duration(r, "frontend.http.readTimeout");
    s->client.idle_ms = duration(r, "frontend.http.idleTimeout");
    s->client.body_ms = duration_or(r, "frontend.http.bodyTimeout", s->client.head_ms);
    s->client_user_ms = user_timeout(r, "frontend.http.tcpUserTimeout");
    s->client.linger_ms = 2000;
    s->write_ms = s->client.write_ms = duration(r, "frontend.http.writeTimeout");
    s->max_connections = (unsigned)number(r, "frontend.http.maxConnections");
    s->max_client_connections = (unsigned)number(r, "frontend.http.maxConnectionsPerClient");
    s->client_prefix6 = (unsigned)number(r, "frontend.http.clientPrefix6");
    s->client.max_pipelined_bytes = (size_t)number(r, "frontend.http.maxPipelinedBytes");
    s->client.max_requests = (unsigned)number(r, "frontend.http.maxRequestsPerConnection");
    networks(r, "frontend.http.trustedProxies", &s->trusted);
    char header[32];
    text(r, "frontend.http.clientAddressHeader", header, sizeof header);
    s->forwarded = strcmp(header, "Forwarded") == 0;
    texts(r, "frontend.http.upgrades", s->upgrades, sizeof s->upgrades);
    s->tunnel_idle_ms = duration(r, "frontend.http.tunnelIdleTimeout");
    s->sse_enabled = boolean(r, "frontend.sse.enabled");
    s->sse_write_ms = duration(r, "frontend.sse.writeTimeout");
    s->sse_keepalive_ms = duration(r, "frontend.sse.keepaliveTimeout");
    s->max_age_ms = duration(r, "frontend.sse.maxAge");
    s->max_age_jitter = number(r, "frontend.sse.maxAgeJitter");
    s->max_event_bytes = (size_t)number(r, "frontend.sse.maxEventBytes");
    s->sse_max_buffered = (size_t)number(r, "frontend.sse.maxBufferedBytes");
    char mode[16];
    text(r, "frontend.sse.keepaliveMode", mode, sizeof mode);
    s->sse_keepalive_mode = strcmp(mode, "idle") ? GW_KEEPALIVE_INTERVAL : GW_KEEPALIVE_IDLE;
}

static void read_backend(struct reader *r, struct gw_settings *s)
{
    s->max_idle = (unsigned)number(r, "backend.http.maxIdleConns");
    s->max_idle_per_host = (unsigned)number(r, "backend.http.maxIdleConnsPerHost");
    s->idle_conn_ms = duration(r, "backend.http.idleConnTimeout");
    s->keep_alive = boolean(r, "backend.http.keepAlive");
    s->tcp_keepalive_s = (unsigned)number(r, "backend.http.keepAliveTimeout");
    s->dial_ms = duration(r, "backend.http.dialTimeout");
    s->response_head_ms = duration(r, "backend.http.responseHeaderTimeout");
    s->origin_write_ms = duration(r, "backend.http.writeTimeout");
    s->sse_dial_ms = duration(r, "backend.sse.dialTimeout");
    s->first_event_ms = duration(r, "backend.sse.firstEventTimeout");
    s->sse_silence_ms = duration(r, "backend.sse.responseTimeout");
    s->sse_tcp_keepalive_s = (unsigned)number(r, "backend.sse.keepaliveTimeout");
    s->calls_per_host = (unsigned)number(r, "backend.calls.maxPerHost");
    s->call_ms = duration(r, "backend.calls.timeout");
    s->max_call_bytes = (size_t)number(r, "backend.calls.maxBodyBytes");
    /* A backend's head is bounded as a client's is; its body is not. */
    s->origin.max_header_bytes = s->client.max_header_bytes;
    s->origin.max_headers = s->client.max_headers;
    s->origin.user_ms = user_timeout(r, "backend.http.tcpUserTimeout");
}

static void read_registry(struct reader *r, struct gw_settings *s)
{
    char family[16];
    texts(r, "registry.dns.servers", s->dns_servers, sizeof s->dns_servers);
    s->dns_timeout_ms = duration(r, "registry.dns.timeout");
    s->dns_min_ttl_ms = duration(r, "registry.dns.minTtl");
    s->dns_max_ttl_ms = duration(r, "registry.dns.maxTtl");
    s->dns_hold_ms = duration(r, "registry.dns.hold");
    text(r, "registry.dns.family", family, sizeof family);
    s->dns_family = strcmp(family, "ipv4") == 0 ? AF_INET : strcmp(family, "ipv6") ? 0 : AF_INET6;
}

static enum gw_log_level log_level(const char *name)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (int i = GW_LOG_DEBUG; i <= GW_LOG_ERROR; i++) {
        if (strcmp(name, names[i]) == 0)
            return (enum gw_log_level)i;
    }
    return GW_LOG_INFO;
}

static void read_process(struct reader *r, struct gw_settings *s)
{
    char word[16];
    push_path(r->L, r->at, "workers");
    s->workers = lua_isnumber(r->L, -1) ? (unsigned)lua_tointeger(r->L, -1) : 0;
    lua_pop(r->L, 1);
    s->drain_ms = duration(r, "drainTimeout");
    s->max_buffered_bytes = (size_t)number(r, "limits.maxBufferedBytes");
    s->lua_run_ms = duration(r, "lua.maxRunTime");
    s->lua_max_memory = (size_t)number(r, "lua.maxMemory");
    s->shared_max_bytes = (size_t)number(r, "shared.maxBytes");
    text(r, "log.level", word, sizeof word);
    s->log_level = log_level(word);
    text(r, "log.format", word, sizeof word);
    s->log_format = strcmp(word, "json") ? GW_LOG_TEXT : GW_LOG_JSON;
    s->log_access = boolean(r, "log.access");
    text(r, "log.file", s->log_file, sizeof s->log_file);
    s->admin_enabled = boolean(r, "management.enabled");
    push_path(r->L, r->at, "management");
    read_listen(r, &s->admin);
}

bool gw_settings_read(lua_State *L, struct gw_settings *out)
{
    struct reader r = {.L = L, .at = lua_gettop(L), .good = true};
    memset(out, 0, sizeof *out);
    if (!lua_istable(L, -1)) {
        gw_log(GW_LOG_ERROR, "settings: no table");
        return false;
    }
    read_frontend(&r, out);
    read_backend(&r, out);
    read_registry(&r, out);
    read_process(&r, out);
    return r.good;
}
