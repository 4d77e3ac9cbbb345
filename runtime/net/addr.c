/* Addresses of sockets: literals to struct sockaddr and back. Configuration, listeners and the log
 * call it. Invariant: nothing here asks the network, so nothing here can block. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

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

void gw_addr_set(struct gw_addr *addr, const struct sockaddr *sa, socklen_t len)
{
    union gw_sockaddr from = {0};

    memset(addr, 0, sizeof(*addr));
    memcpy(&from, sa, len < sizeof(from) ? len : sizeof(from));
    if (from.any.sa_family == AF_INET && len >= sizeof(from.v4))
        set_v4(addr, from.v4.sin_addr, ntohs(from.v4.sin_port));
    else if (from.any.sa_family == AF_INET6 && len >= sizeof(from.v6))
        take_v6(addr, &from.v6);
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
    else if (addr->family == 0 || !inet_ntop(addr->family, addr->ip, out, GW_ADDR_TEXT))
        memcpy(out, "-", 2);
    return out;
}

const char *gw_addr_text(const struct gw_addr *addr, char out[GW_ADDR_TEXT])
{
    char host[GW_ADDR_TEXT];
    const char *form = addr->family == AF_INET6 ? "[%.45s]:%u" : "%.45s:%u";

    gw_addr_host(addr, host);
    if (addr->family == 0)
        memcpy(out, "-", 2);
    else
        snprintf(out, GW_ADDR_TEXT, form, host, addr->port);
    return out;
}

bool gw_addr_eq(const struct gw_addr *a, const struct gw_addr *b)
{
    return a->family == b->family && a->port == b->port && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}
