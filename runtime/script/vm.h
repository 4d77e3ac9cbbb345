/* One Lua VM: the gateway's Lua library, one loaded program (configuration, rules, plugins), and
 * the functions of the program that C calls. A generation owns one. */
#ifndef GW_SCRIPT_VM_H
#define GW_SCRIPT_VM_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/buf.h"
#include "base/dict.h"
#include "base/heap.h"
#include "base/list.h"
#include "net/aside.h"
#include "script/library.h"

struct evp_mac_ctx_st;
struct gw_stats_slot;
struct gw_generation;
struct gw_vm;

/* What a VM is given by the process it lives in. Outlives the VM. */
struct gw_script_env {
    const struct gw_library *library;
    lua_CFunction yaml;     /* the parser of config/, which this floor may not include */
    unsigned worker;        /* from 1; 0 in the master and in -t */
    struct gw_dict *dict;   /* sessions; NULL: there are none (-t) */
    struct gw_dict *shared; /* what plugins share; NULL: each VM has one of its own */
    struct gw_loop *loop;   /* NULL in -t, and while it loads */
    struct gw_aside *aside; /* for closing VMs; NULL: they are closed at once */
};

/* The functions of a program, in the order of enum gw_entry. */
enum gw_entry {
    GW_ENTRY_OPEN,
    GW_ENTRY_ROUTE,
    GW_ENTRY_ACCESS,
    GW_ENTRY_BALANCE,
    GW_ENTRY_RESPONSE,
    GW_ENTRY_EVENT,
    GW_ENTRY_EVENTS,  /* many events, for a hook that takes many */
    GW_ENTRY_COMMENT, /* an event that is comments and nothing else */
    GW_ENTRY_EVENT_FAILED,
    GW_ENTRY_CLOSE,
    GW_ENTRY_SAVE,
    GW_ENTRY_ADOPT,
    GW_ENTRY_ON_RELOAD,
    GW_ENTRY_RESOLVED, /* instances of a host name */
    GW_ENTRY_LIMIT
};

/* What the files of a version held when the master read them. */
struct gw_pack {
    const char *file; /* of the configuration */
    void *bytes;      /* a mapping */
    size_t len;
};

/* Buffers for what C functions of the API put together while Lua may raise an error: one for each
 * that may be filled at the same time. What an error left in one goes at its next use. */
enum gw_scratch {
    GW_SCRATCH_JOINED,  /* the lines of an event's data */
    GW_SCRATCH_VALUE,   /* JSON on its way into an event */
    GW_SCRATCH_ENCODED, /* a text on its way into Lua */
    GW_SCRATCH_LIMIT
};

struct gw_vm {
    lua_State *L;
    struct gw_heap heap;
    size_t max_memory;                /* bytes; 0: no limit */
    int64_t run_ns;                   /* CPU time of one call; 0: no limit */
    bool eaten;                       /* somebody took too much memory and is not disposed of yet */
    bool dead;                        /* stopped by force: L may not be used any more */
    bool compiled;                    /* and its list of compiled code is in order */
    bool reviving;                    /* another one is on its way into its place */
    struct gw_generation *generation; /* whose it is; NULL while it is loaded */
    bool too_large;                   /* it died of its memory, not of its time */
    char work[128];                   /* what is being loaded */
    struct gw_pack pack;              /* what it was loaded from; bytes NULL: from disk */
    const struct gw_script_env *env;
    int entry[GW_ENTRY_LIMIT]; /* references in the registry */
    int program;               /* the same for the whole table */
    int *event_hooks;          /* the same for the lone event hooks, from 1 */
    int32_t *event_numbers;    /* and which hooks these are, see names */
    char **names;              /* of hooks, by number from 1: "plugin hook" */
    int name_count;
    int32_t running; /* the number of the one that runs; 0: none, or unknown. Written by Lua */
    int source;      /* where its files came from */
    int json_decode, json_encode; /* of gateway.json, and the metatable of its arrays */
    int json_array;
    struct gw_list idle_tasks;
    unsigned idle_count;
    unsigned tasks;           /* live ones, idle or not */
    struct gw_list own_tasks; /* of the VM: gateway.spawn, gateway.timer */
    bool serves;              /* exchanges may come: what was started while it loaded runs */
    struct gw_list calls;     /* requests of its own tasks that hold something: see api_http.c */
    unsigned uses, uses_seen;
    unsigned cycles;           /* of collection since the last use */
    struct gw_timer probation; /* until then streams may fall back to an older version */
    struct gw_timer quiet;     /* looks whether it is used any more */
    struct gw_buf scratch[GW_SCRATCH_LIMIT];
    struct gw_task *half; /* one whose making an error broke off: the next one */
    struct gw_aside_job closing;
    struct evp_mac_ctx_st *mac; /* of api_crypto.c; NULL until a hash is asked for */
};

/* A VM with the library loaded and no program yet; NULL, with the reason logged, when the library
 * can't be loaded. */
struct gw_vm *gw_vm_new(const struct gw_script_env *env);
/* Frees it, with its tasks and its pack, aside of the loop where there is one; no hook may be
 * suspended. */
void gw_vm_free(struct gw_vm *vm);
/* It is dead: gives all memory of its Lua back. Who still refers to that must forget it before. */
void gw_vm_bury(struct gw_vm *vm);

/* The number of a hook of this name, given to it if it has none; 0 when there are too many. */
int gw_vm_name_hook(struct gw_vm *vm, const char *name);

/* One of its buffers, emptied; on the loop's thread only. */
struct gw_buf *gw_vm_scratch(struct gw_vm *vm, enum gw_scratch which);

/* A hook is about to run. After the last one of a storm, garbage is collected that nobody else
 * would come to collect. */
void gw_vm_touch(struct gw_vm *vm);

/* Called with each line of an error report. */
typedef void gw_vm_report(const char *line, void *data);

/* Loads the program that pack->file describes: from disk, or from bytes made by another process
 * (then the disk is not touched). The VM owns the bytes from now on. False when there were errors;
 * all of them have been reported. */
bool gw_vm_load(struct gw_vm *vm, const struct gw_pack *pack, gw_vm_report *report, void *data);
/* A VM made and loaded from a pack, on a thread beside the loop; errors are logged. NULL: it can't
 * be, and the pack is gone. */
struct gw_vm *gw_vm_start(const struct gw_script_env *env, const struct gw_pack *pack);
/* Everything that was read, as bytes for gw_vm_load in another process. NUL-safe; lives as long as
 * the VM. NULL when it is dead. */
const char *gw_vm_pack(struct gw_vm *vm, size_t *len);
/* Calls each(path, is_dir, data) for the files and folders the program came from, also after a
 * failed load. */
void gw_vm_watch(struct gw_vm *vm, void (*each)(const char *path, bool is_dir, void *data),
                 void *data);
/* Pushes a member of the program (settings, instances) on vm->L. */
void gw_vm_push(struct gw_vm *vm, const char *member);
/* Calls a function of the library with one argument on the stack's top and gives its text:
 * gateway.config.print for --print-conf. The text is on the stack's top; NULL on an error. */
const char *gw_vm_print_conf(struct gw_vm *vm);

#endif
