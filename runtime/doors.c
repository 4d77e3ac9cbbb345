/* Owns the master's listening sockets and the files of those that are unix sockets. Called by
 * master.c. Invariant: a file is removed only by the process that made it, and only while it is
 * still the one that was made. */
#include "doors.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "control.h"
#include "net/listener.h"

enum { BACKLOG = 4096, RIGHTS = 0777 };

/* False where the address is none in the file system. */
static bool path_of(const struct gw_bound *bound, union gw_sockaddr *sa)
{
    gw_addr_get(&bound->addr, sa);
    return bound->addr.family == AF_UNIX;
}

static bool is_ours(const struct gw_bound *bound)
{
    union gw_sockaddr sa;
    struct stat st;
    return path_of(bound, &sa) && lstat(sa.un.sun_path, &st) == 0 && st.st_dev == bound->dev &&
           st.st_ino == bound->ino;
}

/* A socket that refuses is one that nobody listens on any more. */
static bool is_stale(const struct gw_bound *bound)
{
    union gw_sockaddr sa;
    struct stat st;
    if (!path_of(bound, &sa) || lstat(sa.un.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused = fd >= 0 && connect(fd, &sa.any, sizeof sa.un) != 0 && errno == ECONNREFUSED;
    gw_close_fd(&fd);
    return refused;
}

/* Of a unix socket: the file has its rights from its first moment on. */
static int bind_with_mode(struct gw_bound *bound)
{
    mode_t before = 0;
    if (bound->mode != GW_MODE_UNSET)
        before = umask(RIGHTS & ~bound->mode);
    int fd = gw_listener_bind(&bound->addr, BACKLOG), code = errno;
    if (bound->mode != GW_MODE_UNSET)
        umask(before);
    errno = code;
    return fd;
}

static void remember_file(struct gw_bound *bound)
{
    union gw_sockaddr sa;
    struct stat st;
    if (path_of(bound, &sa) && lstat(sa.un.sun_path, &st) == 0) {
        bound->dev = st.st_dev;
        bound->ino = st.st_ino;
    }
}

static bool bind_new(struct gw_bound *bound)
{
    union gw_sockaddr sa;
    bound->fd = bind_with_mode(bound);
    int code = errno;
    if (bound->fd < 0 && code == EADDRINUSE && is_stale(bound)) {
        path_of(bound, &sa);
        unlink(sa.un.sun_path);
        bound->fd = bind_with_mode(bound);
    } else if (bound->fd < 0) {
        errno = code;
    }
    if (bound->fd >= 0)
        remember_file(bound);
    return bound->fd >= 0;
}

static void log_listening(const struct gw_addr *addr, const char *what)
{
    char text[GW_ADDR_TEXT];
    struct gw_log_line line;
    gw_log_begin(&line, GW_LOG_INFO, "listening");
    gw_log_cstr(&line, "addr", gw_addr_text(addr, text));
    gw_log_cstr(&line, "for", what);
    gw_log_end(&line);
}

/* Whether an old socket does for an address; its port may be 0: any. */
static bool fits(const struct gw_bound *old, const struct gw_addr *wanted)
{
    struct gw_addr any = old->addr;
    if (old->fd < 0)
        return false;
    if (old->addr.family == AF_UNIX)
        return gw_addr_eq(wanted, &old->addr) && is_ours(old);
    if (wanted->port == 0)
        any.port = 0;
    return gw_addr_eq(wanted, &any);
}

/* The socket that is there already, or a new one. `taken` says which of the old ones are gone. */
static bool open_door(struct gw_bound *bound, const char *what, const struct gw_bound *old,
                      unsigned old_count, uint32_t *taken)
{
    char text[GW_ADDR_TEXT];
    for (unsigned i = 0; i < old_count; i++) {
        if (*taken & 1u << i || !fits(&old[i], &bound->addr))
            continue;
        *taken |= 1u << i;
        bound->addr = old[i].addr;
        bound->dev = old[i].dev;
        bound->ino = old[i].ino;
        bound->fd = dup(old[i].fd);
        if (bound->fd < 0)
            gw_log(GW_LOG_ERROR, "can't keep %s: %m", gw_addr_text(&bound->addr, text));
        return bound->fd >= 0;
    }
    if (!bind_new(bound))
        gw_log(GW_LOG_ERROR, "can't listen on %s (%s): %m", gw_addr_text(&bound->addr, text), what);
    else
        log_listening(&bound->addr, what);
    return bound->fd >= 0;
}

static bool prepare(struct gw_bound *bound, const struct gw_listen *wanted, const char *what)
{
    *bound =
        (struct gw_bound){.fd = -1, .mode = wanted->mode, .proxy_protocol = wanted->proxy_protocol};
    if (gw_addr_parse(&bound->addr, wanted->host, wanted->port))
        return true;
    gw_log(GW_LOG_ERROR, "%s: not an address to listen on: %s", what, wanted->host);
    return false;
}

/* Those that say their port choose first, among what is there; any free one does for the others. */
static bool open_traffic(struct gw_doors *doors, const struct gw_settings *s,
                         const struct gw_doors *old)
{
    uint32_t taken = 0;
    bool good = true;
    for (unsigned i = 0; i < s->listener_count && good; i++)
        good = prepare(&doors->traffic[doors->count++], &s->listener[i], "traffic");
    for (int any = 0; any <= 1; any++) {
        for (unsigned i = 0; i < doors->count && good; i++) {
            struct gw_bound *bound = &doors->traffic[i];
            bool wants_any = bound->addr.family != AF_UNIX && s->listener[i].port == 0;
            if (wants_any == any)
                good = open_door(bound, "traffic", old->traffic, old->count, &taken);
        }
    }
    return good;
}

bool gw_doors_bind(struct gw_doors *doors, const struct gw_settings *s, const struct gw_doors *old)
{
    uint32_t taken = 0;
    gw_doors_init(doors);
    bool good = open_traffic(doors, s, old);
    if (good && s->admin_enabled)
        good = prepare(&doors->admin, &s->admin, "management") &&
               open_door(&doors->admin, "management", &old->admin, 1, &taken);
    if (!good)
        gw_doors_leave(doors, old);
    return good;
}

static void set_mode(const struct gw_bound *bound)
{
    union gw_sockaddr sa;
    if (bound->fd >= 0 && bound->mode != GW_MODE_UNSET && is_ours(bound) && path_of(bound, &sa) &&
        chmod(sa.un.sun_path, bound->mode) != 0)
        gw_log(GW_LOG_ERROR, "can't change the rights of %s: %m", sa.un.sun_path);
}

void gw_doors_take_over(const struct gw_doors *doors, unsigned user_ms)
{
    for (unsigned i = 0; i < doors->count; i++) {
        set_mode(&doors->traffic[i]);
        if (doors->traffic[i].addr.family != AF_UNIX)
            gw_listener_user_timeout(doors->traffic[i].fd, user_ms);
    }
    set_mode(&doors->admin);
}

void gw_doors_init(struct gw_doors *doors)
{
    memset(doors, 0, sizeof *doors);
    for (unsigned i = 0; i < GW_LISTENERS_MAX; i++)
        doors->traffic[i].fd = -1;
    doors->admin.fd = -1;
}

void gw_doors_close(struct gw_doors *doors)
{
    for (unsigned i = 0; i < doors->count; i++)
        gw_close_fd(&doors->traffic[i].fd);
    gw_close_fd(&doors->admin.fd);
    doors->count = 0;
}

static bool is_of(const struct gw_bound *bound, const struct gw_doors *staying)
{
    for (unsigned i = 0; i < staying->count; i++) {
        if (staying->traffic[i].fd >= 0 && gw_addr_eq(&staying->traffic[i].addr, &bound->addr))
            return true;
    }
    return staying->admin.fd >= 0 && gw_addr_eq(&staying->admin.addr, &bound->addr);
}

static void remove_file(const struct gw_bound *bound, const struct gw_doors *staying)
{
    union gw_sockaddr sa;
    bool stays = staying && is_of(bound, staying);
    if (bound->fd >= 0 && !stays && is_ours(bound) && path_of(bound, &sa))
        unlink(sa.un.sun_path);
}

void gw_doors_leave(struct gw_doors *doors, const struct gw_doors *staying)
{
    for (unsigned i = 0; i < doors->count; i++)
        remove_file(&doors->traffic[i], staying);
    remove_file(&doors->admin, staying);
    gw_doors_close(doors);
}
