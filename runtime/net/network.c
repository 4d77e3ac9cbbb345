/* Owns nothing. Called when settings are read, and for each connection or request whose peer may be
 * a proxy that is believed. Invariant: an IPv4 address never lies in an IPv6 network: addresses in
 * IPv6 clothes have been undressed, here and by gw_addr_set. */
#include "net/network.h"

#include <string.h>

/* Decimal digits up to `most`; -1 where there is anything else. */
static int parse_bits(const char *text, int most)
{
    int bits = 0;

    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '9')
            return -1;
        bits = bits * 10 + (*at - '0');
        if (bits > most)
            return -1;
    }
    return *text ? bits : -1;
}

bool gw_network_parse(struct gw_network *network, const char *text)
{
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    char host[GW_ADDR_TEXT];
    struct gw_addr addr;

    if (strcmp(text, "unix:") == 0) {
        *network = (struct gw_network){.family = AF_UNIX};
        return true;
    }
    if (len >= sizeof(host))
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    if (!gw_addr_literal(&addr, host, 0))
        return false;
    gw_addr_undress(&addr);
    int most = addr.family == AF_INET ? 32 : 128, bits = slash ? parse_bits(slash + 1, most) : most;
    if (bits < 0)
        return false;
    *network = (struct gw_network){.family = addr.family, .bits = (uint16_t)bits};
    memcpy(network->ip, addr.ip, sizeof(addr.ip));
    return true;
}

static bool has(const struct gw_network *network, const struct gw_addr *addr)
{
    unsigned bytes = network->bits / 8, rest = network->bits % 8;

    if (network->family != addr->family)
        return false;
    if (memcmp(network->ip, addr->ip, bytes) != 0)
        return false;
    return rest == 0 || (network->ip[bytes] ^ addr->ip[bytes]) >> (8 - rest) == 0;
}

bool gw_networks_have(const struct gw_networks *networks, const struct gw_addr *addr)
{
    for (unsigned i = 0; i < networks->count; i++)
        if (has(&networks->of[i], addr))
            return true;
    return false;
}
