/* Owns the state of the generator, one for each process. Called for request ids and by policies
 * that draw. Invariant: the state is never 0 once it is seeded. */
#include "base/random.h"

#include <stdlib.h>
#include <sys/random.h>

/* splitmix64. */
uint64_t gw_random(void)
{
    static uint64_t state;
    if (!state && getrandom(&state, sizeof state, 0) != sizeof state)
        abort();
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
