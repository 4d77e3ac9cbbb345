/* The one mapping that master and workers share. It is made before the first fork, laid out
 * bump-wise, and never grows. */
#ifndef GW_BASE_SHM_H
#define GW_BASE_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <pthread.h>

struct gw_shm {
    char *base;
    size_t size, used;
};

/* Maps `size` bytes, zeroed; returns false with errno set when the system refuses. */
bool gw_shm_init(struct gw_shm *shm, size_t size);
void gw_shm_fini(struct gw_shm *shm);
/* Zeroed, aligned to a cache line; NULL when the mapping is used up. Before the fork only. */
void *gw_shm_alloc(struct gw_shm *shm, size_t size);

/* A process-shared robust lock. */
struct gw_shm_lock {
    pthread_mutex_t mutex;
};
void gw_shm_lock_init(struct gw_shm_lock *lock);
/* Returns true when the former owner died inside: the caller repairs what the lock guards. */
bool gw_shm_lock_take(struct gw_shm_lock *lock) __attribute__((warn_unused_result));
/* Without waiting: false when somebody else holds it; else *broken as gw_shm_lock_take returns. */
bool gw_shm_lock_try(struct gw_shm_lock *lock, bool *broken) __attribute__((warn_unused_result));
void gw_shm_lock_give(struct gw_shm_lock *lock);

#endif
