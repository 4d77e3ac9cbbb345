/* Owns nothing. Called by the event object, and by gateway.json before it asks cjson. Invariant:
 * what is done here comes out as gateway.json does it by itself; everything else is left to it. */
#include "script/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "script/api.h"
#include "sse/json_field.h"
#include "sse/json_text.h"

enum {
    DEPTH = 100,       /* of containers in each other; gateway.json allows more */
    HELD = 16,         /* members that wait on the stack until their table is made */
    NUMBER_TEXT = 40,  /* bytes of a number, at most, in both directions */
    EXACT_DIGITS = 16, /* so many may be exact in a double */
    WINDOW = 4096,     /* bytes reserved at once: a large chunk, so that a text is rarely in two */
    SHORT = 512        /* a string with escapes that is put together on the C stack */
};

static const int64_t EXACT_MAX = 1LL << 53;

struct reader {
    lua_State *L;
    struct gw_vm *vm;
    const char *p, *end;
    unsigned depth;
};

static bool push_value(struct reader *r);

static void skip_blanks(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\t' || *r->p == '\r'))
        r->p++;
}

static bool take(struct reader *r, char byte)
{
    skip_blanks(r);
    if (r->p == r->end || *r->p != byte)
        return false;
    r->p++;
    return true;
}

static bool take_word(struct reader *r, const char *word, size_t len)
{
    if ((size_t)(r->end - r->p) < len || memcmp(r->p, word, len) != 0)
        return false;
    r->p += len;
    return true;
}

/* Halves of a surrogate pair: cjson has an opinion about them. */
static bool has_surrogate(struct gw_slice text)
{
    const char *p = text.ptr, *end = p + text.len;
    while ((p = memchr(p, '\\', (size_t)(end - p))) != NULL) {
        if (p[1] == 'u' && (p[2] | 32) == 'd' && p[3] > '7')
            return true;
        p += 2;
    }
    return false;
}

/* A string with escapes, quotes included. */
static bool push_escaped(struct reader *r, struct gw_slice quoted)
{
    char text[SHORT];
    if (gw_json_find(quoted, GW_SLICE("")).type != GW_JSON_STRING || has_surrogate(quoted))
        return false;
    if (quoted.len <= sizeof text) {
        lua_pushlstring(r->L, text, gw_json_unquote(quoted, text));
        return true;
    }
    char *out = lua_newuserdata(r->L, quoted.len); /* goes by itself, also after an error */
    lua_pushlstring(r->L, out, gw_json_unquote(quoted, out));
    lua_remove(r->L, -2);
    return true;
}

