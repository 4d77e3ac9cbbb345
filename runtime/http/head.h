/* The head of one HTTP message, in the same shape whichever version it came in or goes out by.
 * Framing and connection fields are facts here and not fields: a codec takes Content-Length,
 * Transfer-Encoding, Connection, Keep-Alive, Proxy-Connection, TE, Trailer, Upgrade and everything
 * that Connection names out of the fields it receives, and writes what its own framing needs. Host
 * is taken out too: it is `authority`, from which a codec writes it. */
#ifndef GW_HTTP_HEAD_H
#define GW_HTTP_HEAD_H

#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/err.h"
#include "base/slice.h"

enum { GW_LENGTH_UNKNOWN = -1 };

struct gw_field {
    struct gw_slice name; /* lower case */
    struct gw_slice value;
};

struct gw_head {
    struct gw_arena *arena;     /* holds all the text and the fields; not owned */
    struct gw_slice method;     /* request */
    struct gw_slice scheme;     /* "http" or "https" */
    struct gw_slice authority;  /* Host, or the authority of an absolute target */
    struct gw_slice path;       /* request target as received: path and query, "*" for OPTIONS * */
    unsigned status;            /* response */
    unsigned minor;             /* HTTP/1.minor as received; codecs send their own version */
    int64_t length;             /* bytes of body, or GW_LENGTH_UNKNOWN */
    bool has_body;              /* false: none at all (also HEAD, 204, 304, 1xx) */
    bool expect_continue;       /* request: Expect: 100-continue (taken out of the fields) */
    bool upgrade;               /* Connection: upgrade was there (its Upgrade field is taken out) */
    struct gw_slice upgrade_to; /* value of the Upgrade field */
    struct gw_field *fields;
    uint16_t count, cap;
};

/* An empty head; text goes into arena. */
void gw_head_init(struct gw_head *head, struct gw_arena *arena);
/* A head as few bytes, for those that stay for long: their number; writes them to out, which has
 * room for that many; and the way back. Unpacked text lies in dst's arena (dst was initialised). */
size_t gw_head_packed_size(const struct gw_head *head);
void gw_head_pack(const struct gw_head *head, char *out);
void gw_head_unpack(struct gw_head *dst, const char *packed);
/* "/path" and "query" (without the question mark; ptr NULL when there is none). */
struct gw_slice gw_head_path(const struct gw_head *head);
struct gw_slice gw_head_query(const struct gw_head *head);
/* "OK" for 200; "" for a status without a registered phrase (RFC 9110, section 15). */
const char *gw_status_reason(unsigned status);
/* Now as an IMF-fixdate (RFC 9110, section 5.6.7) for Date; made once per second, valid until the
 * next call. */
struct gw_slice gw_http_date(void);
/* RFC 9110, 9.2.1 and 9.2.2: asking twice does no harm because nothing is changed, or because twice
 * is as good as once. */
bool gw_method_is_safe(struct gw_slice method);
bool gw_method_is_idempotent(struct gw_slice method);
static inline bool gw_head_informational(const struct gw_head *head)
{
    return head->status >= 100 && head->status < 200;
}

#endif
