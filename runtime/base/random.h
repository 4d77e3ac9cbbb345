/* Random numbers for what must be spread and need not be secret. */
#ifndef GW_BASE_RANDOM_H
#define GW_BASE_RANDOM_H

#include <stdint.h>

/* 64 random bits. Seeded by the kernel when a process asks first; not for two threads. */
uint64_t gw_random(void);

#endif
