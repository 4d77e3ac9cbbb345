/* Owns the workers, the listening sockets, the shared mapping and the versions of the
 * configuration. Called by main. Invariant: a new version is loaded here first, then by every
 * worker, and only when all of them have it is any told to serve with it. */
#include "master.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/check.h"
#include "base/map.h"
#include "config/settings.h"
#include "config/yaml.h"
#include "control.h"
#include "doors.h"
#include "gateway/health.h"
#include "script/hooks.h"
#include "script/vm.h"
#include "watch.h"
#include "worker.h"

enum { SHARED_BYTES = 32 << 20, DICT_BYTES = 24 << 20, RESPAWN_MS = 500 };

/* LOADED: it has been told to serve, or will be when the others have loaded, too. */
enum worker_state { WORKER_NONE, WORKER_LOADING, WORKER_LOADED, WORKER_SERVING };

struct worker_slot {
    enum worker_state state;
    pid_t pid;
    int control;
    struct ev_io io;
    uint64_t started_ms;
    uint64_t generation; /* the one it was last told to load */
};

/* One version of the configuration, as the workers get it. */
struct version {
    uint64_t number;
    int pack; /* memfd; -1: none */
    struct gw_doors doors;
    struct gw_settings settings;
    struct gw_vm *vm; /* until checks are taken up from it */
};

enum ending { ENDING_NO, ENDING_DRAIN, ENDING_NOW };

/* Why to reload. HUP is answered even when nothing has changed. */
enum cause { CAUSE_NONE, CAUSE_CHANGE, CAUSE_HUP };

struct master {
    const char *file;
    struct gw_library *library;
    struct gw_loop loop;
    struct gw_shm shm;
    struct gw_stats *stats;
    struct gw_facts *facts;
    struct gw_health health;
    struct gw_dict *dict, *shared; /* sessions; what plugins share */
    size_t shared_bytes;
    struct gw_watch *watch;
    struct gw_script_env env;
    struct version current, next; /* next.number 0: none is being loaded */
    bool swapping;                /* not all workers have said that they serve with current */
    enum cause cause;             /* of the reload under way, or of the last one */
    enum cause again;             /* of one that was wanted while one was under way */
    uint64_t last_number;
    uint64_t last_tried; /* hash of the pack that was tried last: said once is enough */
    struct worker_slot workers[GW_MAX_WORKERS + 1];
    unsigned wanted;
    struct gw_timer respawn;
    struct ev_signal signals[6];
    enum ending ending;
    bool ready;
    int code;
};

static struct master master;

static const struct version no_version = {.pack = -1, .doors.admin.fd = -1};

static void print_error(const char *line, void *data)
{
    (void)data;
    fprintf(stderr, "%s\n", line);
}

/* Mistakes are kept until it is known whether they are news: each is said once. */
static void keep_error(const char *line, void *data)
{
    fwrite(line, 1, strlen(line) + 1, data);
}

static void log_errors(const char *lines, size_t len)
{
    for (const char *line = lines; line < lines + len; line += strlen(line) + 1) {
        struct gw_log_line out;
        gw_log_begin(&out, GW_LOG_ERROR, "configuration");
        gw_log_cstr(&out, "error", line);
        gw_log_end(&out);
    }
}

static void watch_path(const char *path, bool is_dir, void *data)
{
    (void)data;
    gw_watch_add(master.watch, path, is_dir);
}

static void want_reload(enum cause cause)
{
    if (cause > master.again)
        master.again = cause;
}

static void watch_files(struct gw_vm *vm)
{
    if (!master.watch || vm->dead)
        return; /* then what was watched before still is */
    gw_watch_begin(master.watch);
    gw_vm_watch(vm, watch_path, NULL);
    if (gw_watch_end(master.watch))
        want_reload(CAUSE_CHANGE);
}