/* Behind the opening quote. */
static bool push_string(struct reader *r)
{
    const char *start = r->p, *stop = gw_json_plain_end(start, r->end);
    bool plain = true;
    while (stop < r->end && *stop == '\\' && r->end - stop > 2) {
        plain = false;
        stop = gw_json_plain_end(stop + 2, r->end);
    }
    if (stop == r->end || *stop != '"')
        return false;
    r->p = stop + 1;
    if (!plain)
        return push_escaped(r, gw_slice_of(start - 1, (size_t)(r->p - start) + 1));
    lua_pushlstring(r->L, start, (size_t)(stop - start));
    return true;
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* A short decimal, p being at its point: two whole numbers that are exact have an exact quotient,
 * or as near as it gets. */
static bool push_decimal(struct reader *r, const char *p, int64_t whole, bool negative)
{
    double scale = 1;
    const char *first = ++p;
    for (; p < r->end && is_digit(*p) && whole < EXACT_MAX / 10 && scale < 1e22; p++, scale *= 10)
        whole = whole * 10 + (*p - '0');
    if (p == first || (p < r->end && (is_digit(*p) || (*p | 32) == 'e')) || whole == 0)
        return false;
    lua_pushnumber(r->L, (negative ? -1 : 1) * ((double)whole / scale));
    r->p = p;
    return true;
}

/* A number that is neither a short integer nor a short decimal. */
static bool push_long_number(struct reader *r, const char *start)
{
    char text[NUMBER_TEXT];
    size_t n = 0;
    while (start + n < r->end && (is_digit(start[n]) || (start[n] && strchr("+-.eE", start[n]))))
        n++;
    struct gw_slice number = gw_slice_of(start, n);
    if (n >= sizeof text || gw_json_find(number, GW_SLICE("")).type != GW_JSON_NUMBER)
        return false;
    memcpy(text, start, n);
    text[n] = '\0';
    double value = strtod(text, NULL);
    if (!isfinite(value))
        return false;
    lua_pushnumber(r->L, value);
    r->p = start + n;
    return true;
}

static bool push_number(struct reader *r)
{
    const char *start = r->p, *p = start + (*start == '-'), *digits = p;
    int64_t value = 0;
    while (p < r->end && is_digit(*p) && p - digits < EXACT_DIGITS)
        value = value * 10 + (*p++ - '0');
    bool leading_zero = p - digits > 1 && *digits == '0';
    if (p > digits && p < r->end && *p == '.' && value < EXACT_MAX && !leading_zero &&
        push_decimal(r, p, value, digits > start))
        return true;
    bool more = p < r->end && (is_digit(*p) || *p == '.' || (*p | 32) == 'e');
    if (p == digits || more || value > EXACT_MAX ||
        (*digits == '0' && p - start > 1)) /* 01 is none, -0 is not 0 */
        return push_long_number(r, start);
    r->p = p;
    lua_pushnumber(r->L, (lua_Number)(digits > start ? -value : value));
    return true;
}

/* A table of the members that wait above base takes their place; object: keys and values. */
static void make_table(lua_State *L, int base, int count, bool object)
{
    lua_createtable(L, object ? 0 : count, object ? count : 0);
    lua_insert(L, base + 1);
    for (int i = 0; i < count; i++) {
        if (object) {
            lua_pushvalue(L, base + 2 + 2 * i);
            lua_pushvalue(L, base + 3 + 2 * i);
            lua_rawset(L, base + 1);
        } else {
            lua_pushvalue(L, base + 2 + i);
            lua_rawseti(L, base + 1, i + 1);
        }
    }
    lua_settop(L, base + 1);
}

static bool push_member(struct reader *r, bool object)
{
    if (object && (!take(r, '"') || !push_string(r) || !take(r, ':')))
        return false;
    skip_blanks(r);
    return push_value(r);
}

/* Members wait on the stack, so that their table is made in its size: one that grows costs twice as
 * much. The first ones of a large container make it, and the others go into it one by one. */
static bool push_members(struct reader *r, bool object)
{
    lua_State *L = r->L;
    int base = lua_gettop(L), count = 0;
    do {
        if (!push_member(r, object))
            return false;
        count++;
        if (count == HELD)
            make_table(L, base, count, object);
        else if (count > HELD && object)
            lua_rawset(L, base + 1);
        else if (count > HELD)
            lua_rawseti(L, base + 1, count);
    } while (take(r, ','));
    if (count < HELD)
        make_table(L, base, count, object);
    return take(r, object ? '}' : ']');
}

static bool push_container(struct reader *r, bool object)
{
    lua_State *L = r->L;
    bool good = true;
    if (r->depth == DEPTH || !lua_checkstack(L, 3 * HELD))
        return false;
    r->depth++;
    r->p++;
    if (!take(r, object ? '}' : ']')) {
        good = push_members(r, object);
    } else {
        lua_newtable(L);
        if (!object) {
            lua_rawgeti(L, LUA_REGISTRYINDEX, r->vm->json_array);
            lua_setmetatable(L, -2);
        }
    }
    r->depth--;
    return good;
}

static bool push_word(struct reader *r)
{
    if (take_word(r, "true", 4))
        lua_pushboolean(r->L, true);
    else if (take_word(r, "false", 5))
        lua_pushboolean(r->L, false);
    else if (take_word(r, "null", 4))
        lua_pushlightuserdata(r->L, NULL);
    else
        return false;
    return true;
}

static bool push_value(struct reader *r)
{
    if (r->p == r->end)
        return false;
    switch (*r->p) {
    case '"':
        r->p++;
        return push_string(r);
    case '{':
        return push_container(r, true);
    case '[':
        return push_container(r, false);
    case 't':
    case 'f':
    case 'n':
        return push_word(r);
    default:
        return (*r->p == '-' || is_digit(*r->p)) && push_number(r);
    }
}

bool gw_lua_json_push(struct gw_vm *vm, lua_State *L, struct gw_slice text)
{
    struct reader r = {L, vm, text.ptr, text.ptr + text.len, 0};
    int top = lua_gettop(L);
    skip_blanks(&r);
    if (lua_checkstack(L, 1) && push_value(&r)) {
        skip_blanks(&r);
        if (r.p == r.end)
            return true;
    }
    lua_settop(L, top);
    return false;
}

struct writer {
    lua_State *L;
    struct gw_vm *vm;
    struct gw_buf *out;
    char *start, *p, *limit; /* room that is reserved in out, and how much of it is filled */
    unsigned depth;
};

static bool write_value(struct writer *w, int index);

static void commit(struct writer *w)
{
    if (w->start)
        gw_buf_commit(w->out, (size_t)(w->p - w->start));
    w->start = NULL;
}

static void reserve(struct writer *w, size_t n)
{
    size_t room;
    commit(w);
    w->start = w->p = gw_buf_reserve(w->out, n > WINDOW ? n : WINDOW, &room);
    w->limit = w->p + room;
}

/* Makes room for n bytes at w->p. */
static inline void need(struct writer *w, size_t n)
{
    if (!w->start || (size_t)(w->limit - w->p) < n)
        reserve(w, n);
}

static inline void write_text(struct writer *w, const char *text, size_t len)
{
    need(w, len);
    memcpy(w->p, text, len);
    w->p += len;
}

static bool write_string(struct writer *w, int index)
{
    struct gw_slice text;
    text.ptr = lua_tolstring(w->L, index, &text.len);
    need(w, 1);
    *w->p++ = '"';
    while (text.len) {
        size_t n = text.len < GW_JSON_PIECE ? text.len : GW_JSON_PIECE;
        need(w, n * GW_JSON_ESCAPE_MAX + 1);
        w->p += gw_json_escape(gw_slice_of(text.ptr, n), w->p);
        text = gw_slice_of(text.ptr + n, text.len - n);
    }
    need(w, 1);
    *w->p++ = '"';
    return true;
}

static void write_integer(struct writer *w, int64_t value)
{
    char text[NUMBER_TEXT], *p = text + sizeof text;
    uint64_t rest = (uint64_t)(value < 0 ? -value : value);
    do
        *--p = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        *--p = '-';
    write_text(w, p, (size_t)(text + sizeof text - p));
}

/* A number with few digits behind the point. False where it needs more of them. */
static bool write_decimal(struct writer *w, double value)
{
    double size = fabs(value);
    int64_t scale = 10, digits;
    int places = 1;
    if (size < 1e-4 || size >= 1e9)
        return false;
    for (;; places++, scale *= 10) {
        digits = (int64_t)(size * (double)scale + 0.5);
        if ((double)digits / (double)scale == size)
            break;
        if (places == 5)
            return false;
    }
    if (value < 0)
        write_text(w, "-", 1);
    write_integer(w, digits / scale);
    char text[8] = ".";
    for (int i = places; i > 0; i--, digits /= 10)
        text[i] = (char)('0' + digits % 10);
    write_text(w, text, (size_t)places + 1);
    return true;
}

/* As few digits as read back as the same number, but not below 14; whole ones without exponent. */
static void write_long_number(struct writer *w, double value)
{
    char text[NUMBER_TEXT];
    int digits = 14, n;
    do
        n = snprintf(text, sizeof text, "%.*g", digits, value);
    while (strtod(text, NULL) != value && digits++ < 17);
    if (digits > 14 && fmod(value, 1) == 0 && fabs(value) < 1e18)
        n = snprintf(text, sizeof text, "%.0f", value);
    write_text(w, text, (size_t)n);
}

static bool write_number(struct writer *w, int index)
{
    double value = lua_tonumber(w->L, index);
    if (!isfinite(value))
        return false;
    int64_t whole = fabs(value) <= (double)EXACT_MAX ? (int64_t)value : 0;
    /* From 1e14 on, where it makes a difference, zeros at the end may become an exponent. */
    if (whole && (double)whole == value && (fabs(value) < 1e14 || whole % 10))
        write_integer(w, whole);
    else if (value == 0 && !signbit(value))
        write_text(w, "0", 1);
    else if (!write_decimal(w, value))
        write_long_number(w, value);
    return true;
}

/* The table has only the keys 1 to its length: the length, 0 when it is empty; -1: it is an object,
 * or nothing that cjson would take for an array without a thought. */
static int array_length(lua_State *L, int index)
{
    int length = (int)lua_objlen(L, index), count = 0;
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        if (length == 0 || lua_type(L, -1) != LUA_TNUMBER) {
            lua_pop(L, 1);
            return -1;
        }
        count++;
    }
    return count == length ? length : -1;
}

