/* What a head means, and which heads are refused: the strict layer over the lexer. Called by
 * http1_parse.c for each head that came in. Invariant: a message whose framing is in doubt gets an
 * error here and nothing of it goes any further (RFC 9112, section 11). */
#include "http/http1_impl.h"

#include "http/fields.h"
#include "http/target.h"

enum { CONNECTION_FIELDS_MAX = 4, CONNECTION_TOKENS_MAX = 32 };

/* What the fields said that are no fields of a gw_head. */
struct facts {
    unsigned hosts, lengths, codings, expects, connections;
    struct gw_slice host, length, coding, expect, upgrade;
    struct gw_slice connection[CONNECTION_FIELDS_MAX];
    unsigned types, credentials;
    bool close, keep_alive;
};

static enum gw_err bad(const struct gw_http1 *h)
{
    return h->server ? GW_ERR_BAD_REQUEST : GW_ERR_BAD_RESPONSE;
}

/* "HTTP/1.0" and upwards. digits: where the major version stands. */
static enum gw_err check_version(const struct gw_http1 *h, struct gw_head *head, char *text,
                                 size_t len)
{
    if (len != 8 || memcmp(text, "HTTP/", 5) != 0 || text[6] != '.' || text[5] < '0' ||
        text[5] > '9' || text[7] < '0' || text[7] > '9')
        return bad(h);
    if (text[5] != '1')
        return h->server ? GW_ERR_BAD_VERSION : GW_ERR_BAD_RESPONSE;
    head->minor = (unsigned)(text[7] - '0');
    if (head->minor > 1) /* RFC 9110, 2.5: served as the highest that is known */
        text[7] = '1';
    return GW_OK;
}

static enum gw_err take_target(const struct gw_http1 *h, struct gw_head *head,
                               struct gw_slice target)
{
    size_t max = gw_h1_limits(h)->max_target_bytes;

    if (max && target.len > max)
        return GW_ERR_TARGET_TOO_LONG;
    enum gw_err err = gw_target_split(head->method, target, &head->authority, &head->path);
    if (!err && head->path.ptr[0] == '?')
        head->path = gw_arena_printf(head->arena, "/%.*s", (int)head->path.len, head->path.ptr);
    return err;
}

/* Exactly one space between exactly three parts (RFC 9112, section 3). */
static enum gw_err request_line(const struct gw_http1 *h, struct gw_head *head, char *line,
                                size_t len)
{
    char *first = memchr(line, ' ', len), *last = memrchr(line, ' ', len);

    if (!first || first == last)
        return GW_ERR_BAD_REQUEST;
    head->method = gw_slice_of(line, (size_t)(first - line));
    if (!gw_field_name_ok(head->method))
        return GW_ERR_BAD_REQUEST;
    enum gw_err err = check_version(h, head, last + 1, (size_t)(line + len - last - 1));
    if (err)
        return err;
    if (gw_slice_eq(head->method, GW_SLICE("CONNECT")))
        return GW_ERR_NOT_IMPLEMENTED;
    return take_target(h, head, gw_slice_of(first + 1, (size_t)(last - first - 1)));
}

/* The phrase may be missing, and the space before it with it: many backends leave both out. */
static enum gw_err status_line(const struct gw_http1 *h, struct gw_head *head, char *line,
                               size_t len)
{
    if (len < 12 || line[8] != ' ' || (len > 12 && line[12] != ' '))
        return GW_ERR_BAD_RESPONSE;
    for (const char *digit = line + 9; digit < line + 12; digit++) {
        if (*digit < '0' || *digit > '9')
            return GW_ERR_BAD_RESPONSE;
        head->status = head->status * 10 + (unsigned)(*digit - '0');
    }
    if (head->status < 100 || head->status > 599)
        return GW_ERR_BAD_RESPONSE;
    return check_version(h, head, line, 8);
}

enum gw_err gw_h1_start_line(const struct gw_http1 *h, struct gw_head *head, char *text, size_t len)
{
    const char *end = memchr(text, '\r', len);
    size_t line = (size_t)(end - text);

    return h->server ? request_line(h, head, text, line) : status_line(h, head, text, line);
}

