/* The fields of a head, against a plain list: lines of an operator (+ add, = set, ? default, ~
 * append, - remove) and "name:value". Invariant: they are the same after each; and what is packed
 * is exactly as long as was said and unpacks as it was. */
#include "http/fields.h"
#include "support/fuzz.h"

enum { INPUT_MAX = 4096, MODEL_MAX = 256, TEXT_MAX = 3 * INPUT_MAX };

struct pair {
    char *name, *value;
};

static struct pair model[MODEL_MAX];
static unsigned model_count;

static bool is_name(const struct pair *pair, struct gw_slice name)
{
    return strlen(pair->name) == name.len && strncasecmp(pair->name, name.ptr, name.len) == 0;
}

static void model_add(struct gw_slice name, struct gw_slice value)
{
    struct pair *pair = &model[model_count++];
    pair->name = strndup(name.ptr, name.len);
    pair->value = strndup(value.ptr ? value.ptr : "", value.len);
    for (char *c = pair->name; *c; c++)
        *c |= *c >= 'A' && *c <= 'Z' ? 0x20 : 0;
}

static void model_remove(struct gw_slice name, unsigned spared)
{
    unsigned kept = 0, seen = 0;
    for (unsigned i = 0; i < model_count; i++) {
        if (!is_name(&model[i], name) || seen++ < spared) {
            model[kept++] = model[i];
            continue;
        }
        free(model[i].name);
        free(model[i].value);
    }
    model_count = kept;
}

static struct pair *model_find(struct gw_slice name, bool last)
{
    struct pair *found = NULL;
    for (unsigned i = 0; i < model_count && (last || !found); i++)
        if (is_name(&model[i], name))
            found = &model[i];
    return found;
}

static void model_set(struct gw_slice name, struct gw_slice value)
{
    struct pair *first = model_find(name, false);
    if (!first) {
        model_add(name, value);
        return;
    }
    free(first->value);
    first->value = strndup(value.ptr, value.len);
    model_remove(name, 1);
}

static void model_append(struct gw_slice name, struct gw_slice value)
{
    struct pair *last = model_find(name, true);
    char *joined;
    if (!last) {
        model_add(name, value);
        return;
    }
    if (asprintf(&joined, "%s, %.*s", last->value, (int)value.len, value.ptr) < 0)
        abort();
    free(last->value);
    last->value = joined;
}

static void check_same(const struct gw_head *head)
{
    FUZZ_CHECK(head->count == model_count, "%u fields, and not %u", head->count, model_count);
    for (unsigned i = 0; i < model_count; i++) {
        const struct gw_field *field = &head->fields[i];
        FUZZ_CHECK(gw_slice_eq(field->name, gw_slice_str(model[i].name)), "name %u", i);
        FUZZ_CHECK(gw_slice_eq(field->value, gw_slice_str(model[i].value)), "value %u", i);
    }
}

/* Lists: each element is trimmed, and has no comma outside of quotes; then it is found. */
static void check_lists(struct gw_head *head, struct gw_slice name)
{
    struct gw_slice joined = gw_fields_joined(head, name), rest = joined, element;
    const struct pair *first = model_find(name, false);
    FUZZ_CHECK((joined.ptr != NULL) == (first != NULL), "joined");
    FUZZ_CHECK(gw_fields_has(head, name) == (first != NULL), "has");
    const char *end = joined.len ? joined.ptr + joined.len : joined.ptr;
    while (gw_list_next(&rest, &element)) {
        FUZZ_CHECK(element.len && element.ptr >= joined.ptr && element.ptr + element.len <= end,
                   "an element elsewhere");
        FUZZ_CHECK(gw_slice_trim(element).len == element.len, "not trimmed");
        FUZZ_CHECK(memchr(element.ptr, '"', element.len) || !memchr(element.ptr, ',', element.len),
                   "two elements");
        FUZZ_CHECK(memchr(joined.ptr, '"', joined.len) || gw_fields_have_token(head, name, element),
                   "not found");
    }
}

