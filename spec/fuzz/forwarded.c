/* What requests say of their client: the first byte tells whether Forwarded counts, then lines of
 * "name:value". Invariant: where all of a list can be read, its client is whom a reading from the
 * front finds, however the list is spread over lines; and nothing that is not to be said is left.
 */
#include "http/forwarded.h"

#include <arpa/inet.h>
#include <ctype.h>
#include "gateway/claim.h"
#include "http/fields.h"
#include "support/fuzz.h"

enum { INPUT_MAX = 4096, FIELDS = 64, ELEMENTS = 48 };

static struct gw_networks trusted;
static struct gw_addr peer;

static void prepare(void)
{
    static const char *const texts[] = {"10.0.0.0/8", "192.0.2.1", "fc00::/7"};
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
        FUZZ_CHECK(gw_network_parse(&trusted.of[i], texts[i]), "%s", texts[i]);
    trusted.count = sizeof texts / sizeof *texts;
    FUZZ_CHECK(gw_addr_parse(&peer, "10.0.0.1", 1), "peer");
}

/* Reading from the front. */

struct elements {
    struct gw_slice node[ELEMENTS]; /* ptr NULL: it says nothing of that */
    unsigned count;
    bool odd; /* some of it can't be read, or there are too many */
};

static void note(struct elements *all, struct gw_slice node)
{
    if (all->count == ELEMENTS)
        all->odd = true;
    else
        all->node[all->count++] = node;
}

static void read_plain(struct elements *all, struct gw_slice value)
{
    for (size_t i = 0, from = 0; i <= value.len; i++) {
        if (i < value.len && value.ptr[i] != ',')
            continue;
        struct gw_slice node = gw_slice_trim(gw_slice_of(value.ptr + from, i - from));
        if (node.len)
            note(all, node);
        from = i + 1;
    }
}