/* The pack goes to the workers as a sealed-off file: all of them see what the master saw. */
static int pack_file(const char *pack, size_t len)
{
    int fd = memfd_create("gatewayd-pack", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, pack + at, len - at);
        if (n <= 0) {
            close(fd);
            return -1;
        }
        at += (size_t)n;
    }
    return fd;
}

/* Loads from disk and keeps pack, settings and VM. *seen: a hash of all that was read. */
static bool load_files(struct version *version, gw_vm_report *report, void *data, uint64_t *seen)
{
    struct gw_vm *vm = gw_vm_new(&master.env);
    if (!vm)
        return false;
    bool good = gw_vm_load(vm, &(struct gw_pack){.file = master.file}, report, data);
    size_t len = 0;
    const char *pack = gw_vm_pack(vm, &len);
    *seen = pack ? gw_hash(gw_slice_of(pack, len)) : 0;
    watch_files(vm);
    if (good) {
        gw_vm_push(vm, "settings");
        version->pack = pack ? pack_file(pack, len) : -1;
        good = gw_settings_read(vm->L, &version->settings) && version->pack >= 0;
    }
    if (good)
        version->vm = vm;
    else
        gw_vm_free(vm);
    return good;
}

/* Of the version before, what is the same is kept. */
static void drop_version(struct version *v)
{
    gw_close_fd(&v->pack);
    gw_doors_close(&v->doors);
    if (v->vm)
        gw_vm_free(v->vm);
    *v = no_version;
}

/* The instances of the current version are checked from now on. Its Lua has told all that the
 * master wants to know. */
static void take_up_checks(void)
{
    struct version *v = &master.current;
    struct gw_generation *generation =
        gw_generation_new(v->vm, &master.health.gateway, v->number, gw_settings_read);
    v->vm = NULL;
    if (!generation)
        return;
    gw_vm_free(generation->script);
    generation->script = NULL;
    gw_health_serve(&master.health, generation);
}

static unsigned cores(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > GW_MAX_WORKERS ? GW_MAX_WORKERS : (unsigned)n;
}

static unsigned wanted_workers(const struct gw_settings *s)
{
    return s->workers ? s->workers : cores();
}

static bool lives(const struct worker_slot *w)
{
    return w->state != WORKER_NONE;
}

/* One worker too many for a version gets it without listeners, and ends when it is idle. */
static void order(struct worker_slot *w, enum gw_order what, const struct version *v)
{
    struct gw_message message = {.order = what, .generation = v ? v->number : 0};
    if (what == GW_ORDER_LOAD) {
        message.fds[message.fd_count++] = v->pack;
        w->generation = v->number;
        w->state = WORKER_LOADING;
    }
    if (what == GW_ORDER_LOAD && w - master.workers <= (long)wanted_workers(&v->settings)) {
        for (unsigned i = 0; i < v->doors.count; i++) {
            message.fds[message.fd_count++] = v->doors.traffic[i].fd;
            message.proxied |= (uint32_t)v->doors.traffic[i].proxy_protocol << i;
        }
        message.traffic = v->doors.count;
        if (v->doors.admin.fd >= 0)
            message.fds[message.fd_count++] = v->doors.admin.fd;
    }
    /* A worker that can't be told is dead or dying: SIGCHLD will say so. */
    if (!gw_control_send(w->control, &message))
        gw_log(GW_LOG_WARN, "pid %d can't be told: %m", (int)w->pid);
}

static void on_control(struct ev_loop *loop, struct ev_io *io, int revents);

/* What the child must not keep of its parent: it would hold sockets open, and wake the wrong loop.
 */
static void leave_parent(const struct worker_slot *own)
{
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
        struct worker_slot *w = &master.workers[i];
        if (w != own && w->state != WORKER_NONE)
            close(w->control);
    }
    if (master.watch)
        close(gw_watch_fd(master.watch));
    drop_version(&master.current);
    drop_version(&master.next);
    /* libev remembers per process which loop has a signal, also behind that loop's end. */
    for (size_t i = 0; i < sizeof master.signals / sizeof master.signals[0]; i++)
        ev_signal_stop(master.loop.ev, &master.signals[i]);
    gw_health_abandon(&master.health);
    gw_loop_fini(&master.loop);
}

