/* Where a line ends: the inner loop of the scanner and of the event parser. */
#ifndef GW_SSE_LINE_H
#define GW_SSE_LINE_H

#include <stdbool.h>
#include "base/slice.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* The first CR or LF in [p, end), or end. Reads nothing at or behind end. */
static inline const char *gw_sse_line_end(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i lf = _mm_set1_epi8('\n'), cr = _mm_set1_epi8('\r');
    for (; end - p >= 16; p += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i hits = _mm_or_si128(_mm_cmpeq_epi8(bytes, lf), _mm_cmpeq_epi8(bytes, cr));
        unsigned mask = (unsigned)_mm_movemask_epi8(hits);
        if (mask)
            return p + __builtin_ctz(mask);
    }
#endif
    while (p < end && *p != '\n' && *p != '\r')
        p++;
    return p;
}

/* Cuts the first line off *rest, without its terminator (LF, CR or CRLF). False when it had none
 * and so was the last. */
static inline bool gw_sse_line_cut(struct gw_slice *rest, struct gw_slice *line)
{
    if (rest->len == 0) {
        *line = *rest;
        return false;
    }
    const char *end = rest->ptr + rest->len, *stop = gw_sse_line_end(rest->ptr, end);
    *line = gw_slice_of(rest->ptr, (size_t)(stop - rest->ptr));
    bool ended = stop < end;
    if (ended)
        stop += stop[0] == '\r' && end - stop > 1 && stop[1] == '\n' ? 2 : 1;
    *rest = gw_slice_of(stop, (size_t)(end - stop));
    return ended;
}

#endif
