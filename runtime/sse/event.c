/* Owns nothing: a gw_event is views of a block, or of texts of whoever changed it. Called by the
 * relay and the event object of scripts. Invariant: while `changed` is 0 an event is its raw bytes;
 * a change parses first, so that what was not changed can be written again. */
#include "sse/event.h"
#include "sse/line.h"

/* The kind of a field by its name. */
static enum gw_event_set kind_of(const char *name, size_t len)
{
    switch (len) {
    case 0:
        return GW_EVENT_COMMENT;
    case 2:
        return memcmp(name, "id", 2) == 0 ? GW_EVENT_ID : GW_EVENT_OTHER;
    case 4:
        return memcmp(name, "data", 4) == 0 ? GW_EVENT_DATA : GW_EVENT_OTHER;
    case 5:
        if (memcmp(name, "event", 5) == 0)
            return GW_EVENT_TYPE;
        return memcmp(name, "retry", 5) == 0 ? GW_EVENT_RETRY : GW_EVENT_OTHER;
    default:
        return GW_EVENT_OTHER;
    }
}

/* Splits a line that is not blank into kind and value. Names that mean something are short, so most
 * of a line is never searched for its colon. */
static enum gw_event_set read_line(struct gw_slice line, struct gw_slice *value)
{
    size_t name = 0, most = line.len < 6 ? line.len : 6;
    while (name < most && line.ptr[name] != ':')
        name++;
    size_t skip = name + (name < line.len);
    if (skip < line.len && line.ptr[skip] == ' ')
        skip++;
    *value = gw_slice_of(line.ptr + skip, line.len - skip);
    return kind_of(line.ptr, name);
}

/* False for what is not all digits. */
static bool read_digits(struct gw_slice text, uint64_t *number)
{
    uint64_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(text.ptr[i] - '0');
        n = n > (UINT64_MAX - digit) / 10 ? UINT64_MAX : n * 10 + digit;
    }
    *number = n;
    return text.len > 0;
}

/* What a line that is not blank means, and its value. */
static unsigned interpret(struct gw_slice line, struct gw_slice *value)
{
    unsigned kind = read_line(line, value);
    uint64_t number;
    if (kind == GW_EVENT_ID && value->len && memchr(value->ptr, '\0', value->len))
        return GW_EVENT_OTHER;
    if (kind == GW_EVENT_RETRY && !read_digits(*value, &number))
        return GW_EVENT_OTHER;
    return kind;
}

/* The next line of a block that is not blank; 0 at the end. The LF of a CRLF ends one more blank
 * line: nobody minds. */
static unsigned next_line(struct gw_slice *rest, struct gw_slice *line, struct gw_slice *value)
{
    const char *p = rest->ptr, *end = p + rest->len;
    while (p < end && (*p == '\n' || *p == '\r'))
        p++;
    if (p == end)
        return 0;
    const char *stop = gw_sse_line_end(p, end);
    *line = gw_slice_of(p, (size_t)(stop - p));
    *rest = gw_slice_of(stop, (size_t)(end - stop));
    return interpret(*line, value);
}

static void take_field(struct gw_event *event, unsigned kind, struct gw_slice value)
{
    switch (kind) {
    case GW_EVENT_DATA:
        if (event->data_lines++ == 0)
            event->data = value;
        break;
    case GW_EVENT_TYPE:
        event->type = value;
        break;
    case GW_EVENT_ID:
        event->id = value;
        break;
    case GW_EVENT_RETRY:
        (void)read_digits(value, &event->retry_ms);
        break;
    case GW_EVENT_COMMENT:
        if (!(event->has & GW_EVENT_COMMENT))
            event->comment = value;
        break;
    default:
        break;
    }
    event->has |= kind;
}

void gw_event_init(struct gw_event *event, struct gw_slice raw)
{
    *event = (struct gw_event){.raw = raw};
}

void gw_event_parse(struct gw_event *event)
{
    if (event->parsed)
        return;
    event->parsed = true;
    struct gw_slice rest = event->raw, line, value;
    unsigned kind;
    while ((kind = next_line(&rest, &line, &value)))
        take_field(event, kind, value);
}

/* The lines of data or of comments, one by one: from the block, or from a text that was set. */
struct lines {
    struct gw_slice rest, line;
    unsigned kind;
    bool of_text, done;
};

static struct lines lines_of(const struct gw_event *event, unsigned kind)
{
    struct lines lines = {.kind = kind, .of_text = event->changed & kind};
    lines.rest = event->raw;
    if (lines.of_text)
        lines.rest = kind == GW_EVENT_DATA ? event->data : event->comment;
    lines.done = !(event->has & kind);
    return lines;
}

static bool next_of(struct lines *lines, struct gw_slice *value)
{
    if (lines->done)
        return false;
    if (lines->of_text) {
        lines->done = !gw_sse_line_cut(&lines->rest, value);
        return true;
    }
    unsigned kind;
    while ((kind = next_line(&lines->rest, &lines->line, value)))
        if (kind == lines->kind)
            return true;
    return false;
}

static size_t joined_len(const struct gw_event *event, unsigned kind)
{
    struct lines lines = lines_of(event, kind);
    struct gw_slice value;
    size_t len = 0;
    while (next_of(&lines, &value))
        len += value.len + 1;
    return len ? len - 1 : 0;
}

static void joined_copy(const struct gw_event *event, unsigned kind, char *out)
{
    struct lines lines = lines_of(event, kind);
    struct gw_slice value;
    for (bool first = true; next_of(&lines, &value); first = false) {
        if (!first)
            *out++ = '\n';
        if (value.len)
            memcpy(out, value.ptr, value.len);
        out += value.len;
    }
}

