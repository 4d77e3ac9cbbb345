/* Headers of the PROXY protocol, versions 1 and 2. Invariant: however it is cut a header is
 * understood the same; it ends where its line or its length says, and not a byte behind; and whom
 * it names is whom a plain reading finds there. */
#include "net/proxy_protocol.h"

#include <arpa/inet.h>
#include "support/fuzz.h"

enum { INPUT_MAX = 8192, FIXED = 16 };

struct outcome {
    enum gw_err err;
    size_t used;
    struct gw_addr client;
};

/* In pieces of 1 to `most` bytes; each lies alone, so that reads behind it are seen. */
static struct outcome feed(const uint8_t *data, size_t size, size_t most)
{
    struct gw_proxy_header header = {0};
    struct outcome out = {.err = GW_AGAIN};
    uint64_t state = fuzz_seed(data, size);
    for (size_t at = 0, n, used; at < size && out.err == GW_AGAIN; at += n) {
        n = 1 + fuzz_next(&state) % most;
        n = n < size - at ? n : size - at;
        char *piece = fuzz_exact(data + at, n);
        out.err = gw_proxy_header_feed(&header, piece, n, &used);
        free(piece);
        FUZZ_CHECK(used <= n && (out.err != GW_AGAIN || used == n), "%zu of %zu", used, n);
        out.used += used;
    }
    out.client = header.client;
    return out;
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    FUZZ_CHECK(a->err == b->err, "%d and %d", a->err, b->err);
    FUZZ_CHECK(a->used == b->used, "%zu and %zu", a->used, b->used);
    FUZZ_CHECK(a->client.family == b->client.family && gw_addr_eq(&a->client, &b->client),
               "another client");
}

static void check_client(const struct gw_addr *client, int family, const void *ip, unsigned port)
{
    union gw_sockaddr sa = {.any.sa_family = (sa_family_t)family};
    struct gw_addr expected;
    if (family == AF_INET) {
        memcpy(&sa.v4.sin_addr, ip, 4);
        sa.v4.sin_port = htons((uint16_t)port);
    } else {
        memcpy(&sa.v6.sin6_addr, ip, 16);
        sa.v6.sin6_port = htons((uint16_t)port);
    }
    gw_addr_set(&expected, &sa.any, sizeof sa);
    FUZZ_CHECK(client->family != 0 && gw_addr_eq(client, &expected), "another is named");
}

/* Six words, as scanf sees them. */
static void check_line(const char *line, const struct outcome *out)
{
    char family[16], from[64], to[64];
    unsigned char ip[16];
    unsigned port, here;
    const char *end = strstr(line, "\r\n");
    FUZZ_CHECK(end && (size_t)(end - line) + 2 == out->used, "it ends elsewhere");
    FUZZ_CHECK(out->used <= 107, "a line of %zu bytes", out->used);
    if (strncmp(line, "PROXY UNKNOWN", 13) == 0) {
        FUZZ_CHECK(out->client.family == 0, "somebody is named");
        return;
    }
    FUZZ_CHECK(sscanf(line, "PROXY %15s %63s %63s %u %u", family, from, to, &port, &here) == 5,
               "words are missing");
    int af = strcmp(family, "TCP4") == 0 ? AF_INET : AF_INET6;
    FUZZ_CHECK(af == AF_INET || strcmp(family, "TCP6") == 0, "%s", family);
    FUZZ_CHECK(inet_pton(af, to, ip) == 1 && inet_pton(af, from, ip) == 1, "no addresses");
    FUZZ_CHECK(port <= 65535 && here <= 65535, "no ports");
    check_client(&out->client, af, ip, port);
}

static void check_binary(const uint8_t *data, const struct outcome *out)
{
    FUZZ_CHECK(memcmp(data, "\r\n\r\n\0\r\nQUIT\n", 12) == 0, "no signature");
    FUZZ_CHECK(out->used == FIXED + (size_t)(data[14] << 8 | data[15]), "it ends elsewhere");
    if (data[12] == 0x20 || data[13] == 0)
        FUZZ_CHECK(out->client.family == 0, "somebody is named");
    else if (data[13] == 0x11)
        check_client(&out->client, AF_INET, data + FIXED, (unsigned)(data[24] << 8 | data[25]));
    else if (data[13] == 0x21)
        check_client(&out->client, AF_INET6, data + FIXED, (unsigned)(data[48] << 8 | data[49]));
    else
        FUZZ_CHECK(data[13] == 0x31 && out->client.family == AF_UNIX, "what family?");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_text text = {0};
    if (size > INPUT_MAX)
        return 0;
    struct outcome whole = feed(data, size, INPUT_MAX), bytes = feed(data, size, 1);
    struct outcome pieces = feed(data, size, 40);
    check_same(&whole, &bytes);
    check_same(&whole, &pieces);
    FUZZ_CHECK(whole.used <= GW_PROXY_HEADER_MAX, "%zu bytes", whole.used);
    if (whole.err == GW_OK && data[0] == 'P') {
        fuzz_put(&text, data, size);
        check_line(text.ptr, &whole);
        fuzz_free(&text);
    } else if (whole.err == GW_OK) {
        check_binary(data, &whole);
    }
    return 0;
}
