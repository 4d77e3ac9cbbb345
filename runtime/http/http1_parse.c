/* Turns bytes into heads and pieces of bodies for http1.c. llhttp is the lexer; before it, every
 * line is looked at for what it lets through (bare CR and LF, controls, folded lines), behind it
 * http1_rules.c decides. Owns the states of messages that are read. Invariant: a head is lexed only
 * when it is there as a whole, so no state of a half-read head is kept but a position; bodies stay
 * in the chunks they were read into. */
#include "http/http1_impl.h"

#include "base/slab.h"
#include "http/fields.h"

enum {
    CHUNK_LINE_MAX = 1024,  /* size and extensions of one chunk */
    CHUNK_LINE_FREE = 16,   /* of these, what a sender of plain chunks may need */
    EXTENSIONS_MAX = 16384, /* what is beyond it, of all chunks of a request */
    FIELDS_MAX = 32768,     /* whatever the settings say: a head counts in 16 bits */
    RESTS = 8
};

/* What one call of the lexer works on. */
struct gw_h1_lex {
    struct gw_h1_stream *stream;
    struct gw_head *head; /* NULL while a body is read */
    struct gw_slice name, value;
    char *body; /* the first byte of the body in this piece */
    size_t body_len;
    const char *cursor; /* up to here the piece has been accounted for */
    bool complete;
    enum gw_err err;
};

/* States. One call works on `scratch`, which is kept as a copy only when the message goes on in the
 * next one: most heads come at once. */

static struct gw_h1_parse scratch;
static struct gw_slab parses;

void gw_h1_parse_end(struct gw_http1 *h)
{
    if (h->parse != &scratch)
        gw_slab_free(&parses, h->parse);
    h->parse = NULL;
}

static void keep_parse(struct gw_http1 *h)
{
    if (h->parse != &scratch)
        return;
    if (parses.size == 0)
        gw_slab_init(&parses, sizeof(scratch));
    h->parse = gw_slab_alloc_raw(&parses);
    *h->parse = scratch;
}

/* Where an event stream spends its life, before a chunk or between two, all lexers are alike: they
 * are in one of few states, which are kept here once. */
static struct gw_h1_parse rests[RESTS];

_Static_assert(sizeof(struct gw_h1_parse) == sizeof(llhttp_t) + sizeof(struct gw_h1_scan) + 52,
               "no holes");

/* Only what a client has of a message is all in the state: a server counts a body. */
static bool may_rest(const struct gw_http1 *h)
{
    const struct gw_h1_parse *p = h->parse;
    bool line_end = p->scan.seen == 2 && p->scan.line == GW_H1_LINE_START;

    return !h->server && !p->parser.error && p->parser.content_length == 0 &&
           !(p->parser.flags & F_TRAILING) && (p->scan.seen == 0 || line_end);
}

/* The message goes on in another call. */
static void put_by(struct gw_http1 *h)
{
    struct gw_h1_parse state = *h->parse;
    uint8_t i = 0;

    state.parser.data = NULL;
    state.body_bytes = 0;
    while (i < RESTS && rests[i].parser.settings && memcmp(&rests[i], &state, sizeof(state)) != 0)
        i++;
    if (i == RESTS || !may_rest(h)) {
        keep_parse(h);
        return;
    }
    rests[i] = state;
    h->rest = i;
    gw_h1_parse_end(h);
}

static void take_up(struct gw_http1 *h)
{
    if (h->parse)
        return;
    scratch = rests[h->rest];
    scratch.parser.data = h;
    h->parse = &scratch;
}

