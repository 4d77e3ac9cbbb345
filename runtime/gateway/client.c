/* Finds whose request it is, and tells backends. Owns the addresses of clients that are not their
 * connection's peer. Called when a request's head comes, when it goes on, and by the log.
 * Invariant: behind gw_client_arrive a head says nothing of its client that is not believed. */
#include "gateway/client.h"

#include "base/slab.h"
#include "gateway/claim.h"
#include "http/target.h"

/* The peer and the client. */
struct pair {
    struct gw_addr of[2];
};

static struct gw_slab pairs;

static const struct gw_slice forwarded_for = {"x-forwarded-for", 15},
                             forwarded_proto = {"x-forwarded-proto", 17},
                             forwarded_host = {"x-forwarded-host", 16};

/* Whoever reads X-Forwarded-… is told the same as by Forwarded. */
static void translate(const struct gw_claim *claim, bool other, struct gw_head *head)
{
    char host[GW_ADDR_TEXT];
    if (other)
        gw_fields_add(head, forwarded_for, gw_slice_str(gw_addr_host(&claim->client, host)));
    if (claim->host.ptr && gw_authority_ok(claim->host))
        gw_fields_add(head, forwarded_host, claim->host);
}

static void keep_client(struct gw_exchange *x, const struct gw_addr *client)
{
    if (!pairs.size)
        gw_slab_init(&pairs, sizeof(struct pair));
    struct pair *pair = gw_slab_alloc(&pairs);
    *pair = (struct pair){{*x->peer, *client}};
    x->peer = pair->of;
    x->proxied = true;
}

void gw_client_arrive(struct gw_exchange *x)
{
    const struct gw_settings *settings = &x->generation->settings;
    struct gw_head *head = x->way->request;
    struct gw_claim claim;
    if (!gw_networks_have(&settings->trusted, x->peer)) {
        gw_claim_sift(NULL, false, head);
        return;
    }
    gw_claim_read(&claim, &settings->trusted, settings->forwarded, x->peer, head);
    gw_claim_sift(&claim, settings->forwarded, head);
    bool other = !gw_addr_eq(&claim.client, x->peer);
    if (settings->forwarded)
        translate(&claim, other, head);
    struct gw_slice scheme =
        gw_claim_scheme(settings->forwarded ? claim.proto : gw_fields_get(head, forwarded_proto));
    if (scheme.ptr)
        head->scheme = scheme;
    if (other)
        keep_client(x, &claim.client);
}

void gw_client_gone(struct gw_exchange *x, struct gw_arena *arena)
{
    if (x->proxied)
        return;
    struct gw_addr *peer = gw_arena_alloc(arena, sizeof *peer);
    *peer = *x->peer;
    x->peer = peer;
}

void gw_client_leave(struct gw_exchange *x)
{
    if (x->proxied)
        gw_slab_free(&pairs, GW_CONTAINER(x->peer, struct pair, of));
    x->proxied = false;
    x->peer = NULL;
}

/* An element of our own. What the first proxy has said of host and scheme is for the backend what
 * counts, so only the first element says it. */
static void add_forwarded(const struct gw_exchange *x, struct gw_head *out, const char *host)
{
    const char *form = x->peer->family == AF_INET6 ? "for=\"[%s]\"" : "for=%s";
    bool first = !gw_fields_has(out, GW_SLICE("forwarded"));
    struct gw_slice text =
        gw_arena_printf(out->arena, form, gw_addr_is_ip(x->peer) ? host : "unknown");
    if (first && gw_authority_ok(out->authority))
        text = gw_arena_printf(out->arena, "%s;host=\"%.*s\"", text.ptr, (int)out->authority.len,
                               out->authority.ptr);
    if (first)
        text = gw_arena_printf(out->arena, "%s;proto=%.*s", text.ptr, (int)out->scheme.len,
                               out->scheme.ptr);
    gw_fields_append(out, GW_SLICE("forwarded"), text);
}

void gw_client_tell(const struct gw_exchange *x, struct gw_head *out)
{
    char host[GW_ADDR_TEXT];
    gw_addr_host(x->peer, host);
    if (x->generation->settings.forwarded)
        add_forwarded(x, out, host);
    if (gw_addr_is_ip(x->peer))
        gw_fields_append(out, forwarded_for, gw_slice_str(host));
    gw_fields_set(out, forwarded_proto, out->scheme);
    if (out->authority.len)
        gw_fields_default(out, forwarded_host, out->authority);
}

static void log_addr(struct gw_log_line *line, const char *key, const struct gw_addr *addr)
{
    char text[GW_ADDR_TEXT];
    gw_log_cstr(line, key, addr->port ? gw_addr_text(addr, text) : gw_addr_host(addr, text));
}

void gw_client_log(const struct gw_exchange *x, struct gw_log_line *line)
{
    log_addr(line, "client", gw_exchange_client(x));
    if (x->proxied)
        log_addr(line, "peer", x->peer);
}
