/* script_server: an origin that does on the wire exactly what a script says, for tests of what a
 * well-behaved server would never do. Run by specs, which read its log on stdout; README.md has the
 * language. Invariant: a script is checked as a whole before the first connection is accepted. */
#include "common.h"

#include <ctype.h>
#include <errno.h>
#include <ev.h>
#include <getopt.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_DEPTH     8
#define STEPS_PER_RUN 1000        /* a script that loops lets others have their turn */
#define LOG_MAX       (16 * 1024) /* bytes of one receipt that are logged */
#define OUT_HIGH      (256 * 1024)

enum verb {
    VERB_EXPECT,
    VERB_EXPECT_HEAD,
    VERB_EXPECT_BYTES,
    VERB_SEND,
    VERB_SEND_FILE,
    VERB_CHUNK,
    VERB_FILL,
    VERB_SPLIT,
    VERB_WAIT,
    VERB_LOG,
    VERB_REPEAT,
    VERB_END,
    VERB_DEAF,
    VERB_HEAR,
    VERB_QUIET,
    VERB_REFUSE,
    VERB_ACCEPT,
    VERB_HOLD,
    VERB_SHUTDOWN,
    VERB_CLOSE,
    VERB_RESET,
};

struct op {
    enum verb verb;
    int line;
    uint64_t number; /* a count, milliseconds, or 0 for a repeat without end */
    uint64_t pause_ms;
    struct ts_buf text;
    bool is_regex; /* by GNU's functions, which search bytes; POSIX has only strings */
    struct re_pattern_buffer regex;
    struct re_registers match_at;
    size_t match; /* of repeat and end: the index of the other */
};

/* The operations of `connection K`, K = 0 for `connection *`. */
struct section {
    uint64_t connection;
    size_t first, count;
};

static struct {
    struct op *ops;
    size_t ops_len;
    struct section *sections;
    size_t sections_len;
} script;

/* What became of an operation: it is done; it is not, and goes on when what it made is sent, when
 * its timer runs out, or when the peer did something; or the connection is gone. */
enum outcome { NEXT, AGAIN, WAIT, GONE };

struct conn {
    ev_io io;
    ev_timer timer;
    int fd;
    uint64_t number;
    size_t pc, end;
    struct {
        size_t start;
        uint64_t left; /* rounds to go; 0 = no end */
    } loops[MAX_DEPTH];
    unsigned depth;
    size_t progress; /* bytes of a split or a fill that were made */
    bool waiting;    /* the timer of a `wait` was started */
    bool deaf, quiet;
    bool eof, broken; /* what the peer did */
    struct ts_buf in, out;
};

static struct ev_loop *loop;
static ev_io accept_io;
static int listen_fd;
static const char *listen_host = "127.0.0.1";
static int listen_port;
static uint64_t accepted;

/* Reading the script. */

static const char *script_name;

__attribute__((noreturn, format(printf, 2, 3))) static void fail(int line, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: ", script_name, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t");
}

static int hex_value(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c ? strchr(digits, tolower((unsigned char)c)) : NULL;

    return found ? (int)(found - digits) : -1;
}

/* One escape behind a backslash; returns what follows it. */
static const char *parse_escape(int line, const char *text, struct ts_buf *out)
{
    static const char names[] = "nrt0\\\"e/", values[] = "\n\r\t\0\\\"\033/";
    const char *found = *text ? strchr(names, *text) : NULL;
    char byte;

    if (*text == 'x') {
        int high = hex_value(text[1]);
        int low = high >= 0 ? hex_value(text[2]) : -1;
        if (low < 0)
            fail(line, "\\x needs two hexadecimal digits");
        byte = (char)(high * 16 + low);
        text += 3;
    } else if (found) {
        byte = values[found - names];
        text++;
    } else {
        fail(line, "unknown escape \\%c", *text);
    }
    ts_buf_append(out, &byte, 1);
    return text;
}

