/* The load generator: holds streams, sends requests or opens streams against one port, checks all
 * that comes back and prints one line of JSON. Run by bench/run.lua; `load` alone tells its usage.
 * Invariant: this process only conducts; the clients live in its children, which share `shared`. */
#include "load.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OPEN_PATIENCE_S = 60, PER_PROCESS = 19000 };

static const char usage[] =
    "usage: load MODE --port N --path PATH [options]\n"
    "  MODE          streams, requests or opens\n"
    "  --clients N   streams to hold, connections to use, streams to open at a time (1)\n"
    "  --seconds S   the window that is measured (1)\n"
    "  --settle S    between the last opening and the window (0.5)\n"
    "  --in-flight N openings at a time (500)\n"
    "  --size B      bytes of each event's data, or of each answer\n"
    "  --step N      ids go up by N (1)\n"
    "  --want TEXT   stands in the data of each event\n"
    "  --slow N      so many clients read 4 KiB ten times a second, from --slow-path\n"
    "  --rate R      requests a second, whether answered or not (0 = one after another)\n"
    "  --watch P,Q   processes whose CPU time and memory are told\n"
    "  --processes N processes of clients (as many as descriptors need)\n";

static const struct mode *const modes[] = {&mode_streams, &mode_requests, &mode_opens};

uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Options. */

enum kind { NUMBER, REAL, SIZE, TEXT, PIDS };

static const struct setting {
    const char *name;
    enum kind kind;
    size_t offset;
} settings[] = {
    {"--port", NUMBER, offsetof(struct options, port)},
    {"--clients", NUMBER, offsetof(struct options, clients)},
    {"--in-flight", NUMBER, offsetof(struct options, in_flight)},
    {"--slow", NUMBER, offsetof(struct options, slow)},
    {"--processes", NUMBER, offsetof(struct options, processes)},
    {"--seconds", REAL, offsetof(struct options, seconds)},
    {"--settle", REAL, offsetof(struct options, settle)},
    {"--rate", REAL, offsetof(struct options, rate)},
    {"--size", SIZE, offsetof(struct options, rules.size)},
    {"--step", SIZE, offsetof(struct options, rules.step)},
    {"--path", TEXT, offsetof(struct options, path)},
    {"--slow-path", TEXT, offsetof(struct options, slow_path)},
    {"--want", TEXT, offsetof(struct options, rules.want)},
    {"--watch", PIDS, offsetof(struct options, watch)},
};

static const struct setting *setting_named(const char *name)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (strcmp(settings[i].name, name) == 0)
            return &settings[i];
    return NULL;
}

static bool set_option(struct options *o, const struct setting *setting, const char *text)
{
    void *member = (char *)o + setting->offset;
    char *end;
    double value = strtod(text, &end);

    if (setting->kind == PIDS)
        return watch_parse(member, text);
    if (setting->kind == TEXT)
        *(const char **)member = text;
    else if (end == text || *end || value < 0)
        return false;
    else if (setting->kind == NUMBER)
        *(unsigned *)member = (unsigned)value;
    else if (setting->kind == SIZE)
        *(uint64_t *)member = (uint64_t)value;
    else
        *(double *)member = value;
    return true;
}

static bool is_complete(struct options *o)
{
    unsigned enough = (o->clients + PER_PROCESS - 1) / PER_PROCESS;

    if (o->processes < enough)
        o->processes = enough;
    return o->port > 0 && o->path && o->clients > 0 && o->in_flight > 0 && o->rules.step > 0 &&
           o->slow <= o->clients && (!o->slow || o->slow_path);
}

static const struct mode *mode_named(const char *name)
{
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i]->name, name) == 0)
            return modes[i];
    return NULL;
}

static bool parse_options(struct options *o, int argc, char **argv)
{
    for (int i = 2; i < argc; i += 2) {
        const struct setting *setting = setting_named(argv[i]);
        if (!setting || i + 1 == argc || !set_option(o, setting, argv[i + 1]))
            return false;
    }
    o->mode = argc > 1 ? mode_named(argv[1]) : NULL;
    return o->mode && is_complete(o);
}

/* The processes of clients. */

static struct shared *shared_new(unsigned processes)
{
    size_t size = sizeof(struct shared) + processes * sizeof(struct share);
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (map == MAP_FAILED) {
        perror("load");
        exit(3);
    }
    return map;
}

static unsigned part_of(unsigned whole, unsigned parts, unsigned index)
{
    return whole / parts + (index < whole % parts);
}

static char *request_text(const char *path, bool stream)
{
    char *text;
    const char *accept = stream ? "text/event-stream" : "*/*";

    if (asprintf(&text, "GET %s HTTP/1.1\r\nHost: bench\r\nAccept: %s\r\n\r\n", path, accept) < 0)
        abort();
    return text;
}

static void start_crew(const struct options *o, struct shared *shared, unsigned index)
{
    struct crew crew = {.options = o, .mode = o->mode, .shared = shared};

    if (fork() != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    crew.share = &shared->share[index];
    crew.host = 1 + (int)index;
    crew.count = part_of(o->clients, o->processes, index);
    crew.request = request_text(o->path, crew.mode != &mode_requests);
    crew.request_len = strlen(crew.request);
    crew_run(&crew);
}

static unsigned ready_count(const struct options *o, struct shared *shared)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < o->processes; i++)
        sum += atomic_load(&shared->share[i].ready);
    return sum;
}

static void pause_for(double seconds)
{
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

    nanosleep(&time, NULL);
}

static bool is_faultless(const struct tally *t)
{
    return !(t->lost || t->doubled || t->disordered || t->malformed || t->broken);
}

