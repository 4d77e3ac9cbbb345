/* One process that carries traffic. */
#ifndef GW_WORKER_H
#define GW_WORKER_H

#include "base/dict.h"
#include "gateway/facts.h"
#include "script/library.h"

struct gw_worker_setup {
    unsigned number;  /* from 1 */
    int control;      /* this side of the socket pair */
    const char *file; /* the configuration, for messages and relative paths */
    const struct gw_library *library;
    struct gw_facts *facts;
    struct gw_dict *dict;   /* sessions */
    struct gw_dict *shared; /* what plugins share */
};

/* Serves until it is told to end; returns the exit code of the process. */
int gw_worker_run(const struct gw_worker_setup *setup);

#endif