/* Returns false for a field that stays one. */
static bool take_field(struct facts *f, const struct gw_field *field, bool server)
{
    struct gw_slice name = field->name;

    if (gw_slice_eq(name, GW_SLICE("content-length"))) {
        f->lengths++;
        f->length = field->value;
    } else if (gw_slice_eq(name, GW_SLICE("transfer-encoding"))) {
        f->codings++;
        f->coding = field->value;
    } else if (gw_slice_eq(name, GW_SLICE("connection"))) {
        if (f->connections < CONNECTION_FIELDS_MAX)
            f->connection[f->connections] = field->value;
        f->connections++;
    } else if (gw_slice_eq(name, GW_SLICE("upgrade"))) {
        f->upgrade = field->value;
    } else if (server && gw_slice_eq(name, GW_SLICE("host"))) {
        f->hosts++;
        f->host = field->value;
    } else if (server && gw_slice_eq(name, GW_SLICE("expect"))) {
        f->expects++;
        f->expect = field->value;
    } else {
        f->types += server && gw_slice_eq(name, GW_SLICE("content-type"));
        f->credentials += server && gw_slice_eq(name, GW_SLICE("authorization"));
        return gw_field_is_framing(name);
    }
    return true;
}

static void take_fields(struct facts *f, struct gw_head *head, bool server)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < head->count; i++)
        if (!take_field(f, &head->fields[i], server))
            head->fields[kept++] = head->fields[i];
    head->count = (uint16_t)kept;
}

/* Fields that are meant for the end of the way: naming them in Connection is either a mistake or an
 * attempt to have a gateway strip what the backend relies on (RFC 9110, 7.6.1). */
static bool is_end_to_end(struct gw_slice name)
{
    static const struct gw_slice names[] = {
        {"host", 4},           {"via", 3},
        {"cookie", 6},         {"expect", 6},
        {"origin", 6},         {"forwarded", 9},
        {"set-cookie", 10},    {"x-real-ip", 9},
        {"x-request-id", 12},  {"cache-control", 13},
        {"authorization", 13},
    };
    static const struct gw_slice prefixes[] = {
        {"content-", 8}, {"transfer-encoding", 17}, {"x-forwarded-", 12}};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (gw_slice_ieq(names[i], name))
            return true;
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
        if (name.len >= prefixes[i].len &&
            strncasecmp(name.ptr, prefixes[i].ptr, prefixes[i].len) == 0)
            return true;
    return false;
}

static enum gw_err take_option(const struct gw_http1 *h, struct facts *f, struct gw_head *head,
                               struct gw_slice option)
{
    if (gw_slice_ieq(option, GW_SLICE("close")))
        f->close = true;
    else if (gw_slice_ieq(option, GW_SLICE("keep-alive")))
        f->keep_alive = true;
    else if (gw_slice_ieq(option, GW_SLICE("upgrade")))
        head->upgrade = true;
    else if (!gw_field_name_ok(option))
        return bad(h);
    else if (!is_end_to_end(option))
        gw_fields_remove(head, option);
    else if (h->server)
        return GW_ERR_BAD_REQUEST; /* a backend's is passed over: the field stays */
    return GW_OK;
}

static enum gw_err take_connection(const struct gw_http1 *h, struct facts *f, struct gw_head *head)
{
    unsigned tokens = 0;

    if (f->connections > CONNECTION_FIELDS_MAX)
        return bad(h);
    for (unsigned i = 0; i < f->connections; i++) {
        struct gw_slice rest = f->connection[i], option;
        while (gw_list_next(&rest, &option)) {
            enum gw_err err = take_option(h, f, head, option);
            if (err || ++tokens > CONNECTION_TOKENS_MAX)
                return bad(h);
        }
    }
    head->upgrade = head->upgrade && f->upgrade.len > 0;
    if (head->upgrade)
        head->upgrade_to = f->upgrade;
    return GW_OK;
}

/* 1*DIGIT that fits (RFC 9110, 8.6); no sign, space, list or hex. */
static bool parse_length(struct gw_slice text, int64_t *length)
{
    *length = 0;
    if (text.len == 0 || text.len > 18)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        *length = *length * 10 + (text.ptr[i] - '0');
    }
    return true;
}

