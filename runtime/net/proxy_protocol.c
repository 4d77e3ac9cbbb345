/* Owns the part of a header that has come, while more of it is awaited. The gateway gives the
 * transport to connections of listeners that want it. Invariant: what is behind the header stays in
 * the socket, so that it is tcp's to read. */
#include "net/proxy_protocol.h"

#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include "net/conn.h"

static const char line_start[] = "PROXY ";
static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";

enum {
    LINE_START = sizeof(line_start) - 1,
    LINE_MAX_BYTES = 107, /* with CR LF */
    SIGNATURE = sizeof(signature) - 1,
    FIXED = 16, /* of version 2: signature, version and command, family, length */
    LOCAL = 0x20,
    PROXY = 0x21,
    UNSPEC = 0x00,
    TCP4 = 0x11,
    TCP6 = 0x21,
    UNIX_STREAM = 0x31
};

/* Version 1. */

/* Cuts the next word off, which ends at exactly one blank or at the end of the line. */
static char *next_word(char **at)
{
    char *word = *at;
    size_t n = strcspn(word, " ");

    *at = word[n] ? word + n + 1 : word + n;
    word[n] = '\0';
    return word;
}

/* Decimal without a leading zero; -1: none. */
static int parse_port(const char *text)
{
    size_t n = strspn(text, "0123456789");

    if (n == 0 || n > 5 || text[n] || (n > 1 && text[0] == '0') || atoi(text) > 65535)
        return -1;
    return atoi(text);
}

static bool parse_host(struct gw_addr *addr, int family, const char *text, int port)
{
    if (port < 0 || text[0] == '[' || !gw_addr_literal(addr, text, (unsigned)port) ||
        addr->family != family)
        return false;
    gw_addr_undress(addr);
    return true;
}

/* "TCP4 SOURCE DESTINATION PORT PORT". */
static bool parse_words(struct gw_addr *client, char *at)
{
    struct gw_addr here;
    const char *family = next_word(&at), *from = next_word(&at), *to = next_word(&at);
    const char *from_port = next_word(&at), *last = at;
    int version = strcmp(family, "TCP4") == 0   ? AF_INET
                  : strcmp(family, "TCP6") == 0 ? AF_INET6
                                                : 0;

    return version && parse_host(client, version, from, parse_port(from_port)) &&
           parse_host(&here, version, to, parse_port(last));
}

/* The line without its end. What stands behind UNKNOWN does not count. */
static enum gw_err read_line(struct gw_proxy_header *header)
{
    char line[LINE_MAX_BYTES + 1], *at = line + LINE_START;
    size_t len = header->len - 2u;

    memcpy(line, header->bytes, len);
    line[len] = '\0';
    if (strlen(line) != len)
        return GW_ERR_BAD_PROXY_HEADER;
    if (strcmp(at, "UNKNOWN") == 0 || strncmp(at, "UNKNOWN ", 8) == 0)
        return GW_OK;
    return parse_words(&header->client, at) ? GW_OK : GW_ERR_BAD_PROXY_HEADER;
}

static enum gw_err take_of_line(struct gw_proxy_header *header)
{
    const char *last = &header->bytes[header->len - 1];
    bool after_cr = last[-1] == '\r';

    if (after_cr && *last == '\n')
        return read_line(header);
    if (after_cr || *last == '\n' || header->len == LINE_MAX_BYTES)
        return GW_ERR_BAD_PROXY_HEADER;
    return GW_AGAIN;
}

/* Version 2. */

static unsigned byte_at(const struct gw_proxy_header *header, size_t at)
{
    return (unsigned char)header->bytes[at];
}

/* Bytes of both addresses and ports; -1: a family that no stream comes from. */
static int address_bytes(unsigned family)
{
    switch (family) {
    case UNSPEC:
        return 0;
    case TCP4:
        return 12;
    case TCP6:
        return 36;
    case UNIX_STREAM:
        return 216;
    default:
        return -1;
    }
}

static enum gw_err read_fixed(struct gw_proxy_header *header)
{
    unsigned command = byte_at(header, 12), length = byte_at(header, 14) << 8 | byte_at(header, 15);
    int least = command == LOCAL ? 0 : address_bytes(byte_at(header, 13));

    if ((command != LOCAL && command != PROXY) || least < 0 || length < (unsigned)least ||
        length > GW_PROXY_HEADER_MAX - FIXED)
        return GW_ERR_BAD_PROXY_HEADER;
    header->total = (uint16_t)(FIXED + length);
    return GW_AGAIN;
}

