/* Connections: a descriptor, its transport, its two buffers, and the watcher that moves bytes
 * between them. Codecs are the users; the pool and the acceptor make connections. Invariant: the
 * watcher reads only while somebody wants bytes that may still come, and writes only while bytes
 * are stuck; after gw_conn_close the user hears nothing more, and the memory stays until the end of
 * the turn, so that every function here may look at `state` after a callback. */
#include "net/conn.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/slab.h"
#include "net/departure.h"

enum { CACHE_LINE = 64, LINGER_MAX_BYTES = 256 * 1024, DELIVERY_LOOK_MS = 5, KEEPALIVE_PROBES = 3 };

static struct gw_slab conns;

size_t gw_conn_count(void)
{
    return conns.objects;
}

/* Watching. */

/* What the watcher runs for. */
static int watched(const struct gw_conn *conn)
{
    return ev_is_active(&conn->io) ? conn->io.events & (EV_READ | EV_WRITE) : 0;
}

static void watch(struct gw_conn *conn, int want)
{
    struct ev_loop *ev = gw_conn_loop(conn)->ev;

    if (want == watched(conn))
        return;
    ev_io_stop(ev, &conn->io);
    ev_io_modify(&conn->io, want);
    if (want)
        ev_io_start(ev, &conn->io);
}

static int transport_want(const struct gw_conn *conn)
{
    return conn->transport->want ? conn->transport->want(conn) : 0;
}

/* Lets the watcher follow the state. `out` is stuck whenever it is not empty here, because all ways
 * to here have tried to write it. */
static void update_watcher(struct gw_conn *conn)
{
    bool up = conn->state == GW_CONN_OPEN || conn->state == GW_CONN_LINGER;
    int want = conn->state == GW_CONN_DIALLING ? EV_WRITE : transport_want(conn);

    if (up && conn->reading && !conn->saw_eof)
        want |= EV_READ;
    if (up && !gw_buf_empty(&conn->out))
        want |= EV_WRITE;
    if (conn->failed || conn->state == GW_CONN_CLOSED)
        want = 0;
    watch(conn, want);
}

/* Deadlines, and the look at who is not read. An open stream has neither here, for hours, so what
 * they need comes and goes. */

struct gw_conn_timer {
    struct gw_timer timer;
    struct gw_conn *conn;
    struct gw_departure departure; /* watched while a client is not read */
};

static struct gw_slab timers;

/* It is kept for as long as one of its two uses lasts. */
static void drop_timer(struct gw_conn *conn)
{
    struct gw_conn_timer *timer = conn->timer;

    if (gw_timer_active(&timer->timer) || !gw_list_empty(&timer->departure.node))
        return;
    gw_slab_free(&timers, timer);
    conn->timer = NULL;
}

static void stop_timer(struct gw_conn *conn)
{
    if (!conn->timer)
        return;
    gw_timer_stop(gw_conn_loop(conn), &conn->timer->timer);
    drop_timer(conn);
}

static void out_of_time(struct gw_conn *conn);

static void on_timer(struct gw_timer *timer)
{
    struct gw_conn *conn = GW_CONTAINER(timer, struct gw_conn_timer, timer)->conn;

    stop_timer(conn);
    out_of_time(conn);
}

static void on_left(struct gw_departure *departure);

static void need_timer(struct gw_conn *conn)
{
    if (conn->timer)
        return;
    if (timers.size == 0)
        gw_slab_init(&timers, sizeof(struct gw_conn_timer));
    conn->timer = gw_slab_alloc_raw(&timers);
    conn->timer->conn = conn;
    conn->timer->departure.fd = conn->io.fd;
    conn->timer->departure.left = on_left;
    conn->timer->departure.half = conn->half;
    gw_list_init(&conn->timer->departure.node);
    gw_timer_init(&conn->timer->timer, on_timer);
}

static void start_timer(struct gw_conn *conn, uint64_t after_ms)
{
    need_timer(conn);
    gw_timer_start(gw_conn_loop(conn), &conn->timer->timer, after_ms);
}

void gw_conn_half(struct gw_conn *conn)
{
    conn->half = true;
    if (conn->timer)
        conn->timer->departure.half = true;
}

