/* What moves bytes between a descriptor and a connection's buffers: tcp, later tls; fault in specs.
 */
#ifndef GW_NET_TRANSPORT_H
#define GW_NET_TRANSPORT_H

#include <stddef.h>
#include "base/err.h"

struct gw_conn;
struct gw_buf;

/* One recv per call of read: who has more is called again, after the others had their turn. A
 * transport that keeps something for each connection keeps it behind ops of that connection's own.
 */
struct gw_transport_ops {
    const char *name;
    /* GW_OK when bytes may flow, GW_AGAIN to be called again on readiness. NULL: none needed. */
    enum gw_err (*handshake)(struct gw_conn *conn);
    /* Appends at most max bytes to in. GW_OK (some came), GW_AGAIN, GW_EOF, or an error. What was
     * appended before the end or an error is delivered first. */
    enum gw_err (*read)(struct gw_conn *conn, struct gw_buf *in, size_t max);
    /* Consumes what it could write from out. GW_OK (all), GW_AGAIN (some or none), or an error. */
    enum gw_err (*write)(struct gw_conn *conn, struct gw_buf *out);
    /* EV_READ | EV_WRITE the transport itself waits for. NULL: never any. */
    int (*want)(const struct gw_conn *conn);
    /* Frees what it has kept; the descriptor is conn's. NULL: nothing to free. */
    void (*close)(struct gw_conn *conn);
};

extern const struct gw_transport_ops gw_tcp;

/* What errno of a read or write on an established connection means: GW_AGAIN, GW_ERR_RESET (the
 * peer is gone, whichever way the kernel learned it), or GW_ERR_IO. */
enum gw_err gw_transport_err(int code);

#endif