static bool spawn(unsigned number)
{
    struct worker_slot *w = &master.workers[number];
    int pair[2];
    if (!gw_control_pair(pair)) {
        gw_log(GW_LOG_ERROR, "no socket pair for worker %u: %m", number);
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        leave_parent(w);
        struct gw_worker_setup setup = {number,       pair[1],     master.file,  master.library,
                                        master.facts, master.dict, master.shared};
        exit(gw_worker_run(&setup));
    }
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        gw_log(GW_LOG_ERROR, "no process for worker %u: %m", number);
        return false;
    }
    *w = (struct worker_slot){.pid = pid, .control = pair[0], .started_ms = master.loop.now_ms};
    ev_io_init(&w->io, on_control, w->control, EV_READ);
    ev_io_start(master.loop.ev, &w->io);
    order(w, GW_ORDER_LOAD, &master.current);
    return true;
}

/* As many workers as the configuration wants; those beyond it retire by what LOAD gives them. */
static void set_workers(void)
{
    for (unsigned i = 1; i <= master.wanted; i++) {
        if (!lives(&master.workers[i]) && !spawn(i))
            gw_timer_start(&master.loop, &master.respawn, RESPAWN_MS);
    }
}

static void respawn(struct gw_timer *timer)
{
    (void)timer;
    if (master.ending == ENDING_NO)
        set_workers();
}

static void end(enum ending how);

static void reload(enum cause cause);

static void finish_reload(void)
{
    enum cause cause = master.again;
    master.again = CAUSE_NONE;
    if (cause != CAUSE_NONE)
        reload(cause);
}

static void log_outcome(bool good)
{
    struct gw_log_line line;
    gw_stat_add(&master.stats->slot[0], good ? GW_STAT_RELOADS : GW_STAT_RELOADS_FAILED, 1);
    gw_log_begin(&line, good ? GW_LOG_INFO : GW_LOG_ERROR, good ? "reloaded" : "reload failed");
    if (good)
        gw_log_int(&line, "generation", (int64_t)master.current.number);
    gw_log_cstr(&line, "cause", master.cause == CAUSE_HUP ? "signal" : "change");
    gw_log_end(&line);
}

static void refuse_next(void)
{
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
        struct worker_slot *w = &master.workers[i];
        if (lives(w) && w->generation == master.next.number) {
            order(w, GW_ORDER_DROP, &master.next);
            w->state = WORKER_SERVING;
            w->generation = master.current.number;
        }
    }
    gw_doors_leave(&master.next.doors, &master.current.doors);
    drop_version(&master.next);
    log_outcome(false);
    finish_reload();
}

/* Said when it is so: from here on every new request is served by it. */
static void check_swapped(void)
{
    if (!master.swapping)
        return;
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
        if (master.workers[i].state == WORKER_LOADED)
            return;
    }
    master.swapping = false;
    log_outcome(true);
    finish_reload();
}

/* All workers have the new version: from here on it is the current one. */
static void adopt_next(void)
{
    gw_doors_leave(&master.current.doors, &master.next.doors);
    drop_version(&master.current);
    master.current = master.next;
    gw_doors_take_over(&master.current.doors, master.current.settings.client_user_ms);
    master.next = no_version;
    master.swapping = true;
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
        struct worker_slot *w = &master.workers[i];
        if (lives(w))
            order(w, GW_ORDER_SWAP, &master.current);
    }
    const struct gw_settings *s = &master.current.settings;
    gw_log_setup(s->log_level, s->log_format, s->log_file[0] ? s->log_file : NULL);
    master.wanted = wanted_workers(s);
    if (s->shared_max_bytes != master.shared_bytes)
        gw_log(GW_LOG_WARN, "shared.maxBytes: stays %zu until the gateway is started anew",
               master.shared_bytes);
    take_up_checks();
    set_workers();
    check_swapped();
}

