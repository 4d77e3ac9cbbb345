/* Owns the map of the code of this process. Called by the watchdog, also in its signal handler.
 * Invariant: it does not change after the survey. */
#include "script/code.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>

enum { MAX_RANGES = 64 };

struct range {
    uintptr_t from, to;
};

static struct range luajit, others[MAX_RANGES];
static int count = MAX_RANGES; /* of others; that many: unknown */

static bool holds(const struct range *range, uintptr_t at)
{
    return at >= range->from && at < range->to;
}

static int note_object(struct dl_phdr_info *info, size_t size, void *lua)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t from = info->dlpi_addr + part->p_vaddr;
        struct range range = {from, from + part->p_memsz};
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        if (holds(&range, (uintptr_t)lua))
            luajit = range;
        else if (count < MAX_RANGES)
            others[count++] = range;
    }
    return 0;
}

void gw_code_survey(void)
{
    count = 0;
    dl_iterate_phdr(note_object, dlsym(RTLD_DEFAULT, "lua_resume"));
    if (holds(&luajit, (uintptr_t)gw_code_survey))
        count = MAX_RANGES; /* linked into one with us: not to be told apart */
}

enum gw_code gw_code_at(uintptr_t address)
{
    if (count == MAX_RANGES)
        return GW_CODE_OTHER;
    if (holds(&luajit, address))
        return GW_CODE_LUAJIT;
    for (int i = 0; i < count; i++)
        if (holds(&others[i], address))
            return GW_CODE_OTHER;
    return GW_CODE_COMPILED;
}
