/* Reads what a head says of whose request it is, and takes out what is not to be said. Owns
 * nothing. Called by gateway/client.c. Invariant: what the peer wrote itself stands at the end, so
 * lists are read from there, and no further than to the first address that is not trusted. */
#include "gateway/claim.h"

#include "http/fields.h"
#include "http/forwarded.h"
#include "http/target.h"

/* False: the search ends here. */
static bool take(struct gw_claim *claim, bool forwarded, struct gw_slice element)
{
    struct gw_forwarded said = {.node = element};
    struct gw_addr addr;
    if (forwarded) {
        if (!gw_forwarded_read(element, &said))
            return false;
        claim->proto = said.proto;
        claim->host = said.host;
    }
    if (!said.node.ptr || !gw_forwarded_node(said.node, forwarded, &addr))
        return false;
    claim->client = addr;
    return true;
}

void gw_claim_read(struct gw_claim *claim, const struct gw_networks *trusted, bool forwarded,
                   const struct gw_addr *peer, const struct gw_head *head)
{
    struct gw_slice name = forwarded ? GW_SLICE("forwarded") : GW_SLICE("x-forwarded-for");
    unsigned hops = 0;
    *claim = (struct gw_claim){.client = *peer};
    for (unsigned i = head->count; i-- > 0;) {
        struct gw_slice list = head->fields[i].value;
        if (!gw_slice_eq(head->fields[i].name, name))
            continue;
        while (list.len) {
            struct gw_slice element = gw_forwarded_last(&list, forwarded);
            if (++hops > GW_CLAIM_HOPS_MAX)
                return;
            if (element.len && !take(claim, forwarded, element))
                return;
            if (!gw_networks_have(trusted, &claim->client))
                return;
        }
    }
}

enum said { NOTHING, FORWARDED, X_FORWARDED, REAL_IP, DISGUISED };

static enum said said_by(struct gw_slice name)
{
    if (!name.len || (name.ptr[0] != 'x' && name.ptr[0] != 'f'))
        return NOTHING;
    if (gw_slice_eq(name, GW_SLICE("forwarded")))
        return FORWARDED;
    bool disguised = memchr(name.ptr, '_', name.len) != NULL;
    if (gw_field_passes_for(name, GW_SLICE("x-forwarded-")))
        return disguised ? DISGUISED : X_FORWARDED;
    if (name.len == 9 && gw_field_passes_for(name, GW_SLICE("x-real-ip")))
        return disguised ? DISGUISED : REAL_IP;
    return NOTHING;
}

struct gw_slice gw_claim_scheme(struct gw_slice proto)
{
    if (gw_slice_ieq(proto, GW_SLICE("https")) || gw_slice_ieq(proto, GW_SLICE("wss")))
        return GW_SLICE("https");
    if (gw_slice_ieq(proto, GW_SLICE("http")) || gw_slice_ieq(proto, GW_SLICE("ws")))
        return GW_SLICE("http");
    return gw_slice_of(NULL, 0);
}

static bool proto_ok(struct gw_slice proto)
{
    return gw_claim_scheme(proto).ptr != NULL;
}

static bool port_ok(struct gw_slice text)
{
    unsigned port;
    return gw_port_read(text, &port) && port > 0;
}

/* Said twice it is in doubt: one of them may be the client's. */
static void keep_lone(struct gw_head *head, struct gw_slice name, bool (*ok)(struct gw_slice))
{
    unsigned count = 0;
    bool good = true;
    for (unsigned i = 0; i < head->count; i++)
        if (gw_slice_eq(head->fields[i].name, name)) {
            good = good && ok(head->fields[i].value);
            count++;
        }
    if (count && (count > 1 || !good))
        gw_fields_remove(head, name);
}

static bool stays(const struct gw_claim *claim, bool forwarded, enum said said)
{
    if (said == NOTHING)
        return true;
    if (!claim || said == DISGUISED)
        return false;
    return said == REAL_IP || (said == FORWARDED) == forwarded;
}

void gw_claim_sift(const struct gw_claim *claim, bool forwarded, struct gw_head *head)
{
    unsigned kept = 0;
    char host[GW_ADDR_TEXT];
    bool named = false;
    for (unsigned i = 0; i < head->count; i++) {
        enum said said = said_by(head->fields[i].name);
        named |= said == REAL_IP;
        if (stays(claim, forwarded, said))
            head->fields[kept++] = head->fields[i];
    }
    head->count = (uint16_t)kept;
    if (!claim)
        return;
    if (named && gw_addr_is_ip(&claim->client))
        gw_fields_set(head, GW_SLICE("x-real-ip"),
                      gw_slice_str(gw_addr_host(&claim->client, host)));
    else if (named)
        gw_fields_remove(head, GW_SLICE("x-real-ip"));
    keep_lone(head, GW_SLICE("x-forwarded-proto"), proto_ok);
    keep_lone(head, GW_SLICE("x-forwarded-host"), gw_authority_ok);
    keep_lone(head, GW_SLICE("x-forwarded-port"), port_ok);
}
