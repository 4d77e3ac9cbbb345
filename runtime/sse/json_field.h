/* One field of a JSON text (RFC 8259), found and changed in place: for hooks that look at or edit
 * one value of an event and must not pay for decoding all of it.
 *
 * A path is made of keys with dots between them: `user.name`, `items.0.id`. In an array a part is
 * an index, counted from 0. A key with a dot in it can't be named. Where an object has a key twice
 * the last one counts, as with other readers of JSON: what is found here is what the client will
 * see. The whole text is checked, so that a text which others refuse is refused here. */
#ifndef GW_SSE_JSON_FIELD_H
#define GW_SSE_JSON_FIELD_H

#include <stddef.h>
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "base/slice.h"

/* How deep arrays and objects may lie in each other. */
enum { GW_JSON_DEPTH = 128 };

enum {
    GW_JSON_ESCAPE_MAX = 6, /* bytes that one byte of a string may become */
    GW_JSON_PIECE = 256     /* escape long texts so many bytes at a time */
};

enum gw_json_type {
    GW_JSON_INVALID, /* the text is no JSON, or too deep */
    GW_JSON_ABSENT,  /* nothing there */
    GW_JSON_NULL,
    GW_JSON_FALSE,
    GW_JSON_TRUE,
    GW_JSON_NUMBER,
    GW_JSON_STRING,
    GW_JSON_ARRAY,
    GW_JSON_OBJECT
};

/* value is a view of the text, quotes or brackets included; empty where nothing was found. */
struct gw_json_field {
    enum gw_json_type type;
    struct gw_slice value;
};

/* The value at path; an empty path is the whole text. */
struct gw_json_field gw_json_find(struct gw_slice text, struct gw_slice path);

/* Appends text to out with the value at path replaced by `value`, which is JSON; all other bytes
 * stay. A key that is new is added to its object, and an index one past the end to its array;
 * objects that are missing on the way are made. With value.ptr NULL the value is taken out with its
 * key and comma; nothing to take out is no error.
 * GW_ERR_BAD_REQUEST, and nothing appended: text or value is no JSON, the value can't go there
 * (below a scalar, far behind the end of an array), or path is empty. out must not hold text, path
 * or value. */
enum gw_err gw_json_edit(struct gw_slice text, struct gw_slice path, struct gw_slice value,
                         struct gw_buf *out) GW_MUST_CHECK;

/* Decodes a found string (quotes included) to UTF-8 in out, which has room for value.len bytes;
 * returns the length. Half of a surrogate pair becomes U+FFFD. */
size_t gw_json_unquote(struct gw_slice value, char *out);
/* Writes text as the inside of a JSON string to out, which has room for GW_JSON_ESCAPE_MAX times
 * text.len; returns the length. text is UTF-8 and is not checked; DEL is escaped, as cjson does. */
size_t gw_json_escape(struct gw_slice text, char *out);
/* Appends text as a JSON string. */
void gw_json_quote(struct gw_slice text, struct gw_buf *out);

#endif
