/* Owns one process's loop, listeners, gateway and generations. Called by the master in the child.
 * Invariant: a generation is loaded beside the one that serves, and swapped in only when the master
 * knows that every worker has it. */
#include "worker.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "config/settings.h"
#include "config/yaml.h"
#include "control.h"
#include "gateway/exchange.h"
#include "gateway/fetch.h"
#include "gateway/names.h"
#include "net/aside.h"
#include "net/listener.h"
#include "script/hooks.h"
#include "script/watchdog.h"

enum {
    BALANCE_MS = 20,
    HELP_MS = 200, /* for which clients may wait while others have less to do */
    DRAIN_CHECK_MS = 20,
    BREAK_MS = 2500, /* for what was broken off at the deadline: to be told so, and to close */
    APART = 8,
    APART_PERCENT = 3
};

struct door {
    struct gw_listener listener;
    int fd; /* -1: closed */
    enum gw_door kind;
};

/* The listening sockets that came with a version. */
struct handed {
    unsigned count;
    int traffic[GW_LISTENERS_MAX];
    uint32_t proxied; /* which of them: bit 0 is the first */
    int admin;        /* -1: none */
};

/* A version on its way into a VM, which happens aside of the loop. */
struct load {
    struct gw_aside_job job;
    struct gw_script_env env; /* without the loop, which is not this thread's */
    uint64_t generation;
    struct gw_pack pack;
    struct gw_vm *vm; /* NULL: it can't be loaded */
};

struct worker {
    const struct gw_worker_setup *setup;
    struct gw_loop loop;
    struct gw_gateway gateway;
    struct gw_aside aside;
    struct gw_script_env env;
    struct load load;
    struct ev_io control; /* stopped while it loads: further orders wait in the socket */
    struct ev_signal term;
    struct door traffic[GW_LISTENERS_MAX], admin;
    unsigned door_count;
    struct gw_timer balance, drain_check;
    uint64_t waiting_since_ms;     /* nobody accepts, though others have less to do; 0: not so */
    struct gw_generation *loading; /* waits for the addresses of its host names */
    struct gw_generation *loaded;  /* ready, not serving yet */
    struct handed handed;
    bool draining;              /* told to end; nothing calls it back */
    uint64_t drain_deadline_ms; /* 0: none */
    bool broken_off;            /* the deadline has passed, and another one runs */
};

static struct worker worker;

static bool too_busy(void)
{
    uint64_t least = gw_stats_least_load(worker.setup->facts->stats);
    uint64_t apart = least * APART_PERCENT / 100;
    return gw_stats_load(worker.gateway.count) > least + (apart > APART ? apart : APART);
}

static bool is_somebody_waiting(void)
{
    struct pollfd doors[GW_LISTENERS_MAX];
    for (unsigned i = 0; i < worker.door_count; i++)
        doors[i] = (struct pollfd){.fd = worker.traffic[i].fd, .events = POLLIN};
    return poll(doors, worker.door_count, 0) > 0;
}

/* A worker that hangs has little to do as well: its share is not waited for without end. */
static bool must_help(void)
{
    uint64_t now = worker.loop.now_ms;
    if (!is_somebody_waiting())
        worker.waiting_since_ms = 0;
    else if (!worker.waiting_since_ms)
        worker.waiting_since_ms = now;
    return worker.waiting_since_ms && now - worker.waiting_since_ms >= HELP_MS;
}

/* Long streams stay where they were accepted: so the ones with more of them step back. */
static void balance(struct gw_timer *timer)
{
    bool busy = too_busy();
    bool pause = busy && !must_help();
    for (unsigned i = 0; i < worker.door_count; i++)
        gw_listener_pause(&worker.traffic[i].listener, pause);
    if (busy)
        gw_timer_start(&worker.loop, timer, BALANCE_MS);
    else
        worker.waiting_since_ms = 0;
}

static void accept_traffic(struct gw_listener *listener, int fd, const struct gw_addr *peer)
{
    const struct door *door = listener->owner;
    gw_gateway_accept(&worker.gateway, fd, peer, door->kind);
    if (!gw_timer_active(&worker.balance))
        balance(&worker.balance);
}

