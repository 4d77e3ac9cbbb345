/* The parts of the load generator: options, what its processes share, and a client's connection. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "events.h"
#include "message.h"
#include "watch.h"

struct mode;

struct options {
    const struct mode *mode;
    const char *path, *slow_path;
    unsigned port;
    unsigned clients, processes, in_flight;
    unsigned slow;          /* so many of the clients read slowly */
    double settle, seconds; /* before the window, and the window */
    double rate;            /* requests per second; 0 = each when the last one is answered */
    struct events_rules rules;
    struct watch watch;
};

enum phase { PHASE_OPENING, PHASE_RUNNING, PHASE_MEASURING, PHASE_OVER };

/* One for each process of clients, in shared memory; the conductor adds them up at the end. */
struct share {
    atomic_uint ready; /* clients that are open */
    struct tally tally;
};

struct shared {
    atomic_int phase; /* enum phase, moved on by the conductor alone */
    struct share share[];
};

struct client {
    int fd;
    bool connecting, slow, open, busy;
    struct message message;
    struct events events;
    uint64_t since_us; /* when what it is about was due */
};

/* A process of clients. */
struct crew {
    const struct options *options;
    const struct mode *mode;
    struct shared *shared;
    struct share *share;
    int epoll, host; /* host: the last number of the loopback address to dial */
    unsigned count, dialled, in_flight;
    struct client *clients;
    uint64_t now_us, came_us; /* came: when what was read last had arrived */
    char *request;            /* of all but the slow */
    size_t request_len;
    unsigned *idle, idle_count; /* requests: connections that wait */
    double due_us;              /* requests at a rate: when the next one is */
};

/* What clients do in a mode; each is called with crew->now_us up to date. */
struct mode {
    const char *name;
    void (*on_open)(struct crew *, struct client *); /* connected, nothing sent yet */
    void (*on_bytes)(struct crew *, struct client *, const char *bytes, size_t n);
    void (*on_end)(struct crew *, struct client *); /* the peer ended, or it broke */
    void (*on_turn)(struct crew *);                 /* each turn of the loop, or NULL */
};

extern const struct mode mode_streams, mode_requests, mode_opens;

uint64_t now_us(void);
/* Dials for a client that is closed. */
void client_dial(struct crew *crew, struct client *c);
/* Closes at once, by a reset where `abort` is set. */
void client_close(struct crew *crew, struct client *c);
/* Sends a request; it is short, so it goes out whole or the client is broken. */
void client_send(struct crew *crew, struct client *c, const char *text, size_t n);
/* A fault that ends the client. */
void client_broken(struct crew *crew, struct client *c);
/* Counts a client as open. */
void client_ready(struct crew *crew, struct client *c);
/* Counts a unit that took since `since_us`, when it falls into the window. */
void crew_unit(struct crew *crew, uint64_t since_us);
/* Runs one process of clients until the phase is over. Never returns. */
_Noreturn void crew_run(struct crew *crew);

#endif
