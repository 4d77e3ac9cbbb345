/* Owns the messages that it reads out of the world's sockets, for one run. Called by exchange.c.
 * Invariant: nothing here asks the gateway; only bytes count. */
#include "support/judge.h"

enum { MESSAGES = 512, GENERATED_MIN = 400 };

/* A request, and what came back for it on the same socket; and behind a 101 that was asked for,
 * what the peer sent through the tunnel and what it got. */
struct talk {
    struct world_socket *socket;
    struct reader_message request, response;
    enum reader_result asked, answered;
    bool has_response, tunnel;
    struct gw_slice sent, got;
};

/* Both ways of one socket, as far as they are read. */
struct way {
    struct gw_slice requests, responses;
    enum reader_result asked, answered;
    const char *why_asked, *why_answered;
    bool end; /* no more responses will come */
    bool tunnel;
};

static struct talk front[MESSAGES], back[MESSAGES];
static unsigned front_count, back_count;
static const struct judge *rules;

static struct gw_slice rest_of(struct gw_slice bytes, size_t at)
{
    return at ? gw_slice_of(bytes.ptr + at, bytes.len - at) : bytes;
}

/* The next request; false: there is none with a head. */
static bool read_request(struct way *way, struct talk *talk)
{
    way->asked = reader_request(way->requests, &talk->request);
    way->why_asked = talk->request.why;
    talk->asked = way->asked;
    if (!talk->request.head_done) {
        fuzz_free(&talk->request.body);
        return false;
    }
    if (way->asked == READER_OK)
        way->requests = rest_of(way->requests, talk->request.size);
    return true;
}

static bool asks_for_tunnel(const struct reader_message *request)
{
    return reader_field(request, "upgrade", 0).ptr && request->minor > 0;
}

/* What answers it, behind interim responses. */
static void read_response(struct way *way, struct talk *talk)
{
    bool head_only = gw_slice_eq(talk->request.method, GW_SLICE("HEAD"));
    while (way->responses.len && way->answered == READER_OK && !talk->has_response) {
        struct reader_message m;
        way->answered = reader_response(way->responses, head_only, way->end, &m);
        way->why_answered = m.why;
        talk->tunnel = m.head_done && m.status == 101 && asks_for_tunnel(&talk->request);
        if (m.head_done && (m.status >= 200 || talk->tunnel)) {
            talk->response = m;
            talk->answered = way->answered;
            talk->has_response = true;
        } else {
            fuzz_free(&m.body);
            FUZZ_CHECK(!m.head_done || m.status != 101 || talk->socket->dialled,
                       "a tunnel that nobody asked for");
        }
        if (way->answered == READER_OK)
            way->responses = rest_of(way->responses, m.size);
    }
}

/* The requests of a socket, as far as they have a head, with the answers to them. */
static void read_talks(struct world_socket *s, struct way *way, struct talk *talks, unsigned *count)
{
    while (way->requests.len && way->asked == READER_OK && !way->tunnel && *count < MESSAGES) {
        struct talk *talk = &talks[*count];
        *talk = (struct talk){.socket = s};
        if (!read_request(way, talk))
            break;
        ++*count;
        read_response(way, talk);
        way->tunnel = talk->tunnel;
    }
}

static void read_back(struct world_socket *s)
{
    struct way way = {.requests = fuzz_slice(&s->from), .responses = fuzz_slice(&s->to)};
    way.end = s->peer_fin && !s->peer_rst;
    read_talks(s, &way, back, &back_count);
    FUZZ_CHECK(way.asked != READER_BAD, "to a backend went what is no request (%s):\n%.800s",
               way.why_asked, s->from.ptr);
    if (!way.tunnel)
        return;
    back[back_count - 1].sent = way.responses;
    back[back_count - 1].got = way.requests;
}

/* Behind the answers to its requests a client may get one more: that what came then is refused. */
static void read_front(struct world_socket *s)
{
    struct reader_message m = {0};
    struct gw_slice asked = fuzz_slice(&s->to), got = fuzz_slice(&s->from);
    struct way way = {.requests = rest_of(asked, s->lead < asked.len ? s->lead : asked.len),
                      .responses = got};
    way.end = s->fin && !s->rst && !s->peer_rst; /* who has reset sees no end */
    read_talks(s, &way, front, &front_count);
    FUZZ_CHECK(way.answered != READER_BAD, "to a client went what is no answer (%s):\n%.800s",
               way.why_answered, got.ptr);
    if (way.tunnel) {
        front[front_count - 1].sent = way.requests;
        front[front_count - 1].got = way.responses;
    }
    if (way.tunnel || way.answered != READER_OK || way.responses.len == 0)
        return;
    enum reader_result result = reader_response(way.responses, false, way.end, &m);
    FUZZ_CHECK(result != READER_BAD && (!m.head_done || m.status >= GENERATED_MIN),
               "an answer that nobody asked for:\n%.800s", got.ptr);
    FUZZ_CHECK(result != READER_OK || m.size == way.responses.len, "more behind a refusal:\n%.800s",
               got.ptr);
    fuzz_free(&m.body);
}

