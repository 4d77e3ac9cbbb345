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
/* Forgets what was watched; then add all that matters now. */
void gw_watch_clear(struct gw_watch *watch);
/* A file (its folder is watched), or a folder in which any Lua file matters. */
void gw_watch_add(struct gw_watch *watch, const char *path, bool is_dir);
/* The inotify descriptor, to be closed in a child. */
int gw_watch_fd(const struct gw_watch *watch);

#endif
