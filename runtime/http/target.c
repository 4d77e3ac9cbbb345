/* Request targets, authorities and query strings. Called by http1 for each request and by the
 * script API for queries. Invariant: nothing here changes or copies what is going to be forwarded.
 */
#include "http/target.h"

#include <arpa/inet.h>
#include <stdint.h>

/* RFC 3986 knows no bytes outside of visible ASCII, and a fragment is never sent (RFC 9112, 3.2).
 */
static bool target_bytes_ok(struct gw_slice target)
{
    for (size_t i = 0; i < target.len; i++) {
        unsigned char c = (unsigned char)target.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return false;
    }
    return target.len > 0;
}

static size_t scheme_len(struct gw_slice target)
{
    static const struct gw_slice schemes[] = {{"http://", 7}, {"https://", 8}};

    for (size_t i = 0; i < 2; i++)
        if (target.len > schemes[i].len &&
            strncasecmp(target.ptr, schemes[i].ptr, schemes[i].len) == 0)
            return schemes[i].len;
    return 0;
}

static enum gw_err split_absolute(struct gw_slice method, struct gw_slice target,
                                  struct gw_slice *authority, struct gw_slice *path)
{
    size_t from = scheme_len(target), at = from;

    if (!from)
        return GW_ERR_BAD_REQUEST;
    while (at < target.len && target.ptr[at] != '/' && target.ptr[at] != '?')
        at++;
    *authority = gw_slice_of(target.ptr + from, at - from);
    *path = gw_slice_of(target.ptr + at, target.len - at);
    if (path->len == 0) /* RFC 9112, 3.2.4: the whole server */
        *path = gw_slice_eq(method, GW_SLICE("OPTIONS")) ? GW_SLICE("*") : GW_SLICE("/");
    return gw_authority_ok(*authority) ? GW_OK : GW_ERR_BAD_REQUEST;
}

enum gw_err gw_target_split(struct gw_slice method, struct gw_slice target,
                            struct gw_slice *authority, struct gw_slice *path)
{
    *authority = gw_slice_of(NULL, 0);
    *path = target;
    if (!target_bytes_ok(target))
        return GW_ERR_BAD_REQUEST;
    if (target.ptr[0] == '/')
        return GW_OK;
    if (gw_slice_eq(target, GW_SLICE("*")))
        return gw_slice_eq(method, GW_SLICE("OPTIONS")) ? GW_OK : GW_ERR_BAD_REQUEST;
    return split_absolute(method, target, authority, path);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of the escape at text[at], or -1 where there is none. */
static int escape_at(struct gw_slice text, size_t at)
{
    if (text.ptr[at] != '%' || text.len - at < 3)
        return -1;
    int high = hex_digit(text.ptr[at + 1]), low = hex_digit(text.ptr[at + 2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static bool reg_name_ok(struct gw_slice host)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];
        if (c == '%') {
            if (escape_at(host, i) < 0)
                return false;
            i += 2;
        } else if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c && strchr("-._~!$&'()*+,;=", c)))) {
            return false;
        }
    }
    return host.len > 0;
}

/* "[::1]"; addresses of future versions (RFC 3986, 3.2.2) do not exist. */
static bool ip_literal_ok(struct gw_slice host)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;

    if (host.len < 4 || host.len - 2 >= sizeof(text) || host.ptr[host.len - 1] != ']')
        return false;
    memcpy(text, host.ptr + 1, host.len - 2);
    text[host.len - 2] = 0;
    return strlen(text) == host.len - 2 && inet_pton(AF_INET6, text, &addr) == 1;
}

bool gw_port_read(struct gw_slice text, unsigned *port)
{
    *port = 0;
    for (size_t i = 0; i < text.len && i < 6; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        *port = *port * 10 + (unsigned)(text.ptr[i] - '0');
    }
    return text.len > 0 && text.len <= 5 && *port <= UINT16_MAX;
}

/* None behind the colon is the scheme's own (RFC 3986, 3.2.3). */
static bool port_ok(struct gw_slice text)
{
    unsigned port;
    return text.len == 0 || gw_port_read(text, &port);
}

bool gw_authority_ok(struct gw_slice authority)
{
    bool literal = authority.len && authority.ptr[0] == '[';
    const char *bracket = literal ? memchr(authority.ptr, ']', authority.len) : NULL;
    size_t at = literal ? (bracket ? (size_t)(bracket - authority.ptr) + 1 : authority.len) : 0;
    struct gw_slice port;

    while (at < authority.len && authority.ptr[at] != ':') {
        if (literal)
            return false;
        at++;
    }
    if (at < authority.len) {
        port = gw_slice_of(authority.ptr + at + 1, authority.len - at - 1);
        if (!port_ok(port))
            return false;
    }
    authority.len = at;
    return literal ? ip_literal_ok(authority) : reg_name_ok(authority);
}

unsigned gw_authority_split(struct gw_slice authority, struct gw_slice *host)
{
    bool literal = authority.ptr[0] == '[';
    const char *bracket = literal ? memchr(authority.ptr, ']', authority.len) : NULL;
    size_t from = literal ? 1 : 0, at = bracket ? (size_t)(bracket - authority.ptr) : 0;
    unsigned port = 0;

    while (!literal && at < authority.len && authority.ptr[at] != ':')
        at++;
    *host = gw_slice_of(authority.ptr + from, at - from);
    for (at += from; at < authority.len; at++)
        if (authority.ptr[at] != ':')
            port = port * 10 + (unsigned)(authority.ptr[at] - '0');
    return port;
}

struct gw_slice gw_percent_decode(struct gw_arena *arena, struct gw_slice text, bool plus)
{
    char *out = gw_arena_alloc(arena, text.len + 1);
    size_t len = 0;

    for (size_t i = 0; i < text.len; i++) {
        int byte = escape_at(text, i);
        if (byte >= 0)
            i += 2;
        else
            byte = plus && text.ptr[i] == '+' ? ' ' : text.ptr[i];
        out[len++] = (char)byte;
    }
    out[len] = 0;
    return gw_slice_of(out, len);
}

/* Equal once decoded, without making a copy of every name on the way. */
static bool decoded_eq(struct gw_slice text, struct gw_slice name)
{
    size_t at = 0;

    for (size_t i = 0; i < text.len; i++, at++) {
        int byte = escape_at(text, i);
        if (byte >= 0)
            i += 2;
        else
            byte = text.ptr[i] == '+' ? ' ' : (unsigned char)text.ptr[i];
        if (at >= name.len || (unsigned char)name.ptr[at] != byte)
            return false;
    }
    return at == name.len;
}

struct gw_slice gw_query_get(struct gw_arena *arena, struct gw_slice query, struct gw_slice name)
{
    while (query.len) {
        const char *amp = memchr(query.ptr, '&', query.len);
        size_t len = amp ? (size_t)(amp - query.ptr) : query.len;
        const char *eq = memchr(query.ptr, '=', len);
        size_t key = eq ? (size_t)(eq - query.ptr) : len;
        if (decoded_eq(gw_slice_of(query.ptr, key), name)) {
            size_t from = eq ? key + 1 : len;
            return gw_percent_decode(arena, gw_slice_of(query.ptr + from, len - from), true);
        }
        query.ptr += amp ? len + 1 : len;
        query.len -= amp ? len + 1 : len;
    }
    return gw_slice_of(NULL, 0);
}
