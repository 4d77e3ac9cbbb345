/* Owns nothing: views of a JSON text, and edited copies of it. Called by the event object of
 * scripts. Invariant: a container is walked to its end before anything in it is used, so a value
 * that was found lies in a text that is whole. */
#include "sse/json_field.h"
#include <stdint.h>
#include "sse/json_text.h"

struct cursor {
    const char *p, *end;
    unsigned depth;
};

/* An array or object that has been walked, and what was asked of it. */
struct container {
    /* in */
    struct gw_slice part; /* key or index to look for; ptr NULL = none */
    struct gw_buf *keep;  /* NULL, or takes all members that don't match, each with what parts it
                             from the one before */
    /* out */
    struct gw_slice found; /* last matching value; ptr NULL = none */
    struct gw_slice below; /* of walk_path: what is left of the path; ptr NULL = nothing */
    bool object;
    size_t count;
    const char *open, *close; /* '{' or '['; '}' or ']' */
    const char *first, *last; /* where the first member begins; behind the last value */
};

struct member {
    struct gw_slice key, value;
    const char *start;
};

static bool skip_container(struct cursor *c);

static inline void skip_blanks(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\t' || *c->p == '\r'))
        c->p++;
}

static bool skip_byte(struct cursor *c, char byte)
{
    if (c->p == c->end || *c->p != byte)
        return false;
    c->p++;
    return true;
}

static bool skip_word(struct cursor *c, struct gw_slice word)
{
    if ((size_t)(c->end - c->p) < word.len || memcmp(c->p, word.ptr, word.len) != 0)
        return false;
    c->p += word.len;
    return true;
}

/* The value of a hexadecimal digit, or -1. */
static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if ((digit | 32) >= 'a' && (digit | 32) <= 'f')
        return (digit | 32) - 'a' + 10;
    return -1;
}

/* What follows a backslash. */
static bool skip_escape(struct cursor *c)
{
    if (c->p == c->end)
        return false;
    char kind = *c->p++;
    if (kind != 'u')
        return kind && strchr("\"\\/bfnrt", kind);
    for (int i = 0; i < 4; i++)
        if (c->p == c->end || hex_digit(*c->p++) < 0)
            return false;
    return true;
}

static bool skip_string(struct cursor *c)
{
    if (!skip_byte(c, '"'))
        return false;
    for (;;) {
        c->p = gw_json_plain_end(c->p, c->end);
        if (c->p == c->end)
            return false;
        char byte = *c->p++;
        if (byte == '"')
            return true;
        if (byte != '\\' || !skip_escape(c))
            return false;
    }
}

static bool skip_digits(struct cursor *c)
{
    const char *start = c->p;
    while (c->p < c->end && *c->p >= '0' && *c->p <= '9')
        c->p++;
    return c->p > start;
}

static bool skip_number(struct cursor *c)
{
    skip_byte(c, '-');
    if (!skip_byte(c, '0') && !skip_digits(c))
        return false;
    if (skip_byte(c, '.') && !skip_digits(c))
        return false;
    if (!skip_byte(c, 'e') && !skip_byte(c, 'E'))
        return true;
    if (!skip_byte(c, '+'))
        skip_byte(c, '-');
    return skip_digits(c);
}

static bool skip_value(struct cursor *c)
{
    if (c->p == c->end)
        return false;
    switch (*c->p) {
    case '{':
    case '[':
        return skip_container(c);
    case '"':
        return skip_string(c);
    case 't':
        return skip_word(c, GW_SLICE("true"));
    case 'f':
        return skip_word(c, GW_SLICE("false"));
    case 'n':
        return skip_word(c, GW_SLICE("null"));
    default:
        return skip_number(c);
    }
}

static unsigned read_unit(const char *digits)
{
    unsigned unit = 0;
    for (int i = 0; i < 4; i++)
        unit = unit << 4 | (unsigned)hex_digit(digits[i]);
    return unit;
}

static size_t put_utf8(unsigned code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(lead[n] | code);
    return n;
}

/* The character of a \u escape, *p being behind the u; goes on behind it, or behind both halves of
 * a pair. */
