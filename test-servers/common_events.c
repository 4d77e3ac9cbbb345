/* common_events: makes the events of one stream for sse_server, byte by byte as a test orders them.
 * Used by sse_server's streams only. Invariant: the same options give the same number of bytes
 * whenever they are asked for, so that a length can be announced before. */
#include "common_events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MEASURE_MAX                                                                                \
    (64u << 20) /* a stream of announced length is made twice; not more than this                  \
                 */

static const char *eol_of(struct ts_source *src, bool empty_line)
{
    static const char *const ends[] = {"\n", "\r\n", "\r"};
    const char *eol = src->opt.eol;

    if (!eol || strcmp(eol, "lf") == 0)
        return "\n";
    if (strcmp(eol, "crlf") == 0)
        return "\r\n";
    if (strcmp(eol, "cr") == 0)
        return "\r";
    const char *end = ends[src->eol_turn++ % 3];
    /* A line feed right after a CR would belong to it, and the empty line would be lost. */
    bool after_cr = src->pend.len > 0 && src->pend.data[src->pend.len - 1] == '\r';
    return empty_line && after_cr && *end == '\n' ? "\r\n" : end;
}

static void put_line(struct ts_source *src, const char *name, const char *value, size_t n)
{
    ts_buf_puts(&src->pend, name);
    ts_buf_puts(&src->pend, ": ");
    ts_buf_append(&src->pend, value, n);
    ts_buf_puts(&src->pend, eol_of(src, false));
}

static void put_text(struct ts_source *src, const char *name, const char *value)
{
    put_line(src, name, value, strlen(value));
}

static void put_blank(struct ts_source *src)
{
    ts_buf_puts(&src->pend, eol_of(src, true));
}

static void put_number(struct ts_source *src, const char *name, uint64_t value)
{
    char digits[24];

    put_line(src, name, digits, (size_t)snprintf(digits, sizeof digits, "%lu", value));
}

static uint64_t wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* One of `types=a,b,…`: they go round with the number of the event. */
static void put_type_in_turn(struct ts_source *src)
{
    const char *at = src->opt.types, *comma;
    uint64_t count = 1, turn;

    for (comma = at; (comma = strchr(comma, ',')); comma++)
        count++;
    for (turn = src->next_id % count; turn > 0; turn--)
        at = strchr(at, ',') + 1;
    put_line(src, "event", at, strcspn(at, ","));
}

/* The fields that stand in front of the data of any event but `connected`. */
static void put_fields(struct ts_source *src, const char *type, bool has_id)
{
    const struct ts_options *opt = &src->opt;

    if (opt->comment)
        put_text(src, "", opt->comment);
    if (opt->type)
        type = opt->type;
    if (opt->types)
        put_type_in_turn(src);
    else if (type && *type)
        put_text(src, "event", type);
    if (opt->ids)
        has_id = strcmp(opt->ids, "1") == 0;
    if (has_id)
        put_number(src, "id", src->next_id++);
    if (opt->field) {
        ts_buf_puts(&src->pend, opt->field);
        ts_buf_puts(&src->pend, eol_of(src, false));
    }
}

static void json_open(const struct ts_source *src, struct ts_buf *json)
{
    ts_buf_puts(json, "{\"server\":");
    ts_buf_json(json, src->server, strlen(src->server));
    if (src->user) {
        ts_buf_puts(json, ",\"user\":");
        ts_buf_json(json, src->user, strlen(src->user));
    }
}

/* One line of JSON data, filled up to the size that was asked for. */
static void put_json_data(struct ts_source *src, const char *kind)
{
    static const char open[] = ",\"pad\":\"";
    struct ts_buf json = {0};

    json_open(src, &json);
    ts_buf_printf(&json, ",\"kind\":\"%s\",\"n\":%lu,\"time\":%lu", kind, src->sent, wall_ms());
    if (json.len + sizeof open + 2 <= src->opt.size) {
        ts_buf_puts(&json, open);
        ts_buf_fill(&json, 'x', src->opt.size - json.len - 2);
        ts_buf_puts(&json, "\"");
    }
    ts_buf_puts(&json, "}");
    put_line(src, "data", json.data, json.len);
    ts_buf_fini(&json);
}