/* One or more "strings", which are joined. */
static const char *parse_strings(int line, const char *text, struct ts_buf *out)
{
    if (*text != '"')
        fail(line, "a string in double quotes is needed, not `%s`", text);
    while (*text == '"') {
        for (text++; *text != '"';) {
            if (!*text)
                fail(line, "the string is not closed");
            if (*text == '\\')
                text = parse_escape(line, text + 1, out);
            else
                ts_buf_append(out, text++, 1);
        }
        text = skip_blanks(text + 1);
    }
    return text;
}

/* "/regex/", with \/ for a slash in it. */
static const char *parse_regex(struct op *op, const char *text)
{
    struct ts_buf pattern = {0};
    const char *why;

    for (text++; *text != '/'; text++) {
        if (!*text)
            fail(op->line, "the regular expression is not closed");
        if (text[0] == '\\' && text[1] == '/')
            text++;
        ts_buf_append(&pattern, text, 1);
    }
    re_syntax_options = RE_SYNTAX_POSIX_EXTENDED;
    why = re_compile_pattern(pattern.data, pattern.len, &op->regex);
    if (why)
        fail(op->line, "/%.*s/: %s", (int)pattern.len, pattern.data, why);
    op->is_regex = true;
    ts_buf_fini(&pattern);
    return skip_blanks(text + 1);
}

static const char *parse_pattern(struct op *op, const char *text)
{
    return *text == '/' ? parse_regex(op, text) : parse_strings(op->line, text, &op->text);
}

static const char *parse_count(int line, const char *text, uint64_t *out)
{
    char word[24];
    size_t n = strcspn(text, " \t");

    snprintf(word, sizeof word, "%.*s", (int)n, text);
    if (n >= sizeof word || !ts_parse_u64(word, out))
        fail(line, "a number is needed, not `%.*s`", (int)n, text);
    return skip_blanks(text + n);
}

/* 50ms or 2s */
static const char *parse_time(int line, const char *text, uint64_t *ms)
{
    size_t digits = strspn(text, "0123456789");
    size_t n = strcspn(text, " \t");
    bool is_ms = strncmp(text + digits, "ms", n - digits) == 0 && n - digits == 2;
    bool is_s = n - digits == 1 && text[digits] == 's';

    if (digits == 0 || digits > 9 || !(is_ms || is_s))
        fail(line, "a time like 50ms or 2s is needed, not `%.*s`", (int)n, text);
    *ms = strtoull(text, NULL, 10) * (is_s ? 1000 : 1);
    return skip_blanks(text + n);
}

static const char *parse_file(struct op *op, const char *text)
{
    if (strcmp(text, "-") == 0 || !ts_buf_read_file(&op->text, text))
        fail(op->line, "cannot read %s: %s", text, strerror(errno));
    return text + strlen(text);
}

/* What stands behind the verb. The text after a number of milliseconds is optional. */
static const char *parse_operands(struct op *op, const char *text)
{
    switch (op->verb) {
    case VERB_EXPECT:
        return parse_pattern(op, text);
    case VERB_SEND:
    case VERB_CHUNK:
    case VERB_LOG:
        return parse_strings(op->line, text, &op->text);
    case VERB_SEND_FILE:
        return parse_file(op, text);
    case VERB_EXPECT_BYTES:
    case VERB_FILL:
        return parse_count(op->line, text, &op->number);
    case VERB_WAIT:
        return parse_time(op->line, text, &op->number);
    case VERB_SPLIT:
        text = parse_count(op->line, text, &op->number);
        if (op->number == 0)
            fail(op->line, "split needs pieces of one byte or more");
        op->pause_ms = 1;
        if (*text != '"')
            text = parse_time(op->line, text, &op->pause_ms);
        return parse_strings(op->line, text, &op->text);
    case VERB_REPEAT:
        if (strcmp(text, "*") == 0)
            return text + 1;
        text = parse_count(op->line, text, &op->number);
        if (op->number == 0)
            fail(op->line, "repeat needs 1 or more, or *");
        return text;
    default:
        return text;
    }
}