size_t gw_event_data_len(struct gw_event *event)
{
    gw_event_parse(event);
    return event->data_lines <= 1 ? event->data.len : joined_len(event, GW_EVENT_DATA);
}

void gw_event_data_copy(struct gw_event *event, char *out)
{
    gw_event_parse(event);
    joined_copy(event, GW_EVENT_DATA, out);
}

size_t gw_event_comment_len(struct gw_event *event)
{
    gw_event_parse(event);
    return joined_len(event, GW_EVENT_COMMENT);
}

void gw_event_comment_copy(struct gw_event *event, char *out)
{
    gw_event_parse(event);
    joined_copy(event, GW_EVENT_COMMENT, out);
}

static void change(struct gw_event *event, unsigned kind, bool present)
{
    gw_event_parse(event);
    event->changed |= kind;
    event->has = present ? event->has | kind : event->has & ~kind;
}

static bool fits_line(struct gw_slice value)
{
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] == '\n' || value.ptr[i] == '\r' || value.ptr[i] == '\0')
            return false;
    return true;
}

enum gw_err gw_event_set_type(struct gw_event *event, struct gw_slice value)
{
    if (!fits_line(value))
        return GW_ERR_BAD_REQUEST;
    if (value.len == 0 || gw_slice_eq(value, GW_SLICE("message")))
        value = (struct gw_slice){0};
    change(event, GW_EVENT_TYPE, value.ptr != NULL);
    event->type = value;
    return GW_OK;
}

enum gw_err gw_event_set_id(struct gw_event *event, struct gw_slice value)
{
    if (!fits_line(value))
        return GW_ERR_BAD_REQUEST;
    change(event, GW_EVENT_ID, value.ptr != NULL);
    event->id = value;
    return GW_OK;
}

enum gw_err gw_event_set_data(struct gw_event *event, struct gw_slice value)
{
    change(event, GW_EVENT_DATA, value.ptr != NULL);
    event->data = value;
    event->data_lines = 0;
    struct gw_slice line;
    for (bool more = value.ptr != NULL; more; event->data_lines++)
        more = gw_sse_line_cut(&value, &line);
    return GW_OK;
}

void gw_event_set_data_line(struct gw_event *event, struct gw_slice value)
{
    change(event, GW_EVENT_DATA, true);
    event->data = value;
    event->data_lines = 1;
}

enum gw_err gw_event_set_comment(struct gw_event *event, struct gw_slice value)
{
    change(event, GW_EVENT_COMMENT, value.ptr != NULL);
    event->comment = value;
    return GW_OK;
}

void gw_event_set_retry(struct gw_event *event, bool present, uint64_t retry_ms)
{
    change(event, GW_EVENT_RETRY, present);
    event->retry_ms = present ? retry_ms : 0;
}

static void put_line(struct gw_buf *out, struct gw_slice prefix, struct gw_slice value)
{
    gw_buf_add(out, prefix);
    gw_buf_add(out, value);
    gw_buf_append(out, "\n", 1);
}

/* Lines of the block that stay as they are, but for what ended them. */
static void put_kept(const struct gw_event *event, unsigned kept, struct gw_buf *out)
{
    struct gw_slice rest = event->raw, line, value;
    unsigned kind;
    while ((kind = next_line(&rest, &line, &value))) {
        if (kind != kept)
            continue;
        gw_buf_add(out, line);
        gw_buf_append(out, "\n", 1);
    }
}

static void put_lines(const struct gw_event *event, unsigned kind, struct gw_slice prefix,
                      struct gw_buf *out)
{
    struct lines lines = lines_of(event, kind);
    struct gw_slice value;
    while (next_of(&lines, &value))
        put_line(out, prefix, value);
}

void gw_event_write(const struct gw_event *event, struct gw_buf *out)
{
    if (!event->changed) {
        gw_buf_add(out, event->raw);
        return;
    }
    if (!event->has)
        return;
    if (event->changed & GW_EVENT_COMMENT)
        put_lines(event, GW_EVENT_COMMENT, GW_SLICE(": "), out);
    else if (event->has & GW_EVENT_COMMENT)
        put_kept(event, GW_EVENT_COMMENT, out);
    if (event->has & GW_EVENT_TYPE)
        put_line(out, GW_SLICE("event: "), event->type);
    if (event->has & GW_EVENT_ID)
        put_line(out, GW_SLICE("id: "), event->id);
    if (event->has & GW_EVENT_RETRY)
        gw_buf_printf(out, "retry: %llu\n", (unsigned long long)event->retry_ms);
    if (event->data_lines == 1 && event->has & GW_EVENT_DATA)
        put_line(out, GW_SLICE("data: "), event->data);
    else
        put_lines(event, GW_EVENT_DATA, GW_SLICE("data: "), out);
    if (event->has & GW_EVENT_OTHER)
        put_kept(event, GW_EVENT_OTHER, out);
    gw_buf_append(out, "\n", 1);
}

bool gw_event_has_fields(struct gw_slice raw)
{
    const char *p = raw.ptr, *end = p + raw.len;
    while (p < end && (*p == '\n' || *p == '\r' || *p == ':'))
        p = *p == ':' ? gw_sse_line_end(p, end) : p + 1;
    return p < end;
}

bool gw_event_is_blank(const struct gw_event *event)
{
    for (size_t i = 0; i < event->raw.len; i++)
        if (event->raw.ptr[i] != '\n' && event->raw.ptr[i] != '\r')
            return false;
    return true;
}
