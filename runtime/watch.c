/* Owns one inotify instance. Called by the master. Invariant: a change is reported at most once per
 * quiet period, and never for files that are none of ours (an editor's swap files, say). */
#include "watch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/check.h"
#include "base/log.h"

enum {
    QUIET_MS = 100,
    WRITING_MS = 1000, /* a file is looked at when its writer closes it, or then */
    LINKS_MAX = 16
};

struct watched {
    struct watched *next;
    int wd;
    bool stale;   /* not asked for again, so far */
    char *folder; /* as it was given */
    char *name;   /* NULL: every *.lua in it counts */
};

struct gw_watch {
    struct gw_loop *loop;
    int fd;
    struct ev_io io;
    struct gw_timer quiet;
    struct watched *list;
    bool grown; /* something is watched that was not before */
    void (*on_change)(void *data);
    void *data;
};

enum news { NEWS_NONE, NEWS_WRITING, NEWS_CREATED, NEWS_DONE };

static bool ends_in_lua(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".lua") == 0;
}

static bool is_about(const struct watched *w, const struct inotify_event *event)
{
    if (w->wd != event->wd)
        return false;
    if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF))
        return true;
    if (!event->len)
        return false;
    return w->name ? strcmp(event->name, w->name) == 0 : ends_in_lua(event->name);
}

/* Links and folders are whole when they appear; a file still gets its text, as a rule. */
static bool is_file_of_one_name(const char *folder, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return false;
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1;
}

static enum news read_event(const struct gw_watch *watch, const struct inotify_event *event)
{
    if (event->mask & IN_Q_OVERFLOW)
        return NEWS_DONE;
    for (const struct watched *w = watch->list; w; w = w->next) {
        if (!is_about(w, event))
            continue;
        if (event->mask & IN_MODIFY)
            return NEWS_WRITING;
        if (event->mask & IN_CREATE && is_file_of_one_name(w->folder, event->name))
            return NEWS_CREATED;
        return NEWS_DONE;
    }
    return NEWS_NONE;
}

/* Sooner is left as it is unless `ms` is later. */
static void put_off(struct gw_watch *watch, uint64_t ms)
{
    bool active = gw_timer_active(&watch->quiet);
    if (!active || watch->quiet.due_ms < watch->loop->now_ms + ms)
        gw_timer_start(watch->loop, &watch->quiet, ms);
}

/* looking: the files are being read, or about to be. */
static void take(struct gw_watch *watch, enum news news, bool looking)
{
    switch (news) {
    case NEWS_NONE:
        return;
    case NEWS_WRITING: /* its end will be told: here it only keeps it from being read now */
        if (looking || gw_timer_active(&watch->quiet))
            put_off(watch, WRITING_MS);
        return;
    case NEWS_CREATED:
        put_off(watch, WRITING_MS);
        return;
    case NEWS_DONE:
        gw_timer_start(watch->loop, &watch->quiet, QUIET_MS);
    }
}