/* Text of a line: no controls but HTAB (RFC 9110, 5.5). */
static bool is_text(unsigned char c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

/* How many bytes of text there are at the front. */
static size_t text_length(const char *bytes, size_t len)
{
    size_t n = 0;

    while (n < len && is_text((unsigned char)bytes[n]))
        n++;
    return n;
}

enum seen { SEEN_MORE, SEEN_EMPTY_LINE, SEEN_BAD };

static enum seen look_at(struct gw_h1_scan *scan, unsigned char c)
{
    switch ((enum gw_h1_line)scan->line) {
    case GW_H1_LINE_START:
        scan->line = c == '\r' ? GW_H1_LINE_EMPTY_CR : GW_H1_LINE_TEXT;
        /* A blank here would fold the line before (RFC 9112, 5.2). */
        return c == '\r' || (is_text(c) && c != ' ' && c != '\t') ? SEEN_MORE : SEEN_BAD;
    case GW_H1_LINE_TEXT:
        if (c == '\r')
            scan->line = GW_H1_LINE_CR;
        return c == '\r' || is_text(c) ? SEEN_MORE : SEEN_BAD;
    case GW_H1_LINE_CR:
        scan->line = GW_H1_LINE_START;
        if (scan->lines++ == 0)
            scan->first_line = scan->seen;
        return c == '\n' ? SEEN_MORE : SEEN_BAD;
    case GW_H1_LINE_EMPTY_CR:
        scan->line = GW_H1_LINE_START;
        return c == '\n' ? SEEN_EMPTY_LINE : SEEN_BAD;
    }
    return SEEN_BAD;
}

/* Stops behind the first byte that is more than a part of a line. */
static enum seen look_through(struct gw_h1_scan *scan, const char *bytes, size_t len)
{
    size_t i = 0;

    while (i < len) {
        if (scan->line == GW_H1_LINE_TEXT) {
            size_t n = text_length(bytes + i, len - i);
            scan->seen += (uint32_t)n;
            i += n;
            if (i == len)
                break;
        }
        scan->seen++;
        enum seen seen = look_at(scan, (unsigned char)bytes[i++]);
        if (seen != SEEN_MORE)
            return seen;
    }
    return SEEN_MORE;
}

static enum gw_err bad(const struct gw_http1 *h)
{
    return h->server ? GW_ERR_BAD_REQUEST : GW_ERR_BAD_RESPONSE;
}

/* RFC 9112, 2.2: one empty line in front of a request is passed over. */
static bool skip_empty_line(struct gw_http1 *h)
{
    struct gw_h1_scan *scan = &h->parse->scan;

    if (!h->server || scan->lines || scan->start)
        return false;
    scan->start = scan->seen;
    return true;
}

static enum gw_err check_limits(const struct gw_http1 *h)
{
    const struct gw_http_limits *limits = gw_h1_limits(h);
    const struct gw_h1_scan *scan = &h->parse->scan;
    size_t line = scan->lines ? scan->first_line : scan->seen;

    if (scan->seen - scan->start <= limits->max_header_bytes &&
        scan->lines <= limits->max_headers + 1)
        return GW_OK;
    if (!h->server)
        return GW_ERR_BAD_RESPONSE;
    return line > limits->max_header_bytes ? GW_ERR_TARGET_TOO_LONG : GW_ERR_HEAD_TOO_LARGE;
}

static enum gw_err scan_new_bytes(struct gw_http1 *h, struct gw_h1_scan *scan)
{
    size_t skip = scan->seen;
    enum gw_err err = GW_AGAIN;

    for (struct gw_chunk *c = h->codec.conn->in.head; c && err == GW_AGAIN; c = c->next) {
        size_t len = c->end - c->start, from = skip < len ? skip : len;
        skip -= from;
        while (err == GW_AGAIN && from < len) {
            size_t before = scan->seen;
            enum seen seen = look_through(scan, c->data + c->start + from, len - from);
            from += scan->seen - before;
            if (seen == SEEN_BAD)
                err = bad(h);
            else if (seen == SEEN_EMPTY_LINE && !skip_empty_line(h))
                err = scan->lines ? GW_OK : bad(h);
        }
    }
    return err;
}

enum gw_err gw_h1_scan_head(struct gw_http1 *h)
{
    if (!h->parse) {
        scratch = (struct gw_h1_parse){0};
        h->parse = &scratch;
    }
    enum gw_err err = scan_new_bytes(h, &h->parse->scan);
    enum gw_err limit = check_limits(h); /* first, so that it does not matter how the bytes came */
    if (limit || err != GW_OK)
        keep_parse(h);
    return limit ? limit : err;
}

/* Callbacks of the lexer. They return 0, or HPE_USER with lex->err set. */

static int refuse(llhttp_t *parser, enum gw_err err)
{
    struct gw_http1 *h = parser->data;

    h->parse->lex->err = err;
    return HPE_USER;
}

static int on_field_bytes(llhttp_t *parser, const char *at, size_t len)
{
    struct gw_http1 *h = parser->data;

    struct gw_h1_parse *p = h->parse;

    if (p->lex->head) {
        struct gw_slice *name = &p->lex->name;
        *name = gw_slice_of(name->len ? name->ptr : at, name->len + len);
        return 0;
    }
    /* A trailer's name, which may come in pieces: its beginning is all that is looked at. */
    size_t room = sizeof(p->trailer) - p->trailer_len;
    if (len > room)
        len = room;
    memcpy(p->trailer + p->trailer_len, at, len);
    p->trailer_len += (unsigned)len;
    return 0;
}

static int on_value_bytes(llhttp_t *parser, const char *at, size_t len)
{
    struct gw_http1 *h = parser->data;
    struct gw_slice *value = &h->parse->lex->value;

    if (h->parse->lex->head)
        *value = gw_slice_of(value->len ? value->ptr : at, value->len + len);
    return 0;
}

static int end_trailer(llhttp_t *parser)
{
    struct gw_http1 *h = parser->data;
    struct gw_slice name = gw_slice_of(h->parse->trailer, h->parse->trailer_len);

    h->parse->trailer_len = 0;
    if (++h->parse->trailers > gw_h1_limits(h)->max_headers)
        return refuse(parser, h->server ? GW_ERR_HEAD_TOO_LARGE : GW_ERR_BAD_RESPONSE);
    return name.len && gw_h1_trailer_ok(name) ? 0 : refuse(parser, bad(h));
}

/* The text lies in the arena already, and is the codec's: names are lowered in place. */
static void lower(struct gw_slice name)
{
    char *text = (char *)(uintptr_t)name.ptr;

    for (size_t i = 0; i < name.len; i++)
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] = (char)(text[i] | 0x20);
}