static bool is_token(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static size_t skip_token(struct gw_slice s, size_t at)
{
    while (at < s.len && is_token(s.ptr[at]))
        at++;
    return at;
}

/* A token, or a quoted string without anything escaped; *at is behind it. False: neither. */
static bool read_value(struct gw_slice s, size_t *at, struct gw_slice *out)
{
    size_t from = *at;
    if (from < s.len && s.ptr[from] == '"') {
        const char *end = memchr(s.ptr + from + 1, '"', s.len - from - 1);
        *out = gw_slice_of(s.ptr + from + 1, end ? (size_t)(end - s.ptr) - from - 1 : 0);
        *at = from + out->len + 2;
        return end && !memchr(out->ptr, '\\', out->len);
    }
    *at = skip_token(s, from);
    *out = gw_slice_of(s.ptr + from, *at - from);
    return out->len > 0;
}

/* 1: `for`; 0: what does not count. */
static unsigned what_of(struct gw_slice name)
{
    if (gw_slice_ieq(name, GW_SLICE("for")))
        return 1;
    return gw_slice_ieq(name, GW_SLICE("proto")) ? 2 : gw_slice_ieq(name, GW_SLICE("host")) ? 4 : 0;
}

/* RFC 7239, section 4, without blanks but behind commas. */
static void read_rfc7239(struct elements *all, struct gw_slice s)
{
    struct gw_slice node = {0}, value;
    unsigned said = 0;
    for (size_t at = 0; at < s.len && !all->odd;) {
        size_t from = at, end = skip_token(s, at);
        at = end + 1;
        if (end == from || end >= s.len || s.ptr[end] != '=' || !read_value(s, &at, &value)) {
            all->odd = true;
            return;
        }
        unsigned what = what_of(gw_slice_of(s.ptr + from, end - from));
        all->odd |= (said & what) != 0; /* twice in one element */
        said |= what;
        if (what == 1)
            node = value;
        if (at < s.len && s.ptr[at] == ';') {
            all->odd |= ++at == s.len; /* allowed, but not plain */
            continue;
        }
        note(all, node);
        node = gw_slice_of(NULL, 0);
        said = 0;
        all->odd |= at < s.len && s.ptr[at] != ',';
        for (at++; at < s.len && s.ptr[at] == ' '; at++)
            continue;
    }
}

static bool read_number(const char *text)
{
    size_t n = strspn(text, "0123456789");
    return n && n <= 5 && !text[n] && atoi(text) <= 65535;
}

static const char obfuscated[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

/* The address of a node without its port; false where it is none, or not plainly so. */
static bool plain_node(struct gw_slice node, bool strict, struct gw_addr *out)
{
    char text[65], *host = text, *port = NULL;
    unsigned char ip[16];
    union gw_sockaddr sa = {0};
    if (node.len > 64 || memchr(node.ptr, '\0', node.len))
        return false;
    memcpy(text, node.ptr, node.len);
    text[node.len] = '\0';
    bool bracketed = *text == '[', six = bracketed;
    if (bracketed) {
        char *end = strchr(++host, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        port = end[1] ? end + 2 : NULL;
        *end = '\0';
    } else if (strchr(text, ':') && strchr(text, ':') == strrchr(text, ':')) {
        port = strchr(text, ':') + 1;
        port[-1] = '\0';
    } else {
        six = strchr(text, ':') != NULL;
    }
    bool hidden =
        strict && port && *port == '_' && port[1] && !port[1 + strspn(port + 1, obfuscated)];
    if ((port && !hidden && !read_number(port)) || (strict && six != bracketed) ||
        inet_pton(six ? AF_INET6 : AF_INET, host, ip) != 1)
        return false;
    sa.any.sa_family = six ? AF_INET6 : AF_INET;
    memcpy(six ? (void *)&sa.v6.sin6_addr : (void *)&sa.v4.sin_addr, ip, six ? 16 : 4);
    gw_addr_set(out, &sa.any, sizeof sa);
    gw_addr_undress(out);
    return true;
}

static bool same_host(const struct gw_addr *a, const struct gw_addr *b)
{
    char x[GW_ADDR_TEXT], y[GW_ADDR_TEXT];
    return strcmp(gw_addr_host(a, x), gw_addr_host(b, y)) == 0;
}

static void check_client(const struct elements *all, bool strict, const struct gw_addr *client)
{
    struct gw_addr expected = peer, next;
    for (unsigned i = all->count; i-- > 0;) {
        if (!all->node[i].ptr || !plain_node(all->node[i], strict, &next))
            break;
        expected = next;
        if (!gw_networks_have(&trusted, &expected))
            break;
    }
    FUZZ_CHECK(same_host(client, &expected), "another client, of %u", all->count);
}

/* What is left. */

static void plain_name(struct gw_slice name, char *out)
{
    size_t n = name.len < 31 ? name.len : 31;
    for (size_t i = 0; i < n; i++)
        out[i] = name.ptr[i] == '_' ? '-' : name.ptr[i];
    out[n] = '\0';
}

static unsigned count_of(const struct gw_head *head, const char *name)
{
    unsigned n = 0;
    for (unsigned i = 0; i < head->count; i++)
        n += gw_slice_eq(head->fields[i].name, gw_slice_str(name));
    return n;
}

static unsigned count_others(const struct gw_head *head)
{
    char name[32];
    unsigned n = 0;
    for (unsigned i = 0; i < head->count; i++) {
        plain_name(head->fields[i].name, name);
        n += strncmp(name, "x-forwarded-", 12) != 0 && strcmp(name, "x-real-ip") != 0 &&
             strcmp(name, "forwarded") != 0;
    }
    return n;
}

static void check_sifted(const struct gw_head *head, unsigned others, bool forwarded)
{
    FUZZ_CHECK(count_others(head) == others, "others were %u", others);
    for (unsigned i = 0; i < head->count; i++) {
        char name[32];
        plain_name(head->fields[i].name, name);
        bool x = strncmp(name, "x-forwarded-", 12) == 0;
        bool ours = x || strcmp(name, "x-real-ip") == 0;
        FUZZ_CHECK(!ours || !memchr(head->fields[i].name.ptr, '_', head->fields[i].name.len),
                   "disguised: %s", name);
        FUZZ_CHECK(!(forwarded ? x : strcmp(name, "forwarded") == 0), "left: %s", name);
    }
    FUZZ_CHECK(count_of(head, "x-real-ip") <= 1, "two clients");
    FUZZ_CHECK(count_of(head, "x-forwarded-proto") <= 1, "two schemes");
    FUZZ_CHECK(count_of(head, "x-forwarded-host") <= 1, "two hosts");
    FUZZ_CHECK(count_of(head, "x-forwarded-port") <= 1, "two ports");
}

/* As a codec would give it: names in lower case, values trimmed. */
static void add_lines(struct gw_head *head, const char *text, size_t len)
{
    for (const char *at = text, *end = text + len, *line; at < end && head->count < FIELDS;) {
        line = at;
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        at = stop + 1;
        const char *colon = memchr(line, ':', (size_t)(stop - line));
        if (!colon)
            continue;
        struct gw_slice name = gw_slice_of(line, (size_t)(colon - line));
        struct gw_slice value = gw_slice_trim(gw_slice_of(colon + 1, (size_t)(stop - colon) - 1));
        if (gw_field_name_ok(name) && gw_field_value_ok(value))
            gw_fields_add(head, name, value);
    }
}

static struct gw_head copy_of(const struct gw_head *head)
{
    struct gw_head copy = *head;
    copy.cap = FIELDS + 1;
    copy.fields = gw_arena_alloc(head->arena, copy.cap * sizeof *head->fields);
    if (head->count)
        memcpy(copy.fields, head->fields, head->count * sizeof *head->fields);
    return copy;
}

static void check(const struct gw_head *head, bool forwarded)
{
    const char *name = forwarded ? "forwarded" : "x-forwarded-for";
    struct gw_claim claim;
    struct elements all = {0};
    gw_claim_read(&claim, &trusted, forwarded, &peer, head);
    for (unsigned i = 0; i < head->count; i++) {
        if (!gw_slice_eq(head->fields[i].name, gw_slice_str(name)))
            continue;
        if (forwarded)
            read_rfc7239(&all, head->fields[i].value);
        else
            read_plain(&all, head->fields[i].value);
    }
    if (!all.odd)
        check_client(&all, forwarded, &claim.client);
    struct gw_head sifted = copy_of(head), none = copy_of(head);
    gw_claim_sift(&claim, forwarded, &sifted);
    check_sifted(&sifted, count_others(head), forwarded);
    gw_claim_sift(NULL, forwarded, &none);
    FUZZ_CHECK(none.count == count_others(head), "something is said still");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_arena arena;
    struct gw_head head;
    if (size < 1 || size > INPUT_MAX)
        return 0;
    if (!trusted.count)
        prepare();
    char *exact = fuzz_exact(data + 1, size - 1);
    gw_arena_init(&arena);
    gw_head_init(&head, &arena);
    add_lines(&head, exact, size - 1);
    check(&head, data[0] & 1);
    gw_arena_clear(&arena);
    free(exact);
    return 0;
}