/* JSON over several data lines: whoever drops the line feeds between them breaks nothing, but
 * whoever drops a line does. */
static void put_status_data(struct ts_source *src)
{
    struct ts_buf line = {0};

    put_text(src, "data", "{");
    ts_buf_puts(&line, "  \"server\": ");
    ts_buf_json(&line, src->server, strlen(src->server));
    ts_buf_puts(&line, ",");
    put_line(src, "data", line.data, line.len);
    put_text(src, "data", "  \"kind\": \"status\",");
    line.len = 0;
    ts_buf_printf(&line, "  \"n\": %lu, \"time\": %lu", src->sent, wall_ms());
    put_line(src, "data", line.data, line.len);
    put_text(src, "data", "}");
    ts_buf_fini(&line);
}

static void put_turn(struct ts_source *src)
{
    switch (src->sent % 3) {
    case 1:
        put_fields(src, NULL, false);
        put_json_data(src, "message");
        break;
    case 2:
        put_fields(src, "tick", true);
        put_json_data(src, "tick");
        break;
    default:
        put_fields(src, "status", false);
        put_status_data(src);
    }
}

/* The time has a fixed width, so that the length does not depend on the clock. */
static void put_plain_text(struct ts_buf *data, uint64_t number, uint64_t size)
{
    ts_buf_printf(data, "%lu %016lu", number, ts_now_us());
    if (data->len + 1 >= size)
        return;
    ts_buf_puts(data, " ");
    ts_buf_fill(data, 'x', size - data->len);
}

/* The same in JSON of a usual shape, for those who change it. */
static void put_plain_json(struct ts_buf *data, uint64_t number, uint64_t size)
{
    ts_buf_printf(data, "{\"n\":%lu,\"t\":\"%016lu\",\"via\":\"origin\",", number, ts_now_us());
    ts_buf_puts(data, "\"user\":{\"name\":\"alice\",\"plan\":\"pro\"},\"tags\":[1,2.5,true]");
    if (data->len + 10 < size) {
        ts_buf_puts(data, ",\"pad\":\"");
        ts_buf_fill(data, 'x', size - data->len - 2);
        ts_buf_puts(data, "\"");
    }
    ts_buf_puts(data, "}");
}

static void put_plain(struct ts_source *src)
{
    static struct ts_buf data; /* kept: load servers make many */
    uint64_t number = src->next_id;

    put_fields(src, NULL, true);
    src->next_id = number + 1; /* the numbers go on where the id field is left out */
    data.len = 0;
    (src->opt.json ? put_plain_json : put_plain_text)(&data, number, src->opt.size);
    put_line(src, "data", data.data, data.len);
}

static void put_block(struct ts_source *src)
{
    uint64_t at = (src->sent - 1) * src->opt.size;
    uint64_t n = src->opt.n - at < src->opt.size ? src->opt.n - at : src->opt.size;

    for (uint64_t i = 0; i < n; i++) {
        char byte = (char)('a' + (at + i) % 26);
        ts_buf_append(&src->pend, &byte, 1);
    }
}

static void put_event(struct ts_source *src)
{
    switch (src->kind) {
    case TS_BYTES:
        put_block(src);
        return;
    case TS_TURNS:
        put_turn(src);
        break;
    case TS_NOTIFICATIONS:
        put_fields(src, "notification", true);
        put_json_data(src, "notification");
        break;
    case TS_PLAIN:
        put_plain(src);
        break;
    }
    put_blank(src);
}

static void put_connected(struct ts_source *src)
{
    struct ts_buf json = {0};

    json_open(src, &json);
    ts_buf_puts(&json, ",\"lastEventId\":");
    if (src->last_event_id)
        ts_buf_json(&json, src->last_event_id, strlen(src->last_event_id));
    else
        ts_buf_puts(&json, "null");
    ts_buf_puts(&json, "}");
    put_text(src, "event", "connected");
    put_line(src, "data", json.data, json.len);
    put_blank(src);
    ts_buf_fini(&json);
}