static int on_field_done(llhttp_t *parser)
{
    struct gw_http1 *h = parser->data;
    struct gw_h1_lex *lex = h->parse->lex;

    if (!lex->head)
        return end_trailer(parser);
    if (!gw_field_name_ok(lex->name) || !gw_field_value_ok(lex->value))
        return refuse(parser, bad(h));
    if (lex->head->count >= gw_h1_limits(h)->max_headers || lex->head->count >= FIELDS_MAX)
        return refuse(parser, h->server ? GW_ERR_HEAD_TOO_LARGE : GW_ERR_BAD_RESPONSE);
    lower(lex->name);
    if (h->server && gw_h1_disguised(lex->name))
        return refuse(parser, bad(h));
    gw_fields_add_view(lex->head, lex->name, gw_slice_trim(lex->value));
    lex->name = lex->value = gw_slice_of("", 0);
    return 0;
}

/* 1: there is no body, whatever the lexer thinks. It is never let into its upgrade state. */
static int on_head_done(llhttp_t *parser)
{
    struct gw_http1 *h = parser->data;
    enum gw_err err = gw_h1_apply_fields(h, h->parse->lex->stream, h->parse->lex->head);

    parser->upgrade = 0;
    if (err)
        return refuse(parser, err);
    return h->parse->lex->head->has_body ? 0 : 1;
}

/* The bytes between two pieces of a chunked body: sizes, extensions, trailers. */
static enum gw_err check_gap(struct gw_http1 *h, const char *to)
{
    struct gw_h1_lex *lex = h->parse->lex;
    struct gw_h1_scan *scan = &h->parse->scan;
    bool trailing = h->parse->parser.flags & F_TRAILING;
    size_t max = trailing ? gw_h1_limits(h)->max_header_bytes : CHUNK_LINE_MAX;

