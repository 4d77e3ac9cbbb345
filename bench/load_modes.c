/* What the load generator's clients do: hold streams, send requests, open streams. Called by
 * load_crew.c. Invariant: a client with a broken answer is closed and counted, and not used again.
 */
#include "load.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 1024 * 1024, BODY = 64 * 1024 };

/* Bodies without their framing; in front there is room for what a stream had left over. */
static char room[ROOM + BODY];

/* Streams: opened once, held to the end. */

static void stream_open(struct crew *crew, struct client *c)
{
    const struct options *o = crew->options;
    char request[1024];

    if (!c->slow) {
        client_send(crew, c, crew->request, crew->request_len);
        return;
    }
    strcpy(request, "GET ");
    strncat(request, o->slow_path, 900);
    strcat(request, " HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n");
    client_send(crew, c, request, strlen(request));
}

static void stream_bytes(struct crew *crew, struct client *c, const char *bytes, size_t n)
{
    size_t len = 0;

    message_feed(&c->message, bytes, n, room + ROOM, &len);
    if (c->message.state == MESSAGE_HEAD)
        return;
    /* It was open, even if its end came with its beginning. */
    bool is_good = c->message.status == 200 && c->message.is_events;
    if (is_good)
        client_ready(crew, c);
    if (!is_good || c->message.state != MESSAGE_BODY || c->events.carry_len > ROOM) {
        client_broken(crew, c);
        return;
    }
    if (len > 0)
        events_feed(&c->events, &crew->options->rules, &crew->share->tally, room + ROOM, len,
                    crew->came_us);
}

const struct mode mode_streams = {
    .name = "streams",
    .on_open = stream_open,
    .on_bytes = stream_bytes,
    .on_end = client_broken,
};

/* Requests: on connections that stay, one after another or at a rate. */

static unsigned index_of(const struct crew *crew, const struct client *c)
{
    return (unsigned)(c - crew->clients);
}

static void request_send(struct crew *crew, struct client *c, uint64_t since_us)
{
    c->since_us = since_us;
    c->busy = true;
    client_send(crew, c, crew->request, crew->request_len);
}

static void request_open(struct crew *crew, struct client *c)
{
    request_send(crew, c, crew->now_us);
}

/* /bytes answers abc…z over and over. */
static bool is_alphabet(const char *body, size_t n)
{
    for (size_t i = 0; i < n && i < 26; i++)
        if (body[i] != (char)('a' + i))
            return false;
    return n <= 26 || memcmp(body, body + 26, n - 26) == 0;
}

static bool answer_is_good(const struct crew *crew, const struct client *c)
{
    size_t size = crew->options->rules.size;

    return c->message.status == 200 && (!size || c->events.carry_len == size) &&
           (!size || is_alphabet(c->events.carry, c->events.carry_len));
}

static void body_keep(struct events *e, const char *bytes, size_t n)
{
    char *carry = realloc(e->carry, e->carry_len + n + 1);

    if (!carry)
        abort();
    memcpy(carry + e->carry_len, bytes, n);
    e->carry = carry;
    e->carry_len += n;
}

static void answer_done(struct crew *crew, struct client *c)
{
    if (!answer_is_good(crew, c)) {
        crew->share->tally.malformed++;
        client_close(crew, c);
        return;
    }
    if (c->open)
        crew_unit(crew, c->since_us);
    client_ready(crew, c);
    message_reset(&c->message);
    c->events.carry_len = 0;
    c->busy = false;
    if (crew->options->rate > 0)
        crew->idle[crew->idle_count++] = index_of(crew, c);
    else
        request_send(crew, c, crew->now_us);
}

static void request_bytes(struct crew *crew, struct client *c, const char *bytes, size_t n)
{
    size_t len = 0;
    size_t used = message_feed(&c->message, bytes, n, room, &len);

    if (c->message.state == MESSAGE_BAD || used < n || !c->busy) {
        client_broken(crew, c);
        return;
    }
    body_keep(&c->events, room, len);
    if (c->message.state == MESSAGE_DONE)
        answer_done(crew, c);
}

/* At a rate: what is due goes to whoever is idle, and counts from when it was due. */
static void request_turn(struct crew *crew)
{
    const struct options *o = crew->options;

    if (o->rate <= 0 || atomic_load(&crew->shared->phase) == PHASE_OPENING)
        return;
    if (crew->due_us == 0)
        crew->due_us = (double)crew->now_us;
    for (; crew->due_us <= (double)crew->now_us && crew->idle_count > 0;
         crew->due_us += 1e6 * o->processes / o->rate)
        request_send(crew, &crew->clients[crew->idle[--crew->idle_count]], (uint64_t)crew->due_us);
}

const struct mode mode_requests = {
    .name = "requests",
    .on_open = request_open,
    .on_bytes = request_bytes,
    .on_end = client_broken,
    .on_turn = request_turn,
};

/* Openings: connect, first event, close, again. */

static void opening_open(struct crew *crew, struct client *c)
{
    client_send(crew, c, crew->request, crew->request_len);
}

static bool is_first_event(const struct client *c)
{
    static const char first[] = "event: connected\n";

    return c->message.status == 200 && c->message.is_events && c->events.carry_len > sizeof first &&
           memcmp(c->events.carry, first, sizeof first - 1) == 0;
}

static void opening_bytes(struct crew *crew, struct client *c, const char *bytes, size_t n)
{
    size_t len = 0;

    message_feed(&c->message, bytes, n, room, &len);
    body_keep(&c->events, room, len);
    if (c->message.state == MESSAGE_HEAD ||
        (c->message.state == MESSAGE_BODY && c->events.carry_len < 3))
        return;
    if (memcmp(c->events.carry + c->events.carry_len - 2, "\n\n", 2) != 0)
        return;
    crew->share->tally.malformed += !is_first_event(c);
    crew_unit(crew, c->since_us);
    client_ready(crew, c);
    client_close(crew, c);
    client_dial(crew, c);
}

const struct mode mode_opens = {
    .name = "opens",
    .on_open = opening_open,
    .on_bytes = opening_bytes,
    .on_end = client_broken,
};
