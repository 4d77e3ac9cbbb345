/* common_http: reads HTTP/1 request heads and bodies for sse_server. Heads are copied, so a
 * request does not depend on the buffer it came in. Invariant: nothing is guessed; a head or a
 * body whose length could be read in two ways is refused. */
#include "common_http.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place; a percent sign without two digits stays as it is. */
static void percent_decode(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        int high = *from == '%' ? hex_value(from[1]) : -1;
        int low = high >= 0 ? hex_value(from[2]) : -1;
        *to = low >= 0 ? (char)(high * 16 + low) : *from;
        from += low >= 0 ? 3 : 1;
    }
    *to = '\0';
}

/* Cuts the text at the next separator and returns what stood before it, NULL at the end. */
static char *cut(char **text, const char *separator)
{
    char *start = *text;
    char *found = start ? strstr(start, separator) : NULL;

    if (found)
        *found = '\0';
    *text = found ? found + strlen(separator) : NULL;
    return start;
}

static bool is_token(const char *text)
{
    if (!*text)
        return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("!#$%&'*+-.^_`|~", *text))
            return false;
    return true;
}

static char *trim(char *text)
{
    size_t n;

    text += strspn(text, " \t");
    for (n = strlen(text); n > 0 && strchr(" \t", text[n - 1]); n--)
        text[n - 1] = '\0';
    return text;
}

static int parse_line(struct ts_request *req, char *line)
{
    req->method = cut(&line, " ");
    req->target = cut(&line, " ");
    req->version = line;
    if (!is_token(req->method) || !req->target || !*req->target || !req->version)
        return -400;
    if (strncmp(req->version, "HTTP/1.", 7) != 0 || strlen(req->version) != 8)
        return -505;
    req->minor = req->version[7] - '0';
    return req->minor == 0 || req->minor == 1 ? 0 : -505;
}

static int parse_fields(struct ts_request *req, char *text)
{
    char *line;

    while ((line = cut(&text, "\r\n")) && *line) {
        char *name = cut(&line, ":");
        if (!line || !is_token(name) || strpbrk(line, "\r\n"))
            return -400;
        if (req->fields_len == TS_MAX_FIELDS)
            return -431;
        req->fields[req->fields_len++] = (struct ts_pair){name, trim(line)};
    }
    return 0;
}

static bool is_chunked_field(const struct ts_pair *field)
{
    return strcasecmp(field->name, "transfer-encoding") == 0;
}

/* Request smuggling shows here: any doubt about the length of the body is refused. */
static int parse_framing(struct ts_request *req)
{
    bool has_length = false;

    for (size_t i = 0; i < req->fields_len; i++) {
        const struct ts_pair *field = &req->fields[i];
        if (is_chunked_field(field)) {
            if (req->chunked || req->minor == 0)
                return -400;
            if (strcasecmp(field->value, "chunked") != 0)
                return -501;
            req->chunked = true;
        } else if (strcasecmp(field->name, "content-length") == 0) {
            if (has_length || !ts_parse_u64(field->value, &req->content_length))
                return -400;
            has_length = true;
        }
    }
    return has_length && req->chunked ? -400 : 0;
}

static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);

    while (list && *list) {
        list += strspn(list, ", \t");
        if (strncasecmp(list, word, n) == 0 && strchr(", \t", list[n]))
            return true;
        list += strcspn(list, ",");
    }
    return false;
}

static void parse_connection(struct ts_request *req)
{
    const char *connection = ts_request_field(req, "connection");
    const char *expect = ts_request_field(req, "expect");

    req->keep_alive =
        req->minor == 1 ? !list_has(connection, "close") : list_has(connection, "keep-alive");
    req->expect_continue = expect && req->minor == 1 && strcasecmp(expect, "100-continue") == 0;
}

static void parse_target(struct ts_request *req)
{
    char *rest = req->query_text = strdup(req->target);
    char *item;

    if (!rest)
        abort();
    req->path = cut(&rest, "?");
    percent_decode(req->path);
    while ((item = cut(&rest, "&")) && req->params_len < TS_MAX_PARAMS) {
        char *name = cut(&item, "=");
        percent_decode(name);
        if (item)
            percent_decode(item);
        req->params[req->params_len++] = (struct ts_pair){name, item ? item : ""};
    }
}

static int parse_text(struct ts_request *req)
{
    char *text = req->text;
    int status = parse_line(req, cut(&text, "\r\n"));

    if (status == 0)
        status = parse_fields(req, text);
    if (status == 0)
        status = parse_framing(req);
    if (status == 0) {
        parse_connection(req);
        parse_target(req);
    }
    return status;
}

