/* Owns what an exchange keeps for another attempt; it lies in the arena of its way. Called by the
 * steps CONNECT, BALANCE, HEAD and RETRY. Invariant: a request that a backend may have seen goes
 * again only where its rule names the method, and only with the bytes that went the first time. */
#include "gateway/retry.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>
#include "gateway/bounds.h"
#include "http/fields.h"

void gw_retry_set(struct gw_exchange *x, struct gw_slice rule)
{
    struct gw_way *way = gw_exchange_way(x);
    struct gw_retry_rule *copy = gw_arena_alloc(&way->arena, rule.len);
    memcpy(copy, rule.ptr, rule.len);
    way->retry = gw_arena_alloc(&way->arena, sizeof *way->retry);
    *way->retry = (struct gw_retry){.rule = copy, .attempt = 1};
}

static bool is_active(const struct gw_retry *retry)
{
    return retry && retry->rule->attempts && !retry->over;
}

static struct gw_budget *budget_of(const struct gw_exchange *x)
{
    return gw_budget_find(&x->gateway->facts->budgets, gw_slice_str(x->instance->service));
}

void gw_retry_begin(struct gw_exchange *x)
{
    struct gw_way *way = x->way;
    if (way->attempts < UINT8_MAX)
        way->attempts++;
    if (!is_active(way->retry))
        return;
    way->retry->rested = false;
    if (way->attempts == 1)
        gw_budget_request(budget_of(x), x->gateway->loop->now_ms);
}

static void log_attempt(struct gw_log_line *line, const struct gw_exchange *x, const char *what)
{
    char addr[GW_ADDR_TEXT], id[GW_ID_TEXT];
    gw_log_begin(line, GW_LOG_WARN, what);
    gw_log_cstr(line, "x", gw_exchange_id(x, id));
    gw_log_cstr(line, "instance", x->instance->id);
    gw_log_cstr(line, "addr", gw_addr_text(&x->instance->addr, addr));
}

/* It is not asked again while there are others. */
static void note_tried(struct gw_exchange *x)
{
    struct gw_way *way = x->way;
    if (way->tried_count == GW_TRIED_LIMIT)
        memmove(way->tried, way->tried + 1, --way->tried_count * sizeof *way->tried);
    way->tried[way->tried_count++] = x->instance->index;
    const char *before = way->failed ? way->failed : "", *comma = way->failed ? "," : "";
    way->failed = gw_arena_printf(&way->arena, "%s%s%s", before, comma, x->instance->id).ptr;
}

bool gw_retry_elsewhere(struct gw_exchange *x)
{
    struct gw_log_line line;
    log_attempt(&line, x, "instance not reached");
    gw_log_cstr(&line, "why", gw_err_slug((enum gw_err)x->origin_why));
    gw_log_end(&line);
    note_tried(x);
    return x->way->unreached++ < GW_UNREACHED_MAX;
}

/* Nobody has seen anything of it, or its method is named. */
static bool may_repeat(const struct gw_exchange *x)
{
    const struct gw_retry_rule *rule = x->way->retry->rule;
    return !x->way->asked || gw_retry_has_name(rule->text, rule->methods, x->way->request->method);
}

/* The time before the next attempt. */
static uint32_t rest_ms(const struct gw_retry *retry, uint32_t at_least_ms)
{
    const struct gw_retry_rule *rule = retry->rule;
    double rest = fmin(ldexp(rule->base_ms, (int)retry->attempt - 1), rule->max_ms);
    double share = (double)random() / RAND_MAX;
    return (uint32_t)fmax(rest * (1 - rule->jitter * share), at_least_ms);
}

/* Why there is no other attempt, although the rule would have it; NULL: there is one. */
static const char *forbidden(const struct gw_exchange *x, uint32_t rest)
{
    const struct gw_retry *retry = x->way->retry;
    const struct gw_retry_rule *rule = retry->rule;
    if (retry->attempt >= rule->attempts)
        return "attempts";
    if (!may_repeat(x))
        return "method";
    if (retry->unrepeatable)
        return "body";
    if (x->timeout_ms && (uint64_t)gw_exchange_age(x) + rest >= x->timeout_ms)
        return "timeout";
    if (gw_budget_take(budget_of(x), x->gateway->loop->now_ms, rule->ratio, rule->min_requests))
        return NULL;
    gw_stat_add(x->gateway->count, GW_STAT_RETRIES_DENIED, 1);
    return "budget";
}