static bool is_prefix(struct gw_slice a, struct gw_slice of)
{
    return a.len <= of.len && (a.len == 0 || memcmp(a.ptr, of.ptr, a.len) == 0);
}

/* Of the paths behind them only what is in origin-form is compared. */
static bool same_target(struct gw_slice came, struct gw_slice went)
{
    return came.ptr[0] != '/' || gw_slice_eq(came, went);
}

static bool asked_for(const struct talk *to, const struct talk *by)
{
    const struct reader_message *went = &to->request, *came = &by->request;
    struct gw_slice a = fuzz_slice(&went->body), b = fuzz_slice(&came->body);
    if (!gw_slice_eq(went->method, came->method) || !same_target(came->target, went->target))
        return false;
    if (asks_for_tunnel(went) && !asks_for_tunnel(came))
        return false;
    if (to->asked == READER_OK)
        return by->asked == READER_OK && gw_slice_eq(a, b);
    return is_prefix(a, b);
}

/* Whose it is stands at the end of X-Forwarded-For, and nowhere else where nobody is trusted. */
static void judge_client(const struct reader_message *request)
{
    struct gw_slice list = reader_field(request, "x-forwarded-for", 0), last = list;
    const char *comma = list.ptr ? memrchr(list.ptr, ',', list.len) : NULL;
    FUZZ_CHECK(list.ptr && !reader_field(request, "x-forwarded-for", 1).ptr, "not one client");
    FUZZ_CHECK(!comma || rules->trusts, "a peer was believed: %.*s", (int)list.len, list.ptr);
    if (comma)
        last = gw_slice_trim(rest_of(list, (size_t)(comma + 1 - list.ptr)));
    for (unsigned i = 0; i < rules->peer_count; i++)
        if (gw_slice_eq(last, gw_slice_str(rules->peers[i])))
            return;
    FUZZ_CHECK(false, "nobody's address: %.*s", (int)list.len, list.ptr);
}

static void judge_request(const struct talk *to)
{
    judge_client(&to->request);
    for (unsigned i = 0; i < front_count; i++)
        if (asked_for(to, &front[i]))
            return;
    FUZZ_CHECK(false, "to a backend went a request that no client made:\n%.800s",
               to->socket->from.ptr);
}

static unsigned count_method(const struct talk *talks, unsigned count, const char *method)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        n += gw_slice_eq(talks[i].request.method, gw_slice_str(method));
    return n;
}

/* Without the comments that the gateway puts in, and without a BOM in front. */
static void plain_events(struct gw_slice s, struct fuzz_text *out)
{
    static const char comment[] = ":keepalive\n\n";
    size_t len = sizeof comment - 1;
    if (s.len >= 3 && memcmp(s.ptr, "\xef\xbb\xbf", 3) == 0)
        s = rest_of(s, 3);
    for (size_t i = 0; i < s.len;) {
        if (s.len - i >= len && memcmp(s.ptr + i, comment, len) == 0) {
            i += len;
            continue;
        }
        fuzz_put(out, s.ptr + i++, 1);
    }
    if (out->len >= 3 && memcmp(out->ptr, "\xef\xbb\xbf", 3) == 0)
        out->len -= 3, memmove(out->ptr, out->ptr + 3, out->len);
}

static bool is_stream(const struct reader_message *m)
{
    struct gw_slice type = reader_field(m, "content-type", 0);
    return m->status == 200 && type.len >= 17 &&
           strncasecmp(type.ptr, "text/event-stream", 17) == 0;
}

/* CR LF, CR or LF at the end; its length. */
static size_t line_end(struct gw_slice s)
{
    if (s.len >= 2 && memcmp(s.ptr + s.len - 2, "\r\n", 2) == 0)
        return 2;
    return s.len && strchr("\r\n", s.ptr[s.len - 1]) && s.ptr[s.len - 1];
}

/* Behind a blank line, or at the beginning. */
static bool is_between_events(struct gw_slice s)
{
    s.len -= line_end(s);
    return s.len == 0 || line_end(s);
}