static void read_addresses(struct gw_proxy_header *header)
{
    const char *at = header->bytes + FIXED;
    union gw_sockaddr sa = {0};

    if (byte_at(header, 12) == LOCAL || byte_at(header, 13) == UNSPEC)
        return;
    if (byte_at(header, 13) == TCP4) {
        sa.v4.sin_family = AF_INET;
        memcpy(&sa.v4.sin_addr, at, 4);
        memcpy(&sa.v4.sin_port, at + 8, 2);
    } else if (byte_at(header, 13) == TCP6) {
        sa.v6.sin6_family = AF_INET6;
        memcpy(&sa.v6.sin6_addr, at, 16);
        memcpy(&sa.v6.sin6_port, at + 32, 2);
    } else {
        sa.any.sa_family = AF_UNIX;
    }
    gw_addr_set(&header->client, &sa.any, sizeof(sa));
}

static enum gw_err take_of_binary(struct gw_proxy_header *header)
{
    enum gw_err err = header->len == FIXED ? read_fixed(header) : GW_AGAIN;

    if (err != GW_AGAIN || header->len < FIXED || header->len < header->total)
        return err;
    read_addresses(header);
    return GW_OK;
}

/* Both. */

static bool begins_with(const struct gw_proxy_header *header, const char *start, size_t len)
{
    return memcmp(header->bytes, start, header->len < len ? header->len : len) == 0;
}

static enum gw_err take(struct gw_proxy_header *header, char byte)
{
    if (header->len < GW_PROXY_KEPT)
        header->bytes[header->len] = byte;
    header->len++;
    if (begins_with(header, line_start, LINE_START))
        return header->len > LINE_START ? take_of_line(header) : GW_AGAIN;
    if (begins_with(header, signature, SIGNATURE))
        return take_of_binary(header);
    return GW_ERR_NO_PROXY_HEADER;
}

enum gw_err gw_proxy_header_feed(struct gw_proxy_header *header, const char *bytes, size_t len,
                                 size_t *used)
{
    enum gw_err err = GW_AGAIN;
    size_t i = 0;

    while (i < len && err == GW_AGAIN)
        err = take(header, bytes[i++]);
    *used = i;
    return err;
}

/* The transport. */

/* A header that came in part; most come whole. */
struct waiting {
    struct gw_transport_ops ops;
    struct gw_proxy_header header;
};

static struct waiting *waiting_of(const struct gw_conn *conn)
{
    return GW_CONTAINER(conn->transport, struct waiting, ops);
}

static int want_bytes(const struct gw_conn *conn)
{
    (void)conn;
    return EV_READ;
}

/* Looks at what is there, and takes what belongs to the header. */
static enum gw_err read_header(struct gw_conn *conn, struct gw_proxy_header *header)
{
    char bytes[GW_PROXY_KEPT];
    ssize_t got = recv(conn->io.fd, bytes, sizeof(bytes), MSG_PEEK);
    size_t used;

    if (got <= 0)
        return got == 0 ? GW_EOF : gw_transport_err(errno);
    enum gw_err err = gw_proxy_header_feed(header, bytes, (size_t)got, &used);
    if (recv(conn->io.fd, bytes, used, 0) != (ssize_t)used)
        return GW_ERR_IO;
    return err;
}

static enum gw_err finish(struct gw_conn *conn, const struct gw_proxy_header *header)
{
    if (header->client.family)
        conn->peer = header->client;
    conn->transport = &gw_tcp;
    return GW_OK;
}

static enum gw_err go_on(struct gw_conn *conn)
{
    struct waiting *waiting = waiting_of(conn);
    enum gw_err err = read_header(conn, &waiting->header);

    if (err != GW_OK)
        return err;
    finish(conn, &waiting->header);
    free(waiting);
    return GW_OK;
}

static void forget(struct gw_conn *conn)
{
    free(waiting_of(conn));
}

static void wait_for_rest(struct gw_conn *conn, const struct gw_proxy_header *header)
{
    struct waiting *waiting = malloc(sizeof(*waiting));

    GW_CHECK(waiting != NULL);
    waiting->ops = gw_tcp;
    waiting->ops.name = gw_proxy_protocol.name;
    waiting->ops.handshake = go_on;
    waiting->ops.want = want_bytes;
    waiting->ops.close = forget;
    waiting->header = *header;
    conn->transport = &waiting->ops;
}

static enum gw_err begin(struct gw_conn *conn)
{
    struct gw_proxy_header header = {0};
    enum gw_err err = read_header(conn, &header);

    if (err == GW_OK)
        return finish(conn, &header);
    if (err == GW_AGAIN && header.len)
        wait_for_rest(conn, &header);
    return err;
}

/* Nothing is read or written before the handshake is done; then it is tcp. */
const struct gw_transport_ops gw_proxy_protocol = {
    .name = "proxy_protocol", .handshake = begin, .want = want_bytes};
