/* Addresses of sockets: literals to struct sockaddr and back. Configuration, listeners and the log
 * call it. Invariant: nothing here asks the network, so nothing here can block. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static void set_v4(struct gw_addr *addr, struct in_addr host, unsigned port)
{
    memset(addr, 0, sizeof(*addr));
    addr->sa.v4.sin_family = AF_INET;
    addr->sa.v4.sin_addr = host;
    addr->sa.v4.sin_port = htons((uint16_t)port);
    addr->len = sizeof(addr->sa.v4);
}

static void set_v6(struct gw_addr *addr, const struct in6_addr *host, unsigned port)
{
    memset(addr, 0, sizeof(*addr));
    addr->sa.v6.sin6_family = AF_INET6;
    addr->sa.v6.sin6_addr = *host;
    addr->sa.v6.sin6_port = htons((uint16_t)port);
    addr->len = sizeof(addr->sa.v6);
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

bool gw_addr_parse(struct gw_addr *addr, const char *host, unsigned port)
{
    struct in_addr v4 = {.s_addr = htonl(INADDR_ANY)};

    if (port > 65535)
        return false;
    if (strcmp(host, "localhost") == 0)
        v4.s_addr = htonl(INADDR_LOOPBACK);
    else if (*host && strcmp(host, "*") != 0 && inet_pton(AF_INET, host, &v4) != 1)
        return parse_v6(addr, host, port);
    set_v4(addr, v4, port);
    return true;
}

void gw_addr_set(struct gw_addr *addr, const struct sockaddr *sa, socklen_t len)
{
    memset(addr, 0, sizeof(*addr));
    if (sa->sa_family == AF_INET && len >= sizeof(addr->sa.v4)) {
        memcpy(&addr->sa.v4, sa, sizeof(addr->sa.v4));
        addr->len = sizeof(addr->sa.v4);
    } else if (sa->sa_family == AF_INET6 && len >= sizeof(addr->sa.v6)) {
        struct in_addr v4;
        memcpy(&addr->sa.v6, sa, sizeof(addr->sa.v6));
        addr->len = sizeof(addr->sa.v6);
        memcpy(&v4, &addr->sa.v6.sin6_addr.s6_addr[12], sizeof(v4));
        if (IN6_IS_ADDR_V4MAPPED(&addr->sa.v6.sin6_addr))
            set_v4(addr, v4, ntohs(addr->sa.v6.sin6_port));
    }
}

const char *gw_addr_host(const struct gw_addr *addr, char out[GW_ADDR_TEXT])
{
    const void *host = addr->sa.any.sa_family == AF_INET ? (const void *)&addr->sa.v4.sin_addr
                                                         : (const void *)&addr->sa.v6.sin6_addr;
    if (addr->len == 0 || !inet_ntop(addr->sa.any.sa_family, host, out, GW_ADDR_TEXT))
        memcpy(out, "-", 2);
    return out;
}

const char *gw_addr_text(const struct gw_addr *addr, char out[GW_ADDR_TEXT])
{
    char host[GW_ADDR_TEXT];
    const char *form = addr->sa.any.sa_family == AF_INET6 ? "[%.45s]:%u" : "%.45s:%u";

    gw_addr_host(addr, host);
    if (addr->len == 0)
        memcpy(out, "-", 2);
    else
        snprintf(out, GW_ADDR_TEXT, form, host, gw_addr_port(addr));
    return out;
}

unsigned gw_addr_port(const struct gw_addr *addr)
{
    if (addr->len == 0)
        return 0;
    return ntohs(addr->sa.any.sa_family == AF_INET ? addr->sa.v4.sin_port : addr->sa.v6.sin6_port);
}

bool gw_addr_eq(const struct gw_addr *a, const struct gw_addr *b)
{
    if (a->len != b->len || a->sa.any.sa_family != b->sa.any.sa_family)
        return false;
    if (a->len == 0)
        return true;
    if (gw_addr_port(a) != gw_addr_port(b))
        return false;
    if (a->sa.any.sa_family == AF_INET)
        return a->sa.v4.sin_addr.s_addr == b->sa.v4.sin_addr.s_addr;
    return IN6_ARE_ADDR_EQUAL(&a->sa.v6.sin6_addr, &b->sa.v6.sin6_addr);
}