/* A client's end is looked for while it is not read. A backend's may wait: its bytes go first. */
static void watch_departure(struct gw_conn *conn)
{
    bool wanted = conn->state == GW_CONN_OPEN && !conn->dialled && !conn->reading &&
                  !conn->saw_eof && !conn->failed;
    bool watched = conn->timer && !gw_list_empty(&conn->timer->departure.node);

    if (wanted == watched)
        return;
    if (wanted) {
        need_timer(conn);
        gw_departure_watch(gw_conn_loop(conn), &conn->timer->departure);
    } else {
        gw_departure_ignore(&conn->timer->departure);
        drop_timer(conn);
    }
}

/* The end of a connection. */

static void free_conn(struct gw_grave *grave)
{
    struct gw_conn *conn = GW_CONTAINER(grave, struct gw_conn, grave);
    conn->magic = 0;
    gw_slab_free(&conns, conn);
}

void gw_conn_close(struct gw_conn *conn)
{
    GW_CHECK_MAGIC(conn, GW_CONN_MAGIC);
    if (conn->state == GW_CONN_CLOSED)
        return;
    conn->state = GW_CONN_CLOSED;
    ev_io_stop(gw_conn_loop(conn)->ev, &conn->io);
    watch_departure(conn);
    stop_timer(conn);
    if (conn->transport->close)
        conn->transport->close(conn);
    if (conn->reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(conn->io.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(conn->io.fd);
    gw_buf_clear(&conn->in);
    gw_buf_clear(&conn->out);
    gw_loop_bury(gw_conn_loop(conn), &conn->grave, free_conn);
}

/* Tells the user that the connection is broken; when nobody listens any more, closes it. */
static void fail(struct gw_conn *conn, enum gw_err err)
{
    if (conn->state == GW_CONN_LINGER) {
        gw_conn_close(conn);
        return;
    }
    conn->failed = (uint8_t)err;
    watch_departure(conn);
    stop_timer(conn);
    update_watcher(conn);
    conn->events->on_error(conn, err);
}

/* Writing. */

/* Writes as much as goes, and sends FIN behind the last byte where that was asked for. On an error
 * `out` is dropped: nothing of it can ever go. */
static enum gw_err write_out(struct gw_conn *conn)
{
    size_t before = gw_buf_len(&conn->out);
    enum gw_err err = conn->transport->write(conn, &conn->out);
    size_t went = before - gw_buf_len(&conn->out);

    conn->wrote |= went > 0;
    if (went > 0 || !(watched(conn) & EV_WRITE))
        conn->write_ms = gw_conn_loop(conn)->now_ms;
    if (err == GW_AGAIN) {
        gw_buf_compact(&conn->out);
        err = GW_OK;
    } else if (err != GW_OK) {
        gw_buf_clear(&conn->out);
    }
    if (conn->shut && err == GW_OK && gw_buf_empty(&conn->out))
        shutdown(conn->io.fd, SHUT_WR);
    update_watcher(conn);
    return err;
}

enum gw_err gw_conn_flush(struct gw_conn *conn)
{
    GW_CHECK_MAGIC(conn, GW_CONN_MAGIC);
    if (conn->failed)
        return conn->failed;
    if (conn->state != GW_CONN_OPEN)
        return conn->state == GW_CONN_CLOSED ? GW_ERR_CLOSED : GW_OK;
    /* Stuck already: the watcher writes when there is room. */
    if (watched(conn) & EV_WRITE || (gw_buf_empty(&conn->out) && !conn->shut))
        return GW_OK;
    return write_out(conn);
}

static void on_writable(struct gw_conn *conn)
{
    enum gw_err err = write_out(conn);

    if (err)
        fail(conn, err);
    else if (gw_buf_empty(&conn->out) && conn->events->on_drained)
        conn->events->on_drained(conn);
}

/* Reading. */

static void at_eof(struct gw_conn *conn)
{
    conn->saw_eof = true;
    watch_departure(conn);
    update_watcher(conn);
    conn->events->on_eof(conn);
}

/* What it has sent before is not wanted any more. */
static void on_left(struct gw_departure *departure)
{
    struct gw_conn *conn = GW_CONTAINER(departure, struct gw_conn_timer, departure)->conn;
    int code = 0;
    socklen_t len = sizeof(code);

    if (departure->broken) {
        getsockopt(conn->io.fd, SOL_SOCKET, SO_ERROR, &code, &len);
        fail(conn, code ? gw_transport_err(code) : GW_ERR_RESET);
    } else {
        at_eof(conn);
    }
    if (conn->timer)
        drop_timer(conn);
}

static void fetch(const void *memory, size_t size)
{
    uintptr_t at = (uintptr_t)memory, end = at + size;

    for (at &= ~(uintptr_t)(CACHE_LINE - 1); at < end; at += CACHE_LINE)
        __builtin_prefetch((const void *)at);
}

/* Of its own lines only the one that libev has looked at is there. */
static void warm_up(const struct gw_conn *conn)
{
    fetch(conn, sizeof(*conn));
    fetch(conn->owner, conn->events->owner_size);
    for (unsigned i = 0; i < GW_WARM && conn->warm_size[i]; i++)
        fetch(conn->warm[i], conn->warm_size[i] * 8u);
}

void gw_conn_warm(struct gw_conn *conn, unsigned place, const void *memory, size_t size)
{
    if (!conn->dialled)
        return;
    conn->warm[place] = memory;
    conn->warm_size[place] = (uint8_t)(size < 8 * UINT8_MAX ? size / 8 : UINT8_MAX);
}

static void on_readable(struct gw_conn *conn)
{
    size_t before = gw_buf_len(&conn->in);

    warm_up(conn);
    enum gw_err err = conn->transport->read(conn, &conn->in, GW_READ_SIZE);

    if (gw_buf_len(&conn->in) > before) {
        conn->events->on_bytes(conn);
        if (conn->state != GW_CONN_OPEN)
            return;
    }
    if (err == GW_EOF)
        at_eof(conn);
    else if (err != GW_OK && err != GW_AGAIN)
        fail(conn, err);
    else
        update_watcher(conn); /* the transport may want something else now */
}

void gw_conn_read(struct gw_conn *conn, bool on)
{
    GW_CHECK_MAGIC(conn, GW_CONN_MAGIC);
    if (conn->state == GW_CONN_CLOSED || conn->state == GW_CONN_LINGER)
        return;
    conn->reading = on;
    watch_departure(conn);
    update_watcher(conn);
}

void gw_conn_deadline(struct gw_conn *conn, uint64_t after_ms)
{
    GW_DEBUG_CHECK(!conn->dialled || conn->state == GW_CONN_OPEN);
    if (after_ms)
        start_timer(conn, after_ms);
    else
        stop_timer(conn);
}

bool gw_conn_readable(const struct gw_conn *conn)
{
    char byte;
    ssize_t got;

    bool alive = conn->state == GW_CONN_OPEN || conn->state == GW_CONN_HANDSHAKE;
    if (!alive || conn->failed || conn->saw_eof || !gw_buf_empty(&conn->in))
        return true;
    got = recv(conn->io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got >= 0 || (errno != EAGAIN && errno != EINTR);
}

/* Lingering. */

/* A reset destroys what the peer's kernel has not got, so it waits for that, as long as it gets
 * less. Nothing tells when it is there: we have to look. */
static void await_delivery(struct gw_conn *conn)
{
    uint64_t now_ms = gw_conn_loop(conn)->now_ms;
    int queued = 0;

    ioctl(conn->io.fd, SIOCOUTQ, &queued);
    size_t left = gw_buf_len(&conn->out) + (size_t)queued;
    if (left < conn->undelivered)
        conn->write_ms = now_ms;
    conn->undelivered = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
    if (left == 0 || now_ms >= conn->write_ms + conn->linger_ms)
        gw_conn_close(conn);
    else
        start_timer(conn, DELIVERY_LOOK_MS);
}

/* Once our end is out and the peer's end has come, nothing is left to wait for. */
static void linger_step(struct gw_conn *conn, bool progress)
{
    bool done = gw_buf_empty(&conn->out) && conn->saw_eof && !conn->reset;

    if (done || conn->linger_left == 0)
        gw_conn_close(conn);
    else if (conn->reset)
        await_delivery(conn);
    else if (progress)
        start_timer(conn, conn->linger_ms);
}

/* What the peer still sends does not renew its patience, or it could hold us for ever. */
static void linger_read(struct gw_conn *conn)
{
    enum gw_err err = conn->transport->read(conn, &conn->in, GW_READ_SIZE);

    conn->linger_left -= gw_buf_len(&conn->in) < conn->linger_left ? (uint32_t)gw_buf_len(&conn->in)
                                                                   : conn->linger_left;
    gw_buf_clear(&conn->in);
    conn->saw_eof = err == GW_EOF;
    if (err != GW_OK && err != GW_AGAIN && err != GW_EOF) {
        gw_conn_close(conn);
        return;
    }
    update_watcher(conn);
    linger_step(conn, false);
}

static void linger_write(struct gw_conn *conn)
{
    size_t before = gw_buf_len(&conn->out);

    if (write_out(conn) != GW_OK)
        gw_conn_close(conn);
    else
        linger_step(conn, gw_buf_len(&conn->out) < before);
}

void gw_conn_linger(struct gw_conn *conn, uint64_t linger_ms)
{
    GW_CHECK_MAGIC(conn, GW_CONN_MAGIC);
    if (conn->state == GW_CONN_CLOSED || conn->state == GW_CONN_LINGER)
        return;
    if (conn->state != GW_CONN_OPEN || conn->failed) {
        gw_conn_close(conn);
        return;
    }
    stop_timer(conn);
    conn->state = GW_CONN_LINGER;
    conn->shut = !conn->reset;
    conn->reading = true;
    watch_departure(conn);
    conn->linger_ms = linger_ms < UINT32_MAX ? (uint32_t)linger_ms : UINT32_MAX;
    conn->linger_left = LINGER_MAX_BYTES;
    conn->undelivered = UINT32_MAX;
    gw_buf_clear(&conn->in);
    /* Also when out is empty: FIN goes then. When it is stuck the watcher tries again. */
    if (watched(conn) & EV_WRITE)
        linger_step(conn, true);
    else if (write_out(conn) != GW_OK)
        gw_conn_close(conn);
    else
        linger_step(conn, true);
}

/* The beginning of a connection. */

static void open_conn(struct gw_conn *conn)
{
    if (conn->dialled)
        stop_timer(conn);
    conn->state = GW_CONN_OPEN;
    conn->write_ms = gw_conn_loop(conn)->now_ms;
    update_watcher(conn);
    if (conn->events->on_open)
        conn->events->on_open(conn);
    /* What was put into out while the connection was on its way up. */
    if (conn->state == GW_CONN_OPEN && !conn->failed && !gw_buf_empty(&conn->out)) {
        enum gw_err err = write_out(conn);
        if (err)
            fail(conn, err);
    }
}

static void shake_hands(struct gw_conn *conn)
{
    enum gw_err err = conn->transport->handshake ? conn->transport->handshake(conn) : GW_OK;

    if (err == GW_AGAIN)
        update_watcher(conn);
    else if (err == GW_OK)
        open_conn(conn);
    else
        fail(conn, err == GW_EOF ? GW_ERR_RESET : err);
}

/* Nothing has been sent yet, so whatever the peer or the net said is a refusal. */
static enum gw_err dial_err(int code)
{
    switch (code) {
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENOENT: /* no such socket in the file system */
    case EAGAIN: /* its backlog is full: unlike TCP, nobody says when there is room */
        return GW_ERR_REFUSED;
    case ETIMEDOUT:
        return GW_ERR_DIAL_TIMEOUT;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL: /* all ports towards this peer are taken */
        return GW_ERR_OVERLOADED;
    default:
        return GW_ERR_IO;
    }
}

static void dialled(struct gw_conn *conn)
{
    int code = 0;
    socklen_t len = sizeof(code);

    /* connect said so at once; it was kept for now. */
    if (conn->failed) {
        fail(conn, conn->failed);
        return;
    }
    getsockopt(conn->io.fd, SOL_SOCKET, SO_ERROR, &code, &len);
    if (code) {
        fail(conn, dial_err(code));
        return;
    }
    conn->state = GW_CONN_HANDSHAKE;
    shake_hands(conn);
}

/* While it is dialled or lingers a connection has a deadline of its own. */
static void out_of_time(struct gw_conn *conn)
{
    if (conn->dialled && conn->state < GW_CONN_OPEN)
        fail(conn, GW_ERR_DIAL_TIMEOUT);
    else if (conn->state != GW_CONN_LINGER)
        conn->events->on_deadline(conn);
    else if (conn->reset)
        await_delivery(conn);
    else
        gw_conn_close(conn);
}

static void try_write(struct gw_conn *conn)
{
    if (gw_buf_empty(&conn->out))
        update_watcher(conn); /* the user dropped what was stuck */
    else if (conn->state == GW_CONN_LINGER)
        linger_write(conn);
    else
        on_writable(conn);
}

static void try_read(struct gw_conn *conn)
{
    if (conn->failed || conn->saw_eof)
        return;
    if (conn->state == GW_CONN_LINGER)
        linger_read(conn);
    else if (conn->state == GW_CONN_OPEN && conn->reading)
        on_readable(conn);
}

/* A transport that waits for the other direction (TLS) gets both tried. */
static void move_bytes(struct gw_conn *conn, int revents)
{
    if (transport_want(conn) & revents)
        revents = EV_READ | EV_WRITE;
    if (revents & EV_WRITE)
        try_write(conn);
    if (revents & EV_READ)
        try_read(conn);
}

static void on_ready(struct ev_loop *ev, struct ev_io *w, int revents)
{
    struct gw_conn *conn = GW_CONTAINER(w, struct gw_conn, io);
    struct gw_loop *loop = w->data;
    (void)ev;

    GW_CHECK_MAGIC(conn, GW_CONN_MAGIC);
    if (conn->state == GW_CONN_DIALLING)
        dialled(conn);
    else if (conn->state == GW_CONN_HANDSHAKE)
        shake_hands(conn);
    else
        move_bytes(conn, revents);
    gw_loop_run_ready(loop);
}

static struct gw_conn *new_conn(struct gw_loop *loop, int fd,
                                const struct gw_transport_ops *transport,
                                const struct gw_conn_events *events, void *owner)
{
    struct gw_conn *conn;

    if (conns.size == 0)
        gw_slab_init(&conns, sizeof(struct gw_conn));
    conn = gw_slab_alloc(&conns);
    conn->magic = GW_CONN_MAGIC;
    conn->transport = transport;
    conn->events = events;
    conn->owner = owner;
    conn->write_ms = loop->now_ms;
    gw_buf_init(&conn->in);
    gw_buf_init(&conn->out);
    ev_io_init(&conn->io, on_ready, fd, 0);
    conn->io.data = loop;
    return conn;
}

struct gw_conn *gw_conn_accepted(struct gw_loop *loop, int fd, const struct gw_addr *peer,
                                 const struct gw_transport_ops *transport,
                                 const struct gw_conn_events *events, void *owner)
{
    struct gw_conn *conn = new_conn(loop, fd, transport, events, owner);

    if (peer)
        conn->peer = *peer;
    conn->state = GW_CONN_OPEN;
    if (transport->handshake) {
        conn->state = GW_CONN_HANDSHAKE;
        update_watcher(conn); /* the transport's want says what it waits for first */
    }
    return conn;
}

/* An event is to leave when it is written (accepted sockets have that from their listener). A user
 * timeout also says when keepalive gives up, so probes need not be counted then. */
static void set_options(int fd, int keepalive_s, unsigned user_ms)
{
    int on = 1, probes = KEEPALIVE_PROBES;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (user_ms)
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof(user_ms));
    if (keepalive_s <= 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive_s, sizeof(keepalive_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive_s, sizeof(keepalive_s));
    if (!user_ms)
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

/* A peer on this machine has mostly accepted before connect returns, though that says only that it
 * is on its way: asked again, it tells. What is known now is told by the loop: the caller has no
 * connection yet. */
static void start_to_connect(struct gw_conn *conn, const struct gw_addr *to)
{
    union gw_sockaddr sa;
    socklen_t len = gw_addr_get(to, &sa);
    int fd = conn->io.fd, done = connect(fd, &sa.any, len);

    if (done != 0 && errno == EINPROGRESS)
        done = connect(fd, &sa.any, len);
    conn->state = done == 0 ? GW_CONN_HANDSHAKE : GW_CONN_DIALLING;
    if (done != 0 && errno != EALREADY && errno != EINTR)
        conn->failed = (uint8_t)dial_err(errno);
    if (done == 0 || conn->failed)
        ev_feed_event(gw_conn_loop(conn)->ev, &conn->io, EV_WRITE);
}

struct gw_conn *gw_conn_dial(struct gw_loop *loop, const struct gw_addr *to, uint64_t dial_ms,
                             unsigned keepalive_s, unsigned user_ms,
                             const struct gw_transport_ops *transport,
                             const struct gw_conn_events *events, void *owner, enum gw_err *err)
{
    int fd = socket(to->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct gw_conn *conn;

    if (fd < 0) {
        *err = dial_err(errno);
        return NULL;
    }
    *err = GW_OK;
    conn = new_conn(loop, fd, transport, events, owner);
    conn->dialled = true;
    if (to->family != AF_UNIX)
        set_options(fd, (int)keepalive_s, user_ms);
    start_to_connect(conn, to);
    update_watcher(conn);
    if (dial_ms > 0 && !conn->failed)
        start_timer(conn, dial_ms);
    return conn;
}
