/* One connected descriptor with its two buffers. Its user is a codec: it gets the bytes through
 * gw_conn_events and puts its own into `out`, then flushes. */
#ifndef GW_NET_CONN_H
#define GW_NET_CONN_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "net/addr.h"
#include "net/loop.h"
#include "net/transport.h"

struct gw_conn;

enum { GW_WARM = 3 };

/* on_open, on_drained and on_deadline may be NULL. Each may close the connection, or linger. */
struct gw_conn_events {
    /* A dialled connection is up (or a handshake done): bytes may flow. */
    void (*on_open)(struct gw_conn *conn);
    /* in has new bytes. The user consumes what it can; what it leaves stays in `in`. */
    void (*on_bytes)(struct gw_conn *conn);
    /* The peer ended its sending; what came before is in `in`. Called once. */
    void (*on_eof)(struct gw_conn *conn);
    /* out has been written out to the last byte after it had been stuck. */
    void (*on_drained)(struct gw_conn *conn);
    /* The connection failed (dial, read, write). The user must close it; no other call follows. */
    void (*on_error)(struct gw_conn *conn, enum gw_err err);
    /* The time that gw_conn_deadline gave is over. */
    void (*on_deadline)(struct gw_conn *conn);
    size_t owner_size; /* of the user, which is fetched with what gw_conn_warm names; 0: is not */
};

enum gw_conn_state {
    GW_CONN_DIALLING,
    GW_CONN_HANDSHAKE,
    GW_CONN_OPEN,
    GW_CONN_LINGER,
    GW_CONN_CLOSED
};

/* There are two of these for each stream: what only a lingering connection needs, or a dead one,
 * lies where its user was. */
struct gw_conn {
    struct ev_io io; /* its data is the loop */
    uint16_t magic;
    uint8_t warm_size[GW_WARM]; /* of what warm[] points to, in 8 bytes */
    uint8_t state;              /* enum gw_conn_state */
    uint8_t failed;             /* enum gw_err; set: broken, waits to be closed */
    bool reading : 1;           /* the user wants bytes */
    bool saw_eof : 1;
    bool reset : 1;   /* close with RST, so that a break looks like one */
    bool shut : 1;    /* no more bytes will be sent once out is empty: FIN goes then */
    bool dialled : 1; /* by us */
    bool wrote : 1;   /* bytes have gone; for the user to clear */
    bool half : 1;    /* the peer may end its sending and stay: what it sent before is wanted */
    const struct gw_transport_ops *transport;
    union {
        struct {
            const struct gw_conn_events *events;
            void *owner; /* the codec */
        };
        struct {
            uint32_t linger_ms;   /* how long the peer may do nothing */
            uint32_t linger_left; /* bytes that are still read and dropped */
            uint32_t undelivered; /* before a reset: what the peer had not got at a last look */
        };
        struct gw_grave grave;
    };
    struct gw_buf in, out;
    uint64_t write_ms;           /* loop time when bytes last went, or when out became non-empty */
    struct gw_conn_timer *timer; /* while a deadline is set */
    union {
        struct gw_addr peer;       /* of an accepted one */
        const void *warm[GW_WARM]; /* of a dialled one: see gw_conn_warm */
    };
};

enum { GW_CONN_MAGIC = 0x6e63 };

/* Takes a connected descriptor, which does not block. Reading starts with
 * gw_conn_read(conn, true). on_open comes only where the transport has a handshake; without one the
 * connection is open on return. peer may be NULL. Never NULL. */
struct gw_conn *gw_conn_accepted(struct gw_loop *loop, int fd, const struct gw_addr *peer,
                                 const struct gw_transport_ops *transport,
                                 const struct gw_conn_events *events, void *owner);
/* Starts to connect; on_open or on_error (GW_ERR_REFUSED, GW_ERR_DIAL_TIMEOUT, …) comes later from
 * the loop, never from inside this call. keepalive_s > 0 sets TCP keepalive, user_ms > 0
 * TCP_USER_TIMEOUT. NULL with *err set
 * when not even a socket could be made (descriptors used up). dial_ms 0 = no limit. */
struct gw_conn *gw_conn_dial(struct gw_loop *loop, const struct gw_addr *to, uint64_t dial_ms,
                             unsigned keepalive_s, unsigned user_ms,
                             const struct gw_transport_ops *transport,
                             const struct gw_conn_events *events, void *owner, enum gw_err *err);
/* For a connection whose peer may end its sending and stay (a tunnel's): while nothing is read,
 * only a break counts as leaving. */
void gw_conn_half(struct gw_conn *conn);
/* Starts or pauses reading. Paused, the kernel's buffer fills and the peer is slowed; its end is
 * not noticed either. Bytes left in `in` are not reported again: the user looks at them itself. */
void gw_conn_read(struct gw_conn *conn, bool on);
/* What is needed when bytes come on a dialled connection, besides its owner: fetched into the cache
 * while the kernel copies them. With thousands of streams nothing of one is there any more, and
 * waiting for each line in turn takes longer than all that is done with them. place < GW_WARM; size
 * 0: nothing more. The memory is never read, so it may be gone. */
void gw_conn_warm(struct gw_conn *conn, unsigned place, const void *memory, size_t size);
/* Sets the one deadline of the user, in place of the one before; 0 = none. Not while it is being
 * dialled: then it has a deadline of its own. */
void gw_conn_deadline(struct gw_conn *conn, uint64_t after_ms);
static inline struct gw_loop *gw_conn_loop(const struct gw_conn *conn)
{
    return conn->io.data;
}
/* Writes what is in out now; arms the write watcher when something stays. A write error comes back
 * as GW_ERR_… here and is not reported through on_error as well; out is dropped, and what the peer
 * has sent can still be read. GW_OK also when bytes stay: while out is stuck, and before the
 * connection is open, which writes it then. */
enum gw_err gw_conn_flush(struct gw_conn *conn) GW_MUST_CHECK;
/* Closes at once: the descriptor is closed, buffers are dropped, the memory is buried. With
 * conn->reset set the peer gets an RST. No event follows. */
void gw_conn_close(struct gw_conn *conn);
/* Closes in stages: out is written, then FIN is sent, then what still comes is read and dropped for
 * at most linger_ms and 256 KiB, then all is closed (an early close would make the kernel send RST
 * and destroy an answer that is still on its way). While out is stuck, linger_ms counts from the
 * last byte that went. With conn->reset set RST comes in place of FIN, as soon as the peer has got
 * all of it. No event follows. */
void gw_conn_linger(struct gw_conn *conn, uint64_t linger_ms);
/* True when the peer has closed or sent something, or it broke: looked at when an idle connection
 * is reused. */
bool gw_conn_readable(const struct gw_conn *conn);
/* Connections alive in this process (lingering ones too), for accounting and leak checks. */
size_t gw_conn_count(void);

#endif
