/* Log lines: logfmt or JSON, one write each, to stderr or to a file that USR1 reopens. */
#ifndef GW_BASE_LOG_H
#define GW_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include "base/slice.h"

enum gw_log_level { GW_LOG_DEBUG, GW_LOG_INFO, GW_LOG_WARN, GW_LOG_ERROR };
enum gw_log_format { GW_LOG_TEXT, GW_LOG_JSON };

/* A line under construction, on the caller's stack. */
struct gw_log_line {
    bool live; /* false: below the level, and everything is skipped */
    bool cut;  /* something did not fit */
    size_t len;
    char text[4096];
};

/* Sets what is printed; path NULL is stderr. Returns false (errno set) when the file can't be
 * opened; the old sink stays then. */
bool gw_log_setup(enum gw_log_level level, enum gw_log_format format, const char *path);
/* Opens the file again under the same name (after rotation). */
void gw_log_reopen(void);
/* The process's name in each line, such as "master" or "worker-1"; the text must outlive it. */
void gw_log_name(const char *name);
bool gw_log_enabled(enum gw_log_level level);

/* msg is a constant word or sentence: "msg=..." ; fields follow; end writes the line. A line that
 * does not fit is cut, never split, and ends in cut=true. Whatever is in a value, it stays one
 * line and one value: control bytes and invalid UTF-8 are escaped, odd bytes of a key become _. */
void gw_log_begin(struct gw_log_line *line, enum gw_log_level level, const char *msg);
void gw_log_str(struct gw_log_line *line, const char *key, struct gw_slice value);
void gw_log_cstr(struct gw_log_line *line, const char *key, const char *value);
void gw_log_int(struct gw_log_line *line, const char *key, int64_t value);
void gw_log_float(struct gw_log_line *line, const char *key, double value);
void gw_log_end(struct gw_log_line *line);

/* The short way: a formatted message and no fields. */
void gw_log(enum gw_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