static void read_events(struct gw_watch *watch, bool looking)
{
    _Alignas(struct inotify_event) char bytes[4096];
    ssize_t n;
    while ((n = read(watch->fd, bytes, sizeof bytes)) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *event = (const void *)(bytes + at);
            take(watch, read_event(watch, event), looking);
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
}

static void on_readable(struct ev_loop *loop, struct ev_io *io, int revents)
{
    (void)loop;
    (void)revents;
    read_events(io->data, false);
}

bool gw_watch_is_quiet(struct gw_watch *watch)
{
    read_events(watch, true);
    return !gw_timer_active(&watch->quiet);
}

static void on_quiet(struct gw_timer *timer)
{
    struct gw_watch *watch = GW_CONTAINER(timer, struct gw_watch, quiet);
    if (gw_watch_is_quiet(watch))
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

static bool is_watched(const struct gw_watch *watch, int wd)
{
    const struct watched *w = watch->list;
    while (w && w->wd != wd)
        w = w->next;
    return w != NULL;
}

static void free_watched(struct watched *w)
{
    free(w->folder);
    free(w->name);
    free(w);
}

void gw_watch_begin(struct gw_watch *watch)
{
    watch->grown = false;
    for (struct watched *w = watch->list; w; w = w->next)
        w->stale = true;
}

bool gw_watch_end(struct gw_watch *watch)
{
    for (struct watched **at = &watch->list; *at;) {
        struct watched *w = *at;
        if (!w->stale) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        if (!is_watched(watch, w->wd))
            inotify_rm_watch(watch->fd, w->wd);
        free_watched(w);
    }
    return watch->grown;
}

void gw_watch_free(struct gw_watch *watch)
{
    if (!watch)
        return;
    while (watch->list) {
        struct watched *w = watch->list;
        watch->list = w->next;
        free_watched(w);
    }
    gw_timer_stop(watch->loop, &watch->quiet);
    ev_io_stop(watch->loop->ev, &watch->io);
    close(watch->fd);
    free(watch);
}

static void remember(struct gw_watch *watch, int wd, const char *folder, const char *name)
{
    for (struct watched *w = watch->list; w; w = w->next) {
        bool same_name = name && w->name ? strcmp(w->name, name) == 0 : name == w->name;
        if (w->wd == wd && same_name) {
            w->stale = false;
            return;
        }
    }
    struct watched *w = calloc(1, sizeof *w);
    GW_CHECK(w != NULL);
    *w = (struct watched){watch->list, wd, false, strdup(folder), name ? strdup(name) : NULL};
    watch->list = w;
    watch->grown = true;
}

static void watch_name(struct gw_watch *watch, const char *path);

static void watch_folder(struct gw_watch *watch, const char *folder, const char *name)
{
    uint32_t mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE |
                    IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF;
    int wd = inotify_add_watch(watch->fd, folder, mask);
    if (wd >= 0)
        remember(watch, wd, folder, name);
    else if ((errno == ENOENT || errno == ENOTDIR) && strcmp(folder, ".") != 0)
        watch_name(watch, folder); /* until it is there */
    else
        gw_log(GW_LOG_WARN, "changes in %s will not be noticed: %m", folder);
}

static void watch_name(struct gw_watch *watch, const char *path)
{
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

/* Where a path leads when its first `len` bytes name a link; what follows them stays. */
static bool follow(const char *path, size_t len, char *out, size_t cap)
{
    char link[PATH_MAX], target[PATH_MAX];
    if (len >= sizeof link)
        return false;
    memcpy(link, path, len);
    link[len] = '\0';
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n <= 0)
        return false;
    target[n] = '\0';
    char *slash = strrchr(link, '/');
    int folder_len = target[0] == '/' || !slash ? 0 : (int)(slash - link) + 1;
    return snprintf(out, cap, "%.*s%s%s", folder_len, link, target, path + len) < (int)cap;
}

/* Whoever points a link elsewhere changes all that lies behind it: each one on the way counts. */
static void watch_way(struct gw_watch *watch, const char *path, bool is_dir, unsigned links)
{
    char next[PATH_MAX];
    for (const char *at = path; at && *at && links;) {
        at = strchr(at + 1, '/');
        size_t len = at ? (size_t)(at - path) : strlen(path);
        if (!follow(path, len, next, sizeof next))
            continue;
        char *link = strndup(path, len);
        GW_CHECK(link != NULL);
        watch_name(watch, link);
        free(link);
        watch_way(watch, next, is_dir, links - 1);
        return;
    }
    if (is_dir)
        watch_folder(watch, path, NULL);
    else
        watch_name(watch, path);
}

void gw_watch_add(struct gw_watch *watch, const char *path, bool is_dir)
{
    watch_way(watch, path, is_dir, LINKS_MAX);
}

int gw_watch_fd(const struct gw_watch *watch)
{
    return watch ? watch->fd : -1;
}
