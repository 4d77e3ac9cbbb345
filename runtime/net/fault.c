/* The fault transport. Only specs use it, in place of tcp, to meet each short read and write at a
 * chosen byte. Invariant: what it lets through is what tcp moved; it makes up no bytes. */
#include "net/fault.h"

#include "base/buf.h"
#include "net/conn.h"

/* How many bytes this call may move: at most `most`; 0 with *err set when none. */
static size_t allow(struct gw_fault_side *side, size_t most, enum gw_err *err)
{
    *err = GW_OK;
    side->calls++;
    if (side->again && side->calls % 2 == 1) {
        *err = GW_AGAIN;
        return 0;
    }
    if (side->err != GW_OK && side->bytes >= side->err_after) {
        *err = side->err;
        return 0;
    }
    if (side->max > 0 && most > side->max)
        most = side->max;
    if (side->err != GW_OK && most > side->err_after - side->bytes)
        most = side->err_after - side->bytes;
    return most;
}

static struct gw_fault_plan *plan_of(const struct gw_conn *conn)
{
    return GW_CONTAINER(conn->transport, struct gw_fault_plan, ops);
}

static enum gw_err fault_read(struct gw_conn *conn, struct gw_buf *in, size_t max)
{
    struct gw_fault_plan *plan = plan_of(conn);
    size_t before = gw_buf_len(in);
    enum gw_err err = GW_OK;

    max = allow(&plan->read, max, &err);
    if (err != GW_OK)
        return err;
    err = gw_tcp.read(conn, in, max);
    plan->read.bytes += gw_buf_len(in) - before;
    return err;
}

/* Lets the first n bytes of out go. They go as a copy, so that out stays as its owner left it. */
static enum gw_err write_part(struct gw_conn *conn, struct gw_buf *out, size_t n)
{
    struct gw_buf part;
    enum gw_err err;

    gw_buf_init(&part);
    gw_buf_add(&part, gw_buf_linear(out, n));
    err = gw_tcp.write(conn, &part);
    gw_buf_consume(out, n - gw_buf_len(&part));
    gw_buf_clear(&part);
    if (err == GW_OK && !gw_buf_empty(out))
        return GW_AGAIN;
    return err;
}

static enum gw_err fault_write(struct gw_conn *conn, struct gw_buf *out)
{
    struct gw_fault_plan *plan = plan_of(conn);
    size_t before = gw_buf_len(out), n;
    enum gw_err err = GW_OK;

    n = allow(&plan->write, gw_buf_len(out), &err);
    if (err != GW_OK)
        return err;
    if (n == gw_buf_len(out))
        err = gw_tcp.write(conn, out);
    else
        err = write_part(conn, out, n);
    plan->write.bytes += before - gw_buf_len(out);
    return err;
}

static void fault_close(struct gw_conn *conn)
{
    plan_of(conn)->closes++;
}

void gw_fault_init(struct gw_fault_plan *plan)
{
    *plan = (struct gw_fault_plan){
        .ops = {.name = "fault", .read = fault_read, .write = fault_write, .close = fault_close}};
}