ssize_t ts_request_parse(struct ts_request *req, const char *bytes, size_t n)
{
    if (n == 0)
        return 0; /* and bytes may be NULL, which memmem must not get */
    size_t skip = 0;
    while (n - skip >= 2 && memcmp(bytes + skip, "\r\n", 2) == 0)
        skip += 2; /* empty lines before a request are allowed */
    const char *end = memmem(bytes + skip, n - skip, "\r\n\r\n", 4);
    if (!end)
        return n > TS_MAX_HEAD ? -431 : 0;
    size_t length = (size_t)(end + 4 - bytes) - skip;
    if (length > TS_MAX_HEAD)
        return -431;
    if (memchr(bytes + skip, '\0', length))
        return -400;

    *req = (struct ts_request){0};
    req->text = strndup(bytes + skip, length);
    req->fields = calloc(TS_MAX_FIELDS, sizeof *req->fields);
    req->params = calloc(TS_MAX_PARAMS, sizeof *req->params);
    if (!req->text || !req->fields || !req->params)
        abort();
    int status = parse_text(req);
    return status < 0 ? status : (ssize_t)(skip + length);
}

static const char *pairs_find(const struct ts_pair *pairs, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcasecmp(pairs[i].name, name) == 0)
            return pairs[i].value;
    return NULL;
}

const char *ts_request_field(const struct ts_request *req, const char *name)
{
    return pairs_find(req->fields, req->fields_len, name);
}

const char *ts_request_param(const struct ts_request *req, const char *name)
{
    return pairs_find(req->params, req->params_len, name);
}

void ts_request_fini(struct ts_request *req)
{
    free(req->text);
    free(req->query_text);
    free(req->fields);
    free(req->params);
    *req = (struct ts_request){0};
}

void ts_body_init(struct ts_body *body, const struct ts_request *req)
{
    *body = (struct ts_body){.fnv1a = 0xcbf29ce484222325};
    if (req->chunked) {
        body->state = TS_BODY_SIZE;
    } else if (req->content_length > 0) {
        body->state = TS_BODY_LENGTH;
        body->left = req->content_length;
    }
}

static size_t take_data(struct ts_body *body, const char *bytes, size_t n)
{
    if (n > body->left)
        n = body->left;
    for (size_t i = 0; i < n; i++)
        body->fnv1a = (body->fnv1a ^ (unsigned char)bytes[i]) * 0x100000001b3;
    if (body->kept.len < TS_BODY_KEPT) {
        size_t room = TS_BODY_KEPT - body->kept.len;
        ts_buf_append(&body->kept, bytes, n < room ? n : room);
    }
    body->total += n;
    body->left -= n;
    if (body->left == 0)
        body->state = body->state == TS_BODY_LENGTH ? TS_BODY_DONE : TS_BODY_CRLF;
    return n;
}

static int take_size(struct ts_body *body, const char *line, size_t n)
{
    uint64_t size = 0;
    size_t i = 0;

    for (; i < n && hex_value(line[i]) >= 0; i++) {
        if (size >> 56)
            return -1;
        size = size * 16 + (uint64_t)hex_value(line[i]);
    }
    if (i == 0 || (i < n && !strchr("; \t", line[i])))
        return -1;
    body->left = size;
    body->state = size > 0 ? TS_BODY_CHUNK : TS_BODY_TRAILER;
    return 0;
}

/* One line of the framing: a chunk's size, the end of a chunk, or a trailer. */
static ssize_t take_line(struct ts_body *body, const char *bytes, size_t n)
{
    const char *end = memmem(bytes, n, "\r\n", 2);
    size_t length = end ? (size_t)(end - bytes) : 0;

    if (!end)
        return n > 16 * 1024 ? -1 : 0;
    if (body->state == TS_BODY_SIZE) {
        if (take_size(body, bytes, length) < 0)
            return -1;
    } else if (body->state == TS_BODY_CRLF) {
        if (length > 0)
            return -1;
        body->state = TS_BODY_SIZE;
    } else if (length == 0) {
        body->state = TS_BODY_DONE;
    }
    return (ssize_t)length + 2;
}

ssize_t ts_body_feed(struct ts_body *body, const char *bytes, size_t n)
{
    size_t taken = 0;

    while (body->state != TS_BODY_DONE && taken < n) {
        ssize_t step;
        if (body->state == TS_BODY_LENGTH || body->state == TS_BODY_CHUNK)
            step = (ssize_t)take_data(body, bytes + taken, n - taken);
        else
            step = take_line(body, bytes + taken, n - taken);
        if (step < 0)
            return -1;
        if (step == 0)
            break;
        taken += (size_t)step;
    }
    return (ssize_t)taken;
}

void ts_body_fini(struct ts_body *body)
{
    ts_buf_fini(&body->kept);
}