    while (lex->cursor < to) {
        size_t before = scan->seen;
        if (look_through(scan, lex->cursor, (size_t)(to - lex->cursor)) == SEEN_BAD)
            return bad(h);
        lex->cursor += scan->seen - before;
    }
    if (scan->seen <= max)
        return GW_OK;
    return h->server && trailing ? GW_ERR_HEAD_TOO_LARGE : bad(h);
}

static bool body_too_large(const struct gw_http1 *h, uint64_t more)
{
    uint64_t max = h->server ? gw_h1_limits(h)->max_body_bytes : 0;

    return max && (more > max || h->parse->body_bytes > max - more);
}

static int on_chunk_size(llhttp_t *parser)
{
    struct gw_http1 *h = parser->data;

    return body_too_large(h, parser->content_length) ? refuse(parser, GW_ERR_BODY_TOO_LARGE) : 0;
}

/* Pieces of a body are moved together within the chunk they came in; the first one stays. */
static int on_body_bytes(llhttp_t *parser, const char *at, size_t len)
{
    struct gw_http1 *h = parser->data;
    struct gw_h1_lex *lex = h->parse->lex;
    enum gw_err err = check_gap(h, at);

    if (err)
        return refuse(parser, err);
    if (h->server && h->parse->scan.seen > CHUNK_LINE_FREE) {
        h->parse->extensions += h->parse->scan.seen - CHUNK_LINE_FREE;
        if (h->parse->extensions > EXTENSIONS_MAX)
            return refuse(parser, bad(h));
    }
    h->parse->scan = (struct gw_h1_scan){0};
    lex->cursor = at + len;
    h->parse->body_bytes += len;
    if (!lex->body)
        lex->body = (char *)(uintptr_t)at;
    else if (lex->body + lex->body_len != at)
        memmove(lex->body + lex->body_len, at, len);
    lex->body_len += len;
    return 0;
}

static int on_message_done(llhttp_t *parser)
{
    struct gw_http1 *h = parser->data;

    h->parse->lex->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_header_field = on_field_bytes,
    .on_header_value = on_value_bytes,
    .on_header_value_complete = on_field_done,
    .on_headers_complete = on_head_done,
    .on_chunk_header = on_chunk_size,
    .on_body = on_body_bytes,
    .on_message_complete = on_message_done,
};

/* The lexer's error as ours; GW_OK for its pause behind a complete message. */
static enum gw_err translate(const struct gw_http1 *h, llhttp_errno_t code)
{
    const struct gw_h1_lex *lex = h->parse->lex;

    if (lex->err)
        return lex->err;
    if (code == HPE_OK || (code == HPE_PAUSED && lex->complete))
        return GW_OK;
    /* The request line was well formed, so it is the list of methods that has ended; methods of
     * other protocols fail at the version. */
    if (h->server && lex->head && (code == HPE_INVALID_METHOD || code == HPE_INVALID_CONSTANT))
        return GW_ERR_NOT_IMPLEMENTED;
    return bad(h);
}

static enum gw_err lex_head(struct gw_http1 *h, struct gw_h1_lex *lex, const char *text, size_t len)
{
    struct gw_h1_parse *p = h->parse;

    llhttp_init(&p->parser, h->server ? HTTP_REQUEST : HTTP_RESPONSE, &callbacks);
    p->parser.data = h;
    p->lex = lex;
    enum gw_err err = translate(h, llhttp_execute(&p->parser, text, len));
    p->lex = NULL;
    return err;
}

/* Takes the text of the head out of conn->in into the arena. */
static struct gw_slice take_head(struct gw_http1 *h, struct gw_arena *arena)
{
    struct gw_buf *in = &h->codec.conn->in;
    struct gw_h1_scan *scan = &h->parse->scan;
    size_t len = scan->seen - scan->start;
    char *text = gw_arena_alloc(arena, len);