/* Whether the figures are void already: a fault, or a crew that has ended. */
static bool is_hopeless(const struct options *o, const struct shared *shared)
{
    for (unsigned i = 0; i < o->processes; i++)
        if (!is_faultless(&shared->share[i].tally))
            return true;
    siginfo_t ended = {0};
    return waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) < 0 || ended.si_pid != 0;
}

/* Sleeps, but no longer than there is sense in it. */
static void pause_while_good(const struct options *o, const struct shared *shared, double seconds)
{
    uint64_t end = now_us() + (uint64_t)(seconds * 1e6), now;

    while ((now = now_us()) < end && !is_hopeless(o, shared))
        pause_for(end - now < 20000 ? (double)(end - now) / 1e6 : 0.02);
}

static bool wait_until_ready(const struct options *o, struct shared *shared)
{
    uint64_t deadline = now_us() + OPEN_PATIENCE_S * 1000000ull;

    while (ready_count(o, shared) < o->clients && now_us() < deadline && !is_hopeless(o, shared))
        pause_for(0.005);
    return ready_count(o, shared) >= o->clients;
}

static bool crews_end_well(void)
{
    bool good = true;
    int status;

    while (wait(&status) > 0)
        good = good && status == 0;
    return good;
}

static struct tally *sum_up(const struct options *o, const struct shared *shared)
{
    struct tally *sum = calloc(1, sizeof *sum);

    if (!sum)
        abort();
    sum->stream_min = UINT64_MAX;
    for (unsigned i = 0; i < o->processes; i++) {
        const struct tally *t = &shared->share[i].tally;
        sum->units += t->units;
        sum->bytes += t->bytes;
        sum->lost += t->lost;
        sum->doubled += t->doubled;
        sum->disordered += t->disordered;
        sum->malformed += t->malformed;
        sum->broken += t->broken;
        sum->stream_min = t->stream_min < sum->stream_min ? t->stream_min : sum->stream_min;
        sum->stream_max = t->stream_max > sum->stream_max ? t->stream_max : sum->stream_max;
        hist_merge(&sum->latency, &t->latency);
    }
    return sum;
}

/* The measurement. */

struct measured {
    double open_s, window_s;
    uint64_t cpu_ns, open_cpu_ns;
    uint64_t pss_before, pss;
};

static void measure(const struct options *o, struct shared *shared, struct measured *m)
{
    uint64_t start = now_us(), cpu = watch_cpu_ns(&o->watch);

    if (!wait_until_ready(o, shared)) {
        fprintf(stderr, "load: only %u of %u clients are open after %.1f s\n",
                ready_count(o, shared), o->clients, (double)(now_us() - start) / 1e6);
        exit(1);
    }
    m->open_s = (double)(now_us() - start) / 1e6;
    atomic_store(&shared->phase, PHASE_RUNNING);
    pause_while_good(o, shared, o->settle);
    m->open_cpu_ns = watch_cpu_ns(&o->watch) - cpu;
    puts("measuring");
    fflush(stdout);
    cpu = watch_cpu_ns(&o->watch);
    start = now_us();
    atomic_store(&shared->phase, PHASE_MEASURING);
    pause_while_good(o, shared, o->seconds);
    m->cpu_ns = watch_cpu_ns(&o->watch) - cpu;
    m->window_s = (double)(now_us() - start) / 1e6;
    m->pss = watch_pss_kib(&o->watch);
    atomic_store(&shared->phase, PHASE_OVER);
    if (!crews_end_well())
        exit(1);
}

static void print_result(const struct options *o, const struct tally *t, const struct measured *m)
{
    const struct hist *h = &t->latency;

    printf("{\"mode\":\"%s\",\"clients\":%u,\"seconds\":%.4f,\"units\":%lu,\"bytes\":%lu,",
           o->mode->name, o->clients, m->window_s, t->units, t->bytes);
    printf("\"lost\":%lu,\"doubled\":%lu,\"disordered\":%lu,\"malformed\":%lu,\"broken\":%lu,",
           t->lost, t->doubled, t->disordered, t->malformed, t->broken);
    printf("\"stream_min\":%lu,\"stream_max\":%lu,", t->stream_min, t->stream_max);
    printf("\"p50\":%lu,\"p99\":%lu,\"p999\":%lu,\"max\":%lu,", hist_quantile(h, 0.5),
           hist_quantile(h, 0.99), hist_quantile(h, 0.999), h->max);
    printf("\"cpu_us\":%.1f,\"open_s\":%.4f,\"open_cpu_us\":%.1f,", (double)m->cpu_ns / 1e3,
           m->open_s, (double)m->open_cpu_ns / 1e3);
    printf("\"pss_before_kib\":%lu,\"pss_kib\":%lu}\n", m->pss_before, m->pss);
}

static void raise_descriptors(void)
{
    struct rlimit files;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv)
{
    struct options o = {
        .clients = 1, .processes = 1, .in_flight = 500, .settle = 0.5, .seconds = 1};
    struct measured m = {0};

    o.rules.first = o.rules.step = 1;
    if (!parse_options(&o, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    raise_descriptors();
    signal(SIGPIPE, SIG_IGN);
    struct shared *shared = shared_new(o.processes);
    m.pss_before = watch_pss_kib(&o.watch);
    for (unsigned i = 0; i < o.processes; i++)
        start_crew(&o, shared, i);
    measure(&o, shared, &m);
    struct tally *sum = sum_up(&o, shared);
    print_result(&o, sum, &m);
    bool good = is_faultless(sum);
    free(sum);
    return good ? 0 : 1;
}