static unsigned read_code(const char **p, const char *end)
{
    unsigned code = read_unit(*p);
    *p += 4;
    if (code < 0xd800 || code > 0xdfff)
        return code;
    if (code < 0xdc00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u') {
        unsigned low = read_unit(*p + 2);
        if (low >= 0xdc00 && low <= 0xdfff) {
            *p += 6;
            return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    return 0xfffd;
}

/* Decodes one byte or escape of a string that was checked; writes 1 to 4 bytes. */
static size_t decode(const char **p, const char *end, char out[4])
{
    static const char named[] = "b\bf\fn\nr\rt\t";
    out[0] = *(*p)++;
    if (out[0] != '\\')
        return 1;
    out[0] = *(*p)++;
    if (out[0] == 'u')
        return put_utf8(read_code(p, end), out);
    for (const char *name = named; *name; name += 2)
        if (out[0] == name[0]) {
            out[0] = name[1];
            break;
        }
    return 1;
}

/* Does a key, quotes included, say the same as part? */
static bool key_is(struct gw_slice key, struct gw_slice part)
{
    const char *p = key.ptr + 1, *end = key.ptr + key.len - 1;
    size_t len = (size_t)(end - p);
    /* Escapes make a key longer, never shorter. */
    if (len < part.len || (len && part.len && *p != *part.ptr && *p != '\\'))
        return false;
    if (!memchr(p, '\\', len))
        return gw_slice_eq(gw_slice_of(p, len), part);
    size_t at = 0;
    while (p < end) {
        char text[4];
        size_t n = decode(&p, end, text);
        if (part.len - at < n || memcmp(part.ptr + at, text, n) != 0)
            return false;
        at += n;
    }
    return at == part.len;
}

/* Is part the number of a member in its shortest form? */
static bool index_is(size_t index, struct gw_slice part)
{
    size_t n = 0;
    if (part.len == 0 || part.len > 9 || (part.len > 1 && part.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < part.len; i++) {
        if (part.ptr[i] < '0' || part.ptr[i] > '9')
            return false;
        n = n * 10 + (size_t)(part.ptr[i] - '0');
    }
    return n == index;
}

static bool read_key(struct cursor *c, struct gw_slice *key)
{
    key->ptr = c->p;
    if (!skip_string(c))
        return false;
    key->len = (size_t)(c->p - key->ptr);
    skip_blanks(c);
    return skip_byte(c, ':');
}

/* A key where there must be one, and a value, up to the comma or bracket. */
static bool read_member(struct cursor *c, bool object, struct member *m)
{
    skip_blanks(c);
    m->start = c->p;
    if (object && !read_key(c, &m->key))
        return false;
    skip_blanks(c);
    m->value.ptr = c->p;
    if (!skip_value(c))
        return false;
    m->value.len = (size_t)(c->p - m->value.ptr);
    skip_blanks(c);
    return true;
}

/* Counts a member in, and looks whether it is the one. */
static void add_member(struct container *k, const struct member *m, size_t *kept)
{
    bool match = k->part.ptr && (k->object ? key_is(m->key, k->part) : index_is(k->count, k->part));
    const char *before = k->last, *end = m->value.ptr + m->value.len;
    if (match)
        k->found = m->value;
    if (k->count++ == 0)
        k->first = m->start;
    k->last = end;
    if (!k->keep || match)
        return;
    const char *from = (*kept)++ ? before : m->start;
    gw_buf_append(k->keep, from, (size_t)(end - from));
}

/* Enters the array or object at the cursor; *more: there is a member. False: it is not one, or too
 * deep. */
static bool enter(struct cursor *c, bool *object, bool *more)
{
    if (c->p == c->end || (*c->p != '{' && *c->p != '[') || c->depth == GW_JSON_DEPTH)
        return false;
    c->depth++;
    *object = *c->p++ == '{';
    skip_blanks(c);
    *more = c->p == c->end || *c->p != (*object ? '}' : ']');
    return true;
}

static bool leave(struct cursor *c, bool object)
{
    c->depth--;
    return skip_byte(c, object ? '}' : ']');
}

static bool skip_container(struct cursor *c)
{
    struct member m;
    bool object, more;
    if (!enter(c, &object, &more))
        return false;
    while (more) {
        if (!read_member(c, object, &m))
            return false;
        more = skip_byte(c, ',');
    }
    return leave(c, object);
}

/* Goes through the array or object at the cursor, to behind it. False: it is not one, or too deep.
 */
static bool walk(struct cursor *c, struct container *k)
{
    struct member m = {0};
    size_t kept = 0;
    bool more;
    k->open = c->p;
    k->last = c->p + 1;
    if (!enter(c, &k->object, &more))
        return false;
    while (more) {
        if (!read_member(c, k->object, &m))
            return false;
        add_member(k, &m, &kept);
        more = skip_byte(c, ',');
    }
    k->close = c->p;
    return leave(c, k->object);
}

static enum gw_json_type type_of(struct gw_slice value)
{
    switch (value.len ? value.ptr[0] : 0) {
    case 0:
        return GW_JSON_ABSENT;
    case '{':
        return GW_JSON_OBJECT;
    case '[':
        return GW_JSON_ARRAY;
    case '"':
        return GW_JSON_STRING;
    case 't':
        return GW_JSON_TRUE;
    case 'f':
        return GW_JSON_FALSE;
    case 'n':
        return GW_JSON_NULL;
    default:
        return GW_JSON_NUMBER;
    }
}

/* Checks a text that is one value with blanks around it; *value is without them. */
static bool read_whole(struct gw_slice text, struct gw_slice *value)
{
    struct cursor c = {text.ptr, text.ptr + text.len, 0};
    skip_blanks(&c);
    value->ptr = c.p;
    if (!skip_value(&c))
        return false;
    value->len = (size_t)(c.p - value->ptr);
    skip_blanks(&c);
    return c.p == c.end;
}

/* Walks the first container of the text, which may have blanks around it. */
static enum gw_json_type walk_text(struct gw_slice text, struct container *k)
{
    struct cursor c = {text.ptr, text.ptr + text.len, 0};
    struct gw_slice value;
    skip_blanks(&c);
    if (c.p == c.end || (*c.p != '{' && *c.p != '['))
        return read_whole(text, &value) ? GW_JSON_ABSENT : GW_JSON_INVALID;
    if (!walk(&c, k))
        return GW_JSON_INVALID;
    skip_blanks(&c);
    if (c.p < c.end)
        return GW_JSON_INVALID;
    return k->object ? GW_JSON_OBJECT : GW_JSON_ARRAY;
}

/* Takes the first part off a path; false when it was the last one. */
static bool next_part(struct gw_slice *path, struct gw_slice *part)
{
    const char *dot = memchr(path->ptr, '.', path->len);
    *part = gw_slice_of(path->ptr, dot ? (size_t)(dot - path->ptr) : path->len);
    if (!dot)
        return false;
    *path = gw_slice_of(dot + 1, path->len - part->len - 1);
    return true;
}

/* Walks down to the container that the path's last part belongs to, or to the one where the way
 * down ends because a part is missing: its type, or why there is none. */
static enum gw_json_type walk_path(struct gw_slice text, struct gw_slice path, struct container *k)
{
    for (;;) {
        *k = (struct container){0};
        bool more = next_part(&path, &k->part);
        enum gw_json_type type = walk_text(text, k);
        if (!more || type < GW_JSON_ARRAY)
            return type;
        if (!k->found.ptr) {
            k->below = path;
            return type;
        }
        text = k->found;
    }
}

struct gw_json_field gw_json_find(struct gw_slice text, struct gw_slice path)
{
    struct gw_json_field field = {GW_JSON_INVALID, {NULL, 0}};
    struct container k;
    if (path.len == 0) {
        if (read_whole(text, &field.value))
            field.type = type_of(field.value);
        else
            field.value = (struct gw_slice){0};
        return field;
    }
    field.type = walk_path(text, path, &k);
    if (field.type < GW_JSON_ARRAY)
        return field;
    field.value = k.found;
    field.type = type_of(k.found);
    return field;
}

/* The bytes of text from its start to p, and from p to its end. */
static void put_before(struct gw_slice text, const char *p, struct gw_buf *out)
{
    gw_buf_append(out, text.ptr, (size_t)(p - text.ptr));
}

static void put_behind(struct gw_slice text, const char *p, struct gw_buf *out)
{
    gw_buf_append(out, p, (size_t)(text.ptr + text.len - p));
}

static void put_replaced(struct gw_slice text, const struct container *k, struct gw_slice value,
                         struct gw_buf *out)
{
    put_before(text, k->found.ptr, out);
    gw_buf_add(out, value);
    put_behind(text, k->found.ptr + k->found.len, out);
}

static void put_key(struct gw_slice key, struct gw_buf *out)
{
    gw_json_quote(key, out);
    gw_buf_append(out, ":", 1);
}

/* A new member, in as many new objects as the path has parts left. */
static void put_added(struct gw_slice text, const struct container *k, struct gw_slice value,
                      struct gw_buf *out)
{
    struct gw_slice path = k->below, part;
    size_t objects = 0;
    put_before(text, k->last, out);
    if (k->count)
        gw_buf_append(out, ",", 1);
    if (k->object)
        put_key(k->part, out);
    for (bool more = path.ptr != NULL; more; objects++) {
        more = next_part(&path, &part);
        gw_buf_append(out, "{", 1);
        put_key(part, out);
    }
    gw_buf_add(out, value);
    while (objects--)
        gw_buf_append(out, "}", 1);
    put_behind(text, k->last, out);
}

/* A key that was there twice goes twice. */
static void put_removed(struct gw_slice text, const struct container *k, struct gw_buf *out)
{
    struct cursor again = {k->open, k->close + 1, 0};
    struct container rest = {.part = k->part, .keep = out};
    put_before(text, k->first, out);
    size_t before = gw_buf_len(out);
    GW_CHECK(walk(&again, &rest));
    put_behind(text, gw_buf_len(out) > before ? k->last : k->close, out);
}

enum gw_err gw_json_edit(struct gw_slice text, struct gw_slice path, struct gw_slice value,
                         struct gw_buf *out)
{
    struct container k;
    struct gw_slice inner;
    if (path.len == 0 || (value.ptr && !read_whole(value, &inner)))
        return GW_ERR_BAD_REQUEST;
    enum gw_json_type type = walk_path(text, path, &k);
    bool there = type >= GW_JSON_ARRAY && k.found.ptr;
    if (type == GW_JSON_INVALID)
        return GW_ERR_BAD_REQUEST;
    if (value.ptr && there)
        put_replaced(text, &k, inner, out);
    else if (value.ptr &&
             (type == GW_JSON_OBJECT || (type == GW_JSON_ARRAY && index_is(k.count, k.part))))
        put_added(text, &k, inner, out);
    else if (value.ptr)
        return GW_ERR_BAD_REQUEST;
    else if (there)
        put_removed(text, &k, out);
    else
        gw_buf_add(out, text);
    return GW_OK;
}

size_t gw_json_unquote(struct gw_slice value, char *out)
{
    const char *p = value.ptr + 1, *end = value.ptr + value.len - 1;
    size_t n = 0;
    while (p < end) {
        char text[4];
        size_t len = decode(&p, end, text);
        memcpy(out + n, text, len);
        n += len;
    }
    return n;
}

/* The letter of a short escape, 0 where there is none. */
static char short_escape(char byte)
{
    switch (byte) {
    case '"':
    case '\\':
        return byte;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 0;
    }
}

static size_t put_escape(char byte, char *out)
{
    static const char hex[] = "0123456789abcdef";
    char letter = short_escape(byte);
    out[0] = '\\';
    if (letter) {
        out[1] = letter;
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = hex[(unsigned char)byte >> 4];
    out[5] = hex[byte & 15];
    return 6;
}

size_t gw_json_escape(struct gw_slice text, char *out)
{
    const char *p = text.ptr, *end = p + text.len;
    char *start = out;
    while (p < end) {
        const char *stop = gw_json_plain_end(p, end);
        const char *del = memchr(p, 0x7f, (size_t)(stop - p));
        if (del)
            stop = del;
        memcpy(out, p, (size_t)(stop - p));
        out += stop - p;
        if (stop < end)
            out += put_escape(*stop++, out);
        p = stop;
    }
    return (size_t)(out - start);
}

void gw_json_quote(struct gw_slice text, struct gw_buf *out)
{
    gw_buf_append(out, "\"", 1);
    while (text.len) {
        size_t n = text.len < GW_JSON_PIECE ? text.len : GW_JSON_PIECE, room;
        char *to = gw_buf_reserve(out, n * GW_JSON_ESCAPE_MAX, &room);
        gw_buf_commit(out, gw_json_escape(gw_slice_of(text.ptr, n), to));
        text = gw_slice_of(text.ptr + n, text.len - n);
    }
    gw_buf_append(out, "\"", 1);
}