    gw_buf_copy_out(in, scan->start, text, len);
    gw_buf_consume(in, scan->seen);
    *h->parse = (struct gw_h1_parse){0};
    return gw_slice_of(text, len);
}

/* Tabs at the end of a line are blanks that mean nothing (RFC 9110, 5.5), but the lexer knows only
 * spaces behind a length or a coding. */
static void blank_last_tabs(char *text, size_t len)
{
    for (char *at = memchr(text, '\t', len); at; at = memchr(at, '\t', len - (size_t)(at - text))) {
        size_t n = strspn(at, " \t"); /* a head ends in CRLF */
        if (at[n] == '\r')
            memset(at, ' ', n);
        at += n;
    }
}

enum gw_err gw_h1_read_head(struct gw_http1 *h, struct gw_h1_stream *s, struct gw_head **head)
{
    struct gw_arena *arena = &s->base.arena;
    struct gw_slice text = take_head(h, arena);
    char *line = (char *)(uintptr_t)text.ptr; /* the codec's own copy */

    *head = gw_arena_alloc(arena, sizeof(**head));
    gw_head_init(*head, arena);

    struct gw_h1_lex lex = {.stream = s, .head = *head, .name = {"", 0}, .value = {"", 0}};
    enum gw_err err = gw_h1_start_line(h, *head, line, text.len);
    blank_last_tabs(line, text.len);
    if (!err)
        err = lex_head(h, &lex, text.ptr, text.len);
    h->rx = lex.complete ? GW_H1_DONE : GW_H1_BODY;
    if (lex.complete)
        gw_h1_parse_end(h);
    else
        put_by(h);
    return err;
}

/* What lies behind the message goes back to the front of in. */
static void put_back(struct gw_buf *in, const char *bytes, size_t len)
{
    struct gw_buf rest;

    if (len == 0)
        return;
    gw_buf_init(&rest);
    gw_buf_append(&rest, bytes, len);
    gw_buf_move(&rest, in);
    *in = rest;
}

/* Runs the lexer over one piece of a body; returns where it stopped. */
static const char *lex_piece(struct gw_http1 *h, struct gw_h1_lex *lex, struct gw_slice piece,
                             enum gw_err *err)
{
    struct gw_h1_parse *p = h->parse;
    const char *stop = piece.ptr + piece.len;

    p->lex = lex;
    llhttp_errno_t code = llhttp_execute(&p->parser, piece.ptr, piece.len);
    if (code)
        stop = llhttp_get_error_pos(&p->parser);
    *err = translate(h, code);
    if (!*err)
        *err = check_gap(h, stop);
    p->lex = NULL;
    return stop;
}

enum gw_err gw_h1_read_body(struct gw_http1 *h, struct gw_buf *body)
{
    struct gw_buf *in = &h->codec.conn->in;
    struct gw_h1_lex lex = {0};
    enum gw_err err;

    take_up(h);
    gw_buf_move_n(body, in, gw_buf_peek(in).len);
    struct gw_slice piece = gw_buf_peek(body);
    lex.cursor = piece.ptr;
    const char *stop = lex_piece(h, &lex, piece, &err);
    if (lex.complete) {
        h->rx = GW_H1_DONE;
        put_back(in, stop, (size_t)(piece.ptr + piece.len - stop));
        gw_h1_parse_end(h);
    } else {
        put_by(h);
    }
    gw_buf_narrow(body, gw_slice_of(lex.body, lex.body_len));
    return err;
}

enum gw_err gw_h1_finish_body(struct gw_http1 *h)
{
    struct gw_h1_lex lex = {0};

    take_up(h);
    h->parse->lex = &lex;
    llhttp_errno_t code = llhttp_finish(&h->parse->parser);
    gw_h1_parse_end(h);
    if (!lex.complete)
        return GW_ERR_TRUNCATED;
    h->rx = GW_H1_DONE;
    return code == HPE_OK || code == HPE_PAUSED ? GW_OK : GW_ERR_TRUNCATED;
}
