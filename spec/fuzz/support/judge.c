/* Owns the messages that it reads out of the world's sockets, for one run. Called by exchange.c.
 * Invariant: nothing here asks the gateway; only bytes count. */
#include "support/judge.h"

enum { MESSAGES = 512, GENERATED_MIN = 400 };

/* A request, and what came back for it on the same socket. */
struct talk {
    struct world_socket *socket;
    struct reader_message request, response;
    enum reader_result asked, answered;
    bool has_response;
};

static struct talk front[MESSAGES], back[MESSAGES];
static unsigned front_count, back_count;
static const struct judge *rules;

static struct gw_slice rest_of(struct gw_slice bytes, size_t at)
{
    return gw_slice_of(bytes.ptr + at, bytes.len - at);
}

/* The requests in these bytes, as far as they have a head. */
static enum reader_result read_requests(struct world_socket *s, struct gw_slice bytes,
                                        struct talk *talks, unsigned *count, const char **why)
{
    while (bytes.len && *count < MESSAGES) {
        struct talk *talk = &talks[*count];
        *talk = (struct talk){.socket = s};
        talk->asked = reader_request(bytes, &talk->request);
        *why = talk->request.why;
        if (talk->request.head_done)
            ++*count;
        else
            fuzz_free(&talk->request.body);
        if (talk->asked != READER_OK)
            return talk->asked;
        bytes = rest_of(bytes, talk->request.size);
    }
    return READER_OK;
}

/* The answers in these bytes to the requests of the same socket, from `first` on. Returns what the
 * last one was; *left is how many bytes follow the last whole one. */
static enum reader_result read_responses(struct gw_slice bytes, bool end, struct talk *talks,
                                         unsigned first, unsigned count, size_t *left,
                                         const char **why)
{
    for (unsigned i = first; i < count && bytes.len;) {
        struct talk *talk = &talks[i];
        struct reader_message m;
        bool head_only = gw_slice_eq(talk->request.method, GW_SLICE("HEAD"));
        enum reader_result result = reader_response(bytes, head_only, end, &m);
        *why = m.why;
        *left = bytes.len;
        if (m.head_done && m.status >= 200) {
            talk->response = m;
            talk->answered = result;
            talk->has_response = true;
            i++;
        } else {
            fuzz_free(&m.body);
        }
        if (result != READER_OK)
            return result;
        bytes = rest_of(bytes, m.size);
    }
    *left = bytes.len;
    return READER_OK;
}

static void read_back(struct world_socket *s)
{
    const char *why = NULL;
    size_t left;
    unsigned first = back_count;
    enum reader_result result = read_requests(s, fuzz_slice(&s->from), back, &back_count, &why);
    FUZZ_CHECK(result != READER_BAD, "to a backend went what is no request (%s):\n%.800s", why,
               s->from.ptr);
    bool end = s->peer_fin && !s->peer_rst;
    (void)read_responses(fuzz_slice(&s->to), end, back, first, back_count, &left, &why);
}

/* Behind the answers to its requests a client may get one more: that what came then is refused. */
static void read_front(struct world_socket *s)
{
    const char *why = NULL;
    size_t left = 0;
    unsigned first = front_count;
    struct reader_message m = {0};
    (void)read_requests(s, fuzz_slice(&s->to), front, &front_count, &why);
    struct gw_slice got = fuzz_slice(&s->from);
    bool end = s->fin && !s->rst && !s->peer_rst; /* who has reset sees no end */
    enum reader_result result = read_responses(got, end, front, first, front_count, &left, &why);
    FUZZ_CHECK(result != READER_BAD, "to a client went what is no answer (%s):\n%.800s", why,
               got.ptr);
    if (result != READER_OK || left == 0)
        return;
    result = reader_response(rest_of(got, got.len - left), false, end, &m);
    FUZZ_CHECK(result != READER_BAD && (!m.head_done || m.status >= GENERATED_MIN),
               "an answer that nobody asked for:\n%.800s", got.ptr);
    FUZZ_CHECK(result != READER_OK || m.size == left, "more behind a refusal:\n%.800s", got.ptr);
    fuzz_free(&m.body);
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
    if (to->asked == READER_OK)
        return by->asked == READER_OK && gw_slice_eq(a, b);
    return a.len <= b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static void judge_request(const struct talk *to)
{
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

/* got was complete: is it what this backend has answered, all of it? */
static bool same_answer(const struct reader_message *got, const struct talk *by)
{
    struct fuzz_text a = {0}, b = {0};
    bool same;
    if (!by->has_response || by->answered != READER_OK || by->response.status != got->status)
        return false;
    if (!is_stream(got))
        return gw_slice_eq(fuzz_slice(&got->body), fuzz_slice(&by->response.body));
    plain_events(fuzz_slice(&got->body), &a);
    plain_events(fuzz_slice(&by->response.body), &b);
    same = rules->events ? a.len <= b.len && (!a.len || memcmp(a.ptr, b.ptr, a.len) == 0)
                         : gw_slice_eq(fuzz_slice(&a), fuzz_slice(&b));
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
        if (mine && same_answer(&talk->response, &back[i]))
            return;
    }
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
