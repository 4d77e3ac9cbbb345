/* Owns one inotify instance. Called by the master. Invariant: a change is reported at most once per
 * quiet period, and never for files that are none of ours (an editor's swap files, say). */
#include "watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>
#include "base/check.h"
#include "base/log.h"

enum { QUIET_MS = 100 };

struct watched {
    struct watched *next;
    int wd;
    bool any_lua; /* every *.lua in it counts */
    char *name;   /* else this file does */
};

struct gw_watch {
    struct gw_loop *loop;
    int fd;
    struct ev_io io;
    struct gw_timer quiet;
    struct watched *list;
    void (*on_change)(void *data);
    void *data;
};

static bool ends_in_lua(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".lua") == 0;
}

static bool matters(const struct gw_watch *watch, const struct inotify_event *event)
{
    for (const struct watched *w = watch->list; w; w = w->next) {
        if (w->wd != event->wd)
            continue;
        if (w->any_lua ? event->len && ends_in_lua(event->name)
                       : event->len && strcmp(event->name, w->name) == 0)
            return true;
    }
    return (event->mask & IN_Q_OVERFLOW) != 0;
}

static void on_readable(struct ev_loop *loop, struct ev_io *io, int revents)
{
    (void)loop;
    (void)revents;
    struct gw_watch *watch = io->data;
    _Alignas(struct inotify_event) char bytes[4096];
    bool ours = false;
    ssize_t n;
    while ((n = read(watch->fd, bytes, sizeof bytes)) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *event = (const void *)(bytes + at);
            ours |= matters(watch, event);
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
    if (ours)
        gw_timer_start(watch->loop, &watch->quiet, QUIET_MS);
}

static void on_quiet(struct gw_timer *timer)
{
    struct gw_watch *watch = GW_CONTAINER(timer, struct gw_watch, quiet);
    watch->on_change(watch->data);
}

struct gw_watch *gw_watch_new(struct gw_loop *loop, void (*on_change)(void *data), void *data)
{
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct gw_watch *watch = calloc(1, sizeof *watch);
    GW_CHECK(watch != NULL);
    watch->loop = loop;
    watch->fd = fd;
    watch->on_change = on_change;
    watch->data = data;
    gw_timer_init(&watch->quiet, on_quiet);
    ev_io_init(&watch->io, on_readable, fd, EV_READ);
    watch->io.data = watch;
    ev_io_start(loop->ev, &watch->io);
    return watch;
}

void gw_watch_clear(struct gw_watch *watch)
{
    while (watch->list) {
        struct watched *w = watch->list;
        watch->list = w->next;
        inotify_rm_watch(watch->fd, w->wd);
        free(w->name);
        free(w);
    }
}

void gw_watch_free(struct gw_watch *watch)
{
    if (!watch)
        return;
    gw_watch_clear(watch);
    gw_timer_stop(watch->loop, &watch->quiet);
    ev_io_stop(watch->loop->ev, &watch->io);
    close(watch->fd);
    free(watch);
}

static void watch_folder(struct gw_watch *watch, const char *folder, const char *name)
{
    uint32_t mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE;
    int wd = inotify_add_watch(watch->fd, folder, mask | IN_MASK_ADD);
    if (wd < 0) {
        if (errno != ENOENT)
            gw_log(GW_LOG_WARN, "changes in %s will not be noticed: %m", folder);
        return;
    }
    struct watched *w = calloc(1, sizeof *w);
    GW_CHECK(w != NULL);
    *w = (struct watched){watch->list, wd, name == NULL, name ? strdup(name) : NULL};
    watch->list = w;
}

void gw_watch_add(struct gw_watch *watch, const char *path, bool is_dir)
{
    if (is_dir) {
        watch_folder(watch, path, NULL);
        return;
    }
    const char *slash = strrchr(path, '/');
    if (!slash) {
        watch_folder(watch, ".", path);
        return;
    }
    char *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    GW_CHECK(folder != NULL);
    watch_folder(watch, folder, slash + 1);
    free(folder);
}

int gw_watch_fd(const struct gw_watch *watch)
{
    return watch ? watch->fd : -1;
}
