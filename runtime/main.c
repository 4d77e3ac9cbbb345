/* Owns the command line. Invariant: exit codes are 0 well ended, 1 the configuration is wrong, 2
 * usage, 3 it could not start. */
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/log.h"
#include "config/yaml.h"
#include "master.h"
#include "script/vm.h"

enum { EXIT_CONFIG = 1, EXIT_USAGE = 2, EXIT_START = 3 };
enum { STACK_BYTES = 127 << 20 }; /* what Linux keeps free for it at the least */

struct arguments {
    const char *file;
    bool check, print_conf;
};

static const char usage_text[] =
    "usage: gatewayd -c FILE                run in the foreground; logs on stderr\n"
    "       gatewayd -t -c FILE             check configuration, Lua routes and plugins\n"
    "       gatewayd --print-conf -c FILE   print the configuration with every default\n"
    "       gatewayd --version | --help\n";

/* -1: go on; else the exit code. */
static int parse_arguments(int argc, char **argv, struct arguments *out)
{
    static const struct option options[] = {{"print-conf", no_argument, NULL, 'p'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "c:th", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            out->file = optarg;
            break;
        case 't':
            out->check = true;
            break;
        case 'p':
            out->print_conf = true;
            break;
        case 'v':
            puts("gatewayd " GW_VERSION);
            return 0;
        case 'h':
            fputs(usage_text, stdout);
            return 0;
        default:
            fputs(usage_text, stderr);
            return EXIT_USAGE;
        }
    }
    if (out->file && optind == argc)
        return -1;
    if (optind < argc)
        fprintf(stderr, "gatewayd: what is \"%s\"?\n", argv[optind]);
    else
        fputs("gatewayd: which configuration? (-c FILE)\n", stderr);
    fputs(usage_text, stderr);
    return EXIT_USAGE;
}

static bool has_library(const char *dir)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/gateway/init.lua", dir);
    return access(path, R_OK) == 0;
}

/* The environment's word first, then the working tree, then where it was installed. */
static const char *find_library(void)
{
    static char dir[PATH_MAX + 32];
    static const char *const beside[] = {"/../lua", "/../share/gatewayd/lua"};
    char self[PATH_MAX];
    const char *told = getenv("GATEWAYD_LUA");
    if (told && *told)
        return told;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;
    for (size_t i = 0; slash && i < sizeof beside / sizeof beside[0]; i++) {
        snprintf(dir, sizeof dir, "%.*s%s", (int)(slash - self), self, beside[i]);
        if (has_library(dir))
            return dir;
    }
    return GW_SHARE "/lua";
}

static void print_error(const char *line, void *data)
{
    (void)data;
    fprintf(stderr, "%s\n", line);
}

/* -t and --print-conf: load as the master would, and go no further. */
static int inspect(const struct arguments *args, const char *lua_dir)
{
    struct gw_library *library = gw_library_new(lua_dir);
    struct gw_script_env env = {.library = library, .yaml = gw_yaml_parse};
    struct gw_vm *vm = library ? gw_vm_new(&env) : NULL;
    if (!vm) {
        gw_library_free(library);
        return EXIT_START;
    }
    int code = EXIT_CONFIG;
    if (gw_vm_load(vm, &(struct gw_pack){.file = args->file}, print_error, NULL)) {
        const char *text = args->print_conf ? gw_vm_print_conf(vm) : NULL;
        if (text)
            fputs(text, stdout);
        else if (!args->print_conf)
            printf("%s: the configuration is good\n", args->file);
        code = args->print_conf && !text ? EXIT_START : 0;
    }
    gw_vm_free(vm);
    gw_library_free(library);
    return code;
}

/* Two descriptors per stream: as many as the system allows. */
static void raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) < 0)
            gw_log(GW_LOG_WARN, "the limit of open files could not be raised: %m");
    }
}

/* Lua code can call itself by way of functions of C (string.gsub), and nobody counts the stack that
 * these take: Lua's own limit is to be met first. */
static void raise_stack(void)
{
    struct rlimit stack;
    if (getrlimit(RLIMIT_STACK, &stack) < 0 || stack.rlim_cur >= STACK_BYTES)
        return;
    stack.rlim_cur = stack.rlim_max < STACK_BYTES ? stack.rlim_max : STACK_BYTES;
    setrlimit(RLIMIT_STACK, &stack);
}

int main(int argc, char **argv)
{
    struct arguments args = {0};
    int code = parse_arguments(argc, argv, &args);
    if (code >= 0)
        return code;
    const char *lua_dir = find_library();
    raise_stack();
    if (args.check || args.print_conf)
        return inspect(&args, lua_dir);
    raise_limits();
    return gw_master_run(args.file, lua_dir);
}