static bool find_verb(const char *word, size_t n, enum verb *verb)
{
    static const char *const names[] = {
        [VERB_EXPECT] = "expect",
        [VERB_EXPECT_HEAD] = "expect_head",
        [VERB_EXPECT_BYTES] = "expect_bytes",
        [VERB_SEND] = "send",
        [VERB_SEND_FILE] = "send_file",
        [VERB_CHUNK] = "chunk",
        [VERB_FILL] = "fill",
        [VERB_SPLIT] = "split",
        [VERB_WAIT] = "wait",
        [VERB_LOG] = "log",
        [VERB_REPEAT] = "repeat",
        [VERB_END] = "end",
        [VERB_DEAF] = "deaf",
        [VERB_HEAR] = "hear",
        [VERB_QUIET] = "quiet",
        [VERB_REFUSE] = "refuse",
        [VERB_ACCEPT] = "accept",
        [VERB_HOLD] = "hold",
        [VERB_SHUTDOWN] = "shutdown",
        [VERB_CLOSE] = "close",
        [VERB_RESET] = "reset",
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == n && strncmp(names[i], word, n) == 0) {
            *verb = (enum verb)i;
            return true;
        }
    return false;
}

static void *grow(void *array, size_t len, size_t size)
{
    if ((len & (len - 1)) != 0)
        return array;
    array = realloc(array, (len ? len * 2 : 1) * size);
    if (!array)
        abort();
    return array;
}

static void begin_section(uint64_t connection)
{
    script.sections = grow(script.sections, script.sections_len, sizeof *script.sections);
    script.sections[script.sections_len++] =
        (struct section){.connection = connection, .first = script.ops_len};
}

static struct section *find_section(uint64_t connection)
{
    for (size_t i = 0; i < script.sections_len; i++)
        if (script.sections[i].connection == connection)
            return &script.sections[i];
    return NULL;
}

static void parse_section(int line, const char *text)
{
    uint64_t connection = 0;

    if (strcmp(text, "*") != 0) {
        if (*parse_count(line, text, &connection) || connection == 0)
            fail(line, "`connection` needs a number from 1 up, or *");
    }
    if (find_section(connection))
        fail(line, "there is a section `connection %s` already", text);
    begin_section(connection);
}

/* Finds the repeat that an end closes, or that is still open when the section ends (end NULL). */
static void close_repeat(struct section *section, struct op *end, int line)
{
    size_t i = section->first + section->count;

    while (i-- > section->first) {
        struct op *op = &script.ops[i];
        if (op->verb != VERB_REPEAT || op->match != 0)
            continue;
        if (!end)
            fail(op->line, "this repeat has no end");
        op->match = section->first + section->count;
        end->match = i;
        return;
    }
    if (end)
        fail(line, "this end has no repeat");
}

static void check_depth(const struct section *section, int line)
{
    int depth = 0;

    for (size_t i = section->first; i < section->first + section->count; i++) {
        depth += script.ops[i].verb == VERB_REPEAT;
        depth -= script.ops[i].verb == VERB_END;
        if (depth > MAX_DEPTH)
            fail(line, "repeats are nested deeper than %d", MAX_DEPTH);
    }
}

static void parse_op(int line, const char *text)
{
    size_t n = strcspn(text, " \t");
    struct op op = {.line = line};

    if (!find_verb(text, n, &op.verb))
        fail(line, "unknown word `%.*s`", (int)n, text);
    const char *rest = parse_operands(&op, skip_blanks(text + n));
    if (*rest && *rest != '#')
        fail(line, "`%s` is too much here", rest);
    if (script.sections_len == 0)
        begin_section(0);
    struct section *section = &script.sections[script.sections_len - 1];
    if (op.verb == VERB_END)
        close_repeat(section, &op, line);
    script.ops = grow(script.ops, script.ops_len, sizeof op);
    script.ops[script.ops_len++] = op;
    section->count++;
    check_depth(section, line);
}