static void accept_admin(struct gw_listener *listener, int fd, const struct gw_addr *peer)
{
    (void)listener;
    gw_gateway_accept(&worker.gateway, fd, peer, GW_DOOR_ADMIN);
}

static void count_pause(struct gw_listener *listener)
{
    (void)listener;
    gw_stat_add(worker.gateway.count, GW_STAT_ACCEPT_PAUSES, 1);
}

static const struct gw_listener_events traffic_events = {.on_accept = accept_traffic,
                                                         .on_starved = count_pause};
static const struct gw_listener_events admin_events = {.on_accept = accept_admin,
                                                       .on_starved = count_pause};

static void close_door(struct door *door)
{
    if (door->fd < 0)
        return;
    gw_listener_stop(&door->listener);
    close(door->fd);
    door->fd = -1;
}

/* Who is in the queue of a socket that is closed gets a reset, though he came in time. */
static void accept_rest(const struct door *door)
{
    struct sockaddr_storage sa;
    struct gw_addr peer;
    socklen_t len = sizeof sa;
    int fd;
    while (door->fd >= 0 && (fd = accept4(door->fd, (struct sockaddr *)&sa, &len,
                                          SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        gw_addr_set(&peer, (struct sockaddr *)&sa, len);
        gw_gateway_accept(&worker.gateway, fd, &peer, door->kind);
        len = sizeof sa;
    }
}

static bool is_same_socket(int one, int other)
{
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_ino == b.st_ino;
}

static void open_door(struct door *door, int fd, enum gw_door kind)
{
    close_door(door);
    if (fd < 0)
        return;
    door->fd = fd;
    door->kind = kind;
    gw_listener_start(&door->listener, &worker.loop, fd,
                      kind == GW_DOOR_ADMIN ? &admin_events : &traffic_events, door);
}

static void close_traffic(void)
{
    for (unsigned i = 0; i < worker.door_count; i++)
        close_door(&worker.traffic[i]);
    worker.door_count = 0;
}

static bool is_handed(const struct door *door)
{
    for (unsigned i = 0; i < worker.handed.count; i++) {
        if (is_same_socket(door->fd, worker.handed.traffic[i]))
            return true;
    }
    return false;
}

/* Of the sockets that this process will not watch any more. */
static void accept_rest_of_gone(void)
{
    for (unsigned i = 0; i < worker.door_count; i++) {
        if (!is_handed(&worker.traffic[i]))
            accept_rest(&worker.traffic[i]);
    }
}

static void tell(enum gw_order order, uint64_t generation)
{
    struct gw_message message = {.order = order, .generation = generation};
    if (!gw_control_send(worker.setup->control, &message))
        gw_log(GW_LOG_ERROR, "the master can't be told: %m");
}

static void drop_loaded(void)
{
    if (worker.loading)
        gw_generation_unref(worker.loading);
    if (worker.loaded)
        gw_generation_unref(worker.loaded);
    worker.loading = worker.loaded = NULL;
    while (worker.handed.count)
        gw_close_fd(&worker.handed.traffic[--worker.handed.count]);
    gw_close_fd(&worker.handed.admin);
}

static void take_handed(const struct gw_message *message)
{
    struct handed *handed = &worker.handed;
    const int *fds = message->fds + 1;
    unsigned count = message->fd_count > message->traffic ? message->traffic : 0;
    *handed = (struct handed){.proxied = message->proxied, .admin = -1};
    while (handed->count < count && handed->count < GW_LISTENERS_MAX) {
        handed->traffic[handed->count] = fds[handed->count];
        handed->count++;
    }
    if (message->fd_count > count + 1)
        handed->admin = fds[count];
}

static void load_program(struct gw_aside_job *job)
{
    struct load *load = GW_CONTAINER(job, struct load, job);
    load->vm = gw_vm_start(&load->env, &load->pack);
}

static void tell_loaded(void *data)
{
    (void)data;
    worker.loaded = worker.loading;
    worker.loading = NULL;
    tell(GW_ORDER_LOADED, worker.loaded->number);
}

static void end_load(struct gw_aside_job *job)
{
    struct load *load = GW_CONTAINER(job, struct load, job);
    ev_io_start(worker.loop.ev, &worker.control);
    if (load->vm) {
        load->vm->env = &worker.env;
        worker.loading =
            gw_generation_new(load->vm, &worker.gateway, load->generation, gw_settings_read);
    }
    if (worker.loading) {
        gw_names_start(worker.loading, tell_loaded, NULL);
        return;
    }
    tell(GW_ORDER_FAILED, load->generation);
    drop_loaded();
}

/* The files as the master read them: a mapping of the descriptor it sent. */
static bool map_pack(int fd, struct load *load)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
        return false;
    load->pack = (struct gw_pack){.file = worker.setup->file, .len = (size_t)st.st_size};
    load->pack.bytes = mmap(NULL, load->pack.len, PROT_READ, MAP_PRIVATE, fd, 0);
    return load->pack.bytes != MAP_FAILED;
}

static void on_load(struct gw_message *message)
{
    struct load *load = &worker.load;
    int pack = message->fd_count > 0 ? message->fds[0] : -1;
    drop_loaded();
    take_handed(message);
    *load = (struct load){.env = worker.env, .generation = message->generation};
    load->env.loop = NULL;
    load->env.aside = NULL;
    if (map_pack(pack, load)) {
        ev_io_stop(worker.loop.ev, &worker.control);
        gw_aside_run(&worker.aside, &load->job, load_program, end_load);
    } else {
        gw_log(GW_LOG_ERROR, "can't take the files and listeners of a new configuration: %s",
               pack < 0 ? "out of descriptors" : "no memory");
        tell(GW_ORDER_FAILED, message->generation);
        drop_loaded();
    }
    gw_close_fd(&pack);
}

static void open_doors(void)
{
    struct gw_gateway *gateway = &worker.gateway;
    gw_timer_stop(&worker.loop, &worker.drain_check);
    gateway->draining = false;
    struct handed *handed = &worker.handed;
    accept_rest_of_gone();
    close_traffic();
    for (; worker.door_count < handed->count; worker.door_count++) {
        unsigned i = worker.door_count;
        open_door(&worker.traffic[i], handed->traffic[i],
                  handed->proxied & 1u << i ? GW_DOOR_PROXIED : GW_DOOR_TRAFFIC);
    }
    open_door(&worker.admin, handed->admin, GW_DOOR_ADMIN);
    *handed = (struct handed){.admin = -1};
    gw_stats_enlist(gateway->stats, gateway->worker);
}

/* No new connections; those that are idle end now, and the process with the last one. */
static void finish_what_is_open(void)
{
    worker.gateway.count->alive = 0;
    gw_timer_stop(&worker.loop, &worker.balance);
    close_traffic();
    gw_gateway_drain(&worker.gateway);
    gw_timer_start(&worker.loop, &worker.drain_check, 0);
}

static void on_swap(uint64_t number)
{
    struct gw_generation *next = worker.loaded;
    if (!next || next->number != number)
        return;
    const struct gw_settings *s = &next->settings;
    gw_log_setup(s->log_level, s->log_format, s->log_file[0] ? s->log_file : NULL);
    gw_gateway_swap(&worker.gateway, next);
    if (worker.draining) {
        /* It keeps the doors it has. */
    } else if (worker.handed.count) {
        open_doors();
    } else {
        close_door(&worker.admin);
        finish_what_is_open();
    }
    drop_loaded();
    tell(GW_ORDER_SERVING, number);
}

static bool is_done(void)
{
    const struct gw_gateway *gateway = &worker.gateway;
    if (!gw_list_empty(&gateway->exchanges) || gateway->connections)
        return false;
    /* Connections that close in stages may have an answer on its way. Calls that belong to no
     * exchange are not waited for. */
    return gw_conn_count() ==
           gateway->pool.idle_count + gateway->visits + gw_fetch_connected(gateway);
}

static void drain_check(struct gw_timer *timer)
{
    bool late = worker.drain_deadline_ms && worker.loop.now_ms >= worker.drain_deadline_ms;
    if (is_done() || (late && worker.broken_off)) {
        gw_loop_stop(&worker.loop);
        return;
    }
    if (late) {
        gw_gateway_abort(&worker.gateway, GW_ERR_SHUTDOWN);
        worker.broken_off = true;
        worker.drain_deadline_ms = worker.loop.now_ms + BREAK_MS;
    }
    gw_timer_start(&worker.loop, timer, DRAIN_CHECK_MS);
}

/* The management listener stays, and says what goes on. */
static void drain(void)
{
    if (worker.draining)
        return;
    worker.draining = true;
    drop_loaded(); /* its listeners, too */
    accept_rest_of_gone();
    uint64_t limit = worker.gateway.current ? worker.gateway.current->settings.drain_ms : 0;
    worker.drain_deadline_ms = limit ? worker.loop.now_ms + limit : 0;
    finish_what_is_open();
}

static void obey(struct gw_message *message)
{
    switch ((enum gw_order)message->order) {
    case GW_ORDER_LOAD:
        on_load(message);
        return;
    case GW_ORDER_SWAP:
        on_swap(message->generation);
        return;
    case GW_ORDER_DROP:
        drop_loaded();
        return;
    case GW_ORDER_DRAIN:
        drain();
        return;
    case GW_ORDER_REOPEN:
        gw_log_reopen();
        return;
    default:
        gw_log(GW_LOG_ERROR, "unknown order %u", message->order);
    }
}

static void on_control(struct ev_loop *loop, struct ev_io *io, int revents)
{
    (void)revents;
    struct gw_message message;
    int got = 1;
    while (ev_is_active(io) && (got = gw_control_receive(io->fd, &message)) > 0)
        obey(&message);
    if (got < 0) {
        ev_io_stop(loop, io);
        gw_log(GW_LOG_ERROR, "the master is gone");
        gw_loop_stop(&worker.loop);
    }
}

static void on_term(struct ev_loop *loop, struct ev_signal *signal, int revents)
{
    (void)loop;
    (void)signal;
    (void)revents;
    drain();
}

/* The terminal sends its signals to the whole group: those are for the master to act on. */
static void set_signals(void)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ev_signal_init(&worker.term, on_term, SIGTERM);
    ev_signal_start(worker.loop.ev, &worker.term);
}

