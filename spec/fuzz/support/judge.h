/* Judges what went over the sockets of the world, by the strict reader: what reached backends must
 * be what clients asked for, and what reached clients must be what backends answered. */
#ifndef FUZZ_SUPPORT_JUDGE_H
#define FUZZ_SUPPORT_JUDGE_H

#include "support/reader.h"
#include "support/world.h"

struct judge {
    bool retries; /* requests may go to backends more than once */
    bool events;  /* unfinished events may be missing at the end of a stream */
    bool early;   /* streams may end well before their backend ends them */
    bool trusts;  /* there are trusted proxies */
    unsigned peer_count;
    const char *const *peers; /* addresses of clients' connections */
};

/* All sockets, at the end of a run. */
void judge_all(const struct judge *judge);

#endif
