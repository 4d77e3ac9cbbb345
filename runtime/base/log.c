/* Owns the log's sink and the making of its lines; everybody logs through it. A line is built on
 * the caller's stack and written by one call, so that lines of several processes never mix.
 * Invariant: TAIL bytes of a line are never taken by fields, so that it can always be closed. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/check.h"

enum { TAIL = 24 }; /* a closing quote, ,"cut":true and }, newline */

static struct {
    enum gw_log_level level;
    enum gw_log_format format;
    int fd;
    const char *name;
    char path[PATH_MAX];
} sink = {.level = GW_LOG_INFO, .fd = STDERR_FILENO, .name = "main"};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

static void use_fd(int fd)
{
    if (sink.fd != STDERR_FILENO)
        close(sink.fd);
    sink.fd = fd;
}

bool gw_log_setup(enum gw_log_level level, enum gw_log_format format, const char *path)
{
    int fd = STDERR_FILENO;
    if (path && strlen(path) >= sizeof sink.path) {
        errno = ENAMETOOLONG;
        return false;
    }
    if (path && (fd = open_file(path)) < 0)
        return false;
    use_fd(fd);
    snprintf(sink.path, sizeof sink.path, "%s", path ? path : "");
    sink.level = level;
    sink.format = format;
    return true;
}

void gw_log_reopen(void)
{
    if (!sink.path[0])
        return;
    int fd = open_file(sink.path);
    if (fd < 0)
        gw_log(GW_LOG_ERROR, "can't reopen the log: %s", strerror(errno));
    else
        use_fd(fd);
}

void gw_log_name(const char *name)
{
    sink.name = name;
}

bool gw_log_enabled(enum gw_log_level level)
{
    return level >= sink.level;
}

/* Puts all of it or nothing; what comes after something that did not fit is left out as well. */
static bool put(struct gw_log_line *line, const char *bytes, size_t n)
{
    if (line->cut || line->len + n > sizeof line->text - TAIL) {
        line->cut = true;
        return false;
    }
    memcpy(line->text + line->len, bytes, n);
    line->len += n;
    return true;
}

static void put_str(struct gw_log_line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* Only into TAIL: quotes and braces that must not be missing. */
static void put_closing(struct gw_log_line *line, const char *text)
{
    size_t n = strlen(text);
    GW_DEBUG_CHECK(line->len + n <= sizeof line->text);
    memcpy(line->text + line->len, text, n);
    line->len += n;
}

static bool is_continuation(unsigned char byte)
{
    return (byte & 0xc0) == 0x80;
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629, section 4); 0 when it is not one. */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80)
        return 1;
    if (left < 2 || p[0] < 0xc2 || p[0] > 0xf4 || !is_continuation(p[1]))
        return 0;
    if (p[0] < 0xe0)
        return 2;
    if (left < 3 || !is_continuation(p[2]))
        return 0;
    if (p[0] < 0xf0)
        return (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ? 0 : 3;
    if (left < 4 || !is_continuation(p[3]))
        return 0;
    return (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f) ? 0 : 4;
}

/* What can move a terminal's cursor or break a line: C0, DEL, C1 (RFC 3629 form: C2 80..9F). */
static bool is_control(const unsigned char *p, size_t n)
{
    return n == 1 ? p[0] < 0x20 || p[0] == 0x7f : n == 2 && p[0] == 0xc2 && p[1] < 0xa0;
}

static bool put_invalid(struct gw_log_line *line, unsigned char byte)
{
    char text[8];
    if (sink.format == GW_LOG_JSON)
        return put(line, "\\ufffd", 6);
    snprintf(text, sizeof text, "\\x%02x", byte);
    return put(line, text, 4);
}

static bool put_control(struct gw_log_line *line, const unsigned char *p, size_t n)
{
    static const char named[] = "\nn\rr\tt";
    char text[8];
    for (const char *c = named; n == 1 && *c; c += 2)
        if (*c == (char)p[0])
            return put(line, (char[]){'\\', c[1]}, 2);
    if (sink.format == GW_LOG_TEXT && n == 1)
        return put_invalid(line, p[0]);
    snprintf(text, sizeof text, "\\u%04x", n == 1 ? p[0] : p[1]);
    return put(line, text, 6);
}

static void put_escaped(struct gw_log_line *line, struct gw_slice value)
{
    const unsigned char *p = (const unsigned char *)value.ptr;
    bool fits = true;
    for (size_t i = 0, n = 1; fits && i < value.len; i += n ? n : 1) {
        n = utf8_len(p + i, value.len - i);
        if (n == 0)
            fits = put_invalid(line, p[i]);
        else if (is_control(p + i, n))
            fits = put_control(line, p + i, n);
        else if (p[i] == '"' || p[i] == '\\')
            fits = put(line, (char[]){'\\', (char)p[i]}, 2);
        else
            fits = put(line, (const char *)p + i, n);
    }
}