static void check_loaded(void)
{
    if (!master.next.number)
        return;
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
        const struct worker_slot *w = &master.workers[i];
        if (lives(w) && (w->generation != master.next.number || w->state != WORKER_LOADED))
            return;
    }
    adopt_next();
}

static bool can_log(const struct gw_settings *s)
{
    int fd = s->log_file[0] ? open(s->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640)
                            : STDERR_FILENO;
    if (fd < 0)
        gw_log(GW_LOG_ERROR, "can't write to %s: %m", s->log_file);
    else if (fd != STDERR_FILENO)
        close(fd);
    return fd >= 0;
}

/* A worker that does not serve yet gets it as soon as it does. */
static void load_next(struct version *next)
{
    next->number = ++master.last_number;
    master.next = *next;
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
        if (master.workers[i].state == WORKER_SERVING)
            order(&master.workers[i], GW_ORDER_LOAD, &master.next);
    }
    check_loaded();
}

static bool is_quiet(void)
{
    return !master.watch || gw_watch_is_quiet(master.watch);
}

/* Reads the files and, when they are news, reports their mistakes or makes a version of them. */
static void try_files(enum cause cause)
{
    struct version next = no_version;
    uint64_t seen = 0;
    char *errors = NULL;
    size_t len = 0;
    FILE *kept = open_memstream(&errors, &len);
    GW_CHECK(kept != NULL);
    bool good = load_files(&next, keep_error, kept, &seen);
    fclose(kept);
    bool news = cause == CAUSE_HUP || (seen != master.last_tried && is_quiet());
    master.cause = cause;
    if (news)
        log_errors(errors, len);
    free(errors);
    if (news && good && can_log(&next.settings) &&
        gw_doors_bind(&next.doors, &next.settings, &master.current.doors)) {
        master.last_tried = seen;
        load_next(&next);
        return;
    }
    drop_version(&next);
    if (news) {
        master.last_tried = seen;
        log_outcome(false);
    }
    finish_reload();
}

static void reload(enum cause cause)
{
    if (master.ending != ENDING_NO)
        return;
    if (!master.next.number && !master.swapping && master.ready)
        try_files(cause);
    else
        want_reload(cause);
}

static void on_change(void *data)
{
    (void)data;
    reload(CAUSE_CHANGE);
}

static void say_ready(void)
{
    struct gw_log_line line;
    for (unsigned i = 1; i <= master.wanted; i++) {
        if (master.workers[i].state != WORKER_SERVING)
            return;
    }
    master.ready = true;
    finish_reload();
    gw_log_begin(&line, GW_LOG_INFO, "ready");
    gw_log_int(&line, "workers", master.wanted);
    gw_log_end(&line);
}

/* What it failed may be refused already, because another worker failed as well. */
static void on_failed(struct worker_slot *w, uint64_t generation)
{
    if (master.next.number && generation == master.next.number) {
        refuse_next();
        return;
    }
    if (generation != master.current.number)
        return;
    gw_log(GW_LOG_ERROR, "pid %d can't load the configuration it is to serve with", (int)w->pid);
    if (master.ready) {
        kill(w->pid, SIGKILL);
        return;
    }
    master.code = 3;
    end(ENDING_NOW);
}

static void obey(struct worker_slot *w, const struct gw_message *message)
{
    switch ((enum gw_order)message->order) {
    case GW_ORDER_LOADED:
        if (message->generation != w->generation)
            return;
        w->state = WORKER_LOADED;
        if (w->generation == master.next.number)
            check_loaded();
        else
            order(w, GW_ORDER_SWAP, &master.current);
        return;
    case GW_ORDER_FAILED:
        on_failed(w, message->generation);
        return;
    case GW_ORDER_SERVING:
        if (message->generation != w->generation)
            return;
        w->state = WORKER_SERVING;
        if (!master.ready)
            say_ready();
        check_swapped();
        if (master.next.number && w->generation != master.next.number)
            order(w, GW_ORDER_LOAD, &master.next);
        return;
    default:
        return;
    }
}