static void parse_script(char *text)
{
    int line = 0;

    for (char *rest = text, *start; (start = strsep(&rest, "\n"));) {
        char *last = start + strlen(start);
        while (last > start && isspace((unsigned char)last[-1]))
            *--last = '\0';
        const char *word = skip_blanks(start);
        line++;
        if (!*word || *word == '#')
            continue;
        if (strncmp(word, "connection", 10) == 0 && strchr(" \t", word[10]))
            parse_section(line, skip_blanks(word + 10));
        else
            parse_op(line, word);
    }
    for (size_t i = 0; i < script.sections_len; i++)
        close_repeat(&script.sections[i], NULL, line);
}

/* Playing it. */

static void log_bytes(const struct conn *c, const char *what, const char *bytes, size_t n)
{
    printf("%s %lu ", what, c->number);
    for (size_t i = 0; i < n && i < LOG_MAX; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte == '\r')
            fputs("\\r", stdout);
        else if (byte == '\n')
            fputs("\\n", stdout);
        else if (byte == '\\')
            fputs("\\\\", stdout);
        else if (byte < 0x20 || byte >= 0x7f)
            printf("\\x%02x", byte);
        else
            putchar(byte);
    }
    if (n > LOG_MAX)
        printf(" +%zu", n - LOG_MAX);
    putchar('\n');
}

static void conn_close(struct conn *c, bool reset)
{
    ev_io_stop(loop, &c->io);
    ev_timer_stop(loop, &c->timer);
    if (reset)
        ts_close_reset(c->fd);
    else
        close(c->fd);
    printf("closed %lu\n", c->number);
    ts_buf_fini(&c->in);
    ts_buf_fini(&c->out);
    free(c);
}

static enum outcome start_timer(struct conn *c, uint64_t ms)
{
    ev_timer_stop(loop, &c->timer);
    ev_timer_set(&c->timer, (double)ms / 1000, 0);
    ev_timer_start(loop, &c->timer);
    return WAIT;
}

/* Where what is expected ends in the input, or -1. */
static ssize_t find_expected(const struct conn *c, struct op *op)
{
    const char *found;

    if (op->verb == VERB_EXPECT_BYTES)
        return c->in.len >= op->number ? (ssize_t)op->number : -1;
    if (c->in.len == 0)
        return -1;
    if (op->is_regex) {
        regoff_t n = (regoff_t)c->in.len;
        bool fits = re_search(&op->regex, c->in.data, n, 0, n, &op->match_at) >= 0;
        return fits ? op->match_at.end[0] : -1;
    }
    if (op->verb == VERB_EXPECT_HEAD) {
        found = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
        return found ? found + 4 - c->in.data : -1;
    }
    found = memmem(c->in.data, c->in.len, op->text.data, op->text.len);
    return found ? found + op->text.len - c->in.data : -1;
}

static enum outcome op_expect(struct conn *c, struct op *op)
{
    ssize_t end = find_expected(c, op);

    if (end >= 0) {
        ts_buf_consume(&c->in, (size_t)end);
        return NEXT;
    }
    if (!c->eof)
        return WAIT;
    printf("unmet %lu line %d\n", c->number, op->line);
    conn_close(c, false);
    return GONE;
}

static void op_chunk(struct conn *c, const struct op *op)
{
    ts_buf_printf(&c->out, "%zx\r\n", op->text.len);
    ts_buf_append(&c->out, op->text.data, op->text.len);
    ts_buf_puts(&c->out, "\r\n");
}

static enum outcome op_fill(struct conn *c, const struct op *op)
{
    size_t left = op->number - c->progress;
    size_t n = left < OUT_HIGH ? left : OUT_HIGH;

    ts_buf_fill(&c->out, 'x', n);
    c->progress += n;
    if (c->progress < op->number)
        return AGAIN;
    c->progress = 0;
    return NEXT;
}

static enum outcome op_split(struct conn *c, const struct op *op)
{
    size_t left = op->text.len - c->progress;
    size_t n = left < op->number ? left : op->number;

    ts_buf_append(&c->out, op->text.data + c->progress, n);
    c->progress += n;
    if (c->progress < op->text.len)
        return start_timer(c, op->pause_ms);
    c->progress = 0;
    return NEXT;
}