int gw_worker_run(const struct gw_worker_setup *setup)
{
    static char name[32];
    snprintf(name, sizeof name, "worker-%u", setup->number);
    gw_log_name(name);
    worker = (struct worker){.setup = setup, .handed.admin = -1, .admin.fd = -1};
    for (unsigned i = 0; i < GW_LISTENERS_MAX; i++)
        worker.traffic[i].fd = -1;
    if (!gw_loop_init(&worker.loop)) {
        gw_log(GW_LOG_ERROR, "no event loop: %m");
        return 3;
    }
    worker.env = (struct gw_script_env){.library = setup->library,
                                        .yaml = gw_yaml_parse,
                                        .worker = setup->number,
                                        .dict = setup->dict,
                                        .shared = setup->shared,
                                        .loop = &worker.loop,
                                        .aside = &worker.aside};
    gw_aside_init(&worker.aside, &worker.loop);
    set_signals();
    gw_watchdog_start();
    gw_gateway_init(&worker.gateway, &worker.loop, setup->facts, setup->number);
    worker.gateway.dict = setup->dict;
    gw_timer_init(&worker.balance, balance);
    gw_timer_init(&worker.drain_check, drain_check);
    ev_io_init(&worker.control, on_control, setup->control, EV_READ);
    ev_io_start(worker.loop.ev, &worker.control);
    gw_loop_run(&worker.loop);
    gw_aside_fini(&worker.aside);
    worker.env.aside = NULL; /* what is closed now is closed at once */
    gw_timer_stop(&worker.loop, &worker.drain_check);
    gw_timer_stop(&worker.loop, &worker.balance);
    close_traffic();
    close_door(&worker.admin);
    drop_loaded();
    gw_gateway_fini(&worker.gateway);
    gw_loop_fini(&worker.loop);
    gw_addr_fini();
    gw_watchdog_stop();
    return 0;
}
