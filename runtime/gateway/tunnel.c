/* Owns nothing: works on the buffers of an exchange. Called by the steps HEAD and RELAY, and when a
 * rule was chosen. Invariant: a tunnel opens only on a 101 that was asked for, and names only
 * protocols that are allowed; it ends well only when both sides have ended theirs. */
#include "gateway/tunnel.h"

#include <math.h>
#include "gateway/relay.h"
#include "http/fields.h"

static bool is_listed(struct gw_slice list, struct gw_slice name)
{
    struct gw_slice one;
    while (gw_list_next(&list, &one)) {
        if (gw_slice_ieq(one, name))
            return true;
    }
    return false;
}

void gw_tunnel_permit(struct gw_exchange *x, struct gw_slice allowed, double idle_ms)
{
    struct gw_way *way = x->way;
    const struct gw_head *request = way->request;
    struct gw_slice asked = request->upgrade_to, one;
    way->upgrade = GW_SLICE("");
    way->tunnel_idle_ms = (uint32_t)fmin(fmax(idle_ms, 0), UINT32_MAX);
    if (request->minor == 0 || request->has_body)
        return;
    while (gw_list_next(&allowed, &one)) {
        if (!is_listed(asked, one))
            continue;
        const char *comma = way->upgrade.len ? ", " : "";
        way->upgrade = gw_arena_printf(&way->arena, "%.*s%s%.*s", (int)way->upgrade.len,
                                       way->upgrade.ptr, comma, (int)one.len, one.ptr);
    }
}

bool gw_tunnel_matches(const struct gw_exchange *x, struct gw_head *head)
{
    struct gw_slice list = x->way->upgrade, one;
    while (gw_list_next(&list, &one)) {
        if (gw_slice_ieq(one, head->upgrade_to)) {
            head->upgrade_to = one;
            return true;
        }
    }
    return false;
}

enum gw_err gw_tunnel_check(const struct gw_exchange *x)
{
    bool answered = x->way->response->status == 101, open = x->origin && x->origin->tunnel;
    if (answered == open)
        return GW_OK;
    return answered && x->origin_closed ? GW_ERR_BAD_RESPONSE : GW_ERR_HOOK;
}

/* What came behind the request belongs to the tunnel: the request itself had no body. */
void gw_tunnel_start(struct gw_exchange *x)
{
    struct gw_relay *r = &x->relay;
    r->mode = r->wanted = GW_BODY_TUNNEL;
    r->idle_ms = x->way->tunnel_idle_ms;
    r->upstream_ms = r->client_ms = (uint32_t)x->gateway->loop->now_ms;
    x->upload_end = x->upload_sent = false;
    if (x->instance)
        gw_instance_add(x->instance, GW_LOAD_STREAMS, 1);
    gw_stat_add(x->gateway->count, GW_STAT_TUNNELS, 1);
    gw_stat_add(x->gateway->count, GW_STAT_TUNNELS_OPENED, 1);
}

uint64_t gw_tunnel_active_ms(const struct gw_exchange *x)
{
    const struct gw_loop *loop = x->gateway->loop;
    uint64_t up = gw_loop_time(loop, x->relay.upstream_ms);
    uint64_t down = gw_loop_time(loop, x->relay.client_ms);
    return up > down ? up : down;
}

static size_t pending(const struct gw_stream *stream)
{
    return stream ? gw_stream_pending(stream) : 0;
}

static bool has_room(const struct gw_stream *stream)
{
    return stream && gw_stream_pending(stream) < GW_SEND_MARK;
}

/* A backend whose connection has failed tells so by its on_close. */
static void to_backend(struct gw_exchange *x)
{
    size_t n = gw_buf_len(&x->upload), credit = x->upload_uncredited;
    if (x->upload_sent || (!n && !x->upload_end) || !has_room(x->origin))
        return;
    x->upload_sent = x->upload_end;
    x->relay.bytes_in += n;
    x->relay.client_ms = (uint32_t)x->gateway->loop->now_ms;
    gw_stat_add(x->gateway->count, GW_STAT_TUNNEL_IN, (int64_t)n);
    if (gw_stream_send(x->origin, &x->upload, x->upload_end) != GW_OK)
        gw_buf_clear(&x->upload);
    x->upload_uncredited = 0;
    if (credit && x->client)
        gw_stream_consumed(x->client, credit);
}

static enum gw_err to_client(struct gw_exchange *x)
{
    size_t n = gw_buf_len(&x->body);
    if (x->response_sent || (!n && !x->body_end) || !has_room(x->client))
        return GW_OK;
    x->response_sent = x->body_end;
    x->bytes_out += n;
    x->relay.client_ms = (uint32_t)x->gateway->loop->now_ms;
    gw_stat_add(x->gateway->count, GW_STAT_BYTES_OUT, (int64_t)n);
    gw_stat_add(x->gateway->count, GW_STAT_TUNNEL_OUT, (int64_t)n);
    if (gw_stream_send(x->client, &x->body, x->body_end) != GW_OK)
        return GW_ERR_CLIENT_GONE;
    gw_relay_credit(x);
    return GW_OK;
}

/* Nothing is left that could still reach the client. */
static bool is_broken(const struct gw_exchange *x)
{
    return x->origin_closed && x->origin_why != GW_OK && gw_buf_empty(&x->body) &&
           pending(x->client) == 0;
}

enum gw_err gw_tunnel_run(struct gw_exchange *x)
{
    if (x->relay.retiring)
        return GW_ERR_SHUTDOWN;
    if (!x->client && !x->response_sent)
        return GW_ERR_CLIENT_GONE;
    to_backend(x);
    enum gw_err err = to_client(x);
    if (err != GW_OK)
        return err;
    if (x->upload_sent && x->response_sent && !pending(x->client) && !pending(x->origin))
        return x->origin_closed ? (enum gw_err)x->origin_why : GW_OK;
    if (!is_broken(x))
        return GW_AGAIN;
    x->why_upstream = true;
    return (enum gw_err)x->origin_why;
}
