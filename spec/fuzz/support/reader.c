/* Owns nothing. Called by targets to judge what the gateway understood and what it wrote.
 * Invariant: a message is OK only where each byte of it has one meaning by RFC 9112; the one thing
 * it allows beyond that is an empty line in front of a request (section 2.2). */
#include "support/reader.h"

enum { DIGITS_MAX = 15 };

static enum reader_result bad(struct reader_message *m, const char *why)
{
    m->why = why;
    return READER_BAD;
}

/* The next line without its CRLF; a CR or LF of another kind makes it bad. */
static enum reader_result take_line(struct gw_slice *rest, struct gw_slice *line)
{
    for (size_t i = 0; i < rest->len; i++) {
        if (rest->ptr[i] == '\n')
            return READER_BAD;
        if (rest->ptr[i] != '\r')
            continue;
        if (i + 1 == rest->len)
            return READER_MORE;
        if (rest->ptr[i + 1] != '\n')
            return READER_BAD;
        *line = gw_slice_of(rest->ptr, i);
        *rest = gw_slice_of(rest->ptr + i + 2, rest->len - i - 2);
        return READER_OK;
    }
    return READER_MORE;
}

static bool is_token(struct gw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!word && (c == 0 || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return s.len > 0;
}

static bool is_value(struct gw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static bool split_field(struct gw_slice line, struct gw_slice *name, struct gw_slice *value)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (!colon)
        return false;
    *name = gw_slice_of(line.ptr, (size_t)(colon - line.ptr));
    *value = gw_slice_trim(gw_slice_of(colon + 1, line.len - name->len - 1));
    return is_token(*name) && is_value(*value);
}

/* Lines of fields up to the empty one. */
static enum reader_result take_fields(struct gw_slice *rest, struct gw_slice *fields)
{
    struct gw_slice line, name, value;
    const char *begin = rest->ptr;
    for (;;) {
        const char *at = rest->ptr;
        enum reader_result result = take_line(rest, &line);
        if (result != READER_OK)
            return result;
        if (line.len == 0) {
            *fields = gw_slice_of(begin, (size_t)(at - begin));
            return READER_OK;
        }
        if (!split_field(line, &name, &value))
            return READER_BAD;
    }
}

struct gw_slice reader_field(const struct reader_message *message, const char *name, unsigned n)
{
    struct gw_slice rest = message->fields, line, field, value;
    while (rest.len && take_line(&rest, &line) == READER_OK) {
        if (split_field(line, &field, &value) && gw_slice_ieq(field, gw_slice_str(name)) &&
            n-- == 0)
            return value;
    }
    return (struct gw_slice){0};
}

static bool read_number(struct gw_slice s, unsigned base, int64_t *out)
{
    *out = 0;
    while (s.len > 1 && s.ptr[0] == '0')
        s = gw_slice_of(s.ptr + 1, s.len - 1);
    if (s.len == 0 || s.len > DIGITS_MAX)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : 99;
        if (digit >= (int)base)
            return false;
        *out = *out * base + digit;
    }
    return true;
}

/* Of an extension nothing is asked but that it is text. */
static bool read_chunk_line(struct gw_slice line, int64_t *size)
{
    size_t digits = 0;
    while (digits < line.len && strchr("0123456789abcdefABCDEF", line.ptr[digits]) &&
           line.ptr[digits])
        digits++;
    struct gw_slice rest = gw_slice_of(line.ptr + digits, line.len - digits), text;
    text = gw_slice_trim(rest);
    struct gw_slice number = gw_slice_of(line.ptr, digits);
    while (number.len > 1 && number.ptr[0] == '0')
        number.ptr++, number.len--;
    return read_number(number, 16, size) && is_value(rest) &&
           (rest.len == 0 || (text.len && text.ptr[0] == ';'));
}

enum reader_result reader_chunked(struct gw_slice bytes, struct fuzz_text *body, size_t *size,
                                  const char **why)
{
    struct gw_slice rest = bytes, line, trailers;
    int64_t n;
    for (;;) {
        enum reader_result result = take_line(&rest, &line);
        *why = "line of a chunk";
        if (result != READER_OK)
            return result;
        *why = "size of a chunk";
        if (!read_chunk_line(line, &n))
            return READER_BAD;
        if (n == 0)
            break;
        size_t have = rest.len < (size_t)n ? rest.len : (size_t)n;
        fuzz_put(body, rest.ptr, have);
        rest = gw_slice_of(rest.ptr + have, rest.len - have);
        *why = "end of a chunk";
        if ((rest.len > 0 && rest.ptr[0] != '\r') || (rest.len > 1 && rest.ptr[1] != '\n'))
            return READER_BAD;
        if (rest.len < 2)
            return READER_MORE;
        rest = gw_slice_of(rest.ptr + 2, rest.len - 2);
    }
    *why = "trailers";
    enum reader_result result = take_fields(&rest, &trailers);
    *size = bytes.len - rest.len;
    return result;
}

