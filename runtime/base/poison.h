/* Under AddressSanitizer memory that is kept but not in use is marked, so that a stray access is
 * reported; elsewhere these cost nothing. GW_ASAN is 1 where pools must leave caching to malloc. */
#ifndef GW_BASE_POISON_H
#define GW_BASE_POISON_H

#ifdef __has_feature
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define GW_ASAN             1
#define GW_POISON(ptr, n)   ASAN_POISON_MEMORY_REGION(ptr, n)
#define GW_UNPOISON(ptr, n) ASAN_UNPOISON_MEMORY_REGION(ptr, n)
#else
#define GW_ASAN             0
#define GW_POISON(ptr, n)   ((void)(ptr), (void)(n))
#define GW_UNPOISON(ptr, n) ((void)(ptr), (void)(n))
#endif

#endif
