/* Checks event streams for the load generator: the sequence of ids, the content, the latency from
 * the time of sending that stands in the data. Invariant: `carry` never holds a whole event. */
#include "events.h"

#include <stdlib.h>
#include <string.h>

/* One event; slices of the bytes that were read. */
struct event {
    uint64_t id;
    const char *data;
    size_t data_len;
};

static bool read_number(const char **at, const char *end, uint64_t *out)
{
    const char *from = *at;

    for (*out = 0; *at < end && **at >= '0' && **at <= '9'; (*at)++)
        *out = *out * 10 + (uint64_t)(**at - '0');
    return *at > from;
}

static bool is_padding(const char *bytes, size_t n)
{
    return n == 0 || (*bytes == 'x' && memcmp(bytes, bytes + 1, n - 1) == 0);
}

/* "N T xxx": number, time, padding. */
static bool read_plain(const struct event *event, uint64_t *number, uint64_t *sent_us)
{
    const char *at = event->data, *end = at + event->data_len;

    if (!read_number(&at, end, number) || at == end || *at++ != ' ' ||
        !read_number(&at, end, sent_us))
        return false;
    return at == end || (*at == ' ' && is_padding(at + 1, (size_t)(end - at - 1)));
}

static const char *find_field(const struct event *event, const char *name)
{
    const char *at = memmem(event->data, event->data_len, name, strlen(name));

    return at ? at + strlen(name) : NULL;
}

/* The same in JSON, in any order: "n", "t" (a string) and "pad". */
static bool read_json(const struct event *event, uint64_t *number, uint64_t *sent_us)
{
    const char *end = event->data + event->data_len;
    const char *n = find_field(event, "\"n\":"), *t = find_field(event, "\"t\":\"");
    const char *pad = find_field(event, "\"pad\":\"");
    const char *close = pad ? memchr(pad, '"', (size_t)(end - pad)) : NULL;

    if (!n || !t || (pad && (!close || !is_padding(pad, (size_t)(close - pad)))))
        return false;
    return end[-1] == '}' && read_number(&n, end, number) && read_number(&t, end, sent_us);
}

static bool check_content(const struct event *event, const struct events_rules *rules,
                          uint64_t *sent_us)
{
    uint64_t number;

    if (event->data_len == 0 || (rules->size && event->data_len != rules->size))
        return false;
    bool good = *event->data == '{' ? read_json(event, &number, sent_us)
                                    : read_plain(event, &number, sent_us);
    return good && number == event->id && (!rules->want || find_field(event, rules->want));
}

static void check_sequence(struct events *e, const struct events_rules *rules, struct tally *tally,
                           uint64_t id)
{
    uint64_t expected = e->next ? e->next : rules->first;

    if (id >= expected) {
        tally->lost += (id - expected) / rules->step;
        tally->disordered += (id - expected) % rules->step != 0;
        e->next = id + rules->step;
    } else if (id + rules->step == expected) {
        tally->doubled++;
    } else {
        tally->disordered++;
    }
}

static void take_event(struct events *e, const struct events_rules *rules, struct tally *tally,
                       const struct event *event, uint64_t now_us)
{
    uint64_t sent_us = 0;

    if (!check_content(event, rules, &sent_us)) {
        tally->malformed++;
        return;
    }
    check_sequence(e, rules, tally, event->id);
    if (!tally->measuring)
        return;
    e->window++;
    if (e->silent)
        return;
    tally->units++;
    hist_add(&tally->latency, now_us > sent_us ? now_us - sent_us : 0);
}

/* One line that is not empty. Returns false for what no contender should have put there. */
static bool read_line(struct event *event, const char *line, size_t n)
{
    if (n > 4 && memcmp(line, "id: ", 4) == 0) {
        const char *at = line + 4;
        return read_number(&at, line + n, &event->id) && at == line + n;
    }
    if (n > 6 && memcmp(line, "data: ", 6) == 0 && !event->data) {
        event->data = line + 6;
        event->data_len = n - 6;
        return true;
    }
    return *line == ':' || (n > 7 && memcmp(line, "event: ", 7) == 0);
}

static bool is_comment_only(const struct event *event)
{
    return event->id == 0 && !event->data;
}

/* Takes all whole events; returns where the incomplete one begins. */
static char *take_events(struct events *e, const struct events_rules *rules, struct tally *tally,
                         char *at, const char *end, uint64_t now_us)
{
    struct event event = {0};
    char *from = at, *lf;

    for (; (lf = memchr(at, '\n', (size_t)(end - at))); at = lf + 1) {
        if (lf > at) {
            tally->malformed += !read_line(&event, at, (size_t)(lf - at));
            continue;
        }
        if (!is_comment_only(&event))
            take_event(e, rules, tally, &event, now_us);
        event = (struct event){0};
        from = lf + 1;
    }
    return from;
}

static void keep(struct events *e, const char *bytes, size_t n)
{
    char *carry = n > 0 ? realloc(e->carry, n) : NULL;

    if (n == 0)
        free(e->carry);
    else if (!carry)
        abort();
    else
        memcpy(carry, bytes, n);
    e->carry = carry;
    e->carry_len = n;
}

void events_feed(struct events *e, const struct events_rules *rules, struct tally *tally,
                 char *bytes, size_t n, uint64_t now_us)
{
    const char *end = bytes + n;

    if (tally->measuring)
        tally->bytes += n;
    if (e->carry_len > 0) {
        bytes -= e->carry_len;
        memcpy(bytes, e->carry, e->carry_len);
    }
    char *rest = take_events(e, rules, tally, bytes, end, now_us);
    if (rest < end || e->carry_len > 0)
        keep(e, rest, (size_t)(end - rest));
}

void events_fini(struct events *e)
{
    free(e->carry);
    *e = (struct events){0};
}
