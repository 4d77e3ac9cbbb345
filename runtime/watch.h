/* Notices when files of the configuration change, also when an editor writes a new file and renames
 * it: folders are watched, not files. */
#ifndef GW_WATCH_H
#define GW_WATCH_H

#include <stdbool.h>
#include "net/loop.h"

struct gw_watch;

/* on_change is called once after a burst of changes has been quiet for a moment. NULL when the
 * system has no inotify instance left. */
struct gw_watch *gw_watch_new(struct gw_loop *loop, void (*on_change)(void *data), void *data);
void gw_watch_free(struct gw_watch *watch);
/* What matters is told anew between begin and end, after it was read. What was watched before stays
 * so meanwhile: no change falls between two watches. True: something is watched that was not, and
 * may have changed since it was read. */
void gw_watch_begin(struct gw_watch *watch);
bool gw_watch_end(struct gw_watch *watch);
/* A file (its folder is watched, and the links on the way to it), or a folder in which any Lua file
 * matters. What is not there is noticed when it appears. */
void gw_watch_add(struct gw_watch *watch, const char *path, bool is_dir);
/* False: something is changing right now; on_change comes when that is over. What was read
 * meanwhile may be half of it. */
bool gw_watch_is_quiet(struct gw_watch *watch);
/* The inotify descriptor, to be closed in a child. */
int gw_watch_fd(const struct gw_watch *watch);

#endif
