/* Looks at connections that are not read, all together: libev knows no POLLRDHUP, and a watcher for
 * bytes would spin where bytes are not wanted. Called by conn.c. Invariant: while nothing is
 * watched there is no timer either, after one last look. */
#include "net/departure.h"

#include <poll.h>
#include <string.h>

enum { LOOK_MS = 500, AT_ONCE = 64 };

/* Takes some off `waiting` and puts them back among those that are watched, or into `gone`. */
static void look_at_some(struct gw_loop *loop, struct gw_list *waiting, struct gw_list *gone)
{
    struct pollfd polled[AT_ONCE];
    struct gw_list *of[AT_ONCE];
    nfds_t n = 0;
    for (; n < AT_ONCE && (of[n] = gw_list_take(waiting)); n++) {
        int fd = GW_CONTAINER(of[n], struct gw_departure, node)->fd;
        polled[n] = (struct pollfd){.fd = fd, .events = POLLRDHUP};
    }
    if (poll(polled, n, 0) < 0)
        memset(polled, 0, sizeof polled);
    for (nfds_t i = 0; i < n; i++) {
        struct gw_departure *departure = GW_CONTAINER(of[i], struct gw_departure, node);
        departure->broken = polled[i].revents & POLLERR;
        bool left = departure->half ? departure->broken : polled[i].revents != 0;
        gw_list_push(left ? gone : &loop->unread, of[i]);
    }
}

/* Who has left may take others along: those are in no list then. */
static void tell(struct gw_list *gone)
{
    for (struct gw_list *node; (node = gw_list_take(gone));) {
        struct gw_departure *departure = GW_CONTAINER(node, struct gw_departure, node);
        departure->left(departure);
    }
}

static void look(struct gw_timer *timer)
{
    struct gw_loop *loop = GW_CONTAINER(timer, struct gw_loop, unread_look);
    struct gw_list waiting, gone;
    gw_list_init(&waiting);
    gw_list_init(&gone);
    gw_list_splice(&waiting, &loop->unread);
    while (!gw_list_empty(&waiting))
        look_at_some(loop, &waiting, &gone);
    tell(&gone);
    if (!gw_list_empty(&loop->unread))
        gw_timer_start(loop, timer, LOOK_MS);
}

void gw_departure_watch(struct gw_loop *loop, struct gw_departure *departure)
{
    if (gw_list_empty(&loop->unread) && !gw_timer_active(&loop->unread_look)) {
        gw_timer_init(&loop->unread_look, look);
        gw_timer_start(loop, &loop->unread_look, LOOK_MS);
    }
    gw_list_push(&loop->unread, &departure->node);
}

void gw_departure_ignore(struct gw_departure *departure)
{
    gw_list_remove(&departure->node);
}