/* A value of logfmt goes without quotes when nothing in it could end it or needs an escape. */
static bool is_bare(struct gw_slice value)
{
    const unsigned char *p = (const unsigned char *)value.ptr;
    for (size_t i = 0, n; i < value.len; i += n) {
        n = utf8_len(p + i, value.len - i);
        if (n == 0 || is_control(p + i, n) || strchr(" =\"\\", p[i]))
            return false;
    }
    return value.len > 0;
}

static void put_value(struct gw_log_line *line, struct gw_slice value)
{
    if (sink.format == GW_LOG_TEXT && is_bare(value)) {
        put_escaped(line, value);
    } else if (put(line, "\"", 1)) {
        put_escaped(line, value);
        put_closing(line, "\"");
    }
}

/* The separator and the key as one piece with room for the shortest value behind it. */
static bool put_key(struct gw_log_line *line, const char *key)
{
    char text[72];
    size_t n = 0;
    bool json = sink.format == GW_LOG_JSON;
    text[n++] = json ? ',' : ' ';
    if (json)
        text[n++] = '"';
    for (const char *c = *key ? key : "_"; *c && n < sizeof text - 2; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || *c == '.' || *c == '-';
        text[n++] = plain ? *c : '_';
    }
    if (json)
        text[n++] = '"';
    text[n++] = json ? ':' : '=';
    if (line->len + n + 2 > sizeof line->text - TAIL)
        line->cut = true;
    return put(line, text, n);
}

/* The wall clock as ISO 8601 in UTC; the part down to the second is made once per second. */
static const char *timestamp(void)
{
    static _Thread_local char text[32];
    static _Thread_local time_t made = -1;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != made) {
        struct tm tm;
        gmtime_r(&now.tv_sec, &tm);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
        made = now.tv_sec;
    }
    snprintf(text + 19, sizeof text - 19, ".%03dZ", (int)(now.tv_nsec / 1000000));
    return text;
}

void gw_log_begin(struct gw_log_line *line, enum gw_log_level level, const char *msg)
{
    line->live = gw_log_enabled(level);
    line->cut = false;
    line->len = 0;
    if (!line->live)
        return;
    bool json = sink.format == GW_LOG_JSON;
    put_str(line, json ? "{\"ts\":\"" : "ts=");
    put_str(line, timestamp());
    if (json)
        put_str(line, "\"");
    gw_log_cstr(line, "level", level_names[level]);
    gw_log_cstr(line, "proc", sink.name);
    gw_log_cstr(line, "msg", msg);
}

void gw_log_str(struct gw_log_line *line, const char *key, struct gw_slice value)
{
    if (line->live && put_key(line, key))
        put_value(line, value);
}

void gw_log_cstr(struct gw_log_line *line, const char *key, const char *value)
{
    gw_log_str(line, key, gw_slice_str(value));
}

static void put_number(struct gw_log_line *line, const char *key, const char *number)
{
    if (line->len + strlen(key) + strlen(number) + 4 > sizeof line->text - TAIL)
        line->cut = true;
    else if (put_key(line, key))
        put_str(line, number);
}

void gw_log_int(struct gw_log_line *line, const char *key, int64_t value)
{
    char text[24];
    if (!line->live)
        return;
    snprintf(text, sizeof text, "%lld", (long long)value);
    put_number(line, key, text);
}

void gw_log_float(struct gw_log_line *line, const char *key, double value)
{
    char text[32];
    if (!line->live)
        return;
    if (!isfinite(value))
        snprintf(text, sizeof text, "null"); /* JSON has no word for these */
    else
        snprintf(text, sizeof text, "%.10g", value);
    put_number(line, key, text);
}

void gw_log_end(struct gw_log_line *line)
{
    if (!line->live)
        return;
    line->live = false;
    bool json = sink.format == GW_LOG_JSON;
    if (line->cut)
        put_closing(line, json ? ",\"cut\":true" : " cut=true");
    put_closing(line, json ? "}\n" : "\n");
    ssize_t done;
    do
        done = write(sink.fd, line->text, line->len);
    while (done < 0 && errno == EINTR);
}

void gw_log(enum gw_log_level level, const char *fmt, ...)
{
    struct gw_log_line line;
    char msg[2048];
    va_list args;
    if (!gw_log_enabled(level))
        return;
    va_start(args, fmt);
    vsnprintf(msg, sizeof msg, fmt, args);
    va_end(args);
    gw_log_begin(&line, level, msg);
    gw_log_end(&line);
}
