/* HTTP/1 requests as a test origin reads them: strictly, and without any I/O of its own. */
#ifndef TEST_SERVERS_COMMON_HTTP_H
#define TEST_SERVERS_COMMON_HTTP_H

#include "common.h"

#define TS_MAX_HEAD   (128 * 1024)
#define TS_MAX_FIELDS 512
#define TS_MAX_PARAMS 64
#define TS_BODY_KEPT  (64 * 1024)

struct ts_pair {
    const char *name, *value;
};

/* A request head. The strings live in `text` and `query_text`, until ts_request_fini. */
struct ts_request {
    const char *method, *target, *version;
    char *path; /* decoded, without the query */
    int minor;
    size_t fields_len, params_len;
    struct ts_pair *fields; /* in the order they came */
    struct ts_pair *params; /* decoded */
    bool keep_alive, chunked, expect_continue;
    uint64_t content_length;
    char *text, *query_text;
};

/* Reads one head from the front of the bytes. Returns how many bytes it took, 0 when more are
 * needed, or the negative status to refuse with. Heads are strict: CRLF, one SP, no folding. */
ssize_t ts_request_parse(struct ts_request *req, const char *bytes, size_t n);
const char *ts_request_field(const struct ts_request *req, const char *name);
const char *ts_request_param(const struct ts_request *req, const char *name);
void ts_request_fini(struct ts_request *req);

enum ts_body_state {
    TS_BODY_DONE,
    TS_BODY_LENGTH,
    TS_BODY_SIZE,
    TS_BODY_CHUNK,
    TS_BODY_CRLF,
    TS_BODY_TRAILER,
};

/* Takes a request's body off the wire; remembers its first TS_BODY_KEPT bytes and a checksum. */
struct ts_body {
    enum ts_body_state state;
    uint64_t left, total, fnv1a;
    struct ts_buf kept;
};

void ts_body_init(struct ts_body *body, const struct ts_request *req);
/* Returns how many bytes it took (the rest waits for more), or -1 when the framing is wrong. */
ssize_t ts_body_feed(struct ts_body *body, const char *bytes, size_t n);
void ts_body_fini(struct ts_body *body);

#endif