static void log_plan(const struct gw_exchange *x, enum gw_err why, const char *no, uint32_t rest)
{
    struct gw_log_line line;
    log_attempt(&line, x, "attempt failed");
    if (why != GW_OK)
        gw_log_cstr(&line, "why", gw_err_slug(why));
    else
        gw_log_int(&line, "status", x->way->response->status);
    gw_log_int(&line, "attempt", x->way->retry->attempt);
    if (no)
        gw_log_cstr(&line, "no_retry", no);
    else
        gw_log_int(&line, "retry_after_ms", rest);
    gw_log_end(&line);
}

/* why: GW_OK stands for the status of the answer that is here. */
static bool plan(struct gw_exchange *x, enum gw_err why, uint32_t at_least_ms)
{
    struct gw_way *way = x->way;
    uint32_t rest = rest_ms(way->retry, at_least_ms);
    const char *no = forbidden(x, rest);
    log_plan(x, why, no, rest);
    if (no)
        return false;
    gw_stat_add(x->gateway->count, GW_STAT_RETRIES, 1);
    way->retry->attempt++;
    way->retry->due_ms = x->gateway->loop->now_ms + rest;
    way->unreached = 0;
    return true;
}

bool gw_retry_anew(struct gw_exchange *x)
{
    struct gw_way *way = x->way;
    if (!is_active(way->retry))
        return false;
    bool may = way->retry->rested || (way->retry->rule->causes & GW_RETRY_CONNECT &&
                                      plan(x, (enum gw_err)x->origin_why, 0));
    if (may)
        way->tried_count = 0;
    return may;
}

/* 0: whatever a rule says. */
static unsigned cause_of(enum gw_err why)
{
    switch (why) {
    case GW_ERR_FIRST_EVENT:
        return 0; /* `firstEvent` says that it is to be none */
    case GW_ERR_RESPONSE_TIMEOUT:
    case GW_ERR_SILENCE_TIMEOUT:
    case GW_ERR_FIRST_EVENT_TIMEOUT:
    case GW_ERR_WRITE_TIMEOUT:
        return GW_RETRY_TIMEOUT;
    default:
        return GW_RETRY_RESET;
    }
}

bool gw_retry_after(struct gw_exchange *x, enum gw_err why)
{
    const struct gw_retry *retry = x->way->retry;
    unsigned cause = cause_of(why);
    if (!is_active(retry) || (cause && !(retry->rule->causes & cause)) || !plan(x, why, 0))
        return false;
    note_tried(x);
    return true;
}

/* Seconds, or a date (RFC 9110, 10.2.3); in ms. */
static uint64_t wanted_rest(const struct gw_head *answer)
{
    struct gw_slice value = gw_fields_get(answer, GW_SLICE("retry-after"));
    char text[40];
    struct tm date = {0};
    if (!value.len || value.len >= sizeof text)
        return 0;
    memcpy(text, value.ptr, value.len);
    text[value.len] = '\0';
    if (text[strspn(text, "0123456789")] == '\0')
        return strlen(text) > 9 ? UINT64_MAX : strtoull(text, NULL, 10) * 1000;
    if (!strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &date))
        return 0;
    double seconds = difftime(timegm(&date), time(NULL));
    return seconds > 0 ? (uint64_t)(seconds * 1000) : 0;
}

bool gw_retry_instead(struct gw_exchange *x)
{
    const struct gw_retry *retry = x->way->retry;
    const struct gw_head *answer = x->way->response;
    if (!is_active(retry) || !gw_statuses_have(&retry->rule->statuses, answer->status))
        return false;
    uint64_t wanted = wanted_rest(answer);
    if (wanted > retry->rule->max_ms) {
        log_plan(x, GW_OK, "retry_after", 0);
        return false;
    }
    if (!plan(x, GW_OK, (uint32_t)wanted))
        return false;
    note_tried(x);
    return true;
}

bool gw_retry_rested(struct gw_exchange *x)
{
    struct gw_retry *retry = x->way->retry;
    retry->rested |= x->gateway->loop->now_ms >= retry->due_ms;
    return retry->rested;
}

