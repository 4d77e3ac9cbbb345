/* Reads what other processes use, for the load generator's conductor. CPU time comes from the
 * processes' CPU clocks: exact, where /proc/PID/stat counts ticks. Invariant: none, no state. */
#include "watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

bool watch_parse(struct watch *w, const char *text)
{
    char *end;

    for (w->count = 0; w->count < WATCH_MAX; text = end + 1) {
        w->pid[w->count] = (int)strtol(text, &end, 10);
        if (end == text || w->pid[w->count] <= 0 || (*end && *end != ','))
            return false;
        w->count++;
        if (!*end)
            return true;
    }
    return false;
}

uint64_t watch_cpu_ns(const struct watch *w)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < w->count; i++) {
        clockid_t clock;
        struct timespec used = {0};
        if (clock_getcpuclockid(w->pid[i], &clock) == 0 && clock_gettime(clock, &used) == 0)
            sum += (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
    }
    return sum;
}

static uint64_t pss_of(int pid)
{
    char path[64], line[256];
    unsigned long kib = 0;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Pss: %lu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

uint64_t watch_pss_kib(const struct watch *w)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < w->count; i++)
        sum += pss_of(w->pid[i]);
    return sum;
}