static bool has_token(const struct reader_message *m, const char *name, const char *token)
{
    struct gw_slice value = reader_field(m, name, 0);
    return gw_slice_ieq(value, gw_slice_str(token)) && !reader_field(m, name, 1).ptr;
}

/* What the fields say of the body. */
static bool read_framing(struct reader_message *m)
{
    struct gw_slice length = reader_field(m, "content-length", 0);
    bool coded = reader_field(m, "transfer-encoding", 0).ptr != NULL;
    m->length = -1;
    m->chunked = coded;
    if (length.ptr && (coded || reader_field(m, "content-length", 1).ptr))
        return false;
    if (length.ptr && !read_number(length, 10, &m->length))
        return false;
    return !coded || (m->minor > 0 && has_token(m, "transfer-encoding", "chunked"));
}

static enum reader_result read_body(struct gw_slice bytes, struct gw_slice rest, bool end,
                                    struct reader_message *m)
{
    size_t head = bytes.len - rest.len, size = 0;
    if (m->chunked) {
        enum reader_result result = reader_chunked(rest, &m->body, &size, &m->why);
        m->size = head + size;
        return result;
    }
    bool whole = m->until_end ? end : rest.len >= (size_t)m->length;
    size_t n = m->until_end || !whole ? rest.len : (size_t)m->length;
    fuzz_put(&m->body, rest.ptr, n);
    m->size = head + n;
    return whole ? READER_OK : READER_MORE;
}

/* "HTTP/1.x" */
static bool read_version(struct gw_slice s, unsigned *minor)
{
    if (s.len != 8 || memcmp(s.ptr, "HTTP/1.", 7) != 0 || s.ptr[7] < '0' || s.ptr[7] > '9')
        return false;
    *minor = (unsigned)(s.ptr[7] - '0');
    return true;
}

static bool read_request_line(struct gw_slice line, struct reader_message *m)
{
    const char *first = memchr(line.ptr, ' ', line.len), *end = line.ptr + line.len;
    const char *second = first ? memchr(first + 1, ' ', (size_t)(end - first - 1)) : NULL;
    if (!second)
        return false;
    m->method = gw_slice_of(line.ptr, (size_t)(first - line.ptr));
    m->target = gw_slice_of(first + 1, (size_t)(second - first - 1));
    for (size_t i = 0; i < m->target.len; i++)
        if (m->target.ptr[i] < 0x21 || m->target.ptr[i] > 0x7e || m->target.ptr[i] == '#')
            return false;
    return is_token(m->method) && m->target.len &&
           read_version(gw_slice_of(second + 1, (size_t)(end - second - 1)), &m->minor);
}

static bool host_is_clear(const struct reader_message *m)
{
    struct gw_slice host = reader_field(m, "host", 0);
    if (reader_field(m, "host", 1).ptr)
        return false;
    return host.ptr ? host.len == 0 || !memchr(host.ptr, ' ', host.len) : m->minor == 0;
}

enum reader_result reader_request(struct gw_slice bytes, struct reader_message *out)
{
    struct gw_slice rest = bytes, line;
    *out = (struct reader_message){.length = -1};
    enum reader_result result = take_line(&rest, &line);
    if (result == READER_OK && line.len == 0)
        result = take_line(&rest, &line);
    if (result != READER_OK)
        return result == READER_MORE ? result : bad(out, "request line");
    if (!read_request_line(line, out))
        return bad(out, "request line");
    result = take_fields(&rest, &out->fields);
    if (result != READER_OK)
        return result == READER_MORE ? result : bad(out, "fields");
    if (!read_framing(out))
        return bad(out, "framing");
    if (!host_is_clear(out))
        return bad(out, "host");
    if (!out->chunked && out->length < 0)
        out->length = 0;
    out->head_done = true;
    return read_body(bytes, rest, false, out);
}

static bool read_status_line(struct gw_slice line, struct reader_message *m)
{
    int64_t status;
    if (line.len < 12 || !read_version(gw_slice_of(line.ptr, 8), &m->minor) || line.ptr[8] != ' ' ||
        !read_number(gw_slice_of(line.ptr + 9, 3), 10, &status))
        return false;
    m->status = (unsigned)status;
    return status >= 100 && (line.len == 12 || line.ptr[12] == ' ') && is_value(line);
}

enum reader_result reader_response(struct gw_slice bytes, bool no_body, bool end,
                                   struct reader_message *out)
{
    struct gw_slice rest = bytes, line;
    *out = (struct reader_message){.length = -1};
    enum reader_result result = take_line(&rest, &line);
    if (result != READER_OK)
        return result == READER_MORE ? result : bad(out, "status line");
    if (!read_status_line(line, out))
        return bad(out, "status line");
    result = take_fields(&rest, &out->fields);
    if (result != READER_OK)
        return result == READER_MORE ? result : bad(out, "fields");
    out->head_done = true;
    if (!read_framing(out))
        return bad(out, "framing");
    if (no_body || out->status < 200 || out->status == 204 || out->status == 304) {
        out->chunked = false;
        out->length = 0;
    }
    out->until_end = !out->chunked && out->length < 0;
    return read_body(bytes, rest, end, out);
}
