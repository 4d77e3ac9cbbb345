/* Owns the mapping that all processes share and the locks in it; the master makes it before the
 * first fork. Invariant: a lock whose owner died is usable again for the next one who takes it. */
#include "base/shm.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "base/check.h"

enum { LINE = 64 }; /* a cache line */

bool gw_shm_init(struct gw_shm *shm, size_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *shm = (struct gw_shm){0};
    if (base == MAP_FAILED)
        return false;
    *shm = (struct gw_shm){.base = base, .size = size};
    return true;
}

void gw_shm_fini(struct gw_shm *shm)
{
    if (shm->base)
        munmap(shm->base, shm->size);
    *shm = (struct gw_shm){0};
}

void *gw_shm_alloc(struct gw_shm *shm, size_t size)
{
    if (size > shm->size - shm->used)
        return NULL;
    void *mem = shm->base + shm->used;
    size_t whole = (size + LINE - 1) & ~(size_t)(LINE - 1);
    shm->used = whole > shm->size - shm->used ? shm->size : shm->used + whole;
    return mem;
}

void gw_shm_lock_init(struct gw_shm_lock *lock)
{
    pthread_mutexattr_t attr;
    GW_CHECK(pthread_mutexattr_init(&attr) == 0);
    GW_CHECK(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0);
    GW_CHECK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
    GW_CHECK(pthread_mutex_init(&lock->mutex, &attr) == 0);
    pthread_mutexattr_destroy(&attr);
}

/* The result of locking; after it the lock is held, and true says that its owner had died. */
static bool taken(struct gw_shm_lock *lock, int result)
{
    if (result == EOWNERDEAD) {
        GW_CHECK(pthread_mutex_consistent(&lock->mutex) == 0);
        return true;
    }
    GW_CHECK(result == 0);
    return false;
}

bool gw_shm_lock_take(struct gw_shm_lock *lock)
{
    return taken(lock, pthread_mutex_lock(&lock->mutex));
}

bool gw_shm_lock_try(struct gw_shm_lock *lock, bool *broken)
{
    int result = pthread_mutex_trylock(&lock->mutex);
    if (result == EBUSY)
        return false;
    *broken = taken(lock, result);
    return true;
}

void gw_shm_lock_give(struct gw_shm_lock *lock)
{
    GW_CHECK(pthread_mutex_unlock(&lock->mutex) == 0);
}
