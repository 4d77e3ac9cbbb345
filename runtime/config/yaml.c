/* Reads YAML for the configuration: libyaml's events become Lua tables and, beside each value, a
 * mark that says where it stood. Called from Lua only (gateway.core.yaml, specs).
 * Invariant: no value is in the tree without its mark, so every complaint can name a line. */
#include "config/yaml.h"

#include <lauxlib.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { max_depth = 64, max_nodes = 100000, max_text = 8 << 20 };

struct reader {
    lua_State *L;
    yaml_parser_t parser;
    yaml_event_t event;
    const char *text;
    size_t length;
    int anchors; /* stack index of: name -> {value, mark, nodes, height} */
    size_t nodes;
    bool failed; /* the three below say where and why */
    size_t line, col;
    char message[256];
};

static int read_node(struct reader *r, int depth);

static int fail_at(struct reader *r, size_t line, size_t col, const char *format, ...)
    __attribute__((format(printf, 4, 5), noreturn));

/* Leaves the parser for gw_yaml_parse, which frees what libyaml holds. */
static int fail_at(struct reader *r, size_t line, size_t col, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->message, sizeof r->message, format, args);
    va_end(args);
    r->line = line;
    r->col = col;
    r->failed = true;
    lua_pushnil(r->L);
    lua_error(r->L);
    __builtin_unreachable();
}

#define FAIL(r, ...)                                                                               \
    fail_at((r), (r)->event.start_mark.line + 1, (r)->event.start_mark.column + 1, __VA_ARGS__)

/* A tab in front of a line's text is the usual cause of libyaml's least clear complaint. */
static bool line_starts_with_tab(const struct reader *r, size_t line)
{
    const char *at = r->text, *end = r->text + r->length;
    while (line-- > 0 && at) {
        at = memchr(at, '\n', end - at);
        at = at ? at + 1 : NULL;
    }
    for (; at && at < end && (*at == ' ' || *at == '\t'); at++)
        if (*at == '\t')
            return true;
    return false;
}

/* libyaml gives reader errors (bad UTF-8, control characters) as an offset in bytes. */
static void fail_reader(struct reader *r)
{
    const char *stop = r->text;
    size_t line = 1, col = 1;
    if (r->parser.problem_offset < r->length)
        stop += r->parser.problem_offset;
    for (const char *at = r->text; at < stop; at++) {
        bool newline = *at == '\n';
        line += newline;
        col = newline ? 1 : col + ((*at & 0xC0) != 0x80);
    }
    fail_at(r, line, col, "not valid YAML text: %s", r->parser.problem);
}

static void fail_parser(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    size_t line = p->problem_mark.line;
    if (p->error == YAML_READER_ERROR)
        fail_reader(r);
    if (!p->problem)
        fail_at(r, line + 1, 1, "out of memory");
    if (line_starts_with_tab(r, line))
        fail_at(r, line + 1, 1, "a tab indents this line; YAML wants spaces");
    if (p->context && p->context_mark.line != line)
        fail_at(r, line + 1, p->problem_mark.column + 1, "%s (%s that began on line %zu)",
                p->problem, p->context, p->context_mark.line + 1);
    fail_at(r, line + 1, p->problem_mark.column + 1, "%s%s%s", p->problem, p->context ? " " : "",
            p->context ? p->context : "");
}

static void next_event(struct reader *r)
{
    yaml_event_delete(&r->event);
    if (!yaml_parser_parse(&r->parser, &r->event))
        fail_parser(r);
}

static void count_nodes(struct reader *r, size_t more)
{
    r->nodes += more;
    if (r->nodes > max_nodes)
        FAIL(r, "too many values (%d at most, aliases counted each time)", max_nodes);
}

static void check_depth(struct reader *r, int depth)
{
    if (depth > max_depth)
        FAIL(r, "nested too deeply (%d levels at most)", max_depth);
}

static void push_position(lua_State *L, yaml_mark_t mark)
{
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, (lua_Integer)mark.line + 1);
    lua_setfield(L, -2, "line");
    lua_pushinteger(L, (lua_Integer)mark.column + 1);
    lua_setfield(L, -2, "col");
}

static void push_mark(struct reader *r, const char *kind)
{
    push_position(r->L, r->event.start_mark);
    lua_pushstring(r->L, kind);
    lua_setfield(r->L, -2, "kind");
}