static void change(struct gw_head *head, char op, struct gw_slice name, struct gw_slice value)
{
    switch (op) {
    case '=':
        gw_fields_set(head, name, value);
        model_set(name, value);
        break;
    case '?':
        gw_fields_default(head, name, value);
        if (!model_find(name, false))
            model_add(name, value);
        break;
    case '~':
        gw_fields_append(head, name, value);
        model_append(name, value);
        break;
    case '-':
        gw_fields_remove(head, name);
        model_remove(name, 0);
        break;
    default:
        gw_fields_add(head, name, value);
        model_add(name, value);
    }
    check_lists(head, name);
}

static void check_text(const char *what, struct gw_slice a, struct gw_slice b)
{
    FUZZ_CHECK(a.len == b.len && (!a.len || memcmp(a.ptr, b.ptr, a.len) == 0), "%s changed", what);
}

static void check_packed(const struct gw_head *head)
{
    struct gw_arena arena;
    struct gw_head back;
    size_t size = gw_head_packed_size(head);
    char *packed = malloc(size); /* what goes beyond it is seen */
    FUZZ_CHECK(packed, "memory");
    gw_head_pack(head, packed);
    gw_arena_init(&arena);
    gw_head_init(&back, &arena);
    gw_head_unpack(&back, packed);
    free(packed);
    check_same(&back);
    check_text("method", head->method, back.method);
    check_text("scheme", head->scheme, back.scheme);
    check_text("authority", head->authority, back.authority);
    check_text("path", head->path, back.path);
    check_text("upgrade", head->upgrade_to, back.upgrade_to);
    FUZZ_CHECK(head->status == back.status && head->minor == back.minor, "status");
    FUZZ_CHECK(head->length == back.length && head->has_body == back.has_body, "body");
    FUZZ_CHECK(head->upgrade == back.upgrade && head->expect_continue == back.expect_continue,
               "flags");
    FUZZ_CHECK(gw_head_packed_size(&back) == size, "another size");
    gw_arena_clear(&arena);
}

/* The first line is what is not a field. */
static void set_up(struct gw_head *head, struct gw_slice line)
{
    struct gw_slice *texts[] = {&head->method, &head->path, &head->authority, &head->scheme,
                                &head->upgrade_to};
    uint64_t seed = fuzz_seed((const uint8_t *)line.ptr, line.len);
    for (size_t i = 0, n; i < sizeof texts / sizeof *texts && line.len; i++) {
        const char *blank = memchr(line.ptr, ' ', line.len);
        n = blank ? (size_t)(blank - line.ptr) : line.len;
        *texts[i] = gw_slice_of(line.ptr, n);
        n += blank != NULL;
        line = gw_slice_of(line.ptr + n, line.len - n);
    }
    head->status = fuzz_next(&seed) % 1000;
    head->minor = fuzz_next(&seed) % 2;
    head->length = fuzz_next(&seed) % 3 ? (int64_t)fuzz_next(&seed) << 20 : GW_LENGTH_UNKNOWN;
    head->has_body = fuzz_next(&seed) % 2;
    head->upgrade = fuzz_next(&seed) % 2;
    head->expect_continue = fuzz_next(&seed) % 2;
}

static void run(struct gw_head *head, const char *text, size_t len)
{
    size_t budget = TEXT_MAX; /* appending again and again would grow without end */
    for (const char *at = text, *end = text + len, *line; at < end; at++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        line = at;
        at = stop ? stop : end;
        struct gw_slice all = gw_slice_of(line, (size_t)(at - line));
        const char *colon = memchr(line, ':', all.len);
        if (line == text) {
            set_up(head, all);
            continue;
        }
        if (!colon || colon <= line + 1 || model_count == MODEL_MAX || all.len > budget)
            continue;
        struct gw_slice name = gw_slice_of(line + 1, (size_t)(colon - line) - 1);
        struct gw_slice value = gw_slice_trim(gw_slice_of(colon + 1, (size_t)(at - colon) - 1));
        if (!gw_field_name_ok(name) || !gw_field_value_ok(value))
            continue;
        budget -= all.len;
        change(head, *line, name, value);
        check_same(head);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_arena arena;
    struct gw_head head;
    if (size > INPUT_MAX)
        return 0;
    char *exact = fuzz_exact(data, size);
    gw_arena_init(&arena);
    gw_head_init(&head, &arena);
    run(&head, exact, size);
    check_packed(&head);
    while (model_count) {
        free(model[--model_count].name);
        free(model[model_count].value);
    }
    gw_arena_clear(&arena);
    free(exact);
    return 0;
}
