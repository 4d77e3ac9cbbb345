/* Request targets (RFC 9112, section 3.2; RFC 3986). */
#ifndef GW_HTTP_TARGET_H
#define GW_HTTP_TARGET_H

#include "base/arena.h"
#include "base/err.h"
#include "base/slice.h"

/* Splits an origin-form, absolute-form or asterisk-form target: *authority is set for
 * absolute-form, *path is path and query as received ("/" where an absolute form has neither, "*"
 * for OPTIONS; where it has a query only, *path starts with '?' and the caller puts the '/').
 * GW_ERR_BAD_REQUEST for controls, spaces, raw non-ASCII, fragments, authority-form, or what is
 * none of these. */
enum gw_err gw_target_split(struct gw_slice method, struct gw_slice target,
                            struct gw_slice *authority, struct gw_slice *path);
/* 1*5DIGIT up to 65535. */
bool gw_port_read(struct gw_slice text, unsigned *port);
/* A Host value or an authority: host of RFC 3986 with an optional port; not empty. */
bool gw_authority_ok(struct gw_slice authority);
/* Of one that is ok: its host without brackets, and its port; 0 where it has none. */
unsigned gw_authority_split(struct gw_slice authority, struct gw_slice *host);
/* Value of `name` in a query string, percent-decoded and with '+' as space, in the arena; the first
 * one counts. ptr NULL when there is none. */
struct gw_slice gw_query_get(struct gw_arena *arena, struct gw_slice query, struct gw_slice name);
/* Percent-decodes into the arena; plus: '+' is a space. Broken escapes stay as they are. */
struct gw_slice gw_percent_decode(struct gw_arena *arena, struct gw_slice text, bool plus);

#endif
