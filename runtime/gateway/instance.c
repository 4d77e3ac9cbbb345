/* Owns instances, by reference count: a stream may outlive the configuration that named its
 * backend. Called by script/ when a generation is made, and by exchanges. Invariant: facts only, no
 * policy. */
#include "gateway/instance.h"

#include <stdlib.h>
#include "base/check.h"

struct gw_instance *gw_instance_new(void)
{
    struct gw_instance *instance = calloc(1, sizeof *instance);
    GW_CHECK(instance != NULL);
    instance->refs = 1;
    return instance;
}

void gw_instance_unref(struct gw_instance *instance)
{
    if (--instance->refs == 0)
        free(instance);
}
