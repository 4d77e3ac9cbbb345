/* The bytes of one event stream (or of /bytes), as the query of a request orders them: which
 * events, with what endings, cut into which pieces, and where it dies. No I/O, no framing. */
#ifndef TEST_SERVERS_COMMON_EVENTS_H
#define TEST_SERVERS_COMMON_EVENTS_H

#include "common_http.h"

#define TS_NONE UINT64_MAX

enum ts_kind { TS_TURNS, TS_NOTIFICATIONS, TS_PLAIN, TS_BYTES };

/* What the query may set; the names are the parameters' names (see README.md). */
struct ts_options {
    uint64_t size, count, start, until, pause, firstdelay, die, die_event, length, retry, n;
    uint64_t splitall, reset, bom, plain, json, diechunk;
    double rate;
    char *type, *types, *comment, *field, *eol, *ids, *split;
};

struct ts_source {
    enum ts_kind kind;
    struct ts_options opt;
    const char *server; /* borrowed */
    char *user, *last_event_id;
    uint64_t *splits;
    size_t splits_len, splits_next;
    uint64_t sent, next_id;
    uint64_t pos, die_at; /* in bytes of the stream */
    struct ts_buf pend;   /* made, and taken up to pend_off */
    size_t pend_off;
    unsigned eol_turn;
    bool prefaced; /* what stands before the first event was made */
    bool ended;    /* all events were made and taken */
    bool dead;     /* the byte to die at was reached */
};

/* Prepares a source from a request. Returns NULL, or the name of the parameter that is wrong;
 * ts_source_fini is due in both cases. user may be NULL. */
const char *ts_source_init(struct ts_source *src, enum ts_kind kind, const char *server,
                           const char *user, const struct ts_request *req);
void ts_source_fini(struct ts_source *src);

/* True when bytes wait to be taken: makes the preface, and the next event if one is due
 * (*due is then set to false). False with `ended` when there will be no more. */
bool ts_source_fill(struct ts_source *src, bool *due);

/* Takes the next piece, up to the next place to split or to die at. *announced is the length that
 * a chunk's head should tell: longer than *n when the stream dies within. */
const char *ts_source_take(struct ts_source *src, size_t *n, size_t *announced);
/* Whether a pause is wanted after what was taken last. */
bool ts_source_at_split(const struct ts_source *src);
/* The length of the whole stream in bytes; 0 when it has no bound. */
uint64_t ts_source_length(const struct ts_source *src);
/* Whether the client has all events already (Last-Event-ID is at or past `until`). */
bool ts_source_is_spent(const struct ts_source *src);

#endif
