/* Assertions: GW_CHECK always, GW_DEBUG_CHECK and magic numbers in debug builds only.
 * Objects that cross a `void *` carry a magic number as their first member. */
#ifndef GW_BASE_CHECK_H
#define GW_BASE_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Ends the process: an invariant is broken and going on would do harm. */
#define GW_CHECK(cond)                                                                             \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) {                                                        \
            fprintf(stderr, "%s:%d: broken invariant: %s\n", __FILE__, __LINE__, #cond);           \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#ifdef GW_DEBUG
#define GW_DEBUG_CHECK(cond) GW_CHECK(cond)
#else
#define GW_DEBUG_CHECK(cond) ((void)sizeof(cond))
#endif

#define GW_CHECK_MAGIC(obj, value) GW_DEBUG_CHECK((obj) != NULL && (obj)->magic == (value))

#define GW_MUST_CHECK        __attribute__((warn_unused_result))
#define GW_UNUSED            __attribute__((unused))
#define GW_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#endif