static void set_answerer(struct gw_retry *retry, struct gw_instance *instance)
{
    if (instance)
        gw_instance_ref(instance);
    if (retry->answerer)
        gw_instance_unref(retry->answerer);
    retry->answerer = instance;
}

static void keep_answer(struct gw_exchange *x, struct gw_retry *retry)
{
    retry->answer = x->way->response;
    set_answerer(retry, x->instance);
    gw_buf_clear(&retry->answer_body);
    gw_buf_move(&retry->answer_body, &x->body);
}

void gw_retry_leave(struct gw_exchange *x)
{
    struct gw_retry *retry = x->way->retry;
    struct gw_buf rest;
    if (x->way->response && x->body_end && !x->origin)
        keep_answer(x, retry);
    gw_buf_clear(&x->body);
    x->way->response = NULL;
    x->body_end = false;
    x->uncredited = 0;
    gw_buf_init(&rest);
    gw_buf_move(&rest, &x->upload);
    gw_buf_move(&x->upload, &retry->sent);
    gw_buf_move(&x->upload, &rest);
    x->upload_sent = false;
}

bool gw_retry_restore(struct gw_exchange *x)
{
    struct gw_retry *retry = x->way->retry;
    if (!retry || !retry->answer)
        return false;
    gw_buf_clear(&x->body);
    x->way->response = retry->answer;
    gw_exchange_use(x, retry->answerer);
    gw_buf_move(&x->body, &retry->answer_body);
    x->body_end = true;
    x->uncredited = 0;
    x->origin_closed = false;
    gw_retry_end(retry);
    return true;
}

void gw_retry_keep(struct gw_exchange *x)
{
    struct gw_retry *retry = x->way->retry;
    if (!is_active(retry) || retry->unrepeatable)
        return;
    const struct gw_head *request = x->way->request;
    const struct gw_retry_rule *rule = retry->rule;
    if (request->length > (int64_t)rule->max_body ||
        gw_buf_len(&retry->sent) + gw_buf_len(&x->upload) > rule->max_body ||
        (!gw_buf_empty(&x->upload) && gw_bounds_short(x->gateway)) ||
        !gw_retry_has_name(rule->text, rule->methods, request->method)) {
        retry->unrepeatable = !gw_buf_empty(&x->upload) || !gw_buf_empty(&retry->sent);
        gw_buf_clear(&retry->sent);
        return;
    }
    for (const struct gw_chunk *c = x->upload.head; c; c = c->next)
        gw_buf_append(&retry->sent, c->data + c->start, c->end - c->start);
}

void gw_retry_end(struct gw_retry *retry)
{
    if (!retry)
        return;
    retry->over = true;
    retry->holding = false;
    retry->answer = NULL;
    set_answerer(retry, NULL);
    gw_buf_clear(&retry->sent);
    gw_buf_clear(&retry->answer_body);
    gw_buf_clear(&retry->comments);
}

/* As it is kept of an open stream: two numbers, and the text. */
struct packed_trace {
    uint32_t held_ms;
    uint8_t attempts;
};

size_t gw_retry_trace_size(const struct gw_way *way)
{
    if (way->attempts < 2 && !way->held_ms)
        return 0;
    return sizeof(struct packed_trace) + (way->failed ? strlen(way->failed) : 0) + 1;
}

void gw_retry_trace_pack(const struct gw_way *way, char *out)
{
    struct packed_trace trace = {way->held_ms, way->attempts};
    const char *failed = way->failed ? way->failed : "";
    memcpy(out, &trace, sizeof trace);
    memcpy(out + sizeof trace, failed, strlen(failed) + 1);
}

struct gw_trace gw_retry_trace(const struct gw_exchange *x)
{
    const struct gw_way *way = x->way;
    if (!x->traced)
        return way ? (struct gw_trace){way->attempts, way->held_ms, way->failed}
                   : (struct gw_trace){0};
    struct packed_trace packed;
    const char *at = x->rule + strlen(x->rule) + 1, *failed = at + sizeof packed;
    memcpy(&packed, at, sizeof packed);
    return (struct gw_trace){packed.attempts, packed.held_ms, *failed ? failed : NULL};
}