static enum outcome op_wait(struct conn *c, const struct op *op)
{
    c->waiting = !c->waiting;
    return c->waiting ? start_timer(c, op->number) : NEXT;
}

static void op_repeat(struct conn *c, const struct op *op)
{
    c->loops[c->depth].start = c->pc;
    c->loops[c->depth++].left = op->number;
}

static void op_end(struct conn *c)
{
    uint64_t *left = &c->loops[c->depth - 1].left;

    if (*left == 1)
        c->depth--;
    else
        c->pc = c->loops[c->depth - 1].start;
    if (*left > 1)
        (*left)--;
}

/* Whether this server can be connected to at all. */
static void set_listening(bool on)
{
    if (on == (listen_fd >= 0))
        return;
    if (on) {
        listen_fd = ts_listen(listen_host, &listen_port);
        if (listen_fd < 0) {
            fprintf(stderr, "script_server: cannot listen again: %s\n", strerror(errno));
            exit(3);
        }
        ev_io_set(&accept_io, listen_fd, EV_READ);
        ev_io_start(loop, &accept_io);
    } else {
        ev_io_stop(loop, &accept_io);
        close(listen_fd);
        listen_fd = -1;
    }
}

static enum outcome op_leave(struct conn *c, const struct op *op)
{
    if (op->verb == VERB_HOLD) {
        ts_buf_consume(&c->in, c->in.len);
        return c->eof ? NEXT : WAIT;
    }
    if (op->verb == VERB_SHUTDOWN) {
        shutdown(c->fd, SHUT_WR);
        return NEXT;
    }
    conn_close(c, op->verb == VERB_RESET);
    return GONE;
}

static enum outcome op_run(struct conn *c, struct op *op)
{
    switch (op->verb) {
    case VERB_EXPECT:
    case VERB_EXPECT_HEAD:
    case VERB_EXPECT_BYTES:
        return op_expect(c, op);
    case VERB_SEND:
    case VERB_SEND_FILE:
        ts_buf_append(&c->out, op->text.data, op->text.len);
        break;
    case VERB_CHUNK:
        op_chunk(c, op);
        break;
    case VERB_FILL:
        return op_fill(c, op);
    case VERB_SPLIT:
        return op_split(c, op);
    case VERB_WAIT:
        return op_wait(c, op);
    case VERB_LOG:
        log_bytes(c, "log", op->text.data, op->text.len);
        break;
    case VERB_REPEAT:
        op_repeat(c, op);
        break;
    case VERB_END:
        op_end(c);
        break;
    case VERB_DEAF:
    case VERB_HEAR:
        c->deaf = op->verb == VERB_DEAF;
        break;
    case VERB_QUIET:
        c->quiet = true;
        break;
    case VERB_REFUSE:
    case VERB_ACCEPT:
        set_listening(op->verb == VERB_ACCEPT);
        break;
    default:
        return op_leave(c, op);
    }
    return NEXT;
}

/* Sends what waits; true when all of it went. */
static bool conn_flush(struct conn *c)
{
    if (ts_send(c->fd, &c->out))
        return c->out.len == 0;
    printf("broken %lu\n", c->number);
    c->broken = true;
    return false;
}

static void conn_watch(struct conn *c)
{
    int want = 0;

    if (!c->deaf && !c->eof)
        want |= EV_READ;
    if (c->out.len > 0)
        want |= EV_WRITE;
    if (want == (c->io.events & (EV_READ | EV_WRITE)))
        return;
    ev_io_stop(loop, &c->io);
    ev_io_set(&c->io, c->fd, want);
    ev_io_start(loop, &c->io);
}

/* Plays on until the script waits for something or has had its turn. False: connection gone. */
static bool conn_play(struct conn *c)
{
    enum outcome outcome = NEXT;

    for (int steps = 0; outcome <= AGAIN; steps++) {
        if (!conn_flush(c))
            return true;
        if (c->pc == c->end) {
            conn_close(c, false);
            return false;
        }
        if (steps == STEPS_PER_RUN) {
            start_timer(c, 0);
            return true;
        }
        outcome = op_run(c, &script.ops[c->pc++]);
        if (outcome == GONE)
            return false;
        if (outcome != NEXT)
            c->pc--;
    }
    conn_flush(c);
    return true;
}

