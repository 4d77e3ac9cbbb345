/* What fuzz targets share. A target is a file of its own with LLVMFuzzerTestOneInput, and fails by
 * FUZZ_CHECK; libFuzzer, AFL++ and main.c all call it in the same way. */
#ifndef FUZZ_SUPPORT_FUZZ_H
#define FUZZ_SUPPORT_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/slice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process, so that the fuzzer keeps the input. */
#define FUZZ_CHECK(cond, ...)                                                                      \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);                             \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Text that grows; zeroed at first. */
struct fuzz_text {
    char *ptr;
    size_t len, cap;
};

static inline void fuzz_put(struct fuzz_text *text, const void *bytes, size_t len)
{
    if (text->len + len + 1 > text->cap) {
        text->cap = 2 * (text->len + len + 1);
        text->ptr = realloc(text->ptr, text->cap);
        if (!text->ptr)
            abort();
    }
    if (len)
        memcpy(text->ptr + text->len, bytes, len);
    text->len += len;
    text->ptr[text->len] = '\0';
}

static inline void fuzz_put_slice(struct fuzz_text *text, struct gw_slice s)
{
    fuzz_put(text, s.ptr, s.len);
}

static inline struct gw_slice fuzz_slice(const struct fuzz_text *text)
{
    return gw_slice_of(text->ptr, text->len);
}

static inline void fuzz_free(struct fuzz_text *text)
{
    free(text->ptr);
    *text = (struct fuzz_text){0};
}

/* Numbers that follow from the input, so that a run can be repeated. */
static inline uint32_t fuzz_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static inline uint64_t fuzz_seed(const uint8_t *data, size_t size)
{
    uint64_t seed = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < size; i++)
        seed = (seed ^ data[i]) * UINT64_C(1099511628211);
    return seed;
}

/* A copy that ends where its bytes end, for a sanitizer to see reads behind them; the caller frees
 * it. */
static inline char *fuzz_exact(const void *data, size_t size)
{
    char *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    return copy;
}

#endif
