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
    struct door traffic, admin;
    struct gw_timer balance, drain_check;
    uint64_t waiting_since_ms;     /* nobody accepts, though others have less to do; 0: not so */
    struct gw_generation *loading; /* waits for the addresses of its host names */
    struct gw_generation *loaded;  /* ready, not serving yet */
    int loaded_traffic, loaded_admin;
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
    struct pollfd door = {.fd = worker.traffic.fd, .events = POLLIN};
    return poll(&door, 1, 0) > 0;
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
    gw_listener_pause(&worker.traffic.listener, busy && !must_help());
    if (busy)
        gw_timer_start(&worker.loop, timer, BALANCE_MS);
    else
        worker.waiting_since_ms = 0;
}

static void accept_traffic(struct gw_listener *listener, int fd, const struct gw_addr *peer)
{
    (void)listener;
    gw_gateway_accept(&worker.gateway, fd, peer, GW_DOOR_TRAFFIC);
    if (!gw_timer_active(&worker.balance))
        balance(&worker.balance);
}

static void accept_admin(struct gw_listener *listener, int fd, const struct gw_addr *peer)
{
    (void)listener;
    gw_gateway_accept(&worker.gateway, fd, peer, GW_DOOR_ADMIN);
}

static const struct gw_listener_events traffic_events = {.on_accept = accept_traffic};
static const struct gw_listener_events admin_events = {.on_accept = accept_admin};

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
        gw_gateway_accept(&worker.gateway, fd, &peer, GW_DOOR_TRAFFIC);
        len = sizeof sa;
    }
}

static bool is_same_socket(int one, int other)
{
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_ino == b.st_ino;
}

static void open_door(struct door *door, int fd, const struct gw_listener_events *events)
{
    close_door(door);
    if (fd < 0)
        return;
    door->fd = fd;
    gw_listener_start(&door->listener, &worker.loop, fd, events, NULL);
}

static void tell(enum gw_order order, uint64_t generation)
{
    struct gw_message message = {.order = order, .generation = generation};
    if (!gw_control_send(worker.setup->control, &message))
        gw_log(GW_LOG_ERROR, "the master can't be told: %m");
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void drop_loaded(void)
{
    if (worker.loading)
        gw_generation_unref(worker.loading);
    if (worker.loaded)
        gw_generation_unref(worker.loaded);
    worker.loading = worker.loaded = NULL;
    close_fd(&worker.loaded_traffic);
    close_fd(&worker.loaded_admin);
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
    worker.loaded_traffic = message->fd_count > 1 ? message->fds[1] : -1;
    worker.loaded_admin = message->fd_count > 2 ? message->fds[2] : -1;
    *load = (struct load){.env = worker.env, .generation = message->generation};
    load->env.loop = NULL;
    load->env.aside = NULL;
    if (map_pack(pack, load)) {
        ev_io_stop(worker.loop.ev, &worker.control);
        gw_aside_run(&worker.aside, &load->job, load_program, end_load);
    } else {
        tell(GW_ORDER_FAILED, message->generation);
        drop_loaded();
    }
    close_fd(&pack);
}

static void open_doors(void)
{
    struct gw_gateway *gateway = &worker.gateway;
    gw_timer_stop(&worker.loop, &worker.drain_check);
    gateway->draining = false;
    if (!is_same_socket(worker.traffic.fd, worker.loaded_traffic))
        accept_rest(&worker.traffic);
    open_door(&worker.traffic, worker.loaded_traffic, &traffic_events);
    open_door(&worker.admin, worker.loaded_admin, &admin_events);
    worker.loaded_traffic = worker.loaded_admin = -1;
    gw_stats_enlist(gateway->stats, gateway->worker);
}

/* No new connections; those that are idle end now, and the process with the last one. */
static void finish_what_is_open(void)
{
    worker.gateway.count->alive = 0;
    gw_timer_stop(&worker.loop, &worker.balance);
    close_door(&worker.traffic);
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
    } else if (worker.loaded_traffic >= 0) {
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
    accept_rest(&worker.traffic);
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
    worker = (struct worker){.setup = setup, .loaded_traffic = -1, .loaded_admin = -1};
    worker.traffic.fd = worker.admin.fd = -1;
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
    close_door(&worker.traffic);
    close_door(&worker.admin);
    drop_loaded();
    gw_gateway_fini(&worker.gateway);
    gw_loop_fini(&worker.loop);
    gw_addr_fini();
    gw_watchdog_stop();
    return 0;
}
