/* A view of bytes that somebody else owns. It dies with what it views. */
#ifndef GW_BASE_SLICE_H
#define GW_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct gw_slice {
    const char *ptr;
    size_t len;
};

/* A slice of a string literal; the literal's length is known to the compiler. */
#define GW_SLICE(lit) ((struct gw_slice){(lit), sizeof(lit) - 1})

static inline struct gw_slice gw_slice_of(const char *ptr, size_t len)
{
    return (struct gw_slice){ptr, len};
}

/* A slice of a NUL-terminated string; NULL gives the empty slice. */
static inline struct gw_slice gw_slice_str(const char *text)
{
    return (struct gw_slice){text, text ? strlen(text) : 0};
}

static inline bool gw_slice_eq(struct gw_slice a, struct gw_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Equal but for the case of ASCII letters, as field names and media types are compared. */
static inline bool gw_slice_ieq(struct gw_slice a, struct gw_slice b)
{
    return a.len == b.len && (a.len == 0 || strncasecmp(a.ptr, b.ptr, a.len) == 0);
}

/* Without the spaces and tabs at both ends (OWS of RFC 9110, section 5.6.3). */
static inline struct gw_slice gw_slice_trim(struct gw_slice s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s.ptr++, s.len--;
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

#endif
