/* The fields of a head: look up and change, the checks of their syntax, and lists in their values.
 * Called by codecs, exchanges and the script API. Invariant: names inside a head are lower case. */
#include "http/fields.h"

#include "base/check.h"

const struct gw_field *gw_fields_find(const struct gw_head *head, struct gw_slice name)
{
    for (unsigned i = 0; i < head->count; i++)
        if (gw_slice_ieq(head->fields[i].name, name))
            return &head->fields[i];
    return NULL;
}

struct gw_slice gw_fields_get(const struct gw_head *head, struct gw_slice name)
{
    const struct gw_field *field = gw_fields_find(head, name);

    return field ? field->value : gw_slice_of(NULL, 0);
}

bool gw_fields_has(const struct gw_head *head, struct gw_slice name)
{
    return gw_fields_find(head, name) != NULL;
}

static struct gw_slice concat(struct gw_arena *arena, struct gw_slice a, struct gw_slice b)
{
    char *text = gw_arena_alloc(arena, a.len + 2 + b.len + 1);

    memcpy(text, a.ptr, a.len);
    memcpy(text + a.len, ", ", 2);
    memcpy(text + a.len + 2, b.ptr, b.len);
    text[a.len + 2 + b.len] = 0;
    return gw_slice_of(text, a.len + 2 + b.len);
}

struct gw_slice gw_fields_joined(struct gw_head *head, struct gw_slice name)
{
    size_t len = 0, at = 0;
    unsigned found = 0;

    for (unsigned i = 0; i < head->count; i++)
        if (gw_slice_ieq(head->fields[i].name, name)) {
            len += head->fields[i].value.len + 2;
            found++;
        }
    if (found < 2)
        return gw_fields_get(head, name);
    char *text = gw_arena_alloc(head->arena, len);
    for (unsigned i = 0; i < head->count; i++) {
        struct gw_slice value = head->fields[i].value;
        if (!gw_slice_ieq(head->fields[i].name, name))
            continue;
        memcpy(text + at, value.ptr, value.len);
        memcpy(text + at + value.len, ", ", 2);
        at += value.len + 2;
    }
    text[at - 2] = 0; /* over the last comma */
    return gw_slice_of(text, at - 2);
}

/* The caller bounds how many fields a peer or a script can make. */
static void make_room(struct gw_head *head)
{
    size_t cap = head->cap ? head->cap * 2u : 16;

    if (head->count < head->cap)
        return;
    GW_CHECK(head->count < UINT16_MAX);
    if (cap > UINT16_MAX)
        cap = UINT16_MAX;
    head->fields = gw_arena_grow(head->arena, head->fields, head->cap * sizeof(*head->fields),
                                 cap * sizeof(*head->fields));
    head->cap = (uint16_t)cap;
}

static struct gw_slice lower_copy(struct gw_arena *arena, struct gw_slice name)
{
    char *text = gw_arena_alloc(arena, name.len + 1);

    for (size_t i = 0; i < name.len; i++)
        text[i] =
            name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] | 0x20) : name.ptr[i];
    text[name.len] = 0;
    return gw_slice_of(text, name.len);
}

void gw_fields_add_view(struct gw_head *head, struct gw_slice name, struct gw_slice value)
{
    make_room(head);
    head->fields[head->count++] = (struct gw_field){name, value};
}

void gw_fields_add(struct gw_head *head, struct gw_slice name, struct gw_slice value)
{
    name = lower_copy(head->arena, name);
    gw_fields_add_view(head, name, gw_arena_copy(head->arena, value));
}

/* Removes fields of that name from index `from` on. */
static unsigned remove_from(struct gw_head *head, unsigned from, struct gw_slice name)
{
    unsigned kept = from;

    for (unsigned i = from; i < head->count; i++)
        if (!gw_slice_ieq(head->fields[i].name, name))
            head->fields[kept++] = head->fields[i];
    unsigned removed = head->count - kept;
    head->count = (uint16_t)kept;
    return removed;
}

void gw_fields_set(struct gw_head *head, struct gw_slice name, struct gw_slice value)
{
    const struct gw_field *first = gw_fields_find(head, name);

    if (!first) {
        gw_fields_add(head, name, value);
        return;
    }
    unsigned index = (unsigned)(first - head->fields);
    head->fields[index].value = gw_arena_copy(head->arena, value);
    remove_from(head, index + 1, name);
}

void gw_fields_default(struct gw_head *head, struct gw_slice name, struct gw_slice value)
{
    if (!gw_fields_has(head, name))
        gw_fields_add(head, name, value);
}

unsigned gw_fields_remove(struct gw_head *head, struct gw_slice name)
{
    return remove_from(head, 0, name);
}

void gw_fields_append(struct gw_head *head, struct gw_slice name, struct gw_slice value)
{
    for (unsigned i = head->count; i-- > 0;)
        if (gw_slice_ieq(head->fields[i].name, name)) {
            head->fields[i].value = concat(head->arena, head->fields[i].value, value);
            return;
        }
    gw_fields_add(head, name, value);
}

static bool token_char(unsigned char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return true;
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

bool gw_field_name_ok(struct gw_slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!token_char((unsigned char)name.ptr[i]))
            return false;
    return name.len > 0;
}

bool gw_field_value_ok(struct gw_slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

bool gw_field_is_framing(struct gw_slice name)
{
    static const struct gw_slice names[] = {
        {"te", 2},
        {"trailer", 7},
        {"upgrade", 7},
        {"connection", 10},
        {"keep-alive", 10},
        {"content-length", 14},
        {"proxy-connection", 16},
        {"transfer-encoding", 17},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (gw_slice_ieq(names[i], name))
            return true;
    return false;
}

bool gw_field_passes_for(struct gw_slice name, struct gw_slice start)
{
    if (name.len < start.len)
        return false;
    for (size_t i = 0; i < start.len; i++)
        if ((name.ptr[i] == '_' ? '-' : name.ptr[i]) != start.ptr[i])
            return false;
    return true;
}

/* Bytes up to the next comma that is not inside a quoted string. */
static size_t element_len(struct gw_slice list)
{
    bool quoted = false;
    size_t i;

    for (i = 0; i < list.len; i++) {
        char c = list.ptr[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (c == ',' && !quoted)
            break;
    }
    return i < list.len ? i : list.len;
}

bool gw_list_next(struct gw_slice *rest, struct gw_slice *element)
{
    while (rest->len) {
        size_t len = element_len(*rest), step = len < rest->len ? len + 1 : len;
        *element = gw_slice_trim(gw_slice_of(rest->ptr, len));
        rest->ptr += step;
        rest->len -= step;
        if (element->len)
            return true;
    }
    return false;
}

bool gw_fields_have_token(const struct gw_head *head, struct gw_slice name, struct gw_slice token)
{
    for (unsigned i = 0; i < head->count; i++) {
        struct gw_slice rest = head->fields[i].value, element;
        if (!gw_slice_ieq(head->fields[i].name, name))
            continue;
        while (gw_list_next(&rest, &element))
            if (gw_slice_ieq(element, token))
                return true;
    }
    return false;
}

struct gw_slice gw_fields_media_type(const struct gw_head *head)
{
    struct gw_slice type = gw_fields_get(head, GW_SLICE("content-type"));
    const char *mark = type.len ? memchr(type.ptr, ';', type.len) : NULL;

    if (mark)
        type.len = (size_t)(mark - type.ptr);
    return gw_slice_trim(type);
}
