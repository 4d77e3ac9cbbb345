/* Owns the bytecode of the library's modules. Made by main and by the master before it forks; used
 * by vm.c. Invariant: it does not change, so that several threads may load from it. */
#include "script/library.h"

#include <dirent.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/check.h"
#include "base/log.h"

struct module {
    char *name; /* gateway.x.y */
    char *code;
    size_t len;
};

struct gw_library {
    struct module *modules;
    unsigned count;
};

static struct module *add_module(struct gw_library *library, const char *name)
{
    size_t size = (library->count + 1) * sizeof(struct module);
    library->modules = realloc(library->modules, size);
    GW_CHECK(library->modules != NULL);
    struct module *module = &library->modules[library->count++];
    *module = (struct module){.name = strdup(name)};
    GW_CHECK(module->name != NULL);
    return module;
}

static int write_code(lua_State *L, const void *code, size_t len, void *file)
{
    (void)L;
    return fwrite(code, 1, len, file) != len;
}

/* Debug information stays: errors name file and line as if it had been loaded from there. */
static bool compile(lua_State *L, const char *path, struct module *module)
{
    if (luaL_loadfile(L, path) != 0) {
        gw_log(GW_LOG_ERROR, "lua library: %s", lua_tostring(L, -1));
        return false;
    }
    FILE *out = open_memstream(&module->code, &module->len);
    GW_CHECK(out != NULL);
    bool good = lua_dump(L, write_code, out) == 0;
    GW_CHECK(fclose(out) == 0 && good);
    lua_pop(L, 1);
    return true;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool add_folder(struct gw_library *library, lua_State *L, const char *dir, const char *name);

/* One entry of a folder: x.lua, init.lua, which has the folder's name, or a folder. */
static bool add_entry(struct gw_library *library, lua_State *L, const char *dir, const char *name,
                      const char *entry)
{
    char path[PATH_MAX], inner[PATH_MAX];
    size_t len = strlen(entry);
    bool is_lua = len > 4 && strcmp(entry + len - 4, ".lua") == 0;
    bool is_init = strcmp(entry, "init.lua") == 0;
    snprintf(path, sizeof path, "%s/%s", dir, entry);
    snprintf(inner, sizeof inner, "%s.%.*s", name, (int)(is_lua ? len - 4 : len), entry);
    if (is_lua)
        return compile(L, path, add_module(library, is_init ? name : inner));
    return add_folder(library, L, path, inner);
}

/* What is no folder has no entries. */
static bool add_folder(struct gw_library *library, lua_State *L, const char *dir, const char *name)
{
    struct dirent **entries;
    bool good = true;
    int n = scandir(dir, &entries, visible, alphasort);
    for (int i = 0; i < n; i++) {
        good = good && add_entry(library, L, dir, name, entries[i]->d_name);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return good;
}

struct gw_library *gw_library_new(const char *dir)
{
    struct gw_library *library = calloc(1, sizeof *library);
    lua_State *L = luaL_newstate();
    char path[PATH_MAX];
    GW_CHECK(library != NULL && L != NULL);
    snprintf(path, sizeof path, "%s/gateway", dir);
    bool good = add_folder(library, L, path, "gateway");
    lua_close(L);
    if (good && library->count > 0)
        return library;
    if (good)
        gw_log(GW_LOG_ERROR, "lua library: there is none in %s", path);
    gw_library_free(library);
    return NULL;
}

void gw_library_free(struct gw_library *library)
{
    if (!library)
        return;
    for (unsigned i = 0; i < library->count; i++) {
        free(library->modules[i].name);
        free(library->modules[i].code);
    }
    free(library->modules);
    free(library);
}

static int find_module(lua_State *L)
{
    const struct gw_library *library = lua_touserdata(L, lua_upvalueindex(1));
    const char *name = luaL_checkstring(L, 1);
    for (unsigned i = 0; i < library->count; i++) {
        const struct module *module = &library->modules[i];
        if (strcmp(module->name, name) != 0)
            continue;
        if (luaL_loadbuffer(L, module->code, module->len, name) != 0)
            return lua_error(L);
        return 1;
    }
    lua_pushfstring(L, "\n\tno module '%s' in the gateway's library", name);
    return 1;
}

void gw_library_use(const struct gw_library *library, lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaders");
    lua_pushlightuserdata(L, (void *)library);
    lua_pushcclosure(L, find_module, 1);
    lua_rawseti(L, -2, 2); /* in the place of what goes by package.path */
    lua_pop(L, 2);
}
