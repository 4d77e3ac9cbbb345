/* Addresses of sockets: literals to struct sockaddr and back. Configuration, listeners and the log
 * call it. Owns the paths of unix sockets, which stay: an address has room for their number only.
 * Invariant: nothing here asks the network, so nothing here can block. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"

static const char unix_prefix[] = "unix:";

/* Of a peer: what paths clients bind to is not kept, or they could make us keep any number. */
enum { NO_PATH = UINT32_MAX };

/* Of one process; the loop's thread alone makes addresses from text. */
static struct {
    char **path;
    uint32_t count;
} unix_paths;

static void set_v4(struct gw_addr *addr, struct in_addr host, unsigned port)
{
    *addr = (struct gw_addr){.family = AF_INET, .port = (uint16_t)port};
    memcpy(addr->ip, &host, sizeof(host));
}

static void set_v6(struct gw_addr *addr, const struct in6_addr *host, unsigned port)
{
    *addr = (struct gw_addr){.family = AF_INET6, .port = (uint16_t)port};
    memcpy(addr->ip, host, sizeof(*host));
}

static bool set_unix(struct gw_addr *addr, const char *path)
{
    uint32_t i = 0;
    if (path[0] != '/' || strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return false;
    while (i < unix_paths.count && strcmp(unix_paths.path[i], path) != 0)
        i++;
    if (i == GW_ADDR_PATHS_MAX)
        return false;
    if (i == unix_paths.count) {
        unix_paths.path = realloc(unix_paths.path, (i + 1) * sizeof(*unix_paths.path));
        GW_CHECK(unix_paths.path != NULL);
        unix_paths.path[unix_paths.count++] = strdup(path);
        GW_CHECK(unix_paths.path[i] != NULL);
    }
    *addr = (struct gw_addr){.family = AF_UNIX, .scope = i};
    return true;
}

void gw_addr_fini(void)
{
    while (unix_paths.count)
        free(unix_paths.path[--unix_paths.count]);
    free(unix_paths.path);
    unix_paths.path = NULL;
}

/* "[::1]" or "::1"; brackets come in pairs. */
static bool parse_v6(struct gw_addr *addr, const char *host, unsigned port)
{
    char text[INET6_ADDRSTRLEN + 1];
    struct in6_addr v6;
    size_t len = strlen(host);

    if (host[0] == '[') {
        if (len < 2 || host[len - 1] != ']')
            return false;
        host++;
        len -= 2;
    }
    if (len >= sizeof(text))
        return false;
    memcpy(text, host, len);
    text[len] = '\0';
    if (inet_pton(AF_INET6, text, &v6) != 1)
        return false;
    set_v6(addr, &v6, port);
    return true;
}

bool gw_addr_literal(struct gw_addr *addr, const char *host, unsigned port)
{
    struct in_addr v4;

    if (port > 65535)
        return false;
    if (inet_pton(AF_INET, host, &v4) != 1)
        return parse_v6(addr, host, port);
    set_v4(addr, v4, port);
    return true;
}

bool gw_addr_parse(struct gw_addr *addr, const char *host, unsigned port)
{
    if (strncmp(host, unix_prefix, sizeof(unix_prefix) - 1) == 0)
        return set_unix(addr, host + sizeof(unix_prefix) - 1);
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    else if (*host == '\0' || strcmp(host, "*") == 0)
        host = "0.0.0.0";
    return gw_addr_literal(addr, host, port);
}

static void take_v6(struct gw_addr *addr, const struct sockaddr_in6 *v6)
{
    struct in_addr v4;

    set_v6(addr, &v6->sin6_addr, ntohs(v6->sin6_port));
    addr->scope = v6->sin6_scope_id;
    memcpy(&v4, &v6->sin6_addr.s6_addr[12], sizeof(v4));
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
        set_v4(addr, v4, addr->port);
}

static const char *unix_path(const struct gw_addr *addr)
{
    return addr->scope == NO_PATH ? "" : unix_paths.path[addr->scope];
}

void gw_addr_set(struct gw_addr *addr, const struct sockaddr *sa, socklen_t len)
{
    union gw_sockaddr from = {0};

    memset(addr, 0, sizeof(*addr));
    memcpy(&from, sa, len < sizeof(from) ? len : sizeof(from));
    if (from.any.sa_family == AF_INET && len >= sizeof(from.v4))
        set_v4(addr, from.v4.sin_addr, ntohs(from.v4.sin_port));
    else if (from.any.sa_family == AF_INET6 && len >= sizeof(from.v6))
        take_v6(addr, &from.v6);
    else if (from.any.sa_family == AF_UNIX && len >= sizeof(from.any.sa_family))
        *addr = (struct gw_addr){.family = AF_UNIX, .scope = NO_PATH};
}

socklen_t gw_addr_get(const struct gw_addr *addr, union gw_sockaddr *sa)
{
    memset(sa, 0, sizeof(*sa));
    sa->any.sa_family = addr->family;
    if (addr->family == AF_INET) {
        memcpy(&sa->v4.sin_addr, addr->ip, sizeof(sa->v4.sin_addr));
        sa->v4.sin_port = htons(addr->port);
        return sizeof(sa->v4);
    }
    if (addr->family == AF_UNIX) {
        memcpy(sa->un.sun_path, unix_path(addr), strlen(unix_path(addr)) + 1);
        return sizeof(sa->un);
    }
    memcpy(&sa->v6.sin6_addr, addr->ip, sizeof(sa->v6.sin6_addr));
    sa->v6.sin6_port = htons(addr->port);
    sa->v6.sin6_scope_id = addr->scope;
    return sizeof(sa->v6);
}

/* By hand, as each request has one: the C library prints it. */
static void put_v4(char *out, const unsigned char *ip)
{
    for (int i = 0; i < 4; i++) {
        unsigned n = ip[i];
        if (n >= 100)
            *out++ = (char)('0' + n / 100);
        if (n >= 10)
            *out++ = (char)('0' + n / 10 % 10);
        *out++ = (char)('0' + n % 10);
        *out++ = i < 3 ? '.' : '\0';
    }
}

const char *gw_addr_host(const struct gw_addr *addr, char out[GW_ADDR_TEXT])
{
    if (addr->family == AF_INET)
        put_v4(out, addr->ip);
    else if (addr->family == AF_UNIX)
        snprintf(out, GW_ADDR_TEXT, "%s%s", unix_prefix, unix_path(addr));
    else if (addr->family == 0 || !inet_ntop(addr->family, addr->ip, out, GW_ADDR_TEXT))
        memcpy(out, "-", 2);
    return out;
}

const char *gw_addr_text(const struct gw_addr *addr, char out[GW_ADDR_TEXT])
{
    char host[GW_ADDR_TEXT];
    const char *form = addr->family == AF_INET6 ? "[%.45s]:%u" : "%.45s:%u";

    if (addr->family == 0 || addr->family == AF_UNIX)
        return gw_addr_host(addr, out);
    snprintf(out, GW_ADDR_TEXT, form, gw_addr_host(addr, host), addr->port);
    return out;
}

bool gw_addr_eq(const struct gw_addr *a, const struct gw_addr *b)
{
    return gw_addr_compare(a, b) == 0;
}

int gw_addr_compare(const struct gw_addr *a, const struct gw_addr *b)
{
    int apart = (a->family == AF_INET6) - (b->family == AF_INET6);
    if (!apart)
        apart = a->family - b->family;
    if (!apart)
        apart = memcmp(a->ip, b->ip, sizeof(a->ip));
    if (!apart)
        apart = (a->scope > b->scope) - (a->scope < b->scope);
    return apart ? apart : a->port - b->port;
}

bool gw_addr_reachable(const struct gw_addr *addr)
{
    if (addr->family == AF_INET)
        return addr->ip[0] != 0 && addr->ip[0] < 224; /* multicast, reserved, broadcast */
    if (addr->family != AF_INET6)
        return addr->family == AF_UNIX;
    const struct in6_addr *v6 = (const struct in6_addr *)(const void *)addr->ip;
    return !IN6_IS_ADDR_UNSPECIFIED(v6) && !IN6_IS_ADDR_MULTICAST(v6) &&
           (!IN6_IS_ADDR_LINKLOCAL(v6) || addr->scope);
}

void gw_addr_undress(struct gw_addr *addr)
{
    union gw_sockaddr sa;
    socklen_t len = gw_addr_get(addr, &sa);

    gw_addr_set(addr, &sa.any, len);
}
