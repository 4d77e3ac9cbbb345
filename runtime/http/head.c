/* Heads of messages: set up, copy, take apart; reason phrases and the Date field. Used by codecs
 * and by everything that looks at a head. Invariant: all text of a head lives in its arena or
 * longer. */
#include "http/head.h"

#include <stdio.h>
#include <time.h>

void gw_head_init(struct gw_head *head, struct gw_arena *arena)
{
    memset(head, 0, sizeof(*head));
    head->arena = arena;
    head->minor = 1;
}

/* Packed: this, the length where it is known, and then each text. */
struct packed {
    uint16_t status, count;
    bool has_body : 1, expect_continue : 1, upgrade : 1, old_minor : 1, has_length : 1;
};

enum { TEXTS = 5 };

static const struct gw_slice *text_of(const struct gw_head *head, unsigned i)
{
    const struct gw_slice *texts[TEXTS] = {&head->method, &head->scheme, &head->authority,
                                           &head->path, &head->upgrade_to};
    if (i < TEXTS)
        return texts[i];
    const struct gw_field *field = &head->fields[(i - TEXTS) / 2];
    return (i - TEXTS) % 2 ? &field->value : &field->name;
}

/* Texts that most heads have, by length: packed they are their number. */
/* clang-format off */
static const char *const common[] = {
    "*", "no", "?0", "*/*", "GET", "date", "http", "vary", "cors", "POST", "https", "empty",
    "accept", "cookie", "origin", "server", "pragma", "referer", "no-cache", "no-store",
    "keep-alive", "user-agent", "same-origin", "content-type", "x-request-id", "authorization",
    "cache-control", "last-event-id", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site",
    "accept-encoding", "accept-language", "x-forwarded-for", "text/event-stream",
    "x-accel-buffering", "gzip, deflate, br", "access-control-allow-origin",
    "access-control-allow-credentials",
};
/* clang-format on */

enum {
    COMMON = sizeof(common) / sizeof(common[0]),
    COMMON_LEN = 32,
    LONG = UINT8_MAX,     /* the length is in the next four bytes */
    FIRST = LONG - COMMON /* from here on it is one of these texts, below a length */
};

/* FIRST + its place in the list, or 0. */
static uint8_t common_number(struct gw_slice text)
{
    static uint8_t start[COMMON_LEN + 1]; /* where those of a length begin, plus one */

    if (!start[1])
        for (unsigned i = COMMON; i-- > 0;)
            start[strlen(common[i])] = (uint8_t)(i + 1);
    if (text.len > COMMON_LEN || !start[text.len])
        return 0;
    for (unsigned i = start[text.len] - 1u; i < COMMON && !common[i][text.len]; i++)
        if (memcmp(common[i], text.ptr, text.len) == 0)
            return (uint8_t)(FIRST + i);
    return 0;
}

static unsigned text_count(const struct gw_head *head)
{
    return TEXTS + 2 * head->count;
}

static size_t packed_text_size(struct gw_slice text)
{
    if (common_number(text))
        return 1;
    return text.len < FIRST ? 1 + text.len : 1 + sizeof(uint32_t) + text.len;
}

size_t gw_head_packed_size(const struct gw_head *head)
{
    size_t size = sizeof(struct packed) + (head->length >= 0 ? sizeof(head->length) : 0);

    for (unsigned i = 0; i < text_count(head); i++)
        size += packed_text_size(*text_of(head, i));
    return size;
}

static char *pack_text(char *out, struct gw_slice text)
{
    uint32_t len = (uint32_t)text.len;
    uint8_t number = common_number(text);

    if (number) {
        *out++ = (char)number;
        return out;
    }
    *out++ = (char)(len < FIRST ? len : LONG);
    if (len >= FIRST) {
        memcpy(out, &len, sizeof(len));
        out += sizeof(len);
    }
    if (len)
        memcpy(out, text.ptr, len);
    return out + len;
}