/* Scalars: the tag resolution of YAML 1.2, section 10.3.2. */

static bool one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

static bool is_null(const char *text)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};
    return one_of(text, words);
}

static bool is_digits(const char *text, const char *set)
{
    const char *at = text;
    while (*at && strchr(set, *at))
        at++;
    return at > text && *at == '\0';
}

static bool is_integer(const char *text)
{
    return is_digits(text + (*text == '-' || *text == '+'), "0123456789");
}

static bool is_prefixed(const char *text)
{
    return (strncmp(text, "0x", 2) == 0 && is_digits(text + 2, "0123456789abcdefABCDEF")) ||
           (strncmp(text, "0o", 2) == 0 && is_digits(text + 2, "01234567"));
}

static bool is_float(const char *text)
{
    const char *digits = "0123456789";
    text += *text == '-' || *text == '+';
    size_t whole = strspn(text, digits), part = 0;
    text += whole;
    if (*text == '.') {
        part = strspn(text + 1, digits);
        text += 1 + part;
    }
    if (whole + part == 0)
        return false;
    return *text == '\0' || ((*text == 'e' || *text == 'E') && is_integer(text + 1));
}

/* Pushes infinity or not-a-number; false if the text is neither. */
static bool push_special(lua_State *L, const char *text)
{
    static const char *const infinite[] = {".inf", ".Inf", ".INF", NULL};
    static const char *const nan[] = {".nan", ".NaN", ".NAN", NULL};
    bool sign = *text == '-' || *text == '+';
    if (one_of(text + sign, infinite))
        lua_pushnumber(L, *text == '-' ? -__builtin_inf() : __builtin_inf());
    else if (one_of(text, nan))
        lua_pushnumber(L, __builtin_nan(""));
    else
        return false;
    return true;
}

static void push_prefixed(lua_State *L, const char *text)
{
    double base = text[1] == 'x' ? 16 : 8, value = 0;
    for (text += 2; *text; text++)
        value = value * base + (*text <= '9' ? *text - '0' : (*text | 0x20) - 'a' + 10);
    lua_pushnumber(L, value);
}

/* Lua's own conversion does not depend on the locale, strtod does. */
static void push_decimal(lua_State *L, const char *text)
{
    lua_pushstring(L, text + (*text == '+'));
    lua_Number value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    lua_pushnumber(L, value);
}

/* Pushes a plain scalar as the core schema reads it. Returns the tag it resolved to. */
static const char *push_plain(lua_State *L, const char *text, size_t length)
{
    static const char *const yes[] = {"true", "True", "TRUE", NULL};
    static const char *const no[] = {"false", "False", "FALSE", NULL};
    bool is_true = one_of(text, yes);
    if (is_null(text))
        return lua_pushlightuserdata(L, NULL), YAML_NULL_TAG;
    if (is_true || one_of(text, no))
        return lua_pushboolean(L, is_true), YAML_BOOL_TAG;
    if (is_prefixed(text))
        return push_prefixed(L, text), YAML_INT_TAG;
    if (is_float(text))
        return push_decimal(L, text), is_integer(text) ? YAML_INT_TAG : YAML_FLOAT_TAG;
    if (push_special(L, text))
        return YAML_FLOAT_TAG;
    return lua_pushlstring(L, text, length), YAML_STR_TAG;
}

/* A written tag must be one of the core schema's, and fit the text. */
static void push_tagged(struct reader *r, const char *tag, const char *text, size_t length)
{
    static const char *const known[] = {YAML_NULL_TAG,  YAML_BOOL_TAG, YAML_INT_TAG,
                                        YAML_FLOAT_TAG, YAML_STR_TAG,  NULL};
    if (!one_of(tag, known))
        FAIL(r, "unknown tag \"%.60s\"", tag);
    if (strcmp(tag, YAML_STR_TAG) == 0) {
        lua_pushlstring(r->L, text, length);
        return;
    }
    const char *found = push_plain(r->L, text, length);
    bool widened = strcmp(tag, YAML_FLOAT_TAG) == 0 && strcmp(found, YAML_INT_TAG) == 0;
    if (strcmp(tag, found) != 0 && !widened)
        FAIL(r, "\"%.60s\" is not of the type that its tag names", text);
}

