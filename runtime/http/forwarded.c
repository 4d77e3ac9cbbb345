/* Reads what proxies say of whom they speak for. Owns nothing. Called for requests whose peer is
 * believed. Invariant: what is not exactly right is not read at all; nothing is guessed. */
#include "http/forwarded.h"

#include "http/fields.h"
#include "http/target.h"

enum { NODE_MAX = 64 };

static struct gw_slice behind(struct gw_slice text, size_t n)
{
    return gw_slice_of(text.ptr + n, text.len - n);
}

static bool escaped(struct gw_slice list, size_t at)
{
    size_t from = at;
    while (from && list.ptr[from - 1] == '\\')
        from--;
    return (at - from) % 2;
}

struct gw_slice gw_forwarded_last(struct gw_slice *list, bool quotes)
{
    bool quoted = false;
    size_t from = list->len;
    for (; from && (quoted || list->ptr[from - 1] != ','); from--)
        if (quotes && list->ptr[from - 1] == '"' && !(quoted && escaped(*list, from - 1)))
            quoted = !quoted;
    struct gw_slice element = gw_slice_trim(behind(*list, from));
    list->len = from ? from - 1 : 0;
    return element;
}

/* The bytes of a quoted string at the beginning, with its quotes; 0: it does not end. */
static size_t quoted_len(struct gw_slice text)
{
    size_t n = 1;
    for (; n < text.len && text.ptr[n] != '"'; n++)
        n += text.ptr[n] == '\\';
    return n < text.len ? n + 1 : 0;
}

static bool take_value(struct gw_slice *rest, struct gw_slice *value)
{
    size_t n = 0;
    if (rest->len && rest->ptr[0] == '"') {
        n = quoted_len(*rest);
        if (!n)
            return false;
        *value = gw_slice_of(rest->ptr + 1, n - 2);
    } else {
        while (n < rest->len && !strchr("; \t", rest->ptr[n]))
            n++;
        *value = gw_slice_of(rest->ptr, n);
        if (!gw_field_name_ok(*value)) /* a token, as names are */
            return false;
    }
    *rest = gw_slice_trim(behind(*rest, n));
    return !rest->len || rest->ptr[0] == ';';
}

static bool take_pair(struct gw_slice *rest, struct gw_slice *name, struct gw_slice *value)
{
    const char *mark = memchr(rest->ptr, '=', rest->len);
    if (!mark)
        return false;
    *name = gw_slice_of(rest->ptr, (size_t)(mark - rest->ptr));
    *rest = behind(*rest, name->len + 1);
    return gw_field_name_ok(*name) && take_value(rest, value);
}

static struct gw_slice *place_of(struct gw_forwarded *out, struct gw_slice name)
{
    if (gw_slice_ieq(name, GW_SLICE("for")))
        return &out->node;
    if (gw_slice_ieq(name, GW_SLICE("proto")))
        return &out->proto;
    return gw_slice_ieq(name, GW_SLICE("host")) ? &out->host : NULL;
}

bool gw_forwarded_read(struct gw_slice element, struct gw_forwarded *out)
{
    struct gw_slice rest = element, name, value;
    *out = (struct gw_forwarded){0};
    while (rest.len) {
        if (rest.ptr[0] == ';') {
            rest = gw_slice_trim(behind(rest, 1));
            continue;
        }
        if (!take_pair(&rest, &name, &value))
            return false;
        struct gw_slice *place = place_of(out, name);
        if (place && place->ptr)
            return false;
        if (place)
            *place = value;
    }
    return true;
}

/* RFC 7239, section 6: a port may be hidden, too. */
static bool hidden_port(struct gw_slice text)
{
    for (size_t i = 1; i < text.len; i++) {
        char c = text.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            c != '.' && c != '_' && c != '-')
            return false;
    }
    return text.len > 1 && text.ptr[0] == '_';
}

static bool read_port(struct gw_slice text, bool strict, unsigned *port)
{
    *port = 0;
    return (strict && hidden_port(text)) || gw_port_read(text, port);
}

/* host[:port] or [host][:port]; a host with colons and without brackets has no port. */
static bool split_node(struct gw_slice text, bool strict, struct gw_slice *host, unsigned *port)
{
    const char *end = memchr(text.ptr, text.ptr[0] == '[' ? ']' : ':', text.len);
    *port = 0;
    *host = text;
    if (text.ptr[0] == '[') {
        if (!end)
            return false;
        *host = gw_slice_of(text.ptr + 1, (size_t)(end - text.ptr) - 1);
        end++;
    } else if (!end || memchr(end + 1, ':', (size_t)(text.ptr + text.len - end) - 1)) {
        return true;
    } else {
        host->len = (size_t)(end - text.ptr);
    }
    struct gw_slice rest = behind(text, (size_t)(end - text.ptr));
    return !rest.len || (rest.ptr[0] == ':' && read_port(behind(rest, 1), strict, port));
}

bool gw_forwarded_node(struct gw_slice text, bool strict, struct gw_addr *addr)
{
    char literal[NODE_MAX + 1];
    struct gw_slice host;
    unsigned port;
    if (!text.len || text.len > NODE_MAX || memchr(text.ptr, '\0', text.len) ||
        !split_node(text, strict, &host, &port))
        return false;
    memcpy(literal, host.ptr, host.len);
    literal[host.len] = '\0';
    bool bracketed = text.ptr[0] == '[';
    if (literal[0] == '[' || !gw_addr_literal(addr, literal, port))
        return false;
    if (addr->family == AF_INET ? bracketed : strict && !bracketed)
        return false;
    gw_addr_undress(addr);
    return true;
}
