/* A small strict reader of HTTP/1 messages that shares nothing with the gateway's: what it does not
 * understand at once is bad. */
#ifndef FUZZ_SUPPORT_READER_H
#define FUZZ_SUPPORT_READER_H

#include "support/fuzz.h"

enum reader_result {
    READER_OK,   /* a whole message */
    READER_MORE, /* the beginning of one; `body` is what is there of its body */
    READER_BAD
};

struct reader_message {
    struct gw_slice method, target; /* request */
    unsigned status, minor;
    struct gw_slice fields; /* lines, each with its CRLF */
    bool head_done;
    bool chunked, until_end;
    int64_t length; /* Content-Length, or -1 */
    struct fuzz_text body;
    size_t size; /* bytes of the whole message */
    const char *why;
};

/* The message at the front of bytes. The caller frees body. */
enum reader_result reader_request(struct gw_slice bytes, struct reader_message *out);
/* no_body: it answers a HEAD; end: no more bytes will come. */
enum reader_result reader_response(struct gw_slice bytes, bool no_body, bool end,
                                   struct reader_message *out);
/* The n-th value of that lower-case name, from 0; ptr NULL when there is none. */
struct gw_slice reader_field(const struct reader_message *message, const char *name, unsigned n);
/* A chunked body at the front of bytes: appends what it says to body, and sets *size. */
enum reader_result reader_chunked(struct gw_slice bytes, struct fuzz_text *body, size_t *size,
                                  const char **why);

#endif