static int read_scalar(struct reader *r)
{
    lua_State *L = r->L;
    const char *text = (const char *)r->event.data.scalar.value;
    const char *tag = (const char *)r->event.data.scalar.tag;
    size_t length = r->event.data.scalar.length;
    bool plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !tag;
    if (tag)
        push_tagged(r, tag, text, length);
    else if (plain)
        push_plain(L, text, length);
    else
        lua_pushlstring(L, text, length);
    push_mark(r, "scalar");
    lua_pushboolean(L, plain);
    lua_setfield(L, -2, "plain");
    if (lua_type(L, -2) != LUA_TSTRING) {
        lua_pushlstring(L, text, length);
        lua_setfield(L, -2, "text");
    }
    return 1;
}

/* Aliases share the tables of their anchor, but are counted as if they were written out: neither
 * memory nor the time of whoever walks the tree can grow past the bound. */

static int read_alias(struct reader *r, int depth)
{
    lua_State *L = r->L;
    const char *name = (const char *)r->event.data.alias.anchor;
    lua_getfield(L, r->anchors, name);
    if (!lua_istable(L, -1))
        FAIL(r, "alias \"*%.60s\" without a finished anchor \"&%.60s\" before it", name, name);
    int entry = lua_gettop(L), height;
    lua_rawgeti(L, entry, 3);
    count_nodes(r, (size_t)lua_tointeger(L, -1));
    lua_rawgeti(L, entry, 4);
    height = (int)lua_tointeger(L, -1);
    check_depth(r, depth + height - 1);
    lua_pop(L, 2);
    lua_rawgeti(L, entry, 1);
    lua_rawgeti(L, entry, 2);
    lua_remove(L, entry);
    return height;
}

static void check_collection_tag(struct reader *r, const yaml_char_t *tag, const char *wanted)
{
    if (tag && strcmp((const char *)tag, wanted) != 0 && strcmp((const char *)tag, "!") != 0)
        FAIL(r, "unknown tag \"%.60s\"", (const char *)tag);
}

static int read_list(struct reader *r, int depth)
{
    lua_State *L = r->L;
    int height = 0;
    check_collection_tag(r, r->event.data.sequence_start.tag, YAML_SEQ_TAG);
    lua_newtable(L);
    push_mark(r, "list");
    lua_newtable(L);
    int at = lua_gettop(L), mark = at - 1, value = at - 2;
    next_event(r);
    for (int i = 1; r->event.type != YAML_SEQUENCE_END_EVENT; i++) {
        int below = read_node(r, depth + 1);
        height = below > height ? below : height;
        lua_rawseti(L, at, i);
        lua_rawseti(L, value, i);
        next_event(r);
    }
    lua_setfield(L, mark, "at");
    return height + 1;
}

/* The stack of a map that is being read, from `value` on. */
struct map {
    int value, mark, keys, at, key_at, merges, key;
};

static struct map push_map(struct reader *r)
{
    lua_State *L = r->L;
    struct map m = {.value = lua_gettop(L) + 1};
    lua_newtable(L);
    push_mark(r, "map");
    for (int i = 0; i < 4; i++)
        lua_newtable(L);
    m.mark = m.value + 1;
    m.keys = m.value + 2;
    m.at = m.value + 3;
    m.key_at = m.value + 4;
    m.merges = m.value + 5;
    m.key = m.value + 6;
    return m;
}

static bool has_key(lua_State *L, int table, int key)
{
    lua_pushvalue(L, key);
    lua_rawget(L, table);
    bool found = !lua_isnil(L, -1);
    lua_pop(L, 1);
    return found;
}

/* table[key] = the value on top, which is popped. */
static void set_key(lua_State *L, int table, int key)
{
    lua_pushvalue(L, key);
    lua_insert(L, -2);
    lua_rawset(L, table);
}

static void append(lua_State *L, int list, int index)
{
    lua_pushvalue(L, index);
    lua_rawseti(L, list, (int)lua_objlen(L, list) + 1);
}

/* Pushes the key at m->key and notes its position, whether it belongs to a value or a merge. */
static bool read_key(struct reader *r, struct map *m)
{
    lua_State *L = r->L;
    if (r->event.type != YAML_SCALAR_EVENT)
        FAIL(r, "a key must be a plain word or a text");
    const char *text = (const char *)r->event.data.scalar.value;
    size_t length = r->event.data.scalar.length;
    bool merge = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE && strcmp(text, "<<") == 0;
    if (length == 0)
        FAIL(r, "a key is empty");
    lua_pushlstring(L, text, length);
    if (has_key(L, m->key_at, m->key)) {
        lua_pushvalue(L, m->key);
        lua_rawget(L, m->key_at);
        lua_getfield(L, -1, "line");
        FAIL(r, "key \"%.60s\" appears twice (first on line %d)", text, (int)lua_tointeger(L, -1));
    }
    push_position(L, r->event.start_mark);
    set_key(L, m->key_at, m->key);
    return merge;
}

