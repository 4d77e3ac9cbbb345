/* Addresses and networks from text. Invariant: what is read and written is read as the same again,
 * and an address lies in the network of itself alone, and in its /0. */
#include "net/addr.h"
#include "net/network.h"
#include "support/fuzz.h"

static void check_address(const char *text)
{
    struct gw_addr addr, again;
    union gw_sockaddr sa;
    char host[GW_ADDR_TEXT];
    struct gw_networks networks = {.count = 1};
    if (!gw_addr_literal(&addr, text, 80))
        return;
    gw_addr_host(&addr, host);
    FUZZ_CHECK(gw_addr_literal(&again, host, 80), "'%s' was written, and is no address", host);
    FUZZ_CHECK(gw_addr_eq(&addr, &again), "'%s' is another address", host);
    FUZZ_CHECK(gw_addr_compare(&addr, &again) == 0, "and compares as another");
    socklen_t len = gw_addr_get(&addr, &sa);
    gw_addr_set(&again, &sa.any, len);
    FUZZ_CHECK(gw_addr_eq(&addr, &again) || addr.family == AF_INET6, "by way of the kernel");
    gw_addr_undress(&addr); /* as peers are */
    if (!strchr(host, '%') && gw_network_parse(&networks.of[0], host))
        FUZZ_CHECK(gw_networks_have(&networks, &addr), "'%s' is not in itself", host);
    (void)gw_addr_reachable(&addr);
}

static void check_network(const char *text)
{
    struct gw_networks networks = {.count = 1};
    struct gw_network *network = &networks.of[0];
    if (!gw_network_parse(network, text))
        return;
    unsigned most = network->family == AF_INET ? 32 : network->family == AF_INET6 ? 128 : 0;
    FUZZ_CHECK(network->bits <= most, "%u bits of %u", network->bits, most);
    struct gw_addr addr = {.family = network->family};
    memcpy(addr.ip, network->ip, sizeof addr.ip);
    FUZZ_CHECK(gw_networks_have(&networks, &addr), "its first address is not in it");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_text text = {0};
    struct gw_addr addr;
    if (size > 512 || (size && memchr(data, 0, size)))
        return 0;
    fuzz_put(&text, data, size);
    char *exact = fuzz_exact(text.ptr, text.len + 1);
    check_address(exact);
    check_network(exact);
    if (strncmp(exact, "unix:", 5) != 0 && gw_addr_parse(&addr, exact, 8080))
        FUZZ_CHECK(addr.family == AF_INET || addr.family == AF_INET6, "family");
    free(exact);
    fuzz_free(&text);
    return 0;
}