static void put_preface(struct ts_source *src)
{
    if (src->kind == TS_BYTES)
        return;
    if (src->opt.bom)
        ts_buf_puts(&src->pend, "\xEF\xBB\xBF");
    if (src->opt.retry != TS_NONE)
        put_number(src, "retry", src->opt.retry);
    if (src->kind != TS_PLAIN)
        put_connected(src);
    else if (src->opt.retry != TS_NONE)
        put_blank(src);
}

bool ts_source_fill(struct ts_source *src, bool *due)
{
    if (src->pend_off < src->pend.len)
        return true;
    src->pend.len = src->pend_off = 0;
    if (!src->prefaced) {
        src->prefaced = true;
        put_preface(src);
        if (src->pend.len > 0)
            return true;
    }
    if (src->sent == src->opt.count || src->next_id > src->opt.until) {
        src->ended = true;
        return false;
    }
    if (!*due)
        return false;
    *due = false;
    src->sent++;
    put_event(src);
    if (src->sent == src->opt.die_event)
        src->die_at = src->pos + src->pend.len / 2;
    return true;
}

static size_t piece_length(struct ts_source *src)
{
    size_t n = src->pend.len - src->pend_off;

    if (src->opt.splitall)
        return 1;
    while (src->splits_next < src->splits_len && src->splits[src->splits_next] <= src->pos)
        src->splits_next++;
    if (src->splits_next < src->splits_len && src->splits[src->splits_next] - src->pos < n)
        n = (size_t)(src->splits[src->splits_next] - src->pos);
    return n;
}

const char *ts_source_take(struct ts_source *src, size_t *n, size_t *announced)
{
    const char *bytes = src->pend.data + src->pend_off;

    *n = *announced = piece_length(src);
    if (src->die_at != TS_NONE && src->pos + *n >= src->die_at) {
        *n = src->die_at > src->pos ? (size_t)(src->die_at - src->pos) : 0;
        src->dead = true;
        if (src->opt.diechunk)
            *announced = *n;
    }
    src->pend_off += *n;
    src->pos += *n;
    return bytes;
}

bool ts_source_at_split(const struct ts_source *src)
{
    return src->opt.splitall ||
           (src->splits_next < src->splits_len && src->splits[src->splits_next] == src->pos);
}

uint64_t ts_source_length(const struct ts_source *src)
{
    struct ts_source copy = *src;
    uint64_t total = 0;
    bool due;

    if (src->kind == TS_BYTES)
        return src->opt.n;
    if (src->opt.count == TS_NONE && src->opt.until == TS_NONE)
        return 0;
    copy.pend = (struct ts_buf){0};
    while (total < MEASURE_MAX && (due = true, ts_source_fill(&copy, &due))) {
        total += copy.pend.len;
        copy.pend_off = copy.pend.len;
    }
    ts_buf_fini(&copy.pend);
    return total;
}

bool ts_source_is_spent(const struct ts_source *src)
{
    return src->opt.until != TS_NONE && src->next_id > src->opt.until;
}

enum option_type { OPTION_NUMBER, OPTION_REAL, OPTION_TEXT };

#define NUMBER(name)                                                                               \
    {                                                                                              \
#name, OPTION_NUMBER, offsetof(struct ts_options, name)                                    \
    }
#define TEXT(name)                                                                                 \
    {                                                                                              \
#name, OPTION_TEXT, offsetof(struct ts_options, name)                                      \
    }
static const struct option_spec {
    const char *name;
    enum option_type type;
    size_t offset;
} option_specs[] = {
    NUMBER(size),
    NUMBER(count),
    NUMBER(start),
    NUMBER(until),
    NUMBER(pause),
    NUMBER(die),
    NUMBER(die_event),
    NUMBER(diechunk),
    NUMBER(reset),
    NUMBER(length),
    NUMBER(retry),
    NUMBER(firstdelay),
    NUMBER(splitall),
    NUMBER(bom),
    NUMBER(plain),
    NUMBER(json),
    NUMBER(n),
    TEXT(type),
    TEXT(types),
    TEXT(comment),
    TEXT(field),
    TEXT(eol),
    TEXT(ids),
    TEXT(split),
    {"rate", OPTION_REAL, offsetof(struct ts_options, rate)},
};
#define OPTION_SPECS (sizeof option_specs / sizeof *option_specs)