/* Stack: the key, a value, its mark. Queues the maps of a merge for the end of this one. */
static void queue_merge(struct reader *r, struct map *m)
{
    lua_State *L = r->L;
    int mark = lua_gettop(L);
    lua_getfield(L, mark, "kind");
    const char *kind = lua_tostring(L, -1);
    lua_getfield(L, mark, "at");
    int count = strcmp(kind, "list") == 0 ? (int)lua_objlen(L, -1) : 0;
    if (strcmp(kind, "map") == 0) {
        append(L, m->merges, mark - 1);
        append(L, m->merges, mark);
    }
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, mark - 1, i);
        append(L, m->merges, lua_gettop(L));
        lua_rawgeti(L, mark + 2, i);
        append(L, m->merges, lua_gettop(L));
        lua_getfield(L, -1, "keys");
        if (lua_isnil(L, -1))
            kind = "scalar";
        lua_pop(L, 3);
    }
    lua_getfield(L, m->key_at, "<<");
    if (strcmp(kind, "scalar") == 0)
        FAIL(r, "\"<<\" merges a map or a list of maps");
}

/* Stack: a merge's value and mark. Takes over the keys that are not there yet. */
static void merge_one(lua_State *L, const struct map *m)
{
    int mark = lua_gettop(L), value = mark - 1;
    lua_getfield(L, mark, "keys");
    lua_getfield(L, mark, "at");
    lua_getfield(L, mark, "key_at");
    for (int i = 1; i <= (int)lua_objlen(L, mark + 1); i++) {
        lua_rawgeti(L, mark + 1, i);
        int key = lua_gettop(L);
        if (!has_key(L, m->at, key)) {
            append(L, m->keys, key);
            lua_pushvalue(L, key), lua_rawget(L, value), set_key(L, m->value, key);
            lua_pushvalue(L, key), lua_rawget(L, mark + 2), set_key(L, m->at, key);
            lua_pushvalue(L, key), lua_rawget(L, mark + 3), set_key(L, m->key_at, key);
        }
        lua_settop(L, key - 1);
    }
}

static void apply_merges(lua_State *L, const struct map *m)
{
    int count = (int)lua_objlen(L, m->merges);
    for (int i = 1; i < count; i += 2) {
        lua_rawgeti(L, m->merges, i);
        lua_rawgeti(L, m->merges, i + 1);
        merge_one(L, m);
        lua_settop(L, m->merges);
    }
}

static void finish_map(lua_State *L, const struct map *m)
{
    apply_merges(L, m);
    lua_settop(L, m->key_at);
    lua_setfield(L, m->mark, "key_at");
    lua_setfield(L, m->mark, "at");
    lua_setfield(L, m->mark, "keys");
}

static int read_map(struct reader *r, int depth)
{
    lua_State *L = r->L;
    int height = 0;
    check_collection_tag(r, r->event.data.mapping_start.tag, YAML_MAP_TAG);
    struct map m = push_map(r);
    next_event(r);
    while (r->event.type != YAML_MAPPING_END_EVENT) {
        bool merge = read_key(r, &m);
        next_event(r);
        int below = read_node(r, depth + 1);
        height = below > height ? below : height;
        if (merge) {
            queue_merge(r, &m);
        } else {
            set_key(L, m.at, m.key);
            set_key(L, m.value, m.key);
            append(L, m.keys, m.key);
        }
        lua_settop(L, m.merges);
        next_event(r);
    }
    finish_map(L, &m);
    return height + 1;
}

/* The name's earlier meaning ends where the anchor is written, so no value can contain itself. */
static void push_anchor(struct reader *r)
{
    const yaml_event_t *e = &r->event;
    const yaml_char_t *name = NULL;
    if (e->type == YAML_SCALAR_EVENT)
        name = e->data.scalar.anchor;
    else if (e->type == YAML_SEQUENCE_START_EVENT)
        name = e->data.sequence_start.anchor;
    else if (e->type == YAML_MAPPING_START_EVENT)
        name = e->data.mapping_start.anchor;
    lua_pushstring(r->L, (const char *)name);
    if (name) {
        lua_pushnil(r->L);
        lua_setfield(r->L, r->anchors, (const char *)name);
    }
}

