/* One whole event: its fields as views of its bytes, and the way back to bytes (HTML standard,
 * 9.2.6). Everything passes: unknown fields, comments, many data lines. Nothing is allocated. */
#ifndef GW_SSE_EVENT_H
#define GW_SSE_EVENT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

/* OTHER: lines that mean nothing to a browser: unknown names, an id with a NUL, a retry that is not
 * all digits. They are kept as they are. */
enum gw_event_set {
    GW_EVENT_TYPE = 1,
    GW_EVENT_ID = 2,
    GW_EVENT_DATA = 4,
    GW_EVENT_RETRY = 8,
    GW_EVENT_COMMENT = 16,
    GW_EVENT_OTHER = 32
};

/* Views of `raw`, or of text the one who changes it keeps alive until it is written. */
struct gw_event {
    struct gw_slice raw;  /* the bytes as they came, terminator included; a BOM is not in it */
    bool parsed;          /* the members below are filled (lazily, by gw_event_parse) */
    unsigned has;         /* which fields are there: bits of gw_event_set */
    unsigned changed;     /* which were set or removed since: bits of gw_event_set */
    struct gw_slice type; /* last `event` field; empty value = "message" to a browser */
    struct gw_slice id;   /* last `id` field (one with a NUL is ignored, as the standard says) */
    struct gw_slice data; /* with one data line: its value; with several the first one's value, or
                             all of the text that was set. See data_lines and gw_event_data_copy */
    unsigned data_lines;
    uint64_t retry_ms;       /* last `retry` field; digits only, held at UINT64_MAX */
    struct gw_slice comment; /* value of the first comment line, or all of the text that was set */
};

/* A new event over these bytes, a block of the scanner; nothing is looked at yet. Empty for an
 * event that is made here. Of a lone LF in front (gw_sse_scan_skip_lf) nothing is seen. */
void gw_event_init(struct gw_event *event, struct gw_slice raw);
/* Fills the members; cheap to call again. */
void gw_event_parse(struct gw_event *event);
/* Length of data with its lines joined by LF; 0 without data. */
size_t gw_event_data_len(struct gw_event *event);
/* Writes the joined data to out, which has room for gw_event_data_len bytes. */
void gw_event_data_copy(struct gw_event *event, char *out);
/* The joined comment lines, in the same two steps. One space behind the colon is not part of one.
 */
size_t gw_event_comment_len(struct gw_event *event);
void gw_event_comment_copy(struct gw_event *event, char *out);

/* Changes. value.ptr NULL removes the field. GW_ERR_BAD_REQUEST, and no change, where the value
 * can't be said in a stream: CR, LF or NUL in type and id. The types "" and "message" are what a
 * browser takes when there is none, and remove the field. data and comment are split at LF, CR and
 * CRLF when they are written. The text must live until the event is written. */
enum gw_err gw_event_set_type(struct gw_event *event, struct gw_slice value);
enum gw_err gw_event_set_id(struct gw_event *event, struct gw_slice value);
enum gw_err gw_event_set_data(struct gw_event *event, struct gw_slice value);
enum gw_err gw_event_set_comment(struct gw_event *event, struct gw_slice value);
/* The same for data that is known to have no line break. */
void gw_event_set_data_line(struct gw_event *event, struct gw_slice value);
void gw_event_set_retry(struct gw_event *event, bool present, uint64_t retry_ms);

/* Appends the event to out: `raw` when nothing was changed, else comments, event, id, retry, data
 * and the other lines in their order, lines ending in LF, and the blank line; nothing for a changed
 * event that has nothing left. */
void gw_event_write(const struct gw_event *event, struct gw_buf *out);
/* True when there is more in a block than comments and blank lines. */
bool gw_event_has_fields(struct gw_slice raw);
/* True for a block that is a blank line and nothing else; looks at raw only. */
bool gw_event_is_blank(const struct gw_event *event);

#endif