/* A running timer means that the operation at hand waits for nothing else. */
static void conn_run(struct conn *c)
{
    if (!c->broken && ev_is_active(&c->timer))
        conn_flush(c);
    else if (!c->broken && !conn_play(c))
        return;
    if (c->broken)
        conn_close(c, false);
    else
        conn_watch(c);
}

static void on_timer(struct ev_loop *l, ev_timer *w, int revents)
{
    (void)l;
    (void)revents;
    conn_run(w->data);
}

static void conn_read(struct conn *c)
{
    static char block[64 * 1024];
    ssize_t n = recv(c->fd, block, sizeof block, 0);

    if (n > 0) {
        ts_buf_append(&c->in, block, (size_t)n);
        if (!c->quiet)
            log_bytes(c, "recv", block, (size_t)n);
    } else if (n == 0) {
        printf("eof %lu\n", c->number);
        c->eof = true;
    } else if (errno != EAGAIN && errno != EINTR) {
        printf("reset %lu\n", c->number);
        c->broken = true;
    }
}

static void on_io(struct ev_loop *l, ev_io *w, int revents)
{
    struct conn *c = w->data;

    (void)l;
    if (revents & EV_READ)
        conn_read(c);
    conn_run(c);
}

/* The section that is for this connection alone, or the one for all. */
static const struct section *section_of(uint64_t number)
{
    const struct section *own = find_section(number);

    return own ? own : find_section(0);
}

static void conn_new(int fd)
{
    struct conn *c = calloc(1, sizeof *c);

    if (!c)
        abort();
    c->fd = fd;
    c->number = ++accepted;
    const struct section *section = section_of(c->number);
    if (section) {
        c->pc = section->first;
        c->end = section->first + section->count;
    }
    ev_io_init(&c->io, on_io, fd, EV_READ);
    ev_init(&c->timer, on_timer);
    c->io.data = c->timer.data = c;
    ev_io_start(loop, &c->io);
    printf("accept %lu\n", c->number);
    conn_run(c);
}

static void on_accept(struct ev_loop *l, ev_io *w, int revents)
{
    int fd;

    (void)l;
    (void)w;
    (void)revents;
    while (listen_fd >= 0 && (fd = ts_accept(listen_fd)) >= 0)
        conn_new(fd);
}

static const char *parse_arguments(int argc, char **argv)
{
    static const struct option longs[] = {
        {"port", required_argument, NULL, 'p'},
        {"host", required_argument, NULL, 'h'},
        {0},
    };
    uint64_t number;
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 'h')
            listen_host = optarg;
        else if (c == 'p' && ts_parse_u64(optarg, &number) && number <= 65535)
            listen_port = (int)number;
        else
            break;
    }
    if (c == -1 && optind == argc - 1)
        return argv[optind];
    fputs("usage: script_server [--port N] [--host A] FILE|-\n", stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    struct ts_buf text = {0};

    ts_process_setup();
    script_name = parse_arguments(argc, argv);
    if (!ts_buf_read_file(&text, script_name)) {
        fprintf(stderr, "script_server: cannot read %s: %s\n", script_name, strerror(errno));
        return 1;
    }
    ts_buf_append(&text, "", 1);
    parse_script(text.data);
    ts_buf_fini(&text);
    loop = ev_default_loop(EVBACKEND_EPOLL);
    listen_fd = ts_listen(listen_host, &listen_port);
    if (listen_fd < 0 || !loop) {
        fprintf(stderr, "script_server: cannot listen on %s:%d: %s\n", listen_host, listen_port,
                strerror(errno));
        return 3;
    }
    ev_io_init(&accept_io, on_accept, listen_fd, EV_READ);
    ev_io_start(loop, &accept_io);
    printf("listening on %s:%d\n", listen_host, listen_port);
    ev_run(loop, 0);
    return 0;
}