/* Stack: anchor's name or nil, value, mark. Removes the first. */
static void note_anchor(struct reader *r, size_t nodes, int height)
{
    lua_State *L = r->L;
    int name = lua_gettop(L) - 2;
    if (!lua_isnil(L, name)) {
        lua_pushvalue(L, name);
        lua_createtable(L, 4, 0);
        lua_pushvalue(L, name + 1);
        lua_rawseti(L, -2, 1);
        lua_pushvalue(L, name + 2);
        lua_rawseti(L, -2, 2);
        lua_pushinteger(L, (lua_Integer)nodes);
        lua_rawseti(L, -2, 3);
        lua_pushinteger(L, height);
        lua_rawseti(L, -2, 4);
        lua_rawset(L, r->anchors);
    }
    lua_remove(L, name);
}

/* Pushes the value that the current event begins, and its mark. Returns how many levels it has. */
static int read_node(struct reader *r, int depth)
{
    size_t before = r->nodes;
    int height;
    check_depth(r, depth);
    luaL_checkstack(r->L, 32, "yaml");
    if (r->event.type == YAML_ALIAS_EVENT)
        return read_alias(r, depth);
    count_nodes(r, 1);
    push_anchor(r);
    if (r->event.type == YAML_MAPPING_START_EVENT)
        height = read_map(r, depth);
    else if (r->event.type == YAML_SEQUENCE_START_EVENT)
        height = read_list(r, depth);
    else
        height = read_scalar(r);
    note_anchor(r, r->nodes - before, height);
    return height;
}

static void push_empty(struct reader *r)
{
    lua_pushlightuserdata(r->L, NULL);
    push_mark(r, "scalar");
}

/* Runs protected: any Lua error in here comes back to gw_yaml_parse. */
static int read_document(lua_State *L)
{
    struct reader *r = lua_touserdata(L, 1);
    lua_newtable(L);
    r->anchors = lua_gettop(L);
    next_event(r); /* the start of the stream */
    next_event(r);
    if (r->event.type == YAML_STREAM_END_EVENT) {
        push_empty(r);
        return 2;
    }
    next_event(r);
    read_node(r, 1);
    next_event(r); /* the end of the document */
    next_event(r);
    if (r->event.type != YAML_STREAM_END_EVENT)
        FAIL(r, "a second document begins here; one file holds one");
    return 2;
}

static int push_failure(const struct reader *r)
{
    lua_State *L = r->L;
    lua_pushnil(L);
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, (lua_Integer)r->line);
    lua_setfield(L, -2, "line");
    lua_pushinteger(L, (lua_Integer)r->col);
    lua_setfield(L, -2, "col");
    lua_pushstring(L, r->message);
    lua_setfield(L, -2, "message");
    return 2;
}

/* libyaml counts a byte order mark as a column; the reader of an error message does not. */
static void take_text(struct reader *r, const char *text, size_t length)
{
    bool bom = length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0;
    r->text = text + (bom ? 3 : 0);
    r->length = length - (bom ? 3 : 0);
}

int gw_yaml_parse(lua_State *L)
{
    struct reader r = {.L = L};
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    luaL_optstring(L, 2, NULL);
    lua_settop(L, 2);
    take_text(&r, text, length);
    if (length > max_text) {
        r.line = r.col = 1;
        snprintf(r.message, sizeof r.message, "longer than %d bytes", max_text);
        return push_failure(&r);
    }
    lua_pushcfunction(L, read_document);
    lua_pushlightuserdata(L, &r);
    if (!yaml_parser_initialize(&r.parser))
        return luaL_error(L, "yaml: out of memory");
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)r.text, r.length);
    int rc = lua_pcall(L, 1, 2, 0);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    if (rc != 0)
        return r.failed ? push_failure(&r) : lua_error(L);
    lua_pushvalue(L, 2);
    lua_setfield(L, -2, "file");
    return 2;
}

int luaopen_gateway_yaml(lua_State *L)
{
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, gw_yaml_parse);
    lua_setfield(L, -2, "parse");
    return 1;
}