/* RFC 9112, 6.1 to 6.3, and nothing that is only tolerated there. */
static enum gw_err take_framing(const struct gw_http1 *h, const struct facts *f,
                                struct gw_head *head)
{
    if (f->lengths + f->codings > 1)
        return bad(h);
    if (f->codings) {
        if (head->minor == 0 || !gw_slice_ieq(f->coding, GW_SLICE("chunked")))
            return bad(h);
        head->length = GW_LENGTH_UNKNOWN;
        head->has_body = true;
    } else if (f->lengths) {
        if (!parse_length(f->length, &head->length))
            return bad(h);
        head->has_body = head->length > 0;
    } else {
        head->length = h->server ? 0 : GW_LENGTH_UNKNOWN;
        head->has_body = !h->server;
    }
    return GW_OK;
}

/* RFC 9112, 3.2: exactly one Host in 1.1; one that contradicts an absolute target is refused,
 * though the RFC would overrule it: somebody else on the way may choose the other one. */
static enum gw_err take_host(const struct facts *f, struct gw_head *head)
{
    if (f->hosts > 1 || (f->hosts == 0 && head->minor > 0))
        return GW_ERR_BAD_REQUEST;
    if (f->hosts == 0)
        return GW_OK;
    if (!gw_authority_ok(f->host))
        return GW_ERR_BAD_REQUEST;
    if (head->authority.len && !gw_slice_ieq(head->authority, f->host))
        return GW_ERR_BAD_REQUEST;
    head->authority = f->host;
    return GW_OK;
}

/* RFC 9110, 10.1.1; 417 has no error of its own and is answered as a bad request. */
static enum gw_err take_expect(const struct facts *f, struct gw_head *head)
{
    if (f->expects == 0 || head->minor == 0)
        return GW_OK;
    if (f->expects > 1 || !gw_slice_ieq(f->expect, GW_SLICE("100-continue")))
        return GW_ERR_BAD_REQUEST;
    head->expect_continue = head->has_body;
    return GW_OK;
}

static enum gw_err apply_request(struct gw_http1 *h, const struct facts *f, struct gw_head *head)
{
    uint64_t max = gw_h1_limits(h)->max_body_bytes;
    bool secure = strcmp(h->codec.conn->transport->name, "tls") == 0;
    enum gw_err err = take_host(f, head);

    if (f->types > 1 ||
        f->credentials > 1) /* who reads the first one differs with who reads the last */
        return GW_ERR_BAD_REQUEST;
    if (!err)
        err = take_expect(f, head);
    if (!err && max && head->length > 0 && (uint64_t)head->length > max)
        err = GW_ERR_BODY_TOO_LARGE;
    head->scheme = secure ? GW_SLICE("https") : GW_SLICE("http");
    return err;
}

/* These have no body whatever their heads say (RFC 9112, 6.3); the length of HEAD and 304 is that
 * of the answer they stand for. */
static void apply_response(const struct gw_h1_stream *s, struct gw_head *head)
{
    bool informational = gw_head_informational(head);

    if (!s->head_request && !informational && head->status != 204 && head->status != 304)
        return;
    head->has_body = false;
    if (informational || head->status == 204)
        head->length = 0;
}

enum gw_err gw_h1_apply_fields(struct gw_http1 *h, const struct gw_h1_stream *s,
                               struct gw_head *head)
{
    struct facts f = {0};
    enum gw_err err;

    take_fields(&f, head, h->server);
    err = take_connection(h, &f, head);
    if (!err)
        err = take_framing(h, &f, head);
    if (err)
        return err;
    h->peer_minor = head->minor;
    h->keep = !f.close && (head->minor > 0 || f.keep_alive);
    if (h->server)
        return apply_request(h, &f, head);
    apply_response(s, head);
    if (head->has_body && !f.lengths && !f.codings)
        h->keep = false; /* ends with the connection */
    return GW_OK;
}

bool gw_h1_disguised(struct gw_slice name)
{
    static const struct gw_slice names[] = {{"content-length", 14},   {"transfer-encoding", 17},
                                            {"content-type", 12},     {"x-request-id", 12},
                                            {"x-real-ip", 9},         {"keep-alive", 10},
                                            {"proxy-connection", 16}, {"proxy-authorization", 19},
                                            {"max-forwards", 12}};

    if (!memchr(name.ptr, '_', name.len))
        return false;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (name.len == names[i].len && gw_field_passes_for(name, names[i]))
            return true;
    return gw_field_passes_for(name, GW_SLICE("x-forwarded-"));
}

bool gw_h1_trailer_ok(struct gw_slice name)
{
    return !gw_slice_ieq(name, GW_SLICE("host")) && !gw_field_is_framing(name);
}