static bool write_array(struct writer *w, int index, int length)
{
    write_text(w, "[", 1);
    for (int i = 1; i <= length; i++) {
        if (i > 1)
            write_text(w, ",", 1);
        lua_rawgeti(w->L, index, i);
        if (!write_value(w, index + 1))
            return false;
        lua_pop(w->L, 1);
    }
    write_text(w, "]", 1);
    return true;
}

static bool write_object(struct writer *w, int index)
{
    char before = '{';
    lua_pushnil(w->L);
    while (lua_next(w->L, index)) {
        write_text(w, &before, 1);
        before = ',';
        if (lua_type(w->L, index + 1) != LUA_TSTRING)
            return false;
        write_string(w, index + 1);
        write_text(w, ":", 1);
        if (!write_value(w, index + 2))
            return false;
        lua_pop(w->L, 1);
    }
    write_text(w, "}", 1);
    return true;
}

/* "[]" for a table that is marked as an array; another metatable may mean what gateway.json knows.
 */
static bool write_empty(struct writer *w, int index)
{
    bool array = false;
    if (lua_getmetatable(w->L, index)) {
        lua_rawgeti(w->L, LUA_REGISTRYINDEX, w->vm->json_array);
        array = lua_rawequal(w->L, -1, -2);
        lua_pop(w->L, 2);
        if (!array)
            return false;
    }
    write_text(w, array ? "[]" : "{}", 2);
    return true;
}