void gw_head_pack(const struct gw_head *head, char *out)
{
    struct packed packed = {
        .status = (uint16_t)head->status,
        .count = head->count,
        .has_body = head->has_body,
        .expect_continue = head->expect_continue,
        .upgrade = head->upgrade,
        .old_minor = head->minor == 0,
        .has_length = head->length >= 0,
    };

    memcpy(out, &packed, sizeof(packed));
    out += sizeof(packed);
    if (packed.has_length) {
        memcpy(out, &head->length, sizeof(head->length));
        out += sizeof(head->length);
    }
    for (unsigned i = 0; i < text_count(head); i++)
        out = pack_text(out, *text_of(head, i));
}

static const char *unpack_text(struct gw_arena *arena, const char *in, struct gw_slice *text)
{
    uint32_t len = (unsigned char)*in++;

    if (len >= FIRST && len < LONG) {
        *text = gw_slice_str(common[len - FIRST]);
        return in;
    }
    if (len == LONG) {
        memcpy(&len, in, sizeof(len));
        in += sizeof(len);
    }
    *text = gw_arena_copy(arena, gw_slice_of(in, len));
    return in + len;
}

void gw_head_unpack(struct gw_head *dst, const char *in)
{
    struct packed packed;

    memcpy(&packed, in, sizeof(packed));
    in += sizeof(packed);
    dst->status = packed.status;
    dst->minor = packed.old_minor ? 0 : 1;
    dst->has_body = packed.has_body;
    dst->expect_continue = packed.expect_continue;
    dst->upgrade = packed.upgrade;
    dst->length = GW_LENGTH_UNKNOWN;
    if (packed.has_length) {
        memcpy(&dst->length, in, sizeof(dst->length));
        in += sizeof(dst->length);
    }
    dst->count = dst->cap = packed.count;
    dst->fields = gw_arena_alloc(dst->arena, packed.count * sizeof(*dst->fields));
    for (unsigned i = 0; i < text_count(dst); i++) {
        struct gw_slice *text = (struct gw_slice *)(uintptr_t)text_of(dst, i);
        in = unpack_text(dst->arena, in, text);
    }
}

struct gw_slice gw_head_path(const struct gw_head *head)
{
    const char *mark = head->path.len ? memchr(head->path.ptr, '?', head->path.len) : NULL;

    return mark ? gw_slice_of(head->path.ptr, (size_t)(mark - head->path.ptr)) : head->path;
}

struct gw_slice gw_head_query(const struct gw_head *head)
{
    size_t path = gw_head_path(head).len;

    if (path == head->path.len)
        return gw_slice_of(NULL, 0);
    return gw_slice_of(head->path.ptr + path + 1, head->path.len - path - 1);
}

static const struct {
    unsigned short status;
    const char *reason;
} reasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {102, "Processing"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {207, "Multi-Status"},
    {208, "Already Reported"},
    {226, "IM Used"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {305, "Use Proxy"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {423, "Locked"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {506, "Variant Also Negotiates"},
    {507, "Insufficient Storage"},
    {508, "Loop Detected"},
    {511, "Network Authentication Required"},
};

const char *gw_status_reason(unsigned status)
{
    size_t low = 0, high = sizeof(reasons) / sizeof(*reasons);

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (reasons[middle].status == status)
            return reasons[middle].reason;
        if (reasons[middle].status < status)
            low = middle + 1;
        else
            high = middle;
    }
    return "";
}

/* By hand: strftime would follow the process's locale. */
static int format_date(char *out, size_t cap, time_t now)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm;

    gmtime_r(&now, &tm);
    return snprintf(out, cap, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday,
                    tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
                    tm.tm_sec);
}

struct gw_slice gw_http_date(void)
{
    static char text[64];
    static size_t len;
    static time_t made;
    time_t now = time(NULL);

    if (now != made || len == 0) {
        len = (size_t)format_date(text, sizeof(text), now);
        made = now;
    }
    return gw_slice_of(text, len);
}

bool gw_method_is_safe(struct gw_slice method)
{
    return gw_slice_eq(method, GW_SLICE("GET")) || gw_slice_eq(method, GW_SLICE("HEAD")) ||
           gw_slice_eq(method, GW_SLICE("OPTIONS"));
}

bool gw_method_is_idempotent(struct gw_slice method)
{
    return gw_method_is_safe(method) || gw_slice_eq(method, GW_SLICE("PUT")) ||
           gw_slice_eq(method, GW_SLICE("DELETE"));
}
