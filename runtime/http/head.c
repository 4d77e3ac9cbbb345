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

static void copy_fields(struct gw_head *dst, const struct gw_head *src)
{
    dst->fields = src->count ? gw_arena_alloc(dst->arena, src->count * sizeof(*src->fields)) : NULL;
    dst->count = dst->cap = src->count;
    for (unsigned i = 0; i < src->count; i++) {
        dst->fields[i].name = gw_arena_copy(dst->arena, src->fields[i].name);
        dst->fields[i].value = gw_arena_copy(dst->arena, src->fields[i].value);
    }
}

void gw_head_copy(struct gw_head *dst, const struct gw_head *src)
{
    struct gw_arena *arena = dst->arena;

    *dst = *src;
    dst->arena = arena;
    dst->method = gw_arena_copy(arena, src->method);
    dst->scheme = gw_arena_copy(arena, src->scheme);
    dst->authority = gw_arena_copy(arena, src->authority);
    dst->path = gw_arena_copy(arena, src->path);
    dst->upgrade_to = gw_arena_copy(arena, src->upgrade_to);
    copy_fields(dst, src);
}

/* What a copied text takes: with its NUL, rounded up. */
static size_t text_size(struct gw_slice text)
{
    return (text.len + 8) & ~(size_t)7;
}

static size_t packed_size(const struct gw_head *head)
{
    size_t size = sizeof(*head) + 8 + head->count * sizeof(*head->fields) +
                  text_size(head->method) + text_size(head->scheme) + text_size(head->authority) +
                  text_size(head->path) + text_size(head->upgrade_to);
    for (unsigned i = 0; i < head->count; i++)
        size += text_size(head->fields[i].name) + text_size(head->fields[i].value);
    return size;
}

struct gw_head *gw_head_pack(struct gw_arena *arena, const struct gw_head *src)
{
    gw_arena_init_sized(arena, packed_size(src));
    struct gw_head *copy = gw_arena_alloc(arena, sizeof(*copy));
    gw_head_init(copy, arena);
    gw_head_copy(copy, src);
    return copy;
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