/* got was complete: is it what this backend has answered, all of it? */
static bool same_answer(const struct reader_message *got, const struct talk *by)
{
    struct fuzz_text a = {0}, b = {0};
    bool same, early = rules->early && is_stream(got);
    if (!by->has_response || (by->answered != READER_OK && !early) ||
        by->response.status != got->status)
        return false;
    if (!is_stream(got))
        return gw_slice_eq(fuzz_slice(&got->body), fuzz_slice(&by->response.body));
    plain_events(fuzz_slice(&got->body), &a);
    plain_events(fuzz_slice(&by->response.body), &b);
    same = gw_slice_eq(fuzz_slice(&a), fuzz_slice(&b));
    if (!same && (rules->events || early))
        same = is_prefix(fuzz_slice(&a), fuzz_slice(&b)) && is_between_events(fuzz_slice(&a));
    fuzz_free(&a);
    fuzz_free(&b);
    return same;
}

static bool is_ours(const struct reader_message *m)
{
    struct gw_slice body = fuzz_slice(&m->body), type = reader_field(m, "content-type", 0);
    return m->status >= GENERATED_MIN &&
           (body.len == 0 || (body.len > 8 && memcmp(body.ptr, "{\"error\"", 8) == 0) ||
            gw_slice_eq(type, GW_SLICE("text/plain; charset=utf-8")));
}

/* OPTIONS of all of the gateway, or as far as Max-Forwards let it go. */
static bool is_own_answer(const struct talk *talk)
{
    return gw_slice_eq(talk->request.method, GW_SLICE("OPTIONS")) && talk->response.status == 200 &&
           talk->response.body.len == 0 && reader_field(&talk->response, "allow", 0).ptr;
}

/* The gateway has ended its sending in order, and its peer has stayed to see it. */
static bool ended_well(const struct world_socket *s)
{
    return s->fin && !s->rst && !s->peer_rst;
}

/* What one end of a tunnel got is what the other sent: in order, and whole where it ends well. */
static bool same_bytes(const struct talk *from, const struct talk *to)
{
    if (!ended_well(to->socket))
        return is_prefix(to->got, from->sent);
    return from->socket->peer_fin && gw_slice_eq(to->got, from->sent);
}

static bool same_tunnel(const struct talk *talk, const struct talk *by)
{
    struct gw_slice told = reader_field(&talk->response, "upgrade", 0);
    return by->tunnel && gw_slice_ieq(told, reader_field(&by->response, "upgrade", 0)) &&
           same_bytes(by, talk) && same_bytes(talk, by);
}

static void judge_response(const struct talk *talk)
{
    struct gw_slice id = reader_field(&talk->response, "x-request-id", 0);
    if (!talk->has_response || talk->answered != READER_OK || is_ours(&talk->response) ||
        is_own_answer(talk))
        return;
    for (unsigned i = 0; i < back_count; i++) {
        struct gw_slice its = reader_field(&back[i].request, "x-request-id", 0);
        struct gw_slice set = reader_field(&back[i].response, "x-request-id", 0);
        bool mine = gw_slice_eq(id, its) || (set.ptr && gw_slice_eq(id, set));
        if (mine &&
            (talk->tunnel ? same_tunnel(talk, &back[i]) : same_answer(&talk->response, &back[i])))
            return;
    }
    FUZZ_CHECK(!talk->tunnel, "a tunnel without its other end: %zu bytes, and got %zu",
               talk->sent.len, talk->got.len);
    FUZZ_CHECK(false, "a client got an answer, whole, that no backend gave to it:\n%.800s",
               talk->socket->from.ptr);
}

static void free_talks(struct talk *talks, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        fuzz_free(&talks[i].request.body);
        fuzz_free(&talks[i].response.body);
    }
}

void judge_all(const struct judge *judge)
{
    rules = judge;
    front_count = back_count = 0;
    for (unsigned i = 0; i < WORLD_SOCKETS; i++) {
        if (world[i].used && world[i].dialled)
            read_back(&world[i]);
        else if (world[i].used)
            read_front(&world[i]);
    }
    for (unsigned i = 0; i < back_count; i++)
        judge_request(&back[i]);
    for (unsigned i = 0; i < front_count; i++)
        judge_response(&front[i]);
    unsigned came = count_method(front, front_count, "POST");
    unsigned went = count_method(back, back_count, "POST");
    FUZZ_CHECK(judge->retries || went <= came, "%u POST became %u", came, went);
    free_talks(front, front_count);
    free_talks(back, back_count);
}