/* A table that is in itself in many places makes much text out of nothing: that is for
 * gateway.json, whose memory and time are bounded. */
static bool is_too_long(const struct writer *w)
{
    size_t max = w->vm->max_memory / 8;
    return max && gw_buf_len(w->out) > max;
}

static bool write_table(struct writer *w, int index)
{
    if (w->depth == DEPTH || is_too_long(w) || !lua_checkstack(w->L, 4))
        return false;
    w->depth++;
    int length = array_length(w->L, index);
    bool good = length > 0    ? write_array(w, index, length)
                : length == 0 ? write_empty(w, index)
                              : write_object(w, index);
    w->depth--;
    return good;
}

/* index counts from the bottom of the stack, and is its top or the value that was asked for. */
static bool write_value(struct writer *w, int index)
{
    switch (lua_type(w->L, index)) {
    case LUA_TSTRING:
        return write_string(w, index);
    case LUA_TNUMBER:
        return write_number(w, index);
    case LUA_TTABLE:
        return write_table(w, index);
    case LUA_TBOOLEAN:
        if (lua_toboolean(w->L, index))
            write_text(w, "true", 4);
        else
            write_text(w, "false", 5);
        return true;
    case LUA_TLIGHTUSERDATA:
        write_text(w, "null", 4);
        return lua_touserdata(w->L, index) == NULL;
    default:
        return false;
    }
}

bool gw_lua_json_write(struct gw_vm *vm, lua_State *L, int index, struct gw_buf *out)
{
    struct writer w = {.L = L, .vm = vm, .out = out};
    int top = lua_gettop(L);
    lua_checkstack(L, 4);
    lua_pushvalue(L, index);
    bool good = write_value(&w, top + 1);
    lua_settop(L, top);
    commit(&w);
    return good;
}

static int json_decode(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TSTRING)
        return 0;
    return gw_lua_json_push(gw_api_vm(L), L, gw_lua_slice(L, 1));
}

static int json_encode(lua_State *L)
{
    struct gw_vm *vm = gw_api_vm(L);
    if (!vm->env->loop) /* buffers are the loop's thread's */
        return 0;
    struct gw_buf *out = gw_vm_scratch(vm, GW_SCRATCH_ENCODED);
    lua_settop(L, 1);
    bool good = gw_lua_json_write(vm, L, 1, out);
    if (good)
        gw_lua_push(L, gw_buf_linear(out, gw_buf_len(out)));
    gw_buf_clear(out);
    return good;
}

void gw_api_json(struct gw_vm *vm)
{
    static const luaL_Reg functions[] = {
        {"json_decode", json_decode}, {"json_encode", json_encode}, {NULL, NULL}};
    lua_pushlightuserdata(vm->L, vm);
    luaL_setfuncs(vm->L, functions, 1);
}
