/* Owns one byte of state per stream. Called by the relay for each piece of an event stream.
 * Invariant: the state depends on the bytes alone and not on how they were cut into calls; the
 * vector code only skips over the inside of lines, where no byte but CR and LF changes the state.
 */
#include "sse/scan.h"
#include "sse/line.h"

/* CLOSED and OPEN are starts of lines: outside of an event, and inside of one because a field was
 * seen. _CR: the last byte was a CR, and an LF would still belong to it. LINE is a line of an
 * event, COMMENT is one outside of any. */
enum { START, BOM_1, BOM_2, CLOSED, CLOSED_CR, COMMENT, OPEN, OPEN_CR, LINE, STATES };

/* This byte ended a block. */
#define END 0x80

enum { OTHER, LF, CR, COLON, MARK_1, MARK_2, MARK_3, CLASSES };

static const uint8_t class_of[256] = {
    ['\n'] = LF, ['\r'] = CR, [':'] = COLON, [0xef] = MARK_1, [0xbb] = MARK_2, [0xbf] = MARK_3,
};

/* What looks like a BOM and is none begins a field's name. */
/* clang-format off */
static const uint8_t next_state[STATES][CLASSES] = {
    /*               OTHER    LF            CR               COLON    EF       BB       BF */
    [START]     = { LINE,    CLOSED | END, CLOSED_CR | END, COMMENT, BOM_1,   LINE,    LINE },
    [BOM_1]     = { LINE,    OPEN,         OPEN_CR,         LINE,    LINE,    BOM_2,   LINE },
    [BOM_2]     = { LINE,    OPEN,         OPEN_CR,         LINE,    LINE,    LINE,    CLOSED },
    [CLOSED]    = { LINE,    CLOSED | END, CLOSED_CR | END, COMMENT, LINE,    LINE,    LINE },
    [CLOSED_CR] = { LINE,    CLOSED,       CLOSED_CR | END, COMMENT, LINE,    LINE,    LINE },
    [COMMENT]   = { COMMENT, CLOSED,       CLOSED_CR,       COMMENT, COMMENT, COMMENT, COMMENT },
    [OPEN]      = { LINE,    CLOSED | END, CLOSED_CR | END, LINE,    LINE,    LINE,    LINE },
    [OPEN_CR]   = { LINE,    OPEN,         CLOSED_CR | END, LINE,    LINE,    LINE,    LINE },
    [LINE]      = { LINE,    OPEN,         OPEN_CR,         LINE,    LINE,    LINE,    LINE },
};
/* clang-format on */

/* Eats one byte that is there; returns whether it ended a block. */
static inline bool eat(uint8_t *state, const char *p)
{
    uint8_t next = next_state[*state][class_of[(unsigned char)*p]];
    *state = next & (uint8_t)~END;
    return next & END;
}

static inline bool inside_line(uint8_t state)
{
    return state == LINE || state == COMMENT;
}

/* Goes on to the byte behind the next blank line's terminator, or to end. */
static inline const char *find_block_end(uint8_t *state, const char *p, const char *end,
                                         bool vector, bool *ended)
{
    *ended = false;
    while (p < end && !*ended) {
        if (vector && inside_line(*state)) {
            p = gw_sse_line_end(p, end);
            if (p == end)
                break;
        }
        *ended = eat(state, p++);
    }
    if (*ended && *state == CLOSED_CR && p < end && *p == '\n')
        eat(state, p++);
    return p;
}

void gw_sse_scan_init(struct gw_sse_scan *scan)
{
    scan->state = START;
}

size_t gw_sse_scan_next(struct gw_sse_scan *scan, const char *bytes, size_t len, bool *ended)
{
    uint8_t state = scan->state;
    const char *p = find_block_end(&state, bytes, bytes + len, true, ended);
    scan->state = state;
    return (size_t)(p - bytes);
}

size_t gw_sse_scan_next_bytewise(struct gw_sse_scan *scan, const char *bytes, size_t len,
                                 bool *ended)
{
    uint8_t state = scan->state;
    const char *p = find_block_end(&state, bytes, bytes + len, false, ended);
    scan->state = state;
    return (size_t)(p - bytes);
}

size_t gw_sse_scan_skip_lf(struct gw_sse_scan *scan, const char *bytes, size_t len)
{
    if (scan->state != CLOSED_CR || len == 0)
        return 0;
    scan->state = CLOSED;
    return bytes[0] == '\n';
}

size_t gw_sse_scan_last(struct gw_sse_scan *scan, const char *bytes, size_t len)
{
    const char *p = bytes, *end = bytes + len, *last = bytes;
    uint8_t state = scan->state;
    while (p < end) {
        if (inside_line(state)) {
            p = gw_sse_line_end(p, end);
            if (p == end)
                break;
        }
        eat(&state, p++);
        if (state == CLOSED || state == CLOSED_CR)
            last = p;
    }
    scan->state = state;
    return (size_t)(last - bytes);
}

void gw_sse_scan_run(struct gw_sse_scan *scan, const char *bytes, size_t len)
{
    (void)gw_sse_scan_last(scan, bytes, len);
}

bool gw_sse_scan_at_boundary(const struct gw_sse_scan *scan)
{
    return scan->state == START || scan->state == CLOSED || scan->state == CLOSED_CR;
}

bool gw_sse_scan_buf(struct gw_sse_scan *scan, const struct gw_buf *buf, uint32_t *scanned)
{
    size_t base = 0;
    for (const struct gw_chunk *c = buf->head; c; c = c->next) {
        size_t len = c->end - c->start;
        if (base + len > *scanned) {
            size_t skip = *scanned - base;
            bool ended = false;
            *scanned +=
                (uint32_t)gw_sse_scan_next(scan, c->data + c->start + skip, len - skip, &ended);
            if (ended)
                return true;
        }
        base += len;
    }
    return false;
}

bool gw_sse_scan_in_event(const struct gw_sse_scan *scan)
{
    return scan->state == OPEN || scan->state == OPEN_CR || scan->state == LINE;
}
