/* Reads responses for the load generator: head, chunks or length. Strict where a fault of a
 * contender could hide. Invariant: `head` is set only while the head is incomplete. */
#include "message.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEAD_MAX = 16 * 1024 };
enum framing { BY_CLOSE, BY_LENGTH, BY_CHUNKS };
enum chunk {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_DATA,
    CHUNK_END,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LINE
};

static void read_field(struct message *m, const char *line)
{
    if (strncasecmp(line, "content-length:", 15) == 0) {
        m->framing = BY_LENGTH;
        m->left = strtoull(line + 15, NULL, 10);
    } else if (strncasecmp(line, "transfer-encoding:", 18) == 0 && strcasestr(line, "chunked")) {
        m->framing = BY_CHUNKS;
    } else if (strncasecmp(line, "content-type:", 13) == 0) {
        m->is_events = strcasestr(line, "text/event-stream") != NULL;
    }
}

/* The head is complete and ends in NUL. */
static void read_head(struct message *m, char *head)
{
    char *saved, *line = strtok_r(head, "\r\n", &saved);

    m->state = MESSAGE_BAD;
    if (!line || strncmp(line, "HTTP/1.1 ", 9) != 0)
        return;
    m->status = (uint16_t)atoi(line + 9);
    m->framing = BY_CLOSE;
    while ((line = strtok_r(NULL, "\r\n", &saved)))
        read_field(m, line);
    m->state = m->framing == BY_LENGTH && m->left == 0 ? MESSAGE_DONE : MESSAGE_BODY;
    m->chunk = CHUNK_SIZE;
    if (m->framing == BY_CHUNKS)
        m->left = 0;
}

static size_t feed_head(struct message *m, const char *bytes, size_t n)
{
    size_t old = m->head_len;

    if (n > HEAD_MAX - old)
        n = HEAD_MAX - old;
    char *head = realloc(m->head, old + n + 1);
    if (!head)
        abort();
    memcpy(head + old, bytes, n);
    head[old + n] = '\0';
    m->head = head;
    m->head_len = (uint16_t)(old + n);
    char *end = memmem(head, old + n, "\r\n\r\n", 4);
    if (!end) {
        if (m->head_len == HEAD_MAX)
            m->state = MESSAGE_BAD;
        return n;
    }
    size_t used = (size_t)(end - head) + 4 - old;
    *end = '\0';
    read_head(m, head);
    free(head);
    m->head = NULL;
    return used;
}

static size_t feed_plain(struct message *m, const char *bytes, size_t n, char *body, size_t *len)
{
    if (m->framing != BY_CLOSE && n > m->left)
        n = (size_t)m->left;
    memcpy(body + *len, bytes, n);
    *len += n;
    if (m->framing == BY_CLOSE)
        return n;
    m->left -= n;
    if (m->left == 0 && m->framing == BY_LENGTH)
        m->state = MESSAGE_DONE;
    return n;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte of a chunk's head. */
static void chunk_head(struct message *m, char c)
{
    int digit = hex(c);

    if (c == '\n')
        m->chunk = m->left ? CHUNK_DATA : CHUNK_TRAILER;
    else if (digit >= 0 && m->chunk == CHUNK_SIZE && m->left >> 32 == 0)
        m->left = m->left * 16 + (unsigned)digit;
    else if (c == ';' || c == '\r')
        m->chunk = CHUNK_EXTENSION;
    else if (m->chunk == CHUNK_SIZE)
        m->state = MESSAGE_BAD;
}

/* One byte that is no data. */
static void chunk_byte(struct message *m, char c)
{
    switch ((enum chunk)m->chunk) {
    case CHUNK_END:
        if (c == '\n')
            m->chunk = CHUNK_SIZE;
        else if (c != '\r')
            m->state = MESSAGE_BAD;
        break;
    case CHUNK_TRAILER:
        if (c == '\n')
            m->state = MESSAGE_DONE;
        else if (c != '\r')
            m->chunk = CHUNK_TRAILER_LINE;
        break;
    case CHUNK_TRAILER_LINE:
        if (c == '\n')
            m->chunk = CHUNK_TRAILER;
        break;
    default:
        chunk_head(m, c);
    }
}

static size_t feed_chunked(struct message *m, const char *bytes, size_t n, char *body, size_t *len)
{
    size_t at = 0;

    while (at < n && m->state == MESSAGE_BODY) {
        if (m->chunk != CHUNK_DATA) {
            chunk_byte(m, bytes[at++]);
            continue;
        }
        at += feed_plain(m, bytes + at, n - at, body, len);
        if (m->left == 0)
            m->chunk = CHUNK_END;
    }
    return at;
}

size_t message_feed(struct message *m, const char *bytes, size_t n, char *body, size_t *body_len)
{
    size_t used = 0;

    if (m->state == MESSAGE_HEAD)
        used = feed_head(m, bytes, n);
    if (m->state != MESSAGE_BODY || used == n)
        return used;
    if (m->framing == BY_CHUNKS)
        return used + feed_chunked(m, bytes + used, n - used, body, body_len);
    return used + feed_plain(m, bytes + used, n - used, body, body_len);
}

bool message_eof(const struct message *m)
{
    return m->state == MESSAGE_DONE || (m->state == MESSAGE_BODY && m->framing == BY_CLOSE);
}

void message_reset(struct message *m)
{
    free(m->head);
    *m = (struct message){0};
}
