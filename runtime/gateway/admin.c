/* Owns nothing: what it answers is read from shared memory. Called for streams of the management
 * listener. Invariant: it never waits. */
#include "gateway/admin.h"

#include "gateway/listing.h"
#include "gateway/reply.h"

static void write_health(struct gw_gateway *gateway, struct gw_head *head, struct gw_buf *body)
{
    gw_fields_set(head, GW_SLICE("content-type"), GW_SLICE("application/json"));
    head->status = gateway->draining ? 503 : 200;
    gw_buf_printf(body, "{\"status\":\"%s\",\"generation\":%llu,\"streams\":%llu}\n",
                  gateway->draining ? "draining" : "ok",
                  (unsigned long long)gateway->current->number,
                  (unsigned long long)gw_stats_sum(gateway->stats, GW_STAT_STREAMS));
}

static void write_answer(struct gw_gateway *gateway, const struct gw_head *request,
                         struct gw_head *head, struct gw_buf *body)
{
    struct gw_slice path = gw_head_path(request);
    bool reads = gw_slice_eq(request->method, GW_SLICE("GET")) ||
                 gw_slice_eq(request->method, GW_SLICE("HEAD"));
    if (!reads) {
        gw_fields_set(head, GW_SLICE("allow"), GW_SLICE("GET, HEAD"));
        gw_problem_write(head, body, request, 405, GW_SLICE("method not allowed"), GW_SLICE(""));
    } else if (gw_slice_eq(path, GW_SLICE("/health"))) {
        write_health(gateway, head, body);
    } else if (gw_slice_eq(path, GW_SLICE("/metrics"))) {
        gw_fields_set(head, GW_SLICE("content-type"), GW_SLICE("text/plain; version=0.0.4"));
        gw_stats_write(gateway->stats, body);
        if (gateway->facts->tally)
            gw_tally_write(gateway->facts->tally, body);
        gw_listing_metrics(gateway->current, body);
    } else if (gw_slice_eq(path, GW_SLICE("/instances"))) {
        gw_fields_set(head, GW_SLICE("content-type"), GW_SLICE("application/json"));
        gw_listing_json(gateway->current, body);
    } else {
        gw_problem_write(head, body, request, 404, GW_SLICE("no such page"), GW_SLICE(""));
    }
}

static void on_head(struct gw_stream *stream, struct gw_head *request)
{
    struct gw_gateway *gateway = stream->owner;
    struct gw_head head;
    struct gw_buf body;
    gw_head_init(&head, &stream->arena);
    head.status = 200;
    gw_buf_init(&body);
    write_answer(gateway, request, &head, &body);
    head.length = (int64_t)gw_buf_len(&body);
    head.has_body = !gw_slice_eq(request->method, GW_SLICE("HEAD"));
    if (!head.has_body)
        gw_buf_clear(&body);
    gw_stream_detach(stream);
    if (gw_stream_send_head(stream, &head) == GW_OK && gw_stream_send(stream, &body, true) == GW_OK)
        return;
    gw_buf_clear(&body);
}

static const struct gw_stream_events admin_events = {.on_head = on_head};

void gw_admin_serve(struct gw_gateway *gateway, struct gw_stream *stream)
{
    stream->events = &admin_events;
    stream->owner = gateway;
}
