/* What a contender uses: CPU time and memory, summed over its processes. */
#ifndef BENCH_WATCH_H
#define BENCH_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#define WATCH_MAX 64

struct watch {
    int pid[WATCH_MAX];
    unsigned count;
};

/* Takes "PID,PID,…"; false when it is none. */
bool watch_parse(struct watch *w, const char *text);
/* Nanoseconds on a CPU since they began, all threads, user and system. */
uint64_t watch_cpu_ns(const struct watch *w);
/* Proportional set size in KiB: a page that n processes share counts as 1/n in each. */
uint64_t watch_pss_kib(const struct watch *w);

#endif