static bool parse_real(const char *text, double *out)
{
    char *end;

    *out = strtod(text, &end);
    return *text && !*end && *out >= 0 && *out <= 1e6;
}

static char *copy_text(const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        abort();
    return copy;
}

static bool option_set(const struct option_spec *spec, struct ts_options *opt, const char *value)
{
    void *member = (char *)opt + spec->offset;

    switch (spec->type) {
    case OPTION_NUMBER:
        return ts_parse_u64(value, member);
    case OPTION_REAL:
        return parse_real(value, member);
    default:
        *(char **)member = copy_text(value);
        return true;
    }
}

static bool one_of(const char *value, const char *const *words)
{
    while (value && *words)
        if (strcmp(value, *words++) == 0)
            return true;
    return !value;
}

/* "3,17,200", ascending. */
static bool parse_splits(struct ts_source *src)
{
    char *rest = src->opt.split, *saved = NULL, *item;

    if (!rest)
        return true;
    src->splits = calloc(strlen(rest) + 1, sizeof *src->splits);
    if (!src->splits)
        abort();
    for (; (item = strtok_r(rest, ",", &saved)); rest = NULL) {
        size_t i = src->splits_len++;
        if (!ts_parse_u64(item, &src->splits[i]))
            return false;
        if (i > 0 && src->splits[i] <= src->splits[i - 1])
            return false;
    }
    return true;
}

static const char *parse_options(struct ts_source *src, const struct ts_request *req)
{
    static const char *const eols[] = {"lf", "cr", "crlf", "mixed", NULL};
    static const char *const bits[] = {"0", "1", NULL};

    for (size_t i = 0; i < OPTION_SPECS; i++) {
        const char *value = ts_request_param(req, option_specs[i].name);
        if (value && !option_set(&option_specs[i], &src->opt, value))
            return option_specs[i].name;
    }
    if (!one_of(src->opt.eol, eols))
        return "eol";
    if (!one_of(src->opt.ids, bits))
        return "ids";
    if (src->opt.size > MEASURE_MAX || (src->kind == TS_BYTES && src->opt.size == 0))
        return "size";
    return parse_splits(src) ? NULL : "split";
}

static void set_defaults(struct ts_source *src)
{
    struct ts_options *opt = &src->opt;
    bool is_bytes = src->kind == TS_BYTES;

    opt->count = opt->until = opt->start = TS_NONE;
    opt->die = opt->die_event = opt->length = opt->retry = TS_NONE;
    opt->pause = 1;
    opt->rate = is_bytes ? 0 : 1;
    opt->size = is_bytes ? 16 * 1024 : 0;
}

const char *ts_source_init(struct ts_source *src, enum ts_kind kind, const char *server,
                           const char *user, const struct ts_request *req)
{
    const char *last = ts_request_field(req, "last-event-id");
    uint64_t last_id;

    *src = (struct ts_source){.kind = kind, .server = server, .next_id = 1};
    set_defaults(src);
    src->user = copy_text(user);
    src->last_event_id = copy_text(last);
    const char *wrong = parse_options(src, req);
    if (wrong)
        return wrong;
    if (kind == TS_BYTES)
        src->opt.count = (src->opt.n + src->opt.size - 1) / src->opt.size;
    else if (src->opt.plain)
        src->kind = TS_PLAIN;
    src->die_at = src->opt.die;
    if (src->opt.start != TS_NONE)
        src->next_id = src->opt.start;
    if (last && ts_parse_u64(last, &last_id))
        src->next_id = last_id + 1;
    return NULL;
}

void ts_source_fini(struct ts_source *src)
{
    for (size_t i = 0; i < OPTION_SPECS; i++)
        if (option_specs[i].type == OPTION_TEXT)
            free(*(char **)(void *)((char *)&src->opt + option_specs[i].offset));
    free(src->user);
    free(src->last_event_id);
    free(src->splits);
    ts_buf_fini(&src->pend);
    *src = (struct ts_source){0};
}