static void on_control(struct ev_loop *loop, struct ev_io *io, int revents)
{
    (void)revents;
    struct worker_slot *w = GW_CONTAINER(io, struct worker_slot, io);
    struct gw_message message;
    int got;
    while ((got = gw_control_receive(io->fd, &message)) > 0) {
        if (master.ending == ENDING_NO)
            obey(w, &message);
    }
    if (got < 0)
        ev_io_stop(loop, io);
}

static void log_end(unsigned number, pid_t pid, int status)
{
    struct gw_log_line line;
    bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    gw_log_begin(&line, well ? GW_LOG_INFO : GW_LOG_ERROR, well ? "worker ended" : "worker died");
    gw_log_int(&line, "worker", number);
    gw_log_int(&line, "pid", pid);
    if (WIFSIGNALED(status))
        gw_log_cstr(&line, "signal", strsignal(WTERMSIG(status)));
    else if (!well)
        gw_log_int(&line, "code", WEXITSTATUS(status));
    gw_log_end(&line);
}

static unsigned living(void)
{
    unsigned n = 0;
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++)
        n += master.workers[i].state != WORKER_NONE;
    return n;
}

/* A version that a worker dies of while it loads is refused as one that it can't load. */
static void go_on_without(const struct worker_slot *dead, bool well)
{
    uint64_t lived = master.loop.now_ms - dead->started_ms;
    bool of_next = dead->state == WORKER_LOADING && dead->generation == master.next.number;
    gw_timer_start(&master.loop, &master.respawn, lived < RESPAWN_MS ? RESPAWN_MS : 0);
    if (of_next && !well)
        refuse_next();
    check_loaded();
    check_swapped();
}

static void bury_worker(unsigned number, int status)
{
    struct worker_slot *w = &master.workers[number], dead = *w;
    bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (master.ending != ENDING_NOW || WIFEXITED(status))
        log_end(number, w->pid, status);
    if (master.ending != ENDING_NO && !well && WIFEXITED(status) && !master.code)
        master.code = WEXITSTATUS(status);
    ev_io_stop(master.loop.ev, &w->io);
    close(w->control);
    gw_stats_forget(&master.stats->slot[number]);
    gw_facts_forget(master.facts, number);
    gw_health_review(&master.health);
    *w = (struct worker_slot){.control = -1};
    if (master.ending == ENDING_NO)
        go_on_without(&dead, well);
}

static void reap(void)
{
    int status;
    pid_t pid;
    gw_loop_update(&master.loop);
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
            if (master.workers[i].state != WORKER_NONE && master.workers[i].pid == pid)
                bury_worker(i, status);
        }
    }
    if (master.ending != ENDING_NO && living() == 0)
        gw_loop_stop(&master.loop);
}

static void end(enum ending how)
{
    if (how <= master.ending)
        return;
    master.ending = how;
    gw_log(GW_LOG_INFO, how == ENDING_DRAIN ? "draining; once more to stop at once" : "stopping");
    gw_doors_leave(&master.next.doors, &master.current.doors);
    gw_doors_leave(&master.current.doors, NULL);
    drop_version(&master.next);
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
        struct worker_slot *w = &master.workers[i];
        if (w->state == WORKER_NONE)
            continue;
        if (how == ENDING_NOW)
            kill(w->pid, SIGKILL);
        else
            order(w, GW_ORDER_DRAIN, NULL);
    }
    if (living() == 0)
        gw_loop_stop(&master.loop);
}

static void reopen_logs(void)
{
    gw_log_reopen();
    for (unsigned i = 1; i <= GW_MAX_WORKERS; i++) {
        if (lives(&master.workers[i]))
            order(&master.workers[i], GW_ORDER_REOPEN, NULL);
    }
}

