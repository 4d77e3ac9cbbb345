/* The fields of a head: look up, change, check (RFC 9110, section 5). Names are lower case inside a
 * head; arguments may be in any case. */
#ifndef GW_HTTP_FIELDS_H
#define GW_HTTP_FIELDS_H

#include "http/head.h"

/* The first field of that name, or NULL. */
const struct gw_field *gw_fields_find(const struct gw_head *head, struct gw_slice name);
/* The first value, or the empty slice with ptr NULL. */
struct gw_slice gw_fields_get(const struct gw_head *head, struct gw_slice name);
bool gw_fields_has(const struct gw_head *head, struct gw_slice name);
/* All values joined by ", " (in the arena where there are several); ptr NULL when there is none. */
struct gw_slice gw_fields_joined(struct gw_head *head, struct gw_slice name);
/* Adds one more; name and value are copied. The caller has checked them (below). */
void gw_fields_add(struct gw_head *head, struct gw_slice name, struct gw_slice value);
/* Like add, without copying; name is lower case. For codecs whose text is in the arena already. */
void gw_fields_add_view(struct gw_head *head, struct gw_slice name, struct gw_slice value);
/* Replaces all of that name by one. */
void gw_fields_set(struct gw_head *head, struct gw_slice name, struct gw_slice value);
/* Adds it only when there is none of that name. */
void gw_fields_default(struct gw_head *head, struct gw_slice name, struct gw_slice value);
/* Returns how many were removed. */
unsigned gw_fields_remove(struct gw_head *head, struct gw_slice name);
/* Appends to a comma-separated field, or adds it (Via, X-Forwarded-For). */
void gw_fields_append(struct gw_head *head, struct gw_slice name, struct gw_slice value);

/* RFC 9110, 5.6.2: a token, not empty. */
bool gw_field_name_ok(struct gw_slice name);
/* RFC 9110, 5.5: no CR, LF, NUL nor other controls but HTAB. */
bool gw_field_value_ok(struct gw_slice value);
/* A field that a codec owns (content-length, transfer-encoding, connection, …): hooks may not set
 * it, and it is never forwarded. */
bool gw_field_is_framing(struct gw_slice name);
/* Whether `name` begins as `start` does for servers that read names as variables (CGI, WSGI), which
 * take '_' for '-'. Both in lower case. */
bool gw_field_passes_for(struct gw_slice name, struct gw_slice start);

/* Walks a comma-separated list (RFC 9110, 5.6.1): takes the next element, trimmed and not empty,
 * from *rest. False at the end. Quoted strings are respected. */
bool gw_list_next(struct gw_slice *rest, struct gw_slice *element);
/* True when the comma-separated fields of that name have that token, in any case. */
bool gw_fields_have_token(const struct gw_head *head, struct gw_slice name, struct gw_slice token);
/* The media type of Content-Type: "text/event-stream" of "text/event-stream; charset=utf-8". */
struct gw_slice gw_fields_media_type(const struct gw_head *head);

#endif
