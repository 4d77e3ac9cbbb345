/* A world in memory for the C code: sockets, the clock and libev. Nothing waits, and nothing is
 * asked of the kernel. The other end of each socket is the target's to play. */
#ifndef FUZZ_SUPPORT_WORLD_H
#define FUZZ_SUPPORT_WORLD_H

#include "net/addr.h"
#include "net/loop.h"
#include "support/fuzz.h"

enum { WORLD_SOCKETS = 48, WORLD_FD = 100000 };

enum world_dial { WORLD_DIAL_OK, WORLD_DIAL_REFUSED, WORLD_DIAL_HANGS, WORLD_DIAL_LATER };

struct world_socket {
    bool used;
    bool closed;  /* by the gateway */
    bool fin;     /* the gateway has ended its sending in order */
    bool rst;     /* … or has reset it */
    bool abort;   /* close is to reset */
    bool dialled; /* by the gateway */
    bool up;
    bool peer_fin, peer_rst;
    bool silent; /* with peer_rst: it is not there any more, as TCP finds out */
    int error;   /* of the dial */
    unsigned port;
    struct fuzz_text to;   /* what the peer has sent */
    size_t lead;           /* of it, what stands in front of the first message */
    size_t to_at;          /* of it, what the gateway has read */
    struct fuzz_text from; /* what the gateway has sent */
    size_t room;           /* bytes that it may send before it is stuck */
    struct ev_io *io;
    int fed;
};

extern struct world_socket world[WORLD_SOCKETS];
extern uint64_t world_ms;
extern enum world_dial world_dial; /* what becomes of the next dials */

/* Before each input: no sockets, and the same time and random numbers again. */
void world_reset(void);
/* The gateway's end of a new connection; -1 when there are no more. */
int world_accept(void);
struct world_socket *world_of(int fd);
/* What was dialled LATER is up, or refused. */
void world_answer_dial(struct world_socket *s, bool up);
/* Turns the loop until nothing moves any more, or for so many times. */
void world_turn(struct gw_loop *loop, unsigned turns);
/* Lets time pass, in steps, turning. */
void world_pass(struct gw_loop *loop, uint64_t ms);
/* Sockets that the gateway has not closed. */
unsigned world_open(void);
/* Says what is known of them, before a check that will fail. */
void world_tell_open(void);
/* Whether all that lives in the process's accounts is gone: connections, buffers. */
void world_check_empty(const struct gw_loop *loop);

#endif