static void on_signal(struct ev_loop *loop, struct ev_signal *signal, int revents)
{
    (void)loop;
    (void)revents;
    switch (signal->signum) {
    case SIGCHLD:
        reap();
        return;
    case SIGHUP:
        reload(CAUSE_HUP);
        return;
    case SIGUSR1:
        reopen_logs();
        return;
    case SIGQUIT:
        end(ENDING_NOW);
        return;
    default:
        end(master.ending == ENDING_NO ? ENDING_DRAIN : ENDING_NOW);
    }
}

static void set_signals(void)
{
    static const int wanted[] = {SIGCHLD, SIGHUP, SIGUSR1, SIGQUIT, SIGTERM, SIGINT};
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        ev_signal_init(&master.signals[i], on_signal, wanted[i]);
        ev_signal_start(master.loop.ev, &master.signals[i]);
    }
}

/* What plugins share has memory of its own, so that it can't push out sessions. */
static bool make_shared(size_t shared_bytes)
{
    size_t size = SHARED_BYTES + sizeof *master.facts + sizeof *master.facts->tally + shared_bytes;
    if (!gw_shm_init(&master.shm, size)) {
        gw_log(GW_LOG_ERROR, "no shared memory: %m");
        return false;
    }
    master.stats = gw_stats_new(&master.shm);
    master.facts = gw_facts_new(&master.shm, master.stats);
    if (master.facts)
        master.facts->tally = gw_tally_new(&master.shm, master.stats);
    master.dict = gw_dict_new(&master.shm, DICT_BYTES);
    master.shared = gw_dict_new(&master.shm, shared_bytes);
    master.shared_bytes = shared_bytes;
    return master.facts && master.dict && master.shared;
}

/* The first version, from disk; its mistakes go to stderr as plain lines. */
static int load_first(void)
{
    if (!load_files(&master.current, print_error, NULL, &master.last_tried))
        return 1;
    const struct gw_settings *s = &master.current.settings;
    if (!gw_log_setup(s->log_level, s->log_format, s->log_file[0] ? s->log_file : NULL)) {
        gw_log(GW_LOG_ERROR, "can't write to %s: %m", s->log_file);
        return 3;
    }
    master.current.number = master.last_number = 1; /* its VM stays till the facts are there */
    master.wanted = wanted_workers(s);
    struct gw_doors doors;
    if (!gw_doors_bind(&doors, s, &no_version.doors))
        return 3;
    master.current.doors = doors;
    gw_doors_take_over(&doors, s->client_user_ms);
    return 0;
}

static void tear_down(void)
{
    gw_timer_stop(&master.loop, &master.respawn);
    gw_watch_free(master.watch);
    gw_doors_leave(&master.current.doors, NULL);
    drop_version(&master.current);
    drop_version(&master.next);
    gw_loop_fini(&master.loop);
    gw_library_free(master.library);
    if (master.shm.base)
        gw_shm_fini(&master.shm);
}

int gw_master_run(const char *file, const char *lua_dir)
{
    gw_log_name("master");
    master = (struct master){.file = file, .library = gw_library_new(lua_dir)};
    if (!master.library)
        return 3;
    master.current = master.next = no_version;
    master.env = (struct gw_script_env){.library = master.library, .yaml = gw_yaml_parse};
    gw_timer_init(&master.respawn, respawn);
    if (!gw_loop_init(&master.loop)) {
        gw_log(GW_LOG_ERROR, "no event loop: %m");
        return 3;
    }
    set_signals();
    master.watch = gw_watch_new(&master.loop, on_change, NULL);
    if (!master.watch)
        gw_log(GW_LOG_WARN, "changes of files will not be noticed: %m");
    gw_hash_seed();
    master.code = load_first();
    if (master.code == 0 && !make_shared(master.current.settings.shared_max_bytes))
        master.code = 3;
    if (master.code == 0) {
        gw_health_init(&master.health, &master.loop, master.facts);
        take_up_checks();
        set_workers();
        gw_loop_run(&master.loop);
        gw_health_fini(&master.health);
    }
    tear_down();
    return master.code;
}
